//! Webhooks: a server of Python's aiohttp that fails in all ways, and other hops.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::authority::Authority;
use crate::harness::client::{Client, request};
use crate::harness::http::Ndjson;
use crate::harness::log::Line;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, output};
use crate::peers::{Language, Peer};

/// A server that answers so, and its URL.
async fn server(answers: &[&str]) -> (Peer, String) {
    let mut server = Peer::start(Language::Python, "webhook", answers);
    let port = server.says().await["port"].clone();
    (server, format!("http://127.0.0.1:{port}/hook?x=1"))
}

/// A hop that forwards what is published there, and is connected.
async fn hop(url: &str, args: &[&str]) -> Hop {
    let own = ["--accept-publish", "--forward", url];
    let hop = Hop::start(&[&own[..], args].concat()).await;
    hop.logged("downstream connected").await;
    hop
}

/// Publishes at a hop; the id of the event.
async fn post(hop: &Hop, text: &str) -> String {
    post_to(hop, "/events", &[], text.as_bytes())
        .await
        .remove(0)
}

async fn post_to(hop: &Hop, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<String> {
    let mut client = Client::connect(hop.address).await;
    let length = body.len().to_string();
    let own = [("host", "localhost"), ("content-length", &*length)];
    let head = request(
        &format!("POST {target} HTTP/1.1"),
        &[&own, headers].concat(),
    );
    client.send([head.as_bytes(), body].concat()).await;
    let head = client.head().await;
    let answer = client.body(&head).await;
    assert_eq!(head.status, 202, "{answer}");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    serde_json::from_value(answer["ids"].clone()).expect("ids")
}

/// A dead letter with this in its reason.
async fn dead_letter(hop: &Hop, id: &str, reason: &str) -> Line {
    let is_it = |line: &Line| line.field("id") == id;
    let line = hop
        .logged_where("event not forwarded: dead letter", is_it)
        .await;
    assert!(line.field("reason").contains(reason), "{}", line.text);
    line
}

#[tokio::test]
async fn each_event_is_a_request_with_its_attributes_in_order_on_one_connection() {
    let (mut server, url) = server(&[]).await;
    let hop = hop(&url, &[]).await;
    let mut peers = vec![];
    for (target, headers, body, content_type, event_type, key) in [
        (
            "/events",
            &[][..],
            &b"plain"[..],
            "text/plain; charset=utf-8",
            "wsevent.event",
            json!(null),
        ),
        (
            "/events?type=a%20b&key=%E2%82%AC",
            &[],
            b"{\"a\":1}",
            "application/json",
            "a%20b",
            json!("%E2%82%AC"),
        ),
        (
            "/events",
            &[("content-type", "application/octet-stream")],
            b"\xff",
            "application/octet-stream",
            "wsevent.event",
            json!(null),
        ),
    ] {
        let id = post_to(&hop, target, headers, body).await.remove(0);
        let said = server.says().await;
        let headers = &said["headers"];
        assert_eq!(
            (&said["method"], &said["path"]),
            (&json!("POST"), &json!("/hook?x=1"))
        );
        assert_eq!(headers["ce-id"], id);
        assert_eq!(
            headers["ce-source"],
            format!("urn:wsevent:{}", id.split('-').next().expect("an origin"))
        );
        assert_eq!(
            (&headers["ce-type"], &headers["ce-specversion"]),
            (&json!(event_type), &json!("1.0"))
        );
        assert_eq!(
            (&headers["ce-subject"], &headers["content-type"]),
            (&key, &json!(content_type))
        );
        assert!(
            headers["ce-time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        let expected = std::str::from_utf8(body).map_or(json!({"hex": "ff"}), |text| json!(text));
        assert_eq!(said["body"], expected);
        peers.push(said["peer"].clone());
    }
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
}

#[tokio::test]
async fn what_may_get_better_is_tried_again_in_order_and_what_may_not_is_a_dead_letter() {
    let (mut server, url) = server(&[
        "500", "503", "408", "425", "200", "400", "302", "404", "200",
    ])
    .await;
    let hop = hop(&url, &[]).await;
    let mut ids = vec![];
    for text in ["first", "second", "third", "fourth", "fifth"] {
        ids.push(post(&hop, text).await);
    }
    for text in ["first"; 5]
        .into_iter()
        .chain(["second", "third", "fourth", "fifth"])
    {
        let said = server.says().await;
        assert_eq!(said["body"], text);
        let number = ["first", "second", "third", "fourth", "fifth"]
            .iter()
            .position(|it| *it == text);
        assert_eq!(said["headers"]["ce-id"], ids[number.expect("one of them")]);
    }
    dead_letter(
        &hop,
        &ids[1],
        "the webhook answered 400 Bad Request: you said nothing",
    )
    .await;
    dead_letter(&hop, &ids[2], "302 Found: redirects are not followed").await;
    dead_letter(&hop, &ids[3], "404 Not Found").await;
    let lost = hop.logged("downstream lost").await;
    assert!(
        lost.field("reason").contains("the webhook answered 500"),
        "{}",
        lost.text
    );
    // It was away once, however often it was tried.
    hop.logged_times("downstream connected", 2).await;
    assert_eq!(hop.count("downstream lost"), 1);
}

#[tokio::test]
async fn a_server_may_say_when_to_come_again() {
    let (mut server, url) = server(&["429:3600"; 20]).await;
    let hop = hop(&url, &["--forward-retry-for", "2s"]).await;
    let id = post(&hop, "patient").await;
    dead_letter(&hop, &id, "not taken within 2s: the webhook answered 429").await;
    post(&hop, "next").await;
    // At once, and when its time was over; otherwise it would have been asked five times at least.
    let mut asked = 0;
    while server.says().await["body"] == "patient" {
        asked += 1;
    }
    assert!((2..=3).contains(&asked), "{asked}");
}

#[tokio::test]
async fn what_is_not_taken_for_a_while_is_a_dead_letter_and_the_next_gets_its_turn() {
    let (mut server, url) = server(&["hang"; 2]).await;
    let times = ["--forward-timeout", "200ms", "--forward-retry-for", "100ms"];
    let hop = hop(&url, &times).await;
    let ids = [post(&hop, "hangs").await, post(&hop, "passes").await];
    dead_letter(
        &hop,
        &ids[0],
        "not taken within 100ms: no answer within 200ms",
    )
    .await;
    for body in ["hangs", "hangs", "passes"] {
        assert_eq!(server.says().await["body"], body);
    }
    assert_eq!(hop.count("event not forwarded: dead letter"), 1);
}

#[tokio::test]
async fn a_server_may_be_away_at_first_or_for_good() {
    let mut away = Upstream::away();
    let url = away.http_url();
    let start = async |args: &[&str]| {
        let own = ["--accept-publish", "--forward", &url];
        let hop = Hop::start(&[&own[..], args].concat()).await;
        hop.logged("cannot reach downstream, trying again").await;
        hop
    };
    let hasty = start(&["--forward-retry-for", "0s"]).await;
    let id = post(&hasty, "lost").await;
    dead_letter(&hasty, &id, "connection refused").await;
    drop(hasty);
    let hop = start(&[]).await;
    let id = post(&hop, "kept").await;
    away.come_back();
    // Connections of the time before may be waiting.
    let mut asked = away.asked().await;
    assert_eq!(asked.line(), "POST /feed HTTP/1.1");
    assert_eq!(asked.header("ce-id"), Some(&*id));
    assert_eq!(asked.bytes(4).await, b"kept");
    asked.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    hop.logged("downstream connected").await;
    // The connection was closed; the next event opens another.
    post(&hop, "next").await;
    assert_eq!(away.asked().await.bytes(4).await, b"next");
    assert_eq!(hop.count("downstream lost"), 0);
}

#[tokio::test]
async fn events_that_wait_are_one_request_and_stay_one() {
    let (mut server, url) = server(&["500", "200", "400"]).await;
    let hop = hop(&url, &["--forward-batch", "3"]).await;
    let lines = |texts: &[&str]| {
        let lines = texts
            .iter()
            .map(|text| json!({"data": text, "type": "t", "key": "k"}).to_string());
        lines.collect::<Vec<_>>().join("\n")
    };
    let ndjson = [("content-type", "application/x-ndjson")];
    let body = lines(&["a", "b", "c", "d", "e"]);
    let ids = post_to(&hop, "/events", &ndjson, body.as_bytes()).await;
    let mut names = vec![];
    for expected in [&["a", "b", "c"][..], &["a", "b", "c"], &["d", "e"]] {
        let said = server.says().await;
        assert_eq!(said["headers"]["content-type"], "application/x-ndjson");
        let events = said["body"].as_str().expect("text").lines();
        let events: Vec<Value> = events
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let texts: Vec<_> = events
            .iter()
            .map(|event| event["data"].as_str().expect("text"))
            .collect();
        assert_eq!(texts, expected);
        assert!(
            events
                .iter()
                .all(|event| event["type"] == "t" && event["key"] == "k")
        );
        names.push(said["headers"]["ce-id"].clone());
    }
    assert_eq!(names[0], names[1]);
    assert_eq!(names[1], format!("{}..{}", ids[0], ids[2]));
    for id in &ids[3..] {
        dead_letter(&hop, id, "400").await;
    }
}

#[tokio::test]
async fn another_hop_takes_each_event_once() {
    for batch in ["1", "10"] {
        let target = Hop::quiet(&["--accept-publish"]).await;
        let mut reader = Ndjson::of(&target).await;
        let url = format!("http://{}/events", target.address);
        let first = hop(&url, &["--forward-batch", batch]).await;
        // One that has the same events. What it has in a batch may be more, and that has another name.
        let second = match batch {
            "1" => Some(Hop::start(&["--consume", &first.url, "--forward", &url]).await),
            _ => None,
        };
        if let Some(second) = &second {
            second.logged("upstream connected").await;
            second.logged("downstream connected").await;
        }
        for (number, labels) in ["", "?type=t&key=k"].into_iter().enumerate() {
            let body = number.to_string();
            post_to(&first, &format!("/events{labels}"), &[], body.as_bytes()).await;
            let event = reader.next().await;
            let expected = match labels {
                "" => json!([body, null, null]),
                _ => json!([body, "t", "k"]),
            };
            assert_eq!(
                json!([event["data"], event["type"], event["key"]]),
                expected
            );
        }
    }
}

#[tokio::test]
async fn webhooks_have_tls_and_secrets_of_their_own() {
    let authority = Authority::new();
    let target = authority.hop(&["--accept-publish"]).await;
    let url = format!("https://localhost:{}/events", target.address.port());
    let trust = authority.trust();
    let trust: Vec<_> = trust.iter().map(String::as_str).collect();
    let hop = hop(&url, &trust).await;
    let mut subscriber = authority.subscribe(&target).await;
    post(&hop, "over TLS").await;
    assert_eq!(subscriber.message().await, Message::text("over TLS"));
    let distrustful = Hop::start(&["--accept-publish", "--forward", &url]).await;
    let lost = distrustful
        .logged("cannot reach downstream, trying again")
        .await;
    assert!(
        lost.field("reason").contains("--consume-ca"),
        "{}",
        lost.text
    );
}

#[tokio::test]
async fn secrets_go_to_webhooks_alone_and_into_no_log() {
    let (mut server, url) = server(&["400", "503"]).await;
    let url = url.replace("http://", "http://me:${PASSWORD}@");
    let upstream = Upstream::new();
    let args = [
        "--consume",
        &upstream.url(),
        "--consume-header",
        "X-Feed: f33d-secret",
        "--forward",
        &url,
        "--forward-header",
        "Authorization: Bearer ${TOKEN}",
        "--log-level",
        "debug",
        "--accept-publish",
    ];
    let env = [("TOKEN", "h00k-secret"), ("PASSWORD", "p4ss-secret")];
    let hop = Hop::start_with(&args, &env).await;
    let link = upstream.accept().await;
    assert_eq!(link.header("x-feed"), "f33d-secret");
    let id = post(&hop, "x").await;
    let said = server.says().await;
    // What is said takes the place of what the URL says.
    assert_eq!(said["headers"]["authorization"], "Bearer h00k-secret");
    assert_eq!(said["headers"]["x-feed"], json!(null));
    dead_letter(&hop, &id, "400 Bad Request").await;
    post(&hop, "y").await;
    hop.logged_where("downstream lost", |line| {
        line.field("reason").contains("503")
    })
    .await;
    let log = hop.log.to_string();
    for secret in ["h00k-secret", "p4ss-secret", "f33d-secret"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_said() {
    for (args, expected) in [
        (
            &["--forward-batch", "2"][..],
            "--forward-batch is about webhooks",
        ),
        (
            &["--forward", "-", "--forward-timeout", "1s"],
            "--forward-timeout is about webhooks",
        ),
        (
            &["--forward", "http://h/", "--forward-batch", "0"],
            "a number from 1 to 1024",
        ),
        (
            &["--forward", "http://h/", "--forward-header", "s3cret"],
            "--forward-header: 'Name: value' is expected",
        ),
        (&["--forward", "https://"], "--forward"),
    ] {
        let output = output(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            error.contains(expected) && !error.contains("s3cret"),
            "{error}"
        );
    }
}
