//! What must hold for any input at all: one module for each fuzz target, each with a `check` that
//! panics where it does not. The fuzz targets give them what the fuzzer finds, the tests of the crate
//! give them the corpus.

pub mod checkpoints;
pub mod config;
pub mod envelope;
pub mod lines;
pub mod message;

/// What panics where something does not hold.
pub type Check = fn(&[u8]);

/// The name of each target, which is that of its corpus, and its check.
pub const TARGETS: [(&str, Check); 5] = [
    ("checkpoints", checkpoints::check),
    ("config", config::check),
    ("envelope", envelope::check),
    ("lines", lines::check),
    ("message", message::check),
];
