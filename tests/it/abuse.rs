//! What docs/threat-model.md says of those who want to cost much for little, where no other test shows it.

use std::time::Duration;

use tokio::time::timeout;

use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::frame::{BINARY, CLOSE, CONTINUATION, FIN, PING, TEXT, header, masked};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

/// What a hop may need beside what a test is about, in bytes: buffers that are kept for others, and what an allocator rounds up.
const BESIDE: usize = 6 << 20;
/// As long without room for another byte, the other side does not read.
const STUCK: Duration = Duration::from_millis(300);

/// Sends the same again and again, up to `most` bytes, until it is not read any more or the connection is over; how many bytes went out.
async fn flood(client: &mut Client, piece: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match timeout(STUCK, client.try_send(piece)).await {
            Ok(Ok(())) => sent += piece.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

/// The head of a masked frame that claims a payload of this length, and some of it.
fn begun(first: u8, len: u64, payload: &[u8]) -> Vec<u8> {
    [&header(first, 0x80, len)[..], &[0; 4], payload].concat()
}

async fn serves(hop: &Hop) {
    let (head, _) = Client::connect(hop.address).await.get("/", &[]).await;
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn a_length_that_is_claimed_takes_no_memory() {
    const CLIENTS: usize = 100;
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut clients = vec![hop.subscribe().await];
    let before = hop.resident();
    for _ in 1..CLIENTS {
        let mut client = hop.subscribe().await;
        client.send(begun(FIN | BINARY, 1 << 20, b"x")).await;
        // It has been read once what is behind it is answered; a ping cannot stand within a frame, so another one's does.
        clients.push(client);
    }
    serves(&hop).await;
    let grown = hop.resident().saturating_sub(before);
    // A hundredth of what they have claimed, and what a hundred connections are.
    assert!(grown < BESIDE, "{grown} bytes");
    let last = clients.last_mut().expect("there are some");
    last.send(vec![0; (1 << 20) - 1]).await;
    let message = clients[0].message().await;
    assert_eq!(message.len(), 1 << 20);
}

#[tokio::test]
async fn of_who_may_not_publish_little_is_waited_for() {
    let hop = Hop::quiet(&[]).await;
    for begun in [
        begun(FIN | BINARY, 1 << 20, b"x"),
        begun(FIN | TEXT, 2_049, b""),
        [
            masked(TEXT, &[b'x'; 1_000]),
            masked(CONTINUATION, &[b'x'; 1_000]).repeat(2),
        ]
        .concat(),
        masked(FIN | TEXT, b"x"),
    ] {
        let mut client = hop.subscribe().await;
        client.send(begun).await;
        let (_, code, reason) = client.until_close().await;
        assert_eq!((code, &*reason), (1003, "this path takes no messages"));
        client.answer_close(code).await;
    }
}

#[tokio::test]
async fn messages_that_do_not_end_share_the_memory_of_bodies() {
    let args = [
        "--accept-publish",
        "--max-message-size=700KiB",
        "--max-body-size=700KiB",
        "--max-body-memory=1MiB",
    ];
    let hop = Hop::quiet(&args).await;
    let len = 600 << 10;
    let mut first = hop.subscribe().await;
    let mut reader = hop.subscribe().await;
    first
        .send(begun(FIN | BINARY, len, &vec![0; 500 << 10]))
        .await;
    // In fragments it is the same. So much is there once the answer to a ping behind it is.
    let mut second = hop.subscribe().await;
    second.send(masked(BINARY, &vec![0; 400 << 10])).await;
    second.send_frame(PING, b"there").await;
    assert_eq!(
        within_guard("a pong", second.frame())
            .await
            .expect("one")
            .payload,
        b"there"
    );
    let mut third = hop.subscribe().await;
    third
        .send(begun(FIN | BINARY, len, &vec![0; 300 << 10]))
        .await;
    let (_, code, reason) = third.until_close().await;
    assert_eq!(code, 1013);
    assert_eq!(
        reason,
        "there is no memory for this message, as many others are being received"
    );
    third.answer_close(code).await;
    let line = hop.disconnected().await;
    assert_eq!(
        (line.number("code"), line.field("reason")),
        (1013, reason.clone())
    );
    first.send(vec![0; 100 << 10]).await;
    assert_eq!(reader.message().await.len(), 600 << 10);
    // What the first had is there again.
    let mut fourth = hop.subscribe().await;
    fourth.send(masked(FIN | BINARY, &vec![1; 500 << 10])).await;
    assert_eq!(reader.message().await.len(), 500 << 10);
}

#[tokio::test]
async fn fragments_without_an_end_and_pings_that_nobody_reads_pile_up_nowhere() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut client = hop.subscribe().await;
    client.send(masked(BINARY, b"")).await;
    let before = hop.resident();
    client.send(masked(CONTINUATION, b"").repeat(300_000)).await;
    let mut other = hop.subscribe().await;
    // Their answers are not read: more than the kernel keeps of them.
    flood(
        &mut other,
        &masked(FIN | PING, &[0; 125]).repeat(1_000),
        32 << 20,
    )
    .await;
    serves(&hop).await;
    let grown = hop.resident().saturating_sub(before);
    assert!(grown < BESIDE, "{grown} bytes");
    // The bytes of fragments count, however many there are.
    let many = masked(CONTINUATION, &[0; 1_000]).repeat(1_100);
    drop(client.try_send(many).await);
    let (_, code, _) = client.until_close().await;
    assert_eq!(code, 1009);
}

#[tokio::test]
async fn requests_whose_answers_nobody_reads_are_not_read_either() {
    let hop = Hop::quiet(&[]).await;
    let before = hop.resident();
    let page = request(
        "GET /events HTTP/1.1",
        &[("Host", "localhost"), ("Accept", "text/html")],
    );
    let mut client = Client::connect(hop.address).await;
    let most = 64 << 20;
    let sent = flood(&mut client, page.repeat(100).as_bytes(), most).await;
    assert!(sent < most, "all of it is read");
    serves(&hop).await;
    let grown = hop.resident().saturating_sub(before);
    // Of answers that are four hundred times as long.
    assert!(grown < 4 * BESIDE, "{grown} bytes");
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn http2(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, 0]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 0x4;
const HTTP2_PING: u8 = 0x6;
const WINDOW_UPDATE: u8 = 0x8;

#[tokio::test]
async fn http_2_frames_that_ask_for_an_answer_pile_up_nowhere() {
    let hop = Hop::quiet(&[]).await;
    let before = hop.resident();
    let answered = [http2(HTTP2_PING, 0, b"12345678"), http2(SETTINGS, 0, b"")];
    let others = [
        http2(WINDOW_UPDATE, 0, &1u32.to_be_bytes()),
        http2(0x77, 0, b""),
    ];
    let mut clients = vec![];
    for (frames, most) in answered
        .map(|frame| (frame, 64 << 20))
        .into_iter()
        .chain(others.map(|frame| (frame, 4 << 20)))
    {
        let mut client = Client::connect(hop.address).await;
        client
            .send([PREFACE, &http2(SETTINGS, 0, b"")].concat())
            .await;
        let sent = flood(&mut client, &frames.repeat(1_000), most).await;
        // Where there is something to answer, and the answers are not read, it is not read either.
        assert!(sent < 64 << 20, "all of it is read");
        clients.push(client);
    }
    serves(&hop).await;
    let grown = hop.resident().saturating_sub(before);
    assert!(grown < BESIDE, "{grown} bytes");
}

#[tokio::test]
async fn who_asks_for_all_of_history_and_reads_nothing_costs_no_copy_of_it() {
    const HISTORY: usize = 4 << 20;
    let args = [
        "--accept-publish",
        "--history=4MiB",
        "--max-connections-per-address=200",
    ];
    let hop = Hop::quiet(&args).await;
    let mut writer = hop.subscribe().await;
    let mut reader = hop.subscribe().await;
    for _ in 0..HISTORY / (64 << 10) {
        writer.send(masked(FIN | BINARY, &[0; 64 << 10])).await;
        reader.message().await;
        writer.message().await;
    }
    let before = hop.resident();
    let mut clients = vec![];
    for accept in ["text/event-stream", "application/x-ndjson"] {
        for _ in 0..50 {
            // So that the kernel, which is not asked here, keeps little.
            let mut client = Client::connect_with_buffer(hop.address, 4 << 10).await;
            let headers = [("Host", "localhost"), ("Accept", accept)];
            client
                .send(request("GET /events?history=all HTTP/1.1", &headers))
                .await;
            assert_eq!(client.head().await.status, 200);
            clients.push(client);
        }
    }
    serves(&hop).await;
    let grown = hop.resident().saturating_sub(before);
    // In each of the two formats once, and a piece of it for each of them.
    let most = 4 * HISTORY + clients.len() * (256 << 10);
    assert!(grown < most, "{grown} bytes, {most} at most");
}

#[tokio::test]
async fn a_hello_may_name_thousands_of_origins_and_no_more_than_fit() {
    let hop = Hop::quiet(&[]).await;
    let hello = |count: u32| {
        let ids: Vec<_> = (0..count).map(|number| format!("{number:013}-1")).collect();
        format!("!hello from=all have={}", ids.join(","))
    };
    for (count, is_taken) in [(4_000, true), (4_200, false)] {
        let handshake = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", "wsevent.v1")]].concat();
        let mut client = Client::connect(hop.address).await;
        client
            .send(request("GET /events HTTP/1.1", &handshake))
            .await;
        assert_eq!(client.head().await.status, 101);
        client.send_frame(FIN | TEXT, hello(count).as_bytes()).await;
        let first = within_guard("an answer", client.frame())
            .await
            .expect("one");
        match is_taken {
            true => assert!(first.payload.starts_with(b"!welcome "), "{first:?}"),
            false => assert_eq!(first.close().map(|(code, _)| code), Some(1009)),
        }
    }
    serves(&hop).await;
}

#[tokio::test]
async fn what_a_client_says_forges_no_line_in_the_log() {
    let hop = Hop::quiet(&["--accept-publish", "--log-level=debug"]).await;
    let forged = "x\r\n2026-01-01T00:00:00Z  INFO forged\x1b[31m";
    for path in [
        "/events%0D%0Aforged",
        "/events?type=%0D%0Aforged%1B%5B31m&key=%0Aforged",
    ] {
        let mut client = Client::connect(hop.address).await;
        let headers = [
            ("Host", "localhost"),
            ("Content-Length", "1"),
            ("User-Agent", "forged\u{9b}31m"),
        ];
        client
            .send(request(&format!("POST {path} HTTP/1.1"), &headers) + "x")
            .await;
        let head = client.head().await;
        assert!((400..500).contains(&head.status), "{path}: {}", head.status);
    }
    // Headers cannot have a line end; what claims to be in one is no HTTP.
    let mut client = Client::connect(hop.address).await;
    client
        .send(format!(
            "GET /events HTTP/1.1\r\nHost: localhost\r\nOrigin: http://{}\r\n\r\n",
            forged.replace("\r\n", "\n")
        ))
        .await;
    client.rest().await;
    let mut client = hop.subscribe().await;
    let reason = [&1000u16.to_be_bytes()[..], forged.as_bytes()].concat();
    client.send_frame(CLOSE, &reason).await;
    client.closed().await;
    hop.disconnected().await;
    for line in hop.log.lines() {
        let fields: serde_json::Value = serde_json::from_str(&line.text).expect("an object");
        for (name, value) in fields.as_object().expect("an object") {
            // Behind the message, as a person's log has them in one line.
            let text = value.as_str().unwrap_or_default();
            assert!(!text.contains(char::is_control), "{name}: {value}");
        }
    }
}
