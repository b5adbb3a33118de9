//! From the bytes of an answer's body to events, without any I/O.

use std::time::Duration;

use crate::event::{self, Event, EventId, Gap, Kind, Merged, NewEvent, Payload, Snapshot};
use crate::wire::{ndjson, sse};

/// How much longer than its payload the line of an event in our NDJSON can be: JSON escapes a control character as six
/// letters.
const LONGEST_ESCAPE: usize = 6;
/// Room for what stands in such a line beside the payload: id, time, type and key.
const MAX_LINE_OVERHEAD: usize = 64 << 10;
/// Room for the marker of a binary payload and for padding.
const MAX_MARKER: usize = 64;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `text/event-stream`.
    EventStream,
    /// `application/x-ndjson`, by any of its names.
    Ndjson,
}

/// What a body tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event that has its id already, for it comes from another wsevent.
    Known(Event),
    /// An event of anybody else.
    New(NewEvent),
    /// An event of the state that another wsevent keeps, in NDJSON.
    Kept(Event),
    /// The same in an event stream, which does not say its id.
    KeptUnnamed(NewEvent),
    /// Another wsevent says that events are missing here.
    Gap(Gap),
    /// The state that another wsevent keeps begins here, or ends.
    Snapshot(Snapshot),
    /// Another wsevent has merged events, as they were not read fast enough.
    Merged(Merged),
    /// Something that cannot be taken, and why.
    Unusable(String),
    /// How long the server wants readers to wait before they connect again.
    Retry(Duration),
}

/// Reads one body, which may be cut into pieces anywhere. What is unfinished at its end is never told.
pub struct Decoder {
    parser: Parser,
    /// The server is a wsevent, so ids, gaps and binary payloads mean what they mean there.
    from_wsevent: bool,
    max_message_size: usize,
    /// The id of the last event, where no parser keeps it.
    last_event_id: Option<String>,
    /// What comes is the state, as another wsevent keeps it.
    is_state: bool,
}

enum Parser {
    EventStream(sse::Parser),
    Ndjson(Lines),
}

impl Decoder {
    /// For a body of this media type. Payloads may have `max_message_size` bytes.
    pub fn new(media: Media, from_wsevent: bool, max_message_size: usize) -> Self {
        let most = max_message_size;
        let parser = match (media, from_wsevent) {
            // Base64 makes four letters of three bytes.
            (Media::EventStream, true) => sse::Parser::new(most / 3 * 4 + MAX_MARKER).into(),
            (Media::EventStream, false) => sse::Parser::new(most).into(),
            (Media::Ndjson, true) => Lines::new(most * LONGEST_ESCAPE + MAX_LINE_OVERHEAD).into(),
            (Media::Ndjson, false) => Lines::new(most).into(),
        };
        Self {
            parser,
            from_wsevent,
            max_message_size,
            last_event_id: None,
            is_state: false,
        }
    }

    /// From where to resume, if the body has said so: the last id of all that has been told.
    pub fn last_event_id(&self) -> Option<&str> {
        match &self.parser {
            Parser::EventStream(parser) => parser.last_event_id(),
            Parser::Ndjson(_) => self.last_event_id.as_deref(),
        }
    }

    /// Takes from the front of `input`, which goes on where the last one ended, up to the end of the next item. When
    /// there is none, all of `input` has been taken.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Item> {
        let item = match &mut self.parser {
            Parser::EventStream(parser) => match parser.next(input)? {
                Ok(item) => block(item, self.from_wsevent),
                Err(error) => Item::Unusable(error.to_string()),
            },
            Parser::Ndjson(lines) => match lines.next(input)? {
                Ok(line) if self.from_wsevent => known_line(&line),
                Ok(line) => Item::New(text(line).into()),
                Err(TooLong) => self.too_large(),
            },
        };
        let payload = match &item {
            Item::Known(event) | Item::Kept(event) => &event.payload,
            Item::New(event) => &event.payload,
            Item::Snapshot(boundary) => {
                self.note(boundary);
                return Some(item);
            }
            _ => return Some(item),
        };
        if payload.bytes.len() > self.max_message_size {
            return Some(self.too_large());
        }
        if let (Parser::Ndjson(_), Item::Known(event)) = (&self.parser, &item) {
            self.last_event_id = Some(event.id.to_string());
        }
        Some(match item {
            Item::New(event) if self.is_state => Item::KeptUnnamed(event),
            item => item,
        })
    }

    /// In NDJSON the end of the state says where to resume. An event stream has a block for that.
    fn note(&mut self, boundary: &Snapshot) {
        self.is_state = matches!(boundary, Snapshot::Begin { .. });
        if let Snapshot::End { after: Some(id) } = boundary {
            self.last_event_id = Some(id.to_string());
        }
    }

    fn too_large(&self) -> Item {
        let limit = self.max_message_size;
        Item::Unusable(sse::TooLarge { limit }.to_string())
    }
}

impl From<sse::Parser> for Parser {
    fn from(parser: sse::Parser) -> Self {
        Self::EventStream(parser)
    }
}

impl From<Lines> for Parser {
    fn from(lines: Lines) -> Self {
        Self::Ndjson(lines)
    }
}

/// What a block of an event stream means.
fn block(item: sse::Item, from_wsevent: bool) -> Item {
    let (event_type, data, id) = match item {
        sse::Item::Retry(delay) => return Item::Retry(delay),
        sse::Item::Event {
            event_type,
            data,
            last_event_id,
            has_own_id,
        } => (event_type, data, last_event_id.filter(|_| has_own_id)),
    };
    if !from_wsevent {
        // A type that is not there means `message` (WHATWG HTML, section 9.2.6).
        let event_type = event_type.filter(|event_type| event_type != "message");
        return Item::New(NewEvent {
            event_type: event_type.map(Into::into),
            key: None,
            payload: Payload::text(data),
        });
    }
    let notice = match event_type.as_deref().filter(|_| id.is_none()) {
        Some(sse::GAP_TYPE) => Some(sse::decode_gap(&data).map(Item::Gap)),
        Some(sse::SNAPSHOT_TYPE) => Some(sse::decode_snapshot(&data).map(Item::Snapshot)),
        Some(sse::MERGED_TYPE) => Some(sse::decode_merged(&data).map(Item::Merged)),
        _ => None,
    };
    if let Some(notice) = notice {
        let wrong = |reason| Item::Unusable(format!("a notice: {reason}"));
        return notice.unwrap_or_else(wrong);
    }
    if let (Some(sse::DELETED_TYPE), Some(Ok(id))) =
        (event_type.as_deref(), id.as_deref().map(str::parse))
        && let Ok((key, event_type)) = sse::decode_deleted(&data)
    {
        return Item::Known(Event {
            id,
            time: event::now(),
            event_type: event_type.map(Into::into),
            key: Some(key.into()),
            payload: Payload::text(""),
        });
    }
    let payload = match sse::decode_binary(&data) {
        Some(bytes) => Payload::binary(bytes),
        None => Payload::text(data),
    };
    let event_type = event_type.map(Into::into);
    match id.and_then(|id| id.parse::<EventId>().ok()) {
        Some(id) => Item::Known(Event {
            id,
            // The format has no room for the time at the origin.
            time: event::now(),
            event_type,
            key: None,
            payload,
        }),
        None => Item::New(NewEvent {
            event_type,
            key: None,
            payload,
        }),
    }
}

/// What a line of another wsevent means.
fn known_line(line: &[u8]) -> Item {
    match ndjson::decode(line) {
        Ok(ndjson::Line::Event(event)) => Item::Known(event),
        Ok(ndjson::Line::Kept(event)) => Item::Kept(event),
        Ok(ndjson::Line::Gap(gap)) => Item::Gap(gap),
        Ok(ndjson::Line::Snapshot(boundary)) => Item::Snapshot(boundary),
        Ok(ndjson::Line::Merged(merged)) => Item::Merged(merged),
        Err(reason) => Item::Unusable(reason),
    }
}

/// A line is text; what in it is no UTF-8 becomes U+FFFD, as in an event stream.
fn text(line: Vec<u8>) -> Payload {
    let text = String::from_utf8(line);
    let text = text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Payload {
        kind: Kind::Text,
        bytes: text.into(),
    }
}

/// A line was longer than the limit. The rest of it is passed over.
struct TooLong;

/// Cuts a body into lines. They end with LF, or with CR and LF; empty ones mean nothing.
struct Lines {
    max_len: usize,
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    /// It is too long already, and has been told so.
    skips: bool,
}

impl Lines {
    fn new(max_len: usize) -> Self {
        Self {
            max_len,
            line: Vec::new(),
            skips: false,
        }
    }

    fn next(&mut self, input: &mut &[u8]) -> Option<Result<Vec<u8>, TooLong>> {
        while !input.is_empty() {
            let end = memchr::memchr(b'\n', input);
            let (part, rest) = input.split_at(end.unwrap_or(input.len()));
            *input = rest.get(1..).unwrap_or_default();
            let is_whole = end.is_some();
            if self.skips {
                self.skips = !is_whole;
                continue;
            }
            self.line.extend_from_slice(part);
            if is_whole && self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            // The end of a line that comes later may bring a CR that does not count.
            if self.line.len() > self.max_len + usize::from(!is_whole) {
                self.line = Vec::new();
                self.skips = !is_whole;
                return Some(Err(TooLong));
            }
            if is_whole && !self.line.is_empty() {
                return Some(Ok(std::mem::take(&mut self.line)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
