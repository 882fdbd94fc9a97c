use super::*;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_kinesis::types::{HashKeyRange, SequenceNumberRange, Shard};
use proptest::prelude::*;
use uuid::Uuid;

use crate::aggregate::aggregate;
use crate::checkpoint::Checkpoints;
use crate::limits::{AGGREGATE_BYTES_MAX, WINDOW_START};
use crate::record::{Arena, EmittedAt, EncodedRecord};
use crate::wire::WireFormat;

const BOUNDS: BatchBounds = BatchBounds {
    records: 500,
    bytes: 5 * 1024 * 1024,
    aggregate_bytes: None,
};
const BUDGET: Duration = Duration::from_secs(600);

fn record(data_bytes: usize) -> EncodedRecord {
    let data = format!("{{\"k\":\"{}\"}}", "x".repeat(data_bytes.saturating_sub(8)));
    // Made up by the generator that the pauses come from: see `fastrand::seed`.
    let id = Uuid::from_u128(fastrand::u128(..));
    EncodedRecord::encode(id, &data, SystemTime::UNIX_EPOCH)
}

fn held(data_bytes: usize, now: Instant) -> Held {
    Held::new(record(data_bytes), Token::default(), now)
}

fn bounds(records: usize, bytes: usize) -> BatchBounds {
    BatchBounds {
        records,
        bytes,
        aggregate_bytes: None,
    }
}

fn seal_now(buffer: &mut Buffer, now: Instant) -> Batch {
    match buffer.seal(now, true) {
        Seal::Batch(batch) => batch,
        other @ (Seal::Wait(_) | Seal::Empty) => panic!("expected a batch, got {other:?}"),
    }
}

fn stored() -> Answer {
    Answer::Stored { shard_id: None }
}

fn refused(code: &str) -> Answer {
    Answer::Refused(Fault::of_record(code, None))
}

fn transient() -> Fault {
    Fault::local(FaultKind::Transient, "timeout", String::new(), true)
}

fn ids(batch: &Batch) -> Vec<String> {
    batch
        .records
        .iter()
        .map(|held| held.record.id().to_owned())
        .collect()
}

fn outcome(batch: Batch, result: Result<Vec<Answer>, Fault>) -> PutOutcome {
    PutOutcome {
        format: WireFormat::Json,
        batch,
        result,
    }
}

#[test]
fn a_batch_is_due_when_it_is_full_or_old_or_urgent() {
    let start = Instant::now();
    let mut buffer = Buffer::new(bounds(3, 1_000_000), BUDGET, 1);
    assert!(matches!(buffer.seal(start, true), Seal::Empty));
    buffer.admit(held(100, start));
    buffer.admit(held(100, start));
    assert!(matches!(buffer.seal(start, false), Seal::Wait(due) if due == start + BATCH_AGE_MAX));
    buffer.admit(held(100, start));
    assert!(matches!(buffer.seal(start, false), Seal::Batch(batch) if batch.records.len() == 3));
    buffer.admit(held(100, start));
    assert!(
        matches!(buffer.seal(start + BATCH_AGE_MAX, false), Seal::Batch(batch) if batch.records.len() == 1)
    );
    buffer.admit(held(100, start));
    assert!(matches!(buffer.seal(start, true), Seal::Batch(_)));
    assert!(buffer.is_empty());
}

#[test]
fn a_batch_never_exceeds_its_bytes_but_one_record_always_fits() {
    let now = Instant::now();
    let size = record(1000).size_bytes();
    let mut buffer = Buffer::new(bounds(500, 3 * size), BUDGET, 1);
    (0..7).for_each(|_| buffer.admit(held(1000, now)));
    let sizes: Vec<_> = (0..3)
        .map(|_| seal_now(&mut buffer, now).records.len())
        .collect();
    assert_eq!(sizes, [3, 3, 1]);
    buffer.admit(held(50_000, now));
    assert_eq!(seal_now(&mut buffer, now).records.len(), 1);
}

#[test]
fn a_record_that_stays_behind_its_neighbours_has_memory_of_its_own() {
    let now = Instant::now();
    let mut arena = Arena::new(10_000);
    let emitted_at = EmittedAt::new(SystemTime::UNIX_EPOCH);
    let mut neighbour = || {
        let id = Uuid::new_v4();
        let record = EncodedRecord::encode_within(id, "{}", None, &emitted_at, 1000, &mut arena);
        Held::new(record.unwrap(), Token::default(), now)
    };
    let place = |held: &Held| held.record.bytes().as_ptr();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);

    let (stored_one, refused_one) = (neighbour(), neighbour());
    let shared = place(&refused_one);
    buffer.admit(stored_one);
    buffer.admit(refused_one);
    let batch = seal_now(&mut buffer, now);
    assert_eq!(place(&batch.records[1]), shared, "nothing is copied before");
    let answers = vec![stored(), refused("InternalFailure")];
    buffer.apply(outcome(batch, Ok(answers)), now);
    assert_ne!(place(&buffer.lanes[0].queue[0]), shared);

    let dealt_out = neighbour();
    let shared = place(&dealt_out);
    buffer.admit(dealt_out);
    buffer.set_map(map(1), now);
    assert_ne!(place(&buffer.lanes[0].queue[1]), shared);

    let late = neighbour();
    let shared = place(&late);
    buffer.admit(late);
    assert_ne!(place(&buffer.lanes[0].queue[2]), shared);
}

#[test]
fn a_queue_that_has_become_short_gives_its_memory_back() {
    let now = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    (0..20_000).for_each(|_| buffer.admit(held(10, now)));
    let mut left = 20_000;
    while let Seal::Batch(batch) = buffer.seal(now, true) {
        left -= batch.records.len();
        let room = buffer.lanes[0].queue.capacity();
        assert!(
            room <= 4 * left.max(QUEUE_RECORDS_KEPT) + 1,
            "{room} for {left}"
        );
    }
    assert_eq!(left, 0);
}

#[test]
fn the_queues_of_many_shards_keep_no_more_than_one_of_all() {
    let now = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    buffer.set_map(map(100), now);
    (0..50_000).for_each(|_| buffer.admit(held(10, now)));
    assert_eq!(buffer.lanes.len(), 100);
    while let Seal::Batch(_) = buffer.seal(now, true) {}
    let room: usize = buffer.lanes.iter().map(|lane| lane.queue.capacity()).sum();
    assert!(room <= 100 * (2 * QUEUE_RECORDS_KEPT + 1), "{room}");
}

#[test]
fn only_refused_records_go_again_first_and_with_their_ids() {
    let now = Instant::now();
    let mut buffer = Buffer::new(bounds(4, 1_000_000), BUDGET, 1);
    (0..6).for_each(|_| buffer.admit(held(100, now)));
    let batch = seal_now(&mut buffer, now);
    let sent = ids(&batch);
    let answers = vec![
        stored(),
        refused("InternalFailure"),
        stored(),
        refused("InternalFailure"),
    ];
    let applied = buffer.apply(outcome(batch, Ok(answers)), now);
    assert_eq!((applied.stored.len(), applied.again), (2, 2));
    let again = ids(&seal_now(&mut buffer, now));
    assert_eq!(again[..2], [sent[1].clone(), sent[3].clone()]);
    assert_eq!(again.len(), 4, "with the next batch");
}

#[test]
fn a_lost_answer_sends_all_again_after_a_pause_and_is_counted() {
    let start = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    (0..3).for_each(|_| buffer.admit(held(100, start)));
    let batch = seal_now(&mut buffer, start);
    let sent = ids(&batch);
    assert_eq!(
        buffer.apply(outcome(batch, Err(transient())), start).again,
        3
    );
    let batch = match buffer.seal(start, true) {
        Seal::Wait(due) => seal_now(&mut buffer, due),
        Seal::Batch(batch) => batch,
        Seal::Empty => panic!("the records are lost"),
    };
    assert_eq!(ids(&batch), sent);
    buffer.apply(
        outcome(batch, Ok(vec![stored(), stored(), stored()])),
        start,
    );
    assert_eq!(buffer.tally().maybe_twice, 3);
    assert!(buffer.is_empty());
}

#[test]
fn the_budget_is_time_without_progress_and_not_a_number_of_tries() {
    let mut now = Instant::now();
    let mut buffer = Buffer::new(bounds(1, 1_000_000), BUDGET, 1);
    buffer.admit(held(100, now));
    buffer.admit(held(100, now));
    let fail = |buffer: &mut Buffer, now: Instant| {
        let batch = seal_now(buffer, now);
        buffer
            .apply(outcome(batch, Err(transient())), now)
            .give_up
            .is_some()
    };
    for _ in 0..100 {
        now += Duration::from_secs(60).min(BUDGET / 101 * 10);
        if fail(&mut buffer, now) {
            panic!("gave up early");
        }
        // One record stored is progress.
        now += Duration::from_secs(60);
        let batch = seal_now(&mut buffer, now);
        assert!(
            buffer
                .apply(outcome(batch, Ok(vec![stored()])), now)
                .give_up
                .is_none()
        );
        buffer.admit(held(100, now));
    }
    now += Duration::from_secs(60);
    assert!(!fail(&mut buffer, now));
    now += BUDGET;
    assert!(fail(&mut buffer, now), "nothing moved for the whole budget");
}

#[test]
fn one_record_that_always_fails_ends_the_stream_although_others_are_stored() {
    let mut now = Instant::now();
    let mut buffer = Buffer::new(bounds(2, 1_000_000), BUDGET, 1);
    buffer.admit(held(100, now));
    let mut rounds = 0;
    loop {
        buffer.admit(held(100, now));
        let batch = seal_now(&mut buffer, now);
        let answers = vec![refused("InternalFailure"), stored()];
        if buffer
            .apply(outcome(batch, Ok(answers)), now)
            .give_up
            .is_some()
        {
            break;
        }
        now += BUDGET / 10;
        rounds += 1;
        assert!(rounds < 20);
    }
    assert_eq!(rounds, 10);
}

#[test]
fn a_hopeless_fault_gives_up_at_once_and_keeps_what_was_stored() {
    let now = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    (0..2).for_each(|_| buffer.admit(held(100, now)));
    let batch = seal_now(&mut buffer, now);
    let applied = buffer.apply(
        outcome(batch, Ok(vec![stored(), refused("KMSDisabledException")])),
        now,
    );
    assert_eq!(applied.stored.len(), 1);
    assert!(matches!(applied.give_up, Some(GiveUp::Fault(fault)) if fault.kind == FaultKind::Kms));
}

#[test]
fn a_poison_record_is_found_by_halving_and_its_neighbours_are_stored() {
    let now = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    (0..100).for_each(|_| buffer.admit(held(100, now)));
    let poison = {
        let batch = seal_now(&mut buffer, now);
        let poison = batch.records[37].record.id().to_owned();
        let rejected = Fault::local(
            FaultKind::Rejected,
            "ValidationException",
            String::new(),
            false,
        );
        buffer.apply(outcome(batch, Err(rejected)), now);
        poison
    };
    let (mut stored_records, mut requests) = (0, 0);
    let bytes = loop {
        let batch = seal_now(&mut buffer, now);
        requests += 1;
        let has_poison = ids(&batch).contains(&poison);
        let result = if has_poison {
            Err(Fault::local(
                FaultKind::Rejected,
                "ValidationException",
                String::new(),
                false,
            ))
        } else {
            Ok(batch.records.iter().map(|_| stored()).collect())
        };
        let applied = buffer.apply(outcome(batch, result), now);
        stored_records += applied.stored.len();
        match applied.give_up {
            Some(GiveUp::Poison { bytes, .. }) => break bytes,
            Some(GiveUp::Fault(fault)) => panic!("{fault:?}"),
            None => {}
        }
    };
    assert_eq!(bytes, record(100).size_bytes());
    assert!(requests <= 14, "{requests} requests");
    assert!(stored_records > 30);
}

// ---- With simulated shards: each takes 1,000 records and 1 MiB in each second --------------------

struct Shards {
    taken: Vec<(u64, u32, usize)>,
    map: ShardMap,
    /// A shard that takes nothing, and from when to when.
    broken: Option<(usize, Duration, Duration)>,
    stored: Vec<u32>,
    refused: u32,
    /// How long the buffer says that it waited for shards.
    waited: Duration,
    /// Bytes stored, as Kinesis counts them.
    stored_bytes: usize,
}

fn shard(index: usize, of: usize) -> Shard {
    let width = u128::MAX / u128::try_from(of).unwrap();
    let first = width * u128::try_from(index).unwrap();
    Shard::builder()
        .shard_id(format!("shardId-{index:012}"))
        .hash_key_range(
            HashKeyRange::builder()
                .starting_hash_key(first.to_string())
                .ending_hash_key((first + width).to_string())
                .build()
                .unwrap(),
        )
        .sequence_number_range(
            SequenceNumberRange::builder()
                .starting_sequence_number("0")
                .build()
                .unwrap(),
        )
        .build()
        .unwrap()
}

fn map(of: usize) -> ShardMap {
    ShardMap::new(&(0..of).map(|index| shard(index, of)).collect::<Vec<_>>()).unwrap()
}

impl Shards {
    fn new(count: usize) -> Self {
        Self {
            taken: vec![(0, 0, 0); count],
            map: map(count),
            broken: None,
            stored: vec![0; count],
            refused: 0,
            waited: Duration::ZERO,
            stored_bytes: 0,
        }
    }

    fn answer(&mut self, batch: &Batch, at: Duration) -> Vec<Answer> {
        let answers = batch.entries().flat_map(|records| {
            let key = records[0].record.partition_key();
            let index = self.map.index_of_key(key);
            let taken = &mut self.taken[index];
            if taken.0 != at.as_secs() {
                *taken = (at.as_secs(), 0, 0);
            }
            let size = match records {
                [held] => held.record.size_bytes(),
                _ => aggregate(records).len() + key.len(),
            };
            let count = u32::try_from(records.len()).unwrap();
            let is_broken = self
                .broken
                .is_some_and(|(broken, from, to)| broken == index && at >= from && at < to);
            let answer = if is_broken || taken.1 >= 1000 || taken.2 + size > 1024 * 1024 {
                self.refused += count;
                refused("ProvisionedThroughputExceededException")
            } else {
                taken.1 += 1;
                taken.2 += size;
                self.stored[index] += count;
                self.stored_bytes += size;
                Answer::Stored {
                    shard_id: Some(self.map.shard_id(index).to_owned()),
                }
            };
            std::iter::repeat_n(answer, records.len())
        });
        answers.collect()
    }

    fn total(&self) -> u32 {
        self.stored.iter().sum()
    }
}

/// Offers `records` records at once, as many as memory holds, and returns how long it took to store all.
fn run(shards: &mut Shards, records: u32, data_bytes: usize, allow_map: bool) -> Duration {
    run_with(BOUNDS, shards, records, data_bytes, allow_map)
}

fn run_with(
    bounds: BatchBounds,
    shards: &mut Shards,
    records: u32,
    data_bytes: usize,
    allow_map: bool,
) -> Duration {
    const HELD_MAX: usize = 60_000;
    const ROUND_TRIP: Duration = Duration::from_millis(8);
    // Ids, and so shards, and pauses are the same each time.
    fastrand::seed(1);
    let start = Instant::now();
    let mut at = Duration::ZERO;
    let mut buffer = Buffer::new(bounds, BUDGET, shards.taken.len());
    let mut in_flight: VecDeque<(Duration, PutOutcome)> = VecDeque::new();
    let (mut admitted, mut window, mut held_now) = (0, WINDOW_START, 0);
    let mut map_at = None;
    while shards.total() < records || !in_flight.is_empty() {
        assert!(at < Duration::from_secs(600), "no end");
        while admitted < records && held_now < HELD_MAX {
            buffer.admit(held(data_bytes, start + at));
            admitted += 1;
            held_now += 1;
        }
        if allow_map && buffer.wants_map() && map_at.is_none() {
            buffer.map_requested();
            map_at = Some(at + ROUND_TRIP);
        }
        if map_at.is_some_and(|map_at| map_at <= at) {
            map_at = None;
            buffer.set_map(shards.map.clone(), start + at);
        }
        while in_flight.front().is_some_and(|(due, _)| *due <= at) {
            let (_, outcome) = in_flight.pop_front().unwrap();
            window = (window + 1).min(64);
            let applied = buffer.apply(outcome, start + at);
            held_now -= applied.stored.len();
            assert!(applied.give_up.is_none());
        }
        while in_flight.len() < window {
            let Seal::Batch(batch) = buffer.seal(start + at, false) else {
                break;
            };
            let answers = shards.answer(&batch, at);
            in_flight.push_back((at + ROUND_TRIP, outcome(batch, Ok(answers))));
        }
        at += Duration::from_millis(1);
    }
    let told: u64 = buffer.refusals().values().sum();
    assert_eq!(
        told,
        u64::from(shards.refused),
        "every refusal has its shard"
    );
    shards.waited = buffer.tally().waited;
    at
}

/// Checks the share of the shards' records that was used, and of the records sent that was refused.
fn assert_good_use(shards: &Shards, took: Duration, per_second: f64, used_min: f64) {
    let capacity = per_second * f64::from(u32::try_from(shards.taken.len()).unwrap());
    let used = f64::from(shards.total()) / (took.as_secs_f64() * capacity);
    let refused = f64::from(shards.refused) / f64::from(shards.refused + shards.total());
    assert!(used > used_min, "used {used:.3}, refused {refused:.3}");
    // The flood before the first refusal weighs more on fewer shards.
    assert!(refused < 0.2, "used {used:.3}, refused {refused:.3}");
}

#[test]
fn shards_at_their_limit_are_used_well_and_not_hammered() {
    for (count, records) in [(1, 40_000), (5, 200_000)] {
        let mut shards = Shards::new(count);
        let took = run(&mut shards, records, 300, true);
        assert_good_use(&shards, took, 1000.0, 0.85);
        let share = shards.waited.as_secs_f64() / took.as_secs_f64();
        assert!(
            (0.5..=1.0).contains(&share),
            "waited {share:.3} of the time"
        );
    }
}

#[test]
fn large_records_are_paced_by_their_bytes() {
    let mut shards = Shards::new(4);
    let took = run(&mut shards, 4_000, 50_000, true);
    let per_second =
        1024.0 * 1024.0 / f64::from(u32::try_from(record(50_000).size_bytes()).unwrap());
    assert_good_use(&shards, took, per_second, 0.75);
}

#[test]
fn aggregates_use_the_bytes_of_a_shard_and_not_its_records() {
    let bounds = BatchBounds {
        aggregate_bytes: Some(AGGREGATE_BYTES_MAX),
        ..BOUNDS
    };
    let mut shards = Shards::new(2);
    let records = 200_000;
    let took = run_with(bounds, &mut shards, records, 100, true).as_secs_f64();
    let bytes = f64::from(u32::try_from(shards.stored_bytes).unwrap());
    let used = bytes / (took * 2.0 * 1024.0 * 1024.0);
    assert!(used > 0.85, "used {used:.3} of the bytes in {took} s");
    let refused = f64::from(shards.refused) / f64::from(shards.refused + records);
    // Most of it is the flood before the first refusal: at most the 60,000 that are held, of 200,000 in all.
    assert!(refused < 0.25, "refused {refused:.3}");
    assert!(f64::from(records) / took > 3.0 * 2.0 * 1000.0, "{took} s");
}

#[test]
fn without_a_shard_map_the_stream_is_paced_as_a_whole() {
    let mut shards = Shards::new(4);
    let took = run(&mut shards, 120_000, 300, false);
    assert_good_use(&shards, took, 1000.0, 0.75);
}

#[test]
fn a_shard_that_takes_nothing_does_not_slow_the_others() {
    let seconds = Duration::from_secs;
    let mut healthy = Shards::new(5);
    let took_healthy = run(&mut healthy, 200_000, 300, true);
    let mut shards = Shards::new(5);
    shards.broken = Some((2, seconds(10), seconds(20)));
    let took = run(&mut shards, 200_000, 300, true);
    // The broken shard has a fifth of the records, and ten seconds less to store them in.
    println!(
        "{took:?} against {took_healthy:?}, {} refused",
        shards.refused
    );
    assert!(
        took < took_healthy + seconds(13),
        "{took:?} against {took_healthy:?}"
    );
    assert!(shards.refused < 20_000, "{} refused", shards.refused);
}

#[test]
fn a_new_map_keeps_order_and_loses_nothing() {
    let now = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    let mut checkpoints: Checkpoints<()> = Checkpoints::new(1);
    let mut tokens = Vec::new();
    for _ in 0..1000 {
        let token = checkpoints.admit_record(0);
        tokens.push(token);
        buffer.admit(Held::new(record(50), token, now));
    }
    let in_flight = seal_now(&mut buffer, now);
    buffer.set_map(map(4), now);
    buffer.set_map(map(3), now);
    // An answer to a batch from before the new maps still finds its place.
    let again = in_flight.records.len();
    buffer.apply(outcome(in_flight, Err(transient())), now);
    let mut seen = 0;
    let later = now + Duration::from_secs(60);
    while !buffer.is_empty() {
        let batch = seal_now(&mut buffer, later);
        seen += batch.records.len();
        let answers = batch
            .records
            .iter()
            .map(|held| Answer::Stored {
                shard_id: Some(map(3).shard_id(held.lane).to_owned()),
            })
            .collect();
        for token in buffer.apply(outcome(batch, Ok(answers)), later).stored {
            checkpoints.acknowledge(token);
        }
    }
    assert_eq!((seen, again), (1000, 500));
    assert_eq!(checkpoints.outstanding(), 0);
    assert!(!buffer.wants_map(), "the answers agree with the map");
}

#[test]
fn a_shard_that_the_map_does_not_know_asks_for_a_new_map() {
    let now = Instant::now();
    let mut buffer = Buffer::new(BOUNDS, BUDGET, 1);
    buffer.set_map(map(2), now);
    buffer.admit(held(100, now));
    let batch = seal_now(&mut buffer, now);
    let answer = Answer::Stored {
        shard_id: Some("shardId-000000000007".to_owned()),
    };
    buffer.apply(outcome(batch, Ok(vec![answer])), now);
    assert!(buffer.wants_map());
}

// ---- Keys ----------------------------------------------------------------------------------------

fn keyed(key: u8, now: Instant) -> Held {
    let record = EncodedRecord::encode_within(
        Uuid::new_v4(),
        "{}",
        Some(Arc::from(key.to_string())),
        &EmittedAt::new(SystemTime::UNIX_EPOCH),
        1000,
        &mut Arena::new(0),
    );
    Held::new(record.unwrap(), Token::default(), now)
}

/// What a server does with one request.
#[derive(Clone, Debug)]
enum Deed {
    /// Takes all but these, of which it says that a shard is busy or that something failed.
    Refuses(Vec<bool>),
    /// Takes all, and the answer is lost.
    LosesTheAnswer,
    /// Takes nothing.
    Fails,
    /// Says that one record is not acceptable, without a word on which.
    Rejects,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => prop::collection::vec(prop::bool::weighted(0.3), 8).prop_map(Deed::Refuses),
        1 => Just(Deed::LosesTheAnswer),
        1 => Just(Deed::Fails),
        1 => Just(Deed::Rejects),
    ]
}

proptest! {
    #[test]
    fn records_of_one_key_are_stored_in_the_order_they_came(
        keys in prop::collection::vec(0..6_u8, 1..150),
        deeds in prop::collection::vec((deed(), 0..3_usize, 0..4_usize), 0..60),
        aggregate_bytes in prop::option::of(Just(700_usize)),
    ) {
        let mut now = Instant::now();
        let bounds = BatchBounds { records: 8, bytes: 100_000, aggregate_bytes };
        let mut buffer = Buffer::new(bounds, BUDGET, 3);
        let mut came: HashMap<String, Vec<String>> = HashMap::new();
        for key in &keys {
            let held = keyed(*key, now);
            came.entry(held.record.partition_key().to_owned()).or_default().push(held.record.id().to_owned());
            buffer.admit(held);
        }
        // What the server has, in its order; and what is in flight.
        let mut stored: Vec<(String, String)> = Vec::new();
        let mut acknowledged = 0;
        let mut in_flight: VecDeque<PutOutcome> = VecDeque::new();
        let mut deeds = deeds.into_iter();
        while acknowledged < keys.len() {
            let (deed, answered, shards) = deeds.next().unwrap_or((Deed::Refuses(Vec::new()), 9, 0));
            now += Duration::from_secs(3);
            if shards > 0 {
                buffer.set_map(map(shards), now);
            }
            if let Seal::Batch(batch) = buffer.seal(now, true) {
                let mut take = |held: &Held| stored.push((held.record.partition_key().to_owned(), held.record.id().to_owned()));
                let result = match deed {
                    Deed::Fails => Err(transient()),
                    Deed::Rejects if batch.records.len() > 1 => {
                        Err(Fault::local(FaultKind::Rejected, "ValidationException", String::new(), false))
                    }
                    Deed::LosesTheAnswer | Deed::Rejects => {
                        batch.records.iter().for_each(&mut take);
                        Err(Fault::local(FaultKind::Transient, "lost", String::new(), true))
                    }
                    Deed::Refuses(refusals) => Ok(batch
                        .entries()
                        .enumerate()
                        .flat_map(|(at, records)| {
                            let is_refused = refusals.get(at).copied().unwrap_or_default();
                            if !is_refused {
                                records.iter().for_each(&mut take);
                            }
                            let code = if at % 2 == 0 { "ProvisionedThroughputExceededException" } else { "InternalFailure" };
                            let answer = if is_refused { refused(code) } else { self::stored() };
                            std::iter::repeat_n(answer, records.len())
                        })
                        .collect()),
                };
                in_flight.push_back(outcome(batch, result));
            }
            // Answers come in any order.
            for _ in 0..answered.max(usize::from(in_flight.len() > 4)) {
                let at = in_flight.len() / 2;
                let Some(outcome) = in_flight.remove(at) else { break };
                let applied = buffer.apply(outcome, now);
                prop_assert!(applied.give_up.is_none());
                acknowledged += applied.stored.len();
            }
        }
        prop_assert!(buffer.is_empty() && buffer.behind.is_empty());
        let mut seen = HashSet::new();
        let mut order: HashMap<String, Vec<String>> = HashMap::new();
        for (key, id) in stored {
            if seen.insert(id.clone()) {
                order.entry(key).or_default().push(id);
            }
        }
        prop_assert_eq!(order, came);
    }
}
