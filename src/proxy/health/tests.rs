use super::*;

/// Chance that makes a while neither longer nor shorter.
const EVEN: f64 = 0.5;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Out for a second from `now` on.
fn out(now: Instant) -> Health {
    let mut health = Health::default();
    let ticket = health.take(now).expect("it is up");
    assert_eq!(
        health.failed(ticket, now, EVEN),
        Some(Transition::Out(Some(seconds(1))))
    );
    health
}

/// Out by its probes.
fn unreachable(now: Instant) -> Health {
    let mut health = Health::default();
    assert_eq!(health.probed(false, now + seconds(5)), None);
    assert_eq!(
        health.probed(false, now + seconds(5)),
        Some(Transition::Out(None))
    );
    health
}

#[test]
fn who_cannot_be_reached_is_out_for_a_growing_while() {
    let mut now = Instant::now();
    let mut health = out(now);
    for long in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert_eq!(health.wait(now), Some(seconds(long)));
        assert!(
            health
                .take(now + seconds(long) - Duration::from_millis(1))
                .is_none()
        );
        now += seconds(long);
        let trial = health.take(now).expect("the while is over");
        assert_eq!(
            health.failed(trial, now, EVEN),
            None,
            "no second line in the log"
        );
    }
}

#[test]
fn a_while_is_at_most_a_tenth_longer_or_shorter() {
    let now = Instant::now();
    for (chance, long) in [(0.0, 900), (0.25, 950), (0.75, 1050), (1.0, 1100)] {
        let mut health = Health::default();
        let ticket = health.take(now).expect("it is up");
        health.failed(ticket, now, chance);
        assert_eq!(health.wait(now), Some(Duration::from_millis(long)));
    }
}

#[test]
fn one_tries_at_a_time_and_brings_it_back() {
    let now = Instant::now();
    let mut health = out(now);
    let now = now + seconds(1);
    let trial = health.take(now).expect("the while is over");
    assert!(trial.is_on_trial());
    assert!(health.take(now).is_none());
    assert_eq!(health.wait(now), None);
    assert_eq!(
        health.answered(trial, StatusCode::NOT_FOUND, now, EVEN),
        Some(Transition::Back)
    );
    let next = health.take(now).expect("it is up");
    assert!(!next.is_on_trial());
    // It begins at the beginning.
    health.failed(next, now, EVEN);
    assert_eq!(health.wait(now), Some(seconds(1)));
}

#[test]
fn a_failure_is_an_answer_that_ends_a_trial_badly() {
    let now = Instant::now();
    let mut health = out(now);
    let trial = health.take(now + seconds(1)).expect("the while is over");
    let turn = health.answered(trial, StatusCode::BAD_GATEWAY, now + seconds(1), EVEN);
    assert_eq!(turn, None);
    assert_eq!(health.wait(now + seconds(1)), Some(seconds(2)));
}

#[test]
fn a_trial_without_a_verdict_is_free_for_another() {
    let now = Instant::now();
    let mut health = out(now);
    let now = now + seconds(1);
    let first = health.take(now).expect("the while is over");
    health.left(first);
    let second = health.take(now).expect("it is free");
    // Whoever has left once has no more say.
    health.left(first);
    assert_eq!(health.answered(first, StatusCode::OK, now, EVEN), None);
    assert!(health.take(now).is_none());
    assert_eq!(
        health.answered(second, StatusCode::OK, now, EVEN),
        Some(Transition::Back)
    );
}

#[test]
fn three_failures_in_a_row_take_it_out() {
    let now = Instant::now();
    let mut health = Health::default();
    let ticket = health.take(now).expect("it is up");
    let mut answered = |status: u16| {
        let status = StatusCode::from_u16(status).expect("a status");
        health.answered(ticket, status, now, EVEN)
    };
    for status in [
        500, 503, 200, 502, 504, 404, 500, 500, 501, 500, 500, 101, 503, 503,
    ] {
        assert_eq!(answered(status), None, "{status}");
    }
    assert_eq!(answered(500), Some(Transition::Out(Some(seconds(1)))));
    assert_eq!(health.wait(now), Some(seconds(1)));
}

#[test]
fn failures_are_counted_from_zero_after_it_is_back() {
    let now = Instant::now();
    let mut health = Health::default();
    let ticket = health.take(now).expect("it is up");
    health.answered(ticket, StatusCode::BAD_GATEWAY, now, EVEN);
    health.answered(ticket, StatusCode::BAD_GATEWAY, now, EVEN);
    health.failed(ticket, now, EVEN);
    let trial = health.take(now + seconds(1)).expect("the while is over");
    health.answered(trial, StatusCode::OK, now + seconds(1), EVEN);
    let ticket = health.take(now + seconds(1)).expect("it is up");
    assert_eq!(
        health.answered(ticket, StatusCode::BAD_GATEWAY, now + seconds(1), EVEN),
        None
    );
    assert!(health.take(now + seconds(1)).is_some());
}

#[test]
fn of_many_that_fail_at_once_one_counts() {
    let now = Instant::now();
    let mut health = Health::default();
    let tickets: Vec<_> = (0..100)
        .map(|_| health.take(now).expect("it is up"))
        .collect();
    let mut turns = tickets
        .iter()
        .filter_map(|&ticket| health.failed(ticket, now, EVEN));
    assert_eq!(turns.next(), Some(Transition::Out(Some(seconds(1)))));
    assert_eq!(turns.next(), None);
    assert_eq!(health.wait(now), Some(seconds(1)));
    // Nor do they count when it is on trial or back: they say nothing of what is now.
    let now = now + seconds(1);
    let trial = health.take(now).expect("the while is over");
    assert_eq!(health.failed(tickets[0], now, EVEN), None);
    assert_eq!(health.answered(tickets[1], StatusCode::OK, now, EVEN), None);
    assert_eq!(
        health.answered(trial, StatusCode::OK, now, EVEN),
        Some(Transition::Back)
    );
    assert_eq!(health.failed(tickets[2], now, EVEN), None);
    assert!(health.take(now).is_some());
}

#[test]
fn who_leaves_without_a_verdict_changes_nothing_while_it_is_up() {
    let now = Instant::now();
    let mut health = Health::default();
    let ticket = health.take(now).expect("it is up");
    health.left(ticket);
    assert_eq!(
        health.failed(ticket, now, EVEN),
        Some(Transition::Out(Some(seconds(1))))
    );
}

#[test]
fn two_failed_probes_in_a_row_take_it_out_until_one_succeeds() {
    let now = Instant::now();
    let mut health = Health::default();
    assert_eq!(health.probed(false, now), None);
    assert_eq!(health.probed(true, now), None);
    assert_eq!(health.probed(false, now), None);
    assert!(health.take(now).is_some());
    let next = now + seconds(5);
    assert_eq!(health.probed(false, next), Some(Transition::Out(None)));
    assert_eq!(health.wait(now), Some(seconds(5)));
    assert_eq!(
        health.probed(false, next),
        None,
        "no second line in the log"
    );
    // However long it is: only a probe decides.
    assert!(health.take(now + seconds(3600)).is_none());
    assert_eq!(health.probed(true, next), Some(Transition::Back));
    assert!(health.take(now).is_some_and(|ticket| !ticket.is_on_trial()));
}

#[test]
fn a_good_probe_brings_back_whom_clients_have_taken_out() {
    let now = Instant::now();
    let mut health = out(now);
    assert_eq!(health.probed(true, now), Some(Transition::Back));
    assert!(health.take(now).is_some());
}

#[test]
fn failures_are_counted_from_zero_after_a_good_probe_as_well() {
    let now = Instant::now();
    let mut health = Health::default();
    let ticket = health.take(now).expect("it is up");
    for _ in 0..ERRORS - 1 {
        health.answered(ticket, StatusCode::BAD_GATEWAY, now, EVEN);
    }
    health.failed(ticket, now, EVEN);
    health.probed(true, now);
    let ticket = health.take(now).expect("it is up");
    health.answered(ticket, StatusCode::BAD_GATEWAY, now, EVEN);
    assert!(health.take(now).is_some());
}

#[test]
fn probes_decide_over_one_that_is_out_or_on_trial() {
    let now = Instant::now();
    let mut health = out(now);
    let trial = health.take(now + seconds(1)).expect("the while is over");
    health.probed(false, now);
    assert_eq!(health.probed(false, now), None, "it was out");
    health.left(trial);
    assert_eq!(health.answered(trial, StatusCode::OK, now, EVEN), None);
    assert!(health.take(now + seconds(3600)).is_none());
}

#[test]
fn clients_do_not_bring_back_whom_probes_have_taken_out() {
    let now = Instant::now();
    let mut health = Health::default();
    let ticket = health.take(now).expect("it is up");
    health.probed(false, now);
    health.probed(false, now);
    assert_eq!(health.answered(ticket, StatusCode::OK, now, EVEN), None);
    assert_eq!(health.failed(ticket, now, EVEN), None);
    assert!(health.take(now + seconds(3600)).is_none());
    assert_eq!(unreachable(now).wait(now + seconds(5)), None);
}
