//! SDK clients, one for each distinct set of connection settings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use std::{env, fs};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{
    Credentials, IdentityCache, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::{BaseCredentials, ConnectionSettings, Role};
use crate::error::Error;
use crate::fault::{Fault, FaultKind};
use crate::limits::{
    ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, CONNECTION_IDLE_MAX, TLS_CLIENTS, UNSENT_BYTES_MAX,
};
use crate::wire::SpareBodies;

/// What a role's sessions are called in CloudTrail.
const ROLE_SESSION_NAME: &str = "airbyte-destination-kinesis";

/// Names a file with certificate authorities to trust besides the system's, as for AWS's own tools.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// Credentials are fetched anew at most this often, however many requests find them expired.
const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// Lends clients out. Equal connection settings share one client, with its connections and its cached
/// credentials; the last user who gives it back closes it.
#[derive(Debug, Default)]
pub struct KinesisClientPool {
    clients: HashMap<ConnectionSettings, Weak<Shared>>,
}

/// A client on loan. Dropping it gives it back.
#[derive(Clone, Debug)]
pub struct ClientLease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: RwLock<Renewed>,
    http_clients: HttpClients,
    spare_bodies: SpareBodies,
    /// One permit for each byte of [`UNSENT_BYTES_MAX`].
    unsent: Semaphore,
    credentials_are_renewable: bool,
}

/// The HTTP clients of PutRecords calls.
#[derive(Debug)]
struct HttpClients {
    tls: TlsContext,
    current: RwLock<Generation>,
    next: AtomicUsize,
}

/// HTTP clients that were made together, which calls take in turn. Never empty.
#[derive(Debug)]
struct Generation {
    number: usize,
    clients: Vec<SharedHttpClient>,
}

/// An HTTP client for one call.
pub struct HttpClientTurn {
    /// The client.
    pub client: SharedHttpClient,
    generation: usize,
}

impl HttpClients {
    fn new(tls: TlsContext, count: usize) -> Self {
        let clients = (0..count).map(|_| http_client(&tls)).collect();
        Self {
            current: RwLock::new(Generation { number: 0, clients }),
            next: AtomicUsize::new(0),
            tls,
        }
    }

    fn take_turn(&self) -> HttpClientTurn {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        HttpClientTurn {
            client: current.clients[turn % current.clients.len()].clone(),
            generation: current.number,
        }
    }

    /// Makes new ones in the place of these. Calls in flight keep theirs.
    fn replace(&self, generation: usize) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == generation {
            current.number += 1;
            for client in &mut current.clients {
                *client = http_client(&self.tls);
            }
        }
    }
}

/// The client with the credentials that were fetched last.
#[derive(Debug)]
struct Renewed {
    client: Client,
    at: Option<Instant>,
}

impl ClientLease {
    /// The SDK's client. To be asked for with each call: see [`ClientLease::judge`].
    pub fn sdk(&self) -> Client {
        let current = self
            .shared
            .client
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        current.client.clone()
    }

    /// The HTTP client whose turn it is, for a PutRecords call.
    ///
    /// Over TLS, a server may choose HTTP/2. Then all calls of one HTTP client share one connection, and with it one
    /// flow-control window: as little as 64 KiB for each round trip. The SDK has no switch for HTTP/1.1.
    pub fn http_client(&self) -> HttpClientTurn {
        self.shared.http_clients.take_turn()
    }

    /// Takes note that a call got no answer in time: the next ones get new connections. Where a firewall has forgotten a
    /// connection, nobody says so, and an HTTP/2 connection that each call tries again would be used for as long as the
    /// system believes in it: a quarter of an hour.
    pub fn timed_out(&self, turn: &HttpClientTurn) {
        self.shared.http_clients.replace(turn.generation);
    }

    /// The memory of this client's requests.
    pub(crate) fn spare_bodies(&self) -> &SpareBodies {
        &self.shared.spare_bodies
    }

    /// Waits until a request with so many bytes of records may be made, in the order of asking. The permit is for the time
    /// until it is sent, or given up.
    pub(crate) async fn room_to_send(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let permits = bytes.min(UNSENT_BYTES_MAX);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        // It is never closed.
        self.shared.unsent.acquire_many(permits).await.ok()
    }

    /// Judges a fault by where the credentials come from: where they can be had anew, the next call
    /// fetches them, and where they cannot, there is nothing to wait for.
    pub fn judge(&self, mut fault: Fault) -> Fault {
        if fault.kind == FaultKind::Expired {
            if self.shared.credentials_are_renewable {
                self.renew();
            } else {
                fault.is_final = true;
            }
        }
        fault
    }

    /// Forgets the cached credentials. The service may refuse them before they say that they expire.
    fn renew(&self) {
        let mut current = self
            .shared
            .client
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if current.at.is_some_and(|at| at.elapsed() < RENEW_PAUSE) {
            return;
        }
        let config = current.client.config().to_builder();
        let config = config.identity_cache(IdentityCache::lazy().build()).build();
        *current = Renewed {
            client: Client::from_conf(config),
            at: Some(Instant::now()),
        };
    }
}

impl KinesisClientPool {
    /// A pool without clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lends the client for these settings, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// A config error when no region is set anywhere. Nothing is sent: whether the credentials are good
    /// shows with the first call.
    pub async fn lend(&mut self, settings: &ConnectionSettings) -> Result<ClientLease, Error> {
        self.clients.retain(|_, client| client.strong_count() > 0);
        if let Some(shared) = self.clients.get(settings).and_then(Weak::upgrade) {
            return Ok(ClientLease { shared });
        }
        let over_tls = settings
            .endpoint()
            .is_none_or(|endpoint| endpoint.starts_with("https:"));
        let count = if over_tls { TLS_CLIENTS } else { 1 };
        let tls = TlsContext::builder()
            .with_trust_store(trust_store()?)
            .build()
            .map_err(|error| {
                Error::system("TLS cannot be set up.").with_internal(error.to_string())
            })?;
        let http_clients = HttpClients::new(tls, count);
        let shared = Arc::new(Shared {
            client: RwLock::new(Renewed {
                client: connect(settings, &http_clients.take_turn().client).await?,
                at: None,
            }),
            http_clients,
            spare_bodies: SpareBodies::default(),
            unsent: Semaphore::new(UNSENT_BYTES_MAX),
            credentials_are_renewable: settings.credentials().is_renewable(),
        });
        self.clients
            .insert(settings.clone(), Arc::downgrade(&shared));
        Ok(ClientLease { shared })
    }

    /// How many clients are on loan.
    pub fn open_clients(&self) -> usize {
        self.clients
            .values()
            .filter(|client| client.strong_count() > 0)
            .count()
    }
}

async fn connect(
    settings: &ConnectionSettings,
    http_client: &SharedHttpClient,
) -> Result<Client, Error> {
    // The endpoint is not given to the loader: it is for Kinesis, and must not reach the services that
    // credentials come from.
    let mut loader: ConfigLoader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http_client.clone());
    if let Some(region) = settings.region() {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let BaseCredentials::Static {
        access_key_id,
        secret_access_key,
        session_token,
    } = settings.credentials().base()
    {
        loader = loader.credentials_provider(Credentials::new(
            access_key_id.expose(),
            secret_access_key.expose(),
            session_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
            None,
            "configuration",
        ));
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(Error::config(
            "No AWS region is set. Enter it in \"region\" (for example us-east-1), or set AWS_REGION where the connector \
             runs.",
        ));
    }
    let mut config = aws_sdk_kinesis::config::Builder::from(&shared)
        // Retries are ours: the SDK's cannot see records refused inside an answer, and stop in a storm.
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .build(),
        )
        // The attempt timeout covers it, without false alarms on slow links.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(role) = settings.credentials().role() {
        config = config.credentials_provider(assume(role, &shared).await);
    }
    if let Some(endpoint) = settings.endpoint() {
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}

/// Works as the role. The SDK assumes it anew before a session ends, for as long as a sync takes.
async fn assume(role: &Role, shared: &SdkConfig) -> AssumeRoleProvider {
    let mut provider = AssumeRoleProvider::builder(&role.arn)
        .session_name(ROLE_SESSION_NAME)
        .configure(shared);
    if let Some(external_id) = &role.external_id {
        provider = provider.external_id(external_id);
    }
    match shared.credentials_provider() {
        Some(base) => provider.build_from_provider(base).await,
        None => provider.build().await,
    }
}

/// An HTTP client with connections of its own, with the environment's proxy settings (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`)
/// and its certificate authorities: the system's (`SSL_CERT_FILE`), and those in `AWS_CA_BUNDLE`.
fn http_client(tls: &TlsContext) -> SharedHttpClient {
    let tls = tls.clone();
    Builder::new()
        .pool_idle_timeout(CONNECTION_IDLE_MAX)
        .build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(tls.clone())
                .proxy_config(ProxyConfig::from_env())
                .pool_idle_timeout(CONNECTION_IDLE_MAX);
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            connector.build()
        })
}

fn trust_store() -> Result<TrustStore, Error> {
    let native = TrustStore::default();
    let Some(path) = env::var_os(CA_BUNDLE).filter(|path| !path.is_empty()) else {
        return Ok(native);
    };
    let certificates = fs::read(&path).map_err(|error| {
        Error::config(format!(
            "The file {} that {CA_BUNDLE} names cannot be read: {error}. Correct the variable, or remove it.",
            path.display()
        ))
    })?;
    // Looked at here, because the SDK panics over what it cannot read.
    let readable = CertificateDer::pem_slice_iter(&certificates).collect::<Result<Vec<_>, _>>();
    if readable.is_ok_and(|certificates| !certificates.is_empty()) {
        Ok(native.with_pem_certificate(certificates))
    } else {
        Err(Error::config(format!(
            "The file {} that {CA_BUNDLE} names holds no certificates in PEM format. Correct the variable, or remove it.",
            path.display()
        )))
    }
}
