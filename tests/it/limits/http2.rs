//! What a client may do on one HTTP/2 connection, as bytes: no client of HTTP/2 would.

mod unread;

use super::refusal;
use crate::harness::client::Client;
use crate::harness::wsevent::Hop;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The error of a peer that does too much (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A field without an entry in any table (RFC 7541, section 6.2.2), whose value is shorter than 16 KiB.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend(name.as_bytes());
    match value.len() {
        len @ 0..127 => bytes.push(len as u8),
        len => {
            let rest = len - 127;
            bytes.extend([127, 128 | (rest & 127) as u8, (rest >> 7) as u8]);
        }
    }
    bytes.extend(value.as_bytes());
    bytes
}

/// `GET path`: of the static table (RFC 7541, appendix A) are `:method: GET` and `:scheme: http`.
fn get(path: &str) -> Vec<u8> {
    let authority = field(":authority", "localhost");
    [vec![0x82, 0x86], field(":path", path), authority].concat()
}

/// A connection after its preface.
async fn connected(hop: &Hop) -> Client {
    connected_with(hop, b"").await
}

/// A connection after its preface, with these settings (RFC 9113, section 6.5.1).
async fn connected_with(hop: &Hop, settings: &[u8]) -> Client {
    let mut client = Client::connect(hop.address).await;
    client
        .send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat())
        .await;
    client
}

/// The next frame: its type, its flags, its stream, and its payload.
async fn next(client: &mut Client) -> (u8, u8, u32, Vec<u8>) {
    let head = client.bytes(9).await;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
    let payload = client.bytes(len as usize).await;
    (head[3], head[4], stream, payload)
}

/// The next frame of this type on this stream.
async fn wait_for(client: &mut Client, kind: u8, stream: u32) -> Vec<u8> {
    loop {
        let (found, _, on, payload) = next(client).await;
        if (found, on) == (kind, stream) {
            return payload;
        }
    }
}

/// Why the connection ends.
async fn error(client: &mut Client) -> u32 {
    let payload = wait_for(client, GOAWAY, 0).await;
    u32::from_be_bytes(payload[4..8].try_into().expect("four bytes"))
}

/// Whether an encoded head has this status. hyper sends 200 by its index, and others as three digits or in Huffman code.
async fn status_is(client: &mut Client, stream: u32, codes: &[&[u8]]) {
    let head = wait_for(client, HEADERS, stream).await;
    assert!(
        codes.iter().any(|code| head.starts_with(code)),
        "{head:x?} on stream {stream}"
    );
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let hop = Hop::quiet(&[]).await;
    let mut client = connected(&hop).await;
    let mut flood = vec![];
    for stream in (1..2_000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/")));
        flood.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    // The server may close while this is still being sent.
    drop(client.try_send(flood).await);
    assert_eq!(error(&mut client).await, ENHANCE_YOUR_CALM);
    hop.subscribe().await;
}

#[tokio::test]
async fn a_head_without_an_end_ends_the_connection() {
    let hop = Hop::quiet(&[]).await;
    let mut client = connected(&hop).await;
    let mut flood = frame(HEADERS, END_STREAM, 1, &get("/"));
    for _ in 0..1_000 {
        flood.extend(frame(CONTINUATION, 0, 1, &field("x-filler", "x")));
    }
    drop(client.try_send(flood).await);
    assert_ne!(error(&mut client).await, 0);
    hop.subscribe().await;
}

#[tokio::test]
async fn a_head_may_be_so_long_and_no_longer() {
    let hop = Hop::quiet(&["--max-header-size", "8KiB"]).await;
    let mut client = connected(&hop).await;
    let long = [get("/"), field("x-filler", &"x".repeat(10_000))].concat();
    client
        .send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &long))
        .await;
    // `:status` with a value of its own (RFC 7541, section 6.2.1); 431 in Huffman code, or as it is.
    let head = wait_for(&mut client, HEADERS, 1).await;
    assert!(
        contains(&head, b"431") || contains(&head, &huffman("431")),
        "{head:x?}"
    );
    client
        .send(frame(HEADERS, END_STREAM | END_HEADERS, 3, &get("/")))
        .await;
    status_is(&mut client, 3, &[&[0x88]]).await;
}

#[tokio::test]
async fn each_request_counts_as_a_connection() {
    let hop = Hop::quiet(&["--max-connections", "2"]).await;
    let mut client = connected(&hop).await;
    let subscribe = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/events"));
    // The first is what the connection itself counts as.
    for stream in [1, 3] {
        client.send(subscribe(stream)).await;
        status_is(&mut client, stream, &[&[0x88]]).await;
    }
    client.send(subscribe(5)).await;
    let head = wait_for(&mut client, HEADERS, 5).await;
    assert!(
        contains(&head, b"503") || contains(&head, &huffman("503")),
        "{head:x?}"
    );
    let reason = wait_for(&mut client, DATA, 5).await;
    assert_eq!(reason, b"there are too many connections at the moment\n");
    refusal(&hop, "connection refused", "503").await;
    client
        .send(frame(RST_STREAM, 0, 3, &8u32.to_be_bytes()))
        .await;
    hop.disconnected().await;
    client.send(subscribe(7)).await;
    status_is(&mut client, 7, &[&[0x88]]).await;
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Digits in Huffman code (RFC 7541, appendix B): 0 to 2 have five bits, the others six; the rest of the last byte is ones.
fn huffman(digits: &str) -> Vec<u8> {
    let mut bits = String::new();
    for digit in digits.bytes().map(|digit| u32::from(digit - b'0')) {
        match digit {
            0..=2 => bits += &format!("{digit:05b}"),
            _ => bits += &format!("{:06b}", 0x19 + digit - 3),
        }
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let bytes = bits.as_bytes().chunks(8);
    bytes
        .map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0')))
        .collect()
}
