//! The way of the connector for Java: a hundred records a request, and the next request when the answer is there.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;

use crate::Result;
use crate::connector::length;
use crate::endpoint::{Delay, Endpoint};
use crate::float;
use crate::floor::{record_lines, write_envelope};
use crate::messages::{Block, stream_name};

const BATCH: usize = 100;

/// How long it is measured.
const TIME: Duration = Duration::from_millis(1500);

/// Records a second, one after the other, with this long to the endpoint.
pub(crate) fn records_per_second(block: &Block, latency: Duration) -> Result<f64> {
    let delay = Delay {
        latency,
        bytes_per_second: 0,
    };
    let endpoint = Endpoint::start(delay, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let rate = runtime.block_on(send(&endpoint.url(), block));
    // Connections close before the server does.
    drop(runtime);
    endpoint.finish()?;
    rate
}

async fn send(url: &str, block: &Block) -> Result<f64> {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "benchmark"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(url)
        .build();
    let client = Client::from_conf(config);
    let lines = record_lines(block);
    let mut sent = 0;
    let started = Instant::now();
    for batch in lines.chunks(BATCH).cycle() {
        let entries = batch
            .iter()
            .map(|line| entry(line))
            .collect::<Result<Vec<_>>>()?;
        client
            .put_records()
            .stream_name(stream_name(0))
            .set_records(Some(entries))
            .send()
            .await?;
        sent += batch.len();
        if started.elapsed() > TIME {
            break;
        }
    }
    Ok(float(length(sent)) / started.elapsed().as_secs_f64())
}

fn entry(line: &[u8]) -> Result<PutRecordsRequestEntry> {
    let mut envelope = Vec::new();
    write_envelope(line, &mut envelope)?;
    Ok(PutRecordsRequestEntry::builder()
        .data(Blob::from_maybe_shared(Bytes::from(envelope)))
        .partition_key("c0c5e7d4-6c3c-4d2b-9c8b-0a2f7b7f8f5e")
        .build()?)
}
