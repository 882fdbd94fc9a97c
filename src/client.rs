//! SDK clients, one for each distinct set of connection settings.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Credentials, SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};

use crate::config::{ConnectionSettings, CredentialsSource};
use crate::error::Error;
use crate::limits::{ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, CONNECTION_IDLE_MAX};

/// Lends clients out. Equal connection settings share one client, with its connections and its cached
/// credentials; the last user who gives it back closes it.
#[derive(Debug, Default)]
pub struct KinesisClientPool {
    clients: HashMap<ConnectionSettings, Weak<Client>>,
}

/// A client on loan. Dropping it gives it back.
#[derive(Clone, Debug)]
pub struct ClientLease {
    client: Arc<Client>,
}

impl Deref for ClientLease {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
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
        if let Some(client) = self.clients.get(settings).and_then(Weak::upgrade) {
            return Ok(ClientLease { client });
        }
        let client = Arc::new(connect(settings).await?);
        self.clients
            .insert(settings.clone(), Arc::downgrade(&client));
        Ok(ClientLease { client })
    }

    /// How many clients are on loan.
    pub fn open_clients(&self) -> usize {
        self.clients
            .values()
            .filter(|client| client.strong_count() > 0)
            .count()
    }
}

async fn connect(settings: &ConnectionSettings) -> Result<Client, Error> {
    // The endpoint is not given to the loader: it is for Kinesis, and must not reach the services that
    // credentials come from.
    let mut loader: ConfigLoader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
    if let Some(region) = settings.region() {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let CredentialsSource::Static {
        access_key_id,
        secret_access_key,
    } = settings.credentials()
    {
        loader = loader.credentials_provider(Credentials::new(
            access_key_id.expose(),
            secret_access_key.expose(),
            None,
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
    if let Some(endpoint) = settings.endpoint() {
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}

/// One connection pool, with the environment's proxy settings (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).
fn http_client() -> SharedHttpClient {
    Builder::new()
        .pool_idle_timeout(CONNECTION_IDLE_MAX)
        .build_with_connector_fn(|settings, components| {
            let mut connector = Connector::builder()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .proxy_config(ProxyConfig::from_env())
                .pool_idle_timeout(CONNECTION_IDLE_MAX);
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            connector.build()
        })
}
