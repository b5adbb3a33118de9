//! How many connections there may be: in all, of one address, of one address in a second.

use super::{asks, is_told_to_come_again, refusal};
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, output};

/// Waits until there is room again.
async fn enters(hop: &Hop) -> Client {
    within_guard("room", async {
        loop {
            let (client, head) = asks(hop).await;
            if head.status == 101 {
                return client;
            }
        }
    })
    .await
}

#[tokio::test]
async fn more_than_wanted_are_told_to_come_later() {
    let hop = Hop::quiet(&["--max-connections", "3"]).await;
    let first = hop.subscribe().await;
    let stream = Stream::open(hop.address, "/events", &[]).await;
    // It counts from its first moment, though it says nothing.
    let silent = Client::connect(hop.address).await;
    for _ in 0..3 {
        let (mut client, head) = asks(&hop).await;
        is_told_to_come_again(&mut client, &head, 503).await;
    }
    let line = refusal(&hop, "connection refused", "503").await;
    assert_eq!(
        line.field("reason"),
        "there are too many connections at the moment"
    );
    // Whatever has become of a connection, its place is free when it has ended.
    first.reset();
    let second = enters(&hop).await;
    drop(stream);
    let third = enters(&hop).await;
    drop(silent);
    let fourth = enters(&hop).await;
    let (mut client, head) = asks(&hop).await;
    is_told_to_come_again(&mut client, &head, 503).await;
    drop((second, third, fourth));
}

#[tokio::test]
async fn a_client_hears_why_it_is_not_let_in() {
    let hop = Hop::quiet(&["--max-connections", "1"]).await;
    let first = hop.subscribe().await;
    hop.logged("subscriber connected").await;
    let http = format!("http://{}/events", hop.address);
    for url in [&hop.url, &http] {
        let tail = output(&["tail", url, "--exit-on-close"], &[]).await;
        assert_eq!(tail.status.code(), Some(1));
        let error = String::from_utf8_lossy(&tail.stderr);
        assert!(
            error.contains("503 Service Unavailable: there are too many connections at the moment"),
            "{error}"
        );
    }
    drop(first);
}

#[tokio::test]
async fn one_address_does_not_take_all_the_room() {
    let hop = Hop::quiet(&["--max-connections-per-address", "1"]).await;
    let first = hop.subscribe().await;
    // It counts as what it has become, too.
    hop.logged("subscriber connected").await;
    let (mut client, head) = asks(&hop).await;
    is_told_to_come_again(&mut client, &head, 429).await;
    let line = refusal(&hop, "connection refused", "429").await;
    assert_eq!(
        line.field("reason"),
        "there are too many connections from this address"
    );
    first.reset();
    enters(&hop).await;
}

#[tokio::test]
async fn one_address_is_not_in_haste_and_a_flood_is_few_lines() {
    let hop = Hop::quiet(&["--max-handshakes-per-second", "1"]).await;
    let mut refused = 0;
    // It takes a few only, unless the machine stands still for a second each time.
    within_guard("haste", async {
        while refused < 50 {
            let (mut client, head) = asks(&hop).await;
            if head.status != 101 {
                is_told_to_come_again(&mut client, &head, 429).await;
                assert_eq!(head.header("retry-after"), "1");
                refused += 1;
            }
        }
    })
    .await;
    let line = refusal(&hop, "connection refused", "429").await;
    assert_eq!(
        line.field("reason"),
        "too many connections a second come from this address"
    );
    // Each is counted, and in the end all are.
    let counted = |hop: &Hop| -> u64 {
        let lines = hop.log.all("connection refused");
        let others = lines.iter().map(|line| line.field("others"));
        others
            .map(|others| 1 + others.parse::<u64>().unwrap_or(0))
            .sum()
    };
    hop.logged_where("connection refused", |_| counted(&hop) == refused)
        .await;
    assert!(hop.count("connection refused") < 50);
}
