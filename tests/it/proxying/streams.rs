//! Event streams over HTTP/1: what they cost is seen elsewhere, what arrives is seen here.

use rustix::process::Signal;

use crate::harness::client::{Client, request};
use crate::harness::events::{MIB, bytes};
use crate::harness::http::{CHUNKED, EVENT_STREAM, Request, chunk};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;

const HOST: (&str, &str) = ("Host", "localhost");
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const EVENT: &str = "data: one\n\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn get(path: &str) -> String {
    request(&format!("GET {path} HTTP/1.1"), &[HOST])
}

async fn proxy() -> (Proxy, Upstream) {
    let upstream = Upstream::new();
    (Proxy::over(&[upstream.address()], &[]).await, upstream)
}

/// Asks for a stream, and is answered so: both ends.
async fn answered(proxy: &Proxy, upstream: &Upstream, answer: &[u8]) -> (Client, Request) {
    let mut client = proxy.client().await;
    client.send(get("/feed")).await;
    let mut asked = upstream.asked().await;
    asked.send(answer).await;
    (client, asked)
}

/// The body of a stream with this head, in chunks or not, as far as these events.
fn body(head: &str, events: &[&str]) -> Vec<u8> {
    let piece = |event: &&str| match head == CHUNKED {
        true => chunk(event.as_bytes()),
        false => event.as_bytes().to_vec(),
    };
    events.iter().flat_map(piece).collect()
}

#[tokio::test]
async fn a_stream_arrives_as_it_was_sent() {
    for head in [CHUNKED, EVENT_STREAM] {
        let (proxy, upstream) = proxy().await;
        // The head and what is behind it in one segment.
        let first = body(head, &[EVENT, "data: t"]);
        let (mut client, mut asked) =
            answered(&proxy, &upstream, &[head.as_bytes(), &first].concat()).await;
        let answer = client.head().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.header("connection"), "close");
        assert_eq!(answer.header("via"), "1.1 wsevent");
        assert!(!answer.header("date").is_empty());
        let coding = if head == CHUNKED { "chunked" } else { "" };
        assert_eq!(answer.header("transfer-encoding"), coding);
        assert_eq!(client.bytes(first.len()).await, first);
        let second = body(head, &["wo\n\n"]);
        asked.send(&second).await;
        assert_eq!(client.bytes(second.len()).await, second);
        match head == CHUNKED {
            // The backend keeps its connection, and nobody uses it any more.
            true => {
                asked.send(LAST_CHUNK).await;
                assert_eq!(client.rest().await, LAST_CHUNK);
            }
            false => {
                asked.half_close().await;
                assert_eq!(client.rest().await, b"");
            }
        }
        asked.left().await;
        let line = proxy.logged("proxied").await;
        assert_eq!(line.field("why"), "complete");
        let content = EVENT.len() + "data: two\n\n".len();
        assert_eq!(line.number("to_client"), content as u64);
    }
}

#[tokio::test]
async fn a_head_may_come_in_pieces() {
    let (proxy, upstream) = proxy().await;
    for head in [CHUNKED, EVENT_STREAM] {
        let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let first = body(head, &[EVENT]);
        let whole = [early.as_bytes(), head.as_bytes(), &first].concat();
        let (mut client, mut asked) = answered(&proxy, &upstream, b"").await;
        for byte in whole {
            asked.send([byte]).await;
        }
        assert_eq!(client.head().await.status, 103);
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.bytes(first.len()).await, first);
        drop(client);
        asked.left().await;
        // All at once.
        let whole = [early, head].concat();
        let (mut client, asked) = answered(&proxy, &upstream, whole.as_bytes()).await;
        assert_eq!(client.head().await.status, 103);
        assert_eq!(client.head().await.status, 200);
        drop(client);
        asked.left().await;
    }
}

#[tokio::test]
async fn what_a_backend_says_of_it_stays() {
    let (proxy, upstream) = proxy().await;
    let answer = "HTTP/1.1 503 Come Back Later\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nX-Own: 1\r\nx-own: 2\r\nConnection: x-other\r\nX-Other: 1\r\ncontent-type: application/x-ndjson\r\n\r\n{}\n";
    let (mut client, asked) = answered(&proxy, &upstream, answer.as_bytes()).await;
    let lines = client.head_lines().await;
    assert_eq!(lines[0], "HTTP/1.1 503 Come Back Later");
    let lines: Vec<String> = lines.iter().map(|line| line.to_ascii_lowercase()).collect();
    for line in [
        "date: tue, 15 nov 1994 08:12:31 gmt",
        "x-own: 1",
        "x-own: 2",
    ] {
        assert_eq!(
            lines.iter().filter(|other| *other == line).count(),
            1,
            "{lines:?}"
        );
    }
    assert!(!lines.iter().any(|line| line.starts_with("x-other")));
    assert_eq!(client.bytes(3).await, b"{}\n");
    drop(client);
    asked.left().await;
}

/// Some have no body whatever their heads say, and some are not asked for alone.
#[tokio::test]
async fn what_is_no_stream_leaves_the_connections_as_they_are() {
    let (proxy, upstream) = proxy().await;
    for (line, answer, status) in [
        ("HEAD / HTTP/1.1", CHUNKED, 200),
        ("HEAD / HTTP/1.1", EVENT_STREAM, 200),
        (
            "GET / HTTP/1.1",
            "HTTP/1.1 204 No Content\r\ncontent-type: text/event-stream\r\n\r\n",
            204,
        ),
        (
            "GET / HTTP/1.1",
            "HTTP/1.1 304 Not Modified\r\ncontent-type: text/event-stream\r\n\r\n",
            304,
        ),
        (
            "GET / HTTP/1.1",
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",
            200,
        ),
    ] {
        let mut client = proxy.client().await;
        client.send(request(line, &[HOST])).await;
        let mut asked = upstream.asked().await;
        asked.send(answer).await;
        assert_eq!(client.head().await.status, status);
        client.send(get("/next")).await;
        // On the same connections, and what comes next is a stream by the way of all others.
        let mut asked = Request::read(asked.into_socket()).await;
        let first = body(CHUNKED, &[EVENT]);
        asked.send([CHUNKED.as_bytes(), &first].concat()).await;
        let head = client.head().await;
        assert_eq!((head.status, head.header("connection")), (200, ""));
        // hyper writes its chunks itself.
        let came = client.bytes(first.len()).await;
        assert!(came.eq_ignore_ascii_case(&first), "{}", came.escape_ascii());
        asked.send(LAST_CHUNK).await;
        assert_eq!(client.bytes(5).await, LAST_CHUNK);
        client.send(get("/last")).await;
        Request::read(asked.into_socket()).await.answer(OK).await;
        assert_eq!(client.head().await.status, 200);
    }
}

#[tokio::test]
async fn a_kept_connection_serves_a_stream_and_nobody_after_it() {
    let (proxy, upstream) = proxy().await;
    let (mut client, asked) = answered(&proxy, &upstream, OK.as_bytes()).await;
    let head = client.head().await;
    assert_eq!(client.body(&head).await, "ok");
    let mut reader = proxy.client().await;
    reader.send(get("/feed")).await;
    let mut feeding = Request::read(asked.into_socket()).await;
    let first = body(CHUNKED, &[EVENT]);
    feeding.send([CHUNKED.as_bytes(), &first].concat()).await;
    reader.head().await;
    assert_eq!(reader.bytes(first.len()).await, first);
    // The next one gets a connection of its own, and so it does when the stream is over.
    client.send(get("/")).await;
    upstream.asked().await.answer(OK).await;
    let head = client.head().await;
    assert_eq!(client.body(&head).await, "ok");
    feeding.send(LAST_CHUNK).await;
    assert_eq!(reader.rest().await, LAST_CHUNK);
    feeding.left().await;
    client.send(get("/")).await;
    upstream.asked().await.answer(OK).await;
    assert_eq!(client.head().await.status, 200);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let (proxy, upstream) = proxy().await;
    for head in [CHUNKED, EVENT_STREAM] {
        let mut client = proxy.client().await;
        client.send(request("GET / HTTP/1.0", &[HOST])).await;
        let mut asked = upstream.asked().await;
        asked
            .send([head.as_bytes(), &body(head, &[EVENT])].concat())
            .await;
        let answer = client.head().await;
        assert_eq!(answer.header("transfer-encoding"), "");
        assert_eq!(client.bytes(EVENT.len()).await, EVENT.as_bytes());
        if head == CHUNKED {
            asked.send(LAST_CHUNK).await;
        }
        asked.half_close().await;
        assert_eq!(client.rest().await, b"");
    }
}

/// An event that ends within a chunk is no place to end: a chunk is promised as a whole.
#[tokio::test]
async fn a_stream_is_not_ended_within_a_chunk() {
    for args in [
        &["--drain", "1h"][..],
        &["--drain", "1h", "--max-connection-age", "500ms"],
    ] {
        let upstream = Upstream::new();
        let mut proxy = Proxy::over(&[upstream.address()], args).await;
        let whole = chunk("data: one\n\ndata: two\n\n".as_bytes());
        let (first, second) = whole.split_at(4 + EVENT.len());
        assert!(first.ends_with(b"\n\n"));
        let answer = [CHUNKED.as_bytes(), first].concat();
        let (mut client, mut asked) = answered(&proxy, &upstream, &answer).await;
        client.head().await;
        assert_eq!(client.bytes(first.len()).await, first);
        if args.len() == 2 {
            proxy.signal(Signal::INT);
            proxy.logged("stopping").await;
        } else {
            // It is about as old when another one that began later is.
            let (mut other, _asked) = answered(&proxy, &upstream, CHUNKED.as_bytes()).await;
            other.head().await;
            assert_eq!(other.rest().await, LAST_CHUNK);
        }
        asked.send(second).await;
        assert_eq!(client.rest().await, [second, LAST_CHUNK].concat());
        asked.left().await;
        if args.len() == 2 {
            assert_eq!(proxy.exit().await.code(), Some(0));
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_takes_the_connection_to_the_backend_along() {
    let (proxy, upstream) = proxy().await;
    for (number, end) in ["close", "reset", "half", "at once"].iter().enumerate() {
        let mut client = proxy.client().await;
        client.send(get("/feed")).await;
        let mut asked = upstream.asked().await;
        asked.send(CHUNKED).await;
        client.head().await;
        match *end {
            "close" => drop(client),
            "reset" => client.reset(),
            // Behind something that nobody reads.
            "at once" => {
                client.send(get("/more").repeat(3)).await;
                client.half_close().await;
            }
            // It cannot be told from going away.
            _ => client.half_close().await,
        }
        // Although nothing happens on it.
        asked.left().await;
        proxy.logged_times("proxied", number + 1).await;
    }
}

#[tokio::test]
async fn a_slow_client_costs_little() {
    const PIECES: usize = 256;
    let (proxy, upstream) = proxy().await;
    let client = Client::connect_with_buffer(proxy.address, 4 << 10).await;
    let mut client = client.read_at_most(4 << 10);
    client.send(get("/feed")).await;
    let mut asked = upstream.asked().await;
    let before = proxy.resident();
    let sending = tokio::spawn(async move {
        asked.send(CHUNKED).await;
        let piece = chunk(&bytes(MIB));
        for _ in 0..PIECES {
            asked.send(&piece).await;
        }
    });
    client.head().await;
    let (piece, mut most) = (chunk(&bytes(MIB)), 0);
    for _ in 0..PIECES {
        assert!(client.bytes(piece.len()).await == piece, "bytes differ");
        most = most.max(proxy.resident());
    }
    sending.await.expect("it has sent everything");
    let grown = most.saturating_sub(before);
    assert!(grown < PIECES * MIB / 4, "{grown} bytes more than before");
}

#[tokio::test]
async fn what_is_not_a_chunk_ends_it() {
    let (proxy, upstream) = proxy().await;
    let first = body(CHUNKED, &[EVENT]);
    let answer = [CHUNKED.as_bytes(), &first, b"no size\r\n"].concat();
    let (mut client, asked) = answered(&proxy, &upstream, &answer).await;
    client.head().await;
    assert_eq!(client.rest().await, first);
    asked.left().await;
    let line = proxy.logged("proxied").await;
    let why = "the upstream has broken off: a chunk has no size";
    assert_eq!(line.field("why"), why);
}
