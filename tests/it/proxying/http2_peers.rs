//! Clients of HTTP/2 that nobody here wrote: curl, Python's httpx, and Node's http2, with WebSockets (RFC 8441) as well.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::tls::Certificate;
use crate::harness::client::handshake;
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer, curl};

/// The head of an answer over HTTP/2, as curl shows it, and the body.
#[track_caller]
fn parts(answer: &str) -> (&str, &str) {
    answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[tokio::test]
async fn curl_asks_and_uploads() {
    let certificate = Certificate::new();
    let upstream = Upstream::new();
    let plain = Proxy::over(&[upstream.address()], &[]).await;
    let secure = certificate.proxy(&upstream).await;
    let ca = certificate.file("cert.pem");
    let urls = [
        format!("http://{}/page", plain.address),
        format!("https://localhost:{}/page", secure.address.port()),
    ];
    for (url, args) in urls.iter().zip([
        &["--http2-prior-knowledge"][..],
        &["--http2", "--cacert", &ca],
    ]) {
        let asking = async {
            let asking = [
                args,
                &["--data-binary", "a body", "--header", "X-Own: 1", url],
            ]
            .concat();
            curl(&asking).await
        };
        let (answer, ()) = tokio::join!(asking, async {
            let mut asked = upstream.asked().await;
            assert_eq!(asked.line(), "POST /page HTTP/1.1");
            let host = url.split('/').nth(2);
            assert_eq!(asked.header("host"), host);
            assert_eq!(asked.header("via"), Some("2 wsevent"));
            assert_eq!(asked.header("x-forwarded-proto"), url.split(':').next());
            assert_eq!(
                (asked.header("x-own"), asked.header("connection")),
                (Some("1"), None)
            );
            assert_eq!(asked.header("content-length"), Some("6"));
            assert_eq!(asked.bytes(6).await, b"a body");
            let head = "HTTP/1.1 201 Created\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nX-Of: the backend\r\nContent-Length: 4\r\n\r\n";
            asked.answer([head, "done"].concat()).await;
        });
        let (head, body) = parts(&answer);
        assert!(head.starts_with("HTTP/2 201"), "{answer}");
        assert!(head.contains("\r\nx-of: the backend"), "{answer}");
        assert!(head.contains("\r\nvia: 1.1 wsevent"), "{answer}");
        // RFC 9113, section 8.2.2.
        assert!(
            !head.contains("connection") && !head.contains("keep-alive"),
            "{answer}"
        );
        assert_eq!(body, "done");
    }
}

async fn reads_many_streams_on_one_connection(language: Language) {
    const STREAMS: usize = 50;
    let (mut link, hop) = Hop::fed(&[]).await;
    let proxy = Proxy::over(&[hop.address], &[]).await;
    let url = format!("http://{}/events", proxy.address);
    let args = [&*url, &STREAMS.to_string()];
    let mut client = Peer::start(language, "http2", &args);
    assert!(client.says().await["index"]["instance"].is_string());
    let expected = json!({"version": "HTTP/2", "connections": 1});
    assert_eq!(client.says().await, expected);
    let texts: Vec<_> = (0..50)
        .map(|number| format!("{number} {}", "x".repeat(2_000)))
        .collect();
    for text in &texts {
        link.send(Message::text(text)).await;
    }
    link.send(Message::text("end")).await;
    for _ in 0..STREAMS {
        assert!(client.says().await["texts"] == json!(texts));
    }
    // The index, and all of the streams: their client has left them in the middle.
    proxy.logged_times("proxied", STREAMS + 1).await;
    hop.logged_times("subscriber disconnected", STREAMS).await;
}

#[tokio::test]
async fn httpx_reads_many_streams_on_one_connection() {
    reads_many_streams_on_one_connection(Language::Python).await;
}

/// It reads each stream while others wait for their answers, and lets the proxy send far less at a time.
#[tokio::test]
async fn node_reads_many_streams_on_one_connection() {
    reads_many_streams_on_one_connection(Language::Node).await;
}

/// Node's client, connected, and what it says of that.
async fn node(args: &[&str]) -> (Peer, Value) {
    let mut node = Peer::start(Language::Node, "http2_websocket", args);
    let settings = node.says().await;
    assert_eq!(settings["enableConnectProtocol"], true);
    (node, settings)
}

/// Opens a WebSocket: the backend's end of it.
async fn opened(node: &mut Peer, number: usize, upstream: &Upstream) -> Link {
    node.tell(&format!("open /feed/{number}?a=1")).await;
    let link = upstream.accept().await;
    assert_eq!(link.request.uri(), &*format!("/feed/{number}?a=1"));
    assert_eq!(link.header("sec-websocket-protocol"), "chat");
    assert_eq!(link.header("via"), "2 wsevent");
    let expected = json!({"number": number, "status": 200, "protocol": null});
    assert_eq!(node.says().await, expected);
    link
}

fn text(number: usize, text: &str) -> Value {
    json!({"number": number, "kind": "text", "length": text.len(), "start": &text[..text.len().min(20)]})
}

#[tokio::test]
async fn nodes_websockets_share_a_connection() {
    let certificate = Certificate::new();
    let upstream = Upstream::new();
    let plain = Proxy::over(&[upstream.address()], &[]).await;
    let secure = certificate.proxy(&upstream).await;
    let origins = [
        format!("http://{}", plain.address),
        format!("https://localhost:{}", secure.address.port()),
    ];
    let ca = certificate.file("cert.pem");
    for (proxy, args) in [
        (&plain, &[&*origins[0]][..]),
        (&secure, &[&origins[1], &ca]),
    ] {
        let (mut node, settings) = node(args).await;
        assert_eq!(
            settings["protocol"],
            if args.len() == 1 { "h2c" } else { "h2" }
        );
        let mut links = vec![];
        for number in 0..3 {
            links.push(opened(&mut node, number, &upstream).await);
        }
        let large = "x".repeat(1 << 20);
        for (number, link) in links.iter_mut().enumerate() {
            node.tell(&format!("send {number} é ✓ 𝄞 {number}")).await;
            assert_eq!(
                link.receive().await,
                Message::text(format!("é ✓ 𝄞 {number}"))
            );
            for message in ["", "plain", &large] {
                link.send(Message::text(message)).await;
                assert_eq!(node.says().await, text(number, message));
            }
        }
        // Ended by the client, by the backend, and not at all.
        let mut link = links.remove(0);
        node.tell("close 0").await;
        assert_eq!(link.close_code().await, Some(4001));
        link.closed().await;
        assert_eq!(node.says().await, json!({"number": 0, "closed": 4001}));
        let mut link = links.remove(0);
        let close = CloseFrame {
            code: CloseCode::Away,
            reason: "".into(),
        };
        link.send(Message::Close(Some(close))).await;
        link.closed().await;
        assert_eq!(node.says().await, json!({"number": 1, "closed": 1001}));
        links[0].send(Message::text("still there")).await;
        assert_eq!(node.says().await, text(2, "still there"));
        let line = proxy
            .logged_where("proxied", |line| line.field("path") == "/feed/0")
            .await;
        assert_eq!(
            (line.number("status"), &*line.field("method")),
            (200, "CONNECT")
        );
        assert!(
            line.number("to_client") > large.len() as u64,
            "{}",
            line.text
        );
    }
}

/// What a backend answers to a handshake instead is passed as it is, and others on the connection go on.
#[tokio::test]
async fn node_is_told_that_a_backend_refuses() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let (mut node, _) = node(&[&format!("http://{}", proxy.address)]).await;
    let mut link = opened(&mut node, 0, &upstream).await;
    node.tell("open /gone").await;
    let answer = "HTTP/1.1 404 Not Found\r\nx-of: the backend\r\ncontent-length: 4\r\n\r\ngone";
    upstream.asked().await.answer(answer).await;
    let expected = json!({"number": 1, "status": 404, "of": "the backend", "body": "gone"});
    assert_eq!(node.says().await, expected);
    link.send(Message::text("still there")).await;
    assert_eq!(node.says().await, text(0, "still there"));
}

/// A stop is GOAWAY for the connection (RFC 9113, section 6.8), and Close 1001 for each WebSocket on it.
#[tokio::test]
async fn node_is_told_that_the_proxy_stops() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::over(&[upstream.address()], &[]).await;
    let (mut node, _) = node(&[&format!("http://{}", proxy.address)]).await;
    let mut links = [
        opened(&mut node, 0, &upstream).await,
        opened(&mut node, 1, &upstream).await,
    ];
    proxy.signal(Signal::INT);
    let mut said = vec![];
    while said.last() != Some(&json!({"session": "closed"})) {
        said.push(node.says().await);
    }
    for number in 0..links.len() {
        assert!(
            said.contains(&json!({"number": number, "closed": 1001})),
            "{said:?}"
        );
    }
    assert!(said.contains(&json!({"goaway": 0})), "{said:?}");
    for link in &mut links {
        assert_eq!(link.close_code().await, Some(1001));
    }
    assert_eq!(proxy.exit().await.code(), Some(0));
}

/// A client that offers both gets HTTP/2, and one that does not gets HTTP/1.1, on one port and without TLS as well.
#[tokio::test]
async fn both_versions_on_one_port() {
    let backend = Backend::start("backend");
    let proxy = Proxy::over(&[backend.address], &[]).await;
    let url = format!("http://{}/", proxy.address);
    for (version, expected) in [
        ("--http2-prior-knowledge", "HTTP/2 200"),
        ("--http1.1", "HTTP/1.1 200"),
    ] {
        let answer = curl(&[version, &url]).await;
        assert!(answer.starts_with(expected), "{answer}");
        assert!(answer.ends_with("backend"), "{answer}");
    }
    // Asking for it by an upgrade is a request of HTTP/1.1.
    let answer = curl(&["--http2", &url]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut client = proxy.client().await;
    client.send(handshake("/feed")).await;
    assert_eq!(client.head().await.status, 101);
}
