//! Two sockets that are joined: every byte arrives, in both directions, up to the end of each.

use crate::harness::client::handshake;
use crate::harness::events::{MIB, bytes};
use crate::harness::frame::{BINARY, FIN, TEXT, masked, unmasked};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;

/// A proxy in front of one upstream that the test answers for.
async fn proxy() -> (Proxy, Upstream) {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    (proxy, upstream)
}

#[tokio::test]
async fn what_is_sent_behind_the_handshake_arrives() {
    let (proxy, upstream) = proxy().await;
    let early = masked(FIN | TEXT, b"sent before the answer");
    let late = unmasked(FIN | TEXT, b"sent with the answer");
    let mut client = proxy.client().await;
    client
        .send([handshake("/feed").as_bytes(), &early].concat())
        .await;
    let mut request = upstream.asked().await;
    request.switch(&late).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.bytes(late.len()).await, late);
    assert_eq!(request.bytes(early.len()).await, early);
}

#[tokio::test]
async fn much_of_it_arrives_as_well() {
    let (proxy, upstream) = proxy().await;
    // More than a request's head may be long.
    let early = masked(FIN | BINARY, &bytes(MIB));
    let mut client = proxy.client().await;
    let sending = async {
        client
            .send([handshake("/feed").as_bytes(), &early].concat())
            .await;
    };
    let receiving = async {
        let mut request = upstream.asked().await;
        request.switch(b"").await;
        assert!(request.bytes(early.len()).await == early, "bytes differ");
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn both_directions_are_independent() {
    const LEN: usize = 8 * MIB;
    let (proxy, upstream) = proxy().await;
    let (mut client, request) = proxy.joined(&upstream).await;
    let (down, up) = (bytes(LEN), bytes(LEN + 1));
    let (mut from, mut to) = request.into_socket().into_split();
    let sending = async {
        use tokio::io::AsyncWriteExt;
        to.write_all(&down).await.expect("the proxy reads");
    };
    let receiving = async {
        use tokio::io::AsyncReadExt;
        let mut got = vec![0; up.len()];
        from.read_exact(&mut got).await.expect("the proxy writes");
        assert!(got == up, "bytes differ on the way up");
    };
    let playing = async {
        client.send(&up).await;
        assert!(
            client.bytes(LEN).await == down,
            "bytes differ on the way down"
        );
    };
    tokio::join!(sending, receiving, playing);
}

#[tokio::test]
async fn a_client_that_has_ended_its_direction_still_gets_what_comes() {
    let (proxy, upstream) = proxy().await;
    let (mut client, mut request) = proxy.joined(&upstream).await;
    client.send(b"the last words").await;
    client.half_close().await;
    assert_eq!(request.bytes(14).await, b"the last words");
    request.ended().await;
    let answer = unmasked(FIN | TEXT, b"the answer to them");
    request.send(&answer).await;
    assert_eq!(client.bytes(answer.len()).await, answer);
    drop(request);
    client.ended().await;
}

#[tokio::test]
async fn an_upstream_that_has_ended_its_direction_still_gets_what_comes() {
    let (proxy, upstream) = proxy().await;
    let (mut client, mut request) = proxy.joined(&upstream).await;
    let last = unmasked(FIN | TEXT, b"the last words");
    request.send(&last).await;
    request.half_close().await;
    assert_eq!(client.bytes(last.len()).await, last);
    client.ended().await;
    client.send(b"the answer to them").await;
    assert_eq!(request.bytes(18).await, b"the answer to them");
    client.half_close().await;
    request.ended().await;
}

#[tokio::test]
async fn a_crash_of_one_side_is_an_end_for_the_other() {
    let (proxy, upstream) = proxy().await;
    let (mut client, request) = proxy.joined(&upstream).await;
    request.reset();
    client.ended().await;
    let (client, request) = proxy.joined(&upstream).await;
    client.reset();
    request.left().await;
}
