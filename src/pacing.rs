//! How fast a shard is sent to: learned from what it takes and what it refuses. Pure: the clock comes
//! from outside.
//!
//! A shard takes 1,000 records a second and 1 MiB a second. Both are counted in one unit, the
//! *shard-second*: a record costs the larger of its two shares of a shard's second. A [`Pace`] gives out
//! shard-seconds at a rate: nearly one a second to begin with, less when the shard refuses (other
//! producers share it), more when it does not (emulators and larger shards take more).

use std::time::{Duration, Instant};

use crate::limits::{SHARD_BYTES_PER_SECOND, SHARD_RECORDS_PER_SECOND};

/// Unused time that is saved up, at most: what can be sent at once after a pause.
const SAVED_MAX: Duration = Duration::from_millis(100);

/// Savings that were filled up and left alone for longer than this, in times that it took to fill them, were not
/// what records waited for: so the rate does not grow beyond this many times what is sent.
const FULL_FOR_MAX: f64 = 2.0;

/// After a cut, further refusals are the echo of what was already in flight.
const CUT_PAUSE: Duration = Duration::from_millis(400);

/// A refusal cuts the rate to this part of it.
const CUT_TO: f64 = 0.9;

/// A refusal of everything that was sent cuts the rate to this part of it.
const CUT_ALL_TO: f64 = 0.5;

/// The slowest rate: 10 small records a second ask whether the shard takes any again.
const RATE_MIN: f64 = 0.01;

/// Below the last rate that worked, this part of the gap is made up each second.
const RECOVERY_PER_SECOND: f64 = 0.5;

/// At or above it, the rate grows by this part a second, for each second in which nothing was refused:
/// gently at first, so that a shard at its limit refuses little, and faster the longer it goes well.
const GROWTH_PER_SECOND_SQUARED: f64 = 0.02;

/// How long nothing must have been refused before more than the last good rate is tried.
const CLEAN_BEFORE_GROWTH: Duration = Duration::from_secs(2);

/// What a record of `bytes` bytes costs, in shard-seconds.
pub fn cost(bytes: usize) -> f64 {
    let bytes = u32::try_from(bytes).map_or(f64::MAX, f64::from);
    (1.0 / SHARD_RECORDS_PER_SECOND).max(bytes / SHARD_BYTES_PER_SECOND)
}

/// The pace of one shard, or of several shards taken together.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Shard-seconds a second.
    rate: f64,
    /// The rate before the last cut: what the shard took until then.
    last_good: f64,
    /// Shard-seconds that may be spent now. Below zero after a record that cost more than was there.
    saved: f64,
    updated: Instant,
    last_refusal: Instant,
    last_cut: Instant,
    /// Whether nothing of the last that was sent was taken.
    is_blocked: bool,
}

impl Pace {
    /// The pace of `shards` shards that have just refused a record.
    pub fn after_refusal(shards: usize, now: Instant) -> Self {
        let limit = u32::try_from(shards.max(1)).map_or(f64::MAX, f64::from);
        Self {
            rate: limit * CUT_TO,
            last_good: limit,
            saved: 0.0,
            updated: now,
            last_refusal: now,
            last_cut: now,
            is_blocked: false,
        }
    }

    /// Shard-seconds a second that are given out at present.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Brings the savings and the rate up to `now`, while records are waiting. Only where the rate is what they wait
    /// for, it changes: a shard that is sent less than it might be proves nothing.
    pub fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        if seconds <= FULL_FOR_MAX * self.seconds_to_full() {
            if self.rate < self.last_good {
                self.rate +=
                    (self.last_good - self.rate) * (RECOVERY_PER_SECOND * seconds).min(1.0);
            }
            let clean = now.saturating_duration_since(self.last_refusal);
            if clean > CLEAN_BEFORE_GROWTH {
                let growth = GROWTH_PER_SECOND_SQUARED * clean.as_secs_f64();
                self.rate *= 1.0 + growth * seconds.min(1.0);
                self.last_good = self.last_good.max(self.rate);
            }
        }
        self.saved = (self.saved + self.rate * seconds).min(self.saved_max());
    }

    fn saved_max(&self) -> f64 {
        self.rate * SAVED_MAX.as_secs_f64()
    }

    /// Takes `cost` shard-seconds, if anything is saved up.
    pub fn take(&mut self, cost: f64) -> bool {
        let may = self.saved > 0.0;
        if may {
            self.saved -= cost;
        }
        may
    }

    /// Whether waiting longer would save up nothing more.
    pub fn is_full(&self) -> bool {
        self.saved >= self.saved_max() * 0.999
    }

    /// When the savings will be full again.
    pub fn full_at(&self) -> Instant {
        self.updated + Duration::from_secs_f64(self.seconds_to_full())
    }

    fn seconds_to_full(&self) -> f64 {
        ((self.saved_max() - self.saved).max(0.0) / self.rate).min(3600.0)
    }

    /// Takes note of what became of records sent to this shard in one request.
    pub fn heard(&mut self, now: Instant, stored: usize, refused: usize) {
        if stored > 0 && self.is_blocked {
            // It is over at once: there is no need to feel the way back.
            self.is_blocked = false;
            self.rate = self.rate.max(self.last_good * CUT_TO);
        }
        if refused == 0 {
            return;
        }
        self.is_blocked = stored == 0;
        self.last_refusal = now;
        let is_echo = now.saturating_duration_since(self.last_cut) < CUT_PAUSE;
        if is_echo {
            return;
        }
        self.last_cut = now;
        if stored == 0 {
            // Nothing gets through. What worked before is remembered for when it does again.
            self.rate = (self.rate * CUT_ALL_TO).max(RATE_MIN);
        } else {
            self.last_good = self.rate * 0.97;
            self.rate = (self.rate * CUT_TO).max(RATE_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent to a shard that refuses nothing, in shard-seconds a second, record by record.
    fn rate_after(seconds: u32, sent: f64) -> f64 {
        let start = Instant::now();
        let mut pace = Pace::after_refusal(1, start);
        let every = cost(1) / sent;
        let mut arrival = 0.0;
        while arrival < f64::from(seconds) {
            let mut now = start + Duration::from_secs_f64(arrival);
            pace.advance(now);
            while !pace.take(cost(1)) {
                now = pace.full_at();
                pace.advance(now);
            }
            arrival += every;
            arrival = arrival.max(now.duration_since(start).as_secs_f64());
        }
        pace.rate()
    }

    #[test]
    fn the_rate_does_not_grow_far_beyond_what_is_sent() {
        for sent in [0.1, 0.3, 0.8, 5.0] {
            let rate = rate_after(300, sent);
            assert!(rate <= (2.1 * sent).max(1.0), "{sent}: {rate}");
        }
    }

    #[test]
    fn the_rate_grows_to_what_a_shard_takes() {
        let rate = rate_after(60, 50.0);
        assert!(rate > 20.0, "{rate}");
    }
}
