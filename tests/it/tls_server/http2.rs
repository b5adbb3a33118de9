//! HTTP/2 at a hop: agreed on by ALPN or from the first byte, and WebSockets on it (RFC 8441).

use http_body_util::BodyExt;
use hyper::ext::Protocol;
use hyper::{Method, Request};
use rustix::process::Signal;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::authority::Authority;
use crate::harness::events::{all_sorts, assert_same, bytes};
use crate::harness::frame::{BINARY, CLOSE, FIN, PING, PONG, TEXT, close_payload, masked};
use crate::harness::http2::Http2;
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn websockets_get_everything_side_by_side() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&[]).await;
    let (mut other_link, other) = Hop::fed(&[]).await;
    for (link, hop, mut http2) in [
        (&mut link, &hop, Http2::secure(&authority, &hop).await),
        (&mut other_link, &other, Http2::plain(&other).await),
    ] {
        let mut subscribers = vec![];
        for _ in 0..3 {
            subscribers.push(http2.subscribe().await);
        }
        let sent = all_sorts();
        link.send_all(&sent).await;
        for subscriber in &mut subscribers {
            assert_same(&subscriber.messages(sent.len()).await, &sent);
        }
        // Each is a subscriber, and goes alone.
        let mut leaving = subscribers.remove(0);
        let close = close_payload(4001, b"enough");
        leaving.send_frame(CLOSE, &close).await;
        assert_eq!(leaving.closed().await, 4001);
        let line = hop.disconnected().await;
        assert_eq!(line.number("code"), 4001, "{}", line.text);
        assert_eq!(line.number("events"), sent.len() as u64, "{}", line.text);
        drop(subscribers.remove(0));
        hop.logged_times("subscriber disconnected", 2).await;
        subscribers[0].send_frame(PING, b"still there").await;
        let pong = subscribers[0].frame().await.expect("an answer");
        assert_eq!((pong.opcode, &*pong.payload), (PONG, &b"still there"[..]));
        assert_eq!(hop.count("subscriber connected"), 3);
    }
}

#[tokio::test]
async fn websockets_publish_and_begin_where_they_want() {
    let authority = Authority::new();
    let hop = authority.hop(&["--accept-publish"]).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let mut publisher = http2.subscribe().await;
    for text in ["one", "two"] {
        publisher.send(masked(FIN | TEXT, text.as_bytes())).await;
        assert_eq!(publisher.message().await, Message::text(text));
    }
    let (answer, mut late) = http2.open("/events?history=1", &[]).await;
    assert_eq!(answer.headers()["wsevent-resumed"], "yes");
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(name), "{answer:?}");
    }
    assert_eq!(late.message().await, Message::text("two"));
    // A page of another origin is not let in.
    let foreign = Request::connect("https://localhost/events")
        .extension(Protocol::from_static("websocket"))
        .header("origin", "https://elsewhere.example");
    assert_eq!(http2.ask(foreign).await.status(), 403);
}

#[tokio::test]
async fn one_that_blocks_before_it_has_joined_gets_events_as_they_come() {
    let authority = Authority::new();
    let flags = authority.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    // With one worker its own task runs before the driver knows of it; and no ping is to wake it later.
    let args = ["--accept-publish", "--ping-interval", "1h"];
    let one = [("TOKIO_WORKER_THREADS", "1")];
    let hop = Hop::start_with(&[&flags[..], &args].concat(), &one).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let mut publisher = http2.subscribe().await;
    // More than a window of HTTP/2 takes.
    let sent: Vec<_> = (0..5).map(|_| Message::binary(bytes(60_000))).collect();
    for message in &sent {
        publisher
            .send(masked(FIN | BINARY, &message.clone().into_data()))
            .await;
        publisher.message().await;
    }
    let (_, mut late) = http2.open("/events?history=all", &[]).await;
    assert_same(&late.messages(sent.len()).await, &sent);
    for number in 0..5 {
        let text = format!("live {number}");
        publisher.send(masked(FIN | TEXT, text.as_bytes())).await;
        assert_eq!(publisher.message().await, Message::text(text.clone()));
        assert_eq!(late.message().await, Message::text(text));
    }
}

#[tokio::test]
async fn a_hop_link_is_one_of_them() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&[]).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let offer = [("sec-websocket-protocol", "wsevent.v1")];
    let (answer, mut down) = http2.open("/events", &offer).await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "wsevent.v1");
    assert!(answer.headers().contains_key("wsevent-instance"));
    down.send_frame(TEXT, b"!hello").await;
    let welcome = down.message().await;
    assert!(
        welcome.to_text().expect("text").starts_with("!welcome"),
        "{welcome:?}"
    );
    link.send(Message::text("an event")).await;
    let event = down.message().await;
    assert!(
        event.to_text().expect("text").ends_with("\nan event"),
        "{event:?}"
    );
    // What is no hello is refused as ever.
    let (_, mut wrong) = http2.open("/events", &offer).await;
    wrong.send_frame(TEXT, b"hello").await;
    assert_eq!(wrong.closed().await, 1002);
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let authority = Authority::new();
    let hop = authority.hop(&[]).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let connect = |target: &str, protocol| {
        Request::connect(format!("https://localhost{target}"))
            .extension(Protocol::from_static(protocol))
    };
    let cases = [
        (connect("/elsewhere", "websocket"), 404),
        (connect("/events?history=some", "websocket"), 400),
        (
            connect("/events", "websocket").header("sec-websocket-version", "8"),
            400,
        ),
        (connect("/events", "connect-udp"), 405),
        (
            Request::get("https://localhost/events")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            400,
        ),
        (
            Request::builder()
                .method(Method::PUT)
                .uri("https://localhost/events"),
            405,
        ),
    ];
    for (request, status) in cases {
        let said = format!("{request:?}");
        let answer = http2.ask(request).await;
        assert_eq!(answer.status(), status, "{said}");
        let body = answer.into_body().collect().await.expect("a body");
        assert!(!body.to_bytes().is_empty(), "{said} is not told why");
    }
    http2.subscribe().await.message().await;
}

/// Beside WebSockets there are bodies, which share the connection as well.
#[tokio::test]
async fn one_that_does_not_read_is_closed_with_1013_and_others_get_everything() {
    const LEN: usize = 8 << 10;
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&["--history", "256KiB"]).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let mut slow = http2.subscribe().await;
    let mut fast = http2.subscribe().await;
    let mut elsewhere = authority.subscribe(&hop).await;
    for number in 0..(more_than_kernel_buffers() / LEN) as u64 {
        let mut payload = bytes(LEN);
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let event = Message::binary(payload);
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], std::slice::from_ref(&event));
        assert_same(&[elsewhere.message().await], &[event]);
    }
    let (frames, code, _) = slow.until_close().await;
    assert_eq!(code, 1013);
    // Its window, and what is on the way to it.
    assert!(frames.len() * LEN < 1 << 20, "{}", frames.len());
    for (number, frame) in (0_u64..).zip(&frames) {
        assert_eq!(
            (frame.payload.len(), &frame.payload[..8]),
            (LEN, &number.to_be_bytes()[..])
        );
    }
    slow.answer_close(code).await;
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1013, "{}", line.text);
}

#[tokio::test]
async fn a_stop_is_told_to_all() {
    let authority = Authority::new();
    let (_link, mut hop) = authority.fed(&[]).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let mut subscribers = vec![];
    for _ in 0..20 {
        subscribers.push(http2.subscribe().await);
    }
    hop.signal(Signal::INT);
    for subscriber in subscribers {
        assert_eq!(subscriber.closed().await, 1001);
    }
    hop.stops_well().await;
    assert_eq!(hop.count("subscriber disconnected"), 20);
}

#[tokio::test]
async fn requests_of_a_second_connection_see_those_of_the_first() {
    let authority = Authority::new();
    let hop = authority.hop(&[]).await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let _subscribers = [http2.subscribe().await, http2.subscribe().await];
    let mut other = Http2::secure(&authority, &hop).await;
    let answer = other.ask(Request::get("https://localhost/")).await;
    let body = answer.into_body().collect().await.expect("a body");
    let index: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    assert_eq!(index["streams"][0]["subscribers"], 2);
}
