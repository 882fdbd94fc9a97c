//! A place where requests wait for the test.

use std::sync::Arc;

use tokio::sync::watch;

use super::within;

/// Where requests wait until the test lets them go on. Clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<Queue>>);

/// Who waits at a gate.
#[derive(Default)]
struct Queue {
    open: bool,
    waiting: usize,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Queue::default())))
    }

    /// Lets everyone through, from now on.
    pub(crate) fn open(&self) {
        self.0.send_modify(|queue| queue.open = true);
    }

    /// How many wait.
    pub(crate) fn held(&self) -> usize {
        self.0.borrow().waiting
    }

    /// Waits until at least `count` requests are held.
    ///
    /// # Panics
    ///
    /// If they do not come.
    pub(crate) async fn waiting(&self, count: usize) {
        let mut queue = self.0.subscribe();
        let what = format!("{count} requests at the gate");
        let held = within(&what, queue.wait_for(|queue| queue.waiting >= count)).await;
        drop(held.expect("the gate itself keeps the channel open"));
    }

    /// Waits at the gate.
    pub(super) async fn pass(&self) {
        let mut queue = self.0.subscribe();
        self.0.send_modify(|queue| queue.waiting += 1);
        // A connection that is torn down while it waits is no longer held.
        let _held = Held(self);
        let open = queue.wait_for(|queue| queue.open).await;
        drop(open.expect("the gate itself keeps the channel open"));
    }
}

/// One place in a gate's queue.
struct Held<'a>(&'a Gate);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|queue| queue.waiting -= 1);
    }
}
