//! What a sync tells of itself: progress while it runs, and one line a stream at its end.

use std::time::Duration;

use crate::buffer::Tally;

/// Sums over all streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    records: u64,
    bytes: u64,
    again: u64,
}

impl Totals {
    /// Adds what one stream went through.
    pub fn add(&mut self, tally: &Tally) {
        self.records += tally.records;
        self.bytes += tally.bytes;
        self.again += tally.again;
    }
}

/// One line on how far the sync is.
pub fn progress(totals: &Totals, elapsed: Duration, requests_in_flight: usize, held_bytes: usize) {
    tracing::info!(
        "Stored {} records, {:.1} MB, {:.0} records/s; {requests_in_flight} requests in flight, {:.1} MB held, {} records \
         sent again.",
        totals.records,
        megabytes(totals.bytes),
        per_second(totals.records, elapsed),
        megabytes(u64::try_from(held_bytes).unwrap_or(u64::MAX)),
        totals.again
    );
}

/// One line on what became of a stream.
pub fn stream_summary(stream_name: &str, tally: &Tally, elapsed: Duration) {
    let skipped = if tally.skipped > 0 {
        format!("; {} records were too large and left out", tally.skipped)
    } else {
        String::new()
    };
    tracing::info!(
        "Stream \"{stream_name}\": {} records and {:.1} MB stored in {} requests, {:.0} records/s; {} records sent again, {} of \
         them because a shard was at its limit; {} records may be there twice{skipped}.",
        tally.records,
        megabytes(tally.bytes),
        tally.requests,
        per_second(tally.records, elapsed),
        tally.again,
        tally.throttled,
        tally.maybe_twice
    );
}

fn megabytes(bytes: u64) -> f64 {
    float(bytes) / 1e6
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    float(count) / elapsed.as_secs_f64().max(1e-3)
}

/// Exact up to 2^53, which no count here reaches.
#[expect(
    clippy::as_conversions,
    reason = "std has no other way from u64 to f64"
)]
fn float(count: u64) -> f64 {
    count as f64
}
