//! A hop behind TLS: what it serves is the same as without, however its subscribers come and go.

mod certificates;
mod http2;
mod peers;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::authority::Authority;
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, handshake, request};
use crate::harness::events::{all_sorts, assert_same, bytes, numbered};
use crate::harness::frame::{CLOSE, FIN, PING, PONG, TEXT, close_payload, masked};
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::wsevent::{Hop, Tail, output};

const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

#[tokio::test]
async fn subscribers_get_everything_unchanged() {
    let authority = Authority::new();
    // Nothing but events is to wake them.
    let (mut link, hop) = authority.fed(&["--ping-interval", "1h"]).await;
    assert!(hop.url.starts_with("wss://"), "{}", hop.url);
    let mut subscribers = [
        authority.subscribe(&hop).await,
        authority.subscribe(&hop).await,
    ];
    let sent = all_sorts();
    link.send_all(&sent).await;
    for subscriber in &mut subscribers {
        assert_same(&subscriber.messages(sent.len()).await, &sent);
    }
    // What is gone is counted as without TLS.
    let [mut one, other] = subscribers;
    one.send_frame(CLOSE, &close_payload(4001, b"enough")).await;
    assert_eq!(one.closed().await, 4001);
    let line = hop.disconnected().await;
    let text = &line.text;
    assert_eq!(line.number("code"), 4001, "{text}");
    assert_eq!(line.number("events"), sent.len() as u64, "{text}");
    assert_eq!(line.field("transport"), "websocket", "{text}");
    assert!(line.number("bytes") > bytes_of(&sent), "{text}");
    drop(other);
    let line = hop.logged_times("subscriber disconnected", 2).await;
    assert_eq!(line.field("reason"), "connection lost", "{}", line.text);
    assert_eq!(hop.count("subscriber connected"), 2);
}

fn bytes_of(messages: &[Message]) -> u64 {
    messages.iter().map(|message| message.len() as u64).sum()
}

#[tokio::test]
async fn bodies_get_everything_and_comments() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&["--ping-interval", "100ms"]).await;
    let client = authority.client(None, &[]);
    let mut bodies = vec![];
    for accept in [("Accept", "text/event-stream"), NDJSON] {
        // The first on its connection, which the fan-out serves, and one that hyper does.
        for is_used in [false, true] {
            let mut client = client.connect(hop.address).await;
            if is_used {
                client = client.used().await;
            }
            bodies.push(Stream::on(client, "/events", &[accept]).await);
        }
    }
    let sent = numbered(100);
    link.send_all(&sent).await;
    for (number, body) in bodies.iter_mut().enumerate() {
        for message in &sent {
            let text = message.to_text().expect("it is text");
            match number < 2 {
                true => assert_eq!(body.event().await.data, text),
                false => assert_eq!(body.object().await["data"], text),
            }
        }
    }
    for body in &mut bodies[..2] {
        while body.block().await.expect("it goes on") != ":\n\n" {}
    }
    drop(bodies);
    hop.logged_times("subscriber disconnected", 4).await;
}

#[tokio::test]
async fn a_chain_of_hops_over_tls_changes_nothing_and_resumes() {
    let authority = Authority::new();
    let (mut link, first) = authority.fed(&[]).await;
    let [flag, ca] = &authority.trust();
    let args = ["--consume", &first.url, flag, ca];
    let second = authority.hop(&args).await;
    let connected = second.logged("upstream connected").await;
    assert_eq!(connected.field("url"), first.url);
    let args = ["--consume", &second.url, flag, ca];
    let third = Hop::start(&args).await;
    third.logged("upstream connected").await;
    let mut subscriber = third.subscribe().await;
    let sent = all_sorts();
    link.send_all(&sent).await;
    assert_same(&subscriber.messages(sent.len()).await, &sent);
    // They are hop links, so ids stay.
    let secure = authority.client(None, &[]);
    let mut ids = vec![];
    for client in [
        secure.connect(first.address).await,
        secure.connect(second.address).await,
        Client::connect(third.address).await,
    ] {
        let mut last = Stream::on(client, "/events?history=1", &[NDJSON]).await;
        ids.push(last.object().await["id"].clone());
    }
    assert!(ids[0].is_string() && ids.iter().all(|id| *id == ids[0]));
    let of_hop = |line: &crate::harness::log::Line| line.field("transport") == "hop";
    second.logged_where("subscriber connected", of_hop).await;
}

#[tokio::test]
async fn clients_of_ours_read_and_publish() {
    let authority = Authority::new();
    let hop = authority.hop(&["--accept-publish"]).await;
    let [flag, ca] = &authority.trust();
    let https = hop.url.replace("wss://", "https://");
    let mut tails = [
        Tail::start(&hop.url, &[flag, ca, "--count", "2"]),
        Tail::start(&https, &[flag, ca, "--count", "2"]),
    ];
    hop.logged_times("subscriber connected", 2).await;
    for url in [&hop.url, &https] {
        let output = output(&["publish", url, url, flag, ca], &[]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    for tail in &mut tails {
        assert_eq!(tail.line().await.as_ref(), Some(&hop.url));
        assert_eq!(tail.line().await.as_ref(), Some(&https));
    }
    for tail in tails {
        tail.ends_with(0).await;
    }
}

#[tokio::test]
async fn messages_and_requests_publish() {
    let authority = Authority::new();
    let hop = authority.hop(&["--accept-publish"]).await;
    let mut subscriber = authority.subscribe(&hop).await;
    // Right behind the handshake, and in more than one piece.
    let mut early = authority.client(None, &[]).connect(hop.address).await;
    let message = masked(FIN | TEXT, b"early");
    early
        .send([handshake("/events").as_bytes(), &message].concat())
        .await;
    assert_eq!(early.head().await.status, 101);
    assert_eq!(subscriber.message().await, Message::text("early"));
    let large = masked(FIN | TEXT, &[b'x'; 100_000]);
    early.send(&large[..50_000]).await;
    early.send(&large[50_000..]).await;
    assert_eq!(subscriber.message().await.len(), 100_000);
    let mut client = authority.client(None, &[]).connect(hop.address).await;
    let headers = [("Host", "localhost"), ("Content-Length", "6")];
    client
        .send(request("POST /events HTTP/1.1", &headers) + "a body")
        .await;
    assert_eq!(client.head().await.status, 202);
    assert_eq!(subscriber.message().await, Message::text("a body"));
}

#[tokio::test]
async fn pings_and_what_must_not_be_sent_are_answered() {
    let authority = Authority::new();
    let (_link, hop) = authority.fed(&[]).await;
    let mut subscriber = authority.subscribe(&hop).await;
    subscriber.send_frame(PING, b"a payload").await;
    let pong = subscriber.frame().await.expect("an answer");
    assert_eq!((pong.opcode, &*pong.payload), (PONG, &b"a payload"[..]));
    subscriber.send_frame(TEXT, b"hello").await;
    assert_eq!(subscriber.closed().await, 1003);
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1003, "{}", line.text);
}

#[tokio::test]
async fn the_silent_are_pinged_and_closed() {
    let authority = Authority::new();
    let (_link, hop) = authority.fed(&["--ping-interval", "100ms"]).await;
    let mut silent = authority.subscribe(&hop).await;
    let (pings, code, reason) = silent.until_close().await;
    assert!(pings.iter().all(|frame| frame.opcode == PING));
    assert!(!pings.is_empty());
    assert_eq!((code, &*reason), (1011, "silent for two ping intervals"));
}

/// Event number `number`, of `len` bytes.
fn event(number: u64, len: usize) -> Message {
    let mut payload = bytes(len);
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Message::binary(payload)
}

#[tokio::test]
async fn one_that_does_not_read_is_closed_with_1013_and_others_get_everything() {
    const LEN: usize = 8 << 10;
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&["--history", "256KiB"]).await;
    let secure = authority.client(None, &[]);
    let slow = secure.connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = slow.upgraded("/events").await;
    let mut fast = authority.subscribe(&hop).await;
    for number in 0..(more_than_kernel_buffers() / LEN) as u64 {
        let event = event(number, LEN);
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], &[event]);
    }
    // It gets whole events, and why there are no more.
    let (frames, code, reason) = slow.until_close().await;
    assert_eq!(code, 1013);
    assert!(reason.contains("history"), "{reason}");
    for (number, frame) in frames.iter().enumerate() {
        let got = Message::binary(frame.payload.clone());
        assert_same(&[got], &[event(number as u64, LEN)]);
    }
    slow.answer_close(code).await;
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1013, "{}", line.text);
    assert_eq!(line.number("events"), frames.len() as u64);
}

/// Even if it never reads again, so that it does not get to know.
#[tokio::test]
async fn one_that_never_reads_again_is_let_go() {
    const LEN: usize = 8 << 10;
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&["--history", "256KiB"]).await;
    let secure = authority.client(None, &[]);
    let slow = secure.connect_with_buffer(hop.address, 4 << 10).await;
    let slow = slow.upgraded("/events").await;
    let mut fast = authority.subscribe(&hop).await;
    let mut number = 0;
    while hop.count("subscriber disconnected") == 0 {
        let event = event(number, LEN);
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], &[event]);
        number += 1;
    }
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1013, "{}", line.text);
    drop(slow);
}

#[tokio::test]
async fn one_that_is_to_skip_gets_the_rest_after_what_it_has_missed() {
    const LEN: usize = 8 << 10;
    let authority = Authority::new();
    let args = ["--history", "256KiB", "--overload", "skip"];
    let (mut link, hop) = authority.fed(&args).await;
    let secure = authority.client(None, &[]);
    let slow = secure.connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = Stream::on(slow, "/events", &[("Accept", "text/event-stream")]).await;
    let mut fast = authority.subscribe(&hop).await;
    let count = more_than_kernel_buffers() / LEN;
    for number in 0..count {
        let event = Message::text(format!("{number:08}{}", "x".repeat(LEN)));
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], &[event]);
    }
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < count {
        let event = slow.event().await;
        match event.event.as_deref() {
            Some("wsevent.gap") => lost += event.gap()["lost"].as_u64().expect("a number") as usize,
            _ => {
                assert_eq!(event.data[..8], format!("{:08}", seen + lost));
                seen += 1;
            }
        }
    }
    assert!(seen > 0 && lost > 0, "{seen} seen, {lost} lost");
}

#[tokio::test]
async fn one_that_falls_behind_within_history_gets_everything() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&["--history", "64MiB"]).await;
    let secure = authority.client(None, &[]);
    let slow = secure.connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = slow.upgraded("/events").await.read_at_most(16 << 10);
    let mut fast = authority.subscribe(&hop).await;
    // Frames that are larger than what goes out at once, among small ones.
    let mut sent = vec![];
    for number in 0..(more_than_kernel_buffers() / (200 << 10)) as u64 {
        sent.extend([event(number, 300_000), event(number, 100)]);
    }
    for event in &sent {
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], std::slice::from_ref(event));
    }
    assert_same(&slow.messages(sent.len()).await, &sent);
}

#[tokio::test]
async fn a_stop_is_told_to_all() {
    let authority = Authority::new();
    let (mut link, mut hop) = authority.fed(&[]).await;
    let mut subscribers = vec![];
    for _ in 0..20 {
        subscribers.push(authority.subscribe(&hop).await);
    }
    let client = authority.client(None, &[]).connect(hop.address).await;
    let mut body = Stream::on(client, "/events", &[NDJSON]).await;
    link.send(Message::text("last")).await;
    assert_eq!(body.object().await["data"], "last");
    hop.signal(Signal::INT);
    for mut subscriber in subscribers {
        assert_eq!(subscriber.message().await, Message::text("last"));
        assert_eq!(subscriber.closed().await, 1001);
    }
    body.ended().await;
    drop(body);
    hop.stops_well().await;
    assert_eq!(hop.count("subscriber disconnected"), 21);
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so() {
    let authority = Authority::new();
    let hop = authority.hop(&[]).await;
    for text in [
        request("GET /events HTTP/1.1", &[("Host", "localhost")]),
        handshake("/events"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut client = Client::connect(hop.address).await;
        client.send(text).await;
        let head = client.head().await;
        assert_eq!(head.status, 400);
        let said = client.body(&head).await;
        assert!(
            said.contains("https://") && said.lines().count() == 1,
            "{said}"
        );
        client.ended().await;
    }
    // What is neither gets an alert at most (RFC 8446, section 6), and nobody else is disturbed.
    let mut client = Client::connect(hop.address).await;
    client.send(b"\0\0\0\0\0\0\0\0").await;
    assert!(client.rest().await.len() < 16);
    drop(TcpStream::connect(hop.address).await);
    authority.subscribe(&hop).await.message().await;
}
