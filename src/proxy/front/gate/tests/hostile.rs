//! What must not reach hyper, or must not be believed.

use super::*;

const FIRST: &str = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";

/// A head that is refused: what stands there is the whole of it, or a request line and fields to be ended rightly.
fn heads() -> Vec<(String, u16)> {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let many = |count: usize| "x: 1\r\n".repeat(count);
    vec![
        // Line ends.
        ("GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\nx: 1\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        (get("Host: a\rx: 1"), 400),
        (get("Host: a\r\n\rx: 1"), 400),
        ("GET / HTTP/1.1\rHost: a\r\r".into(), 400),
        // Fields.
        (get("Host: a\r\n b"), 400),
        (get("Host: a\r\n\tb: c"), 400),
        (get(" Host: a"), 400),
        (get("Host : a"), 400),
        (get("Host\t: a"), 400),
        (get("Host: a\r\n: b"), 400),
        (get("Host: a\r\nb"), 400),
        (get("Host: a\r\nb c: d"), 400),
        (get("Host: a\r\nx: \0"), 400),
        (get("Host: a\r\nx\0: 1"), 400),
        (get("Host: a\r\nx: \x01"), 400),
        (get("Host: a\r\nx: \x7f"), 400),
        (get("Host: a\r\nx: \x0b"), 400),
        (get("Host: a\r\nHost: a"), 400),
        (get("Host: a\r\nhOST: b"), 400),
        // Lengths.
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 0"), 400),
        (post("Content-Length: 5\r\nContent-Length: 6"), 400),
        (post("Content-Length: 5\r\nContent-Length: 5"), 400),
        (post("Content-Length: 5, 5"), 400),
        (post("Content-Length: 5,6"), 400),
        (post("Content-Length: +5"), 400),
        (post("Content-Length: -1"), 400),
        (post("Content-Length: 0x5"), 400),
        (post("Content-Length: 5 5"), 400),
        (post("Content-Length: 5;"), 400),
        (post("Content-Length:"), 400),
        (post("Content-Length: 99999999999999999999"), 400),
        (post("Content-Length: 18446744073709551616"), 400),
        // Codings.
        (post("Transfer-Encoding: gzip"), 501),
        (post("Transfer-Encoding: gzip, chunked"), 501),
        (post("Transfer-Encoding: chunked, gzip"), 501),
        (post("Transfer-Encoding: chunked, chunked"), 501),
        (post("Transfer-Encoding: identity"), 501),
        (post("Transfer-Encoding: xchunked"), 501),
        (post("Transfer-Encoding: \"chunked\""), 501),
        (post("Transfer-Encoding: chunked;a=b"), 501),
        (post("Transfer-Encoding:"), 501),
        (
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            400,
        ),
        (
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            400,
        ),
        (post("Transfer-Encoding : chunked"), 400),
        (post("Transfer-Encoding\n: chunked"), 400),
        (
            post("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0"),
            400,
        ),
        // Request lines.
        (line("GET  / HTTP/1.1"), 400),
        (line("GET /  HTTP/1.1"), 400),
        (line("GET / HTTP/1.1 "), 400),
        (line(" GET / HTTP/1.1"), 400),
        (line("GET\t/ HTTP/1.1"), 400),
        (line("GET / a HTTP/1.1"), 400),
        (line("GET /\0 HTTP/1.1"), 400),
        (line("GET /"), 400),
        (line("GET"), 400),
        (line("G@T / HTTP/1.1"), 400),
        (line("GET / HTTQ/1.1"), 400),
        (line("GET / http/1.1"), 400),
        (line("GET / HTTP/1.1.1"), 400),
        (line("GET / HTTP/1.2"), 505),
        (line("GET / HTTP/0.9"), 505),
        (line("GET / HTTP/2.0"), 505),
        (line("GET / HTTP/2"), 505),
        (line("GET / HTTP/3.0"), 505),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".into(), 400),
        // Sizes.
        (get(&format!("Host: a\r\nx: {}", "a".repeat(MAX_HEAD))), 431),
        (get(&format!("Host: a\r\n{}y: 1", many(MAX_FIELDS))), 431),
        (format!("GET /{}", "a".repeat(MAX_HEAD)), 431),
        // Handshakes.
        (
            get("Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5"),
            400,
        ),
        (
            get(
                "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked",
            ),
            400,
        ),
    ]
}

#[tokio::test]
async fn hostile_heads_are_refused_and_what_was_before_is_answered() {
    for (head, status) in heads() {
        for before in ["", FIRST] {
            let sent = format!("{before}{head}{LAST}");
            let (ended, answer) = exchange(&[sent.as_bytes()]).await;
            let short: String = head.chars().take(200).collect();
            match ended.verdict {
                Some(Verdict::Refused(refused, _)) => assert_eq!(refused, status, "{short:?}"),
                other => panic!("{other:?} for {short:?}"),
            }
            assert!(!ended.is_ok, "{short:?}");
            assert_eq!(
                paths(&ended).len(),
                usize::from(!before.is_empty()),
                "{short:?}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                ended.seen.len(),
                "{answer}"
            );
        }
    }
}

/// It is the same however the bytes come.
#[test]
fn hostile_heads_are_refused_in_any_pieces() {
    for (head, status) in heads() {
        let bytes = head.as_bytes();
        let mut framing = Framing::default();
        let mut stop = None;
        for len in 1..=bytes.len() {
            let (passed, stopped) = framing.advance(&bytes[..len]);
            assert_eq!(passed, 0, "{head:?}");
            stop = stopped;
            if stop.is_some() {
                break;
            }
        }
        match stop {
            Some(Stop::Head(refused, _)) => assert_eq!(refused, status, "{head:?}"),
            other => panic!("{other:?} for {head:?}"),
        }
    }
}

/// While the answer to the request before is still to come, it does not get a refusal for an answer.
#[tokio::test]
async fn a_refusal_waits_for_its_turn() {
    let service = Arc::<Service>::default();
    let (mut client, connection) = connect(service.clone()).await;
    let slow = FIRST.replace("/first", "/slow");
    client.write_all(slow.as_bytes()).await.expect("sent");
    service.came.notified().await;
    client.write_all(b"GET / HTTP/1.1\n\n").await.expect("sent");
    yield_now().await;
    yield_now().await;
    service.answer.notify_one();
    let ended = connection.await.expect("no panic");
    assert!(matches!(ended.verdict, Some(Verdict::Refused(..))));
    assert!(!ended.is_ok);
    let answer = rest(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("/slow"),
        "{answer}"
    );
}

/// Behind the last answer nothing is said any more.
#[tokio::test]
async fn behind_the_last_request_is_nothing_to_refuse() {
    let sent = format!("{LAST}GET / HTTP/1.1\n\n");
    let (ended, answer) = exchange(&[sent.as_bytes()]).await;
    assert!(ended.is_ok);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

const CHUNKS: &[&str] = &[
    "\r\n",
    "x\r\n",
    "-1\r\na\r\n0\r\n\r\n",
    "0x1\r\na\r\n0\r\n\r\n",
    " 1\r\na\r\n0\r\n\r\n",
    "1 \r\na\r\n0\r\n\r\n",
    "1\na\n0\n\n",
    "1\na\r\n0\r\n\r\n",
    "1\r\na\n0\r\n\r\n",
    "1\r\na0\r\n\r\n",
    "1\r\nab\r\n0\r\n\r\n",
    "1\r\na\rb0\r\n\r\n",
    "1\rx",
    "10000000000000000\r\n",
    "00000000000000001\r\na\r\n0\r\n\r\n",
    "1;a\n\r\na\r\n0\r\n\r\n",
    "1;a\0\r\na\r\n0\r\n\r\n",
    "1;a\rb\r\na\r\n0\r\n\r\n",
    "0\n\r\n",
    "0\r\n\n",
    "0\r\nx: 1\n\r\n",
    "0\r\nx\r\n\r\n",
    "0\r\nx : 1\r\n\r\n",
    "0\r\nx: 1\r\n 2\r\n\r\n",
    "0\r\nx: \0\r\n\r\n",
    "0\r\nContent-Length: 5\r\n\r\n",
    "0\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    "0\r\nHost: b\r\n\r\n",
    "0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
];

#[tokio::test]
async fn hostile_chunks_break_their_body() {
    let mut rows: Vec<String> = CHUNKS.iter().map(|&chunks| chunks.to_owned()).collect();
    rows.push(format!("1;{}\r\na\r\n0\r\n\r\n", "a".repeat(4 << 10)));
    rows.push(format!(
        "{}0\r\n\r\n",
        format!("1;{}\r\na\r\n", "a".repeat(99)).repeat(50)
    ));
    rows.push(format!("0\r\nx: {}\r\n\r\n", "a".repeat(MAX_HEAD)));
    rows.push(format!("0\r\n{}\r\n", "x: 1\r\n".repeat(MAX_FIELDS + 1)));
    for chunks in rows {
        let head = "POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let sent = format!("{head}{chunks}{LAST}");
        let (ended, answer) = exchange(&[sent.as_bytes()]).await;
        let short: String = chunks.chars().take(200).collect();
        assert!(
            matches!(ended.verdict, Some(Verdict::BrokenBody(_))),
            "{short:?} {:?}",
            ended.verdict
        );
        assert_eq!(
            ended.seen,
            [("POST".into(), "/post".into(), None)],
            "{short:?}"
        );
        // The service's answer, and no other.
        assert!(answer.starts_with("HTTP/1.1 400"), "{short:?}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{short:?}: {answer}"
        );
        // And in any pieces.
        let mut framing = Framing::default();
        let mut unpassed = vec![];
        let mut stop = None;
        for &byte in sent.as_bytes() {
            unpassed.push(byte);
            let (passed, stopped) = framing.advance(&unpassed);
            unpassed.drain(..passed);
            stop = stop.or(stopped);
            if stop.is_some() {
                break;
            }
        }
        assert!(matches!(stop, Some(Stop::Body(_))), "{short:?}: {stop:?}");
    }
}
