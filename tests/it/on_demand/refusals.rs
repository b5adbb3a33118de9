//! Upstreams that have no such stream, and those that are merely away.

use tokio_tungstenite::tungstenite::Message;

use super::{SSE, asking, relay};
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::Hop;

/// Asks as every kind of reader does.
async fn readers(hop: &Hop, path: &str) -> [Client; 2] {
    let mut body = Client::connect(hop.address).await;
    body.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .await;
    [asking(hop, path).await, body]
}

#[tokio::test]
async fn a_refusal_is_told_with_its_status() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &[]).await;
    for (path, status, answer) in [
        ("/live/a", 404, "404 Not Found"),
        ("/live/b", 401, "401 Unauthorized"),
        ("/live/c", 403, "403 Forbidden"),
        ("/live/d", 410, "410 Gone"),
    ] {
        let clients = readers(&hop, path).await;
        let mut asked = upstream.asked().await;
        // The offer of a hop link may be what it does not like.
        if status == 410 {
            asked
                .answer(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n"))
                .await;
            asked = upstream.asked().await;
        }
        let why = "content-type: text/plain\r\ncontent-length: 6\r\n\r\nsorry\n";
        asked.answer(format!("HTTP/1.1 {answer}\r\n{why}")).await;
        for mut client in clients {
            let head = client.head().await;
            assert_eq!(head.status, status, "{path}");
            let said = client.body(&head).await;
            assert!(said.contains("sorry"), "{said}");
        }
        hop.logged_where("stream closed", |line| line.field("stream") == path)
            .await;
    }
    // Others have not noticed.
    let mut client = asking(&hop, "/live/e").await;
    let mut link = upstream.accept().await;
    assert_eq!(client.head().await.status, 101);
    link.send(Message::text("here")).await;
    assert_eq!(client.message().await, Message::text("here"));
}

#[tokio::test]
async fn over_http_as_well() {
    let upstream = Upstream::new();
    let url = format!("http://{}/feeds/*", upstream.address());
    let hop = Hop::start(&["--serve-path", "/live/*", "--consume", &url]).await;
    let clients = readers(&hop, "/live/a").await;
    let asked = upstream.asked().await;
    assert_eq!(asked.line(), "GET /feeds/a HTTP/1.1");
    asked
        .answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        .await;
    for mut client in clients {
        assert_eq!(client.head().await.status, 404);
    }
    // Said once, and remembered for a moment: nobody who asks now makes another connection.
    let [mut client, _] = readers(&hop, "/live/a").await;
    assert_eq!(client.head().await.status, 404);
    let reading = Stream::open(hop.address, "/live/b", &[SSE]);
    let answering = async {
        let mut asked = upstream.asked().await;
        assert_eq!(asked.line(), "GET /feeds/b HTTP/1.1");
        asked
            .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            .await;
        asked.send("data: x\n\n").await;
        asked
    };
    let (reader, _asked) = tokio::join!(reading, answering);
    assert_eq!(reader.head.status, 200);
    // What came before the reader had its answer is in the history, if not at the live edge.
    let mut all = Stream::open(hop.address, "/live/b?history=all", &[SSE]).await;
    assert_eq!(all.event().await.data, "x");
}

#[tokio::test]
async fn a_publish_to_a_stream_that_is_not_there_is_refused_too() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &["--accept-publish"]).await;
    let mut client = Client::connect(hop.address).await;
    let post = "POST /live/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    client.send(post).await;
    upstream
        .asked()
        .await
        .answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 404);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_bad_gateway() {
    let args = [
        "--serve-path",
        "/live/*",
        "--consume",
        "ws://nowhere.invalid/*",
    ];
    let hop = Hop::start(&args).await;
    for mut client in readers(&hop, "/live/a").await {
        assert_eq!(client.head().await.status, 502);
    }
}

#[tokio::test]
async fn who_is_away_may_come_back() {
    let mut upstream = Upstream::away();
    let hop = relay(&upstream, &[]).await;
    let mut waiting = readers(&hop, "/live/a").await;
    for (client, status) in waiting.iter_mut().zip([101, 200]) {
        assert_eq!(client.head().await.status, status);
    }
    upstream.come_back();
    let mut link = upstream.accept().await;
    // The first event is sent once it is plain that the hop reads.
    link.send(Message::text("at last")).await;
    assert_eq!(waiting[0].message().await, Message::text("at last"));
}

#[tokio::test]
async fn a_black_hole_is_one_that_is_away() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &[]).await;
    let mut clients = readers(&hop, "/live/a").await;
    // It takes the connection, and says nothing.
    let silent = upstream.accept_socket().await;
    for (client, status) in clients.iter_mut().zip([101, 200]) {
        assert_eq!(client.head().await.status, status);
    }
    drop(silent);
    let mut link = Link::accept(upstream.accept_socket().await).await;
    link.send(Message::text("no hole")).await;
    assert_eq!(clients[0].message().await, Message::text("no hole"));
}

#[tokio::test]
async fn a_redirect_leads_to_nowhere_but_below_the_template() {
    let upstream = Upstream::new();
    let elsewhere = Upstream::new();
    let at = upstream.address();
    let url = format!("http://{at}/feeds/*");
    let hop = Hop::start(&["--serve-path", "/live/*", "--consume", &url]).await;
    for (path, to) in [
        ("/live/a", format!("http://{}/feeds/a", elsewhere.address())),
        ("/live/b", "/admin".to_owned()),
        ("/live/c", "/feeds/../admin".to_owned()),
    ] {
        let mut client = Client::connect(hop.address).await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        upstream.asked().await.redirect(302, &to).await;
        let head = client.head().await;
        assert_eq!(head.status, 502, "{to}");
        let said = client.body(&head).await;
        let below = format!("only redirects below http://{at}/feeds/ are followed");
        assert!(said.contains(&below), "{said}");
    }
    let mut client = Client::connect(hop.address).await;
    client
        .send("GET /live/d HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    upstream.asked().await.redirect(302, "/feeds/e/f").await;
    let mut asked = upstream.asked().await;
    assert_eq!(asked.line(), "GET /feeds/e/f HTTP/1.1");
    asked
        .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
}

#[tokio::test]
async fn that_there_is_no_more_to_come_is_said_without_a_word() {
    let upstream = Upstream::new();
    let url = format!("http://{}/feeds/*", upstream.address());
    let hop = Hop::start(&["--serve-path", "/live/*", "--consume", &url]).await;
    let mut client = Client::connect(hop.address).await;
    client
        .send("GET /live/a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    let asked = upstream.asked().await;
    asked.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.status, 204);
    assert_eq!(head.header("content-type"), "");
    assert_eq!(head.header("content-length"), "");
    // Nothing is left before the next answer.
    assert_eq!(client.get("/", &[]).await.0.status, 200);
}
