//! Who may publish by POST, and how requests share a connection.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use super::requests::refused;
use super::{ask, hop, ids, post};
use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn a_connection_is_used_again_for_posts_and_then_for_a_stream() {
    let hop = hop(&[]).await;
    let mut client = Client::connect(hop.address).await;
    // All at once, and one of them in chunks.
    let chunked = request(
        "POST /events HTTP/1.1",
        &[("Host", "localhost"), ("Transfer-Encoding", "chunked")],
    );
    let chunked = format!("{chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let get = request(
        "GET /events?history=all HTTP/1.1",
        &[("Host", "localhost"), ("Accept", "application/x-ndjson")],
    );
    let one = post("/events", &[], b"one");
    let wrong = post("/events", &[("ce-type", "wsevent.gap")], b"wrong");
    let all = [&one[..], chunked.as_bytes(), &wrong, &one, get.as_bytes()].concat();
    client.send(all).await;
    for status in [202, 202, 400, 202] {
        let head = client.head().await;
        assert_eq!(head.status, status);
        client.body(&head).await;
    }
    let head = client.head().await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("transfer-encoding"), "chunked");
    for expected in ["one", "abcde", "one"] {
        let line = client.line_with(expected).await;
        assert!(line.contains("\"data\""), "{line}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_no_event() {
    let hop = hop(&[]).await;
    let mut client = Client::connect(hop.address).await;
    let whole = post("/events", &[], b"an event");
    client.send(&whole[..whole.len() - 1]).await;
    client.half_close().await;
    while client.try_head().await.is_some() {}
    refused(&hop, &[]).await;
}

#[tokio::test]
async fn a_client_that_asks_whether_to_begin_is_told() {
    let hop = hop(&[]).await;
    let mut client = Client::connect(hop.address).await;
    let headers = [
        ("Host", "localhost"),
        ("Content-Length", "2"),
        ("Expect", "100-continue"),
    ];
    client
        .send(request("POST /events HTTP/1.1", &headers))
        .await;
    assert_eq!(client.head().await.status, 100);
    assert_eq!(ask(&mut client, "hi").await.0, 202);
}

#[tokio::test]
async fn publishing_is_off_unless_it_is_on() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    client.send(post("/events", &[], b"x")).await;
    let head = client.head().await;
    assert_eq!(head.status, 405);
    assert_eq!(head.header("allow"), "GET, HEAD, OPTIONS");
    assert!(client.body(&head).await.contains("--accept-publish"));
    let on = self::hop(&[]).await;
    let mut client = Client::connect(on.address).await;
    client.send(post("/other", &[], b"x")).await;
    assert_eq!(client.head().await.status, 404);
}

#[tokio::test]
async fn pages_of_others_publish_only_if_they_are_let_in() {
    let own = hop(&[]).await;
    let open = hop(&["--allow-origin", "https://app.example/"]).await;
    let app = ("Origin", "https://app.example");
    let other = ("Origin", "https://other.example");
    for (hop, origin, status) in [
        (&own, app, 403),
        (&own, ("Origin", "http://localhost"), 202),
        (&own, ("Origin", "null"), 403),
        (&open, app, 202),
        (&open, other, 403),
    ] {
        let mut client = Client::connect(hop.address).await;
        client.send(post("/events", &[origin], b"x")).await;
        let head = client.head().await;
        assert_eq!(head.status, status, "{origin:?}");
        let allowed = if status == 202 && origin == app {
            app.1
        } else {
            ""
        };
        assert_eq!(head.header("access-control-allow-origin"), allowed);
    }
    for (hop, allowed, methods) in [(&open, app.1, "GET, HEAD, POST, OPTIONS"), (&own, "", "")] {
        let mut client = Client::connect(hop.address).await;
        let asks = [
            ("Host", "localhost"),
            app,
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "ce-type,content-type"),
        ];
        client
            .send(request("OPTIONS /events HTTP/1.1", &asks))
            .await;
        let head = client.head().await;
        assert_eq!(head.header("access-control-allow-origin"), allowed);
        assert_eq!(head.header("access-control-allow-methods"), methods);
        assert_eq!(
            head.header("access-control-allow-headers")
                .contains("ce-type"),
            !allowed.is_empty()
        );
    }
    for (hop, status) in [(&own, 403), (&open, 101)] {
        let mut client = Client::connect(hop.address).await;
        let headers = [&HANDSHAKE[..], &[app]].concat();
        client.send(request("GET /events HTTP/1.1", &headers)).await;
        assert_eq!(client.head().await.status, status);
    }
}

#[tokio::test]
async fn curl_publishes() {
    let hop = hop(&[]).await;
    let mut subscriber = hop.subscribe().await;
    let url = format!("http://{}/events", hop.address);
    let large = "x".repeat(1 << 20);
    for (args, input) in [
        (&["-d", "a=b c"][..], "a=b c"),
        (&["-T", "-"], "chunked"),
        (&["-X", "POST", "--data-binary", "@-"], &large),
        (
            &[
                "-X",
                "POST",
                "-H",
                "Transfer-Encoding: chunked",
                "-H",
                "Content-Type: text/plain",
                "--data-binary",
                "@-",
            ],
            &large,
        ),
    ] {
        let args: Vec<_> = match args {
            ["-T", rest @ ..] => [&["-X", "POST", "-T"], rest].concat(),
            args => args.to_vec(),
        };
        let common = [
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "60",
            "--noproxy",
            "*",
        ];
        let mut child = Command::new("curl")
            .args(common)
            .args(&args)
            .arg(&url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl is installed (scripts/test does that)");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        // Where the event is an argument, nobody reads.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = within_guard("curl's end", child.wait_with_output())
            .await
            .expect("it ends");
        assert!(output.status.success(), "{args:?}");
        assert_eq!(ids(&String::from_utf8_lossy(&output.stdout)).len(), 1);
        assert_eq!(subscriber.message().await, Message::text(input));
    }
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_does_not_make_a_page_ours() {
    let own = hop(&[]).await;
    let named = hop(&["--allow-origin", "http://evil.example"]).await;
    let host = ("Host", "evil.example");
    for (hop, headers, status) in [
        (&own, &[host, ("Origin", "http://evil.example")][..], 403),
        (&named, &[host, ("Origin", "http://evil.example")], 202),
        // No browser, perhaps through a proxy.
        (&own, &[host], 202),
        (&own, &[host, ("Sec-Fetch-Site", "cross-site")], 403),
    ] {
        let mut client = Client::connect(hop.address).await;
        let headers = [headers, &[("Content-Length", "1")]].concat();
        let head = request("POST /events HTTP/1.1", &headers);
        client.send([head.as_bytes(), b"x"].concat()).await;
        let head = client.head().await;
        assert_eq!(head.status, status, "{headers:?}");
        if status == 403 {
            assert!(client.body(&head).await.contains("--allow-origin"));
        }
    }
}
