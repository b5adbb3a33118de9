//! Redis that stands still, and Redis that cannot take an event.

use rustix::process::Signal;
use tokio::task::JoinSet;

use super::{Poster, assert_once, next};
use crate::harness::client::Client;
use crate::harness::events::{MIB, text};
use crate::harness::http::Ndjson;
use crate::harness::redis::Redis;
use crate::harness::wsevent::Hop;

/// More than waits for a bus.
const POSTS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_stands_still_loses_nothing_that_was_acknowledged() {
    let server = Redis::start().await;
    let bus = server.stream("events");
    let flags = ["--bus", &bus, "--accept-publish"];
    let hop = Hop::start(&flags).await;
    hop.logged("upstream connected").await;
    hop.logged("downstream connected").await;
    let before = hop.resident();
    server.signal(Signal::STOP);
    let mut posts = JoinSet::new();
    for number in 0..POSTS {
        let mut poster = Poster::of(&hop).await;
        posts.spawn(async move {
            let body = format!("{number} {}", text(MIB - 10));
            let (head, answer) = poster.post("text/plain", &body).await;
            (number, head, answer)
        });
    }
    let mut taken = Vec::new();
    let mut refused = 0;
    let mut note =
        |(number, head, answer): (usize, crate::harness::client::Head, String)| match head.status {
            503 => {
                assert_ne!(head.header("retry-after"), "", "{answer}");
                refused += 1;
            }
            status => {
                assert_eq!(status / 100, 2, "{answer}");
                taken.push(number);
            }
        };
    // Some are told to come again, as there is no room.
    note(posts.join_next().await.expect("many").expect("no panic"));
    assert!(hop.resident() - before < 250 << 20, "{}", hop.resident());
    // Others are served meanwhile.
    let (head, _) = Client::connect(hop.address).await.get("/", &[]).await;
    assert_eq!(head.status, 200);
    server.signal(Signal::CONT);
    while let Some(post) = posts.join_next().await {
        note(post.expect("no panic"));
    }
    assert!(refused > 0 && !taken.is_empty());
    let there = server.field("events", "data").await;
    let there: Vec<_> = there
        .iter()
        .map(|text| text.split(' ').next().expect("a number"))
        .collect();
    assert_once(there.iter().copied());
    for number in taken {
        assert!(there.contains(&&*number.to_string()), "{number} is missing");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_and_missed_nothing() {
    let server = Redis::start().await;
    let url = server.stream("events");
    let flags = [
        "--bus",
        &url,
        "--accept-publish",
        "--ping-interval",
        "200ms",
    ];
    let hop = Hop::start(&flags).await;
    hop.logged("upstream connected").await;
    hop.logged("downstream connected").await;
    let mut reader = Ndjson::of(&hop).await;
    let mut poster = Poster::of(&hop).await;
    server.signal(Signal::STOP);
    for what in ["upstream lost", "downstream lost"] {
        let lost = hop.logged(what).await;
        assert!(
            lost.field("reason").contains("does not answer"),
            "{}",
            lost.text
        );
    }
    let (head, body) = poster.post("text/plain", "too early").await;
    assert_eq!(head.status, 503, "{body}");
    server.signal(Signal::CONT);
    hop.logged_times("upstream connected", 2).await;
    hop.logged_times("downstream connected", 2).await;
    let id = poster.text("now").await;
    assert_eq!(next(&mut reader).await, (id, "now".to_owned()));

    let channel = server.channel("quiet");
    let flags = ["--consume", &channel, "--ping-interval", "200ms"];
    let hop = Hop::start(&flags).await;
    hop.logged("upstream connected").await;
    server.signal(Signal::STOP);
    hop.logged("upstream lost").await;
    server.signal(Signal::CONT);
    hop.logged_times("upstream connected", 2).await;
}

#[tokio::test]
async fn an_event_that_the_server_cannot_take_holds_up_no_other() {
    let server = Redis::start().await;
    server
        .tell(&["CONFIG", "SET", "proto-max-bulk-len", "1048576"])
        .await;
    for (bus, flag) in [
        (server.stream("events"), "--bus"),
        (server.channel("events"), "--bus"),
    ] {
        let flags = [flag, &bus, "--accept-publish", "--max-message-size", "3MiB"];
        let hop = Hop::start(&flags).await;
        hop.logged("upstream connected").await;
        hop.logged("downstream connected").await;
        let mut subscriber = hop.subscribe().await;
        let mut poster = Poster::of(&hop).await;
        let (head, body) = poster.post("text/plain", &text(2 * MIB)).await;
        assert_eq!(head.status, 422, "{body}");
        assert!(body.contains("the bus refuses this"), "{body}");
        // The server has closed the connection over it.
        while poster.post("text/plain", "small").await.0.status == 503 {}
        assert_eq!(subscriber.message().await.to_text().ok(), Some("small"));
    }
}

#[tokio::test]
async fn a_server_that_is_full_is_waited_for() {
    let server = Redis::start().await;
    let url = server.stream("out");
    let hop = Hop::quiet(&["--forward", &url, "--accept-publish"]).await;
    hop.logged("downstream connected").await;
    let mut poster = Poster::of(&hop).await;
    poster.text("first").await;
    server.tell(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for number in 0..50 {
        poster.text(&number.to_string()).await;
    }
    let lost = hop.logged("downstream lost").await;
    assert!(lost.field("reason").contains("OOM"), "{}", lost.text);
    server.tell(&["CONFIG", "SET", "maxmemory", "0"]).await;
    hop.logged_times("downstream connected", 2).await;
    let mut reader = super::peer(&server.url(), "read", "out").await;
    assert_eq!(reader.says().await["fields"]["data"], "first");
    for number in 0..50 {
        assert_eq!(reader.says().await["fields"]["data"], number.to_string());
    }
}
