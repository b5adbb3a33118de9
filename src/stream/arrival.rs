//! How an event has come into a log.

use super::{EventLog, FIRST};
use crate::event::EventId;

/// How an event that is held has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When, in microseconds since the Unix epoch; none if it is from before the log began, and was told with the stream's past.
    pub since: Option<u64>,
    /// The number of the source that has brought it first, if one has.
    pub link: Option<usize>,
}

impl EventLog {
    /// How this event has come, if it is held.
    pub fn arrival(&self, id: EventId) -> Option<Arrival> {
        let state = self.lock();
        let index = state.history.places().of(id.origin)?.index_of(id.seq)?;
        let entry = state.history.get(index)?;
        Some(Arrival {
            since: (index >= FIRST).then_some(entry.since),
            link: entry.from.map(usize::from),
        })
    }
}

/// The number of a source, as an entry holds it: of more there are none.
pub(super) fn number(link: usize) -> Option<u16> {
    u16::try_from(link).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Origin, Payload};

    fn event(seq: u64) -> Event {
        Event {
            id: EventId {
                origin: Origin(9),
                seq,
            },
            time: 1,
            event_type: None,
            key: None,
            payload: Payload::text("x"),
        }
    }

    #[test]
    fn the_first_that_brings_an_event_is_remembered_with_it() {
        let log = EventLog::new(1 << 20);
        let before = crate::event::now();
        assert!(log.relay_by(event(5), None, 2));
        assert!(!log.relay_by(event(5), None, 0), "the second copy");
        let arrival = log.arrival(event(5).id).expect("it is held");
        assert_eq!(arrival.link, Some(2));
        assert!(arrival.since.is_some_and(|since| since >= before));
        let own = log.append_by(Payload::text("y"), None, 1);
        assert_eq!(log.arrival(own).and_then(|arrival| arrival.link), Some(1));
        let published = log.append(Payload::text("z"));
        let arrival = log.arrival(published).expect("it is held");
        assert_eq!(arrival.link, None);
        log.backfill_by([event(4)], 3);
        let past = Arrival {
            since: None,
            link: Some(3),
        };
        assert_eq!(log.arrival(event(4).id), Some(past));
        assert_eq!(log.arrival(event(6).id), None);
    }
}
