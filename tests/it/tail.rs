//! `wsevent tail`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::harness::events::{bytes, numbered};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::{Hop, Tail, output};

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
    tail.process.logged("connection lost, trying again").await;
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
    tail.process.logged("connection lost, trying again").await;
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
