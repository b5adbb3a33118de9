//! What foreign WebSockets want to be told: logins on each connect, keepalives, messages that are no events.

mod peers;
mod secrets;

use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::harness::events::{assert_same, bytes};
use crate::harness::frame::TEXT;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::{Hop, Tail};

const LOST: &str = "cannot reach upstream, trying again";

fn text(text: &str) -> Message {
    Message::text(text)
}

/// A hop that must say "one", hear "ok", say "two" and "three", and hear "go".
const LOGIN: [&str; 10] = [
    "--consume-message",
    "one",
    "--consume-expect",
    "^ok",
    "--consume-message",
    "two",
    "--consume-message",
    "three",
    "--consume-expect",
    r#"{"state":{"go":true}}"#,
];

/// Plays the other part, and shows that the hop waits.
async fn let_in(link: &mut Link) {
    assert_eq!(link.receive().await, text("one"));
    // It answers this, and has not said anything else before.
    link.send(Message::Ping("still there?".into())).await;
    assert_eq!(link.receive().await, Message::Pong("still there?".into()));
    link.send(text("ok then")).await;
    assert_eq!(link.receive().await, text("two"));
    assert_eq!(link.receive().await, text("three"));
    link.send(text(r#"{"id":3,"state":{"go":true,"x":1}}"#))
        .await;
}

#[tokio::test]
async fn a_login_waits_for_its_answers_on_every_connect() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let hop = Hop::start(&[&["--consume", &url], &LOGIN[..]].concat()).await;
    let mut subscriber = hop.subscribe().await;
    for round in 1..=3 {
        let mut link = upstream.accept().await;
        let_in(&mut link).await;
        hop.logged_times("upstream connected", round).await;
        let event = text(&format!("event {round}"));
        link.send(event.clone()).await;
        // The answers were no events.
        assert_eq!(subscriber.message().await, event);
        link.reset();
    }
}

#[tokio::test]
async fn what_comes_while_an_answer_is_awaited_is_an_event_in_its_place() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let hop = Hop::start(&[&["--consume", &url], &LOGIN[..]].concat()).await;
    let mut subscriber = hop.subscribe().await;
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, text("one"));
    let early = [text("not ok"), Message::binary(b"ok".to_vec()), text("")];
    link.send_all(&early).await;
    assert_same(&subscriber.messages(3).await, &early);
    assert_eq!(hop.count("upstream connected"), 0);
    // All at once: answer, event, answer, event, and what would have been an answer before.
    link.send_all(&[
        text("ok"),
        text("between"),
        text(r#"{"state":{"go":true}}"#),
        text("behind"),
        text("ok"),
    ])
    .await;
    let expected = [text("between"), text("behind"), text("ok")];
    assert_same(&subscriber.messages(3).await, &expected);
    hop.logged("upstream connected").await;
}

#[tokio::test]
async fn a_greeting_may_be_awaited_before_anything_is_said() {
    let args = [
        "--consume-expect",
        "welcome",
        "--consume-message",
        "me",
        "--consume-expect",
        "",
        "--consume-expect",
        "subscribed",
    ];
    let upstream = Upstream::new();
    let url = upstream.url();
    let hop = Hop::start(&[&["--consume", &url], &args[..]].concat()).await;
    let mut link = upstream.accept().await;
    link.send(Message::Ping("anything to say?".into())).await;
    assert_eq!(
        link.receive().await,
        Message::Pong("anything to say?".into())
    );
    link.send(text("you are welcome")).await;
    assert_eq!(link.receive().await, text("me"));
    link.send_all(&[text("anything"), text("subscribed")]).await;
    hop.logged("upstream connected").await;
    assert_eq!(
        hop.index().await["streams"][0]["events"],
        0,
        "{}",
        hop.index().await
    );
}

/// A login in variables, and what the hop says before and behind the answer "ok".
async fn said(env: &[(&str, &str)], args: &[&str]) -> (Vec<Message>, Vec<Message>) {
    let upstream = Upstream::new();
    let url = upstream.url();
    let hop = Hop::start_with(&[&["--consume", &url], args].concat(), env).await;
    let mut link = upstream.accept().await;
    let mut said = vec![];
    for answer in [text("ok"), Message::Ping("the end".into())] {
        let mut messages = vec![];
        link.send(Message::Ping("what first?".into())).await;
        loop {
            match link.receive().await {
                Message::Pong(_) => break,
                message => messages.push(message),
            }
        }
        said.push(messages);
        link.send(answer).await;
    }
    hop.logged("upstream connected").await;
    let behind = said.pop().expect("two");
    (said.pop().expect("two"), behind)
}

#[tokio::test]
async fn in_variables_the_nth_pattern_belongs_to_the_nth_message() {
    const MESSAGES: &str = "WSEVENT_CONSUME_MESSAGE";
    const PATTERNS: &str = "WSEVENT_CONSUME_EXPECT";
    let (one, two, three) = (|| text("one"), || text("two"), || text("three"));
    for (messages, patterns, args, before, behind) in [
        (
            "one\ntwo\nthree",
            "\nok",
            &[][..],
            vec![one(), two()],
            vec![three()],
        ),
        (
            "one\ntwo\nthree",
            "ok\n\n",
            &[],
            vec![one()],
            vec![two(), three()],
        ),
        ("\none\ntwo", "ok", &[], vec![], vec![one(), two()]),
        ("one", "\n\nok", &[], vec![one()], vec![]),
        ("", "ok", &[], vec![], vec![]),
        (
            "one\ntwo",
            "",
            &["--consume-expect", "ok"],
            vec![one()],
            vec![two()],
        ),
        (
            "",
            "\nok",
            &[
                "--consume-message",
                "one",
                "--consume-message",
                "two",
                "--consume-message",
                "three",
            ],
            vec![one(), two()],
            vec![three()],
        ),
    ] {
        let env = [(MESSAGES, messages), (PATTERNS, patterns)];
        // Variables that are empty are none.
        let (first, then) = said(&env, args).await;
        let what = format!("{env:?} {args:?}");
        assert_eq!((first, then), (before, behind), "{what}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_says_where_and_is_tried_again() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let args = ["--log-level", "debug", "--consume-expect-timeout", "60s"];
    let hop = Hop::start(&[&["--consume", &url], &LOGIN[..], &args].concat()).await;
    let mut subscriber = hop.subscribe().await;
    let close = |code: u16, reason: &'static str| {
        Message::Close(Some(CloseFrame {
            code: code.into(),
            reason: reason.into(),
        }))
    };
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, text("one"));
    link.send_all(&[text("an event"), close(4001, "bad key")])
        .await;
    let lost = hop.logged(LOST).await;
    assert_eq!(
        lost.field("reason"),
        "closed by the server with 4001: bad key, while waiting for an answer to message 1"
    );
    assert_eq!(lost.field("refused"), "");
    assert_eq!(subscriber.message().await, text("an event"));

    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, text("one"));
    link.send(text("ok")).await;
    assert_eq!(link.receive().await, text("two"));
    assert_eq!(link.receive().await, text("three"));
    link.reset();
    hop.logged_where("upstream still away", |line| {
        // Lost or reset, as the system sees it.
        let reason = line.field("reason");
        reason.starts_with("connection ")
            && reason.ends_with(", while waiting for an answer to message 3")
    })
    .await;
    let_in(&mut upstream.accept().await).await;
    hop.logged("upstream connected").await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_ends_the_connection() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let args = ["--consume-expect-timeout", "50ms"];
    let hop = Hop::start(&[&["--consume", &url], &LOGIN[..], &args].concat()).await;
    let mut link = upstream.accept().await;
    // Others that come all the time do not make it wait longer.
    while link.try_send(text("an event")).await.is_ok() {}
    let lost = hop.logged(LOST).await;
    assert_eq!(
        lost.field("reason"),
        "nothing that matches came within 50ms, while waiting for an answer to message 1"
    );
    upstream.accept().await;
}

#[tokio::test]
async fn a_silent_or_wrong_server_is_told_during_a_login_too() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let limits = ["--ping-interval", "20ms", "--max-message-size", "100"];
    let debug = ["--log-level", "debug"];
    let args = [&["--consume", &url], &LOGIN[..], &limits, &debug].concat();
    let hop = Hop::start(&args).await;
    let mut link = upstream.accept().await;
    link.send(Message::binary(bytes(101))).await;
    assert_eq!(link.close_code().await, Some(1009));
    // Nobody reads, so nobody answers.
    let _link = upstream.accept().await;
    hop.logged_where("upstream still away", |line| {
        line.field("reason")
            == "silent for two ping intervals, while waiting for an answer to message 1"
    })
    .await;
}

#[tokio::test]
async fn another_wsevent_is_not_told() {
    let origin = Hop::quiet(&["--accept-publish"]).await;
    let args = [
        &["--consume", &origin.url],
        &LOGIN[..],
        &["--consume-keepalive", "x every 10ms"],
    ];
    let hop = Hop::start(&args.concat()).await;
    hop.logged("upstream connected").await;
    let mut subscriber = hop.subscribe().await;
    let mut publisher = origin.subscribe().await;
    publisher.send_frame(TEXT, b"an event").await;
    assert_eq!(subscriber.message().await, text("an event"));
}

#[tokio::test]
async fn a_keepalive_is_sent_again_and_again_once_logged_in() {
    let three = ["--consume-keepalive", r#"{"op":"ping"}"#, "every", "10ms"];
    let one = ["--consume-keepalive", r#"{"op":"ping"} every 10ms"#];
    let env = ("WSEVENT_CONSUME_KEEPALIVE", r#"{"op":"ping"} every 10ms"#);
    for (args, env) in [(&three[..], &[][..]), (&one, &[]), (&[], &[env])] {
        let upstream = Upstream::new();
        let url = upstream.url();
        let login = ["--consume-message", "me", "--consume-expect", "ok"];
        let ignore = ["--consume-ignore", "^pong$"];
        let args = [args, &login, &ignore, &["--consume", &url]].concat();
        let hop = Hop::start_with(&args, env).await;
        let mut subscriber = hop.subscribe().await;
        for _ in 0..2 {
            let mut link = upstream.accept().await;
            assert_eq!(link.receive().await, text("me"));
            link.send(text("ok")).await;
            for _ in 0..3 {
                assert_eq!(link.receive().await, text(r#"{"op":"ping"}"#));
                link.send_all(&[text("pong"), text("ping")]).await;
                // What is not to be ignored is an event, whatever it answers.
                assert_eq!(subscriber.message().await, text("ping"));
            }
            link.reset();
        }
    }
}

#[tokio::test]
async fn messages_to_be_ignored_are_no_events_and_are_counted() {
    let args = [
        "--consume-ignore",
        r#"{"type":"heartbeat"}"#,
        "--consume-ignore",
        "^#",
        "--log-level",
        "debug",
    ];
    let (_upstream, mut link, hop) = Hop::connected(&args, &[]).await;
    let mut subscriber = hop.subscribe().await;
    link.send_all(&[
        text(r##"{"type":"heartbeat","n":1}"##),
        text("# a comment"),
        text(r#"{"type":"trade"}"#),
        Message::binary(b"#".to_vec()),
        text("no # at the beginning"),
    ])
    .await;
    let expected = [
        text(r#"{"type":"trade"}"#),
        Message::binary(b"#".to_vec()),
        text("no # at the beginning"),
    ];
    assert_same(&subscriber.messages(3).await, &expected);
    let line = hop.logged_times("message ignored", 2).await;
    assert_eq!(line.number("ignored"), 2);
}

#[tokio::test]
async fn tail_logs_in_prints_what_comes_meanwhile_and_keeps_alive() {
    let upstream = Upstream::new();
    let more = [
        "--consume-keepalive",
        "ping every 10ms",
        "--consume-ignore",
        "^#",
    ];
    let mut tail = Tail::start(&upstream.url(), &[&LOGIN[..], &more].concat());
    for _ in 0..2 {
        let mut link = upstream.accept().await;
        assert_eq!(link.receive().await, text("one"));
        link.send_all(&[text("# nothing"), text("early")]).await;
        assert_eq!(tail.line().await.as_deref(), Some("early"));
        link.send(text("ok")).await;
        assert_eq!(link.receive().await, text("two"));
        assert_eq!(link.receive().await, text("three"));
        let go = text(r#"{"state":{"go":true}}"#);
        link.send_all(&[go, text("# nothing"), text("late")]).await;
        assert_eq!(tail.line().await.as_deref(), Some("late"));
        assert_eq!(link.receive().await, text("ping"));
        assert_eq!(link.receive().await, text("ping"));
        link.reset();
    }
    tail.process.signal(Signal::TERM);
}

#[tokio::test]
async fn a_tail_that_is_not_let_in_says_why() {
    let upstream = Upstream::new();
    let tail = Tail::start(
        &upstream.url(),
        &[&LOGIN[..], &["--exit-on-close"]].concat(),
    );
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, text("one"));
    link.send(Message::Close(None)).await;
    let log = tail.ends_with(1).await;
    let said = "closed by the server, while waiting for an answer to message 1";
    assert!(log.to_string().contains(said), "{log}");
}
