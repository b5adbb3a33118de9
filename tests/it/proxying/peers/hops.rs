//! Hops that are linked (`wsevent.v1`) through the proxy.

use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::events::{all_sorts, assert_same, numbered};
use crate::harness::frame::{BINARY, FIN, TEXT, masked};
use crate::harness::proxy::Proxy;
use crate::harness::wire::Wire;
use crate::harness::wsevent::Hop;

/// Where a consumer finds the stream behind the proxy.
fn url(proxy: &Proxy) -> String {
    format!("ws://{}/events", proxy.address)
}

async fn publish(publisher: &mut Client, messages: &[Message]) {
    for message in messages {
        let (kind, data) = match message {
            Message::Text(text) => (TEXT, text.as_bytes()),
            other => (BINARY, &other.clone().into_data()[..].to_vec()[..]),
        };
        publisher.send(masked(FIN | kind, data)).await;
    }
}

#[tokio::test]
async fn a_link_carries_all_sorts() {
    let producer = Hop::start(&["--accept-publish"]).await;
    let proxy = Proxy::over(&[producer.address], &[]).await;
    let consumer = Hop::consuming(&url(&proxy)).await;
    let mut subscriber = consumer.subscribe().await;
    let mut publisher = Client::connect(producer.address)
        .await
        .upgraded("/events")
        .await;
    let sent = all_sorts();
    publish(&mut publisher, &sent).await;
    assert_same(&subscriber.messages(sent.len()).await, &sent);
    // The link knows where events come from, which a plain WebSocket does not.
    assert_eq!(
        consumer.index().await["streams"][0]["upstreams"][0]["connected"],
        true
    );
}

#[tokio::test]
async fn a_link_that_was_cut_goes_on_where_it_was() {
    let producer = Hop::start(&["--accept-publish"]).await;
    let proxy = Proxy::over(&[producer.address], &[]).await;
    let wire = Wire::to(proxy.address);
    let consumer = Hop::consuming(&format!("ws://{}/events", wire.address())).await;
    let mut subscriber = consumer.subscribe().await;
    let mut publisher = Client::connect(producer.address)
        .await
        .upgraded("/events")
        .await;
    let sent = numbered(60);
    for (round, events) in sent.chunks(20).enumerate() {
        publish(&mut publisher, &events[..10]).await;
        assert_same(&subscriber.messages(10).await, &events[..10]);
        wire.cut(proxy.address);
        // Some of these come while nobody is connected.
        publish(&mut publisher, &events[10..]).await;
        assert_same(&subscriber.messages(10).await, &events[10..]);
        consumer.logged_times("upstream lost", round + 1).await;
    }
}

/// Two relays behind the proxy have the same events: one takes over from the other, and nothing is lost or comes twice.
#[tokio::test]
async fn a_link_goes_on_at_another_relay() {
    let producer = Hop::start(&["--accept-publish"]).await;
    let relays = [
        Hop::consuming(&producer.url).await,
        Hop::consuming(&producer.url).await,
    ];
    let addresses = relays.each_ref().map(|relay| relay.address);
    let proxy = Proxy::over(&addresses, &[]).await;
    let consumer = Hop::consuming(&url(&proxy)).await;
    let mut subscriber = consumer.subscribe().await;
    let mut publisher = Client::connect(producer.address)
        .await
        .upgraded("/events")
        .await;
    let sent = numbered(30);
    publish(&mut publisher, &sent[..10]).await;
    assert_same(&subscriber.messages(10).await, &sent[..10]);
    // The first in turn has it.
    relays[0].signal(Signal::KILL);
    publish(&mut publisher, &sent[10..]).await;
    assert_same(&subscriber.messages(20).await, &sent[10..]);
    let line = proxy.logged("proxied").await;
    assert_eq!(line.field("upstream"), addresses[0].to_string());
    assert_eq!(line.field("status"), "101");
}

/// A proxy that is replaced costs its clients a moment, and no event.
#[tokio::test]
async fn a_link_goes_on_through_another_proxy() {
    let producer = Hop::start(&["--accept-publish"]).await;
    let mut proxy = Proxy::over(&[producer.address], &[]).await;
    let consumer = Hop::consuming(&url(&proxy)).await;
    let mut subscriber = consumer.subscribe().await;
    let mut publisher = Client::connect(producer.address)
        .await
        .upgraded("/events")
        .await;
    let sent = numbered(20);
    publish(&mut publisher, &sent[..10]).await;
    assert_same(&subscriber.messages(10).await, &sent[..10]);
    proxy.signal(Signal::INT);
    assert_eq!(proxy.exit().await.code(), Some(0));
    let lost = consumer.logged("upstream lost").await;
    assert!(lost.field("reason").contains("1001"), "{}", lost.text);
    publish(&mut publisher, &sent[10..]).await;
    let address = proxy.address.to_string();
    let upstream = producer.address.to_string();
    let _next = Proxy::start(&["--upstream", &upstream, "--serve-address", &address]).await;
    assert_same(&subscriber.messages(10).await, &sent[10..]);
}
