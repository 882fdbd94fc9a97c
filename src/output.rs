//! The one owner of stdout: protocol messages, one JSON object a line.
//!
//! Whole lines are written under one lock, so a state and a log line of another thread never mix.
//! Writing blocks when the reader is slow: then nothing more is read from stdin either, which bounds
//! memory. A signal still ends the process (see [`crate::signals`]).

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::Notify;

use crate::error::Error;
use crate::limits::LOG_CHARS_MAX;

/// The level of a `LOG` message, as the protocol spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// The sync will fail.
    Error,
    /// Something unexpected; nothing is lost.
    Warn,
    /// What a user wants to read.
    Info,
    /// What a maintainer wants to read.
    Debug,
    /// Everything else.
    Trace,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

/// The verdict of `check`.
#[derive(Debug)]
pub enum ConnectionStatus {
    /// A sync will work.
    Succeeded,
    /// It will not, and this is why, for the person who filled in the form.
    Failed(String),
}

/// A handle to stdout. Clones share it.
#[derive(Clone)]
pub struct Output {
    shared: Arc<Shared>,
}

struct Shared {
    stdout: Mutex<Box<dyn Write + Send>>,
    closed: AtomicBool,
    closing: Notify,
}

impl Output {
    /// The process's stdout.
    #[expect(clippy::disallowed_methods, reason = "this is the owner of stdout")]
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// Any writer, in place of stdout.
    pub fn to(writer: Box<dyn Write + Send>) -> Self {
        Self {
            shared: Arc::new(Shared {
                stdout: Mutex::new(writer),
                closed: AtomicBool::new(false),
                closing: Notify::new(),
            }),
        }
    }

    /// Writes whole lines, each with its line end, and flushes them.
    pub fn lines(&self, lines: &[u8]) {
        if lines.is_empty() || self.is_closed() {
            return;
        }
        let mut stdout = self
            .shared
            .stdout
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if stdout
            .write_all(lines)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            // Nobody reads any more, so there is nobody to tell.
            self.shared.closed.store(true, Ordering::Release);
            self.shared.closing.notify_waiters();
        }
    }

    /// Whether the reader of stdout is gone. Nothing written after that has arrived.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Waits until a write has found out that the reader of stdout is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn closed(&self) {
        let notified = self.shared.closing.notified();
        if !self.is_closed() {
            notified.await;
        }
    }

    /// Writes a `LOG` message. A message longer than [`LOG_CHARS_MAX`] is cut.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.message(&json!({
            "type": "LOG",
            "log": {"level": level.as_str(), "message": cut(message)},
        }));
    }

    /// Writes the `CONNECTION_STATUS` message of `check`.
    pub fn connection_status(&self, status: &ConnectionStatus) {
        self.message(&match status {
            ConnectionStatus::Succeeded => {
                json!({"type": "CONNECTION_STATUS", "connectionStatus": {"status": "SUCCEEDED"}})
            }
            ConnectionStatus::Failed(message) => json!({
                "type": "CONNECTION_STATUS",
                "connectionStatus": {"status": "FAILED", "message": cut(message)},
            }),
        });
    }

    /// Writes the `TRACE` message that tells the platform why the verb failed.
    pub fn error_trace(&self, error: &Error) {
        let mut fields = json!({
            "message": cut(error.message()),
            "internal_message": cut(error.internal_message()),
            "failure_type": error.failure_type().as_str(),
        });
        if let Some(stack_trace) = error.stack_trace() {
            fields["stack_trace"] = json!(cut(stack_trace));
        }
        self.message(&json!({
            "type": "TRACE",
            "trace": {"type": "ERROR", "emitted_at": now_ms(), "error": fields},
        }));
    }

    fn message(&self, message: &serde_json::Value) {
        self.lines(format!("{message}\n").as_bytes());
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Milliseconds since the epoch.
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(LOG_CHARS_MAX)
        .map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let long = "é".repeat(LOG_CHARS_MAX + 1);
        assert_eq!(cut(&long).chars().count(), LOG_CHARS_MAX);
        assert_eq!(cut("short"), "short");
    }

    #[tokio::test]
    async fn a_gone_reader_is_noticed_once_and_quietly() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let output = Output::to(Box::new(Gone));
        assert!(!output.is_closed());
        output.log(LogLevel::Info, "x");
        output.closed().await;
        assert!(output.is_closed());
    }
}
