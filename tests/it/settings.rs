//! The settings beyond those of the Java connector, each through the real binary.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::faults::Fault;
use crate::support::messages::{catalog, numbered, record, records, state_stream, stream};
use crate::support::program::{Program, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{assert_all_states, assert_earned, assert_exactly_stored};

const CBOR: &str = "application/x-amz-cbor-1.1";
const JSON: &str = "application/x-amz-json-1.1";

/// A `write` of ten records and a state to the stream `_users`, with these settings.
fn write(kinesis: &Kinesis, settings: Value) -> Program {
    Write::to(kinesis)
        .config(settings)
        .catalog(catalog([stream("users")]))
        .input(input())
}

fn input() -> Vec<String> {
    let mut input = records("users", 10);
    input.push(state_stream("users", json!({"cursor": 10})));
    input.iter().map(ToString::to_string).collect()
}

fn data() -> Vec<String> {
    (0..10).map(numbered).collect()
}

/// The content types of all calls of an operation.
fn content_types(kinesis: &Kinesis, operation: &str) -> Vec<String> {
    let calls = kinesis.calls_of(operation);
    calls
        .iter()
        .map(|call| call.content_type().to_owned())
        .collect()
}

/// The JSON of the first CreateStream request, which is refused.
async fn create_request(settings: Value) -> Value {
    let kinesis = Kinesis::start().await;
    let seen = Arc::new(Mutex::new(Value::Null));
    let writer = Arc::clone(&seen);
    kinesis.on("CreateStream", move |call| {
        *writer.lock().unwrap() = call.json();
        Fault::error(400, "AccessDeniedException", "no")
    });
    let run = write(&kinesis, settings).run().await;
    run.assert_failed("config_error", "Allow kinesis:CreateStream");
    seen.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_as_json_to_an_endpoint_of_ones_own() {
    let kinesis = Kinesis::start().await;
    write(&kinesis, json!({})).run().await.assert_success();
    assert_exactly_stored(&kinesis, "_users", &data()).await;
    assert_eq!(content_types(&kinesis, "PutRecords"), [JSON]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_go_as_cbor_are_stored_to_the_same_byte() {
    let kinesis = Kinesis::start().await;
    let run = write(&kinesis, json!({"requestFormat": "cbor"}))
        .run()
        .await;
    run.assert_success();
    assert_exactly_stored(&kinesis, "_users", &data()).await;
    assert_earned(&kinesis, &input(), &run).await;
    assert_eq!(content_types(&kinesis, "PutRecords"), [CBOR]);
    assert!(
        content_types(&kinesis, "DescribeStreamSummary")
            .iter()
            .all(|kind| kind == JSON)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_refusals_in_cbor_are_understood() {
    let kinesis = Kinesis::start().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle([0, 3]),
        2 => Fault::error(500, "InternalFailure", "no"),
        _ => Fault::pass(),
    });
    let run = write(&kinesis, json!({"requestFormat": "cbor"}))
        .run()
        .await;
    run.assert_success();
    assert_exactly_stored(&kinesis, "_users", &data()).await;
    assert_earned(&kinesis, &input(), &run).await;

    kinesis.on("PutRecords", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    let run = write(&kinesis, json!({"requestFormat": "cbor"}))
        .run()
        .await;
    run.assert_failed("config_error", "kinesis:PutRecords");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_take_cbor_gets_json_and_nothing_is_lost() {
    for refusal in [
        || Fault::error(400, "SerializationException", "no"),
        || Fault::error(404, "UnknownOperationException", "no"),
        || Fault::html(200),
        || Fault::status(415),
    ] {
        let kinesis = Kinesis::start().await;
        kinesis.on("PutRecords", move |call| {
            if call.nth == 1 {
                refusal()
            } else {
                Fault::pass()
            }
        });
        let run = write(&kinesis, json!({"requestFormat": "cbor"}))
            .run()
            .await;
        run.assert_success();
        assert_exactly_stored(&kinesis, "_users", &data()).await;
        assert_all_states(&input(), &run);
        assert_eq!(content_types(&kinesis, "PutRecords"), [CBOR, JSON]);
        let told = run
            .logs("WARN")
            .iter()
            .filter(|log| log.contains("requestFormat"))
            .count();
        assert_eq!(told, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_is_asked_for_as_the_java_connector_did() {
    assert_eq!(
        create_request(json!({})).await,
        json!({"StreamName": "_users", "ShardCount": 5})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_gets_its_mode_its_record_size_and_its_tags() {
    let settings = json!({
        "streamMode": "ON_DEMAND", "maxRecordSizeKiB": 2048, "tags": [{"key": "team", "value": "data"}],
    });
    assert_eq!(
        create_request(settings).await,
        json!({
            "StreamName": "_users",
            "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
            "MaxRecordSizeInKiB": 2048,
            "Tags": {"team": "data"},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_another_mode_is_used_as_it_is_and_that_is_said() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_users", 1).await;
    let run = write(&kinesis, json!({"streamMode": "ON_DEMAND"}))
        .run()
        .await;
    run.assert_success();
    let told = |log: &&str| log.contains("in the mode PROVISIONED, not ON_DEMAND");
    assert!(run.logs("INFO").iter().any(told));
    assert!(kinesis.calls_of("CreateStream").is_empty());
}

/// A record of about so many bytes.
fn large(bytes: usize) -> String {
    record("users", json!({"k": "x".repeat(bytes)})).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_record_is_the_streams_own() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_users", 1).await;
    kinesis.set_record_size("_users", 3072);
    let run = Write::to(&kinesis)
        .catalog(catalog([stream("users")]))
        .input([large(2_500_000), large(2_500_000)])
        .run()
        .await;
    run.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_too_large_are_skipped_and_counted_on_request() {
    let kinesis = Kinesis::start().await;
    let mut lines = vec![large(1_100_000)];
    lines.extend(input());
    lines.push(large(1_200_000));
    lines.push(state_stream("users", json!({"cursor": 11})).to_string());
    let run = Write::to(&kinesis)
        .config(json!({"oversizedRecords": "skip"}))
        .catalog(catalog([stream("users")]))
        .input(lines)
        .run()
        .await;
    run.assert_success();
    assert_exactly_stored(&kinesis, "_users", &data()).await;
    let stats = |state: &&str| {
        let state: Value = serde_json::from_str(state).unwrap();
        state["state"]["destinationStats"].to_string()
    };
    assert_eq!(
        run.states().iter().map(stats).collect::<Vec<_>>(),
        [
            r#"{"recordCount":10.0,"rejectedRecordCount":1.0}"#,
            r#"{"recordCount":0.0,"rejectedRecordCount":1.0}"#
        ]
    );
    let told = run
        .logs("WARN")
        .iter()
        .filter(|log| log.contains("_users") && log.contains("bytes=1100"))
        .count();
    assert_eq!(told, 1);
    assert!(
        run.logs("INFO")
            .iter()
            .any(|log| log.contains("2 records were too large and left out"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_that_is_too_large_stops_the_sync_and_nothing_behind_it_is_claimed() {
    let kinesis = Kinesis::start().await;
    let mut lines = input();
    lines.push(large(1_100_000));
    lines.push(state_stream("users", json!({"cursor": 11})).to_string());
    let run = Write::to(&kinesis)
        .catalog(catalog([stream("users")]))
        .input(lines)
        .run()
        .await;
    run.assert_failed("config_error", "\"_users\" is too large: 1100");
    assert_eq!(run.states().len(), 1);
    assert_exactly_stored(&kinesis, "_users", &data()).await;
}
