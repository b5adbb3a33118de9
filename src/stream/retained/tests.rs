use super::*;
use crate::event::{EventId, Gap, Origin, Payload};

fn event(seq: u64, key: Option<&str>, len: usize) -> Event {
    Event {
        id: EventId {
            origin: Origin(7),
            seq,
        },
        time: seq,
        event_type: None,
        key: key.map(Into::into),
        payload: Payload::text("x".repeat(len)),
    }
}

fn push(kept: &mut Retained, index: u64, key: Option<&str>, len: usize) {
    kept.push(FIRST + index, &event(index, key, len).into());
}

/// The keys of the state in their order.
fn keys(kept: &Retained) -> String {
    let events = kept.state(0, u64::MAX);
    let keys = events.map(|(_, event)| event.key.as_deref().expect("a key").to_owned());
    keys.collect::<Vec<_>>().join(" ")
}

#[test]
fn of_each_key_the_last_event_is_kept_and_an_empty_one_deletes() {
    let mut kept = Retained::new(1 << 20);
    for (index, (key, len)) in [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 0)]
        .into_iter()
        .enumerate()
    {
        push(&mut kept, index as u64, Some(key), len);
    }
    push(&mut kept, 5, None, 9);
    assert_eq!(keys(&kept), "c a");
    assert_eq!((kept.count(u64::MAX), kept.count(FIRST + 3)), (2, 1));
    let changes = |from: u64, upto: u64| -> Vec<u64> {
        let changes = kept.changes(FIRST + from, FIRST + upto);
        changes.map(|(index, _)| index - FIRST).collect()
    };
    assert_eq!(changes(0, 6), [2, 3, 4, 5], "the deletion is told, too");
    assert_eq!(changes(3, 5), [3, 4]);
    assert!(!kept.has_lost(0));
    kept.let_go(FIRST + 6);
    assert!(kept.has_lost(FIRST + 5) && !kept.has_lost(FIRST + 6));
    push(&mut kept, 6, Some("b"), 1);
    assert_eq!(keys(&kept), "c a b");
}

#[test]
fn what_does_not_fit_goes_marks_first_and_then_the_oldest() {
    let room = 4 * cost(&event(1, Some("a"), 10));
    let mut kept = Retained::new(room);
    for (index, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        push(&mut kept, index as u64, Some(key), 10);
    }
    push(&mut kept, 4, Some("a"), 10);
    push(&mut kept, 5, Some("c"), 0);
    assert!(!kept.has_lost(0));
    push(&mut kept, 6, Some("e"), 10);
    assert_eq!(keys(&kept), "b d a e", "the mark of c has made room");
    assert!(kept.has_lost(FIRST + 5) && !kept.has_lost(FIRST + 6));
    push(&mut kept, 7, Some("f"), 10);
    assert_eq!(keys(&kept), "d a e f");
    push(&mut kept, 8, Some("g"), room);
    assert_eq!(keys(&kept), "", "it is larger than all there may be");
    assert_eq!((kept.bytes, kept.by_key.len()), (0, 0));
}

#[test]
fn the_past_gives_way_to_what_is_newer() {
    let mut kept = Retained::new(1 << 20);
    push(&mut kept, 9, Some("here"), 1);
    for (seq, key) in [(1, "a"), (2, "here"), (3, "b"), (4, "c")] {
        kept.remember(event(seq, Some(key), 1), false);
    }
    assert_eq!(keys(&kept), "a b c here");
    // The same again, as after a reconnect: in part it has passed here since.
    kept.remember(event(1, Some("a"), 1), false);
    kept.remember(event(6, Some("b"), 1), true);
    assert_eq!(keys(&kept), "a b c here");
    kept.remember(event(5, Some("a"), 1), false);
    assert_eq!(keys(&kept), "b c a here");
    // Three of the upstream's history, of which two fit before ours.
    let past = vec![
        event(7, Some("d"), 1),
        event(8, Some("c"), 0),
        event(9, Some("d"), 1),
    ];
    kept.prepend(past, 2, FIRST - 2);
    assert_eq!(keys(&kept), "b a d here");
    let order: Vec<_> = kept.events.keys().copied().collect();
    assert_eq!(order[order.len() - 3..], [FIRST - 2, FIRST - 1, FIRST + 9]);
}

#[test]
fn a_gap_before_a_key_is_not_passed_over_in_silence() {
    let mut kept = Retained::new(1 << 20);
    let gap = Gap {
        after: None,
        next: None,
        lost: None,
    };
    let entry = Entry {
        gap: Some(Box::new(gap)),
        ..event(1, Some("a"), 1).into()
    };
    kept.push(FIRST, &entry);
    assert!(kept.has_lost(FIRST) && !kept.has_lost(FIRST + 1));
}
