//! Very many records through a server that does everything wrong now and then: one sync, its result
//! checked record by record, its memory printed as it goes.
//!
//! `integration_tests/soak` runs it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for maintainers, made of the words of the tests"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;

use support::call::Call;
use support::faults::{Fault, Hangup, THROUGHPUT_EXCEEDED};
use support::messages::{catalog, record, state_stream, stream};
use support::program::{Running, Write};
use support::server::Kinesis;

/// Records of one stream. The streams are synced one after the other, and each is checked and deleted
/// when its last state is out: the server has to keep what it stores.
const STREAM_RECORDS: usize = 250_000;

/// Records between two states.
const STATE_EVERY: usize = 5_000;

/// Of the requests, this part meets a fault of each kind.
const FAULTS_PER_KIND: f64 = 0.01;

/// And this part is never answered: each costs ten seconds of waiting.
const SILENCE: f64 = 0.0005;

/// The most memory that the connector may have.
const BYTES_MAX: u64 = 128 << 20;

const REPORT_EVERY: Duration = Duration::from_secs(10);

/// A state that takes longer than this to come is taken for one that never comes.
const STATE_MAX: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |arg: &String| arg.parse::<usize>().ok();
    let Some(records) = args.iter().find_map(number) else {
        println!(
            "soak: not run, for it takes long. Say how many records: integration_tests/soak 10000000"
        );
        return ExitCode::SUCCESS;
    };
    let streams = records.div_ceil(STREAM_RECORDS);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(soak(streams));
    ExitCode::SUCCESS
}

async fn soak(streams: usize) {
    let kinesis = Kinesis::start().await;
    let names: Vec<String> = (0..streams).map(|n| format!("s{n}")).collect();
    for name in &names {
        kinesis.create_stream(&format!("_{name}"), 4).await;
    }
    let met: Arc<Mutex<BTreeMap<&'static str, usize>>> = Arc::default();
    let counts = met.clone();
    kinesis.on("PutRecords", move |call| {
        let (kind, fault) = fault(call, &mut Rng::new());
        *counts.lock().unwrap().entry(kind).or_default() += 1;
        fault
    });
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 500 }))
        .catalog(catalog(names.iter().map(|name| stream(name))))
        // As in the image.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .deadline(Duration::from_secs(24 * 3600))
        .spawn()
        .await;
    let started = Instant::now();
    drop(running.feed_bytes(input(names.clone())));
    let records = streams * STREAM_RECORDS;
    let mut watch = Watch::new(started);
    let mut cursors: BTreeMap<String, usize> = BTreeMap::new();
    for done in 0..records / STATE_EVERY {
        let state = watch.state(&mut running, done * STATE_EVERY).await;
        let state = &state["state"]["stream"];
        let name = state["stream_descriptor"]["name"].as_str().unwrap();
        let cursor = cursors.entry(name.to_owned()).or_default();
        *cursor += STATE_EVERY;
        assert_eq!(
            state["stream_state"],
            json!({ "cursor": *cursor }),
            "{name}"
        );
        if *cursor == STREAM_RECORDS {
            check(&kinesis, &format!("_{name}")).await;
        }
    }
    let last = running.peak_rss_so_far().unwrap_or(watch.peak);
    let run = running.finish().await;
    run.assert_success();
    let seconds = started.elapsed().as_secs_f64();
    println!("{records} records in {seconds:.0} s, every one stored, every state earned");
    println!("at most {} MiB", watch.peak.max(last) >> 20);
    for (kind, count) in met.lock().unwrap().iter() {
        println!("{count:>8} requests: {kind}");
    }
    assert!(watch.peak < BYTES_MAX, "too much memory");
}

/// The lines of the whole sync, many at a time.
fn input(names: Vec<String>) -> impl Iterator<Item = Vec<u8>> + Send + 'static {
    let parts = STREAM_RECORDS / STATE_EVERY;
    names.into_iter().flat_map(move |name| {
        (1..=parts).map(move |part| {
            let mut lines = String::new();
            for n in (part - 1) * STATE_EVERY..part * STATE_EVERY {
                lines.push_str(&record(&name, data(n)).line());
                lines.push('\n');
            }
            let state = json!({ "cursor": part * STATE_EVERY });
            lines.push_str(&state_stream(&name, state).line());
            lines.push('\n');
            lines.into_bytes()
        })
    })
}

fn data(n: usize) -> String {
    let text = "x".repeat(100 + n % 100);
    format!(r#"{{"n":{n},"text":"{text}"}}"#)
}

/// Looks at the process while it runs.
struct Watch {
    started: Instant,
    reported: Instant,
    peak: u64,
}

impl Watch {
    fn new(started: Instant) -> Self {
        println!("seconds   records     MiB now   MiB at most");
        Self {
            started,
            reported: started,
            peak: 0,
        }
    }

    /// Waits for the next state.
    async fn state(&mut self, running: &mut Running, done: usize) -> serde_json::Value {
        let state = tokio::time::timeout(STATE_MAX, running.next_state_in_its_time());
        let state = state.await.expect("a state in time").message;
        self.peak = running.peak_rss_so_far().unwrap_or(self.peak);
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            let now = running.rss_so_far().unwrap_or_default() >> 20;
            println!("{seconds:>7} {done:>9} {now:>11} {:>13}", self.peak >> 20);
        }
        state
    }
}

/// The stream holds each record, those whose answer was lost more than once, with one id.
async fn check(kinesis: &Kinesis, stream: &str) {
    let mut ids: Vec<Option<String>> = vec![None; STREAM_RECORDS];
    for stored in kinesis.stored(stream).await {
        let n: usize = stored.data["{\"n\":".len()..]
            .split(',')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        assert_eq!(stored.data, data(n), "{stream}");
        let id = ids[n].get_or_insert_with(|| stored.id.clone());
        assert_eq!(*id, stored.id, "two ids for record {n} of {stream}");
    }
    let lost = ids.iter().filter(|id| id.is_none()).count();
    assert_eq!(lost, 0, "records of {stream} that are not there");
    kinesis.delete_stream(stream).await;
    kinesis.forget_acknowledged(stream);
}

/// Makes a fault of some records of the request, and a pause.
type MakeFault = fn(Vec<usize>, Duration) -> Fault;

/// What one request meets.
fn fault(call: &Call<'_>, rng: &mut Rng) -> (&'static str, Fault) {
    let some: Vec<usize> = (0..call.len()).filter(|_| rng.u8(..8) == 0).collect();
    let pause = Duration::from_millis(rng.u64(1..200));
    // One that a single record meets is the record's fault, and ends a sync: no half may come down to that.
    let large = call.len() >= 100;
    let kinds: [(&str, MakeFault); 18] = [
        ("some records throttled", |some, _| Fault::throttle(some)),
        ("all records throttled", |_, _| {
            Fault::refuse_all(THROUGHPUT_EXCEEDED)
        }),
        ("some records failed inside", |some, _| {
            Fault::refuse(some, "InternalFailure")
        }),
        ("throttled as a whole", |_, _| {
            Fault::error(400, THROUGHPUT_EXCEEDED, "no")
        }),
        ("500", |_, _| Fault::error(500, "InternalFailure", "no")),
        ("500, but stored", |_, _| {
            Fault::error(500, "InternalFailure", "no").but_served()
        }),
        ("503, an HTML page", |_, _| Fault::html(503)),
        ("200, no body", |_, _| Fault::empty()),
        ("200, broken JSON, but stored", |_, _| {
            Fault::broken_json().but_served()
        }),
        ("413", |_, _| Fault::status(413)),
        ("request lost", |_, _| Fault::lost_request()),
        ("request reset", |_, _| Fault::reset_request()),
        ("answer lost", |_, _| Fault::lost_answer()),
        ("answer reset", |_, _| Fault::reset_answer()),
        ("half an answer", |_, _| Fault::pass().halved(Hangup::Reset)),
        ("slow answer", |_, pause| {
            Fault::pass().answered_after(pause)
        }),
        ("closed after the answer", |_, _| {
            Fault::pass().then_closed()
        }),
        ("stale after the answer", |_, _| Fault::pass().then_stale()),
    ];
    let mut dice = rng.f64();
    for (name, kind) in kinds {
        if dice < FAULTS_PER_KIND && (large || name != "413") {
            return (name, kind(some, pause));
        }
        dice -= FAULTS_PER_KIND;
    }
    if dice < SILENCE {
        return ("never answered", Fault::silence());
    }
    ("no fault", Fault::pass())
}
