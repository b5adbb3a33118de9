//! Several hops around one Redis: `--bus`.

use std::collections::{HashMap, HashSet};

use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::{Poster, Told, assert_once, ids, missing, next, told};
use crate::harness::client::Client;
use crate::harness::frame::{FIN, TEXT, masked};
use crate::harness::http::Ndjson;
use crate::harness::redis::Redis;
use crate::harness::wire::Wire;
use crate::harness::wsevent::Hop;

/// In all.
const COUNT: usize = 100_000;
/// By each of two publishers at each of two hops.
const EACH: usize = COUNT / 4;

async fn replica(bus: &str) -> Hop {
    let flags = ["--bus", bus, "--accept-publish", "--history", "64MiB"];
    let hop = Hop::start(&flags).await;
    hop.logged("upstream connected").await;
    hop.logged("downstream connected").await;
    hop
}

fn collect(mut subscriber: Client) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut got = Vec::with_capacity(COUNT);
        while got.len() < COUNT {
            match subscriber.message().await {
                Message::Text(text) => got.push(text.to_string()),
                other => panic!("{other} behind {} events", got.len()),
            }
        }
        got
    })
}

fn collect_lines(mut reader: Ndjson) -> JoinHandle<Vec<Told>> {
    tokio::spawn(async move { told(&mut reader, COUNT).await })
}

/// Publishes by requests. Which text got which id.
fn post(mut poster: Poster, name: &'static str) -> JoinHandle<HashMap<String, String>> {
    tokio::spawn(async move {
        let mut answered = HashMap::new();
        let all: Vec<_> = (0..EACH).map(|number| format!("{name} {number}")).collect();
        for texts in all.chunks(500) {
            let (head, body) = poster.lines(texts).await;
            assert_eq!(head.status, 202, "{body}");
            answered.extend(texts.iter().cloned().zip(ids(&body)));
        }
        answered
    })
}

/// Publishes by messages.
fn send(mut publisher: Client, name: &'static str) -> JoinHandle<Client> {
    tokio::spawn(async move {
        let all: Vec<_> = (0..EACH).map(|number| format!("{name} {number}")).collect();
        for texts in all.chunks(250) {
            let frames = texts.iter().map(|text| masked(FIN | TEXT, text.as_bytes()));
            publisher.send(frames.collect::<Vec<_>>().concat()).await;
        }
        publisher
    })
}

async fn all_get_all(bus: &str) {
    let (one, other) = (replica(bus).await, replica(bus).await);
    let lines = [
        collect_lines(Ndjson::of(&one).await),
        collect_lines(Ndjson::of(&other).await),
    ];
    let raw = [
        collect(one.subscribe().await),
        collect(other.subscribe().await),
    ];
    let posts = [
        post(Poster::of(&one).await, "post to one"),
        post(Poster::of(&other).await, "post to other"),
    ];
    let mut kept = Vec::new();
    for (hop, name) in [(&one, "message to one"), (&other, "message to other")] {
        let publisher = Client::connect(hop.address).await;
        kept.push(send(publisher.upgraded("/events").await, name));
    }
    let mut answered = HashMap::new();
    for post in posts {
        answered.extend(post.await.expect("all are taken"));
    }
    let [mut first, second] = lines;
    let expected = (&mut first).await.expect("all come");
    assert!(second.await.expect("all come") == expected, "another order");
    let texts: Vec<_> = expected.iter().map(|(_, text)| text.clone()).collect();
    for got in raw {
        assert!(got.await.expect("all come") == texts, "another order");
    }
    assert_once(texts.iter().map(String::as_str));
    let ids: HashSet<_> = expected.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), COUNT, "an id is an event's own");
    assert_eq!(answered.len(), 2 * EACH);
    let mut checked = 0;
    for (id, text) in &expected {
        if let Some(answer) = answered.get(text) {
            assert_eq!(answer, id, "of {text}");
            checked += 1;
        }
    }
    assert_eq!(checked, answered.len());
    for publisher in ["post to one", "message to other"] {
        let own = texts.iter().filter_map(|text| text.strip_prefix(publisher));
        let numbers: Vec<usize> = own
            .map(|text| text.trim().parse().expect("a number"))
            .collect();
        assert!(numbers.is_sorted(), "{publisher}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_a_channel_all_get_all_in_the_same_order() {
    let server = Redis::start().await;
    all_get_all(&server.channel("events")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_a_stream_all_get_all_in_the_same_order() {
    let server = Redis::start().await;
    all_get_all(&server.stream("events")).await;
    let length: usize = server.ask(&["XLEN", "events"]).await;
    assert_eq!(length, COUNT);
}

#[tokio::test]
async fn a_bus_that_is_away_takes_nothing_and_all_is_well_when_it_comes() {
    for url in [Redis::channel, Redis::stream] {
        let mut server = Redis::away(&[]);
        let bus = url(&server, "events");
        let hop = Hop::start(&["--bus", &bus, "--accept-publish"]).await;
        hop.logged("cannot reach downstream, trying again").await;
        let mut poster = Poster::of(&hop).await;
        let (head, body) = poster.post("text/plain", "too early").await;
        assert_eq!(head.status, 503, "{body}");
        assert_ne!(head.header("retry-after"), "");
        assert!(body.contains("refused"), "{body}");
        // Who only listens is served.
        let mut subscriber = hop.subscribe().await;
        server.comes().await;
        hop.logged("upstream connected").await;
        hop.logged("downstream connected").await;
        poster.text("now").await;
        assert_eq!(subscriber.message().await, Message::text("now"));
    }
}

#[tokio::test]
async fn what_a_replica_has_not_heard_is_a_gap_of_so_many() {
    let server = Redis::start().await;
    let wire = Wire::to(server.address());
    let nobody = Redis::away(&[]);
    let one = replica(&server.channel("events")).await;
    let other = replica(&format!("redis://{}/0?channel=events", wire.address())).await;
    let mut poster = Poster::of(&one).await;
    let mut reader = Ndjson::of(&other).await;
    poster.text("heard").await;
    assert_eq!(next(&mut reader).await.1, "heard");
    wire.cut(nobody.address());
    other.logged("upstream lost").await;
    for _ in 0..3 {
        poster.text("not heard").await;
    }
    wire.cut(server.address());
    other.logged_times("upstream connected", 2).await;
    poster.text("heard again").await;
    assert_eq!(missing(&mut reader).await, Some(3));
    assert_eq!(next(&mut reader).await.1, "heard again");
}

#[tokio::test]
async fn a_replica_that_comes_later_has_what_the_stream_has() {
    let server = Redis::start().await;
    let bus = server.stream("events");
    let one = replica(&bus).await;
    let mut poster = Poster::of(&one).await;
    let mut expected = Vec::new();
    for number in 0..20 {
        let text = number.to_string();
        expected.push((poster.text(&text).await, text));
    }
    let later = replica(&bus).await;
    Ndjson::at(&later, "/events?last_event_id=0000000000001-1").await;
    let mut reader = Ndjson::at(&later, "/events?history=all").await;
    assert_eq!(told(&mut reader, 20).await, expected);
}
