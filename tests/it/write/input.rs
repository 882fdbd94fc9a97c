//! What may come on standard input, and what becomes of it.

use serde_json::json;

use super::{data_in, kinesis_with, lines, ready, write_to};
use crate::support::messages::{
    CANARY, catalog, log, numbered, record, records, state_global, state_stream, stream,
    stream_status,
};
use crate::support::program::Write;
use crate::support::verdict::assert_exactly_stored;

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_may_be_full_of_nulls() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut input: Vec<_> = records("users", 3);
    input.push(state_stream("users", "{}").id(1));
    let input = input.into_iter().map(|message| message.nulls());
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    run.assert_success();
    assert_eq!((run.states().len(), kinesis.stored_count("_users")), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_others_and_of_unknown_types_are_ignored() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut input = lines([
        log("FATAL", CANARY),
        stream_status("users", "STARTED"),
        stream_status("nobody", "COMPLETE"),
        record("users", "{}")
            .with("unknown", "{}")
            .beside("new", "[]"),
    ]);
    let others = [
        r#"{"type":"CONTROL","control":{"type":"CONNECTOR_CONFIG","connectorConfig":{}}}"#,
        r#"{"type":"CATALOG","catalog":{"streams":[]}}"#,
        r#"{"type":"SPEC"}"#,
        r#"{"type":"CONNECTION_STATUS","connectionStatus":{"status":"FAILED"}}"#,
        r#"{"type":"DESTINATION_CATALOG"}"#,
        r#"{"type":"NEW_IN_2030","new":{"stream":"users","data":{}}}"#,
        r#"{"type":"record"}"#,
    ];
    input.extend(lines(others));
    let write = write_to(&kinesis, &["users"]).input(input);
    let run = write.env("LOG_LEVEL", "DEBUG").run().await;
    run.assert_success();
    assert_eq!(kinesis.stored_count("_users"), 1);
    assert!(run.logs("WARN").is_empty() && run.logs("ERROR").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_blank_lines_and_a_last_line_without_an_end_are_fine() {
    let kinesis = kinesis_with(&["_users"]).await;
    let [one, two, three, state] = [
        record("users", r#"{"n":1}"#),
        record("users", r#"{"n":2}"#),
        record("users", r#"{"n":3}"#),
        state_stream("users", "{}"),
    ]
    .map(|message| message.line());
    let input = format!("\n\r\n{one}\r\n \t\n{two}\n\n  {three} \r\n{state}");
    let write = write_to(&kinesis, &["users"]).raw_input(input.as_bytes());
    let run = write.run().await;
    run.assert_success();
    assert_eq!(run.states().len(), 1);
    let data = data_in(&kinesis, "_users").await;
    assert_eq!(data, [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_is_counted_and_its_content_never_shown() {
    let kinesis = kinesis_with(&["_users"]).await;
    let write = write_to(&kinesis, &["users"]).input([
        format!("Picked up JAVA_TOOL_OPTIONS: {CANARY}"),
        record("users", "{}").line(),
        format!("[{CANARY:?}]"),
        "{}".to_owned(),
        format!(r#"{{"type":"LOG","log":{{"message":"{CANARY}""#),
        state_stream("users", "{}").line(),
    ]);
    let run = write.env("LOG_LEVEL", "TRACE").run().await;
    run.assert_success();
    assert_eq!((run.states().len(), kinesis.stored_count("_users")), (1, 1));
    let errors = run.logs("ERROR");
    assert_eq!(errors.len(), 5, "one for each, and the sum: {run}");
    assert!(errors[0].contains("line=1") && errors[0].contains("bytes=47"));
    assert!(errors[1].contains("line=3") && errors[2].contains("line=4"));
    assert!(errors[4].contains("lines=4"), "{}", errors[4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_may_be_a_record_or_a_state_fails_the_sync_with_number_and_length() {
    let bad: &[&[u8]] = &[
        br#"{"type":"RECORD"}"#,
        br#"{"type":"RECORD","record":null}"#,
        br#"{"type":"RECORD","record":{"data":{"k":"canary-c0ffee-7d1f"}}}"#,
        br#"{"type":"RECORD","record":{"stream":null,"data":{}}}"#,
        br#"{"type":"RECORD","record":{"stream":"users"}}"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":null}}"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":["canary-c0ffee-7d1f"]}}"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":"canary-c0ffee-7d1f"}}"#,
        br#"{"type":"RECORD","record":{"stream":5,"data":{}}}"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":{"k":"canary-c0ffee-7d1f"}"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":{"k":canary-c0ffee-7d1f}}}"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":{}}} canary-c0ffee-7d1f"#,
        br#"{"type":"RECORD","record":{"stream":"users","data":{}}}{"type":"STATE"}"#,
        br#"{"type" : "RECORD", "record""#,
        b"{\"type\":\"RECORD\",\"record\":{\"stream\":\"users\",\"data\":{\"k\":\"\xff\"}}}",
        br#"{"record":{"stream":"users","data":{}}}"#,
        br#"{"type":"STATE"}"#,
        br#"{"type":"STATE","state":null}"#,
        br#"{"type":"STATE","state":["canary-c0ffee-7d1f"]}"#,
        br#"{"type":"STATE","state":{"type":"STREAM"}}"#,
        br#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{}}}}"#,
        br#"{"type":"STATE","state":{"type":"GLOBAL"}}"#,
        br#"{"type":"STATE","state":{"type":"NEW_IN_2030"}}"#,
        br#"{"type":"STATE","state":{"data":{"k":"canary-c0ffee-7d1f"#,
    ];
    let kinesis = kinesis_with(&["_users"]).await;
    for (at, bad) in bad.iter().enumerate() {
        let earned = [
            record("users", json!({ "n": at })),
            state_stream("users", at),
        ];
        let mut input = format!("{}\n", lines(earned).join("\n")).into_bytes();
        input.extend_from_slice(bad);
        let after = lines([record("users", "{}"), state_stream("users", 99)]).join("\n");
        input.extend_from_slice(format!("\n{after}\n").as_bytes());
        let write = write_to(&kinesis, &["users"]).raw_input(&input);
        let run = write.env("LOG_LEVEL", "TRACE").run().await;
        let expected = format!("Line 3 of the input ({} bytes)", bad.len());
        run.assert_failed("system_error", &expected);
        assert_eq!(run.states().len(), 1, "what was earned is out: {run}");
        assert_eq!(kinesis.stored_count("_users"), at + 1);
    }
    let expected: Vec<_> = (0..bad.len()).map(|n| json!({ "n": n })).collect();
    assert_exactly_stored(&kinesis, "_users", &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_ends_in_the_middle_of_an_object_fails_the_sync() {
    let kinesis = kinesis_with(&["_users"]).await;
    let whole = record("users", numbered(1)).line();
    for cut in [1, 5, 12, whole.len() - 1] {
        let before = lines([record("users", "{}"), state_stream("users", cut)]).join("\n");
        let write = write_to(&kinesis, &["users"]);
        let input = format!("{before}\n{}", &whole[..cut]);
        let run = write.raw_input(input.as_bytes()).run().await;
        let expected = format!("Line 3 of the input ({cut} bytes)");
        run.assert_failed("system_error", &expected);
        assert_eq!(run.states().len(), 1, "{run}");
    }
    assert_eq!(kinesis.stored_count("_users"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_stream_that_the_catalog_lacks_fails_the_sync_and_names_the_stream() {
    let kinesis = kinesis_with(&["_users"]).await;
    let input = [
        record("users", "{}"),
        state_stream("users", 1),
        record("nobody", numbered(1)).namespace("n"),
        record("users", "{}"),
        state_stream("users", 2),
    ];
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    let error = run.assert_failed("system_error", "\"nobody\"");
    assert!(
        error["message"].as_str().unwrap().contains("\"n\""),
        "{run}"
    );
    assert_eq!((run.states().len(), kinesis.stored_count("_users")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_and_null_namespaces_are_the_same_and_an_empty_one_is_another() {
    let kinesis = kinesis_with(&["_users"]).await;
    let in_catalog = [
        stream("users"),
        stream("users").null_namespace(),
        stream("users").namespace(""),
    ];
    let given = || {
        [
            record("users", "{}"),
            record("users", "{}").null_namespace(),
            record("users", "{}").namespace(""),
        ]
    };
    for (c, streams) in in_catalog.into_iter().enumerate() {
        for (r, record) in given().into_iter().enumerate() {
            let write = Write::to(&kinesis).catalog(catalog([streams.clone()]));
            let run = write.input([record]).run().await;
            if (c == 2) == (r == 2) {
                run.assert_success();
            } else {
                run.assert_failed("system_error", "\"users\"");
            }
        }
    }
    assert_eq!(kinesis.stored_count("_users"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_complete_is_needed_and_what_comes_after_one_counts() {
    let kinesis = kinesis_with(&["_users"]).await;
    let input = [
        stream_status("users", "COMPLETE"),
        record("users", "{}"),
        state_global("{}", []),
    ];
    let run = write_to(&kinesis, &["users"]).input(input).run().await;
    run.assert_success();
    assert_eq!((run.states().len(), kinesis.stored_count("_users")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_too_long_for_any_message_is_refused_before_it_has_ended() {
    let kinesis = kinesis_with(&["_users"]).await;
    let mut running = ready(write_to(&kinesis, &["users"])).await;
    running
        .send_raw(br#"{"type":"RECORD","record":{"stream":"users","data":{"k":""#)
        .await;
    let part = vec![b'x'; 1 << 20];
    for _ in 0..70 {
        running.send_raw(&part).await;
    }
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("system_error", "Line 1 of the input");
}
