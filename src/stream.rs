//! A stream: an ordered log of events behind one URL path. Everything else moves bytes into or out of it.
//!
//! - [`EventLog::append`] gives an event its id, adds it to the history, encodes it once for each wire format that has
//!   a reader, and wakes who waits. It never waits for a reader and never fails because of one.
//! - A reader is a [`Cursor`] on the [tape] of its format. It holds a position, no queue.
//! - What the history lets go of, the tapes let go of too; a cursor that stood there finds out when it next looks.
//! - Waking is a versioned [`watch`]: register, then check, then sleep. There is no moment in which an append between
//!   the check and the sleep could be missed.

pub mod cursor;
pub mod history;
pub mod tape;

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::event::{self, Event, EventId, Origin, Payload};
use crate::wire;
use cursor::Cursor;
use history::History;
use tape::{Tape, TapeReader};

/// The log of one stream. Shared by its sources, which append, and its endpoints, which follow.
pub struct EventLog {
    origin: Origin,
    state: Mutex<State>,
    /// The number of the next event; changes with each append.
    head: watch::Sender<u64>,
}

struct State {
    history: History,
    /// Raw WebSocket frames; there while someone reads them.
    websocket: Option<Tape>,
}

/// A subscriber's way into a log: where it stands, what it reads, and what wakes it.
pub struct Subscription {
    /// Where reading starts.
    pub cursor: Cursor,
    /// The tape to read.
    pub tape: TapeReader,
    /// Changes whenever there may be more to read.
    pub head: watch::Receiver<u64>,
}

impl EventLog {
    /// An empty log whose history is bounded by `history_bytes`.
    pub fn new(history_bytes: usize) -> Self {
        const FIRST: u64 = 1;
        Self {
            origin: Origin::random(),
            state: Mutex::new(State {
                history: History::new(history_bytes, FIRST),
                websocket: None,
            }),
            head: watch::Sender::new(FIRST),
        }
    }

    /// Appends one event and returns its id; when this returns, the event is in the log.
    pub fn append(&self, payload: Payload) -> EventId {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let id = EventId {
            origin: self.origin,
            seq: state.history.next(),
        };
        let event = Event {
            id,
            time: event::now(),
            payload,
        };
        state.write_tapes(&event);
        state.history.push(event);
        state.evict();
        drop(state);
        // Two appends may come here out of order; the head never goes back.
        self.head
            .send_modify(|head| *head = (*head).max(id.seq + 1));
        id
    }

    /// Subscribes to raw WebSocket frames from the live edge on.
    pub fn subscribe_websocket(&self) -> Subscription {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.history.next();
        let tape = state.websocket.get_or_insert_with(|| Tape::new(next));
        Subscription {
            cursor: tape.end(),
            tape: tape.reader(),
            head: self.head.subscribe(),
        }
    }
}

impl State {
    /// Encodes the event for the formats that are read, and drops the tapes that no longer are.
    ///
    /// A reader is only ever handed out under the lock that is held here, so a tape found unread stays unread.
    fn write_tapes(&mut self, event: &Event) {
        self.websocket.take_if(|tape| tape.is_unread());
        if let Some(tape) = &mut self.websocket {
            let header = wire::websocket::header(&event.payload);
            tape.append([header.as_ref(), &event.payload.bytes]);
        }
    }

    fn evict(&mut self) {
        let oldest = self.history.first();
        if let Some(tape) = &mut self.websocket {
            tape.evict_before(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tape::Pending;

    fn read(subscription: &mut Subscription) -> Vec<u8> {
        let mut bytes = vec![];
        while let Pending::Frames { slice, end, .. } =
            subscription.tape.pending(subscription.cursor, &mut None)
        {
            bytes.extend_from_slice(&slice);
            subscription.cursor = end;
        }
        bytes
    }

    #[test]
    fn ids_count_up_from_one_in_one_origin() {
        let log = EventLog::new(1000);
        let ids: Vec<_> = (0..3).map(|_| log.append(Payload::text("x"))).collect();
        assert_eq!(ids.iter().map(|id| id.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(ids.iter().all(|id| id.origin == ids[0].origin));
    }

    #[test]
    fn a_subscriber_starts_at_the_live_edge() {
        let log = EventLog::new(1 << 20);
        log.append(Payload::text("before anyone"));
        let mut early = log.subscribe_websocket();
        log.append(Payload::text("a"));
        let mut late = log.subscribe_websocket();
        log.append(Payload::binary(&b"b"[..]));
        assert_eq!(read(&mut early), b"\x81\x01a\x82\x01b");
        assert_eq!(read(&mut late), b"\x82\x01b");
        assert_eq!((early.cursor, late.cursor.index), (late.cursor, 4));
    }

    #[test]
    fn an_append_is_seen_even_between_subscribing_and_sleeping() {
        let log = EventLog::new(1 << 20);
        let subscription = log.subscribe_websocket();
        assert!(!subscription.head.has_changed().expect("the log lives"));
        log.append(Payload::text("a"));
        assert!(subscription.head.has_changed().expect("the log lives"));
    }

    #[test]
    fn a_tape_that_nobody_reads_is_dropped_and_a_new_one_starts_at_the_live_edge() {
        let log = EventLog::new(1 << 20);
        drop(log.subscribe_websocket());
        log.append(Payload::text("unread"));
        assert!(log.state.lock().expect("not poisoned").websocket.is_none());
        let mut again = log.subscribe_websocket();
        assert_eq!(again.cursor.index, 2);
        log.append(Payload::text("a"));
        assert_eq!(read(&mut again), b"\x81\x01a");
    }

    #[test]
    fn a_reader_that_history_has_passed_finds_out() {
        let log = EventLog::new(10_000);
        let slow = log.subscribe_websocket();
        for _ in 0..100 {
            log.append(Payload::binary(vec![0; 1_000]));
        }
        assert!(matches!(
            slow.tape.pending(slow.cursor, &mut None),
            Pending::Evicted
        ));
    }
}
