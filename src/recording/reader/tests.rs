use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, EventId, Gap, Origin, Payload};
use crate::wire::recording::encode;

const MOST: usize = 1_000;

fn event(seq: u64, payload: Payload) -> Recorded {
    Recorded::Event {
        arrived: 1_000 + seq,
        event: Event {
            id: EventId {
                origin: Origin(7),
                seq,
            },
            time: 900 + seq,
            event_type: seq.is_multiple_of(2).then(|| "even".into()),
            key: seq.is_multiple_of(3).then(|| "k".into()),
            payload,
        }
        .into(),
    }
}

fn records() -> Vec<Recorded> {
    let gap = Gap {
        after: Some("0000000000007-2".into()),
        next: None,
        lost: Some(3),
    };
    vec![
        event(1, Payload::text("one")),
        event(2, Payload::binary(&b"\x00\xff"[..])),
        Recorded::Gap { arrived: 1, gap },
        event(6, Payload::text("")),
        event(7, Payload::text("é".repeat(50))),
    ]
}

/// A file with these in it, and where each ends.
fn file(records: &[Recorded]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = MAGIC.to_vec();
    let mut ends = vec![bytes.len()];
    for record in records {
        assert!(encode(record, &mut bytes));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// What is in a file, and how it ends.
fn read(bytes: &[u8], most: usize) -> (Vec<Item>, Item) {
    let mut reader = Reader::new(Cursor::new(bytes), most).expect("a recording");
    let mut items = Vec::new();
    loop {
        match reader.read() {
            end @ (Item::End | Item::Damage(_)) => return (items, end),
            item => items.push(item),
        }
    }
}

fn is_event(record: &Recorded) -> bool {
    matches!(record, Recorded::Event { .. })
}

#[test]
fn a_whole_file_is_read_to_its_end() {
    let (bytes, _) = file(&records());
    let expected: Vec<_> = records().into_iter().map(Item::Recorded).collect();
    assert_eq!(read(&bytes, MOST), (expected, Item::End));
    assert_eq!(read(MAGIC, MOST), (vec![], Item::End));
}

#[test]
fn a_file_that_is_cut_anywhere_is_read_up_to_there() {
    let records = records();
    let (bytes, ends) = file(&records);
    for len in 0..bytes.len() {
        let cut = &bytes[..len];
        if len < MAGIC.len() {
            let error = Reader::new(Cursor::new(cut), MOST).err().expect("none");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{len}");
            continue;
        }
        let whole = ends.iter().filter(|end| **end <= len).count() - 1;
        let (items, end) = read(cut, MOST);
        let expected: Vec<_> = records[..whole]
            .iter()
            .cloned()
            .map(Item::Recorded)
            .collect();
        assert_eq!(items, expected, "{len}");
        match ends[whole] == len {
            true => assert_eq!(end, Item::End, "{len}"),
            false => {
                let Item::Damage(damage) = end else {
                    panic!("{len}: it is whole")
                };
                let events = records[..whole].iter().filter(|it| is_event(it)).count();
                assert_eq!(
                    (damage.at, damage.events),
                    (ends[whole] as u64, events as u64),
                    "{len}"
                );
            }
        }
    }
}

#[test]
fn a_bit_that_is_flipped_anywhere_is_noticed() {
    let records = records();
    let (bytes, ends) = file(&records);
    for byte in MAGIC.len()..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[byte] ^= 1 << bit;
            let whole = ends.iter().filter(|end| **end <= byte).count() - 1;
            let (items, end) = read(&flipped, MOST);
            let expected: Vec<_> = records[..whole]
                .iter()
                .cloned()
                .map(Item::Recorded)
                .collect();
            assert_eq!(items, expected, "{byte}.{bit}");
            let Item::Damage(damage) = end else {
                panic!("{byte}.{bit}: {end:?}")
            };
            assert_eq!(damage.at, ends[whole] as u64, "{byte}.{bit}");
        }
    }
}

#[test]
fn a_length_is_just_a_number() {
    for len in [u32::MAX, (LARGEST + 1) as u32, LARGEST as u32, 0] {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend([0; 100]);
        let mut reader = Reader::new(Cursor::new(&bytes), LARGEST).expect("a recording");
        assert!(matches!(reader.read(), Item::Damage(_)), "{len}");
        assert!(reader.body.capacity() < 1 << 20, "{len}");
    }
}

#[test]
fn an_event_that_is_too_large_is_passed_over() {
    let large = Payload::binary(vec![7; MOST + 1]);
    let huge = Payload::binary(vec![7; MOST + LABELS + 1]);
    let records = [
        event(1, large),
        event(2, huge),
        event(3, Payload::text("x")),
    ];
    let (bytes, ends) = file(&records);
    let (items, end) = read(&bytes, MOST);
    let [Item::Unusable(first), Item::Unusable(_), last] = &items[..] else {
        panic!("{items:?}")
    };
    assert!(first.contains("1001 bytes"), "{first}");
    assert_eq!(
        (last, end),
        (&Item::Recorded(records[2].clone()), Item::End)
    );
    // One that is not kept is checked nevertheless.
    let mut flipped = bytes;
    flipped[ends[2] - 1] ^= 1;
    let (items, end) = read(&flipped, MOST);
    assert_eq!(items.len(), 1);
    assert!(
        matches!(end, Item::Damage(Damage { events: 1, .. })),
        "{end:?}"
    );
}

#[test]
fn other_files_are_told_apart() {
    for (bytes, why) in [
        (&b""[..], "empty"),
        (b"wsevent rec", "in the middle of its first line"),
        (b"wsevent recording 2\nxx", "later version"),
        (b"\x7fELF", "no recording"),
        (b"plain text", "no recording"),
    ] {
        let error = Reader::new(Cursor::new(bytes), MOST).err().expect("none");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn lines_of_ndjson_are_read_as_well() {
    let events = [
        event(1, Payload::text("one\ntwo")),
        event(3, Payload::binary(&b"\xff"[..])),
    ];
    let mut bytes = Vec::new();
    for record in &events {
        let Recorded::Event { event, .. } = record else {
            unreachable!("they are events")
        };
        ndjson::encode(&event.known().expect("it has an id"), &mut bytes);
    }
    bytes.extend_from_slice(
        b"\n{\"gap\":{\"after\":null,\"next\":null,\"lost\":2}}\n{\"data\":\"no id\"}\n",
    );
    bytes.extend_from_slice(&vec![b'x'; MOST * LONGEST_ESCAPE + LABELS + 1]);
    let (items, end) = read(&bytes, MOST);
    assert_eq!(end, Item::End);
    let [
        Item::Recorded(one),
        Item::Recorded(two),
        Item::Recorded(gap),
        Item::Unusable(line),
        Item::Unusable(long),
    ] = &items[..]
    else {
        panic!("{items:?}")
    };
    for (read, written) in [one, two].into_iter().zip(&events) {
        let (Recorded::Event { event: read, .. }, Recorded::Event { event, .. }) = (read, written)
        else {
            panic!("{read:?}")
        };
        assert_eq!(read, event);
    }
    assert!(matches!(
        gap,
        Recorded::Gap {
            gap: Gap { lost: Some(2), .. },
            ..
        }
    ));
    let at = bytes.len() - (MOST * LONGEST_ESCAPE + LABELS + 1);
    assert!(
        line.starts_with(&format!("the line that ends at byte {at} is no event")),
        "{line}"
    );
    assert!(long.contains("--max-message-size"), "{long}");
}

proptest! {
    #[test]
    fn any_file_comes_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut file = MAGIC.to_vec();
        file.extend(&bytes);
        let (items, _) = read(&file, MOST);
        prop_assert!(items.len() <= bytes.len() / HEAD);
    }
}
