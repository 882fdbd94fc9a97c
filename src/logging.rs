//! `tracing` events become `LOG` messages on stdout.
//!
//! Only events of this crate are let through, at any level: the SDK's own events hold requests, with
//! their headers and records, and must never be printed.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::output::{LogLevel, Output};

/// The level that the text of `LOG_LEVEL` asks for: any case, `INFO` where it is absent or unknown.
pub fn level(text: Option<&str>) -> Level {
    match text
        .unwrap_or_default()
        .trim()
        .to_ascii_uppercase()
        .as_str()
    {
        "TRACE" | "ALL" => Level::TRACE,
        "DEBUG" => Level::DEBUG,
        "WARN" | "WARNING" => Level::WARN,
        "ERROR" | "FATAL" | "OFF" => Level::ERROR,
        _ => Level::INFO,
    }
}

/// Sends the events of this crate up to `level` to `output`, from now on and for the whole process.
/// A second call changes nothing.
pub fn start(output: Output, level: Level) {
    let subscriber = Registry::default().with(LogMessages { output, level });
    // An error here means that a subscriber is set already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct LogMessages {
    output: Output,
    level: Level,
}

impl<S: Subscriber> Layer<S> for LogMessages {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        let mut line = Line::default();
        event.record(&mut line);
        self.output.log(level, &line.text());
    }
}

/// The message of an event, and its fields behind it in brackets.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(self) -> String {
        if self.fields.is_empty() {
            self.message
        } else {
            format!("{} ({})", self.message, self.fields)
        }
    }

    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let into = if field.name() == "message" {
            &mut self.message
        } else {
            if !self.fields.is_empty() {
                self.fields.push_str(", ");
            }
            self.fields.push_str(field.name());
            self.fields.push('=');
            &mut self.fields
        };
        // Writing to a `String` cannot fail.
        let _ = into.write_fmt(value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!(level(None), Level::INFO);
        assert_eq!(level(Some("debug ")), Level::DEBUG);
        assert_eq!(level(Some("Warn")), Level::WARN);
        assert_eq!(level(Some("nonsense")), Level::INFO);
    }

    #[test]
    fn events_of_this_crate_become_log_messages_and_no_others() {
        let written = Shared::default();
        let subscriber = Registry::default().with(LogMessages {
            output: Output::to(Box::new(written.clone())),
            level: Level::INFO,
        });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(stream = "a", shards = 5, "created");
            tracing::debug!("too fine");
            tracing::error!(target: "aws_smithy_runtime", "signed headers");
        });
        assert_eq!(
            String::from_utf8(written.0.lock().unwrap().clone()).unwrap(),
            "{\"type\":\"LOG\",\"log\":{\"level\":\"INFO\",\"message\":\"created (stream=a, shards=5)\"}}\n"
        );
    }
}
