//! The process ends in the middle: killed, asked to stop, or left by its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::call::Call;
use crate::support::faults::{Fault, Gate, THROUGHPUT_EXCEEDED};
use crate::support::messages::{
    catalog, numbered, record, records, state_global, state_stream, stream,
};
use crate::support::program::{Finished, Program, Running, Write, connection};
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_record_counts,
};
use crate::support::within;

/// Rounds of [`whenever_it_is_killed_nothing_is_lost`].
const ROUNDS: u64 = 200;

/// Rounds that run side by side.
const SIDE_BY_SIDE: usize = 4;

/// The first seed of the rounds. Each round has the next one: with the seed that a failure names here,
/// and `KILL_ROUNDS=1`, that round runs alone.
const SEED: &str = "KILL_SEED";

/// Between two looks at something that tells nobody when it changes.
const POLL: Duration = Duration::from_millis(2);

const STREAMS: [&str; 2] = ["s0", "s1"];

/// Records of each stream in one round.
const RECORDS: usize = 48;

#[tokio::test(flavor = "multi_thread")]
async fn whenever_it_is_killed_nothing_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number(SEED).unwrap_or_else(|| fastrand::u64(..1 << 40));
    let rounds = number("KILL_ROUNDS").unwrap_or(ROUNDS);
    let mut seeds = first..first + rounds;
    let mut running = JoinSet::new();
    let mut killed = 0;
    let mut in_the_middle = 0;
    loop {
        while running.len() < SIDE_BY_SIDE
            && let Some(seed) = seeds.next()
        {
            running.spawn(async move { (seed, tokio::spawn(Round::new(seed).run()).await) });
        }
        let Some(round) = running.join_next().await else {
            break;
        };
        let (seed, outcome) = round.expect("nothing panics here");
        match outcome {
            Ok(Killed { early, late }) => {
                killed += u64::from(!late);
                in_the_middle += u64::from(!late && !early);
            }
            Err(error) => {
                eprintln!("the round of {SEED}={seed} KILL_ROUNDS=1 failed");
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
    assert!(
        rounds < ROUNDS || (killed > rounds / 2 && in_the_middle > rounds / 4),
        "the kills prove little: {killed} came before the end, {in_the_middle} of them between states"
    );
}

/// When a round was killed.
struct Killed {
    /// No state was out.
    early: bool,
    /// It had ended by itself.
    late: bool,
}

/// When the process is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the start.
    Start(Duration),
    /// So long after this request.
    Request(usize, Duration),
    /// After this state came out.
    State(usize),
}

/// One sync with faults, killed, and a second one.
struct Round {
    seed: u64,
    global: bool,
    moment: Moment,
}

impl Round {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let moment = match rng.u8(..4) {
            0 => Moment::Start(Duration::from_millis(rng.u64(..600))),
            1 | 2 => {
                let pause = Duration::from_micros(rng.u64(..20_000));
                Moment::Request(rng.usize(1..24), pause)
            }
            _ => Moment::State(rng.usize(1..10)),
        };
        let global = rng.bool();
        Self {
            seed,
            global,
            moment,
        }
    }

    async fn run(self) -> Killed {
        let kinesis = Kinesis::start().await;
        for name in STREAMS {
            kinesis.create_stream(&format!("_{name}"), 2).await;
        }
        let rng = Mutex::new(Rng::with_seed(!self.seed));
        kinesis.on("PutRecords", move |call| {
            fault(call, &mut rng.lock().expect("no script panics"))
        });

        let mut running = self.write(&kinesis).spawn().await;
        let input = self.input();
        drop(running.feed(input.clone()));
        self.kill(&kinesis, &mut running).await;
        let first = running.finish().await;
        let late = first.signal.is_none();
        if late {
            first.assert_success();
            assert_all_states(&input, &first);
        } else {
            assert_eq!(first.signal, Some(9), "{first}");
        }
        assert_record_counts(&input, &first);
        assert_earned(&kinesis, &input, &first).await;

        kinesis.heal();
        let rest = self.after_states_of(&first);
        let second = self.write(&kinesis).input(rest.clone()).run().await;
        second.assert_success();
        assert_all_states(&rest, &second);
        assert_earned(&kinesis, &rest, &second).await;
        let all: BTreeSet<String> = (0..RECORDS).map(numbered).collect();
        for name in STREAMS {
            let stored = kinesis.stored(&format!("_{name}")).await;
            let stored: BTreeSet<String> = stored.into_iter().map(|record| record.data).collect();
            assert!(stored == all, "{name} is not complete");
        }
        Killed {
            early: first.states().is_empty(),
            late,
        }
    }

    fn write(&self, kinesis: &Kinesis) -> Program {
        Write::to(kinesis)
            .config(json!({ "bufferSize": 4, "retryTimeoutSeconds": 30 }))
            .catalog(catalog(STREAMS.map(stream)))
            .deadline(Duration::from_secs(60))
    }

    /// Records in turn, and states between them.
    fn input(&self) -> Vec<String> {
        let mut rng = Rng::with_seed(self.seed);
        let mut input = Vec::new();
        for n in 0..RECORDS {
            for name in STREAMS {
                input.push(record(name, numbered(n)).line());
            }
            if n + 1 == RECORDS || rng.u8(..4) == 0 {
                let cursor = json!({ "cursor": n });
                if self.global {
                    let of = STREAMS.map(|name| (name, cursor.clone()));
                    input.push(state_global(json!(n), of).line());
                } else {
                    input.extend(STREAMS.map(|name| state_stream(name, &cursor).line()));
                }
            }
        }
        input
    }

    async fn kill(&self, kinesis: &Kinesis, running: &mut Running) {
        let moment = async {
            match self.moment {
                Moment::Start(pause) => tokio::time::sleep(pause).await,
                Moment::Request(nth, pause) => {
                    kinesis.wait_for_calls("PutRecords", nth).await;
                    tokio::time::sleep(pause).await;
                }
                Moment::State(nth) => {
                    let input = self.input();
                    let states = input
                        .iter()
                        .filter(|line| line.contains(r#""type":"STATE""#));
                    for _ in states.take(nth) {
                        running.next_state().await;
                    }
                }
            }
        };
        moment.await;
        running.kill();
    }

    /// The input that a source would send again.
    fn after_states_of(&self, run: &Finished) -> Vec<String> {
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for state in run.states() {
            let state: serde_json::Value = serde_json::from_str(state).expect("a state");
            let state = &state["state"];
            match state["stream"]["stream_descriptor"]["name"].as_str() {
                Some(name) => {
                    let cursor = &state["stream"]["stream_state"]["cursor"];
                    last.insert(name.to_owned(), cursor.as_u64().expect("a number"));
                }
                None => {
                    let cursor = state["global"]["shared_state"].as_u64();
                    last.extend(STREAMS.map(|name| (name.to_owned(), cursor.expect("a number"))));
                }
            }
        }
        let mut input = self.input();
        input.retain(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a message");
            let stream = &line["state"]["stream"];
            let (name, n) = if line["type"] == "RECORD" {
                (&line["record"]["stream"], &line["record"]["data"]["n"])
            } else if stream.is_null() {
                (&json!("s0"), &line["state"]["global"]["shared_state"])
            } else {
                let name = &stream["stream_descriptor"]["name"];
                (name, &stream["stream_state"]["cursor"])
            };
            let covered = last.get(name.as_str().expect("a name"));
            covered.is_none_or(|covered| n.as_u64().expect("a number") > *covered)
        });
        input
    }
}

/// What one request of a round meets.
fn fault(call: &Call<'_>, rng: &mut Rng) -> Fault {
    let some: Vec<usize> = (0..call.len()).filter(|_| rng.bool()).collect();
    let pause = Duration::from_micros(rng.u64(..10_000));
    match rng.u8(..100) {
        0..55 => Fault::pass(),
        55..65 => Fault::pass().after(pause),
        65..73 => Fault::pass().answered_after(pause),
        73..82 => Fault::throttle(some),
        82..85 => Fault::refuse_all(THROUGHPUT_EXCEEDED),
        85..88 => Fault::refuse(some, "InternalFailure"),
        88..91 => Fault::lost_answer(),
        91..93 => Fault::reset_answer(),
        93..95 => Fault::lost_request(),
        95..97 => Fault::error(500, "InternalFailure", "no"),
        97..99 => Fault::status(503).but_served(),
        _ => Fault::broken_json().but_served(),
    }
}

/// A server with the streams `_s0` and `_s1`.
async fn server() -> Kinesis {
    let kinesis = Kinesis::start().await;
    for name in STREAMS {
        kinesis.create_stream(&format!("_{name}"), 1).await;
    }
    kinesis
}

/// A sync into both.
fn write(kinesis: &Kinesis) -> Program {
    Write::to(kinesis)
        .config(json!({ "bufferSize": 10, "retryTimeoutSeconds": 30 }))
        .catalog(catalog(STREAMS.map(stream)))
}

/// Waits until the process has taken in all that was sent.
async fn has_taken_all_in(running: &mut Running) {
    // Nothing holds a state of a stream without records back, once what came before it is taken in.
    running.send(state_stream("s1", json!({ "seen": 1 }))).await;
    let seen = |line: &crate::support::finished::Line| line.text.contains(r#""seen":1"#);
    running.wait_for_message(seen).await;
}

async fn a_signal_stores_what_is_buffered(signal: fn(&Running), name: &str) {
    let kinesis = server().await;
    let mut running = write(&kinesis).spawn().await;
    // Less than a request holds: it waits for more.
    let mut input = records("s0", 25);
    input.push(state_stream("s0", json!({ "cursor": 25 })));
    for line in &input {
        running.send(line.clone()).await;
    }
    has_taken_all_in(&mut running).await;
    signal(&running);
    // The input stays open.
    running.ended().await;
    let run = running.finish().await;
    let error = run.assert_failed("transient_error", name);
    assert!(error["message"].as_str().unwrap().contains("goes on"));
    assert_eq!(run.states().len(), 2, "{run}");
    input.insert(25, state_stream("s1", json!({ "seen": 1 })));
    assert_earned(&kinesis, &input, &run).await;
    let data: Vec<String> = (0..25).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stores_what_is_buffered_and_sends_the_states_it_earns() {
    a_signal_stores_what_is_buffered(Running::terminate, "SIGTERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_stores_what_is_buffered_and_sends_the_states_it_earns() {
    a_signal_stores_what_is_buffered(Running::interrupt, "SIGINT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_signal_refused_records_are_tried_again_within_the_grace() {
    let kinesis = server().await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.nth {
        1 => Fault::throttle([0, 3]).waiting_at(&held),
        2 => Fault::status(503),
        3 => Fault::lost_request(),
        _ => Fault::pass(),
    });
    let mut running = write(&kinesis).spawn().await;
    let mut input = records("s0", 10);
    input.push(state_stream("s0", json!({ "cursor": 10 })));
    for line in &input {
        running.send(line.clone()).await;
    }
    has_taken_all_in(&mut running).await;
    gate.waiting(1).await;
    running.terminate();
    gate.open();
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("transient_error", "SIGTERM");
    assert_eq!(run.states().len(), 2, "{run}");
    let data: Vec<String> = (0..10).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_sync_that_gets_no_answer() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |_| Fault::silence());
    let mut running = write(&kinesis).spawn().await;
    let mut input = records("s0", 15);
    input.push(state_stream("s0", json!({ "cursor": 15 })));
    for line in &input {
        running.send(line.clone()).await;
    }
    kinesis.wait_for_calls("PutRecords", 1).await;
    running.terminate();
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("transient_error", "SIGTERM");
    assert!(run.states().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let kinesis = server().await;
    kinesis.on("PutRecords", |_| Fault::silence());
    let mut running = write(&kinesis).spawn().await;
    for line in records("s0", 10) {
        running.send(line).await;
    }
    kinesis.wait_for_calls("PutRecords", 1).await;
    // Signals that come together are one: send until there were two. The grace would be ten seconds.
    let mut sent = 0;
    let ended = async {
        loop {
            tokio::select! {
                () = running.ended() => return sent,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            sent += 1;
            running.terminate();
        }
    };
    let sent = within("the end of the process", ended).await;
    assert!(sent < 50, "{sent} signals");
    assert_eq!(running.finish().await.exit_code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_sync_that_waits_for_its_stream() {
    let kinesis = Kinesis::start().await;
    kinesis.on("DescribeStreamSummary", |_| Fault::silence());
    let mut running = write(&kinesis).spawn().await;
    kinesis.wait_for_calls("DescribeStreamSummary", 1).await;
    running.terminate();
    running.ended().await;
    let run = running.finish().await;
    run.assert_failed("transient_error", "SIGTERM");
}

/// Whether a writer to this named pipe has to wait.
fn is_full(pipe: &Path) -> bool {
    let Ok(both_ends) = File::options().read(true).write(true).open(pipe) else {
        return false;
    };
    let mut room = [PollFd::new(&both_ends, PollFlags::OUT)];
    poll(&mut room, Some(&Timespec::default())).unwrap() == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_sync_whose_output_nobody_reads() {
    const STUCK: &str = r#"mkfifo "$0" && exec 3<>"$0" && exec "$@" >"$0""#;
    // A pipe that stays open and is never read: the shell opens both ends, and becomes the connector.
    let kinesis = server().await;
    let binary = env!("CARGO_BIN_EXE_destination-kinesis");
    let dir = TempDir::new().unwrap();
    let stuck = dir.path().join("stuck");
    let mut running = Program::args(["-c", STUCK, stuck.to_str().unwrap(), binary, "write"])
        .binary("/bin/sh")
        .config(connection(&kinesis))
        .catalog(catalog(STREAMS.map(stream)))
        .spawn()
        .await;
    // Each comes straight back, until the pipe is full.
    let state = state_stream("s0", json!({ "long": "x".repeat(1000) })).line();
    drop(running.feed(std::iter::repeat_n(state, 10_000)));
    let full = async {
        while !is_full(&stuck) {
            tokio::time::sleep(POLL).await;
        }
    };
    within("the output pipe to be full", full).await;
    running.terminate();
    running.ended().await;
    let run = running.finish().await;
    assert_eq!(run.exit_code, Some(1), "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_ends_the_sync_quietly() {
    let kinesis = server().await;
    let gate = Gate::new();
    let held = gate.clone();
    kinesis.on("PutRecords", move |call| match call.nth {
        1 => Fault::hold(&held),
        _ => Fault::pass(),
    });
    let mut running = write(&kinesis).spawn().await;
    let mut input = records("s0", 10);
    input.push(state_stream("s0", json!({ "cursor": 10 })));
    for line in &input {
        running.send(line.clone()).await;
    }
    gate.waiting(1).await;
    running.close_stdout().await;
    // The first line that is written finds out: the state.
    gate.open();
    running.ended().await;
    let run = running.finish().await;
    assert_eq!(run.exit_code, Some(1), "{run}");
    assert_eq!(run.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_from_the_start_ends_the_sync_quietly() {
    let kinesis = server().await;
    let mut running = write(&kinesis).spawn().await;
    running.close_stdout().await;
    let endless = std::iter::repeat_with(|| record("s0", numbered(0)).line());
    drop(running.feed(endless));
    running.ended().await;
    let run = running.finish().await;
    assert_eq!(run.exit_code, Some(1), "{run}");
    assert_eq!(run.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_ends_in_the_middle_of_a_line_fails_after_what_came_before_is_stored() {
    for cut in [
        &record("s0", numbered(20)).line()[..60],
        r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descri"#,
        r#"{"#,
    ] {
        let kinesis = server().await;
        let mut input = records("s0", 20);
        input.push(state_stream("s0", json!({ "cursor": 20 })));
        let run = write(&kinesis)
            .input(input.clone())
            .raw_input(cut.as_bytes())
            .run()
            .await;
        run.assert_failed("system_error", "Line 22");
        assert_all_states(&input, &run);
        assert_earned(&kinesis, &input, &run).await;
        let data: Vec<String> = (0..20).map(numbered).collect();
        assert_exactly_stored(&kinesis, "_s0", &data).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_stops_in_the_middle_holds_nothing_up() {
    let kinesis = server().await;
    let mut running = write(&kinesis).spawn().await;
    let mut input = records("s0", 3);
    input.push(state_stream("s0", json!({ "cursor": 3 })));
    for line in &input {
        running.send(line.clone()).await;
    }
    let next = record("s0", numbered(3)).line();
    let (head, tail) = next.split_at(40);
    running.send_raw(head.as_bytes()).await;
    // Nothing more comes, and yet what is buffered goes out.
    running.next_state().await;
    running.send(tail).await;
    let run = running.finish().await;
    run.assert_success();
    assert_all_states(&input, &run);
    let data: Vec<String> = (0..4).map(numbered).collect();
    assert_exactly_stored(&kinesis, "_s0", &data).await;
}
