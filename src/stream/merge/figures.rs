//! What is counted of a link, where there are several into one log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::stream::rate::Rate;

/// What is not known yet.
const UNKNOWN: u64 = u64::MAX;
/// A new lag counts for one part in so many.
const SMOOTHING: u64 = 8;

/// Figures of a link.
#[derive(Debug)]
pub struct Figures {
    rate: Mutex<Rate>,
    repeated: AtomicU64,
    holes: AtomicU64,
    filled: AtomicU64,
    /// In microseconds.
    lag: AtomicU64,
}

/// The same, at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Events that it has brought first.
    pub wins: u64,
    /// Of these so many a second, over the last few seconds.
    pub rate: f64,
    /// Events that were here already when it brought them.
    pub repeated: u64,
    /// How often it has skipped something.
    pub holes: u64,
    /// How often all of that has come from others, before it was called a gap.
    pub filled: u64,
    /// How much later it brings what is here already, in microseconds, if there has been any: smoothed.
    pub lag: Option<u64>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            rate: Mutex::default(),
            repeated: AtomicU64::new(0),
            holes: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            lag: AtomicU64::new(UNKNOWN),
        }
    }
}

impl Figures {
    /// An event has come on this link first, at `now`, in microseconds since the Unix epoch.
    pub(super) fn won(&self, now: u64) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.count(now);
    }

    /// An event that was here has come on it.
    pub(super) fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// It has skipped something.
    pub(super) fn skipped(&self) {
        self.holes.fetch_add(1, Ordering::Relaxed);
    }

    /// All of that has come from others.
    pub(super) fn filled(&self) {
        self.filled.fetch_add(1, Ordering::Relaxed);
    }

    /// It was so much later than the fastest, in microseconds.
    pub(super) fn lagged(&self, lag: u64) {
        // Only its own link writes it.
        let before = self.lag.load(Ordering::Relaxed);
        let lag = match before {
            UNKNOWN => lag,
            before => (before * (SMOOTHING - 1)).saturating_add(lag) / SMOOTHING,
        };
        self.lag
            .store(lag.min(UNKNOWN / SMOOTHING), Ordering::Relaxed);
    }

    /// What there is now.
    pub fn counts(&self) -> Counts {
        let rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = self.lag.load(Ordering::Relaxed);
        Counts {
            wins: rate.total(),
            rate: rate.per_second(crate::event::now()),
            repeated: self.repeated.load(Ordering::Relaxed),
            holes: self.holes.load(Ordering::Relaxed),
            filled: self.filled.load(Ordering::Relaxed),
            lag: (lag != UNKNOWN).then_some(lag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_smoothed() {
        let figures = Figures::default();
        assert_eq!(figures.counts().lag, None);
        figures.lagged(800);
        assert_eq!(figures.counts().lag, Some(800));
        figures.lagged(0);
        assert_eq!(figures.counts().lag, Some(700));
        for _ in 0..1_000 {
            figures.lagged(u64::MAX);
        }
        assert!(figures.counts().lag > Some(1 << 40), "and never wraps");
    }
}
