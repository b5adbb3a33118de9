//! Several links that bring the same events: losing one of them loses nothing.

mod foreign;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::harness::client::body::Stream;
use crate::harness::events::{assert_same, numbered};
use crate::harness::http::Ndjson;
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Link;
use crate::harness::wire::Wire;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;
use crate::mesh::objects;

/// What is known of the upstreams of the first stream, once it is as `wanted`.
pub async fn upstreams(hop: &Hop, wanted: impl Fn(&Value) -> bool) -> Value {
    within_guard("what is counted of links", async {
        loop {
            let links = hop.index().await["streams"][0]["upstreams"].clone();
            if wanted(&links) {
                return links;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Where events begin, two relays, the wires to these, and a hop that reads both.
struct Diamond {
    link: Link,
    relays: [Hop; 2],
    wires: [Wire; 2],
    hop: Hop,
    _origin: Hop,
}

impl Diamond {
    async fn new(first: &[&str], second: &[&str]) -> Self {
        let (link, origin) = Hop::fed(&[]).await;
        let consume = ["--consume", &origin.url];
        let relays = [
            Hop::start(&[&consume, first].concat()).await,
            Hop::start(&[&consume, second].concat()).await,
        ];
        for relay in &relays {
            relay.logged("upstream connected").await;
        }
        let wires = [Wire::to(relays[0].address), Wire::to(relays[1].address)];
        let [one, two] =
            [&wires[0], &wires[1]].map(|wire| format!("ws://{}/events", wire.address()));
        let urls = ["--consume", &one, "--consume", &two];
        // Nothing may depend on time.
        let hop = Hop::start(&[&urls[..], &["--gap-wait", "1h"]].concat()).await;
        hop.logged_times("upstream connected", 2).await;
        Self {
            link,
            relays,
            wires,
            hop,
            _origin: origin,
        }
    }

    /// Waits until a relay has so many events.
    async fn relayed(&self, relay: usize, count: u64) {
        let relay = &self.relays[relay];
        within_guard("events at a relay", async {
            while relay.index().await["streams"][0]["events"] != count {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// As text.
fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("event {number}")).collect()
}

#[tokio::test]
async fn a_link_that_hangs_holds_nothing_up() {
    let mut scene = Diamond::new(&[], &[]).await;
    let mut reader = Ndjson::of(&scene.hop).await;
    let sent = numbered(400);
    for (hung, begin) in [(0, 0), (1, 200)] {
        scene.relays[hung].signal(Signal::STOP);
        scene.link.send_all(&sent[begin..begin + 100]).await;
        let got = objects(&mut reader, 100).await;
        assert_eq!(got, texts(begin..begin + 100));
        scene.relays[hung].signal(Signal::CONT);
        upstreams(&scene.hop, |links| {
            links[hung]["repeated"].as_u64() >= Some(100)
        })
        .await;
        scene.link.send_all(&sent[begin + 100..begin + 200]).await;
        let got = objects(&mut reader, 100).await;
        assert_eq!(got, texts(begin + 100..begin + 200));
    }
}

#[tokio::test]
async fn a_hole_of_one_link_is_filled_from_the_other_and_nobody_is_told() {
    let mut scene = Diamond::new(&["--history-count", "1"], &[]).await;
    let mut reader = Ndjson::of(&scene.hop).await;
    let sent = numbered(11);
    scene.link.send(sent[0].clone()).await;
    assert_eq!(objects(&mut reader, 1).await, texts(0..1));
    // The other is there, and has said nothing yet.
    scene.relays[1].signal(Signal::STOP);
    let away = ReservedPort::new();
    scene.wires[0].cut(away.address());
    scene.hop.logged("upstream lost").await;
    scene.link.send_all(&sent[1..]).await;
    scene.relayed(0, 11).await;
    scene.wires[0].cut(scene.relays[0].address);
    upstreams(&scene.hop, |links| links[0]["holes"] == 1).await;
    scene.relays[1].signal(Signal::CONT);
    assert_eq!(objects(&mut reader, 10).await, texts(1..11));
    upstreams(&scene.hop, |links| links[0]["filled"] == 1).await;
}

#[tokio::test]
async fn what_no_link_has_is_one_gap_with_its_count() {
    const TINY: [&str; 2] = ["--history-count", "1"];
    let mut scene = Diamond::new(&TINY, &TINY).await;
    let mut reader = Ndjson::of(&scene.hop).await;
    let sent = numbered(11);
    scene.link.send(sent[0].clone()).await;
    assert_eq!(objects(&mut reader, 1).await, texts(0..1));
    let away = ReservedPort::new();
    for wire in &scene.wires {
        wire.cut(away.address());
    }
    scene.hop.logged_times("upstream lost", 2).await;
    scene.link.send_all(&sent[1..]).await;
    for relay in [0, 1] {
        scene.relayed(relay, 11).await;
        scene.wires[relay].cut(scene.relays[relay].address);
    }
    let notice = reader.next().await;
    assert_eq!(notice["gap"]["lost"], 9, "{notice}");
    assert_eq!(objects(&mut reader, 1).await, texts(10..11));
}

/// Under load, whatever a subscriber reads by.
#[tokio::test]
async fn nobody_notices_that_a_link_is_lost() {
    let mut origin = Hop::start(&["--produce", "--produce-rate", "2000"]).await;
    let mut first = Hop::consuming(&origin.url).await;
    let second = Hop::consuming(&origin.url).await;
    let urls = ["--consume", &first.url, "--consume", &second.url];
    let hop = Hop::start(&[&urls[..], &["--gap-wait", "1h"]].concat()).await;
    hop.logged_times("upstream connected", 2).await;
    let behind = Hop::consuming(&hop.url).await;
    let accept = [("Accept", "text/event-stream")];
    let mut sse = Stream::open(hop.address, "/events", &accept).await;
    let mut ndjson = Ndjson::of(&hop).await;
    let mut further = Ndjson::of(&behind).await;
    let mut websocket = hop.subscribe().await;
    let seq = |id: &str| {
        let number = id.split('-').nth(1).and_then(|seq| seq.parse().ok());
        number.unwrap_or_else(|| panic!("no id: {id}"))
    };
    let (mut by_sse, mut by_ndjson, mut by_link) = (vec![], vec![], vec![]);
    let mut by_websocket = vec![];
    for part in 0..2 {
        for _ in 0..500 {
            by_sse.push(seq(sse.event().await.id()));
            for (reader, by) in [(&mut ndjson, &mut by_ndjson), (&mut further, &mut by_link)] {
                let object = reader.next().await;
                by.push(seq(object["id"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{object}"))));
            }
            let counted: Vec<_> = websocket.messages(1).await;
            let text = counted[0].to_text().expect("text").to_owned();
            let counter = text.split(' ').next().and_then(|it| it.parse::<u64>().ok());
            by_websocket.push(counter.unwrap_or_else(|| panic!("no counter: {text}")));
        }
        if part == 0 {
            first.signal(Signal::KILL);
            first.exit().await;
            hop.logged("upstream lost").await;
        }
    }
    for by in [by_sse, by_ndjson, by_link, by_websocket] {
        let expected: Vec<u64> = (by[0]..).take(1000).collect();
        assert_eq!(by, expected);
    }
    origin.signal(Signal::TERM);
    origin.exit().await;
}

#[tokio::test]
async fn losing_one_of_two_links_loses_nothing() {
    let (mut link, origin) = Hop::fed(&[]).await;
    let mut first = Hop::consuming(&origin.url).await;
    let second = Hop::consuming(&origin.url).await;
    let urls = ["--consume", &first.url, "--consume", &second.url];
    // Nothing may depend on time.
    let hop = Hop::start(&[&urls[..], &["--gap-wait", "1h"]].concat()).await;
    hop.logged_times("upstream connected", 2).await;
    let mut subscriber = hop.subscribe().await;
    let sent = numbered(300);
    link.send_all(&sent[..100]).await;
    assert_same(&subscriber.messages(100).await, &sent[..100]);

    first.signal(Signal::KILL);
    first.exit().await;
    link.send_all(&sent[100..200]).await;
    assert_same(&subscriber.messages(100).await, &sent[100..200]);
    hop.logged("upstream lost").await;

    let address = first.address.to_string();
    let again = ["--consume", &origin.url, "--serve-address", &address];
    let again = Hop::start(&again).await;
    again.logged("upstream connected").await;
    hop.logged_times("upstream connected", 3).await;
    second.signal(Signal::KILL);
    link.send_all(&sent[200..]).await;
    assert_same(&subscriber.messages(100).await, &sent[200..]);

    let index = hop.index().await;
    let upstreams = index["streams"][0]["upstreams"].as_array();
    let upstreams = upstreams.expect("there are upstreams");
    let wins = upstreams.iter().map(|upstream| upstream["wins"].as_u64());
    assert_eq!(wins.sum::<Option<u64>>(), Some(300), "{index}");
}
