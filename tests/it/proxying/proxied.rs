//! The PROXY protocol (`doc/proxy-protocol.txt` of HAProxy) in front of the proxy and behind it.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::harness::client::{handshake, request};
use crate::harness::frame::{FIN, TEXT, masked};
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.8 4711 443\r\n";
const EMPTY: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

/// The same in version 2, with something behind the addresses.
fn binary() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 8, 0x12, 0x67, 0x01, 0xbb];
    let nothing = [0x04, 0, 2, 0, 0];
    let length = (addresses.len() + nothing.len()) as u8;
    [
        SIGNATURE,
        &[0x21, 0x11, 0, length],
        &addresses[..],
        &nothing,
    ]
    .concat()
}

async fn accepting(upstream: &Upstream) -> Proxy {
    Proxy::over(&[upstream.address()], &["--accept-proxy-protocol"]).await
}

/// Reads a line and its end, and nothing behind it.
async fn line(socket: &mut TcpStream) -> String {
    let mut line = vec![];
    while !line.ends_with(b"\r\n") {
        let byte = within_guard("a line", socket.read_u8()).await;
        line.push(byte.expect("a whole line"));
    }
    String::from_utf8(line).expect("it is text")
}

async fn bytes<const N: usize>(socket: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    let reading = socket.read_exact(&mut bytes);
    let read = within_guard("bytes", reading).await;
    read.expect("it is all there");
    bytes
}

#[tokio::test]
async fn the_client_is_who_the_header_says() {
    let upstream = Upstream::new();
    let proxy = accepting(&upstream).await;
    for header in [LINE.to_vec(), binary()] {
        let early = masked(FIN | TEXT, b"behind it");
        let mut client = proxy.client().await;
        // All at once, so that reading too much would be noticed.
        let handshake = handshake("/feed");
        client
            .send([&header, handshake.as_bytes(), &early].concat())
            .await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.header("x-forwarded-for"), Some("192.0.2.7"));
        asked.switch(b"").await;
        assert_eq!(client.head().await.status, 101);
        assert_eq!(asked.bytes(early.len()).await, early);
    }
}

#[tokio::test]
async fn a_header_without_addresses_leaves_the_client_as_it_is() {
    let upstream = Upstream::new();
    let proxy = accepting(&upstream).await;
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), local] {
        let mut client = proxy.client().await;
        client.send(header).await;
        client
            .send(request("GET / HTTP/1.1", &[("Host", "localhost")]))
            .await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
        // Without an answer it would be out.
        asked.send(EMPTY).await;
        assert_eq!(client.head().await.status, 204);
    }
}

#[tokio::test]
async fn without_a_header_there_is_no_answer() {
    let upstream = Upstream::new();
    let proxy = accepting(&upstream).await;
    let plain = request("GET / HTTP/1.1", &[("Host", "localhost")]);
    let wrong = [b"PROXY TCP4 192.0.2.7\r\n", plain.as_bytes()].concat();
    for (number, bytes) in [plain.into_bytes(), wrong].iter().enumerate() {
        let mut client = proxy.client().await;
        client.send(bytes).await;
        client.ended().await;
        let message = "no PROXY header, connection closed";
        proxy.logged_times(message, number + 1).await;
    }
}

/// Who has not asked for it must not be able to say who it is.
#[tokio::test]
async fn a_header_that_is_not_expected_is_a_bad_request() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    for header in [LINE.to_vec(), binary()] {
        let mut client = proxy.client().await;
        let request = request("GET / HTTP/1.1", &[("Host", "localhost")]);
        client.send([&header, request.as_bytes()].concat()).await;
        let head = client.try_head().await;
        assert!(head.is_none_or(|head| head.status == 400));
    }
}

#[tokio::test]
async fn an_upstream_is_told_who_the_client_is() {
    for version in ["v1", "v2"] {
        let upstream = Upstream::new();
        let args = ["--send-proxy-protocol", version];
        let proxy = Proxy::over(&[upstream.address()], &args).await;
        let mut client = proxy.client().await;
        let (own, there) = (client.address(), proxy.address);
        client.send(handshake("/feed")).await;
        let mut socket = upstream.accept_socket().await;
        if version == "v1" {
            let (own, there) = (own.port(), there.port());
            let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {there}\r\n");
            assert_eq!(line(&mut socket).await, expected);
        } else {
            let [own, there] = [own, there].map(|address| address.port().to_be_bytes());
            let (start, addresses): ([u8; 16], [u8; 12]) =
                (bytes(&mut socket).await, bytes(&mut socket).await);
            assert_eq!(start[..], [SIGNATURE, &[0x21, 0x11, 0, 12]].concat());
            let ips = [127, 0, 0, 1, 127, 0, 0, 1];
            assert_eq!(addresses[..], [&ips[..], &own, &there].concat());
        }
        let mut asked = Request::read(socket).await;
        asked.switch(b"").await;
        assert_eq!(client.head().await.status, 101);
    }
}

/// A connection that says whose it is cannot be anybody else's.
#[tokio::test]
async fn each_client_has_a_connection_that_says_so() {
    let upstream = Upstream::new();
    let args = ["--send-proxy-protocol", "v1"];
    let proxy = Proxy::over(&[upstream.address()], &args).await;
    for _ in 0..3 {
        let mut client = proxy.client().await;
        let own = client.address().port();
        let asking = request("GET / HTTP/1.1", &[("Host", "localhost")]);
        client.send(asking).await;
        let mut socket = upstream.accept_socket().await;
        let line = line(&mut socket).await;
        assert!(line.contains(&format!(" {own} ")), "{line}");
        let mut asked = Request::read(socket).await;
        asked
            .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        let head = client.head().await;
        assert_eq!(client.body(&head).await, "ok");
    }
}

#[tokio::test]
async fn two_proxies_understand_each_other() {
    for version in ["v1", "v2"] {
        let upstream = Upstream::new();
        let inner = accepting(&upstream).await;
        let args = ["--send-proxy-protocol", version, "--accept-proxy-protocol"];
        let outer = Proxy::over(&[inner.address], &args).await;
        let mut client = outer.client().await;
        client.send(LINE).await;
        client.send(handshake("/feed")).await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.header("x-forwarded-for"), Some("192.0.2.7"));
        asked.switch(b"").await;
        assert_eq!(client.head().await.status, 101);
    }
}
