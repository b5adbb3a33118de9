//! `wsevent tail`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::harness::events::{bytes, numbered};
use crate::harness::http::{EVENT_STREAM, Request};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::{Hop, Tail, output};
use crate::mesh::{from, publish};

/// A tail that is connected to a foreign server.
async fn tail(args: &[&str]) -> (Upstream, Link, Tail) {
    let upstream = Upstream::new();
    let tail = Tail::start(&upstream.url(), args);
    let link = upstream.accept().await;
    (upstream, link, tail)
}

fn closing(code: u16) -> Message {
    Message::Close(Some(CloseFrame {
        code: code.into(),
        reason: "that is all".into(),
    }))
}

#[tokio::test]
async fn text_is_printed_as_it_is_and_binary_as_base64() {
    let (_upstream, mut link, mut tail) = tail(&[]).await;
    let text = "é ✓ \t\"quoted\"";
    link.send(Message::text(text)).await;
    assert_eq!(tail.line().await.as_deref(), Some(text));
    for len in [0, 1, 2, 255, 100_000] {
        link.send(Message::binary(bytes(len))).await;
        assert_eq!(tail.line().await, Some(BASE64.encode(bytes(len))));
    }
    link.send(Message::text("")).await;
    assert_eq!(tail.line().await.as_deref(), Some(""));
}

#[tokio::test]
async fn each_event_is_printed_when_it_comes() {
    let (_upstream, mut link, mut tail) = tail(&[]).await;
    for event in numbered(20) {
        link.send(event.clone()).await;
        assert_eq!(tail.line().await.as_deref(), event.to_text().ok());
    }
}

#[tokio::test]
async fn it_ends_after_as_many_events_as_asked_for() {
    for count in [1, 3] {
        let (_upstream, mut link, mut tail) = tail(&["--count", &count.to_string()]).await;
        link.send_all(&numbered(10)).await;
        for number in 0..count {
            assert_eq!(tail.line().await, Some(format!("event {number}")));
        }
        tail.ends_with(0).await;
        assert_eq!(link.close_code().await, Some(1000), "it says goodbye");
    }
}

#[tokio::test]
async fn timestamps_stand_before_the_events() {
    let (_upstream, mut link, mut tail) = tail(&["--timestamps"]).await;
    link.send(Message::text("an event")).await;
    link.send(Message::binary("b")).await;
    let mut last = String::new();
    for expected in ["an event", "Yg=="] {
        let line = tail.line().await.expect("a line");
        let (time, event) = line.split_once(' ').expect("two fields");
        assert_eq!(event, expected);
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "RFC 3339 in {line}");
        assert!(*time >= *last, "{time} is not before {last}");
        last = time.to_owned();
    }
}

#[tokio::test]
async fn it_ends_with_the_connection_if_asked_to() {
    for code in [1000, 1001, 1013] {
        let (_upstream, mut link, mut tail) = tail(&["--exit-on-close"]).await;
        link.send(Message::text("an event")).await;
        link.send(closing(code)).await;
        assert_eq!(tail.line().await.as_deref(), Some("an event"));
        tail.ends_with(0).await;
        assert_eq!(link.close_code().await, Some(code), "the Close is answered");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure_if_it_may_not_try_again() {
    let (upstream, mut link, mut tail) = tail(&["--exit-on-close"]).await;
    link.send(Message::text("an event")).await;
    assert_eq!(tail.line().await.as_deref(), Some("an event"));
    link.reset();
    let log = tail.ends_with(1).await.to_string();
    assert!(
        log.contains(&format!("wsevent: {}: ", upstream.url())),
        "{log}"
    );
}

#[tokio::test]
async fn it_connects_again_when_the_connection_ends() {
    let (upstream, mut link, mut tail) = tail(&[]).await;
    for round in 0..2 {
        link.send(Message::text(format!("{round}"))).await;
        assert_eq!(tail.line().await, Some(round.to_string()));
        link.reset();
        link = upstream.accept().await;
    }
    link.send(closing(1001)).await;
    let mut link = upstream.accept().await;
    link.send(Message::text("again")).await;
    assert_eq!(tail.line().await.as_deref(), Some("again"));
}

#[tokio::test]
async fn it_comes_back_to_a_server_that_was_killed_and_restarted() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let args = ["--serve-address", &address, "--produce-rate", "100"];
    let mut hop = Hop::start(&args).await;
    let mut tail = Tail::start(&hop.url, &[]);
    tail.line().await.expect("an event");
    hop.signal(Signal::KILL);
    hop.exit().await;
    let lost = tail.process.logged("connection lost, trying again").await;
    assert_eq!(lost.field("url"), hop.url);
    // The new process shows by the length of what it produces.
    let _hop = Hop::start(&[&args[..], &["--produce-size", "100"]].concat()).await;
    while tail.line().await.expect("an event").len() != 100 {}
    assert_eq!(tail.process.count("connection lost, trying again"), 1);
}

#[tokio::test]
async fn it_gives_up_a_server_that_is_silent() {
    let (upstream, mut link, tail) = tail(&["--ping-interval", "1s"]).await;
    // Reading answers.
    assert!(link.receive().await.is_ping());
    assert!(link.receive().await.is_ping());
    // From here on nobody reads it.
    let _again = upstream.accept().await;
    let lost = tail.process.logged("connection lost, trying again").await;
    assert!(lost.field("reason").contains("silent"), "{}", lost.text);
}

#[tokio::test]
async fn it_waits_for_a_server_that_is_away_at_start() {
    let mut upstream = Upstream::away();
    let mut tail = Tail::start(&upstream.url(), &["--count", "1"]);
    tail.process.logged("cannot connect, trying again").await;
    upstream.come_back();
    upstream.accept().await.send(Message::text("at last")).await;
    assert_eq!(tail.line().await.as_deref(), Some("at last"));
    tail.ends_with(0).await;
}

#[tokio::test]
async fn a_closed_output_ends_it_quietly() {
    let (_upstream, mut link, mut tail) = tail(&[]).await;
    link.send(Message::text("an event")).await;
    assert_eq!(tail.line().await.as_deref(), Some("an event"));
    tail.lines = None;
    // Nothing more comes on the stream: it is not a failed write that tells.
    let log = tail.ends_with(0).await;
    assert_eq!(log.to_string(), "");
}

#[tokio::test]
async fn a_closed_output_ends_it_while_it_waits_for_a_server() {
    let upstream = Upstream::away();
    let mut tail = Tail::start(&upstream.url(), &[]);
    tail.process.logged("cannot connect, trying again").await;
    tail.lines = None;
    tail.ends_with(0).await;
}

#[tokio::test]
async fn headers_and_messages_are_sent_as_by_a_hop() {
    let args = [
        "--consume-header",
        "X-Who: tail",
        "--consume-message",
        "hello",
    ];
    let (_upstream, mut link, _tail) = tail(&args).await;
    assert_eq!(link.header("x-who"), "tail");
    assert_eq!(link.receive().await, Message::text("hello"));
}

#[tokio::test]
async fn its_variables_do_what_its_flags_do() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let env = [
        ("WSEVENT_COUNT", "2"),
        ("WSEVENT_SERVE", "of no interest here"),
    ];
    let running = tokio::spawn(async move {
        let args = ["tail", url.as_str()];
        output(&args, &env).await
    });
    let mut link = upstream.accept().await;
    link.send_all(&numbered(3)).await;
    let output = running.await.expect("it ends");
    assert_eq!(output.stdout, b"event 0\nevent 1\n");
    assert_eq!(output.status.code(), Some(0));
}

/// A tail that has asked a foreign server for its stream.
async fn asked(args: &[&str]) -> (Upstream, Request, Tail) {
    let upstream = Upstream::new();
    let tail = Tail::start(&upstream.http_url(), args);
    let request = upstream.asked().await;
    (upstream, request, tail)
}

/// The head of an answer of this kind, as another wsevent gives it.
fn wsevent(media: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\nwsevent-resumed: no\r\n\r\n")
}

#[tokio::test]
async fn the_scheme_or_the_flag_says_over_what_it_reads() {
    for (scheme, args, accept) in [
        ("http", &[][..], "text/event-stream"),
        ("ws", &["--transport", "sse"], "text/event-stream"),
        ("ws", &["--transport", "ndjson"], "application/x-ndjson"),
        ("http", &["--transport", "ndjson"], "application/x-ndjson"),
    ] {
        let upstream = Upstream::new();
        let url = upstream.url().replace("ws://", &format!("{scheme}://"));
        let mut tail = Tail::start(&url, args);
        let mut request = upstream.asked().await;
        assert_eq!(request.header("accept"), Some(accept));
        request.send(EVENT_STREAM).await;
        request.send("data: an event\n\n").await;
        assert_eq!(tail.line().await.as_deref(), Some("an event"));
    }
    let upstream = Upstream::new();
    let mut tail = Tail::start(&upstream.http_url(), &["--transport", "websocket"]);
    upstream.accept().await.send(Message::text("a")).await;
    assert_eq!(tail.line().await.as_deref(), Some("a"));
}

#[tokio::test]
async fn over_http_it_goes_on_where_it_was() {
    let (upstream, mut request, mut tail) = asked(&["--history", "2"]).await;
    assert_eq!(request.line(), "GET /feed?history=2 HTTP/1.1");
    request.send(EVENT_STREAM).await;
    request.send("id: 1\ndata: x\n\n").await;
    assert_eq!(tail.line().await.as_deref(), Some("x"));
    request.reset();
    let request = upstream.asked().await;
    assert_eq!(request.line(), "GET /feed HTTP/1.1");
    assert_eq!(request.header("last-event-id"), Some("1"));
    tail.process.logged("connection lost, trying again").await;
    let mut request = request;
    request.send(wsevent("application/x-ndjson")).await;
    tail.process.logged("connected again").await;
    let line = r#"{"id":"0000000000001-9","time":"2026-11-21T08:00:00Z","data_base64":"Yg=="}"#;
    request.send(format!("{line}\n")).await;
    assert_eq!(tail.line().await.as_deref(), Some("Yg=="));
    request.reset();
    let request = upstream.asked().await;
    assert_eq!(request.header("last-event-id"), Some("0000000000001-9"));
}

#[tokio::test]
async fn the_wish_for_a_beginning_stands_until_something_has_come() {
    let args = ["--history", "all", "--last-event-id", "a b"];
    let query = "/feed?history=all&last_event_id=a+b";
    let (upstream, request, _tail) = asked(&args).await;
    assert_eq!(request.line(), format!("GET {query} HTTP/1.1"));
    assert_eq!(request.header("last-event-id"), Some("a b"));
    request.answer("").await;
    let request = upstream.asked().await;
    assert_eq!(request.line(), format!("GET {query} HTTP/1.1"));

    let (upstream, link, mut tail) = tail(&args).await;
    assert_eq!(link.request.uri(), query);
    link.reset();
    let mut link = upstream.accept().await;
    assert_eq!(link.request.uri(), query);
    link.send(Message::text("x")).await;
    assert_eq!(tail.line().await.as_deref(), Some("x"));
    link.reset();
    assert_eq!(upstream.accept().await.request.uri(), "/feed");
}

#[tokio::test]
async fn a_gap_is_told_in_the_log_and_nowhere_else() {
    let gap = r#"{"after":"0000000000001-5","next":"0000000000001-9","lost":3}"#;
    let block = format!("event: wsevent.gap\ndata: {gap}\n\ndata: x\n\n");
    let line = format!(
        "{{\"gap\":{gap}}}\n{{\"id\":\"0000000000001-9\",\"time\":\"2026-11-21T08:00:00Z\",\"data\":\"x\"}}\n"
    );
    for (media, body) in [("text/event-stream", block), ("application/x-ndjson", line)] {
        let (_upstream, mut request, mut tail) = asked(&[]).await;
        request.send(wsevent(media)).await;
        request.send(body).await;
        assert_eq!(tail.line().await.as_deref(), Some("x"));
        let told = tail.process.logged("events are missing").await;
        assert_eq!(told.number("lost"), 3);
        assert_eq!(told.field("after"), "0000000000001-5");
        assert_eq!(told.field("next"), "0000000000001-9");
    }
}

#[tokio::test]
async fn over_http_it_ends_as_over_a_websocket() {
    let (_upstream, mut request, mut tail) = asked(&["--count", "2"]).await;
    request.send(EVENT_STREAM).await;
    request.send("data: a\n\ndata: b\n\ndata: c\n\n").await;
    assert_eq!(tail.line().await.as_deref(), Some("a"));
    assert_eq!(tail.line().await.as_deref(), Some("b"));
    tail.ends_with(0).await;

    let (_upstream, request, mut tail) = asked(&["--exit-on-close"]).await;
    request.answer([EVENT_STREAM, "data: a\n\n"].concat()).await;
    assert_eq!(tail.line().await.as_deref(), Some("a"));
    tail.ends_with(0).await;

    let (_upstream, mut request, tail) = asked(&["--exit-on-close"]).await;
    request
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\n")
        .await;
    request.answer("data").await;
    tail.ends_with(1).await;

    let (_upstream, request, tail) = asked(&[]).await;
    request.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    tail.ends_with(0).await;

    let (_upstream, mut request, mut tail) = asked(&[]).await;
    request.send(EVENT_STREAM).await;
    tail.lines = None;
    request.left().await;
    tail.ends_with(0).await;
}

#[tokio::test]
async fn a_hop_is_read_alike_over_all_transports() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut subscriber = hop.subscribe().await;
    let mut sent = numbered(3);
    sent.push(Message::binary(bytes(100)));
    link.send_all(&sent).await;
    subscriber.messages(4).await;
    for transport in ["websocket", "sse", "ndjson"] {
        let args = ["--transport", transport, "--history", "3", "--timestamps"];
        let mut tail = Tail::start(&hop.url, &args);
        for expected in ["event 1", "event 2", &BASE64.encode(bytes(100))] {
            let line = tail.line().await.expect("a line");
            let (_, event) = line.split_once(' ').expect("two fields");
            assert_eq!(event, expected, "{transport}");
        }
        let args = ["--transport", transport, "--history", "all", "--count", "1"];
        let mut tail = Tail::start(&hop.url, &args);
        assert_eq!(tail.line().await.as_deref(), Some("event 0"), "{transport}");
        tail.ends_with(0).await;
    }
}

#[tokio::test]
async fn over_a_websocket_it_goes_on_where_it_was_and_says_what_is_missing() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let (mut link, upper) = Hop::fed(&["--history-count", "5"]).await;
    let args = ["--consume", &upper.url, "--serve-address", &address];
    let mut relay = Hop::start(&args).await;
    relay.logged("upstream connected").await;
    let mut tail = Tail::start(&relay.url, &[]);
    relay.logged("subscriber connected").await;
    let mut seen = upper.subscribe().await;
    let mut number = 0;
    // What comes while the relay is away is still in the history, and then it is not.
    for (away, lost) in [(5, 0), (9, 4)] {
        link.send(Message::text(format!("{number}"))).await;
        assert_eq!(tail.line().await, Some(number.to_string()));
        relay.signal(Signal::KILL);
        relay.exit().await;
        seen.messages(1).await;
        for missed in 1..=away {
            link.send(Message::text(format!("{}", number + missed)))
                .await;
            seen.messages(1).await;
        }
        relay = Hop::start(&args).await;
        for missed in lost + 1..=away {
            assert_eq!(tail.line().await, Some((number + missed).to_string()));
        }
        number += away + 1;
    }
    let gap = tail.process.logged("events are missing").await;
    assert_eq!(gap.number("lost"), 4);
    assert_eq!(tail.process.count("events are missing"), 1);
}

#[tokio::test]
async fn over_a_websocket_it_begins_where_it_is_told() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut seen = hop.subscribe().await;
    link.send_all(&numbered(10)).await;
    seen.messages(10).await;
    let mut all = Tail::start(&hop.url, &["--history", "all", "--count", "10"]);
    for number in 0..10 {
        assert_eq!(all.line().await, Some(format!("event {number}")));
    }
    all.ends_with(0).await;
    let mut some = Tail::start(&hop.url, &["--history", "2", "--count", "2"]);
    assert_eq!(some.line().await.as_deref(), Some("event 8"));
    some.lines = None;
}

#[tokio::test]
async fn an_event_that_nobody_knows_is_told_over_all_transports() {
    let (mut link, hop) = Hop::fed(&[]).await;
    for transport in ["websocket", "sse", "ndjson"] {
        let args = ["--transport", transport, "--last-event-id", "nonsense"];
        let mut tail = Tail::start(&hop.url, &args);
        let told = tail.process.logged("events are missing").await;
        assert_eq!(told.field("after"), "nonsense", "{transport}");
        link.send(Message::text(transport)).await;
        while tail.line().await.as_deref() != Some(transport) {}
        assert_eq!(tail.process.count("events are missing"), 1, "{transport}");
    }
}

/// Where events begin, and two relays that have all of them.
async fn siblings() -> (Hop, Hop, Hop) {
    let origin = Hop::start(&["--accept-publish"]).await;
    let first = Hop::consuming(&origin.url).await;
    let second = Hop::consuming(&origin.url).await;
    (origin, first, second)
}

#[tokio::test]
async fn of_several_urls_the_next_goes_on_where_the_last_one_was() {
    for scheme in ["ws", "http"] {
        let (origin, mut first, second) = siblings().await;
        let urls = [&first.url, &second.url].map(|url| url.replacen("ws", scheme, 1));
        let args = [&*urls[1], "--history", "all"];
        let mut tail = Tail::start(&urls[0], &args);
        let read = tail.process.logged("connected").await;
        assert_eq!(read.field("url"), urls[0]);
        publish(&origin, &from("one", 20)).await;
        for payload in from("one", 20) {
            assert_eq!(tail.line().await, Some(payload));
        }
        first.signal(Signal::KILL);
        first.exit().await;
        publish(&origin, &from("two", 20)).await;
        for payload in from("two", 20) {
            assert_eq!(tail.line().await, Some(payload));
        }
        let read = tail.process.logged("connected again").await;
        assert_eq!(read.field("url"), urls[1]);
    }
}

#[tokio::test]
async fn who_refuses_is_passed_by_and_if_all_do_it_ends() {
    let (origin, first, _) = siblings().await;
    let nowhere = format!("ws://{}/nowhere", first.address);
    let mut tail = Tail::start(&nowhere, &[&first.url]);
    tail.process.logged("connected").await;
    publish(&origin, &from("one", 1)).await;
    assert_eq!(tail.line().await.as_deref(), Some("one 0"));
    let tail = Tail::start(&nowhere, &[&nowhere]);
    tail.ends_with(1).await;
}
