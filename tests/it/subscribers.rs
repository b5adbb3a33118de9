//! Subscribers, as many and as good as they come.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::events::{assert_same, bytes, numbered};
use crate::harness::frame::{CLOSE, PING, PONG, close_payload};
use crate::harness::wsevent::{Hop, allow_many_files};

#[tokio::test]
async fn a_late_joiner_starts_at_the_live_edge() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut early = hop.subscribe().await;
    let sent = numbered(20);
    link.send_all(&sent[..10]).await;
    assert_same(&early.messages(10).await, &sent[..10]);
    let mut late = hop.subscribe().await;
    link.send_all(&sent[10..]).await;
    assert_same(&late.messages(10).await, &sent[10..]);
    assert_same(&early.messages(10).await, &sent[10..]);
}

#[tokio::test]
async fn a_thousand_subscribers_all_get_the_same_sequence() {
    allow_many_files();
    // A ping would take along what had been forgotten.
    let (mut link, hop) = Hop::fed(&["--ping-interval", "1h"]).await;
    let mut subscribers = vec![];
    while subscribers.len() < 1_000 {
        subscribers.push(hop.subscribe().await.read_at_most(4 << 10));
    }
    let sent = numbered(100);
    link.send_all(&sent).await;
    for mut subscriber in subscribers {
        assert_same(&subscriber.messages(100).await, &sent);
        subscriber
            .send_frame(CLOSE, &close_payload(1000, b""))
            .await;
        assert_eq!(subscriber.closed().await, 1000);
    }
    hop.logged_times("subscriber disconnected", 1_000).await;
    for line in hop.log.all("subscriber disconnected") {
        assert_eq!(line.number("events"), 100, "{}", line.text);
    }
}

#[tokio::test]
async fn subscribers_come_and_go_while_events_flow() {
    let hop = Hop::start(&["--produce-rate", "2000"]).await;
    let mut constant = hop.subscribe().await;
    for round in 0..40 {
        let mut passing = hop.subscribe().await;
        passing.messages(round % 4).await;
        match round % 3 {
            0 => passing.reset(),
            1 => passing.half_close().await,
            _ => passing.send_frame(CLOSE, b"").await,
        }
    }
    hop.logged_times("subscriber disconnected", 40).await;
    let mut last = None;
    for event in constant.messages(200).await {
        let text = event
            .to_text()
            .expect("produced events are text")
            .to_owned();
        let counter = text
            .split(' ')
            .next()
            .and_then(|field| field.parse::<u64>().ok());
        let counter = counter.expect("a counter");
        assert!(last.is_none_or(|last| counter == last + 1));
        last = Some(counter);
    }
}

#[tokio::test]
async fn one_that_reads_a_byte_at_a_time_gets_everything() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = slow.upgraded("/events").await.read_at_most(1);
    let sent: Vec<_> = (0..300).map(|len| Message::binary(bytes(len))).collect();
    link.send_all(&sent).await;
    assert_same(&slow.messages(sent.len()).await, &sent);
}

#[tokio::test]
async fn those_who_vanish_are_noticed_and_disturb_nobody() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut other = hop.subscribe().await;
    let mut expected = 0;
    for way in ["reset", "end", "half-close"] {
        let mut vanishing = hop.subscribe().await;
        let event = Message::text(way);
        link.send(event.clone()).await;
        assert_eq!(vanishing.message().await, event);
        assert_eq!(other.message().await, event);
        match way {
            "reset" => vanishing.reset(),
            "end" => drop(vanishing),
            _ => {
                vanishing.half_close().await;
                vanishing.ended().await;
            }
        }
        expected += 1;
        let line = hop.logged_times("subscriber disconnected", expected).await;
        assert_eq!(
            (line.number("code"), line.number("events")),
            (1006, 1),
            "{way}"
        );
        assert_eq!(line.field("reason"), "connection lost", "{way}");
        link.send(event.clone()).await;
        assert_eq!(other.message().await, event);
    }
}

#[tokio::test]
async fn one_that_vanishes_with_much_on_its_way_disturbs_nobody() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let stuck = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let stuck = stuck.upgraded("/events").await;
    let mut other = hop.subscribe().await;
    let event = Message::binary(bytes(100_000));
    for _ in 0..100 {
        link.send(event.clone()).await;
        assert_same(&[other.message().await], std::slice::from_ref(&event));
    }
    stuck.reset();
    assert_eq!(hop.disconnected().await.number("code"), 1006);
    link.send(event.clone()).await;
    assert_same(&[other.message().await], &[event]);
}

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut subscriber = hop.subscribe().await;
    for payload in [&b""[..], b"are you there?", &[0xFF; 125]] {
        subscriber.send_frame(PING, payload).await;
        let pong = subscriber.frame().await.expect("a pong");
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, payload));
    }
    subscriber.send_frame(PONG, b"unasked for").await;
    link.send(Message::text("still there")).await;
    assert_eq!(subscriber.message().await, Message::text("still there"));
}

#[tokio::test]
async fn a_pong_during_a_broadcast_splits_no_frame() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let client = Client::connect_with_buffer(hop.address, 64 << 10).await;
    let mut client = client.upgraded("/events").await;
    let mut other = hop.subscribe().await;
    // More than the kernel buffers, so that the server is stuck within a frame, and less than the history.
    let sent: Vec<_> = (0..150)
        .map(|number| Message::binary(bytes(100_000 - number)))
        .collect();
    for event in &sent {
        link.send(event.clone()).await;
        other.message().await;
    }
    let (mut received, mut pings, mut pongs) = (vec![], 0u64, vec![]);
    while received.len() < sent.len() {
        client.send_frame(PING, &pings.to_be_bytes()).await;
        pings += 1;
        let frame = client.frame().await.expect("a frame");
        match frame.opcode {
            PONG => pongs.push(frame.payload),
            _ => received.push(Message::binary(frame.payload)),
        }
    }
    assert_same(&received, &sent);
    assert!(
        !pongs.is_empty(),
        "pongs do not wait until the last event is out"
    );
    client.send_frame(PING, &pings.to_be_bytes()).await;
    while pongs
        .last()
        .is_none_or(|pong| **pong != pings.to_be_bytes())
    {
        pongs.push(client.frame().await.expect("the last pong").payload);
    }
    // A pong may stand for several pings, but it is never made up, late, or twice.
    assert!(pongs.is_sorted_by(|one, next| one < next && next.len() == 8));
}

#[tokio::test]
async fn the_silent_are_pinged_and_closed_and_those_who_answer_are_not() {
    let hop = Hop::quiet(&["--ping-interval", "2s"]).await;
    let mut silent = hop.subscribe().await;
    let mut answering = hop.subscribe().await;
    let waiting = tokio::spawn(async move {
        let (frames, code, reason) = silent.until_close().await;
        assert!(!frames.is_empty() && frames.iter().all(|frame| frame.opcode == PING));
        assert_eq!(code, 1011);
        assert!(reason.contains("silent"), "{reason}");
        silent.answer_close(code).await;
    });
    let mut pings_since_then = 0;
    while pings_since_then < 2 {
        let ping = answering.frame().await.expect("a ping");
        assert_eq!(ping.opcode, PING);
        answering.send_frame(PONG, &ping.payload).await;
        pings_since_then += hop.count("subscriber disconnected");
    }
    waiting.await.expect("the silent one is closed");
    assert_eq!(hop.count("subscriber disconnected"), 1);
    assert_eq!(hop.disconnected().await.number("code"), 1011);
}

#[tokio::test]
async fn the_log_has_a_line_for_each_who_comes_and_goes_and_none_for_an_event() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut subscriber = hop.subscribe().await;
    let came = hop.logged("subscriber connected").await;
    assert_eq!(came.field("path"), "/events");
    link.send_all(&numbered(1_000)).await;
    link.send(Message::text("")).await;
    subscriber.messages(1_001).await;
    subscriber
        .send_frame(CLOSE, &close_payload(1000, b"bye"))
        .await;
    assert_eq!(subscriber.closed().await, 1000);
    let went = hop.disconnected().await;
    assert_eq!(went.field("address"), came.field("address"));
    assert_eq!(went.field("path"), "/events");
    assert_eq!(went.number("code"), 1000);
    assert_eq!(went.number("events"), 1_001);
    let payloads: u64 = numbered(1_000).iter().map(|event| event.len() as u64).sum();
    let close = 2 + 2 + 3;
    assert_eq!(went.number("bytes"), payloads + 2 * 1_001 + close);
    assert!(!went.field("duration").is_empty());
    // Listening, connected upstream, and these two.
    assert_eq!(hop.log.lines().len(), 4, "{}", hop.log);
}
