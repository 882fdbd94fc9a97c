//! Reading a stream back, from its beginning to its end: every shard, closed ones too, every page.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use tokio::time::sleep;

use crate::fault::Fault;
use crate::limits::GET_RECORDS_PAUSE;
use crate::retry::Backoff;
use crate::shard_map::list_shards;

/// Faults in a row that are waited out for one page.
const TRIES_MAX: usize = 8;

/// All records of a stream: shard by shard, parents before children, each in the order of its
/// sequence numbers.
///
/// # Errors
///
/// The fault of a call that kept failing.
pub async fn read_all(client: &Client, stream_name: &str) -> Result<Vec<Record>, Fault> {
    let mut records = Vec::new();
    for shard in list_shards(client, stream_name).await? {
        read_shard(client, stream_name, shard.shard_id(), &mut records).await?;
    }
    Ok(records)
}

async fn read_shard(
    client: &Client,
    stream_name: &str,
    shard_id: &str,
    records: &mut Vec<Record>,
) -> Result<(), Fault> {
    let iterator = client
        .get_shard_iterator()
        .stream_name(stream_name)
        .shard_id(shard_id)
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await
        .map_err(|error| Fault::of(&error))?;
    let mut next = iterator.shard_iterator;
    // An open shard ends where nothing is behind; a closed one also where there is no further iterator,
    // which moto always gives.
    while let Some(iterator) = next {
        let page = get_page(client, &iterator).await?;
        let at_the_tip = page.millis_behind_latest == Some(0);
        let is_empty = page.records.is_empty();
        records.extend(page.records);
        next = page.next_shard_iterator.filter(|next| !next.is_empty());
        if is_empty && at_the_tip {
            break;
        }
        if is_empty && next.is_some() {
            sleep(GET_RECORDS_PAUSE).await;
        }
    }
    Ok(())
}

async fn get_page(
    client: &Client,
    iterator: &str,
) -> Result<aws_sdk_kinesis::operation::get_records::GetRecordsOutput, Fault> {
    let mut pauses = Backoff::default().take(TRIES_MAX);
    loop {
        match client.get_records().shard_iterator(iterator).send().await {
            Ok(page) => return Ok(page),
            Err(error) => {
                let fault = Fault::of(&error);
                match pauses.next().filter(|_| fault.is_retryable()) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(fault),
                }
            }
        }
    }
}
