//! One record on Kinesis: the envelope around an Airbyte record's `data`, its size, and the way back.
//!
//! ```json
//! {"_airbyte_ab_id":"<UUID>","_airbyte_data":"{\"id\":1}","_airbyte_emitted_at":1795372724.06688293}
//! ```
//!
//! The data travels as a JSON *string* that holds the very text that the source wrote, so no number, key order or
//! duplicate key can change on the way.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::limits::ARENA_BYTES_MAX;
use crate::record::escape::Escapes;

mod escape;

const HEAD: &[u8] = br#"{"_airbyte_ab_id":""#;
const BEFORE_DATA: &[u8] = br#"","_airbyte_data":""#;
const BEFORE_EMITTED_AT: &[u8] = br#"","_airbyte_emitted_at":"#;

/// Length in bytes of the partition key that a record has by default: its id as a hyphenated UUID.
pub const DEFAULT_PARTITION_KEY_BYTES: usize = 36;

/// Where the id stands in the envelope: always the same place, so that it needs no copy of its own.
const ID: Range<usize> = HEAD.len()..HEAD.len() + DEFAULT_PARTITION_KEY_BYTES;
const DATA_START: usize = ID.end + BEFORE_DATA.len();

// What follows the data leaves room for `escape::write` to store whole blocks past the data's end.
const _: () = assert!(BEFORE_EMITTED_AT.len() >= escape::SLACK_BYTES);

/// Memory for records that come and go one after the other: neighbours share a piece of it, so that a
/// record needs no allocation. A piece is free again when the last of its records is gone.
#[derive(Debug)]
pub struct Arena {
    piece: BytesMut,
}

impl Arena {
    /// An arena with pieces of `piece_bytes` bytes, and larger ones for larger records.
    #[must_use]
    pub fn new(piece_bytes: usize) -> Self {
        Self {
            piece: BytesMut::with_capacity(piece_bytes),
        }
    }
}

/// A record as it goes to Kinesis: the finished envelope, shared and never copied, for the first try and each further one.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    bytes: Bytes,
    /// `None`: its id is its partition key.
    key: Option<Arc<str>>,
}

impl EncodedRecord {
    /// Puts `data`, the raw JSON text of a record's data, into an envelope.
    ///
    /// `taken_in` is the moment at which the connector took the record in; a time before 1970 counts as 1970.
    #[must_use]
    pub fn encode(id: Uuid, data: &str, taken_in: SystemTime) -> Self {
        let escapes = Escapes::in_text(data);
        let emitted_at = EmittedAt::new(taken_in);
        Self::build(id, data, &escapes, &emitted_at, &mut Arena::new(0))
    }

    /// The same, with the partition key `key` if there is one, unless the record would be larger than `size_bytes_max`, counted as [`EncodedRecord::size_bytes`] does:
    /// known before it takes any memory.
    ///
    /// # Errors
    ///
    /// The size that the record would have, in bytes.
    pub fn encode_within(
        id: Uuid,
        data: &str,
        key: Option<Arc<str>>,
        emitted_at: &EmittedAt,
        size_bytes_max: usize,
        arena: &mut Arena,
    ) -> Result<Self, usize> {
        let escapes = Escapes::in_text(data);
        let key_bytes = key
            .as_ref()
            .map_or(DEFAULT_PARTITION_KEY_BYTES, |key| key.len());
        let size_bytes = envelope_len(data, &escapes, emitted_at) + key_bytes;
        if size_bytes > size_bytes_max {
            return Err(size_bytes);
        }
        let record = Self::build(id, data, &escapes, emitted_at, arena);
        Ok(Self { key, ..record })
    }

    fn build(
        id: Uuid,
        data: &str,
        escapes: &Escapes,
        emitted_at: &EmittedAt,
        arena: &mut Arena,
    ) -> Self {
        let piece = &mut arena.piece;
        piece.resize(envelope_len(data, escapes, emitted_at), 0);
        let buffer = &mut piece[..];
        let mut end = put(buffer, 0, HEAD);
        if let Some(place) = buffer.get_mut(ID) {
            id.hyphenated().encode_lower(place);
        }
        end += DEFAULT_PARTITION_KEY_BYTES;
        end = put(buffer, end, BEFORE_DATA);
        end = escapes.write(data, buffer, end);
        end = put(buffer, end, BEFORE_EMITTED_AT);
        end = put(buffer, end, emitted_at.as_bytes());
        put(buffer, end, b"}");

        Self {
            bytes: piece.split().freeze(),
            key: None,
        }
    }

    /// Gives the record memory of its own. For one that stays behind when its neighbours are gone: it would
    /// keep all of their [`Arena`]'s piece.
    pub fn detach(&mut self) {
        // A larger one has a piece of its own.
        if self.bytes.len() < ARENA_BYTES_MAX {
            self.bytes = Bytes::copy_from_slice(&self.bytes);
        }
    }

    /// The record's id, a hyphenated UUID in lower case. It is the default partition key.
    #[must_use]
    pub fn id(&self) -> &str {
        // A record exists only through `encode`, which put ASCII there.
        self.bytes
            .get(ID)
            .and_then(|id| std::str::from_utf8(id).ok())
            .unwrap_or_default()
    }

    /// The key whose hash decides on the record's shard.
    #[must_use]
    pub fn partition_key(&self) -> &str {
        self.key.as_deref().unwrap_or_else(|| self.id())
    }

    /// The partition key, where it is not the id: records that share it keep their order.
    #[must_use]
    pub const fn own_key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// The envelope: one JSON object in UTF-8. A clone of it shares the memory.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What Kinesis counts for this record, in bytes: envelope plus partition key
    /// ([`PutRecordsRequestEntry`](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecordsRequestEntry.html)).
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let key_bytes = self
            .key
            .as_ref()
            .map_or(DEFAULT_PARTITION_KEY_BYTES, |key| key.len());
        self.bytes.len() + key_bytes
    }
}

/// Shows no content.
impl fmt::Debug for EncodedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedRecord")
            .field("len", &self.bytes.len())
            .finish()
    }
}

fn envelope_len(data: &str, escapes: &Escapes, emitted_at: &EmittedAt) -> usize {
    DATA_START
        + data.len()
        + escapes.extra_bytes()
        + BEFORE_EMITTED_AT.len()
        + emitted_at.as_bytes().len()
        + 1
}

/// Copies `part` to `buffer[start..]` and returns where it ends.
fn put(buffer: &mut [u8], start: usize, part: &[u8]) -> usize {
    let end = start + part.len();
    buffer[start..end].copy_from_slice(part);
    end
}

/// A moment as the decimal text of its seconds since 1970, with as many decimals as it needs, nine at most.
#[derive(Debug)]
pub struct EmittedAt {
    /// The digits of the seconds end at `POINT`, where the decimals begin.
    text: [u8; Self::BYTES_MAX],
    start: usize,
    end: usize,
}

impl EmittedAt {
    /// 20 digits are enough for any `u64`.
    const POINT: usize = 20;
    const BYTES_MAX: usize = Self::POINT + 1 + 9;

    /// A time before 1970 counts as 1970.
    pub fn new(moment: SystemTime) -> Self {
        let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let mut text = [b'0'; Self::BYTES_MAX];

        write_digits(&mut text[..Self::POINT], since_epoch.as_secs());
        let first = text[..Self::POINT].iter().position(|&digit| digit != b'0');
        let start = first.unwrap_or(Self::POINT - 1);

        let mut end = Self::POINT;
        if since_epoch.subsec_nanos() != 0 {
            text[Self::POINT] = b'.';
            write_digits(
                &mut text[Self::POINT + 1..],
                since_epoch.subsec_nanos().into(),
            );
            end = Self::BYTES_MAX;
            while text[end - 1] == b'0' {
                end -= 1;
            }
        }
        Self { text, start, end }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..self.end]
    }
}

/// Writes `number` in decimal to the end of `text`, zeros that have room for it.
fn write_digits(text: &mut [u8], mut number: u64) {
    for place in text.iter_mut().rev() {
        if number == 0 {
            return;
        }
        let [digit, ..] = (number % 10).to_le_bytes();
        *place = b'0' + digit;
        number /= 10;
    }
}

/// A record as a reader finds it on Kinesis.
#[derive(Clone, PartialEq, Eq)]
pub struct KinesisRecord {
    id: Uuid,
    data: String,
    emitted_at: String,
}

impl KinesisRecord {
    /// Reads an envelope, with its fields in any order. Fields that it does not know are passed over.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are not such an envelope. It does not check that the data is JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(DecodeError::of_json)?;
        let emitted_at = envelope.emitted_at.get();
        if !emitted_at.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(DecodeError::EmittedAt);
        }
        Ok(Self {
            id: Uuid::try_parse(&envelope.id).map_err(|_| DecodeError::Id)?,
            data: envelope.data,
            emitted_at: emitted_at.to_owned(),
        })
    }

    /// The record's id, the same however often the record was stored: what a consumer drops duplicates by.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// The JSON text of the record's data, as the source wrote it.
    #[must_use]
    pub fn data(&self) -> &str {
        &self.data
    }

    /// When the connector took the record in: seconds since 1970, as the very text of the JSON number.
    #[must_use]
    pub fn emitted_at(&self) -> &str {
        &self.emitted_at
    }
}

/// Shows no content.
impl fmt::Debug for KinesisRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisRecord")
            .field("id", &self.id)
            .field("data_len", &self.data.len())
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "_airbyte_ab_id")]
    id: String,
    #[serde(rename = "_airbyte_data")]
    data: String,
    #[serde(rename = "_airbyte_emitted_at", borrow)]
    emitted_at: &'a RawValue,
}

/// Why bytes are not a record's envelope. Like all errors, it says nothing of their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON in UTF-8, from this line and column on (both from 1).
    Syntax {
        /// The line.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
    /// JSON, but not an object that has each of the three fields once and with its type.
    Fields,
    /// The id is not a UUID.
    Id,
    /// The time is not a number.
    EmittedAt,
}

impl DecodeError {
    // By value, as `map_err` hands it over. Its own text may quote the content, so only the place is kept.
    fn of_json(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Fields,
            Category::Syntax | Category::Eof | Category::Io => Self::Syntax {
                line: error.line(),
                column: error.column(),
            },
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, column } => {
                write!(f, "not JSON from line {line} column {column} on")
            }
            Self::Fields => f.write_str("not an object with the three fields of a record"),
            Self::Id => f.write_str("_airbyte_ab_id is not a UUID"),
            Self::EmittedAt => f.write_str("_airbyte_emitted_at is not a number"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
