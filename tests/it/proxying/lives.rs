//! Connections that would go on for ever, and how they are brought to an end: the process stops, they are old, or one side
//! has fallen silent.

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::client::{Client, handshake, request};
use crate::harness::events::{MIB, bytes};
use crate::harness::frame::{BINARY, FIN, TEXT, masked, unmasked};
use crate::harness::http::{CHUNKED, EVENT_STREAM, Request, chunk};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

/// RFC 6455, section 7.4.1.
const GOING_AWAY: u16 = 1001;
/// Longer than any test may take, so that what ends has not been cut off.
const NEVER: [&str; 2] = ["--drain", "1h"];
/// What a body in chunks ends with (RFC 9112, section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

async fn over(upstream: &Upstream, args: &[&str]) -> Proxy {
    Proxy::over(&[upstream.address()], args).await
}

/// Sees that it stops in order.
async fn stops(proxy: &mut Proxy) {
    let status = proxy.exit().await;
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Asks for `/` and has the upstream answer with these bytes: both ends, behind the head.
async fn answered(proxy: &Proxy, upstream: &Upstream, answer: &[u8]) -> (Client, Request) {
    let mut client = proxy.client().await;
    client
        .send(request("GET / HTTP/1.1", &[("Host", "localhost")]))
        .await;
    let mut asked = upstream.asked().await;
    asked.send(answer).await;
    let head = client.head().await;
    assert_eq!(head.status, 200, "{head:?}");
    (client, asked)
}

/// Sends frames of all sizes until the other end is gone.
async fn pour(request: Request) {
    use tokio::io::AsyncWriteExt;
    let mut socket = request.into_socket();
    let frames = [1, 300, 70_000].map(|len| unmasked(FIN | BINARY, &bytes(len)));
    let frames = frames.concat();
    while socket.write_all(&frames).await.is_ok() {}
}

#[tokio::test]
async fn busy_websockets_are_told_between_two_frames() {
    const CLIENTS: usize = 12;
    let upstream = Upstream::new();
    let mut proxy = over(&upstream, &NEVER).await;
    let mut pouring = vec![];
    let mut reading = vec![];
    for _ in 0..CLIENTS {
        let (mut client, asked) = proxy.joined(&upstream).await;
        pouring.push(tokio::spawn(pour(asked)));
        client.frame().await.expect("a frame");
        reading.push(tokio::spawn(async move {
            // This reads strictly: half a frame is none.
            let (_, code, _) = client.until_close().await;
            client.answer_close(code).await;
            code
        }));
    }
    proxy.signal(Signal::INT);
    for reading in reading {
        let code = within_guard("a Close frame", reading).await;
        assert_eq!(code.expect("whole frames"), GOING_AWAY);
    }
    stops(&mut proxy).await;
    for pouring in pouring {
        let ended = within_guard("the end of an upstream's connection", pouring).await;
        ended.expect("it ends in order");
    }
}

#[tokio::test]
async fn an_upstream_is_told_between_two_frames_of_a_busy_client() {
    let upstream = Upstream::new();
    let mut proxy = over(&upstream, &NEVER).await;
    let (mut client, mut asked) = proxy.joined(&upstream).await;
    let frame = masked(FIN | TEXT, b"a message of the client");
    let (first, second) = frame.split_at(7);
    client.send(first).await;
    assert_eq!(asked.bytes(first.len()).await, first);
    proxy.signal(Signal::INT);
    let (frames, code, _) = client.until_close().await;
    assert_eq!((frames.len(), code), (0, GOING_AWAY));
    // It has not seen the Close yet.
    client.send(second).await;
    assert_eq!(asked.bytes(second.len()).await, second);
    client.answer_close(code).await;
    // The client's Close, with its mask and code.
    assert_eq!(asked.bytes(2).await, [0x88, 0x82]);
    asked.bytes(6).await;
    asked.ended().await;
    stops(&mut proxy).await;
}

/// An event stream of an upstream that sends chunks, or ends with its connection: both ends, within an event.
async fn within_an_event(proxy: &Proxy, upstream: &Upstream, head: &str) -> (Client, Request) {
    let (mut client, mut asked) = answered(proxy, upstream, head.as_bytes()).await;
    asked.send(piece(head, "data: one\n\ndata: two\n")).await;
    client.line_with("data: two").await;
    (client, asked)
}

/// Some content of an answer with this head.
fn piece(head: &str, text: &str) -> Vec<u8> {
    match head == CHUNKED {
        true => chunk(text.as_bytes()),
        false => text.as_bytes().to_vec(),
    }
}

/// Sees that nothing more comes than the end of the event, and that the end is in order.
async fn ends_behind_the_event(mut client: Client, mut asked: Request, head: &str) {
    asked.send(piece(head, "\n")).await;
    let rest = client.rest().await;
    // Without chunks its end is that of the connection.
    let expected = match head == CHUNKED {
        true => [b"\r\n1\r\n\n\r\n", LAST_CHUNK].concat(),
        false => b"\n".to_vec(),
    };
    assert_eq!(rest, expected, "{}", rest.escape_ascii());
    asked.left().await;
}

#[tokio::test]
async fn an_event_stream_ends_behind_an_event() {
    for head in [CHUNKED, EVENT_STREAM] {
        let upstream = Upstream::new();
        let mut proxy = over(&upstream, &NEVER).await;
        let (client, asked) = within_an_event(&proxy, &upstream, head).await;
        proxy.signal(Signal::INT);
        proxy.logged("stopping").await;
        ends_behind_the_event(client, asked, head).await;
        let line = proxy.logged("proxied").await;
        assert_eq!(line.field("why"), "the proxy stops");
        stops(&mut proxy).await;
    }
}

#[tokio::test]
async fn a_quiet_event_stream_ends_at_once() {
    let upstream = Upstream::new();
    let mut proxy = over(&upstream, &NEVER).await;
    let (mut client, mut asked) = answered(&proxy, &upstream, CHUNKED.as_bytes()).await;
    asked.send(chunk(b"data: one\n\n")).await;
    client.line_with("data: one").await;
    proxy.signal(Signal::INT);
    let rest = client.rest().await;
    assert!(rest.ends_with(LAST_CHUNK), "{}", rest.escape_ascii());
    asked.left().await;
    stops(&mut proxy).await;
}

#[tokio::test]
async fn a_download_is_completed() {
    const LEN: usize = 4 * MIB;
    let known = format!("HTTP/1.1 200 OK\r\ncontent-length: {LEN}\r\n\r\n");
    let unknown = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for head in [known, unknown] {
        let upstream = Upstream::new();
        let mut proxy = over(&upstream, &NEVER).await;
        let is_known = head.contains("content-length");
        let (mut client, mut asked) = answered(&proxy, &upstream, head.as_bytes()).await;
        let content = bytes(LEN);
        let (first, second) = content.split_at(1_000);
        let wrap = |bytes: &[u8]| match is_known {
            true => bytes.to_vec(),
            false => chunk(bytes),
        };
        asked.send(wrap(first)).await;
        if !is_known {
            client.line().await;
        }
        assert!(client.bytes(first.len()).await == first);
        proxy.signal(Signal::INT);
        proxy.logged("stopping").await;
        let sending = async {
            asked.send(wrap(second)).await;
            if !is_known {
                asked.send(LAST_CHUNK).await;
            }
        };
        let (rest, ()) = tokio::join!(client.rest(), sending);
        match is_known {
            true => assert!(rest == second, "{} bytes came", rest.len()),
            false => assert!(rest.len() > second.len() && rest.ends_with(LAST_CHUNK)),
        }
        let line = proxy.logged("proxied").await;
        assert_eq!(line.field("why"), "complete");
        assert_eq!(line.number("to_client"), LEN as u64);
        stops(&mut proxy).await;
    }
}

#[tokio::test]
async fn an_upload_is_completed() {
    let upstream = Upstream::new();
    let mut proxy = over(&upstream, &NEVER).await;
    let mut client = proxy.client().await;
    let headers = [("Host", "localhost"), ("Content-Length", "10")];
    client
        .send(request("POST / HTTP/1.1", &headers) + "first")
        .await;
    let mut asked = upstream.asked().await;
    assert_eq!(asked.bytes(5).await, b"first");
    proxy.signal(Signal::INT);
    proxy.logged("stopping").await;
    client.send("other").await;
    assert_eq!(asked.bytes(5).await, b"other");
    asked
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    let head = client.head().await;
    // RFC 9112, section 9.6: it says that this is the last answer.
    assert_eq!((head.status, head.header("connection")), (200, "close"));
    assert_eq!(client.rest().await, b"ok");
    stops(&mut proxy).await;
}

#[tokio::test]
async fn who_waits_with_a_request_is_let_go() {
    let upstream = Upstream::new();
    let mut proxy = over(&upstream, &NEVER).await;
    let mut fresh = proxy.client().await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (mut used, _asked) = answered(&proxy, &upstream, answer).await;
    assert_eq!(used.bytes(2).await, b"ok");
    proxy.signal(Signal::INT);
    fresh.ended().await;
    used.ended().await;
    stops(&mut proxy).await;
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

/// Nothing gets through to a client that does not read, neither a Close nor the end of an event.
#[tokio::test]
async fn a_stuck_client_does_not_hold_the_exit() {
    for is_websocket in [true, false] {
        let upstream = Upstream::new();
        let mut proxy = over(&upstream, &["--drain", "300ms"]).await;
        let mut client = Client::connect_with_buffer(proxy.address, 4 << 10)
            .await
            .read_at_most(1);
        let asking = match is_websocket {
            true => handshake("/feed"),
            false => request("GET / HTTP/1.1", &[("Host", "localhost")]),
        };
        client.send(asking).await;
        let mut asked = upstream.asked().await;
        match is_websocket {
            true => asked.switch(b"").await,
            false => asked.send(EVENT_STREAM).await,
        }
        client.head().await;
        let pouring = tokio::spawn(pour(asked));
        client.bytes(1).await;
        proxy.signal(Signal::INT);
        stops(&mut proxy).await;
        within_guard("the end of the upstream's connection", pouring)
            .await
            .expect("it ends in order");
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let upstream = Upstream::new();
    let mut proxy = over(&upstream, &NEVER).await;
    let (_client, _asked) = within_an_event(&proxy, &upstream, CHUNKED).await;
    proxy.signal(Signal::INT);
    proxy.logged("stopping").await;
    proxy.signal(Signal::TERM);
    // What a shell says of SIGTERM.
    assert_eq!(proxy.exit().await.code(), Some(128 + 15));
}

/// The content of a body in chunks, which must be whole (RFC 9112, section 7.1).
fn without_chunks(body: &[u8]) -> String {
    let mut rest = std::str::from_utf8(body).expect("it is text");
    let mut content = String::new();
    loop {
        let (size, behind) = rest.split_once("\r\n").expect("another chunk");
        let size = usize::from_str_radix(size, 16).expect("a size");
        content += &behind[..size];
        rest = behind[size..].strip_prefix("\r\n").expect("a whole chunk");
        if size == 0 {
            assert_eq!(rest, "");
            return content;
        }
    }
}

const OLD: [&str; 4] = ["--max-connection-age", "1s", "--drain", "1h"];

#[tokio::test]
async fn an_old_event_stream_ends_behind_an_event() {
    for head in [CHUNKED, EVENT_STREAM] {
        let upstream = Upstream::new();
        let proxy = over(&upstream, &OLD).await;
        let (mut client, mut asked) = answered(&proxy, &upstream, head.as_bytes()).await;
        // It ends by itself, behind whichever event comes then.
        let feeding = async {
            for number in 0.. {
                let event = format!("id: {number}\ndata: {}\n\n", "x".repeat(number % 50));
                let (first, second) = event.split_at(event.len() - 1);
                let sending = async {
                    use tokio::io::AsyncWriteExt;
                    let socket = asked.socket();
                    socket.write_all(&piece(head, first)).await?;
                    socket.write_all(&piece(head, second)).await
                };
                if sending.await.is_err() {
                    break;
                }
                // Others are to run as well.
                tokio::task::yield_now().await;
            }
        };
        let (rest, ()) = tokio::join!(client.rest(), feeding);
        let content = match head == CHUNKED {
            true => without_chunks(&rest),
            false => String::from_utf8(rest).expect("it is text"),
        };
        assert!(content.ends_with("\n\n"), "{content:?}");
        let line = proxy.logged("proxied").await;
        assert_eq!(line.field("why"), "it has reached its age");
        // Others may come.
        let (client, _asked) = answered(&proxy, &upstream, head.as_bytes()).await;
        drop(client);
    }
}

#[tokio::test]
async fn an_old_connection_takes_no_further_request() {
    let upstream = Upstream::new();
    let proxy = over(&upstream, &OLD).await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (mut client, _asked) = answered(&proxy, &upstream, answer).await;
    assert_eq!(client.bytes(2).await, b"ok");
    client.ended().await;
}

#[tokio::test]
async fn a_silent_upstream_is_given_up_if_that_is_wanted() {
    let upstream = Upstream::new();
    let proxy = over(&upstream, &["--upstream-idle-timeout", "1s"]).await;
    let (mut client, asked) = proxy.joined(&upstream).await;
    // That the client speaks is no sign of the upstream's life.
    let speaking = async {
        while client.try_send(masked(FIN | TEXT, b"hello?")).await.is_ok() {
            tokio::task::yield_now().await;
            if proxy.count("proxied") > 0 {
                break;
            }
        }
    };
    let (mut socket, mut nowhere) = (asked.into_socket(), tokio::io::sink());
    let listening = tokio::io::copy(&mut socket, &mut nowhere);
    let (_, ()) = tokio::join!(listening, within_guard("an end", speaking));
    let line = proxy.logged("proxied").await;
    assert!(line.field("why").contains("upstream"), "{}", line.text);

    let (mut client, asked) = within_an_event(&proxy, &upstream, CHUNKED).await;
    let rest = client.rest().await;
    // It must not look whole.
    assert!(!rest.ends_with(LAST_CHUNK), "{}", rest.escape_ascii());
    asked.left().await;
    let why = "the upstream sends nothing any more";
    proxy
        .logged_where("proxied", |line| line.field("why") == why)
        .await;
}

#[tokio::test]
async fn a_client_that_only_listens_is_let_go_from_a_websocket_alone() {
    let upstream = Upstream::new();
    let proxy = over(&upstream, &["--client-idle-timeout", "1s"]).await;
    // A reader of events has nothing to say, so that it has no time limit.
    let (mut reader, mut feeding) = answered(&proxy, &upstream, CHUNKED.as_bytes()).await;
    let (mut client, mut asked) = proxy.joined(&upstream).await;
    let frame = unmasked(FIN | TEXT, b"an event");
    let speaking = async {
        use tokio::io::AsyncWriteExt;
        while asked.socket().write_all(&frame).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let (closed, ()) = tokio::join!(client.until_close(), async {
        within_guard("the end of the client's connection", speaking).await;
    });
    assert!(!closed.0.is_empty());
    feeding.send(chunk(b"data: still there\n\n")).await;
    reader.line_with("data: still there").await;
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up_if_that_is_wanted() {
    let upstream = Upstream::new();
    let proxy = over(&upstream, &["--client-idle-timeout", "1s"]).await;
    let mut client = proxy.client().await;
    let headers = [("Host", "localhost"), ("Content-Length", "10")];
    client
        .send(request("POST / HTTP/1.1", &headers) + "half ")
        .await;
    let mut asked = upstream.asked().await;
    assert_eq!(asked.bytes(5).await, b"half ");
    asked.left().await;
    let line = proxy.logged("proxied").await;
    assert_eq!(line.field("why"), "the client sends nothing any more");
}
