//! The message parser: what it takes for a record or a state is one, what it hands on is what came,
//! and what it refuses without a second thought cannot have been either.

use bytes::Bytes;
use destination_kinesis::protocol::{Message, StateLine, Unreadable, parse};
use serde_json::Value;
use serde_json::value::RawValue;

/// A line.
pub fn check(line: &[u8]) {
    let line = line.trim_ascii();
    match parse(line) {
        Ok(Message::Record(record)) => {
            let is_json = serde_json::from_str::<&RawValue>(record.data).is_ok();
            assert!(is_json && record.data.starts_with('{'));
            assert!(
                contains(line, record.data.as_bytes()),
                "not the text that came"
            );
        }
        Ok(Message::State(state)) => {
            let mut out = Vec::new();
            StateLine::new(Bytes::copy_from_slice(line), state.slot).write(7, 0, &mut out);
            assert_eq!(out.pop(), Some(b'\n'));
            only_statistics_changed(line, &out);
        }
        Ok(Message::Other(kind)) => assert!(kind != "RECORD" && kind != "STATE"),
        Err(Unreadable { may_matter, .. }) => {
            let is_one = serde_json::from_slice::<Value>(line)
                .is_ok_and(|value| value["type"] == "RECORD" || value["type"] == "STATE");
            assert!(may_matter || !is_one, "thrown away");
        }
    }
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|at| at == part)
}

fn only_statistics_changed(line: &[u8], out: &[u8]) {
    let shared = line.iter().zip(out).take_while(|(a, b)| a == b).count();
    let tail = line[shared..].iter().rev().zip(out[shared..].iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let new = std::str::from_utf8(&out[shared..out.len() - tail]).expect("UTF-8");
    assert!(
        new.len() <= ",\"destinationStats\":{\"recordCount\":7.0}".len() + 40,
        "{new}"
    );
    // Numbers that fit into no value in memory are fine, and cannot be compared this way.
    let (Ok(mut before), Ok(mut after)) = (
        serde_json::from_slice::<Value>(line),
        serde_json::from_slice::<Value>(out),
    ) else {
        serde_json::from_slice::<&RawValue>(out).expect("still JSON");
        return;
    };
    let count = after["state"]["destinationStats"]["recordCount"].take();
    assert_eq!(count, 7.0, "{after}");
    for value in [&mut before, &mut after] {
        let state = value["state"].as_object_mut().expect("an object");
        state.remove("destinationStats");
    }
    assert_eq!(before, after);
}
