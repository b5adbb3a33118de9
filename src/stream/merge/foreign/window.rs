//! What feeds bring, recognised by what it is: the *k*-th of several equal events on one link is the *k*-th on another.
//!
//! - Only the last events that were taken count, and only for a while: the window. What a link brings later than that is new.
//! - For each payload it is known how many of those in the window a link has not brought yet. If there is one, what it brings is a
//!   copy; otherwise it is new, and the other links are one more behind.
//! - Nobody knows what a link has missed while it was away, nor what it will repeat. So whoever connects may bring each payload that is
//!   in the window once more, however often it is there, and is not behind otherwise. Were it as many times as the window has it,
//!   a heartbeat that is always the same would be dropped many times if the other link went away then.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::super::row::LinkId;

/// More events than this are not remembered.
const MAX_EVENTS: usize = 10_000;
/// Nor for longer than this.
pub const REMEMBERED: Duration = Duration::from_secs(60);

/// The last events.
#[derive(Default)]
pub struct Window {
    /// In the order in which they came.
    events: VecDeque<(u64, Instant)>,
    /// By their hashes.
    known: HashMap<u64, Known>,
    /// Of each link what others have brought and it has not.
    behind: HashMap<LinkId, HashMap<u64, u32>>,
}

struct Known {
    count: u32,
    /// When the last of them came.
    since: Instant,
}

impl Window {
    /// A link begins anew.
    pub fn begins(&mut self, link: LinkId) {
        let behind = self.known.keys().map(|&hash| (hash, 1)).collect();
        self.behind.insert(link, behind);
    }

    /// A link is no more.
    pub fn leaves(&mut self, link: LinkId) {
        self.behind.remove(&link);
    }

    /// A link has brought something with this hash. If it is a copy, when the first one came.
    pub fn take(&mut self, link: LinkId, hash: u64, now: Instant) -> Option<Instant> {
        self.forget(now);
        if !self.behind.contains_key(&link) {
            self.begins(link);
        }
        if let Some(behind) = self.behind.get_mut(&link)
            && let Some(count) = behind.get_mut(&hash)
        {
            *count -= 1;
            if *count == 0 {
                behind.remove(&hash);
            }
            return self.known.get(&hash).map(|known| known.since);
        }
        for (other, behind) in &mut self.behind {
            if *other != link {
                *behind.entry(hash).or_default() += 1;
            }
        }
        self.events.push_back((hash, now));
        let known = self.known.entry(hash);
        let known = known.or_insert(Known {
            count: 0,
            since: now,
        });
        known.count += 1;
        known.since = now;
        if self.events.len() > MAX_EVENTS {
            self.forget_oldest();
        }
        None
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, since)) = self.events.front()
            && now.duration_since(*since) > REMEMBERED
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((hash, _)) = self.events.pop_front() else {
            return;
        };
        let Some(known) = self.known.get_mut(&hash) else {
            return;
        };
        known.count -= 1;
        let left = known.count;
        if left == 0 {
            self.known.remove(&hash);
        }
        // Nobody can be behind by more than there is.
        for behind in self.behind.values_mut() {
            if let Some(count) = behind.get_mut(&hash) {
                *count = left.min(*count);
                if *count == 0 {
                    behind.remove(&hash);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Scene {
        window: Window,
        now: Instant,
        taken: Vec<u64>,
    }

    impl Scene {
        fn new(links: LinkId) -> Self {
            let mut window = Window::default();
            (0..links).for_each(|link| window.begins(link));
            Self {
                window,
                now: Instant::now(),
                taken: Vec::new(),
            }
        }

        fn brings(&mut self, link: LinkId, hashes: impl IntoIterator<Item = u64>) {
            for hash in hashes {
                if self.window.take(link, hash, self.now).is_none() {
                    self.taken.push(hash);
                }
            }
        }
    }

    #[test]
    fn what_comes_twice_on_each_link_comes_twice() {
        let mut scene = Scene::new(2);
        scene.brings(0, [7, 7, 8]);
        scene.brings(1, [7, 7, 8, 7]);
        scene.brings(0, [7]);
        assert_eq!(scene.taken, [7, 7, 8, 7]);
    }

    #[test]
    fn a_link_that_was_away_may_repeat_each_once() {
        let mut scene = Scene::new(2);
        scene.brings(0, [1, 2, 2, 2, 3]);
        scene.brings(1, [1]);
        // What it has missed, and what it repeats, is a copy; and the counts are not shifted by what it has missed.
        scene.window.begins(1);
        scene.brings(1, [3, 2, 4]);
        scene.brings(0, [4, 2]);
        scene.brings(1, [2]);
        assert_eq!(scene.taken, [1, 2, 2, 2, 3, 4, 2]);
        // One that did not repeat anything is behind by one, however many there are.
        scene.window.begins(1);
        scene.brings(1, [2, 2]);
        assert_eq!(scene.taken.len(), 8);
    }

    #[test]
    fn nothing_is_remembered_for_ever() {
        let mut scene = Scene::new(2);
        scene.brings(0, [1]);
        scene.now += REMEMBERED;
        scene.brings(0, [2]);
        scene.now += Duration::from_nanos(1);
        scene.brings(1, [2, 1]);
        assert_eq!(scene.taken, [1, 2, 1]);
        scene.brings(0, 10..10 + MAX_EVENTS as u64);
        assert_eq!(scene.window.events.len(), MAX_EVENTS);
        assert_eq!(scene.window.known.len(), MAX_EVENTS);
        assert!(
            scene
                .window
                .behind
                .values()
                .all(|it| it.len() <= MAX_EVENTS)
        );
        scene.brings(1, [2]);
        assert_eq!(scene.taken.last(), Some(&2));
    }

    proptest! {
        /// However links are interleaved: what each of them brings is taken exactly as often as each brings it.
        #[test]
        fn each_is_taken_as_often_as_each_link_brings_it(
            feed in prop::collection::vec(0u64..4, 0..60),
            turns in prop::collection::vec(0usize..3, 180),
        ) {
            let mut scene = Scene::new(3);
            let mut at = [0; 3];
            // Whatever the turns leave is brought in the end.
            for turn in turns.into_iter().chain((0..180).map(|turn| turn % 3)) {
                if let Some(&hash) = feed.get(at[turn]) {
                    scene.brings(turn as LinkId, [hash]);
                    at[turn] += 1;
                }
            }
            let sorted = |mut hashes: Vec<u64>| { hashes.sort_unstable(); hashes };
            prop_assert_eq!(sorted(scene.taken), sorted(feed));
        }
    }
}
