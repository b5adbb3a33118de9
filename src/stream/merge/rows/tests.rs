use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::figures::Counts;
use super::*;
use crate::event::{EventId, Payload};
use crate::stream::history::Entry;

const WAIT: Duration = Duration::from_millis(250);
const ORIGIN: Origin = Origin(7);

/// A log, and links into it.
struct Scene {
    log: EventLog,
    rows: Rows,
    figures: Vec<Arc<Figures>>,
    now: Instant,
}

impl Scene {
    fn new(links: usize, wait: Duration) -> Self {
        let log = EventLog::new(64 << 20);
        let mut rows = Rows::new(wait, log.capacity());
        let figures: Vec<Arc<Figures>> = (0..links).map(|_| Arc::default()).collect();
        for figures in &figures {
            let link = rows.enter(figures.clone());
            rows.leads_through(link, vec![ORIGIN]);
            rows.up(link);
        }
        Self {
            log,
            rows,
            figures,
            now: Instant::now(),
        }
    }

    fn bring(&mut self, link: LinkId, id: EventId, gap: Option<Gap>) {
        let way = Way {
            link: Some(link as u16),
            ..Way::default()
        };
        let (event, now) = (event(id), self.now);
        self.rows.relay(&self.log, (link, way), event, gap, now);
    }

    fn brings(&mut self, link: LinkId, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            self.bring(link, id(seq), None);
        }
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.rows.tick(&self.log, self.now);
    }

    fn down(&mut self, link: LinkId) {
        self.rows.down(&self.log, link, self.now);
    }

    /// All events in the log, and how many each says are missing before it.
    fn entries(&self) -> Vec<Entry> {
        let state = self.log.lock();
        let history = &state.history;
        let all = history.range(history.first(), history.next());
        all.cloned().collect()
    }

    fn seqs(&self) -> Vec<u64> {
        let entries = self.entries().into_iter();
        entries.map(|entry| entry.event.id.seq).collect()
    }

    fn gaps(&self) -> Vec<(u64, Option<u64>)> {
        let entries = self.entries().into_iter();
        let gaps = entries.filter_map(|entry| Some((entry.event.id.seq, entry.gap?.lost)));
        gaps.collect()
    }

    fn counts(&self, link: usize) -> Counts {
        self.figures[link].counts()
    }
}

fn id(seq: u64) -> EventId {
    EventId {
        origin: ORIGIN,
        seq,
    }
}

fn event(id: EventId) -> Event {
    Event {
        id,
        time: 0,
        event_type: None,
        key: None,
        payload: Payload::text(format!("{id}")),
    }
}

fn gap(after: u64, next: u64, lost: Option<u64>) -> Option<Gap> {
    Some(Gap {
        after: Some(id(after).to_string().into()),
        next: Some(id(next)),
        lost,
    })
}

#[test]
fn a_hole_on_one_link_is_filled_from_the_other() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1, 2, 5, 6]);
    assert_eq!(scene.seqs(), [1, 2]);
    assert_eq!(scene.rows.deadline(), Some(scene.now + WAIT));
    scene.brings(1, [1, 2, 3]);
    assert_eq!(scene.seqs(), [1, 2, 3]);
    scene.brings(1, [4, 5, 6, 7]);
    assert_eq!(scene.seqs(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((scene.gaps(), scene.rows.deadline()), (vec![], None));
    let (a, b) = (scene.counts(0), scene.counts(1));
    assert_eq!((a.wins, a.repeated, a.holes, a.filled), (4, 0, 1, 1));
    assert_eq!((b.wins, b.holes, b.filled), (3, 0, 0));
}

#[test]
fn a_hole_that_others_have_filled_before_is_one_too() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, 1..=9);
    scene.brings(1, [1, 2, 9]);
    let late = scene.counts(1);
    assert_eq!((late.holes, late.filled, scene.gaps()), (1, 1, vec![]));
}

#[test]
fn a_hole_that_nobody_can_fill_is_a_gap_at_once() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1, 2, 6]);
    scene.brings(1, [1, 2]);
    assert_eq!(scene.seqs(), [1, 2]);
    // It has passed the hole, too.
    scene.brings(1, [6]);
    assert_eq!(
        (scene.seqs(), scene.gaps()),
        (vec![1, 2, 6], vec![(6, Some(3))])
    );
    scene.brings(1, [9]);
    scene.brings(0, [8]);
    assert_eq!(
        scene.gaps(),
        [(6, Some(3)), (8, Some(1))],
        "what is held counts"
    );
    scene.brings(0, [12]);
    scene.down(1);
    assert_eq!(scene.gaps().last(), Some(&(12, Some(2))));
    scene.brings(0, [20]);
    assert_eq!(scene.seqs().last(), Some(&20), "the other is away");
    let counts = scene.counts(0);
    assert_eq!((counts.holes, counts.filled), (4, 0));
}

#[test]
fn a_hole_is_left_open_for_so_long() {
    let mut scene = Scene::new(3, WAIT);
    scene.brings(0, [1, 10]);
    scene.after(WAIT / 2);
    scene.brings(1, [1, 2, 8]);
    scene.brings(0, [12]);
    scene.after(WAIT / 2 - Duration::from_nanos(1));
    assert_eq!(scene.seqs(), [1, 2]);
    scene.after(Duration::from_nanos(1));
    // What is before the event that came later has been missing since the first one.
    assert_eq!(scene.seqs(), [1, 2, 8, 10]);
    assert_eq!(scene.gaps(), [(8, Some(5)), (10, Some(1))]);
    scene.brings(2, [1, 2, 3, 9, 10, 11]);
    assert_eq!(
        scene.seqs(),
        [1, 2, 8, 10, 11, 12],
        "what was told as missing is"
    );
    assert_eq!(scene.rows.deadline(), None);
}

#[test]
fn without_a_wait_nothing_is_held() {
    let mut scene = Scene::new(2, Duration::ZERO);
    scene.brings(0, [1, 3]);
    scene.brings(1, [1, 2, 3, 4]);
    assert_eq!(
        (scene.seqs(), scene.gaps()),
        (vec![1, 3, 4], vec![(3, Some(1))])
    );
}

#[test]
fn other_origins_go_on() {
    let mut scene = Scene::new(2, WAIT);
    let other = |seq| EventId {
        origin: Origin(8),
        seq,
    };
    scene.brings(0, [1, 3]);
    scene.bring(0, other(1), None);
    // Nobody else is known to have it.
    scene.bring(0, other(3), None);
    assert_eq!(scene.seqs(), [1, 1, 3]);
}

#[test]
fn a_link_that_begins_anew_may_bring_what_it_has_passed() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1]);
    scene.brings(1, [1, 5]);
    scene.brings(0, [2]);
    scene.down(1);
    assert_eq!(scene.seqs(), [1, 2], "the other may bring the rest");
    scene.rows.up(1);
    scene.brings(0, [7]);
    assert_eq!(scene.gaps(), vec![], "so may this one");
    scene.brings(1, 3..=7);
    assert_eq!((scene.seqs(), scene.gaps()), ((1..=7).collect(), vec![]));
}

#[test]
fn nothing_that_is_held_is_lost_when_links_end() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1, 3, 5]);
    scene.rows.leave(&scene.log, 0, scene.now);
    assert_eq!(scene.seqs(), [1]);
    scene.rows.leave(&scene.log, 1, scene.now);
    assert_eq!(scene.seqs(), [1, 3, 5]);
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1, 3, 5]);
    scene.rows.close(&scene.log, scene.now);
    assert_eq!(
        (scene.seqs(), scene.gaps()),
        (vec![1, 3, 5], vec![(3, Some(1)), (5, Some(1))])
    );
    scene.brings(0, [7]);
    assert_eq!(scene.seqs(), [1, 3, 5, 7]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1]);
    scene.brings(0, 3..3 + MAX_HELD as u64);
    assert_eq!(scene.seqs(), [1]);
    let next = 3 + MAX_HELD as u64;
    scene.brings(0, [next]);
    assert_eq!(scene.gaps(), [(3, Some(1))]);
    assert_eq!(scene.seqs().last(), Some(&next), "all behind the hole");
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [1, 3]);
    let large = Event {
        payload: Payload::binary(vec![0; 5 << 20]),
        ..event(id(4))
    };
    let way = (0, Way::default());
    scene.rows.relay(&scene.log, way, large, None, scene.now);
    assert_eq!(scene.seqs(), [1, 3, 4]);
}

#[test]
fn a_notice_is_told_if_what_it_calls_missing_is() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, 1..=9);
    // Of what is here, nobody is told.
    scene.bring(1, id(10), gap(4, 10, Some(5)));
    assert_eq!(scene.gaps(), vec![]);
    // Between neighbours something is missing at the origin.
    scene.bring(0, id(11), gap(10, 11, None));
    assert_eq!(scene.gaps(), [(11, None)]);
    // That is kept while the event waits.
    scene.bring(1, id(14), gap(13, 14, Some(2)));
    scene.brings(0, [12, 13]);
    assert_eq!(scene.gaps(), [(11, None), (14, Some(2))]);
    scene.bring(1, id(17), gap(16, 17, Some(2)));
    scene.after(WAIT);
    assert_eq!(scene.gaps().last(), Some(&(17, Some(4))), "both");
}

#[test]
fn what_is_missing_before_the_first_event_is_waited_for() {
    let mut scene = Scene::new(2, WAIT);
    let since = |seq, lost| {
        Some(Gap {
            after: None,
            next: Some(id(seq)),
            lost: Some(lost),
        })
    };
    scene.bring(0, id(5), since(5, 3));
    assert!(scene.seqs().is_empty());
    scene.brings(1, [2, 3, 4, 5]);
    assert_eq!((scene.seqs(), scene.gaps()), (vec![2, 3, 4, 5], vec![]));
    let mut scene = Scene::new(2, WAIT);
    scene.bring(0, id(5), since(5, 3));
    scene.brings(1, [4]);
    scene.after(WAIT);
    assert_eq!(
        (scene.seqs(), scene.gaps()),
        (vec![4, 5], vec![(4, Some(2))])
    );
}

#[test]
fn a_store_says_by_notices_what_is_missing() {
    let store = |seq| EventId {
        origin: Origin::store(1),
        seq,
    };
    let notice = |after, next| {
        Some(Gap {
            after: Some(store(after).to_string().into()),
            next: Some(store(next)),
            lost: Some(1),
        })
    };
    let mut scene = Scene::new(2, WAIT);
    scene.bring(0, store(10), None);
    scene.bring(1, store(10), None);
    scene.bring(0, store(20), None);
    assert_eq!(scene.seqs(), [10, 20], "numbers may be skipped");
    scene.bring(0, store(40), notice(20, 40));
    scene.bring(0, store(50), None);
    assert_eq!(scene.seqs(), [10, 20]);
    scene.bring(1, store(30), None);
    scene.bring(1, store(40), None);
    assert_eq!(
        (scene.seqs(), scene.gaps()),
        (vec![10, 20, 30, 40, 50], vec![])
    );
    scene.bring(1, store(70), notice(50, 70));
    scene.bring(0, store(70), notice(50, 70));
    assert_eq!(scene.gaps(), [(70, Some(1))], "both say so");
}

#[test]
fn the_past_that_the_log_is_given_counts() {
    let mut scene = Scene::new(2, WAIT);
    scene.brings(0, [5]);
    scene.brings(0, [8]);
    scene.log.relay(event(id(6)), None);
    scene.log.relay(event(id(7)), None);
    scene.rows.refresh(&scene.log, scene.now);
    assert_eq!((scene.seqs(), scene.gaps()), (vec![5, 6, 7, 8], vec![]));
}

/// What happens to one of several links.
#[derive(Debug, Clone)]
enum Step {
    /// It brings its next event of an origin.
    Bring(usize, u64),
    /// It has lost so many of them.
    Lose(usize, u64, u64),
    /// It is cut off, and comes back to go on behind what the log has.
    Cut(usize),
    /// So many milliseconds pass.
    Wait(u64),
}

fn step(links: usize) -> impl Strategy<Value = Step> {
    let origin = 1..=2_u64;
    prop_oneof![
        12 => (0..links, origin.clone()).prop_map(|(link, origin)| Step::Bring(link, origin)),
        3 => (0..links, origin, 1..4_u64).prop_map(|(link, origin, lost)| Step::Lose(link, origin, lost)),
        1 => (0..links).prop_map(Step::Cut),
        1 => (1..400_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn all_that_a_link_brings_in_time_is_there_in_order_and_gaps_are_where_numbers_skip(
        links in 2..=3_usize,
        steps in prop::collection::vec(step(3), 1..300),
        wait in prop_oneof![Just(0), Just(250), Just(1_000_000)],
    ) {
        let mut scene = Scene::new(links, Duration::from_millis(wait));
        // The next event of each origin on each link.
        let mut next = vec![[1_u64; 3]; links];
        let mut brought: Vec<(u64, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Bring(link, origin) if link < links => {
                    let seq = &mut next[link][origin as usize];
                    scene.bring(link as LinkId, EventId { origin: Origin(origin), seq: *seq }, None);
                    brought.push((origin, *seq));
                    *seq += 1;
                }
                Step::Lose(link, origin, lost) if link < links => next[link][origin as usize] += lost,
                Step::Cut(link) if link < links => {
                    scene.down(link as LinkId);
                    for origin in 1..=2 {
                        let last = scene.log.last_of(Origin(origin));
                        // Before the first event nothing can be missing.
                        next[link][origin as usize] = last.map_or(next[link][origin as usize], |last| last + 1);
                    }
                    scene.rows.up(link as LinkId);
                }
                Step::Wait(millis) => scene.after(Duration::from_millis(millis)),
                _ => {}
            }
        }
        scene.rows.close(&scene.log, scene.now);
        let entries = scene.entries();
        for origin in 1..=2 {
            let of_origin = entries.iter().filter(|entry| entry.event.id.origin == Origin(origin));
            let of_origin: Vec<_> = of_origin.collect();
            let seqs: Vec<_> = of_origin.iter().map(|entry| entry.event.id.seq).collect();
            let was_brought: BTreeSet<_> = brought.iter().filter(|(of, _)| *of == origin).map(|(_, seq)| *seq).collect();
            let mut told = 0;
            for pair in of_origin.windows(2) {
                let (before, entry) = (pair[0].event.id.seq, pair[1]);
                let lost = (entry.event.id.seq - before).checked_sub(1).expect("in order, each once");
                let said = entry.gap.as_ref().map_or(0, |gap| gap.lost.expect("it is known"));
                prop_assert_eq!(lost, said);
                told += lost;
            }
            let first = seqs.first().copied().unwrap_or(u64::MAX);
            let is_missing = was_brought.iter().filter(|&&seq| seq > first && !seqs.contains(&seq));
            let missing = is_missing.count() as u64;
            // What was brought and is not there has come behind its gap.
            prop_assert!(missing <= told);
            if wait == 1_000_000 {
                // Nobody was too late, so what is missing had been passed by all that were there.
                prop_assert!(seqs.iter().all(|seq| was_brought.contains(seq)));
            }
        }
        let wins: u64 = (0..links).map(|link| scene.counts(link).wins).sum();
        prop_assert_eq!(wins, entries.len() as u64);
        prop_assert_eq!(scene.rows.held, 0);
        prop_assert_eq!(scene.rows.bytes, 0);
    }

    /// Of links that stay, what one of them brings is never missing.
    #[test]
    fn nothing_is_missing_that_one_of_the_links_brings(
        lost in prop::collection::vec((any::<bool>(), any::<bool>()), 2..120),
        order in prop::collection::vec(any::<bool>(), 0..400),
    ) {
        let mut scene = Scene::new(2, Duration::from_secs(3600));
        let rows: [Vec<u64>; 2] = [0, 1].map(|link| {
            let lost = lost.iter().enumerate();
            let of_link = lost.filter(|(at, lost)| *at == 0 || !(if link == 0 { lost.0 } else { lost.1 }));
            of_link.map(|(at, _)| at as u64 + 1).collect()
        });
        let mut at = [0, 0];
        let rest = std::iter::repeat_n(false, lost.len()).chain(std::iter::repeat_n(true, lost.len()));
        for link in order.into_iter().chain(rest) {
            let link = usize::from(link);
            if let Some(&seq) = rows[link].get(at[link]) {
                at[link] += 1;
                scene.brings(link as LinkId, [seq]);
            }
        }
        scene.rows.close(&scene.log, scene.now);
        let expected: BTreeSet<u64> = rows.iter().flatten().copied().collect();
        prop_assert_eq!(scene.seqs(), expected.into_iter().collect::<Vec<_>>());
    }
}
