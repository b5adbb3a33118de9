use super::*;
use crate::event::{Event, EventId, Gap, Payload};
use crate::stream::join::{Resumed, Wish};
use crate::stream::retained::key::KeySource;
use crate::stream::tape::Pending;
use crate::stream::{Sealed, Way};

/// The log as another process would go on with it, with what comes meanwhile between the pages.
fn moved(log: &EventLog, retain: Option<Retain>, meanwhile: impl FnMut()) -> EventLog {
    moved_in(log, retain, 1, meanwhile)
}

fn moved_in(
    log: &EventLog,
    retain: Option<Retain>,
    page: usize,
    mut meanwhile: impl FnMut(),
) -> EventLog {
    let mut import = Import::new((log.origin(), log.began()), log.limits(), retain);
    let mut next = 0;
    loop {
        let page = log.page(next, page);
        next = page.next;
        page.entries
            .into_iter()
            .for_each(|entry| import.take(entry));
        if page.is_last {
            break;
        }
        meanwhile();
    }
    log.seal();
    let summary = serde_json::to_vec(&log.summary()).expect("it is plain");
    let summary: Summary = serde_json::from_slice(&summary).expect("it is what was written");
    import.finish(&summary)
}

fn other(origin: u64, seq: u64) -> Event {
    Event {
        id: EventId {
            origin: Origin(origin),
            seq,
        },
        time: 1,
        event_type: None,
        key: None,
        payload: Payload::text(format!("{origin}-{seq}")),
    }
}

fn all(log: &EventLog) -> Vec<(u64, Entry)> {
    let entries = log.page(0, usize::MAX).entries.into_iter();
    entries.map(|it| (it.index, it.entry)).collect()
}

fn read(log: &EventLog, index: u64) -> Vec<u8> {
    let mut at = log.subscribe_at(Format::Hop, index).expect("it is held");
    let mut bytes = vec![];
    while let Pending::Frames { slice, end, .. } = at.tape.pending(at.cursor, &mut None) {
        bytes.extend_from_slice(&slice);
        at.cursor = end;
    }
    bytes
}

#[test]
fn a_log_goes_on_with_its_ids_gaps_and_numbers() {
    let log = EventLog::new(1 << 20);
    log.append(Payload::text("a"));
    log.relay(other(7, 3), None);
    log.relay(other(7, 9), None);
    log.append_with_gap(
        Payload::binary(&b"b"[..]),
        Some(Gap {
            after: Some("foreign".into()),
            next: None,
            lost: None,
        }),
    );
    let there = moved(&log, None, || {});
    assert_eq!(all(&there), all(&log));
    assert_eq!(there.have(), log.have());
    assert_eq!(read(&there, FIRST), read(&log, FIRST));
    assert_eq!(read(&there, FIRST + 2), read(&log, FIRST + 2));
    assert!(there.subscribe_at(Format::Hop, FIRST + 5).is_none());
    let id = there.append(Payload::text("c"));
    assert_eq!((id.origin, id.seq), (log.origin(), 3));
    assert!(!there.relay(other(7, 9), None), "it has been here");
    assert_eq!(there.figures().events, 5);
}

#[test]
fn what_is_held_no_more_is_known_all_the_same() {
    let mut limits = Limits::from(1 << 20);
    limits.count = Some(3);
    let log = EventLog::new(limits);
    log.relay(other(7, 1), None);
    for seq in 1..=5 {
        log.relay(other(8, seq), None);
    }
    let there = moved(&log, None, || {});
    let mut have = there.have();
    have.sort_by_key(|id| id.origin.0);
    assert_eq!(have, [other(7, 1).id, other(8, 5).id]);
    assert!(!there.relay(other(7, 1), None));
    for (id, resumed) in [
        ("0000000000008-2", Resumed::Yes),
        ("0000000000008-1", Resumed::Partial),
    ] {
        for log in [&log, &there] {
            let joined = log.subscribe(Format::Sse, &Wish::After(id.into()));
            assert_eq!(joined.resumed, resumed, "{id}");
            let lost = joined.gaps.first().map(|gap| gap.lost);
            assert_eq!(lost, (resumed == Resumed::Partial).then_some(Some(1)));
        }
    }
    assert_eq!(there.last(), log.last());
}

#[test]
fn events_come_and_go_between_two_pages() {
    let mut limits = Limits::from(1 << 20);
    limits.count = Some(4);
    let log = EventLog::new(limits);
    for _ in 0..4 {
        log.append(Payload::text("x"));
    }
    let mut left = 3;
    let there = moved(&log, None, || {
        if left > 0 {
            left -= 1;
            log.append_all(vec![Payload::text("y").into(); 6]);
        }
    });
    assert_eq!(all(&there), all(&log));
    assert_eq!(there.append(Payload::text("z")).seq, 23);
}

#[test]
fn an_empty_history_keeps_its_numbers() {
    let mut limits = Limits::from(1 << 20);
    limits.count = Some(0);
    let log = EventLog::new(limits);
    log.append(Payload::text("x"));
    let there = moved(&log, None, || {});
    assert!(there.subscribe_at(Format::Hop, FIRST + 1).is_some());
    assert!(there.subscribe_at(Format::Hop, FIRST).is_none());
    let id = there.append(Payload::text("x"));
    assert_eq!(id.seq, 2);
}

#[test]
fn the_last_of_each_key_comes_along() {
    let retain = Retain {
        key: KeySource::Own,
        bytes: 1 << 20,
    };
    let mut limits = Limits::from(1 << 20);
    limits.count = Some(2);
    let log = EventLog::retaining(limits, Some(retain.clone()));
    let keyed = |key: &str, text: &str| crate::event::NewEvent {
        event_type: None,
        key: Some(key.into()),
        payload: Payload::text(text),
    };
    let mut past = other(7, 1);
    past.key = Some("past".into());
    log.adopt(past);
    for (key, text) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "")] {
        log.append(keyed(key, text));
    }
    let mut changes = vec![keyed("a", "3"), keyed("d", "1")];
    let there = moved(&log, Some(retain), || {
        if let Some(event) = changes.pop() {
            log.append(event);
        }
    });
    let state = |log: &EventLog| {
        let state = log.lock();
        let kept = state.kept.as_ref().expect("it is kept");
        let events = kept.state(0, u64::MAX);
        events
            .map(|(at, event)| (at, event.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(state(&there), state(&log));
    assert_eq!(all(&there).len(), all(&log).len());
}

#[test]
fn a_sealed_log_takes_nothing_that_can_be_refused() {
    let log = EventLog::new(1 << 20);
    log.seal();
    assert_eq!(
        log.offer(Way::default(), vec![Payload::text("x").into()]),
        Err(Sealed)
    );
    assert_eq!(log.figures().events, 0);
    log.unseal();
    let ids = log.offer(Way::default(), vec![Payload::text("x").into()]);
    assert_eq!(ids.map(|ids| ids.len()), Ok(1));
}

#[test]
fn what_peers_have_brought_is_told_from_the_rest() {
    let mut limits = Limits::from(1 << 20);
    limits.count = Some(3);
    let log = EventLog::new(limits).with_peers();
    let by_peer = Way {
        is_from_peer: true,
        ..Way::default()
    };
    for text in ["a", "b", "c"] {
        log.append(Payload::text(text));
    }
    log.relay_by(by_peer, other(7, 1), None);
    // A peer was faster, and then it came here as well.
    log.relay_by(by_peer, other(8, 1), None);
    log.relay(other(8, 1), None);
    let mut import = Import::new((log.origin(), log.began()), limits, None).with_peers();
    for entry in log.page(0, usize::MAX).entries {
        import.take(entry);
    }
    let there = import.finish(&log.summary());
    let local = there.own_local().expect("it has peers");
    let payloads = |log: &EventLog| {
        let entries = all(log).into_iter();
        let texts = entries.map(|(_, entry)| entry.event.payload.bytes);
        texts.collect::<Vec<_>>()
    };
    assert_eq!(payloads(&there), ["c", "7-1", "8-1"]);
    assert_eq!(payloads(local), ["c", "8-1"]);
    assert!(!local.knows(Origin(7)));
    assert!(!there.relay(other(8, 1), None) && payloads(local).len() == 2);
    // Who had the first event only is told of the second one, which is not held any more.
    let wish = Wish::Beyond {
        have: vec![EventId {
            origin: log.origin(),
            seq: 1,
        }],
        from_first: false,
    };
    let joined = local.subscribe(Format::Hop, &wish);
    assert_eq!(joined.resumed, Resumed::Partial);
    assert_eq!(joined.gaps[0].lost, Some(1));
    let id = there.append(Payload::text("d"));
    assert_eq!(id.seq, 4);
    assert_eq!(payloads(local).last().expect("it is there"), "d");
}
