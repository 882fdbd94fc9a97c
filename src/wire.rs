//! PutRecords on the wire: the bytes of a request, and the entries of its answer, as JSON or as CBOR.
//!
//! The SDK has code for both, which makes some ten strings and copies of each record. This is where the
//! time of a sync goes, so it is written out here, and handed to the SDK as the protocol of that
//! one call: endpoint, credentials, signature, connections, time-outs and errors stay the SDK's.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, mem};

use aws_runtime::auth::PayloadSigningOverride;
use aws_smithy_cbor::encode::Encoder;
use aws_smithy_json::protocol::aws_json_rpc::AwsJsonRpcProtocol;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::{Request, Response};
use aws_smithy_schema::codec::DynCodec;
use aws_smithy_schema::protocol::{ClientProtocolInner, SharedClientProtocol};
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeDeserializer};
use aws_smithy_schema::{Schema, ShapeId};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::error::metadata::Builder as ErrorMetadataBuilder;
use base64_simd::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use tokio::sync::oneshot;

use crate::aggregate::aggregate;
use crate::batch::Batch;
use crate::cbor::KinesisCbor;
use crate::limits::SPARE_BODIES_BYTES_MAX;
use crate::put::Answer;
use crate::sha256;

pub(crate) mod answers;

/// How a request is encoded. What is stored is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFormat {
    /// What every server takes.
    Json,
    /// Smaller; see [`crate::cbor`].
    Cbor,
}

/// Memory of requests that are done, for those that come: a body is large enough for the system to be asked for each one, and
/// to hand it over page by page. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SpareBodies {
    spare: Arc<Mutex<Spare>>,
}

#[derive(Debug, Default)]
struct Spare {
    bodies: Vec<Vec<u8>>,
    bytes: usize,
}

impl SpareBodies {
    /// Room for so many bytes: a spare one, unless it is much too large.
    fn take(&self, bytes: usize) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(body) = spare.bodies.pop() {
            spare.bytes -= body.capacity();
            if (bytes..=2 * bytes).contains(&body.capacity()) {
                return body;
            }
        }
        drop(spare);
        // A little more, so that it does for others of the kind.
        Vec::with_capacity(bytes + bytes / 16)
    }

    fn give_back(&self, mut body: Vec<u8>) {
        body.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.bytes + body.capacity() <= SPARE_BODIES_BYTES_MAX {
            spare.bytes += body.capacity();
            spare.bodies.push(body);
        }
    }
}

/// A body on its way. Its memory is given back when the last of it is sent.
struct Body {
    bytes: Vec<u8>,
    spares: SpareBodies,
    /// Whose other end hears when the body is gone.
    _alive: oneshot::Sender<Infallible>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.spares.give_back(mem::take(&mut self.bytes));
    }
}

/// The protocol of one PutRecords call. What the SDK is told to send and what it hands out are empty
/// lists of records: the real ones pass it by.
pub struct PutRecordsCall {
    /// Does everything else.
    sdk: SharedClientProtocol,
    format: WireFormat,
    /// The body, until it is handed over.
    body: Mutex<Bytes>,
    wants_shards: bool,
    answers: SyncSender<Vec<Answer>>,
}

/// Tells the SDK the hash of a body, by which the request is signed.
///
/// A body that the SDK can hash itself is one that it keeps until the answer is there. This one is gone as soon as it is
/// sent, which with many requests in flight is half of the memory.
#[derive(Clone, Debug)]
pub struct BodyHash(String);

impl BodyHash {
    fn of(body: &[u8]) -> Self {
        Self(sha256::hex(body))
    }
}

impl Intercept for BodyHash {
    fn name(&self) -> &'static str {
        "BodyHash"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state()
            .store_put(PayloadSigningOverride::Precomputed(self.0.clone()));
        Ok(())
    }
}

/// A call that can be sent once, and what belongs to it.
pub struct Prepared {
    /// What is handed to the SDK.
    pub call: PutRecordsCall,
    /// The hash to sign it by.
    pub hash: BodyHash,
    /// Where the answers can be had when the call has succeeded.
    pub answers: Receiver<Vec<Answer>>,
    /// Ends, with an error, when the body is sent to its last byte, or given up.
    pub body_gone: oneshot::Receiver<Infallible>,
}

impl PutRecordsCall {
    /// A call that puts a batch.
    ///
    /// # Errors
    ///
    /// When JSON cannot be written.
    pub fn prepare(
        format: WireFormat,
        stream_name: &str,
        batch: &Batch,
        spares: &SpareBodies,
    ) -> serde_json::Result<Prepared> {
        let (deliver, answers) = sync_channel(1);
        let (alive, body_gone) = oneshot::channel();
        let (sdk, body) = match format {
            WireFormat::Json => (
                SharedClientProtocol::new(AwsJsonRpcProtocol::aws_json_1_1()),
                json_request(stream_name, batch, spares)?,
            ),
            WireFormat::Cbor => (
                SharedClientProtocol::new(KinesisCbor::default()),
                cbor_request(stream_name, batch, spares),
            ),
        };
        let hash = BodyHash::of(&body);
        let body = Bytes::from_owner(Body {
            bytes: body,
            spares: spares.clone(),
            _alive: alive,
        });
        let call = Self {
            sdk,
            format,
            body: Mutex::new(body),
            wants_shards: batch.has_map(),
            answers: deliver,
        };
        Ok(Prepared {
            call,
            hash,
            answers,
            body_gone,
        })
    }
}

impl fmt::Debug for PutRecordsCall {
    /// Without the request, which is the records' content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutRecordsCall")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl ClientProtocolInner for PutRecordsCall {
    type Request = Request;
    type Response = Response;

    fn protocol_id(&self) -> &ShapeId<'static> {
        self.sdk.protocol_id()
    }

    fn serialize_request(
        &self,
        input: &dyn SerializableStruct,
        input_schema: &Schema<'_>,
        endpoint: &str,
        cfg: &ConfigBag,
    ) -> Result<Request, SerdeError> {
        let mut request = self
            .sdk
            .serialize_request(input, input_schema, endpoint, cfg)?;
        let body = mem::take(&mut *self.body.lock().unwrap_or_else(PoisonError::into_inner));
        let length = body.len().to_string();
        request.headers_mut().insert("Content-Length", length);
        *request.body_mut() = SdkBody::from_body_1_x(Full::new(body));
        Ok(request)
    }

    fn deserialize_response<'a>(
        &self,
        response: &'a Response,
        output_schema: &Schema<'_>,
        cfg: &'a ConfigBag,
    ) -> Result<Box<dyn ShapeDeserializer + 'a>, SerdeError> {
        let (true, Some(codec)) = (response.status().is_success(), self.sdk.payload_codec()) else {
            return self.sdk.deserialize_response(response, output_schema, cfg);
        };
        let body = response.body().bytes().unwrap_or_default();
        let (answers, empty): (_, &[u8]) = match self.format {
            WireFormat::Json => (
                answers::in_json(body, self.wants_shards),
                br#"{"Records":[]}"#,
            ),
            WireFormat::Cbor => (
                answers::in_cbor(body, self.wants_shards),
                b"\xA1\x67Records\x80",
            ),
        };
        let answers = answers.ok_or_else(|| SerdeError::custom("the answer cannot be read"))?;
        // Nobody waits for it when the call was given up.
        let _ = self.answers.try_send(answers);
        Ok(codec.create_deserializer(empty))
    }

    fn parse_error_metadata(
        &self,
        response: &Response,
        cfg: &ConfigBag,
    ) -> Result<ErrorMetadataBuilder, SerdeError> {
        self.sdk.parse_error_metadata(response, cfg)
    }

    fn payload_codec(&self) -> Option<&dyn DynCodec> {
        self.sdk.payload_codec()
    }

    fn update_endpoint(
        &self,
        request: &mut Request,
        endpoint: &Endpoint,
        cfg: &ConfigBag,
    ) -> Result<(), SerdeError> {
        self.sdk.update_endpoint(request, endpoint, cfg)
    }
}

/// The Kinesis records of a batch: data and partition key.
fn entries(batch: &Batch) -> impl Iterator<Item = (Cow<'_, [u8]>, &str)> {
    batch.entries().filter_map(|records| {
        let data = match records {
            [held] => Cow::Borrowed(held.record.bytes().as_ref()),
            _ => Cow::Owned(aggregate(records)),
        };
        Some((data, records.first()?.record.partition_key()))
    })
}

fn json_request(
    stream_name: &str,
    batch: &Batch,
    spares: &SpareBodies,
) -> serde_json::Result<Vec<u8>> {
    const ENTRY_BYTES: usize = br#"{"Data":"==","PartitionKey":""},"#.len();
    let capacity = stream_name.len()
        + 64
        + batch.entry_count() * ENTRY_BYTES
        + BASE64.encoded_length(batch.bytes);
    let mut body = spares.take(capacity);
    body.extend_from_slice(br#"{"StreamName":"#);
    write_text(stream_name, &mut body)?;
    body.extend_from_slice(br#","Records":"#);
    let mut before = b'[';
    for (data, partition_key) in entries(batch) {
        body.push(before);
        body.extend_from_slice(br#"{"Data":""#);
        BASE64.encode_append(&data, &mut body);
        body.extend_from_slice(br#"","PartitionKey":"#);
        write_text(partition_key, &mut body)?;
        body.push(b'}');
        before = b',';
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

/// Writes a JSON string.
fn write_text(text: &str, out: &mut Vec<u8>) -> serde_json::Result<()> {
    let is_special = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
    // Not `any`: to look at every byte is faster than to stop at the first.
    if text.bytes().fold(false, |any, byte| any | is_special(byte)) {
        return serde_json::to_writer(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

fn cbor_request(stream_name: &str, batch: &Batch, spares: &SpareBodies) -> Vec<u8> {
    const ENTRY_BYTES: usize = 40;
    let capacity = stream_name.len() + 64 + batch.entry_count() * ENTRY_BYTES + batch.bytes;
    let mut body = Encoder::new(spares.take(capacity));
    body.map(2).str("StreamName").str(stream_name);
    body.str("Records").array(batch.entry_count());
    for (data, partition_key) in entries(batch) {
        body.map(2).str("Data").blob_bytes(&data);
        body.str("PartitionKey").str(partition_key);
    }
    body.into_writer()
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use serde_json::{Value, json};
    use tokio::sync::oneshot::error::TryRecvError;
    use uuid::Uuid;

    use super::*;
    use crate::batch::{BatchBounds, Held};
    use crate::checkpoint::Token;
    use crate::record::EncodedRecord;

    fn held(data: &str) -> Held {
        let record = EncodedRecord::encode(Uuid::new_v4(), data, SystemTime::now());
        Held::new(record, Token::default(), Instant::now())
    }

    /// Lengths around everything that base64 and CBOR have a case of their own for.
    fn records() -> Vec<Held> {
        let lengths = (0..10).chain([90, 91, 92, 200, 65_500, 70_000]);
        lengths
            .map(|length| held(&format!(r#"{{"é":"{}"}}"#, "x".repeat(length))))
            .collect()
    }

    fn batch() -> Batch {
        let bounds = BatchBounds {
            records: 500,
            bytes: usize::MAX,
            aggregate_bytes: None,
        };
        let mut batch = Batch::new(bounds, 0);
        records().into_iter().for_each(|held| batch.push(held));
        batch
    }

    #[test]
    fn the_memory_of_a_request_is_used_again_for_one_of_its_size() {
        let spares = SpareBodies::default();
        let place = |body: &Vec<u8>| body.as_ptr().addr();
        let send = |mut bytes: Vec<u8>| {
            bytes.extend_from_slice(b"a record");
            let (alive, mut gone) = oneshot::channel();
            let body = Bytes::from_owner(Body {
                bytes,
                spares: spares.clone(),
                _alive: alive,
            });
            let (head, tail) = (body.slice(..1), body.slice(1..));
            drop((body, head));
            assert!(gone.try_recv() == Err(TryRecvError::Empty));
            drop(tail);
            assert!(gone.try_recv() == Err(TryRecvError::Closed));
        };
        let first = spares.take(1000);
        let at = place(&first);
        send(first);
        let second = spares.take(1010);
        assert!(second.is_empty() && place(&second) == at);
        send(second);
        assert!(spares.take(400).capacity() < 800, "not much too large");
    }

    #[test]
    fn little_memory_is_kept_for_requests_to_come() {
        let spares = SpareBodies::default();
        let kept = || {
            let spare = spares.spare.lock().unwrap();
            let bytes: usize = spare.bodies.iter().map(Vec::capacity).sum();
            assert_eq!(spare.bytes, bytes);
            bytes
        };
        spares.give_back(Vec::with_capacity(SPARE_BODIES_BYTES_MAX + 1));
        assert_eq!(kept(), 0);
        (0..100).for_each(|_| spares.give_back(Vec::with_capacity(200_000)));
        let full = kept();
        assert!((800_000..=SPARE_BODIES_BYTES_MAX).contains(&full));
        drop(spares.take(200_000));
        assert_eq!(kept(), full - 200_000);
    }

    #[test]
    fn a_request_in_json_is_what_the_service_documents() {
        let batch = batch();
        let body = json_request("a_stream", &batch, &SpareBodies::default()).unwrap();
        let request: Value = serde_json::from_slice(&body).unwrap();
        let entries: Vec<_> = batch
            .records
            .iter()
            .map(|held| {
                json!({
                    "Data": BASE64.encode_to_string(held.record.bytes()),
                    "PartitionKey": held.record.partition_key(),
                })
            })
            .collect();
        let expected = json!({"StreamName": "a_stream", "Records": entries});
        assert_eq!(request, expected);
        assert!(
            body.capacity() < body.len() * 17 / 16 + 500,
            "room is made once"
        );
    }

    #[test]
    fn a_request_in_cbor_is_the_same() {
        use ciborium::Value;
        let text = |text: &str| Value::Text(text.to_owned());
        let batch = batch();
        let body = cbor_request("a_stream", &batch, &SpareBodies::default());
        let entry = |held: &Held| {
            let data = Value::Bytes(held.record.bytes().to_vec());
            let key = text(held.record.partition_key());
            Value::Map(vec![(text("Data"), data), (text("PartitionKey"), key)])
        };
        let expected = Value::Map(vec![
            (text("StreamName"), text("a_stream")),
            (
                text("Records"),
                Value::Array(batch.records.iter().map(entry).collect()),
            ),
        ]);
        let request: Value = ciborium::from_reader(body.as_slice()).unwrap();
        assert_eq!(request, expected);
    }
}
