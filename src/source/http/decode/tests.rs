use std::sync::Arc;

use super::*;
use crate::event::Origin;
use crate::wire::Format;

/// What a body tells when it comes in pieces of this length.
fn in_pieces(mut decoder: Decoder, body: &[u8], len: usize) -> Vec<Item> {
    let mut items = vec![];
    for mut piece in body.chunks(len) {
        while let Some(item) = decoder.next(&mut piece) {
            items.push(item);
        }
        assert!(piece.is_empty());
    }
    items
}

fn new(text: &str) -> Item {
    Item::New(Payload::text(text).into())
}

#[test]
fn lines_of_anybody_are_texts() {
    let body = b"{\"a\":1}\n\n\r\n 2 \r\nlonger than that\n12345678\r\n123456789\r\n\xFF\nunfin";
    for len in 1..=body.len() {
        let items = in_pieces(Decoder::new(Media::Ndjson, false, 8), body, len);
        let too_large = Item::Unusable("an event of more than 8 bytes".to_owned());
        let expected = [
            new("{\"a\":1}"),
            new(" 2 "),
            too_large.clone(),
            new("12345678"),
            too_large,
            new("\u{FFFD}"),
        ];
        assert_eq!(items, expected, "in pieces of {len}");
    }
}

#[test]
fn blocks_of_anybody_are_texts_with_a_type() {
    let body = "id: 0000000000001-1\nevent: message\ndata: a\n\nevent: b\ndata: data:application/octet-stream;base64,AA==\n\n\
                event: wsevent.gap\ndata: {}\n\nretry: 7\n";
    let mut decoder = Decoder::new(Media::EventStream, false, 100);
    let mut rest = body.as_bytes();
    let mut items = std::iter::from_fn(|| decoder.next(&mut rest));
    let typed = |event_type: &str, text: &str| {
        Item::New(NewEvent {
            event_type: Some(event_type.into()),
            key: None,
            payload: Payload::text(text),
        })
    };
    assert_eq!(items.next(), Some(new("a")));
    let binary = "data:application/octet-stream;base64,AA==";
    assert_eq!(items.next(), Some(typed("b", binary)));
    assert_eq!(items.next(), Some(typed("wsevent.gap", "{}")));
    assert_eq!(items.next(), Some(Item::Retry(Duration::from_millis(7))));
    assert_eq!(items.next(), None);
    assert_eq!(decoder.last_event_id(), Some("0000000000001-1"));
}

fn known(seq: u64, payload: Payload) -> Event {
    Event {
        id: EventId {
            origin: Origin(7),
            seq,
        },
        time: 1_000_000,
        event_type: seq.is_multiple_of(2).then(|| Arc::from("a type")),
        key: None,
        payload,
    }
}

#[test]
fn what_a_wsevent_writes_is_read_again() {
    let size = 100;
    let events = [
        known(1, Payload::text("\u{1}".repeat(size))),
        known(2, Payload::binary(vec![0; size])),
        known(3, Payload::text("")),
        known(4, Payload::binary(vec![])),
        known(6, Payload::text("message")),
    ];
    let gap = Gap {
        after: Some(events[3].id.to_string().into()),
        next: Some(events[4].id),
        lost: Some(1),
    };
    for (format, media) in [
        (Format::Sse, Media::EventStream),
        (Format::Ndjson, Media::Ndjson),
    ] {
        let (mut body, mut scratch) = (vec![], vec![]);
        for event in &events {
            let gap = (event.id.seq == 6).then_some(&gap);
            body.extend(format.encode(event, gap, &mut scratch).concat());
        }
        for len in [1, 2, 7, body.len()] {
            let mut items = in_pieces(Decoder::new(media, true, size), &body, len);
            for item in &mut items {
                if let Item::Known(event) = item {
                    event.time = 1_000_000;
                }
            }
            let mut expected: Vec<_> = events.iter().cloned().map(Item::Known).collect();
            expected.insert(4, Item::Gap(gap.clone()));
            assert_eq!(items, expected, "{format:?} in pieces of {len}");
        }
        let mut decoder = Decoder::new(media, true, size - 1);
        let mut rest = &body[..];
        let items: Vec<_> = std::iter::from_fn(|| decoder.next(&mut rest)).collect();
        let too_large = Item::Unusable("an event of more than 99 bytes".to_owned());
        assert_eq!(items[..2], [too_large.clone(), too_large], "{format:?}");
        assert_eq!(items.len(), 6);
        let last = events[4].id.to_string();
        assert_eq!(decoder.last_event_id(), Some(&last[..]));
    }
}

#[test]
fn a_line_of_a_wsevent_that_makes_no_sense_is_said_to() {
    let mut decoder = Decoder::new(Media::Ndjson, true, 100);
    let item = decoder.next(&mut &b"{\"data\":1}\n"[..]);
    assert!(matches!(item, Some(Item::Unusable(_))), "{item:?}");
}

#[test]
fn the_state_of_another_wsevent_is_no_news_and_says_where_it_ends() {
    use crate::event::{Merged, Snapshot};
    use crate::wire::Format;
    let (kept, next) = (
        known(3, Payload::text("kept")),
        known(9, Payload::text("next")),
    );
    let id = EventId {
        origin: Origin(7),
        seq: 8,
    };
    let boundaries = [
        Snapshot::Begin { count: 1 },
        Snapshot::End { after: Some(id) },
    ];
    let merged = Merged {
        after: Some(id),
        next: None,
        merged: 2,
    };
    for (format, media) in [
        (Format::Sse, Media::EventStream),
        (Format::Ndjson, Media::Ndjson),
    ] {
        let mut body = vec![];
        format.encode_snapshot(&boundaries[0], &mut body);
        format.encode_kept(&kept, &mut body);
        let cut = body.len();
        format.encode_snapshot(&boundaries[1], &mut body);
        let end = body.len();
        format.encode_merged(&merged, &mut body);
        let mut scratch = vec![];
        body.extend(format.encode(&next, None, &mut scratch).concat());
        let mut decoder = Decoder::new(media, true, 100);
        let mut items = vec![];
        let mut read = |decoder: &mut Decoder, mut rest: &[u8]| {
            while let Some(item) = decoder.next(&mut rest) {
                items.push(item);
            }
        };
        read(&mut decoder, &body[..cut]);
        assert_eq!(
            decoder.last_event_id(),
            None,
            "cut off here, it wants all again"
        );
        read(&mut decoder, &body[cut..end]);
        assert_eq!(decoder.last_event_id(), Some(&*id.to_string()));
        read(&mut decoder, &body[end..]);
        let state = match media {
            Media::EventStream => Item::KeptUnnamed(NewEvent {
                event_type: kept.event_type.clone(),
                key: None,
                payload: kept.payload.clone(),
            }),
            Media::Ndjson => Item::Kept(kept.clone()),
        };
        assert_eq!(items[0], Item::Snapshot(boundaries[0].clone()));
        assert_eq!(items[1], state);
        assert_eq!(items[2], Item::Snapshot(boundaries[1].clone()));
        assert_eq!(items[3], Item::Merged(merged.clone()));
        assert!(matches!(&items[4], Item::Known(event) if event.id == next.id));
    }
}
