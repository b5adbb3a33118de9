//! Pub/Sub with foreign publishers and subscribers.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{Poster, peer};
use crate::harness::http::Ndjson;
use crate::harness::redis::Redis;
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn what_others_publish_is_served_and_stays_as_it_is() {
    let server = Redis::start().await;
    let hop = Hop::consuming(&server.channel("events")).await;
    let mut subscriber = hop.subscribe().await;
    let mut publisher = peer(&server.url(), "publish", "events").await;
    for text in ["plain", "é ✓ 𝄞", "", "0H3B6Q2ZK7M9T-42 looks like an id"] {
        publisher.tell(text).await;
        assert_eq!(publisher.says().await, json!({"receivers": 1}));
        assert_eq!(subscriber.message().await, Message::text(text));
    }
    let mut connection = server.connect().await;
    let mut publish = redis::cmd("PUBLISH");
    publish.arg("events").arg(&b"\xFF\n\x00"[..]);
    let receivers: usize = publish.query_async(&mut connection).await.expect("it does");
    assert_eq!(receivers, 1);
    assert_eq!(
        subscriber.message().await,
        Message::binary(&b"\xFF\n\x00"[..])
    );
}

#[tokio::test]
async fn a_pattern_is_many_channels_and_each_event_says_which() {
    let server = Redis::start().await;
    let url = format!("{}/?pattern=price.*", server.url().trim_end_matches("/0"));
    let hop = Hop::consuming(&url).await;
    let mut reader = Ndjson::of(&hop).await;
    for (channel, text) in [("price.btc", "1"), ("volume.btc", "2"), ("price.eth", "3")] {
        server.tell(&["PUBLISH", channel, text]).await;
    }
    for (channel, text) in [("price.btc", "1"), ("price.eth", "3")] {
        let event = reader.next().await;
        assert_eq!(
            (&event["key"], &event["data"]),
            (&json!(channel), &json!(text))
        );
    }
}

#[tokio::test]
async fn what_is_forwarded_is_the_bare_payload() {
    let server = Redis::start().await;
    let mut subscriber = peer(&server.url(), "subscribe", "out").await;
    let url = server.channel("out");
    let hop = Hop::quiet(&["--forward", &url, "--accept-publish"]).await;
    hop.logged("downstream connected").await;
    let mut poster = Poster::of(&hop).await;
    for text in ["plain", "é ✓", "two\nlines"] {
        poster.text(text).await;
        assert_eq!(subscriber.event().await, Message::text(text));
    }
}

#[tokio::test]
async fn an_envelope_keeps_ids_over_a_channel() {
    let server = Redis::start().await;
    let url = server.channel("ids");
    let lower = Hop::consuming(&url).await;
    let mut reader = Ndjson::of(&lower).await;
    let flags = [
        "--forward",
        &url,
        "--bus-envelope",
        "always",
        "--accept-publish",
    ];
    let upper = Hop::quiet(&flags).await;
    upper.logged("downstream connected").await;
    let id = Poster::of(&upper).await.text("x").await;
    assert_eq!(reader.next().await["id"], json!(id));
}

#[tokio::test]
async fn many_messages_at_once_are_all_taken_in_their_order() {
    const COUNT: usize = 20_000;
    let server = Redis::start().await;
    let hop = Hop::consuming(&server.channel("burst")).await;
    let mut subscriber = hop.subscribe().await;
    let mut connection = server.connect().await;
    let mut all = redis::pipe();
    for number in 0..COUNT {
        all.cmd("PUBLISH").arg("burst").arg(number).ignore();
    }
    all.query_async::<()>(&mut connection)
        .await
        .expect("it does");
    for number in 0..COUNT {
        assert_eq!(
            subscriber.message().await,
            Message::text(number.to_string())
        );
    }
}
