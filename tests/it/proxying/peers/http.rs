//! HTTP through the proxy: aiohttp behind it, and in front of it Node's `eventsource`, curl and Chromium.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::super::tls::Certificate;
use super::server;
use crate::browser::driver::Browser;
use crate::harness::events::bytes;
use crate::harness::proxy::Proxy;
use crate::harness::within_guard;
use crate::peers::{Language, Peer};

async fn aiohttp(args: &[&str]) -> (Peer, Proxy) {
    let (server, upstream) = server(Language::Python, "http_server", &[]).await;
    let proxy = Proxy::start(&[&["--upstream", &upstream], args].concat()).await;
    (server, proxy)
}

/// The rest of a stream is another request, which may go anywhere.
#[tokio::test]
async fn an_event_source_of_node_reads_a_stream_of_python_across_connections() {
    let (mut server, upstream) = server(Language::Python, "sse_server", &[]).await;
    let proxy = Proxy::start(&["--upstream", &upstream]).await;
    let url = format!("http://{}/feed", proxy.address);
    let mut source = Peer::start(Language::Node, "eventsource", &[&url]);
    let mut got = vec![];
    while got.len() < 4 {
        let said = source.says().await;
        if !said["data"].is_null() {
            got.push(json!([said["id"], said["data"]]));
        }
    }
    // Events of other types are not asked for.
    let long = "x".repeat(100_000);
    assert_eq!(
        got,
        [
            json!(["1", "plain"]),
            json!(["3", "two\nlines"]),
            json!(["4", ""]),
            json!(["5", long]),
        ]
    );
    for last in [json!(null), json!("2"), json!("4")] {
        assert_eq!(server.says().await, json!({"last": last}));
    }
}

#[tokio::test]
async fn an_event_source_of_node_comes_back_when_the_proxy_is_replaced() {
    let (mut server, mut proxy) = aiohttp(&[]).await;
    let url = format!("http://{}/feed", proxy.address);
    let mut source = Peer::start(Language::Node, "eventsource", &[&url]);
    assert_eq!(server.says().await["feed"], Value::Null);
    server.says().await;
    server.tell("one").await;
    let said = says_data(&mut source, "one").await;
    assert_eq!(said["id"], "one");
    proxy.signal(Signal::INT);
    assert_eq!(proxy.exit().await.code(), Some(0));
    let (address, line) = (proxy.address.to_string(), proxy.logged("listening").await);
    let upstream = line.field("upstreams");
    let _next = Proxy::start(&["--upstream", &upstream, "--serve-address", &address]).await;
    assert_eq!(server.says().await["feed"], "one");
    server.says().await;
    server.tell("two").await;
    says_data(&mut source, "two").await;
}

async fn says_data(source: &mut Peer, data: &str) -> Value {
    loop {
        let said = source.says().await;
        if said["data"] == data {
            return said;
        }
    }
}

fn curl(args: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--include"]);
    curl.args(args).stdin(Stdio::null()).kill_on_drop(true);
    curl
}

#[tokio::test]
async fn curl_reads_a_stream_event_by_event() {
    let (mut server, proxy) = aiohttp(&[]).await;
    let url = format!("http://{}/feed", proxy.address);
    for (number, (version, first)) in [
        ("--http1.0", "HTTP/1."),
        ("--http1.1", "HTTP/1.1 200 OK"),
        ("--http2-prior-knowledge", "HTTP/2 200"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut curl = curl(&["--no-buffer", version, &url]);
        let mut curl = curl.stdout(Stdio::piped()).spawn().expect("curl");
        let mut lines = BufReader::new(curl.stdout.take().expect("it is a pipe")).lines();
        let mut line = async || {
            let line = within_guard("a line of curl", lines.next_line()).await;
            line.expect("it is UTF-8")
        };
        assert!(line().await.is_some_and(|line| line.starts_with(first)));
        server.says().await;
        server.says().await;
        for text in ["one", "two"] {
            server.tell(text).await;
            let wanted = format!("data: {text}");
            while line().await.expect("more of it") != wanted {}
        }
        server.tell("end").await;
        while line().await.is_some() {}
        let status = within_guard("the end of curl", curl.wait()).await;
        assert!(status.expect("it is our child").success(), "{version}");
        let line = proxy.logged_times("proxied", number + 1).await;
        assert_eq!(line.field("why"), "complete");
    }
}

/// The body of an answer that curl has got.
async fn answer(args: &[&str]) -> (String, Value) {
    let running = curl(args).output();
    let output = within_guard("the end of curl", running)
        .await
        .expect("curl");
    let said = String::from_utf8(output.stdout).expect("it is text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    // There may be a head of `100 Continue` before it.
    let (head, body) = said.rsplit_once("\r\n\r\n").expect("a head");
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {said}"));
    (head.to_owned(), body)
}

#[tokio::test]
async fn curl_uploads_in_all_ways() {
    const LEN: usize = 5 << 20;
    let (mut server, proxy) = aiohttp(&[]).await;
    let url = format!("http://{}/upload", proxy.address);
    let file = tempfile::NamedTempFile::new().expect("a file for the test");
    std::fs::write(file.path(), bytes(LEN)).expect("the file is ours");
    let path = file.path().to_str().expect("it is text");
    let data = format!("@{path}");
    let put = ["--upload-file", path];
    let chunked = [&put[..], &["--header", "Transfer-Encoding: chunked"]].concat();
    let post = ["--data-binary", &data];
    let expecting = [&post[..], &["--header", "Expect: 100-continue"]].concat();
    let at_once = [&post[..], &["--header", "Expect:"]].concat();
    let mut digests = vec![];
    for args in [
        [&put[..], &["--http1.0"]].concat(),
        [&put[..], &["--http1.1"]].concat(),
        [&chunked[..], &["--http1.1"]].concat(),
        [&expecting[..], &["--http1.1"]].concat(),
        [&at_once[..], &["--http1.1"]].concat(),
        [&put[..], &["--http2-prior-knowledge"]].concat(),
        [&post[..], &["--http2-prior-knowledge"]].concat(),
    ] {
        let (head, answer) = answer(&[&args[..], &[&url]].concat()).await;
        assert_eq!(answer["size"], LEN, "{args:?}: {head}");
        digests.push(answer["sha256"].clone());
        let said = server.says().await;
        assert_eq!(said, json!({"upload": LEN, "proto": "http"}), "{args:?}");
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let line = proxy.logged_times("proxied", digests.len()).await;
    assert_eq!(line.number("to_upstream"), LEN as u64);
}

/// A browser that has agreed on HTTP/2 opens WebSockets on the same connection (RFC 8441).
#[tokio::test]
async fn chromium_reads_events_and_talks_over_one_connection_of_http_2() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.file("cert.pem"), certificate.file("key.pem"));
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let (mut server, proxy) = aiohttp(&tls).await;
    let mut browser = Browser::start().await;
    let url = format!("https://localhost:{}/", proxy.address.port());
    let page = browser.open_untrusted(&url).await;
    let start = "(async () => {
        window.events = [], window.echoes = [];
        const source = new EventSource('/feed');
        source.onmessage = event => events.push(event.data);
        await new Promise(open => source.onopen = open);
        window.socket = new WebSocket('/echo');
        socket.binaryType = 'arraybuffer';
        socket.onclose = event => window.code = event.code;
        socket.onmessage = event => echoes.push(typeof event.data === 'string' ? event.data : event.data.byteLength);
        await new Promise(open => socket.onopen = open);
        socket.send('é ✓ 𝄞');
        socket.send(new Uint8Array(1 << 20));
        socket.send('last');
        return performance.getEntriesByType('navigation')[0].nextHopProtocol;
    })()";
    assert_eq!(browser.value(page, start).await, "h2");
    let echoes = browser.until(page, "echoes.length === 3 && echoes").await;
    assert_eq!(echoes, json!(["é ✓ 𝄞", 1 << 20, "last"]));
    let via = json!("2 wsevent");
    assert_eq!(server.says().await, json!({"feed": null, "via": via}));
    assert_eq!(server.says().await, json!({"reading": 1}));
    assert_eq!(server.says().await, json!({"echo": true, "proto": "https"}));
    server.tell("an event").await;
    let events = browser.until(page, "events.length === 2 && events").await;
    assert_eq!(events, json!(["welcome", "an event"]));
    browser.value(page, "socket.close(4000)").await;
    assert_eq!(server.says().await, json!({"closed": 4000}));
    // What aiohttp answers, whatever it was told.
    assert_eq!(browser.until(page, "window.code").await, 1000);
    let line = proxy
        .logged_where("proxied", |line| line.field("path") == "/echo")
        .await;
    let (method, status) = (line.field("method"), line.field("status"));
    assert_eq!((&*method, &*status), ("CONNECT", "200"), "{}", line.text);
    // All of it came over one connection.
    let of_page = proxy.logged_where("proxied", |line| line.field("path") == "/");
    assert_eq!(of_page.await.field("client"), line.field("client"));
    browser.close().await;
}

/// The same without TLS, where a browser speaks HTTP/1.1 only.
#[tokio::test]
async fn chromium_talks_over_http_1() {
    let (mut server, proxy) = aiohttp(&[]).await;
    let mut browser = Browser::start().await;
    let page = browser.open(&format!("http://{}/", proxy.address)).await;
    let start = "(async () => {
        const socket = new WebSocket('/echo');
        socket.onclose = event => window.code = event.code;
        const echo = new Promise(echo => socket.onmessage = event => echo(event.data));
        await new Promise(open => socket.onopen = open);
        socket.send('é ✓ 𝄞');
        return await echo;
    })()";
    assert_eq!(browser.value(page, start).await, "é ✓ 𝄞");
    assert_eq!(server.says().await, json!({"echo": true, "proto": "http"}));
    proxy.signal(Signal::INT);
    assert_eq!(browser.until(page, "window.code").await, 1001);
    assert_eq!(server.says().await, json!({"closed": 1001}));
    let line = proxy
        .logged_where("proxied", |line| line.field("path") == "/echo")
        .await;
    let (method, status) = (line.field("method"), line.field("status"));
    assert_eq!((&*method, &*status), ("GET", "101"), "{}", line.text);
    browser.close().await;
}
