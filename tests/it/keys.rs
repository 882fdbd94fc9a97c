//! Partition keys made of the primary key, and the order that comes with them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::call::Call;
use crate::support::faults::{Fault, THROUGHPUT_EXCEEDED};
use crate::support::messages::{catalog, record, state_stream, stream};
use crate::support::program::{Program, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_stored_at_least_once,
};

/// A sync of the stream `events` with the primary key `id`, keyed by it.
fn write(kinesis: &Kinesis, settings: Value) -> Program {
    Write::to(kinesis)
        .config(json!({ "partitionKey": "primary_key" }))
        .config(settings)
        .catalog(catalog([stream("events").primary_key(&json!([["id"]]))]))
}

fn event(key: usize, n: usize) -> String {
    format!(r#"{{"id":{key},"n":{n}}}"#)
}

/// `count` events of `keys` keys, whose order tells nothing, and a state behind each thousand.
fn events(keys: usize, count: usize) -> Vec<String> {
    let mut lines = Vec::with_capacity(count + count / 1000);
    for n in 0..count {
        // A hash, so that now and then one key comes several times in a row.
        let key = ((n * 2_654_435_761) >> 7) % keys;
        lines.push(record("events", event(key, n)).line());
        if n % 1000 == 999 {
            lines.push(state_stream("events", json!({ "n": n })).line());
        }
    }
    lines
}

fn data_of(lines: &[String]) -> Vec<String> {
    let records = lines.iter().filter_map(|line| {
        let message: Value = serde_json::from_str(line).unwrap();
        let data = &message.get("record")?["data"];
        Some(event(number(&data["id"]), number(&data["n"])))
    });
    records.collect()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Reads each shard from its beginning: of each key, what was stored first came first, copies aside.
///
/// # Panics
///
/// If not, or if the records of a key are in two shards of a stream that was never resharded.
async fn assert_in_order(kinesis: &Kinesis) {
    let mut last_of: HashMap<usize, (String, usize)> = HashMap::new();
    let mut seen = HashSet::new();
    for stored in kinesis.stored("_events").await {
        if !seen.insert(stored.id) {
            continue;
        }
        let data: Value = serde_json::from_str(&stored.data).unwrap();
        let (key, n) = (number(&data["id"]), number(&data["n"]));
        if let Some((shard, before)) = last_of.insert(key, (stored.shard_id.clone(), n)) {
            assert_eq!(shard, stored.shard_id, "key {key}");
            assert!(before < n, "key {key}: {before} is stored before {n}");
        }
    }
}

/// Every way in which a record can be late, over and over.
fn trouble(call: &Call<'_>) -> Fault {
    let some = |part: usize| (0..call.len()).filter(move |at| at % part == 0);
    // Throttling comes late: behind it, a sync keeps to a thousand records a second and shard.
    let throttles = call.nth > 400;
    match call.nth % 13 {
        2 if throttles => Fault::throttle(some(3)),
        4 => Fault::lost_answer(),
        6 => Fault::refuse(some(5), "InternalFailure"),
        7 => Fault::pass().answered_after(Duration::from_millis(30)),
        9 => Fault::error(500, "InternalFailure", "no").but_served(),
        11 => Fault::lost_request(),
        12 if throttles => Fault::refuse_all(THROUGHPUT_EXCEEDED),
        _ => Fault::pass(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_key_survives_throttling_retries_and_lost_answers() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_events", 4).await;
    kinesis.on("PutRecords", trouble);
    let input = events(1000, 200_000);
    let write = write(&kinesis, json!({ "bufferSize": 500 }))
        .input(input.clone())
        .deadline(Duration::from_secs(240));
    let run = write.run().await;
    run.assert_success();
    assert_stored_at_least_once(&kinesis, "_events", &data_of(&input)).await;
    assert_in_order(&kinesis).await;
    assert_all_states(&input, &run);
    assert_earned(&kinesis, &input, &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_records_of_one_key_are_never_in_flight_together() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_events", 2).await;
    let twice = Arc::new(Mutex::new(Vec::new()));
    let (found, acknowledged) = (Arc::clone(&twice), Arc::new(Mutex::new(HashMap::new())));
    // What comes next of a key may come only when what came before of it is stored.
    kinesis.on("PutRecords", move |call| {
        let mut last: std::sync::MutexGuard<'_, HashMap<String, (String, bool)>> =
            acknowledged.lock().unwrap();
        let refused: HashSet<usize> = if call.nth % 3 == 0 {
            (0..call.len()).step_by(2).collect()
        } else {
            HashSet::new()
        };
        for (at, entry) in call.entries().iter().enumerate() {
            let (key, data) = (entry.partition_key.clone(), entry.data());
            if let Some((before, stored)) = last.get(&key)
                && *before != data
                && !stored
            {
                found.lock().unwrap().push(data.clone());
            }
            last.insert(key, (data, !refused.contains(&at)));
        }
        Fault::throttle(refused)
    });
    let input = events(7, 400);
    let run = write(&kinesis, json!({})).input(input.clone()).run().await;
    run.assert_success();
    assert!(twice.lock().unwrap().is_empty(), "{twice:?}");
    assert_exactly_stored(&kinesis, "_events", &data_of(&input)).await;
    assert_in_order(&kinesis).await;
    for call in kinesis.calls_of("PutRecords") {
        assert!(call.records <= 7, "one record of each key at the most");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_what_the_record_says_in_its_one_form() {
    let kinesis = Kinesis::start().await;
    let catalog = catalog([stream("events").primary_key(&json!([["tenant"], ["user", "id"]]))]);
    let long = "é".repeat(300);
    let write = Write::to(&kinesis)
        .config(json!({ "partitionKey": "primary_key" }))
        .catalog(catalog)
        .input([
            record("events", r#"{"n":1,"tenant":"a","user":{"id":1.0}}"#).line(),
            record(
                "events",
                r#"{"n":2,"user":{"x":[],"id":1},"tenant":"\u0061"}"#,
            )
            .line(),
            record("events", r#"{"n":3,"tenant":"a"}"#).line(),
            record("events", format!(r#"{{"n":4,"tenant":"{long}"}}"#)).line(),
            record("events", r#"{"n":5}"#).line(),
        ]);
    write.run().await.assert_success();
    let mut keys: Vec<_> = kinesis
        .stored("_events")
        .await
        .into_iter()
        .map(|stored| {
            let data: Value = serde_json::from_str(&stored.data).unwrap();
            (number(&data["n"]), stored.partition_key, stored.id)
        })
        .collect();
    keys.sort();
    assert_eq!(keys[0].1, r#"["a",1]"#);
    assert_eq!(keys[1].1, r#"["a",1]"#);
    assert_eq!(keys[2].1, r#"["a",null]"#);
    assert_eq!(keys[3].1.len(), 64, "a hash");
    assert_eq!(keys[4].1, keys[4].2, "no value: the record's id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_primary_key_gets_random_keys_and_says_so() {
    let kinesis = Kinesis::start().await;
    let write = Write::to(&kinesis)
        .config(json!({ "partitionKey": "primary_key" }))
        .catalog(catalog([stream("events")]))
        .input((0..5).map(|n| record("events", event(1, n)).line()));
    let run = write.run().await;
    run.assert_success();
    let warnings = run.logs("WARN").join("\n");
    assert!(
        warnings.contains("The stream \"events\" (no namespace) has no primary key"),
        "{warnings}"
    );
    let stored = kinesis.stored("_events").await;
    assert!(
        stored.len() == 5
            && stored
                .iter()
                .all(|record| record.partition_key == record.id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_counts_for_the_size_of_a_record() {
    const KIB: usize = 1024;
    let kinesis = Kinesis::start().await;
    let text = "k".repeat(250);
    let data = |bytes: usize| {
        let pad = "x".repeat(bytes);
        record("events", format!(r#"{{"id":"{text}","pad":"{pad}"}}"#)).line()
    };
    // The envelope and the key take less than 1 KiB, and more than 0.5.
    let fits = write(&kinesis, json!({})).input([data(1023 * KIB)]);
    fits.run().await.assert_success();
    let too_large = write(&kinesis, json!({})).input([data(1024 * KIB - 512)]);
    too_large
        .run()
        .await
        .assert_failed("config_error", "too large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ignores_keys_is_refused() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_events", 1).await;
    kinesis.on("DescribeStreamSummary", |_| {
        Fault::describe_with("RecordDistributionStrategy", json!("AUTO"))
    });
    let run = write(&kinesis, json!({})).input(events(1, 1)).run().await;
    run.assert_failed("config_error", "Set \"partitionKey\" to random");
    let run = write(&kinesis, json!({ "aggregation": "kpl" }))
        .input(events(1, 1))
        .run()
        .await;
    run.assert_failed("config_error", "Set \"aggregation\" to off");
    assert_eq!(kinesis.stored_count("_events"), 0);
    let run = write(&kinesis, json!({ "partitionKey": "random" }))
        .input(events(1, 1))
        .run()
        .await;
    run.assert_success();
}
