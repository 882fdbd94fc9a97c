//! TLS in front of a server, with a certificate that only its own authority vouches for.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// The host that the certificate is for.
const HOST: &str = "localhost";

/// It takes TLS connections, and hands on what comes out of them. Dropping it ends it.
pub(crate) struct Tls {
    address: SocketAddr,
    authority: PathBuf,
    accepting: JoinHandle<()>,
    /// Removed at the end.
    _dir: TempDir,
}

impl Tls {
    /// In front of the server with this endpoint.
    pub(crate) async fn before(endpoint: &str) -> Self {
        let server = endpoint.strip_prefix("http://").expect("plain HTTP");
        let server: SocketAddr = server.parse().expect("an address");
        let (authority_pem, config) = certify();
        let dir = TempDir::new().expect("a temporary directory");
        let authority = dir.path().join("authority.pem");
        std::fs::write(&authority, authority_pem).expect("a file in a temporary directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(config), server));
        Self {
            address,
            authority,
            accepting,
            _dir: dir,
        }
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
fn certify() -> (String, Arc<ServerConfig>) {
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
    (authority.pem(), Arc::new(config))
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, server: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let tls = tls.clone();
        connections.spawn(async move {
            // A client that does not like the certificate goes away, as does any client in the end.
            if let Ok(mut stream) = tls.accept(stream).await
                && let Ok(mut server) = TcpStream::connect(server).await
            {
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            }
        });
    }
}
