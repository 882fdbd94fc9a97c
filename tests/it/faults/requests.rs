//! Whole requests that are refused, or answered by nobody who knows Kinesis.

use serde_json::json;

use super::drill::{Layout, Phase, drill};
use crate::support::faults::{Fault, THROUGHPUT_EXCEEDED};
use crate::support::messages::{catalog, numbered, records, state_stream, stream};
use crate::support::program::Write;
use crate::support::server::Kinesis;
use crate::support::verdict::assert_earned;

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_request_goes_again() {
    drill(|_| Fault::error(400, THROUGHPUT_EXCEEDED, "Rate exceeded for the stream."))
        .times(3)
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_limits_of_the_account_goes_again() {
    drill(|_| Fault::limit_exceeded())
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_the_limits_of_the_key_goes_again() {
    drill(|_| Fault::error(400, "KMSThrottlingException", "Rate exceeded."))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_inside_kinesis_goes_again() {
    drill(|_| Fault::error(500, "InternalFailure", "Internal service failure."))
        .times(3)
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_kinesis_has_no_time_for_goes_again() {
    drill(|_| Fault::error(503, "ServiceUnavailable", "Try later."))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_500_and_a_bare_503_are_waited_out() {
    drill(|strike| Fault::status(if strike.nth == 1 { 500 } else { 503 }))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_proxy_is_waited_out() {
    drill(|strike| Fault::html([502, 504, 429][strike.nth - 1]))
        .times(3)
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_calls_itself_a_success_is_none() {
    drill(|_| Fault::html(200)).twice().stores_all_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_without_a_body_is_none() {
    drill(|_| Fault::empty()).twice().stores_all_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_in_broken_json_is_none() {
    drill(|_| Fault::broken_json())
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_without_a_word_on_the_records_is_none() {
    drill(|_| {
        let answer = r#"{"FailedRecordCount":0,"Records":[]}"#;
        Fault::raw(200, Some("application/x-amz-json-1.1"), answer)
    })
    .twice()
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_behind_an_unreadable_answer_go_again_with_their_ids() {
    drill(|_| Fault::broken_json().but_served())
        .stores_all()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_stored_before_an_internal_failure_go_again_with_their_ids() {
    drill(|_| Fault::error(500, "InternalFailure", "no").but_served())
        .stores_all()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_for_the_server_is_halved() {
    drill(|strike| {
        if strike.len() > 2 {
            Fault::status(413)
        } else {
            Fault::pass()
        }
    })
    .for_good()
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_valid_as_a_whole_is_halved() {
    drill(|strike| {
        if strike.len() > 1 {
            Fault::error(400, "ValidationException", "1 validation error detected.")
        } else {
            Fault::pass()
        }
    })
    .for_good()
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_valid_and_then_not_answered_is_halved_all_the_same() {
    drill(|strike| match (strike.nth, strike.len()) {
        (_, 0..=1) => Fault::pass(),
        (nth, _) if nth % 2 == 1 => Fault::error(400, "InvalidArgumentException", "no"),
        _ => Fault::status(503),
    })
    .for_good()
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_that_is_not_valid_ends_the_sync_and_is_named() {
    drill(|_| Fault::error(400, "ValidationException", "1 validation error detected."))
        .always()
        .fails(
            "config_error",
            ["one record", "bytes", "leave the record out"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_record_that_is_not_valid_is_stored() {
    const RECORDS: usize = 100;
    for invalid in [0, 1, 37, RECORDS - 1] {
        let kinesis = Kinesis::start().await;
        kinesis.create_stream("_s0", 1).await;
        kinesis.on("PutRecords", move |call| {
            let data = numbered(invalid);
            if call.entries().iter().any(|entry| entry.data() == data) {
                Fault::error(400, "ValidationException", "1 validation error detected.")
            } else {
                Fault::pass()
            }
        });
        let mut input = Vec::new();
        for (n, message) in records("s0", RECORDS).into_iter().enumerate() {
            input.extend([message, state_stream("s0", json!({ "cursor": n }))]);
        }
        let run = Write::to(&kinesis)
            .catalog(catalog([stream("s0")]))
            .input(input.clone())
            .run()
            .await;
        run.assert_failed("config_error", "one record");
        assert_earned(&kinesis, &input, &run).await;
        assert_eq!(run.states().len(), invalid, "{run}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_for_good_ends_the_sync_when_its_time_is_up() {
    drill(|_| Fault::error(500, "InternalFailure", "no"))
        .for_good()
        .patience(1)
        .fails("transient_error", ["InternalFailure", "network is up"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_requests_are_throttled_for_good_ends_the_sync_when_its_time_is_up() {
    drill(|_| Fault::error(400, THROUGHPUT_EXCEEDED, "Rate exceeded."))
        .for_good()
        .patience(1)
        .fails("transient_error", ["limit is reached", "more shards"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_credentials_that_have_expired_are_the_users_to_renew() {
    drill(|_| Fault::error(400, "ExpiredTokenException", "The token is expired."))
        .for_good()
        .fails(
            "config_error",
            ["credentials have expired", "ExpiredToken", "accessKey"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_nobody_knows_end_the_sync_at_once() {
    drill(|_| Fault::error(400, "UnrecognizedClientException", "The token is invalid."))
        .for_good()
        .fails(
            "config_error",
            ["does not take the credentials", "accessKey"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_does_not_match_ends_the_sync_at_once() {
    drill(|_| Fault::error(403, "InvalidSignatureException", "It does not match."))
        .for_good()
        .fails(
            "config_error",
            ["does not take the credentials", "privateKey"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_that_is_denied_ends_the_sync_at_once() {
    drill(|_| Fault::error(400, "AccessDeniedException", "User is not authorized."))
        .for_good()
        .fails("config_error", ["access denied", "kinesis:PutRecords"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_there_ends_the_sync_at_once() {
    drill(|_| Fault::error(400, "ResourceNotFoundException", "Stream s not found."))
        .for_good()
        .fails("config_error", ["does not exist", "run the sync again"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_with_the_encryption_key_ends_the_sync_at_once() {
    for (code, phase, layout) in [
        ("KMSAccessDeniedException", Phase::Start, Layout::One),
        ("KMSDisabledException", Phase::Middle, Layout::Three),
        ("KMSInvalidStateException", Phase::LastFlush, Layout::One),
        ("KMSNotFoundException", Phase::Start, Layout::ThreeGlobal),
        ("KMSOptInRequired", Phase::LastFlush, Layout::ThreeGlobal),
    ] {
        drill(move |_| Fault::error(400, code, "The key cannot be used."))
            .for_good()
            .only(phase, layout)
            .fails("config_error", ["KMS key", "Enable the key"])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_knows_ends_the_sync_at_once() {
    drill(|_| Fault::error(400, "DryRunOperationException", "All would be well."))
        .for_good()
        .fails(
            "system_error",
            ["DryRunOperationException", "internal message"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_leaves_records_out_ends_the_sync_at_once() {
    drill(|_| Fault::short_answer(1))
        .storing_twice()
        .fails("system_error", ["another length"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_speaks_of_more_records_than_there_are_ends_the_sync_at_once() {
    drill(|_| Fault::long_answer(2))
        .storing_twice()
        .fails("system_error", ["another length"])
        .await;
}
