//! Stopping: everybody is told, nobody holds it up for longer than allowed.

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::events::{assert_same, bytes};
use crate::harness::frame::{CLOSE, close_payload};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, Tail};

#[tokio::test]
async fn a_signal_closes_subscribers_and_upstreams_and_ends_it_well() {
    for (signal, name, code) in [
        (Signal::TERM, "SIGTERM", 1012),
        (Signal::INT, "SIGINT", 1001),
    ] {
        // A drain that took its time would be noticed: the other signal does not wait.
        let drain = if code == 1001 { "1h" } else { "500ms" };
        let (mut link, mut hop) = Hop::fed(&["--drain", drain]).await;
        let mut subscribers = vec![];
        for _ in 0..20 {
            subscribers.push(hop.subscribe().await);
        }
        hop.signal(signal);
        for subscriber in subscribers {
            assert_eq!(subscriber.closed().await, code);
        }
        assert_eq!(link.close_code().await, Some(1001));
        hop.stops_well().await;
        assert_eq!(hop.log.all("stopping")[0].field("signal"), name);
        assert_eq!(hop.count("stopped"), 1);
        for line in hop.log.all("subscriber disconnected") {
            assert_eq!(line.number("code"), u64::from(code), "{}", line.text);
        }
        assert_eq!(hop.count("subscriber disconnected"), 20);
    }
}

#[tokio::test]
async fn it_stops_with_nobody_connected_and_nobody_upstream() {
    for args in [
        &["--produce-rate", "max"][..],
        &["--consume", "ws://192.0.2.1:1/"],
    ] {
        let mut hop = Hop::start(args).await;
        hop.signal(Signal::TERM);
        hop.stops_well().await;
    }
    let mut hop = Hop::quiet(&[]).await;
    hop.logged("cannot reach upstream, trying again").await;
    hop.signal(Signal::TERM);
    hop.stops_well().await;
}

#[tokio::test]
async fn what_was_sent_before_the_signal_arrives_before_the_close() {
    let (mut link, mut hop) = Hop::fed(&[]).await;
    let mut subscriber = hop.subscribe().await;
    let mut other = hop.subscribe().await;
    let event = Message::binary(bytes(100_000));
    for _ in 0..10 {
        link.send(event.clone()).await;
        assert_same(&[other.message().await], std::slice::from_ref(&event));
    }
    // Ten events are in the log of the hop, and perhaps in no socket yet.
    hop.signal(Signal::INT);
    let (frames, code, _) = subscriber.until_close().await;
    assert_eq!(code, 1001);
    assert!(frames.iter().all(|frame| frame.payload == bytes(100_000)));
    subscriber.answer_close(code).await;
    assert_eq!(other.closed().await, 1001);
    hop.stops_well().await;
}

/// A hop, a subscriber that does not read what is on its way to it, and one that has read all.
async fn with_stuck_subscriber(args: &[&str]) -> (Link, Hop, Client, Client) {
    let (mut link, hop) = Hop::fed_single(args).await;
    let stuck = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let stuck = stuck.upgraded("/events").await;
    let mut other = hop.subscribe().await;
    for _ in 0..120 {
        link.send(Message::binary(bytes(100_000))).await;
        other.message().await;
    }
    (link, hop, stuck, other)
}

#[tokio::test]
async fn a_subscriber_that_never_reads_holds_it_up_no_longer_than_allowed() {
    let (_link, mut hop, _stuck, _other) = with_stuck_subscriber(&["--drain", "300ms"]).await;
    hop.signal(Signal::TERM);
    hop.stops_well().await;
    assert_eq!(hop.count("stopped before all connections had closed"), 1);
}

#[tokio::test]
async fn a_subscriber_that_reads_late_gets_whole_events_and_the_close() {
    let (_link, mut hop, mut stuck, other) = with_stuck_subscriber(&[]).await;
    hop.signal(Signal::INT);
    assert_eq!(other.closed().await, 1001);
    let (frames, code, _) = stuck.until_close().await;
    assert!(frames.iter().all(|frame| frame.payload == bytes(100_000)));
    assert_eq!(code, 1001);
    stuck.answer_close(code).await;
    hop.stops_well().await;
    assert_eq!(hop.count("stopped"), 1);
}

#[tokio::test]
async fn a_subscriber_that_closes_meanwhile_gets_whole_events_and_a_close() {
    let (_link, mut hop, mut stuck, other) = with_stuck_subscriber(&[]).await;
    hop.signal(Signal::INT);
    // They are told together, and then the Close of the stuck one crosses that of the hop.
    assert_eq!(other.closed().await, 1001);
    stuck.send_frame(CLOSE, &close_payload(1000, b"")).await;
    let (frames, code, _) = stuck.until_close().await;
    assert!(frames.iter().all(|frame| frame.payload == bytes(100_000)));
    assert_eq!(code, 1001);
    stuck.ended().await;
    hop.stops_well().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (_link, mut hop, _stuck, _other) = with_stuck_subscriber(&["--drain", "1h"]).await;
        hop.signal(Signal::INT);
        hop.logged("stopping").await;
        hop.signal(second);
        assert_eq!(hop.exit().await.code(), Some(code));
        assert_eq!(hop.count("stopped"), 0);
    }
}

#[tokio::test]
async fn new_connections_are_refused_while_it_stops() {
    let (_link, mut hop, stuck, other) = with_stuck_subscriber(&["--drain", "1h"]).await;
    let mut idle = Client::connect(hop.address).await;
    hop.signal(Signal::INT);
    hop.logged("stopping").await;
    // The socket closes soon after the line in the log.
    within_guard("a refusal", async {
        while TcpStream::connect(hop.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        idle.try_head().await.is_none(),
        "who has asked for nothing is let go"
    );
    assert_eq!(other.closed().await, 1001);
    assert_eq!(hop.count("stopped"), 0, "it still waits for the stuck one");
    drop(stuck);
    hop.stops_well().await;
}

#[tokio::test]
async fn a_chain_loses_its_middle_and_comes_together_again() {
    let producer = Hop::start(&["--produce-rate", "100"]).await;
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let args = ["--consume", &producer.url, "--serve-address", &address];
    let mut middle = Hop::start(&args).await;
    let end = Hop::consuming(&middle.url).await;
    let mut subscriber = end.subscribe().await;
    subscriber.messages(5).await;
    middle.signal(Signal::INT);
    middle.stops_well().await;
    let lost = end.logged("upstream lost").await;
    assert!(lost.field("reason").contains("1001"), "{}", lost.text);
    let _middle = Hop::start(&args).await;
    end.logged_times("upstream connected", 2).await;
    subscriber.messages(5).await;
    assert_eq!(end.count("subscriber disconnected"), 0);
}

#[tokio::test]
async fn a_tail_ends_with_a_server_that_stops_if_asked_to() {
    let mut hop = Hop::start(&["--produce-rate", "100"]).await;
    let mut tail = Tail::start(&hop.url, &["--exit-on-close"]);
    tail.line().await.expect("an event");
    hop.signal(Signal::INT);
    hop.stops_well().await;
    while tail.line().await.is_some() {}
    tail.ends_with(0).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_read_holds_nothing_up() {
    let upstream = Upstream::new();
    let mut hop = Hop::start(&["--consume", &upstream.url()]).await;
    // It has connected, and waits for the answer to its handshake.
    let _socket = upstream.accept_socket().await;
    hop.signal(Signal::INT);
    hop.stops_well().await;
    assert_eq!(hop.count("stopped"), 1);
}
