//! The limits behind TLS, where a client can be told less.

use super::refusal;
use crate::harness::authority::Authority;
use crate::harness::client::Client;

#[tokio::test]
async fn who_never_finishes_a_handshake_is_let_go() {
    let authority = Authority::new();
    let (_link, hop) = authority.fed(&["--handshake-timeout", "200ms"]).await;
    // Nothing at all, and the header of a record of 512 bytes that do not come.
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = Client::connect(hop.address).await;
        client.send(begun).await;
        assert_eq!(client.rest().await, b"");
    }
    let line = hop.logged("request refused").await;
    assert_eq!(line.field("reason"), "no request has come in time");
    authority.subscribe(&hop).await;
}

#[tokio::test]
async fn a_request_must_come_as_a_whole_here_too() {
    let authority = Authority::new();
    let (_link, hop) = authority.fed(&["--handshake-timeout", "1s"]).await;
    let mut client = authority.client(None, &[]).connect(hop.address).await;
    client.send("GET / HTTP/1.1\r\n").await;
    assert_eq!(client.head().await.status, 408);
    refusal(&hop, "request refused", "408").await;
}

#[tokio::test]
async fn who_finds_no_room_finds_a_closed_door() {
    let authority = Authority::new();
    let (_link, hop) = authority.fed(&["--max-connections", "1"]).await;
    let _first = authority.subscribe(&hop).await;
    let mut second = Client::connect(hop.address).await;
    assert_eq!(second.rest().await, b"");
    refusal(&hop, "connection refused", "503").await;
}
