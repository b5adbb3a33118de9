//! Bodies and what is around them: they are streamed both ways, with interim answers before and trailers behind them.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::harness::client::{Client, request};
use crate::harness::http::{CHUNKED, EVENT_STREAM, Request, chunk};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;

const HOST: (&str, &str) = ("Host", "localhost");
const IN_CHUNKS: (&str, &str) = ("Transfer-Encoding", "chunked");
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// The same, and the connection is not kept.
const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    request(&format!("GET {path} HTTP/1.1"), &[HOST])
}

fn post(fields: &[(&str, &str)]) -> String {
    request("POST / HTTP/1.1", &[&[HOST], fields].concat())
}

async fn proxy() -> (Proxy, Upstream) {
    let upstream = Upstream::new();
    (Proxy::over(&[upstream.address()], &[]).await, upstream)
}

/// Reads `OK`.
async fn is_ok(client: &mut Client) {
    let head = client.head().await;
    assert_eq!((head.status, &*client.body(&head).await), (200, "ok"));
}

#[tokio::test]
async fn interim_answers_are_passed() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut asked = upstream.asked().await;
    for hint in ["</a.css>; rel=preload", "</b.js>; rel=preload"] {
        let hop = "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5";
        let early = format!("HTTP/1.1 103 Early Hints\r\nLink: {hint}\r\n{hop}\r\n\r\n");
        asked.send(early).await;
        // Each is here before the next one is sent.
        let lines = client.head_lines().await;
        assert_eq!(lines[0], "HTTP/1.1 103 Early Hints");
        assert_eq!(lines[1].to_ascii_lowercase(), format!("link: {hint}"));
        assert_eq!(lines.len(), 2, "{lines:?}");
    }
    asked.send("HTTP/1.1 102 Processing\r\n\r\n").await;
    assert_eq!(client.head().await.status, 102);
    asked.send(OK).await;
    is_ok(&mut client).await;
    // All at once, and on the same connections.
    client.send(get("/")).await;
    let mut asked = Request::read(asked.into_socket()).await;
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </c>\r\n\r\n".repeat(3);
    asked.send(early + OK).await;
    for _ in 0..3 {
        let head = client.head().await;
        assert_eq!((head.status, head.header("link")), (103, "</c>"));
    }
    is_ok(&mut client).await;
}

/// Who speaks HTTP/1.0 does not know them (RFC 9110, section 15.2).
#[tokio::test]
async fn a_client_of_http_1_0() {
    let (proxy, upstream) = proxy().await;
    for answer in [
        format!("HTTP/1.1 103 Early Hints\r\nlink: </c>\r\n\r\n{OK}"),
        format!("{CHUNKED}1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
        format!("{EVENT_STREAM}ok"),
    ] {
        let mut client = proxy.client().await;
        client.send(request("GET / HTTP/1.0", &[])).await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.line(), "GET / HTTP/1.1");
        // HTTP/1.1 must have one, and there is no other.
        assert_eq!(asked.header("host"), Some(&*upstream.address().to_string()));
        asked.send(answer).await;
        asked.half_close().await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("transfer-encoding"), "");
        // Its end is that of the body.
        assert_eq!(client.rest().await, b"ok");
    }
    // Some of them keep connections.
    let mut client = proxy.client().await;
    let keep = request("GET / HTTP/1.0", &[HOST, ("Connection", "keep-alive")]);
    for _ in 0..2 {
        client.send(&keep).await;
        upstream.asked().await.answer(LAST).await;
        let head = client.head().await;
        assert_eq!(head.header("connection"), "keep-alive");
        assert_eq!(client.bytes(2).await, b"ok");
    }
}

/// The client sends its body when the backend says so, and not before (RFC 9110, section 10.1.1).
#[tokio::test]
async fn the_backend_decides_whether_a_body_is_sent() {
    let (proxy, upstream) = proxy().await;
    for fields in [("Content-Length", "5"), IN_CHUNKS] {
        let mut client = proxy.client().await;
        client
            .send(post(&[("Expect", "100-continue"), fields]))
            .await;
        let mut asked = upstream.asked().await;
        assert_eq!(asked.header("expect"), Some("100-continue"));
        asked.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let lines = client.head_lines().await;
        assert_eq!(lines, ["HTTP/1.1 100 Continue"]);
        let body: &[u8] = match fields == IN_CHUNKS {
            true => b"5\r\nhello\r\n0\r\n\r\n",
            false => b"hello",
        };
        client.send(body).await;
        assert_eq!(asked.bytes(body.len()).await, body);
        asked.answer(LAST).await;
        is_ok(&mut client).await;
    }
}

#[tokio::test]
async fn a_backend_that_wants_no_body_gets_none() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client
        .send(post(&[("Expect", "100-continue"), ("Content-Length", "5")]))
        .await;
    let mut asked = upstream.asked().await;
    asked
        .send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno")
        .await;
    // The answer is the first thing that comes.
    let head = client.head().await;
    assert_eq!((head.status, &*client.body(&head).await), (417, "no"));
    // A body that does not come ends the connection, and that of the backend with it.
    client.half_close().await;
    asked.left().await;
}

/// Many servers do not say that they go on: the body is sent all the same after a while.
#[tokio::test]
async fn a_backend_that_does_not_say_so_gets_the_body() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client
        .send(post(&[("Expect", "100-continue"), ("Content-Length", "5")]))
        .await;
    let mut asked = upstream.asked().await;
    assert_eq!(client.head_lines().await, ["HTTP/1.1 100 Continue"]);
    client.send("hello").await;
    assert_eq!(asked.bytes(5).await, b"hello");
    asked.send(OK).await;
    is_ok(&mut client).await;
}

#[tokio::test]
async fn trailers_of_a_request() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(post(&[IN_CHUNKS, ("Trailer", "X-Sum")])).await;
    client.send("5\r\nhello\r\n0\r\nX-Sum: 532\r\n\r\n").await;
    let mut asked = upstream.asked().await;
    assert_eq!(asked.header("trailer"), Some("X-Sum"));
    let expected = "5\r\nhello\r\n0\r\nx-sum: 532\r\n\r\n";
    let bytes = asked.bytes(expected.len()).await;
    assert_eq!(
        String::from_utf8_lossy(&bytes).to_ascii_lowercase(),
        expected
    );
    asked.send(OK).await;
    is_ok(&mut client).await;
}

#[tokio::test]
async fn trailers_of_an_answer() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    let accepts = [HOST, ("TE", "trailers"), ("Connection", "TE")];
    client.send(request("GET / HTTP/1.1", &accepts)).await;
    let mut asked = upstream.asked().await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: X-Sum\r\n\r\n";
    asked
        .send(format!("{head}5\r\nhello\r\n0\r\nX-Sum: 532\r\n\r\n"))
        .await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("trailer")), (200, "X-Sum"));
    let expected = "5\r\nhello\r\n0\r\nx-sum: 532\r\n\r\n";
    let bytes = client.bytes(expected.len()).await;
    assert_eq!(
        String::from_utf8_lossy(&bytes).to_ascii_lowercase(),
        expected
    );
    // Both connections are good for more.
    client.send(get("/")).await;
    Request::read(asked.into_socket()).await.send(OK).await;
    is_ok(&mut client).await;
}

#[tokio::test]
async fn an_upload_is_passed_as_it_comes() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(post(&[IN_CHUNKS])).await;
    let mut asked = upstream.asked().await;
    for text in ["one", "another", "more"] {
        let chunk = chunk(text.as_bytes());
        client.send(&chunk).await;
        assert_eq!(asked.bytes(chunk.len()).await, chunk);
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(asked.bytes(5).await, b"0\r\n\r\n");
    asked.send(OK).await;
    is_ok(&mut client).await;
    // The same with a length.
    client.send(post(&[("Content-Length", "6")])).await;
    let mut asked = Request::read(asked.into_socket()).await;
    for text in ["one", "two"] {
        client.send(text).await;
        assert_eq!(asked.bytes(3).await, text.as_bytes());
    }
    asked.send(OK).await;
    is_ok(&mut client).await;
}

/// Both directions at once: what comes of the answer does not wait for the end of the upload.
#[tokio::test]
async fn an_answer_is_passed_as_it_comes() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(post(&[IN_CHUNKS])).await;
    let mut asked = upstream.asked().await;
    asked.send(CHUNKED).await;
    assert_eq!(client.head().await.status, 200);
    for text in ["one", "another", "more"] {
        let chunk = chunk(text.as_bytes());
        client.send(&chunk).await;
        assert_eq!(asked.bytes(chunk.len()).await, chunk);
        asked.send(&chunk).await;
        assert_eq!(client.bytes(chunk.len()).await, chunk);
    }
    asked.send("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}

/// Some answers have no body, whatever their heads say (RFC 9112, section 6.3); the next one is right behind them.
#[tokio::test]
async fn answers_without_a_body() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut asked = upstream.asked().await;
    for (method, answer, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
            "1000",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "",
        ),
        ("HEAD", "HTTP/1.1 404 Not Found\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n",
            "",
        ),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "0"),
    ] {
        asked.send(OK).await;
        is_ok(&mut client).await;
        client
            .send(request(&format!("{method} / HTTP/1.1"), &[HOST]))
            .await;
        asked = Request::read(asked.into_socket()).await;
        assert_eq!(asked.line(), format!("{method} / HTTP/1.1"));
        asked.send(answer).await;
        let head = client.head().await;
        let status = answer.split(' ').nth(1).map(str::parse);
        assert_eq!(status, Some(Ok(head.status)));
        assert_eq!(head.header("content-length"), length, "{method} {answer:?}");
        client.send(get("/")).await;
        asked = Request::read(asked.into_socket()).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    let body = post(&[("Content-Length", "5")]) + "hello";
    client.send([get("/1"), body, get("/3")].concat()).await;
    let mut asked = upstream.asked().await;
    for (line, body, answer) in [
        ("GET /1 HTTP/1.1", "", "one"),
        ("POST / HTTP/1.1", "hello", "two"),
        ("GET /3 HTTP/1.1", "", "three"),
    ] {
        assert_eq!(asked.line(), line);
        assert_eq!(asked.bytes(body.len()).await, body.as_bytes());
        let length = answer.len();
        asked
            .send(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(client.body(&head).await, answer);
        if answer == "three" {
            break;
        }
        asked = Request::read(asked.into_socket()).await;
    }
}

/// A connection to a backend serves whoever comes.
#[tokio::test]
async fn connections_to_a_backend_are_kept() {
    let (proxy, upstream) = proxy().await;
    let mut first = proxy.client().await;
    first.send(get("/")).await;
    let mut asked = upstream.asked().await;
    // A stream of events would end with its connections.
    let in_chunks = CHUNKED.replace("text/event-stream", "text/plain");
    for _ in 0..3 {
        asked.send(OK).await;
        is_ok(&mut first).await;
        for mut client in [proxy.client().await, proxy.client().await] {
            client.send(get("/other")).await;
            // Never by another connection: it would be waited for here in vain.
            asked = Request::read(asked.into_socket()).await;
            asked.send(format!("{in_chunks}2\r\nok\r\n0\r\n\r\n")).await;
            assert_eq!(client.head().await.status, 200);
            assert_eq!(client.bytes(12).await, b"2\r\nok\r\n0\r\n\r\n");
        }
        first.send(get("/")).await;
        asked = Request::read(asked.into_socket()).await;
    }
}

/// Has a connection kept for the next request: its end at the backend.
async fn kept(proxy: &Proxy, upstream: &Upstream) -> Request {
    let mut client = proxy.client().await;
    client.send(get("/first")).await;
    let mut asked = upstream.asked().await;
    asked.send(OK).await;
    is_ok(&mut client).await;
    asked
}

/// Reads a request from a kept connection, which ends then without an answer.
async fn cut_off(kept: Request, line: &str) {
    let asked = Request::read(kept.into_socket()).await;
    assert_eq!(asked.line(), line);
    drop(asked);
}

/// A backend that ends a kept connection may not have seen what has been sent on it (RFC 9110, section 9.2.2).
#[tokio::test]
async fn what_may_be_repeated_is_repeated_once() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let (proxy, upstream) = proxy().await;
        let before = kept(&proxy, &upstream).await;
        let mut client = proxy.client().await;
        let line = format!("{method} /again HTTP/1.1");
        client.send(request(&line, &[HOST])).await;
        cut_off(before, &line).await;
        let mut again = upstream.asked().await;
        assert_eq!(again.line(), line);
        assert_eq!(again.header("x-forwarded-for"), Some("127.0.0.1"));
        again
            .send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(proxy.count("upstream is out"), 0);
    }
}

#[tokio::test]
async fn what_may_not_be_repeated_is_a_bad_gateway() {
    for (method, fields, body) in [
        ("POST", &[("Content-Length", "5")][..], "hello"),
        ("POST", &[], ""),
        ("PUT", &[IN_CHUNKS], "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let (proxy, upstream) = proxy().await;
        let before = kept(&proxy, &upstream).await;
        let mut client = proxy.client().await;
        let line = format!("{method} /once HTTP/1.1");
        client
            .send(request(&line, &[&[HOST], fields].concat()) + body)
            .await;
        cut_off(before, &line).await;
        assert_eq!(client.head().await.status, 502);
        // What comes next at the backend is not that.
        client = proxy.client().await;
        client.send(get("/next")).await;
        assert_eq!(upstream.asked().await.line(), "GET /next HTTP/1.1");
    }
}

/// One that has ended while it waited is not used. Whether the proxy has noticed or not, nothing has been sent.
#[tokio::test]
async fn a_connection_that_has_ended_while_it_was_kept_costs_nothing() {
    let (proxy, upstream) = proxy().await;
    for _ in 0..20 {
        // The proxy may hear of the end before the request, behind it, or meanwhile.
        drop(kept(&proxy, &upstream).await);
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let asked = upstream.asked().await;
        assert_eq!(asked.line(), "GET / HTTP/1.1");
        asked.answer(LAST).await;
        is_ok(&mut client).await;
    }
}

/// A client that stops in the middle of its body is not the backend's fault, which has nothing to answer yet.
#[tokio::test]
async fn an_upload_that_does_not_go_on() {
    for args in [
        ["--answer-timeout", "200ms"],
        ["--client-idle-timeout", "200ms"],
    ] {
        let upstream = Upstream::new();
        let proxy = Proxy::over(&[upstream.address()], &args).await;
        for _ in 0..4 {
            let mut client = proxy.client().await;
            client.send(post(&[("Content-Length", "10")])).await;
            let mut asked = upstream.asked().await;
            client.send("hello").await;
            assert_eq!(asked.bytes(5).await, b"hello");
            let head = client.head().await;
            assert_eq!((head.status, head.header("connection")), (408, "close"));
            client.body(&head).await;
            client.ended().await;
            asked.left().await;
        }
        assert_eq!(proxy.logged_times("proxied", 4).await.number("status"), 408);
        assert_eq!(proxy.count("upstream is out"), 0);
    }
}

/// An answer may come before all of its request. Nobody wants the rest then, and the backend has its connection back.
#[tokio::test]
async fn an_answer_before_the_end_of_its_request() {
    let (proxy, upstream) = proxy().await;
    let mut client = proxy.client().await;
    client.send(post(&[("Content-Length", "10")])).await;
    let mut asked = upstream.asked().await;
    client.send("hello").await;
    assert_eq!(asked.bytes(5).await, b"hello");
    asked
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    asked.left().await;
    assert_eq!(client.head().await.status, 200);
}

/// `--answer-timeout` is for a backend that has all of a request, or takes nothing of it.
#[tokio::test]
async fn an_upload_takes_its_time() {
    let upstream = Upstream::new();
    let limit = Duration::from_secs(1);
    let proxy = Proxy::over(&[upstream.address()], &["--answer-timeout", "1s"]).await;
    let mut client = proxy.client().await;
    client.send(post(&[IN_CHUNKS])).await;
    let mut asked = upstream.asked().await;
    let piece = chunk(b"a piece");
    let begun = Instant::now();
    while begun.elapsed() < 3 * limit {
        // Not to keep others busy.
        sleep(limit / 100).await;
        client.send(&piece).await;
        assert_eq!(asked.bytes(piece.len()).await, piece);
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(asked.bytes(5).await, b"0\r\n\r\n");
    asked.send(OK).await;
    is_ok(&mut client).await;
}
