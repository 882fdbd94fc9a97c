//! `write`: records in, states out.

mod data;
mod delivery;
mod failures;
mod input;
mod secrets;
mod states;
mod streams;

use std::fmt::Display;

use crate::support::messages::{catalog, stream};
use crate::support::program::{Program, Running, Write};
use crate::support::server::Kinesis;

/// A server that has these streams already, of one shard each.
async fn kinesis_with(streams: &[&str]) -> Kinesis {
    let kinesis = Kinesis::start().await;
    for stream in streams {
        kinesis.create_stream(stream, 1).await;
    }
    kinesis
}

/// A sync of the streams with these names and no namespace.
fn write_to(kinesis: &Kinesis, streams: &[&str]) -> Program {
    Write::to(kinesis).catalog(catalog(streams.iter().copied().map(stream)))
}

/// Starts a sync of one stream, and waits until that is ready.
async fn ready(write: Program) -> Running {
    let running = write.spawn().await;
    running
        .wait_for_message(|line| line.logs("INFO", "is ready"))
        .await;
    running
}

/// The lines of messages.
fn lines<T: Display>(messages: impl IntoIterator<Item = T>) -> Vec<String> {
    let messages = messages.into_iter();
    messages.map(|message| message.to_string()).collect()
}

/// The data of everything in a stream, sorted.
async fn data_in(kinesis: &Kinesis, stream: &str) -> Vec<String> {
    let stored = kinesis.stored(stream).await.into_iter();
    let mut data: Vec<String> = stored.map(|record| record.data).collect();
    data.sort();
    data
}
