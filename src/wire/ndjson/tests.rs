use proptest::prelude::*;

use super::*;
use crate::event::Origin;

/// Texts with all that is special in any text format.
fn text() -> impl Strategy<Value = String> {
    let bits = prop_oneof![
        proptest::sample::select(vec![
            "\n", "\r", "\r\n", "\n\n", " ", ":", "data: ", "\"", "\\", "\0", "\u{FEFF}",
            "\u{2028}", "é", "😀",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    proptest::collection::vec(bits, 0..6).prop_map(|bits| bits.concat())
}

fn optional_text() -> impl Strategy<Value = Option<Arc<str>>> {
    proptest::option::of(text().prop_map(Arc::from))
}

fn id() -> impl Strategy<Value = EventId> {
    (any::<u64>(), 1..=u64::MAX).prop_map(|(origin, seq)| EventId {
        origin: Origin(origin),
        seq,
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        text().prop_map(Payload::text),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(Payload::binary),
    ]
}

/// Any event, for all the text formats.
pub fn event() -> impl Strategy<Value = Event> {
    (
        id(),
        0..=MAX_TIME,
        optional_text(),
        optional_text(),
        payload(),
    )
        .prop_map(|(id, time, event_type, key, payload)| Event {
            id,
            time,
            event_type,
            key,
            payload,
        })
}

/// Any gap.
pub fn gap() -> impl Strategy<Value = Gap> {
    let after = proptest::option::of(text().prop_map(Box::from));
    (after, proptest::option::of(id()), any::<Option<u64>>()).prop_map(|(after, next, lost)| Gap {
        after,
        next,
        lost,
    })
}

fn known_id() -> EventId {
    EventId {
        origin: Origin(1),
        seq: 42,
    }
}

fn known_event(payload: Payload) -> Event {
    Event {
        id: known_id(),
        time: 1_795_248_000_123_456,
        event_type: None,
        key: None,
        payload,
    }
}

fn line(event: &Event) -> String {
    let mut line = vec![];
    encode(event, &mut line);
    String::from_utf8(line).expect("JSON is UTF-8")
}

fn gap_line(gap: &Gap) -> String {
    let mut line = vec![];
    encode_gap(gap, &mut line);
    String::from_utf8(line).expect("JSON is UTF-8")
}

#[test]
fn lines_are_what_readers_expect() {
    let text = known_event(Payload::text("a \"b\"\r\nc"));
    assert_eq!(
        line(&text),
        r#"{"id":"0000000000001-42","time":"2026-11-21T08:00:00.123456Z","data":"a \"b\"\r\nc"}"#
            .to_owned()
            + "\n"
    );
    let binary = Event {
        event_type: Some("a".into()),
        key: Some("b".into()),
        ..known_event(Payload::binary(vec![0xFF, 0]))
    };
    assert_eq!(
        line(&binary),
        r#"{"id":"0000000000001-42","time":"2026-11-21T08:00:00.123456Z","type":"a","key":"b","data_base64":"/wA="}"#.to_owned()
            + "\n"
    );
    let gap = Gap {
        after: Some("x-1".into()),
        next: Some(known_id()),
        lost: Some(3),
    };
    assert_eq!(
        gap_line(&gap),
        r#"{"gap":{"after":"x-1","next":"0000000000001-42","lost":3}}"#.to_owned() + "\n"
    );
    let unknown = Gap {
        after: None,
        next: None,
        lost: None,
    };
    assert_eq!(
        gap_line(&unknown),
        r#"{"gap":{"after":null,"next":null,"lost":null}}"#.to_owned() + "\n"
    );
}

#[test]
fn a_time_without_a_date_is_the_last_one() {
    for time in [MAX_TIME, MAX_TIME + 1, u64::MAX] {
        let event = Event {
            time,
            ..known_event(Payload::text(""))
        };
        assert!(
            line(&event).contains(r#""time":"9999-12-31T23:59:59.999999Z""#),
            "{time}"
        );
    }
}

#[test]
fn members_of_a_line_come_in_any_order_and_company() {
    let expected = Event {
        key: Some("k\n".into()),
        ..known_event(Payload::text("a\u{e9}"))
    };
    let line = r#" {"more":[{"id":1}],"data":"a\u00e9","key":"k\n","type":null,
        "time":"2026-11-21T08:00:00.123456Z", "id":"0000000000001-42"} "#;
    assert_eq!(decode(line.as_bytes()), Ok(Line::Event(expected)));
    let line = br#"{"gap":{"more":1}}"#;
    let expected = Gap {
        after: None,
        next: None,
        lost: None,
    };
    assert_eq!(decode(line), Ok(Line::Gap(expected)));
}

#[test]
fn lines_that_are_none_are_refused() {
    let cases: &[(&str, &str)] = &[
        ("", "not a JSON object"),
        (r#"["0000000000001-42"]"#, "not a JSON object"),
        (
            r#"{"id":"0000000000001-42""#,
            "not valid JSON: it is cut off",
        ),
        ("{}", "neither an event with an id nor a gap"),
        (r#"{"data":"a"}"#, "neither an event with an id nor a gap"),
        (r#"{"id":"0000000000001-42","data":"a"}"#, "no time"),
        (
            r#"{"id":"0000000000001-42","time":"2026-11-21T08:00:00Z"}"#,
            NO_DATA,
        ),
        (
            r#"{"id":"0000000000001-42","time":"2026-11-21T08:00:00Z","data":"","data_base64":""}"#,
            TWO_DATA,
        ),
        (
            r#"{"id":"0000000000001-42","time":"2026-11-21T08:00:00Z","data_base64":"?"}"#,
            "data_base64 is not base64",
        ),
        (
            r#"{"id":"42","time":"2026-11-21T08:00:00Z","data":""}"#,
            "not an event id",
        ),
        (
            r#"{"id":"0000000000001-42","time":"yesterday","data":""}"#,
            "not a time of RFC 3339 in UTC",
        ),
        (
            r#"{"id":1,"data":"a"}"#,
            "invalid type: integer `1`, expected a string",
        ),
        (r#"{"gap":{"next":"42"}}"#, "not an event id"),
        (
            r#"{"gap":"a"}"#,
            r#"invalid type: string "a", expected an object"#,
        ),
    ];
    for &(line, reason) in cases {
        assert_eq!(decode(line.as_bytes()), Err(reason.to_owned()), "{line}");
    }
    let long = format!(r#"{{"gap":{{"lost":"{}"}}}}"#, "é".repeat(1000));
    let reason = decode(long.as_bytes()).expect_err("not a number");
    assert!(reason.len() <= MAX_REASON, "{reason}");
}

#[test]
fn what_people_publish_is_read() {
    let cases: &[(&str, Payload)] = &[
        (r#"{"data":"hello"}"#, Payload::text("hello")),
        (r#"{"data":""}"#, Payload::text("")),
        (
            r#"{"data":"a\r\n\"\u00e9\ud83d\ude00\u0000"}"#,
            Payload::text("a\r\n\"é😀\0"),
        ),
        (
            r#"{"data":{"b" : 1.50, "a":"\u00e9"} }"#,
            Payload::text(r#"{"b" : 1.50, "a":"\u00e9"}"#),
        ),
        (r#"{"data":[ 1,2 ]}"#, Payload::text("[ 1,2 ]")),
        (r#"{"data": 1e400}"#, Payload::text("1e400")),
        (
            r#"{"data":12345678901234567890123}"#,
            Payload::text("12345678901234567890123"),
        ),
        (r#"{"data":true}"#, Payload::text("true")),
        (r#"{"data":null}"#, Payload::text("null")),
        (r#"{"data_base64":"/wA="}"#, Payload::binary(vec![0xFF, 0])),
        (r#"{"data_base64":"\/wA="}"#, Payload::binary(vec![0xFF, 0])),
        (r#"{"data_base64":""}"#, Payload::binary(vec![])),
        (r#"{"data_base64":null,"data":1}"#, Payload::text("1")),
        (r#"{"type":null,"key":null,"data":1}"#, Payload::text("1")),
        (
            r#"{"id":5,"time":[],"gap":{},"more":{"data":2},"data":1}"#,
            Payload::text("1"),
        ),
        (" \t{ \"data\" : \"a\" }\r", Payload::text("a")),
    ];
    for (line, payload) in cases {
        assert_eq!(
            decode_new(line.as_bytes()),
            Ok(payload.clone().into()),
            "{line}"
        );
    }
    let whole = NewEvent {
        event_type: Some("a\n".into()),
        key: Some("é".into()),
        payload: Payload::text("1"),
    };
    assert_eq!(
        decode_new(r#"{"type":"a\n","key":"é","data":1}"#.as_bytes()),
        Ok(whole)
    );
}

#[test]
fn what_cannot_be_published_is_named() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "not a JSON object"),
        (b"hello", "not a JSON object"),
        (b"\"hello\"", "not a JSON object"),
        (br#"["a","b"]"#, "not a JSON object"),
        (b"{}", NO_DATA),
        (br#"{"Data":1}"#, NO_DATA),
        (br#"{"data_base64":null}"#, NO_DATA),
        (br#"{"data":1,"data_base64":"AA=="}"#, TWO_DATA),
        (br#"{"data":null,"data_base64":"AA=="}"#, TWO_DATA),
        (br#"{"data":1,"data":2}"#, "duplicate field `data`"),
        (br#"{"data_base64":5}"#, "data_base64 is not a string"),
        (br#"{"data_base64":"a b"}"#, "data_base64 is not base64"),
        (br#"{"data":1,"type":5}"#, "type is not a string"),
        (br#"{"data":1,"key":{}}"#, "key is not a string"),
        (br#"{"data":"a"#, "not valid JSON: it is cut off"),
        (
            br#"{"data":1} {"data":2}"#,
            "not valid JSON: trailing characters (column 12)",
        ),
        (
            br#"{data:1}"#,
            "not valid JSON: key must be a string (column 2)",
        ),
        (
            br#"{"data":NaN}"#,
            "not valid JSON: expected value (column 9)",
        ),
        (
            br#"{"data":"\ud83d"}"#,
            "data has an escape that is no character",
        ),
        (
            b"{\"data\":\"a\tb\"}",
            "not valid JSON: control character (\\u0000-\\u001F) found while parsing a string (column 10)",
        ),
        (
            b"{\"data\":\"\xFF\"}",
            "not valid JSON: invalid unicode code point (column 10)",
        ),
    ];
    for &(line, reason) in cases {
        let name = String::from_utf8_lossy(line);
        assert_eq!(decode_new(line), Err(reason.to_owned()), "{name}");
    }
}

proptest! {
    #[test]
    fn an_event_comes_back_from_its_line(event in event()) {
        let line = line(&event);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert_eq!(decode(line.as_bytes()), Ok(Line::Event(event.clone())));
        let new = NewEvent {
            event_type: event.event_type,
            key: event.key,
            payload: event.payload,
        };
        prop_assert_eq!(decode_new(line.as_bytes()), Ok(new));
    }

    #[test]
    fn a_gap_comes_back_from_its_line(gap in gap()) {
        let line = gap_line(&gap);
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert_eq!(decode(line.as_bytes()), Ok(Line::Gap(gap)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let object = [b"{\"data\":", &bytes[..], b"}"].concat();
        let _ = (decode(&bytes), decode_new(&bytes), decode(&object), decode_new(&object));
    }
}

#[test]
fn kept_events_and_notices_come_out_unchanged() {
    let id = EventId {
        origin: Origin(1),
        seq: 9,
    };
    let event = Event {
        id,
        time: 5,
        event_type: None,
        key: Some("k".into()),
        payload: Payload::text("x"),
    };
    let mut out = vec![];
    encode_kept(&event, &mut out);
    assert!(out.starts_with(b"{\"id\":"), "as every event");
    assert!(out.ends_with(b"\"data\":\"x\",\"snapshot\":true}\n"));
    assert_eq!(decode(&out), Ok(Line::Kept(event)));
    for boundary in [
        Snapshot::Begin { count: 2 },
        Snapshot::End { after: None },
        Snapshot::End { after: Some(id) },
    ] {
        out.clear();
        encode_snapshot(&boundary, &mut out);
        assert_eq!(decode(&out), Ok(Line::Snapshot(boundary)));
    }
    let merged = Merged {
        after: None,
        next: Some(id),
        merged: 7,
    };
    out.clear();
    encode_merged(&merged, &mut out);
    assert_eq!(decode(&out), Ok(Line::Merged(merged)));
    for wrong in ["{\"snapshot\":true}", "{\"snapshot\":{}}", "{\"merged\":7}"] {
        assert!(decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
}
