//! Requests that two readers could take for different ones, or that are none: they are refused, and nothing of them reaches a
//! backend (RFC 9112, section 11.2). Meanwhile others are served.

use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

/// What must not be taken for a request of its own.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// What a connection says that is the last one of a test.
const LAST: &str = "this is the last one";
/// A body that is one for a reader of chunks and for a reader of a length.
const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";

/// A backend that keeps all bytes that it gets, and answers those who ask for `/good`.
struct Recorder {
    proxy: Proxy,
    address: SocketAddr,
    recording: JoinHandle<Vec<String>>,
    good: Client,
}

impl Recorder {
    async fn start() -> Self {
        let upstream = Upstream::new();
        let address = upstream.address();
        let proxy = Proxy::over(&[address], &[]).await;
        Self {
            good: proxy.client().await,
            proxy,
            address,
            recording: tokio::spawn(record_all(upstream)),
        }
    }

    /// Somebody else is served.
    async fn serves_others(&mut self) {
        let (head, body) = self.good.get("/good", &[]).await;
        assert_eq!((head.status, &*body), (200, "good"));
    }

    /// Ends the proxy, in order, and with it all connections: what has come on each of those.
    async fn end(mut self) -> Vec<String> {
        drop(self.good);
        self.proxy.signal(Signal::INT);
        assert_eq!(self.proxy.exit().await.code(), Some(0));
        let mut last = TcpStream::connect(self.address).await.expect("it listens");
        last.write_all(LAST.as_bytes()).await.expect("it reads");
        drop(last);
        let recorded = within_guard("the ends of all connections", self.recording).await;
        recorded.expect("nothing is wrong with the recorder")
    }
}

/// What comes on each connection up to its end, until one says that it is the last: all before it have been accepted then.
async fn record_all(upstream: Upstream) -> Vec<String> {
    let mut recording = JoinSet::new();
    let mut recorded = vec![];
    loop {
        tokio::select! {
            socket = upstream.next_socket() => drop(recording.spawn(record(socket))),
            Some(one) = recording.join_next() => match one.expect("nothing is wrong with it") {
                last if last == LAST => break,
                one => recorded.push(one),
            }
        }
    }
    recorded.extend(recording.join_all().await);
    recorded
}

async fn record(mut socket: TcpStream) -> String {
    let mut bytes = vec![];
    // A reset is an end as well.
    while let Ok(1..) = socket.read_buf(&mut bytes).await {
        let last = bytes.windows(5).rposition(|window| window == b"GET /");
        if last.is_some_and(|last| bytes[last..].starts_with(b"GET /good "))
            && bytes.ends_with(b"\r\n\r\n")
        {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
            let answering = socket.write_all(answer.as_bytes()).await;
            answering.expect("the proxy reads");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A request with a body that has these lines in its head.
fn post(lines: &str) -> String {
    format!("POST /hostile HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{BODY}")
}

/// One without a body.
fn get(lines: &str) -> String {
    format!("GET /hostile HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n")
}

/// Lengths and codings that leave open where the body ends.
fn framing() -> Vec<(String, u16)> {
    let wrong = [
        "Content-Length: 15\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 15",
        "Transfer-Encoding: chunked\r\ncontent-length: 0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\u{b}: chunked",
        "Transfer-Encoding: \u{b}chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding:\r\n chunked",
        "X: a\r\n\tTransfer-Encoding: chunked",
        "X: a\nTransfer-Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\0",
        "Content-Length: 15\r\nContent-Length: 15",
        "Content-Length: 15\r\nContent-Length: 5",
        "Content-Length: 15, 15",
        "Content-Length: +15",
        "Content-Length: -15",
        "Content-Length: 0xf",
        "Content-Length: 1 5",
        "Content-Length: 15;",
        "Content-Length:",
        "Content-Length: 18446744073709551631",
        "Content-Length : 15",
        "Content-Length: 15\r\n ",
    ];
    let unknown = [
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
    ];
    let wrong = wrong.map(|lines| (post(lines), 400));
    let unknown = unknown.map(|lines| (post(lines), 501));
    let old = "POST /hostile HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let old = (format!("{old}{BODY}"), 400);
    [&wrong[..], &unknown, &[old]].concat()
}

/// Heads that are wrong in other ways.
fn heads() -> Vec<(String, u16)> {
    let wrong = [
        "X: a\r\n b",
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\0b",
        "X\0: a",
        "X: a\u{7f}b",
        "X y: a",
        "X",
        ": a",
        "X(: a",
        "\u{e9}: a",
        "Host: localhost",
        "host: other.example",
    ];
    let lines = [
        ("GET /hostile", 400),
        ("GET /hostile HTTP/3.0", 505),
        ("GET /hostile HTTP/2.0", 505),
        ("GET /hostile HTTP/0.9", 505),
        ("GET /hostile HTTP/1.10", 400),
        ("GET /hostile http/1.1", 400),
        ("GET /hostile HTTP/1.1 ", 400),
        ("GET  /hostile HTTP/1.1", 400),
        ("GET\t/hostile HTTP/1.1", 400),
        ("GET /hostile /more HTTP/1.1", 400),
        ("GET /hostile\0 HTTP/1.1", 400),
        (" GET /hostile HTTP/1.1", 400),
        ("G(T /hostile HTTP/1.1", 400),
        ("/hostile", 400),
        ("\u{16}\u{3}\u{1}\0\u{5}\u{1}", 400),
    ];
    let large = format!("X: {}", "x".repeat(100 << 10));
    let many = "X: a\r\n".repeat(200) + "Y: b";
    let long = format!("GET /hostile{} HTTP/1.1", "x".repeat(100 << 10));
    let mut rows: Vec<_> = wrong.map(|lines| (get(lines), 400)).into();
    let host = [("Host", "localhost")];
    rows.extend(lines.map(|(line, status)| (request(line, &host), status)));
    rows.extend([
        (get(&large), 431),
        (get(&many), 431),
        (request(&long, &host), 431),
    ]);
    let bare = "GET /hostile HTTP/1.1\nHost: localhost\n\n".to_owned();
    rows.push((bare, 400));
    for body in [("Content-Length", "15"), ("Transfer-Encoding", "chunked")] {
        let handshake = request("GET /hostile HTTP/1.1", &[&HANDSHAKE[..], &[body]].concat());
        rows.push((handshake + BODY, 400));
    }
    rows
}

/// Each in one piece and byte by byte, with a request behind it that must not be seen.
async fn are_refused(rows: Vec<(String, u16)>) {
    let mut recorder = Recorder::start().await;
    for (bytes, status) in rows {
        // Many bytes are not sent one by one.
        let by_byte = bytes.len() < 1_000;
        for len in [usize::MAX].into_iter().chain(by_byte.then_some(1)) {
            let shown = format!("{:.200} in pieces of {len}", bytes.escape_debug());
            let mut client = recorder.proxy.client().await;
            let all = [&*bytes, HIDDEN].concat();
            for piece in all.as_bytes().chunks(len) {
                // It need not be read to its end.
                if client.try_send(piece).await.is_err() {
                    break;
                }
            }
            recorder.serves_others().await;
            let head = client.try_head().await;
            let head = head.unwrap_or_else(|| panic!("no answer to {shown}"));
            assert_eq!(head.status, status, "{shown}");
            assert_eq!(head.header("connection"), "close", "{shown}");
            client.body(&head).await;
            assert_eq!(client.rest().await, b"", "{shown}");
        }
    }
    for received in recorder.end().await {
        let requests = received.matches(" HTTP/1.1\r\n").count();
        assert_eq!(
            requests,
            received.matches("GET /good HTTP/1.1\r\n").count(),
            "{received}"
        );
    }
}

#[tokio::test]
async fn where_a_body_ends_must_be_certain() {
    are_refused(framing()).await;
}

#[tokio::test]
async fn heads_that_are_none() {
    are_refused(heads()).await;
}

/// Such a request is refused for what it says, and where it ends is certain: the next one is served.
#[tokio::test]
async fn what_is_not_passed_on_costs_no_connection() {
    let rows = [
        ("GET /hostile HTTP/1.1", &[][..], 400),
        ("GET /hostile HTTP/1.1", &[("Host", "a b")], 400),
        ("GET /hostile HTTP/1.1", &[("Host", "user@a")], 400),
        ("GET /hostile HTTP/1.1", &[("Host", "a/hostile")], 400),
        ("GET hostile HTTP/1.1", &[("Host", "localhost")], 400),
        (
            "GET ftp://a.example/hostile HTTP/1.1",
            &[("Host", "localhost")],
            400,
        ),
        (
            "GET http://user@a.example/hostile HTTP/1.1",
            &[("Host", "localhost")],
            400,
        ),
        ("GET * HTTP/1.1", &[("Host", "localhost")], 400),
        ("TRACE /hostile HTTP/1.1", &[("Host", "localhost")], 405),
    ];
    let mut recorder = Recorder::start().await;
    let mut client = recorder.proxy.client().await;
    for (line, headers, status) in rows {
        client.send(request(line, headers)).await;
        recorder.serves_others().await;
        let head = client.head().await;
        assert_eq!(head.status, status, "{line} {headers:?}");
        client.body(&head).await;
        let (head, body) = client.get("/good", &[]).await;
        assert_eq!((head.status, &*body), (200, "good"));
    }
    drop(client);
    for received in recorder.end().await {
        assert!(!received.contains("hostile"), "{received}");
    }
}

/// What is behind it may be meant for somebody else.
#[tokio::test]
async fn nothing_is_read_behind_a_connect() {
    let mut recorder = Recorder::start().await;
    let mut client = recorder.proxy.client().await;
    let connect = request("CONNECT localhost:80 HTTP/1.1", &[("Host", "localhost:80")]);
    client.send(connect + HIDDEN).await;
    recorder.serves_others().await;
    let head = client.head().await;
    assert_eq!(head.status, 405);
    client.body(&head).await;
    assert_eq!(client.rest().await, b"");
    for received in recorder.end().await {
        assert!(!received.contains("hidden"), "{received}");
    }
}

/// The head of such a request is good, and may have been passed on; its body is never whole for the backend.
#[tokio::test]
async fn bodies_that_are_broken() {
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(10_000));
    let trailers = format!("0\r\n{}\r\n", "X: a\r\n".repeat(10_000));
    let bodies = [
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
        "5\r\nhello\r\n0\r\nno field\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\n\n",
        "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: other.example\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
        &extension,
        &trailers,
    ];
    let mut recorder = Recorder::start().await;
    for body in bodies {
        let mut client = recorder.proxy.client().await;
        let headers = [("Host", "localhost"), ("Transfer-Encoding", "chunked")];
        let head = request("POST /hostile HTTP/1.1", &headers);
        // It need not be read to its end.
        let _ = client.try_send([&*head, body, HIDDEN].concat()).await;
        recorder.serves_others().await;
        let shown = format!("{:.200}", body.escape_debug());
        let head = client.try_head().await;
        let head = head.unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!(head.status, 400, "{shown}");
        client.body(&head).await;
        assert_eq!(client.rest().await, b"", "{shown}");
    }
    for received in recorder.end().await {
        assert!(!received.contains("0\r\n\r\n"), "{received}");
        assert!(!received.contains("hidden"), "{received}");
    }
}

/// What has been asked before is answered before it is refused.
#[tokio::test]
async fn a_refusal_waits_for_its_turn() {
    let mut recorder = Recorder::start().await;
    let mut client = recorder.proxy.client().await;
    let good = request("GET /good HTTP/1.1", &[("Host", "localhost")]);
    let hostile = post("Content-Length: 5\r\nTransfer-Encoding: chunked");
    client
        .send([&*good, &*good, &*hostile, HIDDEN].concat())
        .await;
    recorder.serves_others().await;
    for _ in 0..2 {
        let head = client.head().await;
        assert_eq!((head.status, &*client.body(&head).await), (200, "good"));
    }
    let head = client.head().await;
    assert_eq!(head.status, 400);
    client.body(&head).await;
    assert_eq!(client.rest().await, b"");
    for received in recorder.end().await {
        assert!(
            !received.contains("hostile") && !received.contains("hidden"),
            "{received}"
        );
    }
}

/// A tab is as good as a space in front of a value and behind it (RFC 9110, section 5.5): the backend gets neither.
#[tokio::test]
async fn odd_but_certain() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    for (lines, body) in [
        (
            "Transfer-Encoding:\tchunked\t",
            "5;a=\"b\"\r\nhello\r\n000\r\n\r\n",
        ),
        ("transfer-encoding:CHUNKED", "05\r\nhello\r\n0;last\r\n\r\n"),
        ("Content-Length:\t005 ", "hello"),
    ] {
        let mut client = proxy.client().await;
        let head = format!("\r\nPOST /odd HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n");
        client.send(head + body).await;
        let mut asked = upstream.asked().await;
        match asked.header("transfer-encoding") {
            Some(coding) => {
                assert!(
                    coding.eq_ignore_ascii_case("chunked"),
                    "{:?}",
                    asked.lines()
                );
                assert_eq!(asked.header("content-length"), None);
                assert_eq!(asked.bytes(15).await, b"5\r\nhello\r\n0\r\n\r\n");
            }
            None => {
                let length = asked.header("content-length").map(str::parse);
                assert_eq!(length, Some(Ok(5)));
                assert_eq!(asked.bytes(5).await, b"hello");
            }
        }
        asked
            .answer("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            .await;
        assert_eq!(client.head().await.status, 204);
    }
}
