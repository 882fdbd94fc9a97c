//! How well a sync uses shards that are at their limit, and how much it hammers them: the real
//! connector against an emulator that enforces the limits of real shards, 1,000 records and 1 MiB a
//! second.
//!
//! ```text
//! cargo bench --bench pacing
//! ```
//!
//! Prints what was counted at the server, and fails when it is not good enough. It takes some minutes,
//! and a machine that has little else to do.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for maintainers, made of the words of the tests"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferrokinesis::sequence::partition_key_to_hash_key;
use ferrokinesis::store::StoreOptions;
use serde_json::{Value, json};

use support::call::{Call, Entry};
use support::faults::Fault;
use support::messages::{catalog, record, state_stream, stream};
use support::program::Write;
use support::server::Kinesis;
use support::verdict::assert_exactly_stored;

/// What a shard takes a second.
const SHARD_RECORDS: f64 = 1000.0;
const SHARD_BYTES: f64 = 1024.0 * 1024.0;

/// What is offered at once, and to how many shards.
struct Offer {
    shards: u8,
    records: usize,
    data_bytes: usize,
    settings: Value,
}

/// Some forty seconds of work for five shards; as stored, a record has about 300 bytes.
const RECORDS: usize = 200_000;
const DATA_BYTES: usize = 140;

/// Some forty seconds of work for two shards, if records of 100 bytes of data fill their bytes: at a thousand records a
/// second and shard, it would be three minutes.
const SMALL_RECORDS: usize = 350_000;
const SMALL_DATA_BYTES: usize = 100;

/// In the second run, one shard refuses everything for so long.
const OUTAGE: Duration = Duration::from_secs(10);

/// That begins so long after the first request: the paces are learned by then.
const OUTAGE_BEGINS: Duration = Duration::from_secs(15);

/// Of the capacity of all shards, in records or in bytes, at least this part has to be used.
const USED_MIN: f64 = 0.85;

/// Of the records that are sent, at most this part may be refused.
const REFUSED_MAX: f64 = 0.10;

/// While one shard refuses everything, the others keep at least this part of their throughput.
const KEPT_MIN: f64 = 0.90;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, and speed is nothing to test there.
    if !std::env::args().any(|arg| arg == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let good = runtime.block_on(async {
        let used = at_the_limit().await;
        let kept = beside_a_shard_that_refuses().await;
        let filled = with_aggregates().await;
        used && kept && filled
    });
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn at_the_limit() -> bool {
    let offer = Offer::plain();
    let seen = sync(&offer, |_, _| Vec::new()).await;
    let seconds = seen.seconds();
    let stored = seen.stored(|_, _| true);
    let used = stored / (f64::from(offer.shards) * SHARD_RECORDS * seconds);
    let refused = 1.0 - stored / seen.sent();
    println!(
        "{stored} records stored in {seconds:.1} s, {} sent",
        seen.sent()
    );
    let used = verdict("of the capacity is used", used, used >= USED_MIN, USED_MIN);
    verdict(
        "of the records sent are refused",
        refused,
        refused <= REFUSED_MAX,
        REFUSED_MAX,
    ) && used
}

async fn beside_a_shard_that_refuses() -> bool {
    let outage = OUTAGE_BEGINS..OUTAGE_BEGINS + OUTAGE;
    let before = OUTAGE_BEGINS - OUTAGE..OUTAGE_BEGINS;
    let refuses = outage.clone();
    let offer = Offer::plain();
    let shards = offer.shards;
    let seen = sync(&offer, move |call, since_start| {
        if refuses.contains(&since_start) {
            call.positions(|entry| shard_of(entry, shards) == 0)
        } else {
            Vec::new()
        }
    })
    .await;
    let refused = seen.stored(|shard, at| shard == 0 && outage.contains(&at));
    let others = |when: Range<Duration>| seen.stored(|shard, at| shard != 0 && when.contains(&at));
    let (before, meanwhile) = (others(before), others(outage.clone()));
    println!(
        "a shard that takes {refused} records in 10 s, and the four others: {before} records in the 10 s before, \
         {meanwhile} in these"
    );
    let kept = meanwhile / before;
    verdict(
        "of their throughput is kept",
        kept,
        kept >= KEPT_MIN,
        KEPT_MIN,
    )
}

async fn with_aggregates() -> bool {
    let offer = Offer {
        shards: 2,
        records: SMALL_RECORDS,
        data_bytes: SMALL_DATA_BYTES,
        settings: json!({ "aggregation": "kpl" }),
    };
    let seen = sync(&offer, |_, _| Vec::new()).await;
    let seconds = seen.seconds();
    let bytes = float(seen.stored.iter().map(|stored| stored.bytes).sum());
    let used = bytes / (f64::from(offer.shards) * SHARD_BYTES * seconds);
    println!(
        "{SMALL_RECORDS} records of {SMALL_DATA_BYTES} bytes of data, aggregated: {bytes} bytes in {} Kinesis records \
         stored in {seconds:.1} s, {} sent",
        seen.stored.len(),
        seen.sent()
    );
    verdict(
        "of the bytes of two shards are used",
        used,
        used >= USED_MIN,
        USED_MIN,
    )
}

impl Offer {
    fn plain() -> Self {
        Self {
            shards: 5,
            records: RECORDS,
            data_bytes: DATA_BYTES,
            settings: json!({}),
        }
    }

    /// The data of a record.
    fn data(&self, n: usize) -> String {
        let text = |length| json!({ "n": n, "text": "x".repeat(length) }).to_string();
        text(self.data_bytes - text(0).len())
    }
}

fn verdict(what: &str, is: f64, good: bool, limit: f64) -> bool {
    let word = if good { "ok" } else { "FAILED" };
    println!(
        "{word}: {:.1} % {what} (limit {:.0} %)",
        is * 100.0,
        limit * 100.0
    );
    good
}

/// Requests and their answers, as the server counted them.
#[derive(Default)]
struct Seen {
    /// Each request: when it came, and its records.
    requests: Vec<(Duration, usize)>,
    /// Each Kinesis record that was stored.
    stored: Vec<StoredEntry>,
}

struct StoredEntry {
    shard: u8,
    at: Duration,
    /// Data and partition key.
    bytes: usize,
}

impl Seen {
    /// From the first request to the last record that was stored.
    fn seconds(&self) -> f64 {
        let last = self.stored.iter().map(|stored| stored.at).max();
        last.expect("something was stored").as_secs_f64()
    }

    fn sent(&self) -> f64 {
        float(self.requests.iter().map(|(_, records)| records).sum())
    }

    fn stored(&self, counts: impl Fn(u8, Duration) -> bool) -> f64 {
        let stored = self.stored.iter();
        float(stored.filter(|it| counts(it.shard, it.at)).count())
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small number"))
}

/// A sync of what is offered. `refuse` says which records of a request are refused beyond those
/// that the limits forbid, from the time since the first request.
async fn sync(
    offer: &Offer,
    refuse: impl Fn(&Call<'_>, Duration) -> Vec<usize> + Send + Sync + 'static,
) -> Seen {
    let kinesis = Kinesis::with(StoreOptions {
        enforce_limits: true,
        ..Kinesis::options()
    })
    .await;
    kinesis.create_stream("_s0", offer.shards.into()).await;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let counts = seen.clone();
    let first: Arc<Mutex<Option<Instant>>> = Arc::default();
    kinesis.on("PutRecords", move |call| {
        let start = *first.lock().unwrap().get_or_insert_with(Instant::now);
        counts
            .lock()
            .unwrap()
            .requests
            .push((start.elapsed(), call.len()));
        let counts = counts.clone();
        let sizes: Vec<_> = call
            .entries()
            .iter()
            .map(|entry| entry.bytes.len() + entry.partition_key.len())
            .collect();
        Fault::throttle(refuse(call, start.elapsed())).tampered(move |answer| {
            let stored = answer["Records"]
                .as_array()
                .expect("an answer to PutRecords");
            let stored = stored.iter().zip(&sizes);
            let stored = stored.filter(|(record, _)| record["ErrorCode"].is_null());
            let stored = stored.map(|(record, bytes)| {
                let shard = record["ShardId"].as_str().expect("a shard");
                StoredEntry {
                    shard: shard[shard.len() - 3..].parse().expect("its number"),
                    at: start.elapsed(),
                    bytes: *bytes,
                }
            });
            counts.lock().unwrap().stored.extend(stored);
        })
    });
    let data: Vec<_> = (0..offer.records).map(|n| offer.data(n)).collect();
    let lines: Vec<_> = data.iter().map(|data| record("s0", data).line()).collect();
    let state = state_stream("s0", json!({ "cursor": offer.records })).line();
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 500 }))
        .config(offer.settings.clone())
        .catalog(catalog([stream("s0")]))
        .deadline(Duration::from_secs(300))
        .spawn()
        .await;
    drop(running.feed(lines.into_iter().chain([state])));
    running.ended().await;
    let run = running.finish().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1, "{run}");
    assert_exactly_stored(&kinesis, "_s0", &data).await;
    drop(kinesis);
    std::mem::take(&mut *seen.lock().unwrap())
}

/// The shard of a record: the emulator gives each the same part of the hash keys.
fn shard_of(entry: &Entry, shards: u8) -> u8 {
    let width = u128::MAX / u128::from(shards);
    let shard = partition_key_to_hash_key(&entry.partition_key) / width;
    u8::try_from(shard).expect("few shards").min(shards - 1)
}
