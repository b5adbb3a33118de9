//! The formats in which events cross a wire: pure functions, no I/O.

pub mod cloudevents;
pub mod comeback;
pub mod compress;
pub mod hop;
pub mod ndjson;
pub mod recording;
pub mod sse;
pub mod websocket;
#[cfg(feature = "zeromq")]
pub mod zmtp;

use std::sync::LazyLock;
use std::time::Duration;

use hyper::header::HeaderName;
use memchr::memmem;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::event::{Event, Gap, Merged, Snapshot};
use compress::Coding;

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
    /// Raw WebSocket messages, compressed by `permessage-deflate`.
    WebSocketDeflate,
    /// The hop link, compressed in the same way.
    HopDeflate,
    /// Server-Sent Events with the content coding `gzip`.
    SseGzip,
    /// Server-Sent Events with the content coding `zstd`.
    SseZstd,
    /// JSON objects with the content coding `gzip`.
    NdjsonGzip,
    /// JSON objects with the content coding `zstd`.
    NdjsonZstd,
}

impl Format {
    /// All of them; a format's place here is its value as a number.
    pub const ALL: [Self; 10] = [
        Self::WebSocket,
        Self::Hop,
        Self::Sse,
        Self::Ndjson,
        Self::WebSocketDeflate,
        Self::HopDeflate,
        Self::SseGzip,
        Self::SseZstd,
        Self::NdjsonGzip,
        Self::NdjsonZstd,
    ];

    /// Those that are not compressed, which come first.
    pub const PLAIN: [Self; 4] = [Self::WebSocket, Self::Hop, Self::Sse, Self::Ndjson];

    /// The name for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Hop => "hop",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::WebSocketDeflate => "websocket+deflate",
            Self::HopDeflate => "hop+deflate",
            Self::SseGzip => "sse+gzip",
            Self::SseZstd => "sse+zstd",
            Self::NdjsonGzip => "ndjson+gzip",
            Self::NdjsonZstd => "ndjson+zstd",
        }
    }

    /// What it is without compression.
    pub fn plain(self) -> Self {
        match self {
            Self::WebSocket | Self::WebSocketDeflate => Self::WebSocket,
            Self::Hop | Self::HopDeflate => Self::Hop,
            Self::Sse | Self::SseGzip | Self::SseZstd => Self::Sse,
            Self::Ndjson | Self::NdjsonGzip | Self::NdjsonZstd => Self::Ndjson,
        }
    }

    /// How it is compressed, if it is.
    pub fn coding(self) -> Option<Coding> {
        match self {
            Self::WebSocket | Self::Hop | Self::Sse | Self::Ndjson => None,
            Self::WebSocketDeflate | Self::HopDeflate => Some(Coding::Deflate),
            Self::SseGzip | Self::NdjsonGzip => Some(Coding::Gzip),
            Self::SseZstd | Self::NdjsonZstd => Some(Coding::Zstd),
        }
    }

    /// The same, compressed so; as it is, where there is no such coding for it.
    pub fn coded(self, coding: Option<Coding>) -> Self {
        let is_it = |format: &Self| format.plain() == self.plain() && format.coding() == coding;
        Self::ALL.into_iter().find(is_it).unwrap_or(self)
    }

    /// The coding of the body of an answer.
    fn body_coding(self) -> Option<Coding> {
        self.coding().filter(|_| self.is_body())
    }

    /// Adds what `write` does in the plain format, as it is in this one. Messages that are not events are never compressed on a
    /// WebSocket, as they may be mixed at will there.
    pub fn put(self, out: &mut Vec<u8>, write: impl FnOnce(Self, &mut Vec<u8>)) {
        let Some(coding) = self.body_coding() else {
            return write(self.plain(), out);
        };
        let mut plain = Vec::new();
        write(self.plain(), &mut plain);
        if !plain.is_empty() {
            coding.append(&[&plain], out);
        }
    }

    /// What stands before everything else.
    pub fn beginning(self) -> &'static [u8] {
        self.coding().map_or(b"", Coding::beginning)
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
        if let Some(coding) = self.body_coding() {
            let mut plain = Vec::new();
            let parts = self.plain().encode(event, gap, &mut plain);
            coding.append(&parts, scratch);
            return [scratch, &[]];
        }
        if let Some(gap) = gap {
            self.encode_gap(gap, scratch);
        }
        match self.add_event(event, scratch) {
            true => [scratch, &[]],
            false => [scratch, &event.payload.bytes],
        }
    }

    /// Adds the event's frame in a format that is not the body of an answer in some coding; whether with its payload, or up to that.
    fn add_event(self, event: &Event, out: &mut Vec<u8>) -> bool {
        let payload = &event.payload;
        match self {
            Self::WebSocketDeflate
                if websocket::encode_deflated(payload.kind, &[&payload.bytes], out) =>
            {
                return true;
            }
            Self::HopDeflate if hop::encode_deflated(event, out) => return true,
            _ => {}
        }
        match self.plain() {
            Self::Hop => hop::encode_header(event, out),
            Self::Sse => sse::encode(event, out),
            Self::Ndjson => ndjson::encode(event, out),
            _ => out.extend_from_slice(websocket::header(payload).as_ref()),
        }
        self.is_body()
    }

    /// Adds a notice of its own about what is missing; nothing where payloads are all there is.
    pub fn encode_gap(self, gap: &Gap, out: &mut Vec<u8>) {
        self.put(out, |plain, out| match plain {
            Self::Hop => hop::encode_control(&hop::Control::Gap(gap.clone()), out),
            Self::Sse => sse::encode_gap(gap, out),
            Self::Ndjson => ndjson::encode_gap(gap, out),
            _ => {}
        });
    }

    /// Adds the frame of an event that is part of a snapshot. Where a reader would resume from an event because it has got it, it
    /// does not show its id: it has not got what was before.
    pub fn encode_kept(self, event: &Event, out: &mut Vec<u8>) {
        if !self.is_body() {
            if !self.add_event(event, out) {
                out.extend_from_slice(&event.payload.bytes);
            }
            return;
        }
        self.put(out, |plain, out| match plain {
            Self::Sse => sse::encode_kept(event, out),
            _ => ndjson::encode_kept(event, out),
        });
    }

    /// Adds the boundary of a snapshot; nothing where payloads are all there is.
    pub fn encode_snapshot(self, boundary: &Snapshot, out: &mut Vec<u8>) {
        self.put(out, |plain, out| match plain {
            Self::Hop => hop::encode_control(&hop::Control::Snapshot(boundary.clone()), out),
            Self::Sse => sse::encode_snapshot(boundary, out),
            Self::Ndjson => ndjson::encode_snapshot(boundary, out),
            _ => {}
        });
    }

    /// Adds a notice that events were merged; nothing where payloads are all there is, and on a hop link, where nothing is.
    pub fn encode_merged(self, merged: &Merged, out: &mut Vec<u8>) {
        self.put(out, |plain, out| match plain {
            Self::Sse => sse::encode_merged(merged, out),
            Self::Ndjson => ndjson::encode_merged(merged, out),
            _ => {}
        });
    }

    /// What is said last to a reader that the server sends away: a Close frame, or how long to wait before coming back, where the
    /// format has a word for that.
    pub fn encode_end(self, code: CloseCode, reason: &str, come_back: Option<Duration>) -> Vec<u8> {
        let mut end = Vec::new();
        self.put(&mut end, |plain, end| match plain {
            Self::Sse => {
                end.extend(come_back.map_or_else(Vec::new, |pause| sse::opening(pause, None)));
            }
            Self::Ndjson => {}
            _ => end.extend(websocket::close(code, reason)),
        });
        end
    }

    /// Where the frame that holds byte `at - 1` of `frames` ends, and how many frames end up to there.
    ///
    /// `frames` holds whole frames one after another, and `0 < at <= frames.len()`: the first `at` bytes have been written
    /// to a socket, and the answer tells what has to follow before anything else may. A notice is part of the frame of the
    /// event behind it, except on a hop link, where it counts as one more.
    pub fn boundary_at_or_after(self, frames: &[u8], at: usize) -> (usize, u64) {
        if let Some(coding) = self.body_coding() {
            return coding.boundary_at_or_after(frames, at);
        }
        // The delimiter stands at the end of each event or notice and nowhere else; an event begins with its id.
        let (delimiter, event): (&[u8], &[u8]) = match self.plain() {
            Self::Sse => (b"\n\n", b"id: "),
            Self::Ndjson => (b"\n", b"{\"id\":"),
            _ => return websocket::boundary_at_or_after(frames, at),
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
        static GZIP: LazyLock<Vec<u8>> = LazyLock::new(|| heartbeat(Format::SseGzip));
        static ZSTD: LazyLock<Vec<u8>> = LazyLock::new(|| heartbeat(Format::SseZstd));
        match self {
            Self::Sse => sse::HEARTBEAT,
            Self::SseGzip => &GZIP,
            Self::SseZstd => &ZSTD,
            _ if self.is_body() => b"",
            _ => &websocket::PING,
        }
    }

    /// Whether it is the body of an HTTP answer, so that the client does not speak any more.
    pub fn is_body(self) -> bool {
        matches!(self.plain(), Self::Sse | Self::Ndjson)
    }
}

fn heartbeat(format: Format) -> Vec<u8> {
    let mut heartbeat = Vec::new();
    format.put(&mut heartbeat, |_, out| out.extend(sse::HEARTBEAT));
    heartbeat
}

/// What a reader of `format` makes of whole frames: the same in the plain format.
#[cfg(test)]
pub fn expanded(format: Format, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !format.is_body() {
        let mut inflater = websocket::Inflater::new(usize::MAX);
        inflater
            .take(wire, &mut out)
            .expect("what we encode is valid");
        return out;
    }
    let Some(mut expander) = format.coding().and_then(compress::Expander::new) else {
        return wire.to_vec();
    };
    for mut input in [format.beginning(), wire] {
        let mut piece = [0; 700];
        loop {
            let len = expander.next(&mut input, &mut piece);
            let len = len.expect("what we encode is valid");
            out.extend_from_slice(&piece[..len]);
            if len < piece.len() {
                break;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventId, Origin, Payload};

    #[test]
    fn a_format_is_found_at_its_place() {
        for (index, format) in Format::ALL.into_iter().enumerate() {
            assert_eq!(format as usize, index);
            assert_eq!(format.plain().coded(format.coding()), format);
        }
        assert_eq!(Format::PLAIN[..], Format::ALL[..Format::PLAIN.len()]);
        assert_eq!(Format::Sse.coded(Some(Coding::Deflate)), Format::Sse);
    }

    #[test]
    fn a_cut_is_mended_at_the_end_of_its_frame_in_all_formats() {
        for format in Format::ALL {
            let (mut wire, mut ends, mut scratch) = (vec![], vec![], vec![]);
            let mut plain = vec![];
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
                    payload: Payload::text("line\n\n\r\nline ".repeat(seq as usize % 5 * 7)),
                };
                let gap = (seq % 2 == 0 && format.plain() != Format::Hop).then_some(&gap);
                for part in format.encode(&event, gap, &mut scratch) {
                    wire.extend_from_slice(part);
                }
                for part in format.plain().encode(&event, gap, &mut scratch) {
                    plain.extend_from_slice(part);
                }
                ends.push(wire.len());
            }
            assert_eq!(expanded(format, &wire), plain, "{format:?}");
            let is_smaller = wire.len() < plain.len();
            assert_eq!(is_smaller, format.coding().is_some(), "{format:?}");
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
