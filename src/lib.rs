//! Airbyte destination for Amazon Kinesis Data Streams: the architecture page.
//!
//! # The guarantee
//!
//! *No state leaves before every record it covers is acknowledged by Kinesis, and exit code 0 means that
//! everything is stored.* Everything below serves this pair. An acknowledgement is an entry of a
//! PutRecords answer with a sequence number; nothing else counts as one.
//!
//! # The flow
//!
//! ```text
//! stdin ─▶ input ─▶ protocol ─▶ consumer ─▶ stream (buffer, lanes) ─▶ put ─▶ Kinesis
//!                                 │   ▲                                │
//!                                 ▼   └────────── PutOutcome ◀─────────┘
//!                            checkpoint ─▶ output ─▶ stdout
//! ```
//!
//! # The modules, in reading order
//!
//! | module | one line |
//! |---|---|
//! | [`cli`] | arguments → [`cli::Command`] |
//! | [`spec`], [`check`], [`mod@write`] | one verb, one file |
//! | [`config`] | [`config::KinesisConfig`]: what the user wrote → what is valid; secrets cannot be printed |
//! | [`catalog`] | descriptors (Airbyte streams) and the Kinesis stream each goes to |
//! | [`name_transformer`] | namespace and name → the stream's name in Kinesis |
//! | [`input`] | the stdin thread: bytes → lines → blocks of items |
//! | [`protocol`] | Airbyte messages, only the fields we use; `data` and `state` stay as they came |
//! | [`record`], [`partition_key`] | the envelope around `data`, its size, and the way back; keys made of a primary key |
//! | [`consumer`] | [`consumer::MessageConsumer`]: the loop that owns all that changes |
//! | [`checkpoint`] | which state may go out: admit, acknowledge, release |
//! | [`stream`] | [`stream::KinesisStream`]: create, put, flush, get records, delete, close |
//! | [`buffer`], [`batch`] | what is held for one stream; when a batch is due, and what becomes of it |
//! | [`pacing`], [`shard_map`] | how fast a shard is sent to; which shard takes a key |
//! | [`put`] | one try to store one batch, and every entry of the answer read |
//! | [`wire`], [`cbor`], [`aggregate`], [`sha256`] | the bytes of that try and its answer; the encoding of the AWS SDK for Java; many records in one |
//! | [`fault`], [`retry`] | what went wrong and what helps; pauses between tries |
//! | [`create`], [`read`] | the control plane within the account's limits; reading back |
//! | [`client`] | [`client::KinesisClientPool`]: one SDK client for each distinct connection |
//! | [`output`], [`logging`], [`report`] | the one owner of stdout; `tracing` → `LOG`; progress and summary |
//! | [`signals`] | SIGTERM and SIGINT |
//! | [`error`], [`limits`], [`memory`] | what the platform and a person are told; every number with its source |
//!
//! # What always holds
//!
//! 1. *Not acknowledged is the default.* A record's [`checkpoint::Token`] is given back to the checkpoints
//!    only out of [`buffer::Applied::stored`]. A dropped task, a panic, a lost answer leave it outstanding.
//! 2. *One owner.* All that changes belongs to the consumer's loop. Requests are tasks that take a batch
//!    and return it. There is no lock on the way of a record.
//! 3. *One try a task.* A put is tried once; whether, when and with which neighbours a record goes again
//!    is decided in one place, [`buffer::Buffer::apply`], which is pure and has no clock of its own.
//! 4. *Everything has a bound*, named with its unit in [`limits`]: bytes held, requests and bytes in flight,
//!    a line, a wait, a shutdown. When the bound on held bytes is reached, stdin is not read.
//! 5. *The budget is lack of progress.* A stream is given up when nothing of it was stored for the whole
//!    retry timeout, or at once when no try can work.
//! 6. *Only [`output`] touches stdout*, and nothing writes to stderr.
//! 7. *Secrets and record contents are in no output*: types that hold them have no telling `Debug`, events
//!    of other crates are not printed, and what a server quotes is cut out.

pub mod aggregate;
pub mod batch;
pub mod buffer;
pub mod catalog;
pub mod cbor;
pub mod check;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod config;
pub mod consumer;
pub mod create;
pub mod error;
pub mod fault;
pub mod input;
pub mod limits;
pub mod logging;
pub mod memory;
pub mod name_transformer;
pub mod output;
pub mod pacing;
pub mod partition_key;
pub mod protocol;
pub mod put;
pub mod read;
pub mod record;
pub mod report;
pub mod retry;
pub mod sha256;
pub mod shard_map;
pub mod signals;
pub mod spec;
pub mod stream;
pub mod wire;
pub mod write;
