//! The loop that owns everything that changes: what is held, what is in flight, what may go out.
//!
//! One task, one `select!`, in the order of urgency: a shutdown, the answers of Kinesis, the timer, and
//! only then more input. Requests are tasks that own their batch and return it with an outcome; nothing
//! else is shared, so there is no lock. When too much is held, the loop does not read, and the input
//! thread stops reading stdin.
//!
//! A record is stored when [`Buffer::apply`](crate::buffer::Buffer::apply) says so, and only then does
//! the checkpoint hear of it. Whatever gets lost on the way (a task that dies, an answer that cannot be
//! read) leaves its states where they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep_until;

use crate::batch::Held;
use crate::buffer::Seal;
use crate::catalog::{Catalog, StreamIndex};
use crate::checkpoint::{Checkpoints, DescriptorIndex};
use crate::config::{KinesisConfig, OversizedRecords, RequestFormat};
use crate::error::Error;
use crate::fault::{Fault, FaultKind};
use crate::input::{Block, End, Item};
use crate::limits::{
    FAILURE_GRACE, HELD_STATE_OVERHEAD_BYTES, IN_FLIGHT_REQUESTS_MAX, IN_FLIGHT_SHARE_OF_FREE,
    PROGRESS_EVERY, RELEASED_BYTES_MAX, SHUTDOWN_GRACE, WINDOW_START,
};
use crate::memory::MemoryBounds;
use crate::output::Output;
use crate::protocol::StateLine;
use crate::put::{PutOutcome, put};
use crate::report;
use crate::shard_map::ShardMap;
use crate::signals::Shutdown;
use crate::stream::{KinesisStream, too_large};
use crate::wire::WireFormat;

/// How long to wait before a shard map is asked for once more.
const MAP_PAUSE: Duration = Duration::from_secs(1);

/// Maps each namespace and stream to a [`KinesisStream`], and delivers what comes in.
#[derive(Debug)]
pub struct MessageConsumer {
    catalog: Arc<Catalog>,
    /// One for each of the catalog's stream names, in its order.
    streams: Vec<Outlet>,
    checkpoints: Checkpoints<StateLine>,
    output: Output,
    tasks: JoinSet<Done>,
    in_flight_requests: usize,
    in_flight_bytes: usize,
    held_bytes: usize,
    bounds: MemoryBounds,
    /// The stream that is asked first for a batch, the next time.
    next_stream: StreamIndex,
    noise_lines: u64,
    oversized_records: OversizedRecords,
    encoding: Encoding,
    started: Instant,
}

/// How requests are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Json,
    /// The server has taken it, or may yet turn out not to.
    Cbor {
        proven: bool,
    },
}

impl Encoding {
    /// What the settings ask for, with or without an endpoint that is not AWS's own.
    fn new(format: RequestFormat, own_endpoint: bool) -> Self {
        match format {
            RequestFormat::Cbor => Self::Cbor { proven: false },
            RequestFormat::Auto if !own_endpoint => Self::Cbor { proven: false },
            RequestFormat::Auto | RequestFormat::Json => Self::Json,
        }
    }

    fn format(self) -> WireFormat {
        match self {
            Self::Json => WireFormat::Json,
            Self::Cbor { .. } => WireFormat::Cbor,
        }
    }

    /// Learns from an outcome. Returns whether the request is to be sent again, as JSON, because the
    /// server seems not to take CBOR.
    fn learn(&mut self, outcome: &PutOutcome) -> bool {
        if outcome.format == WireFormat::Json {
            return false;
        }
        match &outcome.result {
            Ok(_) => {
                *self = Self::Cbor { proven: true };
                false
            }
            Err(fault) => {
                let may_be_the_format = fault.may_be_the_format();
                if may_be_the_format && *self == (Self::Cbor { proven: false }) {
                    tracing::warn!(
                        code = %fault.code,
                        "The server does not take PutRecords as CBOR: from now on it gets JSON. Set \"requestFormat\" to \
                         json to begin with that."
                    );
                    *self = Self::Json;
                }
                may_be_the_format && *self == Self::Json
            }
        }
    }
}

/// A stream, and what the loop has to know of it.
#[derive(Debug)]
struct Outlet {
    stream: KinesisStream,
    in_flight_requests: usize,
    /// How many requests it may have in flight: few to begin with, more with each that works.
    window: usize,
    map: MapRequest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MapRequest {
    /// May be asked for, from this moment on.
    From(Option<Instant>),
    Running,
    /// It cannot be had: the stream is paced as a whole.
    Refused,
}

/// What a task gives back.
#[derive(Debug)]
enum Done {
    Put(StreamIndex, PutOutcome),
    Map(StreamIndex, Result<ShardMap, Fault>),
}

/// The way out, once there is one.
#[derive(Debug)]
struct Ending {
    /// `None` at the end of the input.
    error: Option<Error>,
    /// What is not stored by then is given up. `None`: the retry budget bounds it.
    deadline: Option<Instant>,
    /// Whether what is buffered is still sent.
    sends: bool,
}

impl MessageConsumer {
    /// A consumer that delivers to `streams`, which are the catalog's Kinesis streams in its order, and
    /// sends states to `output`.
    pub fn new(
        catalog: Arc<Catalog>,
        streams: Vec<KinesisStream>,
        config: &KinesisConfig,
        output: Output,
    ) -> Self {
        Self {
            checkpoints: Checkpoints::new(catalog.streams().len()),
            catalog,
            streams: streams
                .into_iter()
                .map(|stream| Outlet {
                    stream,
                    in_flight_requests: 0,
                    window: WINDOW_START,
                    map: MapRequest::From(None),
                })
                .collect(),
            output,
            tasks: JoinSet::new(),
            in_flight_requests: 0,
            in_flight_bytes: 0,
            held_bytes: 0,
            bounds: MemoryBounds::of_this_process(),
            next_stream: 0,
            noise_lines: 0,
            oversized_records: config.oversized_records(),
            encoding: Encoding::new(
                config.request_format(),
                config.connection().endpoint().is_some(),
            ),
            started: Instant::now(),
        }
    }

    /// Delivers all input. Returns when all of it is stored and every state is out.
    ///
    /// # Errors
    ///
    /// The first error. States that were earned by then are out, and no others.
    pub async fn run(
        mut self,
        mut input: mpsc::Receiver<Block>,
        mut shutdown: Shutdown,
    ) -> Result<(), Error> {
        let mut ending: Option<Ending> = None;
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        progress.reset();
        let output = self.output.clone();
        loop {
            let wake = self.dispatch(ending.as_ref());
            if let Some(ending) = ending.take_if(|ending| self.is_done(ending)) {
                return self.end(ending.error);
            }
            let is_shutting_down = ending.as_ref().is_some_and(|ending| ending.error.is_some());
            tokio::select! {
                biased;
                signal = shutdown.requested(), if !is_shutting_down => ending = Some(Ending::stopped(signal)),
                () = output.closed() => return Err(Error::system("Standard output was closed: nobody reads the states.")),
                Some(done) = self.tasks.join_next() => {
                    if let Err(error) = self.finish(done) {
                        ending = Some(Ending::failed(error, ending.take()));
                    }
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
                _ = progress.tick() => self.report_progress(),
                block = input.recv(), if ending.is_none() && self.held_bytes < self.bounds.held_bytes_max => {
                    ending = self.admit(block);
                }
            }
        }
    }

    /// Takes in a block of input.
    fn admit(&mut self, block: Option<Block>) -> Option<Ending> {
        let Some(block) = block else {
            return Some(Ending::input(Error::system(
                "The thread that reads standard input has died, which is a bug of this destination.",
            )));
        };
        let now = Instant::now();
        for item in block.items {
            match item {
                Item::Record { descriptor, record } => {
                    let token = self.checkpoints.admit_record(descriptor);
                    let held = Held::new(record, token, now);
                    self.held_bytes += held.held_bytes();
                    let stream = self.catalog.streams()[descriptor].stream;
                    self.streams[stream].stream.buffer().admit(held);
                }
                Item::State { scope, line } => {
                    self.held_bytes += held_bytes_of(&line);
                    self.checkpoints.admit_state(scope, line);
                }
                Item::Oversized { descriptor, bytes } => {
                    let error = self.oversized(descriptor, bytes);
                    if error.is_some() {
                        return error.map(Ending::input);
                    }
                }
            }
        }
        self.release();
        match block.end? {
            End::Eof { noise_lines } => {
                self.noise_lines = noise_lines;
                Some(Ending::EOF)
            }
            End::Failed(error) => Some(Ending::input(error)),
        }
    }

    /// Leaves out a record that its stream does not take, or returns the error that ends the sync.
    fn oversized(&mut self, descriptor: DescriptorIndex, bytes: usize) -> Option<Error> {
        let configured = &self.catalog.streams()[descriptor];
        let stream = &mut self.streams[configured.stream].stream;
        let bytes_max = stream.facts().record_bytes_max;
        match self.oversized_records {
            OversizedRecords::Fail => Some(too_large(stream.name(), bytes, bytes_max)),
            OversizedRecords::Skip => {
                tracing::warn!(
                    stream = stream.name(),
                    bytes,
                    bytes_max,
                    "Skipped a record that is larger than the stream takes."
                );
                stream.buffer().skipped();
                self.checkpoints.admit_rejected(descriptor);
                None
            }
        }
    }

    /// Lets out the states that are earned by now, many in one write.
    fn release(&mut self) {
        let mut lines = Vec::new();
        for released in self.checkpoints.release() {
            self.held_bytes -= held_bytes_of(&released.state);
            released
                .state
                .write(released.records, released.rejected, &mut lines);
            if lines.len() >= RELEASED_BYTES_MAX {
                self.output.lines(&lines);
                lines.clear();
            }
        }
        self.output.lines(&lines);
    }

    /// Sends what is due and fits in flight. Returns when something is due next.
    fn dispatch(&mut self, ending: Option<&Ending>) -> Option<Instant> {
        let now = Instant::now();
        let mut wake = ending.and_then(|ending| ending.deadline);
        if ending.is_some_and(|ending| !ending.sends) {
            return wake;
        }
        let urgent = ending.is_some() || self.held_bytes >= self.bounds.held_bytes_max;
        let mut asked_in_vain = 0;
        while asked_in_vain < self.streams.len() {
            if self.in_flight_requests >= IN_FLIGHT_REQUESTS_MAX
                || self.in_flight_bytes >= self.bounds.in_flight_bytes_max
            {
                break;
            }
            let index = self.next_stream;
            self.next_stream = (index + 1) % self.streams.len();
            asked_in_vain += 1;
            self.request_map(index, now);
            let free = IN_FLIGHT_REQUESTS_MAX - self.in_flight_requests;
            let outlet = &mut self.streams[index];
            if outlet.in_flight_requests >= outlet.window.min(free * IN_FLIGHT_SHARE_OF_FREE) {
                continue;
            }
            match outlet.stream.buffer().seal(now, urgent) {
                Seal::Empty => {}
                Seal::Wait(due) => wake = Some(wake.map_or(due, |wake| wake.min(due))),
                Seal::Batch(batch) => {
                    asked_in_vain = 0;
                    outlet.in_flight_requests += 1;
                    self.in_flight_requests += 1;
                    self.in_flight_bytes += batch.bytes;
                    let client = outlet.stream.client().clone();
                    let name = outlet.stream.name().to_owned();
                    let format = self.encoding.format();
                    self.tasks.spawn(async move {
                        Done::Put(index, put(&client, &name, batch, format).await)
                    });
                }
            }
        }
        wake
    }

    /// Asks for a stream's shard map, where that would help.
    fn request_map(&mut self, index: StreamIndex, now: Instant) {
        let outlet = &mut self.streams[index];
        let may_ask =
            matches!(outlet.map, MapRequest::From(from) if from.is_none_or(|from| from <= now));
        if !may_ask || !outlet.stream.buffer().wants_map() {
            return;
        }
        outlet.map = MapRequest::Running;
        outlet.stream.buffer().map_requested();
        let client = outlet.stream.client().clone();
        let name = outlet.stream.name().to_owned();
        self.tasks
            .spawn(async move { Done::Map(index, ShardMap::fetch(&client.sdk(), &name).await) });
    }

    /// Takes in what a task has done.
    fn finish(&mut self, done: Result<Done, JoinError>) -> Result<(), Error> {
        match done {
            Ok(Done::Put(index, outcome)) => self.finish_put(index, outcome),
            Ok(Done::Map(index, map)) => {
                self.finish_map(index, map);
                Ok(())
            }
            Err(_) => Err(Error::system(
                "A request ended in a bug of this destination: the log says where.",
            )),
        }
    }

    fn finish_put(&mut self, index: StreamIndex, outcome: PutOutcome) -> Result<(), Error> {
        let outlet = &mut self.streams[index];
        outlet.in_flight_requests -= 1;
        self.in_flight_requests -= 1;
        self.in_flight_bytes -= outcome.batch.bytes;
        match &outcome.result {
            Ok(_) => outlet.window = (outlet.window + 1).min(IN_FLIGHT_REQUESTS_MAX),
            Err(fault) => {
                outlet.window = (outlet.window / 2).max(1);
                tracing::debug!(
                    stream = outlet.stream.name(),
                    records = outcome.batch.records.len(),
                    bytes = outcome.batch.bytes,
                    fault = %fault.detail,
                    "A PutRecords request failed."
                );
            }
        }
        let (applied, error) = if self.encoding.learn(&outcome) {
            (outlet.stream.buffer().take_back(outcome), None)
        } else {
            outlet.stream.apply(outcome)
        };
        self.held_bytes -= applied.freed_bytes;
        for token in applied.stored {
            self.checkpoints.acknowledge(token);
        }
        self.release();
        error.map_or(Ok(()), Err)
    }

    fn finish_map(&mut self, index: StreamIndex, map: Result<ShardMap, Fault>) {
        let outlet = &mut self.streams[index];
        let now = Instant::now();
        outlet.map = MapRequest::From(Some(now + MAP_PAUSE));
        match map {
            Ok(map) => {
                let (name, shards) = (outlet.stream.name().to_owned(), map.len());
                if outlet.stream.buffer().has_map() {
                    tracing::info!(stream = name, shards, "The stream's shards have changed.");
                } else {
                    tracing::info!(
                        stream = name,
                        shards,
                        "A shard is at its limit: from now on, each shard has its own pace."
                    );
                }
                outlet.stream.buffer().set_map(map, now);
            }
            Err(fault) if fault.is_retryable() => outlet.stream.buffer().map_failed(),
            Err(fault) => {
                let permission = if fault.kind == FaultKind::Denied {
                    "; allow kinesis:ListShards to let each shard have its own pace"
                } else {
                    ""
                };
                tracing::info!(
                    stream = outlet.stream.name(),
                    code = %fault.code,
                    "A shard is at its limit, and the list of shards cannot be had: the stream is paced as a \
                     whole{permission}."
                );
                outlet.map = MapRequest::Refused;
            }
        }
    }

    /// Whether there is nothing more to wait for.
    fn is_done(&mut self, ending: &Ending) -> bool {
        let out_of_time = ending
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        let nothing_buffered = !ending.sends
            || self
                .streams
                .iter_mut()
                .all(|outlet| outlet.stream.buffer().is_empty());
        out_of_time || (self.in_flight_requests == 0 && nothing_buffered)
    }

    /// The last words, and the verdict.
    fn end(mut self, error: Option<Error>) -> Result<(), Error> {
        self.release();
        if self.noise_lines > 0 {
            tracing::error!(
                lines = self.noise_lines,
                "Some lines of the input were not Airbyte messages and were skipped; see above."
            );
        }
        let elapsed = self.started.elapsed();
        let mut totals = report::Totals::default();
        for outlet in &mut self.streams {
            totals.add(outlet.stream.buffer().tally());
            report::stream(&mut outlet.stream, elapsed);
        }
        report::sync(&totals, elapsed);
        let (outstanding, pending) = (self.checkpoints.outstanding(), self.checkpoints.pending());
        match error {
            Some(error) => {
                tracing::info!(
                    records_not_acknowledged = outstanding,
                    states_held_back = pending,
                    "The sync ends early; a new one goes on from the last state that was sent."
                );
                Err(error)
            }
            // Exit 0 means that everything is stored: asked here once more, of the checkpoints.
            None if outstanding > 0 || pending > 0 => Err(Error::system(
                "The sync came to its end with records that are not acknowledged, which is a bug of this destination. Run \
                 it again: it goes on from the last state.",
            )
            .with_internal(format!("{outstanding} records, {pending} states"))),
            None if self.output.is_closed() => Err(Error::system("Standard output was closed.")),
            None => Ok(()),
        }
    }

    fn report_progress(&mut self) {
        let mut sum = report::Totals::default();
        for outlet in &mut self.streams {
            sum.add(outlet.stream.buffer().tally());
        }
        report::progress(
            &sum,
            self.started.elapsed(),
            self.in_flight_requests,
            self.held_bytes,
        );
    }
}

fn held_bytes_of(line: &StateLine) -> usize {
    line.len_bytes() + HELD_STATE_OVERHEAD_BYTES
}

impl Ending {
    /// Everything was read: everything is to be stored.
    const EOF: Self = Self {
        error: None,
        deadline: None,
        sends: true,
    };

    /// The input cannot be read on. What came before is good, and is stored if that is quick.
    fn input(error: Error) -> Self {
        Self {
            error: Some(error),
            deadline: Some(Instant::now() + SHUTDOWN_GRACE),
            sends: true,
        }
    }

    /// Somebody wants the process to end.
    fn stopped(signal: &str) -> Self {
        Self::input(Error::transient(format!(
            "The sync was stopped by {signal}. What was read until then is stored as far as the states say."
        )))
    }

    /// A stream was given up. Nothing more is sent; requests in flight may still earn their states.
    /// The first error and the first deadline are the ones that count.
    fn failed(error: Error, before: Option<Self>) -> Self {
        let before = before.unwrap_or(Self::EOF);
        let deadline = Instant::now() + FAILURE_GRACE;
        Self {
            error: before.error.or(Some(error)),
            deadline: Some(before.deadline.map_or(deadline, |of| of.min(deadline))),
            sends: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_failure_neither_replaces_the_first_nor_puts_the_end_off() {
        let first = Ending::failed(Error::config("first"), Some(Ending::EOF));
        let deadline = first.deadline.unwrap();
        let second = Ending::failed(Error::system("second"), Some(first));
        assert_eq!(second.error.unwrap().message(), "first");
        assert_eq!(second.deadline, Some(deadline));
    }
}
