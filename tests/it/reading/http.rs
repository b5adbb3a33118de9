//! What is around a stream: other requests on its connection, HTTP/1.0, the list of streams, pages, other origins.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::{NDJSON, SSE};
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, HANDSHAKE, handshake, request};
use crate::harness::frame::{PING, PONG};
use crate::harness::wsevent::Hop;

const HOST: (&str, &str) = ("Host", "localhost");
const HTML: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");

#[tokio::test]
async fn clients_get_what_they_accept() {
    let hop = Hop::quiet(&[]).await;
    for (accept, expected) in [
        ("*/*", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("application/x-ndjson, */*;q=0.1", "application/x-ndjson"),
        ("application/ndjson", "application/x-ndjson"),
        (
            "text/event-stream;q=0.4, application/x-ndjson;q=0.5",
            "application/x-ndjson",
        ),
    ] {
        let stream = Stream::open(hop.address, "/events", &[("Accept", accept)]).await;
        assert_eq!(stream.head.header("content-type"), expected, "{accept}");
    }
    let mut client = Client::connect(hop.address).await;
    for (target, accept) in [
        ("/events", "application/json"),
        ("/events", "*/*;q=0"),
        ("/", "text/event-stream"),
    ] {
        let (head, body) = client.get(target, &[("Accept", accept)]).await;
        assert_eq!(head.status, 406, "{accept}");
        assert!(body.contains("text/html"), "{body}");
    }
}

#[tokio::test]
async fn a_head_is_that_of_the_stream_without_the_stream() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    for (accept, content_type) in [
        (SSE, "text/event-stream"),
        (NDJSON, "application/x-ndjson"),
        (HTML, "text/html; charset=utf-8"),
    ] {
        client
            .send(request("HEAD /events HTTP/1.1", &[HOST, accept]))
            .await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), content_type);
        assert_eq!(head.header("cache-control"), "no-store");
        // The length of a stream is not 0.
        assert_ne!(head.header("content-length"), "0");
    }
    client.send(request("HEAD / HTTP/1.1", &[HOST])).await;
    let head = client.head().await;
    assert_eq!(head.header("content-type"), "application/json");
    // Nothing has been left on the connection.
    let (head, _) = client.get("/", &[]).await;
    assert_eq!(head.status, 200);
    assert_eq!(hop.count("subscriber connected"), 0);
}

#[tokio::test]
async fn options_name_the_methods() {
    for (args, allow) in [
        (&[][..], "GET, HEAD, OPTIONS"),
        (&["--accept-publish"], "GET, HEAD, POST, OPTIONS"),
    ] {
        let hop = Hop::quiet(args).await;
        let mut client = Client::connect(hop.address).await;
        client.send(request("OPTIONS * HTTP/1.1", &[HOST])).await;
        let head = client.head().await;
        assert_eq!((head.status, head.header("allow")), (204, allow));
        for (target, allow) in [("/events", allow), ("/", "GET, HEAD, OPTIONS")] {
            let line = format!("OPTIONS {target} HTTP/1.1");
            client.send(request(&line, &[HOST])).await;
            let head = client.head().await;
            assert_eq!((head.status, head.header("allow")), (204, allow));
            client
                .send(request(&format!("DELETE {target} HTTP/1.1"), &[HOST]))
                .await;
            let head = client.head().await;
            assert_eq!((head.status, head.header("allow")), (405, allow));
            client.body(&head).await;
        }
    }
}

#[tokio::test]
async fn http_1_0_is_served_up_to_the_end_of_the_connection() {
    let (mut link, hop) = Hop::fed(&[]).await;
    for host in [&[][..], &[HOST]] {
        for is_first in [true, false] {
            let mut client = Client::connect(hop.address).await;
            if !is_first {
                client = client.used().await;
            }
            client.send(request("GET /events HTTP/1.0", host)).await;
            let mut stream = Stream::of(client).await;
            assert_eq!(stream.head.header("transfer-encoding"), "");
            link.send(Message::text("one")).await;
            assert_eq!(stream.event().await.data, "one");
        }
    }
}

#[tokio::test]
async fn requests_may_be_pipelined_up_to_a_stream() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut client = Client::connect(hop.address).await;
    let nowhere = request("GET /nowhere HTTP/1.1", &[HOST]);
    let events = request("GET /events HTTP/1.1", &[HOST]);
    client.send(nowhere.clone() + &events).await;
    let head = client.head().await;
    assert_eq!(head.status, 404);
    client.body(&head).await;
    let mut streams = [Stream::of(client).await, {
        // What is behind the request for a stream on a new connection is never answered.
        let mut client = Client::connect(hop.address).await;
        client.send(events + &nowhere + &handshake("/events")).await;
        Stream::of(client).await
    }];
    for stream in &mut streams {
        stream.block().await;
    }
    link.send(Message::text("one")).await;
    for stream in &mut streams {
        assert_eq!(stream.event().await.data, "one");
    }
}

#[tokio::test]
async fn a_get_may_have_a_body_that_nobody_wants() {
    let (mut link, hop) = Hop::fed(&[]).await;
    for is_first in [true, false] {
        let mut client = Client::connect(hop.address).await;
        if !is_first {
            client = client.used().await;
        }
        let headers = [HOST, ("Content-Length", "5")];
        client
            .send(request("GET /events HTTP/1.1", &headers) + "hello")
            .await;
        let mut stream = Stream::of(client).await;
        link.send(Message::text("one")).await;
        assert_eq!(stream.event().await.data, "one");
    }
}

#[tokio::test]
async fn a_request_for_a_stream_may_arrive_byte_by_byte() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut client = Client::connect(hop.address).await;
    for byte in request("GET /events HTTP/1.1", &[HOST]).bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    let mut stream = Stream::of(client).await;
    link.send(Message::text("one")).await;
    assert_eq!(stream.event().await.data, "one");
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_body_that_has_ended() {
    let mut hop = Hop::quiet(&[]).await;
    let client = Client::connect(hop.address).await;
    let (head, _) = {
        let mut client = client.used().await;
        let answer = client.get("/events", &[HTML]).await;
        let (head, _) = client.get("/nowhere", &[]).await;
        assert_eq!(head.status, 404);
        let mut client = client.upgraded("/events").await;
        client.send_frame(PING, b"").await;
        assert_eq!(client.frame().await.expect("a pong").opcode, PONG);
        answer
    };
    assert_eq!(head.status, 200);
    hop.signal(Signal::INT);
    hop.stops_well().await;
}

/// The nonce that a policy lets in.
fn nonce(policy: &str) -> &str {
    let (_, rest) = policy.split_once("script-src 'nonce-").expect("a nonce");
    rest.split_once('\'').expect("its end").0
}

#[tokio::test]
async fn pages_let_nothing_in_but_themselves() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    let mut nonces = BTreeSet::new();
    for target in ["/events", "/", "/events", "/?x", "/events?history=all"] {
        let (head, page) = client.get(target, &[HTML]).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(head.header("cache-control"), "no-store");
        assert_eq!(head.header("x-content-type-options"), "nosniff");
        assert!(head.header("vary").contains("accept"));
        let policy = head.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let nonce = nonce(policy);
        assert!(nonce.len() >= 22, "at least 128 bits: {nonce}");
        assert!(nonces.insert(nonce.to_owned()), "{nonce} again");
        assert!(!page.contains("{{"), "a place that was not filled in");
        for tag in ["<script", "<style"] {
            for (at, _) in page.match_indices(tag) {
                let tag = page[at..].split('>').next().unwrap_or_default();
                assert!(tag.contains(&format!("nonce=\"{nonce}\"")), "{tag}");
            }
        }
    }
}

#[tokio::test]
async fn the_list_of_streams_is_the_same_for_head_and_get() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut client = Client::connect(hop.address).await;
    for accept in [
        &[][..],
        &[("Accept", "application/json")],
        &[("Accept", "*/*")],
    ] {
        let (head, body) = client.get("/", accept).await;
        assert_eq!(head.header("content-type"), "application/json");
        let list: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(list["streams"][0]["publish"], true);
        assert!(body.ends_with("}\n"));
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_read_where_that_is_allowed() {
    const ORIGIN: &str = "https://app.example";
    for (args, origin, allowed) in [
        (&[][..], ORIGIN, ""),
        (&["--allow-origin", ORIGIN], ORIGIN, ORIGIN),
        (&["--allow-origin", ORIGIN], "https://evil.example", ""),
        (&["--allow-origin", ORIGIN], "https://app.example.evil", ""),
        (&["--allow-origin", "*"], "null", "null"),
        (&["--allow-origin", ORIGIN], "http://localhost", ""),
    ] {
        let hop = Hop::quiet(args).await;
        let (mut heads, page) = (vec![], ("Origin", origin));
        for headers in [vec![HOST, SSE, page], [&HANDSHAKE[..], &[page]].concat()] {
            let mut client = Client::connect(hop.address).await;
            client.send(request("GET /events HTTP/1.1", &headers)).await;
            heads.push(client.head().await);
        }
        let mut client = Client::connect(hop.address).await;
        heads.push(client.get("/", &[page]).await.0);
        for head in &heads {
            let is_foreign = allowed.is_empty() && origin != "http://localhost";
            assert_eq!(head.status == 403, is_foreign, "{head:?}");
        }
        // The second on its connection, and what is not there.
        if !allowed.is_empty() {
            let second = Stream::open_second(hop.address, "/events", &[SSE, page]).await;
            heads.push(second.head);
        }
        heads.push(client.get("/nowhere", &[page]).await.0);
        for head in heads.iter().filter(|head| head.status != 101) {
            assert_eq!(head.header("access-control-allow-origin"), allowed);
            let exposed = head.header("access-control-expose-headers");
            assert_eq!(exposed.contains("wsevent-resumed"), !allowed.is_empty());
            let credentials = head.header("access-control-allow-credentials") == "true";
            assert_eq!(credentials, allowed == ORIGIN);
        }
        let preflight = [
            HOST,
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "last-event-id"),
        ];
        client
            .send(request("OPTIONS /events HTTP/1.1", &preflight))
            .await;
        let head = client.head().await;
        assert_eq!(head.status, 204);
        assert_eq!(head.header("access-control-allow-origin"), allowed);
        let headers = head.header("access-control-allow-headers");
        assert_eq!(headers.contains("last-event-id"), !allowed.is_empty());
    }
}

#[tokio::test]
async fn answers_name_the_instance_that_serves() {
    let hop = Hop::quiet(&["--allow-origin", "null"]).await;
    let mut client = Client::connect(hop.address).await;
    let (_, body) = client.get("/", &[("Accept", "application/json")]).await;
    let list: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
    let origin = list["streams"][0]["origin"].as_str().expect("an id");
    let page = ("Origin", "null");
    let ndjson = ("Accept", "application/x-ndjson");
    let second = Stream::open_second(hop.address, "/events", &[SSE, page]).await;
    let mut heads = vec![second.head];
    for headers in [
        vec![HOST, SSE, page],
        vec![HOST, ndjson, page],
        [&HANDSHAKE[..], &[page]].concat(),
    ] {
        let mut client = Client::connect(hop.address).await;
        client.send(request("GET /events HTTP/1.1", &headers)).await;
        heads.push(client.head().await);
    }
    for head in heads {
        assert_eq!(head.header("wsevent-instance"), origin, "{head:?}");
        // A page may see it.
        let exposed = head.header("access-control-expose-headers");
        assert!(exposed.contains("wsevent-instance") || head.status == 101);
    }
}

/// The beginning of an HTTP/2 connection (RFC 9113, section 3.4): the preface, and empty settings.
#[tokio::test]
async fn http_2_may_arrive_in_pieces() {
    let hop = Hop::quiet(&[]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let beginning = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for cuts in [&[1][..], &[13], &[16], &[18], &[23], &[24], &[1, 15, 20]] {
        let mut client = Client::connect(hop.address).await;
        let mut sent = 0;
        for &cut in cuts {
            client.send(&beginning[sent..cut]).await;
            sent = cut;
            // Else the pieces may come together. Nothing tells when one has been read, and all is well either way.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.send(&beginning[sent..]).await;
        let header = client.bytes(9).await;
        assert_eq!(header[3], 4, "{cuts:?}: settings first: {header:?}");
    }
}

#[tokio::test]
async fn http_1_may_begin_like_http_2() {
    let hop = Hop::quiet(&[]).await;
    for (first, second, status) in [
        ("P", "OST / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("PR", "OPFIND / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("PRI * HTTP/", "1.1\r\nHost: x\r\n\r\n", 404),
    ] {
        let mut client = Client::connect(hop.address).await;
        client.send(first).await;
        // As above.
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.send(second).await;
        assert_eq!(client.head().await.status, status, "{first}{second}");
    }
    let mut client = Client::connect(hop.address).await;
    client.send("PRI").await;
    client.half_close().await;
    client.ended().await;
}
