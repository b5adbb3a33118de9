//! Those who cannot be handed over: each is told when to come back, and goes on there where it was.

use std::collections::BTreeSet;

use rustix::process::Signal;

use super::{Place, publish, text};
use crate::drain::pause_of;
use crate::harness::authority::Authority;
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::http2::Http2;
use crate::harness::wsevent::Hop;

const SSE: (&str, &str) = ("Accept", "text/event-stream");
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");
const REPLACED: &str = "another process has taken over";

/// The pause that is the last block of an event stream.
async fn sent_away(mut stream: Stream) -> u64 {
    let mut last = String::new();
    while let Some(block) = stream.block().await {
        last = block;
    }
    let pause = last.strip_prefix("retry: ");
    let pause = pause.unwrap_or_else(|| panic!("{last}")).trim_end();
    pause.parse().expect("a number")
}

/// The pause that a WebSocket is told.
async fn closed(mut client: Client) -> u64 {
    let (_, code, reason) = client.until_close().await;
    assert_eq!(code, 1012, "{reason}");
    client.answer_close(code).await;
    pause_of(&reason, REPLACED)
}

fn differ(pauses: &[u64]) {
    let different: BTreeSet<_> = pauses.iter().collect();
    assert!(different.len() > pauses.len() * 2 / 3, "{pauses:?}");
    assert!(
        pauses.iter().all(|pause| (50..=2_000).contains(pause)),
        "{pauses:?}"
    );
}

#[tokio::test]
async fn those_who_read_bodies_do_not_come_back_together() {
    let place = Place::new();
    let mut old = place.first(&["--accept-publish"]).await;
    let mut http2 = Http2::plain(&old).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(Stream::open(old.address, "/events", &[SSE]).await);
        streams.push(Stream::open_second(old.address, "/events", &[SSE]).await);
        streams.push(http2.read("/events", &[SSE]).await);
    }
    let mut lines = Stream::open(old.address, "/events", &[NDJSON]).await;
    let websocket = http2.subscribe().await;
    publish(old.address, &[], "a").await;
    for stream in &mut streams {
        assert_eq!(stream.event().await.data, "a");
    }
    assert_eq!(lines.object().await["data"], "a");
    let new = place.next(&old, &["--accept-publish"]).await;
    let mut pauses = vec![closed(websocket).await];
    for stream in streams {
        pauses.push(sent_away(stream).await);
    }
    differ(&pauses);
    assert!(lines.try_object().await.is_none());
    old.stops_well().await;
    drop(new);
}

#[tokio::test]
async fn over_tls_they_go_on_at_the_new_one_without_a_loss() {
    let (place, authority) = (Place::new(), Authority::new());
    let path = place.path();
    let args = ["--takeover", &path, "--accept-publish"];
    let mut old = authority.hop(&args).await;
    let secure = authority.client(None, &[]);
    let publish = async |hop: &Hop, event: &str| {
        let client = secure.connect(hop.address).await;
        let mut client = client.upgraded("/events").await;
        client
            .send_frame(crate::harness::frame::TEXT, event.as_bytes())
            .await;
        assert_eq!(text(&client.message().await), event);
        client
    };
    let mut http2 = Http2::secure(&authority, &old).await;
    let mut clients = vec![authority.subscribe(&old).await, http2.subscribe().await];
    let mut streams = vec![
        Stream::on(secure.connect(old.address).await, "/events", &[SSE]).await,
        http2.read("/events", &[SSE]).await,
    ];
    let publisher = publish(&old, "a").await;
    let mut last = String::new();
    for stream in &mut streams {
        let event = stream.event().await;
        assert_eq!(event.data, "a");
        last = event.id().to_owned();
    }
    for client in &mut clients {
        assert_eq!(text(&client.message().await), "a");
    }
    let address = old.address.to_string();
    let new = authority
        .hop(&[&args[..], &["--serve-address", &address]].concat())
        .await;
    let taken = new.logged("taken over from another process").await;
    assert_eq!(taken.number("subscribers"), 0);
    for client in clients.into_iter().chain([publisher]) {
        closed(client).await;
    }
    for stream in streams {
        sent_away(stream).await;
    }
    publish(&new, "b").await;
    let headers = [SSE, ("Last-Event-ID", &last)];
    let secured = secure.connect(new.address).await;
    let mut http2 = Http2::secure(&authority, &new).await;
    for mut stream in [
        Stream::on(secured, "/events", &headers).await,
        http2.read("/events", &headers).await,
    ] {
        assert_eq!(stream.head.header("wsevent-resumed"), "yes");
        assert_eq!(stream.event().await.data, "b");
    }
    let target = format!("/events?last_event_id={last}");
    let client = secure.connect(new.address).await;
    let mut client = client.upgraded(&target).await;
    assert_eq!(text(&client.message().await), "b");
    old.stops_well().await;
}

/// An instance that drains gives nothing away any more: who comes begins anew beside it, and nobody is cut off.
#[tokio::test]
async fn who_comes_while_it_drains_begins_anew() {
    let place = Place::new();
    let args = ["--accept-publish", "--drain", "1h"];
    let mut old = place.first(&args).await;
    let mut subscriber = old.subscribe().await;
    old.signal(Signal::TERM);
    old.logged("draining").await;
    let new = place.next(&old, &args).await;
    assert_eq!(new.count("taken over from another process"), 0);
    assert_ne!(new.index().await["instance"], serde_json::Value::Null);
    publish(new.address, &[], "new").await;
    // It is still read, and still the old one's.
    subscriber
        .send_frame(crate::harness::frame::TEXT, b"old")
        .await;
    assert_eq!(text(&subscriber.message().await), "old");
    drop(subscriber);
    old.stops_well().await;
    assert!(
        std::path::Path::new(&place.path()).exists(),
        "it is the new one's"
    );
    drop(new);
}
