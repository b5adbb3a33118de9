use super::*;
use crate::event::Payload;
use tape::Pending;

fn read(subscription: &mut Subscription) -> Vec<u8> {
    let mut bytes = vec![];
    while let Pending::Frames { slice, end, .. } =
        subscription.tape.pending(subscription.cursor, &mut None)
    {
        bytes.extend_from_slice(&slice);
        subscription.cursor = end;
    }
    bytes
}

#[test]
fn ids_count_up_from_one_in_one_origin() {
    let log = EventLog::new(1000);
    let ids: Vec<_> = (0..3).map(|_| log.append(Payload::text("x"))).collect();
    assert_eq!(ids.iter().map(|id| id.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(ids.iter().all(|id| id.origin == log.origin()));
    let event = || NewEvent::from(Payload::text("y"));
    let ids = log.append_all(vec![event(), event()]);
    assert_eq!(ids.iter().map(|id| id.seq).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(log.figures().events, 5);
}

#[test]
fn a_subscriber_starts_at_the_live_edge() {
    let log = EventLog::new(1 << 20);
    log.append(Payload::text("before anyone"));
    let mut early = log.follow(Format::WebSocket);
    log.append(Payload::text("a"));
    let mut late = log.follow(Format::WebSocket);
    log.append(Payload::binary(&b"b"[..]));
    assert_eq!(read(&mut early), b"\x81\x01a\x82\x01b");
    assert_eq!(read(&mut late), b"\x82\x01b");
    assert_eq!(
        (early.cursor, late.cursor.index),
        (late.cursor, FIRST + 3),
        "both are at the live edge"
    );
}

#[test]
fn an_append_is_seen_even_between_subscribing_and_sleeping() {
    let log = EventLog::new(1 << 20);
    let subscription = log.follow(Format::WebSocket);
    assert!(!subscription.head.has_changed());
    log.append(Payload::text("a"));
    assert!(subscription.head.has_changed());
}

#[test]
fn a_tape_that_nobody_reads_is_dropped_and_a_new_one_starts_at_the_live_edge() {
    let log = EventLog::new(1 << 20);
    for format in Format::ALL {
        drop(log.follow(format));
        log.append(Payload::text("unread"));
        assert_eq!(log.lock().tapes.iter_mut().count(), 0, "{format:?}");
    }
    let mut again = log.follow(Format::WebSocket);
    assert_eq!(again.cursor.index, FIRST + Format::ALL.len() as u64);
    log.append(Payload::text("a"));
    assert_eq!(read(&mut again), b"\x81\x01a");
}

#[test]
fn a_reader_that_history_has_passed_finds_out() {
    let log = EventLog::new(10_000);
    let slow = log.follow(Format::WebSocket);
    for _ in 0..100 {
        log.append(Payload::binary(vec![0; 1_000]));
    }
    assert!(matches!(
        slow.tape.pending(slow.cursor, &mut None),
        Pending::Evicted
    ));
}

fn event(origin: u64, seq: u64) -> Event {
    Event {
        id: EventId {
            origin: Origin(origin),
            seq,
        },
        time: 1,
        event_type: None,
        key: None,
        payload: Payload::text("x"),
    }
}

fn after(origin: u64, seq: u64) -> Option<Box<str>> {
    Some(event(origin, seq).id.to_string().into())
}

/// What is missing before each event of the log.
fn lost(log: &EventLog) -> Vec<Option<Option<u64>>> {
    let state = log.lock();
    let entries = state
        .history
        .range(state.history.first(), state.history.next());
    entries
        .map(|entry| entry.gap.as_ref().map(|gap| gap.lost))
        .collect()
}

#[test]
fn what_else_is_missing_is_told_with_the_hole_that_the_number_shows() {
    let next = event(1, 9).id;
    let gap = |after, next, lost| Some(Gap { after, next, lost });
    for (told, expected) in [
        (None, Some(3)),
        // The hole itself.
        (gap(after(1, 5), Some(next), Some(3)), Some(3)),
        (gap(after(1, 2), Some(next), Some(6)), Some(3)),
        // A part of the upstream's log, with the hole in it.
        (gap(after(2, 4), Some(next), Some(7)), Some(7)),
        (gap(after(2, 4), Some(next), Some(2)), Some(3)),
        (gap(after(2, 4), Some(next), None), None),
        // Of an origin that nothing is held of.
        (gap(None, None, Some(2)), Some(5)),
        // What the origin itself has missed.
        (gap(after(1, 8), Some(next), Some(2)), Some(5)),
    ] {
        let log = EventLog::new(1 << 20);
        log.relay(event(1, 5), None);
        log.relay(event(1, 9), told.clone());
        assert_eq!(lost(&log), [None, Some(expected)], "{told:?}");
        let state = log.lock();
        let entry = state.history.get(state.history.next() - 1);
        let gap = entry.and_then(|entry| entry.gap.as_deref());
        let ends = gap.map(|gap| (gap.after.clone(), gap.next));
        assert_eq!(ends, Some((after(1, 5), Some(next))));
    }
}

#[test]
fn what_a_longer_past_has_beyond_a_shorter_one_goes_behind_it() {
    let log = EventLog::new(1 << 20);
    log.backfill((1..=5).map(|seq| event(1, seq)));
    log.backfill(
        [event(2, 1)]
            .into_iter()
            .chain((3..=8).map(|seq| event(1, seq))),
    );
    assert!(log.relay(event(1, 9), None));
    assert_eq!(log.last_of(Origin(1)), Some(9));
    assert_eq!(lost(&log), vec![None; 10], "nothing is missing");
}
