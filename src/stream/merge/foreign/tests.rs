use proptest::prelude::*;

use super::super::figures::Counts;
use super::*;
use crate::event::Payload;

const WAIT: Duration = Duration::from_millis(250);
const EPOCH: u64 = 1_712_345_678;

/// A log, and links from feeds into it.
struct Scene {
    log: EventLog,
    signs: Signs,
    foreign: Foreign,
    figures: Vec<Arc<Figures>>,
    now: Instant,
}

impl Scene {
    fn new(dedup: &str, links: u32, wait: Duration) -> Self {
        let dedup: Dedup = dedup.parse().expect("a way to recognise events");
        let log = EventLog::new(64 << 20);
        let mut foreign = Foreign::new(&dedup, wait, log.capacity());
        let figures: Vec<Arc<Figures>> = (0..links).map(|_| Arc::default()).collect();
        for (link, figures) in figures.iter().enumerate() {
            foreign.enter(link as LinkId, figures.clone());
            foreign.begins(link as LinkId, false);
            foreign.up(link as LinkId, false);
        }
        Self {
            signs: Signs::new(dedup),
            log,
            foreign,
            figures,
            now: Instant::now(),
        }
    }

    fn numbered(links: u32, wait: Duration) -> Self {
        Self::new("json:/seq", links, wait)
    }

    fn bring(&mut self, link: LinkId, text: &str) -> Taken {
        let event = NewEvent::from(Payload::text(text));
        let sign = self.signs.of(&event);
        let way = (link, Way::of(link as usize));
        let (log, now) = (&self.log, self.now);
        let taken = self.foreign.take(log, way, (event, sign), None, now);
        if matches!(taken, Taken::Copy(_)) {
            self.figures[link as usize].repeated();
        }
        taken
    }

    /// These numbers, in the run with this name.
    fn brings(&mut self, link: LinkId, run: &str, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.bring(link, &format!(r#"{{"seq":{number},"run":"{run}"}}"#));
        }
    }

    fn down(&mut self, link: LinkId) {
        self.foreign.down(&self.log, link, self.now);
    }

    fn back(&mut self, link: LinkId) {
        self.foreign.begins(link, true);
        self.foreign.up(link, false);
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.foreign.tick(&self.log, self.now);
    }

    /// All that has been taken, and how many are told to be missing before it.
    fn entries(&self) -> Vec<(String, Option<Option<u64>>)> {
        let state = self.log.lock();
        let history = &state.history;
        let all = history.range(history.first(), history.next());
        let entry = |entry: &crate::stream::history::Entry| {
            let text = String::from_utf8(entry.event.payload.bytes.to_vec());
            let gap = entry.gap.as_ref().map(|gap| gap.lost);
            (text.expect("it is text"), gap)
        };
        all.map(entry).collect()
    }

    /// The same, as runs and numbers.
    fn taken(&self) -> Vec<(String, u64)> {
        let entries = self.entries().into_iter();
        let number = |(text, _): (String, _)| {
            let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            let run = json["run"].as_str().expect("a run").to_owned();
            (run, json["seq"].as_u64().expect("a number"))
        };
        entries.map(number).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        self.taken().into_iter().map(|(_, number)| number).collect()
    }

    fn gaps(&self) -> Vec<Option<u64>> {
        let gaps = self.entries().into_iter().filter_map(|(_, gap)| gap);
        gaps.collect()
    }

    fn counts(&self, link: usize) -> Counts {
        self.figures[link].counts()
    }
}

#[test]
fn a_hole_is_filled_while_numbers_count() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=10);
    scene.brings(1, "a", 1..=10);
    scene.brings(0, "a", [13, 14]);
    assert_eq!(scene.foreign.deadline(), Some(scene.now + WAIT));
    scene.brings(1, "a", 11..=14);
    assert_eq!(scene.numbers(), (1..=14).collect::<Vec<_>>());
    assert!(scene.gaps().is_empty());
    let first = scene.counts(0);
    assert_eq!((first.wins, first.holes, first.filled), (12, 1, 1));
    let second = scene.counts(1);
    assert_eq!((second.wins, second.holes, second.repeated), (2, 0, 12));
    assert_eq!(scene.foreign.deadline(), None);
}

#[test]
fn what_nobody_brings_is_a_gap_with_its_count() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", (1..=10).chain([14]));
    scene.after(WAIT - Duration::from_millis(1));
    assert_eq!(scene.numbers().len(), 10);
    scene.after(Duration::from_millis(1));
    assert_eq!(scene.numbers().last(), Some(&14));
    // The other has passed it, too, or is gone.
    scene.brings(0, "a", [17]);
    scene.brings(1, "a", (1..=10).chain([17]));
    scene.brings(0, "a", 18..=30);
    scene.brings(0, "a", [32]);
    assert_eq!(scene.numbers().last(), Some(&30));
    scene.down(1);
    assert_eq!(scene.numbers().last(), Some(&32));
    assert_eq!(scene.gaps(), [Some(3), Some(2), Some(1)]);
}

#[test]
fn time_stamps_have_no_holes() {
    let mut scene = Scene::numbered(2, WAIT);
    for step in 0..40 {
        let text = format!(r#"{{"seq":"{EPOCH}.{step:02}"}}"#);
        scene.bring(step % 2, &text);
        scene.bring(1 - step % 2, &text);
    }
    scene.brings(0, "a", (1..40).map(|step| EPOCH + 7 * step));
    assert_eq!(scene.entries().len(), 79);
    assert_eq!(scene.gaps(), []);
    assert_eq!(scene.counts(0).holes, 0);
}

#[test]
fn a_feed_that_counts_no_more_waits_no_more() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=20);
    scene.brings(0, "a", [30, 40, 50]);
    assert_eq!(scene.numbers().len(), 20);
    scene.brings(0, "a", [60, 70]);
    let rest = [30, 40, 50, 60, 70];
    assert_eq!(scene.numbers()[20..], rest);
    assert_eq!(
        scene.gaps(),
        [Some(9); 3],
        "what has been taken for holes is told"
    );
}

#[test]
fn a_producer_that_begins_anew_is_not_dropped() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=100);
    scene.brings(1, "a", 1..=90);
    // Within a connection; the other lags, and then it comes there, too.
    scene.brings(0, "b", 1..=3);
    scene.brings(1, "a", 91..=100);
    scene.brings(1, "b", 1..=5);
    scene.brings(0, "b", 4..=6);
    let expected = (1..=100).chain(1..=6);
    assert_eq!(scene.numbers(), expected.collect::<Vec<_>>());
    assert!(scene.gaps().is_empty());
}

#[test]
fn a_producer_that_begins_anew_may_cut_all_off() {
    let mut scene = Scene::numbered(2, WAIT);
    for link in [0, 1] {
        scene.brings(link, "a", 1..=100);
    }
    scene.down(0);
    scene.down(1);
    scene.back(0);
    scene.brings(0, "b", 1..=3);
    scene.back(1);
    scene.brings(1, "b", 2..=5);
    scene.brings(0, "b", 4..=5);
    let expected = (1..=100).chain(1..=5);
    assert_eq!(scene.numbers(), expected.collect::<Vec<_>>());
    assert_eq!(scene.gaps(), [None], "what was sent meanwhile nobody knows");
}

#[test]
fn old_numbers_of_a_link_that_lags_are_not_those_of_the_new_row() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=100);
    scene.brings(1, "a", 1..=50);
    scene.down(1);
    scene.brings(0, "b", 1..=5);
    scene.back(1);
    // Even what only it has.
    scene.brings(1, "a", 98..=101);
    scene.brings(0, "b", 6..=8);
    scene.brings(1, "b", 1..=9);
    let expected = (1..=100).chain(1..=5).chain([101]).chain(6..=9);
    assert_eq!(scene.numbers(), expected.collect::<Vec<_>>());
}

#[test]
fn who_is_in_doubt_waits_for_those_who_are_not() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=100);
    scene.brings(1, "a", 1..=101);
    scene.down(0);
    scene.back(0);
    // The other may just be silent, or hang.
    scene.brings(0, "b", 1..=3);
    assert_eq!(scene.numbers().len(), 101);
    scene.down(1);
    scene.brings(0, "b", 4..=6);
    let expected = (1..=101).chain(4..=6);
    assert_eq!(scene.numbers(), expected.collect::<Vec<_>>());
    assert_eq!(scene.gaps(), [Some(3)]);
}

#[test]
fn a_link_that_repeats_on_connecting_begins_no_row() {
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=100);
    scene.down(0);
    scene.down(1);
    scene.back(1);
    scene.brings(1, "a", 95..=102);
    assert_eq!(scene.numbers(), (1..=102).collect::<Vec<_>>());
    assert!(scene.gaps().is_empty(), "it overlaps");
}

#[test]
fn payloads_may_differ_between_links() {
    let mut scene = Scene::numbered(2, WAIT);
    for number in 1..=50 {
        scene.brings(0, "one", [number]);
        scene.brings(1, "other", [number]);
    }
    scene.down(0);
    scene.brings(1, "other", 51..=60);
    scene.back(0);
    scene.brings(0, "one", 58..=61);
    assert_eq!(scene.numbers(), (1..=61).collect::<Vec<_>>());
    assert!(scene.gaps().is_empty());
}

#[test]
fn what_has_no_number_passes() {
    let mut scene = Scene::numbered(2, WAIT);
    for link in [0, 1] {
        scene.bring(link, "hello");
        scene.bring(link, "{}");
        scene.brings(link, "a", [1, 2]);
    }
    let entries = scene.entries().into_iter().map(|(text, _)| text);
    let numbered = [r#"{"seq":1,"run":"a"}"#, r#"{"seq":2,"run":"a"}"#];
    let expected = [&["hello", "{}"][..], &numbered, &["hello", "{}"]].concat();
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}

#[test]
fn a_gap_is_told_only_where_no_link_was_up() {
    for dedup in ["hash", "json:/no"] {
        let mut scene = Scene::new(dedup, 2, WAIT);
        scene.bring(0, "1");
        scene.down(0);
        scene.back(0);
        scene.bring(0, "2");
        assert_eq!(scene.gaps(), [], "the other was there");
        scene.down(0);
        scene.down(1);
        scene.back(1);
        scene.back(0);
        scene.bring(0, "3");
        scene.bring(1, "4");
        assert_eq!(scene.gaps(), [None], "{dedup}");
    }
    // By numbers that count it is known.
    let mut scene = Scene::numbered(2, WAIT);
    scene.brings(0, "a", 1..=10);
    scene.down(0);
    scene.down(1);
    scene.back(1);
    scene.brings(1, "a", [11]);
    assert_eq!(scene.gaps(), []);
    scene.down(1);
    scene.back(0);
    scene.brings(0, "a", [15]);
    scene.after(WAIT);
    assert_eq!(scene.gaps(), [Some(3)]);
}

#[test]
fn another_process_has_been_there_before() {
    let mut scene = Scene::new("hash", 0, WAIT);
    scene.figures = vec![Arc::default()];
    scene.foreign.enter(0, scene.figures[0].clone());
    scene.back(0);
    scene.bring(0, "1");
    scene.bring(0, "2");
    assert_eq!(scene.gaps(), [None]);
}

#[test]
fn what_is_held_is_bounded_and_never_lost() {
    let mut scene = Scene::numbered(2, Duration::MAX);
    scene.brings(0, "a", 1..=10);
    scene.brings(0, "a", 12..=20_000);
    assert_eq!(scene.gaps(), [Some(1)]);
    scene.brings(0, "a", 20_002..=20_003);
    assert_eq!(scene.numbers().len(), 19_999);
    scene.foreign.close(&scene.log);
    assert_eq!(scene.numbers().len(), 20_001);
    scene.brings(0, "a", [20_010]);
    assert_eq!(scene.gaps(), [Some(1), Some(1), Some(6)]);
}

#[test]
fn equal_payloads_of_a_feed_are_kept_apart() {
    let mut scene = Scene::new("hash", 2, WAIT);
    for link in [0, 1] {
        for text in ["tick", "tick", "tock"] {
            scene.bring(link, text);
        }
    }
    let texts = scene.entries().into_iter().map(|(text, _)| text);
    assert_eq!(texts.collect::<Vec<_>>(), ["tick", "tick", "tock"]);
    assert_eq!(scene.counts(1).repeated, 3);
    let event = |event_type: &str| NewEvent {
        event_type: Some(event_type.into()),
        ..Payload::text("tick").into()
    };
    let signs = ["a", "b"].map(|it| scene.signs.of(&event(it)).hash);
    assert_ne!(signs[0], signs[1]);
}

#[test]
fn a_wish_is_read() {
    assert_eq!("hash".parse(), Ok(Dedup::Hash));
    assert!("json:/a~1b/0".parse::<Dedup>().is_ok());
    for wrong in [
        "", "json", "json:", "json:seq", "json:/~2", "hash:x", "/seq",
    ] {
        assert!(wrong.parse::<Dedup>().is_err(), "{wrong}");
    }
}

proptest! {
    /// Whatever each of two links loses now and then, and however they are interleaved: what one of them has brought is taken once and in
    /// order, and the rest is told, with the exact count.
    #[test]
    fn what_any_link_brings_is_taken_once_and_in_order(
        losses in prop::collection::vec((0usize..3, 1u64..4, 6u64..12), 0..12),
        turns in prop::collection::vec(0usize..2, 200),
    ) {
        let mut scene = Scene::numbered(2, WAIT);
        // While it is not known that numbers count, nothing may be missing.
        let base = 30;
        let (mut next, mut lost) = (base + 1, 0);
        let mut feeds = [vec![], vec![]];
        for (who, count, rest) in losses {
            let end = next + count;
            match who {
                2 => lost += count,
                _ => feeds[1 - who].extend(next..end),
            }
            next = end + rest;
            feeds.iter_mut().for_each(|feed| feed.extend(end..next));
        }
        scene.brings(0, "a", 1..=base);
        scene.brings(1, "a", 1..=base);
        let mut at = [0; 2];
        for turn in turns.into_iter().chain((0..400).map(|turn| turn % 2)) {
            if let Some(&number) = feeds[turn].get(at[turn]) {
                scene.brings(turn as LinkId, "a", [number]);
                at[turn] += 1;
            }
        }
        let mut expected: Vec<_> = feeds.concat();
        expected.extend(1..=base);
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(scene.numbers(), expected);
        let told = scene.gaps().into_iter().sum::<Option<u64>>();
        prop_assert_eq!(told, Some(lost));
    }

    /// However often the producer begins anew, and however far one of two links lags within a run: everything is taken once.
    #[test]
    fn every_run_is_taken_once(
        runs in prop::collection::vec(10u64..40, 1..6),
        turns in prop::collection::vec(0usize..2, 400),
    ) {
        let mut scene = Scene::numbered(2, WAIT);
        let feed: Vec<_> = runs.iter().enumerate()
            .flat_map(|(run, &count)| (1..=count).map(move |number| (run.to_string(), number)))
            .collect();
        let mut at = [0; 2];
        for turn in turns.into_iter().chain((0..400).map(|turn| turn % 2)) {
            // No further than that is a link ahead.
            if at[turn] >= at[1 - turn] + 9 {
                continue;
            }
            if let Some((run, number)) = feed.get(at[turn]) {
                scene.brings(turn as LinkId, run, [*number]);
                at[turn] += 1;
            }
        }
        prop_assert_eq!(scene.taken(), feed);
        prop_assert_eq!(scene.gaps(), vec![]);
    }

    /// However often links are cut off, as long as one is up: everything is taken once, and nobody is told of a gap.
    #[test]
    fn cuts_of_one_link_are_not_noticed(
        cuts in prop::collection::vec((0u32..2, 1u64..10, 0u64..5, 0u64..4), 1..20),
        counts in any::<bool>(),
    ) {
        let mut scene = Scene::numbered(2, WAIT);
        let step = if counts { 1 } else { 7 };
        let mut next = 1;
        let both = |scene: &mut Scene, next: &mut u64, count| for _ in 0..count {
            scene.brings(0, "a", [*next * step]);
            scene.brings(1, "a", [*next * step]);
            *next += 1;
        };
        both(&mut scene, &mut next, 20);
        for (link, together, away, repeats) in cuts {
            scene.down(link);
            for _ in 0..away {
                scene.brings(1 - link, "a", [next * step]);
                next += 1;
            }
            scene.back(link);
            for number in next - repeats..next {
                scene.brings(link, "a", [number * step]);
            }
            both(&mut scene, &mut next, together);
        }
        prop_assert_eq!(scene.numbers(), (1..next).map(|it| it * step).collect::<Vec<_>>());
        prop_assert_eq!(scene.gaps(), vec![]);
    }
}
