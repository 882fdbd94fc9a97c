//! One PutRecords request in the making: what is held, and the pure rules of fit and full.

use std::time::Instant;

use crate::aggregate::AggregateSize;
use crate::checkpoint::Token;
use crate::limits::{HELD_KEY_OVERHEAD_BYTES, HELD_RECORD_OVERHEAD_BYTES};
use crate::pacing::cost;
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
    /// Whether it is in a Kinesis record with another one's partition key in front.
    pub rides_along: bool,
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
            rides_along: false,
        }
    }

    /// What it takes of the memory's bound, in bytes.
    pub fn held_bytes(&self) -> usize {
        let key_bytes = self.record.own_key().map_or(0, |_| HELD_KEY_OVERHEAD_BYTES);
        self.record.size_bytes() + HELD_RECORD_OVERHEAD_BYTES + key_bytes
    }
}

/// How much one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// Kinesis records, at most.
    pub records: usize,
    /// Bytes of data and partition keys, at most.
    pub bytes: usize,
    /// Bytes of a Kinesis record that holds many, at most. `None`: each holds one.
    pub aggregate_bytes: Option<usize>,
}

/// Where a record goes in a batch.
struct Place {
    /// Whether the batch's last Kinesis record takes it in.
    joins: bool,
    /// The Kinesis record with it.
    entry: Entry,
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
    /// The Kinesis records, in order.
    entries: Vec<Entry>,
}

/// One Kinesis record of a batch.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// How many of the batch's records are in it.
    records: usize,
    /// As Kinesis counts them.
    bytes: usize,
    /// The lane that all of them belong to.
    lane: usize,
    /// How large it is, or would be, as an aggregate.
    aggregate: AggregateSize,
}

impl Batch {
    /// An empty one.
    pub fn new(bounds: BatchBounds, map_version: u64) -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
            map_version,
            bounds,
            entries: Vec::new(),
        }
    }

    /// Where a record would go.
    fn place(&self, held: &Held) -> Place {
        let alone = |aggregate| Place {
            joins: false,
            entry: Entry {
                records: 1,
                bytes: held.record.size_bytes(),
                lane: held.lane,
                aggregate,
            },
        };
        let Some(bytes_max) = self.bounds.aggregate_bytes else {
            return alone(AggregateSize::default());
        };
        let alone = alone(AggregateSize::default().with(held));
        let Some(last) = self.entries.last() else {
            return alone;
        };
        let aggregate = last.aggregate.with(held);
        if last.lane != held.lane || aggregate.bytes() > bytes_max {
            return alone;
        }
        Place {
            joins: true,
            entry: Entry {
                records: last.records + 1,
                bytes: aggregate.bytes(),
                lane: held.lane,
                aggregate,
            },
        }
    }

    fn bytes_with(&self, place: &Place) -> usize {
        let replaced = self.entries.last().filter(|_| place.joins);
        self.bytes - replaced.map_or(0, |entry| entry.bytes) + place.entry.bytes
    }

    /// Whether a record fits in, and what it costs a shard there, in shard-seconds. The first one always does: whether a
    /// record alone is too large is decided when it is admitted.
    pub fn room_for(&self, held: &Held) -> Option<f64> {
        let place = self.place(held);
        let fits = self.records.is_empty()
            || ((place.joins || self.entries.len() < self.bounds.records)
                && self.bytes_with(&place) <= self.bounds.bytes);
        fits.then(|| {
            let before = self.entries.last().filter(|_| place.joins);
            cost(place.entry.bytes) - before.map_or(0.0, |entry| cost(entry.bytes))
        })
    }

    /// Puts a record behind the others.
    pub fn push(&mut self, mut held: Held) {
        let place = self.place(&held);
        self.bytes = self.bytes_with(&place);
        if place.joins {
            self.entries.pop();
        }
        self.entries.push(place.entry);
        held.rides_along = place.joins;
        self.records.push(held);
    }

    /// The Kinesis records, each with what it holds.
    pub fn entries(&self) -> impl Iterator<Item = &[Held]> {
        let mut rest = self.records.as_slice();
        self.entries.iter().map(move |entry| {
            let (records, behind) = rest.split_at(entry.records);
            rest = behind;
            records
        })
    }

    /// How many Kinesis records there are.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
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
    pub fn halve(self) -> Result<[Self; 2], Self> {
        let half = self.records.len() / 2;
        if half == 0 {
            return Err(self);
        }
        let mut halves = [(); 2].map(|()| Self::new(self.bounds, self.map_version));
        for (index, held) in self.records.into_iter().enumerate() {
            halves[usize::from(index >= half)].push(held);
        }
        Ok(halves)
    }
}
