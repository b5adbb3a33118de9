//! A walk through what is kept of a stream, in pieces: its state before a subscriber joins the tape, or the newest of each key
//! when it has fallen behind.
//!
//! It goes through the events in the order of the log, from a number up to that where the tape is read from: two numbers are all
//! that it is between two pieces. What changes meanwhile is behind its end, and comes with the tape: so nothing is missing, nothing
//! comes twice, and nothing older comes behind something newer.

use super::cursor::Cursor;
use super::history::cost;
use super::retained::is_deletion;
use super::{EventLog, State};
use crate::event::{Event, Gap, Merged};
use crate::wire::Format;

/// Where it has come to.
#[derive(Debug)]
pub struct Walk {
    at: u64,
    upto: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Of each key the last event.
    State {
        /// What follows behind all of them.
        end: Box<[u8]>,
    },
    /// Of each key the last event, if there was one since, and all events without a key.
    Changes {
        from: u64,
        given: u64,
        /// Some may have been lost that nothing has replaced.
        has_lost: bool,
    },
}

/// The next frames of a walk.
pub struct Piece {
    /// The frames, one after another.
    pub bytes: Vec<u8>,
    /// Where each ends, and where the walk goes on behind it.
    frames: Vec<(usize, u64)>,
}

/// What is to be said at the end of a walk.
pub struct Ended {
    /// To be written before anything else.
    pub notice: Vec<u8>,
    /// So many events were not given.
    pub merged: u64,
    /// Whether some may have been lost that nothing has replaced, which the notice says.
    pub has_lost: bool,
}

/// An event to be encoded once the log is not locked any more.
struct Found {
    index: u64,
    event: Event,
    gap: Option<Box<Gap>>,
}

impl Walk {
    /// Through the state as it is before number `upto`; `end` closes it.
    pub(super) fn through_state(upto: u64, end: Vec<u8>) -> Self {
        Self {
            at: 0,
            upto,
            what: What::State { end: end.into() },
        }
    }

    /// How many events of the log it passes: none for the state, which is from before.
    pub fn span(&self) -> u64 {
        match self.what {
            What::State { .. } => 0,
            What::Changes { from, .. } => self.upto - from,
        }
    }

    /// The next piece, of about so many bytes: one event at least. None at the end.
    pub fn next(&mut self, log: &EventLog, format: Format, len: usize) -> Option<Piece> {
        let (found, next) = loop {
            if self.at >= self.upto {
                return None;
            }
            let (found, next) = self.find(&log.lock(), len);
            if !found.is_empty() {
                break (found, next);
            }
            self.at = next;
        };
        let mut piece = Piece {
            bytes: Vec::with_capacity(len),
            frames: Vec::with_capacity(found.len()),
        };
        let mut scratch = Vec::new();
        for Found { index, event, gap } in &found {
            match self.what {
                What::State { .. } => format.encode_kept(event, &mut piece.bytes),
                What::Changes { .. } => {
                    for part in format.encode(event, gap.as_deref(), &mut scratch) {
                        piece.bytes.extend_from_slice(part);
                    }
                }
            }
            piece.frames.push((piece.bytes.len(), index + 1));
        }
        if let Some(last) = piece.frames.last_mut() {
            last.1 = next;
        }
        Some(piece)
    }

    /// The next events, about as long as one piece, and where the walk goes on behind them. There may be none, and still some
    /// behind that.
    fn find(&mut self, state: &State, len: usize) -> (Vec<Found>, u64) {
        let Some(kept) = &state.kept else {
            return (Vec::new(), self.upto);
        };
        let is_state = matches!(self.what, What::State { .. });
        let (mut found, mut next) = (Vec::new(), self.upto);
        // What is passed over takes its time under the lock, too.
        let mut room = len;
        let mut pass = |index, event: &Event, gap: Option<Box<Gap>>| {
            if room == 0 {
                next = index;
                return false;
            }
            room = room.saturating_sub(cost(event));
            if !(is_state && is_deletion(event)) {
                let event = event.clone();
                found.push(Found { index, event, gap });
            }
            true
        };
        match &mut self.what {
            What::State { .. } => {
                let mut events = kept.state(self.at, self.upto);
                events.all(|(index, event)| pass(index, event, None));
            }
            What::Changes { has_lost, .. } => {
                // What is gone from `upto` on comes with the tape, or the tape has let go of it, and the reader is told of that.
                *has_lost |= kept.has_lost(self.at, self.upto);
                let mut events = kept.changes(self.at, self.upto);
                events.all(|(index, event)| match (event, state.history.get(index)) {
                    (Some(event), _) => pass(index, event, None),
                    (None, Some(entry)) => pass(index, &entry.event, entry.gap.clone()),
                    // It has gone this moment.
                    (None, None) => true,
                });
            }
        }
        (found, next)
    }

    /// The first `taken` bytes of a piece have been written: where the frame ends in which that is, and how many frames there are
    /// up to there. The walk goes on behind it.
    pub fn advance(&mut self, piece: &Piece, taken: usize) -> (usize, u64) {
        let before = piece.frames.partition_point(|(end, _)| *end < taken);
        let Some((end, next)) = piece.frames.get(before).filter(|_| taken > 0) else {
            return (0, 0);
        };
        let frames = before as u64 + 1;
        self.at = *next;
        if let What::Changes { given, .. } = &mut self.what {
            *given += frames;
        }
        (*end, frames)
    }

    /// What is to be said when all has been written.
    pub fn end(self, log: &EventLog, format: Format) -> Ended {
        let (from, given, has_lost) = match self.what {
            What::State { end } => {
                return Ended {
                    notice: end.into(),
                    merged: 0,
                    has_lost: false,
                };
            }
            What::Changes {
                from,
                given,
                has_lost,
            } => (from, given, has_lost),
        };
        let state = log.lock();
        let after = state.history.places().id_at(from - 1);
        let next = state.history.places().id_at(self.upto);
        drop(state);
        let merged = (self.upto - from).saturating_sub(given);
        let mut notice = Vec::new();
        if has_lost {
            let gap = Gap {
                after: after.map(|id| id.to_string().into()),
                next,
                lost: None,
            };
            format.encode_gap(&gap, &mut notice);
        }
        if merged > 0 {
            let merged = Merged {
                after,
                next,
                merged,
            };
            format.encode_merged(&merged, &mut notice);
        }
        Ended {
            notice,
            merged,
            has_lost,
        }
    }
}

impl EventLog {
    /// For a reader of `format` that stands before the event numbered `from` and is not to be given every event up to now: where
    /// it reads on, and the walk to there. None if it could miss something so that it still has before it; what it has not any
    /// more, `is_passed` says.
    pub fn catch_up(&self, format: Format, from: u64, is_passed: bool) -> Option<(Cursor, Walk)> {
        let mut state = self.lock();
        let has_lost = state.kept.as_ref()?.has_lost(from, state.history.next());
        if has_lost && !is_passed {
            return None;
        }
        let cursor = state.tape(format).end();
        let walk = Walk {
            at: from,
            upto: cursor.index,
            what: What::Changes {
                from,
                given: 0,
                has_lost,
            },
        };
        Some((cursor, walk))
    }
}

#[cfg(test)]
mod tests;
