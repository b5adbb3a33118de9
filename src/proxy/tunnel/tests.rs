mod closing;

use std::future::poll_fn;
use std::net::Ipv4Addr;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const NO_LIMITS: Limits = Limits {
    client_idle: None,
    upstream_idle: None,
    age: None,
    drain: LONG,
};
/// Over at once, and there is still time for what needs none.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The two ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let address = listener.local_addr().expect("its address");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.expect("connected"), other.expect("accepted").0)
}

fn side(stream: TcpStream, early: &[u8]) -> Side {
    Side {
        stream: Stream::Plain(stream),
        early: Bytes::copy_from_slice(early),
    }
}

/// A tunnel that runs, and what it joins.
struct Joined {
    client: TcpStream,
    upstream: TcpStream,
    stop: Stop,
    tunnel: JoinHandle<Ended>,
}

impl Joined {
    async fn new(limits: Limits) -> Self {
        Self::with_early(limits, b"", b"").await
    }

    async fn with_early(limits: Limits, of_client: &[u8], of_upstream: &[u8]) -> Self {
        let (client, client_side) = pair().await;
        let (upstream, upstream_side) = pair().await;
        let stop = Stop::new(Duration::from_secs(5));
        let tunnel = tokio::spawn(run(
            side(client_side, of_client),
            side(upstream_side, of_upstream),
            limits,
            &stop,
        ));
        Self {
            client,
            upstream,
            stop,
            tunnel,
        }
    }
}

async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("enough bytes");
    bytes
}

async fn receive_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).await.expect("a proper end");
    bytes
}

#[tokio::test]
async fn its_future_is_small() {
    let (client, upstream) = (pair().await.0, pair().await.0);
    let stop = Stop::new(Duration::from_secs(5));
    let tunnel = run(side(client, b""), side(upstream, b""), NO_LIMITS, &stop);
    let size = size_of_val(&tunnel);
    assert!(size <= 600, "{size} bytes");
}

async fn write_in_pieces(
    stream: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
    mut random: SmallRng,
) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = [100, 5_000, 400_000][random.random_range(0..3)];
        let (piece, behind) = rest.split_at(random.random_range(1..=rest.len().min(most)));
        stream.write_all(piece).await.expect("written");
        rest = behind;
        if random.random_bool(0.3) {
            tokio::task::yield_now().await;
        }
    }
    stream.shutdown().await.expect("shut down");
}

async fn read_in_pieces(stream: &mut (impl AsyncReadExt + Unpin), mut random: SmallRng) -> Vec<u8> {
    let mut bytes = vec![];
    let mut piece = vec![0; 300_000];
    loop {
        let most = [10, 1_000, 300_000][random.random_range(0..3)];
        match stream.read(&mut piece[..most]).await.expect("read") {
            0 => return bytes,
            length => bytes.extend_from_slice(&piece[..length]),
        }
        for _ in 0..random.random_range(0..20) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn every_byte_arrives_whatever_the_pieces() {
    for seed in 0..24 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut some = |most: usize| {
            let mut bytes = vec![0; random.random_range(0..=most)];
            random.fill_bytes(&mut bytes);
            bytes
        };
        let (up, down) = (some(3_000_000), some(3_000_000));
        let (early_up, early_down) = (some(up.len() / 2), some(40_000));
        let joined = Joined::with_early(NO_LIMITS, &early_up, &early_down).await;
        let (mut from_client, mut to_client) = joined.client.into_split();
        let (mut from_upstream, mut to_upstream) = joined.upstream.into_split();
        let seeded = |offset: u64| SmallRng::seed_from_u64(1_000 * offset + seed);
        let (_, _, got_up, got_down) = tokio::join!(
            write_in_pieces(&mut to_client, &up, seeded(1)),
            write_in_pieces(&mut to_upstream, &down, seeded(2)),
            read_in_pieces(&mut from_upstream, seeded(3)),
            read_in_pieces(&mut from_client, seeded(4)),
        );
        assert!(got_up == [early_up, up].concat(), "seed {seed}");
        assert!(got_down == [early_down, down].concat(), "seed {seed}");
        let ended = joined.tunnel.await.expect("ended");
        assert_eq!(ended.to_client, got_down.len() as u64);
        assert_eq!(ended.to_upstream, got_up.len() as u64);
    }
}

#[tokio::test]
async fn a_client_that_has_ended_still_receives() {
    let mut joined = Joined::with_early(NO_LIMITS, b"early ", b"").await;
    joined.client.write_all(b"request").await.expect("written");
    joined.client.shutdown().await.expect("shut down");
    assert_eq!(receive_all(&mut joined.upstream).await, b"early request");
    joined.upstream.write_all(b"answer").await.expect("written");
    assert_eq!(receive(&mut joined.client, 6).await, b"answer");
    joined.upstream.write_all(b"more").await.expect("written");
    drop(joined.upstream);
    assert_eq!(receive_all(&mut joined.client).await, b"more");
    let ended = joined.tunnel.await.expect("ended");
    assert!(matches!(ended.why, Why::ClientEnded), "{:?}", ended.why);
}

#[tokio::test]
async fn an_upstream_that_has_ended_still_receives() {
    let mut joined = Joined::with_early(NO_LIMITS, b"", b"early ").await;
    joined.upstream.write_all(b"all").await.expect("written");
    joined.upstream.shutdown().await.expect("shut down");
    assert_eq!(receive_all(&mut joined.client).await, b"early all");
    joined.client.write_all(b"thanks").await.expect("written");
    assert_eq!(receive(&mut joined.upstream, 6).await, b"thanks");
    drop(joined.client);
    assert_eq!(receive_all(&mut joined.upstream).await, b"");
    let ended = joined.tunnel.await.expect("ended");
    assert!(matches!(ended.why, Why::UpstreamEnded), "{:?}", ended.why);
}

#[tokio::test(start_paused = true)]
async fn the_other_direction_does_not_outlive_one_for_ever() {
    let mut joined = Joined::new(NO_LIMITS).await;
    // What has moved before does not make it longer.
    joined.client.write_all(b"up").await.expect("written");
    assert_eq!(receive(&mut joined.upstream, 2).await, b"up");
    joined.upstream.write_all(b"down").await.expect("written");
    assert_eq!(receive(&mut joined.client, 4).await, b"down");
    let began = Instant::now();
    joined.client.shutdown().await.expect("shut down");
    let ended = joined.tunnel.await.expect("ended");
    assert!(matches!(ended.why, Why::ClientEnded), "{:?}", ended.why);
    // The clock of the test stands still but for timers.
    let took = began.elapsed();
    assert!(took < HALF_CLOSED * 2, "{took:?}");
    assert_eq!(receive_all(&mut joined.upstream).await, b"");
}

#[tokio::test]
async fn what_an_upstream_has_sent_before_it_failed_arrives() {
    let mut joined = Joined::new(NO_LIMITS).await;
    joined
        .upstream
        .write_all(b"last words")
        .await
        .expect("written");
    assert_eq!(receive(&mut joined.client, 4).await, b"last");
    joined.upstream.set_zero_linger().expect("set");
    drop(joined.upstream);
    assert_eq!(receive_all(&mut joined.client).await, b" words");
    let ended = joined.tunnel.await.expect("ended");
    assert!(
        matches!(ended.why, Why::UpstreamFailed(_)),
        "{:?}",
        ended.why
    );
    assert_eq!(ended.why.to_string(), "upstream: connection reset by peer");
}

#[tokio::test]
async fn an_upstream_learns_that_the_client_has_failed() {
    let mut joined = Joined::new(NO_LIMITS).await;
    joined.client.set_zero_linger().expect("set");
    drop(joined.client);
    assert_eq!(receive_all(&mut joined.upstream).await, b"");
    let ended = joined.tunnel.await.expect("ended");
    assert!(matches!(ended.why, Why::ClientFailed(_)), "{:?}", ended.why);
}

/// The tunnel is polled by hand, so that what it holds can be seen.
#[tokio::test]
async fn a_client_that_does_not_read_costs_one_read() {
    let (client, client_side) = pair().await;
    let (upstream, upstream_side) = pair().await;
    // Otherwise the system would make them larger as time goes by.
    let (receiving, sending) = (SockRef::from(&client), SockRef::from(&client_side));
    receiving.set_recv_buffer_size(64 << 10).expect("set");
    sending.set_send_buffer_size(64 << 10).expect("set");
    let of_system =
        receiving.recv_buffer_size().expect("known") + sending.send_buffer_size().expect("known");
    let (client_side, upstream_side) = (side(client_side, b""), side(upstream_side, b""));
    let mut tunnel = Tunnel::new(client_side, upstream_side, NO_LIMITS);
    let stop = Stop::new(Duration::from_secs(5));
    let mut stopped = pin!(stop.departure());
    let mut poll = async |tunnel: &mut Tunnel| {
        let polled = poll_fn(|cx| Poll::Ready(tunnel.poll(cx, stopped.as_mut())));
        assert!(polled.await.is_pending());
        tokio::task::yield_now().await;
    };
    let piece = vec![7; 100_000];
    let mut blocked = 0;
    while blocked < 100 {
        let _ = upstream.try_write(&piece);
        poll(&mut tunnel).await;
        blocked = match tunnel.to_client.held() {
            0 => 0,
            _ => blocked + 1,
        };
    }
    let taken = tunnel.to_client.written() as usize + tunnel.to_client.held();
    assert!(taken <= of_system + LARGEST_READ, "{taken} bytes");
    // When it reads at last, nothing is kept.
    let mut received = vec![0; piece.len()];
    let mut left = taken;
    while left > 0 {
        left = left.saturating_sub(client.try_read(&mut received).unwrap_or(0));
        poll(&mut tunnel).await;
    }
    while tunnel.to_client.held() > 0 {
        let _ = client.try_read(&mut received);
        poll(&mut tunnel).await;
    }
}
