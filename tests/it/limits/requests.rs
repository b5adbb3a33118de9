//! The heads of requests: how long they may be, and how long they may take.

use tokio_tungstenite::tungstenite::Message;

use super::refusal;
use crate::harness::client::{Client, HANDSHAKE, handshake, request};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

/// A handshake with more headers.
fn with(headers: &[(&str, &str)]) -> String {
    request("GET /events HTTP/1.1", &[&HANDSHAKE[..], headers].concat())
}

#[tokio::test]
async fn a_head_may_be_so_long_and_no_longer() {
    let small = Hop::quiet(&["--max-header-size", "8KiB"]).await;
    let large = Hop::quiet(&["--max-header-size", "256KiB"]).await;
    let filler = "x".repeat(100 << 10);
    let long = with(&[("X-Filler", &filler)]);
    let path = handshake(&format!("/events?{}", "x".repeat(40 << 10)));
    for (hop, status) in [(&small, 431), (&large, 101)] {
        for head in [&long, &path] {
            let mut client = Client::connect(hop.address).await;
            // The server may have answered before it has all.
            drop(client.try_send(head).await);
            if let Some(head) = client.try_head().await {
                assert_eq!(head.status, status);
            }
        }
    }
    let line = refusal(&small, "request refused", "431").await;
    assert_eq!(line.field("reason"), "the head of the request is too long");
    assert_eq!(large.count("request refused"), 0);
}

#[tokio::test]
async fn header_floods_are_cut_short_and_others_are_served() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut other = hop.subscribe().await;
    let many = with(&vec![("X", ""); 500]);
    let huge = with(&[("X-Filler", &"x".repeat(17 << 10))]);
    // Without an end, and just beyond what is taken, so that no byte is left unread that would reset the connection.
    let endless =
        handshake("/events").trim_end().to_owned() + &"\r\nX-Filler: filler".repeat(1_000);
    for (number, flood) in [many, huge, endless].into_iter().enumerate() {
        let mut client = Client::connect(hop.address).await;
        drop(client.try_send(flood).await);
        if let Some(head) = client.try_head().await {
            assert_eq!(head.status, 431, "{number}");
        }
        let event = Message::text(number.to_string());
        link.send(event.clone()).await;
        assert_eq!(other.message().await, event);
    }
    refusal(&hop, "request refused", "431").await;
}

#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_let_go() {
    let (mut link, hop) = Hop::fed(&["--handshake-timeout", "300ms"]).await;
    let mut other = hop.subscribe().await;
    let head = with(&[("X-Filler", &"x".repeat(5_000))]);
    // Some never fill what is kept of a head, others soon do.
    for piece in [1, 100] {
        let mut client = Client::connect(hop.address).await;
        within_guard("the end of patience", async {
            for bytes in head.as_bytes().chunks(piece).cycle() {
                if client.try_send(bytes).await.is_err() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                if hop.count("request refused") > 0 && piece == 1 {
                    return;
                }
            }
        })
        .await;
        if let Some(head) = client.try_head().await {
            assert_eq!(head.status, 408);
        }
        link.send(Message::text("meanwhile")).await;
        assert_eq!(other.message().await, Message::text("meanwhile"));
    }
    refusal(&hop, "request refused", "408").await;
}

#[tokio::test]
async fn who_says_nothing_is_let_go_without_a_word() {
    let hop = Hop::quiet(&["--handshake-timeout", "100ms"]).await;
    let mut silent = Client::connect(hop.address).await;
    assert_eq!(silent.rest().await, b"");
    let line = hop.logged("request refused").await;
    assert_eq!(line.field("reason"), "no request has come in time");
    assert_eq!(line.field("status"), "");
    assert_eq!(line.field("address"), silent.address().to_string());
}

#[tokio::test]
async fn a_further_request_must_come_as_a_whole_as_well() {
    let args = ["--handshake-timeout", "200ms", "--idle-timeout", "1h"];
    let hop = Hop::quiet(&args).await;
    for begun in ["G", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut client = Client::connect(hop.address).await.used().await;
        // Nobody hurries who has not begun: it has had its answer for longer than a head may take.
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        let (head, _) = client.get("/", &[]).await;
        assert_eq!(head.status, 200);
        client.send(begun).await;
        let head = client.head().await;
        assert_eq!(head.status, 408);
        client.body(&head).await;
        client.ended().await;
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_a_stream_is_not() {
    let (mut link, hop) = Hop::fed(&["--idle-timeout", "100ms"]).await;
    let mut reader = Client::connect(hop.address).await.used().await;
    let accept = [("Host", "localhost"), ("Accept", "application/x-ndjson")];
    reader.send(request("GET /events HTTP/1.1", &accept)).await;
    assert_eq!(reader.head().await.status, 200);
    let mut idle = Client::connect(hop.address).await.used().await;
    assert_eq!(idle.rest().await, b"");
    let address = idle.address().to_string();
    let line = hop.logged_where("connection closed", |line| line.field("address") == address);
    assert_eq!(line.await.field("reason"), "no request has come for 100ms");
    link.send(Message::text("still here")).await;
    reader.line_with("still here").await;
}
