//! NATS and JetStream: a real server, nats-py beside us, and what happens when the server goes.

mod core;
mod deep;
mod durable;
mod login;
mod replicas;

use serde_json::Value;

use crate::harness::client::{Client, request};
use crate::harness::nats::Nats;
use crate::harness::wsevent::Hop;

/// A hop that has been connected to a bus, both ways if it goes both.
async fn hop(args: &[&str]) -> Hop {
    let hop = Hop::start(args).await;
    let flags = |flag: &str| args.iter().filter(|arg| **arg == flag).count();
    let upstreams = flags("--consume") + flags("--bus");
    let downstreams = flags("--forward") + flags("--bus").min(flags("--accept-publish"));
    if upstreams > 0 {
        hop.logged_times("upstream connected", upstreams).await;
    }
    if downstreams > 0 {
        hop.logged_times("downstream connected", downstreams).await;
    }
    hop
}

/// A replica around a bus.
async fn replica(bus: &str) -> Hop {
    hop(&["--bus", bus, "--accept-publish"]).await
}

/// Publishes lines as one request: status, headers and body of the answer.
async fn post(client: &mut Client, lines: &[String]) -> (crate::harness::client::Head, String) {
    let objects = lines.iter().map(|line| {
        let object = serde_json::json!({"data": line});
        format!("{object}\n")
    });
    let body = objects.collect::<String>();
    let length = body.len().to_string();
    let headers = [
        ("Host", "localhost"),
        ("Content-Type", "application/x-ndjson"),
        ("Content-Length", &length),
    ];
    let head = request("POST /events HTTP/1.1", &headers);
    client.send([head, body].concat()).await;
    let head = client.head().await;
    let body = client.body(&head).await;
    (head, body)
}

/// Publishes lines that must be taken: their ids.
async fn publish(client: &mut Client, lines: &[String]) -> Vec<String> {
    let (head, body) = post(client, lines).await;
    assert_eq!(head.status, 202, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("it is JSON");
    let ids = answer["ids"].as_array().expect("it has ids");
    let text = |id: &Value| id.as_str().expect("an id is text").to_owned();
    ids.iter().map(text).collect()
}

/// Texts with numbers.
fn lines(name: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{name} {number}")).collect()
}

/// A field of an object, as text.
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {object}"))
}

/// A server with a stream that has one subject.
async fn with_stream() -> Nats {
    let nats = Nats::jetstream().await;
    let mut foreign = nats.client().await;
    foreign.add_stream("EVENTS", &["events"]).await;
    nats
}
