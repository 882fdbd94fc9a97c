//! One Kinesis stream: created, written to, read back, deleted.
//!
//! The consumer drives many streams at a time and uses their [`Buffer`]s; everybody else can use a
//! stream alone:
//!
//! ```no_run
//! # async fn example() -> Result<(), destination_kinesis::error::Error> {
//! use destination_kinesis::client::KinesisClientPool;
//! use destination_kinesis::config::KinesisConfig;
//! use destination_kinesis::stream::KinesisStream;
//!
//! let config = KinesisConfig::from_json(br#"{"endpoint":"http://localhost:4567","region":"us-east-1"}"#)?;
//! let mut pool = KinesisClientPool::new();
//! let mut stream = KinesisStream::new("users", pool.lend(config.connection()).await?, &config);
//! stream.create().await?;
//! stream.put(r#"{"id":1}"#)?;
//! stream.flush().await?;
//! for record in stream.get_records().await? {
//!     println!("{}", record.data());
//! }
//! stream.delete().await?;
//! stream.close().await?;
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use crate::aggregate::disaggregate;
use crate::batch::{BatchBounds, Held};
use crate::buffer::{Applied, Buffer, GiveUp, Seal};
use crate::checkpoint::Token;
use crate::client::ClientLease;
use crate::config::{KeySource, KinesisConfig, NewStreams, StreamMode};
use crate::create::{ControlPlane, Patience, StreamFacts};
use crate::error::Error;
use crate::limits::{AGGREGATE_BYTES_MAX, REQUEST_BYTES_MAX, STREAM_WRITABLE_MAX};
use crate::put::{PutOutcome, put};
use crate::read::read_all;
use crate::record::{EncodedRecord, KinesisRecord};
use crate::wire::WireFormat;

/// A Kinesis stream, with the records that are on their way into it.
#[derive(Debug)]
pub struct KinesisStream {
    name: String,
    client: ClientLease,
    control: Arc<ControlPlane>,
    new_streams: NewStreams,
    patience: Patience,
    bounds: BatchBounds,
    keys: KeySource,
    facts: StreamFacts,
    create_sent: bool,
    buffer: Buffer,
}

impl KinesisStream {
    /// The stream of this name. Nothing is sent yet.
    pub fn new(name: impl Into<String>, client: ClientLease, config: &KinesisConfig) -> Self {
        Self::sharing(name, client, config, Arc::default())
    }

    /// The same, for one of several streams that share the account's limits.
    pub fn sharing(
        name: impl Into<String>,
        client: ClientLease,
        config: &KinesisConfig,
        control: Arc<ControlPlane>,
    ) -> Self {
        let bounds = BatchBounds {
            records: config.buffer_size(),
            bytes: REQUEST_BYTES_MAX,
            aggregate_bytes: config.aggregates().then_some(AGGREGATE_BYTES_MAX),
        };
        Self {
            name: name.into(),
            client,
            control,
            new_streams: config.new_streams().clone(),
            patience: Patience {
                faults: config.retry_timeout(),
                writable: STREAM_WRITABLE_MAX,
            },
            bounds,
            keys: config.keys(),
            facts: StreamFacts::default(),
            create_sent: false,
            buffer: Buffer::new(bounds, config.retry_timeout(), 1),
        }
    }

    /// Gives up earlier or later than the configuration says.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self.buffer = Buffer::new(self.bounds, patience.faults, 1);
        self
    }

    /// Creates it with another number of shards than the configuration says.
    #[must_use]
    pub fn with_shard_count(mut self, shard_count: u32) -> Self {
        self.new_streams.mode = StreamMode::Provisioned(shard_count);
        self
    }

    /// The stream's name in Kinesis.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client that it has borrowed.
    pub fn client(&self) -> &ClientLease {
        &self.client
    }

    /// What is known of the stream since [`KinesisStream::create`].
    pub fn facts(&self) -> &StreamFacts {
        &self.facts
    }

    /// Whether a call to create it was sent, whatever came of it: then there may be a new stream.
    pub fn may_have_created(&self) -> bool {
        self.create_sent
    }

    /// Whether many records go in one Kinesis record.
    pub fn aggregates(&self) -> bool {
        self.bounds.aggregate_bytes.is_some()
    }

    /// The records that are on their way.
    pub fn buffer(&mut self) -> &mut Buffer {
        &mut self.buffer
    }

    /// Sees to it that the stream exists and is writable. One that exists is used as it is.
    ///
    /// # Errors
    ///
    /// A config error when AWS does not allow it, a transient one when it takes too long.
    pub async fn create(&mut self) -> Result<(), Error> {
        self.facts = self
            .control
            .ensure(
                &self.client,
                &self.name,
                &self.new_streams,
                self.patience,
                &mut self.create_sent,
            )
            .await?;
        self.buffer = Buffer::new(self.bounds, self.patience.faults, self.facts.open_shards);
        if self.facts.ignores_keys {
            self.refuse_ignored_keys()?;
        }
        if self.bounds.aggregate_bytes.is_some() && self.keys == KeySource::PrimaryKey {
            // Which records may be packed together depends on their shards.
            let map = self
                .control
                .shard_map(&self.client, &self.name, self.patience)
                .await?;
            self.buffer.set_map(map, Instant::now());
        }
        Ok(())
    }

    /// What a stream does not give whose shards are chosen by the service.
    fn refuse_ignored_keys(&self) -> Result<(), Error> {
        let (setting, why) = match (self.bounds.aggregate_bytes, self.keys) {
            (Some(_), _) => (
                "\"aggregation\" to off",
                "consumers drop aggregated records from it without a word",
            ),
            (None, KeySource::PrimaryKey) => (
                "\"partitionKey\" to random",
                "records of one key are not stored in order",
            ),
            (None, KeySource::Random) => return Ok(()),
        };
        Err(Error::config(format!(
            "The stream \"{}\" has the record distribution strategy AUTO: it ignores partition keys, so {why}. Set {setting}, \
             or the stream's record distribution strategy to USER_PARTITION_KEY.",
            self.name
        )))
    }

    /// Buffers one record with this JSON object as its data. [`KinesisStream::flush`] stores it.
    ///
    /// # Errors
    ///
    /// A config error when the record is larger than the stream takes.
    pub fn put(&mut self, data: &str) -> Result<(), Error> {
        let record = EncodedRecord::encode(Uuid::new_v4(), data, SystemTime::now());
        if record.size_bytes() > self.facts.record_bytes_max {
            return Err(too_large(
                &self.name,
                record.size_bytes(),
                self.facts.record_bytes_max,
            ));
        }
        self.buffer
            .admit(Held::new(record, Token::default(), Instant::now()));
        Ok(())
    }

    /// Stores everything that is buffered, one request at a time, and returns when it is stored.
    ///
    /// # Errors
    ///
    /// The error of giving up; what was not stored is lost to the buffer then.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a batch in flight is lost with the future.
    pub async fn flush(&mut self) -> Result<(), Error> {
        loop {
            match self.buffer.seal(Instant::now(), true) {
                Seal::Empty => return Ok(()),
                Seal::Wait(until) => tokio::time::sleep_until(until.into()).await,
                Seal::Batch(batch) => {
                    let outcome = put(&self.client, &self.name, batch, WireFormat::Json).await;
                    let applied = self.apply(outcome);
                    if let Some(error) = applied.1 {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Takes in what became of a batch: what is stored, and the error of giving up, if it is time.
    pub fn apply(&mut self, outcome: PutOutcome) -> (Applied, Option<Error>) {
        let mut applied = self.buffer.apply(outcome, Instant::now());
        let error = applied.give_up.take().map(|give_up| self.gave_up(give_up));
        (applied, error)
    }

    fn gave_up(&self, give_up: GiveUp) -> Error {
        match give_up {
            GiveUp::Fault(fault) => {
                fault.into_error(&format!("write to the stream \"{}\"", self.name), "kinesis:PutRecords")
            }
            GiveUp::Poison { bytes, fault } => Error::config(format!(
                "Kinesis does not accept one record of the stream \"{}\" ({bytes} bytes with its partition key): {}. The \
                 stream takes records of up to {} bytes; leave the record out at the source, or raise the stream's maximum \
                 record size.",
                self.name, fault.code, self.facts.record_bytes_max
            ))
            .with_internal(fault.detail),
        }
    }

    /// Everything in the stream, from its beginning to its end: shard by shard, closed ones too.
    ///
    /// # Errors
    ///
    /// When a call keeps failing, or a record is not one of this destination's.
    pub async fn get_records(&self) -> Result<Vec<KinesisRecord>, Error> {
        let records = read_all(&self.client.sdk(), &self.name)
            .await
            .map_err(|fault| {
                fault.into_error(
                    &format!("read the stream \"{}\"", self.name),
                    "kinesis:ListShards, kinesis:GetShardIterator and kinesis:GetRecords",
                )
            })?;
        records
            .iter()
            .flat_map(|record| disaggregate(record.data().as_ref()))
            .map(|data| {
                KinesisRecord::decode(&data).map_err(|error| {
                    Error::system(format!(
                        "The stream \"{}\" holds a record that this destination did not write: {error}.",
                        self.name
                    ))
                })
            })
            .collect()
    }

    /// Deletes the stream, and returns when it is gone. `write` never does this.
    ///
    /// # Errors
    ///
    /// When AWS does not allow it, or it takes too long.
    pub async fn delete(&self) -> Result<(), Error> {
        self.control
            .delete(&self.client, &self.name, self.patience)
            .await
    }

    /// Stores what is buffered, and gives the client back.
    ///
    /// # Errors
    ///
    /// As [`KinesisStream::flush`].
    pub async fn close(mut self) -> Result<(), Error> {
        self.flush().await
    }
}

/// The error for a record that its stream does not take.
pub fn too_large(stream_name: &str, bytes: usize, bytes_max: usize) -> Error {
    Error::config(format!(
        "A record for the stream \"{stream_name}\" is too large: {bytes} bytes with its partition key, and the stream takes \
         {bytes_max}. Leave the record out or make it smaller at the source, or raise the stream's maximum record size \
         (kinesis:UpdateMaxRecordSize, up to 10 MiB)."
    ))
}
