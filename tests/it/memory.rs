//! Memory has a bound, whatever comes in and whatever does not go out.

use std::time::Duration;

use destination_kinesis::limits::HELD_BYTES_MAX;
use serde_json::json;

use crate::support::faults::{Fault, Gate};
use crate::support::finished::Line;
use crate::support::messages::{
    Message, catalog, log, numbered, record, records, state_global, state_stream, state_untyped,
    stream,
};
use crate::support::program::{Finished, Program, Running, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::assert_exactly_stored;

/// The most memory that the process may have resident.
const BYTES_MAX: u64 = 128 << 20;

/// How long one run may take: a request that is not answered takes ten seconds, and there are two.
const RUN_MAX: Duration = Duration::from_secs(90);

/// Between two looks at the memory of the process. It keeps its own maximum, so nothing between the
/// looks is missed but the very end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A sync into these streams, which exist.
async fn write(kinesis: &Kinesis, names: &[String]) -> Program {
    for name in names {
        kinesis.create_stream(&format!("_{name}"), 1).await;
    }
    Write::to(kinesis)
        .config(json!({ "retryTimeoutSeconds": 1 }))
        .catalog(catalog(names.iter().map(|name| stream(name))))
        .deadline(RUN_MAX)
}

/// Waits for the end of the process. Returns the most memory that it had.
async fn peak(mut running: Running) -> (Finished, u64) {
    let mut peak = 0;
    loop {
        tokio::select! {
            () = running.ended() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {
                peak = running.peak_rss_so_far().unwrap_or(peak);
            }
        }
    }
    (running.finish().await, peak)
}

/// Feeds the lines to a sync whose requests are never answered. It has to give up, and must not have
/// taken too much memory until then.
async fn is_bounded<I>(what: &'static str, streams: usize, lines: I)
where
    I: Iterator<Item = String> + Send + 'static,
{
    let kinesis = Kinesis::start().await;
    kinesis.on("PutRecords", |_| Fault::silence());
    let names: Vec<String> = (0..streams).map(|n| format!("s{n}")).collect();
    let mut running = write(&kinesis, &names).await.spawn().await;
    let taken = running.feed(lines);
    let (run, peak) = peak(running).await;
    let taken = *taken.borrow();
    run.assert_failed("transient_error", "\"_s");
    assert!(run.states().is_empty(), "{what}");
    assert!(peak < BYTES_MAX, "{what}: {} MiB", peak >> 20);
    // It did read: how much, before the time is up, depends on the machine.
    assert!(taken > 1 << 20, "{what}: {taken} bytes prove nothing");
}

/// Numbers that go round, and the streams with them.
fn endless(streams: usize) -> impl Iterator<Item = (usize, String)> + Send {
    (0..).map(move |n| (n, format!("s{}", n % streams)))
}

fn sized(stream: &str, n: usize, bytes: usize) -> Message {
    let data = json!({ "n": n, "text": "x".repeat(bytes) });
    record(stream, data)
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_input_while_kinesis_does_not_answer_is_given_up_with_little_memory() {
    let small = endless(1).map(|(n, name)| record(&name, json!({ "n": n })).line());
    let usual = endless(1).map(|(n, name)| sized(&name, n, 1000).line());
    let many = endless(300).map(|(n, name)| sized(&name, n, 100).line());
    tokio::join!(
        is_bounded("tiny records", 1, small),
        is_bounded("records of 1 KB", 1, usual),
        is_bounded("partial buffers of many streams", 300, many),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_states_while_kinesis_does_not_answer_are_given_up_with_little_memory() {
    let each = endless(1).flat_map(|(n, name)| {
        let state = state_stream(&name, json!({ "cursor": n }));
        [record(&name, numbered(n)).line(), state.line()]
    });
    let only = endless(2).map(|(n, name)| match n {
        0 => record(&name, numbered(n)).line(),
        _ => state_global(json!(n), [("s0", json!(n))]).line(),
    });
    tokio::join!(
        is_bounded("a state behind each record", 1, each),
        is_bounded("states behind one record", 2, only),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_lines_of_20_mb_while_kinesis_does_not_answer_are_given_up_with_little_memory() {
    let long = "x".repeat(20_000_000);
    let noise = long.clone();
    let logs = endless(1)
        .flat_map(move |(n, name)| [log("INFO", &noise).line(), sized(&name, n, 900_000).line()]);
    let states = endless(1).flat_map(move |(n, name)| {
        let state = state_stream(&name, json!({ "cursor": long }));
        [record(&name, numbered(n)).line(), state.line()]
    });
    tokio::join!(
        is_bounded("lines of 20 MB that are ignored", 1, logs),
        is_bounded("states of 20 MB", 1, states),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_does_not_end_is_given_up_with_little_memory() {
    let kinesis = Kinesis::start().await;
    let mut running = write(&kinesis, &["s0".to_owned()]).await.spawn().await;
    for line in records("s0", 5) {
        running.send(line).await;
    }
    let head = record("s0", numbered(5)).line();
    running.send_raw(head.as_bytes()).await;
    drop(running.feed_bytes(std::iter::repeat(vec![b'x'; 1 << 16])));
    let (run, peak) = peak(running).await;
    run.assert_failed("system_error", "Line 6");
    assert!(peak < BYTES_MAX, "{} MiB", peak >> 20);
    let data: Vec<String> = (0..5).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
}

/// Whether the progress line says that so much is held.
fn holds(line: &Line, megabytes: f64) -> bool {
    let message = line.message["log"]["message"].as_str().unwrap_or_default();
    let held = message
        .split(", ")
        .find_map(|part| part.strip_suffix(" MB held"));
    held.is_some_and(|held| held.parse::<f64>().is_ok_and(|held| held >= megabytes))
}

/// A sync whose first request is held back until as much is held as may be, and then answered.
async fn comes_out_at_once(what: &str, state: Message, states: usize) {
    let kinesis = Kinesis::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |_| Fault::hold(&held));
    let program = write(&kinesis, &["s0".to_owned()]).await;
    let program = program.config(json!({ "retryTimeoutSeconds": 60 }));
    let mut running = program.spawn().await;
    running.send(record("s0", numbered(0))).await;
    drop(running.feed(std::iter::repeat_n(state, states)));
    let held_max = u32::try_from(HELD_BYTES_MAX / 1_000_000).unwrap();
    running
        .wait_for_message(|line| holds(line, f64::from(held_max)))
        .await;
    assert_eq!(running.states_so_far(), 0, "{what}");
    gate.open();
    let (run, peak) = peak(running).await;
    run.assert_success();
    assert_eq!(run.states().len(), states, "{what}");
    assert!(peak < BYTES_MAX, "{what}: {} MiB", peak >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_come_out_at_once_take_little_memory() {
    let small = state_untyped(json!({}));
    let large = state_stream("s0", json!({ "long": "x".repeat(1_000_000) }));
    tokio::join!(
        comes_out_at_once("the smallest states", small, 180_000),
        comes_out_at_once("large states", large, 40),
    );
}
