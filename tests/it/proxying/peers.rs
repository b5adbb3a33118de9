//! Software that nobody here wrote, on both ends of the proxy at once.

mod haproxy;
mod hops;
mod http;
mod nginx;

use crate::harness::proxy::Proxy;
use crate::peers::{Language, Peer};
use serde_json::{Value, json};

/// A running server of `role`, and where it is.
async fn server(language: Language, role: &str, args: &[&str]) -> (Peer, String) {
    let mut peer = Peer::start(language, role, args);
    let port = peer.says().await["port"].clone();
    (peer, format!("127.0.0.1:{port}"))
}

/// A client of `url` and the echo server that it leads to agree on what both know, and talk in all ways there are.
async fn talk(url: &str, client: Language, server: &mut Peer) {
    let mut client = Peer::start(client, "echo_client", &[url, "chat.v2", "chat.v1"]);
    let agreed = client.says().await;
    let extensions = agreed["extensions"].as_str().unwrap_or_default();
    assert!(extensions.starts_with("permessage-deflate"), "{agreed}");
    assert_eq!(agreed["subprotocol"], "chat.v1", "{agreed}");
    let asked = server.says().await;
    assert_eq!(asked["path"], "/echo?key=value&key=%2f", "{asked}");
    let offered = asked["extensions"].as_str().unwrap_or_default();
    assert!(offered.starts_with("permessage-deflate"), "{asked}");
    let of = asked["client"].as_str().unwrap_or_default();
    assert!(of.starts_with("127.0.0.1"), "{asked}");
    assert_eq!(client.says().await, json!({"pong": true}));
    let said = client.says().await;
    assert!(said["of"].as_u64() > Some(1000), "{said}");
    assert_eq!(said["same"], said["of"]);
    let closed = json!({"closed": 4321, "reason": "as you wish"});
    assert_eq!(client.says().await, closed);
    assert_eq!(server.says().await, json!({"closed": 4321}));
    client.tell("again").await;
    let again: Value = server.says().await;
    assert_eq!(again["path"], asked["path"]);
    assert_eq!(client.says().await["closed"], 4322);
    assert_eq!(server.says().await, json!({"closed": 4322}));
    client.ends().await;
}

async fn talk_through(client: Language, of_server: Language) {
    let (mut server, upstream) = server(of_server, "echo_server", &["chat.v1"]).await;
    let proxy = Proxy::start(&["--upstream", &upstream]).await;
    let url = format!("ws://{}/echo?key=value&key=%2f", proxy.address);
    talk(&url, client, &mut server).await;
    let line = proxy.logged_times("proxied", 2).await;
    assert_eq!(
        (&*line.field("status"), &*line.field("path")),
        ("101", "/echo")
    );
}

#[tokio::test]
async fn python_talks_to_python() {
    talk_through(Language::Python, Language::Python).await;
}

#[tokio::test]
async fn python_talks_to_node() {
    talk_through(Language::Python, Language::Node).await;
}

#[tokio::test]
async fn node_talks_to_python() {
    talk_through(Language::Node, Language::Python).await;
}

#[tokio::test]
async fn node_talks_to_node() {
    talk_through(Language::Node, Language::Node).await;
}

/// The proxy closes with 1001 between two frames, and the libraries take it as a Close of the other side.
#[tokio::test]
async fn both_sides_understand_that_the_proxy_stops() {
    use rustix::process::Signal;
    for language in [Language::Python, Language::Node] {
        let (mut server, upstream) = server(language, "echo_server", &[]).await;
        let mut proxy = Proxy::start(&["--upstream", &upstream, "--drain", "1h"]).await;
        let url = format!("ws://{}/echo", proxy.address);
        let mut client = Peer::start(language, "client", &[&url]);
        client.says().await;
        client.says().await;
        client.tell("an echo").await;
        assert_eq!(client.says().await["kind"], "text");
        proxy.signal(Signal::INT);
        assert_eq!(client.says().await, json!({"closed": 1001}));
        server.says().await;
        assert_eq!(server.says().await, json!({"closed": 1001}));
        assert_eq!(proxy.exit().await.code(), Some(0));
    }
}
