//! What went wrong with a call to Kinesis, and what may be done about it.

use std::error::Error as _;
use std::iter::successors;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::RequestId;

use crate::error::Error;
use crate::limits::SERVER_MESSAGE_CHARS_MAX;

/// What the code of an answer begins with that cannot be read.
const UNREADABLE: &str = "unreadable answer";

/// What rustls says of a certificate that it does not accept, before the reason. Its error cannot be had as
/// a type: the HTTP stack wraps it in an `io::Error`, whose source leaves it out.
const UNTRUSTED: &str = "invalid peer certificate";

/// The kinds of faults, by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Too fast: wait, for as long as there is any progress.
    Throttled,
    /// It may work the next time: network, time-outs, faults of the service.
    Transient,
    /// Something in the request is not acceptable: a part of it may be.
    Rejected,
    /// The stream does not exist.
    NotFound,
    /// The stream exists, or is being changed.
    InUse,
    /// The credentials have expired: new ones may help, where there are any.
    Expired,
    /// The credentials are wrong or missing.
    Credentials,
    /// The credentials are right, and not allowed to do this.
    Denied,
    /// The key that encrypts the stream cannot be used.
    Kms,
    /// The server's certificate is not to be trusted.
    Untrusted,
    /// An answer for which there is no rule.
    Unexpected,
}

/// One failed call. Holds no content of a record.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What helps.
    pub kind: FaultKind,
    /// The error code, or a short name of what happened where there is none.
    pub code: String,
    /// Code, message and request id, for a maintainer.
    pub detail: String,
    /// Whether the service may have done what it was asked although the answer was lost.
    pub may_be_done: bool,
    /// Whether what would help cannot be had here.
    pub is_final: bool,
}

impl Fault {
    /// Reads an error of the SDK.
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let code = service.err().code();
                Self {
                    kind: code
                        .map_or_else(|| kind_of_status(status), |code| kind_of_code(code, status)),
                    code: code.map_or_else(|| format!("HTTP {status}"), ToOwned::to_owned),
                    detail: format!(
                        "{} (HTTP {status}): {}; request id {}",
                        code.unwrap_or("no error code"),
                        quotable(service.err().message().unwrap_or("no message")),
                        error.request_id().unwrap_or("unknown")
                    ),
                    may_be_done: status >= 500,
                    is_final: false,
                }
            }
            SdkError::ResponseError(response) => {
                let status = response.raw().status().as_u16();
                Self {
                    // An answer that cannot be read says nothing of what was done. Nor does a page of
                    // a proxy, unless its status tells.
                    kind: if (200..300).contains(&status) {
                        FaultKind::Transient
                    } else {
                        kind_of_status(status)
                    },
                    code: format!("{UNREADABLE}, HTTP {status}"),
                    detail: format!(
                        "unreadable answer (HTTP {status}); request id {}",
                        error.request_id().unwrap_or("unknown")
                    ),
                    may_be_done: true,
                    is_final: false,
                }
            }
            SdkError::TimeoutError(_) => Self::local(
                FaultKind::Transient,
                "timeout",
                "no answer in time".to_owned(),
                true,
            ),
            SdkError::DispatchFailure(_) => Self::of_dispatch(error),
            // The request was never sent: no credentials, no region, or an endpoint that makes no URL.
            SdkError::ConstructionFailure(_) => Self::local(
                FaultKind::Credentials,
                "request not built",
                chain(error),
                false,
            ),
            _ => Self::local(
                FaultKind::Unexpected,
                "unknown error of the SDK",
                chain(error),
                true,
            ),
        }
    }

    /// No answer came: the connection, or the credentials before it, failed.
    fn of_dispatch<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let sources = || {
            successors(
                error.source(),
                |error: &&(dyn std::error::Error + 'static)| (**error).source(),
            )
        };
        let credentials = sources().find_map(|source| source.downcast_ref::<CredentialsError>());
        let (kind, code) = match credentials {
            Some(
                CredentialsError::CredentialsNotLoaded(_)
                | CredentialsError::InvalidConfiguration(_),
            ) => (FaultKind::Credentials, "no credentials found".to_owned()),
            // A provider that has worked before may work again.
            Some(_) => (
                FaultKind::Expired,
                "no credentials could be loaded".to_owned(),
            ),
            None => {
                let root = sources()
                    .last()
                    .map_or_else(String::new, |root| quotable(&root.to_string()));
                let kind = if root.contains(UNTRUSTED) {
                    FaultKind::Untrusted
                } else {
                    // Whatever the SDK calls it: requests that wait when an HTTP/2 connection ends are counted as a mistake
                    // of ours there.
                    FaultKind::Transient
                };
                (kind, format!("connection failed: {root}"))
            }
        };
        Self {
            kind,
            code,
            detail: chain(error),
            may_be_done: credentials.is_none() && kind != FaultKind::Untrusted,
            is_final: false,
        }
    }

    /// The fault that the error code of one refused record stands for.
    pub fn of_record(code: &str, message: Option<&str>) -> Self {
        let kind = match kind_of_code(code, 400) {
            // Codes that the documentation does not know yet: the record alone is tried again.
            FaultKind::Unexpected => FaultKind::Transient,
            kind @ (FaultKind::Throttled
            | FaultKind::Transient
            | FaultKind::Rejected
            | FaultKind::NotFound
            | FaultKind::InUse
            | FaultKind::Expired
            | FaultKind::Credentials
            | FaultKind::Denied
            | FaultKind::Kms
            | FaultKind::Untrusted) => kind,
        };
        Self {
            kind,
            code: code.to_owned(),
            detail: format!("{code}: {}", quotable(message.unwrap_or("no message"))),
            may_be_done: false,
            is_final: false,
        }
    }

    /// A fault that this side found.
    pub fn local(kind: FaultKind, code: &str, detail: String, may_be_done: bool) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            detail,
            may_be_done,
            is_final: false,
        }
    }

    /// Whether the same call may work later.
    pub fn is_retryable(&self) -> bool {
        if self.is_final {
            return false;
        }
        match self.kind {
            FaultKind::Throttled | FaultKind::Transient | FaultKind::Expired => true,
            FaultKind::Rejected
            | FaultKind::NotFound
            | FaultKind::InUse
            | FaultKind::Credentials
            | FaultKind::Denied
            | FaultKind::Kms
            | FaultKind::Untrusted
            | FaultKind::Unexpected => false,
        }
    }

    /// Whether it may mean that the server does not know the encoding of the request.
    pub fn may_be_the_format(&self) -> bool {
        matches!(self.kind, FaultKind::Rejected | FaultKind::Unexpected)
            || self.code.starts_with(UNREADABLE)
    }

    /// The error of giving up: what could not be done (`"write to the stream \"a\""`), and with which
    /// permission it can.
    pub fn into_error(self, what: &str, permission: &str) -> Error {
        let code = &self.code;
        let error = match self.kind {
            FaultKind::Throttled => Error::transient(format!(
                "Could not {what}: AWS answers that the limit is reached ({code}), and kept doing so. Give the stream more \
                 shards or on-demand mode, or run fewer syncs at a time."
            )),
            FaultKind::Transient => Error::transient(format!(
                "Could not {what}: Kinesis does not answer as it should ({code}). Check that \"endpoint\" has the right \
                 scheme, host and port (or is blank, for AWS's own), that \"region\" is right, and that the network is up."
            )),
            FaultKind::Rejected => Error::system(format!(
                "Could not {what}: Kinesis does not accept the request ({code}). The internal message says why."
            )),
            FaultKind::NotFound => Error::config(format!(
                "Could not {what}: the stream does not exist ({code}). If it was deleted, run the sync again and it will be \
                 created; check that the region and the endpoint are the ones you mean."
            )),
            FaultKind::InUse => Error::transient(format!(
                "Could not {what}: the stream is being changed ({code}). Try again when that is done."
            )),
            FaultKind::Expired => Error::config(format!(
                "Could not {what}: the AWS credentials have expired, or cannot be had ({code}). Enter new ones in \"accessKey\" and \
                 \"privateKey\", or renew those of the environment."
            )),
            FaultKind::Credentials => Error::config(format!(
                "Could not {what}: AWS does not take the credentials ({code}). Check \"accessKey\" and \"privateKey\" and \
                 that they belong to the account and the region you mean; leave both empty to use the credentials of the \
                 environment."
            )),
            FaultKind::Denied => Error::config(format!(
                "Could not {what}: access denied ({code}). Allow {permission} for this stream in the IAM policy of the \
                 credentials."
            )),
            FaultKind::Kms => Error::config(format!(
                "Could not {what}: the KMS key that encrypts the stream cannot be used ({code}). Enable the key, and allow \
                 kms:GenerateDataKey on it for the credentials."
            )),
            FaultKind::Untrusted => Error::config(format!(
                "Could not {what}: the certificate of the endpoint is not trusted ({code}). If a certificate authority of \
                 your own has signed it, or a proxy that looks into TLS, let AWS_CA_BUNDLE where the connector runs name a \
                 file with that authority's certificate in PEM format; check that \"endpoint\" has the host name that the \
                 certificate is for, and that the certificate has not expired."
            )),
            FaultKind::Unexpected => Error::system(format!(
                "Could not {what}: Kinesis gave an answer that this destination does not know ({code}). Check that \
                 \"endpoint\" leads to Kinesis; the internal message has the details."
            )),
        };
        error.with_internal(self.detail)
    }
}

/// The codes that Kinesis and the front of AWS answer with
/// ([PutRecords](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html#API_PutRecords_Errors),
/// [common errors](https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html)).
fn kind_of_code(code: &str, status: u16) -> FaultKind {
    match code {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "KMSThrottlingException"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "SlowDown" => FaultKind::Throttled,
        "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "RequestExpired" => FaultKind::Transient,
        "ValidationException"
        | "ValidationError"
        | "InvalidArgumentException"
        | "SerializationException"
        | "RequestEntityTooLarge"
        | "RequestEntityTooLargeException" => FaultKind::Rejected,
        "ResourceNotFoundException" => FaultKind::NotFound,
        "ResourceInUseException" => FaultKind::InUse,
        "ExpiredToken" | "ExpiredTokenException" => FaultKind::Expired,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidAccessKeyId"
        | "RequestTimeTooSkewed" => FaultKind::Credentials,
        "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "UnauthorizedOperation"
        | "OptInRequired" => FaultKind::Denied,
        "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => FaultKind::Kms,
        _ if status >= 500 => FaultKind::Transient,
        _ => FaultKind::Unexpected,
    }
}

/// What the HTTP status says where there is no error code: the answer of a proxy or a load balancer.
fn kind_of_status(status: u16) -> FaultKind {
    match status {
        401 | 403 => FaultKind::Denied,
        408 | 425 => FaultKind::Transient,
        413 => FaultKind::Rejected,
        429 => FaultKind::Throttled,
        500.. => FaultKind::Transient,
        _ => FaultKind::Unexpected,
    }
}

fn chain<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let mut text = DisplayErrorContext(error).to_string();
    // The alternate form ends with a `Debug` of the whole error: of no use here, and a risk.
    if let Some(end) = text.rfind(" (") {
        text.truncate(end);
    }
    quotable(&text)
}

/// A message of a server, cut to a bound, without what it quotes: validation messages quote the values
/// of the request. What is quoted may hold quotes itself, as the JSON of a record does, so all between
/// the first and the last quote or brace is left out.
fn quotable(message: &str) -> String {
    const QUOTES: [char; 5] = ['\'', '"', '`', '{', '}'];
    let Some((before, quoted)) = message.split_once(QUOTES) else {
        return message.chars().take(SERVER_MESSAGE_CHARS_MAX).collect();
    };
    let after = quoted.rsplit_once(QUOTES).map_or("", |(_, after)| after);
    let out = format!("{before}'…'{after}");
    out.chars().take(SERVER_MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_of_a_message_are_left_out() {
        assert_eq!(
            quotable(
                "1 validation error detected: Value 'canary' at 'records.1.member.partitionKey' failed"
            ),
            "1 validation error detected: Value '…' failed"
        );
        assert_eq!(
            quotable(r#"Value '{"a":"canary"}' is bad, {"b":["canary"]} too"#),
            "Value '…' too"
        );
        assert_eq!(quotable(r#"not JSON: {"a":"canary"}"#), "not JSON: '…'");
        assert_eq!(
            quotable("an open quote 'canary canary"),
            "an open quote '…'"
        );
        assert_eq!(quotable(&"x".repeat(9999)).len(), SERVER_MESSAGE_CHARS_MAX);
    }

    #[test]
    fn each_documented_code_has_its_kind() {
        for (code, kind) in [
            (
                "ProvisionedThroughputExceededException",
                FaultKind::Throttled,
            ),
            ("KMSThrottlingException", FaultKind::Throttled),
            ("InternalFailure", FaultKind::Transient),
            ("ValidationException", FaultKind::Rejected),
            ("ExpiredTokenException", FaultKind::Expired),
            ("UnrecognizedClientException", FaultKind::Credentials),
            ("AccessDeniedException", FaultKind::Denied),
            ("KMSOptInRequired", FaultKind::Kms),
            ("SomethingNew", FaultKind::Unexpected),
        ] {
            assert_eq!(kind_of_code(code, 400), kind, "{code}");
        }
        assert_eq!(kind_of_code("SomethingNew", 503), FaultKind::Transient);
    }

    #[test]
    fn a_record_refused_with_an_unknown_code_is_tried_again() {
        assert!(Fault::of_record("SomethingNew", None).is_retryable());
        assert!(Fault::of_record("InternalFailure", Some("x")).is_retryable());
        assert!(!Fault::of_record("KMSDisabledException", None).is_retryable());
    }
}
