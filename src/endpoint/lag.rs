//! How far subscribers are behind what is there for them.

use std::iter::Sum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event;
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
    next: Option<u64>,
    /// When that came, in microseconds since the Unix epoch, if [it is known](Self::in_log).
    since: Option<u64>,
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
                since: None,
            },
        }
    }

    /// The same, where all of them read what is numbered as in this log: peers read another one than the rest.
    pub fn in_log(self, log: &EventLog) -> Self {
        Self {
            since: self.next.and_then(|next| log.since_of_number(next)),
            ..self
        }
    }

    /// For how long the event is there that the last of them waits for, in seconds.
    pub fn seconds(&self) -> f64 {
        self.since
            .map_or(0.0, |since| event::now().saturating_sub(since) as f64 / 1e6)
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
            since: sum.since.into_iter().chain(lag.since).min(),
        })
    }
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

    /// A number that no other place has while this one is there.
    pub fn name(&self) -> usize {
        Arc::as_ptr(&self.at).addr()
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
    use std::time::Duration;

    use super::*;
    use crate::endpoint::subscribers::Subscribers;
    use crate::event::{Event, EventId, Origin, Payload, SIMULATED_NOW};
    use crate::shutdown::Stop;
    use crate::stream::Way;
    use crate::wire::Format;

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
            since: None,
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn who_reads_what_is_for_peers_waits_for_an_event_of_that() {
        let log = EventLog::new(1 << 20).with_peers();
        let theirs = log.own_local().expect("it has peers").clone();
        let begin = [&log, &*theirs].map(|log| log.follow(Format::Hop).cursor);
        let from_peer = Way {
            is_from_peer: true,
            ..Way::default()
        };
        for seq in 1..=3 {
            SIMULATED_NOW.set(Some(seq));
            let event = Event {
                id: EventId {
                    origin: Origin(1),
                    seq,
                },
                time: seq,
                event_type: None,
                key: None,
                payload: Payload::text("x"),
            };
            log.relay_by(from_peer, event, None);
        }
        SIMULATED_NOW.set(Some(1_000_000));
        log.append(Payload::text("of our own"));
        SIMULATED_NOW.set(Some(3_000_000));
        let [ours, of_peers] = begin.map(|begin| {
            let newest = Cursor {
                position: begin.position + 1,
                index: begin.index + 1,
            };
            Lag::of(begin, newest)
        });
        let lags = [ours.in_log(&log), of_peers.in_log(&theirs)];
        assert_eq!(lags.map(|lag| lag.seconds()), [2.999999, 2.0]);
        SIMULATED_NOW.set(None);
    }

    #[test]
    fn whoever_leaves_is_found_among_many() {
        const MANY: u64 = 100_000;
        let log = EventLog::new(1 << 20);
        let subscribers = Subscribers::new(Stop::new(Duration::ZERO));
        let subscription = log.follow(Format::Sse);
        let follow = |_| subscribers.follow(&subscription, Format::Sse);
        let places: Vec<_> = (0..MANY).map(follow).collect();
        log.append(Payload::text("x"));
        assert_eq!(subscribers.lag(Format::Sse).behind as u64, MANY);
        // One by one from the last on, each of them was looked for among all that are before it.
        places
            .iter()
            .rev()
            .for_each(|place| subscribers.unfollow(place));
        assert_eq!(subscribers.lag(Format::Sse), Lag::default());
    }
}
