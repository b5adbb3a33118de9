//! Hops that consume `http://` URLs: anybody's server-sent events and NDJSON.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::events::{all_sorts, assert_same};
use crate::harness::http::{CHUNKED, EVENT_STREAM, Ndjson, Request, chunk};
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, output};

/// A hop that has asked a foreign server for its stream.
async fn asked(args: &[&str]) -> (Upstream, Request, Hop) {
    let upstream = Upstream::new();
    let hop = Hop::start(&[&["--consume", &upstream.http_url()], args].concat()).await;
    let request = upstream.asked().await;
    (upstream, request, hop)
}

/// Type and payload of an event, as a hop's NDJSON has it.
fn typed(event: &Value) -> (Option<&str>, &str) {
    let data = event["data"].as_str().unwrap_or_else(|| panic!("{event}"));
    (event["type"].as_str(), data)
}

/// A stream in which everything stands that the standard has rules for.
const STREAM: &[u8] = b"\xEF\xBB\xBFdata: with a mark before it\n\n\
    : a comment\r\ndata: CR LF\r\n\r\ndata: CR\r\revent: named\ndata:  first\ndata:second\ndata\n\n\
    event: nothing to it\n\nid: kept\ndata: a\n\nid: \0not kept\nunknown: x\nevent: message\ndata: b \xE2\x9C\x93\xFF\n\n\
    data: unfinished";

const EVENTS: [(Option<&str>, &str); 6] = [
    (None, "with a mark before it"),
    (None, "CR LF"),
    (None, "CR"),
    (Some("named"), " first\nsecond\n"),
    (None, "a"),
    (None, "b ✓\u{FFFD}"),
];

async fn brings_all(reader: &mut Ndjson) {
    for expected in EVENTS {
        let event = reader.next().await;
        assert_eq!(typed(&event), expected);
        assert!(event["id"].as_str().is_some_and(|id| id != "kept"));
    }
}

#[tokio::test]
async fn an_event_stream_is_read_however_it_is_framed_and_cut() {
    let (upstream, mut request, hop) = asked(&[]).await;
    let mut reader = Ndjson::of(&hop).await;
    let length = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
        STREAM.len()
    );
    let old = "HTTP/1.0 200 OK\r\nContent-Type: Text/Event-Stream;charset=utf-8\r\n\r\n";
    let singly: Vec<u8> = STREAM.iter().flat_map(|&byte| chunk(&[byte])).collect();
    for (head, body) in [
        (EVENT_STREAM, STREAM.to_vec()),
        (&length, STREAM.to_vec()),
        (old, STREAM.to_vec()),
        (CHUNKED, [&chunk(STREAM)[..], b"0\r\n\r\n"].concat()),
        (CHUNKED, [&singly[..], b"0\r\n\r\n"].concat()),
    ] {
        assert_eq!(request.line(), "GET /feed HTTP/1.1");
        request.send(head).await;
        request.answer(body).await;
        brings_all(&mut reader).await;
        request = upstream.asked().await;
        assert_eq!(request.header("last-event-id"), Some("kept"));
    }
    let lost = hop.logged("upstream lost").await;
    assert!(lost.field("reason").contains("has ended"), "{}", lost.text);
}

#[tokio::test]
async fn the_stream_may_be_cut_anywhere() {
    let (_upstream, mut request, hop) = asked(&[]).await;
    let mut reader = Ndjson::of(&hop).await;
    request.send(EVENT_STREAM).await;
    // Each write is a segment of its own, as nothing waits for more.
    for piece in STREAM.chunks(3) {
        request.send(piece).await;
    }
    brings_all(&mut reader).await;
}

#[tokio::test]
async fn it_says_what_it_wants_and_where_to_go_on() {
    let (upstream, mut request, _hop) = asked(&[]).await;
    assert_eq!(request.header("last-event-id"), None);
    for (block, id) in [
        ("id: 1\ndata: x\n\n", Some("1")),
        ("data: y\n\n", Some("1")),
        ("id: no data but counted\n\n", Some("no data but counted")),
        ("id: é ✓\ndata: x\n\n", Some("é ✓")),
        ("id: unfinished\ndata: x\n", Some("é ✓")),
        ("id\ndata: taken back\n\n", None),
        ("data: none any more\n\n", None),
    ] {
        let host = upstream.address().to_string();
        assert_eq!(request.header("host"), Some(&host[..]));
        let accept = "text/event-stream, application/x-ndjson;q=0.9";
        assert_eq!(request.header("accept"), Some(accept));
        assert_eq!(request.header("cache-control"), Some("no-store"));
        request.send(EVENT_STREAM).await;
        request.answer(block).await;
        request = upstream.asked().await;
        assert_eq!(request.header("last-event-id"), id, "{block:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_goes_on_where_it_was() {
    let (upstream, mut request, hop) = asked(&[]).await;
    let mut reader = Ndjson::of(&hop).await;
    for number in 0..3 {
        request.send(CHUNKED).await;
        let block = format!("id: {number}\ndata: {number}\n\nid: lost\ndata: cut o");
        request.send(chunk(block.as_bytes())).await;
        assert_eq!(typed(&reader.next().await), (None, &*number.to_string()));
        request.reset();
        request = upstream.asked().await;
        let id = number.to_string();
        assert_eq!(request.header("last-event-id"), Some(&id[..]));
    }
    hop.logged_times("upstream lost", 3).await;
    assert_eq!(hop.count("upstream connected"), 3);
}

#[tokio::test]
async fn the_server_may_ask_for_patience() {
    let (_upstream, request, hop) = asked(&["--log-level", "debug"]).await;
    request
        .answer([EVENT_STREAM, "retry: 999999999999\ndata: x\n\n"].concat())
        .await;
    let pause = hop.logged("trying again after a pause").await;
    let pause = pause.field("pause");
    let seconds: f64 = pause.trim_end_matches('s').parse().expect("seconds");
    assert!((3_600.0..=7_200.0).contains(&seconds), "{pause}");
}

#[tokio::test]
async fn no_content_ends_it_for_good() {
    let (_upstream, request, mut hop) = asked(&[]).await;
    request.answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    let ended = "upstream has ended: it answered 204";
    hop.logged(ended).await;
    hop.signal(rustix::process::Signal::TERM);
    hop.stops_well().await;
    assert_eq!(hop.count(ended), 1);
    assert_eq!(hop.count("upstream lost"), 0);
}

#[tokio::test]
async fn what_is_no_event_stream_is_said_and_asked_for_again() {
    let ok = "HTTP/1.1 200 OK\r\n";
    for (answer, reason) in [
        (format!("{ok}content-type: text/html\r\n\r\n"), "text/html"),
        (format!("{ok}content-length: 0\r\n\r\n"), "no Content-Type"),
        (
            format!("{ok}content-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n"),
            "gzip",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "404",
        ),
        (
            "HTTP/1.1 206 Partial Content\r\ncontent-type: text/event-stream\r\n\r\n".to_owned(),
            "206",
        ),
        ("HTTP/1.1 302 Found\r\n\r\n".to_owned(), "no Location"),
        ("no HTTP at all\r\n\r\n".to_owned(), "HTTP"),
        (String::new(), "closed"),
    ] {
        let (upstream, request, hop) = asked(&[]).await;
        request.answer(answer).await;
        let lost = hop.logged("cannot reach upstream, trying again").await;
        assert!(lost.field("reason").contains(reason), "{}", lost.text);
        let mut request = upstream.asked().await;
        request.send(EVENT_STREAM).await;
        hop.logged("upstream connected").await;
        assert_eq!(hop.count("cannot reach upstream, trying again"), 1);
    }
}

#[tokio::test]
async fn redirects_are_followed_and_permanent_ones_remembered() {
    for (status, is_permanent) in [
        (301, true),
        (302, false),
        (303, false),
        (307, false),
        (308, true),
    ] {
        let (upstream, request, hop) = asked(&[]).await;
        request.redirect(status, "../other?x=1#part").await;
        let mut request = upstream.asked().await;
        assert_eq!(request.line(), "GET /other?x=1 HTTP/1.1");
        request.send(EVENT_STREAM).await;
        hop.logged("upstream connected").await;
        request.answer("id: 7\ndata: x\n\n").await;
        let request = upstream.asked().await;
        let expected = if is_permanent {
            "GET /other?x=1 HTTP/1.1"
        } else {
            "GET /feed HTTP/1.1"
        };
        assert_eq!(request.line(), expected, "{status}");
        assert_eq!(request.header("last-event-id"), Some("7"));
        assert_eq!(hop.count("upstream has moved"), usize::from(is_permanent));
    }
}

#[tokio::test]
async fn a_permanent_redirect_behind_a_temporary_one_is_not_remembered() {
    let (upstream, request, _hop) = asked(&[]).await;
    request.redirect(302, "/one").await;
    upstream.asked().await.redirect(301, "/two").await;
    let request = upstream.asked().await;
    assert_eq!(request.line(), "GET /two HTTP/1.1");
    request.answer(EVENT_STREAM).await;
    assert_eq!(upstream.asked().await.line(), "GET /feed HTTP/1.1");
}

#[tokio::test]
async fn secrets_do_not_follow_to_another_origin() {
    let (upstream, other) = (Upstream::new(), Upstream::new());
    let url = format!("http://me:secret@{}/feed", upstream.address());
    let header = ["--consume-header", "X-Key: secret", "--log-level", "debug"];
    let hop = Hop::start(&[&["--consume", &url], &header[..]].concat()).await;
    for _ in 0..2 {
        let request = upstream.asked().await;
        assert_eq!(request.header("authorization"), Some("Basic bWU6c2VjcmV0"));
        assert_eq!(request.header("x-key"), Some("secret"));
        // At the same origin they are still meant.
        request.redirect(307, "/here").await;
        let request = upstream.asked().await;
        assert_eq!(request.header("authorization"), Some("Basic bWU6c2VjcmV0"));
        assert_eq!(request.header("x-key"), Some("secret"));
        let to = format!("http://you:too@{}/there", other.address());
        request.redirect(307, &to).await;
        let request = other.asked().await;
        assert_eq!(request.line(), "GET /there HTTP/1.1");
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.header("x-key"), None);
        let host = other.address().to_string();
        assert_eq!(request.header("host"), Some(&host[..]));
        request.answer([EVENT_STREAM, "data: x\n\n"].concat()).await;
    }
    let log = hop.log.to_string();
    assert!(!log.contains("secret") && !log.contains("too@"), "{log}");
}

#[tokio::test]
async fn redirects_without_end_are_given_up() {
    let (upstream, request, hop) = asked(&[]).await;
    request.redirect(302, "/other").await;
    upstream.asked().await.redirect(302, "/feed").await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert!(lost.field("reason").contains("circle"), "{}", lost.text);

    let (upstream, mut request, hop) = asked(&[]).await;
    for number in 1..=10 {
        request.redirect(302, &format!("/{number}")).await;
        request = upstream.asked().await;
    }
    request.redirect(302, "/11").await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert!(lost.field("reason").contains("10 times"), "{}", lost.text);
}

#[tokio::test]
async fn a_redirect_to_what_cannot_be_read_is_said() {
    for to in ["ftp://a/", "ws://a/", "mailto:me", "http://"] {
        let (_upstream, request, hop) = asked(&[]).await;
        request.redirect(302, to).await;
        let lost = hop.logged("cannot reach upstream, trying again").await;
        let reason = lost.field("reason");
        assert!(reason.starts_with("302"), "{reason}");
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_is_said_and_passed_over() {
    let (_upstream, mut request, hop) = asked(&["--max-message-size", "10"]).await;
    let mut reader = Ndjson::of(&hop).await;
    request.send(EVENT_STREAM).await;
    request.send("data: 1234567890\n\n").await;
    let first = reader.next().await;
    assert_eq!(typed(&first), (None, "1234567890"));
    request
        .send("data: 12345678901\n\ndata: 1\ndata: 2345678901\n\ndata: small\n\n")
        .await;
    let gap = reader.next().await["gap"].clone();
    let second = reader.next().await;
    assert_eq!(typed(&second), (None, "small"));
    let expected = json!({"after": first["id"], "next": second["id"], "lost": 2});
    assert_eq!(gap, expected);
    hop.logged("event not taken").await;
    assert_eq!(hop.count("event not taken"), 1, "of one connection");
    assert_eq!(hop.count("upstream lost"), 0);
}

#[tokio::test]
async fn lines_of_a_foreign_server_are_events() {
    let (_upstream, mut request, hop) = asked(&[]).await;
    let mut reader = Ndjson::of(&hop).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n";
    request.send(head).await;
    request.send("{\"id\": 1}\r\n\n[2").await;
    request.send("]\nunfinished").await;
    assert_eq!(typed(&reader.next().await), (None, "{\"id\": 1}"));
    assert_eq!(typed(&reader.next().await), (None, "[2]"));
}

/// What another wsevent would answer.
fn wsevent(media: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {media}\r\nwsevent-resumed: no\r\n\r\n")
}

#[tokio::test]
async fn a_gap_of_another_wsevent_is_passed_on() {
    let gap = r#"{"after":"0000000000001-5","next":"0000000000001-9","lost":3}"#;
    let block = format!("event: wsevent.gap\ndata: {gap}\n\nid: 0000000000001-9\ndata: x\n\n");
    let line = format!(
        "{{\"gap\":{gap}}}\n{{\"id\":\"0000000000001-9\",\"time\":\"2026-11-21T08:00:00.123456Z\",\"data\":\"x\"}}\n"
    );
    for (media, body) in [("text/event-stream", block), ("application/x-ndjson", line)] {
        let (upstream, mut request, hop) = asked(&[]).await;
        let mut reader = Ndjson::of(&hop).await;
        request.send(wsevent(media)).await;
        request.send(body).await;
        let expected: Value = serde_json::from_str(gap).expect("it is JSON");
        assert_eq!(reader.next().await["gap"], expected, "{media}");
        let event = reader.next().await;
        assert_eq!(event["id"], "0000000000001-9");
        if media == "application/x-ndjson" {
            assert_eq!(event["time"], "2026-11-21T08:00:00.123456Z");
        }
        request.reset();
        let request = upstream.asked().await;
        assert_eq!(request.header("last-event-id"), Some("0000000000001-9"));
    }
}

#[tokio::test]
async fn what_comes_twice_from_another_wsevent_is_there_once() {
    let (upstream, mut request, hop) = asked(&[]).await;
    let mut reader = Ndjson::of(&hop).await;
    let block = |seq| format!("id: 0000000000001-{seq}\ndata: {seq}\n\n");
    for seqs in [1..4, 2..6] {
        request.send(wsevent("text/event-stream")).await;
        request.answer(seqs.map(block).collect::<String>()).await;
        request = upstream.asked().await;
    }
    for seq in 1..6 {
        let event = reader.next().await;
        assert_eq!(event["id"], format!("0000000000001-{seq}"));
    }
}

#[tokio::test]
async fn ids_and_payloads_survive_two_hops() {
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let (mut link, origin) = Hop::fed(&[]).await;
        let header = format!("Accept: {accept}");
        let consume = async |hop: &Hop| {
            let url = format!("http://{}/events", hop.address);
            let hop = Hop::start(&["--consume", &url, "--consume-header", &header]).await;
            hop.logged("upstream connected").await;
            hop
        };
        let second = consume(&origin).await;
        let third = consume(&second).await;
        let mut subscriber = third.subscribe().await;
        let (mut first_reader, mut last_reader) =
            (Ndjson::of(&origin).await, Ndjson::of(&third).await);
        let mut sent = all_sorts();
        sent.push(Message::text("a\r\nb\rc\n"));
        link.send_all(&sent).await;
        let keeps_all = accept == "application/x-ndjson";
        if !keeps_all {
            // An event stream has LF as its only line end, and no room for the time.
            sent.pop();
            sent.push(Message::text("a\nb\nc\n"));
        }
        assert_same(&subscriber.messages(sent.len()).await, &sent);
        for _ in 0..sent.len() {
            let (first, last) = (first_reader.next().await, last_reader.next().await);
            assert_eq!(first["id"], last["id"]);
            if keeps_all {
                assert_eq!(first["time"], last["time"]);
            }
        }
    }
}

#[tokio::test]
async fn stopping_does_not_wait_for_the_stream() {
    let (_upstream, mut request, mut hop) = asked(&[]).await;
    request.send(EVENT_STREAM).await;
    hop.logged("upstream connected").await;
    hop.signal(rustix::process::Signal::TERM);
    request.left().await;
    hop.stops_well().await;
}

#[tokio::test]
async fn messages_have_no_place_on_http() {
    let args = ["--consume", "http://a/", "--consume-message", "hello"];
    let result = output(&args, &[]).await;
    assert_eq!(result.status.code(), Some(2));
    let text = String::from_utf8_lossy(&result.stderr);
    assert!(text.contains("--consume-message"), "{text}");
}

#[tokio::test]
async fn what_a_server_without_ids_sends_meanwhile_is_a_gap() {
    let (upstream, request, hop) = asked(&[]).await;
    let mut reader = Ndjson::of(&hop).await;
    request.answer([EVENT_STREAM, "data: a\n\n"].concat()).await;
    let first = reader.next().await;
    let mut request = upstream.asked().await;
    request.send([EVENT_STREAM, "data: b\n\n"].concat()).await;
    let gap = reader.next().await["gap"].clone();
    let second = reader.next().await;
    assert_eq!(typed(&second), (None, "b"));
    let expected = json!({"after": first["id"], "next": second["id"], "lost": null});
    assert_eq!(gap, expected);
}
