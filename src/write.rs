//! The verb `write`: streams made ready, then all of stdin delivered.

use std::env;
use std::io::{IsTerminal, Read};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::catalog::Catalog;
use crate::client::KinesisClientPool;
use crate::config::{KeySource, KinesisConfig, StreamMode};
use crate::consumer::MessageConsumer;
use crate::create::ControlPlane;
use crate::error::Error;
use crate::input;
use crate::output::Output;
use crate::signals::Shutdown;
use crate::stream::KinesisStream;

/// Delivers the messages of `source` to the catalog's streams, and sends the states that are earned to
/// `output`. Returns when everything is stored.
///
/// # Errors
///
/// The first error that the sync cannot go on after.
pub async fn run(
    config: KinesisConfig,
    catalog: Catalog,
    source: impl Read + Send + 'static,
    output: Output,
    mut shutdown: Shutdown,
) -> Result<(), Error> {
    for warning in catalog.warnings() {
        tracing::warn!("{warning}");
    }
    if config.keys() == KeySource::PrimaryKey {
        for configured in catalog
            .streams()
            .iter()
            .filter(|stream| stream.primary_key.is_empty())
        {
            tracing::warn!(
                "The stream {} has no primary key: its records get random partition keys, and no order among them is kept.",
                configured.descriptor
            );
        }
    }
    let catalog = Arc::new(catalog);
    let ready = tokio::select! {
        biased;
        signal = shutdown.requested() => {
            return Err(Error::transient(format!("The sync was stopped by {signal} before it had read anything.")));
        }
        ready = streams(&config, &catalog) => ready?,
    };
    let record_bytes_max = ready
        .iter()
        .map(|stream| stream.facts().record_bytes_max)
        .collect();
    let input = input::start(
        source,
        Arc::clone(&catalog),
        config.keys(),
        record_bytes_max,
    )
    .map_err(|error| {
        Error::system("The system gives no thread to read standard input.")
            .with_internal(error.to_string())
    })?;
    MessageConsumer::new(catalog, ready, &config, output)
        .run(input, shutdown)
        .await
}

/// Makes all streams of the catalog ready, side by side.
async fn streams(config: &KinesisConfig, catalog: &Catalog) -> Result<Vec<KinesisStream>, Error> {
    let mut pool = KinesisClientPool::new();
    let control = Arc::new(ControlPlane::default());
    let mut tasks = JoinSet::new();
    for (index, name) in catalog.stream_names().iter().enumerate() {
        let lease = pool.lend(config.connection()).await?;
        let config_mode = config.new_streams().mode;
        let mut stream = KinesisStream::sharing(name, lease, config, Arc::clone(&control));
        tasks.spawn(async move {
            stream.create().await?;
            announce(&stream, config_mode);
            Ok((index, stream))
        });
    }
    let mut ready = Vec::with_capacity(catalog.stream_names().len());
    while let Some(joined) = tasks.join_next().await {
        let stream = joined.unwrap_or_else(|_| {
            Err(Error::system(
                "Getting a stream ready ended in a bug of this destination: the log says where.",
            ))
        })?;
        ready.push(stream);
    }
    ready.sort_by_key(|(index, _)| *index);
    Ok(ready.into_iter().map(|(_, stream)| stream).collect())
}

/// Says that a stream is ready, and where it is not what the settings would have made it.
fn announce(stream: &KinesisStream, wanted: StreamMode) {
    let (name, facts) = (stream.name(), stream.facts());
    let origin = if facts.created {
        "created now"
    } else {
        "it existed and is used as it is"
    };
    tracing::info!(
        "Stream \"{name}\" is ready: {} shards, {origin}.",
        facts.open_shards
    );
    let Some(mode) = facts.mode.as_ref().filter(|_| !facts.created) else {
        return;
    };
    let wanted = match wanted {
        StreamMode::Provisioned(_) => aws_sdk_kinesis::types::StreamMode::Provisioned,
        StreamMode::OnDemand => aws_sdk_kinesis::types::StreamMode::OnDemand,
    };
    if *mode != wanted {
        tracing::info!(
            "Stream \"{name}\" is in the mode {mode}, not {wanted} as \"streamMode\" says: it stays as it is."
        );
    }
}

/// Refuses what the platform's environment asks for and this destination does not have.
///
/// # Errors
///
/// A config error that names the variable.
pub fn check_environment() -> Result<(), Error> {
    let unsupported = [
        ("DATA_CHANNEL_MEDIUM", "STDIO"),
        ("DATA_CHANNEL_FORMAT", "JSONL"),
        ("USE_FILE_TRANSFER", "false"),
    ]
    .into_iter()
    .find_map(|(name, supported)| {
        let value = env::var(name).ok()?;
        (!value.trim().is_empty() && !value.trim().eq_ignore_ascii_case(supported))
            .then_some((name, value, supported))
    });
    match unsupported {
        Some((name, value, supported)) => Err(Error::config(format!(
            "The platform asks for {name}={value:?}, and this destination supports {supported} only. Use a connection without \
             file transfer or socket transport."
        ))),
        None => Ok(()),
    }
}

/// Tells a person who has started `write` at a terminal what it is waiting for.
pub fn greet_terminal(stdin: &impl IsTerminal) {
    if stdin.is_terminal() {
        tracing::info!(
            "Waiting for Airbyte messages on standard input, one JSON object a line; end with Ctrl-D. To deliver a file, \
             add: < messages.jsonl"
        );
    }
}
