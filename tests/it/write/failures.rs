//! What goes wrong: the error shows, what was acknowledged is stored, and no state past the gap comes out.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{data_in, kinesis_with, lines, ready, write_to};
use crate::support::faults::{Fault, Gate};
use crate::support::messages::{numbered, record, records, state_stream};
use crate::support::program::Running;
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_record_counts,
};

/// Three records, their state, two more records, their state.
fn two_states() -> Vec<String> {
    let mut messages = records("users", 5);
    messages.insert(3, state_stream("users", 1));
    messages.push(state_stream("users", 2));
    lines(messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hopeless_answer_ends_the_sync_at_once_and_no_state_is_out() {
    let kinesis = kinesis_with(&["_users"]).await;
    for (code, part) in [
        ("AccessDeniedException", "kinesis:PutRecords"),
        ("UnrecognizedClientException", "\"accessKey\""),
        ("KMSAccessDeniedException", "KMS key"),
        ("KMSDisabledException", "KMS key"),
        ("KMSInvalidStateException", "KMS key"),
        ("KMSNotFoundException", "KMS key"),
        ("KMSOptInRequired", "KMS key"),
        ("ResourceNotFoundException", "does not exist"),
    ] {
        kinesis.on("PutRecords", move |_| {
            Fault::error(400, code, "No, thanks.")
        });
        let run = write_to(&kinesis, &["users"]).input(two_states());
        let run = run.run().await;
        let error = run.assert_failed("config_error", part);
        assert!(error["message"].as_str().unwrap().contains("\"_users\""));
        let internal = error["internal_message"].as_str().unwrap();
        for part in [code, "No, thanks.", "request id "] {
            assert!(internal.contains(part), "{internal}");
        }
        assert!(!internal.contains("request id unknown"), "{internal}");
        assert!(run.states().is_empty(), "{run}");
        assert!(run.elapsed < Duration::from_secs(5), "{:?}", run.elapsed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_refused_for_good_ends_the_sync_and_holds_back_its_state() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |call| {
        let wanted = call.positions(|entry| entry.data() == numbered(4));
        Fault::refuse(wanted, "KMSDisabledException")
    });
    let input = two_states();
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    for line in &input {
        running.send(line).await;
    }
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("config_error", "KMS key");
    assert_eq!(run.states().len(), 1, "the first is earned: {run}");
    assert_earned(&kinesis, &input, &run).await;
    assert_eq!(kinesis.stored_count("_users"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_one_stream_lets_out_what_others_have_earned() {
    let kinesis = kinesis_with(&["_good", "_bad"]).await;
    kinesis.on("PutRecords", |call| match call.stream {
        "_bad" => Fault::error(400, "AccessDeniedException", "no"),
        _ => Fault::pass(),
    });
    let mut running = ready(write_to(&kinesis, &["good", "bad"])).await;
    running.send(record("good", "{}")).await;
    running.send(state_stream("good", 1)).await;
    running.next_state().await;
    running.send(record("bad", "{}")).await;
    running.send(state_stream("bad", 1)).await;
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("config_error", "\"_bad\"");
    assert_eq!(run.states().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_records_and_only_those_are_sent_again() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle([0, 2]),
        2 => Fault::refuse([0], "InternalFailure"),
        _ => Fault::null_errors(),
    });
    let input = two_states();
    let write = write_to(&kinesis, &["users"]).input(input.clone());
    let run = write.run().await;
    run.assert_success();
    assert_exactly_stored(&kinesis, "_users", &[0, 1, 2, 3, 4].map(numbered)).await;
    assert_all_states(&input, &run);
    assert_record_counts(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    let puts = kinesis.calls_of("PutRecords");
    let sent: usize = puts.iter().map(|put| put.records).sum();
    assert_eq!((puts[0].records, sent), (5, 5 + 2 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_whole_requests_pass() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::error(400, "ProvisionedThroughputExceededException", "slow"),
        2 => Fault::error(400, "KMSThrottlingException", "slow"),
        3 => Fault::error(500, "InternalFailure", "oops"),
        4 => Fault::html(503),
        5 => Fault::reset_request(),
        6 => Fault::lost_request(),
        7 => Fault::broken_json(),
        8 => Fault::empty(),
        _ => Fault::pass(),
    });
    let input = two_states();
    let write = write_to(&kinesis, &["users"]).input(input.clone());
    let run = write.run().await;
    run.assert_success();
    assert_exactly_stored(&kinesis, "_users", &[0, 1, 2, 3, 4].map(numbered)).await;
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_length_is_not_believed() {
    for long in [true, false] {
        let kinesis = kinesis_with(&["_users"]).await;
        kinesis.on("PutRecords", move |_| {
            if long {
                Fault::long_answer(1)
            } else {
                Fault::short_answer(1)
            }
        });
        let run = write_to(&kinesis, &["users"]).input(two_states());
        let run = run.run().await;
        run.assert_failed("system_error", "\"_users\"");
        assert!(run.states().is_empty(), "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_for_the_whole_retry_budget_is_a_transient_error() {
    let kinesis = kinesis_with(&["_users"]).await;
    let write = write_to(&kinesis, &["users"]).config(json!({ "retryTimeoutSeconds": 1 }));
    let mut running = ready(write).await;
    running.send(record("users", "{}")).await;
    running.send(state_stream("users", 1)).await;
    running.next_state().await;
    kinesis.go_offline();
    running.send(record("users", "{}")).await;
    running.send(state_stream("users", 2)).await;
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("transient_error", "\"_users\"");
    assert_eq!(run.states().len(), 1, "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_without_end_is_a_transient_error() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |_| {
        Fault::refuse_all("ProvisionedThroughputExceededException")
    });
    let write = write_to(&kinesis, &["users"]).config(json!({ "retryTimeoutSeconds": 1 }));
    let run = write.input(two_states()).run().await;
    run.assert_failed("transient_error", "more shards");
    assert!(run.states().is_empty(), "{run}");
}

/// A sync that has read a record and its state. It has told so by letting out the state of another
/// stream, which came behind them and has nothing to wait for.
async fn has_read_a_record(kinesis: &Kinesis) -> Running {
    let mut running = ready(write_to(kinesis, &["users", "marker"])).await;
    running.send(record("users", numbered(1))).await;
    running.send(state_stream("users", 1)).await;
    running.send(state_stream("marker", 1)).await;
    let state = running.next_state().await;
    assert!(state.text.contains("marker"));
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stores_what_is_buffered_lets_out_what_is_earned_and_fails() {
    for interrupted in [true, false] {
        let kinesis = kinesis_with(&["_users"]).await;
        let gate = Gate::new();
        let held = gate.clone();
        kinesis.on("PutRecords", move |_| Fault::hold_answer(&held));
        let mut running = has_read_a_record(&kinesis).await;
        if interrupted {
            running.interrupt();
        } else {
            running.terminate();
        }
        gate.waiting(1).await;
        gate.open();
        // Standard input stays open.
        running.ended().await;
        let run = running.finish().await;
        let signal = if interrupted { "SIGINT" } else { "SIGTERM" };
        run.assert_failed("transient_error", signal);
        assert_eq!(run.states().len(), 2, "{run}");
        assert_eq!(data_in(&kinesis, "_users").await, [numbered(1)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_heard_while_streams_are_made_ready() {
    let kinesis = Kinesis::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("DescribeStreamSummary", move |_| Fault::hold(&held));
    let mut running = write_to(&kinesis, &["users"]).spawn().await;
    gate.waiting(1).await;
    running.terminate();
    running.ended().await;
    running
        .finish()
        .await
        .assert_failed("transient_error", "SIGTERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let kinesis = kinesis_with(&["_users"]).await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |_| Fault::hold_answer(&held));
    let mut running = has_read_a_record(&kinesis).await;
    gate.waiting(1).await;
    let since = Instant::now();
    running.terminate();
    // Two of a kind that come together are one to the process.
    running.interrupt();
    running.ended().await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let run = running.finish().await;
    assert_ne!(run.exit_code, Some(0));
    assert_eq!(run.states().len(), 1, "only the marker: {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_waits_for_a_silent_service_no_longer_than_the_grace_period() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |_| Fault::silence());
    let mut running = has_read_a_record(&kinesis).await;
    let since = Instant::now();
    running.terminate();
    running.ended().await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    let run = running.finish().await;
    run.assert_failed("transient_error", "SIGTERM");
    assert_eq!(run.states().len(), 1, "only the marker: {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_that_is_closed_before_the_end_of_the_input_is_no_success() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    running.close_stdout().await;
    running.send(record("users", "{}")).await;
    running.send(state_stream("users", 1)).await;
    let run = running.finish().await;
    assert_eq!((run.exit_code, run.signal), (Some(1), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stdout_ends_the_process_quietly_and_soon() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    running.close_stdout().await;
    let since = Instant::now();
    running.send(record("users", "{}")).await;
    running.send(state_stream("users", 1)).await;
    // Standard input stays open.
    running.ended().await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let run = running.finish().await;
    assert_eq!((run.exit_code, run.signal), (Some(1), None));
}
