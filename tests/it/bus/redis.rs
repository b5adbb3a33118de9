//! Redis: Pub/Sub and streams.

mod access;
mod channel;
mod failures;
mod replicas;
mod slow;
mod stream;

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::client::{Client, Head, request};
use crate::harness::http::Ndjson;
use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer};

/// A Redis client in Python, once it is connected.
async fn peer(url: &str, role: &str, name: &str) -> Peer {
    let mut peer = Peer::start(Language::Python, "redis_peer", &[url, role, name]);
    assert_eq!(peer.says().await, json!({"ready": true}));
    peer
}

/// A hop that consumes a stream, once it has read what that has kept.
async fn with_past(url: &str) -> Hop {
    let hop = Hop::consuming(url).await;
    // Who wants to go on behind an event that nobody knows waits until the past is known.
    Ndjson::at(&hop, "/events?last_event_id=0000000000001-1").await;
    hop
}

/// Publishes by one POST.
struct Poster(Client);

impl Poster {
    async fn of(hop: &Hop) -> Self {
        Self(Client::connect(hop.address).await)
    }

    /// Status and body of the answer.
    async fn post(&mut self, content: &str, body: &str) -> (Head, String) {
        let length = body.len().to_string();
        let headers = [
            ("Host", "localhost"),
            ("Content-Type", content),
            ("Content-Length", &length),
        ];
        self.0
            .send(request("POST /events HTTP/1.1", &headers) + body)
            .await;
        let head = self.0.head().await;
        let body = self.0.body(&head).await;
        (head, body)
    }

    /// Publishes texts in one request.
    async fn lines(&mut self, texts: &[String]) -> (Head, String) {
        let lines = texts
            .iter()
            .map(|text| format!("{}\n", json!({"data": text})));
        let body = lines.collect::<String>();
        self.post("application/x-ndjson", &body).await
    }

    /// Publishes one text, which must be taken. Its id.
    async fn text(&mut self, text: &str) -> String {
        let (head, body) = self.post("text/plain", text).await;
        assert_eq!(head.status / 100, 2, "{body}");
        ids(&body).remove(0)
    }
}

/// The ids in the answer to several events.
fn ids(body: &str) -> Vec<String> {
    let answer: Value = serde_json::from_str(body).expect("it is JSON");
    let ids = answer["ids"].as_array().expect("it has ids");
    let text = |id: &Value| id.as_str().expect("an id is text").to_owned();
    ids.iter().map(text).collect()
}

/// An event as NDJSON has it: id and text.
type Told = (String, String);

async fn next(reader: &mut Ndjson) -> Told {
    let line = reader.next().await;
    let text = |name: &str| {
        let member = line[name].as_str();
        member
            .unwrap_or_else(|| panic!("no {name} in {line}"))
            .to_owned()
    };
    (text("id"), text("data"))
}

/// So many events, which must come without a gap.
async fn told(reader: &mut Ndjson, count: usize) -> Vec<Told> {
    let mut told = Vec::with_capacity(count);
    while told.len() < count {
        told.push(next(reader).await);
    }
    told
}

/// How many events are missing before the next one, which a gap notice must tell now.
async fn missing(reader: &mut Ndjson) -> Option<u64> {
    let line = reader.next().await;
    let gap = line["gap"].as_object();
    let gap = gap.unwrap_or_else(|| panic!("no gap: {line}"));
    gap["lost"].as_u64()
}

fn texts(told: &[Told]) -> Vec<&str> {
    told.iter().map(|(_, text)| &**text).collect()
}

/// Fails if something is there twice.
#[track_caller]
fn assert_once<'a>(texts: impl IntoIterator<Item = &'a str>) {
    let mut seen = HashMap::new();
    for (at, text) in texts.into_iter().enumerate() {
        let before = seen.insert(text, at);
        assert_eq!(before, None, "{text} is there twice, again at {at}");
    }
}
