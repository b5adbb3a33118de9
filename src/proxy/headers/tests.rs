//! What becomes of a request.

mod answers;
mod passing;
mod refusals;

use hyper::Request;

use super::*;

/// A request or an answer: its first line, then its header lines.
type Message = &'static [&'static str];

const PLAIN: &str = "192.0.2.7:50000";
const TOLD: [&str; 5] = [
    "forwarded: for=192.0.2.7;host=a.example;proto=http",
    "via: 1.1 wsevent",
    "x-forwarded-for: 192.0.2.7",
    "x-forwarded-host: a.example",
    "x-forwarded-proto: http",
];

fn parse(message: Message) -> request::Parts {
    let [method, target, version] = message[0].split(' ').collect::<Vec<_>>()[..] else {
        panic!("a request line has three parts")
    };
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields(message) {
        request = request.header(name, value);
    }
    if method == "CONNECT" && version == "HTTP/2" {
        request = request.extension(Protocol::from_static("websocket"));
    }
    let (mut request, ()) = request.body(()).expect("a request").into_parts();
    request.version = match version {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/2" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    request
}

fn fields(message: Message) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = message[1..].iter();
    lines.map(|line| line.split_once(": ").expect("a name and a value"))
}

/// A message's fields, one a line, by name.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

fn sent(rules: &Rules, client: &str, https: bool, message: Message) -> Vec<String> {
    let mut request = parse(message);
    let from = From {
        client: client.parse().expect("an address"),
        https,
        local: "192.0.2.1:80".parse().expect("an address"),
    };
    let websocket = is_websocket(&request);
    rules.request(&mut request, &from, "up.example:8081", websocket);
    let mut lines = lines(&request.headers);
    lines.insert(
        0,
        format!("{} {} {:?}", request.method, request.uri, request.version),
    );
    lines
}

/// What of a request's own fields, or what instead of them, is sent: without those that are told of every client.
#[track_caller]
fn assert_sent(message: Message, expected: &[&str]) {
    let mut sent = sent(&Rules::default(), PLAIN, false, message);
    sent.retain(|line| !TOLD.contains(&&**line) && line != "host: a.example");
    assert_eq!(sent, expected, "{message:#?}");
}

#[test]
fn each_rule_for_requests() {
    const GET: &str = "GET /p?q=1 HTTP/1.1";
    const POST: &str = "POST /p HTTP/1.1";
    const HOST: &str = "host: a.example";
    let rows: &[(Message, &[&str])] = &[
        (&[GET, HOST], &[GET]),
        (
            &[GET, HOST, "accept: text/html", "x-own: 1", "x-own: 2"],
            &[GET, "accept: text/html", "x-own: 1", "x-own: 2"],
        ),
        // Fields of the connection.
        (&[GET, HOST, "connection: close"], &[GET]),
        (
            &[
                GET,
                HOST,
                "connection: keep-alive, X-One",
                "connection: x-two,",
                "x-one: 1",
                "x-two: 2",
                "x-three: 3",
            ],
            &[GET, "x-three: 3"],
        ),
        (
            &[
                GET,
                HOST,
                "keep-alive: timeout=5",
                "proxy-connection: keep-alive",
                "proxy-authorization: Basic YTpi",
            ],
            &[GET],
        ),
        (
            &[
                GET,
                HOST,
                "connection: Upgrade, HTTP2-Settings",
                "upgrade: h2c",
                "http2-settings: AAMAAABk",
            ],
            &[GET],
        ),
        // What frames and routes stays.
        (
            &[
                POST,
                HOST,
                "connection: Host, Content-Length, via",
                "content-length: 5",
            ],
            &[POST, "content-length: 5"],
        ),
        (
            &[
                POST,
                HOST,
                "connection: transfer-encoding, trailer",
                "transfer-encoding: chunked",
                "trailer: x-sum",
            ],
            &[POST, "trailer: x-sum", "transfer-encoding: chunked"],
        ),
        (
            &[POST, HOST, "expect: 100-continue", "content-length: 5"],
            &[POST, "content-length: 5", "expect: 100-continue"],
        ),
        // Trailers.
        (&[GET, HOST, "te: gzip"], &[GET]),
        (
            &[
                GET,
                HOST,
                "te: gzip;q=0.5, Trailers",
                "connection: te, close",
            ],
            &[GET, "connection: TE", "te: trailers"],
        ),
        // Upgrades.
        (
            &[
                GET,
                HOST,
                "connection: keep-alive, UPGRADE, x-one",
                "upgrade: h2c, WebSocket",
                "x-one: 1",
                "te: trailers",
                "sec-websocket-version: 13",
            ],
            &[
                GET,
                "connection: Upgrade",
                "sec-websocket-version: 13",
                "upgrade: websocket",
            ],
        ),
        (
            &[
                POST,
                HOST,
                "connection: upgrade",
                "upgrade: websocket",
                "content-length: 0",
            ],
            &[POST, "content-length: 0"],
        ),
        (&[GET, HOST, "upgrade: websocket"], &[GET]),
        // Targets.
        (
            &[
                "GET http://a.example/p HTTP/1.1",
                "host: somebody.else.example",
            ],
            &["GET /p HTTP/1.1"],
        ),
        (
            &["GET http://a.example?q HTTP/1.1", HOST],
            &["GET /?q HTTP/1.1"],
        ),
        (
            &["GET http://a.example HTTP/1.1", HOST],
            &["GET / HTTP/1.1"],
        ),
        (&["OPTIONS * HTTP/1.1", HOST], &["OPTIONS * HTTP/1.1"]),
        (
            &["OPTIONS http://a.example/ HTTP/1.1", HOST],
            &["OPTIONS / HTTP/1.1"],
        ),
        (&["GET //b/p HTTP/1.1", HOST], &["GET //b/p HTTP/1.1"]),
        // HTTP/2 and HTTP/1.0.
        (
            &[
                "POST https://a.example/p HTTP/2",
                "cookie: a=1",
                "cookie: b=2",
            ],
            &["POST /p HTTP/1.1", "cookie: a=1; b=2", "via: 2 wsevent"],
        ),
        (
            &[
                "GET https://a.example/p HTTP/2",
                "te: trailers",
                "content-length: 0",
            ],
            &[
                "GET /p HTTP/1.1",
                "connection: TE",
                "content-length: 0",
                "te: trailers",
                "via: 2 wsevent",
            ],
        ),
        (
            &["GET https://a.example/p HTTP/2"],
            &[
                "GET /p HTTP/1.1",
                "transfer-encoding: chunked",
                "via: 2 wsevent",
            ],
        ),
        (
            &["OPTIONS * HTTP/2", HOST],
            &["OPTIONS * HTTP/1.1", "via: 2 wsevent"],
        ),
        (
            &["GET /p HTTP/1.0", HOST],
            &["GET /p HTTP/1.1", "via: 1.0 wsevent"],
        ),
        // Chains, and what strangers say.
        (
            &[GET, HOST, "via: 1.0 one, 1.1 two"],
            &[GET, "via: 1.0 one, 1.1 two"],
        ),
        (
            &[
                GET,
                HOST,
                "forwarded: for=10.0.0.1",
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-for: 10.0.0.2",
                "x-forwarded-proto: https",
                "x-forwarded-host: b",
                "x-forwarded-port: 1",
                "x-forwarded-prefix: /b",
                "x-forwarded-anything: 1",
                "x-real-ip: 10.0.0.1",
                "x-request-id: 1",
            ],
            &[GET, "x-request-id: 1"],
        ),
        (
            &[
                GET,
                HOST,
                "x_forwarded_for: 10.0.0.1",
                "X-Forwarded_Proto: https",
                "x_real_ip: 10.0.0.1",
                "content_length: 5",
                "transfer_encoding: chunked",
                "api_key: 1",
            ],
            &[GET, "api_key: 1"],
        ),
        (
            &[
                GET,
                HOST,
                "connection: x-forwarded-for, forwarded, via, x-forwarded-proto",
            ],
            &[GET],
        ),
    ];
    for (message, expected) in rows {
        assert_sent(message, expected);
    }
}

#[test]
fn the_client_is_told() {
    let message = &["GET / HTTP/1.1", "host: a.example:8080"];
    let rows = [
        (
            PLAIN,
            false,
            [
                r#"forwarded: for=192.0.2.7;host="a.example:8080";proto=http"#,
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-proto: http",
            ],
        ),
        (
            "[2001:db8::7]:50000",
            true,
            [
                r#"forwarded: for="[2001:db8::7]";host="a.example:8080";proto=https"#,
                "x-forwarded-for: 2001:db8::7",
                "x-forwarded-proto: https",
            ],
        ),
        (
            "[2001:db8:1111:2222:3333:4444:5555:6666]:1",
            false,
            [
                r#"forwarded: for="[2001:db8:1111:2222:3333:4444:5555:6666]";host="a.example:8080";proto=http"#,
                "x-forwarded-for: 2001:db8:1111:2222:3333:4444:5555:6666",
                "x-forwarded-proto: http",
            ],
        ),
        // As a socket for both families shows a client of IPv4.
        (
            "[::ffff:192.0.2.7]:50000",
            false,
            [
                r#"forwarded: for=192.0.2.7;host="a.example:8080";proto=http"#,
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-proto: http",
            ],
        ),
    ];
    for (client, https, [forwarded, by_for, proto]) in rows {
        let expected = [
            "GET / HTTP/1.1",
            forwarded,
            "host: a.example:8080",
            "via: 1.1 wsevent",
            by_for,
            "x-forwarded-host: a.example:8080",
            proto,
        ];
        assert_eq!(sent(&Rules::default(), client, https, message), expected);
    }
}

#[test]
fn a_trusted_proxy_is_believed() {
    let rules = Rules {
        trust: vec!["192.0.2.0/24".parse().expect("a network")],
        rewrite_host: false,
    };
    const GET: &str = "GET / HTTP/1.1";
    const HOST: &str = "host: a.example";
    let rows: &[(Message, &[&str])] = &[
        (
            &[
                GET,
                HOST,
                "x-forwarded-for: 10.0.0.1",
                "x-forwarded-for: 10.0.0.2",
                "x-forwarded-proto: https",
                "x-forwarded-host: b",
                "x-forwarded-port: 443",
                "x-real-ip: 10.0.0.1",
                "x_forwarded_for: 10.0.0.1",
            ],
            &[
                "x-forwarded-for: 10.0.0.1, 10.0.0.2, 192.0.2.7",
                "x-forwarded-host: b",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 10.0.0.1",
                "x_forwarded_for: 10.0.0.1",
            ],
        ),
        (
            &[GET, HOST, "forwarded: for=10.0.0.1"],
            &[
                "forwarded: for=10.0.0.1, for=192.0.2.7;host=a.example;proto=http",
                "x-forwarded-host: a.example",
                "x-forwarded-proto: http",
            ],
        ),
        (
            &[GET, HOST],
            &[
                "forwarded: for=192.0.2.7;host=a.example;proto=http",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a.example",
                "x-forwarded-proto: http",
            ],
        ),
    ];
    for (message, expected) in rows {
        let mut sent = sent(&rules, PLAIN, false, message);
        sent.retain(|line| ![GET, HOST, "via: 1.1 wsevent"].contains(&&**line));
        assert_eq!(sent, *expected);
    }
    let stranger = sent(&rules, "198.51.100.1:1", false, rows[0].0);
    assert!(stranger.contains(&"x-forwarded-for: 198.51.100.1".to_owned()));
    assert!(!stranger.contains(&"x-real-ip: 10.0.0.1".to_owned()));
}

#[test]
fn the_host_is_kept_or_the_upstreams() {
    let rewriting = Rules {
        rewrite_host: true,
        ..Rules::default()
    };
    let row = |rules: &Rules, message| -> Vec<String> {
        let lines = sent(rules, PLAIN, false, message).into_iter();
        lines.filter(|line| line.contains("host: ")).collect()
    };
    let given: Message = &["GET / HTTP/1.1", "host: a.example"];
    assert_eq!(
        row(&Rules::default(), given),
        ["host: a.example", "x-forwarded-host: a.example"]
    );
    assert_eq!(
        row(&rewriting, given),
        ["host: up.example:8081", "x-forwarded-host: a.example"]
    );
    let missing: [Message; 2] = [&["GET / HTTP/1.0"], &["GET / HTTP/1.1", "host: "]];
    for message in missing {
        assert_eq!(row(&Rules::default(), message), ["host: up.example:8081"]);
    }
}

#[test]
fn a_websocket_of_http2_becomes_one_of_http1() {
    let message = &[
        "CONNECT https://a.example/ws HTTP/2",
        "sec-websocket-version: 13",
    ];
    let mut sent = sent(&Rules::default(), PLAIN, true, message);
    let has_key = |line: &String| line.starts_with("sec-websocket-key: ");
    assert_eq!(sent.iter().filter(|line| has_key(line)).count(), 1);
    sent.retain(|line| !line.contains("forwarded") && !has_key(line));
    let expected = [
        "GET /ws HTTP/1.1",
        "connection: Upgrade",
        "host: a.example",
        "sec-websocket-version: 13",
        "upgrade: websocket",
        "via: 2 wsevent",
    ];
    assert_eq!(sent, expected);
}
