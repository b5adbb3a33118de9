//! Streams with foreign writers and readers: history, resuming, and what is missing.

use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{Poster, missing, next, peer, texts, told, with_past};
use crate::harness::events::{MIB, text};
use crate::harness::http::Ndjson;
use crate::harness::redis::{DURABLE, Redis};
use crate::harness::wire::Wire;
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn what_others_add_is_read_from_the_beginning_with_the_same_ids_everywhere() {
    let server = Redis::start().await;
    let url = server.stream("s");
    let mut writer = peer(&server.url(), "add", "s").await;
    for number in 0..1_500 {
        writer
            .tell(&json!({"data": number.to_string(), "more": "x"}).to_string())
            .await;
    }
    for _ in 0..1_500 {
        writer.says().await;
    }
    let hop = with_past(&url).await;
    let mut reader = Ndjson::at(&hop, "/events?history=all").await;
    let past = told(&mut reader, 1_500).await;
    let numbers: Vec<_> = (0..1_500).map(|number| number.to_string()).collect();
    assert_eq!(texts(&past), numbers);
    // A subscriber at the live edge does not get them.
    let mut live = hop.subscribe().await;
    writer.tell(r#"{"data": "now"}"#).await;
    assert_eq!(live.message().await, Message::text("now"));
    let now = next(&mut reader).await;
    let id = writer.says().await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (ms, n) = id.split_once('-').expect("two numbers");
    let number = ms.parse::<u64>().expect("a number") << 22 | n.parse::<u64>().expect("one");
    assert!(now.0.ends_with(&format!("-{number}")), "{now:?} for {id}");

    // Another hop, at any time, goes on behind an event of this one.
    let other = Hop::consuming(&url).await;
    let target = format!("/events?last_event_id={}", past[1_498].0);
    let mut resumed = Ndjson::at(&other, &target).await;
    assert_eq!(told(&mut resumed, 2).await, [past[1_499].clone(), now]);
}

#[tokio::test]
async fn a_hop_that_was_restarted_has_what_it_had() {
    let server = Redis::start().await;
    let url = server.stream("s");
    let mut hop = Hop::consuming(&url).await;
    let mut reader = Ndjson::of(&hop).await;
    server.tell(&["XADD", "s", "*", "data", "1"]).await;
    let first = next(&mut reader).await;
    hop.signal(Signal::KILL);
    hop.exit().await;
    server.tell(&["XADD", "s", "*", "data", "2"]).await;
    let hop = Hop::consuming(&url).await;
    let target = format!("/events?last_event_id={}", first.0);
    let mut reader = Ndjson::at(&hop, &target).await;
    assert_eq!(next(&mut reader).await.1, "2");
    server.tell(&["XADD", "s", "*", "data", "3"]).await;
    assert_eq!(next(&mut reader).await.1, "3");
}

#[tokio::test]
async fn fields_of_others_make_a_payload() {
    let server = Redis::start().await;
    let hop = Hop::consuming(&server.stream("s")).await;
    let named = Hop::consuming(&format!("{}&field=body", server.stream("s"))).await;
    let (mut all, mut bodies) = (hop.subscribe().await, named.subscribe().await);
    let mut named = Ndjson::of(&named).await;
    let mut writer = peer(&server.url(), "add", "s").await;
    for (fields, expected) in [
        (r#"{"body": "only"}"#, "only"),
        (r#"{"z": "1", "data": "d"}"#, "d"),
        (r#"{"z": "1", "body": "2"}"#, r#"{"z":"1","body":"2"}"#),
    ] {
        writer.tell(fields).await;
        assert_eq!(all.message().await, Message::text(expected));
    }
    for expected in ["only", "2"] {
        assert_eq!(bodies.message().await, Message::text(expected));
    }
    // The one without that field is missing.
    named.next().await;
    assert_eq!(missing(&mut named).await, Some(1));
}

#[tokio::test]
async fn what_is_forwarded_has_the_payload_in_one_field_and_what_it_is_in_another() {
    let server = Redis::start().await;
    let mut reader = peer(&server.url(), "read", "out").await;
    let url = format!("{}&maxlen=1000", server.stream("out"));
    let hop = Hop::quiet(&["--forward", &url, "--accept-publish"]).await;
    let id = Poster::of(&hop).await.text("é ✓").await;
    let entry = reader.says().await;
    assert_eq!(entry["fields"]["data"], "\u{e9} \u{2713}");
    let line = entry["fields"]["wsevent"].as_str().expect("a line");
    assert!(line.starts_with(&format!("{id} t=")), "{line}");
    // A hop that reads it knows the id.
    let lower = with_past(&server.stream("out")).await;
    let mut events = Ndjson::at(&lower, "/events?history=all").await;
    assert_eq!(next(&mut events).await, (id, "é ✓".to_owned()));

    let plain = server.stream("plain");
    let flags = [
        "--forward",
        &plain,
        "--bus-envelope",
        "never",
        "--accept-publish",
    ];
    let hop = Hop::quiet(&flags).await;
    let mut reader = peer(&server.url(), "read", "plain").await;
    Poster::of(&hop).await.text("bare").await;
    assert_eq!(reader.says().await["fields"], json!({"data": "bare"}));
}

#[tokio::test]
async fn a_stream_is_kept_short_where_that_is_wanted() {
    let server = Redis::start().await;
    let url = format!("{}&maxlen=100", server.stream("short"));
    let hop = Hop::quiet(&["--forward", &url, "--accept-publish"]).await;
    let lines: Vec<_> = (0..2_000).map(|number| number.to_string()).collect();
    Poster::of(&hop).await.lines(&lines).await;
    let mut reader = peer(&server.url(), "read", "short").await;
    while reader.says().await["fields"]["data"] != "1999" {}
    let length: usize = server.ask(&["XLEN", "short"]).await;
    assert!(length < 400, "{length} are left");
}

#[tokio::test]
async fn what_is_there_when_the_connection_comes_back_is_not_missed() {
    let server = Redis::start().await;
    let wire = Wire::to(server.address());
    let nobody = Redis::away(&[]);
    let url = format!("redis+stream://{}/0?stream=s", wire.address());
    let hop = Hop::consuming(&url).await;
    let mut reader = Ndjson::of(&hop).await;
    server.tell(&["XADD", "s", "*", "data", "1"]).await;
    assert_eq!(next(&mut reader).await.1, "1");
    wire.cut(nobody.address());
    hop.logged("upstream lost").await;
    server.tell(&["XADD", "s", "*", "data", "2"]).await;
    wire.cut(server.address());
    assert_eq!(next(&mut reader).await.1, "2");

    // What was trimmed meanwhile is counted.
    wire.cut(nobody.address());
    hop.logged_times("upstream lost", 2).await;
    for number in 3..=10 {
        server
            .tell(&[
                "XADD",
                "s",
                "MAXLEN",
                "=",
                "2",
                "*",
                "data",
                &number.to_string(),
            ])
            .await;
    }
    wire.cut(server.address());
    assert_eq!(missing(&mut reader).await, Some(6));
    assert_eq!(next(&mut reader).await.1, "9");
    assert_eq!(next(&mut reader).await.1, "10");
}

#[tokio::test]
async fn a_stream_that_was_made_anew_goes_on() {
    let server = Redis::start().await;
    let flags = ["--consume", &server.stream("s"), "--ping-interval", "100ms"];
    let hop = Hop::start(&flags).await;
    hop.logged("upstream connected").await;
    let mut reader = Ndjson::of(&hop).await;
    server.tell(&["XADD", "s", "5-1", "data", "old"]).await;
    let old = next(&mut reader).await;
    server.tell(&["DEL", "s"]).await;
    server.tell(&["XADD", "s", "3-1", "data", "new"]).await;
    assert_eq!(missing(&mut reader).await, None);
    let new = next(&mut reader).await;
    assert_eq!(new.1, "new");
    assert_ne!(new.0.split('-').next(), old.0.split('-').next());
    server.tell(&["XADD", "s", "5-1", "data", "again"]).await;
    assert_eq!(next(&mut reader).await.1, "again");
}

#[tokio::test]
async fn a_server_that_comes_back_with_all_it_had_goes_on_without_a_gap() {
    let mut server = Redis::start_with(&DURABLE).await;
    let hop = Hop::consuming(&server.stream("s")).await;
    let mut reader = Ndjson::of(&hop).await;
    for round in 0..3 {
        for number in 0..10 {
            let text = format!("{round}/{number}");
            server.tell(&["XADD", "s", "*", "data", &text]).await;
            assert_eq!(next(&mut reader).await.1, text);
        }
        server.dies().await;
        hop.logged_times("upstream lost", round + 1).await;
        server.comes().await;
    }
}

#[tokio::test]
async fn large_entries_are_read_and_written() {
    let server = Redis::start().await;
    let url = server.stream("large");
    let upper = Hop::quiet(&["--forward", &url, "--accept-publish"]).await;
    let mut poster = Poster::of(&upper).await;
    let large = text(MIB);
    for _ in 0..5 {
        poster.text(&large).await;
    }
    let lower = with_past(&url).await;
    let mut reader = Ndjson::at(&lower, "/events?history=all").await;
    for event in told(&mut reader, 5).await {
        assert!(event.1 == large);
    }
}

#[tokio::test]
async fn what_the_log_has_let_go_of_comes_from_the_server() {
    let server = Redis::start().await;
    let mut connection = server.connect().await;
    let mut all = redis::pipe();
    for number in 0..3_000 {
        all.cmd("XADD").arg("s").arg("*").arg("data").arg(number);
        all.ignore();
    }
    all.query_async::<()>(&mut connection)
        .await
        .expect("it does");
    let url = server.stream("s");
    let hop = Hop::start(&["--consume", &url, "--history-count", "100"]).await;
    hop.logged("upstream connected").await;
    let mut reader = Ndjson::at(&hop, "/events?history=all").await;
    let whole = told(&mut reader, 3_000).await;
    let numbers: Vec<_> = (0..3_000).map(|number| number.to_string()).collect();
    assert_eq!(texts(&whole), numbers);
    server.tell(&["XADD", "s", "*", "data", "live"]).await;
    assert_eq!(next(&mut reader).await.1, "live");
    for (wish, from) in [
        (format!("last_event_id={}", whole[1_234].0), 1_235),
        ("history=1000".to_owned(), 2_001),
        ("history=2900".to_owned(), 101),
    ] {
        let mut reader = Ndjson::at(&hop, &format!("/events?{wish}")).await;
        let rest = told(&mut reader, 3_001 - from).await;
        assert!(rest[..rest.len() - 1] == whole[from..], "{wish}");
        assert_eq!(rest[rest.len() - 1].1, "live");
    }
}

#[tokio::test]
async fn events_of_hops_are_found_by_their_ids_in_what_the_server_has() {
    let server = Redis::start().await;
    let url = server.stream("s");
    let flags = ["--bus", &url, "--accept-publish", "--history-count", "10"];
    let hop = Hop::start(&flags).await;
    hop.logged("downstream connected").await;
    let mut poster = Poster::of(&hop).await;
    let lines: Vec<_> = (0..2_000).map(|number| number.to_string()).collect();
    let (_, body) = poster.lines(&lines).await;
    let ids = super::ids(&body);
    let target = format!("/events?last_event_id={}", ids[700]);
    let mut reader = Ndjson::at(&hop, &target).await;
    let rest = told(&mut reader, 1_299).await;
    assert_eq!(texts(&rest), &lines[701..]);
    assert!(rest.iter().map(|(id, _)| id).eq(&ids[701..]));
}

#[tokio::test]
async fn what_was_trimmed_while_a_hop_stood_still_is_counted() {
    let server = Redis::start().await;
    let hop = Hop::consuming(&server.stream("s")).await;
    let mut reader = Ndjson::of(&hop).await;
    server.tell(&["XADD", "s", "*", "data", "0"]).await;
    assert_eq!(next(&mut reader).await.1, "0");
    hop.signal(Signal::STOP);
    let mut connection = server.connect().await;
    let mut all = redis::pipe();
    for number in 1..=100 {
        let xadd = all.cmd("XADD").arg("s").arg("MAXLEN").arg(10);
        xadd.arg("*").arg("data").arg(number).ignore();
    }
    all.query_async::<()>(&mut connection)
        .await
        .expect("it does");
    hop.signal(Signal::CONT);
    // If it was waited for already, the first one has been answered.
    let mut line = reader.next().await;
    let mut lost = 90;
    if line["data"] == "1" {
        line = reader.next().await;
        lost = 89;
    }
    assert_eq!(line["gap"]["lost"], lost, "{line}");
    for number in 91..=100 {
        assert_eq!(next(&mut reader).await.1, number.to_string());
    }
}

#[tokio::test]
async fn who_reads_what_a_hop_does_not_hold_becomes_a_subscriber_and_may_go_before() {
    let server = Redis::start().await;
    // From long ago: the hop keeps none of them.
    for number in 1..=10 {
        let id = format!("{number}-0");
        let data = number.to_string();
        let _: String = server.ask(&["XADD", "s", &id, "data", &data]).await;
    }
    let args = ["--consume", &server.stream("s"), "--history-age", "1h"];
    let hop = Hop::start(&args).await;
    hop.logged("upstream connected").await;
    // More than may read the past at once, and each goes when it has it.
    for _ in 0..20 {
        let mut reader = Ndjson::at(&hop, "/events?history=all").await;
        assert_eq!(told(&mut reader, 10).await[9].1, "10");
    }
    let mut reader = Ndjson::at(&hop, "/events?history=all").await;
    assert_eq!(told(&mut reader, 10).await[0].1, "1");
    hop.logged("subscriber connected").await;
    let _: String = server.ask(&["XADD", "s", "*", "data", "now"]).await;
    assert_eq!(next(&mut reader).await.1, "now");
}
