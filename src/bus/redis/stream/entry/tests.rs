use super::*;
use crate::event::{Kind, Payload};

fn id(text: &str) -> EntryId {
    EntryId::parse(text.as_bytes()).expect("an id")
}

fn entry(fields: &[(&str, &[u8])]) -> Entry {
    let fields = fields.iter().map(|(name, value)| {
        let name = Bytes::copy_from_slice(name.as_bytes());
        (name, Bytes::copy_from_slice(value))
    });
    Entry {
        id: id("1763711000123-7"),
        fields: fields.collect(),
    }
}

fn naming() -> Naming {
    let url = Url::parse("redis+stream://me:secret@h/3?stream=s").expect("a URL");
    Naming::new(&url, "s")
}

fn payload(reading: Reading<'_>, fields: &[(&str, &[u8])]) -> Option<Payload> {
    match reading.open(&entry(fields), &naming()) {
        Arrival::Known(event) => Some(event.payload),
        _ => None,
    }
}

const AUTO: Reading<'_> = Reading {
    envelope: Envelope::Auto,
    field: None,
};

#[test]
fn ids_have_an_order() {
    let max = u64::MAX;
    for (this, next) in [
        ("0-0", "0-1"),
        ("5-41", "5-42"),
        (&*format!("5-{max}"), "6-0"),
    ] {
        assert_eq!(id(this).next(), id(next));
        assert_eq!(id(next).previous(), id(this));
        assert!(id(this) < id(next));
        assert_eq!(id(this).to_string(), this);
    }
    assert_eq!(EntryId::ZERO.previous(), EntryId::ZERO);
    for wrong in ["", "5", "-", "5-", "x-1", "5-1-1"] {
        assert_eq!(EntryId::parse(wrong.as_bytes()), None, "{wrong}");
    }
}

/// All hops must give the same ids, of whatever version: this must never change.
#[test]
fn what_others_write_has_the_same_id_everywhere() {
    let naming = naming();
    let first = naming.event_id(id("1763711000123-7"));
    assert_eq!(
        first.origin,
        Origin::store(fnv1a("redis://h:6379/3?stream=s"))
    );
    assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8, "as its authors say");
    assert_eq!(first.to_string(), "BJJ5ERD320TGG-7397540102659899399");
    assert_eq!(first.seq, 1_763_711_000_123 << 22 | 7);
    assert!(!first.origin.counts());
    assert_eq!(Naming::entry_id(first.seq), id("1763711000123-7"));
    let mut last = naming.event_id(EntryId::ZERO);
    for larger in ["0-1", "0-4194303", "1-0", "4398046511103-4194303"] {
        let larger = naming.event_id(id(larger));
        assert_eq!(larger.origin, first.origin);
        assert!(larger.seq > last.seq);
        last = larger;
    }
}

#[test]
fn an_id_that_does_not_fit_is_nobody_elses() {
    let naming = naming();
    let ids = [
        "1-0",
        "1-4194304",
        "1-8388608",
        "4398046511105-0",
        "4398046511105-4194304",
    ];
    let all: std::collections::HashSet<_> = ids.map(|text| naming.event_id(id(text))).into();
    assert_eq!(all.len(), ids.len());
    assert!(all.iter().all(|id| !id.origin.counts()));
}

#[test]
fn a_stream_made_anew_has_a_name_of_its_own() {
    let (mut one, mut other) = (naming(), naming());
    let before = one.event_id(id("1-1"));
    one.begin_anew(id("1-1"));
    other.begin_anew(id("1-1"));
    assert_ne!(one.event_id(id("1-1")), before);
    assert_eq!(one.event_id(id("1-1")), other.event_id(id("1-1")));
}

#[test]
fn the_payload_is_found_in_whatever_fields_others_write() {
    let text = |text| Some(Payload::text(text));
    assert_eq!(payload(AUTO, &[("body", b"x")]), text("x"));
    assert_eq!(payload(AUTO, &[("a", b"1"), ("data", b"x")]), text("x"));
    let fields = [("z", &b"1"[..]), ("a", b"\"2\""), ("b", b"\xff")];
    let json = r#"{"z":"1","a":"\"2\"","b_base64":"/w=="}"#;
    assert_eq!(payload(AUTO, &fields), text(json));
    assert_eq!(payload(AUTO, &[]), text("{}"));
    let body = Reading {
        field: Some("body"),
        ..AUTO
    };
    let fields = [("data", &b"1"[..]), ("body", b"2")];
    assert_eq!(payload(body, &fields), text("2"));
    assert_eq!(payload(body, &[("data", b"1")]), None);
    let binary = payload(AUTO, &[("data", b"\xff")]).expect("an event");
    assert_eq!(binary.kind, Kind::Binary);
}

#[test]
fn a_line_of_ours_says_what_the_event_is() {
    let line = b"0H3B6Q2ZK7M9T-42 t=1763711000123456 type=trade key=BTC";
    let fields = [("data", &b"x"[..]), ("wsevent", line)];
    let entry = entry(&fields);
    let Arrival::Known(event) = AUTO.open(&entry, &naming()) else {
        panic!("it is an event");
    };
    assert_eq!(event.id.to_string(), "0H3B6Q2ZK7M9T-42");
    assert_eq!(entry.event_id(), Some(event.id));
    assert_eq!(event.time, 1_763_711_000_123_456);
    assert_eq!(event.event_type.as_deref(), Some("trade"));
    assert_eq!(event.payload, Payload::text("x"));
    let never = Reading {
        envelope: Envelope::Never,
        ..AUTO
    };
    let foreign = never.open(&entry, &naming());
    let Arrival::Known(event) = foreign else {
        panic!("{foreign:?}");
    };
    assert_eq!(event.id, naming().event_id(entry.id));
    assert_eq!(event.time, 1_763_711_000_123_000);
    let broken = [("data", &b"x"[..]), ("wsevent", b"nonsense")];
    let broken = AUTO.open(&super::tests::entry(&broken), &naming());
    assert!(matches!(broken, Arrival::Unusable(_)), "{broken:?}");
}

#[test]
fn pages_are_as_large_as_fits() {
    let mut page = Page::default();
    let small = vec![entry(&[("data", b"x")]); 8];
    for _ in 0..10 {
        page.learn(&small);
    }
    assert_eq!(page.count(), Page::MOST);
    page.learn(&[entry(&[("data", &vec![0; Page::BYTES])])]);
    assert_eq!(page.count(), 1);
    page.learn(&[]);
    assert_eq!(page.count(), 1);
    page.learn(&small);
    assert_eq!(page.count(), 2, "large ones may come again");
}
