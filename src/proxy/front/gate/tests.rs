//! hyper's server behind the gate, and clients that write bytes.

mod hostile;
mod split;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};

use super::*;
use crate::proxy::headers::is_websocket;

/// What hyper took for a request: method, target, body and trailers, if the body could be read.
type Seen = (String, String, Option<(Vec<u8>, usize)>);

/// What is left of a connection.
struct Ended {
    is_ok: bool,
    seen: Vec<Seen>,
    verdict: Option<Verdict>,
    /// Read by hyper, and by the gate.
    unread: (Bytes, Bytes),
    /// Dropped only by the test: what was not read would take with it what was written.
    _stream: Stream,
}

/// What the requests of a test do.
#[derive(Default)]
struct Service {
    seen: Mutex<Vec<Seen>>,
    /// A request for `/slow` is answered now.
    answer: Notify,
    /// A request has come.
    came: Notify,
}

impl Service {
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        control: Arc<Control>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let body = body.collect().await.ok().map(|body| {
            let trailers = body.trailers().map_or(0, |trailers| trailers.len());
            (body.to_bytes().to_vec(), trailers)
        });
        let is_whole = body.is_some();
        let seen = (head.method.to_string(), head.uri.to_string(), body);
        self.seen.lock().expect("no panic").push(seen);
        self.came.notify_one();
        let mut response = Response::new(Full::from(path.clone()));
        match &*path {
            _ if !is_whole => *response.status_mut() = StatusCode::BAD_REQUEST,
            "/ws" if is_websocket(&head) => {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                *response.body_mut() = Full::default();
            }
            "/interim" => {
                for status in ["102 Processing", "103 Early Hints"] {
                    let head = format!("HTTP/1.1 {status}\r\nx-path: {path}\r\n\r\n");
                    control.interim(head.into()).await;
                }
            }
            "/slow" => self.answer.notified().await,
            _ => {}
        }
        if path != "/ws" && is_websocket(&head) {
            control.stays_http();
        }
        Ok(response)
    }
}

/// A client, and the connection that it has.
async fn connect(service: Arc<Service>) -> (TcpStream, JoinHandle<Ended>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound"))
        .await
        .expect("connected");
    client.set_nodelay(true).expect("a socket");
    let (socket, _) = listener.accept().await.expect("accepted");
    (client, tokio::spawn(run(socket, service)))
}

async fn run(socket: TcpStream, service: Arc<Service>) -> Ended {
    let gate = Gate::new(Stream::Plain(socket), BytesMut::new());
    let control = gate.control();
    let serve = {
        let (service, control) = (service.clone(), control.clone());
        service_fn(move |request| Box::pin(service.clone().serve(request, control.clone())))
    };
    let mut connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(gate), serve);
    let result = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let (mut stream, early) = parts.io.into_inner().into_parts();
    stream.shutdown().await.ok();
    let seen = std::mem::take(&mut *service.seen.lock().expect("no panic"));
    Ended {
        is_ok: result.is_ok(),
        seen,
        verdict: control.verdict(),
        unread: (parts.read_buf, early),
        _stream: stream,
    }
}

/// Sends pieces, each of which is likely to be read by itself, and reads what is answered until the server's side has ended.
async fn exchange(pieces: &[&[u8]]) -> (Ended, String) {
    let (mut client, connection) = connect(Arc::default()).await;
    for piece in pieces {
        // A connection that has been ended need not take all of it.
        if client.write_all(piece).await.is_err() {
            break;
        }
        yield_now().await;
        yield_now().await;
    }
    let ended = connection.await.expect("no panic");
    (ended, rest(&mut client).await)
}

async fn rest(client: &mut TcpStream) -> String {
    let mut answer = vec![];
    client.read_to_end(&mut answer).await.expect("answers");
    String::from_utf8(answer).expect("text")
}

/// What is answered by a line, to which `needle` is one of.
fn positions(answer: &str, needles: &[&str]) -> Vec<usize> {
    let position = |needle: &&str| {
        answer
            .find(*needle)
            .unwrap_or_else(|| panic!("no {needle} in {answer}"))
    };
    needles.iter().map(position).collect()
}

fn paths(ended: &Ended) -> Vec<&str> {
    ended.seen.iter().map(|(_, path, _)| &**path).collect()
}

const HANDSHAKE: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn what_is_behind_a_handshake_stays_in_order() {
    let head = format!("GET /ws HTTP/1.1\r\n{HANDSHAKE}");
    let early = "\x01\x03abc\n\0GET / HTTP/1.1\r\n\r\n";
    let whole = format!("{head}{early}");
    let parts: [&[&str]; 3] = [
        &[&whole],
        &[&head, early],
        &[&head[..9], &whole[9..head.len() + 2]],
    ];
    for pieces in parts {
        let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let (mut client, connection) = connect(Arc::default()).await;
        for piece in &pieces {
            client.write_all(piece).await.expect("sent");
            yield_now().await;
            yield_now().await;
        }
        let ended = connection.await.expect("no panic");
        assert!(ended.is_ok);
        assert_eq!(ended.verdict, None);
        assert_eq!(
            ended.unread.0, "",
            "hyper got something behind the handshake"
        );
        // What has not been read yet is in the socket still.
        let Stream::Plain(mut socket) = ended._stream else {
            panic!("another stream")
        };
        client.shutdown().await.expect("open");
        let mut unread = ended.unread.1.to_vec();
        socket.read_to_end(&mut unread).await.expect("the rest");
        let sent = pieces.concat();
        assert_eq!(unread, sent[head.len()..]);
        assert!(rest(&mut client).await.starts_with("HTTP/1.1 101 "));
    }
}

#[tokio::test]
async fn behind_a_refused_handshake_are_requests() {
    let head = format!("GET /no HTTP/1.1\r\n{HANDSHAKE}");
    let post = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let whole = format!("{head}{post}{head}{LAST}");
    let parts: [&[&str]; 3] = [
        &[&whole],
        &[&head, &whole[head.len()..]],
        &[
            &whole[..20],
            &whole[20..head.len() + 30],
            &whole[head.len() + 30..],
        ],
    ];
    for pieces in parts {
        let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let (ended, answer) = exchange(&pieces).await;
        assert!(ended.is_ok);
        assert_eq!(paths(&ended), ["/no", "/post", "/no", "/last"]);
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 4, "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_noticed() {
    let service = Arc::<Service>::default();
    let (mut client, connection) = connect(service.clone()).await;
    let head = format!("GET /slow HTTP/1.1\r\n{HANDSHAKE}");
    client.write_all(head.as_bytes()).await.expect("sent");
    service.came.notified().await;
    drop(client);
    let ended = connection.await.expect("no panic");
    assert!(!ended.is_ok);
    assert_eq!(ended.verdict, None);
}

/// One that has sent frames behind its handshake and ended its side is still there.
#[tokio::test]
async fn a_client_may_end_its_side_behind_early_data() {
    let service = Arc::<Service>::default();
    let (mut client, connection) = connect(service.clone()).await;
    let sent = format!("GET /slow HTTP/1.1\r\n{HANDSHAKE}\u{1}\u{3}abc");
    client.write_all(sent.as_bytes()).await.expect("sent");
    client.shutdown().await.expect("open");
    service.came.notified().await;
    yield_now().await;
    service.answer.notify_one();
    connection.await.expect("no panic");
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn interim_responses_are_written_in_order() {
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let sent = [
        request("/a"),
        request("/interim"),
        request("/b"),
        LAST.into(),
    ]
    .concat();
    let (ended, answer) = exchange(&[sent.as_bytes()]).await;
    assert_eq!(paths(&ended), ["/a", "/interim", "/b", "/last"]);
    let order = [
        "\r\n\r\n/a",
        "HTTP/1.1 102 Processing\r\nx-path: /interim\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nx-path: /interim\r\n\r\nHTTP/1.1 200",
        "\r\n\r\n/interim",
        "\r\n\r\n/b",
        "\r\n\r\n/last",
    ];
    assert!(positions(&answer, &order).is_sorted(), "{answer}");
}

/// Of a large interim response that the socket does not take at once nothing is lost, and nothing overtakes it.
#[tokio::test]
async fn a_large_interim_response_waits_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound"))
        .await
        .expect("connected");
    let (socket, _) = listener.accept().await.expect("accepted");
    let gate = Gate::new(Stream::Plain(socket), BytesMut::new());
    let control = gate.control();
    let large = Bytes::from(vec![b'i'; 16 << 20]);
    let service = {
        let large = large.clone();
        service_fn(move |_: Request<Incoming>| {
            let (control, large) = (control.clone(), large.clone());
            async move {
                control.interim(large).await;
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("final")))
            }
        })
    };
    let connection = http1::Builder::new().serve_connection(TokioIo::new(gate), service);
    let connection = tokio::spawn(connection);
    client.write_all(LAST.as_bytes()).await.expect("sent");
    let answer = rest(&mut client).await;
    connection.await.expect("no panic").expect("answered");
    let (interim, last) = answer.split_at(large.len());
    assert!(interim.bytes().all(|byte| byte == b'i'));
    assert!(
        last.starts_with("HTTP/1.1 200 OK\r\n") && last.ends_with("final"),
        "{last}"
    );
}

#[tokio::test]
async fn the_preface_of_http2_is_noticed_in_any_pieces() {
    let mut sent = HTTP2_PREFACE.to_vec();
    sent.extend_from_slice(b"\0\0\0\x04\0\0\0\0\0");
    for at in 1..sent.len() {
        let (ended, answer) = exchange(&[&sent[..at], &sent[at..]]).await;
        assert_eq!(ended.verdict, Some(Verdict::Http2), "{at}");
        let early = &ended.unread.1;
        assert!(
            early.len() >= HTTP2_PREFACE.len() && sent.starts_with(early),
            "{at}"
        );
        assert!(ended.unread.0.is_empty() && answer.is_empty(), "{at}");
    }
    // What only begins like it.
    for like in ["PRI", "PROPFIND", "PRI * HTTP/2.0 /"] {
        let line = format!("{like} /last HTTP/1.1\r\n");
        let sent = LAST.replace("GET /last HTTP/1.1\r\n", &line);
        let (ended, _) = exchange(&[&sent.as_bytes()[..2], &sent.as_bytes()[2..]]).await;
        match like.contains(' ') {
            true => assert!(
                matches!(ended.verdict, Some(Verdict::Refused(..))),
                "{like}"
            ),
            false => assert_eq!(paths(&ended), ["/last"], "{like}"),
        }
    }
}
