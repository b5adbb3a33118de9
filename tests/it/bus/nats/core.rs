//! Subjects.

use rustix::process::Signal;
use serde_json::json;

use super::{hop, lines, post, publish, replica, text};
use crate::harness::client::Client;
use crate::harness::http::Ndjson;
use crate::harness::nats::Nats;
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn what_others_publish_becomes_events_as_it_is() {
    let nats = Nats::start(&[]).await;
    let hop = hop(&["--consume", &nats.url("sensors.>")]).await;
    let mut reader = Ndjson::of(&hop).await;
    let mut foreign = nats.client().await;
    foreign.publish("sensors.a", &["plain", "é\n✓", ""]).await;
    foreign.publish("other", &["not this"]).await;
    foreign.publish("sensors.b.c", &["last"]).await;
    for expected in ["plain", "é\n✓", "", "last"] {
        assert_eq!(text(&reader.next().await, "data"), expected);
    }
}

#[tokio::test]
async fn what_is_forwarded_has_a_bare_payload_and_its_envelope_beside() {
    let nats = Nats::start(&[]).await;
    let mut foreign = nats.client().await;
    foreign.subscribe("out.*").await;
    let hop = hop(&["--accept-publish", "--forward", &nats.url("out.x")]).await;
    let mut client = Client::connect(hop.address).await;
    let ids = publish(&mut client, &lines("event", 0..2)).await;
    for (number, id) in ids.iter().enumerate() {
        let message = foreign.message().await;
        assert_eq!(message["subject"], "out.x");
        assert_eq!(message["payload"], format!("event {number}"));
        let line = text(&message["headers"], "Wsevent");
        assert!(line.starts_with(&format!("{id} t=")), "{line}");
    }
}

#[tokio::test]
async fn without_an_envelope_there_is_nothing_beside_the_payload() {
    let nats = Nats::start(&[]).await;
    let mut foreign = nats.client().await;
    foreign.subscribe("out").await;
    let bus = nats.url("out");
    let args = [
        "--accept-publish",
        "--bus-envelope",
        "never",
        "--forward",
        &bus,
    ];
    let hop = hop(&args).await;
    let mut client = Client::connect(hop.address).await;
    publish(&mut client, &lines("event", 0..1)).await;
    let expected = json!({"subject": "out", "headers": {}, "payload": "event 0"});
    assert_eq!(foreign.message().await, expected);
}

#[tokio::test]
async fn ids_survive_the_way_from_hop_to_hop() {
    let nats = Nats::start(&[]).await;
    let second = hop(&["--consume", &nats.url("events")]).await;
    let mut reader = Ndjson::of(&second).await;
    let first = hop(&["--accept-publish", "--forward", &nats.url("events")]).await;
    let mut client = Client::connect(first.address).await;
    let ids = publish(&mut client, &lines("event", 0..3)).await;
    for id in ids {
        assert_eq!(reader.next().await["id"], id);
    }
}

#[tokio::test]
async fn what_the_server_does_not_take_is_refused_and_the_rest_goes_on() {
    let config = "max_payload: 1024";
    let nats = Nats::configured(config).await;
    let replica = replica(&nats.url("events")).await;
    let mut client = Client::connect(replica.address).await;
    let (head, body) = post(&mut client, &["x".repeat(2_000)]).await;
    assert!((400..500).contains(&head.status), "{head:?} {body}");
    assert!(body.contains("max_payload"), "{body}");
    let mut reader = Ndjson::of(&replica).await;
    let ids = publish(&mut client, &lines("small", 0..1)).await;
    assert_eq!(reader.next().await["id"], ids[0]);
}

#[tokio::test]
async fn a_server_that_is_away_at_start_is_waited_for() {
    let mut nats = Nats::away(&[]);
    let bus = nats.url("events");
    let hop = Hop::start(&["--bus", &bus, "--accept-publish"]).await;
    let mut client = Client::connect(hop.address).await;
    let (head, body) = post(&mut client, &lines("early", 0..1)).await;
    assert_eq!(head.status, 503, "{body}");
    assert!(!head.header("retry-after").is_empty(), "{head:?}");
    nats.restart().await;
    hop.logged("downstream connected").await;
    hop.logged("upstream connected").await;
    let mut reader = Ndjson::of(&hop).await;
    let ids = publish(&mut client, &lines("late", 0..1)).await;
    assert_eq!(reader.next().await["id"], ids[0]);
}

#[tokio::test]
async fn what_may_have_been_missed_is_told() {
    let mut nats = Nats::start(&[]).await;
    let hop = hop(&["--consume", &nats.url("events")]).await;
    let mut reader = Ndjson::of(&hop).await;
    let mut foreign = nats.client().await;
    foreign.publish("events", &["before"]).await;
    assert_eq!(text(&reader.next().await, "data"), "before");
    nats.kill().await;
    hop.logged("upstream lost").await;
    nats.restart().await;
    hop.logged_times("upstream connected", 2).await;
    let mut foreign = nats.client().await;
    foreign.publish("events", &["after"]).await;
    let gap = reader.next().await;
    assert!(gap["gap"].is_object(), "{gap}");
    assert_eq!(text(&reader.next().await, "data"), "after");
}

#[tokio::test]
async fn a_server_that_stands_still_holds_up_and_loses_nothing() {
    let nats = Nats::start(&[]).await;
    let replica = replica(&nats.url("events")).await;
    let mut reader = Ndjson::of(&replica).await;
    let mut client = Client::connect(replica.address).await;
    nats.signal(Signal::STOP);
    let before = lines("held up", 0..500);
    let posting = publish(&mut client, &before);
    let mut posting = std::pin::pin!(posting);
    // It does not answer while the server does not.
    let mut other = Client::connect(replica.address).await;
    tokio::select! {
        biased;
        _ = &mut posting => panic!("who has confirmed that?"),
        _ = other.get("/", &[]) => {}
    }
    nats.signal(Signal::CONT);
    let ids = posting.await;
    for id in ids {
        assert_eq!(reader.next().await["id"], id);
    }
}
