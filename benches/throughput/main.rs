//! How fast the connector is: a JSONL pipe in, a Kinesis on loopback that takes everything out.
//!
//! ```text
//! cargo bench --bench throughput                    all cases
//! cargo bench --bench throughput -- '270 B'         cases with this in their names
//! cargo bench --bench throughput -- --help
//! ```
//!
//! The real binary is run, as the platform runs it; the endpoint is a process of its own, and what is
//! counted is the CPU of the connector alone. Every case is run once a round, and the figures are medians over the
//! rounds; ratios are taken within a round. Numbers depend on the machine and on what else it does, ratios much less.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a person at a terminal"
)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use crate::cases::{Case, Protocol, SMALL};
use crate::messages::{Size, block};
use crate::report::{Measured, Results, Round};

mod cases;
mod connector;
mod counter;
mod endpoint;
mod floor;
mod messages;
mod original;
mod report;
mod tls;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How far the endpoint is away when the way of the connector for Java is measured.
const ORIGINAL_LATENCY: Duration = Duration::from_millis(20);

/// Measures how fast the connector is
#[derive(Parser)]
#[command(name = "throughput")]
struct Arguments {
    /// Run only the cases that have one of these in their names
    words: Vec<String>,
    /// List the cases, and do not run them
    #[arg(long)]
    list: bool,
    /// Run every case so many times
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The protocols to measure, with a comma in between
    #[arg(long, value_delimiter = ',', default_value = "json")]
    protocol: Vec<Protocol>,
    /// Add the cases that take long: ten million records against one million
    #[arg(long)]
    long: bool,
    /// Let the endpoint take so many bytes a second of each request; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    request_rate: u64,
    /// Measure this binary
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_destination-kinesis"))]
    binary: PathBuf,
    /// What cargo says to every benchmark. Without it, this is a test of the benchmark itself, and short
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().collect();
    if let [_, verb, rest @ ..] = &arguments[..]
        && verb == endpoint::VERB
    {
        return endpoint::serve(rest);
    }
    let arguments = Arguments::parse();
    let cases = chosen(&arguments);
    if arguments.list {
        for case in &cases {
            println!("{}", case.name);
        }
        return Ok(());
    }
    let results = measure(&arguments, cases)?;
    println!("\n{}", results.table());
    if !arguments.bench {
        return Ok(());
    }
    println!("{}", results.goals());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench/results.jsonl");
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&file, results.json_lines())?;
    println!("{}", fs::canonicalize(&file)?.display());
    Ok(())
}

fn chosen(arguments: &Arguments) -> Vec<Case> {
    let all = |protocol: &Protocol| cases::all(*protocol, arguments.long).into_iter();
    let mut lists: Vec<_> = arguments.protocol.iter().map(all).collect();
    let mut cases = Vec::new();
    // The same case in each protocol, one after the other: they are to be compared.
    while lists.iter().any(|list| list.len() > 0) {
        cases.extend(lists.iter_mut().filter_map(Iterator::next));
    }
    if !arguments.words.is_empty() {
        let has = |case: &Case| arguments.words.iter().any(|word| case.name.contains(word));
        cases.retain(has);
    }
    if !arguments.bench {
        for case in &mut cases {
            case.records /= 100;
        }
    }
    cases
}

fn measure(arguments: &Arguments, cases: Vec<Case>) -> Result<Results> {
    let mut results = Results {
        cases: cases
            .into_iter()
            .map(|case| Measured {
                case,
                rounds: Vec::new(),
            })
            .collect(),
        binary_bytes: fs::metadata(&arguments.binary)?.len(),
        ..Results::default()
    };
    let small = block(SMALL, 1, 1000);
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        results.specs.push(connector::spec(&arguments.binary)?);
        results
            .original
            .push(original::records_per_second(&small, ORIGINAL_LATENCY)?);
        let mut floors: Vec<(Size, f64)> = Vec::new();
        for measured in &mut results.cases {
            let case = &measured.case;
            eprintln!("  {}", case.name);
            let block = block(case.size, case.streams, case.state_every);
            let known = floors.iter().find(|(size, _)| *size == case.size);
            let floor_us = match known {
                Some((_, floor_us)) => *floor_us,
                None => floor::seconds_a_record(&block, case.size)? * 1e6,
            };
            if known.is_none() {
                floors.push((case.size, floor_us));
            }
            let run = connector::run(&arguments.binary, case, &block, arguments.request_rate)?;
            measured.rounds.push(Round { run, floor_us });
        }
    }
    Ok(results)
}

/// A count, for a quotient.
#[expect(clippy::as_conversions, reason = "counts stay far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
