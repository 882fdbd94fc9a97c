//! Streams that exist and can be written to, at most as fast as the service allows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamModeDetails, StreamStatus};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::ClientLease;
use crate::config::{NewStreams, StreamMode};
use crate::error::Error;
use crate::fault::{Fault, FaultKind};
use crate::limits::{
    CONTROL_THROTTLED_MAX, CREATE_STREAM_CALLS_PER_SECOND, DESCRIBE_SUMMARY_CALLS_PER_SECOND,
    RECORD_BYTES_MAX_DEFAULT, STREAM_POLL, STREAMS_CREATING_MAX,
};
use crate::retry::Backoff;
use crate::shard_map::ShardMap;

/// What a stream is really like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// Shards that take records.
    pub open_shards: usize,
    /// Bytes of data and partition key that one record may have.
    pub record_bytes_max: usize,
    /// How its capacity is made; unknown where the server does not say.
    pub mode: Option<aws_sdk_kinesis::types::StreamMode>,
    /// Whether the service chooses the shard of a record itself, whatever its partition key.
    pub ignores_keys: bool,
    /// Whether this run has created it.
    pub created: bool,
}

impl Default for StreamFacts {
    fn default() -> Self {
        Self {
            open_shards: 1,
            record_bytes_max: RECORD_BYTES_MAX_DEFAULT,
            mode: None,
            ignores_keys: false,
            created: false,
        }
    }
}

/// How long to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long calls may fail in a row.
    pub faults: Duration,
    /// How long the stream may take to become writable.
    pub writable: Duration,
}

/// Shares the account's limits between all streams that are looked at or created side by side.
#[derive(Debug)]
pub struct ControlPlane {
    describe: CallRate,
    create: CallRate,
    creating: Semaphore,
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self {
            describe: CallRate::new(DESCRIBE_SUMMARY_CALLS_PER_SECOND),
            create: CallRate::new(CREATE_STREAM_CALLS_PER_SECOND),
            creating: Semaphore::new(STREAMS_CREATING_MAX),
        }
    }
}

/// Spaces calls evenly.
#[derive(Debug)]
struct CallRate {
    spacing: Duration,
    next: Mutex<Option<Instant>>,
}

impl CallRate {
    fn new(calls_per_second: u32) -> Self {
        Self {
            spacing: Duration::from_secs(1) / calls_per_second,
            next: Mutex::new(None),
        }
    }

    /// Waits for this call's turn.
    async fn turn(&self) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(turn + self.spacing);
            turn
        };
        sleep_until(turn).await;
    }
}

/// What is known of a stream at one look.
struct Look {
    status: StreamStatus,
    facts: StreamFacts,
}

impl ControlPlane {
    /// Sees to it that the stream exists and is writable, and creates it as `new_streams` says
    /// where it does not exist. One that exists is used as it is. `create_sent` becomes true before a
    /// CreateStream call leaves.
    ///
    /// # Errors
    ///
    /// A config error when AWS does not allow it, a transient one when the patience is at its end.
    pub async fn ensure(
        &self,
        client: &ClientLease,
        stream_name: &str,
        new_streams: &NewStreams,
        patience: Patience,
        create_sent: &mut bool,
    ) -> Result<StreamFacts, Error> {
        let mut attempt = Attempt {
            control: self,
            client,
            stream_name,
            new_streams,
            patience,
            faults: Faults::default(),
            creating: None,
            created: false,
            create_sent,
            waiting_since: None,
        };
        loop {
            if let Some(facts) = attempt.step().await? {
                return Ok(facts);
            }
        }
    }

    /// Looks at a stream.
    async fn look(&self, client: &ClientLease, stream_name: &str) -> Result<Look, Fault> {
        self.describe.turn().await;
        let summary = match client
            .sdk()
            .describe_stream_summary()
            .stream_name(stream_name)
            .send()
            .await
        {
            Ok(answer) => answer.stream_description_summary,
            Err(error) => {
                let fault = client.judge(Fault::of(&error));
                if fault.kind != FaultKind::Denied {
                    return Err(fault);
                }
                // Policies that were written for the Java connector allow the older call only.
                return self
                    .look_the_old_way(client, stream_name)
                    .await
                    .map_err(|old| {
                        if old.kind == FaultKind::Denied {
                            fault
                        } else {
                            old
                        }
                    });
            }
        };
        let Some(summary) = summary else {
            return Err(Fault::local(
                FaultKind::Transient,
                "empty answer",
                "DescribeStreamSummary answered without a summary".to_owned(),
                false,
            ));
        };
        let record_bytes_max = summary
            .max_record_size_in_kib
            .and_then(|kib| usize::try_from(kib).ok())
            .map_or(RECORD_BYTES_MAX_DEFAULT, |kib| kib * 1024);
        Ok(Look {
            status: summary.stream_status,
            facts: StreamFacts {
                open_shards: usize::try_from(summary.open_shard_count).unwrap_or_default(),
                record_bytes_max,
                mode: summary
                    .stream_mode_details
                    .map(|details| details.stream_mode),
                ignores_keys: summary.record_distribution_strategy
                    == Some(RecordDistributionStrategy::Auto),
                created: false,
            },
        })
    }

    async fn look_the_old_way(
        &self,
        client: &ClientLease,
        stream_name: &str,
    ) -> Result<Look, Fault> {
        self.describe.turn().await;
        let answer = client
            .sdk()
            .describe_stream()
            .stream_name(stream_name)
            .send()
            .await
            .map_err(|error| client.judge(Fault::of(&error)))?;
        let description = answer.stream_description.ok_or_else(|| {
            Fault::local(
                FaultKind::Transient,
                "empty answer",
                "DescribeStream answered without a description".to_owned(),
                false,
            )
        })?;
        let open_shards = description
            .shards
            .iter()
            .filter(|shard| crate::shard_map::is_open(shard))
            .count();
        Ok(Look {
            status: description.stream_status,
            facts: StreamFacts {
                open_shards,
                mode: description
                    .stream_mode_details
                    .map(|details| details.stream_mode),
                ..StreamFacts::default()
            },
        })
    }

    /// Asks for a stream's shard map until there is one.
    ///
    /// # Errors
    ///
    /// A config error when AWS does not allow it, a transient one when the patience is at its end.
    pub async fn shard_map(
        &self,
        client: &ClientLease,
        stream_name: &str,
        patience: Patience,
    ) -> Result<ShardMap, Error> {
        let what = format!("list the shards of the stream \"{stream_name}\"");
        let mut faults = Faults::default();
        loop {
            faults.call_began();
            match ShardMap::fetch(&client.sdk(), stream_name).await {
                Ok(map) => return Ok(map),
                Err(fault) => {
                    let fault = client.judge(fault);
                    faults
                        .pause(fault, patience.faults, &what, "kinesis:ListShards")
                        .await?;
                }
            }
        }
    }

    /// Deletes a stream, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// The fault that could not be waited out.
    pub async fn delete(
        &self,
        client: &ClientLease,
        stream_name: &str,
        patience: Patience,
    ) -> Result<(), Error> {
        let what = format!("delete the stream \"{stream_name}\"");
        let mut faults = Faults::default();
        let since = Instant::now();
        let mut deleted = false;
        loop {
            let fault = if deleted {
                self.look(client, stream_name).await.err()
            } else {
                let answer = client
                    .sdk()
                    .delete_stream()
                    .stream_name(stream_name)
                    .send()
                    .await;
                deleted = answer.is_ok();
                answer.err().map(|error| client.judge(Fault::of(&error)))
            };
            match fault {
                None => sleep(STREAM_POLL).await,
                Some(fault) if fault.kind == FaultKind::NotFound => return Ok(()),
                // A stream that is being created or changed can be deleted when that is done.
                Some(fault) if fault.kind == FaultKind::InUse => sleep(STREAM_POLL).await,
                Some(fault) => {
                    faults
                        .pause(
                            fault,
                            patience.faults,
                            &what,
                            "kinesis:DeleteStream and kinesis:DescribeStreamSummary",
                        )
                        .await?;
                }
            }
            if since.elapsed() > patience.writable {
                return Err(Error::transient(format!(
                    "Could not {what}: it is still there after {} s.",
                    patience.writable.as_secs()
                )));
            }
        }
    }
}

/// Calls that fail in a row.
#[derive(Debug, Default)]
struct Faults {
    since: Option<Instant>,
    backoff: Backoff,
}

impl Faults {
    /// Waits before the next try, or gives up.
    async fn pause(
        &mut self,
        fault: Fault,
        patience: Duration,
        what: &str,
        permission: &str,
    ) -> Result<(), Error> {
        let since = self.call_began();
        let pause = self.backoff.pause();
        let patience = if fault.kind == FaultKind::Throttled {
            patience.max(CONTROL_THROTTLED_MAX)
        } else {
            patience
        };
        if !fault.is_retryable() || since.elapsed() + pause > patience {
            return Err(fault.into_error(what, permission));
        }
        tracing::info!(code = %fault.code, "Could not {what}; trying again in {} ms.", pause.as_millis());
        sleep(pause).await;
        Ok(())
    }

    /// Takes note of when the first of the calls began, of which none has worked since.
    fn call_began(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now)
    }

    fn none(&mut self) {
        *self = Self::default();
    }
}

/// One stream on its way to being writable.
struct Attempt<'a> {
    control: &'a ControlPlane,
    client: &'a ClientLease,
    stream_name: &'a str,
    new_streams: &'a NewStreams,
    patience: Patience,
    faults: Faults,
    /// One of the places for streams in `CREATING`, while this one takes it.
    creating: Option<SemaphorePermit<'a>>,
    created: bool,
    create_sent: &'a mut bool,
    waiting_since: Option<Instant>,
}

impl Attempt<'_> {
    /// Looks at the stream, and does what helps. `None`: look again.
    async fn step(&mut self) -> Result<Option<StreamFacts>, Error> {
        self.faults.call_began();
        match self.control.look(self.client, self.stream_name).await {
            Ok(look) => {
                self.faults.none();
                if matches!(look.status, StreamStatus::Active | StreamStatus::Updating) {
                    return Ok(Some(StreamFacts {
                        created: self.created,
                        ..look.facts
                    }));
                }
                self.wait(look.status.as_str()).await?;
            }
            Err(fault) if fault.kind == FaultKind::NotFound && !self.created => {
                self.create().await?;
            }
            // What was just created may not be visible everywhere yet.
            Err(fault) if fault.kind == FaultKind::NotFound => self.wait("not visible yet").await?,
            Err(fault) if fault.kind == FaultKind::Denied => {
                tracing::warn!(
                    stream = self.stream_name,
                    code = %fault.code,
                    "May not look at the stream: kinesis:DescribeStreamSummary is missing. Trying to create it instead."
                );
                return self.create_unseen(fault).await.map(Some);
            }
            Err(fault) => {
                let what = format!("look up the stream \"{}\"", self.stream_name);
                self.faults
                    .pause(
                        fault,
                        self.patience.faults,
                        &what,
                        "kinesis:DescribeStreamSummary",
                    )
                    .await?;
            }
        }
        Ok(None)
    }

    async fn wait(&mut self, status: &str) -> Result<(), Error> {
        if self.waiting_since.is_none() && !self.created {
            tracing::info!(
                stream = self.stream_name,
                status,
                "Waiting until the stream is writable."
            );
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.patience.writable {
            return Err(Error::transient(format!(
                "The stream \"{}\" is still not writable after {} s (status {status}). Look at it in the AWS \
                 console.",
                self.stream_name,
                self.patience.writable.as_secs()
            )));
        }
        tracing::debug!(
            stream = self.stream_name,
            status,
            waited_s = since.elapsed().as_secs(),
            "Waiting for the stream to become writable."
        );
        sleep(STREAM_POLL).await;
        Ok(())
    }

    /// Creates the stream, in turn.
    async fn create(&mut self) -> Result<(), Error> {
        if self.creating.is_none() {
            // An error here would mean that the semaphore is closed, which nobody does.
            self.creating = self.control.creating.acquire().await.ok();
        }
        let Some(fault) = self.call_create().await.err() else {
            self.faults.none();
            return Ok(());
        };
        let what = format!("create the stream \"{}\"", self.stream_name);
        match fault.kind {
            // Somebody else was faster.
            FaultKind::InUse => Ok(()),
            FaultKind::Denied => Err(Error::config(format!(
                "The stream \"{}\" does not exist, and the credentials may not create it ({}). Allow kinesis:CreateStream{} \
                 for it in the IAM policy, or create the stream yourself.",
                self.stream_name,
                fault.code,
                if self.new_streams.tags.is_empty() { "" } else { " and kinesis:AddTagsToStream" }
            ))
            .with_internal(fault.detail)),
            // The quota of shards or streams: waiting does not help.
            FaultKind::Throttled if fault.detail.contains("shard limit") || fault.detail.contains("stream limit") => {
                Err(Error::config(format!(
                    "Could not {what}: the account's quota of shards or streams is used up ({}). Lower \
                     \"shardCount\", delete streams that nobody needs, or ask AWS for a higher quota.",
                    fault.code
                ))
                .with_internal(fault.detail))
            }
            FaultKind::Throttled
            | FaultKind::Transient
            | FaultKind::Rejected
            | FaultKind::NotFound
            | FaultKind::Expired
            | FaultKind::Credentials
            | FaultKind::Kms
            | FaultKind::Untrusted
            | FaultKind::Unexpected => {
                self.faults
                    .pause(fault, self.patience.faults, &what, "kinesis:CreateStream")
                    .await
            }
        }
    }

    async fn call_create(&mut self) -> Result<(), Fault> {
        self.control.create.turn().await;
        *self.create_sent = true;
        let request = self
            .client
            .sdk()
            .create_stream()
            .stream_name(self.stream_name);
        let request = match self.new_streams.mode {
            // As the Java connector asked: servers know this form that do not know modes.
            StreamMode::Provisioned(shards) => {
                request.shard_count(i32::try_from(shards).unwrap_or(i32::MAX))
            }
            StreamMode::OnDemand => request.stream_mode_details(on_demand()),
        };
        let tags = &self.new_streams.tags;
        let kib = self.new_streams.max_record_size_kib;
        request
            .set_tags((!tags.is_empty()).then(|| tags.iter().cloned().collect()))
            .set_max_record_size_in_kib(kib.and_then(|kib| i32::try_from(kib).ok()))
            .send()
            .await
            .map_err(|error| self.client.judge(Fault::of(&error)))?;
        self.created = true;
        tracing::info!(
            stream = self.stream_name,
            "Created the stream; waiting until it is writable."
        );
        Ok(())
    }

    /// Without the right to look, whether the stream exists shows in what CreateStream says.
    async fn create_unseen(&mut self, denied: Fault) -> Result<StreamFacts, Error> {
        match self.call_create().await {
            Err(fault) if fault.kind == FaultKind::InUse => Ok(StreamFacts::default()),
            _ => Err(denied.into_error(
                &format!("look up the stream \"{}\"", self.stream_name),
                "kinesis:DescribeStreamSummary",
            )),
        }
    }
}

/// The mode in which AWS adds and removes shards.
fn on_demand() -> StreamModeDetails {
    StreamModeDetails::builder()
        .stream_mode(aws_sdk_kinesis::types::StreamMode::OnDemand)
        .build()
        // Fails only where the mode is missing.
        .unwrap_or_else(|_| unreachable!("the mode is given"))
}
