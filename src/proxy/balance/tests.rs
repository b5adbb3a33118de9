use hyper::header::HeaderValue;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

/// Upstreams without sockets: a weight, places that are taken, a turn.
struct Row {
    weights: Vec<u32>,
    active: Vec<usize>,
    turns: Vec<Turn>,
    random: StdRng,
}

impl Row {
    fn new(weights: &[u32]) -> Self {
        Self {
            weights: weights.to_vec(),
            active: vec![0; weights.len()],
            turns: weights.iter().map(|_| Turn::default()).collect(),
            random: StdRng::seed_from_u64(7),
        }
    }

    /// Chooses among those for which `may` holds.
    fn choose(
        &mut self,
        balance: &Balance,
        key: Option<u64>,
        may: impl Fn(usize) -> bool,
    ) -> usize {
        let numbers: Vec<usize> = (0..self.weights.len())
            .filter(|&number| may(number))
            .collect();
        let turns = self.turns.iter_mut().enumerate();
        let mut candidates: Vec<_> = turns
            .filter(|(number, _)| may(*number))
            .map(|(number, turn)| Candidate {
                weight: self.weights[number],
                active: self.active[number],
                identity: hash(format!("upstream-{number}:80").as_bytes()),
                turn,
            })
            .collect();
        let chosen = balance.choose(&mut candidates, key, &mut self.random);
        numbers[chosen.expect("there is one")]
    }

    /// How often each is chosen.
    fn counts(
        &mut self,
        balance: &Balance,
        picks: usize,
        may: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let mut counts = vec![0; self.weights.len()];
        for _ in 0..picks {
            counts[self.choose(balance, None, &may)] += 1;
        }
        counts
    }

    fn by_key(&mut self, key: u64, may: impl Fn(usize) -> bool) -> usize {
        self.choose(&Balance::Hash(HashBy::Ip), Some(key), may)
    }
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for &(name, value) in lines {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn a_thousand_in_turn_are_spread_evenly() {
    let mut row = Row::new(&[1, 1, 1]);
    assert_eq!(
        row.counts(&Balance::RoundRobin, 1000, |_| true),
        [334, 333, 333]
    );
}

#[test]
fn the_turns_of_the_heavy_are_not_in_a_row() {
    // The example that nginx gives for its algorithm.
    let mut row = Row::new(&[5, 1, 1]);
    let turns: Vec<_> = (0..7)
        .map(|_| row.choose(&Balance::RoundRobin, None, |_| true))
        .collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn who_is_left_out_does_not_distort_the_spread_of_the_others() {
    let mut row = Row::new(&[1, 1, 1, 1]);
    row.counts(&Balance::RoundRobin, 3, |_| true);
    // Going to "the next one" instead would give the third all that the second does not get.
    let counts = row.counts(&Balance::RoundRobin, 300, |number| number != 1);
    assert_eq!(counts[1], 0);
    assert!(
        [0, 2, 3]
            .iter()
            .all(|&number| (99..=101).contains(&counts[number])),
        "{counts:?}"
    );
    let counts = row.counts(&Balance::RoundRobin, 400, |_| true);
    assert!(
        counts.iter().all(|count| (99..=101).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn nobody_to_choose_from_is_nobody() {
    for balance in ["round-robin", "least-connections", "random", "hash:ip"] {
        let balance: Balance = balance.parse().expect("valid");
        let chosen = balance.choose(&mut [], Some(1), &mut StdRng::seed_from_u64(1));
        assert_eq!(chosen, None, "{balance}");
    }
}

#[test]
fn with_equal_load_the_fewest_connections_are_in_turn() {
    let mut row = Row::new(&[1, 1, 1]);
    assert_eq!(
        row.counts(&Balance::LeastConnections, 9, |_| true),
        [3, 3, 3]
    );
}

#[test]
fn chance_follows_the_weights() {
    let mut row = Row::new(&[1, 3, 6]);
    let counts = row.counts(&Balance::Random, 10_000, |_| true);
    for (count, weight) in counts.iter().zip([1, 3, 6]) {
        assert!(count.abs_diff(weight * 1000) < 200, "{counts:?}");
    }
    let counts = row.counts(&Balance::Random, 1000, |number| number != 1);
    assert_eq!(counts[1], 0);
}

#[test]
fn keys_follow_the_weights() {
    let mut row = Row::new(&[1, 3, 6]);
    let mut counts = [0usize; 3];
    for client in 0..10_000u32 {
        counts[row.by_key(hash(&client.to_be_bytes()), |_| true)] += 1;
    }
    for (count, weight) in counts.iter().zip([1, 3, 6]) {
        assert!(count.abs_diff(weight * 1000) < 200, "{counts:?}");
    }
}

#[test]
fn a_key_has_the_same_upstream_in_every_process() {
    let mut row = Row::new(&[1, 2, 1, 1]);
    let chosen: Vec<_> = (0..16u64)
        .map(|key| row.by_key(hash(&key.to_be_bytes()), |_| true))
        .collect();
    // Computed from the definitions in another language.
    assert_eq!(chosen, [1, 1, 1, 3, 2, 1, 3, 2, 0, 0, 3, 1, 1, 1, 0, 0]);
}

#[test]
fn the_hash_is_fnv_1a() {
    // From the test vectors of its authors.
    assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn a_request_is_hashed_by_what_is_asked_for() {
    let client = IpAddr::from([192, 0, 2, 1]);
    let key = |balance: &str, lines: &[(&'static str, &'static str)]| {
        let balance: Balance = balance.parse().expect("valid");
        balance.key(client, &headers(lines)).expect("it is hashed")
    };
    let by_address = hash(&[192, 0, 2, 1]);
    assert_eq!(key("hash:ip", &[("x-user", "a")]), by_address);
    assert_eq!(key("hash:X-User", &[("x-user", "a")]), hash(b"a"));
    assert_eq!(
        key("hash:X-User", &[("x-user", "a"), ("x-user", "b")]),
        hash(b"a, b")
    );
    assert_eq!(key("hash:X-User", &[]), by_address);
    assert_eq!(key("hash:X-User", &[("x-user", "")]), by_address);
    for (cookie, value) in [
        ("id=1", Some("1")),
        ("a=b; id=1; c=d", Some("1")),
        ("id=a=b", Some("a=b")),
        ("a=b;id=1", Some("1")),
        ("ID=1; id=2", Some("2")),
        ("xid=1; id=; id=3", Some("3")),
        ("id=\"q\"", Some("\"q\"")),
        ("id", None),
        ("xid=1", None),
        ("id=", None),
    ] {
        let expected = value.map_or(by_address, |value| hash(value.as_bytes()));
        assert_eq!(
            key("hash:cookie:id", &[("cookie", cookie)]),
            expected,
            "{cookie}"
        );
    }
    let lines = [("cookie", "a=b"), ("cookie", "id=1")];
    assert_eq!(key("hash:cookie:id", &lines), hash(b"1"));
}

#[test]
fn an_address_has_one_key() {
    let balance = Balance::Hash(HashBy::Ip);
    let key = |ip: &str| balance.key(ip.parse().expect("an address"), &HeaderMap::new());
    assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
    assert_ne!(key("2001:db8::1"), key("2001:db8::2"));
    assert_eq!(
        Balance::RoundRobin.key(IpAddr::from([1; 4]), &HeaderMap::new()),
        None
    );
}

#[test]
fn a_balance_is_read_and_written() {
    for text in [
        "round-robin",
        "least-connections",
        "random",
        "hash:ip",
        "hash:cookie:SessionId",
        "hash:header:x-user",
    ] {
        assert_eq!(text.parse::<Balance>().expect(text).to_string(), text);
    }
    assert_eq!(
        "hash:X-User"
            .parse::<Balance>()
            .expect("a header")
            .to_string(),
        "hash:header:x-user"
    );
    for (text, why) in [
        ("roundrobin", "'roundrobin' is no way to balance"),
        ("hash", "'hash' is no way to balance"),
        ("hash:", "'' is not the name of a header"),
        ("hash:cookie", "a name is missing: hash:cookie:NAME"),
        ("hash:cookie:", "'' is not the name of a cookie"),
        ("hash:header:a b", "'a b' is not the name of a header"),
        ("hash:query:a", "'query' cannot be hashed"),
    ] {
        let error = text.parse::<Balance>().expect_err(text);
        assert!(error.starts_with(why), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn each_gets_exactly_its_weight(weights in vec(1u32..40, 1..8)) {
        let mut row = Row::new(&weights);
        let total: u32 = weights.iter().sum();
        for _ in 0..3 {
            let counts = row.counts(&Balance::RoundRobin, total as usize, |_| true);
            prop_assert!(counts.iter().zip(&weights).all(|(&count, &weight)| count == weight as usize));
        }
    }

    #[test]
    fn one_that_is_gone_moves_only_its_own_keys(
        weights in vec(1u32..1000, 2..8),
        gone in any::<prop::sample::Index>(),
        keys in vec(any::<u64>(), 50),
    ) {
        let gone = gone.index(weights.len());
        let mut row = Row::new(&weights);
        for key in keys {
            let before = row.by_key(key, |_| true);
            let after = row.by_key(key, |number| number != gone);
            prop_assert!(before == after || before == gone);
        }
    }

    #[test]
    fn nobody_has_more_than_another_would_with_one_more(weights in vec(1u32..20, 1..8), picks in 1usize..200) {
        let mut row = Row::new(&weights);
        for _ in 0..picks {
            let chosen = row.choose(&Balance::LeastConnections, None, |_| true);
            row.active[chosen] += 1;
            for (&active, &weight) in row.active.iter().zip(&weights) {
                for (&other, &others_weight) in row.active.iter().zip(&weights) {
                    prop_assert!(active * others_weight as usize <= (other + 1) * weight as usize);
                }
            }
        }
    }

    #[test]
    fn who_has_the_fewest_fills_up_first(active in vec(0usize..100, 2..6), picks in 0usize..300) {
        let mut row = Row::new(&vec![1; active.len()]);
        row.active.clone_from(&active);
        for _ in 0..picks {
            let chosen = row.choose(&Balance::LeastConnections, None, |_| true);
            prop_assert_eq!(row.active[chosen], *row.active.iter().min().expect("not empty"));
            row.active[chosen] += 1;
        }
    }
}
