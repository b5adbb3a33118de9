//! Two replicas around a server: what is published at either comes to the subscribers of both, once, and in one order as far as the server
//! has one.

use std::collections::HashMap;

use super::{lines, publish, replica, text};
use crate::harness::client::Client;
use crate::harness::http::Ndjson;
use crate::harness::wsevent::Hop;

/// Events that each of four publishers sends, and how many of these in one request.
const EACH: usize = 25_000;
const AT_ONCE: usize = 500;

async fn meet(bus: &str, has_one_order: bool) {
    let hops = [replica(bus).await, replica(bus).await];
    let readers: Vec<_> = [Ndjson::of(&hops[0]).await, Ndjson::of(&hops[1]).await]
        .into_iter()
        .map(|mut reader| {
            tokio::spawn(async move {
                let mut got = Vec::with_capacity(4 * EACH);
                while got.len() < 4 * EACH {
                    let event = reader.next().await;
                    assert!(event["gap"].is_null(), "{event}");
                    got.push((
                        text(&event, "id").to_owned(),
                        text(&event, "data").to_owned(),
                    ));
                }
                got
            })
        })
        .collect();
    let publishers: Vec<_> = (0..4)
        .map(|number| {
            let address = {
                let hop: &Hop = &hops[number % 2];
                hop.address
            };
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let mut sent = Vec::new();
                for from in (0..EACH).step_by(AT_ONCE) {
                    let lines = lines(&format!("publisher {number}:"), from..from + AT_ONCE);
                    let ids = publish(&mut client, &lines).await;
                    sent.extend(ids.into_iter().zip(lines));
                }
                sent
            })
        })
        .collect();
    let mut sent = Vec::new();
    for publisher in publishers {
        sent.push(publisher.await.expect("it has published"));
    }
    let mut got = Vec::new();
    for reader in readers {
        got.push(reader.await.expect("it has read"));
    }
    if has_one_order {
        assert!(got[0] == got[1], "both in the same order");
    }
    for got in got {
        let places: HashMap<_, _> = got.iter().zip(0..).collect();
        assert_eq!(places.len(), 4 * EACH, "each once");
        for sent in &sent {
            let places: Vec<_> = sent.iter().map(|event| places[event]).collect();
            assert!(places.is_sorted(), "each publisher's in its order");
        }
    }
}

#[tokio::test]
async fn on_a_subject() {
    let nats = crate::harness::nats::Nats::start(&[]).await;
    // Each subscriber gets what two publishers send at the same time in an order of its own.
    meet(&nats.url("events"), false).await;
}

#[tokio::test]
async fn on_a_stream() {
    let nats = super::with_stream().await;
    meet(&nats.stream("EVENTS"), true).await;
}
