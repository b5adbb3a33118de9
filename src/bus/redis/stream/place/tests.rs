use super::*;

fn id(ms: u64) -> EntryId {
    EntryId { ms, n: 0 }
}

/// A stream that has entries with these ids.
fn info(ids: std::ops::RangeInclusive<u64>, added: Option<u64>) -> Info {
    Info {
        length: ids.clone().count() as u64,
        first: ids.clone().next().map(id),
        newest: id(*ids.end()),
        added,
        has_deleted: false,
    }
}

fn at(last: u64, added: Option<u64>) -> Place {
    Place {
        last: id(last),
        added,
        eldest: id(1),
    }
}

fn ids(range: std::ops::RangeInclusive<u64>) -> Vec<EntryId> {
    range.map(id).collect()
}

#[test]
fn what_follows_is_not_missing() {
    let mut place = at(5, Some(5));
    assert_eq!(place.advance(&ids(6..=9), None), Missing::Nothing);
    assert_eq!(place, at(9, Some(9)));
    // Trimmed, but not further than it was read; and others came meanwhile.
    let missing = place.advance(&ids(10..=12), Some(&info(8..=15, Some(15))));
    assert_eq!((missing, place), (Missing::Nothing, at(12, Some(12))));
    let missing = place.advance(&ids(13..=15), Some(&info(14..=15, Some(15))));
    assert_eq!((missing, place), (Missing::Nothing, at(15, Some(15))));
    assert_eq!(
        place.advance(&[], Some(&info(15..=15, Some(15)))),
        Missing::Nothing
    );
    let mut place = Place::BEGINNING;
    let missing = place.advance(&ids(1..=3), Some(&info(1..=3, Some(3))));
    assert_eq!((missing, place.added), (Missing::Nothing, Some(3)));
}

#[test]
fn what_was_trimmed_before_it_was_read_is_counted() {
    let mut place = at(5, Some(5));
    let missing = place.advance(&ids(8..=9), Some(&info(8..=9, Some(9))));
    assert_eq!(missing, Missing::Entries(Some(2)));
    assert_eq!(place, at(9, Some(9)));
    // While this was read, trimming went on.
    let missing = place.advance(&ids(12..=14), Some(&info(13..=20, Some(20))));
    assert_eq!(missing, Missing::Entries(Some(2)));
    assert_eq!(place, at(14, Some(14)));
    // Behind a pause, with nothing read yet.
    let missing = place.advance(&[], Some(&info(100..=101, Some(101))));
    assert_eq!(missing, Missing::Entries(Some(85)));
    let missing = place.advance(&ids(100..=101), Some(&info(100..=101, Some(101))));
    assert_eq!(missing, Missing::Nothing, "it is told once");
}

#[test]
fn a_server_that_does_not_count_leaves_it_open() {
    let mut place = at(5, None);
    let missing = place.advance(&ids(6..=9), Some(&info(3..=9, None)));
    assert_eq!(missing, Missing::Nothing);
    let missing = place.advance(&[], Some(&info(12..=13, None)));
    assert_eq!(missing, Missing::Entries(None));
}

#[test]
fn what_was_deleted_by_itself_was_no_part_of_the_stream() {
    let mut place = at(5, Some(5));
    let mut after = info(1..=9, Some(9));
    after.has_deleted = true;
    let read = [id(6), id(8), id(9)];
    assert_eq!(place.advance(&read, Some(&after)), Missing::Nothing);
    assert_eq!(place.added, Some(9), "it is counted on from there");
}

#[test]
fn another_stream_is_noticed() {
    let place = at(50, Some(50));
    assert_eq!(place.elsewhere(Some(&info(1..=50, Some(50)))), None);
    assert_eq!(place.elsewhere(Some(&info(40..=90, Some(90)))), None);
    assert_eq!(place.elsewhere(None), Some(Place::BEGINNING), "deleted");
    assert_eq!(
        Place::BEGINNING.elsewhere(None),
        None,
        "never there: nothing new"
    );
    let anew = place.elsewhere(Some(&info(60..=61, Some(2))));
    let anew = anew.expect("it has fewer entries than were read");
    assert_eq!((anew.last, anew.added), (id(50), Some(0)));
    let mut old = place;
    old.eldest = id(20);
    let lower = old.elsewhere(Some(&info(3..=4, Some(2))));
    assert_eq!(lower, Some(Place::BEGINNING), "its ids begin again");
    let between = old.elsewhere(Some(&info(30..=40, Some(11))));
    assert_eq!(between, Some(Place::BEGINNING), "none of it was there");
    // A server that has lost the last second of what it had.
    let back = old.elsewhere(Some(&info(20..=48, Some(48))));
    assert_eq!(back.map(|place| place.last), Some(id(48)));
}

#[test]
fn the_answer_of_a_server_is_read() {
    let text = |text: &str| Value::BulkString(text.into());
    let entry = Value::Array(vec![text("1-1"), Value::Array(vec![])]);
    let answer = vec![
        text("length"),
        Value::Int(3),
        text("last-generated-id"),
        text("7-0"),
        text("max-deleted-entry-id"),
        text("0-0"),
        text("entries-added"),
        Value::Int(12),
        text("first-entry"),
        entry,
    ];
    let info = Info::of(Value::Array(answer)).expect("good");
    let expected = Info {
        length: 3,
        first: Some(EntryId { ms: 1, n: 1 }),
        newest: id(7),
        added: Some(12),
        has_deleted: false,
    };
    assert_eq!(info, Some(expected));
    assert!(Info::of(Value::Nil).is_err());
    let absent = redis::parse_redis_value(b"-ERR no such key\r\n").expect("an error");
    assert_eq!(Info::of(absent).expect("no failure"), None);
    let wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    let wrong = redis::parse_redis_value(wrong).expect("an error");
    assert!(Info::of(wrong).is_err());
}
