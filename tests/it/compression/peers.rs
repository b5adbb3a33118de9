//! Other people's clients and servers, which know how to compress: most of them ask for it by themselves.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use super::event;
use crate::browser::driver::Browser;
use crate::harness::authority::Authority;
use crate::harness::events::{all_sorts, assert_same};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer};

const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client gets all sorts of events, and publishes what it compresses itself.
async fn serves_to(language: Language, agreed: &str) {
    let hop = Hop::quiet(&["--compress", "--accept-publish"]).await;
    let mut client = Peer::start(language, "client", &[&hop.url]);
    let said = client.says().await;
    assert_eq!(said["extensions"], agreed);
    assert_eq!(client.says().await, json!({"pong": true}));
    let mut other = hop.subscribe().await;
    for sent in all_sorts() {
        other
            .send_frame(
                if sent.is_text() { 1 } else { 2 },
                &sent.clone().into_data(),
            )
            .await;
        assert_same(&[other.message().await], std::slice::from_ref(&sent));
        assert_same(&[client.event().await], &[sent]);
    }
    client.tell(&event(1)).await;
    assert_same(
        &[other.message().await, client.event().await],
        &[(); 2].map(|()| Message::text(event(1))),
    );
    drop(client);
    let line = hop.disconnected().await;
    assert_eq!(line.field("transport"), "websocket+deflate");
}

#[tokio::test]
async fn a_client_of_python_is_served() {
    serves_to(Language::Python, AGREED).await;
}

#[tokio::test]
async fn a_client_of_node_is_served() {
    serves_to(Language::Node, "permessage-deflate").await;
}

/// It compresses what it sends, and says so.
#[tokio::test]
async fn a_server_of_python_is_consumed() {
    let mut server = Peer::start(Language::Python, "server", &[]);
    let port = server.says().await["port"].clone();
    let url = format!("ws://127.0.0.1:{port}/feed");
    let args = [
        "--consume",
        &url,
        "--consume-compress",
        "--consume-message",
        "hello",
    ];
    let hop = Hop::start(&args).await;
    while server.says().await != json!({"pong": true}) {}
    let mut subscriber = hop.subscribe().await;
    server.tell("send").await;
    let first = subscriber.messages(7).await;
    assert_same(
        &first[..2],
        &[Message::text("plain"), Message::text("é ✓ 𝄞")],
    );
    assert_same(&first[5..6], &[Message::text("x".repeat(1 << 20))]);
    subscriber.messages(2).await;
    assert_eq!(subscriber.message().await, Message::text("last"));
}

/// httpx asks for gzip.
#[tokio::test]
async fn httpx_reads_gzip() {
    let (mut link, hop) = Hop::fed(&["--compress"]).await;
    let mut subscriber = hop.subscribe().await;
    link.send(Message::text(event(1))).await;
    subscriber.message().await;
    let url = format!("http://{}/events?history=1", hop.address);
    let mut source = Peer::start(Language::Python, "eventsource", &[&url]);
    source.says().await;
    let mut next = async || loop {
        let said: Value = source.says().await;
        if said["data"] != "" {
            return said["data"].clone();
        }
    };
    assert_eq!(next().await, event(1));
    for number in 2..5 {
        link.send(Message::text(event(number))).await;
        assert_eq!(next().await, event(number));
    }
    drop(source);
    let line = hop.disconnected().await;
    assert_eq!(line.field("transport"), "sse+gzip");
}

/// As it comes, not in the end.
#[tokio::test]
async fn curl_reads_both_codings_over_each_version_of_http() {
    let authority = Authority::new();
    for (version, coding) in [
        ("--http1.1", "gzip"),
        ("--http1.1", "zstd"),
        ("--http2", "gzip"),
        ("--http2", "zstd"),
    ] {
        let (mut link, hop) = authority.fed(&["--compress"]).await;
        let url = format!(
            "https://localhost:{}/events?history=all",
            hop.address.port()
        );
        let mut subscriber = authority.subscribe(&hop).await;
        link.send(Message::text(event(1))).await;
        subscriber.message().await;
        let encoding = format!("Accept-Encoding: {coding}");
        let certificate = authority.file("ca.pem");
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--no-buffer",
            "--noproxy",
            "*",
            "--compressed",
            version,
        ])
        .args(["--cacert", &certificate, "--header", &encoding])
        .args([
            "--resolve",
            &format!("localhost:{}:127.0.0.1", hop.address.port()),
            &url,
        ]);
        let mut curl = curl
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("curl");
        let mut lines = BufReader::new(curl.stdout.take().expect("it is a pipe")).lines();
        for number in 1..4 {
            let expected = format!("data: {}", event(number));
            loop {
                let line = within_guard("a line of curl", lines.next_line()).await;
                let line = line.expect("it is UTF-8").expect("it goes on");
                if line == expected {
                    break;
                }
            }
            link.send(Message::text(event(number + 1))).await;
            subscriber.message().await;
        }
        let name = format!("sse+{coding}");
        let connected = |line: &crate::harness::log::Line| line.field("transport") == name;
        hop.logged_where("subscriber connected", connected).await;
    }
}

/// A browser asks for everything that it can, and shows pages what is in it.
#[tokio::test]
async fn a_browser_reads_all_of_them() {
    let hop = Hop::quiet(&["--compress", "--accept-publish"]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&format!("http://{}/", hop.address)).await;
    let script = "(async () => {
        window.got = {source: [], socket: [], gzip: [], lines: []};
        const source = new EventSource('/events');
        source.onmessage = event => got.source.push(event.data);
        const socket = new WebSocket(`ws://${location.host}/events`);
        socket.onmessage = event => got.socket.push(event.data);
        window.socket = socket;
        const read = async (into, answer) => {
            const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
            let rest = '';
            for (;;) {
                const {done, value} = await reader.read();
                if (done) return;
                const lines = (rest + value).split('\\n');
                rest = lines.pop();
                into.push(...lines.filter(line => line).map(line => JSON.parse(line).data));
            }
        };
        read(got.lines, await fetch('/events', {headers: {Accept: 'application/x-ndjson'}}));
        await Promise.all([source, socket].map(it => new Promise(resolve => {
            if (it.readyState === 1) resolve(); else it.onopen = resolve;
        })));
        return socket.extensions;
    })()";
    assert_eq!(browser.value(page, script).await, AGREED);
    let mut expected = vec![];
    for number in 1..=5 {
        let event = event(number);
        let send = format!("socket.send({event:?})");
        browser.value(page, &send).await;
        expected.push(event);
        let all = "['source', 'socket', 'lines']";
        let here = format!("{all}.every(it => got[it].length === {number})");
        browser.until(page, &here).await;
    }
    let got = browser.value(page, "got").await;
    for what in ["source", "socket", "lines"] {
        assert_eq!(got[what], json!(expected), "{what}");
    }
    for transport in ["websocket+deflate", "sse+zstd", "ndjson+zstd"] {
        let connected = |line: &crate::harness::log::Line| line.field("transport") == transport;
        hop.logged_where("subscriber connected", connected).await;
    }
    browser.close().await;
}
