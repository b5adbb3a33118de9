use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

/// When each of these moments is due, behind the first.
fn dues(pace: &mut Pace, moments: &[u64], start: Instant) -> Vec<Duration> {
    let mut now = start;
    let mut dues = Vec::new();
    for moment in moments {
        while let Some(due) = pace.due(*moment, now) {
            assert!(due > now, "it would not be asked again before");
            now = due;
        }
        dues.push(now - start);
    }
    dues
}

fn secs(seconds: &[f64]) -> Vec<Duration> {
    seconds
        .iter()
        .copied()
        .map(Duration::from_secs_f64)
        .collect()
}

#[test]
fn pauses_are_as_they_were_or_as_it_is_said() {
    let moments = [5 * SECOND, 6 * SECOND, 6 * SECOND, 9 * SECOND];
    for (speed, expected) in [
        (Speed::ORIGINAL, [0.0, 1.0, 1.0, 4.0]),
        (Speed::Thousandths(10_000), [0.0, 0.1, 0.1, 0.4]),
        (Speed::Thousandths(500), [0.0, 2.0, 2.0, 8.0]),
        (Speed::Max, [0.0; 4]),
    ] {
        let mut pace = Pace::new(speed);
        assert_eq!(
            dues(&mut pace, &moments, Instant::now()),
            secs(&expected),
            "{speed}"
        );
    }
}

#[test]
fn what_is_out_of_order_or_has_no_moment_comes_with_what_is_before_it() {
    let mut pace = Pace::new(Speed::ORIGINAL);
    let moments = [0, 5 * SECOND, 3 * SECOND, 0, 6 * SECOND, 1];
    let expected = secs(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(dues(&mut pace, &moments, Instant::now()), expected);
}

#[test]
fn a_round_begins_behind_a_pause_like_those_in_it() {
    let start = Instant::now();
    let mut pace = Pace::new(Speed::Thousandths(2_000));
    let moments = [10 * SECOND, 12 * SECOND, 14 * SECOND];
    assert_eq!(dues(&mut pace, &moments, start), secs(&[0.0, 1.0, 2.0]));
    pace.begin_again();
    let now = start + Duration::from_secs(2);
    assert_eq!(dues(&mut pace, &moments, now), secs(&[1.0, 2.0, 3.0]));
    // Of one event alone a second, at its speed: it is not sent without end.
    let mut pace = Pace::new(Speed::Thousandths(2_000));
    assert_eq!(dues(&mut pace, &[SECOND], start), secs(&[0.0]));
    pace.begin_again();
    assert_eq!(dues(&mut pace, &[SECOND], start), secs(&[0.5]));
}

#[test]
fn who_goes_on_waits_for_what_is_left() {
    let mut pace = Pace::new(Speed::ORIGINAL);
    pace.pass(SECOND);
    pace.pass(4 * SECOND);
    let now = Instant::now();
    let first = pace.due(6 * SECOND, now).expect("it is not due");
    assert!(first <= now + Duration::from_secs(2));
}

proptest! {
    #[test]
    fn time_never_goes_back(
        moments in proptest::collection::vec(any::<u64>(), 0..50),
        speed in 1..=u64::from(u32::MAX),
    ) {
        let mut pace = Pace::new(Speed::Thousandths(speed));
        let now = Instant::now();
        for moment in moments {
            if let Some(due) = pace.due(moment, now) {
                prop_assert!(due > now);
            }
        }
        pace.begin_again();
    }
}

#[test]
fn an_event_that_came_as_history_happened_before() {
    let event = |time, arrived| {
        let taken = Taken {
            time,
            ..crate::event::Payload::text("x").into()
        };
        moment(&Recorded::Event {
            arrived,
            event: taken,
        })
    };
    assert_eq!(event(Some(5), 100), 5);
    assert_eq!(event(Some(500), 100), 100, "a clock that is ahead");
    assert_eq!(event(None, 100), 100);
}
