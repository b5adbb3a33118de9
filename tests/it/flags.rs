//! Flags and their variables: what they do, and which wins.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, Process, command, output};

/// The path at which a hop says that it serves.
fn path(hop: &Hop) -> &str {
    let (_, rest) = hop.url.split_once("://").expect("a URL");
    &rest[rest.find('/').expect("a path")..]
}

#[tokio::test]
async fn address_and_path_may_be_said_in_one_flag_or_in_two() {
    for (args, path_served) in [
        (&["--serve-address", "127.0.0.1:0"][..], "/events"),
        (
            &["--serve-address", "127.0.0.1:0", "--serve-path", "one/two"],
            "/one/two",
        ),
        (
            &["--serve-address", "127.0.0.1:0", "--serve-path", "/one"],
            "/one",
        ),
        (
            &["--serve-address", "127.0.0.1:0", "--serve-path", "/"],
            "/",
        ),
        (&["--serve", "127.0.0.1:0"], "/events"),
        (&["--serve", "127.0.0.1:0/one/two"], "/one/two"),
        (&["--serve", "ws://127.0.0.1:0/one"], "/one"),
        (&["--serve", "127.0.0.1:0/"], "/"),
        (&["--serve", "127.0.0.1:0/a%20b"], "/a%20b"),
    ] {
        let hop = Hop::start(args).await;
        assert_eq!(path(&hop), path_served, "{args:?}");
        assert_eq!(
            hop.url,
            format!("ws://{}{path_served}", hop.address),
            "{args:?}"
        );
        Client::connect(hop.address)
            .await
            .upgraded(path_served)
            .await;
    }
}

#[tokio::test]
async fn localhost_is_every_address_of_that_name_with_one_port() {
    let hop = Hop::start(&["--serve-address", "localhost:0"]).await;
    let port = hop.address.port();
    assert_eq!(hop.url, format!("ws://localhost:{port}/events"));
    hop.subscribe().await;
    for line in hop.log.all("listening") {
        let address = line.field("address");
        assert!([format!("127.0.0.1:{port}"), format!("[::1]:{port}")].contains(&address));
        let address = address.parse().expect("an address");
        Client::connect(address).await.upgraded("/events").await;
    }
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_where_to_serve() {
    let address = ("WSEVENT_SERVE_ADDRESS", "127.0.0.1:0");
    let other = ("WSEVENT_SERVE_ADDRESS", "192.0.2.1:1");
    let path_two = ("WSEVENT_SERVE_PATH", "two");
    let serve = ("WSEVENT_SERVE", "127.0.0.1:0/three");
    let other_serve = ("WSEVENT_SERVE", "192.0.2.1:1/three");
    let local = "127.0.0.1:0";
    for (args, env, expected) in [
        (&[][..], &[address][..], "/events"),
        (&[], &[address, path_two], "/two"),
        (&["--serve-path", "one"], &[address, path_two], "/one"),
        (&["--serve-address", local], &[other, path_two], "/two"),
        (
            &["--serve-address", local, "--serve-path", "one"],
            &[other, path_two],
            "/one",
        ),
        (&[], &[serve], "/three"),
        (&[], &[other, path_two, serve], "/three"),
        (&["--serve", "127.0.0.1:0/one"], &[other_serve], "/one"),
        (&["--serve", "127.0.0.1:0/one"], &[other, path_two], "/one"),
        (&["--serve-address", local], &[other_serve], "/events"),
        (
            &["--serve-address", local, "--serve-path", "one"],
            &[other_serve],
            "/one",
        ),
        (&["--serve-path", "one"], &[address, other_serve], "/one"),
    ] {
        let hop = Hop::start_with(args, env).await;
        assert_eq!(path(&hop), expected, "{args:?} {env:?}");
        assert!(hop.address.ip().is_loopback(), "{args:?} {env:?}");
    }
}

/// The URLs that a hop tries to reach, in alphabetical order; nobody is there.
async fn consumed(args: &[&str], env: &[(&str, &str)], count: usize) -> Vec<String> {
    let hop = Hop::start_with(args, env).await;
    hop.logged_times("cannot reach upstream, trying again", count)
        .await;
    let lines = hop.log.all("cannot reach upstream, trying again");
    let mut urls: Vec<_> = lines.iter().map(|line| line.field("url")).collect();
    urls.sort();
    urls
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_what_to_consume() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let address = address.as_str();
    let url = |path: &str| format!("ws://{address}/{path}");
    let (one, two) = (url("1"), url("2"));
    let (one, two) = (one.as_str(), two.as_str());
    let both = format!("{one}\n{two}");
    let e_one = ("WSEVENT_CONSUME", one);
    let e_both = ("WSEVENT_CONSUME", both.as_str());
    let e_address = ("WSEVENT_CONSUME_ADDRESS", address);
    let e_path = ("WSEVENT_CONSUME_PATH", "p");
    let events = url("events");
    let (events, p, q) = (events.as_str(), &*url("p"), &*url("q"));
    for (args, env, expected) in [
        (
            &["--consume", one, "--consume", two][..],
            &[][..],
            &[one, two][..],
        ),
        (&["--consume-address", address], &[], &[events]),
        (
            &["--consume-address", address, "--consume-path", "q"],
            &[],
            &[q],
        ),
        (
            &["--consume-address", address, "--consume-path", "/q"],
            &[],
            &[q],
        ),
        (
            &["--consume", one, "--consume-address", address],
            &[],
            &[one, events],
        ),
        (&[], &[e_one], &[one]),
        (&[], &[e_both], &[one, two]),
        (&[], &[e_address], &[events]),
        (&[], &[e_address, e_path], &[p]),
        (&[], &[e_one, e_address, e_path], &[one, p]),
        (&["--consume", two], &[e_one], &[two]),
        (&["--consume", two], &[e_address, e_path], &[two]),
        (&["--consume-address", address], &[e_both], &[events]),
        (&["--consume-address", address], &[e_path], &[p]),
        (&["--consume-path", "q"], &[e_address, e_path], &[q]),
    ] {
        let got = consumed(args, env, expected.len()).await;
        assert_eq!(got, expected, "{args:?} {env:?}");
    }
}

/// Whether a hop produces events beside those of its source.
async fn produces(args: &[&str], env: &[(&str, &str)]) -> bool {
    let upstream = Upstream::new();
    let url = upstream.url();
    let env = [
        env,
        &[
            ("WSEVENT_CONSUME", url.as_str()),
            ("WSEVENT_PRODUCE_RATE", "max"),
        ],
    ]
    .concat();
    let hop = Hop::start_with(args, &env).await;
    let mut link = upstream.accept().await;
    let mut subscriber = hop.subscribe().await;
    let consumed = Message::text("consumed");
    // A generator without a limit comes in between, long before so many have come.
    for _ in 0..200 {
        link.send(consumed.clone()).await;
        if subscriber.message().await != consumed {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_whether_to_produce() {
    let yes = ("WSEVENT_PRODUCE", "true");
    let no = ("WSEVENT_NO_PRODUCE", "true");
    for (args, env, expected) in [
        (&[][..], &[][..], false),
        (&["--produce"], &[], true),
        (&["--no-produce"], &[], false),
        (&[], &[yes], true),
        (&[], &[("WSEVENT_PRODUCE", "false")], false),
        (&[], &[no], false),
        (&["--produce"], &[no], true),
        (&["--no-produce"], &[yes], false),
    ] {
        assert_eq!(produces(args, env).await, expected, "{args:?} {env:?}");
    }
}

#[tokio::test]
async fn single_values_come_from_the_environment_unless_a_flag_says_otherwise() {
    let size = ("WSEVENT_PRODUCE_SIZE", "100");
    let rate = ("WSEVENT_PRODUCE_RATE", "100");
    for (args, env, expected) in [
        (&[][..], &[size, rate][..], 100),
        (&["--produce-size", "50"], &[size, rate], 50),
        (
            &["--produce-rate", "max"],
            &[size, ("WSEVENT_PRODUCE_RATE", "0.001")],
            100,
        ),
    ] {
        let hop = Hop::start_with(args, env).await;
        let mut subscriber = hop.subscribe().await;
        assert_eq!(
            subscriber.message().await.len(),
            expected,
            "{args:?} {env:?}"
        );
    }
}

#[tokio::test]
async fn an_empty_variable_is_as_good_as_none() {
    let env = [
        ("WSEVENT_SERVE", ""),
        ("WSEVENT_SERVE_PATH", ""),
        ("WSEVENT_CONSUME", ""),
        ("WSEVENT_CONSUME_ADDRESS", ""),
        ("WSEVENT_PRODUCE_SIZE", ""),
        ("WSEVENT_HISTORY", ""),
        ("WSEVENT_NO_PRODUCE", ""),
        ("WSEVENT_SERVE_ADDRESS", "127.0.0.1:0"),
    ];
    let hop = Hop::start_with(&[], &env).await;
    assert_eq!(path(&hop), "/events");
    assert!(hop.subscribe().await.message().await.is_text());
}

#[tokio::test]
async fn the_log_is_for_people_or_for_programs_and_as_long_as_wanted() {
    let hop = Hop::start_with(&["--log-level", "wsevent=info"], &[("RUST_LOG", "off")]).await;
    assert_eq!(hop.log.lines()[0].field("level"), "INFO");
    let mut json = command(&["--serve", "127.0.0.1:0"]);
    json.env("WSEVENT_LOG_FORMAT", "json");
    Process::spawn(json).logged("listening").await;
    let mut human = command(&["--serve", "127.0.0.1:0", "--log-format", "human"]);
    human.env("WSEVENT_LOG_FORMAT", "json");
    let process = Process::spawn(human);
    let line = process.log.first().await.text;
    assert!(line.contains("INFO listening address=127.0.0.1:"), "{line}");
    assert!(
        !line.contains('\u{1b}'),
        "colours are for terminals: {line:?}"
    );
}

#[tokio::test]
async fn a_level_silences_the_log_wherever_it_comes_from() {
    let port = ReservedPort::new();
    let url = format!("ws://{}", port.address());
    for (args, env) in [
        (&["--log-level", "error"][..], &[][..]),
        (&[], &[("RUST_LOG", "error")]),
        (
            &[],
            &[("WSEVENT_LOG_LEVEL", "error"), ("RUST_LOG", "debug")],
        ),
        (&["--log-level", "error"], &[("WSEVENT_LOG_LEVEL", "debug")]),
    ] {
        // What it does fail with is still said.
        let args = [args, &["tail", &url, "--exit-on-close"]].concat();
        let output = output(&args, env).await;
        let stderr = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(stderr.lines().count(), 1, "{args:?} {env:?}: {stderr}");
    }
    let env = [("RUST_LOG", "debug")];
    let args = ["tail", &url, "--exit-on-close"];
    let output = output(&args, &env).await;
    assert_eq!(output.status.code(), Some(1));
}
