//! What has to hold whatever happened: what was promised is stored, and no state was promised
//! too early.
//!
//! The judge reads the lines the connector has read with a reader of its own.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::time::Instant;

use super::finished::Finished;
use super::lines::{Echo, Item, Scope, State, compact};
use super::server::{Kinesis, Stored};

/// The stream holds these data, each as often as they are given, and nothing else.
///
/// # Panics
///
/// If not, or if the envelopes are not what consumers rely on: an id of its own for each record,
/// which is its partition key too.
pub(crate) async fn assert_exactly_stored<T: Display>(kinesis: &Kinesis, stream: &str, data: &[T]) {
    let stored = kinesis.stored(stream).await;
    let copies: usize = copies(&stored).values().map(|of| of.len() - 1).sum();
    assert_eq!(
        copies, 0,
        "records of {stream} that share an id with another"
    );
    assert_same(stream, count(data), count_ids(&stored));
}

/// The stream holds these data, each at least as often as they are given, and nothing else. What
/// is there more often than that are copies with one id.
///
/// # Panics
///
/// If not.
pub(crate) async fn assert_stored_at_least_once<T: Display>(
    kinesis: &Kinesis,
    stream: &str,
    data: &[T],
) {
    let stored = kinesis.stored(stream).await;
    for (id, copies) in copies(&stored) {
        let same = copies.iter().all(|copy| copy.bytes == copies[0].bytes);
        assert!(same, "different records of {stream} have the id {id}");
    }
    assert_same(stream, count(data), count_ids(&stored));
}

/// The states that came out are the first of those that went in, for each stream and for the
/// states of all streams, and nothing about them has changed but `destinationStats`.
///
/// # Panics
///
/// If not.
pub(crate) fn assert_states_are_prefix<T: Display>(input: &[T], run: &Finished) {
    let given = Given::read(input);
    for (scope, states) in emitted(run) {
        let given = given.get(&scope).map_or(&[][..], Vec::as_slice);
        for (at, (state, _)) in states.iter().enumerate() {
            let expected = given.get(at).map(|given| &given.echo);
            assert_eq!(
                Some(&state.echo),
                expected,
                "state {at} of {scope:?}, in {run}"
            );
        }
    }
}

/// Every state that went in came out: see [`assert_states_are_prefix`].
///
/// # Panics
///
/// If not.
pub(crate) fn assert_all_states<T: Display>(input: &[T], run: &Finished) {
    assert_states_are_prefix(input, run);
    let given: usize = Given::read(input).values().map(Vec::len).sum();
    assert_eq!(
        run.states().len(),
        given,
        "all states of the input, in {run}"
    );
}

/// Each state that came out says how many records it covers since the one before it in its scope.
///
/// # Panics
///
/// If it does not, or the number is not written as one with a decimal point.
pub(crate) fn assert_record_counts<T: Display>(input: &[T], run: &Finished) {
    let given = Given::read(input);
    for (scope, states) in emitted(run) {
        for ((state, _), given) in states.iter().zip(&given[&scope]) {
            let expected = Some(format!("{}.0", given.records));
            assert_eq!(
                state.record_count, expected,
                "a state of {scope:?}, in {run}"
            );
        }
    }
}

/// Before the test could read a state, the server had said that it stored every record which that
/// state covers, and it had.
///
/// # Panics
///
/// If not: such a state is silent loss.
pub(crate) async fn assert_earned<T: Display>(kinesis: &Kinesis, input: &[T], run: &Finished) {
    assert_states_are_prefix(input, run);
    let mut emitted = emitted(run);
    let mut acknowledged = Acknowledged::default();
    // When the last of the records so far was acknowledged, per stream. `None`: one was not.
    let mut complete: HashMap<Scope, Option<Instant>> = HashMap::new();
    for (number, line) in (1..).zip(input) {
        match Item::read(&line.to_string()) {
            Item::Record { scope, data } => {
                let at = acknowledged.next(kinesis, &scope, data).await;
                let complete = complete.entry(scope).or_insert(at);
                *complete = complete.zip(at).map(|(before, at)| before.max(at));
            }
            Item::State(State { scope, .. }) => {
                let out = emitted.get_mut(&scope).and_then(VecDeque::pop_front);
                let Some((_, read_at)) = out else { continue };
                for (of, at) in &complete {
                    if scope == Scope::All || scope == *of {
                        let early = at.is_none_or(|at| at > read_at);
                        assert!(
                            !early,
                            "the state of line {number} is not earned by {of:?}: {run}"
                        );
                    }
                }
            }
            Item::Other => {}
        }
    }
}

/// A state of the input.
struct Given {
    echo: Echo,
    /// The records it covers, that none before it in its scope did.
    records: usize,
}

impl Given {
    /// The states of the input, in the order of each scope.
    fn read<T: Display>(input: &[T]) -> HashMap<Scope, Vec<Self>> {
        let mut given: HashMap<Scope, Vec<Self>> = HashMap::new();
        let mut records: HashMap<Scope, usize> = HashMap::new();
        for line in input {
            match Item::read(&line.to_string()) {
                Item::Record { scope, .. } => {
                    *records.entry(scope).or_default() += 1;
                    *records.entry(Scope::All).or_default() += 1;
                }
                Item::State(State { scope, echo, .. }) => {
                    let records = records.remove(&scope).unwrap_or(0);
                    given.entry(scope).or_default().push(Self { echo, records });
                }
                Item::Other => {}
            }
        }
        given
    }
}

/// The states that came out, and when, in the order of each scope.
fn emitted(run: &Finished) -> HashMap<Scope, VecDeque<(State, Instant)>> {
    let mut emitted: HashMap<Scope, VecDeque<(State, Instant)>> = HashMap::new();
    for line in run.lines.iter().filter(|line| line.is("STATE")) {
        let Item::State(state) = Item::read(&line.text) else {
            panic!("no state that can be read: {}", line.text)
        };
        let scope = state.scope.clone();
        emitted
            .entry(scope)
            .or_default()
            .push_back((state, line.at));
    }
    emitted
}

/// When the records of each stream were acknowledged.
#[derive(Default)]
struct Acknowledged(HashMap<Scope, HashMap<String, VecDeque<Instant>>>);

impl Acknowledged {
    /// When one more record of these data was acknowledged: equal records are interchangeable, so
    /// the first in the input may be the first that was. `None` if it was not.
    async fn next(&mut self, kinesis: &Kinesis, scope: &Scope, data: String) -> Option<Instant> {
        if !self.0.contains_key(scope) {
            self.0.insert(
                scope.clone(),
                Self::read(kinesis, &scope.kinesis_name()).await,
            );
        }
        self.0.get_mut(scope)?.get_mut(&data)?.pop_front()
    }

    async fn read(kinesis: &Kinesis, stream: &str) -> HashMap<String, VecDeque<Instant>> {
        let told = kinesis.acknowledged(stream);
        let stored = kinesis.stored(stream).await;
        let mut times: HashMap<String, VecDeque<Instant>> = HashMap::new();
        for copies in copies(&stored).values() {
            let told = copies
                .iter()
                .filter_map(|copy| told.get(&copy.sequence_number));
            if let Some(first) = told.min() {
                times
                    .entry(compact(&copies[0].data))
                    .or_default()
                    .push_back(*first);
            }
        }
        for times in times.values_mut() {
            times.make_contiguous().sort();
        }
        times
    }
}

/// The records of each id, and what consumers rely on in each.
fn copies(stored: &[Stored]) -> HashMap<&str, Vec<&Stored>> {
    let mut copies: HashMap<&str, Vec<&Stored>> = HashMap::new();
    for record in stored {
        let id = uuid::Uuid::parse_str(&record.id);
        let random = id.is_ok_and(|id| id.get_version_num() == 4);
        assert!(random, "the id of {record:?}");
        if !record.aggregated && uuid::Uuid::parse_str(&record.partition_key).is_ok() {
            assert_eq!(record.partition_key, record.id, "of {record:?}");
        }
        let seconds: f64 = record.emitted_at.parse().unwrap_or(f64::NAN);
        assert!(seconds > 1.6e9 && seconds < 1e11, "the time of {record:?}");
        copies.entry(&record.id).or_default().push(record);
    }
    copies
}

/// How often each data occurs in `data`.
fn count<T: Display>(data: &[T]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for text in data {
        *counts.entry(compact(&text.to_string())).or_default() += 1;
    }
    counts
}

/// How many records of different ids hold each data.
fn count_ids(stored: &[Stored]) -> BTreeMap<String, usize> {
    let mut seen = HashSet::new();
    let first = stored.iter().filter(|record| seen.insert(&record.id));
    let data: Vec<&String> = first.map(|record| &record.data).collect();
    count(&data)
}

fn assert_same(stream: &str, expected: BTreeMap<String, usize>, stored: BTreeMap<String, usize>) {
    // Two long maps side by side would hide the difference.
    const SHOWN_MAX: usize = 5;
    let keys: HashSet<&String> = expected.keys().chain(stored.keys()).collect();
    let differs = |key: &&&String| expected.get(**key) != stored.get(**key);
    let differ: Vec<String> = keys
        .iter()
        .filter(differs)
        .map(|key| {
            format!(
                "{key}: {:?} instead of {:?}",
                stored.get(*key),
                expected.get(*key)
            )
        })
        .collect();
    let shown = differ
        .iter()
        .take(SHOWN_MAX)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        differ.is_empty(),
        "{} data of {stream} occur not as often as they should:\n{shown}",
        differ.len()
    );
}
