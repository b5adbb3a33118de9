use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{advance, sleep};

use super::*;

type Answer = io::Result<Vec<SocketAddr>>;

fn name() -> Arc<Addresses> {
    Arc::new(Addresses::new("example.com", 80))
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// The ports of the addresses, if the name stands for `answer` now.
async fn get(addresses: &Arc<Addresses>, answer: &[u16]) -> Vec<u16> {
    let answer = answer.iter().copied().map(at).collect();
    let got = addresses.get_by(|_, _| async { Ok(answer) }).await;
    got.expect("it resolves")
        .iter()
        .map(SocketAddr::port)
        .collect()
}

async fn failing(addresses: &Arc<Addresses>) -> io::Result<Arc<[SocketAddr]>> {
    addresses
        .get_by(|_, _| async { Err(io::Error::other("no such name")) })
        .await
}

/// Lets what runs in the background come to its end.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test]
async fn an_address_is_never_looked_up() {
    for (host, address) in [("192.0.2.1", "192.0.2.1:80"), ("::1", "[::1]:80")] {
        let addresses = Arc::new(Addresses::new(host, 80));
        addresses.doubt();
        let got = failing(&addresses).await.expect("it is known");
        assert_eq!(*got, [address.parse().expect("an address")]);
    }
}

#[tokio::test(start_paused = true)]
async fn old_addresses_are_used_while_they_are_looked_up_again() {
    let addresses = name();
    assert_eq!(get(&addresses, &[1, 2, 1]).await, [1, 2]);
    advance(OLD - Duration::from_millis(1)).await;
    assert_eq!(get(&addresses, &[3]).await, [1, 2]);
    settle().await;
    assert_eq!(get(&addresses, &[3]).await, [1, 2], "they were not old");
    advance(Duration::from_millis(1)).await;
    assert_eq!(get(&addresses, &[3]).await, [1, 2]);
    settle().await;
    assert_eq!(get(&addresses, &[4]).await, [3]);
    settle().await;
    assert_eq!(get(&addresses, &[4]).await, [3], "they are new");
}

#[tokio::test(start_paused = true)]
async fn old_addresses_are_looked_up_by_one_at_a_time() {
    let addresses = name();
    get(&addresses, &[1]).await;
    advance(OLD).await;
    let lookups = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let lookups = lookups.clone();
        let look_up = move |_, _| async move {
            lookups.fetch_add(1, Ordering::Relaxed);
            std::future::pending().await
        };
        addresses.get_by(look_up).await.expect("it is known");
        settle().await;
    }
    assert_eq!(lookups.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_known_survives_a_failure() {
    let addresses = name();
    assert_eq!(get(&addresses, &[1]).await, [1]);
    advance(OLD).await;
    assert!(failing(&addresses).await.is_ok());
    settle().await;
    assert_eq!(get(&addresses, &[2]).await, [1]);
    settle().await;
    assert_eq!(
        get(&addresses, &[2]).await,
        [1],
        "it is not asked for at once again"
    );
    advance(OLD).await;
    get(&addresses, &[2]).await;
    settle().await;
    assert_eq!(get(&addresses, &[2]).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn addresses_that_do_not_work_are_looked_up_sooner() {
    let addresses = name();
    assert_eq!(get(&addresses, &[1]).await, [1]);
    addresses.doubt();
    assert_eq!(get(&addresses, &[2]).await, [1]);
    settle().await;
    assert_eq!(get(&addresses, &[2]).await, [1], "not at once");
    advance(DOUBTED).await;
    get(&addresses, &[2]).await;
    settle().await;
    assert_eq!(get(&addresses, &[3]).await, [2]);
    advance(DOUBTED).await;
    get(&addresses, &[3]).await;
    settle().await;
    assert_eq!(get(&addresses, &[3]).await, [2], "these are not doubted");
}

#[tokio::test(start_paused = true)]
async fn many_who_come_at_once_look_a_name_up_once() {
    for fails in [false, true] {
        let addresses = name();
        let lookups = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let (addresses, lookups, go) = (addresses.clone(), lookups.clone(), go.clone());
            tasks.spawn(async move {
                let look_up = move |_, _| async move {
                    lookups.fetch_add(1, Ordering::Relaxed);
                    go.notified().await;
                    match fails {
                        true => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                        false => Answer::Ok(vec![at(1)]),
                    }
                };
                addresses.get_by(look_up).await
            });
        }
        settle().await;
        go.notify_one();
        for result in tasks.join_all().await {
            match result {
                Ok(addresses) => assert!(!fails && *addresses == [at(1)]),
                Err(error) => assert!(fails && error.kind() == io::ErrorKind::NotFound),
            }
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_fails_is_asked_for_again_a_little_later() {
    let addresses = name();
    assert!(failing(&addresses).await.is_err());
    sleep(FAILED).await;
    assert_eq!(get(&addresses, &[1]).await, [1]);
    let nothing = name().get_by(|_, _| async { Ok(vec![]) }).await;
    assert!(nothing.is_err(), "no address is a failure");
}

#[tokio::test(start_paused = true)]
async fn the_address_that_worked_is_first() {
    let addresses = name();
    addresses.prefer(at(2));
    assert_eq!(
        get(&addresses, &[1, 2, 3]).await,
        [1, 2, 3],
        "it was not one of them"
    );
    addresses.prefer(at(3));
    assert_eq!(get(&addresses, &[]).await, [3, 1, 2]);
    addresses.prefer(at(9));
    assert_eq!(get(&addresses, &[]).await, [3, 1, 2]);
    advance(OLD).await;
    get(&addresses, &[1, 2, 3]).await;
    settle().await;
    assert_eq!(
        get(&addresses, &[]).await,
        [3, 1, 2],
        "looked up again, it still is"
    );
    addresses.prefer(at(1));
    assert_eq!(get(&addresses, &[]).await, [1, 3, 2]);
    advance(OLD).await;
    get(&addresses, &[2, 4]).await;
    settle().await;
    assert_eq!(get(&addresses, &[]).await, [2, 4], "it is gone");
}

#[tokio::test]
async fn localhost_is_found() {
    let addresses = Arc::new(Addresses::new("localhost", 80));
    let got = addresses.get().await.expect("every system has it");
    assert!(
        got.iter()
            .all(|address| address.ip().is_loopback() && address.port() == 80)
    );
}
