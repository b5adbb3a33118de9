//! How an event's id, time, type and key travel with its payload: as the header line of the [hop link](crate::wire::hop).
//!
//! Where a bus has a place beside the payload, such as a header or a second field, the line stands there, and whoever knows nothing
//! of it reads the payload as ever. Where it has none, line and payload are one message.

use bytes::{BufMut, Bytes, BytesMut};

use super::Arrival;
use crate::event::{Event, Kind, Payload};
use crate::wire::hop::{self, Wrong};

/// When what is sent has a header line, as the user wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Envelope {
    /// Where the bus has a place for it beside the payload; and between the hops of one `--bus` everywhere.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere; and what looks like one is a part of the payload.
    Never,
}

impl Envelope {
    /// Whether what is sent has a line beside the payload, where there is a place for it.
    pub fn is_beside(self) -> bool {
        self != Self::Never
    }

    /// What a message is that has no place for a line but before the payload.
    pub fn open(self, message: Bytes) -> Arrival {
        match self {
            Self::Never => Arrival::New(payload(message).into()),
            _ => open(message),
        }
    }

    /// What a message is that may have a line beside it.
    pub fn open_beside(self, line: Option<&[u8]>, message: Bytes) -> Arrival {
        match line.filter(|_| self != Self::Never) {
            Some(line) => beside(line, message),
            None => Arrival::New(payload(message).into()),
        }
    }
}

/// What is sent of an event where there is no place beside the payload: with the line before it if that is wanted, and if the payload by itself would be
/// taken for somebody's event with a line.
pub fn message(event: &Event, envelope: Envelope) -> Bytes {
    let payload = || event.payload.bytes.clone();
    match envelope {
        Envelope::Always => seal(event),
        Envelope::Auto if matches!(open(payload()), Arrival::Known(_)) => seal(event),
        Envelope::Auto | Envelope::Never => payload(),
    }
}

/// The header line of an event, without its end.
pub fn line(event: &Event) -> String {
    let mut line = hop::header_line(event);
    // Others say by their frames which it is; on a bus a payload that could be text is taken for it.
    if event.payload.kind == Kind::Binary {
        line.push_str(BINARY);
    }
    line
}

/// Header line and payload as one.
pub fn seal(event: &Event) -> Bytes {
    let line = line(event);
    let mut message = BytesMut::with_capacity(line.len() + 1 + event.payload.bytes.len());
    message.put_slice(line.as_bytes());
    message.put_u8(b'\n');
    message.put_slice(&event.payload.bytes);
    message.freeze()
}

const BINARY: &str = " kind=binary";

fn decode(line: &[u8], message: Bytes) -> Result<Event, Wrong> {
    let mut event = hop::decode_header_line(line, payload(message))?;
    if line.ends_with(BINARY.as_bytes()) {
        event.payload.kind = Kind::Binary;
    }
    Ok(event)
}

/// Text, if it is UTF-8.
pub fn payload(bytes: Bytes) -> Payload {
    let kind = match std::str::from_utf8(&bytes) {
        Ok(_) => Kind::Text,
        Err(_) => Kind::Binary,
    };
    Payload { kind, bytes }
}

/// A message is ours when it begins with a header line; anybody else's payload is left as it is.
fn open(message: Bytes) -> Arrival {
    let Some(end) = memchr::memchr(b'\n', &message[..message.len().min(hop::MAX_HEADER_LINE)])
    else {
        return Arrival::New(payload(message).into());
    };
    let behind = message.slice(end + 1..);
    match decode(&message[..end], behind) {
        Ok(event) => Arrival::Known(event),
        Err(_) => Arrival::New(payload(message).into()),
    }
}

fn beside(line: &[u8], message: Bytes) -> Arrival {
    match decode(line, message) {
        Ok(event) => Arrival::Known(event),
        Err(wrong) => Arrival::Unusable(wrong.0.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: Payload) -> Event {
        Event {
            id: "0H3B6Q2ZK7M9T-42".parse().expect("an id"),
            time: 1_763_711_000_123_456,
            event_type: Some("trade".into()),
            key: Some("BTC EUR".into()),
            payload,
        }
    }

    #[test]
    fn what_is_sealed_is_opened() {
        for payload in [
            Payload::text(""),
            Payload::text("two\nlines"),
            Payload::binary(&b"\xff\n\x00"[..]),
            Payload::binary(&b"could be text"[..]),
        ] {
            let event = event(payload);
            assert_eq!(
                Envelope::Auto.open(seal(&event)),
                Arrival::Known(event.clone())
            );
            let beside = Envelope::Auto
                .open_beside(Some(line(&event).as_bytes()), event.payload.bytes.clone());
            assert_eq!(beside, Arrival::Known(event));
        }
    }

    #[test]
    fn nobody_publishes_in_the_name_of_another() {
        let forged = Bytes::from_static(b"0H3B6Q2ZK7M9T-18446744073709551615 t=1\nforged");
        let event = event(payload(forged));
        let message = message(&event, Envelope::Auto);
        assert_eq!(Envelope::Auto.open(message), Arrival::Known(event));
    }

    #[test]
    fn what_others_send_is_left_as_it_is() {
        for text in [
            "",
            "plain",
            "two\nlines",
            "0H3B6Q2ZK7M9T-42\nno time",
            "0H3B6Q2ZK7M9T-42 is what I got\n",
            "!gap after=0H3B6Q2ZK7M9T-42\n",
        ] {
            let message = Bytes::from(text);
            let expected = Arrival::New(Payload::text(text).into());
            assert_eq!(Envelope::Auto.open(message), expected, "{text:?}");
        }
        let sealed = seal(&event(Payload::text("x")));
        let expected = Arrival::New(payload(sealed.clone()).into());
        assert_eq!(Envelope::Never.open(sealed), expected);
    }
}
