//! How many events a second go through a stream.

/// Whole seconds that the rate is taken over.
const SECONDS: usize = 4;

/// Counts events by the second.
#[derive(Debug, Default)]
pub struct Rate {
    total: u64,
    /// The second that is being counted, since the Unix epoch.
    second: u64,
    /// What it has so far, and what those before it had, the nearest first.
    counts: [u64; SECONDS + 1],
}

impl Rate {
    /// Counts one event at `now`, in microseconds since the Unix epoch.
    pub fn count(&mut self, now: u64) {
        self.total += 1;
        self.advance(now / 1_000_000);
        self.counts[0] += 1;
    }

    /// So many were counted elsewhere.
    pub fn begin_with(total: u64) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// All that have been counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The mean over the last whole seconds.
    pub fn per_second(&self, now: u64) -> f64 {
        let mut then = Self {
            counts: self.counts,
            ..*self
        };
        then.advance(now / 1_000_000);
        then.counts[1..].iter().sum::<u64>() as f64 / SECONDS as f64
    }

    fn advance(&mut self, second: u64) {
        // A clock that is set back counts on in the second it was.
        let len = self.counts.len();
        let passed = second.saturating_sub(self.second).min(len as u64) as usize;
        if passed > 0 {
            self.counts.rotate_right(passed % len);
            self.counts[..passed].fill(0);
            self.second = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        for millis in (0..10_000).step_by(10) {
            rate.count(1_000_000_000_000 + millis * 1_000);
        }
        let end = 1_000_010_000_000;
        assert_eq!(rate.per_second(end), 100.0);
        assert_eq!(rate.per_second(end + 2_000_000), 50.0);
        assert_eq!(rate.per_second(end + 100_000_000), 0.0);
        assert_eq!(rate.per_second(0), 100.0, "a clock that was set back");
        assert_eq!(rate.total(), 1_000);
    }
}
