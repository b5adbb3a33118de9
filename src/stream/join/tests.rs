//! A log beside a naive model of it, and the cases that have a name.

mod cases;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Kind, Origin, Payload};
use crate::stream::history::{Entry, Limits};
use crate::stream::tape::Pending;
use crate::wire::{hop, ndjson, sse};

/// What a subscriber can tell of what it reads: events by the number that their payload begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Event(usize),
    Gap(Gap),
}

fn number(text: &str) -> usize {
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().expect("payloads begin with their number")
}

/// Takes apart what a subscriber has read, as strictly as it was put together.
fn decode(format: Format, wire: &[u8]) -> Vec<Item> {
    let wire = &crate::wire::expanded(format, wire)[..];
    let format = format.plain();
    let text = || std::str::from_utf8(wire).expect("it is text");
    match format {
        Format::Sse => {
            let blocks = text().split_terminator("\n\n").map(|block| {
                let data = |block: &str| block.split_once("data: ").expect("data").1.to_owned();
                match block.strip_prefix("event: wsevent.gap\n") {
                    Some(gap) => Item::Gap(sse::decode_gap(&data(gap)).expect("a gap")),
                    None => Item::Event(number(&data(block))),
                }
            });
            blocks.collect()
        }
        Format::Ndjson => {
            let lines = text().split_terminator('\n').map(|line| {
                match ndjson::decode(line.as_bytes()).expect("a line") {
                    ndjson::Line::Gap(gap) => Item::Gap(gap),
                    ndjson::Line::Event(event) => Item::Event(event_number(&event)),
                    other => panic!("nothing is kept here: {other:?}"),
                }
            });
            lines.collect()
        }
        _ => decode_frames(format, wire),
    }
}

fn event_number(event: &Event) -> usize {
    number(std::str::from_utf8(&event.payload.bytes).expect("it is text"))
}

fn decode_frames(format: Format, mut wire: &[u8]) -> Vec<Item> {
    let mut items = vec![];
    while !wire.is_empty() {
        let (len, _) = format.boundary_at_or_after(wire, 1);
        let (frame, rest) = wire.split_at(len);
        wire = rest;
        let header = if frame[1] < 126 { 2 } else { 4 };
        let payload = frame[header..].to_vec();
        if format == Format::WebSocket {
            items.push(Item::Event(number(&String::from_utf8_lossy(&payload))));
            continue;
        }
        let payload = Payload {
            kind: Kind::Text,
            bytes: payload.into(),
        };
        match hop::decode(payload).expect("a message") {
            hop::Message::Event(event) => items.push(Item::Event(event_number(&event))),
            hop::Message::Control(hop::Control::Gap(gap)) => items.push(Item::Gap(gap)),
            other => panic!("unexpected: {other:?}"),
        }
    }
    items
}

/// A log, and all that ever was in it.
struct Model {
    log: EventLog,
    limits: Limits,
    /// An event's place here is its number.
    all: Vec<Entry>,
    first: usize,
}

struct Reader {
    format: Format,
    subscription: Subscription,
    next: usize,
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            log: EventLog::new(limits),
            limits,
            all: vec![],
            first: 0,
        }
    }

    fn payload(&self, len: usize) -> Payload {
        Payload::text(format!("{} {}", self.all.len(), "x".repeat(len)))
    }

    fn push(&mut self, event: Event, gap: Option<Gap>) {
        self.all.push(Entry {
            gap: gap.map(Box::new),
            ..Entry::from(event)
        });
        let cost = |entry: &Entry| entry.event.payload.bytes.len() + size_of::<Entry>();
        let held = |first: usize| &self.all[first..];
        let is_over = |first| {
            let bytes: usize = held(first).iter().map(cost).sum();
            let limit = self.limits.count;
            held(first).len() > 1 && bytes > self.limits.bytes
                || limit.is_some_and(|limit| held(first).len() > limit)
        };
        while is_over(self.first) {
            self.first += 1;
        }
    }

    fn append(&mut self, len: usize, lost: Option<u64>) {
        let payload = self.payload(len);
        let gap = lost.map(|lost| Gap {
            after: None,
            next: None,
            lost: Some(lost),
        });
        let id = self.log.append_with_gap(payload.clone(), gap.clone());
        let gap = gap.map(|gap| Gap {
            next: Some(id),
            ..gap
        });
        self.push(event(id, payload), gap);
    }

    /// The numbers of an origin's events.
    fn of(&self, origin: Origin) -> impl DoubleEndedIterator<Item = (usize, u64)> + '_ {
        let ids = self.all.iter().map(|entry| entry.event.id).enumerate();
        ids.filter_map(move |(index, id)| (id.origin == origin).then_some((index, id.seq)))
    }

    /// An event from elsewhere, so far behind the last one from there; not behind it is a repetition.
    fn relay(&mut self, origin: u64, step: i64, len: usize) {
        let origin = Origin(origin);
        let last = self.of(origin).next_back().map(|(_, seq)| seq);
        let seq = last.unwrap_or(10).saturating_add_signed(step).max(1);
        let event = event(EventId { origin, seq }, self.payload(len));
        let is_new = last.is_none_or(|last| seq > last);
        assert_eq!(self.log.relay(event.clone(), None), is_new);
        let gap = last.filter(|last| seq > last + 1).map(|last| Gap {
            after: Some(EventId { origin, seq: last }.to_string().into()),
            next: Some(event.id),
            lost: Some(seq - last - 1),
        });
        if is_new {
            self.push(event, gap);
        }
    }

    fn id(&self, index: usize) -> Option<EventId> {
        self.all.get(index).map(|entry| entry.event.id)
    }

    fn has_one_origin(&self) -> bool {
        let origins = self.all.iter().map(|entry| entry.event.id.origin.0);
        origins.collect::<BTreeSet<_>>().len() == 1
    }

    /// What a reader at `from` has before it.
    fn items(&self, format: Format, from: usize) -> Vec<Item> {
        let entries = self.all.iter().enumerate().skip(from);
        let items = entries.flat_map(|(index, entry)| {
            let gap = entry.gap.as_deref().cloned().map(Item::Gap);
            let gap = gap.filter(|_| format.plain() != Format::WebSocket);
            gap.into_iter().chain([Item::Event(index)])
        });
        items.collect()
    }

    /// Reads all there is, and compares it with what there should be.
    fn read(&self, reader: &mut Reader) {
        let Reader {
            format,
            subscription: Subscription { cursor, tape, .. },
            next,
        } = reader;
        loop {
            assert_eq!(cursor.index, crate::stream::FIRST + *next as u64);
            match tape.pending(*cursor, &mut None) {
                Pending::Frames { slice, end, .. } => {
                    let count = (end.index - cursor.index) as usize;
                    let mut expected = self.items(*format, *next);
                    let behind = self.items(*format, *next + count).len();
                    expected.truncate(expected.len() - behind);
                    assert_eq!(decode(*format, &slice), expected);
                    (*cursor, *next) = (end, *next + count);
                }
                Pending::CaughtUp => return assert_eq!(*next, self.all.len()),
                Pending::Evicted => {
                    assert!(*next < self.first, "passed by what it could have read");
                    let (oldest, gap) = self.log.skip(*format, cursor.index);
                    assert_eq!(gap.next, self.id(self.first));
                    assert_eq!(gap.lost, Some(self.missed(*next, self.first)));
                    let before = next.checked_sub(1).and_then(|before| self.id(before));
                    let before = before.map(|id| id.to_string().into());
                    if gap.after.is_some() || self.is_unbroken() {
                        assert_eq!(gap.after, before);
                    }
                    (*cursor, *next) = (oldest, self.first);
                }
            }
        }
    }

    /// How many events, those that never came here included, somebody has missed who would have gone on with the one at `from`, and
    /// goes on with that at `to`.
    fn missed(&self, from: usize, to: usize) -> u64 {
        let gaps = self.all[from..to]
            .iter()
            .filter_map(|entry| entry.gap.as_ref());
        let lost: u64 = gaps.map(|gap| gap.lost.expect("all are known")).sum();
        lost + (to - from) as u64
    }

    /// Whether it is all of one origin, without holes: then everything is known of all that has gone.
    fn is_unbroken(&self) -> bool {
        let seqs: Vec<_> = self.all.iter().map(|entry| entry.event.id.seq).collect();
        self.has_one_origin() && seqs.is_sorted_by(|one, next| one + 1 == *next)
    }

    fn join(&self, format: Format, wish: &Wish) -> Reader {
        let joined = self.log.subscribe(format, wish);
        let next = (joined.subscription.cursor.index - crate::stream::FIRST) as usize;
        assert_eq!(joined.backlog as usize, self.all.len() - next);
        let got = (next, joined.resumed, &joined.gaps[..]);
        match wish {
            Wish::Live => assert_eq!(got, (self.all.len(), Resumed::No, &[][..])),
            Wish::All => assert_eq!(got, (self.first, Resumed::Yes, &[][..])),
            Wish::Last(count) => {
                let from = self.all.len().saturating_sub(*count as usize);
                assert_eq!(got, (from.max(self.first), Resumed::Yes, &[][..]));
            }
            Wish::After(id) => self.check_after(id, got),
            Wish::Beyond { have, from_first } => {
                assert!(from_first);
                self.check_have(have, got)
            }
        }
        Reader {
            format,
            subscription: joined.subscription,
            next,
        }
    }

    fn check_after(&self, text: &str, (next, resumed, gaps): (usize, Resumed, &[Gap])) {
        let id: Option<EventId> = text.parse().ok();
        let known = id.filter(|id| self.of(id.origin).any(|(_, seq)| seq >= id.seq));
        let Some(id) = known else {
            let gap = Gap {
                after: Some(text.into()),
                next: None,
                lost: None,
            };
            return assert_eq!(
                (next, resumed, gaps),
                (self.all.len(), Resumed::No, &[gap][..])
            );
        };
        let lost = match gaps {
            [] => Some(0),
            [gap] => {
                assert_eq!(gap.after.as_deref(), Some(text));
                assert_eq!(gap.next, self.id(next));
                assert_ne!(gap.lost, Some(0));
                gap.lost
            }
            more => panic!("more than one gap: {more:?}"),
        };
        let expected = if gaps.is_empty() {
            Resumed::Yes
        } else {
            Resumed::Partial
        };
        assert_eq!(resumed, expected);
        let found = self.of(id.origin).find(|(_, seq)| *seq == id.seq);
        if let Some((index, _)) = found {
            assert_eq!(next, (index + 1).max(self.first));
            let here = match next > index + 1 {
                true => self.missed(index + 1, next),
                false => 0,
            };
            // What was missing before it came here counts too, where that is known.
            let there = self
                .id(next)
                .map_or(here, |next| next.seq.wrapping_sub(id.seq + 1));
            let is_right = match lost {
                None => !self.is_unbroken() && index < self.first,
                Some(lost) => lost == here || self.has_one_origin() && lost == there,
            };
            assert!(is_right, "{lost:?} lost, not {here} or {there}");
            return;
        }
        // It was never here: what must come is what its origin sent next, and all behind that.
        let behind = self
            .of(id.origin)
            .find(|&(index, seq)| seq > id.seq && index >= self.first);
        let (index, seq) = behind.unwrap_or((self.first, u64::MAX));
        assert!(next == index || next == self.first && next < index);
        if let Some(lost) = lost {
            assert_eq!((next, lost), (index, seq - id.seq - 1));
            let before = index.checked_sub(1).and_then(|before| self.id(before));
            assert!(self.has_one_origin() || before.is_some_and(|it| it.origin == id.origin));
        }
    }

    fn check_have(&self, have: &[EventId], (next, resumed, gaps): (usize, Resumed, &[Gap])) {
        let mut expected = vec![];
        let origins: BTreeSet<_> = self
            .all
            .iter()
            .map(|entry| entry.event.id.origin.0)
            .collect();
        for origin in origins.iter().copied().map(Origin) {
            let had = have.iter().find(|id| id.origin == origin);
            let (_, since) = self.of(origin).next().expect("it has sent something");
            let (_, last) = self.of(origin).next_back().expect("it has sent something");
            let from = had.map_or(since, |id| id.seq + 1);
            let wanted = self
                .of(origin)
                .find(|&(index, seq)| seq >= from && index >= self.first);
            assert!(
                wanted.is_none_or(|(index, _)| next <= index),
                "one is left out"
            );
            let end = wanted.map_or(last + 1, |(_, seq)| seq);
            // A hole by number is told with the event behind it, and what is before that ends there.
            let told = wanted.and_then(|(index, _)| {
                let entry = &self.all[index];
                entry.gap.as_ref()?.by_number(entry.event.id)
            });
            let until = told.map_or(end, |after| after + 1);
            let lost = until.saturating_sub(from);
            if lost > 0 {
                let next = wanted.filter(|_| until == end);
                expected.push(Gap {
                    after: had.map(|id| id.to_string().into()),
                    next: next.and_then(|(index, _)| self.id(index)),
                    lost: Some(lost),
                });
            }
        }
        assert_eq!(gaps.len(), expected.len(), "{gaps:?}, not {expected:?}");
        assert!(
            gaps.iter().all(|gap| expected.contains(gap)),
            "{gaps:?}, not {expected:?}"
        );
        let none_known = have.iter().all(|id| !origins.contains(&id.origin.0));
        let expected = match (have.is_empty(), gaps.is_empty()) {
            (false, _) if none_known => Resumed::No,
            (_, true) => Resumed::Yes,
            (_, false) => Resumed::Partial,
        };
        assert_eq!(resumed, expected);
    }
}

fn event(id: EventId, payload: Payload) -> Event {
    Event {
        id,
        time: 1_700_000_000_000_000,
        event_type: None,
        key: None,
        payload,
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, Option<u64>),
    Relay(u64, i64, usize),
    Join(Format, Ask),
    Read(usize),
}

/// A wish, before it is known what there is.
#[derive(Debug, Clone)]
enum Ask {
    Plain(Wish),
    /// Behind this event, or so far from it at its origin.
    After(usize, i64),
    /// For some origins so far from their last one.
    Have(Vec<(usize, i64)>),
}

fn ask() -> impl Strategy<Value = Ask> {
    let strange = prop_oneof![
        Just("".to_owned()),
        Just("0000000000009-1".to_owned()),
        Just("0000000000001-18446744073709551615".to_owned()),
        "\\PC{0,20}",
    ];
    prop_oneof![
        1 => Just(Ask::Plain(Wish::Live)),
        1 => Just(Ask::Plain(Wish::All)),
        2 => (0u64..12).prop_map(|count| Ask::Plain(Wish::Last(count))),
        1 => strange.prop_map(|id| Ask::Plain(Wish::After(id.into()))),
        4 => (0usize..100, -1i64..3).prop_map(|(index, step)| Ask::After(index, step)),
        3 => prop::collection::vec((0usize..100, -3i64..3), 0..3).prop_map(Ask::Have),
    ]
}

fn step(origins: u64) -> impl Strategy<Value = Step> {
    let len = || prop_oneof![8 => 0usize..40, 1 => 1_000usize..6_000];
    let format = prop::sample::select(Format::ALL.to_vec());
    let lost = prop_oneof![9 => Just(None), 1 => (1u64..5).prop_map(Some)];
    // With one origin only, these are repetitions of what is there, or holes in it.
    prop_oneof![
        if origins == 1 { 0 } else { 6 } => (len(), lost).prop_map(|(len, lost)| Step::Append(len, lost)),
        9 => (1..=origins, prop_oneof![6 => Just(1i64), 1 => -2i64..4], len())
            .prop_map(|(origin, step, len)| Step::Relay(origin, step, len)),
        4 => (format, ask()).prop_map(|(format, ask)| Step::Join(format, ask)),
        4 => (0usize..8).prop_map(Step::Read),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let bytes = prop_oneof![Just(0usize), 200usize..4_000, Just(1 << 20)];
    (bytes, prop::option::of(1usize..12)).prop_map(|(bytes, count)| Limits {
        bytes,
        count,
        age: None,
    })
}

fn run(limits: Limits, steps: Vec<Step>) {
    let mut model = Model::new(limits);
    let mut readers: Vec<Reader> = vec![];
    for step in steps {
        match step {
            Step::Append(len, lost) => model.append(len, lost),
            Step::Relay(origin, step, len) => model.relay(origin, step, len),
            Step::Join(format, ask) => {
                let near = |index: usize, step: i64| {
                    let id = model.id(index % model.all.len().max(1))?;
                    let seq = id.seq.saturating_add_signed(step).max(1);
                    Some(EventId { seq, ..id })
                };
                let wish = match ask {
                    Ask::Plain(wish) => wish,
                    Ask::After(index, step) => match near(index, step) {
                        Some(id) => Wish::After(id.to_string().into()),
                        None => Wish::Live,
                    },
                    Ask::Have(have) => {
                        let ids = have.iter().filter_map(|&(index, step)| near(index, step));
                        beyond(ids.collect())
                    }
                };
                readers.push(model.join(format, &wish));
                if readers.len() > 8 {
                    readers.remove(0);
                }
            }
            Step::Read(which) => {
                if let Some(reader) = readers.get_mut(which) {
                    model.read(reader);
                }
            }
        }
    }
    for mut reader in readers {
        model.read(&mut reader);
    }
}

proptest! {
    /// Whatever comes in from wherever, with holes and repetitions, and whoever joins when and how: a reader gets what is
    /// behind its wish, in order and once, and is told of what it does not get.
    #[test]
    fn a_log_is_like_its_model(limits in limits(), steps in prop::collection::vec(step(3), 1..120)) {
        run(limits, steps);
    }

    #[test]
    fn a_log_of_one_origin_is_like_its_model(limits in limits(), steps in prop::collection::vec(step(1), 1..120)) {
        run(limits, steps);
    }
}

fn beyond(have: Vec<EventId>) -> Wish {
    Wish::Beyond {
        have,
        from_first: true,
    }
}
