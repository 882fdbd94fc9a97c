//! No secret and no record content in any output, at the most talkative log level.
//!
//! Each run is searched for the keys of the configuration and for the word that all these records carry,
//! whatever else a test is about; here the ways to fail are gone through once more with everything logged.

use serde_json::json;

use super::{kinesis_with, write_to};
use crate::support::faults::{Fault, THROUGHPUT_EXCEEDED};
use crate::support::finished::Finished;
use crate::support::messages::{CANARY, numbered, record, records, state_legacy};
use crate::support::program::{Check, PRIVATE_KEY, Program};
use crate::support::server::Kinesis;

async fn logging_everything(program: Program) -> Finished {
    let program = program.env("LOG_LEVEL", "TRACE").env("RUST_LOG", "trace");
    let run = program.env("RUST_BACKTRACE", "1").run().await;
    assert!(!run.logs("INFO").is_empty(), "it does log: {run}");
    run.assert_no_secrets();
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_succeeds_after_some_faults() {
    let kinesis = kinesis_with(&["_users"]).await;
    kinesis.on("PutRecords", |call| match call.nth {
        1 => Fault::throttle([0]),
        2 => Fault::status(500),
        3 => Fault::reset_answer(),
        _ => Fault::pass(),
    });
    let mut input = records("users", 50);
    input.push(state_legacy("{}"));
    let run = logging_everything(write_to(&kinesis, &["users"]).input(input)).await;
    run.assert_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_quotes_what_it_was_sent() {
    let kinesis = kinesis_with(&["_users"]).await;
    let quoting = format!(
        "1 validation error detected: Value '{CANARY}' at 'records.1.member.data' failed; \
         key \"{PRIVATE_KEY}\""
    );
    for code in [
        "ValidationException",
        "AccessDeniedException",
        "SomethingNew",
    ] {
        let message = quoting.clone();
        kinesis.on("PutRecords", move |_| Fault::error(400, code, &message));
        let write = write_to(&kinesis, &["users"]).input(records("users", 4));
        let run = logging_everything(write).await;
        assert_eq!(run.exit_code, Some(1));
        kinesis.on("PutRecords", |_| Fault::pass());
        let message = quoting.clone();
        kinesis.on("CreateStream", move |_| Fault::error(400, code, &message));
        let check = logging_everything(Check::against(&kinesis)).await;
        check.assert_not_connected("");
    }
    let message = quoting.clone();
    kinesis.on("PutRecords", move |_| {
        Fault::refuse_all("KMSDisabledException").saying(&message)
    });
    let write = write_to(&kinesis, &["users"]).input(records("users", 4));
    logging_everything(write)
        .await
        .assert_failed("config_error", "KMS");
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_that_fail() {
    let kinesis = kinesis_with(&["_users"]).await;
    let large = format!(r#"{{"k":"{CANARY}{}"}}"#, "x".repeat(1 << 20));
    for last in [
        record("nobody", numbered(1)).line(),
        record("users", large).line(),
        record("users", json!([CANARY])).line(),
        record("users", numbered(1)).line().replace("}}", "}"),
        format!(r#"{{"type":"STATE","state":{{"k":{CANARY}}}}}"#),
    ] {
        let write = write_to(&kinesis, &["users"]).input(records("users", 2));
        let run = logging_everything(write.input([last])).await;
        assert_eq!(run.exit_code, Some(1));
    }
    kinesis.on("PutRecords", |_| Fault::refuse_all(THROUGHPUT_EXCEEDED));
    let write = write_to(&kinesis, &["users"]).config(json!({ "retryTimeoutSeconds": 1 }));
    let run = logging_everything(write.input(records("users", 4))).await;
    assert_eq!(run.exit_code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_succeeds_and_one_that_fails() {
    let kinesis = Kinesis::start().await;
    let run = logging_everything(Check::against(&kinesis)).await;
    run.assert_connected();
    kinesis.script(|_| Fault::error(403, "InvalidSignatureException", "no"));
    let run = logging_everything(Check::against(&kinesis)).await;
    run.assert_not_connected("\"accessKey\"");
}
