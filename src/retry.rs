//! Pauses between tries: exponential, with full jitter and a ceiling.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE, BACKOFF_MAX};

/// An endless iterator of pauses. Each is drawn between nothing and a bound that doubles from
/// [`BACKOFF_BASE`] to [`BACKOFF_MAX`]: full jitter keeps many senders from coming back together
/// ([why](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)).
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Starts over, after something has worked.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.tries.min(31)).unwrap_or(u32::MAX);
        BACKOFF_BASE.saturating_mul(factor).min(BACKOFF_MAX)
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let bound = self.bound();
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(fastrand::f64())
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_ceiling_and_starts_over() {
        let mut backoff = Backoff::default();
        let mut bound = BACKOFF_BASE;
        for _ in 0..100 {
            assert_eq!(backoff.bound(), bound);
            assert!(backoff.pause() <= bound);
            bound = (bound * 2).min(BACKOFF_MAX);
        }
        backoff.reset();
        assert_eq!(backoff.bound(), BACKOFF_BASE);
    }

    #[test]
    fn pauses_are_spread_over_the_whole_range() {
        let pauses: Vec<_> = Backoff::default().skip(20).take(200).collect();
        assert!(pauses.iter().any(|pause| *pause < BACKOFF_MAX / 4));
        assert!(pauses.iter().any(|pause| *pause > BACKOFF_MAX * 3 / 4));
    }
}
