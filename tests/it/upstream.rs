//! Upstreams that are away, go away, come back, refuse, or send what they must not.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::harness::client::Client;
use crate::harness::events::{assert_same, bytes, numbered};
use crate::harness::frame::{self, FIN};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn an_upstream_that_is_away_at_start_is_found_when_it_comes() {
    let mut upstream = Upstream::away();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    let mut subscriber = hop.subscribe().await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert_eq!(lost.field("url"), upstream.url());
    assert!(lost.field("reason").contains("refused"), "{}", lost.text);
    assert_eq!(lost.field("refused"), "", "it may come");
    upstream.come_back();
    let mut link = upstream.accept().await;
    link.send(Message::text("at last")).await;
    assert_eq!(subscriber.message().await, Message::text("at last"));
    let found = hop.logged("upstream connected").await;
    assert_eq!(found.field("url"), upstream.url());
}

/// The next event, which is a produced one: its counter and its length.
async fn produced(subscriber: &mut Client) -> (u64, usize) {
    let event = subscriber.message().await;
    let text = event.to_text().expect("produced events are text");
    let counter = text.split(' ').next().expect("it has fields");
    (counter.parse().expect("a counter"), text.len())
}

/// Reads events without a hole up to the hundredth of this length.
async fn hundred(subscriber: &mut Client, len: usize) {
    let mut last = None;
    let mut seen = 0;
    while seen < 100 {
        let (counter, got) = produced(subscriber).await;
        if got == len {
            assert!(
                last.is_none_or(|last| last + 1 == counter),
                "{counter} after {last:?}"
            );
            last = Some(counter);
            seen += 1;
        } else {
            assert_eq!(seen, 0, "the old process produces no more");
        }
    }
}

#[tokio::test]
async fn subscribers_stay_while_the_upstream_is_killed_and_comes_back() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let args = [
        "--serve-address",
        &address,
        "--produce-rate",
        "500",
        "--produce-size",
    ];
    let mut upstream = Hop::start(&[&args[..], &["100"]].concat()).await;
    let hop = Hop::consuming(&upstream.url).await;
    let mut subscriber = hop.subscribe().await;
    hundred(&mut subscriber, 100).await;

    upstream.signal(Signal::KILL);
    assert!(!upstream.exit().await.success());
    // The new process shows by the length of what it produces.
    let _upstream = Hop::start(&[&args[..], &["200"]].concat()).await;
    hundred(&mut subscriber, 200).await;
    hop.logged_times("upstream connected", 2).await;
    assert_eq!(hop.count("upstream connected"), 2);
    assert_eq!(hop.count("upstream lost"), 1);
    assert_eq!(hop.count("subscriber connected"), 1);
    assert_eq!(hop.count("subscriber disconnected"), 0);
}

#[tokio::test]
async fn a_change_of_state_is_logged_once_and_not_each_attempt() {
    let (mut upstream, link, hop) = Hop::connected(&[], &[]).await;
    link.reset();
    for _ in 0..4 {
        drop(upstream.accept_socket().await);
    }
    upstream.go_away();
    upstream.come_back();
    let mut link = upstream.accept().await;
    link.send(Message::text("back")).await;
    hop.logged_times("upstream connected", 2).await;
    link.reset();
    let _link = upstream.accept().await;
    hop.logged_times("upstream connected", 3).await;
    assert_eq!(hop.count("upstream lost"), 2);
    assert_eq!(hop.count("upstream connected"), 3);
}

/// Reads a request and answers it with this.
async fn refuse(upstream: &Upstream, answer: &str) {
    let mut socket = upstream.accept_socket().await;
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        let byte = within_guard("a request", socket.read_u8()).await;
        request.push(byte.expect("a whole request"));
    }
    let answering = socket.write_all(answer.as_bytes());
    within_guard("the answer", answering)
        .await
        .expect("the hop reads");
}

#[tokio::test]
async fn an_upstream_that_refuses_is_asked_again() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    let mut subscriber = hop.subscribe().await;
    refuse(
        &upstream,
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert!(lost.field("reason").contains("404"), "{}", lost.text);
    assert_eq!(lost.field("refused"), "404");
    refuse(
        &upstream,
        "HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops",
    )
    .await;
    let mut link = upstream.accept().await;
    link.send(Message::text("at last")).await;
    assert_eq!(subscriber.message().await, Message::text("at last"));
    hop.logged("upstream connected").await;
    assert_eq!(hop.count("cannot reach upstream, trying again"), 1);
    assert_eq!(hop.count("upstream connected"), 1);
}

#[tokio::test]
async fn whatever_an_upstream_answers_it_is_asked_again() {
    let wrong_key = "HTTP/1.1 101 Hm\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                     sec-websocket-accept: x\r\n\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 301 Moved Permanently\r\nlocation: /\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        wrong_key,
        "no HTTP at all\r\n\r\n",
        "",
    ] {
        let upstream = Upstream::new();
        let hop = Hop::start(&["--consume", &upstream.url()]).await;
        refuse(&upstream, answer).await;
        hop.logged("cannot reach upstream, trying again").await;
        upstream.accept().await;
        hop.logged("upstream connected").await;
    }
}

#[tokio::test]
async fn messages_and_headers_are_sent_on_every_connect_in_order() {
    let args = [
        ["--consume-message", "authenticate"],
        ["--consume-message", r#"{"op":"subscribe"}"#],
        ["--consume-message", "a\nsecond line"],
        ["--consume-header", "Authorization: Bearer token"],
        ["--consume-header", "X-Feed:  trades "],
        ["--consume-header", "Cookie: one=1"],
        ["--consume-header", "Cookie: two=2"],
    ];
    let (upstream, mut link, _hop) = Hop::connected(args.as_flattened(), &[]).await;
    for _ in 0..3 {
        assert_eq!(link.header("authorization"), "Bearer token");
        assert_eq!(link.header("x-feed"), "trades");
        let cookies: Vec<_> = link.request.headers().get_all("cookie").iter().collect();
        assert_eq!(cookies, ["one=1", "two=2"]);
        for [flag, message] in args {
            if flag == "--consume-message" {
                assert_eq!(link.receive().await, Message::text(message));
            }
        }
        // So that the next attempt comes soon.
        link.send(Message::text("welcome")).await;
        link.reset();
        link = upstream.accept().await;
    }
}

#[tokio::test]
async fn messages_and_headers_from_the_environment_are_one_a_line() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let env = [
        ("WSEVENT_CONSUME", url.as_str()),
        ("WSEVENT_CONSUME_MESSAGE", "first\nsecond"),
        ("WSEVENT_CONSUME_HEADER", "X-One: 1\nX-Two: 2"),
    ];
    let _hop = Hop::start_with(&[], &env).await;
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, Message::text("first"));
    assert_eq!(link.receive().await, Message::text("second"));
    assert_eq!((link.header("x-one"), link.header("x-two")), ("1", "2"));
}

#[tokio::test]
async fn a_user_and_a_password_in_the_url_are_sent_as_credentials() {
    let upstream = Upstream::new();
    let url = format!("ws://me:p%40ss@{}/feed?token=t", upstream.address());
    let _hop = Hop::start(&["--consume", &url]).await;
    let link = upstream.accept().await;
    assert_eq!(link.header("authorization"), "Basic bWU6cEBzcw==");
    assert_eq!(link.header("host"), upstream.address().to_string());
    assert_eq!(link.request.uri(), "/feed?token=t");
}

#[tokio::test]
async fn a_message_at_the_limit_passes_and_a_larger_one_ends_the_connection() {
    let (upstream, mut link, hop) = Hop::connected(&["--max-message-size", "1000"], &[]).await;
    let mut subscriber = hop.subscribe().await;
    let largest = Message::binary(bytes(1_000));
    link.send(largest.clone()).await;
    link.send(Message::binary(bytes(1_001))).await;
    assert_eq!(link.close_code().await, Some(1009));
    let mut link = upstream.accept().await;
    link.send_fragmented(Data::Binary, &[&[0; 600], &[0; 401]])
        .await;
    assert_eq!(link.close_code().await, Some(1009));
    let mut link = upstream.accept().await;
    link.send(Message::text("smaller")).await;
    let expected = [largest, Message::text("smaller")];
    assert_same(&subscriber.messages(2).await, &expected);
}

#[tokio::test]
async fn an_upstream_that_sends_what_it_must_not_is_told_and_tried_again() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    let mut subscriber = hop.subscribe().await;
    let wrong = [
        (frame::unmasked(FIN | frame::TEXT, b"\xff"), 1007),
        (frame::masked(FIN | frame::TEXT, b"masked"), 1002),
        (
            frame::unmasked(FIN | 0x40 | frame::TEXT, b"compressed?"),
            1002,
        ),
        (frame::unmasked(FIN | 0x3, b"reserved"), 1002),
        (
            frame::unmasked(FIN | frame::CONTINUATION, b"of what?"),
            1002,
        ),
    ];
    for (bytes, code) in wrong {
        let mut link = upstream.accept().await;
        link.send(Message::text("good")).await;
        assert_eq!(subscriber.message().await, Message::text("good"));
        let sending = link.socket().write_all(&bytes);
        within_guard("sending", sending)
            .await
            .expect("the hop reads");
        assert_eq!(link.close_code().await, Some(code), "{bytes:?}");
    }
}

#[tokio::test]
async fn an_upstream_may_close_and_its_close_is_answered() {
    let (upstream, mut link, hop) = Hop::connected(&[], &[]).await;
    let close = CloseFrame {
        code: 1012.into(),
        reason: "restarting".into(),
    };
    link.send(Message::Close(Some(close))).await;
    assert_eq!(link.close_code().await, Some(1012));
    let lost = hop.logged("upstream lost").await;
    let reason = lost.field("reason");
    assert!(
        reason.contains("1012") && reason.contains("restarting"),
        "{reason}"
    );
    upstream.accept().await;
    hop.logged_times("upstream connected", 2).await;
}

#[tokio::test]
async fn what_an_upstream_says_forges_no_line_in_the_log() {
    let (_upstream, mut link, hop) = Hop::connected(&[], &[]).await;
    let close = CloseFrame {
        code: 1000.into(),
        reason: "bye\n2026 INFO forged \u{1b}[31m".into(),
    };
    link.send(Message::Close(Some(close))).await;
    let lost = hop.logged("upstream lost").await;
    let reason = lost.field("reason");
    assert!(!reason.contains(['\n', '\u{1b}']), "{reason:?}");
}

#[tokio::test]
async fn an_upstream_is_pinged_and_given_up_when_it_is_silent() {
    let (upstream, mut link, hop) = Hop::connected(&["--ping-interval", "1s"], &[]).await;
    // Reading answers: this one lives, however many pings it gets.
    for _ in 0..3 {
        assert!(link.receive().await.is_ping());
    }
    assert_eq!(hop.count("upstream lost"), 0);
    // From here on nobody reads it.
    let lost = hop.logged("upstream lost").await;
    assert!(lost.field("reason").contains("silent"), "{}", lost.text);
    upstream.accept().await;
    hop.logged_times("upstream connected", 2).await;
}

#[tokio::test]
async fn pings_of_an_upstream_are_answered_with_their_payload() {
    // Control frames are no messages: the limit is not theirs.
    let (mut link, _hop) = Hop::fed(&["--max-message-size", "10"]).await;
    for payload in [&b""[..], b"are you there?", &[b'x'; 125]] {
        link.send(Message::Ping(payload.to_vec().into())).await;
        let pong = Message::Pong(payload.to_vec().into());
        assert_eq!(link.receive().await, pong);
    }
}

#[tokio::test]
async fn several_sources_are_merged_and_each_keeps_its_order() {
    let upstreams = [Upstream::new(), Upstream::new(), Upstream::new()];
    let urls = upstreams.each_ref().map(Upstream::url);
    let consume = urls.iter().flat_map(|url| ["--consume", url.as_str()]);
    let hop = Hop::start(&consume.collect::<Vec<_>>()).await;
    let mut subscriber = hop.subscribe().await;
    let mut senders = vec![];
    for (source, upstream) in upstreams.into_iter().enumerate() {
        senders.push(tokio::spawn(async move {
            let mut link = upstream.accept().await;
            for number in 0..300 {
                link.send(Message::text(format!("{source} {number}"))).await;
            }
            link
        }));
    }
    let mut next = [0; 3];
    for event in subscriber.messages(900).await {
        let text = event.to_text().expect("it was text");
        let (source, number) = text.split_once(' ').expect("two fields");
        let next: &mut u32 = &mut next[source.parse::<usize>().expect("a source")];
        assert_eq!(number, next.to_string(), "of source {source}");
        *next += 1;
    }
    assert_eq!(next, [300; 3]);
    for sender in senders {
        sender.await.expect("it sends all");
    }
}

#[tokio::test]
async fn one_of_two_sources_goes_away_and_the_other_goes_on() {
    let (one, other) = (Upstream::new(), Upstream::new());
    let (url, other_url) = (one.url(), other.url());
    let hop = Hop::start(&["--consume", &url, "--consume", &other_url]).await;
    let mut subscriber = hop.subscribe().await;
    one.accept().await.reset();
    drop(one);
    let lost = hop.logged("upstream lost").await;
    assert_eq!(lost.field("url"), url);
    let mut link = other.accept().await;
    let sent = numbered(10);
    link.send_all(&sent).await;
    assert_same(&subscriber.messages(10).await, &sent);
}

#[tokio::test]
async fn a_generator_may_run_beside_a_source() {
    let (_upstream, mut link, hop) = Hop::connected(&["--produce"], &[]).await;
    let mut subscriber = hop.subscribe().await;
    link.send(Message::text("consumed")).await;
    let (mut consumed, mut produced) = (0, 0);
    while consumed == 0 || produced == 0 {
        match subscriber.message().await == Message::text("consumed") {
            true => consumed += 1,
            false => produced += 1,
        }
    }
}
