//! A server that nobody here wrote, which wants a login and messages that keep the connection alive.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer};

const LOGIN: [&str; 8] = [
    "--consume-expect",
    r#"{"type":"hello"}"#,
    "--consume-message",
    r#"{"op":"login","key":"${KEY}"}"#,
    "--consume-expect",
    r#"{"type":"login","ok":true}"#,
    "--consume-message",
    r#"{"op":"subscribe","channel":"trades"}"#,
];

/// The server, and a hop that reads it.
async fn serve(patience: &str, key: &str, more: &[&str]) -> (Peer, Hop) {
    let mut peer = Peer::start(Language::Python, "login_server", &[patience]);
    let port = peer.says().await["port"].as_u64().expect("a number");
    let url = format!("ws://127.0.0.1:{port}/feed");
    let debug = ["--log-level", "debug"];
    let args = [&["--consume", &url], &LOGIN[..], more, &debug].concat();
    (peer, Hop::start_with(&args, &[("KEY", key)]).await)
}

#[tokio::test]
async fn who_logs_in_and_keeps_alive_is_served_for_as_long_as_it_likes() {
    let keepalive = ["--consume-keepalive", r#"{"op":"ping"}"#, "every", "50ms"];
    let ignore = ["--consume-ignore", r#"{"type":"pong"}"#];
    let (mut peer, hop) = serve("2", "s3same", &[&keepalive[..], &ignore].concat()).await;
    let mut subscriber = hop.subscribe().await;
    // It says so once a connection has lasted for longer than it waits for a ping.
    let said = peer.says().await;
    assert_eq!(said, json!({"outlived": "trades"}));
    assert!(hop.count("message ignored") > 0);
    peer.tell("").await;
    let (mut trades, end) = (0, Message::text(r#"{"type": "end"}"#));
    loop {
        let event = subscriber.message().await;
        if event == end {
            break;
        }
        let text = event.to_text().expect("it is text");
        trades += i32::from(text.starts_with(r#"{"type": "trade""#));
        let is_answer = text.contains("hello") || text.contains("login") || text.contains("pong");
        assert!(!is_answer, "{text}");
    }
    assert!(trades > 0);
    assert!(!hop.log.to_string().contains("s3same"));
}

#[tokio::test]
async fn who_does_not_keep_alive_is_dropped_and_comes_again() {
    let (_peer, hop) = serve("0.2", "s3same", &[]).await;
    let lost = hop.logged("upstream lost").await;
    assert_eq!(
        lost.field("reason"),
        "closed by the server with 4008: no ping"
    );
    hop.logged_times("upstream connected", 2).await;
}

#[tokio::test]
async fn who_has_the_wrong_key_is_told() {
    let (_peer, hop) = serve("2", "wr0ng", &[]).await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    // The server repeats the key.
    assert_eq!(
        lost.field("reason"),
        "closed by the server with 4001: bad key ..., while waiting for an answer to message 1"
    );
    assert_eq!(hop.count("upstream connected"), 0);
}
