//! What stands behind the front: the emulator, and what a script makes of its answers.

use std::collections::HashMap;

use axum::Router;
use bytes::Bytes;
use ferrokinesis::actions::{Operation, dispatch};
use ferrokinesis::sequence::partition_key_to_hash_key;
use ferrokinesis::store::Store;
use ferrokinesis::types::{Shard, StreamStatus};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, RwLock, watch};
use tower::ServiceExt as _;

use super::call::{Call, Codec, Entry, Request};
use super::faults::{Answer, Deed, Fault, Hangup, Refusal, Scripts, made_up_success};
use super::front::{BODY_BYTES_MAX, Head};
use super::ledger::{CREATING_MAX, Ledger};
use super::signature;

/// What all connections share.
pub(super) struct Service {
    router: Router,
    pub(super) store: Store,
    pub(super) scripts: std::sync::RwLock<Scripts>,
    pub(super) ledger: watch::Sender<Ledger>,
    /// Writes hold it shared, a change of the shards alone: the emulator gives two records one
    /// sequence number, and keeps the last, if they come in the middle of it.
    pub(super) topology: RwLock<()>,
    /// Held by `CreateStream`, so that the streams being created do not change between counting
    /// them and adding one.
    creating: Mutex<()>,
    /// The streams that were given a record size, in KiB.
    pub(super) record_kib: std::sync::RwLock<HashMap<String, u32>>,
}

/// A request that has arrived.
pub(super) struct Admitted {
    pub(super) request: Request,
    /// Its place in the ledger.
    index: usize,
}

impl Service {
    pub(super) fn new(router: Router, store: Store) -> Self {
        Self {
            router: router.layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX)),
            store,
            scripts: std::sync::RwLock::default(),
            ledger: watch::Sender::new(Ledger::default()),
            topology: RwLock::default(),
            creating: Mutex::default(),
            record_kib: std::sync::RwLock::default(),
        }
    }

    /// The scripts in force.
    pub(super) fn scripts(&self) -> Scripts {
        self.scripts
            .read()
            .expect("no script panics while it is set")
            .clone()
    }

    /// Enters a request into the ledger, and asks the scripts what becomes of it.
    pub(super) fn admit(&self, head: &Head, body: Bytes, connection: usize) -> (Admitted, Fault) {
        let is_signed = signature::fits(head, &body);
        let request = Request::new(head.operation().to_owned(), head.codec(), body);
        let mut numbers = None;
        self.ledger.send_modify(|ledger| {
            numbers = Some(ledger.enter(head, &request, connection));
        });
        let numbers = numbers.expect("the ledger was entered");
        let mut fault = self.scripts().decide(&Call {
            operation: &request.operation,
            stream: &request.stream,
            nth: numbers.nth,
            nth_for_stream: numbers.nth_for_stream,
            request: &request,
        });
        if !is_signed {
            let message =
                "The request signature we calculated does not match the signature you provided.";
            fault = Fault::error(403, "InvalidSignatureException", message);
        }
        let index = numbers.index;
        (Admitted { request, index }, fault)
    }

    /// Notes what the client is about to be told.
    pub(super) fn confirm(&self, admitted: &Admitted, reply: &Reply) {
        let acknowledged = sequence_numbers(&admitted.request, reply);
        self.ledger.send_modify(|ledger| {
            ledger.calls[admitted.index].status = Some(reply.status);
            ledger.acknowledge(&admitted.request.stream, acknowledged);
        });
    }

    /// Does with a request what the script says.
    pub(super) async fn perform(&self, head: &Head, request: &Request, deed: Deed) -> Reply {
        match deed {
            Deed::Serve => self.forward(head, request).await,
            Deed::ServeBut(refusal) => self.forward_some(head, request, &refusal).await,
            Deed::Ignore if request.records == 0 => Reply::json(request.codec, 200, &Value::Null),
            Deed::Ignore => Reply::json(request.codec, 200, &made_up_success(request.records)),
        }
    }

    /// Lets the emulator serve what `refusal` leaves of the request.
    async fn forward_some(&self, head: &Head, request: &Request, refusal: &Refusal) -> Reply {
        let accepted = request.only(|at| !refusal.covers(at));
        let mut stored = Vec::new();
        if accepted.records > 0 {
            let reply = self.forward(head, &accepted).await;
            let mut answer = Codec::Json.decode_value(&reply.body).unwrap_or(Value::Null);
            if reply.status != 200 {
                // The emulator refuses the whole request, as Kinesis would have done whatever its
                // shards' load.
                return Reply::json(request.codec, reply.status, &answer);
            }
            stored = answer["Records"]
                .as_array_mut()
                .map(std::mem::take)
                .unwrap_or_default();
        }
        let stream = self.store.get_stream(&request.stream).await;
        let shards = stream.map_or_else(|_| Vec::new(), |stream| stream.shards);
        let shard = |at: usize| shard_of(&shards, &request.entries()[at]);
        let answer = refusal.answer(&request.stream, request.records, stored, shard);
        Reply::json(request.codec, 200, &answer)
    }

    /// Lets the emulator serve the request, within the limits of the account if they are enforced.
    async fn forward(&self, head: &Head, request: &Request) -> Reply {
        let operation = request.operation.as_str();
        let mut allowed = true;
        self.ledger.send_modify(|ledger| {
            allowed = ledger.allows(operation);
            ledger.over_limit += usize::from(!allowed);
        });
        if !allowed {
            return Reply::limit_exceeded(request.codec, "Rate exceeded for account 000000000000.");
        }
        if operation == "CreateStream" {
            let _alone = self.creating.lock().await;
            if self.ledger.borrow().limited() && self.count_creating().await >= CREATING_MAX {
                self.ledger.send_modify(|ledger| ledger.over_limit += 1);
                return Reply::limit_exceeded(
                    request.codec,
                    "Too many streams are being created at the same time: 5 at most.",
                );
            }
            let reply = self.pass_on(head, request).await;
            let creating = self.count_creating().await;
            self.ledger
                .send_modify(|ledger| ledger.creating_max = ledger.creating_max.max(creating));
            return reply;
        }
        let _unchanged = self.topology.read().await;
        let reply = self.pass_on(head, request).await;
        let stored = sequence_numbers(request, &reply).len();
        if stored > 0 {
            self.ledger.send_modify(|ledger| {
                *ledger.stored.entry(request.stream.clone()).or_default() += stored;
            });
        }
        reply
    }

    async fn pass_on(&self, head: &Head, request: &Request) -> Reply {
        let sizes = self
            .record_kib
            .read()
            .expect("nobody panics while it is set")
            .clone();
        let reply = match (request.operation.as_str(), sizes.get(&request.stream)) {
            // The emulator takes no record above 1 MiB, but it is only its front that refuses them.
            ("PutRecords", Some(kib)) if fits(request, *kib) => {
                let done = dispatch(&self.store, Operation::PutRecords, request.json()).await;
                let done = done.map(|answer| Reply::json(request.codec, 200, &json!(answer)));
                done.unwrap_or_else(|error| {
                    let message = error.body.message.unwrap_or_default();
                    Reply::error(
                        request.codec,
                        error.status_code,
                        &error.body.error_type,
                        &message,
                    )
                })
            }
            _ => self.pass_to_router(head, request).await,
        };
        match sizes.get(&request.stream) {
            Some(kib) if request.operation == "DescribeStreamSummary" && reply.status == 200 => {
                let mut answer = request
                    .codec
                    .decode_value(&reply.body)
                    .unwrap_or(Value::Null);
                answer["StreamDescriptionSummary"]["MaxRecordSizeInKiB"] = json!(kib);
                reply.with_json(request.codec, &answer)
            }
            _ => reply,
        }
    }

    async fn pass_to_router(&self, head: &Head, request: &Request) -> Reply {
        let mut forwarded = http::Request::post("/");
        let own = [CONTENT_LENGTH.as_str(), CONTENT_TYPE.as_str()];
        for (name, value) in head
            .headers
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
        {
            forwarded = forwarded.header(name, value);
        }
        let forwarded = forwarded
            .header(CONTENT_TYPE, request.codec.content_type())
            .header(CONTENT_LENGTH, request.body.len())
            .body(axum::body::Body::from(request.body.clone()))
            .expect("headers that were read can be sent");
        let answer = self.router.clone().oneshot(forwarded).await;
        let (parts, body) = answer.expect("a router does not fail").into_parts();
        let own = [CONTENT_LENGTH, http::header::CONNECTION];
        let headers = parts.headers.iter().filter(|(name, _)| !own.contains(name));
        Reply {
            status: parts.status.as_u16(),
            headers: headers
                .map(|(name, value)| {
                    (
                        name.to_string(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    )
                })
                .collect(),
            body: axum::body::to_bytes(body, usize::MAX)
                .await
                .expect("a body in memory"),
        }
    }

    async fn count_creating(&self) -> usize {
        let mut creating = 0;
        for name in self.store.list_stream_names().await {
            let stream = self.store.get_stream(&name).await;
            creating += usize::from(
                stream.is_ok_and(|stream| stream.stream_status == StreamStatus::Creating),
            );
        }
        creating
    }
}

/// Whether no record has more than this of data and partition key.
fn fits(request: &Request, kib: u32) -> bool {
    let bytes_max = usize::try_from(kib).expect("a size in memory") << 10;
    let mut sizes = request
        .entries()
        .iter()
        .map(|entry| entry.bytes.len() + entry.partition_key.len());
    sizes.all(|bytes| bytes <= bytes_max)
}

/// The open shard that a record belongs to.
fn shard_of(shards: &[Shard], entry: &Entry) -> String {
    let explicit = entry
        .explicit_hash_key
        .as_ref()
        .and_then(|key| key.parse().ok());
    let hash = explicit.unwrap_or_else(|| partition_key_to_hash_key(&entry.partition_key));
    let takes = |shard: &&Shard| {
        let range = &shard.hash_key_range;
        let open = shard.sequence_number_range.ending_sequence_number.is_none();
        open && range.start_u128() <= hash && hash <= range.end_u128()
    };
    let shard = shards.iter().find(takes);
    shard.map_or_else(String::new, |shard| shard.shard_id.clone())
}

/// The sequence numbers in an answer to `PutRecords`. None, if it does not fit the request.
fn sequence_numbers(request: &Request, reply: &Reply) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Put {
        records: Vec<PutOne>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct PutOne {
        #[serde(default)]
        sequence_number: Option<String>,
        #[serde(default)]
        error_code: Option<String>,
    }
    if request.records == 0 || reply.status != 200 {
        return Vec::new();
    }
    let put: Option<Put> = request.codec.decode(&reply.body);
    let records = put.map_or_else(Vec::new, |put| put.records);
    if records.len() != request.records {
        return Vec::new();
    }
    let stored = records
        .into_iter()
        .filter(|record| record.error_code.is_none());
    stored.filter_map(|record| record.sequence_number).collect()
}

/// An answer, before it is written.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Reply {
    fn new(status: u16, content_type: Option<&str>, body: Bytes) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let mut headers = vec![("x-amzn-RequestId".to_owned(), id)];
        headers.extend(content_type.map(|value| ("Content-Type".to_owned(), value.to_owned())));
        Self {
            status,
            headers,
            body,
        }
    }

    /// An answer in the format of the request. No body for `null`.
    fn json(codec: Codec, status: u16, answer: &Value) -> Self {
        Self::new(status, Some(codec.content_type()), Bytes::new()).with_json(codec, answer)
    }

    fn error(codec: Codec, status: u16, code: &str, message: &str) -> Self {
        Self::json(
            codec,
            status,
            &json!({ "__type": code, "message": message }),
        )
    }

    fn limit_exceeded(codec: Codec, message: &str) -> Self {
        Self::error(codec, 400, "LimitExceededException", message)
    }

    /// What the client hears of this answer.
    pub(super) fn told_as(self, answer: Answer, codec: Codec) -> Result<Self, Hangup> {
        match answer {
            Answer::Real(tampers) if tampers.is_empty() => Ok(self),
            Answer::Real(tampers) => {
                let mut answer = codec.decode_value(&self.body).unwrap_or(Value::Null);
                tampers.into_iter().for_each(|tamper| tamper(&mut answer));
                Ok(self.with_json(codec, &answer))
            }
            Answer::Error {
                status,
                code,
                message,
            } => Ok(Self::error(codec, status, &code, &message)),
            Answer::Raw {
                status,
                content_type,
                body,
            } => Ok(Self::new(status, content_type, Bytes::from(body))),
            Answer::Hangup(hangup) => Err(hangup),
        }
    }

    /// The same answer with another body.
    fn with_json(mut self, codec: Codec, answer: &Value) -> Self {
        self.body = if answer.is_null() {
            Bytes::new()
        } else {
            codec.encode(answer)
        };
        self
    }

    /// The answer on the wire.
    pub(super) fn to_bytes(&self, announce_close: bool) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut head = format!(
            "HTTP/1.1 {} Status\r\nContent-Length: {}\r\n",
            self.status,
            self.body.len()
        );
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").expect("text can be written to text");
        }
        if announce_close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}
