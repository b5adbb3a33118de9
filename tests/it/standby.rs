//! Upstreams that are read only while no other is there.

use serde_json::json;

use crate::harness::http::Ndjson;
use crate::harness::port::ReservedPort;
use crate::harness::wire::Wire;
use crate::harness::wsevent::Hop;
use crate::mesh::{assert_all, from, objects, publish};

const TAKING_OVER: &str = "taking over: no other upstream is there";
const GIVING_BACK: &str = "giving back: an upstream is there again";

fn url(wire: &Wire) -> String {
    format!("ws://{}/events", wire.address())
}

/// Where events begin, and two relays that have all of them.
async fn siblings() -> (Hop, Hop, Hop) {
    let origin = Hop::start(&["--accept-publish"]).await;
    let first = Hop::consuming(&origin.url).await;
    let second = Hop::consuming(&origin.url).await;
    (origin, first, second)
}

#[tokio::test]
async fn a_standby_takes_over_and_gives_back_and_nothing_is_missed() {
    let (origin, first, second) = siblings().await;
    let (wire, away) = (Wire::to(first.address), ReservedPort::new());
    let used = url(&wire);
    let hop = Hop::start(&["--consume", &used, "--consume-standby", &second.url]).await;
    hop.logged("upstream connected").await;
    let mut reader = Ndjson::of(&hop).await;
    publish(&origin, &from("one", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("one", 10)]);
    let upstreams = async || hop.upstreams().await;
    let entry = |connected, standby| {
        json!([
            {"url": used, "connected": connected},
            {"url": second.url, "connected": standby, "standby": true},
        ])
    };
    assert_eq!(upstreams().await, entry(true, false));
    for round in 1..=2 {
        wire.cut(away.address());
        hop.logged_times("upstream lost", round).await;
        publish(&origin, &from("two", 10)).await;
        hop.logged_times(TAKING_OVER, round).await;
        assert_all(objects(&mut reader, 10).await, &[("two", 10)]);
        assert_eq!(upstreams().await, entry(false, true));
        publish(&origin, &from("three", 10)).await;
        wire.cut(first.address);
        hop.logged_times(GIVING_BACK, round).await;
        publish(&origin, &from("four", 10)).await;
        assert_all(
            objects(&mut reader, 20).await,
            &[("three", 10), ("four", 10)],
        );
    }
}

#[tokio::test]
async fn the_first_standby_that_can_be_reached_is_used_from_the_start() {
    let (origin, first, second) = siblings().await;
    let away = ReservedPort::new();
    let nobody = format!("ws://{}/events", away.address());
    let wire = Wire::to(first.address);
    let hop = Hop::start(&[
        "--consume",
        &nobody,
        "--consume-standby",
        &nobody,
        "--consume-standby",
        &url(&wire),
        "--consume-standby",
        &second.url,
    ])
    .await;
    hop.logged_times(TAKING_OVER, 2).await;
    hop.logged_where("upstream connected", |line| line.field("url") == url(&wire))
        .await;
    let mut reader = Ndjson::of(&hop).await;
    publish(&origin, &from("one", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("one", 10)]);
    assert_eq!(hop.count("upstream connected"), 1);
    wire.cut(away.address());
    hop.logged_where("upstream connected", |line| line.field("url") == second.url)
        .await;
    publish(&origin, &from("two", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("two", 10)]);
    assert_eq!(hop.count(GIVING_BACK), 0);
}

#[tokio::test]
async fn a_standby_stands_by_for_peers_as_well() {
    let (origin, first, second) = siblings().await;
    let (wire, away) = (Wire::to(first.address), ReservedPort::new());
    let hop = Hop::start(&["--peer", &url(&wire), "--consume-standby", &second.url]).await;
    hop.logged("peer connected").await;
    let mut reader = Ndjson::of(&hop).await;
    wire.cut(away.address());
    hop.logged(TAKING_OVER).await;
    publish(&origin, &from("one", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("one", 10)]);
    wire.cut(first.address);
    hop.logged(GIVING_BACK).await;
    publish(&origin, &from("two", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("two", 10)]);
}

#[tokio::test]
async fn a_standby_needs_something_to_stand_by_for() {
    let args = ["--consume-standby", "ws://localhost:1/events"];
    let refused = crate::harness::wsevent::output(&args, &[]).await;
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).expect("text");
    assert!(said.contains("add --consume URL"), "{said}");
}
