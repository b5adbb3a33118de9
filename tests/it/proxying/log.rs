//! The log: one line for each request when it is over, with what has become of it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::{handshake, request};
use crate::harness::frame::{FIN, TEXT, masked, unmasked};
use crate::harness::http::{CHUNKED, EVENT_STREAM, chunk};
use crate::harness::log::Line;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;

const HOST: (&str, &str) = ("Host", "localhost");

/// The fields that every line has, but for client, upstream and duration.
fn fields(line: &Line) -> Value {
    json!({
        "method": line.field("method"),
        "path": line.field("path"),
        "status": line.number("status"),
        "to_client": line.number("to_client"),
        "to_upstream": line.number("to_upstream"),
        "why": line.field("why"),
    })
}

async fn proxy() -> (Proxy, Upstream) {
    let upstream = Upstream::new();
    (Proxy::over(&[upstream.address()], &[]).await, upstream)
}

/// The line of a path.
async fn logged(proxy: &Proxy, path: &str) -> Line {
    proxy
        .logged_where("proxied", |line| line.field("path") == path)
        .await
}

#[tokio::test]
async fn a_websocket_is_one_line_at_its_end() {
    let (mut proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    let address = client.address();
    client.send(handshake("/feed?token=secret")).await;
    let mut asked = upstream.asked().await;
    let (up, down) = (masked(FIN | TEXT, b"up"), unmasked(FIN | TEXT, b"and down"));
    asked.switch(&down).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.bytes(down.len()).await, down);
    for _ in 0..3 {
        client.send(&up).await;
        assert_eq!(asked.bytes(up.len()).await, up);
    }
    // Nothing is said before the end.
    assert_eq!(proxy.count("proxied"), 0);
    client.half_close().await;
    asked.ended().await;
    asked.half_close().await;
    client.ended().await;
    let line = proxy.logged("proxied").await;
    assert_eq!(line.field("client"), address.to_string());
    assert_eq!(line.field("upstream"), upstream.address().to_string());
    assert!(!line.field("duration").is_empty());
    let expected = json!({
        "method": "GET",
        // The query may hold a secret.
        "path": "/feed",
        "status": 101,
        "to_client": down.len(),
        "to_upstream": 3 * up.len(),
        "why": "client gone without a Close",
    });
    assert_eq!(fields(&line), expected);
    proxy.signal(Signal::INT);
    proxy.exit().await;
    assert_eq!(proxy.count("proxied"), 1);
    assert!(!proxy.log.to_string().contains("secret"));
}

#[tokio::test]
async fn each_request_of_a_connection_has_its_own() {
    let (mut proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    let chunks = [CHUNKED.as_bytes(), &chunk(b"of five"), b"0\r\n\r\n"].concat();
    let rows: [(&str, &str, Vec<u8>, Value); 4] = [
        (
            "GET /ok HTTP/1.1",
            "",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes".into(),
            json!({"method": "GET", "path": "/ok", "status": 200, "to_client": 3, "to_upstream": 0}),
        ),
        (
            "POST /gone HTTP/1.1",
            "hello",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone".into(),
            json!({"method": "POST", "path": "/gone", "status": 404, "to_client": 4, "to_upstream": 5}),
        ),
        (
            "HEAD /head HTTP/1.1",
            "",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into(),
            json!({"method": "HEAD", "path": "/head", "status": 200, "to_client": 0, "to_upstream": 0}),
        ),
        // Content, without what is around it.
        (
            "GET /chunks HTTP/1.1",
            "",
            chunks,
            json!({"method": "GET", "path": "/chunks", "status": 200, "to_client": 7, "to_upstream": 0}),
        ),
    ];
    let count = rows.len();
    for (line, body, answer, mut expected) in rows {
        let length = body.len().to_string();
        let fields_sent = [HOST, ("Content-Length", &*length)];
        let fields_sent = &fields_sent[..if body.is_empty() { 1 } else { 2 }];
        client.send(request(line, fields_sent) + body).await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.bytes(body.len()).await, body.as_bytes());
        asked.answer(&answer).await;
        let body = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let body = &answer[body.expect("a head") + 4..];
        client.head().await;
        assert_eq!(client.bytes(body.len()).await, body);
        let logged = logged(&proxy, expected["path"].as_str().expect("a path")).await;
        expected["why"] = "complete".into();
        assert_eq!(fields(&logged), expected);
        assert_eq!(logged.field("client"), client.address().to_string());
        assert_eq!(logged.field("upstream"), upstream.address().to_string());
    }
    drop(client);
    proxy.signal(Signal::INT);
    proxy.exit().await;
    assert_eq!(proxy.count("proxied"), count);
}

#[tokio::test]
async fn without_an_upstream() {
    let gone = Upstream::away();
    let proxy = Proxy::over(&[gone.address()], &[]).await;
    for (path, asking) in [
        ("/feed", handshake("/feed")),
        ("/page", request("GET /page HTTP/1.1", &[HOST])),
    ] {
        let mut client = proxy.client().await;
        client.send(asking).await;
        assert_eq!(client.head().await.status, 503);
        let line = logged(&proxy, path).await;
        assert_eq!(line.field("upstream"), "none");
        let expected = json!({
            "method": "GET",
            "path": path,
            "status": 503,
            "to_client": 0,
            "to_upstream": 0,
            "why": "no upstream can take it",
        });
        assert_eq!(fields(&line), expected);
    }
}

#[tokio::test]
async fn an_answer_that_is_none() {
    for (number, asking) in [handshake("/0"), request("GET /1 HTTP/1.1", &[HOST])]
        .into_iter()
        .enumerate()
    {
        let (proxy, upstream) = proxy().await;
        let mut client = proxy.client().await;
        client.send(asking).await;
        upstream
            .asked()
            .await
            .answer("220 mail.example ESMTP\r\n")
            .await;
        assert_eq!(client.head().await.status, 502);
        let line = proxy.logged("proxied").await;
        assert_eq!(line.field("upstream"), upstream.address().to_string());
        assert_eq!(line.field("path"), format!("/{number}"));
        assert_eq!((line.number("status"), line.number("to_client")), (502, 0));
        assert!(
            !["", "complete"].contains(&&*line.field("why")),
            "{}",
            line.text
        );
    }
}

/// How an end that came too early is told: whose it was, and how much there was before.
#[tokio::test]
async fn a_client_or_an_upstream_that_goes_away() {
    let (proxy, upstream) = proxy().await;
    for (path, head) in [("/chunks", CHUNKED), ("/stream", EVENT_STREAM)] {
        let mut client = proxy.client().await;
        client
            .send(request(&format!("GET {path} HTTP/1.1"), &[HOST]))
            .await;
        let mut asked = upstream.asked().await;
        asked.send(head).await;
        asked.send(chunk(b"five!")).await;
        client.line_with("five!").await;
        client.reset();
        asked.left().await;
        let line = logged(&proxy, path).await;
        assert_eq!(
            (line.number("status"), &*line.field("why")),
            (200, "the client has gone")
        );
        assert!(line.number("to_client") >= 5, "{}", line.text);
    }
    let mut client = proxy.client().await;
    client.send(request("GET /cut HTTP/1.1", &[HOST])).await;
    let mut asked = upstream.asked().await;
    asked.send(CHUNKED).await;
    asked.send(chunk(b"five!")).await;
    client.line_with("five!").await;
    asked.reset();
    client.rest().await;
    let line = logged(&proxy, "/cut").await;
    assert_eq!((line.number("status"), line.number("to_client")), (200, 5));
    assert!(
        line.field("why").starts_with("the upstream has broken off"),
        "{}",
        line.text
    );
    // One that never got an answer.
    let mut client = proxy.client().await;
    client.send(request("GET /early HTTP/1.1", &[HOST])).await;
    let asked = upstream.asked().await;
    client.reset();
    asked.left().await;
    let line = logged(&proxy, "/early").await;
    assert_eq!(
        (line.number("status"), &*line.field("why")),
        (0, "the client has gone")
    );
}

/// What is refused has not been at any upstream.
#[tokio::test]
async fn a_refusal() {
    let (proxy, _upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(request("TRACE /trace HTTP/1.1", &[HOST])).await;
    assert_eq!(client.head().await.status, 405);
    let line = proxy.logged("proxied").await;
    assert_eq!(
        (line.number("status"), &*line.field("why")),
        (405, "refused")
    );
    assert_eq!(line.field("upstream"), "none");
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\nHost: localhost\n\n").await;
    assert_eq!(client.head().await.status, 400);
    let line = proxy.logged("request refused").await;
    assert_eq!(line.number("status"), 400);
    assert_eq!(line.field("client"), client.address().to_string());
    assert!(!line.field("reason").is_empty());
}
