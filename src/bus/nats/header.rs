//! An event's envelope, as the header `Wsevent` of a message (NATS protocol, HPUB and HMSG). The payload stands for itself, so that whoever
//! knows nothing of the header reads it as ever.
//!
//! ```text
//!   Wsevent: 0H3B6Q2ZK7M9T-42 t=1763711000123456 type=trade      an event with an id of its own
//!   Wsevent: - t=1763711000123456 type=trade                     one whose id is its place in the stream
//! ```

use async_nats::header::{HeaderMap, HeaderName, HeaderValue, NATS_MESSAGE_ID};
use bytes::Bytes;

use super::super::Arrival;
use super::super::envelope::{self, Envelope};
use crate::event::{Event, EventId};

const WSEVENT: HeaderName = HeaderName::from_static("Wsevent");

/// Stands for an id that the stream gives.
const NONE: &str = "-";

/// What is written beside the payload of `event`, if anything is.
pub fn write(event: &Event, envelope: Envelope) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if envelope.is_beside() {
        put(&mut headers, envelope::line(event));
    }
    headers
}

/// The same for an event that gets its id from the stream.
pub fn write_without_id(event: &Event) -> HeaderMap {
    let line = envelope::line(event);
    let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
    let mut headers = HeaderMap::new();
    put(&mut headers, format!("{NONE} {rest}"));
    headers
}

fn put(headers: &mut HeaderMap, line: String) {
    // Whatever could end a line is escaped in it.
    headers.insert(WSEVENT, HeaderValue::from(line));
}

/// By this a stream knows a message that it has already, if it came not long ago.
pub fn add_id(headers: &mut HeaderMap, id: EventId) {
    headers.insert(NATS_MESSAGE_ID, HeaderValue::from(id.to_string()));
}

/// What a message of a subject is.
pub fn read(headers: Option<&HeaderMap>, payload: Bytes, envelope: Envelope) -> Arrival {
    let line = headers.and_then(|headers| headers.get(WSEVENT));
    let line = line.map(HeaderValue::as_str);
    // It has been in a stream, and is no news any more.
    let line = line.filter(|line| !line.starts_with("- "));
    envelope.open_beside(line.map(str::as_bytes), payload)
}

/// What a message of a stream is, which has this id there, and has been there since this time.
pub fn read_numbered(
    headers: Option<&HeaderMap>,
    payload: Bytes,
    envelope: Envelope,
    (id, time): (EventId, u64),
) -> Arrival {
    let line = headers.and_then(|headers| headers.get(WSEVENT));
    let line = line.map(HeaderValue::as_str).map(|line| {
        let rest = line.strip_prefix(NONE).filter(|rest| rest.starts_with(' '));
        rest.map_or_else(|| line.to_owned(), |rest| format!("{id}{rest}"))
    });
    match envelope.open_beside(line.as_deref().map(str::as_bytes), payload) {
        Arrival::New(event) => Arrival::Known(Event {
            id,
            time,
            event_type: event.event_type,
            key: event.key,
            payload: event.payload,
        }),
        arrival => arrival,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Origin, Payload};

    fn event(payload: Payload) -> Event {
        Event {
            id: "0H3B6Q2ZK7M9T-42".parse().expect("an id"),
            time: 1_763_711_000_123_456,
            event_type: Some("trade".into()),
            key: Some("BTC\r\nEUR é".into()),
            payload,
        }
    }

    fn in_store() -> (EventId, u64) {
        let origin = Origin::store(7);
        (EventId { origin, seq: 9 }, 5)
    }

    #[test]
    fn what_is_written_is_read() {
        for payload in [Payload::text("two\nlines"), Payload::binary(&b"text"[..])] {
            let event = event(payload);
            let bytes = event.payload.bytes.clone();
            let headers = write(&event, Envelope::Auto);
            let known = Arrival::Known(event.clone());
            assert_eq!(
                read(Some(&headers), bytes.clone(), Envelope::Auto),
                known.clone()
            );
            let numbered = read_numbered(Some(&headers), bytes, Envelope::Auto, in_store());
            assert_eq!(numbered, known);
        }
    }

    #[test]
    fn a_stream_gives_ids_where_there_are_none() {
        let (id, time) = in_store();
        let event = event(Payload::binary(&b"text"[..]));
        let bytes = event.payload.bytes.clone();
        let headers = write_without_id(&event);
        let expected = Event {
            id,
            ..event.clone()
        };
        assert_eq!(
            read_numbered(Some(&headers), bytes.clone(), Envelope::Auto, (id, time)),
            Arrival::Known(expected)
        );
        // Without an envelope, or where none is wanted, it is a payload of somebody else's.
        let foreign = Event {
            id,
            time,
            event_type: None,
            key: None,
            payload: Payload::text("text"),
        };
        for (headers, envelope) in [(None, Envelope::Auto), (Some(&headers), Envelope::Never)] {
            assert_eq!(
                read_numbered(headers, bytes.clone(), envelope, (id, time)),
                Arrival::Known(foreign.clone())
            );
        }
    }

    #[test]
    fn nothing_is_beside_where_no_envelope_is_wanted() {
        let event = event(Payload::text("x"));
        assert!(write(&event, Envelope::Never).is_empty());
    }

    #[test]
    fn what_is_no_envelope_is_unusable() {
        let mut headers = HeaderMap::new();
        headers.insert(WSEVENT, HeaderValue::from("no id"));
        let arrival = read(Some(&headers), Bytes::new(), Envelope::Auto);
        assert!(matches!(arrival, Arrival::Unusable(_)), "{arrival:?}");
    }
}
