//! Instances that are peers of each other: what enters at one comes to the subscribers of all, once.

mod members;

use std::collections::HashMap;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::frame::TEXT;
use crate::harness::http::Ndjson;
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::wire::Wire;
use crate::harness::wsevent::Hop;
use crate::links::Down;
use crate::peers::{Language, Peer};
use crate::publish::{ask, post};

/// Instances that are all peers of all others. Each may be killed, and begun again at its port.
pub struct Mesh {
    ports: Vec<ReservedPort>,
    /// What each of them is told besides.
    args: Vec<String>,
    hops: Vec<Option<Hop>>,
}

impl Mesh {
    /// So many instances that let clients publish, with a link from each to each.
    pub async fn start(count: usize, args: &[&str]) -> Self {
        let mut mesh = Self::planned(count, args);
        for number in 0..count {
            mesh.begin(number, &[]).await;
        }
        for hop in mesh.hops.iter().flatten() {
            hop.logged_times("peer connected", count - 1).await;
        }
        mesh
    }

    /// The same, of which none runs yet.
    pub fn planned(count: usize, args: &[&str]) -> Self {
        Self {
            ports: (0..count).map(|_| ReservedPort::new()).collect(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            hops: (0..count).map(|_| None).collect(),
        }
    }

    /// Begins one of them, with more flags.
    pub async fn begin(&mut self, number: usize, more: &[&str]) {
        let own = self.ports[number].address().to_string();
        let url = |port: &ReservedPort| format!("ws://{}/events", port.address());
        let others = self.ports.iter().map(url).enumerate();
        let others: Vec<_> = others.filter(|(other, _)| *other != number).collect();
        let mut args = vec!["--serve-address", &own, "--accept-publish"];
        for (_, other) in &others {
            args.extend(["--peer", other]);
        }
        args.extend(self.args.iter().map(String::as_str));
        self.hops[number] = Some(Hop::start(&[&args, more].concat()).await);
    }

    pub fn hop(&self, number: usize) -> &Hop {
        self.hops[number].as_ref().expect("it runs")
    }

    /// One of them, for which another one may be begun.
    pub fn leave(&mut self, number: usize) -> Hop {
        self.hops[number].take().expect("it runs")
    }

    async fn kill(&mut self, number: usize) {
        let mut hop = self.leave(number);
        hop.signal(Signal::KILL);
        hop.exit().await;
    }

    pub fn url(&self, number: usize) -> String {
        format!("ws://{}/events", self.ports[number].address())
    }
}

/// Publishes these, one after the other, by POST.
pub async fn publish(hop: &Hop, payloads: &[String]) {
    publish_at(hop, "/events", payloads).await;
}

async fn publish_at(hop: &Hop, path: &str, payloads: &[String]) {
    let mut client = Client::connect(hop.address).await;
    for payload in payloads {
        let headers = [("Content-Type", "text/plain")];
        let (status, body) = ask(&mut client, post(path, &headers, payload.as_bytes())).await;
        assert_eq!(status, 202, "{body}");
    }
}

/// All that a hop has had and still holds, from when its peers have told it what was before.
pub async fn past(hop: &Hop) -> Ndjson {
    // A link waits for that; who merely reads history does not.
    let mut down = Down::connect(hop.address, "!hello from=live").await;
    assert!(down.line().await.starts_with("!welcome "));
    Ndjson::at(hop, "/events?history=all").await
}

/// `count` payloads that say who has sent them, and in which order.
pub fn from(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{name} {at}")).collect()
}

/// That these are all payloads of all senders, each once, and those of each in its order.
#[track_caller]
pub fn assert_all(got: impl IntoIterator<Item = String>, senders: &[(&str, usize)]) {
    let mut next: HashMap<String, usize> = HashMap::new();
    for payload in got {
        let (name, at) = payload.rsplit_once(' ').expect("a name and a number");
        let next = next.entry(name.to_owned()).or_default();
        assert_eq!(at, next.to_string(), "the next of {name}");
        *next += 1;
    }
    let sent = senders.iter().filter(|(_, count)| *count > 0);
    let sent: HashMap<_, _> = sent
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    assert_eq!(next, sent);
}

fn texts(messages: Vec<Message>) -> Vec<String> {
    let text = |message: Message| message.into_text().expect("text").to_string();
    messages.into_iter().map(text).collect()
}

pub async fn objects(reader: &mut Ndjson, count: usize) -> Vec<String> {
    let mut got = vec![];
    while got.len() < count {
        let object = reader.next().await;
        assert!(object["gap"].is_null(), "{object}");
        got.push(object["data"].as_str().expect("text").to_owned());
    }
    got
}

/// What a hop gives its peers: all of it, until an event of its own that is called `end`.
async fn local(hop: &Hop) -> Vec<String> {
    let mut down = Down::connect(hop.address, "!hello from=all scope=local").await;
    let welcome = down.line().await;
    assert!(welcome.starts_with("!welcome "), "{welcome}");
    publish(hop, &["end".to_owned()]).await;
    let mut got = vec![];
    loop {
        let (_, payload) = down.event().await;
        if payload == "end" {
            return got;
        }
        got.push(payload);
    }
}

async fn everyone_gets_all(count: usize) {
    const EACH: usize = 20;
    let mesh = Mesh::start(count, &[]).await;
    let names: Vec<_> = (0..count).map(|number| format!("hop{number}")).collect();
    let mut senders: Vec<_> = names.iter().map(|name| (&**name, EACH)).collect();
    senders.push(("socket", EACH));
    let total = senders.len() * EACH;
    let mut sockets = vec![];
    let mut readers = vec![];
    let mut foreign = vec![];
    for number in 0..count {
        sockets.push(mesh.hop(number).subscribe().await);
        readers.push(Ndjson::of(mesh.hop(number)).await);
        let mut peer = Peer::start(Language::Python, "client", &[&mesh.url(number)]);
        peer.says().await;
        peer.says().await;
        foreign.push(peer);
    }
    let mut down = Down::connect(mesh.hop(0).address, "!hello from=live scope=local").await;
    assert!(down.line().await.starts_with("!welcome "));
    for (number, name) in names.iter().enumerate() {
        publish(mesh.hop(number), &from(name, EACH)).await;
    }
    let mut socket = mesh.hop(1).subscribe().await;
    for payload in from("socket", EACH) {
        socket.send_frame(TEXT, payload.as_bytes()).await;
    }
    for (number, name) in names.iter().enumerate() {
        assert_all(texts(sockets[number].messages(total).await), &senders);
        assert_all(objects(&mut readers[number], total).await, &senders);
        let mut got = vec![];
        while got.len() < total {
            got.push(foreign[number].event().await);
        }
        assert_all(texts(got), &senders);
        let entered = match number {
            1 => vec![(&**name, EACH), ("socket", EACH)],
            _ => vec![(&**name, EACH)],
        };
        assert_all(local(mesh.hop(number)).await, &entered);
    }
    // Over the one link that was open all the time nothing came but what entered there.
    let mut got = vec![];
    while got.len() < EACH + 1 {
        got.push(down.event().await.1);
    }
    assert_eq!(got.pop().as_deref(), Some("end"));
    assert_all(got, &[("hop0", EACH)]);
}

#[tokio::test]
async fn what_one_of_three_publishes_all_subscribers_get_once() {
    everyone_gets_all(3).await;
}

#[tokio::test]
async fn what_one_of_five_publishes_all_subscribers_get_once() {
    everyone_gets_all(5).await;
}

#[tokio::test]
async fn a_peer_that_is_no_wsevent_is_refused() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--accept-publish", "--peer", &upstream.url()]).await;
    let link = upstream.accept().await;
    let refused = hop.logged("cannot reach peer, trying again").await;
    assert!(
        refused.field("reason").contains("it is no wsevent"),
        "{}",
        refused.text
    );
    link.closed().await;
    let mut subscriber = hop.subscribe().await;
    publish(&hop, &from("here", 1)).await;
    assert_eq!(texts(subscriber.messages(1).await), ["here 0"]);
}

#[tokio::test]
async fn a_hop_that_is_its_own_peer_leaves_itself_out() {
    let port = ReservedPort::new();
    let own = port.address().to_string();
    let wire = Wire::to(port.address());
    let other = format!("ws://{}/events", wire.address());
    let plain = format!("ws://{own}/events");
    // One list of peers is for all members.
    for peer in [&other, &plain] {
        let args = ["--serve-address", &own, "--peer", peer, "--accept-publish"];
        let mut hop = Hop::start(&args).await;
        hop.logged("this peer is the hop itself, and left out")
            .await;
        assert_eq!(hop.index().await["streams"][0]["upstreams"], json!([]));
        hop.signal(Signal::KILL);
        hop.exit().await;
    }
}

#[tokio::test]
async fn who_only_has_peers_produces_nothing() {
    let mesh = Mesh::planned(2, &[]);
    let away = mesh.url(1);
    let hop = Hop::start(&["--peer", &away]).await;
    let streams = hop.index().await;
    let upstreams = json!([{"url": away, "connected": false, "peer": true}]);
    assert_eq!(streams["streams"][0]["upstreams"], upstreams);
    assert_eq!(streams["streams"][0]["events"], 0);
}

#[tokio::test]
async fn who_comes_later_gets_what_the_others_hold() {
    let mut mesh = Mesh::planned(3, &[]);
    mesh.begin(0, &[]).await;
    mesh.begin(1, &[]).await;
    for number in [0, 1] {
        mesh.hop(number).logged("peer connected").await;
        publish(mesh.hop(number), &from(["a", "b"][number], 10)).await;
    }
    mesh.begin(2, &[]).await;
    mesh.hop(2).logged_times("peer connected", 2).await;
    let mut reader = past(mesh.hop(2)).await;
    assert_all(objects(&mut reader, 20).await, &[("a", 10), ("b", 10)]);
    // It goes on, in all directions.
    for (number, name) in ["c", "d", "e"].into_iter().enumerate() {
        publish(mesh.hop(number), &from(name, 1)).await;
    }
    assert_all(
        objects(&mut reader, 3).await,
        &[("c", 1), ("d", 1), ("e", 1)],
    );
    assert_eq!(local(mesh.hop(2)).await, ["e 0"]);
}

#[tokio::test]
async fn members_that_are_killed_under_load_miss_nothing_that_others_hold() {
    const ROUNDS: usize = 4;
    const EACH: usize = 50;
    let mut mesh = Mesh::start(3, &[]).await;
    let mut readers = vec![Ndjson::of(mesh.hop(0)).await, Ndjson::of(mesh.hop(1)).await];
    let names = (0..ROUNDS).flat_map(|round| [format!("a{round}"), format!("b{round}")]);
    let names: Vec<_> = names.collect();
    for round in names.chunks(2) {
        let loads = (from(&round[0], EACH), from(&round[1], EACH));
        let (first, second) = (mesh.hops[0].take(), mesh.hops[1].take());
        let (first, second) = (first.expect("it runs"), second.expect("it runs"));
        tokio::join!(
            publish(&first, &loads.0),
            publish(&second, &loads.1),
            async {
                mesh.kill(2).await;
                mesh.begin(2, &[]).await;
            }
        );
        (mesh.hops[0], mesh.hops[1]) = (Some(first), Some(second));
        mesh.hop(2).logged_times("peer connected", 2).await;
    }
    let senders: Vec<_> = names.iter().map(|name| (&**name, EACH)).collect();
    let total = senders.len() * EACH;
    readers.push(past(mesh.hop(2)).await);
    for reader in &mut readers {
        assert_all(objects(reader, total).await, &senders);
    }
}

#[tokio::test]
async fn a_link_that_was_cut_goes_on_where_it_was() {
    let port = ReservedPort::new();
    let own = port.address().to_string();
    let first = Hop::start(&["--serve-address", &own, "--accept-publish"]).await;
    let wire = Wire::to(port.address());
    let peer = format!("ws://{}/events", wire.address());
    let second = Hop::start(&["--peer", &peer, "--accept-publish"]).await;
    second.logged("peer connected").await;
    let mut reader = Ndjson::of(&second).await;
    publish(&first, &from("one", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("one", 10)]);
    let away = ReservedPort::new();
    wire.cut(away.address());
    second.logged("peer lost").await;
    publish(&first, &from("two", 10)).await;
    wire.cut(port.address());
    assert_all(objects(&mut reader, 10).await, &[("two", 10)]);
}

#[tokio::test]
async fn members_that_consume_the_same_deliver_it_once() {
    let source = Hop::start(&["--accept-publish"]).await;
    let mut mesh = Mesh::planned(3, &["--consume", &source.url]);
    for number in 0..3 {
        mesh.begin(number, &[]).await;
    }
    let mut readers = vec![];
    for hop in mesh.hops.iter().flatten() {
        hop.logged_times("peer connected", 2).await;
        hop.logged("upstream connected").await;
        readers.push(Ndjson::of(hop).await);
    }
    publish(&source, &from("source", 50)).await;
    publish(mesh.hop(0), &from("own", 50)).await;
    for reader in &mut readers {
        let got = objects(reader, 100).await;
        assert_all(got, &[("source", 50), ("own", 50)]);
    }
    // Whichever way it was faster, it has entered at each.
    for number in 0..3 {
        let own = if number == 0 { 50 } else { 0 };
        let got = local(mesh.hop(number)).await;
        assert_all(got, &[("source", 50), ("own", own)]);
    }
}

#[tokio::test]
async fn a_ring_of_peers_delivers_once() {
    let mut mesh = Mesh::planned(3, &[]);
    for number in 0..3 {
        let next = mesh.url((number + 1) % 3);
        mesh.begin(number, &["--consume", &next]).await;
    }
    let mut readers = vec![];
    for hop in mesh.hops.iter().flatten() {
        hop.logged_times("peer connected", 2).await;
        hop.logged("upstream connected").await;
        readers.push(Ndjson::of(hop).await);
    }
    let names = ["a", "b", "c"];
    for (number, name) in names.iter().enumerate() {
        publish(mesh.hop(number), &from(name, 30)).await;
    }
    for reader in &mut readers {
        let got = objects(reader, 90).await;
        assert_all(got, &names.map(|name| (name, 30)));
    }
    publish(mesh.hop(0), &from("last", 1)).await;
    for reader in &mut readers {
        assert_eq!(objects(reader, 1).await, ["last 0"]);
    }
}

#[tokio::test]
async fn streams_of_a_star_have_peers_while_they_are_read() {
    let ports = [ReservedPort::new(), ReservedPort::new()];
    let addresses = ports.each_ref().map(|port| port.address().to_string());
    let mut hops = vec![];
    for (own, other) in [(0, 1), (1, 0)] {
        let peer = format!("ws://{}/live/*", addresses[other]);
        let args = ["--serve-path", "/live/*", "--linger", "200ms"];
        let more = [
            "--serve-address",
            &addresses[own],
            "--accept-publish",
            "--peer",
            &peer,
        ];
        hops.push(Hop::start(&[&args[..], &more].concat()).await);
    }
    let mut readers = vec![];
    for hop in &hops {
        readers.push(Ndjson::at(hop, "/live/x").await);
        hop.logged("peer connected").await;
    }
    publish_at(&hops[0], "/live/x", &from("a", 1)).await;
    publish_at(&hops[1], "/live/x", &from("b", 1)).await;
    for reader in &mut readers {
        assert_all(objects(reader, 2).await, &[("a", 1), ("b", 1)]);
    }
    // Two that read each other only would never end.
    drop(readers);
    for hop in &hops {
        hop.logged("stream closed").await;
        assert_eq!(hop.count("stream opened"), 1);
    }
    let index: Value = hops[0].index().await;
    assert_eq!(index["streams"], json!([]));
}

#[tokio::test]
async fn a_list_of_peers_may_change_while_a_hop_runs() {
    let directory = tempfile::tempdir().expect("a folder");
    let file = directory.path().join("hop.toml");
    let mesh = Mesh::planned(3, &[]);
    let write = |peers: &[usize]| {
        let urls: Vec<_> = peers.iter().map(|&number| mesh.url(number)).collect();
        let text =
            format!("[[route]]\nserve-path = \"events\"\naccept-publish = true\npeer = {urls:?}\n");
        std::fs::write(&file, text).expect("it can be written");
    };
    write(&[1]);
    let own = mesh.ports[0].address().to_string();
    let config = file.to_str().expect("a name");
    let hop = Hop::start(&["--serve-address", &own, "--config", config]).await;
    publish(&hop, &from("before", 5)).await;
    write(&[1, 2]);
    hop.signal(Signal::HUP);
    hop.logged("routes loaded again").await;
    publish(&hop, &from("behind", 5)).await;
    assert_all(local(&hop).await, &[("before", 5), ("behind", 5)]);
}

#[tokio::test]
async fn state_comes_from_all_peers() {
    let mesh = Mesh::start(3, &["--retain", "key", "--history-count", "1"]).await;
    for (number, key) in ["x", "y", "z"].into_iter().enumerate() {
        let mut client = Client::connect(mesh.hop(number).address).await;
        let headers = [
            ("Content-Type", "text/plain"),
            ("ce-id", key),
            ("ce-subject", key),
        ];
        let headers = [
            &headers[..],
            &[
                ("ce-source", "/t"),
                ("ce-type", "t"),
                ("ce-specversion", "1.0"),
            ],
        ];
        let (status, body) = ask(
            &mut client,
            post("/events", &headers.concat(), key.as_bytes()),
        )
        .await;
        assert_eq!(status, 202, "{body}");
    }
    let late = Hop::start(&[
        "--retain",
        "key",
        "--history-count",
        "1",
        "--peer",
        &mesh.url(0),
        "--peer",
        &mesh.url(1),
        "--peer",
        &mesh.url(2),
    ])
    .await;
    late.logged_times("peer connected", 3).await;
    let mut got = vec![];
    let mut reader = Ndjson::at(&late, "/events").await;
    while got.len() < 3 {
        let object = reader.next().await;
        got.extend(object["data"].as_str().map(ToOwned::to_owned));
    }
    got.sort();
    assert_eq!(got, ["x", "y", "z"]);
}

#[test]
fn numbers_are_told_apart() {
    // What the tests above rely on: a repeated one, a missing one, and one out of order are seen.
    for wrong in [
        &["a 0", "a 0"][..],
        &["a 0", "a 2"],
        &["a 1", "a 0"],
        &["a 0"],
    ] {
        let got = wrong
            .iter()
            .map(|&text| text.to_owned())
            .collect::<Vec<_>>();
        let checked = std::panic::catch_unwind(|| assert_all(got, &[("a", 2)]));
        assert!(checked.is_err(), "{wrong:?}");
    }
}
