//! PutRecords as CBOR, the encoding that the AWS SDK for Java speaks to Kinesis: a quarter fewer bytes to
//! hash and to send than JSON, which carries the data as base64.
//!
//! The wire is that of AWS's JSON protocol with another content type: `POST /`, and the operation in
//! `X-Amz-Target`. Used for PutRecords alone: answers with timestamps are encoded differently by
//! different servers.

use aws_smithy_cbor::codec::{CborCodec, CborCodecSettings};
use aws_smithy_cbor::protocol::RpcV2CborProtocol;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::http::{Request, Response};
use aws_smithy_schema::codec::DynCodec;
use aws_smithy_schema::http_protocol::HttpRpcProtocol;
use aws_smithy_schema::protocol::{ClientProtocolInner, ServiceShapeName};
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeDeserializer};
use aws_smithy_schema::{Schema, ShapeId, shape_id};
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::error::metadata::Builder as ErrorMetadataBuilder;

/// The content type that Kinesis answers in CBOR to.
pub const CONTENT_TYPE: &str = "application/x-amz-cbor-1.1";

/// The protocol, for the SDK's `Config::builder().protocol(..)`.
#[derive(Debug)]
pub struct KinesisCbor {
    wire: HttpRpcProtocol<CborCodec>,
    /// Knows where the code and the message of an error are: they are where Smithy's own CBOR protocol
    /// has them.
    errors: RpcV2CborProtocol,
}

impl Default for KinesisCbor {
    fn default() -> Self {
        Self {
            wire: HttpRpcProtocol::new(
                shape_id!("com.amazonaws.kinesis", "awsCbor1_1"),
                CborCodec::new(CborCodecSettings::default()),
                CONTENT_TYPE,
            ),
            errors: RpcV2CborProtocol::new(),
        }
    }
}

impl ClientProtocolInner for KinesisCbor {
    type Request = Request;
    type Response = Response;

    fn protocol_id(&self) -> &ShapeId<'static> {
        self.wire.protocol_id()
    }

    fn serialize_request(
        &self,
        input: &dyn SerializableStruct,
        input_schema: &Schema<'_>,
        _endpoint: &str,
        cfg: &ConfigBag,
    ) -> Result<Request, SerdeError> {
        let missing = |what: &str| SerdeError::custom(format!("the SDK does not tell the {what}"));
        let service = cfg
            .load::<ServiceShapeName>()
            .ok_or_else(|| missing("service"))?;
        let operation = cfg.load::<Metadata>().ok_or_else(|| missing("operation"))?;
        let target = format!("{}.{}", service.as_str(), operation.name());
        let mut request = self.wire.serialize_request(input, input_schema, "/", cfg)?;
        request.headers_mut().insert("X-Amz-Target", target);
        Ok(request)
    }

    fn deserialize_response<'a>(
        &self,
        response: &'a Response,
        output_schema: &Schema<'_>,
        cfg: &'a ConfigBag,
    ) -> Result<Box<dyn ShapeDeserializer + 'a>, SerdeError> {
        self.wire.deserialize_response(response, output_schema, cfg)
    }

    fn parse_error_metadata(
        &self,
        response: &Response,
        cfg: &ConfigBag,
    ) -> Result<ErrorMetadataBuilder, SerdeError> {
        self.errors.parse_error_metadata(response, cfg)
    }

    fn payload_codec(&self) -> Option<&dyn DynCodec> {
        self.wire.payload_codec()
    }

    fn update_endpoint(
        &self,
        request: &mut Request,
        endpoint: &Endpoint,
        cfg: &ConfigBag,
    ) -> Result<(), SerdeError> {
        self.wire.update_endpoint(request, endpoint, cfg)
    }
}
