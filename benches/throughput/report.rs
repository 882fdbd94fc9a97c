//! The results: a table and goals for a person, lines of JSON for a program.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cases::{self, Case, Protocol};
use crate::connector::{Run, Spec};
use crate::float;
use crate::messages::Size;

const MIB: f64 = 1024.0 * 1024.0;
const MEGA: f64 = 1e6;

/// A case, and what it took in each round.
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) rounds: Vec<Round>,
}

/// A case in one round, with the floor of that round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) run: Run,
    pub(crate) floor_us: f64,
}

impl Round {
    fn records_per_second(&self) -> f64 {
        float(self.run.records) / self.run.seconds
    }

    fn cpu_us(&self) -> f64 {
        self.run.cpu.seconds() * MEGA / float(self.run.records)
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) cases: Vec<Measured>,
    /// Records a second of the way of the connector for Java, with 20 ms to the endpoint.
    pub(crate) original: Vec<f64>,
    pub(crate) specs: Vec<Spec>,
    pub(crate) binary_bytes: u64,
}

/// The middle one, or the middle between the two in the middle. NaN of nothing.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied();
    (upper + lower.unwrap_or(f64::NAN)) / 2.0
}

impl Measured {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }

    /// The median of what each round says of this case and another one: both had the same machine, whatever
    /// else it was doing.
    fn against(&self, other: &Self, of: impl Fn(&Round) -> f64) -> f64 {
        let pairs = self.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(this, other)| of(this) / of(other)))
    }

    fn peak_mib(&self) -> f64 {
        self.rounds
            .iter()
            .map(|round| float(round.run.peak_bytes) / MIB)
            .fold(0.0, f64::max)
    }

    fn floors(&self) -> f64 {
        self.median(|round| round.cpu_us() / round.floor_us)
    }

    fn records_per_request(&self) -> f64 {
        self.median(|round| float(round.run.records) / float(round.run.requests))
    }
}

impl Results {
    /// The table, a line for each case.
    pub(crate) fn table(&self) -> String {
        let width = self.cases.iter().map(|it| it.case.name.len()).max();
        let width = width.unwrap_or(0);
        let mut out = format!(
            "{:width$}  {:>9}  {:>6}  {:>9}  {:>7}  {:>8}  {:>8}  {:>15}\n",
            "",
            "records/s",
            "MB/s",
            "µs/record",
            "× floor",
            "peak MiB",
            "requests",
            "records/request"
        );
        for it in &self.cases {
            let _ = writeln!(
                out,
                "{:width$}  {:>9}  {:>6.0}  {:>9.2}  {:>7.2}  {:>8.1}  {:>8}  {:>15.1}",
                it.case.name,
                grouped(it.median(Round::records_per_second)),
                it.median(|round| float(round.run.input_bytes) / round.run.seconds / MEGA),
                it.median(Round::cpu_us),
                it.floors(),
                it.peak_mib(),
                grouped(it.median(|round| float(round.run.requests))),
                it.records_per_request(),
            );
        }
        out
    }

    /// What the connector is to reach on a quiet machine of two cores, and whether it does.
    pub(crate) fn goals(&self) -> String {
        let mut goals = Goals::default();
        for protocol in [Protocol::Json, Protocol::Cbor] {
            self.goals_of(protocol, &mut goals);
        }
        let peak = self
            .cases
            .iter()
            .map(Measured::peak_mib)
            .fold(f64::NAN, f64::max);
        goals.at_most("peak memory of all cases", peak, " MiB", 64.0);
        goals.at_most(
            "spec, time",
            median(self.specs.iter().map(|spec| spec.seconds * 1000.0)),
            " ms",
            10.0,
        );
        goals.at_most(
            "spec, memory",
            median(self.specs.iter().map(|spec| float(spec.peak_bytes) / MIB)),
            " MiB",
            10.0,
        );
        goals.at_most("binary", float(self.binary_bytes) / MEGA, " MB", 12.0);
        goals.lines
    }

    fn goals_of(&self, protocol: Protocol, goals: &mut Goals) {
        let find = |name: &str| {
            let name = cases::name(name, protocol);
            self.cases.iter().find(|it| it.case.name == name)
        };
        let (small_goals, medium_goals) = match protocol {
            Protocol::Json => ([550_000.0, 2.3, 3.0], None),
            Protocol::Cbor => ([600_000.0, 2.0, 2.6], Some([380_000.0, 3.4, 2.2])),
        };
        for (it, goal) in [
            (find("270 B"), Some(small_goals)),
            (find("1 KiB"), medium_goals),
        ] {
            if let (Some(it), Some([rate, cpu, floors])) = (it, goal) {
                let name = &it.case.name;
                goals.at_least(
                    name,
                    it.median(Round::records_per_second),
                    " records/s",
                    rate,
                );
                goals.at_most(name, it.median(Round::cpu_us), " µs/record", cpu);
                goals.at_most(name, it.floors(), " × the floor", floors);
            }
        }
        if let Some(it) = find("270 B, a state each") {
            let rate = it.median(Round::records_per_second);
            goals.at_least(&it.case.name, rate, " records/s", 150_000.0);
        }
        if let (Some(it), Some(base)) = (find("270 B, primary key"), find("270 B")) {
            let rate = it.median(Round::records_per_second);
            goals.at_least(&it.case.name, rate, " records/s", 50_000.0);
            let ratio = it.against(base, Round::cpu_us);
            goals.lines.push_str(&format!(
                "  {:<28} {ratio:>9.2} × the CPU of random keys\n",
                it.case.name
            ));
        }
        if let Some(it) = find("270 B, 20 ms") {
            let original = median(self.original.iter().copied());
            let rate = it.median(Round::records_per_second) / original;
            goals.at_least(&it.case.name, rate, " × the way for Java", 100.0);
        }
        let rate = Round::records_per_second;
        if let (Some(it), Some(base)) = (find("270 B, 20 ms"), find("270 B")) {
            goals.at_least(
                &it.case.name,
                it.against(base, rate),
                " × the rate at 0 ms",
                0.9,
            );
        }
        if let (Some(it), Some(base)) = (find("270 B, 100 ms"), find("270 B")) {
            goals.at_least(
                &it.case.name,
                it.against(base, rate),
                " × the rate at 0 ms",
                0.7,
            );
        }
        if let (Some(it), Some(base)) = (find("270 B, 50 streams"), find("270 B")) {
            let ratio = it.against(base, Round::cpu_us);
            goals.at_most(&it.case.name, ratio, " × the CPU of 1", 1.2);
        }
        if let (Some(it), Some(base)) = (find("270 B, 10 million"), find("270 B, 1 million")) {
            let ratio = it.against(base, Round::cpu_us);
            goals.at_most(&it.case.name, ratio, " × the CPU of 1 million", 1.05);
            let ratio = it.peak_mib() / base.peak_mib();
            goals.at_most(&it.case.name, ratio, " × the memory of 1 million", 1.05);
        }
    }

    /// One JSON object a line: the machine's and the binary's, and each case's.
    pub(crate) fn json_lines(&self) -> String {
        let mut lines = vec![json!({
            "kind": "run",
            "version": env!("CARGO_PKG_VERSION"),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "binary_bytes": self.binary_bytes,
            "original_records_per_second": self.original,
            "spec_ms": self.specs.iter().map(|spec| spec.seconds * 1000.0).collect::<Vec<_>>(),
            "spec_peak_mib": self.specs.iter().map(|spec| float(spec.peak_bytes) / MIB).collect::<Vec<_>>(),
        })];
        lines.extend(self.cases.iter().map(Measured::json));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl Measured {
    fn json(&self) -> Value {
        let case = &self.case;
        let rounds = |of: &dyn Fn(&Round) -> f64| self.rounds.iter().map(of).collect::<Vec<_>>();
        let per_record = |total: f64, round: &Round| total * MEGA / float(round.run.records);
        json!({
            "kind": "case",
            "case": case.name,
            "protocol": case.protocol.setting(),
            "line_bytes": match case.size { Size::Bytes(bytes) | Size::Columns(bytes) => Some(bytes), Size::Mixed => None },
            "streams": case.streams,
            "buffer_size": case.buffer_size,
            "latency_ms": case.latency.as_secs_f64() * 1000.0,
            "state_every": case.state_every,
            "records": self.median(|round| float(round.run.records)),
            "records_per_second": self.median(Round::records_per_second),
            "mb_per_second": self.median(|round| float(round.run.input_bytes) / round.run.seconds / MEGA),
            "cpu_us_per_record": self.median(Round::cpu_us),
            "floor_us_per_record": self.median(|round| round.floor_us),
            "cpu_per_floor": self.floors(),
            "peak_mib": self.peak_mib(),
            "requests": self.median(|round| float(round.run.requests)),
            "records_per_request": self.records_per_request(),
            "body_bytes_per_record": self.median(|round| float(round.run.body_bytes) / float(round.run.records)),
            "rounds": {
                "seconds": rounds(&|round| round.run.seconds),
                "user_us_per_record": rounds(&|round| per_record(round.run.cpu.user, round)),
                "system_us_per_record": rounds(&|round| per_record(round.run.cpu.system, round)),
                "floor_us_per_record": rounds(&|round| round.floor_us),
                "peak_mib": rounds(&|round| float(round.run.peak_bytes) / MIB),
            },
        })
    }
}

#[derive(Default)]
struct Goals {
    lines: String,
}

impl Goals {
    fn at_least(&mut self, what: &str, is: f64, unit: &str, goal: f64) {
        self.line(what, is, unit, "≥", goal, is >= goal);
    }

    fn at_most(&mut self, what: &str, is: f64, unit: &str, goal: f64) {
        self.line(what, is, unit, "≤", goal, is <= goal);
    }

    /// Leaves out what was not measured.
    fn line(&mut self, what: &str, is: f64, unit: &str, relation: &str, goal: f64, met: bool) {
        if is.is_nan() {
            return;
        }
        let mark = if met { "✓" } else { "✗" };
        let (is, goal) = (short(is), short(goal));
        let _ = writeln!(
            self.lines,
            "{mark} {what:<32} {is:>9}{unit:<26} {relation} {goal}"
        );
    }
}

/// As many digits as one wants to read.
fn short(number: f64) -> String {
    if number >= 1000.0 {
        grouped(number)
    } else if number >= 100.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.2}")
    }
}

/// A whole number with a comma every three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
