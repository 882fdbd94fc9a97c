//! The library: clients lent out, and one stream from its creation to its end.

use std::collections::HashSet;
use std::sync::Mutex;

use destination_kinesis::client::KinesisClientPool;
use destination_kinesis::config::KinesisConfig;
use destination_kinesis::stream::KinesisStream;
use serde_json::{Value, json};

use crate::support::faults::Fault;
use crate::support::program::connection;
use crate::support::server::Kinesis;
use crate::support::within;

/// The settings for this server, with these on top.
fn config(kinesis: &Kinesis, settings: Value) -> KinesisConfig {
    let mut config = connection(kinesis);
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    KinesisConfig::from_json(config.to_string().as_bytes()).unwrap()
}

/// A stream that exists, of two shards.
async fn created(kinesis: &Kinesis, name: &str) -> KinesisStream {
    let config = config(kinesis, json!({ "shardCount": 2 }));
    let mut pool = KinesisClientPool::new();
    let client = pool.lend(config.connection()).await.unwrap();
    let mut stream = KinesisStream::new(name, client, &config);
    stream.create().await.unwrap();
    stream
}

/// The data of all its records, sorted.
async fn read_back(stream: &KinesisStream) -> Vec<String> {
    let records = stream.get_records().await.unwrap();
    let mut data: Vec<String> = records.iter().map(|r| r.data().to_owned()).collect();
    data.sort();
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_lends_one_client_for_each_distinct_connection() {
    let kinesis = Kinesis::start().await;
    let mut pool = KinesisClientPool::new();
    let same = [
        config(&kinesis, json!({})),
        config(&kinesis, json!({ "shardCount": 9, "bufferSize": 1 })),
        config(&kinesis, json!({ "region": " US-EAST-1 " })),
    ];
    let mut lent = Vec::new();
    for config in &same {
        lent.push(pool.lend(config.connection()).await.unwrap());
        assert_eq!(pool.open_clients(), 1);
    }
    for (at, other) in [
        json!({ "region": "eu-west-1" }),
        json!({ "endpoint": "http://localhost:1" }),
        json!({ "accessKey": "another" }),
        json!({ "privateKey": "another" }),
    ]
    .into_iter()
    .enumerate()
    {
        let other = config(&kinesis, other);
        lent.push(pool.lend(other.connection()).await.unwrap());
        assert_eq!(pool.open_clients(), at + 2);
    }
    // Closed with its last user.
    for (returned, open) in [(1, 5), (1, 5), (1, 4), (4, 0)] {
        lent.drain(..returned);
        assert_eq!(pool.open_clients(), open);
    }
    let again = pool.lend(same[0].connection()).await.unwrap();
    assert_eq!(pool.open_clients(), 1);
    again.sdk().list_streams().send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_created_written_to_read_back_and_deleted() {
    let kinesis = Kinesis::start().await;
    let mut stream = created(&kinesis, "a").await;
    assert!(stream.facts().created);
    assert_eq!(stream.facts().open_shards, 2);
    assert!(read_back(&stream).await.is_empty());
    for n in 0..250 {
        stream.put(&format!(r#"{{"n":{n}}}"#)).unwrap();
    }
    assert_eq!(kinesis.stored_count("a"), 0, "put buffers");
    stream.flush().await.unwrap();
    assert_eq!(kinesis.stored_count("a"), 250);
    let mut expected: Vec<_> = (0..250).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    expected.sort();
    assert_eq!(read_back(&stream).await, expected);
    stream.delete().await.unwrap();
    assert!(kinesis.streams().await.is_empty(), "delete waits");
    stream.delete().await.unwrap();
    stream.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn close_stores_what_is_buffered() {
    let kinesis = Kinesis::start().await;
    let mut stream = created(&kinesis, "a").await;
    stream.put(r#"{"n":1e400}"#).unwrap();
    stream.close().await.unwrap();
    let stream = created(&kinesis, "a").await;
    assert!(!stream.facts().created);
    assert_eq!(read_back(&stream).await, [r#"{"n":1e400}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_waits_out_what_passes_and_tells_what_does_not() {
    let kinesis = Kinesis::start().await;
    let mut stream = created(&kinesis, "a").await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle([1]),
        2 => Fault::status(503),
        _ => Fault::pass(),
    });
    for _ in 0..3 {
        stream.put("{}").unwrap();
    }
    stream.flush().await.unwrap();
    assert_eq!(kinesis.stored_count("a"), 3);
    kinesis.on("PutRecords", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    stream.put("{}").unwrap();
    let error = stream.flush().await.unwrap_err();
    assert!(error.message().contains("kinesis:PutRecords"), "{error}");
    let large = format!(r#"{{"k":"{}"}}"#, "x".repeat(1 << 20));
    assert!(stream.put(&large).unwrap_err().message().contains("\"a\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_from_every_shard_and_page_after_reshards_too() {
    let kinesis = Kinesis::start().await;
    let mut stream = created(&kinesis, "a").await;
    let pad = "x".repeat(900_000);
    let mut expected = Vec::new();
    for shards in [3, 5, 2, 1] {
        for _ in 0..8 {
            let data = format!(r#"{{"n":{},"pad":"{pad}"}}"#, expected.len());
            stream.put(&data).unwrap();
            expected.push(data);
        }
        stream.flush().await.unwrap();
        kinesis.reshard("a", shards).await;
    }
    expected.sort();
    // A page is at most 10 MB, and the second shard of the last but one had far more.
    assert!(read_back(&stream).await == expected);
    let shards = 2 + 3 + 5 + 2 + 1;
    assert_eq!(kinesis.calls_of("GetShardIterator").len(), shards);
}

/// moto never ends a closed shard: each page names a next one, and says that nothing is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_shard_that_never_ends_is_read_until_nothing_is_behind() {
    let kinesis = Kinesis::start().await;
    let mut stream = created(&kinesis, "s").await;
    stream.put(r#"{"n":1}"#).unwrap();
    stream.flush().await.unwrap();
    kinesis.reshard("s", 3).await;
    let asked = Mutex::new(HashSet::new());
    kinesis.on("GetRecords", move |call| {
        let iterator = call.json()["ShardIterator"].clone();
        let is_first = asked.lock().unwrap().insert(iterator.to_string());
        Fault::tamper(move |page| {
            if page["NextShardIterator"].is_null() {
                page["NextShardIterator"] = iterator;
                page["MillisBehindLatest"] = json!(0);
            }
            if !is_first {
                page["Records"] = json!([]);
            }
        })
    });
    let data = within("the end of the stream", read_back(&stream)).await;
    assert_eq!(data, [r#"{"n":1}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pages_are_read_and_faults_on_the_way_waited_out() {
    let kinesis = Kinesis::start().await;
    let mut stream = created(&kinesis, "a").await;
    let data: Vec<_> = (10_000..22_000)
        .map(|n| format!(r#"{{"n":{n}}}"#))
        .collect();
    for data in &data {
        stream.put(data).unwrap();
    }
    stream.flush().await.unwrap();
    kinesis.on("GetRecords", |call| match call.nth % 3 {
        1 => Fault::error(400, "ProvisionedThroughputExceededException", "slow"),
        _ => Fault::pass(),
    });
    assert!(read_back(&stream).await == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_somebody_else_is_an_error_without_its_content() {
    let kinesis = Kinesis::start().await;
    let stream = created(&kinesis, "a").await;
    let put = stream.client().sdk().put_record().stream_name("a");
    let put = put
        .partition_key("k")
        .data(aws_sdk_kinesis::primitives::Blob::new("canary"));
    put.send().await.unwrap();
    let error = stream.get_records().await.unwrap_err();
    assert!(error.message().contains("\"a\""), "{error}");
    assert!(!format!("{error:?}").contains("canary"));
}
