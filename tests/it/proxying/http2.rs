//! HTTP/2 in front: requests, and WebSockets beside them on one connection (RFC 8441).

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::http::{CHUNKED, chunk};
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

/// A connection that is HTTP/2 from its first byte (RFC 9113, section 3.3).
async fn connect(proxy: &Proxy) -> SendRequest<Empty<Bytes>> {
    let socket = TcpStream::connect(proxy.address).await.expect("it listens");
    let io = TokioIo::new(socket);
    let connecting = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (sender, connection) = connecting.await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn get(target: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://localhost{target}"));
    request.body(Empty::new()).expect("a request")
}

#[tokio::test]
async fn requests_on_one_connection_take_turns() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let proxy = Proxy::over(&backends.each_ref().map(|backend| backend.address), &[]).await;
    let mut sender = connect(&proxy).await;
    for _ in 0..9 {
        let answer = within_guard("an answer", sender.send_request(get("/"))).await;
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, Version::HTTP_2)
        );
    }
    assert_eq!(
        backends.each_ref().map(|backend| backend.asked()),
        [3, 3, 3]
    );
}

#[tokio::test]
async fn an_endless_body_comes_as_it_is_sent() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let mut sender = connect(&proxy).await;
    let (answer, mut asked) = tokio::join!(sender.send_request(get("/feed")), async {
        let mut asked = upstream.asked().await;
        asked.send(CHUNKED).await;
        asked
    });
    let mut body = answer.expect("an answer").into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        asked.send(chunk(event.as_bytes())).await;
        let frame = within_guard("an event", body.frame()).await;
        let frame = frame.expect("it goes on").expect("it lives");
        assert_eq!(frame.into_data().expect("data"), event);
    }
    asked.send("0\r\n\r\n").await;
    let rest = within_guard("the end", body.collect()).await;
    assert_eq!(rest.expect("an end in order").to_bytes(), "");
}

#[tokio::test]
async fn websockets_share_a_connection() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let mut sender = connect(&proxy).await;
    // The settings that allow it are here with the first answer (RFC 8441, section 3).
    let (first, ()) = tokio::join!(sender.send_request(get("/")), async {
        let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        upstream.asked().await.answer(answer).await;
    });
    assert_eq!(first.expect("an answer").status(), 204);
    let mut joined = vec![];
    for _ in 0..2 {
        let request = Request::connect("http://localhost/feed")
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(Empty::new());
        let asking = sender.send_request(request.expect("a request"));
        let (answer, asked) = tokio::join!(asking, async {
            let mut asked = upstream.asked().await;
            assert_eq!(asked.line(), "GET /feed HTTP/1.1");
            assert_eq!(asked.header("upgrade"), Some("websocket"));
            asked.switch(b"early").await;
            asked
        });
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        let upgraded = hyper::upgrade::on(answer).await.expect("a tunnel");
        joined.push((TokioIo::new(upgraded), asked));
    }
    for (stream, asked) in &mut joined {
        let mut early = [0; 5];
        let reading = stream.read_exact(&mut early);
        within_guard("bytes", reading).await.expect("they come");
        assert_eq!(&early, b"early");
        stream.write_all(b"up").await.expect("it is open");
        assert_eq!(asked.bytes(2).await, b"up");
    }
    // The end of one is not that of the other.
    let (mut stream, mut asked) = joined.remove(0);
    stream.shutdown().await.expect("it is open");
    asked.ended().await;
    let (stream, asked) = &mut joined[0];
    asked.send(b"down").await;
    let mut down = [0; 4];
    let reading = stream.read_exact(&mut down);
    within_guard("bytes", reading).await.expect("they come");
    assert_eq!(&down, b"down");
}
