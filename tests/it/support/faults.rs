//! What the server can be told to do with one request.
//!
//! A [`Fault`] is what happens to the request (it waits, it is served in full or in part or not at
//! all) and what the client hears of it, which need not be the same thing. Each is made by a
//! constructor and refined by methods, so that a script reads as a sentence:
//!
//! ```ignore
//! kinesis.on("PutRecords", |call| match call.nth {
//!     1 => Fault::throttle([0, 3]),
//!     2 => Fault::error(500, "InternalFailure", "no").after(Duration::from_millis(20)),
//!     3 => Fault::lost_answer(),
//!     _ => Fault::pass(),
//! });
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::Call;

pub(crate) use super::gate::Gate;

/// The code of a record or request that came faster than its shard takes it.
pub(crate) const THROUGHPUT_EXCEEDED: &str = "ProvisionedThroughputExceededException";

/// Decides about each request whose body has arrived.
pub(super) type Script = Arc<dyn Fn(&Call<'_>) -> Fault + Send + Sync>;

/// Decides about each request before its body is read, of which only the operation and its number
/// are known.
pub(super) type Cutter = Arc<dyn Fn(&str, usize) -> Cut + Send + Sync>;

/// Changes an answer before it is sent.
type Tamper = Box<dyn FnOnce(&mut Value) + Send>;

/// What becomes of one request.
pub(crate) struct Fault {
    pub(super) before: Vec<Pause>,
    pub(super) deed: Deed,
    pub(super) meanwhile: Vec<Pause>,
    pub(super) answer: Answer,
    pub(super) pace: Pace,
    pub(super) then: Then,
}

/// Something to wait for.
pub(super) enum Pause {
    For(Duration),
    Until(Gate),
    Forever,
}

/// What happens to the request itself.
pub(super) enum Deed {
    /// It is carried out.
    Serve,
    /// It is carried out but for some records, which get this code and message.
    ServeBut(Refusal),
    /// Nothing. If the answer is the real one nevertheless, it is a made-up success.
    Ignore,
}

/// The records that are refused, and what is said of each.
pub(super) struct Refusal {
    /// Their positions. `None`: all.
    pub(super) positions: Option<Vec<usize>>,
    pub(super) code: String,
    /// `None`: what AWS says with the code.
    pub(super) message: Option<String>,
}

/// What the client hears.
pub(super) enum Answer {
    /// What became of the request, changed by these in turn.
    Real(Vec<Tamper>),
    /// An AWS error.
    Error {
        status: u16,
        code: String,
        message: String,
    },
    /// Any body.
    Raw {
        status: u16,
        content_type: Option<&'static str>,
        body: Vec<u8>,
    },
    /// The connection ends without an answer.
    Hangup(Hangup),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hangup {
    /// Closed in order (FIN).
    Close,
    /// Torn (RST): the client gets "connection reset by peer".
    Reset,
}

/// How an answer is sent.
pub(super) enum Pace {
    /// At once.
    Whole,
    /// Byte by byte, with this pause after each.
    Trickle(Duration),
    /// Half of it, then the connection ends.
    Half(Hangup),
}

/// What becomes of the connection after the answer.
pub(super) enum Then {
    /// It serves the next request.
    KeepAlive,
    /// It is closed, as the answer announced.
    AnnounceClose,
    /// It is closed without a word.
    CloseSilently,
    /// It looks alive, but the next request on it is answered by a reset, as after a long idle time
    /// behind a firewall.
    ResetOnReuse,
}

/// What happens to a request before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is read, and the script decides.
    Read,
    /// The connection ends unread.
    AtHead(Hangup),
    /// The connection ends after this many bytes of the body.
    AfterBytes(usize, Hangup),
    /// No byte of the body is ever read, the connection stays open.
    NeverRead,
}

impl Fault {
    fn new(deed: Deed, answer: Answer) -> Self {
        Self {
            before: Vec::new(),
            deed,
            meanwhile: Vec::new(),
            answer,
            pace: Pace::Whole,
            then: Then::KeepAlive,
        }
    }

    /// None: the request is served.
    pub(crate) fn pass() -> Self {
        Self::new(Deed::Serve, Answer::Real(Vec::new()))
    }

    /// The records at these positions are refused with this code, the others are stored.
    pub(crate) fn refuse(positions: impl IntoIterator<Item = usize>, code: &str) -> Self {
        Self::refusal(Some(positions.into_iter().collect()), code)
    }

    /// Every record of the request is refused with this code, in an answer of status 200.
    pub(crate) fn refuse_all(code: &str) -> Self {
        Self::refusal(None, code)
    }

    /// The records at these positions are throttled, in AWS's words, the others are stored.
    pub(crate) fn throttle(positions: impl IntoIterator<Item = usize>) -> Self {
        Self::refuse(positions, THROUGHPUT_EXCEEDED)
    }

    fn refusal(positions: Option<Vec<usize>>, code: &str) -> Self {
        let refusal = Refusal {
            positions,
            code: code.to_owned(),
            message: None,
        };
        Self::new(Deed::ServeBut(refusal), Answer::Real(Vec::new()))
    }

    /// Refused records get this message instead of AWS's own.
    ///
    /// # Panics
    ///
    /// If the fault refuses no records.
    pub(crate) fn saying(mut self, message: &str) -> Self {
        match &mut self.deed {
            Deed::ServeBut(refusal) => refusal.message = Some(message.to_owned()),
            Deed::Serve | Deed::Ignore => panic!("only refused records carry a message"),
        }
        self
    }

    /// The whole request fails with an AWS error. Nothing is done.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let (code, message) = (code.to_owned(), message.to_owned());
        Self::new(
            Deed::Ignore,
            Answer::Error {
                status,
                code,
                message,
            },
        )
    }

    /// A bare status without a body. Nothing is done.
    pub(crate) fn status(status: u16) -> Self {
        Self::raw(status, None, "")
    }

    /// A page as proxies send it. Nothing is done.
    pub(crate) fn html(status: u16) -> Self {
        let page =
            "<html><head><title>Oops</title></head><body><h1>Try again later</h1></body></html>";
        Self::raw(status, Some("text/html"), page)
    }

    /// Status 200 and no body. Nothing is done.
    pub(crate) fn empty() -> Self {
        Self::raw(200, Some("application/x-amz-json-1.1"), "")
    }

    /// Status 200 and a body that stops in the middle of its JSON. Nothing is done.
    pub(crate) fn broken_json() -> Self {
        let body = r#"{"FailedRecordCount":0,"Records":[{"ShardId":"shardId-0000"#;
        Self::raw(200, Some("application/x-amz-json-1.1"), body)
    }

    /// Any answer. Nothing is done.
    pub(crate) fn raw(status: u16, content_type: Option<&'static str>, body: &str) -> Self {
        let body = body.as_bytes().to_vec();
        Self::new(
            Deed::Ignore,
            Answer::Raw {
                status,
                content_type,
                body,
            },
        )
    }

    /// The request is served, then the connection closes without an answer.
    pub(crate) fn lost_answer() -> Self {
        Self::new(Deed::Serve, Answer::Hangup(Hangup::Close))
    }

    /// The request is served, then the connection is reset without an answer.
    pub(crate) fn reset_answer() -> Self {
        Self::new(Deed::Serve, Answer::Hangup(Hangup::Reset))
    }

    /// The request is read and forgotten, and the connection closes.
    pub(crate) fn lost_request() -> Self {
        Self::new(Deed::Ignore, Answer::Hangup(Hangup::Close))
    }

    /// The request is read and forgotten, and the connection is reset.
    pub(crate) fn reset_request() -> Self {
        Self::new(Deed::Ignore, Answer::Hangup(Hangup::Reset))
    }

    /// The request is read and nothing ever happens on the connection again.
    pub(crate) fn silence() -> Self {
        let mut fault = Self::pass();
        fault.before.push(Pause::Forever);
        fault
    }

    /// The request is held at the gate, and served once it is open.
    pub(crate) fn hold(gate: &Gate) -> Self {
        Self::pass().waiting_at(gate)
    }

    /// The request is served, and its answer held at the gate.
    pub(crate) fn hold_answer(gate: &Gate) -> Self {
        let mut fault = Self::pass();
        fault.meanwhile.push(Pause::Until(gate.clone()));
        fault
    }

    /// The request is served, the answer changed. See [`Self::tampered`].
    pub(crate) fn tamper(change: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        Self::pass().tampered(change)
    }

    /// The records are stored, and the answer speaks of `missing` fewer than there are.
    pub(crate) fn short_answer(missing: usize) -> Self {
        Self::tamper(move |answer| {
            let records = answer["Records"]
                .as_array_mut()
                .expect("an answer to PutRecords");
            records.truncate(records.len().saturating_sub(missing));
        })
    }

    /// The records are stored, and the answer speaks of `extra` more than there are.
    pub(crate) fn long_answer(extra: usize) -> Self {
        Self::tamper(move |answer| {
            let records = answer["Records"]
                .as_array_mut()
                .expect("an answer to PutRecords");
            let last = records.last().cloned().unwrap_or_else(|| success(0));
            records.extend(std::iter::repeat_n(last, extra));
        })
    }

    /// Success, with `"ErrorCode": null, "ErrorMessage": null` beside each sequence number, as some
    /// servers have it.
    pub(crate) fn null_errors() -> Self {
        Self::tamper(|answer| {
            for record in answer["Records"]
                .as_array_mut()
                .expect("an answer to PutRecords")
            {
                record["ErrorCode"] = Value::Null;
                record["ErrorMessage"] = Value::Null;
            }
        })
    }

    /// `DescribeStreamSummary` (or `DescribeStream`) says this status whatever the stream's is.
    pub(crate) fn describe_as(status: &'static str) -> Self {
        Self::describe_with("StreamStatus", json!(status))
    }

    /// `DescribeStreamSummary` (or `DescribeStream`) says this, whatever the truth is.
    pub(crate) fn describe_with(name: &'static str, value: Value) -> Self {
        Self::tamper(move |answer| {
            for of in ["StreamDescriptionSummary", "StreamDescription"] {
                if let Some(description) = answer.get_mut(of) {
                    description[name] = value.clone();
                }
            }
        })
    }

    /// `LimitExceededException`, as AWS answers to control operations that come too fast.
    pub(crate) fn limit_exceeded() -> Self {
        Self::error(
            400,
            "LimitExceededException",
            "Rate exceeded for account 000000000000.",
        )
    }

    /// This also happens to the request: nothing, before this time has passed.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.before.push(Pause::For(delay));
        self
    }

    /// This also happens to the request: it is held at the gate first.
    pub(crate) fn waiting_at(mut self, gate: &Gate) -> Self {
        self.before.push(Pause::Until(gate.clone()));
        self
    }

    /// This also happens to the answer: it stays away for this time after the request was served.
    pub(crate) fn answered_after(mut self, delay: Duration) -> Self {
        self.meanwhile.push(Pause::For(delay));
        self
    }

    /// The request is served all the same, whatever the answer says:
    /// `Fault::status(503).but_served()`.
    pub(crate) fn but_served(mut self) -> Self {
        self.deed = Deed::Serve;
        self
    }

    /// The request is not served, whatever the answer says. An answer of success is made up.
    pub(crate) fn but_not_served(mut self) -> Self {
        self.deed = Deed::Ignore;
        self
    }

    /// The answer is changed. What `change` sees is its JSON, whichever format it is sent in. An
    /// answer without a body is `null`, and stays empty if it is left so.
    ///
    /// # Panics
    ///
    /// If the answer is not the real one.
    pub(crate) fn tampered(mut self, change: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        match &mut self.answer {
            Answer::Real(tampers) => tampers.push(Box::new(change)),
            Answer::Error { .. } | Answer::Raw { .. } | Answer::Hangup(_) => {
                panic!("only the real answer can be tampered with")
            }
        }
        self
    }

    /// The answer comes byte by byte, with this pause after each.
    pub(crate) fn trickled(mut self, pause: Duration) -> Self {
        self.pace = Pace::Trickle(pause);
        self
    }

    /// The answer breaks off in its middle, and the connection ends.
    pub(crate) fn halved(mut self, hangup: Hangup) -> Self {
        self.pace = Pace::Half(hangup);
        self
    }

    /// The answer says `Connection: close`, and the connection is closed after it.
    pub(crate) fn announcing_close(mut self) -> Self {
        self.then = Then::AnnounceClose;
        self
    }

    /// The connection is closed after the answer, which does not say so.
    pub(crate) fn then_closed(mut self) -> Self {
        self.then = Then::CloseSilently;
        self
    }

    /// The connection stays open, but the next request on it meets a reset.
    pub(crate) fn then_stale(mut self) -> Self {
        self.then = Then::ResetOnReuse;
        self
    }
}

impl Refusal {
    /// The answer to a request for `len` records of `stream`, of which those that were stored have
    /// been answered by `stored`. `shard` tells where the others belong.
    pub(super) fn answer(
        &self,
        stream: &str,
        len: usize,
        stored: Vec<Value>,
        shard: impl Fn(usize) -> String,
    ) -> Value {
        let mut stored = stored.into_iter();
        let answer = |at| {
            if self.covers(at) {
                json!({ "ErrorCode": self.code, "ErrorMessage": self.message(stream, &shard(at)) })
            } else {
                stored
                    .next()
                    .expect("an answer for each record that was let through")
            }
        };
        let records: Vec<Value> = (0..len).map(answer).collect();
        // The server may have refused others on its own account, so they are counted, not computed.
        let failed = records
            .iter()
            .filter(|record| !record["ErrorCode"].is_null())
            .count();
        json!({ "FailedRecordCount": failed, "Records": records })
    }

    /// Whether it refuses the record at this position.
    pub(super) fn covers(&self, at: usize) -> bool {
        self.positions
            .as_ref()
            .is_none_or(|positions| positions.contains(&at))
    }

    fn message(&self, stream: &str, shard: &str) -> String {
        if let Some(message) = &self.message {
            return message.clone();
        }
        match self.code.as_str() {
            THROUGHPUT_EXCEEDED => {
                format!(
                    "Rate exceeded for shard {shard} in stream {stream} under account 000000000000."
                )
            }
            "InternalFailure" => "Internal service failure.".to_owned(),
            code => format!("{code} for stream {stream}"),
        }
    }
}

/// The answer to a record that was stored, with a sequence number that no real one has.
fn success(at: usize) -> Value {
    json!({ "ShardId": "shardId-000000000000", "SequenceNumber": format!("1{at:055}") })
}

/// The answer of a server that stored `len` records, if it had.
pub(super) fn made_up_success(len: usize) -> Value {
    let records: Vec<Value> = (0..len).map(success).collect();
    json!({ "FailedRecordCount": 0, "Records": records })
}

impl Pause {
    /// Waits for it.
    pub(super) async fn wait(self) {
        match self {
            Self::For(delay) => tokio::time::sleep(delay).await,
            Self::Until(gate) => gate.pass().await,
            Self::Forever => std::future::pending().await,
        }
    }
}

/// The scripts in force.
#[derive(Clone, Default)]
pub(super) struct Scripts {
    /// For one operation each.
    pub(super) by_operation: BTreeMap<String, Script>,
    /// For all others.
    pub(super) any: Option<Script>,
    /// Before the body is read.
    pub(super) cut: Option<Cutter>,
    /// Whether nobody is let in at all.
    pub(super) offline: bool,
}

impl Scripts {
    /// What these say about the request.
    pub(super) fn decide(&self, call: &Call<'_>) -> Fault {
        let script = self.by_operation.get(call.operation).or(self.any.as_ref());
        script.map_or_else(Fault::pass, |script| script(call))
    }
}
