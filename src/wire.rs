//! The formats in which events cross a wire: pure functions, no I/O.

pub mod cloudevents;
pub mod comeback;
pub mod hop;
pub mod ndjson;
pub mod recording;
pub mod sse;
pub mod websocket;
#[cfg(feature = "zeromq")]
pub mod zmtp;

use std::time::Duration;

use hyper::header::HeaderName;
use memchr::memmem;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::event::{Event, Gap, Merged, Snapshot};

/// Tells in the head of an answer whether the wish for where to begin could be met: `yes`, `partial` or `no`.
pub const RESUMED: HeaderName = HeaderName::from_static("wsevent-resumed");

/// Tells in the head of an answer that it begins with a snapshot of the stream's state: of so many events at most, as a key that
/// changes meanwhile comes with the events behind.
pub const SNAPSHOT: HeaderName = HeaderName::from_static("wsevent-snapshot");

/// The types of what is no event but a notice. Nobody can publish events of these types.
pub const RESERVED_TYPES: [&str; 4] = [
    sse::GAP_TYPE,
    sse::SNAPSHOT_TYPE,
    sse::MERGED_TYPE,
    sse::DELETED_TYPE,
];

/// The formats that subscribers read. Each is the same bytes for every subscriber, so an event is encoded once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Raw WebSocket messages: payloads and nothing else.
    WebSocket,
    /// The hop link `wsevent.v1`: WebSocket messages with a header line.
    Hop,
    /// Server-Sent Events.
    Sse,
    /// JSON objects, one a line.
    Ndjson,
}

impl Format {
    /// All of them; a format's place here is its value as a number.
    pub const ALL: [Self; 4] = [Self::WebSocket, Self::Hop, Self::Sse, Self::Ndjson];

    /// The name for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Hop => "hop",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
        }
    }

    /// The event's frame, in two parts that follow each other. Where the format has room for it, a notice of what is missing
    /// before the event comes first. `scratch` is cleared and holds what is not the payload itself.
    pub fn encode<'a>(
        self,
        event: &'a Event,
        gap: Option<&Gap>,
        scratch: &'a mut Vec<u8>,
    ) -> [&'a [u8]; 2] {
        scratch.clear();
        if let Some(gap) = gap {
            self.encode_gap(gap, scratch);
        }
        match self {
            Self::WebSocket => {
                scratch.extend_from_slice(websocket::header(&event.payload).as_ref());
                [scratch, &event.payload.bytes]
            }
            Self::Hop => {
                hop::encode_header(event, scratch);
                [scratch, &event.payload.bytes]
            }
            Self::Sse => {
                sse::encode(event, scratch);
                [scratch, &[]]
            }
            Self::Ndjson => {
                ndjson::encode(event, scratch);
                [scratch, &[]]
            }
        }
    }

    /// Adds a notice of its own about what is missing; nothing where payloads are all there is.
    pub fn encode_gap(self, gap: &Gap, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => {}
            Self::Hop => hop::encode_control(&hop::Control::Gap(gap.clone()), out),
            Self::Sse => sse::encode_gap(gap, out),
            Self::Ndjson => ndjson::encode_gap(gap, out),
        }
    }

    /// Adds the frame of an event that is part of a snapshot. Where a reader would resume from an event because it has got it, it
    /// does not show its id: it has not got what was before.
    pub fn encode_kept(self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => {
                out.extend_from_slice(websocket::header(&event.payload).as_ref());
                out.extend_from_slice(&event.payload.bytes);
            }
            Self::Hop => {
                hop::encode_header(event, out);
                out.extend_from_slice(&event.payload.bytes);
            }
            Self::Sse => sse::encode_kept(event, out),
            Self::Ndjson => ndjson::encode_kept(event, out),
        }
    }

    /// Adds the boundary of a snapshot; nothing where payloads are all there is.
    pub fn encode_snapshot(self, boundary: &Snapshot, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => {}
            Self::Hop => hop::encode_control(&hop::Control::Snapshot(boundary.clone()), out),
            Self::Sse => sse::encode_snapshot(boundary, out),
            Self::Ndjson => ndjson::encode_snapshot(boundary, out),
        }
    }

    /// Adds a notice that events were merged; nothing where payloads are all there is, and on a hop link, where nothing is.
    pub fn encode_merged(self, merged: &Merged, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket | Self::Hop => {}
            Self::Sse => sse::encode_merged(merged, out),
            Self::Ndjson => ndjson::encode_merged(merged, out),
        }
    }

    /// What is said last to a reader that the server sends away: a Close frame, or how long to wait before coming back, where the
    /// format has a word for that.
    pub fn encode_end(self, code: CloseCode, reason: &str, come_back: Option<Duration>) -> Vec<u8> {
        match self {
            Self::WebSocket | Self::Hop => websocket::close(code, reason),
            Self::Sse => come_back.map_or_else(Vec::new, |pause| sse::opening(pause, None)),
            Self::Ndjson => Vec::new(),
        }
    }

    /// Where the frame that holds byte `at - 1` of `frames` ends, and how many frames end up to there.
    ///
    /// `frames` holds whole frames one after another, and `0 < at <= frames.len()`: the first `at` bytes have been written
    /// to a socket, and the answer tells what has to follow before anything else may. A notice is part of the frame of the
    /// event behind it, except on a hop link, where it counts as one more.
    pub fn boundary_at_or_after(self, frames: &[u8], at: usize) -> (usize, u64) {
        // The delimiter stands at the end of each event or notice and nowhere else; an event begins with its id.
        let (delimiter, event): (&[u8], &[u8]) = match self {
            Self::WebSocket | Self::Hop => return websocket::boundary_at_or_after(frames, at),
            Self::Sse => (b"\n\n", b"id: "),
            Self::Ndjson => (b"\n", b"{\"id\":"),
        };
        let delimiter = memmem::Finder::new(delimiter);
        let (mut end, mut events, mut behind_event) = (0, 0, true);
        while end < frames.len() && (end < at || !behind_event) {
            let rest = &frames[end..];
            behind_event = rest.starts_with(event);
            events += u64::from(behind_event);
            let found = delimiter.find(rest);
            end += found.map_or(rest.len(), |found| found + delimiter.needle().len());
        }
        (end, events)
    }

    /// What may be written at a frame boundary to see whether somebody is still there. NDJSON has nothing that all its
    /// readers would pass over.
    pub fn heartbeat(self) -> &'static [u8] {
        match self {
            Self::WebSocket | Self::Hop => &websocket::PING,
            Self::Sse => sse::HEARTBEAT,
            Self::Ndjson => b"",
        }
    }

    /// Whether it is the body of an HTTP answer, so that the client does not speak any more.
    pub fn is_body(self) -> bool {
        matches!(self, Self::Sse | Self::Ndjson)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Origin, Payload};

    #[test]
    fn a_format_is_found_at_its_place() {
        for (index, format) in Format::ALL.into_iter().enumerate() {
            assert_eq!(format as usize, index);
        }
    }

    #[test]
    fn a_cut_is_mended_at_the_end_of_its_frame_in_all_formats() {
        for format in Format::ALL {
            let (mut wire, mut ends, mut scratch) = (vec![], vec![], vec![]);
            let gap = Gap {
                after: Some("anything\n\n".into()),
                next: None,
                lost: Some(1),
            };
            for seq in 1..=20 {
                let event = Event {
                    id: EventId {
                        origin: Origin(7),
                        seq,
                    },
                    time: seq,
                    event_type: (seq % 3 == 0).then(|| "a type".into()),
                    key: None,
                    payload: Payload::text("line\n\n\r\nline ".repeat(seq as usize % 5)),
                };
                let gap = (seq % 2 == 0 && format != Format::Hop).then_some(&gap);
                for part in format.encode(&event, gap, &mut scratch) {
                    wire.extend_from_slice(part);
                }
                ends.push(wire.len());
            }
            for at in 1..=wire.len() {
                let frame = ends.iter().position(|&end| end >= at).expect("within");
                let expected = (ends[frame], frame as u64 + 1);
                assert_eq!(
                    format.boundary_at_or_after(&wire, at),
                    expected,
                    "{format:?} {at}"
                );
            }
        }
    }
}
