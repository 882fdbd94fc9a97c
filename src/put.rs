//! One try to store one batch: a PutRecords call, and every entry of its answer read.
//!
//! Not stored is the default. A record counts as stored only when its own entry has a sequence number
//! and no error code; the answer's count of failures is not trusted.

use std::time::Duration;

use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};

use crate::batch::{Batch, Held};
use crate::cbor::KinesisCbor;
use crate::client::ClientLease;
use crate::fault::{Fault, FaultKind};
use crate::limits::{ATTEMPT_BYTES_PER_SECOND_MIN, ATTEMPT_TIMEOUT};

/// How a request is encoded. What is stored is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFormat {
    /// What every server takes.
    Json,
    /// Smaller; see [`crate::cbor`].
    Cbor,
}

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
#[derive(Debug)]
pub enum Answer {
    /// It is stored.
    Stored {
        /// Where.
        shard_id: String,
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
    let entries = batch
        .records
        .iter()
        .map(entry)
        .collect::<Result<Vec<_>, _>>();
    let result = match entries {
        Ok(entries) => {
            send(
                client,
                stream_name,
                entries,
                attempt_timeout(batch.bytes),
                format,
            )
            .await
        }
        Err(error) => Err(Fault::local(
            FaultKind::Unexpected,
            "entry not built",
            error.to_string(),
            false,
        )),
    };
    let result = result.and_then(|entries| read(entries, batch.records.len()));
    PutOutcome {
        format,
        batch,
        result,
    }
}

/// The data is shared with the held record, not copied.
fn entry(held: &Held) -> Result<PutRecordsRequestEntry, aws_sdk_kinesis::error::BuildError> {
    PutRecordsRequestEntry::builder()
        .data(Blob::from_maybe_shared(held.record.bytes().clone()))
        .partition_key(held.record.partition_key())
        .build()
}

async fn send(
    client: &ClientLease,
    stream_name: &str,
    entries: Vec<PutRecordsRequestEntry>,
    timeout: Duration,
    format: WireFormat,
) -> Result<Vec<PutRecordsResultEntry>, Fault> {
    let mut config = aws_sdk_kinesis::config::Builder::new().timeout_config(
        TimeoutConfig::builder()
            .operation_attempt_timeout(timeout)
            .build(),
    );
    if format == WireFormat::Cbor {
        config = config.protocol(KinesisCbor::default());
    }
    let answer = client
        .sdk()
        .put_records()
        .stream_name(stream_name)
        .set_records(Some(entries))
        .customize()
        .config_override(config)
        .send()
        .await
        .map_err(|error| client.judge(Fault::of(&error)))?;
    Ok(answer.records)
}

/// Time for one try: longer for more bytes, so that a slow link is not taken for a dead one.
fn attempt_timeout(bytes: usize) -> Duration {
    let seconds = bytes / ATTEMPT_BYTES_PER_SECOND_MIN;
    ATTEMPT_TIMEOUT + Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

/// Reads the answer's entries as if the server lied.
fn read(entries: Vec<PutRecordsResultEntry>, expected: usize) -> Result<Vec<Answer>, Fault> {
    if entries.is_empty() {
        return Err(Fault::local(
            FaultKind::Transient,
            "empty answer",
            format!("PutRecords answered without entries for {expected} records"),
            true,
        ));
    }
    if entries.len() != expected {
        return Err(Fault::local(
            FaultKind::Unexpected,
            "answer of another length",
            format!(
                "PutRecords answered {} entries for {expected} records",
                entries.len()
            ),
            true,
        ));
    }
    Ok(entries.into_iter().map(verdict).collect())
}

fn verdict(entry: PutRecordsResultEntry) -> Answer {
    match (entry.sequence_number, entry.error_code) {
        (Some(sequence_number), None) if !sequence_number.is_empty() => Answer::Stored {
            shard_id: entry.shard_id.unwrap_or_default(),
        },
        (_, Some(code)) => Answer::Refused(Fault::of_record(&code, entry.error_message.as_deref())),
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

    fn entry(sequence_number: Option<&str>, error_code: Option<&str>) -> PutRecordsResultEntry {
        PutRecordsResultEntry::builder()
            .set_sequence_number(sequence_number.map(ToOwned::to_owned))
            .set_error_code(error_code.map(ToOwned::to_owned))
            .build()
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
            let answers = read(vec![entry(sequence_number, error_code)], 1).unwrap();
            assert_eq!(matches!(answers[0], Answer::Stored { .. }), stored);
        }
    }

    #[test]
    fn a_list_of_another_length_is_not_an_answer() {
        let two = || vec![entry(Some("1"), None), entry(Some("2"), None)];
        assert!(read(two(), 2).is_ok());
        for expected in [1, 3] {
            let fault = read(two(), expected).unwrap_err();
            assert!(!fault.is_retryable() && fault.may_be_done);
        }
        let fault = read(Vec::new(), 2).unwrap_err();
        assert!(fault.is_retryable() && fault.may_be_done);
    }

    #[test]
    fn a_large_request_is_given_more_time() {
        assert_eq!(attempt_timeout(1000), ATTEMPT_TIMEOUT);
        assert_eq!(attempt_timeout(5 * 1024 * 1024), Duration::from_secs(50));
    }
}
