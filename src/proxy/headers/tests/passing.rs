//! Requests that have come through other proxies.

use super::*;

#[test]
fn who_has_asked_is_the_last_one_that_is_not_trusted() {
    let rules = Rules {
        trust: vec!["10.0.0.0/8".parse().expect("a network")],
        rewrite_host: false,
    };
    let asker = |client: &str, name: &'static str, value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        let asker = rules.asker(&headers, client.parse().expect("an address"));
        asker.map_or("nobody".to_owned(), |asker| asker.to_string())
    };
    for (client, name, value, expected) in [
        ("192.0.2.1", "x-forwarded-for", "198.51.100.1", "nobody"),
        (
            "10.0.0.1",
            "x-forwarded-for",
            "198.51.100.1",
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            "x-forwarded-for",
            "made.up, 198.51.100.2, 10.0.0.2",
            "198.51.100.2",
        ),
        (
            "10.0.0.1",
            "x-forwarded-for",
            "10.0.0.3, 10.0.0.2",
            "10.0.0.3",
        ),
        ("10.0.0.1", "x-forwarded-for", "unknown", "nobody"),
        (
            "10.0.0.1",
            "x-forwarded-for",
            "198.51.100.1:99",
            "198.51.100.1",
        ),
        (
            "10.0.0.1",
            "forwarded",
            "for=192.0.2.9, for=\"[2001:db8::1]:4711\";proto=https",
            "2001:db8::1",
        ),
        ("10.0.0.1", "forwarded", "proto=https", "nobody"),
    ] {
        assert_eq!(asker(client, name, value), expected, "{value}");
    }
}

#[test]
fn a_request_that_goes_round_is_told_from_one_that_passes_many() {
    let through = |count: usize| {
        let passes = vec!["1.1 wsevent"; count].join(", ");
        let request = Request::get("/").header("host", "a").header("via", passes);
        let (head, ()) = request.body(()).expect("a request").into_parts();
        check(&head).map_err(|refusal| refusal.status.as_u16())
    };
    assert_eq!(through(16), Ok(()));
    assert_eq!(through(17), Err(508));
}
