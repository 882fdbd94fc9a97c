//! Many records in one Kinesis record.

use std::collections::HashMap;
use std::time::Duration;

use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::support::call::Call;
use crate::support::faults::Fault;
use crate::support::messages::{catalog, numbered, record, records, state_stream, stream};
use crate::support::program::{Program, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_stored_at_least_once,
};

/// A sync of the stream `users`, aggregated.
fn write(kinesis: &Kinesis, settings: Value) -> Program {
    let users = stream("users").primary_key(&json!([["n"]]));
    Write::to(kinesis)
        .config(json!({ "aggregation": "kpl", "bufferSize": 500 }))
        .config(settings)
        .catalog(catalog([users]))
}

/// So many records, and a state behind each hundred.
fn input(count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for n in 0..count {
        lines.push(record("users", numbered(n)).line());
        if n % 100 == 99 {
            lines.push(state_stream("users", json!({ "n": n })).line());
        }
    }
    lines
}

fn data(count: usize) -> Vec<String> {
    (0..count).map(numbered).collect()
}

/// Kinesis records that were sent, over all requests.
fn entries_sent(kinesis: &Kinesis) -> usize {
    kinesis
        .calls_of("PutRecords")
        .iter()
        .map(|call| call.records)
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_go_in_one_and_states_wait_for_it() {
    const RECORDS: usize = 20_000;
    let kinesis = Kinesis::start().await;
    let input = input(RECORDS);
    let run = write(&kinesis, json!({})).input(input.clone()).run().await;
    run.assert_success();
    assert_exactly_stored(&kinesis, "_users", &data(RECORDS)).await;
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
    let entries = entries_sent(&kinesis);
    assert!(entries < RECORDS / 100, "{entries} Kinesis records");
    let summary = run.logs("INFO").join("\n");
    assert!(summary.contains("records in each"), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_alone_goes_as_it_is() {
    let kinesis = Kinesis::start().await;
    let large = format!(r#"{{"n":1,"pad":"{}"}}"#, "x".repeat(60_000));
    let input = [
        record("users", numbered(0)),
        record("users", &large),
        record("users", numbered(2)),
    ];
    let run = write(&kinesis, json!({}))
        .input(input.map(|message| message.line()))
        .run()
        .await;
    run.assert_success();
    assert_eq!(
        kinesis.stored_count("_users"),
        3,
        "what is too large for company parts its neighbours"
    );
    assert_exactly_stored(&kinesis, "_users", &[numbered(0), large, numbered(2)]).await;
}

/// Every way in which an aggregate can be late.
fn trouble(call: &Call<'_>) -> Fault {
    match call.nth % 7 {
        1 => Fault::throttle((0..call.len()).filter(|at| at % 2 == 0)),
        3 => Fault::lost_answer(),
        4 => Fault::refuse([0], "InternalFailure"),
        6 => Fault::error(500, "InternalFailure", "no").but_served(),
        _ => Fault::pass(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_faults_nothing_is_lost_and_no_state_is_early() {
    const RECORDS: usize = 10_000;
    for partition_key in ["random", "primary_key"] {
        let kinesis = Kinesis::start().await;
        kinesis.create_stream("_users", 3).await;
        kinesis.on("PutRecords", trouble);
        let input = input(RECORDS);
        let run = write(&kinesis, json!({ "partitionKey": partition_key }))
            .input(input.clone())
            .deadline(Duration::from_secs(60))
            .run()
            .await;
        run.assert_success();
        assert_stored_at_least_once(&kinesis, "_users", &data(RECORDS)).await;
        assert_all_states(&input, &run);
        assert_earned(&kinesis, &input, &run).await;
    }
}

/// What a consumer keeps of an aggregate: only records whose key belongs to the shard. Returns how many it drops.
async fn dropped_by_consumers(kinesis: &Kinesis, shards: u128) -> HashMap<String, bool> {
    let width = u128::MAX / shards + 1;
    let mut kept = HashMap::new();
    for stored in kinesis.stored("_users").await {
        let data: Value = serde_json::from_str(&stored.data).unwrap();
        let hash = u128::from_be_bytes(Md5::digest(data["n"].to_string()).into());
        let number: u128 = stored
            .shard_id
            .trim_start_matches("shardId-")
            .parse()
            .unwrap();
        *kept.entry(stored.id).or_insert(false) |= hash / width == number;
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_keys_are_packed_with_those_of_their_shard_only() {
    const RECORDS: usize = 5_000;
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_users", 4).await;
    let run = write(&kinesis, json!({ "partitionKey": "primary_key" }))
        .input(input(RECORDS))
        .run()
        .await;
    run.assert_success();
    let kept = dropped_by_consumers(&kinesis, 4).await;
    assert_eq!(kept.len(), RECORDS);
    assert!(kept.values().all(|kept| *kept));
    assert!(entries_sent(&kinesis) < RECORDS / 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reshard_records_are_packed_again_for_the_new_shards() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_users", 1).await;
    let mut running = write(&kinesis, json!({ "partitionKey": "primary_key" }))
        .spawn()
        .await;
    running
        .wait_for_message(|line| line.logs("INFO", "is ready"))
        .await;
    for message in records("users", 100) {
        running.send(message.line()).await;
    }
    running
        .send(state_stream("users", json!({ "n": 100 })).line())
        .await;
    running.next_state().await;
    kinesis.reshard("_users", 3).await;
    for n in 100..1000 {
        running.send(record("users", numbered(n)).line()).await;
    }
    let run = running.finish().await;
    run.assert_success();
    assert!(
        run.logs("INFO")
            .join("\n")
            .contains("The stream's shards have changed")
    );
    assert_stored_at_least_once(&kinesis, "_users", &data(1000)).await;
    // What came after the reshard is where a consumer keeps it. The new shards are numbers 1 to 3.
    let width = u128::MAX / 3 + 1;
    let mut kept: HashMap<u64, bool> = HashMap::new();
    for stored in kinesis.stored("_users").await {
        let data: Value = serde_json::from_str(&stored.data).unwrap();
        let n = data["n"].as_u64().unwrap();
        let hash = u128::from_be_bytes(Md5::digest(n.to_string()).into());
        let number: u128 = stored
            .shard_id
            .trim_start_matches("shardId-")
            .parse()
            .unwrap();
        *kept.entry(n).or_default() |= number == 0 || hash / width + 1 == number;
    }
    let dropped: Vec<_> = kept.iter().filter(|(_, kept)| !**kept).collect();
    assert!(kept.len() == 1000 && dropped.is_empty(), "{dropped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_to_list_shards_keys_are_not_packed() {
    let kinesis = Kinesis::start().await;
    kinesis.on("ListShards", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    let run = write(&kinesis, json!({ "partitionKey": "primary_key" }))
        .input(input(1))
        .run()
        .await;
    run.assert_failed("config_error", "kinesis:ListShards");
    let run = write(&kinesis, json!({})).input(input(1)).run().await;
    run.assert_success();
}
