use std::net::Ipv6Addr;

use tokio::time::{advance, sleep};

use super::*;

fn rate(per_second: u32) -> Rate {
    Rate(NonZeroU32::new(per_second).expect("above 0"))
}

/// The /64 network of this number.
fn address(number: u64) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number) << 64).into()
}

#[tokio::test(start_paused = true)]
async fn a_second_of_rest_is_worth_a_burst() {
    // Of some a part of a nanosecond is lost.
    for per_second in [1, 3, 7, 200, 1_000_003] {
        let (rate, mut bucket) = (rate(per_second), Bucket::default());
        for _ in 0..per_second.min(1_000) {
            assert_eq!(bucket.take(1, rate), Ok(()), "{per_second}");
        }
        let rest = per_second.saturating_sub(1_000) as usize;
        assert_eq!(bucket.take(rest, rate), Ok(()), "{per_second}");
        let wait = bucket.take(1, rate).expect_err("it is empty");
        advance(wait).await;
        assert_eq!(bucket.take(1, rate), Ok(()), "{per_second}");
        assert!(bucket.take(1, rate).is_err(), "{per_second}");
        advance(BURST * 100).await;
        assert_eq!(bucket.take(per_second as usize, rate), Ok(()));
        assert!(bucket.take(1, rate).is_err(), "rest does not add up");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_bucket_holds_is_taken_of_a_full_one_and_paid_back() {
    let (rate, mut bucket) = (rate(10), Bucket::default());
    bucket.take(1, rate).expect("it is full");
    assert_eq!(bucket.take(50, rate), Err(Duration::from_millis(100)));
    advance(Duration::from_millis(100)).await;
    assert_eq!(bucket.take(50, rate), Ok(()));
    assert_eq!(bucket.take(1, rate), Err(Duration::from_millis(4_100)));
    assert_eq!(bucket.take(50, rate), Err(Duration::from_secs(5)));
    advance(Duration::from_millis(4_100)).await;
    assert_eq!(bucket.take(1, rate), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn each_address_has_a_bucket_of_its_own() {
    let limit = OfAddresses::new(rate(2));
    assert_eq!(limit.check(address(1)), Ok(()));
    for _ in 0..2 {
        assert_eq!(limit.take(address(1), 1), Ok(()));
    }
    let wait = Duration::from_millis(500);
    assert_eq!(limit.check(address(1)), Err(wait));
    assert_eq!(limit.take(address(1), 1), Err(wait));
    assert_eq!(limit.take(address(2), 1), Ok(()));
    sleep(wait).await;
    assert_eq!(limit.take(address(1), 1), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn those_that_are_full_again_are_forgotten() {
    let limit = OfAddresses::new(rate(100));
    for number in 0..1_000 {
        limit.take(address(number), 100).expect("it is new");
    }
    assert_eq!(limit.lock().buckets.len(), 1_000);
    advance(BURST).await;
    for _ in 0..500 {
        limit.take(address(5_000), 0).expect("nothing is taken");
    }
    let known = limit.lock();
    assert!(known.buckets.len() <= 2, "{}", known.buckets.len());
    assert_eq!(known.buckets.len(), known.order.len());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_addresses_pushes_out_the_oldest_and_no_more() {
    let limit = OfAddresses::new(rate(1));
    let flood = MAX_KNOWN as u64 + 10;
    for number in 0..flood {
        limit.take(address(number), 1).expect("it is new");
    }
    let known = limit.lock();
    assert_eq!(known.buckets.len(), MAX_KNOWN);
    assert_eq!(known.order.len(), MAX_KNOWN);
    drop(known);
    assert!(limit.check(address(flood - 1)).is_err());
    let forgotten = (0..flood).filter(|number| limit.check(address(*number)).is_ok());
    assert_eq!(forgotten.count(), 10);
}
