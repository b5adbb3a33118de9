//! ZeroMQ: publishers and subscribers of libzmq (pyzmq) around hops and around `wsevent forwarder`.

mod forwarder;
mod hostile;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::http::Ndjson;
use crate::harness::port::ReservedPort;
use crate::harness::wsevent::{Hop, Process};
use crate::peers::{Language, Peer};

/// A socket of libzmq: `pub` or `sub`, `bind` or `connect`, and what else there is to say.
fn socket(args: &[&str]) -> Peer {
    Peer::start(Language::Python, "zeromq", args)
}

/// One that others connect to, and its address as `host:port`.
async fn bound(role: &str, args: &[&str]) -> (Peer, String) {
    let mut peer = socket(&[&[role, "bind", "tcp://127.0.0.1:*"], args].concat());
    let said = peer.says().await;
    let address = said["address"].as_str().expect("an address");
    let address = address.strip_prefix("tcp://").expect("it is TCP");
    (peer, address.to_owned())
}

/// One that connects there.
fn connected(role: &str, address: &str, args: &[&str]) -> Peer {
    let url = format!("tcp://{address}");
    socket(&[&[role, "connect", &url], args].concat())
}

async fn send(publisher: &mut Peer, frames: Value) {
    publisher.tell(&json!({ "send": frames }).to_string()).await;
}

/// Waits until a publisher knows that somebody subscribes.
async fn subscribed(publisher: &mut Peer, topic: &str) {
    let said = publisher.says_of("a subscription").await;
    assert_eq!(said, json!({"subscribed": true, "topic": topic}));
}

/// The same, where it may be told of several in any order.
async fn subscribed_to(publisher: &mut Peer, topics: &[&str]) {
    let mut known = vec![];
    for _ in topics {
        let said = publisher.says_of("a subscription").await;
        assert_eq!(said["subscribed"], true);
        known.push(said["topic"].as_str().expect("text").to_owned());
    }
    known.sort();
    assert_eq!(known, topics);
}

async fn frames(subscriber: &mut Peer) -> Value {
    subscriber.says_of("a message").await["frames"].take()
}

/// Where a process listens for those who connect to it.
async fn listens(process: &Process, peer: &str) -> String {
    let line = process.logged(&format!("listening for a {peer}")).await;
    line.field("address")
}

fn key_and_data(event: &Value) -> Value {
    let data = event.get("data").or_else(|| event.get("data_base64"));
    json!([event["key"], data])
}

/// Publishes at a hop.
async fn post(hop: &Hop, text: &str) {
    let mut client = Client::connect(hop.address).await;
    let length = text.len().to_string();
    let line = "POST /events HTTP/1.1";
    let headers = [("host", "localhost"), ("content-length", &length)];
    let request = crate::harness::client::request(line, &headers);
    client
        .send([request.as_bytes(), text.as_bytes()].concat())
        .await;
    assert_eq!(client.head().await.status, 202);
}

/// What arrives, while something is done again and again: what is published before somebody has subscribed is for nobody.
async fn until<T>(arrives: impl Future<Output = T>, mut again: impl AsyncFnMut()) -> T {
    tokio::select! {
        arrived = arrives => arrived,
        () = async {
            loop {
                again().await;
            }
        } => unreachable!("it has no end"),
    }
}

/// What comes of what a publisher of libzmq sends.
async fn consumes(mut publisher: Peer, hop: Hop) {
    subscribed(&mut publisher, "a").await;
    let mut reader = Ndjson::of(&hop).await;
    for (frames, expected) in [
        (json!(["a whole"]), json!([null, "a whole"])),
        (json!(["a", "payload"]), json!(["a", "payload"])),
        (json!(["a.é", ""]), json!(["a.é", ""])),
        (json!(["a", {"hex": "00ff"}]), json!(["a", "AP8="])),
        (json!(["a", "x", "y"]), json!(["a", "[\"x\",\"y\"]"])),
        (
            json!(["a", "l".repeat(1 << 20)]),
            json!(["a", "l".repeat(1 << 20)]),
        ),
    ] {
        send(&mut publisher, json!(["b", "somebody else's"])).await;
        send(&mut publisher, frames).await;
        assert_eq!(key_and_data(&reader.next().await), expected);
    }
    send(&mut publisher, json!(["a", "l".repeat((1 << 20) + 1)])).await;
    let refused = hop.logged("event not taken").await;
    assert!(refused.field("reason").contains("--max-message-size"));
    send(&mut publisher, json!(["a", "l".repeat(3 << 20)])).await;
    send(&mut publisher, json!(["a", "behind"])).await;
    let gap = reader.next().await;
    assert_eq!(gap["gap"]["lost"], 2);
    assert_eq!(key_and_data(&reader.next().await), json!(["a", "behind"]));
}

#[tokio::test]
async fn a_hop_subscribes_at_a_publisher() {
    let (publisher, address) = bound("pub", &[]).await;
    let url = format!("zmq+tcp://{address}?topic=a");
    let hop = Hop::start(&["--consume", &url]).await;
    consumes(publisher, hop).await;
}

#[tokio::test]
async fn publishers_connect_to_a_hop() {
    let hop = Hop::start(&["--consume", "zmq+tcp://127.0.0.1:0?topic=a&bind"]).await;
    let address = listens(&hop, "publisher").await;
    consumes(connected("pub", &address, &[]), hop).await;
}

#[tokio::test]
async fn a_publisher_may_come_late_and_again_and_a_gap_is_told() {
    let port = ReservedPort::new();
    let url = format!("zmq+tcp://{}", port.address());
    let hop = Hop::start(&["--consume", &url]).await;
    hop.logged("cannot reach upstream, trying again").await;
    let mut reader = Ndjson::of(&hop).await;
    let own = format!("tcp://{}", port.address());
    for text in ["one", "two"] {
        let mut publisher = socket(&["pub", "bind", &own]);
        publisher.says().await;
        subscribed(&mut publisher, "").await;
        send(&mut publisher, json!([text])).await;
        let mut event = reader.next().await;
        if text == "two" {
            assert_eq!(event["gap"]["lost"], json!(null));
            event = reader.next().await;
        }
        assert_eq!(event["data"], text);
        publisher.ends().await;
        hop.logged_times("upstream lost", if text == "one" { 1 } else { 2 })
            .await;
    }
}

/// What a subscriber of libzmq gets of what is published at a hop.
async fn forwards(mut subscriber: Peer, hop: Hop, topic: &str) {
    let early = async || post(&hop, "early").await;
    let first = until(frames(&mut subscriber), early).await;
    let payload = |frames: Value| {
        let mut frames: Vec<Value> = serde_json::from_value(frames).expect("frames");
        let payload = frames.pop().expect("a payload");
        let expected: &[Value] = if topic.is_empty() {
            &[]
        } else {
            &[json!(topic)]
        };
        assert_eq!(frames, expected);
        payload.as_str().expect("text").to_owned()
    };
    let mut last = payload(first);
    post(&hop, "payload\nof two lines").await;
    while last.starts_with("early") {
        last = payload(frames(&mut subscriber).await);
    }
    assert_eq!(last, "payload\nof two lines");
}

#[tokio::test]
async fn a_hop_publishes_to_a_subscriber_it_connects_to() {
    let (subscriber, address) = bound("sub", &["t"]).await;
    let url = format!("zmq+tcp://{address}?topic=topic");
    let hop = Hop::start(&["--accept-publish", "--forward", &url]).await;
    hop.logged("downstream connected").await;
    forwards(subscriber, hop, "topic").await;
}

#[tokio::test]
async fn subscribers_connect_to_a_hop() {
    let hop = Hop::start(&[
        "--accept-publish",
        "--forward",
        "zmq+tcp://127.0.0.1:0?bind",
    ])
    .await;
    let address = listens(&hop, "subscriber").await;
    let subscriber = connected("sub", &address, &[""]);
    forwards(subscriber, hop, "").await;
}

#[tokio::test]
async fn what_a_subscriber_misses_while_it_is_away_is_forwarded_when_it_is_back() {
    let port = ReservedPort::new();
    let url = format!("zmq+tcp://{}?topic=t", port.address());
    let hop = Hop::start(&["--accept-publish", "--forward", &url]).await;
    hop.logged("cannot reach downstream, trying again").await;
    let own = format!("tcp://{}", port.address());
    for round in ["one", "two"] {
        post(&hop, &format!("{round} meanwhile")).await;
        let mut subscriber = socket(&["sub", "bind", &own, "t"]);
        subscriber.says().await;
        assert_eq!(
            frames(&mut subscriber).await,
            json!(["t", format!("{round} meanwhile")])
        );
        post(&hop, round).await;
        assert_eq!(frames(&mut subscriber).await, json!(["t", round]));
        subscriber.ends().await;
        hop.logged_times("downstream lost", if round == "one" { 1 } else { 2 })
            .await;
    }
}

#[tokio::test]
async fn ids_survive_where_the_envelope_is_wanted() {
    let first = Hop::start(&[
        "--accept-publish",
        "--bus-envelope",
        "always",
        "--forward",
        "zmq+tcp://127.0.0.1:0?topic=t&bind",
    ])
    .await;
    let address = listens(&first, "subscriber").await;
    let url = format!("zmq+tcp://{address}?topic=t");
    let second = Hop::start(&["--consume", &url]).await;
    let mut reader = Ndjson::of(&second).await;
    let mut mirror = Ndjson::of(&first).await;
    let event = until(reader.next(), async || post(&first, "same").await).await;
    assert_eq!(event["data"], "same");
    let mut own = mirror.next().await;
    while own["id"] != event["id"] {
        own = mirror.next().await;
    }
    assert_eq!(own, event);
}

#[tokio::test]
async fn many_events_pass_in_order_without_loss() {
    const COUNT: usize = 100_000;
    let hop = Hop::start(&[
        "--consume",
        "zmq+tcp://127.0.0.1:0?bind",
        "--forward",
        "zmq+tcp://127.0.0.1:0?topic=t&bind",
    ])
    .await;
    let into = listens(&hop, "publisher").await;
    let from = listens(&hop, "subscriber").await;
    let mut subscriber = connected("sub", &from, &["t", "patient"]);
    let mut publisher = connected("pub", &into, &["patient"]);
    subscribed(&mut publisher, "").await;
    // The way out is there when something has come out.
    let again = async || send(&mut publisher, json!(["k", "again"])).await;
    until(frames(&mut subscriber), again).await;
    send(&mut publisher, json!(["k", "last"])).await;
    while frames(&mut subscriber).await != json!(["t", "last"]) {}
    subscriber.tell(&json!({"count": COUNT}).to_string()).await;
    assert_eq!(subscriber.says().await, json!({"counting": true}));
    publisher
        .tell(&json!({"many": COUNT, "topic": "k"}).to_string())
        .await;
    assert_eq!(subscriber.says().await, json!({"counted": COUNT}));
}

#[tokio::test]
async fn where_to_listen_is_one_place_for_one_stream() {
    let output = crate::harness::wsevent::output(
        &[
            "--serve-path",
            "/live/*",
            "--consume",
            "zmq+tcp://*:5555?topic=*&bind",
        ],
        &[],
    )
    .await;
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("--consume with &bind is for one stream"),
        "{error}"
    );
    let hop = Hop::start(&["--consume", "zmq+tcp://*:5555"]).await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert!(lost.field("reason").contains("add &bind"), "{}", lost.text);
}
