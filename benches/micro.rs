//! The parts that every record goes through, alone: `cargo bench --bench micro`.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::Arc;
use std::time::SystemTime;

use destination_kinesis::catalog::Catalog;
use destination_kinesis::checkpoint::{Checkpoints, Scope};
use destination_kinesis::config::KeySource;
use destination_kinesis::input::Reader;
use destination_kinesis::protocol;
use destination_kinesis::record::EncodedRecord;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use uuid::Uuid;

#[path = "throughput/messages.rs"]
mod messages;

use messages::{Size, block, catalog};

/// Lengths of a record's line, in bytes.
const LINE_BYTES: [usize; 3] = [270, 1024, 10 * 1024];

/// Records that are admitted before the first of them is acknowledged.
const IN_FLIGHT_RECORDS: u64 = 5000;

fn main() {
    divan::main();
}

/// stdin as it is read: lines found, parsed, and made into envelopes.
#[divan::bench(args = [Size::Bytes(270), Size::Bytes(1024), Size::Columns(1024), Size::Bytes(10 * 1024), Size::Mixed])]
fn read_lines(bencher: Bencher<'_, '_>, size: Size) {
    let block = block(size, 1, 1000);
    let Ok(catalog) = Catalog::from_json(catalog(1).as_bytes()).map(Arc::new) else {
        return;
    };
    bencher
        .counter(ItemsCount::new(block.records + block.states))
        .counter(BytesCount::new(block.bytes.len()))
        .bench(|| {
            let source = Cursor::new(block.bytes.as_slice());
            let mut reader = Reader::new(
                source,
                Arc::clone(&catalog),
                KeySource::Random,
                vec![1024 * 1024],
            );
            while black_box(reader.next_block()).end.is_none() {}
        });
}

/// A record's line, to the fields that matter.
#[divan::bench(args = LINE_BYTES)]
fn parse(bencher: Bencher<'_, '_>, line_bytes: usize) {
    let line = record_line(line_bytes);
    bencher
        .counter(BytesCount::new(line.len()))
        .bench(|| protocol::parse(black_box(&line)).is_ok());
}

/// A record's data, to the envelope.
#[divan::bench(args = LINE_BYTES)]
fn encode(bencher: Bencher<'_, '_>, line_bytes: usize) {
    let line = record_line(line_bytes);
    let Ok(protocol::Message::Record(record)) = protocol::parse(&line) else {
        return;
    };
    let (id, taken_in) = (Uuid::new_v4(), SystemTime::now());
    bencher
        .counter(BytesCount::new(record.data.len()))
        .bench(|| EncodedRecord::encode(id, black_box(record.data), taken_in));
}

/// A state behind every record, and the oldest of many records acknowledged each time.
#[divan::bench]
fn checkpoints(bencher: Bencher<'_, '_>) {
    let mut checkpoints = Checkpoints::new(1);
    let mut in_flight: VecDeque<_> = (0..IN_FLIGHT_RECORDS)
        .map(|state| {
            let token = checkpoints.admit_record(0);
            checkpoints.admit_state(Scope::Descriptor(0), state);
            token
        })
        .collect();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        in_flight.push_back(checkpoints.admit_record(0));
        checkpoints.admit_state(Scope::Descriptor(0), 0);
        if let Some(token) = in_flight.pop_front() {
            checkpoints.acknowledge(token);
        }
        checkpoints.release()
    });
}

/// The first record of a block.
fn record_line(line_bytes: usize) -> Vec<u8> {
    let block = block(Size::Bytes(line_bytes), 1, 1000);
    let line = block.bytes.split(|&byte| byte == b'\n').next();
    line.unwrap_or_default().to_vec()
}
