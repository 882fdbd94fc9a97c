//! TLS in front of a server, with a certificate that only its own authority vouches for.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HOST as HOST_HEADER;
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderValue, Response, StatusCode, Uri, Version};
use axum::response::IntoResponse;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::server::TlsStream;

use super::gate::Gate;

/// The host that the certificate is for.
const HOST: &str = "localhost";

/// What a client may send over HTTP/2 before its request is read: as much as every server has to allow
/// ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2)).
const WINDOW_BYTES: u32 = 65_535;

/// It takes TLS connections, and hands on what comes out of them. Dropping it ends it.
pub(crate) struct Tls {
    address: SocketAddr,
    authority: PathBuf,
    connections: Connections,
    gate: SharedGate,
    accepting: JoinHandle<()>,
    /// Removed at the end.
    _dir: TempDir,
}

/// Where requests wait before they are read, if anywhere.
type SharedGate = Arc<Mutex<Option<Gate>>>;

/// What became of the connections that came out of TLS. Clones share it.
#[derive(Clone)]
pub(crate) struct Connections(watch::Sender<Numbers>);

#[derive(Clone, Copy, Default)]
struct Numbers {
    opened: usize,
    /// How many times all that were open were broken.
    breaks: usize,
    /// How many times all that were open were forgotten.
    forgotten: usize,
}

impl Connections {
    /// How many there were.
    pub(crate) fn opened(&self) -> usize {
        self.0.borrow().opened
    }

    /// Ends all that are open, with whatever is on its way in them.
    pub(crate) fn break_all(&self) {
        self.0.send_modify(|numbers| numbers.breaks += 1);
    }

    /// From now on, nothing is read from those that are open and nothing is written, and nobody is told.
    pub(crate) fn forget_all(&self) {
        self.0.send_modify(|numbers| numbers.forgotten += 1);
    }

    /// Counts one, and lets it live until it ends or is broken.
    async fn live(&self, connection: impl Future) {
        let mut numbers = self.0.subscribe();
        self.0.send_modify(|numbers| numbers.opened += 1);
        let Numbers {
            breaks, forgotten, ..
        } = *numbers.borrow();
        let mut connection = pin!(connection);
        let change = numbers.wait_for(|now| now.breaks > breaks || now.forgotten > forgotten);
        let is_forgotten = tokio::select! {
            _ = &mut connection => return,
            now = change => now.is_ok_and(|now| now.forgotten > forgotten),
        };
        if is_forgotten {
            // It stays open.
            std::future::pending::<()>().await;
        }
    }
}

impl Tls {
    /// In front of the server with this endpoint.
    pub(crate) async fn before(endpoint: &str) -> Self {
        let server = address_of(endpoint);
        Self::start(&[], move |stream| tunnel(stream, server)).await
    }

    /// In front of the server with this endpoint, for clients that speak HTTP/2. The server is spoken to in HTTP/1.1.
    pub(crate) async fn http2_before(endpoint: &str) -> Self {
        Self::http2(endpoint, None).await
    }

    /// The same, with one request at a time on each connection: others wait in the client.
    pub(crate) async fn http2_one_at_a_time_before(endpoint: &str) -> Self {
        Self::http2(endpoint, Some(1)).await
    }

    async fn http2(endpoint: &str, requests_max: Option<u32>) -> Self {
        let gate = SharedGate::default();
        let service = axum::Router::new()
            .fallback(hand_on)
            .with_state(Behind::at(address_of(endpoint), gate.clone()));
        let serve = move |stream| {
            let service = TowerToHyperService::new(service.clone());
            async move {
                let mut connection = Builder::new(TokioExecutor::new());
                connection
                    .http2()
                    .max_concurrent_streams(requests_max)
                    .initial_stream_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(WINDOW_BYTES);
                // A client goes away when it likes.
                let _ = connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        };
        let mut tls = Self::start(&["h2"], serve).await;
        tls.gate = gate;
        tls
    }

    /// From now on, requests over HTTP/2 wait at the gate before they are read.
    pub(crate) fn hold(&self, gate: &Gate) {
        *self.gate.lock().expect("nothing panics with it") = Some(gate.clone());
    }

    async fn start<F>(
        protocols: &[&str],
        serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (authority_pem, mut config) = certify();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let dir = TempDir::new().expect("a temporary directory");
        let authority = dir.path().join("authority.pem");
        std::fs::write(&authority, authority_pem).expect("a file in a temporary directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Connections(watch::Sender::default());
        let tls = TlsAcceptor::from(Arc::new(config));
        Self {
            address,
            authority,
            connections: connections.clone(),
            gate: SharedGate::default(),
            accepting: tokio::spawn(accept(listener, tls, connections, serve)),
            _dir: dir,
        }
    }

    /// What became of the connections whose client liked the certificate.
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Where it listens, under the name that its certificate has.
    pub(crate) fn endpoint(&self) -> String {
        format!("https://{HOST}:{}", self.address.port())
    }

    /// The same place under a name that its certificate does not have.
    pub(crate) fn misnamed_endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The file with the authority's certificate.
    pub(crate) fn authority(&self) -> &str {
        self.authority.to_str().expect("a plain name")
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An authority's certificate, and a server with one that it has signed.
fn certify() -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
        .expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new([HOST.to_owned()])
        .and_then(|params| params.signed_by(&key, &authority))
        .expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring has")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("a certificate with its key");
    (authority.pem(), config)
}

fn address_of(endpoint: &str) -> SocketAddr {
    let address = endpoint.strip_prefix("http://").expect("plain HTTP");
    address.parse().expect("an address")
}

async fn accept<F>(
    listener: TcpListener,
    tls: TlsAcceptor,
    connections: Connections,
    serve: impl Fn(TlsStream<TcpStream>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut serving = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (tls, connections) = (tls.clone(), connections.clone());
        let serve = serve.clone();
        serving.spawn(async move {
            // A client that does not like the certificate goes away.
            if let Ok(stream) = tls.accept(stream).await {
                connections.live(serve(stream)).await;
            }
        });
    }
}

/// Hands on every byte.
async fn tunnel(mut stream: TlsStream<TcpStream>, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        let _ = copy_bidirectional(&mut stream, &mut server).await;
    }
}

/// The server behind, and connections to it.
#[derive(Clone)]
struct Behind {
    client: Client<HttpConnector, Body>,
    server: Authority,
    gate: SharedGate,
}

impl Behind {
    fn at(server: SocketAddr, gate: SharedGate) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            server: server.to_string().parse().expect("an address"),
            gate,
        }
    }
}

/// Hands on a request, with the host it was meant for: that is signed.
async fn hand_on(State(behind): State<Behind>, mut request: Request) -> Response<Body> {
    assert_eq!(request.version(), Version::HTTP_2);
    let gate = behind.gate.lock().expect("nothing panics with it").clone();
    if let Some(gate) = gate {
        gate.pass().await;
    }
    let mut to = std::mem::take(request.uri_mut()).into_parts();
    let host = to.authority.replace(behind.server).expect("HTTP/2 has it");
    to.scheme = Some(Scheme::HTTP);
    *request.uri_mut() = Uri::from_parts(to).expect("the same, elsewhere");
    *request.version_mut() = Version::HTTP_11;
    let host = HeaderValue::from_str(host.as_str()).expect("a name and a port");
    request.headers_mut().insert(HOST_HEADER, host);
    match behind.client.request(request).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
