//! Where credentials come from, and what happens when they expire.

use std::time::Duration;

use serde_json::json;

use crate::support::faults::Fault;
use crate::support::messages::{catalog, numbered, records, state_stream, stream};
use crate::support::program::{ACCESS_KEY, Check, Program, Write};
use crate::support::server::Kinesis;
use crate::support::sts::{Sts, nth_key};
use crate::support::tls::Tls;
use crate::support::verdict::{assert_earned, assert_exactly_stored};

const ROLE: &str = "arn:aws:iam::123456789012:role/airbyte";

fn input() -> Vec<String> {
    let mut input = records("users", 3);
    input.push(state_stream("users", json!({"cursor": 3})));
    input.iter().map(ToString::to_string).collect()
}

fn write(kinesis: &Kinesis) -> Program {
    Write::to(kinesis)
        .catalog(catalog([stream("users")]))
        .input(input())
}

async fn assert_delivered(kinesis: &Kinesis) {
    let data: Vec<_> = (0..3).map(numbered).collect();
    assert_exactly_stored(kinesis, "_users", &data).await;
}

/// The access keys that signed the calls to Kinesis, each once, in order.
fn keys(kinesis: &Kinesis) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for call in kinesis.calls() {
        let key = call.credential()[0].to_owned();
        if keys.last() != Some(&key) {
            keys.push(key);
        }
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_environment_are_used_where_the_settings_have_none() {
    let kinesis = Kinesis::start().await;
    let run = write(&kinesis)
        .config(json!({"accessKey": null, "privateKey": ""}))
        .env("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT00001")
        .env("AWS_SECRET_ACCESS_KEY", "environment")
        .run()
        .await;
    run.assert_success();
    assert_delivered(&kinesis).await;
    assert_eq!(keys(&kinesis), ["AKIAENVIRONMENT00001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credentials_anywhere_is_said_at_once() {
    let kinesis = Kinesis::start().await;
    let none = json!({"accessKey": null, "privateKey": null});
    let run = write(&kinesis).config(none.clone()).run().await;
    run.assert_failed("config_error", "no credentials found");
    let check = Check::against(&kinesis).config(none).run().await;
    check.assert_not_connected("\"accessKey\" and \"privateKey\"");
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_is_sent_along() {
    let kinesis = Kinesis::start().await;
    write(&kinesis)
        .config(json!({"sessionToken": "session-token"}))
        .run()
        .await
        .assert_success();
    let calls = kinesis.calls();
    assert!(
        calls
            .iter()
            .all(|call| call.header("x-amz-security-token") == Some("session-token"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signing_region_is_the_setting_and_not_part_of_the_endpoint() {
    let kinesis = Kinesis::start().await;
    write(&kinesis)
        .config(json!({"region": "eu\u{2011}west-3"}))
        .run()
        .await
        .assert_success();
    assert!(
        kinesis
            .calls()
            .iter()
            .all(|call| call.credential()[2] == "eu-west-3")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_assumed_and_kinesis_sees_its_keys_only() {
    let (kinesis, sts) = (
        Kinesis::start().await,
        Sts::start(Duration::from_secs(3600)).await,
    );
    let run = write(&kinesis)
        .config(json!({"roleArn": ROLE, "externalId": "outside"}))
        .env("AWS_ENDPOINT_URL_STS", sts.endpoint())
        .run()
        .await;
    run.assert_success();
    assert_delivered(&kinesis).await;
    assert_eq!(keys(&kinesis), [nth_key(1)]);
    let [request] = &sts.requests()[..] else {
        panic!("one call to STS, in {run}")
    };
    assert!(
        request.contains(ACCESS_KEY),
        "signed with the settings' key: {request}"
    );
    assert!(
        request.contains("Action=AssumeRole") && request.contains("ExternalId=outside"),
        "{request}"
    );
    assert!(request.contains("role%2Fairbyte"), "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_expires_in_the_middle_of_a_sync_is_assumed_again() {
    // The SDK fetches new keys some time before the old ones expire: these are always about to.
    let (kinesis, sts) = (
        Kinesis::start().await,
        Sts::start(Duration::from_secs(5)).await,
    );
    let run = write(&kinesis)
        .config(json!({"roleArn": ROLE}))
        .env("AWS_ENDPOINT_URL_STS", sts.endpoint())
        .run()
        .await;
    run.assert_success();
    assert_delivered(&kinesis).await;
    assert!(keys(&kinesis).len() > 1, "{:?}", keys(&kinesis));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_aws_takes_for_expired_are_fetched_anew_where_they_can_be() {
    let (kinesis, sts) = (
        Kinesis::start().await,
        Sts::start(Duration::from_secs(3600)).await,
    );
    let calls = sts.log();
    kinesis.on("PutRecords", move |_| {
        if calls.lock().unwrap().len() < 2 {
            Fault::error(
                400,
                "ExpiredTokenException",
                "The security token is expired",
            )
        } else {
            Fault::pass()
        }
    });
    let run = write(&kinesis)
        .config(json!({"roleArn": ROLE}))
        .env("AWS_ENDPOINT_URL_STS", sts.endpoint())
        .run()
        .await;
    run.assert_success();
    assert_delivered(&kinesis).await;
    assert_earned(&kinesis, &input(), &run).await;
    assert_eq!(keys(&kinesis), [nth_key(1), nth_key(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_settings_that_expire_end_the_sync_at_once() {
    let kinesis = Kinesis::start().await;
    kinesis.on("PutRecords", |_| {
        Fault::error(
            400,
            "ExpiredTokenException",
            "The security token is expired",
        )
    });
    let run = write(&kinesis)
        .config(json!({"sessionToken": "session-token"}))
        .run()
        .await;
    run.assert_failed("config_error", "ExpiredTokenException");
    assert_eq!(kinesis.calls_of("PutRecords").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_certificates_that_cannot_be_used_is_named() {
    let kinesis = Kinesis::start().await;
    for (path, part) in [
        (
            "/nowhere/bundle.pem",
            "/nowhere/bundle.pem that AWS_CA_BUNDLE names cannot be read",
        ),
        (
            "/dev/null",
            "/dev/null that AWS_CA_BUNDLE names holds no certificates",
        ),
    ] {
        let run = write(&kinesis).env("AWS_CA_BUNDLE", path).run().await;
        run.assert_failed("config_error", part);
    }
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_authority_in_the_bundle_is_trusted() {
    let kinesis = Kinesis::start().await;
    let tls = Tls::before(&kinesis.endpoint()).await;
    let run = write(&kinesis)
        .config(json!({"endpoint": tls.endpoint()}))
        .env("AWS_CA_BUNDLE", tls.authority())
        .run()
        .await;
    run.assert_success();
    assert_delivered(&kinesis).await;
    assert_earned(&kinesis, &input(), &run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_said_at_once_with_what_to_do() {
    let kinesis = Kinesis::start().await;
    let (tls, other) = (
        Tls::before(&kinesis.endpoint()).await,
        Tls::before(&kinesis.endpoint()).await,
    );
    let trusted = tls.endpoint();
    let misnamed = tls.misnamed_endpoint();
    for (endpoint, bundle) in [
        (&trusted, None),
        (&trusted, Some(other.authority())),
        (&misnamed, Some(tls.authority())),
    ] {
        let settings = json!({"endpoint": endpoint});
        let mut programs = [write(&kinesis), Check::against(&kinesis)];
        if let Some(bundle) = bundle {
            programs = programs.map(|program| program.env("AWS_CA_BUNDLE", bundle));
        }
        let [write, check] = programs.map(|program| program.config(settings.clone()));
        let run = write.run().await;
        run.assert_failed("config_error", "AWS_CA_BUNDLE");
        check.run().await.assert_not_connected("AWS_CA_BUNDLE");
    }
    assert!(kinesis.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used_and_exceptions_are_kept() {
    // The server itself plays the proxy: it takes a request whatever host it is for.
    let kinesis = Kinesis::start().await;
    let elsewhere = json!({"endpoint": "http://kinesis.invalid:4567"});
    let run = write(&kinesis)
        .config(elsewhere.clone())
        .env("HTTP_PROXY", &kinesis.endpoint())
        .run()
        .await;
    run.assert_success();
    assert_delivered(&kinesis).await;
    assert!(
        kinesis
            .calls()
            .iter()
            .all(|call| call.header("host") == Some("kinesis.invalid:4567"))
    );

    let run = write(&kinesis)
        .config(elsewhere)
        .config(json!({"retryTimeoutSeconds": 1}))
        .env("HTTP_PROXY", &kinesis.endpoint())
        .env("NO_PROXY", "kinesis.invalid")
        .run()
        .await;
    run.assert_failed("transient_error", "connection failed");
}
