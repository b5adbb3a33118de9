//! History: the last events of a stream, bounded in bytes.

use std::collections::VecDeque;

use crate::event::Event;

/// What an event costs beside its payload, so that the bound holds for streams of small events too.
const OVERHEAD: usize = size_of::<Event>();

/// The newest events, oldest first, numbered without holes.
#[derive(Debug)]
pub struct History {
    events: VecDeque<Event>,
    /// The number of the oldest event held; of the next one, when none is.
    first: u64,
    bytes: usize,
    max_bytes: usize,
}

impl History {
    /// An empty history that holds at most `max_bytes`, except that the newest event is always held. The first event
    /// will have the number `first`.
    pub fn new(max_bytes: usize, first: u64) -> Self {
        Self {
            events: VecDeque::new(),
            first,
            bytes: 0,
            max_bytes,
        }
    }

    /// Appends an event and lets go of the oldest ones until the bound holds again.
    pub fn push(&mut self, event: Event) {
        self.bytes += cost(&event);
        self.events.push_back(event);
        while self.bytes > self.max_bytes && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= cost(&oldest);
                self.first += 1;
            }
        }
    }

    /// The number of the oldest event held; of the next one, when none is.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number the next event will have.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

fn cost(event: &Event) -> usize {
    event.payload.bytes.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Origin, Payload};

    fn event(seq: u64, len: usize) -> Event {
        Event {
            id: EventId {
                origin: Origin(0),
                seq,
            },
            time: 0,
            payload: Payload::binary(vec![0; len]),
        }
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_always_stays() {
        let mut history = History::new(3 * (100 + OVERHEAD), 1);
        for seq in 1..=3 {
            history.push(event(seq, 100));
        }
        assert_eq!((history.first(), history.next()), (1, 4));
        history.push(event(4, 1));
        assert_eq!((history.first(), history.next()), (2, 5));
        history.push(event(5, 1_000_000));
        assert_eq!((history.first(), history.next()), (5, 6));
        history.push(event(6, 0));
        assert_eq!((history.first(), history.next()), (6, 7));
    }
}
