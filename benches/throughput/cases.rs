//! What is measured: every case is the first one with something changed.

use std::time::Duration;

use crate::messages::Size;
use crate::tls::Version;

/// How the connector talks to Kinesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// `application/x-amz-json-1.1`.
    Json,
    /// `application/x-amz-cbor-1.1`.
    Cbor,
}

impl Protocol {
    /// What the configuration and the table call it.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Cbor => "cbor",
        }
    }
}

/// One thing to measure.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) size: Size,
    pub(crate) streams: usize,
    pub(crate) buffer_size: usize,
    pub(crate) latency: Duration,
    pub(crate) state_every: usize,
    pub(crate) records: usize,
    pub(crate) protocol: Protocol,
    /// Over TLS, in this version of HTTP.
    pub(crate) tls: Option<Version>,
    /// A further setting, and its value.
    pub(crate) setting: Option<(&'static str, &'static str)>,
}

impl Case {
    /// Whether a Kinesis record has many records in it.
    pub(crate) fn aggregates(&self) -> bool {
        self.setting == Some(AGGREGATION)
    }
}

const AGGREGATION: (&str, &str) = ("aggregation", "kpl");

pub(crate) const SMALL: Size = Size::Bytes(270);
pub(crate) const MEDIUM: Size = Size::Bytes(1024);
pub(crate) const MANY_COLUMNS: Size = Size::Columns(1024);
pub(crate) const LARGE: Size = Size::Bytes(10 * 1024);

/// The sizes, and how many records of each take a few seconds.
const SIZES: [(&str, Size, usize); 4] = [
    ("270 B", SMALL, 1_600_000),
    ("1 KiB", MEDIUM, 800_000),
    ("10 KiB", LARGE, 80_000),
    ("mixed", Size::Mixed, 300_000),
];

const LATENCIES_MS: [u64; 2] = [20, 100];

/// What a case is called with this protocol.
pub(crate) fn name(name: &str, protocol: Protocol) -> String {
    format!("{name}, {}", protocol.setting())
}

/// All cases, for one protocol. `long` adds those that take minutes.
pub(crate) fn all(protocol: Protocol, long: bool) -> Vec<Case> {
    let case = |text: &str, size, records| Case {
        name: name(text, protocol),
        size,
        streams: 1,
        buffer_size: 500,
        latency: Duration::ZERO,
        state_every: 1000,
        records,
        protocol,
        tls: None,
        setting: None,
    };
    let mut cases = Vec::new();
    for (name, size, records) in SIZES {
        cases.push(case(name, size, records));
        if size == Size::Mixed {
            continue;
        }
        for latency_ms in LATENCIES_MS {
            let mut case = case(&format!("{name}, {latency_ms} ms"), size, records);
            case.latency = Duration::from_millis(latency_ms);
            // Long enough to see past the start, which takes some ten answers.
            case.records *= if latency_ms == 100 { 3 } else { 1 };
            cases.push(case);
        }
    }
    cases.push(case("1 KiB, many columns", MANY_COLUMNS, 800_000));
    cases.push(Case {
        streams: 50,
        ..case("270 B, 50 streams", SMALL, 1_600_000)
    });
    cases.push(Case {
        buffer_size: 100,
        ..case("270 B, bufferSize 100", SMALL, 1_600_000)
    });
    cases.push(Case {
        state_every: 1,
        ..case("270 B, a state each", SMALL, 600_000)
    });
    cases.push(Case {
        setting: Some(("partitionKey", "primary_key")),
        ..case("270 B, primary key", SMALL, 600_000)
    });
    cases.push(Case {
        setting: Some(AGGREGATION),
        ..case("270 B, aggregated", SMALL, 1_600_000)
    });
    for version in [Version::Http1, Version::Http2] {
        for latency_ms in [0, 20] {
            let name = format!("270 B, TLS {}, {latency_ms} ms", version.alpn());
            cases.push(Case {
                tls: Some(version),
                latency: Duration::from_millis(latency_ms),
                ..case(&name, SMALL, 1_600_000)
            });
        }
    }
    if long {
        cases.push(case("270 B, 1 million", SMALL, 1_000_000));
        cases.push(case("270 B, 10 million", SMALL, 10_000_000));
    }
    cases
}
