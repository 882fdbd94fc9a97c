//! A Kinesis to try things out with: an emulator that keeps everything in memory, on a port of this machine.
//!
//! ```sh
//! cargo run --example kinesis_server             # http://127.0.0.1:4567, as in integration_tests/config.json
//! cargo run --example kinesis_server -- 4568     # another port
//! ```
//!
//! With `--enforce-limits` each shard takes 1,000 records and 1 MiB a second, as on AWS. Ctrl-C ends it.

#![expect(clippy::print_stdout, reason = "a program for a person at a terminal")]

use std::error::Error;
use std::net::Ipv4Addr;

use ferrokinesis::store::StoreOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The port of `integration_tests/config.json`.
const DEFAULT_PORT: u16 = 4567;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut port = DEFAULT_PORT;
    let mut enforce_limits = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--enforce-limits" => enforce_limits = true,
            text => {
                port = text.parse().map_err(|_| {
                    format!("{text:?} is no port. Usage: kinesis_server [PORT] [--enforce-limits]")
                })?;
            }
        }
    }
    let (app, _store) = ferrokinesis::create_app(StoreOptions {
        // The emulator's own default of 10 shards is used up by two streams.
        shard_limit: 10_000,
        enforce_limits,
        ..StoreOptions::default()
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!(
        "Kinesis listens on http://{}. Any credentials will do.",
        listener.local_addr()?
    );
    // Also as the first process of a container, where nobody else sees to it that SIGTERM ends a program.
    let mut terminate = signal(SignalKind::terminate())?;
    ferrokinesis::serve_plain_http(listener, app, async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
    .await?;
    Ok(())
}
