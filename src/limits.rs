//! Every number of the service and of this program, once, with its unit and its source.
//!
//! Numbers of Kinesis come from its [quotas page][quotas] and from the reference of the operation
//! they belong to. Numbers of our own say what they protect.
//!
//! [quotas]: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html

use std::time::Duration;

// ---- Kinesis: PutRecords -------------------------------------------------------------------------

/// Records in one PutRecords request, at most
/// ([PutRecords](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html)).
pub const REQUEST_RECORDS_MAX: usize = 500;

/// Bytes of data and partition key in one record, at most, unless a stream was set to take more.
pub const RECORD_BYTES_MAX_DEFAULT: usize = 1024 * 1024;

// ---- Kinesis: control plane ----------------------------------------------------------------------

/// CreateStream calls a second, for the whole account
/// ([CreateStream](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html)).
pub const CREATE_STREAM_CALLS_PER_SECOND: u32 = 5;

/// Streams that may be in `CREATING` at one time, for the whole account (CreateStream, as above).
pub const STREAMS_CREATING_MAX: usize = 5;

/// DescribeStreamSummary calls a second, for the whole account
/// ([DescribeStreamSummary](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DescribeStreamSummary.html)).
pub const DESCRIBE_SUMMARY_CALLS_PER_SECOND: u32 = 20;

/// The pause before a shard is asked again after an empty answer: GetRecords takes five calls a
/// second and shard
/// ([GetRecords](https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html)).
pub const GET_RECORDS_PAUSE: Duration = Duration::from_millis(200);

// ---- Ours: batches and requests ------------------------------------------------------------------

/// The oldest record of a buffer waits at most this long for company before it is sent.
pub const BATCH_AGE_MAX: Duration = Duration::from_millis(500);

/// Bytes of one Kinesis record that holds many, at most, with its partition key: what the Kinesis Producer
/// Library aims at by default (`AggregationMaxSize` in its
/// [configuration](https://github.com/awslabs/amazon-kinesis-producer/blob/master/java/amazon-kinesis-producer-sample/default_config.properties)),
/// so consumers are used to it. A single record may be larger; it goes alone.
pub const AGGREGATE_BYTES_MAX: usize = 51_200;

/// Bytes of data and partition keys in one PutRecords request, at most; a larger record goes alone.
///
/// Kinesis takes 10 MiB today, and took 5 MiB until 2025, as compatible servers still do. Less is better: a socket takes
/// so much at once, and the body of the request is gone.
pub const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// PutRecords requests in flight at one time in the process: with 100 ms to the endpoint and 500 records each, one stream
/// alone gets half a million records a second through its share of them. Bytes bound them too.
pub const IN_FLIGHT_REQUESTS_MAX: usize = 128;

/// Bytes of records in requests that are not sent yet, at most: until then, a body is a second copy of its records. Where
/// sending is quick, this is never reached; over HTTP/2, bodies wait for the connection's window.
pub const UNSENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A stream may have this many times the free request slots in flight, so that however many streams
/// are stuck, one that is not finds a slot.
pub const IN_FLIGHT_SHARE_OF_FREE: usize = 4;

/// PutRecords requests that a stream may have in flight before the first one has worked. Each that works
/// allows one more, so that a stream at its limit is not flooded before it can say so.
pub const WINDOW_START: usize = 2;

/// Bytes of records and states held in memory (buffered, in flight, or waiting to be released), after
/// which stdin is not read any more.
pub const HELD_BYTES_MAX: usize = 22 * 1024 * 1024;

/// The same, at least: one record of the largest kind must fit, with some to spare.
pub const HELD_BYTES_MIN: usize = 4 * 1024 * 1024;

/// In a container with a memory limit, this part of it may be held: what is held exists some four times
/// at the worst (as records, as requests, as bytes to send, as input), and there is more to a process.
pub const HELD_SHARE_OF_MEMORY: usize = 16;

/// What a held record costs besides its bytes: the bookkeeping around it, and room in a queue.
pub const HELD_RECORD_OVERHEAD_BYTES: usize = 112;

/// The same for a record with a partition key of its own: the key, and its place among those that wait.
pub const HELD_KEY_OVERHEAD_BYTES: usize = 160;

/// The same for a held state, which is mostly bookkeeping where a state is small.
pub const HELD_STATE_OVERHEAD_BYTES: usize = 160;

/// Bytes of states that are written to stdout at once, or one state if that is longer.
pub const RELEASED_BYTES_MAX: usize = 256 * 1024;

// ---- Ours: input ---------------------------------------------------------------------------------

/// Bytes that one read from stdin asks for, at most.
pub const READ_BYTES: usize = 128 * 1024;

/// Bytes that the pipe at stdin is asked to hold: as many as Linux gives without privileges, instead of 64 KiB. Source
/// and connector wait for each other less often.
pub const PIPE_BYTES: usize = 1024 * 1024;

/// A line longer than this is refused. Sources emit lines of 20 MB and more; nothing that Kinesis
/// takes needs more than 10 MiB.
pub const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A buffer for a long line grows by this much at the most: what it has too much is memory for nothing.
pub const LINE_GROWTH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of memory that the records of one stream share a piece of.
pub const ARENA_BYTES_MAX: usize = 64 * 1024;

/// The same for all streams together: with many streams, the pieces are smaller.
pub const ARENAS_BYTES: usize = 1024 * 1024;

/// Blocks of parsed input that may wait for the consumer, while the next one is made. One, because a
/// block may hold a state as long as a line may be.
pub const INPUT_BLOCKS_MAX: usize = 1;

// ---- Ours: time ----------------------------------------------------------------------------------

/// A TCP and TLS connection must stand within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One call must be answered within this time, and a PutRecords call within this time and
/// [`ATTEMPT_BYTES_PER_SECOND_MIN`]. The AWS SDK for Java allows 10 s for Kinesis.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The slowest link that a request is given time for (1 Mbit/s).
pub const ATTEMPT_BYTES_PER_SECOND_MIN: usize = 128 * 1024;

/// Memory of requests that are done and that is kept for the next ones, in bytes: a few requests of 500 small records, or one large one.
pub const SPARE_BODIES_BYTES_MAX: usize = 1024 * 1024;

/// HTTP clients that PutRecords calls over TLS take in turn. Where the server chooses HTTP/2, this is the number of
/// connections, and of windows.
pub const TLS_CLIENTS: usize = 8;

/// A pooled connection that was idle for this long is not used again: load balancers drop idle
/// connections without a word, and a sync can be silent for minutes.
pub const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(20);

/// The first pause of a backoff, before jitter.
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// The longest pause of a backoff, before jitter.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The longest pause for one shard that takes nothing. A shard's limits count by the second, and what asks
/// whether it takes any again is a record or two.
pub const SHARD_PAUSE_MAX: Duration = Duration::from_secs(2);

/// One stream may take this long to become writable, from the call that created it or from the
/// moment it was first found not writable. AWS needs some 30 s.
pub const STREAM_WRITABLE_MAX: Duration = Duration::from_secs(600);

/// A call to create or delete a stream that is throttled is tried again for this long at least: other
/// streams of the account may be in `CREATING`.
pub const CONTROL_THROTTLED_MAX: Duration = Duration::from_secs(60);

/// The pause between two looks at a stream that is not writable yet.
pub const STREAM_POLL: Duration = Duration::from_millis(500);

/// After SIGTERM, SIGINT or an unreadable line: time for what is buffered to be stored.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// After an error of the service: time for the answers of requests that are already in flight.
pub const FAILURE_GRACE: Duration = Duration::from_secs(5);

/// `check` tries calls that fail again for this long. With the attempt timeout, it answers within 30 s
/// when nothing does.
pub const CHECK_FAULTS_MAX: Duration = Duration::from_secs(5);

/// The probe stream of `check` must become writable within this time.
pub const CHECK_WRITABLE_MAX: Duration = Duration::from_secs(180);

/// `check` tries to delete its probe stream for this long.
pub const CHECK_CLEAN_UP_MAX: Duration = Duration::from_secs(8);

/// A stream whose CreateStream was not answered may still appear within this time.
pub const CHECK_SETTLE: Duration = Duration::from_secs(1);

/// Time between two progress lines.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(5);

// ---- Ours: output --------------------------------------------------------------------------------

/// Characters of a log message or a stack trace; the rest is cut.
pub const LOG_CHARS_MAX: usize = 16_000;

/// Characters of a message that a server sent, where it is quoted.
pub const SERVER_MESSAGE_CHARS_MAX: usize = 500;

// ---- Kinesis: shards -----------------------------------------------------------------------------

/// Records that one shard takes a second.
pub const SHARD_RECORDS_PER_SECOND: f64 = 1000.0;

/// Bytes of data and partition keys that one shard takes a second.
pub const SHARD_BYTES_PER_SECOND: f64 = 1024.0 * 1024.0;
