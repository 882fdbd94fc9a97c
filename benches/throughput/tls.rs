//! The same endpoint behind TLS, in the version of HTTP that is to be measured.
//!
//! Both versions have the same server, so that what differs is the connector: over HTTP/1.1 it has a connection for each
//! request in flight, over HTTP/2 all requests share one.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::Result;
use crate::counter::Counter;
use crate::endpoint::{Answer, Delay, Tally, other};

/// The name in the certificate.
pub(crate) const HOST: &str = "localhost";

/// How much may be on its way over HTTP/2, in one stream and in one connection. A server need not allow more
/// ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113#name-settings_initial_window_siz)), and what AWS allows is not known.
const WINDOW_BYTES: u32 = 65_535;

/// The version that a client may speak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl Version {
    /// As it is called in TLS.
    pub(crate) fn alpn(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

#[derive(Clone)]
struct Server {
    delay: Delay,
    tally: Arc<Tally>,
}

/// Serves until the process ends. Writes the certificate to a file, for clients to trust, and prints the port.
pub(crate) fn serve(delay: Delay, tally: Arc<Tally>, alpn: &str, certificate: &Path) -> Result<()> {
    let issued = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    fs::write(certificate, issued.cert.pem())?;
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key.into())?;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        let server = Server { delay, tally };
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                let service = axum::Router::new().fallback(answer).with_state(server);
                let mut builder = Builder::new(TokioExecutor::new());
                builder
                    .http2()
                    .initial_stream_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(WINDOW_BYTES);
                // A connection that breaks is for the client to notice.
                builder
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
                    .await
            });
        }
    })
}

async fn answer(State(server): State<Server>, request: Request) -> Response<Body> {
    let target = header(&request, "x-amz-target");
    let operation = target.rsplit('.').next().unwrap_or("");
    let is_cbor = header(&request, "content-type").contains("cbor");
    let mut body = request.into_body();
    if operation != "PutRecords" {
        let _ = body.collect().await;
        return other(operation).into_response();
    }
    server.tally.begin();
    let mut counter = Counter::of("PartitionKey");
    let (mut records, mut bytes) = (0, 0);
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(piece) = frame.into_data() {
            records += counter.count(&piece);
            bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        }
    }
    server.tally.add(records, bytes, is_cbor);
    let delay = server.delay.of(bytes);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let answer = Answer::body(records, is_cbor);
    ([("content-type", Answer::content_type(is_cbor))], answer).into_response()
}

fn header(request: &Request, name: &str) -> String {
    let value = request.headers().get(name);
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or("").to_owned()
}
