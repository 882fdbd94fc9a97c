//! What a run of the binary has left.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The messages a destination may write.
const TYPES: [&str; 5] = ["LOG", "SPEC", "CONNECTION_STATUS", "STATE", "TRACE"];

/// One line of stdout.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The line as it came, without its end.
    pub(crate) text: String,
    /// When it was read.
    pub(crate) at: Instant,
    /// The message. Null, if it is not JSON, or holds a number that is too large to be read.
    pub(crate) message: Value,
    /// The `type` of the message, if it has one.
    pub(crate) kind: String,
    /// Whether it had an end.
    complete: bool,
}

impl Line {
    pub(super) fn new(raw: &[u8], at: Instant) -> Self {
        let complete = raw.ends_with(b"\n");
        let text = String::from_utf8_lossy(raw.strip_suffix(b"\n").unwrap_or(raw)).into_owned();
        let message: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            kind: kind(&text),
            text,
            at,
            message,
            complete,
        }
    }

    /// Whether it is a message of this type.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// Whether it is a `LOG` of this level whose message contains `part`.
    pub(crate) fn logs(&self, level: &str, part: &str) -> bool {
        let log = &self.message["log"];
        log["level"] == level
            && log["message"]
                .as_str()
                .is_some_and(|message| message.contains(part))
    }

    /// The end of an output, for a person.
    pub(super) fn join(lines: &[Self]) -> String {
        const LINES_MAX: usize = 40;
        const CHARS_MAX: usize = 600;
        let skipped = lines.len().saturating_sub(LINES_MAX);
        let mut text = format!("... {skipped} lines\n");
        for line in &lines[skipped..] {
            text.extend(line.text.chars().take(CHARS_MAX).chain(['\n']));
        }
        text
    }
}

/// The `type` of a message, however large the numbers in it.
fn kind(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_str(text).map_or_else(|_| String::new(), |envelope: Envelope| envelope.kind)
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How the process ended, if it ended by itself.
    pub(crate) exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub(crate) signal: Option<i32>,
    /// Stdout.
    pub(crate) lines: Vec<Line>,
    /// Stderr, which has to be empty where the platform listens.
    pub(crate) stderr: String,
    /// From the start to the end of the process.
    pub(crate) elapsed: Duration,
    /// From the last line on stdout to the end of the process.
    pub(crate) lingered: Duration,
    secrets: Vec<String>,
}

impl Finished {
    pub(super) fn new(
        status: ExitStatus,
        started: Instant,
        ended: Instant,
        lines: Vec<Line>,
        stderr: &[u8],
        secrets: Vec<String>,
    ) -> Self {
        let last = lines.last().map_or(ended, |line| line.at);
        Self {
            exit_code: status.code(),
            signal: status.signal(),
            lines,
            stderr: String::from_utf8_lossy(stderr).into_owned(),
            elapsed: ended.saturating_duration_since(started),
            lingered: ended.saturating_duration_since(last),
            secrets,
        }
    }

    /// The lines of stdout, one text.
    pub(crate) fn stdout(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        lines.join("\n")
    }

    /// The messages of one type.
    pub(crate) fn messages(&self, kind: &str) -> Vec<&Value> {
        let lines = self.lines.iter().filter(|line| line.is(kind));
        lines.map(|line| &line.message).collect()
    }

    /// The lines that are states, as they came.
    pub(crate) fn states(&self) -> Vec<&str> {
        let lines = self.lines.iter().filter(|line| line.is("STATE"));
        lines.map(|line| line.text.as_str()).collect()
    }

    /// What was logged at this level, such as `WARN`.
    pub(crate) fn logs(&self, level: &str) -> Vec<&str> {
        let logs = self.lines.iter().map(|line| &line.message["log"]);
        logs.filter(|log| log["level"] == level)
            .filter_map(|log| log["message"].as_str())
            .collect()
    }

    /// The only `TRACE`: its `trace` object.
    ///
    /// # Panics
    ///
    /// If it is not the only one, or not an error.
    pub(crate) fn trace_error(&self) -> &Value {
        let traces = self.messages("TRACE");
        let [message] = traces[..] else {
            panic!("{} traces instead of one in {self}", traces.len())
        };
        let trace = &message["trace"];
        assert_eq!(trace["type"], "ERROR", "{self}");
        // Milliseconds since the epoch: seconds would be a date in January 1970.
        assert!(
            trace["emitted_at"].as_f64().is_some_and(|at| at > 1e12),
            "{self}"
        );
        assert!(
            trace["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.trim().is_empty()),
            "{self}"
        );
        trace
    }

    /// The only `CONNECTION_STATUS`: its `connectionStatus` object.
    ///
    /// # Panics
    ///
    /// If it is not the only one, or a `TRACE` came before it, or the process did not exit with 0.
    pub(crate) fn connection_status(&self) -> &Value {
        let statuses = self.messages("CONNECTION_STATUS");
        let [message] = statuses[..] else {
            panic!("{} verdicts instead of one in {self}", statuses.len())
        };
        let first = self
            .lines
            .iter()
            .find(|line| line.is("CONNECTION_STATUS") || line.is("TRACE"));
        assert!(
            first.is_some_and(|line| line.is("CONNECTION_STATUS")),
            "the verdict comes first in {self}"
        );
        assert_eq!(self.exit_code, Some(0), "{self}");
        &message["connectionStatus"]
    }

    /// The sync succeeded.
    pub(crate) fn assert_success(&self) {
        assert_eq!(self.exit_code, Some(0), "{self}");
        assert!(
            self.messages("TRACE").is_empty(),
            "an error in spite of success in {self}"
        );
    }

    /// The run failed with one error of this type, whose message for the user contains `part`.
    /// Returns the error.
    pub(crate) fn assert_failed(&self, failure_type: &str, part: &str) -> &Value {
        assert_eq!(self.exit_code, Some(1), "{self}");
        let error = &self.trace_error()["error"];
        assert_eq!(error["failure_type"], failure_type, "{self}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(
            message.contains(part),
            "{message:?} does not contain {part:?} in {self}"
        );
        error
    }

    /// The check says that all is well.
    pub(crate) fn assert_connected(&self) {
        assert_eq!(self.connection_status()["status"], "SUCCEEDED", "{self}");
    }

    /// The check says that something is wrong, in words that contain `part`.
    pub(crate) fn assert_not_connected(&self, part: &str) {
        let status = self.connection_status();
        assert_eq!(status["status"], "FAILED", "{self}");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(
            message.contains(part),
            "{message:?} does not contain {part:?} in {self}"
        );
    }

    /// Neither a secret of the configuration nor the content of a record is in the output. The
    /// content of states is. [`Self::assert_protocol`] looks for that too.
    pub(crate) fn assert_no_secrets(&self) {
        let lines = self
            .lines
            .iter()
            .filter(|line| !line.is("STATE"))
            .map(|line| &line.text);
        for text in lines.chain([&self.stderr]) {
            for secret in &self.secrets {
                assert!(!text.contains(secret), "{secret:?} is in {text}");
            }
        }
    }

    /// What the platform demands of any output, unless the test has `torn` off its end: only
    /// messages that a destination may write, one per line, and nothing on stderr.
    pub(super) fn assert_protocol(&self, torn: bool) {
        assert_eq!(self.stderr, "", "stderr of {self}");
        for (at, line) in self.lines.iter().enumerate() {
            let text = &line.text;
            let last = at + 1 == self.lines.len();
            if !line.complete {
                assert!(torn && last, "a line without an end: {text}");
                continue;
            }
            assert!(
                TYPES.contains(&line.kind.as_str()),
                "not for a destination to say: {text}"
            );
            assert!(
                text.starts_with('{') && text.ends_with('}'),
                "more than an object: {text}"
            );
            assert!(
                !line.message.is_null() || line.is("STATE"),
                "numbers that nobody can read: {text}"
            );
            assert_ne!(
                line.message["trace"]["type"], "STREAM_STATUS",
                "not for a destination to say: {text}"
            );
        }
        self.assert_no_secrets();
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            exit_code,
            signal,
            stderr,
            ..
        } = self;
        writeln!(
            formatter,
            "the run that ended with {exit_code:?}, signal {signal:?}, stderr {stderr:?}:"
        )?;
        formatter.write_str(&Line::join(&self.lines))
    }
}
