//! Memory is bounded by what the proxy wants, not by what an upstream sends.

use crate::harness::client::{Client, handshake, request};
use crate::harness::events::{MIB, bytes};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

/// How many MiB are sent: far more than the kernel holds, and than the proxy may.
const PIECES: usize = 256;
/// What the proxy may take for them. Its buffers are a fraction of it, but what they are cut from is a huge page each.
const MOST: usize = PIECES * MIB / 4;

/// Asks with little room for the answer, and takes it bit by bit while the upstream sends as fast as it can. Without an
/// `answer` it agrees to a WebSocket.
async fn read_slowly(asking: &str, answer: Option<String>) {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let client = Client::connect_with_buffer(proxy.address, 4 << 10).await;
    let mut client = client.read_at_most(4 << 10);
    client.send(asking).await;
    let mut asked = upstream.asked().await;
    let before = proxy.resident();
    let sending = tokio::spawn(async move {
        match answer {
            None => asked.switch(b"").await,
            Some(answer) => asked.send(answer).await,
        }
        let piece = bytes(MIB);
        for _ in 0..PIECES {
            asked.send(&piece).await;
        }
    });
    client.head().await;
    let (piece, mut most) = (bytes(MIB), 0);
    for _ in 0..PIECES {
        assert!(client.bytes(MIB).await == piece, "bytes differ");
        most = most.max(proxy.resident());
    }
    let sent = within_guard("the upstream's end", sending).await;
    sent.expect("it has sent everything");
    let grown = most.saturating_sub(before);
    assert!(grown < MOST, "{grown} bytes more than before");
}

#[tokio::test]
async fn a_slow_client_of_a_websocket_costs_little() {
    read_slowly(&handshake("/feed"), None).await;
}

#[tokio::test]
async fn a_slow_client_of_a_body_costs_little() {
    let asking = request("GET / HTTP/1.1", &[("Host", "localhost")]);
    let length = PIECES * MIB;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    read_slowly(&asking, Some(answer)).await;
}
