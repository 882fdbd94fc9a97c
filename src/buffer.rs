//! The records of one Kinesis stream on their way: queued, sealed into batches, and taken back when
//! they are refused. Pure: no I/O, and the clock comes from outside.
//!
//! A buffer begins with one lane for the whole stream. Once a shard refuses records, the buffer wants
//! the stream's shard map; with it, each shard has a lane of its own, so that a busy shard slows its
//! own records down and no others.
//!
//! Records that share a partition key go one at a time: while one of them is in a lane or in flight, those
//! behind it wait apart, so that neither a refusal nor a lost answer can let one overtake another. What is in the
//! lanes can go in any order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batch, BatchBounds, Held};
use crate::checkpoint::Token;
use crate::fault::{Fault, FaultKind};
use crate::limits::{BATCH_AGE_MAX, SHARD_PAUSE_MAX};
use crate::pacing::Pace;
use crate::put::{Answer, PutOutcome};
use crate::retry::Backoff;
use crate::shard_map::ShardMap;

/// What [`Buffer::seal`] found.
#[derive(Debug)]
pub enum Seal {
    /// Send this.
    Batch(Batch),
    /// Nothing is due before this moment, unless more comes in.
    Wait(Instant),
    /// There is nothing to send.
    Empty,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Applied {
    /// Records that Kinesis has acknowledged.
    pub stored: Vec<Token>,
    /// What those took of the memory's bound, in bytes.
    pub freed_bytes: usize,
    /// Records that will be sent again.
    pub again: usize,
    /// Whether trying on makes no sense. What is not stored by then is lost to the buffer, and the
    /// checkpoints hold back for good what covers it.
    pub give_up: Option<GiveUp>,
}

impl Applied {
    fn giving_up(give_up: GiveUp) -> Self {
        Self {
            give_up: Some(give_up),
            ..Self::default()
        }
    }
}

/// What a stream went through, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of those: data and partition keys.
    pub bytes: u64,
    /// Requests answered or failed.
    pub requests: u64,
    /// Records in those requests.
    pub sent: u64,
    /// Kinesis records in those requests: fewer, where each holds many.
    pub entries: u64,
    /// Records refused because a shard was too busy.
    pub throttled: u64,
    /// Records sent again, for whatever reason.
    pub again: u64,
    /// Records left out because they are too large.
    pub skipped: u64,
    /// Records acknowledged that may have been stored before, when an answer was lost.
    pub maybe_twice: u64,
    /// How long nothing could be sent because every shard with records was at its limit.
    pub waited: Duration,
}

/// Why a stream is given up.
#[derive(Debug)]
pub enum GiveUp {
    /// No try can work, or none did for the whole retry budget.
    Fault(Fault),
    /// Kinesis does not accept this one record.
    Poison {
        /// Its size as Kinesis counts it, in bytes.
        bytes: usize,
        /// What Kinesis says.
        fault: Fault,
    },
}

/// A queue keeps memory for so many records when it has become short: there may be one for each shard of
/// hundreds of streams, most of them idle.
const QUEUE_RECORDS_KEPT: usize = 16;

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Held>,
    /// Data and partition keys of the queue.
    bytes: usize,
    /// How fast it may be sent from, once its shard has refused something.
    pace: Option<Pace>,
    backoff: Backoff,
    /// Not before this moment: everything that was sent was refused.
    resume: Option<Instant>,
    /// Since when every record that was sent was refused.
    stalled_since: Option<Instant>,
}

impl Lane {
    fn push_back(&mut self, held: Held) {
        self.bytes += held.record.size_bytes();
        self.queue.push_back(held);
    }

    /// Takes a record back, whose neighbours may be stored.
    fn push_front(&mut self, mut held: Held) {
        held.record.detach();
        self.bytes += held.record.size_bytes();
        self.queue.push_front(held);
    }

    /// Takes the first record, if the lane's pace and the batch have room for it.
    fn take_into(&mut self, batch: &mut Batch) -> bool {
        let Some(head) = self.queue.front() else {
            return false;
        };
        let Some(cost) = batch.room_for(head) else {
            return false;
        };
        if self.pace.as_mut().is_some_and(|pace| !pace.take(cost)) {
            return false;
        }
        self.bytes -= head.record.size_bytes();
        self.queue
            .pop_front()
            .map(|held| batch.push(held))
            .is_some()
    }

    /// Gives back the memory of a queue that has become short.
    fn shrink(&mut self) {
        let wanted = (2 * self.queue.len()).max(QUEUE_RECORDS_KEPT);
        if self.queue.capacity() > 2 * wanted {
            self.queue.shrink_to(wanted);
        }
    }

    /// Brings the pace up to date. Returns when the lane is due, if it has anything: `None` is now.
    fn due(&mut self, now: Instant) -> Option<Option<Instant>> {
        let head = self.queue.front()?;
        if let Some(resume) = self.resume.filter(|resume| *resume > now) {
            return Some(Some(resume));
        }
        self.resume = None;
        let due = match &mut self.pace {
            Some(pace) => {
                pace.advance(now);
                if pace.is_full() {
                    None
                } else {
                    Some(pace.full_at())
                }
            }
            None => Some(head.admitted + BATCH_AGE_MAX).filter(|due| *due > now),
        };
        Some(due)
    }

    fn is_paced(&self) -> bool {
        self.pace.is_some() || self.resume.is_some()
    }
}

/// The records of one stream that are not acknowledged and not in flight.
#[derive(Debug)]
pub struct Buffer {
    bounds: BatchBounds,
    /// How long nothing may move before the stream is given up.
    retry_budget: Duration,
    /// How many shards the stream is known to have open.
    open_shards: usize,
    map: Option<ShardMap>,
    /// The one before, by which the batches in flight were made.
    old_map: Option<ShardMap>,
    map_version: u64,
    wants_map: bool,
    lanes: Vec<Lane>,
    /// The lane that is drawn from first, the next time.
    next_lane: usize,
    /// For each partition key that has a record in a lane or in flight, the records behind it.
    behind: HashMap<Arc<str>, VecDeque<Held>>,
    /// Parts of a batch that was not acceptable as a whole: each goes alone.
    suspects: VecDeque<Batch>,
    backoff: Backoff,
    /// Not before this moment: the last request failed as a whole.
    resume: Option<Instant>,
    /// Since when every request has failed as a whole.
    stalled_since: Option<Instant>,
    tally: Tally,
    /// Records refused by a busy shard, by its id; empty while the shards are not known.
    refusals: BTreeMap<String, u64>,
    /// Since when nothing can be sent because of the shards.
    waiting_since: Option<Instant>,
}

impl Buffer {
    /// An empty buffer of a stream with `open_shards` shards.
    pub fn new(bounds: BatchBounds, retry_budget: Duration, open_shards: usize) -> Self {
        Self {
            bounds,
            retry_budget,
            open_shards,
            map: None,
            old_map: None,
            map_version: 0,
            wants_map: false,
            lanes: vec![Lane::default()],
            next_lane: 0,
            behind: HashMap::new(),
            suspects: VecDeque::new(),
            backoff: Backoff::default(),
            resume: None,
            stalled_since: None,
            tally: Tally::default(),
            refusals: BTreeMap::new(),
            waiting_since: None,
        }
    }

    /// What the stream went through so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many records each shard refused because it was too busy. The shard without an id: before the shards were known.
    pub fn refusals(&self) -> &BTreeMap<String, u64> {
        &self.refusals
    }

    /// How many shards the stream is known to have open.
    pub fn open_shards(&self) -> usize {
        self.open_shards
    }

    /// Whether nothing is held here. Records in flight are held by their batch.
    pub fn is_empty(&self) -> bool {
        // What waits behind a record in flight is held, too.
        self.suspects.is_empty()
            && self.lanes.iter().all(|lane| lane.queue.is_empty())
            && self.behind.values().all(VecDeque::is_empty)
    }

    /// Adds a record behind all others of its lane, or behind those with its partition key.
    pub fn admit(&mut self, mut held: Held) {
        if self.map.is_some() || held.record.own_key().is_some() {
            // Its neighbours are in other places, and may be gone long before it.
            held.record.detach();
        }
        if let Some(key) = held.record.own_key() {
            match self.behind.entry(Arc::clone(key)) {
                Entry::Occupied(mut behind) => return behind.get_mut().push_back(held),
                Entry::Vacant(free) => free.insert(VecDeque::new()),
            };
        }
        self.queue(held);
    }

    fn queue(&mut self, mut held: Held) {
        held.lane = self.lane_of(&held);
        self.lanes[held.lane].push_back(held);
    }

    /// Lets the next record go that waits for this one to be stored.
    fn next_of_key(&mut self, stored: &Held) {
        let Some(key) = stored.record.own_key() else {
            return;
        };
        if let Some(behind) = self.behind.get_mut(key) {
            match behind.pop_front() {
                Some(next) => self.queue(next),
                None => {
                    self.behind.remove(key);
                }
            }
        }
    }

    /// Whether a lane of the map with this version is the shard of this id.
    fn is_shard(&self, map_version: u64, lane: usize, shard_id: &str) -> bool {
        let map = if map_version == self.map_version {
            self.map.as_ref()
        } else if map_version + 1 == self.map_version {
            self.old_map.as_ref()
        } else {
            None
        };
        map.is_some_and(|map| map.shard_id(lane) == shard_id)
    }

    fn lane_of(&self, held: &Held) -> usize {
        self.map
            .as_ref()
            .map_or(0, |map| map.index_of_key(held.record.partition_key()))
    }

    /// Takes out the next batch, if one is due: full, or old enough, or `urgent`.
    pub fn seal(&mut self, now: Instant, urgent: bool) -> Seal {
        if let Some(resume) = self.resume.filter(|resume| *resume > now) {
            return if self.is_empty() {
                Seal::Empty
            } else {
                Seal::Wait(resume)
            };
        }
        self.resume = None;
        if let Some(batch) = self.suspects.pop_front() {
            return Seal::Batch(batch);
        }
        let due = self.due(now, urgent);
        self.note_waiting(due, now);
        match due {
            None => Seal::Empty,
            Some(Some(due)) => Seal::Wait(due),
            Some(None) => Seal::Batch(self.take()),
        }
    }

    /// Measures how long nothing is due although records are there, and all of them are for shards at their limit.
    fn note_waiting(&mut self, due: Option<Option<Instant>>, now: Instant) {
        let mut lanes = self.lanes.iter().filter(|lane| !lane.queue.is_empty());
        let waits = matches!(due, Some(Some(_))) && lanes.all(Lane::is_paced);
        if waits {
            self.waiting_since.get_or_insert(now);
        } else if let Some(since) = self.waiting_since.take() {
            self.tally.waited += now.saturating_duration_since(since);
        }
    }

    /// When something is due: `None` where there is nothing, `Some(None)` now.
    fn due(&mut self, now: Instant, urgent: bool) -> Option<Option<Instant>> {
        let (mut records, mut bytes) = (0, 0);
        let mut earliest: Option<Option<Instant>> = None;
        for lane in &mut self.lanes {
            let Some(mut due) = lane.due(now) else {
                continue;
            };
            if !lane.is_paced() {
                records += lane.queue.len();
                bytes += lane.bytes;
                let is_full =
                    records >= self.bounds.records && self.bounds.aggregate_bytes.is_none();
                if urgent || is_full || bytes >= self.bounds.bytes {
                    due = None;
                }
            }
            earliest = Some(earliest.map_or(due, |earliest| earliest.min(due)));
        }
        earliest
    }

    /// Fills a batch from the lanes that may be sent from, beginning with another one each time.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::new(self.bounds, self.map_version);
        let waiting = self.lanes.iter().map(|lane| lane.queue.len()).sum();
        batch.records.reserve(self.bounds.records.min(waiting));
        let lanes = self.lanes.len();
        let first = self.next_lane % lanes;
        self.next_lane = first + 1;
        for lane in (first..lanes).chain(0..first) {
            let lane = &mut self.lanes[lane];
            if lane.resume.is_none() {
                while lane.take_into(&mut batch) {}
                lane.shrink();
            }
        }
        batch
    }

    /// Takes in what became of a batch: notes what is stored, and takes the rest back.
    pub fn apply(&mut self, outcome: PutOutcome, now: Instant) -> Applied {
        let PutOutcome {
            format: _,
            batch,
            result,
        } = outcome;
        self.tally.requests += 1;
        self.tally.sent += count(batch.records.len());
        self.tally.entries += count(batch.entry_count());
        match result {
            Ok(answers) => self.apply_answers(batch, answers, now),
            Err(fault) if fault.kind == FaultKind::Rejected => self.narrow_down(batch, fault),
            Err(fault) => self.apply_fault(batch, fault, now),
        }
    }

    /// The request was answered: each record has a verdict of its own.
    fn apply_answers(&mut self, batch: Batch, answers: Vec<Answer>, now: Instant) -> Applied {
        let mut applied = Applied::default();
        let mut heard = vec![Heard::default(); self.lanes.len()];
        let mut again = Vec::new();
        let current_map = batch.map_version == self.map_version;
        let version = batch.map_version;
        for (mut held, answer) in batch.records.into_iter().zip(answers) {
            let sent_to = held.lane;
            if !current_map {
                held.lane = self.lane_of(&held);
            }
            match answer {
                Answer::Stored {
                    shard_id: Some(shard_id),
                } if held.rides_along
                    && held.record.own_key().is_some()
                    && !self.is_shard(version, sent_to, &shard_id) =>
                {
                    // Consumers drop it there: its shard has been split or merged since.
                    self.wants_map |= current_map;
                    held.may_be_stored = true;
                    heard[held.lane].failed += 1;
                    let fault = Fault::local(
                        FaultKind::Transient,
                        "stored in another shard",
                        "an aggregate was stored in a shard that its records do not belong to"
                            .to_owned(),
                        true,
                    );
                    let failing_since = *held.failing_since.get_or_insert(now);
                    if now.duration_since(failing_since) >= self.retry_budget {
                        applied.give_up = Some(GiveUp::Fault(fault.clone()));
                    }
                    again.push((held, fault));
                }
                Answer::Stored { shard_id } => {
                    heard[held.lane].stored += 1;
                    self.tally.records += 1;
                    self.tally.bytes += count(held.record.size_bytes());
                    self.tally.maybe_twice += u64::from(held.may_be_stored);
                    if let (Some(map), Some(shard_id)) = (&self.map, shard_id) {
                        self.wants_map |= current_map && map.shard_id(held.lane) != shard_id;
                    }
                    applied.freed_bytes += held.held_bytes();
                    self.next_of_key(&held);
                    applied.stored.push(held.token);
                }
                Answer::Refused(fault) if fault.kind == FaultKind::Throttled => {
                    heard[held.lane].throttled += 1;
                    held.was_throttled = true;
                    again.push((held, fault));
                }
                Answer::Refused(fault) => {
                    heard[held.lane].failed += 1;
                    let failing_since = *held.failing_since.get_or_insert(now);
                    if !fault.is_retryable()
                        || now.duration_since(failing_since) >= self.retry_budget
                    {
                        applied.give_up = Some(GiveUp::Fault(fault.clone()));
                    }
                    again.push((held, fault));
                }
            }
        }
        if !applied.stored.is_empty() {
            self.stalled_since = None;
            self.backoff.reset();
        }
        applied.again = again.len();
        self.tally.again += count(again.len());
        self.hear(&heard, now);
        for (held, fault) in again.into_iter().rev() {
            let lane = &mut self.lanes[held.lane];
            let stalled = lane
                .stalled_since
                .is_some_and(|since| now.duration_since(since) >= self.retry_budget);
            if stalled {
                applied.give_up = Some(GiveUp::Fault(fault));
            }
            lane.push_front(held);
        }
        applied
    }

    /// Lets each lane learn from what was heard of it.
    fn hear(&mut self, heard: &[Heard], now: Instant) {
        let shards_a_lane = if self.map.is_some() {
            1
        } else {
            self.open_shards
        };
        for (index, (lane, heard)) in self.lanes.iter_mut().zip(heard).enumerate() {
            let refused = heard.throttled + heard.failed;
            if heard.stored > 0 {
                lane.backoff.reset();
                lane.stalled_since = None;
            } else if refused > 0 {
                lane.stalled_since.get_or_insert(now);
                lane.resume = Some(now + lane.backoff.pause().min(SHARD_PAUSE_MAX));
            }
            if heard.throttled > 0 {
                self.tally.throttled += count(heard.throttled);
                let shard_id = self.map.as_ref().map_or("", |map| map.shard_id(index));
                *self.refusals.entry(shard_id.to_owned()).or_default() += count(heard.throttled);
                self.wants_map |= self.map.is_none();
                lane.pace
                    .get_or_insert_with(|| Pace::after_refusal(shards_a_lane, now));
            }
            if let Some(pace) = &mut lane.pace
                && heard.stored + heard.throttled > 0
            {
                pace.heard(now, heard.stored, heard.throttled);
            }
        }
    }

    /// The request failed as a whole: all of it goes again, after a pause.
    fn apply_fault(&mut self, batch: Batch, fault: Fault, now: Instant) -> Applied {
        let stalled_since = *self.stalled_since.get_or_insert(now);
        if !fault.is_retryable() || now.duration_since(stalled_since) >= self.retry_budget {
            return Applied::giving_up(GiveUp::Fault(fault));
        }
        self.resume = Some(now + self.backoff.pause());
        let applied = Applied {
            again: batch.records.len(),
            ..Applied::default()
        };
        self.tally.again += count(batch.records.len());
        self.put_back(batch, fault.may_be_done);
        applied
    }

    /// Takes a batch back as if it had not been sent, whatever came of it: it goes again at once.
    pub fn take_back(&mut self, outcome: PutOutcome) -> Applied {
        let again = outcome.batch.records.len();
        self.tally.again += count(again);
        let may_be_stored = outcome.result.is_err_and(|fault| fault.may_be_done);
        self.put_back(outcome.batch, may_be_stored);
        Applied {
            again,
            ..Applied::default()
        }
    }

    fn put_back(&mut self, batch: Batch, may_be_stored: bool) {
        let current_map = batch.map_version == self.map_version;
        for mut held in batch.records.into_iter().rev() {
            if !current_map {
                held.lane = self.lane_of(&held);
            }
            held.may_be_stored |= may_be_stored;
            self.lanes[held.lane].push_front(held);
        }
    }

    /// Takes note of a record that was left out because it is too large.
    pub fn skipped(&mut self) {
        self.tally.skipped += 1;
    }

    /// The request is not acceptable: finds out which record is to blame, by halving.
    fn narrow_down(&mut self, batch: Batch, fault: Fault) -> Applied {
        let again = batch.records.len();
        match batch.halve() {
            Ok(halves) => {
                self.tally.again += count(again);
                for half in halves.into_iter().rev() {
                    self.suspects.push_front(half);
                }
                Applied {
                    again,
                    ..Applied::default()
                }
            }
            Err(poison) => Applied::giving_up(GiveUp::Poison {
                bytes: poison.bytes,
                fault,
            }),
        }
    }

    /// Whether a new shard map would help: a shard has refused records, or one has answered that the
    /// map does not know.
    pub fn wants_map(&self) -> bool {
        self.wants_map
    }

    /// Whether each open shard has a lane of its own.
    pub fn has_map(&self) -> bool {
        self.map.is_some()
    }

    /// Takes note that the map was asked for, so that it is not asked for again and again.
    pub fn map_requested(&mut self) {
        self.wants_map = false;
    }

    /// Takes note that the map could not be had this time.
    pub fn map_failed(&mut self) {
        self.wants_map = true;
    }

    /// Gives each open shard a lane of its own, and deals the held records out to them in order.
    pub fn set_map(&mut self, map: ShardMap, now: Instant) {
        let mut lanes: Vec<Lane> = (0..map.len()).map(|_| Lane::default()).collect();
        if let Some(old_map) = &self.map {
            for (index, lane) in lanes.iter_mut().enumerate() {
                // What was learned of a shard that is still there stays true.
                if let Some(old) = old_map.index_of_id(map.shard_id(index)) {
                    lane.pace = self.lanes[old].pace.take();
                    lane.stalled_since = self.lanes[old].stalled_since;
                }
            }
        }
        self.open_shards = map.len();
        self.old_map = self.map.replace(map);
        self.map_version += 1;
        for old in std::mem::replace(&mut self.lanes, lanes) {
            for mut held in old.queue {
                held.lane = self.lane_of(&held);
                held.record.detach();
                let lane = &mut self.lanes[held.lane];
                if held.was_throttled {
                    lane.pace.get_or_insert_with(|| Pace::after_refusal(1, now));
                }
                lane.push_back(held);
            }
        }
    }
}

/// What one answer said of one lane.
#[derive(Clone, Debug, Default)]
struct Heard {
    stored: usize,
    throttled: usize,
    failed: usize,
}

/// A count for the tally: no platform that runs this has more than 64 bits.
fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
