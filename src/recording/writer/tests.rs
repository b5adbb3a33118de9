use std::fs;

use super::*;
use crate::event::{Event, Origin, Payload};

fn id(origin: u64, seq: u64) -> EventId {
    EventId {
        origin: Origin(origin),
        seq,
    }
}

fn record(id: EventId, text: &str) -> Recorded {
    Recorded::Event {
        arrived: 5,
        event: Event {
            id,
            time: 4,
            event_type: None,
            key: None,
            payload: Payload::text(text),
        }
        .into(),
    }
}

fn items(path: &Path) -> Vec<Item> {
    let mut reader = Reader::open(path, LARGEST).expect("a recording");
    let mut items = Vec::new();
    loop {
        items.push(reader.read());
        if matches!(items.last(), Some(Item::End | Item::Damage(_))) {
            return items;
        }
    }
}

/// A file with these in it, that has been closed.
fn recorded(path: &Path, records: &[Recorded]) {
    let (mut writer, _) = Writer::open(path, Duration::ZERO).expect("it can be made");
    for record in records {
        assert!(writer.add(record).expect("there is room"));
    }
    writer.finish().expect("it is written");
}

fn texts(count: u64) -> Vec<Recorded> {
    (1..=count).map(|seq| record(id(1, seq), "text")).collect()
}

#[test]
fn what_is_added_stands_behind_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.rec");
    let sync = Duration::from_secs(3600);
    let (mut writer, before) = Writer::open(&path, sync).expect("it can be made");
    assert_eq!(before, Before::default());
    assert!(writer.add(&record(id(1, 1), "a")).expect("there is room"));
    writer.flush().expect("there is room");
    assert_eq!(items(&path).len(), 2, "what is flushed can be read");
    let other = Writer::open(&path, sync)
        .err()
        .expect("it is being written to");
    assert!(
        format!("{other:#}").contains("another process does"),
        "{other:#}"
    );
    assert!(writer.add(&record(id(2, 8), "b")).expect("there is room"));
    assert!(writer.add(&record(id(1, 2), "c")).expect("there is room"));
    // It does not wait for the time that nobody would.
    writer.finish().expect("it is written");
    let (writer, before) = Writer::open(&path, sync).expect("it can be added to");
    assert_eq!((before.events, before.have), (3, vec![id(2, 8), id(1, 2)]));
    drop(writer);
    assert_eq!(items(&path).len(), 4);
}

#[test]
fn what_is_torn_at_the_end_is_cut_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.rec");
    recorded(&path, &texts(3));
    let whole = fs::read(&path).expect("it is there");
    let one = (whole.len() - MAGIC.len()) / 3;
    for torn in 1..one {
        let kept = &whole[..whole.len() - torn];
        fs::write(&path, kept).expect("it can be written");
        let (mut writer, before) = Writer::open(&path, Duration::ZERO).expect("it is one");
        let (damage, bytes) = before.cut.expect("it is torn");
        assert_eq!((before.events, damage.events), (2, 2));
        assert_eq!(damage.at + bytes, kept.len() as u64);
        assert!(
            writer
                .add(&record(id(1, 3), "text"))
                .expect("there is room")
        );
        writer.finish().expect("it is written");
        assert_eq!(fs::read(&path).expect("it is there"), whole, "{torn}");
    }
    // A checksum that is wrong at the end, and what a file system had made room for.
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("a byte") ^= 1;
    let mut zeros = whole.clone();
    zeros.extend([0; 1000]);
    for (bytes, events) in [(flipped, 2), (zeros, 3)] {
        fs::write(&path, bytes).expect("it can be written");
        let (_, before) = Writer::open(&path, Duration::ZERO).expect("it is one");
        assert_eq!(before.events, events);
        assert!(before.cut.is_some());
    }
}

#[test]
fn what_is_damaged_before_its_end_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.rec");
    recorded(&path, &texts(3));
    let whole = fs::read(&path).expect("it is there");
    let one = (whole.len() - MAGIC.len()) / 3;
    // Every bit of the second record, its length too.
    for byte in MAGIC.len() + one..MAGIC.len() + 2 * one {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << bit;
            fs::write(&path, &flipped).expect("it can be written");
            let error = Writer::open(&path, Duration::ZERO).err().expect("damaged");
            let error = format!("{error:#}");
            assert!(
                error.contains("behind event 1") && error.contains("say another name"),
                "{error}"
            );
            assert_eq!(
                fs::read(&path).expect("it is there"),
                flipped,
                "{byte}.{bit}"
            );
        }
    }
}

#[test]
fn another_file_is_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.txt");
    for (text, why) in [
        ("somebody's notes\n", "no recording"),
        (
            "{\"id\":\"0000000000001-1\",\"time\":\"2026-01-01T00:00:00Z\",\"data\":\"x\"}\n",
            "NDJSON, and no recording",
        ),
    ] {
        fs::write(&path, text).expect("it can be written");
        let error = Writer::open(&path, Duration::ZERO)
            .err()
            .expect("another file");
        assert!(format!("{error:#}").contains(why), "{error:#}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
    }
    let error = Writer::open(folder.path(), Duration::ZERO)
        .err()
        .expect("a folder");
    assert!(
        format!("{error:#}").starts_with("cannot record into"),
        "{error:#}"
    );
}

#[test]
fn of_very_many_origins_the_latest_are_known() {
    let mut before = Before::default();
    for origin in 0..2 * MAX_ORIGINS as u64 {
        before.note(id(origin, 1));
        before.note(id(3, origin + 1));
    }
    assert_eq!(before.have.len(), MAX_ORIGINS);
    assert_eq!(before.have.last(), Some(&id(3, 2 * MAX_ORIGINS as u64)));
}
