//! Input that nobody should send: a million lines that began as good ones, and were broken.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::messages::{
    CANARY, catalog, log, numbered, record, records, state_global, state_legacy, state_stream,
    stream, stream_status,
};
use crate::support::program::{Finished, Program, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{assert_all_states, assert_earned, assert_exactly_stored};

/// Chosen once, so that a failure can be looked into.
const SEED: u64 = 20_261_122;

/// Lines of the long run that are not good ones.
const LINES: usize = 1_000_000;

/// Runs that end at one bad line each.
const BAD_LINES: usize = 120;

/// Runs side by side.
const SIDE_BY_SIDE: usize = 4;

/// The most memory that the process may have resident.
const BYTES_MAX: u64 = 128 << 20;

/// Good lines, of every kind.
fn good_lines() -> Vec<Vec<u8>> {
    let data = json!({
        "id": 7, "secret": CANARY, "nested": { "list": [1, 2.5, null, true, "é\u{1f600}\\\""] },
    });
    let lines = [
        record("s0", &data),
        record("s0", r#"{"n":1e400,"m":12345678901234567890.1}"#).namespace("public"),
        record("s0", &data).nulls(),
        state_stream("s0", &data).id(3),
        state_global(&data, [("s0", data.clone())]),
        state_legacy(&data),
        log("INFO", &data.to_string()),
        stream_status("s0", "COMPLETE"),
        log("ERROR", &format!("{CANARY}: no such table")).nulls(),
    ];
    lines.map(|line| line.line().into_bytes()).into()
}

/// Pieces of JSON, and of nothing.
const PIECES: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"0",
    b"-",
    b"1e999999",
    b"\\ud800",
    b"\\u0000",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    b"\r",
    b"\"type\":",
    b"\"RECORD\"",
    b"\"STATE\"",
    b"\"data\":{}",
];

/// Breaks a line, in one place or several. It stays one line.
fn mutate(rng: &mut Rng, lines: &[Vec<u8>]) -> Vec<u8> {
    let mut line = lines[rng.usize(..lines.len())].clone();
    for _ in 0..=rng.usize(..3) {
        let at = rng.usize(..=line.len());
        let to = (at + rng.usize(..20)).min(line.len());
        match rng.u8(..8) {
            0 => line.truncate(at),
            1 => drop(line.drain(at..to)),
            2 => {
                let part = line[at..to].to_vec();
                line.splice(at..at, part);
            }
            3 if at < line.len() => line[at] ^= 1 << rng.u8(..8),
            4 if at < line.len() => line[at] = rng.u8(..),
            5 => {
                let other = &lines[rng.usize(..lines.len())];
                let from = rng.usize(..other.len());
                line.splice(at.., other[from..].iter().copied());
            }
            6 => {
                let deep = [b"[", b"{\"a\":".as_slice()][rng.usize(..2)].repeat(rng.usize(..300));
                line.splice(at..at, deep);
            }
            _ => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                line.splice(at..to, piece.iter().copied());
            }
        }
    }
    line.retain(|byte| *byte != b'\n');
    line
}

/// Breaks a line a little: one that holds much text mostly stays a message, with another text.
fn scratch(rng: &mut Rng, lines: &[Vec<u8>]) -> Vec<u8> {
    let mut line = lines[rng.usize(..lines.len())].clone();
    let at = rng.usize(..line.len());
    line[at] = rng.u8(b' '..=b'~');
    line
}

/// Whether a broken line may have been a record or a state: such a line ends the sync.
fn may_matter(line: &[u8]) -> bool {
    // Types may also be spelled with escapes, and a line may have a record and no type.
    [&b"RECORD"[..], b"STATE", b"record", b"state", b"\\u"]
        .iter()
        .any(|name| memchr::memmem::find(line, name).is_some())
}

fn write(kinesis: &Kinesis) -> Program {
    Write::to(kinesis).catalog(catalog([stream("s0"), stream("s0").namespace("public")]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_broken_lines_are_skipped_and_not_shown() {
    const GOOD: usize = 1_000;
    let kinesis = Kinesis::start().await;
    for name in ["_s0", "public_s0"] {
        kinesis.create_stream(name, 1).await;
    }
    let mut good = records("s0", GOOD);
    good.push(state_stream("s0", json!({ "cursor": GOOD })));
    let mut rng = Rng::with_seed(SEED);
    let lines = good_lines();
    let broken = move || match rng.u8(..16) {
        0 => mutate(&mut rng, &lines),
        _ => scratch(&mut rng, &lines),
    };
    let mut noise = std::iter::repeat_with(broken).filter(|line| !may_matter(line));
    let between = LINES.div_ceil(GOOD);
    let parts = good.clone().into_iter().map(move |message| {
        let mut part = noise
            .by_ref()
            .take(between)
            .collect::<Vec<_>>()
            .join(&b'\n');
        part.push(b'\n');
        part.extend(message.line().into_bytes());
        part.push(b'\n');
        part
    });
    let program = write(&kinesis).deadline(Duration::from_secs(180));
    let mut running = program.spawn().await;
    drop(running.feed_bytes(parts));
    let mut peak = 0;
    loop {
        tokio::select! {
            () = running.ended() => break,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                peak = running.peak_rss_so_far().unwrap_or(peak);
            }
        }
    }
    // This looks for the content of records in all that was said.
    let run = running.finish().await;
    run.assert_success();
    assert_all_states(&good, &run);
    assert_earned(&kinesis, &good, &run).await;
    let data: Vec<String> = (0..GOOD).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
    assert!(peak < BYTES_MAX, "{} MiB", peak >> 20);
    let skipped = run
        .lines
        .iter()
        .filter(|line| line.logs("ERROR", "Skipped a line"));
    let skipped = skipped.count();
    assert!(skipped > LINES / 20, "{skipped} skipped lines prove little");
    let said = run
        .lines
        .iter()
        .any(|line| line.logs("ERROR", &format!("lines={skipped})")));
    assert!(said, "how many lines were skipped is said at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_that_may_matter_ends_the_sync_behind_what_came_before_it() {
    let mut rng = Rng::with_seed(SEED);
    let lines = good_lines();
    let broken = std::iter::repeat_with(move || mutate(&mut rng, &lines));
    let mut broken = broken.filter(|line| may_matter(line)).take(BAD_LINES);
    let mut runs = JoinSet::new();
    let mut failed = 0;
    loop {
        while runs.len() < SIDE_BY_SIDE
            && let Some(line) = broken.next()
        {
            runs.spawn(one_broken_line(line));
        }
        let Some(run) = runs.join_next().await else {
            break;
        };
        match run {
            Ok(run) => failed += usize::from(run.exit_code == Some(1)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    assert!(
        failed > BAD_LINES / 3,
        "{failed} of {BAD_LINES} prove little"
    );
}

/// Good lines, a broken one, and good lines again.
async fn one_broken_line(line: Vec<u8>) -> Finished {
    let kinesis = Kinesis::start().await;
    for name in ["_s0", "public_s0"] {
        kinesis.create_stream(name, 1).await;
    }
    let mut before = records("s0", 5);
    before.push(state_stream("s0", json!({ "cursor": 5 })));
    let mut after: Vec<String> = before.iter().map(ToString::to_string).collect();
    after.push(String::new());
    let run = write(&kinesis)
        .input(before.iter().map(ToString::to_string))
        .raw_input(&line)
        .raw_input(b"\n")
        .raw_input(after.join("\n").as_bytes())
        .env("LOG_LEVEL", "DEBUG")
        .run()
        .await;
    let shown = String::from_utf8_lossy(&line);
    let data: Vec<String> = (0..5).map(numbered).collect();
    let stored = kinesis.stored("_s0").await;
    if run.exit_code == Some(0) {
        // What was broken is inside the data, or in a field that nobody reads.
        run.assert_success();
        assert!(run.states().len() >= 2, "{shown}\n{run}");
        return run;
    }
    assert_eq!(run.exit_code, Some(1), "{shown}\n{run}");
    let error = &run.trace_error()["error"];
    assert_eq!(error["failure_type"], "system_error", "{shown}\n{run}");
    assert_eq!(error.get("stack_trace"), None, "{shown}\n{run}");
    assert_eq!(run.states().len(), 1, "{shown}\n{run}");
    assert_earned(&kinesis, &before, &run).await;
    assert_eq!(stored.len(), data.len(), "{shown}\n{run}");
    run
}
