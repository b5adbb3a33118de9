//! Cases that have a name.

use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use tokio::time::Instant;

use super::*;

fn id(origin: u64, seq: u64) -> EventId {
    EventId {
        origin: Origin(origin),
        seq,
    }
}

/// An event of long ago.
fn past(origin: u64, seq: u64) -> Event {
    event(id(origin, seq), Payload::text(format!("{seq} of {origin}")))
}

fn after(id: impl ToString) -> Wish {
    Wish::After(id.to_string().into())
}

/// What a subscriber with this wish gets at once.
fn got(log: &EventLog, wish: &Wish) -> (Resumed, Vec<Gap>, Vec<Item>) {
    let joined = log.subscribe(Format::Ndjson, wish);
    (joined.resumed, joined.gaps, rest(joined.subscription).0)
}

fn rest(mut subscription: Subscription) -> (Vec<Item>, Subscription) {
    let mut items = vec![];
    while let Pending::Frames { slice, end, .. } =
        subscription.tape.pending(subscription.cursor, &mut None)
    {
        items.extend(decode(Format::Ndjson, &slice));
        subscription.cursor = end;
    }
    (items, subscription)
}

fn gap(after: Option<EventId>, next: Option<EventId>, lost: Option<u64>) -> Gap {
    Gap {
        after: after.map(|id| id.to_string().into()),
        next,
        lost,
    }
}

#[test]
fn the_first_event_of_a_relay_may_be_the_one_that_follows() {
    let log = EventLog::new(1 << 20);
    log.relay(past(1, 50), None);
    let all = vec![Item::Event(50)];
    assert_eq!(
        got(&log, &after(id(1, 49))),
        (Resumed::Yes, vec![], all.clone())
    );
    let missed = gap(Some(id(1, 46)), Some(id(1, 50)), Some(3));
    assert_eq!(
        got(&log, &after(id(1, 46))),
        (Resumed::Partial, vec![missed], all)
    );
}

#[test]
fn others_events_behind_what_has_gone_are_not_left_out() {
    let limits = Limits {
        bytes: 1 << 20,
        count: Some(3),
        age: None,
    };
    let log = EventLog::new(limits);
    for (origin, seq) in [(1, 1), (2, 1), (1, 2), (2, 2), (2, 3), (1, 3)] {
        log.relay(past(origin, seq), None);
    }
    // Where the first event of origin 1 stood is not known any more.
    let (resumed, gaps, items) = got(&log, &after(id(1, 1)));
    assert_eq!(resumed, Resumed::Partial);
    assert_eq!(gaps, [gap(Some(id(1, 1)), Some(id(2, 2)), None)]);
    assert_eq!(items, [2, 3, 3].map(Item::Event));
}

#[test]
fn what_happened_before_goes_before_what_is_there_and_its_holes_are_told() {
    let log = EventLog::new(1 << 20);
    let live = log.follow(Format::Ndjson);
    log.relay(past(2, 7), None);
    log.backfill(vec![
        past(1, 1),
        past(1, 2),
        past(1, 2),
        past(2, 7),
        past(1, 5),
    ]);
    let hole = gap(Some(id(1, 2)), Some(id(1, 5)), Some(2));
    let expected = [1, 2].map(Item::Event).into_iter();
    let expected = expected.chain([Item::Gap(hole), Item::Event(5), Item::Event(7)]);
    let (resumed, gaps, items) = got(&log, &Wish::All);
    assert_eq!((resumed, gaps), (Resumed::Yes, vec![]));
    assert_eq!(items, expected.collect::<Vec<_>>());
    assert_eq!(got(&log, &after(id(1, 5))).2, [Item::Event(7)]);
    let (items, live) = rest(live);
    assert_eq!(items, [Item::Event(7)], "the past is not news");
    // What follows is.
    log.relay(past(1, 6), None);
    assert_eq!(rest(live).0, [Item::Event(6)]);
}

#[test]
fn links_that_were_there_before_the_past_have_to_come_again() {
    let log = EventLog::new(1 << 20);
    let link = log.follow(Format::Hop);
    log.relay(past(2, 7), None);
    log.backfill(vec![past(1, 1), past(1, 2)]);
    let again = log.subscribe(Format::Hop, &beyond(vec![id(2, 7)]));
    assert_eq!(again.backlog, 3);
    let pending = |subscription: &Subscription| {
        matches!(
            subscription.tape.pending(subscription.cursor, &mut None),
            Pending::Evicted
        )
    };
    assert!(pending(&link) && !pending(&again.subscription));
}

#[test]
fn what_is_too_old_is_gone_for_who_comes_now() {
    let limits = Limits {
        bytes: 1 << 20,
        count: None,
        age: Some(Duration::from_secs(60)),
    };
    let log = EventLog::new(limits);
    log.backfill([past(1, 1), past(1, 2)]);
    let own = log.append(Payload::text("3"));
    let missed = gap(Some(id(1, 1)), Some(own), Some(1));
    assert_eq!(
        got(&log, &after(id(1, 1))),
        (Resumed::Partial, vec![missed], vec![Item::Event(3)])
    );
    assert_eq!(got(&log, &Wish::All).2, [Item::Event(3)]);
}

#[test]
fn what_comes_now_is_new_whenever_it_happened() {
    let limits = Limits {
        bytes: 1 << 20,
        count: None,
        age: Some(Duration::from_secs(60)),
    };
    let log = EventLog::new(limits);
    log.relay(past(1, 1), None);
    log.relay(past(1, 2), None);
    let held = [Item::Event(1), Item::Event(2)];
    assert_eq!(got(&log, &Wish::All).2, held);
}

#[tokio::test(start_paused = true)]
async fn who_is_ahead_waits_until_it_is_not() {
    let log = Arc::new(EventLog::new(1 << 20));
    log.relay(past(1, 1), None);
    let start = Instant::now();
    for wish in [
        Wish::Live,
        Wish::All,
        Wish::Last(1),
        beyond(vec![id(9, 9)]),
        after("no id"),
        after(id(1, 1)),
        after(id(9, 9)),
        after(EventId {
            origin: log.origin(),
            seq: 5,
        }),
    ] {
        log.wait_for(&wish).await;
        assert_eq!(Instant::now(), start, "{wish:?}");
    }
    let wish = after(id(1, 3));
    let mut waiting = Box::pin(log.wait_for(&wish));
    assert_eq!(poll!(&mut waiting), Poll::Pending);
    log.relay(past(1, 2), None);
    assert_eq!(poll!(&mut waiting), Poll::Pending);
    log.relay(past(1, 3), None);
    assert_eq!(poll!(&mut waiting), Poll::Ready(()));
    assert_eq!(Instant::now(), start);
    // What never comes is not waited for without end.
    log.wait_for(&after(id(1, 4))).await;
    assert!(start.elapsed() >= PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_past_is_waited_for_while_a_source_may_still_tell_it() {
    let log = EventLog::new(1 << 20);
    log.expect_past();
    let start = Instant::now();
    let wish = after(id(1, 1));
    let mut waiting = Box::pin(log.wait_for(&wish));
    let mut past_waiting = Box::pin(log.wait_for_past());
    assert_eq!(poll!(&mut waiting), Poll::Pending);
    assert_eq!(poll!(&mut past_waiting), Poll::Pending);
    log.past_is_settled();
    assert_eq!(poll!(&mut waiting), Poll::Ready(()));
    assert_eq!(poll!(&mut past_waiting), Poll::Ready(()));
    log.expect_past();
    let wish = after(id(1, 1));
    let mut waiting = Box::pin(log.wait_for(&wish));
    assert_eq!(poll!(&mut waiting), Poll::Pending);
    log.backfill(vec![past(1, 1)]);
    assert_eq!(poll!(&mut waiting), Poll::Ready(()));
    assert_eq!(Instant::now(), start);
}

#[test]
fn what_a_store_skips_is_not_missing() {
    let limits = Limits {
        bytes: 1 << 20,
        count: Some(3),
        age: None,
    };
    let store = Origin::store(1).0;
    let log = EventLog::new(limits);
    for seq in [10, 20, 300, 4_000] {
        log.relay(past(store, seq), None);
    }
    let all = || [20, 300, 4_000].map(Item::Event).to_vec();
    let whole = |items| (Resumed::Yes, vec![], items);
    assert_eq!(got(&log, &Wish::All), whole(all()));
    // The first is known to have gone, but not more than that.
    assert_eq!(got(&log, &after(id(store, 20))), whole(all()[1..].to_vec()));
    assert_eq!(
        got(&log, &beyond(vec![id(store, 300)])),
        whole(all()[2..].to_vec())
    );
    // What was between these two nobody knows.
    let missed = gap(Some(id(store, 5)), Some(id(store, 20)), None);
    for wish in [after(id(store, 5)), beyond(vec![id(store, 5)])] {
        let (resumed, gaps, items) = got(&log, &wish);
        assert_eq!(
            (resumed, gaps, items),
            (Resumed::Partial, vec![missed.clone()], all())
        );
    }
}

#[test]
fn what_is_told_with_an_event_is_no_part_of_what_is_told_before() {
    let limits = Limits {
        bytes: 1 << 20,
        count: Some(2),
        age: None,
    };
    let log = EventLog::new(limits);
    for (origin, seq) in [(1, 9), (1, 17), (1, 22), (2, 1)] {
        log.relay(past(origin, seq), None);
    }
    // 18 to 21 were missing here before, and that is told with 22.
    let (resumed, gaps, items) = got(&log, &beyond(vec![id(1, 9)]));
    let before = gap(Some(id(1, 9)), None, Some(8));
    assert_eq!((resumed, &gaps[..1]), (Resumed::Partial, &[before][..]));
    let hole = gap(Some(id(1, 17)), Some(id(1, 22)), Some(4));
    assert_eq!(items[..2], [Item::Gap(hole), Item::Event(22)]);
    // What else is told with an event says nothing of the numbers before it.
    let log = EventLog::new(limits);
    for (origin, seq) in [(1, 20), (1, 24), (2, 1)] {
        log.relay(past(origin, seq), None);
    }
    let skipped = gap(Some(id(2, 1)), Some(id(1, 25)), Some(4));
    log.relay(past(1, 25), Some(skipped));
    let missed = gap(Some(id(1, 20)), Some(id(1, 25)), Some(4));
    let (_, gaps, _) = got(&log, &beyond(vec![id(1, 20), id(2, 1)]));
    assert_eq!(gaps, [missed]);
}

/// While events come and go, and others join.
#[tokio::test]
async fn the_past_is_compressed_before_somebody_joins() {
    for format in Format::ALL {
        let log = EventLog::new(200 << 10);
        let append = |number: u64| {
            log.append(Payload::text(format!("{number} {}", "x".repeat(50))));
        };
        (0..2_000).for_each(append);
        let mut compressing = Box::pin(log.compress_past(format, &Wish::All));
        let (mut pieces, mut next) = (0, 2_000);
        let mut early = None;
        let past = loop {
            if let Poll::Ready(past) = poll!(compressing.as_mut()) {
                break past;
            }
            pieces += 1;
            // Some go meanwhile.
            (next..next + 10).for_each(append);
            next += 10;
            early.get_or_insert_with(|| log.subscribe(format, &Wish::Last(700)));
        };
        assert_eq!(past.is_some(), format.coding().is_some());
        assert_eq!(pieces > 1, past.is_some(), "{format:?}");
        let first = log.lock().history.first();
        let is_there = log.lock().tape(format).first() <= first;
        assert_eq!(is_there, past.is_some());
        let mut joined = log.subscribe(format, &Wish::All).subscription;
        let mut count = 0;
        while let Pending::Frames { slice, end, .. } = joined.tape.pending(joined.cursor, &mut None)
        {
            count += decode(format, &slice).len() as u64;
            joined.cursor = end;
        }
        assert_eq!(count, joined.live - first, "{format:?}");
    }
}
