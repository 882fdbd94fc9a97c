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
use serde_json::json;

use support::call::{Call, Entry};
use support::faults::Fault;
use support::messages::{catalog, record, state_stream, stream};
use support::program::Write;
use support::server::Kinesis;

const SHARDS: u8 = 5;

/// What a shard takes a second.
const SHARD_RECORDS: f64 = 1000.0;

/// Records, all offered at once: some forty seconds of work for the shards.
const RECORDS: usize = 200_000;

/// A record as it is stored has about this size.
const RECORD_BYTES: usize = 300;

/// The envelope around a record's data, and the partition key.
const AROUND_DATA_BYTES: usize = 160;

/// In the second run, one shard refuses everything for so long.
const OUTAGE: Duration = Duration::from_secs(10);

/// That begins so long after the first request: the paces are learned by then.
const OUTAGE_BEGINS: Duration = Duration::from_secs(15);

/// Of the capacity of all shards, at least this part has to be used.
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
        used && kept
    });
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn at_the_limit() -> bool {
    let seen = sync(|_, _| Vec::new()).await;
    let seconds = seen.seconds();
    let stored = seen.stored(|_, _| true);
    let used = stored / (f64::from(SHARDS) * SHARD_RECORDS * seconds);
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
    let seen = sync(move |call, since_start| {
        if refuses.contains(&since_start) {
            call.positions(|entry| shard_of(entry) == 0)
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
    /// Each record that was stored: its shard, and when.
    stored: Vec<(u8, Duration)>,
}

impl Seen {
    /// From the first request to the last record that was stored.
    fn seconds(&self) -> f64 {
        let last = self.stored.iter().map(|(_, at)| *at).max();
        last.expect("something was stored").as_secs_f64()
    }

    fn sent(&self) -> f64 {
        float(self.requests.iter().map(|(_, records)| records).sum())
    }

    fn stored(&self, counts: impl Fn(u8, Duration) -> bool) -> f64 {
        let stored = self.stored.iter();
        float(stored.filter(|(shard, at)| counts(*shard, *at)).count())
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a small number"))
}

/// A sync of [`RECORDS`] records. `refuse` says which records of a request are refused beyond those
/// that the limits forbid, from the time since the first request.
async fn sync(refuse: impl Fn(&Call<'_>, Duration) -> Vec<usize> + Send + Sync + 'static) -> Seen {
    let kinesis = Kinesis::with(StoreOptions {
        enforce_limits: true,
        ..Kinesis::options()
    })
    .await;
    kinesis.create_stream("_s0", SHARDS.into()).await;
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
        Fault::throttle(refuse(call, start.elapsed())).tampered(move |answer| {
            let stored = answer["Records"]
                .as_array()
                .expect("an answer to PutRecords");
            let stored = stored.iter().filter(|record| record["ErrorCode"].is_null());
            let stored = stored.map(|record| {
                let shard = record["ShardId"].as_str().expect("a shard");
                (
                    shard[shard.len() - 3..].parse().expect("its number"),
                    start.elapsed(),
                )
            });
            counts.lock().unwrap().stored.extend(stored);
        })
    });
    let text = "x".repeat(RECORD_BYTES - AROUND_DATA_BYTES);
    let lines = (0..RECORDS).map(move |n| record("s0", json!({ "n": n, "text": text })).line());
    let state = state_stream("s0", json!({ "cursor": RECORDS })).line();
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 500 }))
        .catalog(catalog([stream("s0")]))
        .deadline(Duration::from_secs(300))
        .spawn()
        .await;
    drop(running.feed(lines.chain([state])));
    running.ended().await;
    let run = running.finish().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1, "{run}");
    assert_eq!(kinesis.stored_count("_s0"), RECORDS);
    drop(kinesis);
    std::mem::take(&mut *seen.lock().unwrap())
}

/// The shard of a record: the emulator gives each the same part of the hash keys.
fn shard_of(entry: &Entry) -> u8 {
    let width = u128::MAX / u128::from(SHARDS);
    let shard = partition_key_to_hash_key(&entry.partition_key) / width;
    u8::try_from(shard).expect("few shards").min(SHARDS - 1)
}
