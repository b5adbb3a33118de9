use proptest::prelude::*;

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
    let events = events.filter(|(_, event)| !is_deletion(event));
    let keys = events.map(|(_, event)| event.key.as_deref().expect("a key").to_owned());
    keys.collect::<Vec<_>>().join(" ")
}

/// Which of the first events are lost.
fn lost(kept: &Retained) -> Vec<u64> {
    let is_lost = |index: &u64| kept.has_lost(FIRST + index, FIRST + index + 1);
    (0..20).filter(is_lost).collect()
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
    assert!(lost(&kept).is_empty());
    kept.let_go(FIRST + 6);
    assert_eq!(lost(&kept), [5]);
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
    assert!(lost(&kept).is_empty());
    push(&mut kept, 6, Some("e"), 10);
    assert_eq!(keys(&kept), "b d a e", "the mark of c has made room");
    assert_eq!(lost(&kept), [5]);
    push(&mut kept, 7, Some("f"), 10);
    assert_eq!(keys(&kept), "d a e f");
    assert_eq!(lost(&kept), [1, 5]);
}

#[test]
fn what_is_larger_than_all_there_may_be_costs_no_other_key_its_place() {
    let room = 4 * cost(&event(1, Some("a"), 10));
    let mut kept = Retained::new(room);
    for (index, key) in ["a", "b", "c"].into_iter().enumerate() {
        push(&mut kept, index as u64, Some(key), 10);
    }
    let bytes = kept.bytes;
    push(&mut kept, 3, Some("big"), room);
    assert_eq!((keys(&kept), lost(&kept)), ("a b c".to_owned(), vec![3]));
    assert_eq!((kept.bytes, kept.by_key.len()), (bytes, 3));
    push(&mut kept, 4, Some("b"), room);
    assert_eq!(keys(&kept), "a c", "what b was before it is not any more");
    assert_eq!((lost(&kept), kept.by_key.len()), (vec![3, 4], 2));
    push(&mut kept, 5, Some("b"), 10);
    assert_eq!(keys(&kept), "a c b");
    assert_eq!(kept.count(u64::MAX), 3);
}

#[test]
fn only_the_last_losses_are_known_one_by_one() {
    let mut kept = Retained::new(1 << 20);
    let known = GONE_KNOWN as u64;
    for index in 0..2 * known {
        push(&mut kept, index, None, 0);
    }
    kept.let_go(FIRST + known);
    assert!(!kept.has_lost(FIRST + known, FIRST + 2 * known));
    kept.let_go(FIRST + known + 1);
    assert_eq!(kept.gone.len(), GONE_KNOWN);
    assert!(
        kept.has_lost(FIRST, FIRST + 1),
        "the first one still counts"
    );
    assert!(kept.has_lost(FIRST + known, FIRST + 2 * known));
    assert!(!kept.has_lost(FIRST + known + 1, FIRST + 2 * known));
}

proptest! {
    #[test]
    fn the_count_is_what_a_walk_would_find(
        steps in proptest::collection::vec((0u64..40, 0u64..700, 0usize..4), 1..120),
        upto in proptest::collection::vec(0u64..50_000, 8),
        room in 500usize..20_000,
    ) {
        let mut kept = Retained::new(room);
        let mut index = 0;
        for (key, step, len) in steps {
            index += 1 + step;
            push(&mut kept, index, Some(&format!("k{key}")), len * 10);
        }
        let ends = [0, FIRST, FIRST + index, FIRST + index + 1, u64::MAX];
        for upto in ends.into_iter().chain(upto.into_iter().map(|upto| FIRST + upto)) {
            let state = kept.state(0, upto).filter(|(_, event)| !is_deletion(event));
            prop_assert_eq!(kept.count(upto), state.count() as u64);
        }
        prop_assert!(kept.blocks.values().all(|count| *count > 0));
    }
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
    assert_eq!(lost(&kept), [0]);
}
