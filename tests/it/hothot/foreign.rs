//! Feeds whose events have no ids, made of Python's `websockets`: `--dedup`.

use std::net::SocketAddr;

use serde_json::Value;

use super::upstreams;
use crate::harness::http::{CHUNKED, Ndjson, chunk};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::wire::Wire;
use crate::harness::wsevent::{Hop, output};
use crate::mesh::objects;
use crate::peers::{Language, Peer};

/// A feed that a test can end and begin anew, behind a wire.
struct Feed {
    peer: Peer,
    address: SocketAddr,
}

impl Feed {
    async fn start() -> Self {
        let mut peer = Peer::start(Language::Python, "feed", &[]);
        let port = peer.says().await["port"].as_u64().expect("a port");
        let address = ([127, 0, 0, 1], port as u16).into();
        Self { peer, address }
    }

    /// Waits for one more connection.
    async fn connected(&mut self) {
        let said = self.peer.says().await;
        assert!(said["connected"].is_u64(), "{said}");
    }

    async fn sends(&mut self, texts: &[String]) {
        for text in texts {
            self.peer.tell(text).await;
        }
    }
}

/// What a producer sends in one of its runs.
fn run(name: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let event = |number| format!(r#"{{"seq":{number},"run":"{name}"}}"#);
    numbers.into_iter().map(event).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().copied().map(String::from).collect()
}

/// Two feeds, the wires to them, and a hop that reads both, with a reader.
struct Scene {
    feeds: [Feed; 2],
    wires: [Wire; 2],
    hop: Hop,
    reader: Ndjson,
    away: ReservedPort,
    connected: usize,
}

impl Scene {
    async fn new(dedup: &str) -> Self {
        let mut feeds = [Feed::start().await, Feed::start().await];
        let wires = [Wire::to(feeds[0].address), Wire::to(feeds[1].address)];
        let [first, second] =
            [&wires[0], &wires[1]].map(|wire| format!("ws://{}/", wire.address()));
        let urls = ["--consume", &first, "--consume", &second];
        // Nothing may depend on time.
        let how = ["--dedup", dedup, "--gap-wait", "1h"];
        let hop = Hop::start(&[&urls[..], &how].concat()).await;
        for feed in &mut feeds {
            feed.connected().await;
        }
        hop.logged_times("upstream connected", 2).await;
        Self {
            feeds,
            wires,
            reader: Ndjson::of(&hop).await,
            hop,
            away: ReservedPort::new(),
            connected: 2,
        }
    }

    async fn sends(&mut self, feed: usize, texts: &[String]) {
        self.feeds[feed].sends(texts).await;
    }

    /// These come next, and nothing is told to be missing.
    async fn takes(&mut self, texts: &[String]) {
        assert_eq!(objects(&mut self.reader, texts.len()).await, texts);
    }

    /// The next one, behind a gap: how much is missing.
    async fn takes_behind_gap(&mut self, text: &str) -> Value {
        let notice = self.reader.next().await;
        assert!(notice["gap"].is_object(), "{notice}");
        assert_eq!(self.reader.next().await["data"], text);
        notice["gap"]["lost"].clone()
    }

    /// A feed is gone, for the hop as well.
    async fn dies(&mut self, feed: usize) {
        let lost = self.hop.count("upstream lost");
        self.wires[feed].cut(self.away.address());
        self.hop.logged_times("upstream lost", lost + 1).await;
    }

    /// Another process is in its place, and has been found.
    async fn comes_back(&mut self, feed: usize) {
        self.feeds[feed] = Feed::start().await;
        self.wires[feed].cut(self.feeds[feed].address);
        self.feeds[feed].connected().await;
        self.connected += 1;
        let times = self.connected;
        self.hop.logged_times("upstream connected", times).await;
    }

    /// Waits until so much of what a link has brought was here.
    async fn has_repeated(&self, feed: usize, count: u64) -> Value {
        let is_there = |link: &Value| link["repeated"].as_u64() >= Some(count);
        upstreams(&self.hop, |links| is_there(&links[feed])).await[feed].clone()
    }
}

#[tokio::test]
async fn numbers_make_one_feed_of_two() {
    let mut scene = Scene::new("json:/seq").await;
    scene.sends(0, &run("a", 1..=20)).await;
    scene.takes(&run("a", 1..=20)).await;
    scene.sends(1, &run("a", 1..=20)).await;
    scene.has_repeated(1, 20).await;

    // What one has skipped the other brings, in order.
    scene.sends(0, &run("a", [23, 24])).await;
    upstreams(&scene.hop, |links| links[0]["holes"] == 1).await;
    scene.sends(1, &run("a", 21..=24)).await;
    scene.takes(&run("a", 21..=24)).await;
    let links = upstreams(&scene.hop, |links| links[0]["filled"] == 1).await;
    assert_eq!(links[0]["wins"], 22, "{links}");
    assert_eq!(links[1]["wins"], 2, "{links}");
    assert!(links[1]["lag"].is_number(), "{links}");

    // One dies and comes back, and then the other one.
    for (gone, first) in [(0, 25), (1, 45)] {
        scene.dies(gone).await;
        scene.sends(1 - gone, &run("a", first..first + 10)).await;
        scene.takes(&run("a", first..first + 10)).await;
        scene.comes_back(gone).await;
        scene.sends(gone, &run("a", first + 8..first + 20)).await;
        scene.takes(&run("a", first + 10..first + 20)).await;
    }
}

#[tokio::test]
async fn what_both_have_missed_is_one_gap_with_its_count() {
    let mut scene = Scene::new("json:/seq").await;
    for feed in [0, 1] {
        scene.sends(feed, &run("a", 1..=20)).await;
    }
    scene.takes(&run("a", 1..=20)).await;
    for feed in [0, 1] {
        scene.sends(feed, &run("a", [25])).await;
    }
    assert_eq!(scene.takes_behind_gap(&run("a", [25])[0]).await, 4);
    // Away at the same time: by the numbers it is known what is missing.
    scene.dies(0).await;
    scene.dies(1).await;
    scene.comes_back(0).await;
    scene.sends(0, &run("a", [26])).await;
    scene.takes(&run("a", [26])).await;
}

#[tokio::test]
async fn a_producer_that_is_started_again_is_read_on() {
    let mut scene = Scene::new("json:/seq").await;
    for feed in [0, 1] {
        scene.sends(feed, &run("a", 1..=20)).await;
    }
    scene.takes(&run("a", 1..=20)).await;
    // On connections that stay.
    for feed in [0, 1] {
        scene.sends(feed, &run("b", 1..=10)).await;
    }
    scene.takes(&run("b", 1..=10)).await;
    // On new ones.
    scene.dies(0).await;
    scene.dies(1).await;
    scene.comes_back(0).await;
    scene.comes_back(1).await;
    for feed in [0, 1] {
        scene.sends(feed, &run("c", 1..=9)).await;
    }
    let lost = scene.takes_behind_gap(&run("c", [1])[0]).await;
    assert!(lost.is_null(), "nobody knows: {lost}");
    scene.takes(&run("c", 2..=9)).await;
}

#[tokio::test]
async fn equal_events_are_told_from_copies() {
    let mut scene = Scene::new("hash").await;
    let first = words(&["tick", "tick", "tock"]);
    scene.sends(0, &first).await;
    scene.takes(&first).await;
    scene
        .sends(1, &words(&["tick", "tick", "tock", "tack"]))
        .await;
    scene.takes(&words(&["tack"])).await;
    scene.sends(0, &words(&["tack", "tick"])).await;
    scene.takes(&words(&["tick"])).await;
    let repeated = scene.has_repeated(1, 3).await;
    assert_eq!(repeated["repeated"], 3);

    // One dies, and comes back to repeat a part.
    scene.dies(0).await;
    scene.sends(1, &words(&["one", "two", "three"])).await;
    scene.takes(&words(&["one", "two", "three"])).await;
    scene.comes_back(0).await;
    scene.sends(0, &words(&["two", "three", "four"])).await;
    scene.takes(&words(&["four"])).await;

    // A moment without any may have missed something.
    scene.dies(0).await;
    scene.dies(1).await;
    scene.comes_back(1).await;
    scene.sends(1, &words(&["five"])).await;
    assert!(scene.takes_behind_gap("five").await.is_null());
    scene.comes_back(0).await;
    scene.sends(0, &words(&["five", "six"])).await;
    scene.takes(&words(&["six"])).await;
}

/// Whatever they are read by, and beside what has ids.
#[tokio::test]
async fn feeds_over_http_and_a_hop_link_go_together() {
    let (first, second) = (Upstream::new(), Upstream::new());
    let (mut link, other) = Hop::fed(&[]).await;
    let [one, two] = [first.http_url(), second.http_url()];
    let urls = [
        "--consume",
        &one,
        "--consume",
        &two,
        "--consume",
        &other.url,
    ];
    let how = ["--dedup", "json:/seq", "--gap-wait", "1h"];
    let hop = Hop::start(&[&urls[..], &how].concat()).await;
    let (mut sse, mut ndjson) = (first.asked().await, second.asked().await);
    sse.send(CHUNKED).await;
    ndjson
        .send(CHUNKED.replace("text/event-stream", "application/x-ndjson"))
        .await;
    hop.logged_times("upstream connected", 3).await;
    let mut reader = Ndjson::of(&hop).await;
    let events = run("a", 1..=12);
    for event in &events[..10] {
        sse.send(chunk(format!("data: {event}\n\n").as_bytes()))
            .await;
    }
    assert_eq!(objects(&mut reader, 10).await, events[..10]);
    for event in &events {
        ndjson.send(chunk(format!("{event}\n").as_bytes())).await;
    }
    let got = objects(&mut reader, 2).await;
    let json = |text: &String| serde_json::from_str::<Value>(text).expect("it is JSON");
    let same = |got: &[String], sent: &[String]| {
        assert_eq!(
            got.iter().map(json).collect::<Vec<_>>(),
            sent.iter().map(json).collect::<Vec<_>>()
        );
    };
    same(&got, &events[10..]);
    // What has an id is not looked into.
    let twice = run("a", [1, 1]);
    for event in &twice {
        link.send(event.as_str().into()).await;
    }
    same(&objects(&mut reader, 2).await, &twice);
    let links = upstreams(&hop, |links| links[1]["repeated"] == 10).await;
    assert_eq!(links[0]["wins"], 10, "{links}");
}

#[tokio::test]
async fn what_makes_no_sense_is_said_in_a_line() {
    const TWO: [&str; 4] = [
        "--consume",
        "ws://a.example/",
        "--consume",
        "ws://b.example/",
    ];
    let one = &TWO[..2];
    for (args, reason) in [
        (
            [one, &["--dedup", "hash"]].concat(),
            "--dedup recognises what several feeds bring, and there are not two of them",
        ),
        (
            [&TWO[..], &["--dedup", "json:seq"]].concat(),
            "'seq' is no JSON pointer, such as /symbol or /user/id",
        ),
        (
            [&TWO[..], &["--dedup", "ids"]].concat(),
            "json:/POINTER is expected, such as json:/seq, or hash",
        ),
    ] {
        let output = output(&args, &[]).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    let explained = [&["explain", "/events"], &TWO[..], &["--dedup", "json:/seq"]].concat();
    let output = output(&explained, &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("json:/seq"), "{said}");
}
