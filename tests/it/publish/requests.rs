//! Publishing by POST.

use serde_json::{Value, json};

use super::{ask, hop, ids, post, reader};
use crate::harness::client::{Client, request};
use crate::harness::wsevent::Hop;

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");
const CLOUD_EVENT: (&str, &str) = ("Content-Type", "application/cloudevents+json");
const CLOUD_EVENTS: (&str, &str) = ("Content-Type", "application/cloudevents-batch+json");

/// The next event of an NDJSON stream, but for its time; its id is checked to be `id`.
async fn event(reader: &mut Client, id: &str) -> Value {
    let mut event: Value = serde_json::from_str(&reader.line().await).expect("it is JSON");
    let members = event.as_object_mut().expect("it is an object");
    assert_eq!(members.remove("id"), Some(json!(id)));
    members.remove("time").expect("it has a time");
    event
}

#[tokio::test]
async fn a_body_becomes_an_event_as_its_type_says() {
    let hop = hop(&[]).await;
    let mut reader = reader(&hop).await;
    let mut client = Client::connect(hop.address).await;
    let data = |text: &str| json!({ "data": text });
    for (content_type, body, expected) in [
        ("text/plain", "é ✓".as_bytes(), data("é ✓")),
        ("text/plain; charset=UTF-8", b"a\r\nb\n", data("a\r\nb\n")),
        ("application/json", b"{\"a\": 1}", data("{\"a\": 1}")),
        (
            "application/problem+json",
            b"not checked",
            data("not checked"),
        ),
        ("application/xml", b"<a/>", data("<a/>")),
        (
            "application/x-www-form-urlencoded",
            b"a=b&c%20",
            data("a=b&c%20"),
        ),
        (
            "application/octet-stream",
            b"text",
            json!({"data_base64": "dGV4dA=="}),
        ),
        ("image/png", b"\xFF\x00", json!({"data_base64": "/wA="})),
        ("", b"text", data("text")),
        ("", b"\xFF", json!({"data_base64": "/w=="})),
        ("text/plain", b"", data("")),
        ("application/octet-stream", b"", json!({"data_base64": ""})),
    ] {
        let headers = [("Content-Type", content_type)];
        let headers = if content_type.is_empty() {
            &[][..]
        } else {
            &headers
        };
        let (status, answer) = ask(&mut client, post("/events", headers, body)).await;
        assert_eq!(status, 202, "{content_type}: {answer}");
        assert!(answer.ends_with("]}\n"), "{answer:?}");
        let [id] = &ids(&answer)[..] else {
            panic!("{answer}")
        };
        assert_eq!(event(&mut reader, id).await, expected, "{content_type}");
    }
}

#[tokio::test]
async fn what_stands_nearest_to_an_event_labels_it() {
    let hop = hop(&[]).await;
    let mut reader = reader(&hop).await;
    let mut client = Client::connect(hop.address).await;
    let url = "/events?type=of+url&key=k%26";
    let headers = [
        ("ce-type", "caf%C3%A9"),
        ("ce-subject", "\"quoted \\\"k\\\"\""),
    ];
    let own = br#"{"data":[1, 2],"type":"own"}"#;
    let cloud = br#"{"specversion":"1.0","id":"1","source":"s","type":"own","data":"x"}"#;
    for (headers, body, expected) in [
        (
            &[][..],
            &b"x"[..],
            json!({"type": "of url", "key": "k&", "data": "x"}),
        ),
        (
            &headers,
            b"x",
            json!({"type": "café", "key": "quoted \"k\"", "data": "x"}),
        ),
        (
            &[LINES],
            own,
            json!({"type": "own", "key": "k&", "data": "[1, 2]"}),
        ),
        (
            &[CLOUD_EVENT],
            cloud,
            json!({"type": "own", "key": "k&", "data": "\"x\""}),
        ),
    ] {
        let (status, answer) = ask(&mut client, post(url, headers, body)).await;
        assert_eq!(status, 202, "{answer}");
        assert_eq!(event(&mut reader, &ids(&answer)[0]).await, expected);
    }
}

#[tokio::test]
async fn many_events_in_one_request_are_in_the_order_of_its_lines() {
    let hop = hop(&[]).await;
    let mut reader = reader(&hop).await;
    let mut client = Client::connect(hop.address).await;
    let lines =
        "{\"data\":\"a\\nb\"}\n\n \r\n{\"data_base64\":\"/w==\",\"key\":\"k\"}\r\n{\"data\":null}";
    let batch = r#"[{"specversion":"1.0","data":1},{"specversion":"1.0","data_base64":""}]"#;
    let mut got = vec![];
    for (header, body) in [(LINES, lines), (CLOUD_EVENTS, batch)] {
        let (status, answer) = ask(&mut client, post("/events", &[header], body.as_bytes())).await;
        assert_eq!(status, 202, "{answer}");
        for id in ids(&answer) {
            got.push(event(&mut reader, &id).await);
        }
    }
    let expected = [
        json!({"data": "a\nb"}),
        json!({"data_base64": "/w==", "key": "k"}),
        json!({"data": "null"}),
        json!({"data": "1"}),
        json!({"data_base64": ""}),
    ];
    assert_eq!(got, expected);
    for (header, body) in [(LINES, ""), (LINES, "\n \n"), (CLOUD_EVENTS, "[]")] {
        let answer = ask(&mut client, post("/events", &[header], body.as_bytes())).await;
        assert_eq!(answer, (202, "{\"ids\":[]}\n".to_owned()));
    }
}

/// Headers and body of a request, and status and reason of its answer.
pub(super) type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

/// Sends requests that must be refused, each on its own connection, and then one that is not.
pub(super) async fn refused(hop: &Hop, cases: &[Case<'_>]) {
    for (headers, body, status, reason) in cases {
        let mut client = Client::connect(hop.address).await;
        let answer = ask(&mut client, post("/events", headers, body)).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]);
        assert_eq!(answer.0, *status, "{headers:?} {shown}: {}", answer.1);
        assert!(
            answer.1.contains(reason),
            "{headers:?} {shown}: {}",
            answer.1
        );
        assert_eq!(answer.1.lines().count(), 1, "one line");
    }
    let mut reader = reader(hop).await;
    let mut client = Client::connect(hop.address).await;
    let (_, answer) = ask(&mut client, post("/events", &[], b"first")).await;
    let first = event(&mut reader, &ids(&answer)[0]).await;
    assert_eq!(first, json!({"data": "first"}), "nothing was appended");
}

#[tokio::test]
async fn what_is_no_event_is_refused_with_a_reason() {
    const TEXT: (&str, &str) = ("Content-Type", "text/plain");
    let hop = hop(&[]).await;
    refused(
        &hop,
        &[
            (&[TEXT], b"\xFF", 400, "UTF-8"),
            (
                &[("Content-Type", "application/json")],
                b"\xFF",
                400,
                "UTF-8",
            ),
            (
                &[("Content-Type", "text/plain; charset=latin1")],
                b"",
                415,
                "utf-8",
            ),
            (
                &[("Content-Type", "multipart/form-data; boundary=x")],
                b"",
                415,
                "multipart",
            ),
            (&[("Content-Type", "nonsense")], b"", 415, "media type"),
            (&[TEXT, TEXT], b"", 400, "more than one"),
            (
                &[("Content-Encoding", "gzip")],
                b"",
                415,
                "Content-Encoding",
            ),
            (&[("ce-type", "wsevent.gap")], b"", 400, "wsevent.gap"),
            (&[("ce-type", "a%0Ab")], b"", 400, "control"),
            (&[("ce-subject", "%FF")], b"", 400, "UTF-8"),
            (&[("ce-specversion", "0.3")], b"", 400, "specversion"),
            (&[CLOUD_EVENT], b"{}", 400, "specversion"),
            (&[CLOUD_EVENT], b"", 400, "JSON"),
            (&[CLOUD_EVENTS], b"{}", 400, "array"),
            (
                &[("Content-Type", "application/cloudevents+avro")],
                b"",
                415,
                "JSON",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn of_a_batch_with_a_wrong_event_nothing_is_appended() {
    let good = "{\"data\":\"x\"}\n";
    let wrong = |line: &str| format!("{good}\n{line}\n{good}").into_bytes();
    let large = format!("{{\"data\":\"{}\"}}", "x".repeat(1001));
    let batch = br#"[{"specversion":"1.0"},{"specversion":"1.0","type":"wsevent.gap"}]"#;
    let hop = hop(&["--max-message-size", "1000"]).await;
    refused(
        &hop,
        &[
            (&[LINES], &wrong("{"), 400, "line 3: "),
            (&[LINES], &wrong("{}"), 400, "line 3: "),
            (&[LINES], &wrong("[]"), 400, "line 3: "),
            (
                &[LINES],
                &wrong(r#"{"data":"x","type":"wsevent.gap"}"#),
                400,
                "line 3: ",
            ),
            (
                &[LINES],
                &wrong(r#"{"data":"x","key":"\n"}"#),
                400,
                "line 3: the key",
            ),
            (&[LINES], &wrong(&large), 413, "line 3: "),
            (&[LINES], b"{\"data\":\"\xFF\"}", 400, "line 1: "),
            (&[CLOUD_EVENTS], batch, 400, "event 2: "),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_has_come() {
    let hop = hop(&["--max-message-size", "1000"]).await;
    let large = vec![b'x'; 8 << 20];
    let lines = vec![b'\n'; (16 << 20) + 1];
    refused(
        &hop,
        &[
            (&[], &large[..1001], 413, "1000"),
            // The answer can be read though the client has much more to send than fits into any buffer.
            (&[], &large, 413, "1000"),
            (&[LINES], &lines, 413, "16777216"),
        ],
    )
    .await;
    let mut client = Client::connect(hop.address).await;
    let answer = ask(&mut client, post("/events", &[], &large[..1000])).await;
    assert_eq!(answer.0, 202);
    // Nothing of the body is there, and it is not asked for.
    let headers = [
        ("Host", "localhost"),
        ("Content-Length", "1001"),
        ("Expect", "100-continue"),
    ];
    client
        .send(request("POST /events HTTP/1.1", &headers))
        .await;
    assert_eq!(client.head().await.status, 413);
}

#[tokio::test]
async fn what_is_sent_again_is_published_once() {
    let hop = hop(&[]).await;
    let mut reader = reader(&hop).await;
    let mut client = Client::connect(hop.address).await;
    let named = [("ce-id", "1"), ("ce-source", "/a")];
    let other = [("ce-id", "1"), ("ce-source", "/b")];
    let lines = [LINES, ("ce-id", "2")];
    let two = b"{\"data\":1}\n{\"data\":2}";
    let cloud = br#"{"specversion":"1.0","id":"1","source":"/a","data":1}"#;
    let batch = br#"[{"specversion":"1.0","id":"3"},{"specversion":"1.0","id":"1","source":"/a"},
        {"specversion":"1.0","id":"3"}]"#;
    let mut all = vec![];
    for (headers, body) in [
        (&named[..], &b"first"[..]),
        (&named, b"again"),
        (&other, b"second"),
        (&lines, two),
        (&lines, two),
        (&[CLOUD_EVENT], cloud),
        (&[CLOUD_EVENTS], batch),
        (&[], b"last"),
    ] {
        let (status, answer) = ask(&mut client, post("/events", headers, body)).await;
        assert_eq!(status, 202, "{answer}");
        let seq = |id: &String| id.split_once('-').map(|(_, seq)| seq.to_owned());
        all.push(
            ids(&answer)
                .iter()
                .filter_map(seq)
                .collect::<Vec<_>>()
                .join(","),
        );
    }
    assert_eq!(all, ["1", "1", "2", "3,4", "3,4", "1", "5,1,5", "6"]);
    let mut data = vec![];
    for _ in 0..6 {
        let event: Value = serde_json::from_str(&reader.line().await).expect("it is JSON");
        data.push(event["data"].as_str().expect("text").to_owned());
    }
    assert_eq!(data, ["first", "second", "1", "2", "", "last"]);
}
