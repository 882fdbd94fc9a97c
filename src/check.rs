//! The verb `check`: whether a sync would work, tried with a probe stream of its own.
//!
//! The probe has a name that nobody else has. No other stream is touched, whatever it is called.

use tokio::time::Instant;
use uuid::Uuid;

use crate::client::KinesisClientPool;
use crate::config::KinesisConfig;
use crate::create::Patience;
use crate::error::Error;
use crate::fault::{Fault, FaultKind};
use crate::limits::{
    CHECK_CLEAN_UP_MAX, CHECK_FAULTS_MAX, CHECK_SETTLE, CHECK_WRITABLE_MAX, STREAM_POLL,
};
use crate::output::ConnectionStatus;
use crate::signals::Shutdown;
use crate::stream::KinesisStream;

/// What every probe's name begins with.
pub const PROBE_PREFIX: &str = "airbyte_check_";

/// Tries to create a stream, to write to it, and to delete it again.
///
/// # Errors
///
/// Only when the check itself was stopped; everything that it finds is its verdict.
pub async fn run(config: &[u8], mut shutdown: Shutdown) -> Result<ConnectionStatus, Error> {
    let mut probe = match connect(config).await {
        Ok(probe) => probe,
        Err(error) => return Ok(failed(&error)),
    };
    let verdict = tokio::select! {
        biased;
        signal = shutdown.requested() => Err(signal),
        verdict = try_out(&mut probe) => Ok(verdict),
    };
    if probe.may_have_created() {
        clean_up(&probe).await;
    }
    match verdict {
        Ok(Ok(())) => Ok(ConnectionStatus::Succeeded),
        Ok(Err(error)) => Ok(failed(&error)),
        Err(signal) => Err(Error::transient(format!(
            "The check was stopped by {signal}."
        ))),
    }
}

fn failed(error: &Error) -> ConnectionStatus {
    if error.internal_message() != error.message() {
        tracing::info!(details = error.internal_message(), "The check failed.");
    }
    ConnectionStatus::Failed(error.message().to_owned())
}

async fn connect(config: &[u8]) -> Result<KinesisStream, Error> {
    let config = KinesisConfig::from_json(config)?;
    let client = KinesisClientPool::new().lend(config.connection()).await?;
    let name = format!("{PROBE_PREFIX}{}", Uuid::new_v4().simple());
    Ok(
        KinesisStream::new(name, client, &config).with_patience(Patience {
            faults: CHECK_FAULTS_MAX,
            writable: CHECK_WRITABLE_MAX,
        }),
    )
}

async fn try_out(probe: &mut KinesisStream) -> Result<(), Error> {
    tracing::info!(
        stream = probe.name(),
        "Creating a stream to try the connection with; it is deleted again."
    );
    probe.create().await?;
    probe.put("{\"airbyte_check\":true}")?;
    probe.flush().await
}

/// Deletes the probe, as far as that is allowed. A stream that is still being created can be deleted a
/// little later.
async fn clean_up(probe: &KinesisStream) {
    let since = Instant::now();
    loop {
        let fault = match probe
            .client()
            .sdk()
            .delete_stream()
            .stream_name(probe.name())
            .send()
            .await
        {
            Ok(_) => return,
            Err(error) => Fault::of(&error),
        };
        // The answer to CreateStream may be lost, and its work not be done yet.
        let may_come = !probe.facts().created && since.elapsed() < CHECK_SETTLE;
        if fault.kind == FaultKind::NotFound && !may_come {
            return;
        }
        let may_go_later =
            fault.is_retryable() || matches!(fault.kind, FaultKind::InUse | FaultKind::NotFound);
        if !may_go_later || since.elapsed() > CHECK_CLEAN_UP_MAX {
            tracing::warn!(
                stream = probe.name(),
                code = %fault.code,
                "The stream of the check may be left over: it could not be deleted. Delete it yourself, and allow \
                 kinesis:DeleteStream to have this done."
            );
            return;
        }
        tokio::time::sleep(STREAM_POLL).await;
    }
}
