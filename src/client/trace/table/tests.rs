use super::*;

fn leg(address: &str, arrived: Option<u64>, end: Option<End>) -> Leg {
    Leg {
        instance: "0000000000001".to_owned(),
        origin: "0000000000001".to_owned(),
        address: address.to_owned(),
        path: "/events".to_owned(),
        received: 0,
        answered: 0,
        arrived,
        transport: end.is_none().then(|| "hop".to_owned()),
        from: None,
        offset: None,
        uncertainty: None,
        end,
        reason: None,
    }
}

/// What stands in each line, without what only pads it.
fn words(legs: &[Leg]) -> Vec<String> {
    let text = table("E-1", "http://h/", legs);
    let lines = text.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.join(" ")
    });
    lines.collect()
}

#[test]
fn a_way_is_told_in_its_order_by_one_clock() {
    let clocks = |leg, offset, uncertainty| Leg {
        offset: Some(offset),
        uncertainty: Some(uncertainty),
        ..leg
    };
    let legs = [
        clocks(leg("c:1", Some(5_000), None), 999_999, 7),
        // Its clock is a second ahead.
        clocks(leg("b:1", Some(1_003_500), None), 1_000_000, 120),
        // And this one half a second behind that.
        clocks(leg("a:1", Some(503_000), Some(End::Origin)), -500_000, 3),
    ];
    assert_eq!(
        words(&legs),
        [
            "E-1 at http://h/",
            "1 a:1/events 0000000000001 - - 0.00 ms since began here",
            "2 b:1/events 0000000000001 hop 0.50 ms 0.50 ms since",
            "3 c:1/events 0000000000001 hop 1.50 ±0.12 ms 2.00 ms since",
            "2.00 ±0.12 ms over 2 links, from where it got its id",
        ]
    );
}

#[test]
fn what_is_not_known_is_not_made_up() {
    let away = Leg {
        from: Some("ws://up/".to_owned()),
        reason: Some("the link is down: connection refused".to_owned()),
        ..leg("b:1", None, Some(End::Away))
    };
    assert_eq!(
        words(&[leg("c:1", Some(5), None), away]),
        [
            "E-1 at http://h/",
            "1 b:1/events 0000000000001 - - - came with the stream's past from ws://up/, which does not tell more: the link is down: connection refused",
            "2 c:1/events 0000000000001 hop - 0.00 ms since",
            "0.00 ms over 1 link, from the first that is known",
        ]
    );
}

#[test]
fn nothing_that_a_stranger_says_reaches_a_terminal_raw_or_overflows() {
    let strange = "\u{1b}[2J\n";
    let hostile = |arrived| Leg {
        instance: strange.to_owned(),
        path: strange.to_owned(),
        transport: Some(strange.to_owned()),
        from: Some(strange.to_owned()),
        offset: Some(i64::MIN),
        uncertainty: Some(u64::MAX),
        reason: Some(strange.to_owned()),
        ..leg(strange, Some(arrived), Some(End::Away))
    };
    let numbers = [i64::MAX as u64, 0, 1, u64::MAX, 0];
    let text = table("E-1", "http://h/", &numbers.map(hostile));
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(text.lines().count(), 7, "{text:?}");
}

#[test]
fn an_end_that_is_not_known_here_is_told_as_it_was() {
    let told = Leg {
        reason: Some("it was lent".to_owned()),
        ..leg("a:1", Some(5), Some(End::Other))
    };
    assert!(words(&[told])[1].ends_with("it was lent"));
    let silent = words(&[leg("a:1", Some(5), Some(End::Other))]);
    assert!(silent[1].ends_with("it is not told why there is no more"));
}
