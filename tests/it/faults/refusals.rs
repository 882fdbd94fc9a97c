//! Records refused one by one, inside an answer of status 200.

use super::drill::drill;
use crate::support::faults::{Fault, THROUGHPUT_EXCEEDED};

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_record_goes_again() {
    drill(|strike| Fault::throttle(strike.marked()))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_which_every_record_is_throttled_goes_again() {
    drill(|_| Fault::refuse_all(THROUGHPUT_EXCEEDED))
        .times(4)
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_failed_inside_kinesis_goes_again() {
    drill(|strike| Fault::refuse(strike.marked(), "InternalFailure"))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_waits_for_its_key_to_be_less_busy_goes_again() {
    drill(|strike| Fault::refuse(strike.marked(), "KMSThrottlingException"))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_refused_for_a_reason_that_nobody_has_heard_of_goes_again() {
    drill(|strike| Fault::refuse(strike.marked(), "MoonInTheWrongPhaseException"))
        .twice()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_different_kinds_in_one_answer_are_told_apart() {
    drill(|_| {
        Fault::throttle([0]).tampered(|answer| {
            // The first is throttled; what is said of it now is something else.
            answer["Records"][0]["ErrorCode"] = "InternalFailure".into();
            answer["FailedRecordCount"] = 77.into();
        })
    })
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_of_failures_is_not_trusted() {
    drill(|strike| {
        Fault::throttle(strike.marked()).tampered(|answer| answer["FailedRecordCount"] = 0.into())
    })
    .stores_all_once()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_code_of_null_is_no_error() {
    drill(|_| Fault::null_errors())
        .for_good()
        .stores_all_once()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_code_beside_a_sequence_number_is_an_error() {
    drill(|strike| {
        let marked = strike.marked();
        Fault::tamper(move |answer| {
            for at in marked {
                answer["Records"][at]["ErrorCode"] = "InternalFailure".into();
            }
        })
    })
    .stores_all()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_says_nothing_is_not_stored() {
    drill(|strike| {
        let marked = strike.marked();
        Fault::tamper(move |answer| {
            for at in marked {
                answer["Records"][at] = serde_json::json!({});
            }
        })
    })
    .stores_all()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_always_throttled_ends_the_sync_when_its_time_is_up() {
    drill(|strike| Fault::throttle(strike.marked()))
        .always()
        .patience(1)
        .fails("transient_error", ["limit is reached", "more shards"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_always_fails_ends_the_sync_although_others_are_stored() {
    drill(|strike| Fault::refuse(strike.marked(), "InternalFailure"))
        .always()
        .patience(1)
        .fails(
            "transient_error",
            ["InternalFailure", "does not answer as it should"],
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_throttled_for_good_ends_the_sync_when_its_time_is_up() {
    drill(|_| Fault::refuse_all(THROUGHPUT_EXCEEDED))
        .for_good()
        .patience(1)
        .fails("transient_error", ["limit is reached", "more shards"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_refused_because_of_the_encryption_key_ends_the_sync_at_once() {
    drill(|strike| Fault::refuse(strike.marked(), "KMSDisabledException"))
        .always()
        .fails("config_error", ["KMS key", "Enable the key"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_refused_because_access_is_denied_ends_the_sync_at_once() {
    drill(|strike| Fault::refuse(strike.marked(), "AccessDeniedException"))
        .always()
        .fails("config_error", ["kinesis:PutRecords"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_of_a_refused_record_is_never_repeated_with_its_content() {
    use crate::support::messages::CANARY;
    drill(|strike| {
        let said = format!("Value '{{\"k\":\"{CANARY}\"}}' at 'records.1.member.data'");
        Fault::refuse(strike.marked(), "KMSDisabledException").saying(&said)
    })
    .always()
    .fails("config_error", ["KMS key"])
    .await;
}
