//! Which state may go out, and when. Pure: no I/O, no clock.
//!
//! A state may leave only when every record it covers is acknowledged. Between two states lies an
//! *epoch*: each record is admitted in the current epoch, and each state closes it. What is not
//! acknowledged yet is counted per epoch, for each descriptor and for the whole sync, so that both
//! questions are answered by looking at the oldest epoch with something outstanding:
//!
//! * a `STREAM` state waits until its descriptor has nothing outstanding in its epoch or before;
//! * a `GLOBAL` or `LEGACY` state waits until nothing at all is outstanding in its epoch or before.
//!
//! States of one descriptor leave in the order in which they came. A state that covers everything
//! leaves after all states before it and before all states after it.
//!
//! ```
//! use destination_kinesis::checkpoint::{Checkpoints, Scope};
//!
//! let mut checkpoints = Checkpoints::new(2);
//! let users = checkpoints.admit_record(0);
//! let orders = checkpoints.admit_record(1);
//! checkpoints.admit_state(Scope::Descriptor(0), "users at 1");
//! checkpoints.admit_state(Scope::Descriptor(1), "orders at 1");
//! assert!(checkpoints.release().is_empty(), "nothing is acknowledged yet");
//!
//! checkpoints.acknowledge(orders);
//! let released = checkpoints.release();
//! assert_eq!(released[0].state, "orders at 1", "users does not hold orders back");
//! assert_eq!(released[0].records, 1);
//! # let _ = users;
//! ```

use std::collections::{BTreeSet, VecDeque};

/// The index of a descriptor (an Airbyte stream) in the catalog.
pub type DescriptorIndex = usize;

/// Stands for one admitted record. It is given back when the record is acknowledged; a token that is
/// lost on the way holds its states back for ever, which is the safe side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token {
    descriptor: DescriptorIndex,
    epoch: u64,
}

impl Token {
    /// The descriptor of the record.
    pub fn descriptor(&self) -> DescriptorIndex {
        self.descriptor
    }
}

/// What a state covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All earlier records of one descriptor: type `STREAM`.
    Descriptor(DescriptorIndex),
    /// A descriptor that the catalog does not have, so none of the records are counted as its own. What the source
    /// means by it cannot be known: it waits for all earlier records, as [`Scope::Everything`] does.
    UnknownDescriptor,
    /// All earlier records of all descriptors: type `GLOBAL`, `LEGACY` or none.
    Everything,
}

/// A state that may go out now.
#[derive(Debug, PartialEq, Eq)]
pub struct Released<S> {
    /// The state, as it was admitted.
    pub state: S,
    /// How many records it covers since the state before it in its scope.
    pub records: u64,
    /// How many records were left out, in the same range.
    pub rejected: u64,
}

#[derive(Debug)]
struct Pending<S> {
    epoch: u64,
    released: Released<S>,
}

/// What no state has counted yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Uncovered {
    records: u64,
    rejected: u64,
}

impl Uncovered {
    fn pending<S>(self, epoch: u64, state: S) -> Pending<S> {
        Pending {
            epoch,
            released: Released {
                state,
                records: self.records,
                rejected: self.rejected,
            },
        }
    }
}

/// Outstanding records per epoch, oldest first. Epochs in which nothing was admitted are left out.
#[derive(Debug, Default)]
struct Outstanding {
    epochs: VecDeque<(u64, u64)>,
}

impl Outstanding {
    fn admit(&mut self, epoch: u64) {
        match self.epochs.back_mut() {
            Some((last, count)) if *last == epoch => *count += 1,
            _ => self.epochs.push_back((epoch, 1)),
        }
    }

    fn acknowledge(&mut self, epoch: u64) {
        // Nearly always the front: records are sent in the order they came in.
        let at = match self.epochs.front() {
            Some((first, _)) if *first == epoch => Ok(0),
            _ => self.epochs.binary_search_by_key(&epoch, |entry| entry.0),
        };
        if let Ok(at) = at {
            self.epochs[at].1 = self.epochs[at].1.saturating_sub(1);
        }
        while let Some((_, 0)) = self.epochs.front() {
            self.epochs.pop_front();
        }
    }

    fn has_any_up_to(&self, epoch: u64) -> bool {
        self.epochs
            .front()
            .is_some_and(|(oldest, _)| *oldest <= epoch)
    }

    fn count(&self) -> u64 {
        self.epochs.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Debug)]
struct Lane<S> {
    outstanding: Outstanding,
    /// Records since the last state that covers this descriptor.
    uncovered: Uncovered,
    pending: VecDeque<Pending<S>>,
}

impl<S> Default for Lane<S> {
    fn default() -> Self {
        Self {
            outstanding: Outstanding::default(),
            uncovered: Uncovered::default(),
            pending: VecDeque::new(),
        }
    }
}

/// The checkpoint rules over all descriptors of a catalog, for states of type `S`.
#[derive(Debug)]
pub struct Checkpoints<S> {
    epoch: u64,
    /// One a descriptor.
    lanes: Vec<Lane<S>>,
    all: Outstanding,
    /// Records since the last state that covers everything, less those covered since.
    uncovered: Uncovered,
    /// States that wait for all records before them.
    everything: VecDeque<Pending<S>>,
    /// Lanes with a pending state that may have become releasable.
    touched: BTreeSet<usize>,
    pending_in_lanes: usize,
}

impl<S> Checkpoints<S> {
    /// The rules for a catalog of `descriptors` descriptors.
    pub fn new(descriptors: usize) -> Self {
        Self {
            epoch: 0,
            lanes: (0..descriptors).map(|_| Lane::default()).collect(),
            all: Outstanding::default(),
            uncovered: Uncovered::default(),
            everything: VecDeque::new(),
            touched: BTreeSet::new(),
            pending_in_lanes: 0,
        }
    }

    /// Takes note of a record of `descriptor`, which is outstanding from now on.
    ///
    /// # Panics
    ///
    /// When `descriptor` is not below the number given to [`Checkpoints::new`].
    #[must_use = "a record whose token is lost can never be acknowledged"]
    pub fn admit_record(&mut self, descriptor: DescriptorIndex) -> Token {
        let lane = &mut self.lanes[descriptor];
        lane.outstanding.admit(self.epoch);
        lane.uncovered.records += 1;
        self.all.admit(self.epoch);
        self.uncovered.records += 1;
        Token {
            descriptor,
            epoch: self.epoch,
        }
    }

    /// Takes note of a record that is left out. Nothing waits for it, and the next state counts it.
    ///
    /// # Panics
    ///
    /// As [`Checkpoints::admit_record`].
    pub fn admit_rejected(&mut self, descriptor: DescriptorIndex) {
        self.lanes[descriptor].uncovered.rejected += 1;
        self.uncovered.rejected += 1;
    }

    /// Takes note of a state, which covers the records of its scope that were admitted before it.
    ///
    /// # Panics
    ///
    /// When the scope's descriptor is not below the number given to [`Checkpoints::new`].
    pub fn admit_state(&mut self, scope: Scope, state: S) {
        let epoch = self.epoch;
        self.epoch += 1;
        let lane = match scope {
            Scope::Descriptor(descriptor) => descriptor,
            Scope::UnknownDescriptor => {
                let pending = Uncovered::default().pending(epoch, state);
                self.everything.push_back(pending);
                return;
            }
            Scope::Everything => {
                let uncovered = std::mem::take(&mut self.uncovered);
                if uncovered != Uncovered::default() {
                    for lane in &mut self.lanes {
                        lane.uncovered = Uncovered::default();
                    }
                }
                self.everything.push_back(uncovered.pending(epoch, state));
                return;
            }
        };
        let uncovered = std::mem::take(&mut self.lanes[lane].uncovered);
        self.uncovered.records -= uncovered.records;
        self.uncovered.rejected -= uncovered.rejected;
        let pending = uncovered.pending(epoch, state);
        self.lanes[lane].pending.push_back(pending);
        self.pending_in_lanes += 1;
        self.touched.insert(lane);
    }

    /// Takes note that Kinesis has acknowledged a record. Each token is to be given exactly once.
    pub fn acknowledge(&mut self, token: Token) {
        let lane = &mut self.lanes[token.descriptor];
        lane.outstanding.acknowledge(token.epoch);
        if !lane.pending.is_empty() {
            self.touched.insert(token.descriptor);
        }
        self.all.acknowledge(token.epoch);
    }

    /// Takes out the states that may go out now, in the order in which they must.
    #[must_use = "a released state is not held any more"]
    pub fn release(&mut self) -> Vec<Released<S>> {
        let mut out = Vec::new();
        loop {
            self.release_lanes(&mut out);
            let Some(head) = self.everything.front() else {
                return out;
            };
            if self.all.has_any_up_to(head.epoch) {
                return out;
            }
            // All states before this one were releasable too, and are out.
            out.extend(self.everything.pop_front().map(|pending| pending.released));
            if self.pending_in_lanes > 0 {
                self.touched.extend(
                    (0..self.lanes.len()).filter(|lane| !self.lanes[*lane].pending.is_empty()),
                );
            }
        }
    }

    /// Releases what the touched lanes can give, up to the first pending state that covers everything,
    /// merged into input order.
    fn release_lanes(&mut self, out: &mut Vec<Released<S>>) {
        let barrier = self.everything.front().map_or(u64::MAX, |head| head.epoch);
        let mut ready = Vec::new();
        for lane in std::mem::take(&mut self.touched) {
            let lane = &mut self.lanes[lane];
            while let Some(head) = lane.pending.front() {
                if head.epoch > barrier || lane.outstanding.has_any_up_to(head.epoch) {
                    break;
                }
                ready.extend(lane.pending.pop_front());
            }
        }
        self.pending_in_lanes -= ready.len();
        ready.sort_by_key(|pending: &Pending<S>| pending.epoch);
        out.extend(ready.into_iter().map(|pending| pending.released));
    }

    /// Records admitted and not acknowledged.
    pub fn outstanding(&self) -> u64 {
        self.all.count()
    }

    /// States admitted and not released.
    pub fn pending(&self) -> usize {
        self.pending_in_lanes + self.everything.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(released: Vec<Released<&'static str>>) -> Vec<&'static str> {
        released.into_iter().map(|state| state.state).collect()
    }

    #[test]
    fn a_stream_state_waits_for_its_own_stream_only() {
        let mut checkpoints = Checkpoints::new(2);
        let slow = checkpoints.admit_record(0);
        let fast = checkpoints.admit_record(1);
        checkpoints.admit_state(Scope::Descriptor(0), "slow");
        checkpoints.admit_state(Scope::Descriptor(1), "fast");
        checkpoints.acknowledge(fast);
        assert_eq!(names(checkpoints.release()), ["fast"]);
        checkpoints.acknowledge(slow);
        assert_eq!(names(checkpoints.release()), ["slow"]);
    }

    #[test]
    fn a_global_state_waits_for_all_and_keeps_its_place_in_the_order() {
        let mut checkpoints = Checkpoints::new(2);
        let a = checkpoints.admit_record(0);
        let b = checkpoints.admit_record(1);
        checkpoints.admit_state(Scope::Descriptor(1), "b");
        checkpoints.admit_state(Scope::Everything, "all");
        checkpoints.admit_state(Scope::Descriptor(1), "b again");
        checkpoints.admit_state(Scope::UnknownDescriptor, "unknown");
        checkpoints.acknowledge(b);
        assert_eq!(names(checkpoints.release()), ["b"]);
        checkpoints.acknowledge(a);
        assert_eq!(names(checkpoints.release()), ["all", "b again", "unknown"]);
    }

    #[test]
    fn acknowledgements_out_of_order_release_nothing_early() {
        let mut checkpoints = Checkpoints::new(1);
        let first = checkpoints.admit_record(0);
        checkpoints.admit_state(Scope::Descriptor(0), "one");
        let second = checkpoints.admit_record(0);
        checkpoints.admit_state(Scope::Descriptor(0), "two");
        checkpoints.acknowledge(second);
        assert!(checkpoints.release().is_empty());
        checkpoints.acknowledge(first);
        assert_eq!(names(checkpoints.release()), ["one", "two"]);
    }

    #[test]
    fn each_record_is_counted_in_the_first_state_that_covers_it() {
        let mut checkpoints = Checkpoints::new(2);
        let tokens: Vec<_> = [0, 0, 1].map(|d| checkpoints.admit_record(d)).into();
        checkpoints.admit_state(Scope::Descriptor(0), "two of the first");
        checkpoints.admit_state(Scope::Everything, "one of the second");
        checkpoints.admit_state(Scope::Everything, "none");
        tokens.into_iter().for_each(|t| checkpoints.acknowledge(t));
        let counts: Vec<_> = checkpoints.release().iter().map(|r| r.records).collect();
        assert_eq!(counts, [2, 1, 0]);
    }

    #[test]
    fn rejected_records_are_counted_apart_and_wait_for_nothing() {
        let mut checkpoints = Checkpoints::new(2);
        checkpoints.admit_rejected(0);
        checkpoints.admit_rejected(1);
        checkpoints.admit_state(Scope::Descriptor(0), "one");
        checkpoints.admit_state(Scope::Everything, "the other");
        checkpoints.admit_state(Scope::Everything, "none");
        let counts: Vec<_> = checkpoints
            .release()
            .iter()
            .map(|r| (r.records, r.rejected))
            .collect();
        assert_eq!(counts, [(0, 1), (0, 1), (0, 0)]);
    }

    /// The rules again, written as they are said: slow, and plainly right.
    #[derive(Default)]
    struct Reference {
        /// In input order: a record (descriptor, acknowledged), or a state (scope, released).
        items: Vec<Item>,
    }

    enum Item {
        Record(DescriptorIndex, bool),
        State(Scope, usize, bool),
    }

    impl Reference {
        fn release(&mut self) -> Vec<usize> {
            let mut out = Vec::new();
            for at in 0..self.items.len() {
                let Item::State(scope, id, false) = self.items[at] else {
                    continue;
                };
                let blocked = self.items[..at].iter().any(|item| match (item, scope) {
                    (Item::Record(d, stored), Scope::Descriptor(own)) => !stored && *d == own,
                    (Item::Record(_, stored), _) => !stored,
                    (Item::State(_, _, true), _) => false,
                    (Item::State(other, _, false), scope) => {
                        let is_one_stream = |scope| matches!(scope, Scope::Descriptor(_));
                        *other == scope || !is_one_stream(*other) || !is_one_stream(scope)
                    }
                });
                if !blocked {
                    self.items[at] = Item::State(scope, id, true);
                    out.push(id);
                }
            }
            out
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Record(usize),
        State(Option<usize>),
        /// Acknowledges one of the outstanding records, chosen by this number.
        Acknowledge(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3usize).prop_map(Step::Record),
            2 => (0..5usize).prop_map(|d| Step::State((d < 4).then_some(d))),
            4 => any::<usize>().prop_map(Step::Acknowledge),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(steps in prop::collection::vec(step(), 0..120)) {
            let mut checkpoints = Checkpoints::new(3);
            let mut reference = Reference::default();
            let mut outstanding: Vec<(Token, usize)> = Vec::new();
            let mut counted = 0;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Record(descriptor) => {
                        outstanding.push((checkpoints.admit_record(descriptor), reference.items.len()));
                        reference.items.push(Item::Record(descriptor, false));
                    }
                    Step::State(descriptor) => {
                        let scope = match descriptor {
                            Some(3) => Scope::UnknownDescriptor,
                            Some(descriptor) => Scope::Descriptor(descriptor),
                            None => Scope::Everything,
                        };
                        checkpoints.admit_state(scope, number);
                        reference.items.push(Item::State(scope, number, false));
                    }
                    Step::Acknowledge(choice) if !outstanding.is_empty() => {
                        let (token, at) = outstanding.swap_remove(choice % outstanding.len());
                        checkpoints.acknowledge(token);
                        if let Item::Record(_, stored) = &mut reference.items[at] {
                            *stored = true;
                        }
                    }
                    Step::Acknowledge(_) => {}
                }
                let released = checkpoints.release();
                counted += released.iter().map(|state| state.records).sum::<u64>();
                let ids: Vec<_> = released.into_iter().map(|state| state.state).collect();
                prop_assert_eq!(ids, reference.release());
                prop_assert_eq!(checkpoints.outstanding(), u64::try_from(outstanding.len()).unwrap());
            }
            for (token, _) in outstanding {
                checkpoints.acknowledge(token);
            }
            checkpoints.admit_state(Scope::Everything, usize::MAX);
            counted += checkpoints.release().iter().map(|state| state.records).sum::<u64>();
            let records = reference.items.iter().filter(|item| matches!(item, Item::Record(..))).count();
            prop_assert_eq!(counted, u64::try_from(records).unwrap(), "each record is counted exactly once");
            prop_assert_eq!(checkpoints.pending(), 0);
        }
    }
}
