//! Clients and servers of SSE and HTTP that others wrote.

use super::*;

#[tokio::test]
async fn an_event_stream_of_python_is_consumed_across_connections() {
    let mut server = Peer::start(Language::Python, "sse_server", &[]);
    let port = server.says().await["port"].clone();
    let url = format!("http://127.0.0.1:{port}/moved");
    let hop = Hop::start(&["--consume", &url]).await;
    // Its first events may be there already.
    let mut reader = Ndjson::at(&hop, "/events?history=all").await;
    for expected in [
        json!([null, "plain"]),
        json!(["named", "é ✓ 𝄞"]),
        json!([null, "two\nlines"]),
        json!([null, ""]),
        json!([null, "x".repeat(100_000)]),
        json!(["named", "last"]),
    ] {
        let event = reader.next().await;
        assert_eq!(json!([event["type"], event["data"]]), expected);
    }
    for last in [json!(null), json!("2"), json!("4"), json!("6")] {
        assert_eq!(server.says().await, json!({"last": last}));
    }
}

/// Where the stream of a hop can be had over HTTP, at this address.
fn events(address: SocketAddr) -> String {
    format!("http://{address}/events")
}

/// Sends a text, and waits until it is in the log.
async fn send(link: &mut Link, subscriber: &mut Client, text: &str) {
    link.send(Message::text(text)).await;
    assert_eq!(subscriber.message().await, Message::text(text));
}

#[tokio::test]
async fn an_event_source_of_node_comes_back_by_itself_and_misses_nothing() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let wire = Wire::to(hop.address);
    let mut subscriber = hop.subscribe().await;
    let mut source = Peer::start(Language::Node, "eventsource", &[&events(wire.address())]);
    assert_eq!(source.says().await, json!({"resumed": "no", "sent": null}));
    assert_eq!(source.says().await, json!({"open": true}));
    send(&mut link, &mut subscriber, "one\r\ntwo\r\r").await;
    let id = hop.id(1).await;
    let expected = json!({"type": "message", "data": "one\ntwo\n\n", "id": id});
    assert_eq!(source.says().await, expected);
    for round in 0..2 {
        wire.cut(hop.address);
        let (before, next) = (1 + round * 2, 2 + round * 2);
        send(&mut link, &mut subscriber, "meanwhile").await;
        assert_eq!(source.says().await, json!({"error": true}));
        let sent = hop.id(before).await;
        assert_eq!(source.says().await, json!({"resumed": "yes", "sent": sent}));
        assert_eq!(source.says().await, json!({"open": true}));
        send(&mut link, &mut subscriber, "").await;
        for (seq, text) in [(next, "meanwhile"), (next + 1, "")] {
            let id = hop.id(seq).await;
            let expected = json!({"type": "message", "data": text, "id": id});
            assert_eq!(source.says().await, expected);
        }
    }
    // A server that knows nothing of all that says so.
    let last = hop.id(5).await;
    let (mut other_link, other) = Hop::fed(&[]).await;
    wire.cut(other.address);
    assert_eq!(source.says().await, json!({"error": true}));
    assert_eq!(source.says().await, json!({"resumed": "no", "sent": last}));
    assert_eq!(source.says().await, json!({"open": true}));
    let gap = json!({"after": last, "next": null, "lost": null});
    let said = source.says().await;
    let data = said["data"].as_str().expect("a text");
    assert_eq!(serde_json::from_str::<Value>(data).expect("JSON"), gap);
    assert_eq!(said["type"], "wsevent.gap");
    other_link.send(Message::text("new")).await;
    let expected = json!({"type": "message", "data": "new", "id": other.id(1).await});
    assert_eq!(source.says().await, expected);
    source.tell("end").await;
    other.disconnected().await;
}

#[tokio::test]
async fn an_event_source_of_node_gets_types() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let url = events(hop.address);
    let mut source = Peer::start(Language::Node, "eventsource", &[&url]);
    source.says().await;
    assert_eq!(source.says().await, json!({"open": true}));
    let publisher = Client::connect(hop.address).await;
    let mut publisher = publisher.upgraded("/events?type=greeting").await;
    publisher.send_frame(TEXT, "é ✓ 𝄞".as_bytes()).await;
    let expected = json!({"type": "greeting", "data": "é ✓ 𝄞", "id": hop.id(1).await});
    assert_eq!(source.says().await, expected);
}

#[tokio::test]
async fn httpx_sse_reads_what_there_is_and_resumes() {
    let (mut link, mut hop) = Hop::fed(&["--history-count", "2"]).await;
    let mut subscriber = hop.subscribe().await;
    for text in ["one", "two", "three", "four\nlines"] {
        send(&mut link, &mut subscriber, text).await;
    }
    let after = hop.id(1).await;
    let header = format!("Last-Event-ID:{after}");
    let mut source = Peer::start(
        Language::Python,
        "eventsource",
        &[&events(hop.address), &header],
    );
    assert_eq!(source.says().await, json!({"resumed": "partial"}));
    // Unlike the standard, it makes an event of a block without data.
    let said = source.says().await;
    let pause = said["retry"].as_u64().expect("a number");
    assert!((2_000..=4_000).contains(&pause), "{pause}");
    let expected = json!({"type": "message", "data": "", "id": after, "retry": pause});
    assert_eq!(said, expected);
    let said = source.says().await;
    assert_eq!(said["type"], "wsevent.gap");
    let gap: Value = serde_json::from_str(said["data"].as_str().expect("a text")).expect("JSON");
    let expected = json!({"after": after, "next": hop.id(3).await, "lost": 1});
    assert_eq!(gap, expected);
    for (seq, text) in [(3, "three"), (4, "four\nlines")] {
        let id = hop.id(seq).await;
        let said = source.says().await;
        assert_eq!((&said["id"], &said["data"]), (&json!(id), &json!(text)));
    }
    hop.signal(Signal::INT);
    assert_eq!(source.says().await, json!({"ended": true}));
    hop.stops_well().await;
}

async fn many_streams_share_one_connection(language: Language) {
    const STREAMS: usize = 50;
    let (mut link, hop) = Hop::fed(&[]).await;
    let args = [&events(hop.address), &STREAMS.to_string()];
    let mut client = Peer::start(language, "http2", &args.map(String::as_str));
    assert!(client.says().await["index"]["instance"].is_string());
    let expected = json!({"version": "HTTP/2", "connections": 1});
    assert_eq!(client.says().await, expected);
    let subscribers = hop.index().await["streams"][0]["subscribers"].clone();
    assert_eq!(subscribers, STREAMS);
    let mut subscriber = hop.subscribe().await;
    let texts: Vec<_> = (0..100)
        .map(|number| format!("{number} {}", "x".repeat(2_000)))
        .collect();
    for text in &texts {
        send(&mut link, &mut subscriber, text).await;
    }
    send(&mut link, &mut subscriber, "end").await;
    for _ in 0..STREAMS {
        assert!(client.says().await["texts"] == json!(texts));
    }
    hop.logged_times("subscriber disconnected", STREAMS).await;
    assert_eq!(hop.index().await["streams"][0]["subscribers"], 1);
}

#[tokio::test]
async fn many_streams_share_one_connection_of_http_2() {
    many_streams_share_one_connection(Language::Python).await;
}

/// This client reads each stream while others wait for their answers, and lets the hop send far less at a time.
#[tokio::test]
async fn many_streams_share_one_connection_of_node() {
    many_streams_share_one_connection(Language::Node).await;
}

#[tokio::test]
async fn curl_reads_a_stream_over_each_version_of_http() {
    for (version, first) in [
        ("--http1.0", "HTTP/1."),
        ("--http1.1", "HTTP/1.1 200 OK"),
        ("--http2-prior-knowledge", "HTTP/2 200"),
    ] {
        let (mut link, mut hop) = Hop::fed(&[]).await;
        let mut subscriber = hop.subscribe().await;
        send(&mut link, &mut subscriber, "one").await;
        let url = format!("{}?history=all", events(hop.address));
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--no-buffer",
            "--include",
            "--noproxy",
            "*",
            version,
            &url,
        ]);
        let mut curl = curl
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("curl");
        let mut lines = BufReader::new(curl.stdout.take().expect("it is a pipe")).lines();
        let mut line = async || {
            let line = within_guard("a line of curl", lines.next_line()).await;
            line.expect("it is UTF-8")
        };
        assert!(line().await.is_some_and(|line| line.starts_with(first)));
        while line().await.is_some_and(|line| line != "data: one") {}
        send(&mut link, &mut subscriber, "two").await;
        while line().await.is_some_and(|line| line != "data: two") {}
        hop.signal(Signal::INT);
        assert_eq!(line().await.as_deref(), Some(""));
        assert_eq!(line().await, None);
        let status = within_guard("the end of curl", curl.wait()).await;
        assert!(status.expect("it is our child").success(), "{version}");
        hop.stops_well().await;
    }
}

/// Runs curl; what it prints is the answer, head and body.
pub async fn curl(args: &[&str]) -> String {
    let mut command = Command::new("curl");
    let common = [
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "60",
        "--noproxy",
        "*",
    ];
    let running = command.args(common).args(args).output();
    let output = within_guard("curl's end", running).await;
    let output = output.expect("curl is installed (scripts/test does that)");
    String::from_utf8(output.stdout).expect("it is text")
}

#[tokio::test]
async fn curl_is_told_what_is_wrong_in_plain_text() {
    let hop = Hop::quiet(&[]).await;
    let url = |path: &str| format!("http://{}{path}", hop.address);
    let (events, other) = (url("/events"), url("/other"));
    for (args, head, header, text) in [
        (
            &["--header", "Accept: image/png", &events][..],
            "HTTP/1.1 406 ",
            "content-type: text/plain",
            "text/event-stream, application/x-ndjson",
        ),
        (
            &["--http1.0", &other],
            "HTTP/1.0 404 ",
            "content-type: text/plain",
            "no stream at this path; what there is: /events\n",
        ),
        (
            &[&other],
            "HTTP/1.1 404 ",
            "content-type: text/plain",
            "no stream at this path",
        ),
        (
            &["--data", "an event", &events],
            "HTTP/1.1 405 ",
            "allow: GET, HEAD, OPTIONS\r\n",
            "--accept-publish",
        ),
        (
            &["--request", "DELETE", &events],
            "HTTP/1.1 405 ",
            "allow: GET, HEAD, OPTIONS\r\n",
            "this method is not possible here\n",
        ),
        (
            &["--head", &events],
            "HTTP/1.1 200 ",
            "content-type: text/event-stream\r\n",
            "",
        ),
        (
            &["--header", "Host:", &events],
            "HTTP/1.1 400 ",
            "content-type: text/plain",
            "Host",
        ),
    ] {
        let answer = curl(args).await;
        assert!(answer.starts_with(head), "{args:?}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(format!("{head}\r\n").contains(header), "{args:?}: {answer}");
        assert!(body.contains(text), "{args:?}: {answer}");
    }
}
