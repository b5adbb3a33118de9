//! The generator.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::wsevent::Hop;

/// The next event, which must be text.
async fn line(subscriber: &mut Client) -> String {
    match subscriber.message().await {
        Message::Text(text) => text.to_string(),
        other => panic!("produced events are text: {other:?}"),
    }
}

#[tokio::test]
async fn an_event_is_a_counter_the_serving_address_and_ten_letters() {
    let hop = Hop::start(&["--serve-address", "localhost:0"]).await;
    let address = format!("localhost:{}", hop.address.port());
    let mut subscriber = hop.subscribe().await;
    let mut counters = vec![];
    let mut letters = vec![];
    for _ in 0..5 {
        let line = line(&mut subscriber).await;
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!(fields.len(), 3, "{line:?}");
        counters.push(fields[0].parse::<u64>().expect("a counter"));
        assert_eq!(fields[1], address);
        assert_eq!(fields[2].len(), 10, "{line:?}");
        assert!(
            fields[2].bytes().all(|letter| letter.is_ascii_lowercase()),
            "{line:?}"
        );
        letters.push(fields[2].to_owned());
    }
    assert!(
        counters.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{counters:?}"
    );
    letters.sort();
    letters.dedup();
    assert_eq!(letters.len(), 5, "they are random");
}

#[tokio::test]
async fn a_rate_may_be_a_fraction_or_as_much_as_it_can() {
    for rate in ["2.5", "0.9", "1e3", "123456.789", "max"] {
        let hop = Hop::start(&["--produce-rate", rate]).await;
        let mut subscriber = hop.subscribe().await;
        let mut last = None;
        for _ in 0..2 {
            let line = line(&mut subscriber).await;
            let counter = line
                .split(' ')
                .next()
                .and_then(|field| field.parse::<u64>().ok());
            let counter = counter.expect("a counter");
            assert!(
                last.is_none_or(|last| last + 1 == counter),
                "at {rate}: {line}"
            );
            last = Some(counter);
        }
    }
}

#[tokio::test]
async fn a_size_is_kept_exactly() {
    for (flag, size) in [
        ("0", 0),
        ("1", 1),
        ("20", 20),
        ("128", 128),
        ("64KiB", 65_536),
    ] {
        let hop = Hop::start(&["--produce-size", flag, "--produce-rate", "10"]).await;
        let mut subscriber = hop.subscribe().await;
        for _ in 0..3 {
            let line = line(&mut subscriber).await;
            assert_eq!(line.len(), size);
            assert!(line.is_ascii());
        }
    }
}

#[tokio::test]
async fn large_events_leave_room_for_subscribers() {
    let args = ["--produce-rate", "max", "--produce-size", "1MiB"];
    let hop = Hop::start_with(&args, &[("TOKIO_WORKER_THREADS", "1")]).await;
    let mut subscriber = hop.subscribe().await;
    for _ in 0..3 {
        assert_eq!(line(&mut subscriber).await.len(), 1 << 20);
    }
}

#[tokio::test]
async fn as_much_as_it_can_leaves_room_for_subscribers() {
    let hop = Hop::start(&["--produce-rate", "max", "--produce-size", "128"]).await;
    let mut first = hop.subscribe().await;
    line(&mut first).await;
    let mut second = hop.subscribe().await;
    let mut last = None;
    for _ in 0..5_000 {
        let line = line(&mut second).await;
        let counter = line
            .split(' ')
            .next()
            .and_then(|field| field.parse::<u64>().ok());
        let counter = counter.expect("a counter");
        assert!(last.is_none_or(|last| last + 1 == counter), "{line}");
        last = Some(counter);
    }
}
