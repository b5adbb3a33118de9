//! Which requests are not passed on.

use super::*;

#[test]
fn each_reason_to_refuse() {
    const HOST: &str = "host: a.example";
    const UPGRADE: [&str; 2] = ["connection: Upgrade", "upgrade: websocket"];
    let rows: &[(Message, u16)] = &[
        (&["GET / HTTP/1.1", HOST], 0),
        (&["GET / HTTP/1.1", "host: a.example:8080"], 0),
        (&["GET / HTTP/1.1", "host: [::1]:8080"], 0),
        (&["GET / HTTP/1.1", "host: "], 0),
        (&["GET / HTTP/1.0"], 0),
        (&["GET / HTTP/1.1"], 400),
        (&["GET / HTTP/1.1", HOST, HOST], 400),
        (&["GET / HTTP/1.1", "host: a@b"], 400),
        (&["GET / HTTP/1.1", "host: a/b"], 400),
        (&["GET / HTTP/1.1", "host: a, b"], 400),
        (&["GET / HTTP/1.1", "host: a:65536"], 400),
        (&["GET / HTTP/1.1", "host: a:b"], 400),
        // Targets.
        (&["GET http://a.example/ HTTP/1.1", "host: b"], 0),
        (&["GET http://u@a.example/ HTTP/1.1", HOST], 400),
        (&["GET ftp://a.example/ HTTP/1.1", HOST], 400),
        (&["GET a.example:80 HTTP/1.1", HOST], 400),
        (&["GET a.example HTTP/1.1", HOST], 400),
        (&["GET * HTTP/1.1", HOST], 400),
        (&["OPTIONS * HTTP/1.1", HOST], 0),
        (&["GET https://a.example/ HTTP/2"], 0),
        (&["GET https://a.example/ HTTP/2", "host: A.EXAMPLE"], 0),
        (&["GET https://a.example/ HTTP/2", "host: b.example"], 400),
        (&["GET / HTTP/2", HOST], 0),
        (&["GET / HTTP/2"], 400),
        // Methods.
        (&["CONNECT a.example:80 HTTP/1.1", HOST], 405),
        (&["CONNECT https://a.example/ HTTP/2"], 0),
        (&["TRACE / HTTP/1.1", HOST, "max-forwards: 0"], 405),
        (&["PROPFIND / HTTP/1.1", HOST], 0),
        (&["GET / HTTP/1.1", HOST, "max-forwards: 0"], 0),
        // Codings.
        (&["POST / HTTP/1.1", HOST, "transfer-encoding: Chunked"], 0),
        (
            &["POST / HTTP/1.1", HOST, "transfer-encoding: gzip, chunked"],
            501,
        ),
        (
            &["POST / HTTP/1.1", HOST, "transfer-encoding: identity"],
            501,
        ),
        // Handshakes.
        (&["GET / HTTP/1.1", HOST, UPGRADE[0], UPGRADE[1]], 0),
        (
            &[
                "GET / HTTP/1.1",
                HOST,
                UPGRADE[0],
                UPGRADE[1],
                "sec-websocket-version: 8",
            ],
            0,
        ),
        (
            &[
                "GET / HTTP/1.1",
                HOST,
                UPGRADE[0],
                UPGRADE[1],
                "content-length: 0",
            ],
            0,
        ),
        (
            &[
                "GET / HTTP/1.1",
                HOST,
                UPGRADE[0],
                UPGRADE[1],
                "content-length: 5",
            ],
            400,
        ),
        (
            &[
                "GET / HTTP/1.1",
                HOST,
                UPGRADE[0],
                UPGRADE[1],
                "transfer-encoding: chunked",
            ],
            400,
        ),
    ];
    for (message, expected) in rows {
        let status = match check(&parse(message)) {
            Ok(()) => 0,
            Err(refusal) => refusal.status.as_u16(),
        };
        assert_eq!(status, *expected, "{message:#?}");
    }
    let mut other = parse(&["CONNECT https://a.example/ HTTP/2"]);
    other
        .extensions
        .insert(Protocol::from_static("connect-udp"));
    let refused = check(&other).expect_err("not a WebSocket");
    assert_eq!(refused.status, StatusCode::NOT_IMPLEMENTED);
}
