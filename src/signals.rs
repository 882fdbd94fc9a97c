//! SIGTERM and SIGINT.
//!
//! A thread of its own takes the signals: it works even when every other thread is stuck, for example
//! because nobody reads stdout. The first signal asks for a shutdown. The process ends by itself when
//! that is done, and is ended by this thread when it takes too long or when a second signal comes.

use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::limits::{FAILURE_GRACE, SHUTDOWN_GRACE};

/// Time for a shutdown in the proper way, and some more.
const FORCE_AFTER: Duration = SHUTDOWN_GRACE
    .saturating_add(FAILURE_GRACE)
    .saturating_add(Duration::from_secs(2));

/// Tells that a shutdown was asked for, and by which signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    signal: watch::Receiver<Option<&'static str>>,
}

impl Shutdown {
    /// Takes SIGTERM and SIGINT from now on. Where that is not possible, they end the process at once,
    /// as they would without this.
    pub fn on_signals() -> Self {
        let (sender, signal) = watch::channel(None);
        if let Ok(signals) = Signals::new([SIGTERM, SIGINT]) {
            std::thread::spawn(move || watch_signals(signals, &sender));
        }
        Self { signal }
    }

    /// A shutdown that is asked for by `signal` instead of by the operating system.
    pub fn on(signal: watch::Receiver<Option<&'static str>>) -> Self {
        Self { signal }
    }

    /// Waits for the first signal and returns its name; waits for ever where none can come.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn requested(&mut self) -> &'static str {
        match self
            .signal
            .wait_for(Option::is_some)
            .await
            .map(|signal| *signal)
        {
            Ok(Some(name)) => name,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

fn watch_signals(mut signals: Signals, sender: &watch::Sender<Option<&'static str>>) {
    for signal in signals.forever() {
        if sender.borrow().is_some() {
            force_exit();
        }
        sender.send_replace(Some(if signal == SIGINT {
            "SIGINT"
        } else {
            "SIGTERM"
        }));
        std::thread::spawn(move || {
            std::thread::sleep(FORCE_AFTER);
            force_exit();
        });
    }
}

#[expect(clippy::exit, reason = "the last resort when a shutdown is stuck")]
fn force_exit() {
    std::process::exit(1);
}
