use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::FailureType;

fn read(config: &Value) -> Result<KinesisConfig, Error> {
    KinesisConfig::from_json(config.to_string().as_bytes())
}

fn valid(config: &Value) -> KinesisConfig {
    read(config).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// The message for a configuration that must be refused.
fn refused(config: &Value) -> String {
    let error = read(config).expect_err(&config.to_string());
    assert_eq!(error.failure_type(), FailureType::Config);
    error.message().to_owned()
}

fn shard_count(config: &KinesisConfig) -> u32 {
    match config.new_streams().mode {
        StreamMode::Provisioned(shards) => shards,
        StreamMode::OnDemand => panic!("no shard count"),
    }
}

#[test]
fn an_empty_configuration_has_all_defaults() {
    let config = valid(&json!({}));
    assert_eq!(config.connection().endpoint(), None);
    assert_eq!(config.connection().region(), None);
    let credentials = config.connection().credentials();
    assert_eq!(*credentials.base(), BaseCredentials::DefaultChain);
    assert_eq!(credentials.role(), None);
    assert_eq!(config.new_streams().mode, StreamMode::Provisioned(5));
    assert_eq!(config.new_streams().max_record_size_kib, None);
    assert_eq!(config.oversized_records(), OversizedRecords::Fail);
    assert_eq!(config.request_format(), RequestFormat::Auto);
    assert_eq!(config.buffer_size(), 100);
    assert_eq!(config.retry_timeout(), Duration::from_secs(600));
}

#[test]
fn a_configuration_saved_for_the_java_connector_works_unchanged() {
    let config = valid(&json!({
        "endpoint": "http://localhost:4566",
        "region": "us-west-1",
        "shardCount": 10,
        "accessKey": "random_access_key",
        "privateKey": "random_secret_key",
        "bufferSize": 1000 / 2,
    }));
    let connection = config.connection();
    assert_eq!(connection.endpoint(), Some("http://localhost:4566"));
    assert_eq!(connection.region(), Some("us-west-1"));
    let BaseCredentials::Static {
        access_key_id,
        secret_access_key,
        session_token: None,
    } = connection.credentials().base()
    else {
        panic!("{connection:?}");
    };
    assert_eq!(access_key_id.expose(), "random_access_key");
    assert_eq!(secret_access_key.expose(), "random_secret_key");
    assert_eq!(config.new_streams().mode, StreamMode::Provisioned(10));
    assert_eq!(config.buffer_size(), 500);
}

#[test]
fn blank_null_and_absent_are_the_same() {
    let default = valid(&json!({}));
    for unset in [json!(""), json!(" \t\n\u{A0}"), json!(null)] {
        let all_unset: serde_json::Map<_, _> = SETTINGS
            .iter()
            .map(|setting| (setting.key().to_owned(), unset.clone()))
            .collect();
        assert_eq!(valid(&all_unset.into()), default, "{unset}");
    }
}

#[test]
fn unknown_keys_are_tolerated() {
    assert_eq!(
        valid(&json!({"ShardCount": "x", "__injected": {"a": []}})),
        valid(&json!({}))
    );
}

#[test]
fn texts_lose_the_white_space_around_them() {
    let connection = |endpoint: &str, region: &str, access_key: &str, private_key: &str| {
        valid(&json!({
            "endpoint": endpoint, "region": region, "accessKey": access_key, "privateKey": private_key
        }))
        .connection()
        .clone()
    };
    assert_eq!(
        connection(" http://h:1/\n", "\tus-east-1 ", " id ", "key\r\n"),
        connection("http://h:1", "us-east-1", "id", "key")
    );
}

#[test]
fn a_region_may_come_from_a_web_page() {
    for pasted in [
        "us-east-1",
        "us\u{2010}east\u{2010}1",
        "us\u{2011}east\u{2011}1",
        "us\u{2012}east\u{2012}1",
        "us\u{2013}east\u{2013}1",
        "\u{A0}US-East-1\u{2003}",
    ] {
        let config = valid(&json!({ "region": pasted }));
        assert_eq!(config.connection().region(), Some("us-east-1"), "{pasted}");
    }
    for wrong in [
        "us_east_1",
        "us-east-1.evil.example/",
        "us east 1",
        "US East (Ohio)",
        "-us",
        "us-",
        "us\u{2014}east\u{2014}1",
        "us-ëast-1",
        "us-\u{200B}east-1",
        &"x-".repeat(32),
    ] {
        let message = refused(&json!({ "region": wrong }));
        assert!(message.contains("region"), "{message}");
        assert!(message.contains(&format!("{wrong:?}")), "{message}");
        assert!(message.contains("us-east-1"), "{message}");
    }
}

#[test]
fn whole_numbers_may_be_written_with_a_point() {
    let count = |text: &str| {
        KinesisConfig::from_json(format!(r#"{{"shardCount":{text}}}"#).as_bytes())
            .map(|config| shard_count(&config))
    };
    assert_eq!(count("7"), Ok(7));
    assert_eq!(count("7.0"), Ok(7));
    assert_eq!(count("1e2"), Ok(100));
    assert_eq!(count("2147483647.0"), Ok(2_147_483_647));
    for wrong in [
        "0",
        "-0.0",
        "-1",
        "-1.0",
        "7.5",
        "0.9999",
        "2147483648",
        "4294967297",
        "1e18",
        "18446744073709551615",
        "123456789012345678901234567890",
        "1e300",
        "true",
        "[5]",
        "{\"a\":1}",
        "\"5\"",
    ] {
        assert!(count(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_value_out_of_range_is_told_with_key_value_range_and_default() {
    assert_eq!(
        refused(&json!({"bufferSize": 501})),
        "In the configuration, bufferSize must be a whole number from 1 to 500, but is 501: change it, or leave it out for \
         the default, 100."
    );
}

#[test]
fn a_number_in_quotes_is_told_apart() {
    assert_eq!(
        refused(&json!({"shardCount": "5"})),
        "In the configuration, shardCount must be a whole number from 1 to 2147483647, without quotes around it, but is the \
         text \"5\": change it, or leave it out for the default, 5."
    );
}

#[test]
fn an_endpoint_without_a_scheme_is_told_with_the_correction() {
    assert_eq!(
        refused(&json!({"endpoint": "localhost:4566"})),
        "In the configuration, endpoint \"localhost:4566\" does not begin with http:// or https://: write \
         http://localhost:4566 instead."
    );
}

#[test]
fn one_key_without_the_other_is_told() {
    let private_key_missing = refused(&json!({"accessKey": "AKIA", "privateKey": " "}));
    assert!(private_key_missing.contains("privateKey is missing"));
    let access_key_missing = refused(&json!({"accessKey": null, "privateKey": "x"}));
    assert!(access_key_missing.contains("accessKey is missing"));
    // A key of a wrong type is there, though.
    let wrong_type = refused(&json!({"accessKey": 5, "privateKey": "x"}));
    assert!(!wrong_type.contains("missing"), "{wrong_type}");
}

#[test]
fn all_problems_are_told_at_once() {
    let message = refused(&json!({
        "endpoint": "ftp://host", "region": 5, "shardCount": 0, "accessKey": true, "privateKey": [],
        "bufferSize": 1000, "retryTimeoutSeconds": 6601, "sessionToken": {}, "roleArn": 1, "externalId": 2,
        "streamMode": "x", "maxRecordSizeKiB": 1, "oversizedRecords": 3, "tags": 4, "requestFormat": "xml",
        "partitionKey": "id", "aggregation": true
    }));
    for setting in SETTINGS {
        assert!(message.contains(setting.key()), "{message}");
    }
    assert!(message.contains("17 problems"), "{message}");
}

#[test]
fn what_is_not_a_json_object_is_told_by_its_place_and_not_its_content() {
    for (text, expected) in [
        ("", "ends too early at line 1, column 0"),
        (
            "{\n\"privateKey\": \"hush",
            "ends too early at line 2, column 19",
        ),
        ("{\n  hush: 1}", "a mistake at line 2, column 3"),
        ("{\"privateKey\":hush}", "a mistake at line 1, column 15"),
        ("{} hush", "a mistake at line 1, column 4"),
        ("[\"hush\"]", "but is a list"),
        ("\"hush\"", "but is a text"),
        ("null", "but is null"),
    ] {
        let error = KinesisConfig::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.failure_type(), FailureType::Config);
        assert!(error.message().contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
    assert!(KinesisConfig::from_json(b"{\"region\":\"\xFF\"}").is_err());
    assert!(KinesisConfig::from_json(b"\xEF\xBB\xBF{}").is_ok());
}

#[test]
fn equal_connections_are_equal_whatever_else_the_configuration_says() {
    let one = valid(
        &json!({"endpoint": "HTTP://H/", "shardCount": 1, "accessKey": "a", "privateKey": "b"}),
    );
    let other = valid(
        &json!({"endpoint": "http://h", "bufferSize": 1, "accessKey": "a", "privateKey": "b"}),
    );
    let third = valid(&json!({"endpoint": "http://h", "accessKey": "a", "privateKey": "c"}));
    assert_eq!(one.connection(), other.connection());
    assert_ne!(one.connection(), third.connection());
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SHORT: &str = "hunter2";
    for config in [
        json!({"region": KEY}),
        json!({"region": KEY_ID}),
        json!({"endpoint": KEY}),
        json!({"endpoint": format!("http://{KEY_ID}:{KEY}@host")}),
        json!({"endpoint": format!("{KEY_ID}:{KEY}@host")}),
        json!({"endpoint": format!("http://host/?key={SHORT}")}),
        json!({"endpoint": KEY_ID}),
        json!({"shardCount": KEY}),
        json!({"bufferSize": [KEY]}),
        json!({"bufferSize": {"key": KEY}}),
        json!({"privateKey": [KEY], "accessKey": {"id": KEY_ID}}),
        json!({"privateKey": 77_777, "accessKey": 77_777}),
        json!({"privateKey": KEY, "accessKey": format!("{KEY_ID}\u{7}")}),
        json!({"privateKey": format!(" {SHORT}!"), "region": format!("{SHORT}! ")}),
        json!({"privateKey": format!("{SHORT}-and-more"), "endpoint": format!("{SHORT}-and-more")}),
        json!({"privateKey": format!("{SHORT}!"), "region": format!("us {SHORT}!")}),
        json!({"accessKey": "x", "privateKey": SHORT, "bufferSize": SHORT}),
    ] {
        let error = read(&config).map(|ok| panic!("{ok:?}")).unwrap_err();
        let output = format!("{error} {error:?} {}", error.internal_message());
        for secret in [KEY_ID, KEY, "77777", "wJalr", SHORT] {
            // A secret that is neither like a key nor given as one cannot be known for one.
            let known = config["privateKey"].is_string() || secret != SHORT;
            assert!(!known || !output.contains(secret), "{config}: {output}");
        }
    }
}

#[test]
fn a_key_that_cannot_be_sent_is_told() {
    let message = refused(&json!({"accessKey": "AK\u{2026}", "privateKey": "x"}));
    assert!(message.contains("accessKey (not shown here)"), "{message}");
}

#[test]
fn an_endpoint_that_may_carry_a_password_is_not_shown_at_all() {
    for endpoint in [
        "http://me:pw1@host",
        "me:pw1@host",
        "http://host?token=pw1",
        "host#pw1",
    ] {
        let message = refused(&json!({ "endpoint": endpoint }));
        assert!(
            message.contains("endpoint (not shown here) has"),
            "{message}"
        );
        assert!(!message.contains("pw1"), "{message}");
    }
}

#[test]
fn a_very_long_value_is_not_shown_in_full() {
    let message = refused(&json!({ "region": "a!".repeat(500) }));
    assert!(message.contains("region (not shown here)"), "{message}");
    let message = refused(&json!({ "shardCount": "a!".repeat(500) }));
    assert!(
        message.contains("but is a text of 1000 characters"),
        "{message}"
    );
}

#[test]
fn a_secret_is_never_printed() {
    let secret = Secret("hush".to_owned());
    assert_eq!(
        format!("{secret} {secret:?} {secret:#?} {secret:>9}"),
        "*** *** *** ***"
    );
    let config = valid(&json!({"accessKey": "hush", "privateKey": "hush"}));
    assert!(!format!("{config:?} {config:#?}").contains("hush"));
    assert_eq!(secret.expose(), "hush");
}

proptest! {
    #[test]
    fn no_output_ever_has_a_secret(
        access_key in "[A-Z0-9]{16,24}",
        private_key in "[A-Za-z0-9/+=_.:!-]{8,60}",
        endpoint in prop_oneof![Just("http://localhost:1".to_owned()), any::<String>(), Just("<key>".to_owned()), Just("http://<key>@h".to_owned())],
        region in prop_oneof![Just("us-east-1".to_owned()), any::<String>(), Just("<key>".to_owned()), Just("region <key>".to_owned())],
        shard_count in prop_oneof![Just(json!(5)), any::<i64>().prop_map(Value::from), Just(json!("<key>")), Just(json!(["<key>"]))],
    ) {
        let paste = |text: String| text.replace("<key>", &private_key);
        let shard_count: Value = serde_json::from_str(&paste(shard_count.to_string())).unwrap();
        let config = json!({
            "endpoint": paste(endpoint), "region": paste(region), "shardCount": shard_count,
            "accessKey": access_key, "privateKey": private_key,
        });
        let output = match read(&config) {
            // Where it is a valid region, nobody can tell.
            Ok(config) if config.connection().region().is_some_and(|r| private_key.eq_ignore_ascii_case(r)) => String::new(),
            Ok(config) => format!("{config:?} {config:#?}"),
            Err(error) => format!("{error} {error:?} {}", error.internal_message()),
        };
        prop_assert!(!output.contains(&access_key), "{}", output);
        prop_assert!(!output.contains(&private_key), "{}", output);
    }

    #[test]
    fn whatever_is_taken_is_in_range(shards in any::<f64>(), buffer in any::<i16>(), seconds in 0..8000_u32) {
        let config = json!({"shardCount": shards.trunc(), "bufferSize": buffer, "retryTimeoutSeconds": seconds});
        match read(&config) {
            Ok(config) => {
                prop_assert!((1..=2_147_483_647).contains(&shard_count(&config)));
                prop_assert!((1..=500).contains(&config.buffer_size()));
                prop_assert!((1..=6600).contains(&config.retry_timeout().as_secs()));
            }
            Err(error) => prop_assert_eq!(error.failure_type(), FailureType::Config),
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = KinesisConfig::from_json(&bytes);
    }
}

#[test]
fn a_role_and_temporary_keys() {
    let config = valid(&json!({
        "accessKey": "a", "privateKey": "b", "sessionToken": "c",
        "roleArn": " arn:aws-cn:iam::123456789012:role/path/name ", "externalId": "x",
    }));
    let credentials = config.connection().credentials();
    assert!(matches!(
        credentials.base(),
        BaseCredentials::Static { session_token: Some(token), .. } if token.expose() == "c"
    ));
    let role = credentials.role().unwrap();
    assert_eq!(role.arn, "arn:aws-cn:iam::123456789012:role/path/name");
    assert_eq!(role.external_id.as_deref(), Some("x"));
    assert!(credentials.is_renewable());
    for (config, part) in [
        (
            json!({"sessionToken": "c"}),
            "accessKey and privateKey are not",
        ),
        (json!({"externalId": "c"}), "roleArn is not"),
        (
            json!({"roleArn": "airbyte"}),
            "is not the ARN of an IAM role",
        ),
        (
            json!({"roleArn": "arn:aws:iam::123456789012:user/x"}),
            "is not the ARN of an IAM role",
        ),
    ] {
        let message = read(&config).unwrap_err().message().to_owned();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn choices_in_any_case_and_tags() {
    let config = valid(&json!({
        "streamMode": "on_demand", "oversizedRecords": "SKIP", "requestFormat": "cbor", "maxRecordSizeKiB": 10240,
        "tags": [{"key": "team", "value": "data"}, {"key": "empty"}],
    }));
    assert_eq!(config.new_streams().mode, StreamMode::OnDemand);
    assert_eq!(config.oversized_records(), OversizedRecords::Skip);
    assert_eq!(config.request_format(), RequestFormat::Cbor);
    assert_eq!(config.new_streams().max_record_size_kib, Some(10240));
    let tags =
        [("team", "data"), ("empty", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(config.new_streams().tags, tags);
    for (config, part) in [
        (
            json!({"streamMode": "SHARDED"}),
            "streamMode must be one of PROVISIONED, ON_DEMAND, but is the text \"SHARDED\"",
        ),
        (
            json!({"tags": {"team": "data"}}),
            "tags must be a list of objects",
        ),
        (
            json!({"tags": [{"value": "data"}]}),
            "entry 1 of tags has no text in its key",
        ),
        (
            json!({"tags": [{"key": "a"}, {"key": "a"}]}),
            "entry 2 of tags repeats a key",
        ),
        (
            json!({"tags": [{"key": "x".repeat(129)}]}),
            "entry 1 of tags is empty or too long",
        ),
        (
            json!({"maxRecordSizeKiB": 1}),
            "maxRecordSizeKiB must be a whole number from 1024 to 10240",
        ),
    ] {
        let message = read(&config).unwrap_err().message().to_owned();
        assert!(message.contains(part), "{message}");
    }
}
