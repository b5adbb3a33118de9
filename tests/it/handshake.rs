//! The opening handshake (RFC 6455, section 4.2), and whatever else may arrive on the port.

use crate::harness::client::{Client, HANDSHAKE, KEY, handshake, request};
use crate::harness::frame::{CLOSE, FIN, PING, PONG, masked};
use crate::harness::wsevent::Hop;

const GET: &str = "GET /events HTTP/1.1";

/// The good handshake with all lines of one header replaced by these, if any.
fn with(name: &str, values: &[&str]) -> String {
    let mut headers = HANDSHAKE.to_vec();
    headers.retain(|(good, _)| *good != name);
    headers.extend(values.iter().map(|value| (name, *value)));
    request(GET, &headers)
}

/// The good handshake and these headers.
fn and(more: &[(&str, &str)]) -> String {
    request(GET, &[&HANDSHAKE[..], more].concat())
}

/// Sends each request on a connection of its own and compares the status of the answer, which must be plain text
/// unless it is an upgrade. At the end others are still served.
async fn check(cases: &[(&str, String, u16)]) {
    let hop = Hop::quiet(&[]).await;
    for (name, request, status) in cases {
        let mut client = Client::connect(hop.address).await;
        client.send(request).await;
        let head = client.head().await;
        assert_eq!(head.status, *status, "{name}: {request:?}: {head:?}");
        if *status != 101 && head.header("content-length") != "0" {
            assert!(
                head.header("content-type").starts_with("text/plain"),
                "{name}: {head:?}"
            );
            assert!(client.body(&head).await.ends_with('\n'), "{name}");
        }
    }
    hop.subscribe().await;
}

/// What is refused by hyper itself has no body.
async fn check_all(status: u16, requests: Vec<String>) {
    let cases: Vec<_> = requests
        .into_iter()
        .map(|request| ("", request, status))
        .collect();
    check(&cases).await;
}

#[tokio::test]
async fn good_handshakes_are_accepted_however_they_are_written() {
    let lower: Vec<_> = HANDSHAKE
        .iter()
        .map(|(name, value)| (name.to_lowercase(), *value))
        .collect();
    let lower: Vec<_> = lower
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    check(&[
        ("as it should be", handshake("/events"), 101),
        ("a query", handshake("/events?who=me"), 101),
        (
            "an absolute target",
            handshake("http://localhost/events"),
            101,
        ),
        ("lower case", request(GET, &lower), 101),
        ("list", with("Connection", &["keep-alive, Upgrade"]), 101),
        (
            "several lines",
            with("Connection", &["keep-alive", "foo,\tupGRADE ,"]),
            101,
        ),
        ("case", with("Upgrade", &["WebSocket"]), 101),
        ("list", with("Upgrade", &["h2c, websocket"]), 101),
        ("port", with("Host", &["localhost:8080"]), 101),
        ("IPv6", with("Host", &["[::1]:8080"]), 101),
        ("no body", and(&[("Content-Length", "0")]), 101),
        (
            "unused bits of the key",
            with("Sec-WebSocket-Key", &["zzzzzzzzzzzzzzzzzzzzzz=="]),
            101,
        ),
    ])
    .await;
}

#[tokio::test]
async fn nothing_is_agreed_that_was_offered_beside() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    let offers = [
        (
            "Sec-WebSocket-Extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
    ];
    client.send(and(&offers)).await;
    let head = client.head().await;
    assert_eq!(head.status, 101);
    assert_eq!(head.header("upgrade"), "websocket");
    assert_eq!(head.header("connection").to_ascii_lowercase(), "upgrade");
    assert_eq!(head.header("sec-websocket-extensions"), "");
    assert_eq!(head.header("sec-websocket-protocol"), "");
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let paths = [
        "/",
        "/event",
        "/events/",
        "/EVENTS",
        "//events",
        "/events/1",
    ];
    check_all(404, paths.map(handshake).to_vec()).await;
}

#[tokio::test]
async fn other_methods_are_not_allowed_and_told_which_are() {
    let hop = Hop::quiet(&[]).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
        for headers in [&HANDSHAKE[..], &HANDSHAKE[..1]] {
            let mut client = Client::connect(hop.address).await;
            client
                .send(request(&format!("{method} /events HTTP/1.1"), headers))
                .await;
            let head = client.head().await;
            assert_eq!(
                (head.status, head.header("allow")),
                (405, "GET, HEAD, OPTIONS"),
                "{method}"
            );
        }
    }
    hop.subscribe().await;
}

#[tokio::test]
async fn who_speaks_another_version_or_no_websocket_is_told_what_is_spoken_here() {
    let requests = [
        with("Sec-WebSocket-Version", &[]),
        with("Sec-WebSocket-Version", &["8"]),
        with("Sec-WebSocket-Version", &["12"]),
        with("Sec-WebSocket-Version", &["013"]),
        with("Sec-WebSocket-Version", &[""]),
        with("Sec-WebSocket-Version", &["13, 8"]),
        with("Sec-WebSocket-Version", &["13", "8"]),
        with("Sec-WebSocket-Version", &["13", "13"]),
    ];
    let hop = Hop::quiet(&[]).await;
    for request in requests {
        let mut client = Client::connect(hop.address).await;
        client.send(&request).await;
        let head = client.head().await;
        assert_eq!(head.status, 426, "{request:?}");
        assert_eq!(head.header("sec-websocket-version"), "13", "{request:?}");
        assert_eq!(head.header("upgrade"), "websocket", "{request:?}");
    }
    hop.subscribe().await;
}

#[tokio::test]
async fn incomplete_and_wrong_handshakes_are_bad_requests() {
    let name = "Sec-WebSocket-Key";
    let old: Vec<_> = HANDSHAKE.to_vec();
    check(&[
        ("no Connection", with("Connection", &[]), 400),
        ("other token", with("Connection", &["keep-alive"]), 400),
        ("longer token", with("Connection", &["upgraded"]), 400),
        ("token within", with("Connection", &["no-upgrade"]), 400),
        (
            "two tokens in one",
            with("Connection", &["keep-alive upgrade"]),
            400,
        ),
        ("no Upgrade", with("Upgrade", &[]), 400),
        ("other Upgrade", with("Upgrade", &["h2c"]), 400),
        ("longer Upgrade", with("Upgrade", &["websockets"]), 400),
        ("no key", with(name, &[]), 400),
        ("empty key", with(name, &[""]), 400),
        ("short key", with(name, &["AQIDBAUGBwgJCgsMDQ4P"]), 400),
        ("long key", with(name, &["AQIDBAUGBwgJCgsMDQ4PEBE="]), 400),
        ("no padding", with(name, &["AQIDBAUGBwgJCgsMDQ4PEA"]), 400),
        ("not base64", with(name, &["!!!!!!!!!!!!!!!!!!!!!!=="]), 400),
        (
            "URL-safe base64",
            with(name, &["-_-_-_-_-_-_-_-_-_-_-w=="]),
            400,
        ),
        ("two in one", with(name, &[&format!("{KEY}, {KEY}")]), 400),
        ("twice", with(name, &[KEY, KEY]), 400),
        (
            "two keys",
            with(name, &[KEY, "AQIDBAUGBwgJCgsMDQ4PEA=="]),
            400,
        ),
        ("HTTP/1.0", request("GET /events HTTP/1.0", &old), 400),
        ("a body", and(&[("Content-Length", "5")]) + "hello", 400),
    ])
    .await;
}

#[tokio::test]
async fn a_request_without_exactly_one_good_host_is_a_bad_request() {
    check(&[
        ("none", with("Host", &[]), 400),
        (
            "the same twice",
            with("Host", &["localhost", "localhost"]),
            400,
        ),
        ("two", with("Host", &["localhost", "elsewhere"]), 400),
        ("a space", with("Host", &["local host"]), 400),
        ("a path", with("Host", &["localhost/events"]), 400),
        ("a user", with("Host", &["me@localhost"]), 400),
        ("a list", with("Host", &["localhost, elsewhere"]), 400),
        ("no port number", with("Host", &["localhost:http"]), 400),
        ("no such port", with("Host", &["localhost:65536"]), 400),
        ("half an IPv6 address", with("Host", &["[::1"]), 400),
        ("bare IPv6 address", with("Host", &["::1"]), 400),
        ("a URL", with("Host", &["http://localhost"]), 400),
        ("a query", with("Host", &["localhost?"]), 400),
    ])
    .await;
    let plain = |headers: &[(&str, &str)]| request("GET /nowhere HTTP/1.1", headers);
    check(&[
        ("no WebSocket, none", plain(&[]), 400),
        (
            "no WebSocket, two",
            plain(&[("Host", "a"), ("Host", "a")]),
            400,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_body_whose_length_is_said_twice_is_a_bad_request() {
    let length = ("Content-Length", "5");
    let chunked = ("Transfer-Encoding", "chunked");
    let body = "0\r\n\r\n";
    let mut requests = vec![];
    for line in [GET, "POST /events HTTP/1.1", "POST /nowhere HTTP/1.1"] {
        for headers in [
            &[length, ("Content-Length", "6")][..],
            &[("Content-Length", "5, 6")],
            &[("Content-Length", "-1")],
            &[("Transfer-Encoding", "chunked, gzip")],
        ] {
            requests.push(request(line, &[&HANDSHAKE[..], headers].concat()) + body);
            requests.push(request(line, &[headers, &HANDSHAKE[..]].concat()) + body);
        }
    }
    for headers in [[length, chunked], [chunked, length]] {
        requests.push(request(GET, &[&HANDSHAKE[..], &headers].concat()) + body);
    }
    check_all(400, requests).await;
}

/// RFC 9112, section 6.3: it may be answered, but what is behind it must not be taken for a request.
#[tokio::test]
async fn a_post_whose_length_is_said_in_two_ways_is_the_last_on_its_connection() {
    let hop = Hop::quiet(&[]).await;
    let length = ("Content-Length", "5");
    let chunked = ("Transfer-Encoding", "chunked");
    for headers in [[length, chunked], [chunked, length]] {
        for path in ["/events", "/nowhere"] {
            let mut client = Client::connect(hop.address).await;
            let headers = [&HANDSHAKE[..1], &headers].concat();
            let line = format!("POST {path} HTTP/1.1");
            client
                .send(request(&line, &headers) + "0\r\n\r\n" + &handshake("/events"))
                .await;
            let head = client.head().await;
            assert!([400, 404, 405].contains(&head.status), "{head:?}");
            assert_eq!(head.header("connection"), "close");
            client.body(&head).await;
            assert!(client.try_head().await.is_none());
        }
    }
}

#[tokio::test]
async fn transfer_codings_are_taken_with_a_post_only_and_none_but_chunked() {
    let gzip = ("Transfer-Encoding", "gzip, chunked");
    let chunked = ("Transfer-Encoding", "chunked");
    let with = |line: &str, coding| request(line, &[HANDSHAKE[0], coding]) + "0\r\n\r\n";
    check(&[
        ("GET", with(GET, chunked), 400),
        ("PUT", with("PUT /events HTTP/1.1", chunked), 400),
        ("gzip", with("POST /events HTTP/1.1", gzip), 501),
        ("POST", with("POST /events HTTP/1.1", chunked), 405),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_others_are_served() {
    let hop = Hop::quiet(&[]).await;
    let wrong: [&[u8]; 12] = [
        b"\r\n\r\nnonsense\r\n\r\n",
        b"GET /events\r\n\r\n",
        b"GET /events HTTP/3.0\r\nHost: a\r\n\r\n",
        b"GET /events HTTP/1.1 really\r\nHost: a\r\n\r\n",
        b"GET /ev ents HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: a\r\nNul: \0\r\n\r\n",
        b"GET /events HTTP/1.1\r\n Host: folded\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 the hello of a TLS client\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x81\x85\x01\x02\x03\x04hello frames without a handshake\r\n\r\n",
    ];
    for bytes in wrong {
        let mut client = Client::connect(hop.address).await;
        client.send(bytes).await;
        if let Some(head) = client.try_head().await {
            let shown = String::from_utf8_lossy(bytes);
            assert!((400..=505).contains(&head.status), "{shown:?}: {head:?}");
        }
    }
    hop.subscribe().await;
}

#[tokio::test]
async fn a_flood_of_headers_is_cut_short() {
    let hop = Hop::quiet(&[]).await;
    let long = "x".repeat(200_000);
    let many = vec![("X-Filler", "filler"); 10_000];
    let floods = [
        and(&many),
        and(&[("X-Filler", &long)]),
        handshake(&format!("/events?{long}")),
        // Without an end.
        long.clone(),
    ];
    for flood in floods {
        let mut client = Client::connect(hop.address).await;
        // The server may close while this is still being sent.
        if client.try_send(&flood).await.is_ok()
            && let Some(head) = client.try_head().await
        {
            assert!([414, 431].contains(&head.status), "{head:?}");
        }
    }
    hop.subscribe().await;
}

#[tokio::test]
async fn a_handshake_may_arrive_byte_by_byte() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    for byte in handshake("/events").bytes() {
        client.send([byte]).await;
        // Lets the kernel send it, and the server read it, before the next.
        tokio::task::yield_now().await;
    }
    assert_eq!(client.head().await.status, 101);
    client.send_frame(PING, b"here").await;
    assert_eq!(client.frame().await.expect("a pong").payload, b"here");
}

#[tokio::test]
async fn frames_right_behind_the_handshake_are_taken() {
    let hop = Hop::quiet(&[]).await;
    let ping = masked(FIN | PING, b"early");
    let close = masked(FIN | CLOSE, &1000u16.to_be_bytes());
    for held_back in [0, 1, 5, close.len(), close.len() + 3] {
        let mut client = Client::connect(hop.address).await;
        let all = [handshake("/events").as_bytes(), &ping, &ping, &close].concat();
        let (now, later) = all.split_at(all.len() - held_back);
        client.send(now).await;
        assert_eq!(client.head().await.status, 101);
        let pong = client.frame().await.expect("a pong");
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"early"[..]));
        client.send(later).await;
        let (pongs, code, _) = client.until_close().await;
        assert_eq!(
            (pongs.len(), code),
            (1, 1000),
            "{held_back} bytes held back"
        );
        client.ended().await;
    }
}

#[tokio::test]
async fn a_connection_may_try_again_after_a_refusal() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    for (request, status) in [
        (handshake("/nowhere"), 404),
        (request("POST /events HTTP/1.1", &HANDSHAKE[..1]), 405),
        (with("Sec-WebSocket-Version", &["8"]), 426),
        (with("Sec-WebSocket-Key", &["no"]), 400),
    ] {
        client.send(request).await;
        let head = client.head().await;
        assert_eq!(head.status, status);
        client.body(&head).await;
    }
    let mut client = client.upgraded("/events").await;
    client.send_frame(PING, b"").await;
    assert_eq!(client.frame().await.expect("a pong").opcode, PONG);
}

#[tokio::test]
async fn requests_may_be_pipelined_up_to_the_handshake() {
    let hop = Hop::quiet(&[]).await;
    let mut client = Client::connect(hop.address).await;
    client
        .send(handshake("/nowhere") + &handshake("/events"))
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 404);
    client.body(&head).await;
    assert_eq!(client.head().await.status, 101);
}

#[tokio::test]
async fn who_never_finishes_a_request_is_let_go_and_hinders_nobody() {
    let hop = Hop::quiet(&[]).await;
    let mut waiting = vec![];
    for sent in ["", "GET", "GET /events HTTP/1.1\r\nHost: localhost\r\n"] {
        for _ in 0..20 {
            let mut client = Client::connect(hop.address).await;
            client.send(sent).await;
            waiting.push(client);
        }
    }
    hop.subscribe().await;
    for client in &mut waiting {
        if let Some(head) = client.try_head().await {
            assert_eq!(head.status, 408);
        }
    }
}
