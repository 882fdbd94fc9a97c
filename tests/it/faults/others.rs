//! What other producers get wrong, or got wrong when this was written. Each test says whose fault it
//! keeps away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::drill::{Layout, Phase, drill};
use crate::support::call::Entry;
use crate::support::faults::{Fault, Gate, THROUGHPUT_EXCEEDED};
use crate::support::messages::{Message, catalog, numbered, records, state_stream, stream};
use crate::support::program::{Check, Finished, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{assert_all_states, assert_earned, assert_exactly_stored};

/// A server with the stream `_s0`.
async fn server() -> Kinesis {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 1).await;
    kinesis
}

/// `count` records, and a state behind them.
fn input(count: usize) -> Vec<Message> {
    let mut input = records("s0", count);
    input.push(state_stream("s0", json!({ "cursor": count })));
    input
}

/// A sync of `count` records, which succeeds: all is stored once, and the state is out.
async fn sync(kinesis: &Kinesis, count: usize) -> Finished {
    let input = input(count);
    let run = Write::to(kinesis)
        .config(json!({ "bufferSize": 100, "retryTimeoutSeconds": 30 }))
        .catalog(catalog([stream("s0")]))
        .input(input.clone())
        .run()
        .await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(kinesis, &input, &run).await;
    let data: Vec<String> = (0..count).map(numbered).collect();
    assert_exactly_stored(kinesis, "_s0", &data).await;
    run
}

/// The first, Java, edition of this destination never read the answers.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_read() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle(1..call.len()),
        2 => Fault::refuse(call.len() / 2..call.len(), "InternalFailure"),
        _ => Fault::pass(),
    });
    sync(&kinesis, 60).await;
}

/// The Java edition logged exceptions, dropped the batch and went on.
#[tokio::test(flavor = "multi_thread")]
async fn an_exception_is_not_logged_and_forgotten() {
    drill(|_| Fault::error(400, "AccessDeniedException", "no"))
        .fails("config_error", ["kinesis:PutRecords"])
        .await;
}

/// The Java edition sent states back as they arrived.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_does_not_leave_because_it_arrived() {
    let kinesis = server().await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.nth {
        1 => Fault::hold(&held),
        _ => Fault::pass(),
    });
    let mut running = Write::to(&kinesis)
        .catalog(catalog([stream("s0"), stream("s1")]))
        .spawn()
        .await;
    let mut input = input(10);
    for line in &input {
        running.send(line.clone()).await;
    }
    gate.waiting(1).await;
    // Nothing is held back for this one, which has come later: the other has been looked at.
    let other = state_stream("s1", json!({ "cursor": 0 }));
    running.send(other.clone()).await;
    input.push(other);
    let first = running.next_state().await;
    assert!(first.text.contains(r#""name":"s1""#), "{}", first.text);
    gate.open();
    let second = running.next_state().await;
    assert!(second.text.contains(r#""name":"s0""#), "{}", second.text);
    let run = running.finish().await;
    run.assert_success();
    assert_earned(&kinesis, &input, &run).await;
}

/// The Java edition's check wrote to `test_stream`, and deleted it, whoever it belonged to.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_leaves_a_stream_named_test_stream_alone() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("test_stream", 1).await;
    Check::against(&kinesis).run().await.assert_connected();
    assert!(kinesis.streams().await.contains(&"test_stream".to_owned()));
    assert_eq!(kinesis.stored("test_stream").await, []);
    assert!(
        kinesis
            .calls()
            .iter()
            .all(|call| call.stream != "test_stream")
    );
}

/// The Java edition's check called a refused write a success.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_whose_write_is_refused_fails() {
    let kinesis = Kinesis::start().await;
    kinesis.on("PutRecords", |_| Fault::refuse_all("AccessDeniedException"));
    let run = Check::against(&kinesis).run().await;
    run.assert_not_connected("kinesis:PutRecords");
}

/// Vector counted records that were throttled inside an answer of status 200 as delivered.
#[tokio::test(flavor = "multi_thread")]
async fn records_throttled_inside_a_good_answer_do_not_count_as_delivered() {
    drill(|strike| Fault::throttle(strike.marked()))
        .always()
        .patience(1)
        .fails("transient_error", ["limit is reached"])
        .await;
}

/// The Kinesis Producer Library gives up on a record after 30 s. Here it is progress that counts: one
/// record in each request is enough, for many times the patience.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_moves_at_all_is_not_given_up() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let kinesis = server().await;
    kinesis.on("PutRecords", |call| {
        Fault::throttle(1..call.len()).answered_after(PATIENCE / 4)
    });
    let input = input(20);
    let run = Write::to(&kinesis)
        .config(json!({ "retryTimeoutSeconds": PATIENCE.as_secs() }))
        .catalog(catalog([stream("s0")]))
        .input(input.clone())
        .run()
        .await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert!(run.elapsed > PATIENCE * 3, "too quick to prove anything");
}

/// The Kinesis Producer Library once had no exponential backoff, and so added to the load that it was
/// throttled for.
#[tokio::test(flavor = "multi_thread")]
async fn tries_become_rarer() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |_| Fault::refuse_all(THROUGHPUT_EXCEEDED));
    let run = Write::to(&kinesis)
        .config(json!({ "retryTimeoutSeconds": 3 }))
        .catalog(catalog([stream("s0")]))
        .input(input(5))
        .run()
        .await;
    run.assert_failed("transient_error", "\"_s0\"");
    let calls = kinesis.calls_of("PutRecords").len();
    // Pauses between nothing and 100 ms would make 60, pauses that double make 6, give or take.
    assert!((2..=24).contains(&calls), "{calls} tries in 3 s");
}

/// Fluent Bit sent the whole chunk again because of one record, and RisingWave everything after the
/// first refusal.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_refused_is_sent_again() {
    let kinesis = server().await;
    let sent: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counts = sent.clone();
    kinesis.on("PutRecords", move |call| {
        let mut counts = counts.lock().unwrap();
        let mut refused = Vec::new();
        for (at, entry) in call.entries().iter().enumerate() {
            let count = counts.entry(entry.data()).or_default();
            *count += 1;
            if *count <= refusals_of(entry) {
                refused.push(at);
            }
        }
        Fault::throttle(refused)
    });
    sync(&kinesis, 90).await;
    for (n, data) in (0..90).map(numbered).enumerate() {
        let refusals = usize::from(n % 7 == 0) + usize::from(n % 21 == 0);
        assert_eq!(sent.lock().unwrap()[&data], 1 + refusals, "{n}");
    }
}

/// Every seventh record is refused once, every 21st once more.
fn refusals_of(entry: &Entry) -> usize {
    let data: serde_json::Value = serde_json::from_str(&entry.data()).unwrap();
    let n = data["n"].as_u64().unwrap();
    usize::from(n.is_multiple_of(7)) + usize::from(n.is_multiple_of(21))
}

/// Fluent Bit dropped a chunk after one retry.
#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_dropped_after_one_retry() {
    drill(|strike| Fault::throttle(strike.marked()))
        .times(5)
        .stores_all_once()
        .await;
}

/// Fluent Bit printed requests to its log, and Redpanda Connect their payloads.
#[tokio::test(flavor = "multi_thread")]
async fn no_level_of_logging_prints_requests_or_what_a_server_makes_of_them() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |call| {
        let record = call.entries()[0].data();
        match call.nth {
            1 => Fault::error(500, "InternalFailure", &format!("cannot store {record}")),
            2 => Fault::error(503, "Oops", &format!("'it is' {record} 'that is' to blame")),
            3 => Fault::raw(502, Some("text/html"), &record),
            4 => Fault::raw(200, Some("application/x-amz-json-1.1"), &record),
            5 => Fault::refuse_all("InternalFailure").saying(&record),
            _ => Fault::error(400, "BadException", &format!("Value '{record}' at 'x'")),
        }
    });
    let run = Write::to(&kinesis)
        .catalog(catalog([stream("s0")]))
        .input(input(5))
        .env("LOG_LEVEL", "TRACE")
        .run()
        .await;
    run.assert_failed("system_error", "\"_s0\"");
    run.assert_no_secrets();
}

/// Debezium Server looked up the second refusals in the first list of records.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_retry_takes_the_right_records() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle([1, 5, 6, 30, 31, 59]),
        2 => Fault::throttle([0, 3, 5]),
        3 => Fault::throttle([1, 2]),
        4 => Fault::refuse([1], "InternalFailure"),
        _ => Fault::pass(),
    });
    sync(&kinesis, 60).await;
}

/// Arroyo panicked when its retries ran out.
#[tokio::test(flavor = "multi_thread")]
async fn retries_that_run_out_are_an_error_and_no_panic() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |_| Fault::status(503));
    let run = Write::to(&kinesis)
        .config(json!({ "retryTimeoutSeconds": 1 }))
        .catalog(catalog([stream("s0")]))
        .input(input(5))
        .run()
        .await;
    let error = run.assert_failed("transient_error", "\"_s0\"");
    assert_eq!(error.get("stack_trace"), None);
}

/// Hazelcast tried the flushes of a snapshot again, but not the last one.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_flush_is_tried_again() {
    let last = |layout| {
        drill(|strike| match strike.nth {
            1 => Fault::status(500),
            2 => Fault::refuse_all(THROUGHPUT_EXCEEDED),
            3 => Fault::lost_request(),
            _ => Fault::throttle(strike.marked()),
        })
        .times(5)
        .only(Phase::LastFlush, layout)
    };
    last(Layout::One).stores_all_once().await;
    last(Layout::ThreeGlobal).stores_all_once().await;
}

/// Redpanda Connect failed a whole batch for one refusal that was no throttling.
#[tokio::test(flavor = "multi_thread")]
async fn one_refusal_that_is_no_throttling_does_not_fail_its_batch() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::refuse([3], "InternalFailure"),
        _ => Fault::pass(),
    });
    sync(&kinesis, 60).await;
    let sent: usize = kinesis
        .calls_of("PutRecords")
        .iter()
        .map(|call| call.records)
        .sum();
    assert_eq!(sent, 61, "the refused record went again, and no other");
}

/// The Kinesis-Kafka connector took the region to sign for from the name of the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn the_region_to_sign_for_is_the_configured_one_whatever_the_endpoint_is_named() {
    let kinesis = server().await;
    let input = input(5);
    let run = Write::to(&kinesis)
        .config(json!({
            "endpoint": "http://kinesis.us-west-2.amazonaws.com",
            "region": "eu-central-1",
        }))
        .env("HTTP_PROXY", &kinesis.endpoint())
        .catalog(catalog([stream("s0")]))
        .input(input.clone())
        .run()
        .await;
    run.assert_success();
    assert_all_states(&input, &run);
    let calls = kinesis.calls();
    assert!(!calls.is_empty());
    for call in calls {
        assert_eq!(call.credential()[2..4], ["eu-central-1", "kinesis"]);
    }
}
