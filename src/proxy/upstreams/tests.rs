use std::collections::HashMap;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::advance;

use super::*;

fn specs(texts: &[&str]) -> Vec<Spec> {
    texts
        .iter()
        .map(|text| text.parse().expect("valid"))
        .collect()
}

fn upstreams(balance: &str, texts: &[&str]) -> Upstreams {
    Upstreams::new(specs(texts), balance.parse().expect("valid"), None)
}

fn pick(upstreams: &Upstreams) -> Place {
    upstreams.pick(None, &[]).expect("there is a place")
}

fn retry_after(upstreams: &Upstreams) -> Duration {
    upstreams
        .pick(None, &[])
        .err()
        .expect("there is no place")
        .retry_after
}

/// How many places each has, in the order of their names.
fn counts(places: &[Place]) -> Vec<usize> {
    let mut counts = HashMap::<&str, usize>::new();
    for place in places {
        *counts.entry(place.upstream().name()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    counts.into_iter().map(|(_, count)| count).collect()
}

fn take(upstreams: &Upstreams, count: usize) -> Vec<Place> {
    (0..count).map(|_| pick(upstreams)).collect()
}

#[test]
fn a_thousand_who_come_at_once_are_spread_evenly() {
    for balance in ["round-robin", "least-connections"] {
        let upstreams = upstreams(balance, &["a:1", "b:1", "c:1"]);
        let places: Vec<Place> = thread::scope(|scope| {
            let takers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| take(&upstreams, 125)))
                .collect();
            takers
                .into_iter()
                .flat_map(|taker| taker.join().expect("it ends"))
                .collect()
        });
        let mut counts = counts(&places);
        counts.sort_unstable();
        assert_eq!(counts, [333, 333, 334], "{balance}");
    }
}

#[test]
fn a_place_counts_until_it_is_dropped() {
    let upstreams = upstreams("round-robin", &["a:1"]);
    let first = pick(&upstreams);
    let upstream = first.upstream().clone();
    let second = pick(&upstreams);
    assert_eq!(upstream.active(), 2);
    drop(first);
    assert_eq!(upstream.active(), 1);
    drop(second);
    assert_eq!(upstream.active(), 0);
}

#[test]
fn places_have_a_limit() {
    let two = specs(&["a:1", "b:1,max=5"]);
    let upstreams = Upstreams::new(two, Balance::RoundRobin, Some(2));
    let mut places = take(&upstreams, 7);
    assert_eq!(counts(&places), [2, 5]);
    assert_eq!(retry_after(&upstreams), Duration::from_secs(1));
    places.retain(|place| place.upstream().name() == "b:1");
    assert_eq!(pick(&upstreams).upstream().name(), "a:1");
}

#[test]
fn a_limit_holds_under_concurrency() {
    let upstreams = upstreams("random", &["a:1,max=50", "b:1,max=50"]);
    let places: Vec<Place> = thread::scope(|scope| {
        let take = || {
            (0..50)
                .filter_map(|_| upstreams.pick(None, &[]).ok())
                .collect::<Vec<_>>()
        };
        let takers: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        takers
            .into_iter()
            .flat_map(|taker| taker.join().expect("it ends"))
            .collect()
    });
    assert_eq!(counts(&places), [50, 50]);
}

#[test]
fn who_was_tried_is_not_tried_again() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1"]);
    let first = pick(&upstreams);
    let mut tried = vec![first.upstream().clone()];
    let second = upstreams.pick(None, &tried).expect("the other");
    assert!(!Arc::ptr_eq(first.upstream(), second.upstream()));
    tried.push(second.upstream().clone());
    let none = upstreams.pick(None, &tried).err().expect("all were tried");
    assert_eq!(none.retry_after, Duration::from_secs(1));
}

#[test]
fn a_key_has_one_upstream_until_that_is_out() {
    let upstreams = upstreams("hash:ip", &["a:1", "b:1", "c:1"]);
    let name = |key| {
        let place = upstreams.pick(Some(key), &[]).expect("there is a place");
        place.upstream().name().to_owned()
    };
    let before: Vec<_> = (0..100).map(name).collect();
    assert!(
        ["a:1", "b:1", "c:1"]
            .iter()
            .all(|name| before.iter().any(|at| at == name))
    );
    let place = upstreams.pick(Some(0), &[]).expect("there is a place");
    let out = place.upstream().name().to_owned();
    place.connect_failed("connection refused");
    for (key, before) in before.iter().enumerate() {
        assert_eq!(
            name(key as u64) == *before,
            *before != out,
            "only its own keys move"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_not_next_until_a_trial_succeeds() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1"]);
    let at_b = upstreams
        .pick(None, &[pick(&upstreams).upstream().clone()])
        .expect("b is left");
    at_b.connect_failed("connection refused");
    assert_eq!(at_b.upstream().name(), "b:1");
    assert_eq!(at_b.upstream().active(), 1, "a place in use stays");
    assert_eq!(counts(&take(&upstreams, 10)), [10]);
    advance(Duration::from_millis(1100)).await;
    let places = take(&upstreams, 10);
    assert_eq!(counts(&places), [9, 1], "one place is a trial");
    drop(places);
    let places = take(&upstreams, 10);
    assert_eq!(
        counts(&places),
        [9, 1],
        "dropped without a verdict, it is free for another"
    );
    let trial = places
        .iter()
        .find(|place| place.upstream().name() == "b:1")
        .expect("there is one");
    trial.answered(StatusCode::SWITCHING_PROTOCOLS);
    let places = take(&upstreams, 10);
    assert_eq!(counts(&places), [5, 5]);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_out_the_first_to_be_back_says_when_to_come_again() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1"]);
    let first = pick(&upstreams);
    let other = upstreams
        .pick(None, &[first.upstream().clone()])
        .expect("there are two");
    first.connect_failed("connection refused");
    // Its trials fail, too.
    for seconds in [2, 3] {
        advance(Duration::from_secs(seconds)).await;
        upstreams
            .pick(None, &[other.upstream().clone()])
            .expect("a trial")
            .connect_failed("connection refused");
    }
    let alone = |upstreams: &Upstreams| upstreams.pick(None, &[first.upstream().clone()]).is_ok();
    assert!(alone(&upstreams));
    other.connect_failed("connection refused");
    assert!(!alone(&upstreams));
    let wait = retry_after(&upstreams);
    assert!(
        wait >= SHORTEST_RETRY && wait <= Duration::from_millis(1100),
        "{wait:?}"
    );
    advance(Duration::from_millis(1100)).await;
    let trial = pick(&upstreams);
    trial.connect_failed("connection refused");
    let wait = retry_after(&upstreams);
    assert!(
        wait > Duration::from_millis(1500) && wait <= Duration::from_millis(2200),
        "{wait:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_some_is_not_out_for_all_if_there_is_no_other() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1"]);
    pick(&upstreams).no_answer();
    let places = take(&upstreams, 4);
    assert_eq!(counts(&places), [4], "there is another");
    places[0].no_answer();
    assert_eq!(take(&upstreams, 4).len(), 4);
}

#[test]
fn who_answers_with_failures_is_better_than_nobody() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1"]);
    let fail = |name: &str| {
        let places = take(&upstreams, 20);
        let of = |place: &&Place| place.upstream().name() == name;
        for place in places.iter().filter(of).take(3) {
            place.answered(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    fail("a:1");
    assert_eq!(pick(&upstreams).upstream().name(), "b:1", "a is out");
    assert_eq!(pick(&upstreams).upstream().name(), "b:1");
    fail("b:1");
    let places = take(&upstreams, 10);
    assert_eq!(counts(&places), [5, 5], "all that fail are asked alike");
    places[0].answered(StatusCode::OK);
    let places = take(&upstreams, 4);
    assert_eq!(counts(&places), [4], "until one of them is well");
}

#[tokio::test(start_paused = true)]
async fn the_next_probe_is_when_to_come_again() {
    let upstreams = upstreams("round-robin", &["a:1"]);
    let upstream = pick(&upstreams).upstream().clone();
    for _ in 0..2 {
        upstream.probed(
            Err("refused".to_owned()),
            Instant::now() + Duration::from_secs(5),
        );
    }
    assert_eq!(retry_after(&upstreams), Duration::from_secs(5));
    upstream.probed(Ok(()), Instant::now() + Duration::from_secs(5));
    pick(&upstreams);
}

#[test]
fn an_added_one_fills_up_first_and_no_further() {
    let upstreams = upstreams("least-connections", &["a:1", "b:1"]);
    let mut places = take(&upstreams, 100);
    upstreams.replace(specs(&["a:1", "b:1", "c:1"]));
    let new = take(&upstreams, 50);
    assert_eq!(counts(&new), [50]);
    assert_eq!(new[0].upstream().name(), "c:1");
    places.extend(new);
    places.extend(take(&upstreams, 30));
    assert_eq!(counts(&places), [60, 60, 60]);
}

#[test]
fn a_reload_says_what_it_changes() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1", "c:1"]);
    let strings = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let mut current = upstreams.watch();
    current.mark_unchanged();
    let changes = upstreams.replace(specs(&[
        "d:1",
        "a:1,weight=2",
        "c:1",
        "https://c:1",
        "c:1,weight=9",
    ]));
    assert_eq!(changes.added, strings(&["d:1", "https://c:1"]));
    assert_eq!(changes.removed, strings(&["b:1"]));
    assert_eq!(changes.changed, strings(&["a:1"]));
    assert!(current.has_changed().expect("the list is there"));
    let names: Vec<_> = current
        .borrow()
        .iter()
        .map(|upstream| upstream.name().to_owned())
        .collect();
    assert_eq!(names, ["d:1", "a:1", "c:1", "https://c:1"]);
    let places = take(&upstreams, 10);
    assert_eq!(counts(&places), [4, 2, 2, 2]);
    let again = upstreams.replace(specs(&["d:1", "a:1,weight=2", "c:1", "https://c:1"]));
    assert_eq!(again, Changes::default());
}

#[test]
fn nobody_is_owed_turns_by_weights_that_are_no_more() {
    let upstreams = upstreams("round-robin", &["a:1,weight=1000", "b:1"]);
    take(&upstreams, 500);
    upstreams.replace(specs(&["a:1", "b:1"]));
    assert_eq!(counts(&take(&upstreams, 10)), [5, 5]);
}

#[test]
fn those_that_stay_keep_what_they_have() {
    let upstreams = upstreams("round-robin", &["a:1", "b:1"]);
    let place = pick(&upstreams);
    place.connect_failed("connection refused");
    upstreams.replace(specs(&["b:1,max=7", "a:1"]));
    assert!(!place.upstream().is_removed());
    assert_eq!(counts(&take(&upstreams, 7)), [7], "who was out is out");
    assert_eq!(place.upstream().active(), 1);
}

#[test]
fn a_removed_one_takes_no_more_and_goes_on_when_it_is_listed_again() {
    let upstreams = upstreams("least-connections", &["a:1", "b:1"]);
    let places = take(&upstreams, 10);
    upstreams.replace(specs(&["a:1"]));
    let removed = places
        .iter()
        .find(|place| place.upstream().name() == "b:1")
        .expect("it is in use");
    assert!(removed.upstream().is_removed());
    assert_eq!(removed.upstream().active(), 5);
    assert_eq!(counts(&take(&upstreams, 10)), [10]);
    let changes = upstreams.replace(specs(&["a:1", "b:1"]));
    assert_eq!(changes.added, ["b:1"]);
    assert!(!removed.upstream().is_removed());
    assert_eq!(
        counts(&take(&upstreams, 10)),
        [5, 5],
        "its connections were counted all the time"
    );
    // Nobody uses it any more: it is forgotten.
    drop(places);
    upstreams.replace(specs(&["a:1"]));
    assert_eq!(upstreams.list().removed.len(), 0);
}

#[test]
fn without_an_upstream_there_is_no_place() {
    let upstreams = upstreams("round-robin", &[]);
    assert_eq!(retry_after(&upstreams), Duration::from_secs(1));
}

proptest! {
    #[test]
    fn reloads_never_lose_count(lists in vec(vec(0u8..5, 0..5), 1..8), picks in 0usize..20) {
        let upstreams = upstreams("least-connections", &["u0:1"]);
        let mut places = vec![];
        for list in lists {
            let names: Vec<_> = list.iter().map(|number| format!("u{number}:1")).collect();
            upstreams.replace(specs(&names.iter().map(String::as_str).collect::<Vec<_>>()));
            for _ in 0..picks {
                if let Ok(place) = upstreams.pick(None, &[]) {
                    prop_assert!(!place.upstream().is_removed());
                    prop_assert!(names.iter().any(|name| name == place.upstream().name()));
                    places.push(place);
                }
            }
            for place in &places {
                let of_it = places.iter().filter(|other| other.upstream().name() == place.upstream().name());
                prop_assert_eq!(place.upstream().active(), of_it.count());
            }
        }
    }
}
