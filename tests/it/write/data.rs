//! What a consumer reads: the envelope, and in it the data as the source wrote it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{data_in, kinesis_with, write_to};
use crate::support::faults::Fault;
use crate::support::messages::{numbered, record, records};
use crate::support::verdict::assert_stored_at_least_once;

#[tokio::test(flavor = "multi_thread")]
async fn data_arrives_as_the_source_wrote_it() {
    let kinesis = kinesis_with(&["_users"]).await;
    let nested = format!("{}1{}", r#"{"a":["#.repeat(2000), "]}".repeat(2000));
    let long = format!(r#"{{"s":"{}"}}"#, "x".repeat(1_000_000));
    let escapes = format!(r#"{{"s":"{}"}}"#, r#"\\\"\n"#.repeat(50_000));
    let mut data = [
        "{}",
        r#"{"n":1e400,"m":12345678901234567890.1,"k":-0,"j":0.10,"i":1E+5,"h":-0.0e-7}"#,
        r#"{"n":123456789012345678901234567890}"#,
        r#"{"z":1,"a":2,"m":{"z":1,"a":2}}"#,
        r#"{"twice":1,"twice":2}"#,
        r#"{"s":"\ud83d \udc00 \ud83d\ude00 😀"}"#,
        r#"{"s":"\u0000\u001f\b\f\n\r\t\/\\\"/"}"#,
        "{\"s\":\"\u{2028}\u{2029}\u{7f}\u{feff}\"}",
        r#"{"json":"{\"a\":\"\\\"b\\\"\",\"c\":\"\\\\\"}"}"#,
        r#"{"":null,"b":[true,false,[],{}]}"#,
        r#"{"_airbyte_data":"x","type":"STATE","RECORD":"\"RECORD\""}"#,
        &nested,
        &long,
        &escapes,
    ]
    .map(str::to_owned);
    let input = data.iter().map(|data| record("users", data));
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    run.assert_success();
    data.sort();
    assert_eq!(data_in(&kinesis, "_users").await, data);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_has_three_fields_and_the_time_at_which_the_record_came() {
    let kinesis = kinesis_with(&["_users"]).await;
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    let before = now();
    let write = write_to(&kinesis, &["users"]).input(records("users", 20));
    write.run().await.assert_success();
    let after = now();
    for stored in kinesis.stored("_users").await {
        let envelope: Value = serde_json::from_slice(&stored.bytes).unwrap();
        let mut fields: Vec<_> = envelope.as_object().unwrap().keys().collect();
        fields.sort();
        assert_eq!(
            fields,
            ["_airbyte_ab_id", "_airbyte_data", "_airbyte_emitted_at"]
        );
        assert!(envelope["_airbyte_data"].is_string());
        let time = stored.emitted_at;
        let seconds: f64 = time.parse().unwrap();
        assert!((before - 1e-3..after).contains(&seconds), "{time}");
        let decimals = time.split_once('.').map_or("", |(_, decimals)| decimals);
        assert!(decimals.len() <= 9 && !decimals.ends_with('0'), "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_sent_again_keeps_its_id() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::lost_answer(),
        _ => Fault::pass(),
    });
    let write = write_to(&kinesis, &["users"]).input(records("users", 3));
    write.run().await.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 6);
    let expected = [0, 1, 2].map(numbered);
    assert_stored_at_least_once(&kinesis, "_users", &expected).await;
}
