//! Streams of events that are read, and events that are published.

use super::{Reads, option};
use crate::event::{Event, EventId, Kind, NewEvent, Origin, Payload};
use crate::source::http::decode::{Decoder, Item, Media};
use crate::wire::{cloudevents, ndjson as lines, sse as blocks};

/// No payload may have more bytes. A line of our own NDJSON may have 64 KiB beside it, so inputs seldom are too long for that.
const LIMIT: usize = 300;
const ID: EventId = EventId {
    origin: Origin(7),
    seq: 1,
};

/// The body of an answer, which begins as the first byte says: from a wsevent, or from anybody.
fn items(media: Media, input: &[u8]) -> Vec<Item> {
    let (options, input) = option(input);
    let from_wsevent = options & 1 != 0;
    let (items, _) = Reads::of(input).each_way(|reads| {
        let mut decoder = Decoder::new(media, from_wsevent, LIMIT);
        let mut items = vec![];
        for mut read in reads.iter().copied() {
            while let Some(mut item) = decoder.next(&mut read) {
                if let (Media::EventStream, Item::Known(event)) = (media, &mut item) {
                    // The format has none, so it is when it was read.
                    event.time = 0;
                }
                items.push(item);
            }
            assert!(read.is_empty(), "all is taken");
        }
        (items, decoder.last_event_id().map(str::to_owned))
    });
    for item in &items {
        match item {
            Item::Known(Event { payload, .. })
            | Item::Kept(Event { payload, .. })
            | Item::New(NewEvent { payload, .. })
            | Item::KeptUnnamed(NewEvent { payload, .. }) => {
                assert!(payload.bytes.len() <= LIMIT, "longer than allowed");
                let is_text = payload.kind == Kind::Text;
                assert!(!is_text || std::str::from_utf8(&payload.bytes).is_ok());
            }
            Item::Unusable(reason) => assert!(!reason.contains('\n'), "{reason:?}"),
            Item::Gap(_) | Item::Snapshot(_) | Item::Merged(_) | Item::Retry(_) => {}
        }
    }
    items
}

/// `text/event-stream`: the same events however it is cut. What is told comes out of our own event stream again.
pub fn sse(input: &[u8]) {
    for item in items(Media::EventStream, input) {
        let (id, event) = match item {
            Item::New(event) => (ID, event),
            Item::Known(event) if event.key.is_none() => (
                event.id,
                NewEvent {
                    event_type: event.event_type,
                    key: None,
                    payload: event.payload,
                },
            ),
            _ => continue,
        };
        let event = Event {
            id,
            time: 0,
            event_type: event.event_type,
            key: None,
            payload: event.payload,
        };
        let told = event.event_type.as_deref() == Some(blocks::DELETED_TYPE);
        let mut body = vec![];
        blocks::encode(&event, &mut body);
        let ends: Vec<_> = memchr::memmem::find_iter(&body, b"\n\n").collect();
        assert_eq!(ends, [body.len() - 2], "a block ends once");
        let mut decoder = Decoder::new(Media::EventStream, true, LIMIT);
        let again = decoder.next(&mut &body[..]);
        let Some(Item::Known(mut again)) = again else {
            panic!("{again:?} of {event:?}");
        };
        again.time = 0;
        // A text that looks like our binary payloads, or an event that is named like our notice of a key's end, is taken for that.
        let text = std::str::from_utf8(&event.payload.bytes).unwrap_or_default();
        let is_taken_for_binary =
            event.payload.kind == Kind::Text && blocks::decode_binary(text).is_some();
        if !told && !is_taken_for_binary {
            assert_eq!(again, event);
        }
    }
}

/// NDJSON: the same lines however it is cut. Whatever is understood of ours is written again, and is the same.
pub fn ndjson(input: &[u8]) {
    for item in items(Media::Ndjson, input) {
        let mut line = vec![];
        let expected = match item {
            Item::Known(event) => {
                lines::encode(&event, &mut line);
                lines::Line::Event(event)
            }
            Item::Kept(event) => {
                lines::encode_kept(&event, &mut line);
                lines::Line::Kept(event)
            }
            Item::Gap(gap) => {
                lines::encode_gap(&gap, &mut line);
                lines::Line::Gap(gap)
            }
            Item::Snapshot(boundary) => {
                lines::encode_snapshot(&boundary, &mut line);
                lines::Line::Snapshot(boundary)
            }
            Item::Merged(merged) => {
                lines::encode_merged(&merged, &mut line);
                lines::Line::Merged(merged)
            }
            _ => continue,
        };
        let end = memchr::memchr(b'\n', &line);
        assert_eq!(end, Some(line.len() - 1), "a line is a line");
        assert_eq!(lines::decode(&line), Ok(expected));
    }
}

/// What somebody publishes: a line of NDJSON, or events as CloudEvents has them. What is taken can be written in all formats and read
/// again.
pub fn published(input: &[u8]) {
    let mut events = vec![];
    match lines::decode_new(input) {
        Ok(event) => events.push(event),
        Err(reason) => assert!(!reason.contains('\n'), "{reason:?}"),
    }
    match cloudevents::decode(input) {
        Ok(event) => events.push(event.event),
        Err(reason) => assert!(!reason.contains('\n'), "{reason:?}"),
    }
    if let Ok(batch) = cloudevents::split_batch(input, 10) {
        assert!(batch.len() <= 10);
        for raw in batch {
            if let Ok(event) = cloudevents::decode(raw.get().as_bytes()) {
                events.push(event.event);
            }
        }
    }
    if let Ok(text) = cloudevents::decode_header(input) {
        events.push(Payload::text(text).into());
    }
    for event in events {
        let event = Event {
            id: ID,
            time: 1_000,
            event_type: event.event_type,
            key: event.key,
            payload: event.payload,
        };
        let mut line = vec![];
        lines::encode(&event, &mut line);
        assert_eq!(lines::decode(&line), Ok(lines::Line::Event(event.clone())));
        let again = lines::decode_new(&line);
        let again = again.expect("what is written can be published");
        assert_eq!(
            (again.event_type, again.key, again.payload),
            (event.event_type, event.key, event.payload)
        );
    }
}
