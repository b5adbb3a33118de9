//! Joiners and slow readers of a log that keeps its state, beside a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::event::{NewEvent, Payload};
use crate::stream::history::Limits;
use crate::stream::join::Wish;
use crate::stream::retained::Retain;
use crate::stream::retained::key::KeySource;
use crate::stream::tape::Pending;
use crate::stream::{FIRST, Subscription};

fn log(history: usize, retain: usize) -> EventLog {
    let limits = Limits {
        bytes: 1 << 20,
        count: Some(history),
        age: None,
    };
    let retain = Retain {
        key: KeySource::Own,
        bytes: retain,
    };
    EventLog::retaining(limits, Some(retain))
}

/// A reader of NDJSON and what it makes of it.
struct Reader {
    subscription: Subscription,
    state: BTreeMap<String, String>,
    /// The number of the last event it has got of each key, in the order of the log.
    last: BTreeMap<Option<String>, u64>,
    /// The last event that was no snapshot's.
    seq: u64,
    merged: u64,
    /// Events, less those of a snapshot.
    events: u64,
    has_gap: bool,
    in_snapshot: bool,
}

impl Reader {
    fn join(log: &EventLog, wish: &Wish) -> Self {
        let joined = log.subscribe(Format::Ndjson, wish);
        let mut reader = Self {
            subscription: joined.subscription,
            state: BTreeMap::new(),
            last: BTreeMap::new(),
            seq: 0,
            merged: 0,
            events: 0,
            has_gap: false,
            in_snapshot: joined.state.is_some(),
        };
        reader.seq = reader.subscription.cursor.index - FIRST;
        reader
    }

    fn take(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("text");
        for line in text.split_terminator('\n') {
            let line: Value = serde_json::from_str(line).expect("JSON");
            if line.get("gap").is_some() {
                self.has_gap = true;
            } else if let Some(merged) = line.get("merged") {
                self.merged += merged["merged"].as_u64().expect("a number");
            } else if line.get("id").is_none() {
                assert_eq!(line["snapshot"]["state"], "end");
                self.in_snapshot = false;
            } else {
                self.take_event(&line);
            }
        }
    }

    fn take_event(&mut self, line: &Value) {
        let (_, seq) = line["id"]
            .as_str()
            .and_then(|id| id.split_once('-'))
            .expect("an id");
        let seq: u64 = seq.parse().expect("a number");
        let key = line["key"].as_str().map(str::to_owned);
        let data = line["data"].as_str().expect("text").to_owned();
        assert_eq!(line.get("snapshot").is_some(), self.in_snapshot);
        let before = self.last.insert(key.clone(), seq);
        assert!(
            before.is_none_or(|before| before < seq),
            "{key:?} goes back"
        );
        match self.in_snapshot {
            true => assert!(seq <= self.seq && key.is_some() && !data.is_empty()),
            false => {
                assert!(seq > self.seq, "{seq} after {}", self.seq);
                self.seq = seq;
                self.events += 1;
            }
        }
        match key {
            Some(key) if data.is_empty() => drop(self.state.remove(&key)),
            Some(key) => drop(self.state.insert(key, data)),
            None => {}
        }
    }

    /// Reads so many bytes of what there is, or all, as an endpoint does: a part of a piece may be taken. `merges` says that it
    /// is slow.
    fn read(&mut self, log: &EventLog, mut bytes: usize, merges: bool) {
        const FORMAT: Format = Format::Ndjson;
        if merges && self.subscription.walk.is_none() {
            self.merge(log, false);
        }
        while bytes > 0 {
            if let Some(walk) = &mut self.subscription.walk {
                let Some(piece) = walk.next(log, FORMAT, bytes.min(400)) else {
                    let walk = self.subscription.walk.take().expect("a walk");
                    let ended = walk.end(log, FORMAT);
                    self.take(&ended.notice);
                    continue;
                };
                let (end, _) = walk.advance(&piece, bytes.min(piece.bytes.len()));
                self.take(&piece.bytes[..end]);
                bytes = bytes.saturating_sub(end);
                continue;
            }
            let Subscription { cursor, tape, .. } = &mut self.subscription;
            let (from, mut chunk) = (*cursor, None);
            match tape.pending(from, &mut chunk) {
                Pending::CaughtUp => return,
                Pending::Evicted => self.merge(log, true),
                Pending::Frames { slice, end, .. } => {
                    let (len, frames) = FORMAT.boundary_at_or_after(&slice, bytes.min(slice.len()));
                    *cursor = Cursor {
                        position: from.position + len as u64,
                        index: from.index + frames,
                    };
                    assert!(len < slice.len() || *cursor == end);
                    let taken = slice[..len].to_vec();
                    bytes = bytes.saturating_sub(len);
                    self.take(&taken);
                }
            }
        }
    }

    fn merge(&mut self, log: &EventLog, is_passed: bool) {
        let from = self.subscription.cursor.index;
        if let Some((cursor, walk)) = log.catch_up(Format::Ndjson, from, is_passed) {
            self.subscription.cursor = cursor;
            self.subscription.walk = Some(Box::new(walk));
        } else {
            assert!(!is_passed, "the state is kept");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A key, or none, and the length of what it is set to: none deletes it.
    Append(Option<u8>, usize),
    Join(Option<u64>),
    /// Which reader reads how much, and whether it is taken for slow.
    Read(usize, usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (proptest::option::weighted(0.8, 0u8..12), 0usize..40).prop_map(|(key, len)| Step::Append(key, len.saturating_sub(8))),
        1 => proptest::option::of(0u64..8).prop_map(Step::Join),
        4 => (0usize..20, 1usize..2_000, any::<bool>()).prop_map(|(who, bytes, slow)| Step::Read(who, bytes, slow)),
    ]
}

fn play(steps: Vec<Step>, history: usize, retain: usize) {
    let log = log(history, retain);
    let mut all: Vec<(Option<String>, String)> = vec![];
    let mut readers: Vec<(Reader, u64)> = vec![];
    for step in steps {
        match step {
            Step::Append(key, len) => {
                let key = key.map(|key| format!("k{key}"));
                let data = match len {
                    0 => String::new(),
                    _ => format!("{} {}", all.len(), "x".repeat(len)),
                };
                log.append(NewEvent {
                    event_type: None,
                    key: key.as_deref().map(Into::into),
                    payload: Payload::text(data.clone()),
                });
                all.push((key, data));
            }
            Step::Join(past) => {
                let wish = past.map_or(Wish::Live, Wish::Last);
                let reader = Reader::join(&log, &wish);
                let first = reader.seq;
                readers.push((reader, first));
            }
            Step::Read(who, bytes, slow) if !readers.is_empty() => {
                let who = who % readers.len();
                readers[who].0.read(&log, bytes, slow);
            }
            Step::Read(..) => {}
        }
    }
    let mut expected = BTreeMap::new();
    for (key, data) in &all {
        match key {
            Some(key) if data.is_empty() => drop(expected.remove(key)),
            Some(key) => drop(expected.insert(key.clone(), data.clone())),
            None => {}
        }
    }
    for (mut reader, first) in readers {
        reader.read(&log, usize::MAX, false);
        assert!(!reader.in_snapshot && reader.subscription.walk.is_none());
        let passed = all.len() as u64 - first;
        assert_eq!(
            reader.events + reader.merged,
            passed,
            "each was given or merged"
        );
        if retain == usize::MAX {
            assert_eq!(reader.state, expected);
        } else if !reader.has_gap {
            // What was forgotten for want of room before it joined it cannot know.
            for (key, data) in &reader.state {
                assert_eq!(expected.get(key), Some(data));
            }
        }
        let unkeyed = all[first as usize..]
            .iter()
            .filter(|(key, _)| key.is_none());
        if !reader.has_gap && retain == usize::MAX && reader.merged == 0 {
            assert_eq!(passed, reader.events);
        }
        if unkeyed.count() == passed as usize && !reader.has_gap {
            assert_eq!(
                reader.merged, 0,
                "without a key nothing is merged in silence"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_reader_ends_with_the_right_state(
        steps in proptest::collection::vec(step(), 1..200),
        history in 1usize..30,
    ) {
        play(steps, history, usize::MAX);
    }

    #[test]
    fn who_may_lack_something_is_told(
        steps in proptest::collection::vec(step(), 1..200),
        history in 1usize..30,
        retain in 200usize..2_500,
    ) {
        play(steps, history, retain);
    }
}

fn append(log: &EventLog, key: Option<&str>, data: &str) {
    log.append(NewEvent {
        event_type: None,
        key: key.map(Into::into),
        payload: Payload::text(data),
    });
}

#[test]
fn the_state_comes_before_the_history_that_is_asked_for_and_is_not_in_it() {
    let log = log(10, usize::MAX);
    for (key, data) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        append(&log, Some(key), data);
    }
    for (wish, count) in [
        (Wish::Live, Some(3)),
        (Wish::Last(2), Some(1)),
        (Wish::All, Some(0)),
        (Wish::After(format!("{}-2", log.origin()).into()), None),
        (Wish::After("0000000000001-2".into()), Some(3)),
    ] {
        let joined = log.subscribe(Format::Sse, &wish);
        assert_eq!(joined.state, count, "{wish:?}");
    }
}

#[test]
fn a_lost_event_without_a_key_is_told() {
    let log = log(2, usize::MAX);
    let mut reader = Reader::join(&log, &Wish::Live);
    append(&log, None, "no key");
    for number in 0..500 {
        append(&log, Some("a"), &format!("{number} {}", "x".repeat(1_000)));
    }
    reader.read(&log, usize::MAX, false);
    assert!(reader.has_gap);
    assert_eq!(reader.merged + reader.events, 501);
    // Of a key nothing is lost.
    for number in 0..500 {
        append(&log, Some("a"), &format!("{number} {}", "x".repeat(1_000)));
    }
    reader.has_gap = false;
    reader.read(&log, usize::MAX, false);
    assert!(!reader.has_gap);
}

#[test]
fn only_what_is_lost_on_its_way_is_told_at_the_end_of_a_walk() {
    for (loses_before, has_gap) in [(false, false), (true, true)] {
        let log = log(20, 10_000);
        let mut reader = Reader::join(&log, &Wish::Live);
        reader.read(&log, usize::MAX, false);
        append(&log, Some("a"), "1");
        for data in ["2", "3"] {
            append(&log, None, data);
        }
        reader.read(&log, 1, true);
        assert!(reader.subscription.walk.is_some(), "it is on its way");
        if loses_before {
            for _ in 0..20 {
                append(&log, Some("b"), "4");
            }
        }
        // Not kept, but on the tape behind the walk.
        append(&log, Some("big"), &"x".repeat(20_000));
        reader.read(&log, usize::MAX, false);
        assert_eq!(reader.state["big"].len(), 20_000);
        assert_eq!(reader.has_gap, has_gap);
    }
}

#[test]
fn deletions_however_many_are_passed_over_piece_by_piece() {
    let log = log(1, usize::MAX);
    append(&log, Some("first"), "1");
    for number in 0..100 {
        append(&log, Some(&format!("{number}")), "");
    }
    append(&log, Some("last"), "2");
    let mut walk = Walk::through_state(u64::MAX, vec![]);
    let (found, _) = walk.find(&log.lock(), 1_000);
    assert_eq!(found.len(), 1, "the other is behind the deletions");
    let mut reader = Reader::join(&log, &Wish::Live);
    reader.read(&log, usize::MAX, false);
    let keys: Vec<_> = reader.state.into_keys().collect();
    assert_eq!(keys, ["first", "last"]);
}
