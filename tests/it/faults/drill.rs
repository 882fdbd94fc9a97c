//! One sync that meets one fault, everywhere: at its start, in its middle and in its last flush, with
//! one stream and with several, with states of streams and with states of all. And all that has to
//! hold afterwards, whatever the fault was.
//!
//! ```ignore
//! drill(|_| Fault::status(503)).twice().stores_all_once().await;
//! drill(|_| Fault::error(400, "AccessDeniedException", "no")).for_good()
//!     .fails("config_error", ["kinesis:PutRecords"]).await;
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::call::{Call, Entry};
use crate::support::faults::Fault;
use crate::support::messages::{
    Message, catalog, numbered, record, state_global, state_stream, stream,
};
use crate::support::program::{Finished, Write};
use crate::support::server::Kinesis;
use crate::support::verdict::{
    assert_all_states, assert_earned, assert_exactly_stored, assert_record_counts,
    assert_stored_at_least_once,
};
use crate::support::within;

/// Records of each stream.
pub(super) const RECORDS: usize = 43;

/// After this many records of each stream come states.
const STATE_EVERY: usize = 7;

/// Records in a request, at most: few, so that there are many requests.
pub(super) const BATCH: usize = 10;

/// How long one run may take: some wait for time-outs, on a machine that has other things to do.
const RUN_MAX: Duration = Duration::from_secs(60);

/// When the fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// With the first record, and the input goes on.
    Start,
    /// In the middle, and the input goes on.
    Middle,
    /// With the last record, in the flush after the end of the input.
    LastFlush,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Start, Self::Middle, Self::LastFlush];

    /// The record that the fault waits for.
    fn marked(self) -> usize {
        match self {
            Self::Start => 0,
            Self::Middle => RECORDS / 2,
            Self::LastFlush => RECORDS - 1,
        }
    }

    /// How many records of each stream are sent before the fault strikes.
    fn sent_before(self) -> usize {
        match self {
            Self::Start => BATCH,
            Self::Middle => RECORDS / 2 + BATCH,
            Self::LastFlush => RECORDS,
        }
    }

    /// No level of logging may tell secrets: all are tried.
    fn log_level(self) -> &'static str {
        match self {
            Self::Start => "INFO",
            Self::Middle => "TRACE",
            Self::LastFlush => "DEBUG",
        }
    }
}

/// What is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One stream.
    One,
    /// Three streams side by side, each with states of its own. The fault strikes the second.
    Three,
    /// The same, with states of all.
    ThreeGlobal,
}

impl Layout {
    const ALL: [Self; 3] = [Self::One, Self::Three, Self::ThreeGlobal];

    fn streams(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three | Self::ThreeGlobal => 3,
        }
    }

    /// How requests are encoded. A server may turn out not to take CBOR while it has not taken any.
    fn request_format(self, phase: Phase) -> &'static str {
        if self == Self::ThreeGlobal && phase != Phase::Start {
            "cbor"
        } else {
            "json"
        }
    }

    fn names(self) -> impl Iterator<Item = String> {
        (0..self.streams()).map(|stream| format!("s{stream}"))
    }

    /// The stream that the fault strikes.
    fn struck(self) -> String {
        format!("s{}", self.streams() / 2)
    }

    /// The whole input.
    fn input(self) -> Vec<Line> {
        let mut lines = Vec::new();
        for n in 0..RECORDS {
            for name in self.names() {
                let message = record(&name, numbered(n));
                lines.push(Line::new(&name, n, message));
            }
            if n % STATE_EVERY == STATE_EVERY - 1 || n == RECORDS - 1 {
                lines.extend(self.states(n));
            }
        }
        lines
    }

    fn states(self, n: usize) -> Vec<Line> {
        let cursor = json!({ "cursor": n });
        if self == Self::ThreeGlobal {
            let names: Vec<String> = self.names().collect();
            let streams = names.iter().map(|name| (name.as_str(), cursor.clone()));
            let message = state_global(json!({ "lsn": n }), streams);
            return vec![Line::new("", n, message)];
        }
        self.names()
            .map(|name| Line::new(&name, n, state_stream(&name, &cursor)))
            .collect()
    }
}

/// A line of the input.
struct Line {
    /// The stream it is about, empty for a state of all.
    scope: String,
    /// The record, or the last one that the state covers.
    n: usize,
    text: String,
}

impl Line {
    fn new(scope: &str, n: usize, message: Message) -> Self {
        let scope = scope.to_owned();
        let text = message.line();
        Self { scope, n, text }
    }

    fn is_state(&self) -> bool {
        self.text.starts_with(r#"{"type":"STATE""#)
    }
}

/// One request that the fault strikes.
pub(super) struct Strike<'a> {
    call: &'a Call<'a>,
    /// Which strike it is, from 1.
    pub(super) nth: usize,
    /// The number of the record that the fault waits for.
    marked: usize,
}

impl<'a> Deref for Strike<'a> {
    type Target = Call<'a>;

    fn deref(&self) -> &Call<'a> {
        self.call
    }
}

impl Strike<'_> {
    /// Where the record that the fault waits for is, if it is in this request.
    pub(super) fn marked(&self) -> Vec<usize> {
        self.positions(|entry| is_numbered(entry, self.marked))
    }
}

fn is_numbered(entry: &Entry, n: usize) -> bool {
    entry.data() == numbered(n)
}

type Script = Arc<dyn Fn(&Strike<'_>) -> Fault + Send + Sync>;

/// How often the fault strikes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strikes {
    /// So many requests that hold the marked record.
    Times(usize),
    /// Every request that holds the marked record.
    Marked,
    /// Every request for the stream, from the one with the marked record on.
    ForGood,
}

/// A fault, and where and how often it strikes.
#[derive(Clone)]
pub(super) struct Drill {
    script: Script,
    strikes: Strikes,
    phases: Vec<Phase>,
    layouts: Vec<Layout>,
    retry_timeout_seconds: u64,
    /// Whether a record may be stored twice, because an answer was lost.
    twice: bool,
}

/// A sync in which one request for a stream meets this fault.
pub(super) fn drill(fault: impl Fn(&Strike<'_>) -> Fault + Send + Sync + 'static) -> Drill {
    Drill {
        script: Arc::new(fault),
        strikes: Strikes::Times(1),
        phases: Phase::ALL.into(),
        layouts: Layout::ALL.into(),
        retry_timeout_seconds: 30,
        twice: false,
    }
}

impl Drill {
    /// The fault strikes two tries in a row.
    pub(super) fn twice(self) -> Self {
        self.times(2)
    }

    /// The fault strikes so many requests that hold the marked record.
    pub(super) fn times(mut self, times: usize) -> Self {
        self.strikes = Strikes::Times(times);
        self
    }

    /// The fault strikes each request that holds the marked record.
    pub(super) fn always(mut self) -> Self {
        self.strikes = Strikes::Marked;
        self
    }

    /// The fault strikes the stream from then on.
    pub(super) fn for_good(mut self) -> Self {
        self.strikes = Strikes::ForGood;
        self
    }

    /// The sync gives up after so many seconds without progress.
    pub(super) fn patience(mut self, seconds: u64) -> Self {
        self.retry_timeout_seconds = seconds;
        self
    }

    /// Strikes in this phase only, because each takes long.
    pub(super) fn only(mut self, phase: Phase, layout: Layout) -> Self {
        self.phases = vec![phase];
        self.layouts = vec![layout];
        self
    }

    /// Answers are lost: records may be stored twice, with one id.
    pub(super) fn storing_twice(mut self) -> Self {
        self.twice = true;
        self
    }

    /// The sync succeeds, and each record is stored once.
    pub(super) async fn stores_all_once(self) {
        assert!(!self.twice, "once or twice?");
        self.everywhere(|place| place.succeed()).await;
    }

    /// The sync succeeds, and each record is stored, those whose answer was lost twice.
    pub(super) async fn stores_all(self) {
        self.storing_twice()
            .everywhere(|place| place.succeed())
            .await;
    }

    /// The sync fails with an error of this type, whose message names the stream and says all of
    /// this. What was promised by then is stored, and a second sync from the last states on
    /// completes the data.
    pub(super) async fn fails<const N: usize>(
        self,
        failure_type: &'static str,
        says: [&'static str; N],
    ) {
        self.everywhere(move |place| place.fail(failure_type, says.to_vec()))
            .await;
    }

    /// Runs all places side by side.
    async fn everywhere<R>(self, run: impl Fn(Place) -> R)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let mut places = JoinSet::new();
        for phase in self.phases.clone() {
            for layout in self.layouts.clone() {
                let place = Place {
                    drill: self.clone(),
                    phase,
                    layout,
                };
                let run = run(place);
                places.spawn(async move {
                    // Awaited apart, so that its panic is known together with its place.
                    (phase, layout, tokio::spawn(run).await)
                });
            }
        }
        let mut failed = String::new();
        while let Some(place) = places.join_next().await {
            let (phase, layout, run) = place.expect("nothing panics here");
            if let Err(error) = run {
                let why = panic_message(error);
                write!(failed, "\n{phase:?}, {layout:?}: {why}").expect("text");
            }
        }
        assert!(failed.is_empty(), "{failed}");
    }
}

fn panic_message(error: tokio::task::JoinError) -> String {
    let panic = error.into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_default()
}

/// One run of a drill.
struct Place {
    drill: Drill,
    phase: Phase,
    layout: Layout,
}

impl Place {
    async fn succeed(self) {
        let (kinesis, input, run) = self.run().await;
        run.assert_success();
        assert_all_states(&input, &run);
        assert_record_counts(&input, &run);
        assert_earned(&kinesis, &input, &run).await;
        let data: Vec<String> = (0..RECORDS).map(numbered).collect();
        for name in self.layout.names() {
            let stream = format!("_{name}");
            if self.drill.twice {
                assert_stored_at_least_once(&kinesis, &stream, &data).await;
            } else {
                assert_exactly_stored(&kinesis, &stream, &data).await;
            }
        }
    }

    async fn fail(self, failure_type: &'static str, says: Vec<&'static str>) {
        let (kinesis, input, run) = self.run().await;
        let named = format!("\"_{}\"", self.layout.struck());
        let error = run.assert_failed(failure_type, &named);
        let message = error["message"].as_str().unwrap_or_default();
        for part in says {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        assert_record_counts(&input, &run);
        assert_earned(&kinesis, &input, &run).await;
        self.assert_nothing_else(&kinesis).await;
        kinesis.heal();
        self.complete(&kinesis, &run).await;
    }

    /// What is stored was sent, and nothing twice but where an answer was lost.
    async fn assert_nothing_else(&self, kinesis: &Kinesis) {
        let sent: BTreeSet<String> = (0..RECORDS).map(numbered).collect();
        for name in self.layout.names() {
            let stored = kinesis.stored(&format!("_{name}")).await;
            let of: BTreeSet<&String> = stored.iter().map(|record| &record.data).collect();
            assert!(of.iter().all(|data| sent.contains(*data)), "never sent");
            let ids: BTreeSet<&String> = stored.iter().map(|record| &record.id).collect();
            assert_eq!(of.len(), ids.len(), "one record with two ids");
            assert!(self.drill.twice || ids.len() == stored.len(), "twice");
        }
    }

    /// A second sync, from the last states on.
    async fn complete(&self, kinesis: &Kinesis, first: &Finished) {
        let rest = self.after_states_of(first);
        let run = Write::to(kinesis)
            .catalog(catalog(self.layout.names().map(|name| stream(&name))))
            .input(rest.clone())
            .deadline(RUN_MAX)
            .run()
            .await;
        run.assert_success();
        assert_all_states(&rest, &run);
        assert_earned(kinesis, &rest, &run).await;
        let all: BTreeSet<String> = (0..RECORDS).map(numbered).collect();
        for name in self.layout.names() {
            let stored = kinesis.stored(&format!("_{name}")).await;
            let stored: BTreeSet<String> = stored.into_iter().map(|record| record.data).collect();
            assert!(stored == all, "{name} is not complete after {first}\n{run}");
        }
    }

    /// The input that a source would send again.
    fn after_states_of(&self, run: &Finished) -> Vec<String> {
        let states = run.states();
        let mut input = self.layout.input();
        input.retain(|line| {
            // States come out in their order: the last one that came out counts.
            let covered = states.iter().rev().find_map(|state| {
                let state: serde_json::Value = serde_json::from_str(state).expect("a state");
                let state = &state["state"];
                match state["stream"]["stream_descriptor"]["name"].as_str() {
                    Some(name) if name == line.scope => {
                        state["stream"]["stream_state"]["cursor"].as_u64()
                    }
                    Some(_) => None,
                    None => state["global"]["shared_state"]["lsn"].as_u64(),
                }
            });
            covered.is_none_or(|covered| line.n > usize::try_from(covered).expect("a number"))
        });
        input.into_iter().map(|line| line.text).collect()
    }

    /// Runs the sync. The fault has struck when it ends.
    async fn run(&self) -> (Kinesis, Vec<String>, Finished) {
        let kinesis = Kinesis::start().await;
        for name in self.layout.names() {
            kinesis.create_stream(&format!("_{name}"), 2).await;
        }
        let mut struck = self.strike(&kinesis);
        let mut running = Write::to(&kinesis)
            .config(json!({
                "bufferSize": BATCH,
                "requestFormat": self.layout.request_format(self.phase),
                "retryTimeoutSeconds": self.drill.retry_timeout_seconds,
            }))
            .catalog(catalog(self.layout.names().map(|name| stream(&name))))
            .env("LOG_LEVEL", self.phase.log_level())
            .deadline(RUN_MAX)
            .spawn()
            .await;
        let input = self.layout.input();
        let (before, after): (Vec<&Line>, Vec<&Line>) = input
            .iter()
            .partition(|line| line.n < self.phase.sent_before());
        for line in before {
            running.send(line.text.as_str()).await;
        }
        if self.phase == Phase::LastFlush {
            running.close_stdin();
        }
        let hit = within("the fault to strike", struck.wait_for(|count| *count > 0)).await;
        drop(hit.expect("the script is in force"));
        for line in after {
            running.send(line.text.as_str()).await;
        }
        let run = running.finish().await;
        let input = input.into_iter().map(|line| line.text).collect();
        (kinesis, input, run)
    }

    /// Lets the fault strike. Returns how often it has.
    fn strike(&self, kinesis: &Kinesis) -> watch::Receiver<usize> {
        let (count, struck) = watch::channel(0);
        let Drill {
            script, strikes, ..
        } = self.drill.clone();
        let marked = self.phase.marked();
        let target = format!("_{}", self.layout.struck());
        kinesis.on("PutRecords", move |call| {
            if call.stream != target {
                return Fault::pass();
            }
            let has_marked = call
                .entries()
                .iter()
                .any(|entry| is_numbered(entry, marked));
            let mut strike = None;
            count.send_modify(|count| {
                let strikes = match strikes {
                    Strikes::Times(times) => has_marked && *count < times,
                    Strikes::Marked => has_marked,
                    Strikes::ForGood => has_marked || *count > 0,
                };
                if strikes {
                    *count += 1;
                    strike = Some(*count);
                }
            });
            strike.map_or_else(Fault::pass, |nth| script(&Strike { call, nth, marked }))
        });
        struck
    }
}

#[test]
fn the_input_has_states_for_each_scope() {
    for layout in Layout::ALL {
        let states = layout.input().iter().filter(|line| line.is_state()).count();
        let scopes = if layout == Layout::Three { 3 } else { 1 };
        assert_eq!(states, scopes * RECORDS.div_ceil(STATE_EVERY));
    }
}
