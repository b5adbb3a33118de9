//! How connections end that nobody has ended: the proxy stops, or they are old.

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::frame::{CLOSE, FIN, TEXT, unmasked};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;

/// RFC 6455, section 7.4.1.
const GOING_AWAY: u16 = 1001;

#[tokio::test]
async fn a_websocket_is_told_that_the_proxy_stops() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::over(&[upstream.address()], &[]).await;
    let (mut client, mut asked) = proxy.joined(&upstream).await;
    let event = unmasked(FIN | TEXT, b"an event");
    asked.send(&event).await;
    assert_eq!(client.bytes(event.len()).await, event);
    proxy.signal(Signal::INT);
    let (frames, code, _) = client.until_close().await;
    assert!(frames.is_empty());
    assert_eq!(code, GOING_AWAY);
    client.answer_close(code).await;
    // The client's answer, which is masked.
    assert_eq!(asked.bytes(2).await, [FIN | CLOSE, 0x82]);
    let status = proxy.exit().await;
    assert_eq!(status.code(), Some(0));
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

#[tokio::test]
async fn within_a_frame_nothing_is_put() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &["--drain", "300ms"]).await;
    let (mut client, mut asked) = proxy.joined(&upstream).await;
    let event = unmasked(FIN | TEXT, b"an event");
    let half = &event[..event.len() / 2];
    asked.send(half).await;
    assert_eq!(client.bytes(half.len()).await, half);
    proxy.signal(Signal::INT);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_frame_that_is_finished_in_time_comes_before_the_close() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &["--drain", "60s"]).await;
    let (mut client, mut asked) = proxy.joined(&upstream).await;
    let event = unmasked(FIN | TEXT, b"an event");
    let (first, second) = event.split_at(event.len() / 2);
    asked.send(first).await;
    assert_eq!(client.bytes(first.len()).await, first);
    proxy.signal(Signal::INT);
    proxy.logged("stopping").await;
    asked.send(second).await;
    assert_eq!(client.bytes(second.len()).await, second);
    assert_eq!(client.closed().await, GOING_AWAY);
}

#[tokio::test]
async fn an_old_websocket_is_told_to_come_again() {
    let upstream = Upstream::new();
    let args = ["--max-connection-age", "300ms"];
    let proxy = Proxy::over(&[upstream.address()], &args).await;
    let (client, _asked) = proxy.joined(&upstream).await;
    assert_eq!(client.closed().await, GOING_AWAY);
    // Others may come.
    let (client, _asked) = proxy.joined(&upstream).await;
    assert_eq!(client.closed().await, GOING_AWAY);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go_if_that_is_wanted() {
    let upstream = Upstream::new();
    let args = ["--client-idle-timeout", "300ms"];
    let proxy = Proxy::over(&[upstream.address()], &args).await;
    let (client, _asked) = proxy.joined(&upstream).await;
    client.closed().await;
}

#[tokio::test]
async fn who_has_said_nothing_yet_holds_nothing_up() {
    let upstream = Upstream::new();
    let args = ["--accept-proxy-protocol", "--drain", "1h"];
    let mut proxy = Proxy::over(&[upstream.address()], &args).await;
    let _silent = proxy.client().await;
    // One that came behind it has been seen, so it has been accepted.
    let mut wrong = proxy.client().await;
    wrong.send("no header").await;
    wrong.ended().await;
    proxy.signal(Signal::INT);
    let status = proxy.exit().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(proxy.count("stopped before all"), 0, "{}", proxy.log);
}
