//! What a raw backend receives of a request, and a raw client of an answer (RFC 9110, section 7, and RFC 7239).

use crate::harness::client::{HANDSHAKE, request};
use crate::harness::http::Request;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;

/// An answer after which nothing is kept, so that each request comes on a connection of its own.
const LAST: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
const LOCALHOST: (&str, &str) = ("Host", "localhost");
/// What the backend is told of every client that nobody has spoken for.
const TOLD: [&str; 6] = [
    "Host: localhost",
    "forwarded: for=127.0.0.1;host=localhost;proto=http",
    "via: 1.1 wsevent",
    "x-forwarded-for: 127.0.0.1",
    "x-forwarded-host: localhost",
    "x-forwarded-proto: http",
];

type Field = (&'static str, &'static str);

/// A message's lines, those behind the first one in order. What the proxy itself writes may have a name that the client has
/// used for it: it is in small letters here.
fn sorted(lines: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    const OWN: [&str; 6] = [
        "connection",
        "forwarded",
        "te",
        "upgrade",
        "via",
        "x-forwarded-",
    ];
    let normal = |line: String| {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        let name = name.to_ascii_lowercase();
        match OWN.iter().any(|own| name.starts_with(own)) {
            true => format!("{name}: {value}"),
            false => line,
        }
    };
    let mut lines: Vec<String> = lines.into_iter().map(|line| normal(line.into())).collect();
    lines[1..].sort();
    lines
}

/// What a backend receives when a client sends these bytes, and the proxy.
async fn received(proxy: &Proxy, upstream: &Upstream, bytes: &str) -> Vec<String> {
    let mut client = proxy.client().await;
    client.send(bytes).await;
    let mut asked = upstream.asked().await;
    let lines = sorted(asked.lines());
    asked.send(LAST).await;
    assert_eq!(client.head().await.status, 204);
    lines
}

/// What a client gets when the backend answers so: the head, without the date.
async fn answered(proxy: &Proxy, upstream: &Upstream, answer: &str) -> Vec<String> {
    let mut client = proxy.client().await;
    client.send(request("GET / HTTP/1.1", &[LOCALHOST])).await;
    upstream.asked().await.answer(answer).await;
    let mut lines = client.head_lines().await;
    // A proxy dates what is not dated (RFC 9110, section 6.6.1).
    lines.retain(|line| !line.starts_with("date: "));
    sorted(lines)
}

/// What is left of a client's own fields, and what stands in their place.
#[tokio::test]
async fn fields_of_a_request() {
    let rows: [(&[Field], &[&str]); 13] = [
        (&[], &[]),
        // The case of names, their order, and values with whatever is in them.
        (
            &[("X-My-HEADER", "One,  two"), ("x-my-header", "é")],
            &["X-My-HEADER: One,  two", "x-my-header: é"],
        ),
        // Fields of the connection.
        (
            &[
                ("Connection", "keep-alive, X-One"),
                ("Connection", "x-two"),
                ("X-One", "1"),
                ("X-Two", "2"),
                ("X-Three", "3"),
            ],
            &["X-Three: 3"],
        ),
        (
            &[
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "keep-alive"),
                ("Proxy-Authorization", "Basic YTpi"),
            ],
            &[],
        ),
        (&[("Connection", "close")], &[]),
        // Naming them takes nothing away that says what the message is, and for whom.
        (&[("Connection", "host, via, content-length")], &[]),
        // The next hop's own trailers, and no other coding.
        (
            &[("TE", "trailers, gzip;q=0.5"), ("Connection", "TE")],
            &["TE: trailers", "connection: TE"],
        ),
        (&[("TE", "gzip"), ("Connection", "TE")], &[]),
        (
            &[
                ("Upgrade", "h2c"),
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("HTTP2-Settings", "AAMAAABk"),
            ],
            &[],
        ),
        // Asked for by half.
        (&[("Upgrade", "websocket")], &[]),
        (&[("Connection", "Upgrade")], &[]),
        // What strangers say of whom they ask for.
        (
            &[
                ("Forwarded", "for=192.0.2.1;proto=https"),
                ("X-Forwarded-For", "192.0.2.1"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "bank.example"),
                ("X-Forwarded-Port", "443"),
                ("X-Real-IP", "192.0.2.1"),
                ("X_Forwarded_For", "192.0.2.1"),
            ],
            &[],
        ),
        (
            &[("Authorization", "Basic YTpi"), ("Cookie", "a=1; b=2")],
            &["Authorization: Basic YTpi", "Cookie: a=1; b=2"],
        ),
    ];
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    for (fields, expected) in rows {
        let line = "GET /p?q=1 HTTP/1.1";
        let asking = request(line, &[&[LOCALHOST], fields].concat());
        let received = received(&proxy, &upstream, &asking).await;
        let expected = sorted([&[line], &TOLD[..], expected].concat());
        assert_eq!(received, expected, "{fields:?}");
    }
}

#[tokio::test]
async fn proxies_before_this_one_are_in_via() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    for (version, own) in [("1.1", "1.1 wsevent"), ("1.0", "1.0 wsevent")] {
        let line = format!("GET / HTTP/{version}");
        let asking = request(&line, &[LOCALHOST, ("Via", "2 edge")]);
        let received = received(&proxy, &upstream, &asking).await;
        assert_eq!(received[0], "GET / HTTP/1.1");
        let mut expected = TOLD.to_vec();
        expected.retain(|line| !line.starts_with("via: "));
        let own = format!("via: {own}");
        expected.extend(["via: 2 edge", &*own]);
        assert_eq!(
            received,
            sorted([&["GET / HTTP/1.1"], &expected[..]].concat())
        );
    }
}

/// A network that is trusted speaks for its clients; this proxy adds itself.
#[tokio::test]
async fn trusted_proxies_speak_for_their_clients() {
    let rows: [(&[Field], &[&str]); 4] = [
        (&[], &TOLD[1..]),
        (
            &[
                ("X-Forwarded-For", "192.0.2.1"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "shop.example"),
                ("X-Forwarded-Port", "443"),
            ],
            &[
                "via: 1.1 wsevent",
                "X-Forwarded-For: 192.0.2.1, 127.0.0.1",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: shop.example",
                "X-Forwarded-Port: 443",
            ],
        ),
        (
            &[("Forwarded", "for=192.0.2.1;proto=https")],
            &[
                "via: 1.1 wsevent",
                "Forwarded: for=192.0.2.1;proto=https, for=127.0.0.1;host=localhost;proto=http",
                "x-forwarded-proto: http",
                "x-forwarded-host: localhost",
            ],
        ),
        (
            &[
                ("Forwarded", "for=192.0.2.1"),
                ("X-Forwarded-For", "192.0.2.1"),
                ("X-Forwarded-For", "198.51.100.1"),
                ("X-Real-IP", "192.0.2.1"),
            ],
            &[
                "via: 1.1 wsevent",
                "Forwarded: for=192.0.2.1, for=127.0.0.1;host=localhost;proto=http",
                "X-Forwarded-For: 192.0.2.1, 198.51.100.1, 127.0.0.1",
                "X-Real-IP: 192.0.2.1",
                "x-forwarded-proto: http",
                "x-forwarded-host: localhost",
            ],
        ),
    ];
    let upstream = Upstream::new();
    for network in ["127.0.0.0/8", "127.0.0.1"] {
        let args = [
            "--trust-forwarded",
            "10.0.0.0/8",
            "--trust-forwarded",
            network,
        ];
        let proxy = Proxy::over(&[upstream.address()], &args).await;
        for (fields, expected) in rows {
            let line = "GET / HTTP/1.1";
            let asking = request(line, &[&[LOCALHOST], fields].concat());
            let received = received(&proxy, &upstream, &asking).await;
            let expected = sorted([&[line, TOLD[0]], expected].concat());
            assert_eq!(received, expected, "{fields:?}");
        }
    }
    // Another network's word counts for nothing.
    let args = ["--trust-forwarded", "10.0.0.0/8"];
    let proxy = Proxy::over(&[upstream.address()], &args).await;
    let asking = request(
        "GET / HTTP/1.1",
        &[LOCALHOST, ("X-Forwarded-For", "192.0.2.1")],
    );
    let received = received(&proxy, &upstream, &asking).await;
    assert_eq!(received, sorted([&["GET / HTTP/1.1"], &TOLD[..]].concat()));
}

/// In Forwarded an address with colons is in brackets and quoted (RFC 7239, section 6).
#[tokio::test]
async fn a_client_of_ipv6() {
    let upstream = Upstream::new();
    let args = ["--accept-proxy-protocol"];
    let proxy = Proxy::over(&[upstream.address()], &args).await;
    let header = "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n";
    let asking = request("GET / HTTP/1.1", &[("Host", "[2001:db8::1]:8080")]);
    let received = received(&proxy, &upstream, &[header, &*asking].concat()).await;
    let expected = [
        "GET / HTTP/1.1",
        "Host: [2001:db8::1]:8080",
        "forwarded: for=\"[2001:db8::7]\";host=\"[2001:db8::1]:8080\";proto=http",
        "via: 1.1 wsevent",
        "x-forwarded-for: 2001:db8::7",
        "x-forwarded-host: [2001:db8::1]:8080",
        "x-forwarded-proto: http",
    ];
    assert_eq!(received, sorted(expected));
}

#[tokio::test]
async fn the_host_is_the_clients_or_the_upstreams() {
    let upstream = Upstream::new();
    let address = upstream.address();
    let asking = request("GET / HTTP/1.1", &[("Host", "shop.example:8080")]);
    for (args, host) in [
        (&[][..], "shop.example:8080".to_owned()),
        (&["--rewrite-host"], address.to_string()),
    ] {
        let proxy = Proxy::over(&[address], args).await;
        let received = received(&proxy, &upstream, &asking).await;
        let host = format!("host: {host}");
        assert!(
            received.iter().any(|line| line.eq_ignore_ascii_case(&host)),
            "{received:?}"
        );
        // What it was is told in any case.
        let told = "x-forwarded-host: shop.example:8080".to_owned();
        assert!(received.contains(&told), "{received:?}");
        let told = "forwarded: for=127.0.0.1;host=\"shop.example:8080\";proto=http".to_owned();
        assert!(received.contains(&told), "{received:?}");
    }
}

/// A URL as the target takes the place of Host, and a path is what is sent (RFC 9112, section 3.2).
#[tokio::test]
async fn forms_of_the_target() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    for (line, sent, host) in [
        (
            "GET http://a.example/p?q HTTP/1.1",
            "GET /p?q HTTP/1.1",
            "a.example",
        ),
        (
            "GET http://a.example:8080 HTTP/1.1",
            "GET / HTTP/1.1",
            "a.example:8080",
        ),
        (
            "GET HTTP://A.example/ HTTP/1.1",
            "GET / HTTP/1.1",
            "A.example",
        ),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1", "localhost"),
        (
            "GET //a/../%2e%2E/%00?x=[] HTTP/1.1",
            "GET //a/../%2e%2E/%00?x=[] HTTP/1.1",
            "localhost",
        ),
        ("BREW /pot HTTP/1.1", "BREW /pot HTTP/1.1", "localhost"),
    ] {
        let asking = request(line, &[LOCALHOST]);
        let received = received(&proxy, &upstream, &asking).await;
        assert_eq!(received[0], sent);
        let host = format!("host: {host}");
        let mut hosts = received.iter().map(|line| line.to_ascii_lowercase());
        assert!(
            hosts.any(|line| line == host.to_ascii_lowercase()),
            "{received:?}"
        );
        let hosts = received
            .iter()
            .filter(|line| line.to_ascii_lowercase().starts_with("host:"));
        assert_eq!(hosts.count(), 1, "{received:?}");
    }
}

#[tokio::test]
async fn fields_of_an_answer() {
    let rows: [(&str, &[Field], &[&str]); 6] = [
        (
            "204 No Content",
            &[
                ("X-My-HEADER", "One,  two"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
            ],
            &[
                "X-My-HEADER: One,  two",
                "Set-Cookie: a=1",
                "Set-Cookie: b=2",
            ],
        ),
        (
            "204 No Content",
            &[
                ("Connection", "close, X-One"),
                ("X-One", "1"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "close"),
                ("Proxy-Authenticate", "Basic"),
                ("Upgrade", "h2c"),
                ("X-Three", "3"),
            ],
            &["X-Three: 3"],
        ),
        ("304 Not Modified", &[("ETag", "\"1\"")], &["ETag: \"1\""]),
        (
            "200 OK",
            &[
                ("Content-Length", "0"),
                ("Date", "Sat, 01 Jan 2000 00:00:00 GMT"),
                ("Server", "x"),
            ],
            &[
                "Content-Length: 0",
                "Date: Sat, 01 Jan 2000 00:00:00 GMT",
                "Server: x",
            ],
        ),
        (
            "426 Upgrade Required",
            &[
                ("Upgrade", "websocket"),
                ("Connection", "upgrade"),
                ("Content-Length", "0"),
            ],
            &[
                "connection: Upgrade",
                "Upgrade: websocket",
                "Content-Length: 0",
            ],
        ),
        (
            "401 Unauthorized",
            &[
                ("WWW-Authenticate", "Basic realm=\"a\""),
                ("Content-Length", "0"),
                ("Via", "1.1 inner"),
            ],
            &[
                "WWW-Authenticate: Basic realm=\"a\"",
                "Content-Length: 0",
                "Via: 1.1 inner",
            ],
        ),
    ];
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    for (status, fields, expected) in rows {
        let line = format!("HTTP/1.1 {status}");
        let answer = request(&line, fields);
        let answered = answered(&proxy, &upstream, &answer).await;
        let expected = sorted([&[&*line, "via: 1.1 wsevent"], expected].concat());
        assert_eq!(answered, expected, "{fields:?}");
    }
}

/// Only to a WebSocket can be switched: whoever asks for something else gets an answer to the request (RFC 9110, section 7.8).
#[tokio::test]
async fn an_upgrade_to_http_2_is_an_ordinary_request() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let mut client = proxy.client().await;
    let headers = [
        LOCALHOST,
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ];
    client.send(request("GET /first HTTP/1.1", &headers)).await;
    let mut asked = upstream.asked().await;
    assert_eq!(
        (asked.line(), asked.header("upgrade")),
        ("GET /first HTTP/1.1", None)
    );
    assert_eq!(asked.header("http2-settings"), None);
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    asked.send(ok).await;
    let head = client.head().await;
    assert_eq!((head.status, &*client.body(&head).await), (200, "ok"));
    // And the connection is one of HTTP/1.1 still.
    client
        .send(request("GET /second HTTP/1.1", &[LOCALHOST]))
        .await;
    let mut asked = Request::read(asked.into_socket()).await;
    assert_eq!(asked.line(), "GET /second HTTP/1.1");
    asked.send(ok).await;
    assert_eq!(client.head().await.status, 200);
}

/// A backend that switches without having been asked to is not followed.
#[tokio::test]
async fn a_switch_that_nobody_has_asked_for_is_a_bad_gateway() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let mut client = proxy.client().await;
    client.send(request("GET / HTTP/1.1", &[LOCALHOST])).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    upstream.asked().await.send(switch).await;
    assert_eq!(client.head().await.status, 502);
}

#[tokio::test]
async fn a_websocket_after_other_requests() {
    let upstream = Upstream::new();
    let proxy = Proxy::over(&[upstream.address()], &[]).await;
    let mut client = proxy.client().await;
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    client
        .send(request("GET /first HTTP/1.1", &[LOCALHOST]))
        .await;
    let mut first = upstream.asked().await;
    first.send(ok).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.bytes(2).await, b"ok");
    let fields = [
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ];
    let line = "GET /feed?a=1 HTTP/1.1";
    client
        .send(request(line, &[&HANDSHAKE[..], &fields].concat()))
        .await;
    // On a connection of its own, as it will keep it.
    let mut asked = upstream.asked().await;
    let expected = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Extensions: permessage-deflate",
    ];
    let expected = sorted([&[line], &TOLD[..], &expected].concat());
    assert_eq!(sorted(asked.lines()), expected);
    asked.switch(b"early").await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("upgrade")), (101, "websocket"));
    assert_eq!(head.header("connection").to_ascii_lowercase(), "upgrade");
    assert_eq!(head.header("via"), "1.1 wsevent");
    assert_eq!(client.bytes(5).await, b"early");
}
