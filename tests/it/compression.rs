//! Compressed streams: agreed on, the same events as without, from wherever a reader begins; and what clients send compressed.

mod links;
mod peers;

use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use wsevent::wire::compress::deflate_message;
use wsevent::wire::websocket::Inflater;

use crate::harness::authority::Authority;
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, HANDSHAKE, Head, request};
use crate::harness::events::text;
use crate::harness::frame::{
    BINARY, COMPRESSED, CONTINUATION, FIN, PING, PONG, TEXT, masked, unmasked,
};
use crate::harness::http2::Http2;
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::wsevent::{Hop, output};

const OFFER: (&str, &str) = ("Sec-WebSocket-Extensions", "permessage-deflate");
const SSE: (&str, &str) = ("Accept", "text/event-stream");
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");
const CODINGS: [&str; 2] = ["gzip", "zstd"];

/// A text that becomes smaller, and says its number.
fn event(number: u64) -> String {
    format!("{number} {}", text(1_000))
}

fn number(data: &str) -> u64 {
    let (number, rest) = data.split_once(' ').expect("a number and a text");
    assert_eq!(rest, text(1_000));
    number.parse().expect("a number")
}

/// A WebSocket that has been asked to compress.
async fn deflated(hop: &Hop, path: &str) -> (Head, Client) {
    let mut client = Client::connect(hop.address).await;
    let headers = [&HANDSHAKE[..], &[OFFER]].concat();
    client
        .send(request(&format!("GET {path} HTTP/1.1"), &headers))
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 101, "{head:?}");
    (head, client)
}

/// The next message, and whether it came compressed.
async fn message(client: &mut Client) -> (String, bool) {
    let frame = client.frame().await.expect("a frame before the end");
    let mut plain = frame.payload;
    if frame.compressed {
        let wire = unmasked(FIN | COMPRESSED | frame.opcode, &plain);
        let mut out = vec![];
        let taken = Inflater::new(1 << 20).take(&wire, &mut out);
        taken.expect("it is what its bit says");
        let header = match out[1] {
            0..126 => 2,
            126 => 4,
            _ => 10,
        };
        plain = out.split_off(header);
    }
    (
        String::from_utf8(plain).expect("it is text"),
        frame.compressed,
    )
}

#[tokio::test]
async fn nothing_is_compressed_unless_both_sides_want_it() {
    let hop = Hop::quiet(&[]).await;
    let (head, _) = deflated(&hop, "/events").await;
    assert_eq!(head.header("sec-websocket-extensions"), "");
    let stream = Stream::open(hop.address, "/events", &[("Accept-Encoding", "gzip")]).await;
    assert_eq!(stream.head.header("content-encoding"), "");
    assert_eq!(stream.head.header("vary"), "accept");
    let hop = Hop::quiet(&["--compress"]).await;
    let mut client = Client::connect(hop.address).await;
    client
        .send(crate::harness::client::handshake("/events"))
        .await;
    let head = client.head().await;
    assert_eq!(
        (head.status, head.header("sec-websocket-extensions")),
        (101, "")
    );
    for (accept, coding) in [
        (None, ""),
        (Some("identity"), ""),
        (Some("br"), ""),
        (Some("gzip, deflate"), "gzip"),
        (Some("gzip, deflate, br, zstd"), "zstd"),
        (Some("zstd;q=0.5, gzip"), "gzip"),
    ] {
        let headers: Vec<_> = accept
            .map(|accept| ("Accept-Encoding", accept))
            .into_iter()
            .collect();
        for stream in [
            Stream::open(hop.address, "/events", &headers).await,
            Stream::open_second(hop.address, "/events", &headers).await,
        ] {
            assert_eq!(stream.head.header("content-encoding"), coding, "{accept:?}");
            assert_eq!(stream.head.header("vary"), "accept, accept-encoding");
        }
    }
    let mut client = Client::connect(hop.address).await;
    let none = [("Accept-Encoding", "br, identity;q=0")];
    let (head, body) = client.get("/events", &none).await;
    assert_eq!(head.status, 406);
    assert!(body.contains("zstd and gzip"), "{body}");
}

#[tokio::test]
async fn messages_are_compressed_where_that_makes_them_smaller() {
    let (mut link, mut hop) = Hop::fed(&["--compress"]).await;
    let (head, mut client) = deflated(&hop, "/events").await;
    assert_eq!(
        head.header("sec-websocket-extensions"),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    );
    let random: String = std::iter::repeat_with(|| rand::random_range('!'..='~'))
        .take(300)
        .collect();
    for (sent, is_smaller) in [
        (event(1), true),
        ("short".to_owned(), false),
        (String::new(), false),
        (text(200_000), true),
        (random, true),
        (event(2), true),
    ] {
        link.send(Message::text(sent.clone())).await;
        assert_eq!(message(&mut client).await, (sent, is_smaller));
    }
    // Control frames are never compressed.
    client.send(masked(FIN | PING, b"ping")).await;
    let pong = client.frame().await.expect("a pong");
    assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"ping"[..]));
    hop.signal(Signal::INT);
    assert_eq!(client.closed().await, 1001);
    hop.stops_well().await;
    let line = hop.disconnected().await;
    assert_eq!(line.field("transport"), "websocket+deflate");
}

/// In whatever fragments, with control frames between them; and what cannot be taken is answered with its code.
#[tokio::test]
async fn what_clients_publish_compressed_is_taken() {
    let hop = Hop::quiet(&[
        "--accept-publish",
        "--compress",
        "--max-message-size",
        "10KiB",
    ])
    .await;
    let mut subscriber = hop.subscribe().await;
    let (_, mut publisher) = deflated(&hop, "/events").await;
    let mut whole = vec![];
    deflate_message(&[event(7).as_bytes()], &mut whole);
    let (one, other) = whole.split_at(5);
    publisher.send(masked(COMPRESSED | TEXT, one)).await;
    publisher.send(masked(FIN | PING, b"between")).await;
    publisher.send(masked(FIN | CONTINUATION, other)).await;
    publisher.send(masked(FIN | TEXT, b"plain")).await;
    publisher
        .send(masked(FIN | COMPRESSED | TEXT, &whole))
        .await;
    for expected in [event(7), "plain".to_owned(), event(7)] {
        assert_eq!(subscriber.message().await, Message::text(expected));
    }
    let mut most = vec![];
    deflate_message(&[&[b'x'; 10 << 10]], &mut most);
    publisher.send(masked(FIN | COMPRESSED | TEXT, &most)).await;
    assert_eq!(subscriber.message().await.len(), 10 << 10);
    // A thousandfold, and all that is made of it are some KiB.
    let before = hop.process.resident();
    let mut bomb = vec![];
    deflate_message(&[&vec![0; 1 << 20]], &mut bomb);
    let mut one_more = vec![];
    deflate_message(&[&[b'x'; (10 << 10) + 1]], &mut one_more);
    let mut no_text = vec![];
    deflate_message(&[&[0xFF; 300]], &mut no_text);
    for (first, payload, code) in [
        (COMPRESSED | BINARY, &bomb[..], 1009),
        (COMPRESSED | BINARY, &one_more[..], 1009),
        (COMPRESSED | BINARY, b"\xff\xff\xff", 1007),
        (COMPRESSED | BINARY, &whole[..whole.len() / 2], 1007),
        (COMPRESSED | TEXT, &no_text, 1007),
        (COMPRESSED | 0x20 | TEXT, &whole, 1002),
        (COMPRESSED | PING, b"", 1002),
    ] {
        let (_, mut publisher) = deflated(&hop, "/events").await;
        publisher.send(masked(FIN | first, payload)).await;
        assert_eq!(publisher.closed().await, code, "{first:#x}");
    }
    assert!(hop.process.resident() < before + (16 << 20));
    // Who has not been asked whether he may compress may not.
    let mut plain = hop.subscribe().await;
    plain.send(masked(FIN | COMPRESSED | TEXT, &whole)).await;
    assert_eq!(plain.closed().await, 1002);
    // The others have not noticed.
    publisher.send(masked(FIN | TEXT, b"still there")).await;
    assert_eq!(subscriber.message().await, Message::text("still there"));
}

/// Live, from history, and behind an id, over each version of HTTP: from anywhere a reader gets the same.
#[tokio::test]
async fn readers_begin_anywhere() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&["--compress", "--history-count", "4"]).await;
    let mut subscriber = authority.subscribe(&hop).await;
    let mut feed = async |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            link.send(Message::text(event(number))).await;
            subscriber.message().await;
        }
    };
    let client = authority.client(None, &[]);
    let over_http_1 = async |target: &str, headers: &[(&str, &str)]| {
        Stream::on(client.connect(hop.address).await, target, headers).await
    };
    for (round, coding) in CODINGS.into_iter().enumerate() {
        feed(1..=6).await;
        let encoding = ("accept-encoding", coding);
        let mut lines = over_http_1("/events?history=all", &[NDJSON, encoding]).await;
        let oldest = lines.object().await;
        assert_eq!(oldest["data"], event(3));
        let oldest = oldest["id"].as_str().expect("an id");
        let (instance, _) = oldest.split_once('-').expect("an instance");
        let after = format!("{instance}-{}", round * 7 + 1);
        let mut http2 = Http2::secure(&authority, &hop).await;
        let all = [SSE, encoding];
        let behind = [SSE, encoding, ("last-event-id", &after)];
        let mut streams = vec![
            (over_http_1("/events?history=all", &all).await, 3),
            (over_http_1("/events", &all).await, 7),
            (over_http_1("/events", &behind).await, 3),
            (http2.read("/events?history=2", &all).await, 5),
            (http2.read("/events", &all).await, 7),
            (http2.read("/events", &behind).await, 3),
        ];
        for index in [2, 5] {
            let gap = json!({"after": after, "next": oldest, "lost": 1});
            assert_eq!(streams[index].0.event().await.gap(), gap);
        }
        for (stream, first) in &mut streams {
            assert_eq!(stream.head.header("content-encoding"), coding);
            for expected in *first..=6 {
                assert_eq!(number(&stream.event().await.data), expected);
            }
        }
        feed(7..=7).await;
        for (stream, first) in &mut streams {
            assert_eq!(number(&stream.event().await.data), 7);
            let most = (8 - *first as usize) * 500 + 500;
            assert!(stream.received < most, "{} bytes", stream.received);
        }
    }
}

/// Heartbeats, and the word to those who are sent away, are in the coding, too.
#[tokio::test]
async fn what_is_no_event_is_compressed_as_well() {
    let mut hop = Hop::quiet(&["--compress", "--accept-publish", "--ping-interval", "100ms"]).await;
    let mut streams = vec![];
    for coding in CODINGS {
        let headers = [SSE, ("Accept-Encoding", coding)];
        streams.push(Stream::open(hop.address, "/events", &headers).await);
        streams.push(Stream::open_second(hop.address, "/events", &headers).await);
    }
    for stream in &mut streams {
        stream.opening().await;
        for _ in 0..3 {
            assert_eq!(stream.block().await.as_deref(), Some(":\n\n"));
        }
    }
    hop.signal(Signal::TERM);
    for stream in &mut streams {
        // When to come back.
        while stream.block().await.expect("one more").starts_with(':') {}
        assert_eq!(stream.block().await, None);
    }
    hop.stops_well().await;
}

/// A reader that falls behind is cut within frames again and again, and passes over what has gone: it gets whole events, and is told.
#[tokio::test]
async fn slow_readers_skip_and_are_told() {
    const HISTORY: &str = "64KiB";
    let random = std::iter::repeat_with(|| rand::random_range('a'..='p'));
    let random: String = random.take(66_000).collect();
    for coding in CODINGS {
        let args = ["--compress", "--overload", "skip", "--history", HISTORY];
        let (mut link, hop) = Hop::fed_single(&args).await;
        let mut fast = hop.subscribe().await;
        let client = Client::connect_with_buffer(hop.address, 4 << 10).await;
        let headers = [SSE, ("Accept-Encoding", coding)];
        let mut slow = Stream::on(client, "/events", &headers).await;
        slow.opening().await;
        let noise =
            |number: u64| format!("{number} {}", &random[number as usize % 50_000..][..16_000]);
        let count = (more_than_kernel_buffers() / 6_000) as u64;
        for number in 0..count {
            link.send(Message::text(noise(number))).await;
            fast.message().await;
        }
        link.send(Message::text(format!("{count} end"))).await;
        let (mut next, mut gaps) = (0, 0);
        while next <= count {
            let event = slow.event().await;
            if event.event.as_deref() == Some("wsevent.gap") {
                next += event.gap()["lost"].as_u64().expect("it is known");
                gaps += 1;
                continue;
            }
            let (number, _) = event.data.split_once(' ').expect("a number");
            assert_eq!(number, next.to_string());
            next += 1;
        }
        assert!(gaps > 0, "{coding}: it was not slow");
    }
}

#[tokio::test]
async fn a_body_that_is_compressed_is_not_taken() {
    let hop = Hop::quiet(&["--accept-publish", "--compress"]).await;
    for coding in ["gzip", "zstd", "br"] {
        let mut client = Client::connect(hop.address).await;
        let headers = [
            ("Host", "localhost"),
            ("Content-Encoding", coding),
            ("Content-Length", "3"),
        ];
        client
            .send(request("POST /events HTTP/1.1", &headers) + "abc")
            .await;
        let head = client.head().await;
        assert_eq!(head.status, 415);
        let body = client.body(&head).await;
        assert!(body.contains("send the body as it is"), "{body}");
    }
}

#[tokio::test]
async fn publish_reads_nothing_that_could_be_compressed() {
    let args = [
        "publish",
        "ws://localhost:1/x",
        "--consume-compress",
        "data",
    ];
    let output = output(&args, &[]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--consume-compress is about what is read"),
        "{said}"
    );
}
