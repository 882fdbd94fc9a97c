//! What a sync tells of itself: progress while it runs, and at its end one line a stream and one for the whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use aws_sdk_kinesis::types::StreamMode;

use crate::buffer::Tally;
use crate::stream::KinesisStream;

/// Advice is given when waiting for shards took at least this part of the time.
const ADVICE_SHARE_MIN: f64 = 0.1;

/// And when it took at least this long: a short sync says little.
const ADVICE_WAIT_MIN: Duration = Duration::from_secs(10);

/// What is longer than this counts no further: a sync that did nothing but wait says nothing of how many shards it needs.
const ADVICE_SHARE_MAX: f64 = 0.98;

/// Shards whose refusals are told one by one.
const SHARDS_TOLD_MAX: usize = 10;

/// Sums over all streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    records: u64,
    bytes: u64,
    requests: u64,
    throttled: u64,
    again: u64,
    skipped: u64,
    maybe_twice: u64,
}

impl Totals {
    /// Adds what one stream went through.
    pub fn add(&mut self, tally: &Tally) {
        self.records += tally.records;
        self.bytes += tally.bytes;
        self.requests += tally.requests;
        self.throttled += tally.throttled;
        self.again += tally.again;
        self.skipped += tally.skipped;
        self.maybe_twice += tally.maybe_twice;
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

/// One line on what became of a stream, with advice where its figures ask for it.
pub fn stream(stream: &mut KinesisStream, elapsed: Duration) {
    let mode = stream.facts().mode.clone();
    let aggregates = stream.aggregates();
    let name = stream.name().to_owned();
    let buffer = stream.buffer();
    let tally = buffer.tally();
    let mut line = format!(
        "Stream \"{name}\": {} records and {:.1} MB stored in {} requests",
        tally.records,
        megabytes(tally.bytes),
        tally.requests,
    );
    if tally.requests > 0 {
        // Writing to a `String` cannot fail, here and below.
        let _ = write!(
            line,
            " of {:.1} Kinesis records on average",
            float(tally.entries) / float(tally.requests)
        );
    }
    if aggregates && tally.entries > 0 {
        let _ = write!(
            line,
            ", {:.1} records in each",
            float(tally.sent) / float(tally.entries)
        );
    }
    let _ = write!(
        line,
        "; {} records refused by busy shards{}; {} records sent again, {} may be there twice",
        tally.throttled,
        by_shard(buffer.refusals()),
        tally.again,
        tally.maybe_twice,
    );
    if tally.skipped > 0 {
        let _ = write!(
            line,
            ", {} records were too large and left out",
            tally.skipped
        );
    }
    let _ = write!(
        line,
        "; {:.1} s of {:.1} s were spent waiting for shards.",
        tally.waited.as_secs_f64(),
        elapsed.as_secs_f64()
    );
    if let Some(advice) = advice(
        tally.waited,
        elapsed,
        buffer.open_shards(),
        mode.as_ref(),
        aggregates,
    ) {
        line.push_str(&advice);
    }
    tracing::info!("{line}");
}

/// The refusals of the shards that refused most, in brackets.
fn by_shard(refusals: &BTreeMap<String, u64>) -> String {
    let mut shards: Vec<_> = refusals.iter().collect();
    shards.sort_by(|(_, one), (_, other)| other.cmp(one));
    let told: Vec<_> = shards
        .iter()
        .take(SHARDS_TOLD_MAX)
        .map(|(id, count)| match id.as_str() {
            "" => format!("before the shards were known: {count}"),
            id => format!("{id}: {count}"),
        })
        .collect();
    if told.is_empty() {
        return String::new();
    }
    let rest = if shards.len() > told.len() {
        format!(", and {} more shards", shards.len() - told.len())
    } else {
        String::new()
    };
    format!(" ({}{rest})", told.join(", "))
}

/// What would help a stream that had to wait for its shards: as many as would have taken everything in the time that
/// was not spent waiting.
fn advice(
    waited: Duration,
    elapsed: Duration,
    open_shards: usize,
    mode: Option<&StreamMode>,
    aggregates: bool,
) -> Option<String> {
    let share = waited.as_secs_f64() / elapsed.as_secs_f64().max(1e-3);
    if share < ADVICE_SHARE_MIN || waited < ADVICE_WAIT_MIN {
        return None;
    }
    let open_shards = u32::try_from(open_shards).map_or(f64::MAX, f64::from);
    let shards = (open_shards / (1.0 - share.min(ADVICE_SHARE_MAX))).ceil();
    let mut help = vec![format!(
        "about {shards:.0} shards instead of {open_shards:.0}"
    )];
    if mode != Some(&StreamMode::OnDemand) {
        help.push("on-demand mode".to_owned());
    }
    if !aggregates {
        help.push("aggregation".to_owned());
    }
    let last = help.pop()?;
    let help = if help.is_empty() {
        last
    } else {
        format!("{} or {last}", help.join(", "))
    };
    Some(format!(
        " Shard-limited for {:.0} % of the time: {help} would remove the wait.",
        share.min(1.0) * 100.0
    ))
}

/// One line on the whole sync.
pub fn sync(totals: &Totals, elapsed: Duration) {
    let skipped = if totals.skipped > 0 {
        format!("; {} records were too large and left out", totals.skipped)
    } else {
        String::new()
    };
    tracing::info!(
        "Sync: {} records and {:.1} MB stored in {:.1} s, {:.0} records/s, in {} requests; {} records refused by busy shards, \
         {} sent again, {} may be there twice{skipped}.",
        totals.records,
        megabytes(totals.bytes),
        elapsed.as_secs_f64(),
        per_second(totals.records, elapsed),
        totals.requests,
        totals.throttled,
        totals.again,
        totals.maybe_twice
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_shards_that_would_do() {
        let of = |waited, shards, mode, aggregates| {
            advice(
                Duration::from_secs(waited),
                Duration::from_secs(100),
                shards,
                mode,
                aggregates,
            )
        };
        assert_eq!(of(9, 5, None, false), None);
        let (waited, elapsed) = (Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!(advice(waited, elapsed, 5, None, false), None);
        assert_eq!(
            of(50, 4, None, false).as_deref(),
            Some(
                " Shard-limited for 50 % of the time: about 8 shards instead of 4, on-demand mode or aggregation would \
                 remove the wait."
            )
        );
        let on_demand = of(84, 1, Some(&StreamMode::OnDemand), true);
        assert_eq!(
            on_demand.as_deref(),
            Some(
                " Shard-limited for 84 % of the time: about 7 shards instead of 1 would remove the wait."
            )
        );
        assert!(of(100, 2, None, true).is_some_and(|text| text.contains("about 100 shards")));
    }

    #[test]
    fn the_busiest_shards_are_told_first() {
        assert_eq!(by_shard(&BTreeMap::new()), "");
        let refusals = (1..=12).map(|n| (format!("shardId-{n:012}"), n)).collect();
        let text = by_shard(&refusals);
        assert!(text.starts_with(" (shardId-000000000012: 12, shardId-000000000011: 11, "));
        assert!(text.ends_with("shardId-000000000003: 3, and 2 more shards)"));
        let early = BTreeMap::from([(String::new(), 4)]);
        assert_eq!(by_shard(&early), " (before the shards were known: 4)");
    }
}
