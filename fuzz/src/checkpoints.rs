//! The checkpoint rules, against the same rules written as they are said: slow, and plainly right.

use destination_kinesis::checkpoint::{Checkpoints, DescriptorIndex, Scope, Token};

const DESCRIPTORS: usize = 3;

enum Item {
    /// Its descriptor, and whether it is stored.
    Record(DescriptorIndex, bool),
    /// Its scope, its number, and whether it is out.
    State(Scope, usize, bool),
}

/// What happens, one byte a step.
pub fn check(steps: &[u8]) {
    let mut checkpoints = Checkpoints::new(DESCRIPTORS);
    let mut items: Vec<Item> = Vec::new();
    let mut outstanding: Vec<(Token, usize)> = Vec::new();
    let mut counted = 0;
    // The rules as they are said look at all items for each state.
    for (number, step) in steps.iter().take(300).enumerate() {
        let choice = usize::from(step >> 3);
        match step & 7 {
            0..=2 => {
                let descriptor = choice % DESCRIPTORS;
                outstanding.push((checkpoints.admit_record(descriptor), items.len()));
                items.push(Item::Record(descriptor, false));
            }
            3 => {
                let scope = match choice % (DESCRIPTORS + 2) {
                    DESCRIPTORS => Scope::UnknownDescriptor,
                    descriptor if descriptor < DESCRIPTORS => Scope::Descriptor(descriptor),
                    _ => Scope::Everything,
                };
                checkpoints.admit_state(scope, number);
                items.push(Item::State(scope, number, false));
            }
            4 => checkpoints.admit_rejected(choice % DESCRIPTORS),
            _ if outstanding.is_empty() => {}
            _ => {
                let (token, at) = outstanding.swap_remove(choice % outstanding.len());
                checkpoints.acknowledge(token);
                if let Item::Record(_, stored) = &mut items[at] {
                    *stored = true;
                }
            }
        }
        let released = checkpoints.release();
        counted += released.iter().map(|state| state.records).sum::<u64>();
        let numbers: Vec<usize> = released.into_iter().map(|state| state.state).collect();
        assert_eq!(numbers, release(&mut items));
        assert_eq!(checkpoints.outstanding(), count(outstanding.len()));
    }
    for (token, _) in outstanding {
        checkpoints.acknowledge(token);
    }
    checkpoints.admit_state(Scope::Everything, usize::MAX);
    counted += checkpoints
        .release()
        .iter()
        .map(|state| state.records)
        .sum::<u64>();
    let records = items
        .iter()
        .filter(|item| matches!(item, Item::Record(..)))
        .count();
    assert_eq!(
        counted,
        count(records),
        "each record is counted exactly once"
    );
    assert_eq!(checkpoints.pending(), 0);
}

/// The states that may go out now, in input order.
fn release(items: &mut [Item]) -> Vec<usize> {
    let mut out = Vec::new();
    for at in 0..items.len() {
        let Item::State(scope, number, false) = items[at] else {
            continue;
        };
        let is_blocked = items[..at].iter().any(|before| match (before, scope) {
            (Item::Record(of, stored), Scope::Descriptor(own)) => !stored && *of == own,
            (Item::Record(_, stored), _) => !stored,
            (Item::State(_, _, true), _) => false,
            (Item::State(other, _, false), scope) => {
                let is_one_stream = |scope| matches!(scope, Scope::Descriptor(_));
                *other == scope || !is_one_stream(*other) || !is_one_stream(scope)
            }
        });
        if !is_blocked {
            items[at] = Item::State(scope, number, true);
            out.push(number);
        }
    }
    out
}

fn count(of: usize) -> u64 {
    u64::try_from(of).expect("64 bits")
}
