//! Which state may go out when, and what may be changed about it.

use serde_json::json;

use super::{kinesis_with, lines, ready, write_to};
use crate::support::faults::{Fault, Gate};
use crate::support::messages::{
    catalog, record, records, state_global, state_legacy, state_stream, state_stream_reset,
    state_untyped, stream,
};
use crate::support::program::Write;
use crate::support::server::Kinesis;
use crate::support::verdict::{assert_all_states, assert_earned, assert_record_counts};

/// What is added to a state that covers no records.
const NONE: &str = r#","destinationStats":{"recordCount":0.0}"#;

/// A server with the streams `_slow` and `_fast`, of which the first answers when the gate is open.
async fn slow_and_fast() -> (Kinesis, Gate) {
    let kinesis = kinesis_with(&["_slow", "_fast"]).await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.stream {
        "_slow" => Fault::hold_answer(&held),
        _ => Fault::pass(),
    });
    (kinesis, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_state_waits_for_its_own_stream_only() {
    let (kinesis, gate) = slow_and_fast().await;
    let input = lines([
        record("slow", "{}"),
        state_stream("slow", 1),
        record("fast", "{}"),
        state_stream("fast", 1),
        state_stream("fast", 2),
    ]);
    let mut running = write_to(&kinesis, &["slow", "fast"]).spawn().await;
    for line in &input {
        running.send(line).await;
    }
    for _ in 0..2 {
        let state = running.next_state().await;
        assert!(state.text.contains("fast"), "{}", state.text);
    }
    gate.waiting(1).await;
    assert_eq!(running.states_so_far(), 2);
    gate.open();
    let state = running.next_state().await;
    assert!(state.text.contains("slow"), "{}", state.text);
    let run = running.finish().await;
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn states_without_a_stream_wait_for_all_streams() {
    for state in [
        state_global(json!({ "lsn": 1 }), [("fast", json!({}))]),
        state_legacy(json!({ "fast": 1 })),
        state_untyped(json!({ "fast": 1 })),
        // Which records it covers cannot be known.
        state_stream("of another catalog", 1),
    ] {
        let (kinesis, gate) = slow_and_fast().await;
        let input = lines([
            record("slow", "{}"),
            record("fast", "{}"),
            state_stream("fast", 1),
            state,
            record("fast", r#"{"n":2}"#),
        ]);
        let mut running = write_to(&kinesis, &["slow", "fast"]).spawn().await;
        for line in &input {
            running.send(line).await;
        }
        running.next_state().await;
        kinesis.wait_for_stored("_fast", 2).await;
        gate.waiting(1).await;
        assert_eq!(running.states_so_far(), 1);
        gate.open();
        let run = running.finish().await;
        run.assert_success();
        assert_all_states(&input, &run);
        assert_earned(&kinesis, &input, &run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_comes_back_as_it_went_in_but_for_the_statistics() {
    let kinesis = kinesis_with(&["_users", "n_users"]).await;
    let long = "x".repeat(200_000);
    let states = [
        state_stream("users", r#"{"n":1.10,"big":12345678901234567890.1}"#).id(1),
        state_stream("users", r#"{"e":1E+2,"huge":1e400,"b":1,"a":2,"a":3}"#).id(2),
        state_stream("users", r#"{"s":"\u00e9\ud83d \u2028/\/"}"#).namespace("n"),
        state_stream("users", "{}").null_namespace().id(i64::MAX),
        state_stream("users", "{}").namespace(""),
        state_stream("users", "null"),
        state_stream("users", "\"text\""),
        state_stream_reset("users").id(0),
        state_stream("unknown", r#"{"not":"in the catalog"}"#),
        state_stream("users", "{}").with("sourceStats", r#"{"recordCount":5.0}"#),
        state_stream("users", "{}")
            .with("new", "[1.0]")
            .beside("also_new", "{}"),
        state_stream("users", format!("{long:?}")),
        state_global(r#"{"lsn":1.50}"#, [("users", json!(1))]).id(7),
        state_global("null", [("unknown", json!({ "x": null }))]),
        state_legacy(r#"{"users":{"cursor":1.0}}"#).id(-3),
        state_untyped(r#"{"users":1.00}"#),
        state_untyped("{}").beside("emitted_at", "null"),
    ];
    let mut input = lines(states);
    // White space is kept as well.
    input.push(r#"{ "state" : {"data": { "a" :1 } },  "type" : "STATE" }"#.to_owned());
    let streams = [stream("users"), stream("users").namespace("n")];
    let write = Write::to(&kinesis).catalog(catalog(streams));
    let run = write.input(input.clone()).run().await;
    run.assert_success();
    let mut out = lines(run.states());
    for line in &mut out {
        assert!(line.contains(NONE), "{line}");
        *line = line.replacen(NONE, "", 1);
    }
    assert_eq!(out, input);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_that_are_there_are_replaced() {
    let kinesis = kinesis_with(&["_users"]).await;
    let old = r#"{"recordCount":99.0,"rejectedRecordCount":1.0}"#;
    let input = [
        state_stream("users", "{}").with("destinationStats", old),
        state_stream("users", "{}").with("destinationStats", "null"),
        state_legacy("{}").with("destinationStats", "null"),
        state_stream("users", "{}").nulls(),
    ];
    let run = write_to(&kinesis, &["users"])
        .input(input.clone())
        .run()
        .await;
    run.assert_success();
    let new = r#""destinationStats":{"recordCount":0.0}"#;
    let expected = input.map(|state| {
        let line = state.line().replace(old, "null");
        line.replace(r#""destinationStats":null"#, new)
    });
    assert_eq!(run.states(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_the_records_since_the_state_before_in_its_scope() {
    let kinesis = kinesis_with(&["_users", "_items"]).await;
    let sync = async |states: [&dyn Fn(usize) -> String; 2]| {
        let mut input = lines(records("users", 3));
        input.extend(lines(records("items", 2)));
        input.push(states[0](1));
        input.push(states[1](2));
        input.push(states[1](3));
        input.extend(lines(records("users", 1)));
        input.push(states[0](4));
        let write = write_to(&kinesis, &["users", "items"]);
        let run = write.input(input.clone()).run().await;
        run.assert_success();
        assert_all_states(&input, &run);
        assert_record_counts(&input, &run);
    };
    let users = |n| state_stream("users", n).line();
    let items = |n| state_stream("items", n).line();
    let global = |n| state_global(n, []).line();
    sync([&users, &items]).await;
    sync([&global, &global]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_names_in_different_namespaces_have_states_of_their_own() {
    let kinesis = kinesis_with(&["_users", "n_users"]).await;
    let input = lines([
        record("users", r#"{"in":"none"}"#),
        record("users", r#"{"in":"n"}"#).namespace("n"),
        record("users", r#"{"in":"n, again"}"#).namespace("n"),
        state_stream("users", 1).namespace("n"),
        state_stream("users", 1).null_namespace(),
        state_stream("users", 2),
    ]);
    let streams = [stream("users"), stream("users").namespace("n")];
    let write = Write::to(&kinesis).catalog(catalog(streams));
    let run = write.input(input.clone()).run().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_record_counts(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_with_nothing_before_it_goes_out_at_once() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    running.send(state_legacy("{}")).await;
    running.next_state().await;
    running.finish().await.assert_success();
    assert!(kinesis.calls_of("PutRecords").is_empty());
}
