use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn settings(max_connection_age: Option<Duration>) -> Settings {
    Settings {
        ping_interval: Duration::from_secs(30),
        max_message_size: 1 << 20,
        overload: Overload::Disconnect,
        accept_publish: false,
        compress: false,
        max_publish_rate: None,
        max_connection_age,
    }
}

#[test]
fn an_age_goes_on_and_those_who_are_past_it_do_not_leave_together() {
    assert_eq!(settings(None).age_left(HOUR), None);
    let settings = settings(Some(HOUR));
    for _ in 0..100 {
        let left = settings.age_left(HOUR / 2).expect("there is a limit");
        assert!((HOUR * 4 / 10..=HOUR * 6 / 10).contains(&left), "{left:?}");
    }
    let mut left: Vec<_> = (0..100)
        .map(|_| settings.age_left(HOUR * 9).expect("there is a limit"))
        .collect();
    left.sort_unstable();
    assert!(left[99] <= HOUR / 5, "{left:?}");
    assert!(left[99] - left[0] > HOUR / 10, "{left:?}");
}

#[test]
fn those_who_are_sent_away_in_one_moment_are_told_pauses_of_their_own() {
    let ender = Ender::new(&Stop::new(HOUR));
    let child = ender.child();
    ender.end_each(Farewell::replaced);
    ender.end(Farewell::new(CloseCode::Away, "too late"));
    assert!(child.token().is_cancelled());
    let farewells = (0..100).map(|_| child.farewell());
    let mut pauses: Vec<_> = farewells
        .map(|farewell| {
            assert_eq!(farewell.code, CloseCode::Restart);
            assert_eq!(comeback::pause(&farewell.reason), farewell.come_back);
            farewell.come_back.expect("it may come back")
        })
        .collect();
    pauses.sort_unstable();
    assert!(
        pauses[99] - pauses[0] > Duration::from_secs(1),
        "{pauses:?}"
    );
}
