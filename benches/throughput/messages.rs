//! The input: Airbyte messages as a database source writes them, the same ones in every run.
//!
//! The size of a record is the length of its whole line on stdin, line end included: what a person
//! sees of the input, and what the connector and the floor both begin with. A line of 270 bytes has
//! 165 bytes of `data`, and comes to some 310 bytes as a record on Kinesis.

use std::ops::RangeInclusive;

use fastrand::Rng;

/// A record line is never longer than this in any case.
const MIXED: RangeInclusive<usize> = 200..=10 * 1024;

/// The kinds of columns that there are.
const COLUMNS: usize = 6;

/// An input is written again and again from one block of at least this size.
const BLOCK_BYTES_MIN: usize = 2 * 1024 * 1024;

/// A block has a multiple of this many records.
pub(crate) const BLOCK_RECORDS: usize = 1000;

/// How long the lines of records are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Size {
    /// All of this many bytes: a row of a few columns, and what is left is one long text.
    Bytes(usize),
    /// All of this many bytes, and nothing but short columns: the most JSON that fits.
    Columns(usize),
    /// From 200 bytes to 10 KiB; as many from 200 to 400 as from 400 to 800.
    Mixed,
}

/// A piece of input that can be repeated.
pub(crate) struct Block {
    /// Records, and behind every so many of them a state.
    pub(crate) bytes: Vec<u8>,
    /// How many records.
    pub(crate) records: usize,
    /// How many states.
    pub(crate) states: usize,
}

/// Makes a block: records of `streams` streams in no order, and a state of one of the streams behind
/// each `state_every` records.
pub(crate) fn block(size: Size, streams: usize, state_every: usize) -> Block {
    let mut random = Rng::with_seed(270);
    let mut bytes = Vec::new();
    let (mut records, mut states) = (0, 0);
    while bytes.len() < BLOCK_BYTES_MIN || records % BLOCK_RECORDS != 0 {
        let stream = stream_name(random.usize(..streams));
        let line_bytes = match size {
            Size::Bytes(bytes) | Size::Columns(bytes) => bytes,
            Size::Mixed => mixed(&mut random),
        };
        let columns = match size {
            Size::Columns(_) => usize::MAX,
            Size::Bytes(_) | Size::Mixed => COLUMNS,
        };
        write_record(&mut random, &stream, line_bytes, columns, &mut bytes);
        records += 1;
        if records % state_every == 0 {
            write_state(&mut random, &stream, &mut bytes);
            states += 1;
        }
    }
    Block {
        bytes,
        records,
        states,
    }
}

fn mixed(random: &mut Rng) -> usize {
    let mut bytes = *MIXED.start();
    while bytes * 2 < *MIXED.end() && random.u8(..6) > 0 {
        bytes *= 2;
    }
    random.usize(bytes..=(bytes * 2).min(*MIXED.end()))
}

/// The name of the stream with this number, from 0.
pub(crate) fn stream_name(number: usize) -> String {
    format!("stream_{number:02}")
}

/// The configured catalog of `streams` streams.
pub(crate) fn catalog(streams: usize) -> String {
    let streams: Vec<_> = (0..streams)
        .map(|number| {
            format!(
                r#"{{"stream":{{"namespace":"public","name":"{}","json_schema":{{}},"supported_sync_modes":["incremental"]}},"sync_mode":"incremental","destination_sync_mode":"append","primary_key":[["id"]]}}"#,
                stream_name(number)
            )
        })
        .collect();
    format!(r#"{{"streams":[{}]}}"#, streams.join(","))
}

/// One line with a record, `line_bytes` long with its line end, and with so many columns at the most.
fn write_record(
    random: &mut Rng,
    stream: &str,
    line_bytes: usize,
    columns: usize,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let id = random.u32(100_000..1_000_000);
    push(
        out,
        &format!(
            r#"{{"type":"RECORD","record":{{"namespace":"public","stream":"{stream}","emitted_at":1795372724066,"data":{{"id":{id}"#
        ),
    );
    let (before_note, end) = (r#","note":""#, "\"}}}\n");
    let room = line_bytes.saturating_sub(before_note.len() + end.len());
    for number in 0..columns {
        let field = field(random, number);
        if out.len() - start + field.len() > room {
            break;
        }
        push(out, &field);
    }
    push(out, before_note);
    while out.len() - start < line_bytes - end.len() {
        out.push(random.alphanumeric().try_into().unwrap_or(b'x'));
    }
    push(out, end);
}

/// One more property of a record.
fn field(random: &mut Rng, number: usize) -> String {
    let round = number / COLUMNS;
    match number % COLUMNS {
        0 => format!(
            r#","email_{round}":"user{}@example.com""#,
            random.u32(1000..10_000)
        ),
        1 => format!(r#","active_{round}":{}"#, random.bool()),
        2 => format!(
            r#","amount_{round}":{}.{}"#,
            random.u32(10..10_000),
            random.u32(10..100)
        ),
        3 => format!(
            r#","updated_{round}":"2026-11-03T14:{}:{}Z""#,
            random.u32(10..60),
            random.u32(10..60)
        ),
        4 => format!(r#","tags_{round}":["new","eu",{}]"#, random.u32(..100)),
        _ => format!(
            r#","address_{round}":{{"city":"Zürich","street":"Seestrasse {}","floor":null}}"#,
            random.u32(1..500)
        ),
    }
}

fn write_state(random: &mut Rng, stream: &str, out: &mut Vec<u8>) {
    push(
        out,
        &format!(
            r#"{{"type":"STATE","state":{{"type":"STREAM","stream":{{"stream_descriptor":{{"namespace":"public","name":"{stream}"}},"stream_state":{{"cursor":"2026-11-03T14:05:09Z","id":{}}}}}}}}}"#,
            random.u32(100_000..1_000_000)
        ),
    );
    out.push(b'\n');
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
