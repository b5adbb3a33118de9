//! Streams that come and go with those who ask for them.

mod refusals;
mod topics;

use futures_util::FutureExt;
use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::body::Stream;
use crate::harness::client::{Client, handshake};
use crate::harness::upstream::{Link, Upstream};
use crate::harness::wsevent::Hop;

pub const SSE: (&str, &str) = ("Accept", "text/event-stream");

/// A hop that serves all paths below /live from those below /feeds.
pub async fn relay(upstream: &Upstream, args: &[&str]) -> Hop {
    let url = format!("ws://{}/feeds/*", upstream.address());
    let route = ["--serve-path", "/live/*", "--consume", &url];
    Hop::start(&[&route[..], args].concat()).await
}

/// A connection that has asked for a WebSocket, and has had no answer yet.
async fn asking(hop: &Hop, path: &str) -> Client {
    let mut client = Client::connect(hop.address).await;
    client.send(handshake(path)).await;
    client
}

fn path(link: &Link) -> String {
    let uri = link.request.uri();
    uri.path_and_query().expect("a path").to_string()
}

#[tokio::test]
async fn a_thousand_who_come_at_once_are_one_connection_upstream() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &[]).await;
    let clients = (0..1_000).map(|_| asking(&hop, "/live/btc"));
    let mut clients = futures_util::future::join_all(clients).await;
    let mut link = upstream.accept().await;
    assert_eq!(path(&link), "/feeds/btc");
    for client in &mut clients {
        assert_eq!(client.head().await.status, 101);
    }
    link.send(Message::text("one for all")).await;
    for client in &mut clients {
        assert_eq!(client.message().await, Message::text("one for all"));
    }
    // All of its connections come to this one listener, and there is no other.
    assert!(upstream.next_socket().now_or_never().is_none());
}

#[tokio::test]
async fn each_url_is_a_stream_of_its_own_and_ends_when_it_has_been_unused() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &["--linger", "0s"]).await;
    let mut links = vec![];
    let mut clients = vec![];
    for name in ["a", "b%20c", "d/e"] {
        let mut client = asking(&hop, &format!("/live/{name}?x=1")).await;
        let link = upstream.accept().await;
        assert_eq!(path(&link), format!("/feeds/{name}"));
        assert_eq!(client.head().await.status, 101);
        links.push(link);
        clients.push(client);
    }
    for (number, link) in links.iter_mut().enumerate() {
        link.send(Message::text(number.to_string())).await;
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.message().await, Message::text(number.to_string()));
    }
    let paths = ["/live/a", "/live/b%20c", "/live/d/e"];
    let index = hop.index().await;
    let listed: Vec<_> = index["streams"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    let listed: Vec<_> = listed.iter().map(|stream| &stream["path"]).collect();
    assert_eq!(listed, paths);
    assert_eq!(index["routes"][0]["path"], "/live/*");
    // The first one's subscriber leaves, and with it the connection upstream.
    clients.remove(0).reset();
    assert_eq!(links[0].close_code().await, Some(1001));
    links.remove(0).closed().await;
    hop.logged_where("stream closed", |line| line.field("stream") == "/live/a")
        .await;
    links[0].send(Message::text("still here")).await;
    assert_eq!(clients[0].message().await, Message::text("still here"));
}

#[tokio::test]
async fn who_comes_back_in_time_finds_the_same_stream() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &["--linger", "1h"]).await;
    let mut client = asking(&hop, "/live/a").await;
    let mut link = upstream.accept().await;
    client.head().await;
    link.send(Message::text("before")).await;
    client.message().await;
    client.reset();
    hop.disconnected().await;
    link.send(Message::text("meanwhile")).await;
    // It has no subscriber, and is still fed.
    let mut back = Stream::open(hop.address, "/live/a?history=all", &[SSE]).await;
    assert_eq!(back.event().await.data, "before");
    assert_eq!(back.event().await.data, "meanwhile");
    assert!(upstream.next_socket().now_or_never().is_none());
}

#[tokio::test]
async fn listed_parameters_name_a_stream_and_go_upstream() {
    let upstream = Upstream::new();
    let url = format!("ws://{}/quotes?key=k", upstream.address());
    let args = ["--serve-path", "/quotes", "--consume", &url];
    let hop = Hop::start(&[&args[..], &["--key-query", "symbol,interval"]].concat()).await;
    for (query, expected) in [
        ("", "/quotes?key=k"),
        ("?symbol=A%26B&history=2", "/quotes?key=k&symbol=A%26B"),
        (
            "?interval=1m&x=y&symbol=A",
            "/quotes?key=k&symbol=A&interval=1m",
        ),
    ] {
        let mut client = asking(&hop, &format!("/quotes{query}")).await;
        let link = upstream.accept().await;
        assert_eq!(path(&link), expected);
        assert_eq!(client.head().await.status, 101);
    }
    // In another order it is the same stream.
    let mut client = asking(&hop, "/quotes?symbol=A&interval=1m").await;
    assert_eq!(client.head().await.status, 101);
    assert!(upstream.next_socket().now_or_never().is_none());
    let mut client = asking(&hop, "/quotes?symbol=A&symbol=B").await;
    assert_eq!(client.head().await.status, 400);
}

#[tokio::test]
async fn nothing_that_a_client_writes_leads_out_of_the_upstreams_path() {
    let upstream = Upstream::new();
    let hop = relay(&upstream, &[]).await;
    for (path, status) in [
        ("/live/../secret", 400),
        ("/live/%2e%2e/secret", 400),
        ("/live/.%2E/secret", 400),
        ("/live/a/../../secret", 400),
        ("/live//evil.example/x", 400),
        ("/live/a//b", 400),
        ("/live/a%2f..%2fsecret", 400),
        ("/live/..%5csecret", 400),
        ("/live/a%0d%0aHost:%20evil", 400),
        ("/live/a%00", 400),
        ("/live/a%", 400),
        ("/live/", 404),
        ("http://evil.example/live/../x", 400),
        ("//evil.example/live/a", 404),
    ] {
        let mut client = asking(&hop, path).await;
        assert_eq!(client.head().await.status, status, "{path}");
    }
    // Nothing has been asked for upstream so far: this is the first that comes there.
    for (asked, expected) in [
        ("http://evil.example/live/a", "/feeds/a"),
        ("/live/user@evil.example:80", "/feeds/user@evil.example:80"),
        ("/live/http:%3F%23", "/feeds/http:%3F%23"),
    ] {
        let mut client = asking(&hop, asked).await;
        let link = upstream.accept().await;
        assert_eq!(path(&link), expected);
        assert_eq!(link.header("host"), upstream.address().to_string());
        assert_eq!(client.head().await.status, 101);
    }
}

#[tokio::test]
async fn a_chain_of_wildcards_keeps_ids() {
    let upstream = Upstream::new();
    let first = relay(&upstream, &[]).await;
    let url = format!("ws://{}/live/*", first.address);
    let second = Hop::start(&["--serve-path", "/again/*", "--consume", &url]).await;
    let at_second = Stream::open(second.address, "/again/x", &[SSE]);
    let (mut link, mut at_second) = tokio::join!(upstream.accept(), at_second);
    let mut at_first = Stream::open(first.address, "/live/x", &[SSE]).await;
    link.send(Message::text("through both")).await;
    let (one, two) = (at_first.event().await, at_second.event().await);
    assert_eq!(one.id(), two.id());
    assert_eq!(two.data, "through both");
}

#[tokio::test]
async fn a_hop_with_many_streams_stops_well() {
    let upstream = Upstream::new();
    let mut hop = relay(&upstream, &[]).await;
    let mut clients = vec![];
    for number in 0..50 {
        let mut client = asking(&hop, &format!("/live/{number}")).await;
        let link = upstream.accept().await;
        client.head().await;
        clients.push((client, tokio::spawn(link.closed())));
    }
    hop.signal(Signal::INT);
    for (client, link) in clients {
        assert_eq!(client.closed().await, 1001);
        link.await.expect("the link has been closed");
    }
    hop.stops_well().await;
}
