//! What the server saw, and the account limits it can be told to keep.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::call::Request;
use super::front::Head;

/// Streams that may be in `CREATING` at once.
pub(crate) const CREATING_MAX: usize = 5;

/// Calls per second of the operations whose rate AWS limits per account.
const CALLS_PER_SECOND: [(&str, f64); 4] = [
    ("CreateStream", 5.0),
    ("DescribeStreamSummary", 20.0),
    ("DescribeStream", 10.0),
    ("ListStreams", 5.0),
];

/// One request that arrived in full.
#[derive(Debug, Clone)]
pub(crate) struct CallLog {
    /// The operation, such as `PutRecords`.
    pub(crate) operation: String,
    /// The stream it names, empty if none.
    pub(crate) stream: String,
    /// Records in it, 0 if it is not a `PutRecords`.
    pub(crate) records: usize,
    /// Bytes of its body.
    pub(crate) body_bytes: usize,
    /// When its last byte was read.
    pub(crate) at: Instant,
    /// Which connection it came on, in the order they were accepted.
    pub(crate) connection: usize,
    /// The status it was answered with, if it was.
    pub(crate) status: Option<u16>,
    headers: Vec<(String, String)>,
}

impl CallLog {
    /// A header of the request, by its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The `Content-Type`.
    pub(crate) fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or_default()
    }

    /// The credential scope of the signature: access key, date, region, service, `aws4_request`.
    pub(crate) fn credential(&self) -> Vec<&str> {
        let authorization = self.header("authorization").unwrap_or_default();
        let credential = authorization
            .split_once("Credential=")
            .map_or("", |(_, rest)| rest);
        let credential = credential.split(',').next().unwrap_or_default();
        credential.split('/').collect()
    }
}

/// Everything that is remembered.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) calls: Vec<CallLog>,
    /// Requests of each operation whose head was read.
    heads: HashMap<String, usize>,
    by_operation: HashMap<String, usize>,
    by_stream: HashMap<(String, String), usize>,
    /// Records that were really stored, per stream.
    pub(super) stored: HashMap<String, usize>,
    /// When a sequence number was told to the client, per stream.
    pub(super) acknowledged: HashMap<String, HashMap<String, Instant>>,
    in_flight: usize,
    pub(super) in_flight_max: usize,
    pub(super) creating_max: usize,
    /// Calls answered with `LimitExceededException` because the limits are enforced.
    pub(super) over_limit: usize,
    /// The allowance of each limited operation, if limits are enforced.
    buckets: Option<HashMap<&'static str, Bucket>>,
}

/// Where a request stands among those of its kind.
pub(super) struct Numbers {
    /// Its place in `Ledger::calls`.
    pub(super) index: usize,
    pub(super) nth: usize,
    pub(super) nth_for_stream: usize,
}

impl Ledger {
    /// Counts a request whose head was read, and says which of its operation it is.
    pub(super) fn head(&mut self, operation: &str) -> usize {
        next(&mut self.heads, operation.to_owned())
    }

    /// Enters a request that was read.
    pub(super) fn enter(&mut self, head: &Head, request: &Request, connection: usize) -> Numbers {
        self.calls.push(CallLog {
            operation: request.operation.clone(),
            stream: request.stream.clone(),
            records: request.records,
            body_bytes: request.body.len(),
            at: Instant::now(),
            connection,
            status: None,
            headers: head.headers.clone(),
        });
        Numbers {
            index: self.calls.len() - 1,
            nth: next(&mut self.by_operation, request.operation.clone()),
            nth_for_stream: next(
                &mut self.by_stream,
                (request.operation.clone(), request.stream.clone()),
            ),
        }
    }

    /// Remembers that the client was told these sequence numbers.
    pub(super) fn acknowledge(&mut self, stream: &str, sequence_numbers: Vec<String>) {
        let now = Instant::now();
        let of_stream = self.acknowledged.entry(stream.to_owned()).or_default();
        for sequence_number in sequence_numbers {
            of_stream.entry(sequence_number).or_insert(now);
        }
    }

    /// One more `PutRecords` in flight.
    pub(super) fn take_off(&mut self) {
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    /// One less `PutRecords` in flight.
    pub(super) fn land(&mut self) {
        self.in_flight -= 1;
    }

    /// Enforces the account limits from now on.
    pub(super) fn enforce_limits(&mut self) {
        let full = CALLS_PER_SECOND.map(|(operation, rate)| (operation, Bucket::full(rate)));
        self.buckets = Some(full.into());
    }

    /// Whether limits are enforced.
    pub(super) fn limited(&self) -> bool {
        self.buckets.is_some()
    }

    /// Whether the account has a call of this operation left. Takes it.
    pub(super) fn allows(&mut self, operation: &str) -> bool {
        let bucket = self
            .buckets
            .as_mut()
            .and_then(|buckets| buckets.get_mut(operation));
        bucket.is_none_or(Bucket::take)
    }

    /// The most calls of an operation that came within any one second.
    pub(super) fn busiest_second(&self, operation: &str) -> usize {
        let calls = self.calls.iter().filter(|call| call.operation == operation);
        let at: Vec<Instant> = calls.map(|call| call.at).collect();
        let mut oldest = 0;
        let mut most = 0;
        for (newest, time) in at.iter().enumerate() {
            while time.duration_since(at[oldest]) >= Duration::from_secs(1) {
                oldest += 1;
            }
            most = most.max(newest + 1 - oldest);
        }
        most
    }
}

/// An allowance of calls that fills at a rate, and holds one second's worth.
struct Bucket {
    rate: f64,
    calls: f64,
    filled: Instant,
}

impl Bucket {
    fn full(rate: f64) -> Self {
        Self {
            rate,
            calls: rate,
            filled: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let since = self.filled.elapsed().as_secs_f64();
        self.filled = Instant::now();
        self.calls = self.rate.min(self.calls + since * self.rate);
        let enough = self.calls >= 1.0;
        if enough {
            self.calls -= 1.0;
        }
        enough
    }
}

/// Counts one more of `key`.
fn next<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) -> usize {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count
}
