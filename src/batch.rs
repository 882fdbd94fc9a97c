//! One PutRecords request in the making: what is held, and the pure rules of fit and full.

use std::time::Instant;

use crate::checkpoint::Token;
use crate::limits::HELD_RECORD_OVERHEAD_BYTES;
use crate::record::EncodedRecord;

/// A record that is not acknowledged yet.
#[derive(Debug)]
pub struct Held {
    /// What will be stored.
    pub record: EncodedRecord,
    /// For the checkpoints.
    pub token: Token,
    /// When it came.
    pub admitted: Instant,
    /// The lane of the buffer that it belongs to.
    pub lane: usize,
    /// When it first failed for a reason other than throttling.
    pub failing_since: Option<Instant>,
    /// Whether it was refused because its shard was too busy.
    pub was_throttled: bool,
    /// Whether an answer was lost after it was sent, so that it may be stored already.
    pub may_be_stored: bool,
}

impl Held {
    /// A record that has just come.
    pub fn new(record: EncodedRecord, token: Token, now: Instant) -> Self {
        Self {
            record,
            token,
            admitted: now,
            lane: 0,
            failing_since: None,
            was_throttled: false,
            may_be_stored: false,
        }
    }

    /// What it takes of the memory's bound, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.record.size_bytes() + HELD_RECORD_OVERHEAD_BYTES
    }
}

/// How much one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// Records, at most.
    pub records: usize,
    /// Bytes of data and partition keys, at most.
    pub bytes: usize,
}

/// The records of one request, in the order of the request.
#[derive(Debug)]
pub struct Batch {
    /// Never empty once sealed.
    pub records: Vec<Held>,
    /// Data and partition keys, as Kinesis counts them.
    pub bytes: usize,
    /// The version of the shard map that gave the records their lanes.
    pub map_version: u64,
    bounds: BatchBounds,
}

impl Batch {
    /// An empty one.
    pub fn new(bounds: BatchBounds, map_version: u64) -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
            map_version,
            bounds,
        }
    }

    /// Whether a record of `bytes` bytes fits in. The first one always does: whether a record alone is
    /// too large is decided when it is admitted.
    pub fn fits(&self, bytes: usize) -> bool {
        self.records.is_empty()
            || (self.records.len() < self.bounds.records && self.bytes + bytes <= self.bounds.bytes)
    }

    /// Puts a record behind the others.
    pub fn push(&mut self, held: Held) {
        self.bytes += held.record.size_bytes();
        self.records.push(held);
    }

    /// Whether not one more record fits in.
    pub fn is_full(&self) -> bool {
        self.records.len() >= self.bounds.records
    }

    /// Whether it was made with a shard map.
    pub fn has_map(&self) -> bool {
        self.map_version > 0
    }

    /// What the batch takes of the memory's bound, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.records.iter().map(Held::held_bytes).sum()
    }

    /// Two batches of half the records each, to find out which half is not acceptable. `None` for a
    /// batch of one.
    pub fn halve(mut self) -> Result<[Self; 2], Self> {
        if self.records.len() < 2 {
            return Err(self);
        }
        let mut back = Self::new(self.bounds, self.map_version);
        for held in self.records.split_off(self.records.len() / 2) {
            back.push(held);
        }
        self.bytes -= back.bytes;
        Ok([self, back])
    }
}
