//! Hops after hops: what comes out at the end is what went in.

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use crate::harness::events::{all_sorts, assert_same, numbered};
use crate::harness::upstream::Link;
use crate::harness::wsevent::Hop;

/// A foreign server's connection, and `length` hops after it.
async fn chain(length: usize) -> (Link, Vec<Hop>) {
    let (link, first) = Hop::fed(&[]).await;
    let mut hops = vec![first];
    while hops.len() < length {
        let next = Hop::consuming(&hops[hops.len() - 1].url).await;
        hops.push(next);
    }
    (link, hops)
}

#[tokio::test]
async fn a_chain_of_three_changes_nothing() {
    let (mut link, hops) = chain(3).await;
    let mut subscriber = hops[2].subscribe().await;
    let sent = all_sorts();
    link.send_all(&sent).await;
    assert_same(&subscriber.messages(sent.len()).await, &sent);
}

#[tokio::test]
async fn every_hop_of_a_chain_serves_subscribers() {
    let (mut link, hops) = chain(3).await;
    let mut subscribers = vec![];
    for hop in &hops {
        subscribers.push(hop.subscribe().await);
    }
    let sent = numbered(50);
    link.send_all(&sent).await;
    for subscriber in &mut subscribers {
        assert_same(&subscriber.messages(sent.len()).await, &sent);
    }
}

#[tokio::test]
async fn a_chain_of_ten_delivers_in_order() {
    let (mut link, hops) = chain(10).await;
    let mut subscriber = hops[9].subscribe().await;
    let sent = numbered(1_000);
    link.send_all(&sent).await;
    assert_same(&subscriber.messages(sent.len()).await, &sent);
}

#[tokio::test]
async fn a_fragmented_message_is_one_event() {
    let (mut link, hops) = chain(2).await;
    let mut subscriber = hops[1].subscribe().await;
    // In the middle of a character, with empty fragments, and with pings in between.
    let note = "𝄞".as_bytes();
    let text: [&[u8]; 6] = [b"one ", b"", b"event", &note[..1], &note[1..], b""];
    link.send_fragmented(Data::Text, &text).await;
    let large = vec![0xFF; 100_000];
    link.send_fragmented(Data::Binary, &[&large, b"end"]).await;
    link.send_fragmented(Data::Binary, &[b"", b""]).await;
    let expected = [
        Message::text("one event𝄞"),
        Message::binary([&large[..], b"end"].concat()),
        Message::binary(""),
    ];
    assert_same(&subscriber.messages(3).await, &expected);
}

#[tokio::test]
async fn what_is_produced_goes_down_the_chain() {
    let producer = Hop::start(&["--produce-rate", "1000"]).await;
    let first = Hop::consuming(&producer.url).await;
    let second = Hop::consuming(&first.url).await;
    let mut subscriber = second.subscribe().await;
    let events = subscriber.messages(100).await;
    let counter = |event: &Message| -> u64 {
        let text = event.to_text().expect("produced events are text");
        let fields: Vec<_> = text.split(' ').collect();
        assert_eq!(fields[1], producer.address.to_string(), "{text}");
        fields[0].parse().expect("a counter")
    };
    for pair in events.windows(2) {
        assert_eq!(counter(&pair[0]) + 1, counter(&pair[1]));
    }
}
