//! Topics without configuration: whoever publishes or reads makes them.

use serde_json::Value;

use super::SSE;
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::wsevent::Hop;

async fn topics(args: &[&str]) -> Hop {
    let route = ["--serve-path", "/topics/*", "--accept-publish"];
    Hop::start(&[&route[..], args].concat()).await
}

async fn publish(hop: &Hop, path: &str, data: &str) -> u16 {
    let mut client = Client::connect(hop.address).await;
    let len = data.len();
    client
        .send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n{data}"
        ))
        .await;
    client.head().await.status
}

async fn list(hop: &Hop, target: &str) -> Value {
    let mut client = Client::connect(hop.address).await;
    let (head, body) = client.get(target, &[("Accept", "application/json")]).await;
    assert_eq!(head.status, 200, "{body}");
    serde_json::from_str(&body).expect("a list is JSON")
}

fn paths(list: &Value) -> Vec<&str> {
    let streams = list["streams"].as_array().expect("a list");
    let paths = streams.iter().map(|stream| stream["path"].as_str());
    paths.map(|path| path.expect("a path")).collect()
}

#[tokio::test]
async fn users_and_everybody_get_what_is_theirs() {
    let hop = topics(&[]).await;
    let mut ann = Stream::open(hop.address, "/topics/users/ann", &[SSE]).await;
    let mut bob = Stream::open(hop.address, "/topics/users/bob", &[SSE]).await;
    let mut all = Stream::open(hop.address, "/topics/notifications", &[SSE]).await;
    for (path, data) in [
        ("users/ann", "for ann"),
        ("notifications", "for all"),
        ("users/bob", "for bob"),
    ] {
        assert_eq!(publish(&hop, &format!("/topics/{path}"), data).await, 202);
    }
    assert_eq!(ann.event().await.data, "for ann");
    assert_eq!(bob.event().await.data, "for bob");
    assert_eq!(all.event().await.data, "for all");
}

#[tokio::test]
async fn what_was_published_before_anybody_read_is_there_for_a_while() {
    let hop = topics(&["--linger", "1h"]).await;
    assert_eq!(publish(&hop, "/topics/new", "first").await, 202);
    let mut late = Stream::open(hop.address, "/topics/new?history=all", &[SSE]).await;
    assert_eq!(late.event().await.data, "first");
}

#[tokio::test]
async fn the_list_has_pages() {
    let hop = topics(&["--linger", "1h"]).await;
    for number in 0..25 {
        publish(&hop, &format!("/topics/{number:02}"), "x").await;
    }
    let mut seen = vec![];
    let mut next = Some("/topics/?limit=10".to_owned());
    let mut pages = 0;
    while let Some(target) = next {
        let page = list(&hop, &target).await;
        assert_eq!(page["routes"][0]["streams"], 25);
        seen.extend(paths(&page).iter().map(|path| (*path).to_owned()));
        next = page["next"].as_str().map(str::to_owned);
        pages += 1;
    }
    let expected: Vec<_> = (0..25)
        .map(|number| format!("/topics/{number:02}"))
        .collect();
    assert_eq!((seen, pages), (expected, 3));
    assert_eq!(
        paths(&list(&hop, "/?limit=2").await),
        ["/topics/00", "/topics/01"]
    );
    let mut client = Client::connect(hop.address).await;
    for wrong in ["/topics/?limit=0", "/topics/?limit=x"] {
        assert_eq!(client.get(wrong, &[]).await.0.status, 400);
    }
    assert_eq!(publish(&hop, "/topics/", "x").await, 405);
    let (head, page) = client.get("/topics/", &[("Accept", "text/html")]).await;
    assert_eq!(head.status, 200);
    assert!(page.contains("<html"), "a page for a person");
}

#[tokio::test]
async fn there_are_at_most_so_many() {
    let hop = topics(&["--max-streams", "2", "--linger", "1h"]).await;
    let a = Stream::open(hop.address, "/topics/a", &[SSE]).await;
    let _b = Stream::open(hop.address, "/topics/b", &[SSE]).await;
    for (path, status) in [("a", 202), ("b", 202), ("c", 503)] {
        assert_eq!(publish(&hop, &format!("/topics/{path}"), "x").await, status);
    }
    let mut client = Client::connect(hop.address).await;
    let (head, reason) = client.get("/topics/d", &[SSE]).await;
    assert_eq!((head.status, head.header("retry-after")), (503, "5"));
    assert!(reason.contains("2 streams"), "{reason}");
    hop.logged("request refused").await;
    // One that merely lingers makes room.
    drop(a);
    hop.disconnected().await;
    assert_eq!(publish(&hop, "/topics/c", "x").await, 202);
    assert_eq!(
        paths(&list(&hop, "/topics/").await),
        ["/topics/b", "/topics/c"]
    );
}
