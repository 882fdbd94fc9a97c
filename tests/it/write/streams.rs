//! The Kinesis streams of a sync: found, created, waited for, shared.

use std::time::Duration;

use destination_kinesis::client::KinesisClientPool;
use destination_kinesis::config::KinesisConfig;
use serde_json::json;

use super::{data_in, kinesis_with, lines, ready, write_to};
use crate::support::faults::Fault;
use crate::support::messages::{
    CANARY, catalog, numbered, record, records, state_legacy, state_stream, stream,
};
use crate::support::program::{Write, connection};
use crate::support::server::Kinesis;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_created_with_the_configured_shards_and_one_that_exists_is_used_as_it_is() {
    let kinesis = kinesis_with(&["_old"]).await;
    let write = write_to(&kinesis, &["old", "new"]).config(json!({ "shardCount": 4 }));
    let run = write
        .input([record("old", "{}"), record("new", "{}")])
        .run()
        .await;
    run.assert_success();
    let shards = [
        kinesis.open_shards("_old").await,
        kinesis.open_shards("_new").await,
    ];
    assert_eq!(shards, [1, 4]);
    let created = kinesis.calls_of("CreateStream");
    assert!(created.len() == 1 && created[0].stream == "_new");
    let log = run.logs("INFO").join("\n");
    assert!(
        log.contains(r#""_old" is ready: 1 shards, it existed"#),
        "{log}"
    );
    assert!(
        log.contains(r#""_new" is ready: 4 shards, created"#),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_five_shards_by_default_and_its_name_follows_the_rules() {
    let kinesis = Kinesis::start().await;
    let streams = [
        stream("##stream").namespace("**namespace^h"),
        stream("Ünïcödé  näme"),
    ];
    let write = Write::to(&kinesis).catalog(catalog(streams));
    let records = [
        record("##stream", "{}").namespace("**namespace^h"),
        record("Ünïcödé  näme", "{}"),
    ];
    write.input(records).run().await.assert_success();
    for name in ["__namespace_h___stream", "_Unicode_name"] {
        assert_eq!(kinesis.open_shards(name).await, 5);
        assert_eq!(kinesis.stored_count(name), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_of_one_name_share_it_and_are_named_once() {
    let kinesis = kinesis_with(&["_a_b"]).await;
    let input = [
        record("a b", r#"{"n":1}"#),
        record("a-b", r#"{"n":2}"#),
        state_stream("a b", 1),
        state_stream("a-b", 1),
    ];
    let run = write_to(&kinesis, &["a b", "a-b"]).input(input).run().await;
    run.assert_success();
    let warnings = run.logs("WARN");
    assert_eq!(warnings.len(), 1, "{run}");
    for name in ["\"a b\"", "\"a-b\"", "\"_a_b\""] {
        assert!(warnings[0].contains(name), "{}", warnings[0]);
    }
    let data = data_in(&kinesis, "_a_b").await;
    assert_eq!(data, [r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(run.states().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sync_mode_is_taken_and_said_once_where_kinesis_cannot_give_it() {
    let kinesis = kinesis_with(&["_a", "_b", "_c", "_d"]).await;
    let streams = [
        stream("a"),
        stream("b")
            .sync_mode("overwrite")
            .with("generation_id", json!(3)),
        stream("c")
            .sync_mode("append_dedup")
            .with("minimum_generation_id", json!(3))
            .with("sync_id", json!(7))
            .with("primary_key", json!([["id"]])),
        stream("d").sync_mode("new_in_2030"),
    ];
    let write = Write::to(&kinesis).catalog(catalog(streams));
    let run = write.input(records("b", 2)).run().await;
    run.assert_success();
    let warnings = run.logs("WARN");
    assert_eq!(warnings.len(), 3, "{run}");
    for (warning, mode) in warnings
        .iter()
        .zip(["overwrite", "append_dedup", "new_in_2030"])
    {
        assert!(warning.contains(mode), "{warning}");
    }
    assert_eq!(kinesis.stored_count("_b"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_without_streams_passes_states_on() {
    let kinesis = Kinesis::start().await;
    let write = Write::to(&kinesis).catalog(catalog([]));
    let run = write.input([state_legacy("{}")]).run().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_its_stream_does_not_take_is_a_config_error_and_nothing_after_it_is_claimed()
{
    let kinesis = kinesis_with(&["_users"]).await;
    let data = format!(r#"{{"k":"{CANARY}{}"}}"#, "x".repeat(1 << 20));
    let input = [
        record("users", "{}"),
        state_stream("users", 1),
        record("users", data),
        record("users", "{}"),
        state_stream("users", 2),
    ];
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    let error = run.assert_failed("config_error", "\"_users\"");
    let message = error["message"].as_str().unwrap();
    // The envelope and the partition key count too.
    assert!(
        message.contains("1048576") && message.contains("10487"),
        "{message}"
    );
    assert_eq!((run.states().len(), kinesis.stored_count("_users")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_exactly_the_size_that_kinesis_takes_is_stored() {
    let kinesis = kinesis_with(&["_users"]).await;
    // All but the data: the frame of the envelope, the id in it and as the key, the longest time, and
    // the four escapes of the data's own quotes.
    let around = r#"{"_airbyte_ab_id":"","_airbyte_data":"","_airbyte_emitted_at":}"#.len();
    let around = around + 36 + 36 + "1795372724.066882931".len() + 4;
    let data = format!(r#"{{"k":"{}"}}"#, "x".repeat((1 << 20) - around - 8));
    let run = write_to(&kinesis, &["users"])
        .input(vec![record("users", &data); 10])
        .run()
        .await;
    run.assert_success();
    let stored = kinesis.stored("_users").await;
    let sizes = stored.iter().map(|record| record.bytes.len() + 36);
    assert_eq!(
        sizes.max(),
        Some(1 << 20),
        "of ten times one has nine digits"
    );
    assert_eq!(stored.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_larger_records_gets_them() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.set_record_size("_users", 10 << 10);
    let data = format!(r#"{{"k":"{}"}}"#, "x".repeat(3 << 20));
    let input = vec![record("users", &data); 2];
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    run.assert_success();
    assert_eq!(data_in(&kinesis, "_users").await, vec![data; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_200_streams_starts_within_the_limits_of_an_account() {
    const STREAMS: usize = 200;
    const NEW: usize = 40;
    let kinesis = Kinesis::start().await;
    let names: Vec<String> = (0..STREAMS).map(|n| format!("s{n}")).collect();
    for name in &names[NEW..] {
        kinesis.create_stream(&format!("_{name}"), 1).await;
    }
    kinesis.enforce_control_plane_limits();
    let streams: Vec<&str> = names.iter().map(String::as_str).collect();
    let write = write_to(&kinesis, &streams).deadline(Duration::from_secs(100));
    let run = write.input(lines(names.iter().map(|name| record(name, "{}"))));
    let run = run.config(json!({ "shardCount": 1 })).run().await;
    run.assert_success();
    assert_eq!(kinesis.calls_of("CreateStream").len(), NEW);
    assert_eq!(kinesis.over_limit(), 0);
    assert!(kinesis.max_creating() <= 5);
    for name in &names {
        assert_eq!(kinesis.stored_count(&format!("_{name}")), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_others_use_up_are_waited_out() {
    let kinesis = Kinesis::start().await;
    kinesis.script(|call| match (call.operation, call.nth_for_stream) {
        ("CreateStream", 1..=2) => Fault::limit_exceeded(),
        ("DescribeStreamSummary", 1..=2) => Fault::limit_exceeded(),
        _ => Fault::pass(),
    });
    let write = write_to(&kinesis, &["a", "b"]).input(records("a", 1));
    write.run().await.assert_success();
    assert_eq!(kinesis.stored_count("_a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_create_a_stream_that_exists_is_used() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("CreateStream", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    let write = write_to(&kinesis, &["users"]).input(records("users", 1));
    write.run().await.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 1);
    let write = write_to(&kinesis, &["users", "items"]).input(records("users", 1));
    let run = write.run().await;
    let error = run.assert_failed("config_error", "\"_items\"");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("kinesis:CreateStream")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_look_a_stream_that_exists_is_used() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.script(|call| match call.operation {
        "DescribeStreamSummary" | "DescribeStream" => {
            Fault::error(400, "AccessDeniedException", "no")
        }
        _ => Fault::pass(),
    });
    let write = write_to(&kinesis, &["users"]).input(records("users", 1));
    let run = write.run().await;
    run.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 1);
    assert!(run.logs("WARN")[0].contains("kinesis:DescribeStreamSummary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_being_deleted_is_created_anew() {
    let mut options = Kinesis::options();
    options.delete_stream_ms = 700;
    let kinesis = Kinesis::with(options).await;
    kinesis.create_stream("_users", 1).await;
    let config = KinesisConfig::from_json(connection(&kinesis).to_string().as_bytes()).unwrap();
    let client = KinesisClientPool::new()
        .lend(config.connection())
        .await
        .unwrap();
    let deleted = client
        .sdk()
        .delete_stream()
        .stream_name("_users")
        .send()
        .await;
    deleted.unwrap();
    let write = write_to(&kinesis, &["users"]).input(records("users", 1));
    let run = write.run().await;
    run.assert_success();
    let said = |log: &&str| log.contains("Waiting") && log.contains("status=DELETING");
    assert!(run.logs("INFO").iter().any(said), "{run}");
    assert_eq!(kinesis.calls_of("CreateStream").len(), 1);
    assert_eq!(data_in(&kinesis, "_users").await, [numbered(0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_long_in_creation_is_waited_for() {
    let mut options = Kinesis::options();
    options.create_stream_ms = 1500;
    let kinesis = Kinesis::with(options).await;
    let write = write_to(&kinesis, &["users"]).input(records("users", 1));
    let run = write.env("LOG_LEVEL", "DEBUG").run().await;
    run.assert_success();
    assert!(run.elapsed > Duration::from_millis(1500));
    let waits = run.logs("DEBUG").into_iter();
    assert!(
        waits.filter(|log| log.contains("status=CREATING")).count() > 0,
        "{run}"
    );
    assert_eq!(kinesis.stored_count("_users"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_shards_are_changing_is_writable() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("DescribeStreamSummary", |_| Fault::describe_as("UPDATING"));
    let write = write_to(&kinesis, &["users"]).input(records("users", 1));
    write.run().await.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reshard_in_the_middle_of_a_sync_changes_nothing() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    for n in 0..3 {
        running.send(record("users", numbered(n))).await;
        running.send(state_stream("users", n)).await;
        running.next_state().await;
        kinesis.reshard("_users", n + 2).await;
    }
    running.finish().await.assert_success();
    assert_eq!(data_in(&kinesis, "_users").await, [0, 1, 2].map(numbered));
}

#[tokio::test(flavor = "multi_thread")]
async fn write_deletes_and_changes_no_stream() {
    let kinesis = kinesis_with(&["_users", "_other"]).await;
    let write = write_to(&kinesis, &["users", "new"]).input(records("users", 3));
    write.run().await.assert_success();
    let allowed = [
        "DescribeStreamSummary",
        "CreateStream",
        "PutRecords",
        "ListShards",
    ];
    for call in kinesis.calls() {
        assert!(
            allowed.contains(&call.operation.as_str()),
            "{}",
            call.operation
        );
        assert_ne!(call.stream, "_other");
    }
}
