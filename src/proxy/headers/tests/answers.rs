//! What becomes of an upstream's answer.

use hyper::Response;

use super::*;

fn answered(status: u16, version: Version, switching: bool, message: Message) -> Vec<String> {
    let mut response = Response::builder().status(status).version(version);
    for (name, value) in fields(message) {
        response = response.header(name, value);
    }
    let (mut response, ()) = response.body(()).expect("a response").into_parts();
    Rules::default().response(&mut response, switching);
    assert_eq!(response.version, Version::HTTP_11);
    lines(&response.headers)
}

#[test]
fn each_rule_for_answers() {
    let rows: &[(u16, Message, &[&str])] = &[
        (
            200,
            &[
                "",
                "connection: close, x-one",
                "keep-alive: timeout=5",
                "x-one: 1",
                "set-cookie: a",
                "set-cookie: b",
            ],
            &["set-cookie: a", "set-cookie: b", "via: 1.1 wsevent"],
        ),
        (
            200,
            &[
                "",
                "upgrade: h2c",
                "connection: upgrade",
                "proxy-authenticate: Basic",
                "via: 1.1 one",
            ],
            &["via: 1.1 one", "via: 1.1 wsevent"],
        ),
        (
            200,
            &[
                "",
                "content-length: 5",
                "transfer-encoding: chunked",
                "trailer: x-sum",
            ],
            &[
                "trailer: x-sum",
                "transfer-encoding: chunked",
                "via: 1.1 wsevent",
            ],
        ),
        (
            200,
            &["", "content-length: 5, 5", "connection: content-length"],
            &["content-length: 5", "via: 1.1 wsevent"],
        ),
        (
            426,
            &["", "upgrade: h2c, websocket", "connection: upgrade"],
            &[
                "connection: Upgrade",
                "upgrade: websocket",
                "via: 1.1 wsevent",
            ],
        ),
        (
            426,
            &["", "upgrade: h2c", "connection: upgrade"],
            &["via: 1.1 wsevent"],
        ),
        // What an upstream says of itself is its own to say.
        (
            200,
            &["", "x-real-ip: 1", "x_forwarded_for: 1"],
            &["via: 1.1 wsevent", "x-real-ip: 1", "x_forwarded_for: 1"],
        ),
    ];
    for (status, message, expected) in rows {
        let lines = answered(*status, Version::HTTP_11, false, message);
        assert_eq!(lines, *expected, "{message:#?}");
    }
    let old = answered(200, Version::HTTP_10, false, &[""]);
    assert_eq!(old, ["via: 1.0 wsevent"]);
    let switched = &[
        "",
        "connection: keep-alive, upgrade",
        "upgrade: WebSocket",
        "sec-websocket-accept: s",
        "transfer-encoding: chunked",
        "content-length: 0",
    ];
    let expected = [
        "connection: Upgrade",
        "sec-websocket-accept: s",
        "upgrade: websocket",
        "via: 1.1 wsevent",
    ];
    assert_eq!(answered(101, Version::HTTP_11, true, switched), expected);
}
