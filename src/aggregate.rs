//! Many records in one Kinesis record, in the format of the Kinesis Producer Library.
//!
//! Four magic bytes, a protobuf message with a table of partition keys and the records, and the MD5 of that message
//! ([format](https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md)). A consumer unpacks it and
//! drops each record whose key does not belong to the shard it reads, so all records of an aggregate must belong to one shard.
//!
//! A record with a key of its own brings it into the table. One whose key is only its id borrows the first key of the table,
//! which is also the key of the Kinesis record: it costs no entry, and is in the right shard whatever becomes of the shards.

use bytes::Bytes;
use md5::{Digest, Md5};
use prost::Message;
use prost::encoding::encoded_len_varint;

use crate::batch::Held;

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// Magic bytes in front and MD5 behind.
const FRAME_BYTES: usize = MAGIC.len() + 16;

/// A field's tag: all fields here have numbers below 16.
const TAG_BYTES: usize = 1;

#[derive(Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Record>,
}

/// Protobuf 2 requires the index and the data: `required` is written also where it is zero or empty.
#[derive(Message)]
struct Record {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
}

/// How large an aggregate becomes as records join it. Exact, without encoding it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AggregateSize {
    bytes: usize,
    keys: u64,
}

impl AggregateSize {
    /// The size with one more record.
    #[must_use]
    pub fn with(self, held: &Held) -> Self {
        let (bytes, keys) = if self.keys == 0 || held.record.own_key().is_some() {
            let key = field_bytes(held.record.partition_key().len());
            // The first key is that of the Kinesis record too.
            let outer = if self.keys == 0 {
                FRAME_BYTES + held.record.partition_key().len()
            } else {
                0
            };
            (self.bytes + key + outer, self.keys + 1)
        } else {
            (self.bytes, self.keys)
        };
        let index = if held.record.own_key().is_some() {
            keys - 1
        } else {
            0
        };
        let record = TAG_BYTES + encoded_len_varint(index) + field_bytes(held.record.bytes().len());
        Self {
            bytes: bytes + field_bytes(record),
            keys,
        }
    }

    /// Bytes of the Kinesis record, with its partition key.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bytes
    }
}

/// A text, bytes or a message of `length` bytes as a field.
fn field_bytes(length: usize) -> usize {
    TAG_BYTES + encoded_len_varint(u64::try_from(length).unwrap_or(u64::MAX)) + length
}

/// The data of the Kinesis record that holds all of these. Its partition key is that of the first.
#[must_use]
pub fn aggregate(records: &[Held]) -> Vec<u8> {
    let mut message = AggregatedRecord {
        partition_key_table: Vec::new(),
        records: Vec::with_capacity(records.len()),
    };
    let mut index = 0;
    for held in records {
        let has_own = held.record.own_key().is_some();
        if has_own || message.partition_key_table.is_empty() {
            index = message.partition_key_table.len();
            message
                .partition_key_table
                .push(held.record.partition_key().to_owned());
        }
        message.records.push(Record {
            partition_key_index: if has_own {
                u64::try_from(index).unwrap_or_default()
            } else {
                0
            },
            data: held.record.bytes().clone(),
        });
    }
    let mut bytes = Vec::with_capacity(FRAME_BYTES + message.encoded_len());
    bytes.extend_from_slice(&MAGIC);
    // Writing to a `Vec` cannot fail.
    let _ = message.encode(&mut bytes);
    let digest = Md5::digest(bytes.get(MAGIC.len()..).unwrap_or_default());
    bytes.extend_from_slice(&digest);
    bytes
}

/// The records in the data of a Kinesis record: those of an aggregate, or the data itself.
#[must_use]
pub fn disaggregate(data: &[u8]) -> Vec<Bytes> {
    unpack(data).unwrap_or_else(|| vec![Bytes::copy_from_slice(data)])
}

fn unpack(data: &[u8]) -> Option<Vec<Bytes>> {
    let (message, digest) = data.strip_prefix(&MAGIC)?.split_last_chunk::<16>()?;
    let is_whole = Md5::digest(message).as_slice() == digest;
    let message = is_whole.then(|| AggregatedRecord::decode(message).ok())??;
    Some(
        message
            .records
            .into_iter()
            .map(|record| record.data)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::checkpoint::Token;
    use crate::record::{Arena, EmittedAt, EncodedRecord};

    fn held(key: Option<&str>, data_bytes: usize) -> Held {
        let record = EncodedRecord::encode_within(
            Uuid::new_v4(),
            &"x".repeat(data_bytes),
            key.map(Arc::from),
            &EmittedAt::new(SystemTime::now()),
            usize::MAX,
            &mut Arena::new(0),
        );
        Held::new(record.unwrap(), Token::default(), Instant::now())
    }

    fn decode(bytes: &[u8]) -> AggregatedRecord {
        AggregatedRecord::decode(&bytes[4..bytes.len() - 16]).unwrap()
    }

    #[test]
    fn records_without_keys_of_their_own_share_the_first() {
        let records = [held(None, 0), held(None, 300), held(None, 5)];
        let message = decode(&aggregate(&records));
        assert_eq!(
            message.partition_key_table,
            [records[0].record.partition_key()]
        );
        for (inner, held) in message.records.iter().zip(&records) {
            assert_eq!(
                (inner.partition_key_index, &inner.data),
                (0, held.record.bytes())
            );
        }
    }

    #[test]
    fn records_with_keys_keep_them() {
        let records = [
            held(None, 1),
            held(Some("a"), 1),
            held(None, 1),
            held(Some("b"), 1),
        ];
        let message = decode(&aggregate(&records));
        assert_eq!(
            message.partition_key_table,
            [records[0].record.partition_key(), "a", "b"]
        );
        let indices: Vec<_> = message
            .records
            .iter()
            .map(|inner| inner.partition_key_index)
            .collect();
        assert_eq!(indices, [0, 1, 0, 2]);
    }

    #[test]
    fn an_aggregate_comes_apart_again_and_nothing_else_does() {
        let records = [held(None, 10), held(Some("a"), 0)];
        let whole = aggregate(&records);
        let apart = disaggregate(&whole);
        assert_eq!(
            apart,
            records.each_ref().map(|held| held.record.bytes().clone())
        );
        for data in [&b"{}"[..], &MAGIC, &whole[..whole.len() - 1], &whole[1..]] {
            assert_eq!(disaggregate(data), [data]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        // Lengths on both sides of where a length takes one byte more.
        #[test]
        fn the_size_is_known_before(records in prop::collection::vec((prop::option::of("[a-zé]{1,130}"), prop_oneof![0..200_usize, 16_100..16_400_usize]), 1..140)) {
            let records: Vec<_> = records.iter().map(|(key, bytes)| held(key.as_deref(), *bytes)).collect();
            let size = records.iter().fold(AggregateSize::default(), |size, held| size.with(held));
            prop_assert_eq!(size.bytes(), aggregate(&records).len() + records[0].record.partition_key().len());
        }
    }
}
