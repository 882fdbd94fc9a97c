//! The envelope writer: any text comes out of the envelope as it went in, the envelope is one JSON
//! object on one line, and its size is known before it is written.

use std::time::{Duration, UNIX_EPOCH};

use destination_kinesis::record::{Arena, EmittedAt, EncodedRecord, KinesisRecord};
use serde_json::Value;
use uuid::Uuid;

/// An id, nanoseconds, and a text.
pub fn check(input: &[u8]) {
    let Some((id, rest)) = input.split_first_chunk() else {
        return;
    };
    let Some((nanoseconds, text)) = rest.split_first_chunk() else {
        return;
    };
    let id = Uuid::from_bytes(*id);
    let since_epoch = Duration::from_nanos(u64::from_be_bytes(*nanoseconds));
    let data = &*String::from_utf8_lossy(text);
    let time = UNIX_EPOCH + since_epoch;
    let record = EncodedRecord::encode(id, data, time);
    let size = record.size_bytes();
    assert_eq!(size, record.bytes().len() + record.partition_key().len());
    let emitted_at = EmittedAt::new(time);
    let within = |size| {
        EncodedRecord::encode_within(id, data, None, &emitted_at, size, &mut Arena::new(300))
    };
    let fits = within(size);
    assert_eq!(fits.as_ref(), Ok(&record));
    let does_not_fit = within(size - 1);
    assert_eq!(does_not_fit, Err(size));

    assert!(!record.bytes().contains(&b'\n'));
    let envelope: Value = serde_json::from_slice(record.bytes()).expect("JSON");
    assert_eq!(envelope["_airbyte_ab_id"], id.to_string());
    assert_eq!(envelope["_airbyte_data"], data);
    assert_eq!(envelope.as_object().map(serde_json::Map::len), Some(3));

    let read = KinesisRecord::decode(record.bytes()).expect("one of ours");
    assert_eq!((read.id(), read.data()), (id, data));
    let seconds: f64 = read.emitted_at().parse().expect("a number");
    assert!((seconds - since_epoch.as_secs_f64()).abs() < 1e-3);
}
