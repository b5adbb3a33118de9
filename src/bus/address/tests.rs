use super::*;

fn address(text: &str) -> Address {
    Address::parse(text, Use::Consume).expect(text)
}

fn at(text: &str, route: &str, path: &str) -> String {
    let pattern = Pattern::new(route, Vec::new()).expect("a pattern");
    let address = address(text);
    address.check_pattern(&pattern).expect("it fits");
    let key = pattern.key(path, None).expect("a key");
    address.of_stream(&pattern, &key).to_string()
}

#[test]
fn each_bus_has_its_own_url() {
    for text in [
        "redis://localhost:6379/0?channel=events",
        "rediss://h?pattern=e*",
        "redis+stream://h/3?stream=s",
        "nats://h:4222/a.b",
        "nats://h/a.*.b.>",
        "nats+jetstream://h/S?subject=a.*",
        "zmq+tcp://h:5556?topic=t",
        "-",
    ] {
        assert!(is_bus(text), "{text}");
        assert_eq!(address(text).to_string(), text);
    }
    assert!(!is_bus("ws://h/redis://") && !is_bus("https://h/"));
    assert_eq!(port(&address("nats+jetstream://h/a").url), Some(4222));
    assert_eq!(port(&address("redis+stream://h?stream=s").url), Some(6379));
    let stream = |text: &str| address(&format!("redis+stream://h{text}?stream=s"));
    assert!(stream("").is_same_place(&stream(":6379")));
    assert!(!stream("").is_same_place(&stream(":6380")));
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    let shown = address("redis+stream://me:s3cret@h/?stream=s&field=f").to_string();
    assert_eq!(shown, "redis+stream://h/?stream=s");
    for text in [
        "redis://me:s3cret@h/",
        "redis://me:s3cret@h:x/",
        "amqp://me:s3cret@h/q",
        "redis://me:s3cret@h/events?channel=c",
    ] {
        let error = Address::parse(text, Use::Both).expect_err(text);
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn what_cannot_be_used_so_is_refused() {
    for (text, usage, why) in [
        ("redis://h", Use::Consume, "which channel"),
        ("redis://h?channel=a&pattern=b", Use::Consume, "exclude"),
        ("redis://h?chanel=a", Use::Consume, "'chanel=' is not known"),
        ("redis://h?channel=a&channel=b", Use::Consume, "twice"),
        ("redis://h?pattern=b", Use::Forward, "one channel"),
        ("redis://h/events?channel=a", Use::Consume, "database"),
        ("redis+stream://h", Use::Both, "which stream"),
        (
            "redis+stream://h?stream=s&maxlen=0",
            Use::Both,
            "number from 1",
        ),
        ("nats://h", Use::Consume, "not a subject"),
        ("nats://h/a..b", Use::Consume, "not a subject"),
        ("nats://h/a.>", Use::Forward, "one subject"),
        ("nats+jetstream://h", Use::Consume, "name of a stream"),
        ("zmq+tcp://h", Use::Consume, "HOST:PORT"),
        ("zmq+tcp://h:1?bind=perhaps", Use::Consume, "yes or no"),
        ("zmq+tcp://h:1", Use::Both, "--forward and --consume"),
        ("-", Use::Both, "no bus"),
        ("https://h/", Use::Consume, "no bus"),
        ("amqp://h/q", Use::Forward, "no bus that is known"),
        ("nats:///a", Use::Consume, "no host"),
    ] {
        let error = Address::parse(text, usage).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn the_star_of_a_route_is_carried_over() {
    for (text, expected) in [
        (
            "redis://h?channel=live:*",
            "redis://h?channel=live:a/caf%C3%A9%201.2",
        ),
        (
            "redis+stream://h?stream=*",
            "redis+stream://h?stream=a/caf%C3%A9%201.2",
        ),
        ("nats://h/live.*", "nats://h/live.a.caf%C3%A9%201%2E2"),
        (
            "nats+jetstream://h/S?subject=x.*",
            "nats+jetstream://h/S?subject=x.a.caf%25C3%25A9%25201%252E2",
        ),
        (
            "zmq+tcp://h:1?topic=*",
            "zmq+tcp://h:1?topic=a/caf%C3%A9%201.2",
        ),
    ] {
        assert_eq!(at(text, "/live/*", "/live/a/caf%C3%A9%201.2"), expected);
    }
    let pattern = Pattern::new("/live/*", Vec::new()).expect("a pattern");
    let fits = address("redis://h?channel=live").check_pattern(&pattern);
    assert!(fits.is_err_and(|why| why.contains("end in *")));
    assert_eq!(
        at("redis://h?channel=c*", "/events", "/events"),
        "redis://h?channel=c*"
    );
}
