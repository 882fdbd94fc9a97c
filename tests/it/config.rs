//! The configuration, as it was saved for the Java connector and as people fill it in.

use serde_json::{Value, json};

use crate::support::finished::Finished;
use crate::support::messages::{catalog, record, state_stream, stream};
use crate::support::program::{ACCESS_KEY, Check, PRIVATE_KEY, Program, Write};
use crate::support::server::Kinesis;

/// A sync of one record, with these settings on top.
async fn write(kinesis: &Kinesis, settings: Value) -> Finished {
    let write = Write::to(kinesis).config(settings);
    one_record(write).run().await
}

fn one_record(write: Program) -> Program {
    let input = [record("users", json!({})), state_stream("users", json!({}))];
    write.catalog(catalog([stream("users")])).input(input)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_the_java_connector_works_unchanged() {
    let kinesis = Kinesis::start().await;
    let settings = json!({
        "endpoint": kinesis.endpoint(),
        "region": " us\u{2011}east\u{2013}1 ",
        "shardCount": 3,
        "accessKey": ACCESS_KEY,
        "privateKey": PRIVATE_KEY,
        "bufferSize": 100,
    });
    let check = Check::against(&kinesis).config(settings.clone());
    check.run().await.assert_connected();
    let run = write(&kinesis, settings).await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
    assert_eq!(kinesis.stored_count("_users"), 1);
    assert_eq!(kinesis.open_shards("_users").await, 3);
    for call in kinesis.calls() {
        let credential = call.credential();
        assert_eq!([credential[0], credential[2]], [ACCESS_KEY, "us-east-1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_the_environment_where_both_keys_are_absent_or_blank() {
    let kinesis = Kinesis::start().await;
    for blank in [Value::Null, json!(""), json!("  ")] {
        let keys = json!({ "accessKey": blank, "privateKey": blank });
        let of_environment = |program: Program| {
            let program = program.config(keys.clone());
            let program = program.env("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT");
            program.env("AWS_SECRET_ACCESS_KEY", PRIVATE_KEY)
        };
        let check = of_environment(Check::against(&kinesis)).run().await;
        check.assert_connected();
        let run = of_environment(one_record(Write::to(&kinesis))).run().await;
        run.assert_success();
        assert!(!run.stdout().contains(PRIVATE_KEY));
    }
    let mut calls = kinesis.calls().into_iter();
    assert!(calls.all(|call| call.credential()[0] == "AKIAENVIRONMENT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_comes_from_the_environment_where_it_is_absent_or_blank() {
    let kinesis = Kinesis::start().await;
    for blank in [Value::Null, json!(" ")] {
        let check = Check::against(&kinesis).config(json!({ "region": blank }));
        let run = check.env("AWS_REGION", "eu-west-3").run().await;
        run.assert_connected();
    }
    let mut calls = kinesis.calls().into_iter();
    assert!(calls.all(|call| call.credential()[2] == "eu-west-3"));
    let none = json!({ "region": null });
    let check = Check::against(&kinesis).config(none.clone()).run().await;
    check.assert_not_connected("\"region\"");
    write(&kinesis, none)
        .await
        .assert_failed("config_error", "\"region\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials_anywhere_is_told() {
    let kinesis = Kinesis::start().await;
    let none = json!({ "accessKey": null, "privateKey": null });
    let check = Check::against(&kinesis).config(none.clone()).run().await;
    check.assert_not_connected("credentials");
    write(&kinesis, none)
        .await
        .assert_failed("config_error", "credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_without_the_other_is_told_by_name() {
    let kinesis = Kinesis::start().await;
    for (settings, part) in [
        (json!({ "accessKey": null }), "accessKey is missing"),
        (json!({ "accessKey": " " }), "accessKey is missing"),
        (json!({ "privateKey": null }), "privateKey is missing"),
        (json!({ "privateKey": "" }), "privateKey is missing"),
    ] {
        let check = Check::against(&kinesis).config(settings.clone());
        check.run().await.assert_not_connected(part);
        write(&kinesis, settings)
            .await
            .assert_failed("config_error", part);
    }
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_without_a_scheme_is_shown_as_it_should_be() {
    let kinesis = Kinesis::start().await;
    for (endpoint, fixed) in [
        ("127.0.0.9", "write http://127.0.0.9 instead"),
        ("localhost:4566", "write http://localhost:4566 instead"),
    ] {
        let settings = json!({ "endpoint": endpoint });
        let check = Check::against(&kinesis).config(settings.clone());
        check.run().await.assert_not_connected(fixed);
        write(&kinesis, settings)
            .await
            .assert_failed("config_error", fixed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_the_wrong_type_or_out_of_range_is_told_with_what_is_allowed() {
    let kinesis = Kinesis::start().await;
    for (settings, parts) in [
        (json!({ "shardCount": 0 }), ["shardCount", "from 1", "0"]),
        (json!({ "shardCount": -1 }), ["shardCount", "from 1", "-1"]),
        (
            json!({ "shardCount": 1.5 }),
            ["shardCount", "from 1", "1.5"],
        ),
        (
            json!({ "shardCount": "5" }),
            ["shardCount", "without quotes", "\"5\""],
        ),
        (
            json!({ "shardCount": [1] }),
            ["shardCount", "from 1", "a list"],
        ),
        (
            json!({ "bufferSize": 501 }),
            ["bufferSize", "from 1 to 500", "501"],
        ),
        (
            json!({ "bufferSize": 0 }),
            ["bufferSize", "from 1 to 500", "0"],
        ),
        (
            json!({ "bufferSize": true }),
            ["bufferSize", "from 1 to 500", "true"],
        ),
        (json!({ "region": 5 }), ["region", "a text", "5"]),
        (
            json!({ "region": "us east" }),
            ["region", "us-east-1", "\"us east\""],
        ),
        (
            json!({ "endpoint": {} }),
            ["endpoint", "a text", "an object"],
        ),
        (
            json!({ "endpoint": "ftp://x" }),
            ["endpoint", "http://", "\"ftp://x\""],
        ),
        (
            json!({ "accessKey": 7 }),
            ["accessKey", "a text", "a number"],
        ),
        (
            json!({ "shardCount": 0, "bufferSize": 0 }),
            ["2 problems", "shardCount", "bufferSize"],
        ),
    ] {
        let check = Check::against(&kinesis)
            .config(settings.clone())
            .run()
            .await;
        let failed = write(&kinesis, settings).await;
        for part in parts {
            check.assert_not_connected(part);
            failed.assert_failed("config_error", part);
        }
    }
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_value_of_a_secret_is_not_shown() {
    let kinesis = Kinesis::start().await;
    for settings in [
        json!({ "accessKey": "canary-c0ffee-7d1f \u{7} " }),
        json!({ "privateKey": ["canary-c0ffee-7d1f"] }),
        json!({ "endpoint": "http://user:canary-c0ffee-7d1f@localhost" }),
        json!({ "region": PRIVATE_KEY }),
    ] {
        let check = Check::against(&kinesis)
            .config(settings.clone())
            .run()
            .await;
        check.assert_not_connected("");
        write(&kinesis, settings)
            .await
            .assert_failed("config_error", "In the configuration");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_tolerated() {
    let kinesis = Kinesis::start().await;
    let settings = json!({ "__injected_declarative_manifest": {}, "Region": 5 });
    let check = Check::against(&kinesis).config(settings.clone());
    check.run().await.assert_connected();
    write(&kinesis, settings).await.assert_success();
}
