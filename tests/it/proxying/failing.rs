//! Upstreams that are there, and fail.

use tokio::task::JoinHandle;

use crate::harness::client::{handshake, request};
use crate::harness::http::{CHUNKED, chunk};
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;

/// Answers every request with these bytes, and ends the connection.
fn answering(upstream: Upstream, answer: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            upstream.asked().await.answer(answer).await;
        }
    })
}

fn get() -> String {
    request("GET / HTTP/1.1", &[("Host", "localhost")])
}

#[tokio::test]
async fn one_that_accepts_and_says_nothing_is_left_out() {
    let (hole, there) = (Upstream::new(), Backend::start("there"));
    let upstreams = [hole.address(), there.address];
    let proxy = Proxy::over(&upstreams, &["--answer-timeout", "200ms"]).await;
    let mut unanswered = 0;
    for _ in 0..6 {
        let mut client = proxy.client().await;
        client.send(get()).await;
        let head = client.head().await;
        match head.status {
            504 => unanswered += 1,
            200 => assert_eq!(client.body(&head).await, "there"),
            _ => panic!("{head:?}"),
        }
    }
    assert!(unanswered >= 1, "it was never its turn");
    assert_eq!(there.asked(), 6 - unanswered);
    let line = proxy.logged("upstream is out").await;
    assert_eq!(line.field("upstream"), hole.address().to_string());
}

#[tokio::test]
async fn what_it_answers_to_a_handshake_is_passed_on_and_noted() {
    let upstream = Upstream::new();
    let address = upstream.address();
    let answer = "HTTP/1.1 500 Broken\r\ncontent-length: 6\r\nx-of: the upstream\r\n\r\nbroken";
    let _answering = answering(upstream, answer);
    let proxy = Proxy::over(&[address], &[]).await;
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.send(handshake("/feed")).await;
        let head = client.head().await;
        assert_eq!((head.status, head.header("x-of")), (500, "the upstream"));
        assert_eq!(client.body(&head).await, "broken");
    }
    proxy.logged("upstream is out").await;
}

/// A body that was cut off must not look whole (RFC 9112, section 8).
#[tokio::test]
async fn one_that_dies_within_an_answer_leaves_it_incomplete() {
    let whole = [CHUNKED.as_bytes(), &chunk(b"half of it")].concat();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it".to_vec();
    for answer in [whole, half] {
        let upstream = Upstream::new();
        let proxy = Proxy::over(&[upstream.address()], &[]).await;
        let mut client = proxy.client().await;
        client.send(get()).await;
        let mut asked = upstream.asked().await;
        asked.send(answer).await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        asked.reset();
        let rest = String::from_utf8_lossy(&client.rest().await).into_owned();
        assert!(!rest.ends_with("0\r\n\r\n"), "{rest:?}");
        assert!(rest.len() < 100, "{rest:?}");
    }
}

/// Nobody knows whether it was done (RFC 9110, section 9.2.2).
#[tokio::test]
async fn what_is_not_idempotent_is_not_sent_twice() {
    let (dying, other) = (Upstream::new(), Backend::start("other"));
    let proxy = Proxy::over(&[dying.address(), other.address], &[]).await;
    let headers = [("Host", "localhost"), ("Content-Length", "5")];
    // One of them for each.
    let mut clients = [proxy.client().await, proxy.client().await];
    for client in &mut clients {
        client
            .send(request("POST / HTTP/1.1", &headers) + "order")
            .await;
    }
    let mut asked = dying.asked().await;
    assert_eq!(asked.bytes(5).await, b"order");
    asked.reset();
    let mut statuses = vec![];
    for client in &mut clients {
        statuses.push(client.head().await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!(other.asked(), 1);
}

/// A connection that was kept for the next request may end at any moment; that is nobody's failure.
#[tokio::test]
async fn one_that_does_not_keep_connections_is_as_good_as_others() {
    let upstream = Upstream::new();
    let address = upstream.address();
    let _answering = answering(upstream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Proxy::over(&[address], &[]).await;
    let mut client = proxy.client().await;
    for _ in 0..50 {
        let (head, body) = client.get("/", &[]).await;
        assert_eq!((head.status, &*body), (200, "ok"));
    }
    assert_eq!(proxy.count("upstream is out"), 0);
}
