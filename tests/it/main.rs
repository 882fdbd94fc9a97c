//! The connector as its users meet it: the real binary against a Kinesis server in the test
//! process.
//!
//! One test binary, so that the server and everything it needs are linked once.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows the test functions, not the helpers they call"
)]

mod aggregation;
mod check;
mod cli;
mod config;
mod corpus;
mod credentials;
mod docs;
mod faults;
mod hostile;
mod keys;
mod kill;
mod library;
mod memory;
mod packaging;
mod policies;
mod settings;
mod support;
mod support_selftest;
mod write;
