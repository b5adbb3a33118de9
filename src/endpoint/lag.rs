//! How far subscribers are behind what is there for them.

use std::iter::Sum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stream::EventLog;
use crate::stream::cursor::Cursor;
use crate::stream::tape::TapeReader;

/// Of some subscribers that read the same tape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// How many have not got all.
    pub behind: usize,
    /// So many events the last of them has before it.
    pub events: u64,
    /// So many bytes one has before it at most.
    pub bytes: u64,
    /// The number of the event that the last of them waits for.
    pub next: Option<u64>,
}

impl Lag {
    /// Of one that stands at `cursor` on a tape that goes up to `newest`.
    pub fn of(cursor: Cursor, newest: Cursor) -> Self {
        match cursor.position < newest.position {
            false => Self::default(),
            true => Self {
                behind: 1,
                events: newest.index.saturating_sub(cursor.index),
                bytes: newest.position - cursor.position,
                next: Some(cursor.index),
            },
        }
    }
}

/// Of all of them.
impl Sum for Lag {
    fn sum<I: Iterator<Item = Self>>(lags: I) -> Self {
        lags.fold(Self::default(), |sum, lag| Self {
            behind: sum.behind + lag.behind,
            events: sum.events.max(lag.events),
            bytes: sum.bytes.max(lag.bytes),
            next: sum.next.into_iter().chain(lag.next).min(),
        })
    }
}

/// For how long the event of a log is there that the last one waits for, in seconds.
pub fn seconds_behind(log: &EventLog, lag: &Lag) -> f64 {
    let since = lag.next.and_then(|next| log.since_of_number(next));
    since.map_or(0.0, |since| {
        crate::event::now().saturating_sub(since) as f64 / 1e6
    })
}

/// Where a reader stands that is in no shard, for whoever wants to know.
#[derive(Clone)]
pub struct Place {
    at: Arc<[AtomicU64; 2]>,
    tape: TapeReader,
}

impl Place {
    /// Of one that reads `tape` and stands at `cursor`.
    pub fn new(tape: TapeReader, cursor: Cursor) -> Self {
        let place = Self {
            at: Arc::default(),
            tape,
        };
        place.set(cursor);
        place
    }

    /// It stands here now.
    pub fn set(&self, cursor: Cursor) {
        let [position, index] = &*self.at;
        position.store(cursor.position, Ordering::Relaxed);
        index.store(cursor.index, Ordering::Relaxed);
    }

    /// Whether that is the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.at, &other.at)
    }

    /// How far it is behind.
    pub fn lag(&self) -> Lag {
        let [position, index] = &*self.at;
        let cursor = Cursor {
            position: position.load(Ordering::Relaxed),
            index: index.load(Ordering::Relaxed),
        };
        Lag::of(cursor, self.tape.newest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_counts() {
        let at = |position, index| Cursor { position, index };
        let newest = at(1_000, 50);
        let caught_up = Lag::of(newest, newest);
        assert_eq!(caught_up, Lag::default());
        let lags = [
            caught_up,
            Lag::of(at(900, 40), newest),
            Lag::of(at(200, 30), newest),
        ];
        let sum: Lag = lags.into_iter().sum();
        let expected = Lag {
            behind: 2,
            events: 20,
            bytes: 800,
            next: Some(30),
        };
        assert_eq!(sum, expected);
    }
}
