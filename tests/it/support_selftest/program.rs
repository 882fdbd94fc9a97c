//! The program's runner and the judge, with a shell in the place of the connector.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use serde_json::json;

use super::client;
use crate::support::messages::*;
use crate::support::program::{PRIVATE_KEY, Program, Stdin, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::*;

/// Sends every state back, with a count of 1.
const ECHO: &str = r#"while read -r line; do case "$line" in
    *STATE*) echo "${line%\}\}},\"destinationStats\":{\"recordCount\":1.0}}}";;
esac; done"#;

fn shell(script: &str) -> Program {
    Program::args(["-c", script]).binary("/bin/sh")
}

/// The message of the panic that `test` ends in.
fn failure(test: impl Future<Output = ()>) -> String {
    let runtime = tokio::runtime::Handle::current();
    let test = AssertUnwindSafe(|| tokio::task::block_in_place(|| runtime.block_on(test)));
    let panic = catch_unwind(test).expect_err("this has to fail");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_a_program() {
    let users = state_stream("users", json!({ "cursor": 1 }));
    let script = r#"grep STATE"#;
    let input = [record("users", json!({ "id": 1 })), users.clone()];
    let run = shell(script).input(input).run().await;
    run.assert_success();
    assert_eq!(run.states(), [users.line()]);

    let mut running = shell("exec /bin/cat").spawn().await;
    running.send_raw(br#"{"type":"STA"#).await;
    running.send(r#"TE","state":{"n":1e400}}"#).await;
    assert_eq!(
        running.next_state().await.text,
        r#"{"type":"STATE","state":{"n":1e400}}"#
    );
    assert!(running.rss_bytes() > 0 && running.peak_rss_bytes() > 0);
    running.terminate();
    assert_eq!(running.finish().await.signal, Some(15));

    let echo = "while read -r line; do echo \"$line\"; done";
    let mut running = shell(echo).spawn().await;
    running.send(log("INFO", "one")).await;
    let line = running
        .wait_for_message(|line| line.logs("INFO", "one"))
        .await;
    running.close_stdout().await;
    running.send(log("INFO", "two")).await;
    running.ended().await;
    let run = running.finish().await;
    assert_eq!(
        (run.signal, run.lines.len()),
        (Some(13), 1),
        "the broken pipe"
    );
    assert_eq!(run.stdout(), line.text);

    let mut running = shell("wc -l | sed 's/.*/{\"type\":\"LOG\",\"lines\":&}/'")
        .spawn()
        .await;
    let taken = running.feed(records("users", 100_000));
    let run = running.finish().await;
    assert_eq!(run.messages("LOG")[0]["lines"], 100_000);
    assert!(*taken.borrow() > 100_000);

    let run = shell("read -r line || echo '{\"type\":\"LOG\"}'")
        .stdin(Stdin::Closed)
        .run()
        .await;
    assert_eq!(run.messages("LOG").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hears_what_nobody_should() {
    let says = |script: &'static str| async move { drop(shell(script).run().await) };
    assert!(failure(says("echo oops >&2")).contains("oops"));
    assert!(failure(says("echo oops")).contains("not for a destination to say"));
    assert!(failure(says(r#"printf '{"type":"LOG"}'"#)).contains("without an end"));
    assert!(failure(says(r#"echo '{"type":"RECORD"}'"#)).contains("not for a destination to say"));
    let leaks = format!(r#"echo '{{"type":"LOG","log":{{"message":"{CANARY}"}}}}'"#);
    assert!(failure(async { drop(shell(&leaks).run().await) }).contains(CANARY));
    let kinesis = Kinesis::start().await;
    let leaks = Write::to(&kinesis)
        .config(json!({ "region": null }))
        .binary("/bin/cat")
        .arg("-");
    let leaks = leaks.input([format!(
        r#"{{"type":"LOG","log":{{"message":"{PRIVATE_KEY}"}}}}"#
    )]);
    // The options of the connector mean nothing to it.
    assert!(failure(async { drop(leaks.run().await) }).contains("stderr"));
}

#[tokio::test(flavor = "multi_thread")]
async fn judges_states() {
    let kinesis = Kinesis::start().await;
    kinesis.create_stream("_users", 1).await;
    let data = |n: usize| format!(r#"{{"n":{n}}}"#);
    let input = [
        record("users", data(1)),
        state_stream("users", r#"{"cursor":1e400}"#).id(7),
        record("users", data(2)).nulls(),
        state_legacy(json!({})),
    ];
    let client = client(&kinesis);
    let put = async |data: String| {
        let id = uuid::Uuid::new_v4().to_string();
        let envelope =
            json!({ "_airbyte_ab_id": id, "_airbyte_data": data, "_airbyte_emitted_at": 1.7e9 });
        let entry = PutRecordsRequestEntry::builder().partition_key(id);
        let entry = entry.data(Blob::new(envelope.to_string())).build().unwrap();
        client
            .put_records()
            .stream_name("_users")
            .records(entry)
            .send()
            .await
            .unwrap();
    };
    let too_early = shell(ECHO).input(input.clone()).run().await;
    put(data(1)).await;
    assert_exactly_stored(&kinesis, "_users", &[r#"{ "n": 1 }"#]).await;
    assert!(failure(assert_exactly_stored(&kinesis, "_users", &[data(2)])).contains("2 data"));
    let run = shell(ECHO).input(input.clone()).run().await;
    assert!(failure(assert_earned(&kinesis, &input, &run)).contains("line 4 is not earned"));
    put(data(2)).await;
    assert_stored_at_least_once(&kinesis, "_users", &[data(1), data(2)]).await;
    let run = shell(ECHO).input(input.clone()).run().await;
    assert_earned(&kinesis, &input, &run).await;
    assert!(failure(assert_earned(&kinesis, &input, &too_early)).contains("line 2 is not earned"));

    assert_all_states(&input, &run);
    assert!(failure(async { assert_record_counts(&input, &run) }).contains("a state of All"));
    assert_record_counts(
        &input[..2],
        &shell(ECHO).input(input[..2].to_vec()).run().await,
    );
    let changed = state_stream("users", r#"{"cursor":1e400}"#).id(8);
    assert!(failure(async { assert_states_are_prefix(&[changed], &run) }).contains("state 0"));
}
