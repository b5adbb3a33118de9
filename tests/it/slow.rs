//! Subscribers that do not keep up: they cost nobody else anything, and are told when history has passed them by.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::events::{assert_same, bytes};
use crate::harness::frame::{FIN, PING, PONG, masked};
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::upstream::Link;
use crate::harness::wsevent::Hop;

/// A hop with a short history, its feed, and a subscriber that takes next to nothing unless it reads.
async fn hop_with_slow_subscriber(args: &[&str]) -> (Link, Hop, Client) {
    let args = [&["--history", "256KiB"], args].concat();
    let (link, hop) = Hop::fed(&args).await;
    let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let slow = slow.upgraded("/events").await;
    (link, hop, slow)
}

/// Event number `number`, of `len` bytes.
fn event(number: u64, len: usize) -> Message {
    let mut payload = bytes(len);
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Message::binary(payload)
}

#[tokio::test]
async fn one_that_never_reads_is_closed_with_1013_and_others_get_everything() {
    let (mut link, hop, slow) = hop_with_slow_subscriber(&[]).await;
    let mut fast = hop.subscribe().await;
    let mut number = 0;
    while hop.count("subscriber disconnected") == 0 {
        let event = event(number, 8 << 10);
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], &[event]);
        number += 1;
    }
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1013, "{}", line.text);
    assert!(line.field("reason").contains("history"), "{}", line.text);
    assert!(line.number("events") < number);
    drop(slow);
    assert_eq!(hop.count("subscriber disconnected"), 1);
}

#[tokio::test]
async fn one_that_was_passed_by_and_reads_again_gets_whole_frames_and_then_the_close() {
    const LEN: usize = 8 << 10;
    let (mut link, hop, mut slow) = hop_with_slow_subscriber(&[]).await;
    let mut fast = hop.subscribe().await;
    for number in 0..(more_than_kernel_buffers() / LEN) as u64 {
        let event = event(number, LEN);
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], &[event]);
    }
    let (frames, code, _) = slow.until_close().await;
    assert_eq!(code, 1013);
    for (number, frame) in frames.iter().enumerate() {
        let got = Message::binary(frame.payload.clone());
        assert_same(&[got], &[event(number as u64, LEN)]);
    }
    slow.answer_close(code).await;
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1013, "{}", line.text);
    assert_eq!(line.number("events"), frames.len() as u64);
}

#[tokio::test]
async fn those_that_read_but_not_fast_enough_get_whole_frames_and_then_the_close() {
    let (mut link, hop) = Hop::fed(&["--history", "20KiB"]).await;
    for round in 1..=10 {
        let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
        let mut slow = slow.upgraded("/events").await;
        let mut code = None;
        while code.is_none() {
            for _ in 0..4 {
                link.send(event(0, 5_000)).await;
            }
            let frame = slow.frame().await.expect("a Close frame before the end");
            code = frame.close().map(|(code, _)| code);
            assert!(code.is_some() || frame.payload.len() == 5_000);
        }
        assert_eq!(code, Some(1013));
        slow.answer_close(1013).await;
        hop.logged_times("subscriber disconnected", round).await;
    }
}

#[tokio::test]
async fn one_that_was_passed_by_within_a_large_event_is_cut_off_and_the_log_says_why() {
    const LEN: usize = 200_000;
    let (mut link, hop, mut slow) = hop_with_slow_subscriber(&[]).await;
    let mut fast = hop.subscribe().await;
    for number in 0..(more_than_kernel_buffers() / LEN) as u64 {
        let event = event(number, LEN);
        link.send(event.clone()).await;
        assert_same(&[fast.message().await], &[event]);
    }
    let mut number = 0;
    while let Some(frame) = slow.frame_or_cut().await {
        if frame.close().is_none() {
            let got = Message::binary(frame.payload);
            assert_same(&[got], &[event(number, LEN)]);
            number += 1;
        }
    }
    let line = hop.disconnected().await;
    assert!(line.field("reason").contains("history"), "{}", line.text);
}

#[tokio::test]
async fn one_that_falls_behind_within_history_gets_everything() {
    const LEN: usize = 50_000;
    let (mut link, hop) = Hop::fed(&["--history", "64MiB"]).await;
    let slow = Client::connect_with_buffer(hop.address, 64 << 10).await;
    let mut slow = slow.upgraded("/events").await;
    let mut fast = hop.subscribe().await;
    let count = (more_than_kernel_buffers() / LEN) as u64;
    for number in 0..count {
        link.send(event(number, LEN)).await;
        fast.message().await;
    }
    for number in 0..count {
        assert_same(&[slow.message().await], &[event(number, LEN)]);
    }
    // It has caught up, and gets what is new like everybody else.
    link.send(event(count, LEN)).await;
    assert_same(&[slow.message().await], &[event(count, LEN)]);
}

#[tokio::test]
async fn a_ping_is_answered_even_when_the_server_pings_before_it_can() {
    const LEN: usize = 50_000;
    let (mut link, hop) = Hop::fed_single(&["--history", "64MiB", "--ping-interval", "2s"]).await;
    let stuck = Client::connect_with_buffer(hop.address, 64 << 10).await;
    let mut stuck = stuck.upgraded("/events").await;
    let mut other = hop.subscribe().await;
    let count = (more_than_kernel_buffers() / LEN) as u64;
    for number in 0..count {
        link.send(event(number, LEN)).await;
        other.message().await;
        // Nobody has asked for it: it shows that the stuck one is alive.
        stuck.send(masked(FIN | PONG, b"")).await;
    }
    stuck.send_frame(PING, b"the last one").await;
    // Both are in one shard, which pings each once in an interval: two here, so one at least there.
    for _ in 0..2 {
        let mut frame = other.frame().await.expect("a ping");
        while frame.opcode != PING {
            frame = other.frame().await.expect("a ping");
        }
        other.send_frame(PONG, &frame.payload).await;
        stuck.send(masked(FIN | PONG, b"")).await;
    }
    let mut events = 0;
    loop {
        let frame = stuck.frame().await.expect("a pong before the end");
        match frame.opcode {
            PONG => break assert_eq!(frame.payload, b"the last one"),
            PING => stuck.send_frame(PONG, &frame.payload).await,
            _ => events += 1,
        }
        assert!(frame.close().is_none(), "closed after {events} events");
        assert!(events < count, "all events, and no pong");
    }
}
