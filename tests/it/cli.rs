//! The command line: what is wrong is said in one clear line, with exit status 2 for usage and 1 for what fails later.

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use crate::harness::port::ReservedPort;
use crate::harness::wsevent::{Hop, Tail, output};

type Env = [(&'static str, &'static str)];

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("it is text")
}

/// Runs wsevent, which must find fault with its usage; the first line of what it says, without "error: ".
async fn usage_error(args: &[&str], env: &[(&str, &str)]) -> String {
    let output = output(args, env).await;
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} {env:?}");
    let first = stderr.lines().next().unwrap_or_default();
    let error = first.strip_prefix("error: ");
    error
        .unwrap_or_else(|| panic!("{args:?} {env:?}: {stderr}"))
        .to_owned()
}

async fn check(cases: &[(&[&str], &Env, &str)]) {
    for (args, env, expected) in cases {
        assert_eq!(usage_error(args, env).await, *expected, "{args:?} {env:?}");
    }
}

#[tokio::test]
async fn flags_that_contradict_each_other_are_usage_errors() {
    const SERVE: &str =
        "--serve says address and path at once: leave out --serve-address and --serve-path";
    const PRODUCE: &str = "--produce and --no-produce exclude each other";
    const NOTHING: &str = "with --no-produce and no source nothing could bring events: add --consume URL or --accept-publish";
    let yes = "true";
    check(&[
        (&["--serve", "a:1/x", "--serve-address", "b:2"], &[], SERVE),
        (&["--serve", "a:1/x", "--serve-path", "y"], &[], SERVE),
        (&["--produce", "--no-produce"], &[], PRODUCE),
        (
            &["--produce", "--no-produce", "--consume", "ws://a"],
            &[],
            PRODUCE,
        ),
        (
            &[],
            &[("WSEVENT_PRODUCE", yes), ("WSEVENT_NO_PRODUCE", yes)],
            PRODUCE,
        ),
        (&["--no-produce"], &[], NOTHING),
        (&[], &[("WSEVENT_NO_PRODUCE", yes)], NOTHING),
        (&["--no-produce"], &[("WSEVENT_PRODUCE", yes)], NOTHING),
        (&["--no-produce"], &[("WSEVENT_CONSUME", " ")], NOTHING),
    ])
    .await;
}

#[tokio::test]
async fn flags_that_would_have_no_effect_are_usage_errors() {
    let header =
        "--consume-header says how to reach an upstream, but there is none: add --consume URL";
    let message =
        "--consume-message says how to reach an upstream, but there is none: add --consume URL";
    let rate = "--produce-rate has no effect without the generator: add --produce";
    let size = "--produce-size has no effect without the generator: add --produce";
    let path = "--consume-path needs --consume-address HOST:PORT (or say both with --consume URL)";
    check(&[
        (&["--consume-header", "a: b"], &[], header),
        (&["--consume-message", "hello"], &[], message),
        (&["--consume-path", "/x"], &[], path),
        (&["--consume-path", "/x", "--consume", "ws://a"], &[], path),
        (&["--consume", "ws://a", "--produce-rate", "1"], &[], rate),
        (&["--consume", "ws://a", "--produce-size", "1"], &[], size),
        (
            &["--produce-rate", "1"],
            &[("WSEVENT_CONSUME", "ws://a")],
            rate,
        ),
    ])
    .await;
}

#[tokio::test]
async fn wrong_addresses_and_paths_are_usage_errors() {
    let serve_path = "--serve-path: 'a?b' is not a URL path, such as /events or /live/*: it has a query, a fragment, a blank or a letter beyond ASCII";
    let consume_path = "--consume-path: 'a b' is not a URL path, such as /events";
    for address in ["localhost", ":80", "a:b", "a:65536", "a:1/x", ""] {
        for flag in ["--serve-address", "--consume-address"] {
            let expected = format!("{flag}: '{address}' is not HOST:PORT, such as localhost:8080");
            assert_eq!(usage_error(&[flag, address], &[]).await, expected);
        }
    }
    let serve = |why: &str| {
        format!("--serve: {why}: ADDRESS/PATH is expected, such as localhost:9090/events")
    };
    let no_address = serve("'localhost' is not HOST:PORT, such as localhost:8080");
    let no_path = serve("'a#b' is not a URL path, such as /events");
    let not_served = serve("wss:// cannot be served");
    check(&[
        (&["--serve-path", "a?b"], &[], serve_path),
        (&[], &[("WSEVENT_SERVE_PATH", "a?b")], serve_path),
        (
            &["--consume-address", "a:1", "--consume-path", "a b"],
            &[],
            consume_path,
        ),
        (&["--serve", "localhost/x"], &[], &no_address),
        (&["--serve", "a:1/a#b"], &[], &no_path),
        (&["--serve", "wss://a:1/x"], &[], &not_served),
    ])
    .await;
}

#[tokio::test]
async fn wrong_urls_are_usage_errors() {
    for (url, expected) in [
        (
            "ftp://a/",
            "'ftp://a/' is no event URL: ws://, wss://, http:// and https:// are (--consume takes those of buses and file:// too)",
        ),
        (
            "a:1/events",
            "'a:1/events' is not a URL: did you mean ws://a:1/events?",
        ),
        (
            "127.0.0.1:80",
            "'127.0.0.1:80' is not a URL: did you mean ws://127.0.0.1:80?",
        ),
        (
            "events",
            "'events' is not a URL (relative URL without a base): ws://HOST:PORT/PATH is expected",
        ),
        (
            "ws://",
            "'ws://' is not a URL (empty host): ws://HOST:PORT/PATH is expected",
        ),
        (
            "ws://a:65536/",
            "'ws://a:65536/' is not a URL (invalid port number): ws://HOST:PORT/PATH is expected",
        ),
        (
            "ftp://me:password@a/",
            "the URL is no event URL: ws://, wss://, http:// and https:// are (--consume takes those of buses and file:// too)",
        ),
    ] {
        assert_eq!(usage_error(&["--consume", url], &[]).await, expected);
        assert_eq!(usage_error(&["tail", url], &[]).await, expected);
        let two = format!("ws://good {url}");
        assert_eq!(
            usage_error(&[], &[("WSEVENT_CONSUME", &two)]).await,
            expected
        );
    }
}

#[tokio::test]
async fn wrong_headers_are_usage_errors_that_do_not_show_them() {
    let none = "--consume-header: 'Name: value' is expected";
    let name = "--consume-header: what stands before the colon is not the name of a header";
    let value = "--consume-header: the value of 'a' has characters that a header cannot have";
    for (header, expected) in [
        ("secret", none),
        ("a b: c", name),
        (": c", name),
        ("a: \u{7f}", value),
    ] {
        let args = ["--consume", "ws://a", "--consume-header", header];
        assert_eq!(usage_error(&args, &[]).await, expected);
        let args = ["tail", "ws://a", "--consume-header", header];
        assert_eq!(usage_error(&args, &[]).await, expected);
        let env = [("WSEVENT_CONSUME_HEADER", format!("Good: 1\n{header}"))];
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(usage_error(&["--consume", "ws://a"], &env).await, expected);
    }
}

#[tokio::test]
async fn wrong_values_are_usage_errors() {
    let invalid =
        |value: &str, flag: &str, why: &str| format!("invalid value '{value}' for '{flag}': {why}");
    let unit = "unknown unit 'parsecs': use KiB, MiB or GiB";
    let rate = "a positive number of events a second is expected, or max";
    for (args, expected) in [
        (
            &["--history", "10 parsecs"][..],
            invalid("10 parsecs", "--history <BYTES>", unit),
        ),
        (
            &["--history", ""],
            invalid(
                "",
                "--history <BYTES>",
                "a number of bytes is expected, such as 64KiB",
            ),
        ),
        (
            &["--max-message-size", "1GiB"],
            invalid(
                "1GiB",
                "--max-message-size <BYTES>",
                "at most 512MiB is possible",
            ),
        ),
        (
            &["--produce-size", "1GiB"],
            invalid(
                "1GiB",
                "--produce-size <BYTES>",
                "at most 512MiB is possible",
            ),
        ),
        (
            &["--produce-rate", "0"],
            invalid("0", "--produce-rate <N>", rate),
        ),
        (
            &["--produce-rate=-1"],
            invalid("-1", "--produce-rate <N>", rate),
        ),
        (
            &["--produce-rate", "fast"],
            invalid("fast", "--produce-rate <N>", rate),
        ),
        (
            &["--ping-interval", "9ms"],
            invalid(
                "9ms",
                "--ping-interval <DURATION>",
                "at least 10ms is needed",
            ),
        ),
        (
            &["tail", "ws://a", "--count", "0"],
            invalid("0", "--count <N>", "0 is not in 1..18446744073709551615"),
        ),
    ] {
        assert_eq!(usage_error(args, &[]).await, expected);
    }
    for (args, begins) in [
        (
            &["--drain", "5"][..],
            "invalid value '5' for '--drain <DURATION>': ",
        ),
        (
            &["--drain", "soon"],
            "invalid value 'soon' for '--drain <DURATION>': ",
        ),
        (
            &["--log-level", "a=b=c"],
            "invalid value 'a=b=c' for '--log-level <LEVEL>': ",
        ),
        (
            &["--log-format", "xml"],
            "invalid value 'xml' for '--log-format <FORMAT>'",
        ),
        (&["--nonsense"], "unexpected argument '--nonsense' found"),
        (&["nonsense"], "unrecognized subcommand 'nonsense'"),
        (
            &["tail"],
            "the following required arguments were not provided:",
        ),
        (
            &["tail", "ws://a", "--serve", "b:1"],
            "unexpected argument '--serve' found",
        ),
    ] {
        let error = usage_error(args, &[]).await;
        assert!(error.starts_with(begins), "{args:?}: {error}");
    }
    // The variable is read as the flag is.
    let error = usage_error(&[], &[("WSEVENT_HISTORY", "10 parsecs")]).await;
    assert_eq!(error, invalid("10 parsecs", "--history <BYTES>", unit));
}

#[tokio::test]
async fn a_hops_flag_before_a_subcommand_is_a_usage_error() {
    let why = "before the subcommand is a flag of a hop: put it behind, if the subcommand has it";
    for flag in [
        "--produce",
        "--history=1",
        "--consume-message=x",
        "--serve=a:1",
    ] {
        let name = flag.split('=').next().expect("a flag has a name");
        let error = usage_error(&[flag, "tail", "ws://a"], &[]).await;
        assert_eq!(error, format!("{name} {why}"));
    }
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_a_usage_error() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str| {
        folder
            .path()
            .join(name)
            .to_str()
            .expect("it is text")
            .to_owned()
    };
    let (missing, empty, wrong) = (path("missing"), path("empty"), path("wrong"));
    fs::write(&empty, "no PEM in here").expect("the folder is ours");
    let begin =
        "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    fs::write(&wrong, begin).expect("the folder is ours");
    for (file, why) in [
        (missing, ": no such file or directory"),
        (empty, ": there is no certificate in it (PEM is expected)"),
        (wrong, ": invalid peer certificate: BadEncoding"),
    ] {
        let expected = format!("--consume-ca: cannot read certificates from {file}{why}");
        let url = "wss://127.0.0.1:1/";
        for args in [
            ["--consume", url, "--consume-ca", &file],
            ["tail", url, "--consume-ca", &file],
        ] {
            let error = usage_error(&args, &[]).await;
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}

#[tokio::test]
async fn a_hop_that_would_consume_itself_says_so() {
    let free = ReservedPort::new();
    let port = free.address().port();
    for (host, listen) in [("localhost", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")] {
        for scheme in ["ws", "http"] {
            let url = format!("{scheme}://{host}:{port}/events");
            let address = format!("{listen}:{port}");
            let output = output(&["--consume", &url, "--serve-address", &address], &[]).await;
            assert_eq!(output.status.code(), Some(1));
            let expected = format!("wsevent: {url} is what this hop itself would serve");
            assert!(
                stderr(&output).starts_with(&expected),
                "{}",
                stderr(&output)
            );
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it has an address").port();
    for host in ["127.0.0.1", "localhost"] {
        let address = format!("{host}:{port}");
        let output = output(&["--serve-address", &address], &[]).await;
        assert_eq!(output.status.code(), Some(1));
        let expected = format!("wsevent: cannot listen on {address}: address already in use\n");
        assert_eq!(stderr(&output), expected);
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_said_in_one_line() {
    // From the block for documentation, RFC 5737.
    let output = output(&["--serve", "192.0.2.1:0/events"], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let expected = "wsevent: cannot listen on 192.0.2.1:0: cannot assign requested address\n";
    assert_eq!(stderr(&output), expected);
}

#[tokio::test]
async fn help_and_version_are_no_errors() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["tail", "--help"],
        &["help"],
        &["help", "publish"],
        &["--version"],
        &["-V"],
    ] {
        let output = output(args, &[]).await;
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{args:?}"
        );
    }
    let help = output(&["--help"], &[]).await.stdout;
    let help = String::from_utf8(help).expect("help is text");
    for example in [
        "\n  wsevent\n",
        "wsevent --consume ws://localhost:8080/events --serve localhost:9090/proxy-events",
        "--consume-header 'Authorization: Bearer ...'",
        "wsevent --accept-publish\n",
        "wsevent publish http://localhost:8080/events 'an event'",
        "wsevent tail ws://localhost:9090/proxy-events",
    ] {
        assert!(help.contains(example), "no {example:?} in {help}");
    }
}

#[tokio::test]
async fn tail_that_cannot_connect_and_may_not_try_again_says_why() {
    let port = ReservedPort::new();
    let url = format!("ws://{}/events", port.address());
    let output = output(&["tail", &url, "--exit-on-close"], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = stderr(&output);
    assert!(stderr.starts_with(&format!("wsevent: {url}: ")), "{stderr}");
    assert!(
        stderr.to_lowercase().contains("connection refused"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1);
}

#[tokio::test]
async fn a_url_without_a_subcommand_is_answered_with_what_can_be_done() {
    let expected = "a URL alone does not say what to do; to print it: wsevent tail URL; to serve it again: wsevent --consume URL";
    for url in ["ws://host/events", "https://me:secret@host/"] {
        assert_eq!(usage_error(&[url], &[]).await, expected);
    }
}

#[tokio::test]
async fn a_usage_error_shows_the_usage_of_what_was_meant() {
    for (args, usage) in [
        (&["--no-produce"][..], "Usage: wsevent [OPTIONS] [COMMAND]"),
        (&["tail", "nonsense"], "Usage: wsevent tail [OPTIONS] <URL>"),
        (
            &["publish", "ws://a", "--ids"],
            "Usage: wsevent publish [OPTIONS] <URL> [DATA]",
        ),
    ] {
        let output = output(args, &[]).await;
        let stderr = stderr(&output);
        assert!(stderr.contains(usage), "{stderr}");
    }
}

#[tokio::test]
async fn ids_are_not_to_be_had_over_a_websocket() {
    let expected = "--ids needs http://: over a WebSocket nobody says what they are";
    for args in [
        &["publish", "ws://a", "--ids"][..],
        &["publish", "http://a", "--ids", "--transport", "websocket"],
    ] {
        assert_eq!(usage_error(args, &[]).await, expected);
    }
}

#[tokio::test]
async fn a_first_connection_that_fails_is_said_with_the_servers_own_words() {
    let hop = Hop::quiet(&[]).await;
    let reason = "the upstream answered 404 Not Found: there is no stream at this path; what there is: /events";
    for scheme in ["ws", "http"] {
        let url = format!("{scheme}://{}/nope", hop.address);
        let tail = Tail::start(&url, &[]);
        let told = tail.process.logged("cannot connect, trying again").await;
        assert_eq!(told.field("reason"), reason);
        let other = Hop::start(&["--consume", &url]).await;
        let told = other.logged("cannot reach upstream, trying again").await;
        assert_eq!(told.field("reason"), reason);
    }
    for (scheme, plain) in [("wss", "ws"), ("https", "http")] {
        let url = format!("{scheme}://{}/events", hop.address);
        let output = output(&["tail", &url, "--exit-on-close"], &[]).await;
        let stderr = stderr(&output);
        let expected = format!("there is no TLS at this port; did you mean {plain}://?");
        assert!(stderr.contains(&expected), "{stderr}");
    }
}

#[cfg(not(feature = "otel"))]
#[tokio::test]
async fn who_wants_traces_is_told_which_build_has_them() {
    let url = "http://localhost:4318";
    let expected = "this wsevent was built without --otlp-endpoint: cargo build --release --features otel makes one that has it";
    check(&[(&["--otlp-endpoint", url], &[], expected)]).await;
}
