//! One request to the server, as a script sees it.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// The two wire formats Kinesis speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// `application/x-amz-json-1.1`, blobs as base64.
    Json,
    /// `application/x-amz-cbor-1.1`, blobs as bytes.
    Cbor,
}

impl Codec {
    /// The format of a body with this `Content-Type`. What is not CBOR is taken for JSON.
    pub(super) fn of(content_type: &str) -> Self {
        if content_type == Self::Cbor.content_type() {
            Self::Cbor
        } else {
            Self::Json
        }
    }

    /// The value of the `Content-Type` header.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// Writes an answer. Blobs of a [`Value`] are base64 text and stay that: enough for every
    /// answer but `GetRecords` in CBOR.
    pub(super) fn encode(self, value: &Value) -> Bytes {
        match self {
            Self::Json => Bytes::from(value.to_string()),
            Self::Cbor => {
                let mut bytes = Vec::new();
                ciborium::into_writer(value, &mut bytes)
                    .expect("a JSON value can be written as CBOR");
                Bytes::from(bytes)
            }
        }
    }

    /// Reads a body into a type that knows which fields it wants, if it is one.
    pub(super) fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Option<T> {
        match self {
            Self::Json => serde_json::from_slice(body).ok(),
            Self::Cbor => ciborium::from_reader(body).ok(),
        }
    }

    /// Reads a body as JSON, blobs as base64 text, if it is one.
    pub(super) fn decode_value(self, body: &[u8]) -> Option<Value> {
        match self {
            Self::Json => serde_json::from_slice(body).ok(),
            Self::Cbor => ciborium::from_reader(body)
                .ok()
                .map(|value: ciborium::Value| ferrokinesis::server::cbor_to_json(&value)),
        }
    }
}

/// One request: what it asks, of which stream, and which request of its kind it is.
pub(crate) struct Call<'a> {
    /// The operation, such as `PutRecords`.
    pub(crate) operation: &'a str,
    /// The stream it names, empty if none.
    pub(crate) stream: &'a str,
    /// Which request of this operation it is, counted from 1.
    pub(crate) nth: usize,
    /// Which request of this operation for this stream it is, counted from 1.
    pub(crate) nth_for_stream: usize,
    pub(super) request: &'a Request,
}

impl Call<'_> {
    /// The number of records in it, 0 if it is not a `PutRecords`.
    pub(crate) fn len(&self) -> usize {
        self.request.records
    }

    /// The records of a `PutRecords`, decoded when first asked for.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.request.entries()
    }

    /// The positions of the records that satisfy `wanted`, for
    /// [`Fault::refuse`](super::faults::Fault::refuse).
    pub(crate) fn positions(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<usize> {
        let entries = self.entries().iter().enumerate();
        entries
            .filter(|(_, entry)| wanted(entry))
            .map(|(at, _)| at)
            .collect()
    }

    /// The whole request as JSON, blobs as base64.
    pub(crate) fn json(&self) -> Value {
        self.request.json()
    }
}

/// One record of a `PutRecords` request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    /// Its partition key.
    pub(crate) partition_key: String,
    /// The hash key that overrides the partition key's, if there is one.
    #[serde(default)]
    pub(crate) explicit_hash_key: Option<String>,
    /// Its bytes, out of whatever encoding the request has.
    #[serde(rename = "Data", deserialize_with = "blob")]
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    /// The JSON text of the record's data, empty if it has no envelope.
    pub(crate) fn data(&self) -> String {
        Envelope::read(&self.bytes).data
    }
}

/// The JSON object around a record's data.
#[derive(Default, Deserialize)]
pub(super) struct Envelope {
    #[serde(rename = "_airbyte_ab_id")]
    pub(super) id: String,
    #[serde(rename = "_airbyte_data")]
    pub(super) data: String,
    #[serde(rename = "_airbyte_emitted_at")]
    pub(super) emitted_at: Option<Box<serde_json::value::RawValue>>,
}

impl Envelope {
    /// Reads it. All fields are empty if this is not one.
    pub(super) fn read(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

/// A request whose body has arrived.
pub(crate) struct Request {
    pub(super) operation: String,
    pub(super) stream: String,
    pub(super) codec: Codec,
    pub(super) body: Bytes,
    /// Number of records in it.
    pub(super) records: usize,
    entries: OnceLock<Vec<Entry>>,
}

/// What is read of every request: counting the records is far cheaper than decoding them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outline {
    #[serde(default)]
    stream_name: Option<String>,
    #[serde(default, rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(default)]
    records: Option<Vec<IgnoredAny>>,
}

/// The records of a `PutRecords` request.
#[derive(Deserialize)]
struct Entries {
    #[serde(rename = "Records")]
    records: Vec<Entry>,
}

impl Request {
    pub(super) fn new(operation: String, codec: Codec, body: Bytes) -> Self {
        let outline: Outline = codec.decode(&body).unwrap_or_default();
        let from_arn = outline
            .stream_arn
            .and_then(|arn| Some(arn.split_once('/')?.1.to_owned()));
        Self {
            operation,
            stream: outline.stream_name.or(from_arn).unwrap_or_default(),
            codec,
            body,
            records: outline.records.map_or(0, |records| records.len()),
            entries: OnceLock::new(),
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        self.entries.get_or_init(|| {
            let read: Option<Entries> = self.codec.decode(&self.body);
            read.map_or_else(Vec::new, |entries| entries.records)
        })
    }

    pub(super) fn json(&self) -> Value {
        self.codec.decode_value(&self.body).unwrap_or(Value::Null)
    }

    /// The same request, in JSON, with only the records at the positions that `keep` accepts.
    pub(super) fn only(&self, keep: impl Fn(usize) -> bool) -> Self {
        let entries = self.entries().iter().enumerate();
        let records: Vec<Value> = entries
            .filter(|(at, _)| keep(*at))
            .map(|(_, entry)| {
                let mut record = json!({
                    "PartitionKey": entry.partition_key,
                    "Data": BASE64.encode(&entry.bytes),
                });
                if let Some(key) = &entry.explicit_hash_key {
                    record["ExplicitHashKey"] = json!(key);
                }
                record
            })
            .collect();
        let body = json!({ "StreamName": self.stream, "Records": records });
        Self::new(
            self.operation.clone(),
            Codec::Json,
            Codec::Json.encode(&body),
        )
    }
}

/// Base64 text in JSON, bytes in CBOR.
fn blob<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Blob;
    impl Visitor<'_> for Blob {
        type Value = Vec<u8>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("base64 text or bytes")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            BASE64.decode(text).map_err(E::custom)
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
    deserializer.deserialize_any(Blob)
}
