//! One try to store one batch: a PutRecords call, and every entry of its answer read.
//!
//! Not stored is the default. A record counts as stored only when its own entry has a sequence number
//! and no error code; the answer's count of failures is not trusted.

use std::pin::pin;
use std::time::Duration;

use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::SdkError;

use crate::batch::Batch;
use crate::client::ClientLease;
use crate::fault::{Fault, FaultKind};
use crate::limits::{ATTEMPT_BYTES_PER_SECOND_MIN, ATTEMPT_TIMEOUT};
use crate::protocol::Text;
use crate::wire::answers::Entry;
use crate::wire::{Prepared, PutRecordsCall, WireFormat};

/// A batch, and what Kinesis said to it.
#[derive(Debug)]
pub struct PutOutcome {
    /// How it was encoded.
    pub format: WireFormat,
    /// The batch that was sent.
    pub batch: Batch,
    /// One answer a record, in the batch's order; or the fault of the whole request.
    pub result: Result<Vec<Answer>, Fault>,
}

/// What Kinesis said to one record.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is stored.
    Stored {
        /// Where, if the batch was made with a shard map to compare that with.
        shard_id: Option<String>,
    },
    /// It is not.
    Refused(Fault),
}

/// Sends a batch once.
///
/// # Cancel safety
///
/// Dropping the future leaves it open whether the records are stored.
pub async fn put(
    client: &ClientLease,
    stream_name: &str,
    batch: Batch,
    format: WireFormat,
) -> PutOutcome {
    let result = send(client, stream_name, &batch, format)
        .await
        .and_then(|answers| check(answers, batch.entry_count()))
        .map(|answers| deal(answers, &batch));
    PutOutcome {
        format,
        batch,
        result,
    }
}

async fn send(
    client: &ClientLease,
    stream_name: &str,
    batch: &Batch,
    format: WireFormat,
) -> Result<Vec<Answer>, Fault> {
    let room = client.room_to_send(batch.bytes).await;
    let Prepared {
        call,
        hash,
        answers,
        body_gone,
    } = PutRecordsCall::prepare(format, stream_name, batch, client.spare_bodies()).map_err(
        |error| {
            Fault::local(
                FaultKind::Unexpected,
                "request not built",
                error.to_string(),
                false,
            )
        },
    )?;
    let turn = client.http_client();
    let config = aws_sdk_kinesis::config::Builder::new()
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(attempt_timeout(batch.bytes))
                .build(),
        )
        .http_client(turn.client.clone())
        .interceptor(hash)
        .protocol(call);
    let sdk = client.sdk();
    let sending = sdk
        .put_records()
        .stream_name(stream_name)
        .set_records(Some(Vec::new()))
        .customize()
        .config_override(config)
        .send();
    let mut sending = pin!(sending);
    let sent = tokio::select! {
        biased;
        sent = &mut sending => sent,
        _ = body_gone => {
            drop(room);
            sending.await
        }
    };
    sent.map_err(|error| {
        if matches!(error, SdkError::TimeoutError(_)) {
            client.timed_out(&turn);
        }
        client.judge(Fault::of(&error))
    })?;
    Ok(answers.try_recv().unwrap_or_default())
}

/// Time for one try: longer for more bytes, so that a slow link is not taken for a dead one.
fn attempt_timeout(bytes: usize) -> Duration {
    let seconds = bytes / ATTEMPT_BYTES_PER_SECOND_MIN;
    ATTEMPT_TIMEOUT + Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

/// Takes the answers of a request as if the server lied.
fn check(answers: Vec<Answer>, expected: usize) -> Result<Vec<Answer>, Fault> {
    if answers.is_empty() {
        return Err(Fault::local(
            FaultKind::Transient,
            "empty answer",
            format!("PutRecords answered without entries for {expected} records"),
            true,
        ));
    }
    if answers.len() != expected {
        return Err(Fault::local(
            FaultKind::Unexpected,
            "answer of another length",
            format!(
                "PutRecords answered {} entries for {expected} records",
                answers.len()
            ),
            true,
        ));
    }
    Ok(answers)
}

/// Gives each record the answer of the Kinesis record that it is in.
fn deal(answers: Vec<Answer>, batch: &Batch) -> Vec<Answer> {
    if answers.len() == batch.records.len() {
        return answers;
    }
    let dealt = answers.into_iter().zip(batch.entries());
    dealt
        .flat_map(|(answer, records)| std::iter::repeat_n(answer, records.len()))
        .collect()
}

/// What an entry means. Stored is only what has a sequence number and no error code.
pub(crate) fn verdict(entry: &Entry<'_>, wants_shard: bool) -> Answer {
    let Entry {
        sequence_number,
        shard_id,
        error_code,
        error_message,
    } = entry;
    match (sequence_number, error_code) {
        (Some(Text(sequence_number)), None) if !sequence_number.is_empty() => Answer::Stored {
            shard_id: shard_id
                .as_ref()
                .filter(|_| wants_shard)
                .map(|Text(id)| id.as_ref().to_owned()),
        },
        (_, Some(Text(code))) => Answer::Refused(Fault::of_record(
            code,
            error_message.as_ref().map(|Text(message)| message.as_ref()),
        )),
        (_, None) => Answer::Refused(Fault::local(
            FaultKind::Transient,
            "no sequence number",
            "an entry of the answer has neither a sequence number nor an error code".to_owned(),
            true,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sequence_number: Option<&'static str>, error_code: Option<&'static str>) -> Answer {
        let text = |text: &'static str| Text(text.into());
        let entry = Entry {
            sequence_number: sequence_number.map(text),
            error_code: error_code.map(text),
            ..Entry::default()
        };
        verdict(&entry, true)
    }

    #[test]
    fn only_a_sequence_number_without_an_error_is_stored() {
        for (sequence_number, error_code, stored) in [
            (Some("1"), None, true),
            (Some("1"), Some("InternalFailure"), false),
            (Some(""), None, false),
            (None, None, false),
            (None, Some("InternalFailure"), false),
        ] {
            let answer = entry(sequence_number, error_code);
            assert_eq!(matches!(answer, Answer::Stored { .. }), stored);
        }
    }

    #[test]
    fn a_list_of_another_length_is_not_an_answer() {
        let two = || vec![entry(Some("1"), None), entry(Some("2"), None)];
        assert!(check(two(), 2).is_ok());
        for expected in [1, 3] {
            let fault = check(two(), expected).unwrap_err();
            assert!(!fault.is_retryable() && fault.may_be_done);
        }
        let fault = check(Vec::new(), 2).unwrap_err();
        assert!(fault.is_retryable() && fault.may_be_done);
    }

    #[test]
    fn a_large_request_is_given_more_time() {
        assert_eq!(attempt_timeout(1000), ATTEMPT_TIMEOUT);
        assert_eq!(attempt_timeout(5 * 1024 * 1024), Duration::from_secs(50));
    }
}
