use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn id() -> impl Strategy<Value = EventId> {
    (any::<u64>(), 1..=u64::MAX).prop_map(|(origin, seq)| EventId {
        origin: Origin(origin),
        seq,
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        ".{0,200}".prop_map(Payload::text),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Payload::binary),
    ]
}

prop_compose! {
    fn event()(
        id in proptest::option::of(id()),
        time in any::<u64>(),
        is_kept in any::<bool>(),
        event_type in proptest::option::of(text()),
        key in proptest::option::of(text()),
        payload in payload(),
    ) -> Taken {
        Taken {
            id,
            time: Some(time),
            is_kept,
            event_type: event_type.map(Arc::from),
            key: key.map(Arc::from),
            payload,
        }
    }
}

/// Anything that may be recorded.
pub fn recorded() -> impl Strategy<Value = Recorded> {
    let gap = (
        proptest::option::of(text()),
        proptest::option::of(id()),
        proptest::option::of(any::<u64>()),
    );
    let gap = gap.prop_map(|(after, next, lost)| Gap {
        after: after.map(Box::from),
        next,
        lost,
    });
    prop_oneof![
        (any::<u64>(), event()).prop_map(|(arrived, event)| Recorded::Event { arrived, event }),
        (any::<u64>(), gap).prop_map(|(arrived, gap)| Recorded::Gap { arrived, gap }),
    ]
}

/// The body of a record.
fn body(record: &Recorded) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(encode(record, &mut out));
    out.split_off(HEAD)
}

proptest! {
    #[test]
    fn what_is_written_is_read(record in recorded()) {
        prop_assert_eq!(decode(&body(&record)), Ok(Some(record)));
    }

    #[test]
    fn anything_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    /// A body may be cut where its payload is, and is another one then; the checksum tells that.
    #[test]
    fn a_body_that_is_cut_is_another(record in recorded(), cut in any::<prop::sample::Index>()) {
        let body = body(&record);
        let cut = &body[..cut.index(body.len())];
        prop_assert_ne!(decode(cut), Ok(Some(record)));
    }
}

#[test]
fn the_bytes_are_those_that_are_documented() {
    let record = Recorded::Event {
        arrived: 2,
        event: Taken {
            id: Some(EventId {
                origin: Origin(3),
                seq: 4,
            }),
            time: Some(1),
            is_kept: false,
            event_type: Some("t".into()),
            key: None,
            payload: Payload::binary(&b"\xff"[..]),
        },
    };
    let mut out = Vec::new();
    assert!(encode(&record, &mut out));
    let mut expected = vec![40, 0, 0, 0];
    expected.extend(&out[4..8]);
    expected.extend([1, 0b111]);
    for number in [2, 1, 3, 4] {
        expected.extend(u64::to_le_bytes(number));
    }
    expected.extend([1, 0, 0, 0, b't', 0xff]);
    assert_eq!(out, expected);
    // As any other program finds it.
    let mut summed = out[..4].to_vec();
    summed.extend(&out[8..]);
    assert_eq!(crc32fast::hash(&summed).to_le_bytes(), out[4..8]);
}

#[test]
fn what_a_later_version_writes_is_passed_over_or_refused() {
    assert_eq!(decode(&[3, 1, 2, 3]), Ok(None));
    assert!(decode(&[]).is_err());
    let gap = Gap {
        after: None,
        next: None,
        lost: None,
    };
    let mut body = body(&Recorded::Gap { arrived: 1, gap });
    body.push(0);
    assert!(decode(&body).is_err(), "more than a gap has");
    body[1] = 0x80;
    assert!(decode(&body).is_err(), "a flag that is not known");
}

#[test]
fn a_text_is_utf_8() {
    let mut body = body(&Recorded::Event {
        arrived: 1,
        event: Payload::text("é").into(),
    });
    body.pop();
    assert_eq!(decode(&body), Err("its text is not UTF-8"));
}
