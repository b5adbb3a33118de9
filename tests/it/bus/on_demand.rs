//! Streams that come and go, each with a place of its own on a bus; and whether a hop is ready that has one.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::client::{Client, request};
use crate::harness::http::Ndjson;
use crate::harness::nats::Nats;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

async fn post(hop: &Hop, path: &str, text: &str) -> (u16, String) {
    let mut client = Client::connect(hop.address).await;
    let length = text.len().to_string();
    let headers = [("Host", "localhost"), ("Content-Length", &length)];
    let line = format!("POST {path} HTTP/1.1");
    client.send(request(&line, &headers) + text).await;
    let head = client.head().await;
    (head.status, client.body(&head).await)
}

#[tokio::test]
async fn each_stream_has_a_subject_of_its_own() {
    let nats = Nats::start(&[]).await;
    let mut foreign = nats.client().await;
    foreign.subscribe("live.>").await;
    let bus = nats.url("live.*");
    let args = ["--serve-path", "/live/*", "--accept-publish", "--bus", &bus];
    let (here, there) = tokio::join!(Hop::start(&args), Hop::start(&args));
    let mut one = Ndjson::at(&there, "/live/one").await;
    let mut two = Ndjson::at(&there, "/live/t.w/o").await;
    for subject in ["live.one", "live.t%2Ew.o"] {
        let url = nats.url(subject);
        let of_stream = |line: &crate::harness::log::Line| line.field("url") == url;
        there
            .process
            .logged_where("upstream connected", of_stream)
            .await;
    }
    // The stream is made by whoever publishes first, who waits for its connection.
    for (path, text) in [("/live/one", "for one"), ("/live/t.w/o", "for two")] {
        let (status, body) = post(&here, path, text).await;
        assert_eq!(status, 202, "{body}");
    }
    assert_eq!(one.next().await["data"], "for one");
    assert_eq!(two.next().await["data"], "for two");
    for (subject, text) in [("live.one", "for one"), ("live.t%2Ew.o", "for two")] {
        let message = foreign.message().await;
        assert_eq!(
            (&message["subject"], &message["payload"]),
            (&json!(subject), &json!(text))
        );
    }
    foreign.publish("live.one", &["from elsewhere"]).await;
    assert_eq!(one.next().await["data"], "from elsewhere");
}

/// Asks until a hop is as ready as this.
async fn ready_is(admin: SocketAddr, status: u16) -> String {
    let asking = async {
        loop {
            let (head, body) = Client::connect(admin).await.get("/-/ready", &[]).await;
            if head.status == status {
                return body;
            }
            tokio::task::yield_now().await;
        }
    };
    within_guard("readiness", asking).await
}

#[tokio::test]
async fn a_hop_is_ready_while_its_bus_is_there() {
    let mut nats = Nats::away(&[]);
    let bus = nats.url("events");
    let args = [
        "--bus",
        &bus,
        "--accept-publish",
        "--admin-address",
        "127.0.0.1:0",
    ];
    let hop = Hop::start(&args).await;
    let line = hop.process.logged("listening for administration").await;
    let admin = line.field("address").parse().expect("an address");
    let text = ready_is(admin, 503).await;
    assert!(text.contains(&bus), "{text}");
    let (status, body) = post(&hop, "/events", "too early").await;
    assert_eq!(status, 503, "{body}");
    nats.restart().await;
    assert_eq!(ready_is(admin, 200).await, "ready\n");
    assert_eq!(post(&hop, "/events", "in time").await.0, 202);
    nats.kill().await;
    ready_is(admin, 503).await;
    nats.restart().await;
    ready_is(admin, 200).await;
    assert_eq!(post(&hop, "/events", "again").await.0, 202);
}
