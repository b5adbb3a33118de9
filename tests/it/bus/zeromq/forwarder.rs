//! `wsevent forwarder`: publishers and subscribers of libzmq and of wsevent on both sides.

use rustix::process::Signal;
use serde_json::json;

use super::{connected, frames, post, send, subscribed, subscribed_to};
use crate::harness::http::Ndjson;
use crate::harness::wsevent::{Hop, Process, command, output};

/// A forwarder, and where publishers and subscribers connect to it.
pub struct Forwarder {
    pub process: Process,
    pub publishers: String,
    pub subscribers: String,
}

impl Forwarder {
    pub async fn start(args: &[&str]) -> Self {
        let own = [
            "forwarder",
            "--in",
            "127.0.0.1:0",
            "--out",
            "zmq+tcp://127.0.0.1:0",
        ];
        let log = ["--log-format", "json"];
        let process = Process::spawn(command(&[&own[..], &log, args].concat()));
        let mut addresses = vec![];
        for side in ["in", "out"] {
            let line = process.logged_where("listening", |line| line.field("side") == side);
            addresses.push(line.await.field("address"));
        }
        let [publishers, subscribers] = addresses.try_into().expect("there are two");
        Self {
            process,
            publishers,
            subscribers,
        }
    }
}

#[tokio::test]
async fn many_publishers_reach_many_subscribers_by_topic() {
    let forwarder = Forwarder::start(&[]).await;
    let mut publishers = vec![];
    let mut subscribers = vec![];
    // Those who come before and after the others of both sides.
    for topics in [&["a", "b"][..], &["a.b"]] {
        let mut publisher = connected("pub", &forwarder.publishers, &[]);
        if !subscribers.is_empty() {
            subscribed_to(&mut publisher, &["a", "b"]).await;
        }
        publishers.push(publisher);
        subscribers.push(connected("sub", &forwarder.subscribers, topics));
        for publisher in &mut publishers {
            subscribed_to(publisher, topics).await;
        }
    }
    for (number, publisher) in publishers.iter_mut().enumerate() {
        for (topic, takers) in [("a", &[0][..]), ("a.b.c", &[0, 1]), ("b", &[0]), ("c", &[])] {
            let message = json!([topic, number.to_string(), {"hex": "ff00"}, ""]);
            send(publisher, message.clone()).await;
            for &taker in takers {
                assert_eq!(frames(&mut subscribers[taker]).await, message);
            }
        }
    }
    // What the last one wanted is asked for no more.
    subscribers[1]
        .tell(&json!({"unsubscribe": "a.b"}).to_string())
        .await;
    for publisher in &mut publishers {
        assert_eq!(
            publisher.says().await,
            json!({"subscribed": false, "topic": "a.b"})
        );
    }
    subscribers.remove(0).ends().await;
    for publisher in &mut publishers {
        let mut topics = vec![publisher.says().await, publisher.says().await];
        topics.sort_by_key(|said| said["topic"].to_string());
        let cancelled = ["a", "b"].map(|topic| json!({"subscribed": false, "topic": topic}));
        assert_eq!(topics, cancelled);
    }
}

#[tokio::test]
async fn hops_are_on_both_sides() {
    let forwarder = Forwarder::start(&[]).await;
    let into = format!("zmq+tcp://{}?topic=news", forwarder.publishers);
    let from = format!("zmq+tcp://{}?topic=news", forwarder.subscribers);
    let consumer = Hop::start(&["--consume", &from]).await;
    consumer.logged("upstream connected").await;
    let mut foreign = connected("sub", &forwarder.subscribers, &["news"]);
    let mut watcher = connected("pub", &forwarder.publishers, &[]);
    subscribed(&mut watcher, "news").await;
    let producer = Hop::start(&["--accept-publish", "--forward", &into]).await;
    producer.logged("downstream connected").await;
    let mut reader = Ndjson::of(&consumer).await;
    post(&producer, "to all").await;
    let event = reader.next().await;
    assert_eq!(
        (&event["key"], &event["data"]),
        (&json!("news"), &json!("to all"))
    );
    // It may have been a moment later than the other.
    send(&mut watcher, json!(["news", "from libzmq"])).await;
    assert_eq!(reader.next().await["data"], "from libzmq");
    while frames(&mut foreign).await != json!(["news", "from libzmq"]) {
        post(&producer, "again").await;
    }
}

#[tokio::test]
async fn many_messages_pass_in_order_without_loss() {
    const COUNT: usize = 100_000;
    let forwarder = Forwarder::start(&[]).await;
    let mut publisher = connected("pub", &forwarder.publishers, &["patient"]);
    let mut subscribers = vec![];
    for number in 0..3 {
        let own = format!("own {number}");
        let mut subscriber = connected("sub", &forwarder.subscribers, &["many", &own, "patient"]);
        match number {
            0 => subscribed_to(&mut publisher, &["many", &own]).await,
            _ => subscribed(&mut publisher, &own).await,
        }
        subscriber.tell(&json!({"count": COUNT}).to_string()).await;
        assert_eq!(subscriber.says().await, json!({"counting": true}));
        subscribers.push(subscriber);
    }
    publisher
        .tell(&json!({"many": COUNT, "topic": "many"}).to_string())
        .await;
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.says().await, json!({"counted": COUNT}));
    }
}

#[tokio::test]
async fn libzmq_with_heartbeats_stays() {
    let forwarder = Forwarder::start(&["--ping-interval", "500ms"]).await;
    let mut publisher = connected("pub", &forwarder.publishers, &["heartbeat"]);
    let mut subscriber = connected("sub", &forwarder.subscribers, &["t", "heartbeat"]);
    subscribed(&mut publisher, "t").await;
    // As long as a third, which does not answer, takes to be given up.
    let _silent = super::hostile::Raw::connect(&forwarder.publishers, "PUB").await;
    let gone = forwarder.process.logged("publisher disconnected").await;
    assert!(gone.field("reason").contains("silent"), "{}", gone.text);
    send(&mut publisher, json!(["t", "still here"])).await;
    assert_eq!(frames(&mut subscriber).await, json!(["t", "still here"]));
    assert_eq!(forwarder.process.count("publisher connected"), 2);
    assert_eq!(forwarder.process.count("subscriber connected"), 1);
}

#[tokio::test]
async fn what_has_come_goes_out_before_it_stops() {
    let mut forwarder = Forwarder::start(&[]).await;
    let mut publisher = connected("pub", &forwarder.publishers, &[]);
    let mut subscriber = connected("sub", &forwarder.subscribers, &["t"]);
    subscribed(&mut publisher, "t").await;
    send(&mut publisher, json!(["t", "last"])).await;
    assert_eq!(frames(&mut subscriber).await, json!(["t", "last"]));
    forwarder.process.signal(Signal::TERM);
    assert_eq!(forwarder.process.exit().await.code(), Some(0));
    assert_eq!(forwarder.process.count("stopped"), 1);
}

#[tokio::test]
async fn what_cannot_be_used_is_said_in_one_line() {
    for (args, code, expected) in [
        (
            &["--in", "localhost"][..],
            2,
            "--in: 'localhost' is not where to listen: HOST:PORT",
        ),
        (
            &["--out", "http://h:1"],
            2,
            "--out: 'http://h:1' is not where to listen",
        ),
        (
            &["--in", "*:5555", "--out", "zmq+tcp://*:5555"],
            2,
            "ports of their own",
        ),
        (
            &["--in", "127.0.0.1:0", "--out", "203.0.113.1:5555"],
            1,
            "cannot listen on 203.0.113.1:5555",
        ),
        (&["--max-message-size", "much"], 2, "much"),
    ] {
        let output = output(&[&["forwarder"], args].concat(), &[]).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{error}");
    }
    // Before the subcommand a hop's flags have no place.
    let output = output(&["--accept-publish", "forwarder"], &[]).await;
    assert_eq!(output.status.code(), Some(2));
}
