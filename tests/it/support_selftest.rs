//! The tests' own language, tried with the real SDK client and a shell in the place of the
//! connector.

use std::time::{Duration, Instant};

use crate::support::faults::{Cut, Fault, Gate, Hangup, THROUGHPUT_EXCEEDED};
use crate::support::ledger::CREATING_MAX;
use crate::support::server::Kinesis;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use ferrokinesis::store::StoreOptions;

mod program;
mod wire;

/// A client as the connector has one, that never tries again by itself.
fn client(kinesis: &Kinesis) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(kinesis.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::for_tests())
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .build();
    Client::from_conf(config)
}

/// Puts `count` records `r0`, `r1`, … into the stream `s`: what became of it, or the code or text
/// of the error.
async fn put(client: &Client, count: usize) -> Result<PutRecordsOutput, String> {
    let entries = (0..count).map(|n| {
        let entry = PutRecordsRequestEntry::builder();
        let entry = entry
            .partition_key(format!("key-{n}"))
            .data(Blob::new(format!("r{n}")));
        entry.build().expect("a complete entry")
    });
    let put = client
        .put_records()
        .stream_name("s")
        .set_records(Some(entries.collect()));
    put.send().await.map_err(|error| match error.code() {
        Some(code) => code.to_owned(),
        None => DisplayErrorContext(&error).to_string(),
    })
}

/// A server with the stream `s` of two shards, and a client of it.
async fn server() -> (Kinesis, Client) {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("s", 2).await;
    let client = client(&kinesis);
    (kinesis, client)
}

/// What is stored in `s`, in no order.
async fn stored(kinesis: &Kinesis) -> Vec<String> {
    let stored = kinesis.stored("s").await.into_iter();
    let mut texts: Vec<String> = stored
        .map(|record| String::from_utf8(record.bytes).unwrap())
        .collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_and_logs() {
    let (kinesis, client) = server().await;
    let answer = put(&client, 3).await.unwrap();
    assert_eq!(answer.records().len(), 3);
    assert_eq!(stored(&kinesis).await, ["r0", "r1", "r2"]);
    assert_eq!(kinesis.stored_count("s"), 3);
    let call = &kinesis.calls_of("PutRecords")[0];
    assert_eq!(
        (call.stream.as_str(), call.records, call.status),
        ("s", 3, Some(200))
    );
    assert_eq!(
        call.credential()[2..],
        ["us-east-1", "kinesis", "aws4_request"]
    );
    let acknowledged = kinesis.acknowledged("s");
    for record in answer.records() {
        assert!(acknowledged.contains_key(record.sequence_number().unwrap()));
    }
    kinesis.reshard("s", 3).await;
    put(&client, 1).await.unwrap();
    assert_eq!(kinesis.open_shards("s").await, 3);
    assert_eq!(
        kinesis.stored("s").await.len(),
        4,
        "closed shards are read too"
    );
    kinesis.delete_stream("s").await;
    assert!(kinesis.streams().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_some_records_and_stores_the_others() {
    let (kinesis, client) = server().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle(call.positions(|entry| entry.bytes == b"r1")),
        2 => Fault::refuse([0], "InternalFailure"),
        _ => Fault::refuse_all("KMSThrottlingException").saying("no keys"),
    });
    let answer = put(&client, 3).await.unwrap();
    assert_eq!(answer.failed_record_count(), Some(1));
    let refused = &answer.records()[1];
    assert_eq!(refused.error_code(), Some(THROUGHPUT_EXCEEDED));
    let message = refused.error_message().unwrap();
    assert!(
        message.starts_with("Rate exceeded for shard shardId-00000000000"),
        "{message}"
    );
    assert!(
        message.ends_with(" in stream s under account 000000000000."),
        "{message}"
    );
    assert_eq!(stored(&kinesis).await, ["r0", "r2"]);
    let answer = put(&client, 2).await.unwrap();
    assert_eq!(answer.records()[0].error_code(), Some("InternalFailure"));
    assert!(answer.records()[1].sequence_number().is_some());
    let answer = put(&client, 2).await.unwrap();
    assert!(
        answer
            .records()
            .iter()
            .all(|record| record.error_message() == Some("no keys"))
    );
    assert_eq!(stored(&kinesis).await, ["r0", "r1", "r2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fails_whole_requests() {
    let (kinesis, client) = server().await;
    kinesis.script(|call| match call.nth {
        1 => Fault::error(400, "AccessDeniedException", "no"),
        2 => Fault::status(413),
        3 => Fault::html(503),
        4 => Fault::html(200),
        5 => Fault::empty(),
        6 => Fault::broken_json(),
        _ => Fault::status(500).but_served(),
    });
    assert_eq!(put(&client, 1).await.unwrap_err(), "AccessDeniedException");
    for _ in 2..=4 {
        put(&client, 1).await.unwrap_err();
    }
    // What the SDK makes of an empty answer is not the server's business.
    let _ = put(&client, 1).await;
    put(&client, 1).await.unwrap_err();
    assert!(stored(&kinesis).await.is_empty());
    put(&client, 1).await.unwrap_err();
    assert_eq!(stored(&kinesis).await, ["r0"]);
    assert!(kinesis.acknowledged("s").is_empty());
    kinesis.heal();
    put(&client, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_in_its_answers() {
    let (kinesis, client) = server().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::short_answer(1),
        2 => Fault::long_answer(2),
        3 => Fault::null_errors(),
        4 => Fault::pass().but_not_served(),
        _ => Fault::short_answer(1).but_not_served(),
    });
    assert_eq!(put(&client, 2).await.unwrap().records().len(), 1);
    assert_eq!(put(&client, 2).await.unwrap().records().len(), 4);
    assert!(kinesis.acknowledged("s").is_empty());
    put(&client, 2).await.unwrap();
    assert_eq!(kinesis.acknowledged("s").len(), 2);
    assert_eq!(put(&client, 2).await.unwrap().records().len(), 2);
    assert_eq!(put(&client, 2).await.unwrap().records().len(), 1);
    assert_eq!(kinesis.stored_count("s"), 6);
    kinesis.on("DescribeStreamSummary", |_| Fault::describe_as("CREATING"));
    let summary = client
        .describe_stream_summary()
        .stream_name("s")
        .send()
        .await
        .unwrap();
    let status = summary
        .stream_description_summary()
        .unwrap()
        .stream_status()
        .as_str()
        .to_owned();
    assert_eq!(status, "CREATING");
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_requests_and_answers() {
    let (kinesis, client) = server().await;
    let (before, after) = (Gate::new(), Gate::new());
    let gates = (before.clone(), after.clone());
    kinesis.on("PutRecords", move |call| match call.len() {
        1 => Fault::hold(&gates.0),
        _ => Fault::hold_answer(&gates.1),
    });
    let spawn = |count| {
        let client = client.clone();
        tokio::spawn(async move { put(&client, count).await.unwrap() })
    };
    let (one, two) = (spawn(1), spawn(2));
    before.waiting(1).await;
    after.waiting(1).await;
    assert_eq!(kinesis.max_in_flight(), 2);
    assert_eq!(
        stored(&kinesis).await,
        ["r0", "r1"],
        "held after it was stored"
    );
    assert!(!one.is_finished() && !two.is_finished());
    before.open();
    one.await.unwrap();
    kinesis.wait_for_stored("s", 3).await;
    after.open();
    two.await.unwrap();
    assert_eq!((before.held(), after.held()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tears_connections() {
    let (kinesis, client) = server().await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::lost_answer(),
        2 => Fault::reset_answer(),
        3 => Fault::lost_request(),
        4 => Fault::reset_request(),
        5 => Fault::pass().halved(Hangup::Close),
        _ => Fault::pass(),
    });
    for stored in [1, 2, 2, 2, 3] {
        put(&client, 1).await.unwrap_err();
        assert_eq!(kinesis.stored_count("s"), stored);
    }
    assert!(kinesis.acknowledged("s").is_empty());
    put(&client, 1).await.unwrap();
    kinesis.cut(|_, nth| match nth {
        7 => Cut::AtHead(Hangup::Reset),
        8 => Cut::AfterBytes(10, Hangup::Reset),
        9 => Cut::AfterBytes(10, Hangup::Close),
        _ => Cut::Read,
    });
    for _ in 7..=9 {
        put(&client, 1).await.unwrap_err();
    }
    assert_eq!(
        kinesis.calls_of("PutRecords").len(),
        6,
        "what is cut has not arrived"
    );
    kinesis.go_offline();
    put(&client, 1).await.unwrap_err();
    kinesis.heal();
    put(&client, 1).await.unwrap();
    assert_eq!(kinesis.stored_count("s"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_its_time() {
    let (kinesis, client) = server().await;
    let delay = Duration::from_millis(60);
    kinesis.script(move |call| match call.nth {
        1 => Fault::pass().answered_after(delay),
        2 => Fault::status(503).after(delay),
        3 => Fault::pass().trickled(Duration::from_micros(200)),
        _ => Fault::silence(),
    });
    for answered in [true, false] {
        let start = Instant::now();
        assert_eq!(put(&client, 1).await.is_ok(), answered);
        assert!(start.elapsed() >= delay);
    }
    put(&client, 1).await.unwrap();
    let silent = tokio::spawn(async move { put(&client, 1).await });
    kinesis.wait_for_calls("PutRecords", 4).await;
    assert!(!silent.is_finished());
    drop(kinesis);
    silent.await.unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_large_records() {
    let (kinesis, client) = server().await;
    let put = async |kib: usize| {
        let entry = PutRecordsRequestEntry::builder().partition_key("k");
        let entry = entry
            .data(Blob::new(vec![b'x'; kib << 10]))
            .build()
            .unwrap();
        client
            .put_records()
            .stream_name("s")
            .records(entry)
            .send()
            .await
    };
    assert_eq!(
        put(3 << 10).await.unwrap_err().code(),
        Some("ValidationException")
    );
    kinesis.set_record_size("s", 4 << 10);
    put(3 << 10).await.unwrap();
    assert_eq!(
        put(4 << 10).await.unwrap_err().code(),
        Some("ValidationException")
    );
    let summary = client
        .describe_stream_summary()
        .stream_name("s")
        .send()
        .await
        .unwrap();
    let summary = summary.stream_description_summary().unwrap();
    assert_eq!(summary.max_record_size_in_kib(), Some(4 << 10));
    assert_eq!(kinesis.stored_count("s"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_limits_of_an_account() {
    // None is done with being created when the next one is.
    let slow = StoreOptions {
        create_stream_ms: 60_000,
        ..Kinesis::options()
    };
    let kinesis = Kinesis::with(slow).await;
    kinesis.enforce_control_plane_limits();
    let client = client(&kinesis);
    for n in 0..=CREATING_MAX {
        let created = client
            .create_stream()
            .stream_name(format!("s{n}"))
            .shard_count(1)
            .send()
            .await;
        match created {
            Ok(_) => assert!(n < CREATING_MAX),
            Err(error) => assert_eq!(error.code(), Some("LimitExceededException")),
        }
    }
    assert_eq!(kinesis.max_creating(), CREATING_MAX);
    assert!(kinesis.max_per_second("CreateStream") > 1);
    assert_eq!(kinesis.over_limit(), 1);
    // Far more than a second's worth, however slow the machine.
    let describe = |_| tokio::spawn(client.describe_stream_summary().stream_name("s0").send());
    let mut refused = 0;
    for described in (0..200).map(describe).collect::<Vec<_>>() {
        refused += usize::from(described.await.unwrap().is_err());
    }
    assert!(
        (1..=180).contains(&refused),
        "{refused} descriptions refused"
    );
    assert_eq!(kinesis.over_limit(), 1 + refused);
}
