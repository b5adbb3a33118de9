//! Software that nobody here wrote, over TLS: curl, Python's httpx, Node's http2 and ws, and Chromium.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::browser::driver::Browser;
use crate::harness::authority::Authority;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer, curl};

/// Where a hop is, by name.
fn origin(hop: &Hop) -> String {
    format!("https://localhost:{}", hop.address.port())
}

#[tokio::test]
async fn curl_publishes_reads_and_gets_the_page() {
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    for (version, head) in [("--http2", "HTTP/2 "), ("--http1.1", "HTTP/1.1 ")] {
        let mut hop = authority.hop(&["--accept-publish"]).await;
        let url = format!("{}/events", origin(&hop));
        let ask = async |args: &[&str]| {
            let answer = curl(&[&[version, "--cacert", &ca], args].concat()).await;
            assert!(answer.starts_with(head), "{answer}");
            answer
        };
        let answer = ask(&["--data-binary", "an event", &url]).await;
        assert!(answer.contains(" 202"), "{answer}");
        let answer = ask(&["--header", "Accept: text/html", &url]).await;
        assert!(answer.contains("</html>"), "{answer}");
        let all = format!("{url}?history=all");
        let args = ["--silent", "--no-buffer", "--noproxy", "*", version];
        let mut reading = Command::new("curl")
            .args(args)
            .args(["--cacert", &ca, "--header", "Accept: application/x-ndjson"])
            .arg(&all)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("curl is installed (scripts/test does that)");
        let mut lines = BufReader::new(reading.stdout.take().expect("it is a pipe")).lines();
        let line = within_guard("an event", lines.next_line()).await;
        let line = line.expect("it is text").expect("an event");
        assert!(line.contains(r#""data":"an event"}"#), "{line}");
        // The end is one in order: curl would complain about a connection that is cut off.
        hop.signal(Signal::INT);
        let status = within_guard("curl's end", reading.wait()).await;
        assert!(status.expect("it is our child").success());
        hop.stops_well().await;
    }
}

async fn reads_many_streams_on_one_connection(language: Language) {
    const STREAMS: usize = 50;
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&[]).await;
    let url = format!("{}/events", origin(&hop));
    let ca = authority.file("ca.pem");
    let mut client = Peer::start(language, "http2", &[&url, &STREAMS.to_string(), &ca]);
    assert!(client.says().await["index"]["instance"].is_string());
    let expected = json!({"version": "HTTP/2", "connections": 1});
    assert_eq!(client.says().await, expected);
    let texts: Vec<_> = (0..50)
        .map(|number| format!("{number} {}", "x".repeat(2_000)))
        .collect();
    for text in &texts {
        link.send(Message::text(text)).await;
    }
    link.send(Message::text("end")).await;
    for _ in 0..STREAMS {
        assert!(client.says().await["texts"] == json!(texts));
    }
    hop.logged_times("subscriber disconnected", STREAMS).await;
}

#[tokio::test]
async fn httpx_reads_many_streams_on_one_connection() {
    reads_many_streams_on_one_connection(Language::Python).await;
}

#[tokio::test]
async fn node_reads_many_streams_on_one_connection() {
    reads_many_streams_on_one_connection(Language::Node).await;
}

fn text(number: usize, text: &str) -> Value {
    json!({"number": number, "kind": "text", "length": text.len(), "start": &text[..text.len().min(20)]})
}

#[tokio::test]
async fn nodes_websockets_share_a_connection() {
    let authority = Authority::new();
    let mut hop = authority.hop(&["--accept-publish"]).await;
    let ca = authority.file("ca.pem");
    let mut node = Peer::start(Language::Node, "http2_websocket", &[&origin(&hop), &ca]);
    let expected = json!({"protocol": "h2", "enableConnectProtocol": true});
    assert_eq!(node.says().await, expected);
    for number in 0..3 {
        node.tell("open /events").await;
        let expected = json!({"number": number, "status": 200, "protocol": null});
        assert_eq!(node.says().await, expected);
    }
    node.tell("open /elsewhere").await;
    assert_eq!(node.says().await["status"], 404);
    // What one sends, all get.
    for message in ["plain", &"x".repeat(500_000)] {
        node.tell(&format!("send 1 {message}")).await;
        let mut said = vec![];
        for _ in 0..3 {
            said.push(node.says().await);
        }
        for number in 0..3 {
            assert!(said.contains(&text(number, message)), "{said:?}");
        }
    }
    node.tell("close 0").await;
    assert_eq!(node.says().await, json!({"number": 0, "closed": 4001}));
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 4001, "{}", line.text);
    hop.signal(Signal::INT);
    let mut said = vec![];
    while said.last() != Some(&json!({"session": "closed"})) {
        said.push(node.says().await);
    }
    for number in 1..3 {
        let closed = json!({"number": number, "closed": 1001});
        assert!(said.contains(&closed), "{said:?}");
    }
    hop.stops_well().await;
}

/// A browser that has agreed on HTTP/2 opens WebSockets on the same connection (RFC 8441).
#[tokio::test]
async fn chromium_has_the_page_events_and_websockets_on_one_connection() {
    let authority = Authority::new();
    let hop = authority.hop(&["--accept-publish"]).await;
    let mut browser = Browser::start().await;
    let page = browser
        .open_untrusted(&format!("{}/events", origin(&hop)))
        .await;
    browser.in_state(page, "live").await;
    let start = "(async () => {
        window.texts = [], window.codes = [];
        window.sockets = Array.from({length: 3}, () => new WebSocket('/events'));
        await Promise.all(sockets.map(socket => {
            socket.onmessage = event => texts.push(event.data);
            socket.onclose = event => codes.push(event.code);
            return new Promise(open => socket.onopen = open);
        }));
        sockets[0].send('é ✓ 𝄞');
        return performance.getEntriesByType('navigation')[0].nextHopProtocol;
    })()";
    assert_eq!(browser.value(page, start).await, "h2");
    let texts = browser.until(page, "texts.length === 3 && texts").await;
    assert_eq!(texts, json!(vec!["é ✓ 𝄞"; 3]));
    let rows = browser.rows(page, 1).await;
    assert_eq!(rows[0].3, "é ✓ 𝄞");
    // All of it came over one connection: the page's own stream and the three.
    hop.logged_times("subscriber connected", 4).await;
    let lines = hop.log.all("subscriber connected");
    let address = lines[0].field("address");
    assert!(
        lines.iter().all(|line| line.field("address") == address),
        "{lines:?}"
    );
    browser.value(page, "sockets[0].close(4000)").await;
    let of_one = |line: &crate::harness::log::Line| line.number("code") == 4000;
    hop.logged_where("subscriber disconnected", of_one).await;
    assert_eq!(
        browser.until(page, "codes.length && codes").await,
        json!([4000])
    );
    hop.signal(Signal::INT);
    let closed = browser.until(page, "codes.length === 3 && codes").await;
    assert_eq!(closed, json!([4000, 1001, 1001]));
    browser.close().await;
}
