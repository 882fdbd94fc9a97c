//! The language the tests are written in.
//!
//! * [`server`] is Kinesis: an in-process emulator behind [`front`], an HTTP server that can be
//!   told to misbehave by a script of [`faults`], each decided by looking at one [`call`], and that
//!   keeps a [`ledger`] of what it saw.
//! * [`program`] runs the real binary, [`messages`] writes what goes into it, [`verdict`] judges
//!   what came of it.
//!
//! Nothing here sleeps to wait for something: what can be awaited is, and each wait ends a failing
//! test after [`DEADLINE`].

#![allow(
    dead_code,
    reason = "a language has more words than are in use on any one day"
)]

pub(crate) mod call;
pub(crate) mod faults;
pub(crate) mod finished;
pub(crate) mod front;
pub(crate) mod gate;
pub(crate) mod ledger;
pub(crate) mod lines;
pub(crate) mod messages;
pub(crate) mod program;
pub(crate) mod running;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod signature;
pub(crate) mod sts;
pub(crate) mod tls;
pub(crate) mod verdict;

use std::future::Future;
use std::time::Duration;

/// How long anything may take before the test that waits for it fails. Generous: it only has to be
/// shorter than the patience of whoever waits for the test run, and longer than the worst pause of
/// a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Awaits `future`.
///
/// # Panics
///
/// After [`DEADLINE`], naming `what` the test waited for.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}
