//! What goes over beside events and subscribers.

use std::net::SocketAddr;

use super::{Place, publish, text};
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, request};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

/// Publishes one event with a key.
async fn keep(hop: &Hop, key: &str, data: &str) {
    let length = data.len().to_string();
    let headers = [("Host", "localhost"), ("Content-Length", &length)];
    let head = request(&format!("POST /events?key={key} HTTP/1.1"), &headers);
    let mut client = Client::connect(hop.address).await;
    client.send([head, data.to_owned()].concat()).await;
    assert_eq!(client.head().await.status, 202);
}

/// The state of the stream: keys and payloads.
async fn state(hop: &Hop) -> Vec<(String, String)> {
    let accept = [("Accept", "application/x-ndjson")];
    let mut stream = Stream::open(hop.address, "/events", &accept).await;
    let mut state = Vec::new();
    loop {
        let object = stream.object().await;
        match (object["snapshot"]["state"].as_str(), object["key"].as_str()) {
            (Some("end"), _) => return state,
            (Some(_), _) => {}
            (None, key) => state.push((
                key.expect("it has one").to_owned(),
                object["data"].as_str().expect("text").to_owned(),
            )),
        }
    }
}

#[tokio::test]
async fn kept_state_goes_over_and_goes_on() {
    let place = Place::new();
    let args = [
        "--accept-publish",
        "--retain",
        "key",
        "--history-count",
        "1",
    ];
    let mut old = place.first(&args).await;
    // What has been deleted stays so, and what is not in the history any more is kept.
    for (key, data) in [("a", "1"), ("b", "2"), ("c", "3"), ("b", ""), ("a", "4")] {
        keep(&old, key, data).await;
    }
    let mut subscriber = old.subscribe().await;
    let before = state(&old).await;
    let pair = |key: &str, data: &str| (key.to_owned(), data.to_owned());
    assert_eq!(before, [pair("c", "3"), pair("a", "4")]);
    while text(&subscriber.message().await) != "4" {}
    let new = place.next(&old, &args).await;
    old.stops_well().await;
    assert_eq!(state(&new).await, before);
    keep(&new, "c", "5").await;
    assert_eq!(text(&subscriber.message().await), "5");
    assert_eq!(state(&new).await, [pair("a", "4"), pair("c", "5")]);
}

#[tokio::test]
async fn the_address_for_those_who_run_it_goes_over() {
    let place = Place::new();
    let mut old = place.first(&["--admin-address", "127.0.0.1:0"]).await;
    let admin_of = async |hop: &Hop| -> SocketAddr {
        let line = hop.logged("listening for administration").await;
        line.field("address").parse().expect("an address")
    };
    let admin = admin_of(&old).await;
    let address = admin.to_string();
    let new = place.next(&old, &["--admin-address", &address]).await;
    assert_eq!(admin_of(&new).await, admin);
    old.stops_well().await;
    let (head, body) = Client::connect(admin).await.get("/-/ready", &[]).await;
    assert_eq!((head.status, &*body), (200, "ready\n"));
    // Whoever wants another one gets that.
    let mut middle = new;
    let last = place
        .next(&middle, &["--admin-address", "127.0.0.2:0"])
        .await;
    let other = admin_of(&last).await;
    assert_eq!(other.ip().to_string(), "127.0.0.2");
    middle.stops_well().await;
    let (head, _) = Client::connect(other).await.get("/-/live", &[]).await;
    assert_eq!(head.status, 200);
    let former = tokio::net::TcpStream::connect(admin).await;
    assert!(former.is_err(), "nobody listens there any more");
}

/// However often it is replaced meanwhile, a connection ends at its age.
#[tokio::test]
async fn a_connection_does_not_get_younger() {
    let place = Place::new();
    let args = ["--accept-publish", "--max-connection-age", "1s"];
    let mut hop = place.first(&args).await;
    let subscriber = hop.subscribe().await;
    let closed = tokio::spawn(async move {
        let mut subscriber = subscriber;
        let (_, code, reason) = subscriber.until_close().await;
        subscriber.answer_close(code).await;
        reason
    });
    let mut former = Vec::new();
    let replacing = async {
        while !closed.is_finished() {
            let next = place.next(&hop, &args).await;
            // They end by themselves, after a moment that is not to be waited for each time.
            former.push(std::mem::replace(&mut hop, next));
        }
    };
    within_guard("the end of a connection", replacing).await;
    let reason = closed.await.expect("it was closed");
    assert!(
        reason.starts_with("this connection has lasted long enough"),
        "{reason}"
    );
    publish(hop.address, &[], "still here").await;
    for mut hop in former {
        hop.stops_well().await;
    }
}
