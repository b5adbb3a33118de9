//! Publishing by messages on a WebSocket.

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{hop, reader};
use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::frame::{BINARY, CONTINUATION, FIN, TEXT, masked};
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn a_message_comes_to_everyone_its_sender_too() {
    let hop = hop(&[]).await;
    let mut other = hop.subscribe().await;
    let mut sender = hop.subscribe().await;
    sender.send_frame(TEXT, "é ✓".as_bytes()).await;
    sender.send_frame(BINARY, b"\xFF\x00").await;
    sender.send_frame(TEXT, b"").await;
    let fragments = [
        masked(TEXT, "frag✓".as_bytes().split_at(5).0),
        masked(CONTINUATION, b""),
        masked(FIN | CONTINUATION, "frag✓".as_bytes().split_at(5).1),
    ];
    sender.send(fragments.concat()).await;
    let expected = [
        Message::text("é ✓"),
        Message::binary(&b"\xFF\x00"[..]),
        Message::text(""),
        Message::text("frag✓"),
    ];
    assert_eq!(other.messages(4).await, expected);
    assert_eq!(sender.messages(4).await, expected);
}

#[tokio::test]
async fn messages_keep_their_order() {
    const COUNT: usize = 5_000;
    let hop = hop(&[]).await;
    let mut sender = hop.subscribe().await;
    let mut other = hop.subscribe().await;
    let numbers = 0..COUNT;
    let frames: Vec<_> = numbers
        .clone()
        .map(|number| masked(FIN | TEXT, number.to_string().as_bytes()))
        .collect();
    sender.send(frames.concat()).await;
    for client in [&mut other, &mut sender] {
        let got = client.messages(COUNT).await;
        assert!(
            got.into_iter().eq(numbers
                .clone()
                .map(|number| Message::text(number.to_string())))
        );
    }
}

#[tokio::test]
async fn the_url_labels_what_is_sent() {
    let hop = hop(&[]).await;
    let mut reader = reader(&hop).await;
    let mut sender = Client::connect(hop.address)
        .await
        .upgraded("/events?type=t%20t&key=k")
        .await;
    sender.send_frame(TEXT, b"x").await;
    let event: Value = serde_json::from_str(&reader.line().await).expect("it is JSON");
    assert_eq!(
        (&event["type"], &event["key"]),
        (&"t t".into(), &"k".into())
    );
    for wrong in ["type=wsevent.gap", "key=%0A"] {
        let mut client = Client::connect(hop.address).await;
        client
            .send(request(
                &format!("GET /events?{wrong} HTTP/1.1"),
                &HANDSHAKE,
            ))
            .await;
        assert_eq!(client.head().await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn what_must_not_be_sent_ends_the_connection() {
    let off = Hop::quiet(&[]).await;
    let on = hop(&["--max-message-size", "100"]).await;
    for (hop, frame, code) in [
        (&off, masked(FIN | TEXT, b"x"), 1003),
        (&on, masked(FIN | TEXT, &[b'x'; 101]), 1009),
        (&on, masked(FIN | TEXT, b"\xFF"), 1007),
    ] {
        let mut client = hop.subscribe().await;
        client.send(frame).await;
        assert_eq!(client.closed().await, code);
    }
    let mut client = on.subscribe().await;
    client.send_frame(TEXT, &[b'x'; 100]).await;
    assert_eq!(client.message().await, Message::text("x".repeat(100)));
}
