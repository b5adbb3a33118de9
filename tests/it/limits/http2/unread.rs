//! Readers over HTTP/2 that open no window: a body is not asked for more then, and yet they can be got rid of.

use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{DATA, END_HEADERS, END_STREAM, HEADERS, connected_with, field, frame, get, next};
use super::{status_is, wait_for};
use crate::access::guarded;
use crate::harness::client::{Client, request};
use crate::harness::events::text;
use crate::harness::tokens::{jwt, now};
use crate::harness::wsevent::Hop;

const WINDOW_UPDATE: u8 = 8;

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, section 6.5.2) of this many bytes.
fn window(bytes: u32) -> Vec<u8> {
    [&4u16.to_be_bytes()[..], &bytes.to_be_bytes()].concat()
}

/// Asks for a stream of events, and has the head of the answer.
async fn read(client: &mut Client, stream: u32, path: &str, headers: &[(&str, &str)]) {
    let mut head = get(path);
    for (name, value) in headers {
        head.extend(field(name, value));
    }
    let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
    client.send(request).await;
    status_is(client, stream, &[&[0x88]]).await;
}

/// Why the last of so many readers has left.
async fn ended(hop: &Hop, count: usize) -> String {
    let line = hop.logged_times("subscriber disconnected", count).await;
    line.field("reason")
}

#[tokio::test]
async fn a_token_that_runs_out_ends_it() {
    let guarded = guarded(&["--ping-interval", "1h"]).await;
    for bytes in [0, 1] {
        let before = guarded.hop.count("subscriber disconnected");
        // Within the leeway of ten seconds, and not for long.
        let token = jwt(&json!({"exp": now() - 8, "wsevent": {"subscribe": "/topics/*"}}));
        let bearer = format!("Bearer {token}");
        let mut client = connected_with(&guarded.hop, &window(bytes)).await;
        read(&mut client, 1, "/topics/a", &[("authorization", &bearer)]).await;
        assert_eq!(
            ended(&guarded.hop, before + 1).await,
            "the token has expired"
        );
        drop(client);
    }
}

#[tokio::test]
async fn history_that_passes_it_ends_it_and_others_go_on() {
    let (mut link, hop) = Hop::fed(&["--history", "64KiB"]).await;
    let mut client = connected_with(&hop, &window(1)).await;
    read(&mut client, 1, "/events", &[]).await;
    read(&mut client, 3, "/events", &[]).await;
    // The other one, and the connection, have room for all.
    for stream in [0, 3] {
        let room = frame(WINDOW_UPDATE, 0, stream, &(16u32 << 20).to_be_bytes());
        client.send(room).await;
    }
    for number in 0..40 {
        let event = format!("<{number}>{}", text(8 << 10));
        link.send(Message::text(event)).await;
        reads(&mut client, 3, &format!("<{number}>")).await;
    }
    let line = hop.disconnected().await;
    let reason = line.field("reason");
    assert_eq!(reason, "too slow: history has moved past this subscriber");
    assert!(line.number("events") < 20, "{}", line.text);
    link.send(Message::text("<last>")).await;
    reads(&mut client, 3, "<last>").await;
    assert_eq!(hop.index().await["streams"][0]["subscribers"], 1);
    assert_eq!(hop.count("subscriber disconnected"), 1);
    // Whoever takes what there is for it sees whole events, and the end.
    let room = frame(WINDOW_UPDATE, 0, 1, &(16u32 << 20).to_be_bytes());
    client.send(room).await;
    let mut body = vec![];
    loop {
        let (kind, flags, stream, payload) = next(&mut client).await;
        if (kind, stream) != (DATA, 1) {
            continue;
        }
        body.extend(payload);
        if flags & END_STREAM != 0 {
            break;
        }
    }
    assert!(body.ends_with(b"\n\n"), "{} bytes", body.len());
}

/// Reads until something arrives on the stream that contains this.
async fn reads(client: &mut Client, stream: u32, what: &str) {
    let mut body = vec![];
    while !super::contains(&body, what.as_bytes()) {
        body.extend(wait_for(client, DATA, stream).await);
    }
}

#[tokio::test]
async fn a_stop_ends_it() {
    let (mut link, mut hop) = Hop::fed(&["--ping-interval", "1h"]).await;
    let mut clients = vec![];
    for bytes in [0, 1] {
        let mut client = connected_with(&hop, &window(bytes)).await;
        read(&mut client, 1, "/events", &[]).await;
        clients.push(client);
    }
    link.send(Message::text("an event")).await;
    hop.signal(Signal::INT);
    for count in [1, 2] {
        assert_eq!(ended(&hop, count).await, "the server is stopping");
    }
    drop(clients);
    hop.stops_well().await;
}

#[tokio::test]
async fn it_has_four_heartbeats_to_take_something() {
    let hop = Hop::quiet(&["--ping-interval", "50ms", "--accept-publish"]).await;
    for (bytes, accept) in [
        (0, "text/event-stream"),
        (1, "text/event-stream"),
        (0, "application/x-ndjson"),
    ] {
        let before = hop.count("subscriber disconnected");
        let mut client = connected_with(&hop, &window(bytes)).await;
        read(&mut client, 1, "/events", &[("accept", accept)]).await;
        // NDJSON has no comments: without events there is nothing to take.
        let mut publisher = Client::connect(hop.address).await;
        let headers = [("Host", "localhost"), ("Content-Length", "0")];
        publisher
            .send(request("POST /events HTTP/1.1", &headers))
            .await;
        assert_eq!(publisher.head().await.status, 202);
        let reason = ended(&hop, before + 1).await;
        assert_eq!(reason, "has taken nothing for four heartbeats", "{accept}");
        assert_eq!(hop.index().await["streams"][0]["subscribers"], 0);
        drop(client);
    }
}
