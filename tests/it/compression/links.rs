//! Hops and tails that ask those upstream to compress; and a subscriber that goes on in another process.

use tokio_tungstenite::tungstenite::Message;

use super::{COMPRESSED, FIN, TEXT, deflated, event, message};
use crate::harness::events::{all_sorts, assert_same};
use crate::harness::log::Line;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::{Hop, Tail};
use crate::mesh::Mesh;

/// The next hop, which asks for what `hop` serves at this URL.
async fn below(hop: &Hop, url: &str, args: &[&str]) -> Hop {
    let below = Hop::start(&[&["--consume", url, "--consume-compress"], args].concat()).await;
    below.logged("upstream connected").await;
    hop.logged("subscriber connected").await;
    below
}

/// All sorts of events come through a link that is compressed so, live and from the past.
async fn comes_through(scheme: &str, coding: &str, transport: &str) {
    let (mut link, hop) = Hop::fed(&["--compress"]).await;
    let mut here = hop.subscribe().await;
    let sent: Vec<_> = all_sorts()
        .into_iter()
        // An event of the format that is read here may not be empty, nor have other line ends.
        .filter(|sent| scheme == "ws" || sent.is_binary())
        .collect();
    let url = format!("{scheme}://{}/events", hop.address);
    let header = format!("Accept-Encoding: {coding}");
    let args = match coding.is_empty() {
        true => vec![],
        false => vec!["--consume-header", &header],
    };
    let below = below(&hop, &url, &args).await;
    let lines = hop.logged_where("subscriber connected", |line| {
        line.field("transport") == transport
    });
    lines.await;
    let mut there = below.subscribe().await;
    for event in sent {
        link.send(event.clone()).await;
        assert_same(&[here.message().await], std::slice::from_ref(&event));
        assert_same(&[there.message().await], &[event]);
    }
}

#[tokio::test]
async fn a_hop_link_may_be_compressed() {
    comes_through("ws", "", "hop+deflate").await;
}

#[tokio::test]
async fn a_hop_reads_zstd() {
    comes_through("http", "", "sse+zstd").await;
}

#[tokio::test]
async fn a_hop_reads_gzip() {
    comes_through("http", "gzip", "sse+gzip").await;
}

#[tokio::test]
async fn a_link_that_is_cut_goes_on_without_loss() {
    let (mut link, hop) = Hop::fed(&["--compress"]).await;
    let mut here = hop.subscribe().await;
    let wire = crate::harness::wire::Wire::to(hop.address);
    let url = format!("ws://{}/events", wire.address());
    let below = below(&hop, &url, &[]).await;
    let mut there = below.subscribe().await;
    let mut send = async |link: &mut Link, number: u64| {
        link.send(Message::text(event(number))).await;
        here.message().await;
    };
    send(&mut link, 1).await;
    assert_eq!(there.message().await, Message::text(event(1)));
    wire.cut(hop.address);
    for number in 2..=20 {
        send(&mut link, number).await;
    }
    for number in 2..=20 {
        assert_eq!(there.message().await, Message::text(event(number)));
    }
}

#[tokio::test]
async fn tail_reads_what_is_compressed() {
    let (mut link, hop) = Hop::fed(&["--compress"]).await;
    let mut here = hop.subscribe().await;
    link.send(Message::text(event(1))).await;
    here.message().await;
    for (transport, name) in [
        ("websocket", "hop+deflate"),
        ("sse", "sse+zstd"),
        ("ndjson", "ndjson+zstd"),
    ] {
        let args = [
            "--consume-compress",
            "--transport",
            transport,
            "--history",
            "1",
            "--count",
            "1",
        ];
        let mut tail = Tail::start(&hop.url, &args);
        assert_eq!(tail.line().await, Some(event(1)), "{transport}");
        tail.ends_with(0).await;
        hop.logged_where("subscriber disconnected", |line| {
            line.field("transport") == name
        })
        .await;
    }
}

/// A server may say no, and must not say what it was not asked for.
#[tokio::test]
async fn a_server_that_does_not_compress_is_read_as_it_is() {
    let upstream = Upstream::new();
    let url = upstream.url();
    let args = ["--consume", &url, "--consume-compress"];
    let starting = Hop::start(&args);
    let (hop, mut link) = tokio::join!(starting, upstream.accept());
    let offered = link.header("sec-websocket-extensions");
    assert_eq!(
        offered,
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
    );
    let mut subscriber = hop.subscribe().await;
    link.send(Message::text("plain")).await;
    assert_eq!(subscriber.message().await, Message::text("plain"));
}

#[tokio::test]
async fn a_compressed_subscriber_goes_on_in_another_process() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("takeover");
    let path = path.to_str().expect("it is plain");
    let args = ["--accept-publish", "--compress", "--takeover", path];
    let mut old = Hop::start(&args).await;
    let (_, mut client) = deflated(&old, "/events").await;
    let mut publish = async |number: u64| {
        let event = event(number);
        let mut compressed = vec![];
        super::deflate_message(&[event.as_bytes()], &mut compressed);
        client
            .send(super::masked(FIN | COMPRESSED | TEXT, &compressed))
            .await;
        assert_eq!(message(&mut client).await, (event, true));
    };
    publish(1).await;
    let address = old.address.to_string();
    let new = Hop::start(&[&args[..], &["--serve-address", &address]].concat()).await;
    let taken = new.logged("taken over from another process").await;
    assert_eq!(taken.number("subscribers"), 1);
    old.stops_well().await;
    publish(2).await;
    publish(3).await;
}

/// Of what has entered there only, as ever.
#[tokio::test]
async fn peers_may_read_each_other_compressed() {
    let mesh = Mesh::start(2, &["--compress", "--consume-compress"]).await;
    let mut subscribers = vec![];
    for number in 0..2 {
        let hop = mesh.hop(number);
        let is_peer = |line: &Line| line.field("transport") == "hop+deflate";
        hop.logged_where("subscriber connected", is_peer).await;
        subscribers.push(hop.subscribe().await);
    }
    for number in 0..6 {
        let sender = &mut subscribers[number % 2];
        sender
            .send_frame(TEXT, event(number as u64).as_bytes())
            .await;
        for subscriber in &mut subscribers {
            assert_eq!(
                subscriber.message().await,
                Message::text(event(number as u64))
            );
        }
    }
}
