//! Streams that are slow to come, change, or go away, and streams that stand still beside others.

use std::time::Duration;

use serde_json::json;

use crate::support::faults::{Fault, Gate};
use crate::support::finished::Line;
use crate::support::messages::{
    Message, catalog, numbered, records, state_global, state_stream, stream,
};
use crate::support::program::{Finished, Program, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{assert_all_states, assert_earned, assert_exactly_stored};

const RECORDS: usize = 30;

fn input() -> Vec<Message> {
    let mut input = records("s0", RECORDS);
    input.push(state_stream("s0", json!({ "cursor": RECORDS })));
    input
}

fn write(kinesis: &Kinesis) -> Program {
    Write::to(kinesis)
        .config(json!({ "bufferSize": 10, "shardCount": 1, "retryTimeoutSeconds": 30 }))
        .catalog(catalog([stream("s0")]))
}

/// A sync into a stream that does not exist yet, or does. It succeeds.
async fn succeeds(kinesis: &Kinesis) -> Finished {
    let input = input();
    let run = write(kinesis).input(input.clone()).run().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(kinesis, &input, &run).await;
    let data: Vec<String> = (0..RECORDS).map(numbered).collect();
    assert_exactly_stored(kinesis, "_s0", &data).await;
    run
}

/// A sync that cannot even begin. The error names the stream and says all of this.
async fn fails_to_begin<const N: usize>(kinesis: &Kinesis, failure_type: &str, says: [&str; N]) {
    let run = write(kinesis)
        .config(json!({ "retryTimeoutSeconds": 1 }))
        .input(input())
        .run()
        .await;
    let error = run.assert_failed(failure_type, "\"_s0\"");
    let message = error["message"].as_str().unwrap();
    for part in says {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(run.states().is_empty());
    assert_eq!(kinesis.calls_of("PutRecords").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_a_stream_survives_every_fault_that_passes() {
    let kinesis = Kinesis::start().await;
    kinesis.on("CreateStream", |call| match call.nth {
        1 => Fault::limit_exceeded(),
        2 => Fault::error(500, "InternalFailure", "no"),
        3 => Fault::html(503),
        4 => Fault::lost_request(),
        5 => Fault::reset_request(),
        // It is created, and nobody hears of it.
        6 => Fault::lost_answer(),
        _ => Fault::pass(),
    });
    succeeds(&kinesis).await;
    assert_eq!(kinesis.streams().await, ["_s0"]);
    assert_eq!(kinesis.open_shards("_s0").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_a_stream_up_survives_every_fault_that_passes() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 2).await;
    kinesis.on("DescribeStreamSummary", |call| match call.nth {
        1 => Fault::limit_exceeded(),
        2 => Fault::error(500, "InternalFailure", "no"),
        3 => Fault::html(502),
        4 => Fault::lost_answer(),
        5 => Fault::reset_answer(),
        6 => Fault::empty(),
        7 => Fault::broken_json(),
        _ => Fault::pass(),
    });
    succeeds(&kinesis).await;
    assert_eq!(kinesis.calls_of("CreateStream").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_long_in_creation_is_waited_for() {
    let kinesis = Kinesis::start().await;
    kinesis.on("DescribeStreamSummary", |call| match call.nth {
        2..=4 => Fault::describe_as("CREATING"),
        // What was just created is not visible everywhere.
        5 => Fault::error(400, "ResourceNotFoundException", "not yet"),
        _ => Fault::pass(),
    });
    succeeds(&kinesis).await;
    assert_eq!(kinesis.calls_of("CreateStream").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_being_deleted_is_created_again_when_it_is_gone() {
    let kinesis = Kinesis::start().await;
    kinesis.on("DescribeStreamSummary", |call| match call.nth {
        1 | 2 => Fault::describe_as("DELETING").tampered(|answer| {
            *answer = json!({ "StreamDescriptionSummary": summary("DELETING") });
        }),
        _ => Fault::pass(),
    });
    succeeds(&kinesis).await;
}

/// What `DescribeStreamSummary` says of a stream.
fn summary(status: &str) -> serde_json::Value {
    json!({
        "StreamName": "_s0",
        "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/_s0",
        "StreamStatus": status,
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1.7e9,
        "EnhancedMonitoring": [],
        "OpenShardCount": 1,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_being_resharded_takes_records() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 2).await;
    kinesis.on("DescribeStreamSummary", |_| Fault::describe_as("UPDATING"));
    succeeds(&kinesis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_allows_the_older_way_to_look_is_enough() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 2).await;
    kinesis.on("DescribeStreamSummary", |_| denied());
    succeeds(&kinesis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_allows_no_look_at_all_is_enough_for_a_stream_that_exists() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 2).await;
    for operation in ["DescribeStreamSummary", "DescribeStream", "ListShards"] {
        kinesis.on(operation, |_| denied());
    }
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle([0, 1]),
        _ => Fault::pass(),
    });
    succeeds(&kinesis).await;
}

fn denied() -> Fault {
    Fault::error(400, "AccessDeniedException", "User is not authorized.")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_not_be_created_is_the_users_to_create() {
    let kinesis = Kinesis::start().await;
    kinesis.on("CreateStream", |_| denied());
    let says = ["kinesis:CreateStream", "create the stream yourself"];
    fails_to_begin(&kinesis, "config_error", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_not_be_looked_up_and_does_not_exist_is_the_users_to_allow() {
    let kinesis = Kinesis::start().await;
    for operation in ["DescribeStreamSummary", "DescribeStream", "CreateStream"] {
        kinesis.on(operation, |_| denied());
    }
    let says = ["access denied", "kinesis:DescribeStreamSummary"];
    fails_to_begin(&kinesis, "config_error", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_shards_that_is_used_up_is_the_users_to_raise() {
    let kinesis = Kinesis::start().await;
    kinesis.on("CreateStream", |_| {
        let message =
            "This request would exceed the shard limit for the account 000000000000 in us-east-1.";
        Fault::error(400, "LimitExceededException", message)
    });
    fails_to_begin(&kinesis, "config_error", ["quota", "shardCount"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_wrong_from_the_start_are_the_users_to_correct() {
    let kinesis = Kinesis::start().await;
    kinesis.script(|_| Fault::error(400, "UnrecognizedClientException", "The token is invalid."));
    let says = ["does not take the credentials", "accessKey"];
    fails_to_begin(&kinesis, "config_error", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_only_hangs_up_fails_the_sync_before_it_begins() {
    let kinesis = Kinesis::start().await;
    kinesis.go_offline();
    fails_to_begin(&kinesis, "transient_error", ["endpoint", "network"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_fails_for_good_fails_the_sync_before_it_begins() {
    let kinesis = Kinesis::start().await;
    kinesis.on("DescribeStreamSummary", |_| Fault::html(503));
    fails_to_begin(&kinesis, "transient_error", ["look up", "endpoint"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_in_the_middle_ends_the_sync_and_a_second_one_completes_it() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 1).await;
    let mut running = write(&kinesis).spawn().await;
    let input = input();
    for line in &input[..20] {
        running.send(line.clone()).await;
    }
    kinesis.wait_for_stored("_s0", 20).await;
    kinesis.delete_stream("_s0").await;
    for line in &input[20..] {
        running.send(line.clone()).await;
    }
    let run = running.finish().await;
    let error = run.assert_failed("config_error", "\"_s0\"");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("run the sync again")
    );
    assert!(run.states().is_empty());
    succeeds(&kinesis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_may_be_split_and_merged_in_the_middle_of_throttling() {
    const MANY: usize = 400;
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_s0", 2).await;
    // Throttling makes the shard map known, so that there is something to be wrong about.
    kinesis.on("PutRecords", |call| match call.nth {
        nth if nth % 3 == 1 => Fault::throttle((0..call.len()).step_by(2)),
        _ => Fault::pass(),
    });
    let mut input = Vec::new();
    for (at, message) in records("s0", MANY).into_iter().enumerate() {
        input.push(message);
        if at % 50 == 49 {
            input.push(state_stream("s0", json!({ "cursor": at })));
        }
    }
    let mut running = write(&kinesis).spawn().await;
    let (first, rest) = input.split_at(input.len() / 4);
    let (second, third) = rest.split_at(rest.len() / 2);
    for (part, shards) in [(first, 4), (second, 3)] {
        for line in part {
            running.send(line.clone()).await;
        }
        kinesis.wait_for_stored("_s0", 10).await;
        kinesis.reshard("_s0", shards).await;
    }
    for line in third {
        running.send(line.clone()).await;
    }
    let run = running.finish().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    let data: Vec<String> = (0..MANY).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
    assert_eq!(kinesis.open_shards("_s0").await, 3);
}

/// Two streams, of which the first is stuck: `stuck` says what its requests meet.
async fn beside_a_stuck_stream(global: bool) {
    let kinesis = Kinesis::start().await;
    for name in ["_s0", "_s1"] {
        kinesis.create_stream(name, 1).await;
    }
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.stream {
        "_s0" => Fault::hold(&held),
        _ => Fault::pass(),
    });
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 10 }))
        .catalog(catalog(["s0", "s1"].map(stream)))
        .spawn()
        .await;
    let mut input = records("s0", 100);
    input.push(state_stream("s0", json!({ "cursor": 100 })));
    input.extend(records("s1", 500));
    if global {
        let states = ["s0", "s1"].map(|name| (name, json!({ "cursor": 1 })));
        input.push(state_global(json!(1), states));
    } else {
        input.push(state_stream("s1", json!({ "cursor": 500 })));
    }
    for line in &input {
        running.send(line.clone()).await;
    }
    kinesis.wait_for_stored("_s1", 500).await;
    if !global {
        let state = running.next_state().await;
        assert!(state.text.contains(r#""name":"s1""#), "{}", state.text);
    }
    gate.waiting(1).await;
    assert_eq!(running.states_so_far(), usize::from(!global));
    gate.open();
    let run = running.finish().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    for (stream, count) in [("_s0", 100), ("_s1", 500)] {
        let data: Vec<String> = (0..count).map(numbered).collect();
        assert_exactly_stored(&kinesis, stream, &data).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stands_still_does_not_hold_back_the_states_of_another() {
    beside_a_stuck_stream(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stands_still_holds_back_the_states_of_all() {
    beside_a_stuck_stream(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_that_stand_still_do_not_stop_the_one_that_moves() {
    const STUCK: usize = 24;
    let kinesis = Kinesis::start().await;
    let names: Vec<String> = (0..=STUCK).map(|n| format!("s{n}")).collect();
    for name in &names {
        kinesis.create_stream(&format!("_{name}"), 1).await;
    }
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.stream {
        "_s0" => Fault::pass(),
        _ => Fault::hold(&held),
    });
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 10 }))
        .catalog(catalog(names.iter().map(|name| stream(name))))
        .deadline(Duration::from_secs(60))
        .spawn()
        .await;
    let mut input = Vec::new();
    for name in &names[1..] {
        input.extend(records(name, 20));
    }
    input.extend(records("s0", 1000));
    input.push(state_stream("s0", json!({ "cursor": 1000 })));
    for line in &input {
        running.send(line.clone()).await;
    }
    kinesis.wait_for_stored("_s0", 1000).await;
    running.next_state().await;
    gate.open();
    let run = running.finish().await;
    run.assert_success();
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_several_errors_is_the_one_that_is_told() {
    let kinesis = Kinesis::start().await;
    for name in ["_s0", "_s1"] {
        kinesis.create_stream(name, 1).await;
    }
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.stream {
        "_s0" => denied(),
        _ => Fault::error(400, "KMSDisabledException", "no").waiting_at(&held),
    });
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 10 }))
        .catalog(catalog(["s0", "s1"].map(stream)))
        .env("LOG_LEVEL", "DEBUG")
        .spawn()
        .await;
    for line in records("s1", 10) {
        running.send(line).await;
    }
    gate.waiting(1).await;
    for line in records("s0", 10) {
        running.send(line).await;
    }
    let first = |line: &Line| line.logs("DEBUG", "A PutRecords request failed");
    running.wait_for_message(first).await;
    gate.open();
    let run = running.finish().await;
    run.assert_failed("config_error", "\"_s0\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_on_their_way_when_a_stream_fails_still_earn_their_states() {
    let kinesis = Kinesis::start().await;
    for name in ["_s0", "_s1"] {
        kinesis.create_stream(name, 1).await;
    }
    let gate = Gate::new();
    let held = gate.clone();
    let failed = gate.clone();
    kinesis.on("PutRecords", move |call| match call.stream {
        "_s0" => {
            failed.open();
            denied()
        }
        _ => Fault::hold(&held).answered_after(Duration::from_millis(200)),
    });
    let mut input = records("s1", 10);
    input.push(state_stream("s1", json!({ "cursor": 10 })));
    let mut running = Write::to(&kinesis)
        .config(json!({ "bufferSize": 10 }))
        .catalog(catalog(["s0", "s1"].map(stream)))
        .spawn()
        .await;
    for line in &input {
        running.send(line.clone()).await;
    }
    gate.waiting(1).await;
    for line in records("s0", 10) {
        running.send(line).await;
    }
    let run = running.finish().await;
    run.assert_failed("config_error", "\"_s0\"");
    assert_eq!(run.states().len(), 1, "{run}");
    assert_earned(&kinesis, &input, &run).await;
}
