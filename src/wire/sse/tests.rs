use proptest::prelude::*;

use super::*;
use crate::event::{EventId, Origin, Payload};
use crate::wire::ndjson::tests::{event, gap};

fn known_event(payload: Payload) -> Event {
    Event {
        id: EventId {
            origin: Origin(1),
            seq: 42,
        },
        time: 0,
        event_type: None,
        key: Some("not on this wire".into()),
        payload,
    }
}

fn block(event: &Event) -> Vec<u8> {
    let mut block = vec![];
    encode(event, &mut block);
    block
}

fn parse(mut stream: &[u8]) -> Vec<Item> {
    let mut parser = Parser::new(usize::MAX / 2);
    std::iter::from_fn(|| parser.next(&mut stream))
        .map(|item| item.expect("no limit"))
        .collect()
}

/// Where the delimiter of blocks stands.
fn delimiters(bytes: &[u8]) -> Vec<usize> {
    let pairs = bytes.windows(2).enumerate();
    pairs
        .filter(|(_, pair)| pair == b"\n\n")
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn text_becomes_lines() {
    let cases = [
        ("hello", "data: hello\n"),
        (
            "",
            "event: wsevent.deleted\ndata: {\"key\":\"not on this wire\"}\n",
        ),
        (" a", "data:  a\n"),
        (":a", "data: :a\n"),
        ("a\nb", "data: a\ndata: b\n"),
        ("a\rb", "data: a\ndata: b\n"),
        ("a\r\nb", "data: a\ndata: b\n"),
        ("a\n\rb", "data: a\ndata: \ndata: b\n"),
        ("a\n", "data: a\ndata: \n"),
        ("\r\n", "data: \ndata: \n"),
        ("a\r\r\n\nb", "data: a\ndata: \ndata: \ndata: b\n"),
    ];
    for (text, lines) in cases {
        let block = block(&known_event(Payload::text(text)));
        let expected = format!("id: 0000000000001-42\n{lines}\n");
        assert_eq!(String::from_utf8_lossy(&block), expected, "{text:?}");
    }
}

#[test]
fn a_type_cannot_break_a_block() {
    let cases = [
        ("added", "added"),
        (" a", " a"),
        ("a\r\nb", "ab"),
        ("\n\ndata: b\n\n", "data: b"),
        ("\n", ""),
    ];
    for (event_type, written) in cases {
        let event = Event {
            event_type: Some(event_type.into()),
            ..known_event(Payload::text("c"))
        };
        let expected = format!("id: 0000000000001-42\nevent: {written}\ndata: c\n\n");
        assert_eq!(
            String::from_utf8_lossy(&block(&event)),
            expected,
            "{event_type:?}"
        );
    }
}

#[test]
fn binary_is_marked() {
    let block = block(&known_event(Payload::binary(vec![0xFF, 0])));
    let expected = "id: 0000000000001-42\ndata: data:application/octet-stream;base64,/wA=\n\n";
    assert_eq!(String::from_utf8_lossy(&block), expected);
    let not_binary = [
        "",
        "data:",
        "data:application/octet-stream;base64",
        "data:application/octet-stream;base64,/wA",
        "data:application/octet-stream;base64,/w A=",
        " data:application/octet-stream;base64,/wA=",
        "data:text/plain;base64,/wA=",
    ];
    for data in not_binary {
        assert_eq!(decode_binary(data), None, "{data:?}");
    }
    assert_eq!(
        decode_binary("data:application/octet-stream;base64,"),
        Some(vec![])
    );
}

#[test]
fn a_gap_is_an_event_without_an_id() {
    let gap = Gap {
        after: Some("x-1\n\n".into()),
        next: None,
        lost: Some(3),
    };
    let mut block = vec![];
    encode_gap(&gap, &mut block);
    let expected =
        "event: wsevent.gap\ndata: {\"after\":\"x-1\\n\\n\",\"next\":null,\"lost\":3}\n\n";
    assert_eq!(String::from_utf8_lossy(&block), expected);
    assert_eq!(decode_gap("{}").map(|gap| gap.lost), Ok(None));
    assert_eq!(decode_gap("[]"), Err("not a JSON object".to_owned()));
}

#[test]
fn a_stream_begins_with_retry_and_lives_on_heartbeats() {
    let delay = Duration::from_secs(2);
    assert_eq!(opening(delay, None), b"retry: 2000\n\n");
    for strange in ["a\nb", "a\rb", "a\0b"] {
        assert_eq!(opening(delay, Some(strange)), opening(delay, None));
    }
    assert_eq!(opening(delay, Some("a-1")), b"retry: 2000\nid: a-1\n\n");
    assert_eq!(delimiters(&opening(delay, Some("a-1"))).len(), 1);
    assert_eq!(delimiters(HEARTBEAT), [HEARTBEAT.len() - 2]);
    assert_eq!(
        parse(&[&opening(delay, None), HEARTBEAT].concat()),
        [Item::Retry(delay)]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn events_come_back_from_their_blocks(events in proptest::collection::vec(event(), 0..4)) {
        let mut stream = HEARTBEAT.to_vec();
        let mut expected = vec![];
        for event in &events {
            encode(event, &mut stream);
            let text = String::from_utf8_lossy(&event.payload.bytes);
            let event_type = event.event_type.as_deref().unwrap_or_default();
            if let (Some(key), Kind::Text, "") = (&event.key, event.payload.kind, &*text) {
                let deleted = (key.to_string(), event.event_type.as_deref().map(str::to_owned));
                expected.push((event.id.to_string(), DELETED_TYPE.to_owned(), Err(deleted)));
                continue;
            }
            expected.push((
                event.id.to_string(),
                event_type.replace(['\r', '\n'], ""),
                Ok(match event.payload.kind {
                    Kind::Text => Payload::text(text.replace("\r\n", "\n").replace('\r', "\n")),
                    Kind::Binary => event.payload.clone(),
                }),
            ));
        }
        let mut decoded = vec![];
        for item in parse(&stream) {
            let Item::Event { event_type, data, last_event_id, has_own_id: true } = item else {
                panic!("not an event with an id: {item:?}");
            };
            let payload = match decode_binary(&data) {
                _ if event_type.as_deref() == Some(DELETED_TYPE) => {
                    Err(decode_deleted(&data).expect("it has a key"))
                }
                Some(bytes) => Ok(Payload::binary(bytes)),
                None => Ok(Payload::text(data)),
            };
            let id = last_event_id.as_deref().unwrap_or_default().to_owned();
            decoded.push((id, event_type.unwrap_or_default(), payload));
        }
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn a_block_can_be_cut_at_its_end_only(event in event()) {
        let block = block(&event);
        prop_assert_eq!(delimiters(&block), [block.len() - 2]);
        prop_assert!(!block.contains(&b'\r'));
    }

    #[test]
    fn so_can_that_of_a_gap_and_it_comes_back(gap in gap()) {
        let mut block = vec![];
        encode_gap(&gap, &mut block);
        prop_assert_eq!(delimiters(&block), [block.len() - 2]);
        let [Item::Event { event_type, data, has_own_id: false, .. }] = &parse(&block)[..] else {
            panic!("not an event without an id: {block:?}");
        };
        prop_assert_eq!(event_type.as_deref(), Some(GAP_TYPE));
        prop_assert_eq!(decode_gap(data), Ok(gap));
    }
}

#[test]
fn boundaries_and_merged_events_are_told_without_an_id() {
    let id = EventId {
        origin: Origin(1),
        seq: 9,
    };
    for (boundary, block) in [
        (
            Snapshot::Begin { count: 2 },
            "event: wsevent.snapshot\ndata: {\"state\":\"begin\",\"count\":2}\n\n",
        ),
        (
            Snapshot::End { after: None },
            "event: wsevent.snapshot\ndata: {\"state\":\"end\",\"after\":null}\n\n",
        ),
        (
            Snapshot::End { after: Some(id) },
            "event: wsevent.snapshot\ndata: {\"state\":\"end\",\"after\":\"0000000000001-9\"}\n\n\
             id: 0000000000001-9\n\n",
        ),
    ] {
        let mut out = vec![];
        encode_snapshot(&boundary, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), block);
        let data = block
            .split_once("data: ")
            .and_then(|(_, rest)| rest.split_once('\n'));
        assert_eq!(decode_snapshot(data.expect("data").0), Ok(boundary));
    }
    let merged = Merged {
        after: Some(id),
        next: None,
        merged: 7,
    };
    let mut out = vec![];
    encode_merged(&merged, &mut out);
    let data = "{\"after\":\"0000000000001-9\",\"next\":null,\"merged\":7}";
    assert_eq!(
        String::from_utf8_lossy(&out),
        format!("event: wsevent.merged\ndata: {data}\n\n")
    );
    assert_eq!(decode_merged(data), Ok(merged));
    let mut event = event_of_type("wsevent.snapshot");
    out.clear();
    encode_kept(&event, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "data: x\n\n");
    event.event_type = Some("a".into());
    out.clear();
    encode_kept(&event, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "event: a\ndata: x\n\n");
    for wrong in [
        "",
        "{}",
        "{\"state\":\"over\"}",
        "{\"state\":\"begin\"}",
        "[]",
    ] {
        assert!(decode_snapshot(wrong).is_err(), "{wrong}");
    }
}

fn event_of_type(event_type: &str) -> Event {
    Event {
        id: EventId {
            origin: Origin(1),
            seq: 9,
        },
        time: 5,
        event_type: Some(event_type.into()),
        key: None,
        payload: Payload::text("x"),
    }
}
