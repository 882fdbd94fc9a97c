//! `check`: a verdict that is right, a message that helps, and nothing left behind.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use serde_json::json;

use crate::support::faults::{Fault, Gate};
use crate::support::messages::{catalog, records, stream};
use crate::support::program::{Check, Write};
use crate::support::server::Kinesis;
use crate::support::within;

/// Waits until the server has none but these streams: deleting takes a moment.
async fn only_streams(kinesis: &Kinesis, expected: &[&str]) {
    within("the probe to be gone", async {
        while kinesis.streams().await != expected {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn success_leaves_nothing_behind() {
    let kinesis = Kinesis::start().await;
    Check::against(&kinesis).run().await.assert_connected();
    for operation in ["CreateStream", "PutRecords", "DeleteStream"] {
        let calls = kinesis.calls_of(operation);
        assert_eq!(calls.len(), 1, "{operation}");
        assert!(calls[0].stream.starts_with("airbyte_check_"));
    }
    only_streams(&kinesis, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_checks_at_a_time_do_not_disturb_each_other() {
    let kinesis = Kinesis::start().await;
    let (one, two) = tokio::join!(
        Check::against(&kinesis).run(),
        Check::against(&kinesis).run()
    );
    one.assert_connected();
    two.assert_connected();
    let probes = kinesis.calls_of("CreateStream");
    assert_ne!(probes[0].stream, probes[1].stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_users_is_left_untouched() {
    let kinesis = Kinesis::start().await;
    let input = records("stream", 3);
    let input = input.into_iter().map(|record| record.namespace("test"));
    let write = Write::to(&kinesis).catalog(catalog([stream("stream").namespace("test")]));
    write.input(input).run().await.assert_success();
    let before = kinesis.stored("test_stream").await;
    let calls = kinesis.calls().len();
    Check::against(&kinesis).run().await.assert_connected();
    only_streams(&kinesis, &["test_stream"]).await;
    assert_eq!(before.len(), 3);
    assert_eq!(kinesis.stored("test_stream").await, before);
    let of_check = &kinesis.calls()[calls..];
    assert!(of_check.iter().all(|call| call.stream != "test_stream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_told_within_30_seconds() {
    let kinesis = Kinesis::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let check = Check::against(&kinesis);
    let check = check.config(json!({ "endpoint": format!("http://{address}") }));
    let run = check.run().await;
    run.assert_not_connected("Check that \"endpoint\"");
    assert!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
    assert!(run.logs("WARN").is_empty(), "nothing is left over: {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_told_within_30_seconds() {
    let kinesis = Kinesis::start().await;
    kinesis.script(|_| Fault::silence());
    let run = Check::against(&kinesis)
        .deadline(Duration::from_secs(60))
        .run()
        .await;
    run.assert_not_connected("Check that \"endpoint\"");
    assert!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_scheme_is_told() {
    let kinesis = Kinesis::start().await;
    let https = kinesis.endpoint().replace("http://", "https://");
    let check = Check::against(&kinesis).config(json!({ "endpoint": https }));
    check.run().await.assert_not_connected("the right scheme");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows_is_told() {
    let kinesis = Kinesis::start().await;
    let check = Check::against(&kinesis);
    let check = check.config(json!({ "endpoint": "http://kinesis.invalid" }));
    let run = check.run().await;
    run.assert_not_connected("Check that \"endpoint\"");
    assert!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_kinesis_is_told() {
    let kinesis = Kinesis::start().await;
    for status in [200, 404, 503] {
        kinesis.script(move |_| Fault::html(status));
        let run = Check::against(&kinesis).run().await;
        run.assert_not_connected("Check that \"endpoint\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_told() {
    let kinesis = Kinesis::start().await;
    for (status, code) in [
        (400, "UnrecognizedClientException"),
        (403, "InvalidSignatureException"),
        (400, "IncompleteSignatureException"),
        (403, "InvalidClientTokenId"),
    ] {
        kinesis.script(move |_| Fault::error(status, code, "The security token is invalid."));
        let run = Check::against(&kinesis).run().await;
        run.assert_not_connected("\"accessKey\" and \"privateKey\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_create_is_told_by_name() {
    let kinesis = Kinesis::start().await;
    kinesis.on("CreateStream", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    let run = Check::against(&kinesis).run().await;
    run.assert_not_connected("kinesis:CreateStream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_look_is_told_by_name() {
    let kinesis = Kinesis::start().await;
    kinesis.script(|call| match call.operation {
        "DescribeStreamSummary" | "DescribeStream" => {
            Fault::error(400, "AccessDeniedException", "no")
        }
        _ => Fault::pass(),
    });
    let run = Check::against(&kinesis).run().await;
    run.assert_not_connected("kinesis:DescribeStreamSummary");
    only_streams(&kinesis, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_java_connector_needed_are_enough() {
    let kinesis = Kinesis::start().await;
    kinesis.script(|call| match call.operation {
        "CreateStream" | "DescribeStream" | "PutRecords" | "DeleteStream" => Fault::pass(),
        _ => Fault::error(400, "AccessDeniedException", "no"),
    });
    Check::against(&kinesis).run().await.assert_connected();
    let write = Write::to(&kinesis).catalog(catalog([stream("users")]));
    write
        .input(records("users", 1))
        .run()
        .await
        .assert_success();
    only_streams(&kinesis, &["_users"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_is_a_failure_and_the_probe_is_deleted() {
    let kinesis = Kinesis::start().await;
    kinesis.on("PutRecords", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    let run = Check::against(&kinesis).run().await;
    run.assert_not_connected("kinesis:PutRecords");
    only_streams(&kinesis, &[]).await;
    for (code, part) in [
        ("KMSAccessDeniedException", "KMS key"),
        ("InternalFailure", "InternalFailure"),
    ] {
        kinesis.on("PutRecords", move |_| Fault::refuse_all(code));
        let run = Check::against(&kinesis).run().await;
        run.assert_not_connected(part);
        only_streams(&kinesis, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_waited_out() {
    let kinesis = Kinesis::start().await;
    kinesis.script(|call| match (call.operation, call.nth) {
        ("CreateStream", 1) => Fault::limit_exceeded(),
        ("DescribeStreamSummary" | "DeleteStream", 1) => Fault::status(500),
        ("PutRecords", 1) => Fault::throttle([0]),
        ("PutRecords", 2) => Fault::reset_request(),
        _ => Fault::pass(),
    });
    Check::against(&kinesis).run().await.assert_connected();
    only_streams(&kinesis, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_may_not_be_deleted_is_named() {
    let kinesis = Kinesis::start().await;
    kinesis.on("DeleteStream", |_| {
        Fault::error(400, "AccessDeniedException", "no")
    });
    let run = Check::against(&kinesis).run().await;
    run.assert_connected();
    let probe = &kinesis.streams().await[0];
    let warnings = run.logs("WARN");
    assert!(
        warnings.len() == 1 && warnings[0].contains(probe.as_str()),
        "{run}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_deletes_the_probe_all_the_same() {
    for interrupted in [true, false] {
        let kinesis = Kinesis::start().await;
        let gate = Gate::new();
        let held = gate.clone();
        kinesis.on("PutRecords", move |_| Fault::hold(&held));
        let mut running = Check::against(&kinesis).spawn().await;
        gate.waiting(1).await;
        if interrupted {
            running.interrupt();
        } else {
            running.terminate();
        }
        running.ended().await;
        let run = running.finish().await;
        run.assert_failed("transient_error", "stopped by SIG");
        assert!(run.messages("CONNECTION_STATUS").is_empty(), "{run}");
        only_streams(&kinesis, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_deletes_a_probe_that_is_still_being_created() {
    let mut options = Kinesis::options();
    options.create_stream_ms = 1500;
    let kinesis = Kinesis::with(options).await;
    let mut running = Check::against(&kinesis).spawn().await;
    running
        .wait_for_message(|line| line.logs("INFO", "Created the stream"))
        .await;
    running.terminate();
    running.ended().await;
    assert_eq!(running.finish().await.exit_code, Some(1));
    only_streams(&kinesis, &[]).await;
}
