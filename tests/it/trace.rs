//! The way that an event has come, and `wsevent trace`.

use rustix::process::Signal;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, output};
use crate::mesh::Mesh;
use crate::topology::{Told, consuming, id};

/// Publishes one event; its id.
async fn publish(hop: &Hop, text: &str) -> String {
    let url = format!("http://{}/events", hop.address);
    let output = output(&["publish", &url, text], &[]).await;
    assert_eq!(output.status.code(), Some(0));
    let id = String::from_utf8(output.stdout).expect("text");
    id.trim().to_owned()
}

/// What a trace prints, which goes well.
async fn traced(url: &str, args: &[&str]) -> String {
    let output = output(&[&["trace", url], args].concat(), &[]).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// The legs of the way of an event.
async fn legs(url: &str, args: &[&str]) -> Vec<Value> {
    let printed = traced(url, &[&["--json"], args].concat()).await;
    let way: Value = serde_json::from_str(&printed).expect("one JSON object");
    way["legs"].as_array().expect("legs").clone()
}

/// Why it cannot be traced.
async fn failed(args: &[&str]) -> String {
    let output = output(&[&["trace"], args].concat(), &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.trim_end().to_owned()
}

#[tokio::test]
async fn an_event_is_traced_to_where_it_began() {
    let a = Hop::start(&["--accept-publish"]).await;
    let b = Hop::consuming(&a.url).await;
    let c = Hop::consuming(&format!("http://{}/events", b.address)).await;
    let mut subscriber = c.subscribe().await;
    let event = publish(&a, "x").await;
    subscriber.message().await;
    let legs = legs(&c.url, &["--event", &event]).await;
    let told: Vec<_> = legs
        .iter()
        .map(|leg| leg["instance"].as_str().expect("an id"))
        .collect();
    assert_eq!(told, [id(&c).await, id(&b).await, id(&a).await]);
    let field = |name: &str| -> Vec<_> { legs.iter().map(|leg| leg[name].clone()).collect() };
    assert_eq!(
        field("transport"),
        ["sse".into(), "hop".into(), Value::Null]
    );
    assert_eq!(field("end"), [Value::Null, Value::Null, "origin".into()]);
    assert!(field("arrived").iter().all(Value::is_u64), "{legs:?}");
    // The same machine has the same clock, as far as can be measured.
    for leg in &legs[1..] {
        let (offset, wrong) = (leg["offset"].as_i64(), leg["uncertainty"].as_u64());
        assert!(
            offset.expect("an offset").unsigned_abs() <= wrong.expect("a bound") + 1,
            "{leg}"
        );
    }
    let table = traced(&c.url, &["--event", &event]).await;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with(&event));
    for (line, hop) in lines[1..].iter().zip([&a, &b, &c]) {
        assert!(line.contains(&format!("{}/events", hop.address)), "{table}");
    }
    assert!(
        lines[1].ends_with("began here") && lines[4].contains("over 2 links"),
        "{table}"
    );
}

#[tokio::test]
async fn the_next_events_and_the_last_are_found() {
    let a = Hop::start(&["--produce-rate", "50"]).await;
    let b = Hop::consuming(&a.url).await;
    let printed = traced(&b.url, &["--count", "3", "--json"]).await;
    let ways: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect();
    assert_eq!(ways.len(), 3);
    let mut events: Vec<_> = ways.iter().map(|way| way["event"].to_string()).collect();
    events.dedup();
    assert_eq!(events.len(), 3, "{events:?}");
    for way in &ways {
        assert_eq!(way["legs"][1]["end"], "origin", "{way}");
    }
    // On a stream where nothing comes any more.
    let quiet = Hop::start(&["--accept-publish"]).await;
    let event = publish(&quiet, "x").await;
    let last = traced(&quiet.url, &["--history"]).await;
    assert!(last.starts_with(&event), "{last}");
}

#[tokio::test]
async fn of_several_ways_it_is_the_one_that_was_first() {
    let (a, b) = (
        Hop::start(&["--accept-publish"]).await,
        Hop::start(&["--accept-publish"]).await,
    );
    let c = consuming(&[&a.url, &b.url], &[]).await;
    let mut subscriber = c.subscribe().await;
    for hop in [&b, &a] {
        let event = publish(hop, "x").await;
        subscriber.message().await;
        let legs = legs(&c.url, &["--event", &event]).await;
        assert_eq!(legs[1]["instance"], id(hop).await);
    }
}

#[tokio::test]
async fn what_came_over_a_peer_is_traced_there() {
    let mesh = Mesh::start(3, &[]).await;
    for (from, to) in [(0, 1), (2, 0)] {
        let mut subscriber = mesh.hop(to).subscribe().await;
        let event = publish(mesh.hop(from), "x").await;
        subscriber.message().await;
        let legs = legs(&mesh.url(to), &["--event", &event]).await;
        assert_eq!(legs.len(), 2, "{legs:?}");
        assert_eq!(legs[1]["instance"], id(mesh.hop(from)).await);
        assert_eq!(legs[1]["end"], "origin");
        assert_eq!(legs[0]["from"], mesh.url(from));
    }
}

#[tokio::test]
async fn what_came_from_others_ends_there() {
    let (upstream, mut link, hop) = Hop::connected(&[], &[]).await;
    let down = Hop::consuming(&hop.url).await;
    let mut subscriber = down.subscribe().await;
    link.send(Message::text("x")).await;
    subscriber.message().await;
    let legs = legs(&down.url, &["--history"]).await;
    assert_eq!(legs.len(), 2);
    assert_eq!(legs[1]["end"], "foreign");
    assert_eq!(legs[1]["from"], upstream.url());
    let table = traced(&down.url, &["--history"]).await;
    assert!(table.contains("which is no wsevent"), "{table}");
}

#[tokio::test]
async fn a_way_that_is_not_known_to_its_end_says_why() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let serve = ["--serve-address", &*address, "--accept-publish"];
    let mut a = Hop::start(&serve).await;
    let b = consuming(&[&a.url], &[]).await;
    let mut subscriber = b.subscribe().await;
    let event = publish(&a, "x").await;
    subscriber.message().await;
    a.signal(Signal::KILL);
    a.exit().await;
    b.logged("upstream lost").await;
    let down = legs(&b.url, &["--event", &event]).await;
    assert_eq!((down.len(), &down[0]["end"]), (1, &"away".into()));
    let reason = down[0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("the link is down: "), "{reason}");
    // One that has started again knows nothing of it.
    let _a = Hop::start(&serve).await;
    b.logged_times("upstream connected", 2).await;
    let again = legs(&b.url, &["--event", &event]).await;
    assert_eq!((again.len(), &again[1]["end"]), (2, &"unknown".into()));
    let unknown = failed(&[&b.url, "--event", "0000000000001-1"]).await;
    assert!(
        unknown.ends_with("the event 0000000000001-1 is not held there, or not any more"),
        "{unknown}"
    );
}

#[tokio::test]
async fn what_was_there_before_has_no_time() {
    let a = Hop::start(&["--accept-publish"]).await;
    let event = publish(&a, "x").await;
    let b = Hop::consuming(&a.url).await;
    let legs = legs(&b.url, &["--event", &event]).await;
    assert_eq!(legs[0]["arrived"], Value::Null);
    assert_eq!(legs[1]["end"], "origin");
    let table = traced(&b.url, &["--event", &event]).await;
    assert!(table.contains("came with the stream's past"), "{table}");
}

#[tokio::test]
async fn what_cannot_be_traced_is_said_in_one_line() {
    let away = Upstream::away();
    let refused = failed(&[&away.url()]).await;
    assert!(refused.ends_with("connection refused"), "{refused}");
    let hop = Hop::start(&["--accept-publish"]).await;
    let none = failed(&[&format!("http://{}/none", hop.address)]).await;
    assert!(none.contains("404"), "{none}");
    let wrong = output(&["trace", &hop.url, "--event", "x"], &[]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn who_is_not_meant_asks_nobody() {
    let a = Hop::start(&["--accept-publish"]).await;
    let b = Hop::consuming(&a.url).await;
    let mut subscriber = b.subscribe().await;
    let event = publish(&a, "x").await;
    subscriber.message().await;
    let index = b.index().await;
    let own = index["streams"][0]["origin"].as_str().expect("an origin");
    for (at, count) in [(own, 2), ("0000000000001", 1)] {
        let target = format!("/?trace={event}&of=/events&at={at}");
        let told = Told::by(b.address, &target, &[]).await;
        let legs = told.0["legs"].as_array().expect("legs");
        assert_eq!(legs.len(), count, "{}", told.0);
        assert_eq!(legs[0]["origin"], own);
    }
}
