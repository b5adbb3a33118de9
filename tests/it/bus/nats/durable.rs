//! Streams of JetStream.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{hop, lines, post, publish, replica, text, with_stream};
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::http::Ndjson;
use crate::harness::nats::Nats;
use crate::harness::wsevent::Hop;

/// So many events that a reader gets: their data.
async fn data(reader: &mut Ndjson, count: usize) -> Vec<String> {
    let mut data = Vec::with_capacity(count);
    for _ in 0..count {
        data.push(text(&reader.next().await, "data").to_owned());
    }
    data
}

/// The same: their ids.
async fn ids(reader: &mut Ndjson, count: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(text(&reader.next().await, "id").to_owned());
    }
    ids
}

#[tokio::test]
async fn what_others_have_stored_is_history_with_the_same_ids_at_all_hops() {
    let nats = Nats::jetstream().await;
    let mut foreign = nats.client().await;
    foreign.add_stream("EVENTS", &["events.>"]).await;
    let store = |subject: &str, payloads: &[&str]| json!({"do": "store", "subject": subject, "payloads": payloads});
    foreign.ask(store("events.a", &["one", "é ✓"])).await;
    foreign.ask(store("events.b.c", &["three"])).await;
    let bus = nats.stream("EVENTS");
    let first = hop(&["--consume", &bus]).await;
    let second = hop(&["--consume", &bus]).await;
    let mut readers = Vec::new();
    for hop in [&first, &second] {
        readers.push(Ndjson::at(hop, "/events?history=all").await);
    }
    foreign.ask(store("events.a", &["four"])).await;
    let mut events = Vec::new();
    for reader in &mut readers {
        let mut got: Vec<Value> = Vec::new();
        for _ in 0..4 {
            got.push(reader.next().await);
        }
        events.push(got);
    }
    assert_eq!(events[0], events[1]);
    let data: Vec<_> = events[0].iter().map(|event| text(event, "data")).collect();
    assert_eq!(data, ["one", "é ✓", "three", "four"]);
    for (event, seq) in events[0].iter().zip(1..) {
        let id = text(event, "id");
        assert!(id.ends_with(&format!("-{seq}")), "{id}");
        // The marks of a store (docs/protocol.md).
        assert!("89ABCDEF".contains(&id[..1]), "{id}");
    }
}

#[tokio::test]
async fn one_subject_of_a_stream_can_be_read() {
    let nats = Nats::jetstream().await;
    let mut foreign = nats.client().await;
    foreign.add_stream("EVENTS", &["events.*"]).await;
    for number in 0..20 {
        let subject = if number % 5 == 0 {
            "events.a"
        } else {
            "events.b"
        };
        let payloads = [number.to_string()];
        let command = json!({"do": "store", "subject": subject, "payloads": payloads});
        foreign.ask(command).await;
    }
    let bus = format!("{}?subject=events.a", nats.stream("EVENTS"));
    let hop = hop(&["--consume", &bus]).await;
    let mut reader = Ndjson::at(&hop, "/events?history=all").await;
    assert_eq!(data(&mut reader, 4).await, ["0", "5", "10", "15"]);
    let command = json!({"do": "store", "subject": "events.b", "payloads": ["not this"]});
    foreign.ask(command).await;
    let command = json!({"do": "store", "subject": "events.a", "payloads": ["this"]});
    foreign.ask(command).await;
    let event = reader.next().await;
    assert_eq!(text(&event, "data"), "this");
    assert!(text(&event, "id").ends_with("-22"), "{event}");
}

#[tokio::test]
async fn a_history_with_limits_begins_near_the_end() {
    let nats = with_stream().await;
    let mut foreign = nats.client().await;
    let payloads: Vec<_> = (0..5_000).map(|number| number.to_string()).collect();
    let command = json!({"do": "publish", "subject": "events", "payloads": payloads});
    foreign.ask(command).await;
    let bus = nats.stream("EVENTS");
    let hop = hop(&["--consume", &bus, "--history-count", "10"]).await;
    let mut reader = Ndjson::at(&hop, "/events?history=10").await;
    assert_eq!(data(&mut reader, 10).await, payloads[4_990..]);
}

#[tokio::test]
async fn what_is_forwarded_keeps_its_id_and_what_is_published_gets_the_streams() {
    let nats = with_stream().await;
    let bus = nats.stream("EVENTS");
    let forwarding = hop(&["--accept-publish", "--forward", &bus]).await;
    let mut client = Client::connect(forwarding.address).await;
    let forwarded = publish(&mut client, &lines("forwarded", 0..2)).await;
    let replica = replica(&bus).await;
    let mut reader = Ndjson::at(&replica, "/events?history=all").await;
    assert_eq!(ids(&mut reader, 2).await, forwarded);
    let mut client = Client::connect(replica.address).await;
    let published = publish(&mut client, &lines("published", 0..2)).await;
    assert_eq!(ids(&mut reader, 2).await, published);
    assert!(published[0].ends_with("-3"), "{published:?}");
    let command = json!({"do": "read_stream", "name": "EVENTS"});
    let stored = nats.client().await.ask(command).await;
    let stored = stored["messages"].as_array().expect("a list");
    let payloads: Vec<_> = stored.iter().map(|it| text(it, "payload")).collect();
    let expected = ["forwarded 0", "forwarded 1", "published 0", "published 1"];
    assert_eq!(payloads, expected);
    let line = |at: usize| text(&stored[at]["headers"], "Wsevent").to_owned();
    assert!(line(0).starts_with(&format!("{} t=", forwarded[0])));
    assert!(line(2).starts_with("- t="), "{}", line(2));
}

#[tokio::test]
async fn history_and_resume_reach_back_over_a_restart_and_at_other_hops() {
    let nats = with_stream().await;
    let bus = nats.stream("EVENTS");
    let first = replica(&bus).await;
    let mut client = Client::connect(first.address).await;
    let published = publish(&mut client, &lines("event", 0..100)).await;
    drop(first);
    let restarted = replica(&bus).await;
    let mut reader = Ndjson::at(&restarted, "/events?history=all").await;
    assert_eq!(ids(&mut reader, 100).await, published);
    let other = replica(&bus).await;
    for hop in [&restarted, &other] {
        let headers = [
            ("Accept", "application/x-ndjson"),
            ("Last-Event-ID", &published[89]),
        ];
        let mut reader = Stream::open(hop.address, "/events", &headers).await;
        assert_eq!(reader.head.header("wsevent-resumed"), "yes");
        for expected in &published[90..] {
            assert_eq!(text(&reader.object().await, "id"), expected);
        }
    }
}

#[tokio::test]
async fn a_killed_server_loses_nothing_that_was_confirmed_and_doubles_nothing() {
    let mut nats = with_stream().await;
    let bus = nats.stream("EVENTS");
    let first = replica(&bus).await;
    let second = replica(&bus).await;
    let mut readers = [Ndjson::of(&first).await, Ndjson::of(&second).await];
    let (told, mut confirmed) = tokio::sync::mpsc::unbounded_channel();
    let publishers: Vec<_> = [first.address, second.address]
        .into_iter()
        .enumerate()
        .map(|(hop, address)| {
            let told = told.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for batch in 0..150 {
                    let lines = lines(&format!("{hop}"), batch * 10..batch * 10 + 10);
                    // What is not taken is tried again: it may be there twice only if it was not said to be taken.
                    let (head, body) = post(&mut client, &lines).await;
                    match head.status {
                        202 => {
                            let answer: Value = serde_json::from_str(&body).expect("JSON");
                            for id in answer["ids"].as_array().expect("a list") {
                                let id = id.as_str().expect("text").to_owned();
                                told.send(Some(id)).expect("somebody listens");
                            }
                        }
                        503 => {
                            told.send(None).expect("somebody listens");
                            tokio::task::yield_now().await;
                        }
                        status => panic!("{status}: {body}"),
                    }
                }
            })
        })
        .collect();
    drop(told);
    let mut ids = Vec::new();
    while ids.len() < 500 {
        ids.extend(confirmed.recv().await.expect("they go on"));
    }
    nats.kill().await;
    first.logged("upstream lost").await;
    nats.restart().await;
    first.logged_times("upstream connected", 2).await;
    second.logged_times("upstream connected", 2).await;
    for publisher in publishers {
        publisher.await.expect("it has published");
    }
    while let Some(id) = confirmed.recv().await {
        ids.extend(id);
    }
    // One more at the end says when all has come.
    first.logged_times("downstream connected", 2).await;
    let mut client = Client::connect(first.address).await;
    let last = publish(&mut client, &lines("last", 0..1)).await.remove(0);
    let mut all = Vec::new();
    for reader in &mut readers {
        let mut got = Vec::new();
        loop {
            let event = reader.next().await;
            assert!(event["gap"].is_null(), "{event}");
            got.push((
                text(&event, "id").to_owned(),
                text(&event, "data").to_owned(),
            ));
            if event["id"] == last {
                break;
            }
        }
        all.push(got);
    }
    assert_eq!(all[0], all[1]);
    let got: std::collections::HashSet<_> = all[0].iter().map(|(id, _)| id).collect();
    assert_eq!(got.len(), all[0].len(), "each id is there once");
    let missing: Vec<_> = ids.iter().filter(|id| !got.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let data: std::collections::HashSet<_> = all[0].iter().map(|(_, data)| data).collect();
    assert_eq!(data.len(), all[0].len(), "each event is there once");
}

#[tokio::test]
async fn what_a_stream_has_let_go_of_meanwhile_is_told() {
    let mut nats = Nats::jetstream().await;
    let mut foreign = nats.client().await;
    let config = json!({"name": "EVENTS", "subjects": ["events"], "max_msgs": 5});
    foreign
        .ask(json!({"do": "add_stream", "config": config}))
        .await;
    let replica = replica(&nats.stream("EVENTS")).await;
    let mut client = Client::connect(replica.address).await;
    let mut reader = Ndjson::of(&replica).await;
    let published = publish(&mut client, &lines("event", 0..3)).await;
    assert_eq!(ids(&mut reader, 3).await, published);
    nats.kill().await;
    replica.logged("upstream lost").await;
    // Ten come while the hop cannot look, of which five are kept.
    replica.signal(Signal::STOP);
    nats.restart().await;
    let command = json!({"do": "store", "subject": "events", "payloads": lines("later", 0..10)});
    nats.client().await.ask(command).await;
    replica.signal(Signal::CONT);
    let gap = reader.next().await;
    assert_eq!(gap["gap"]["after"], published[2]);
    assert_eq!(gap["gap"]["lost"], 5);
    assert_eq!(data(&mut reader, 5).await, lines("later", 5..10));
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_another_one() {
    let nats = with_stream().await;
    let bus = nats.stream("EVENTS");
    let replica = replica(&bus).await;
    let mut client = Client::connect(replica.address).await;
    let mut reader = Ndjson::of(&replica).await;
    let before = publish(&mut client, &lines("before", 0..3)).await;
    assert_eq!(ids(&mut reader, 3).await, before);
    let mut foreign = nats.client().await;
    foreign
        .ask(json!({"do": "delete_stream", "name": "EVENTS"}))
        .await;
    foreign.add_stream("EVENTS", &["events"]).await;
    let command = json!({"do": "store", "subject": "events", "payloads": ["first of the new"]});
    foreign.ask(command).await;
    replica
        .logged("the stream has been made anew: reading from its beginning")
        .await;
    assert!(reader.next().await["gap"].is_object());
    let event = reader.next().await;
    assert_eq!(text(&event, "data"), "first of the new");
    let (old, new) = (&before[0][..13], &text(&event, "id")[..13]);
    assert_ne!(old, new);
    // And what is published there is told its new id.
    let after = publish(&mut client, &lines("after", 0..1)).await;
    assert_eq!(ids(&mut reader, 1).await, after);
}

#[tokio::test]
async fn what_cannot_work_is_one_clear_line() {
    let nats = Nats::jetstream().await;
    let mut foreign = nats.client().await;
    foreign.add_stream("MANY", &["a.*", "b"]).await;
    let plain = Nats::start(&[]).await;
    for (flag, bus, says) in [
        (
            "--consume",
            nats.stream("NONE"),
            "there is no stream 'NONE'",
        ),
        (
            "--forward",
            nats.stream("NONE"),
            "there is no stream 'NONE'",
        ),
        (
            "--consume",
            plain.stream("NONE"),
            "has to be started with -js",
        ),
        ("--forward", nats.stream("MANY"), "say which with ?subject="),
        (
            "--forward",
            nats.stream("MANY?subject=c"),
            "'c' is no subject of the stream 'MANY', which has: a.*, b",
        ),
        (
            "--consume",
            nats.stream("MANY?subject=c"),
            "is no subject of the stream 'MANY'",
        ),
    ] {
        let hop = Hop::start(&[flag, &bus]).await;
        let role = if flag == "--consume" {
            "upstream"
        } else {
            "downstream"
        };
        let message = format!("cannot reach {role}, trying again");
        let line = hop.logged(&message).await;
        let reason = line.field("reason");
        assert!(reason.contains(says), "{flag} {bus}: {reason}");
        assert!(!reason.contains('\n'));
    }
}

#[tokio::test]
async fn a_stream_that_comes_later_is_found() {
    let nats = Nats::jetstream().await;
    let bus = nats.stream("LATER");
    let hop = Hop::start(&["--bus", &bus, "--accept-publish"]).await;
    hop.logged("cannot reach downstream, trying again").await;
    let mut client = Client::connect(hop.address).await;
    let (head, body) = post(&mut client, &lines("early", 0..1)).await;
    assert_eq!(head.status, 503, "{body}");
    let mut foreign = nats.client().await;
    foreign.add_stream("LATER", &["later"]).await;
    hop.logged("downstream connected").await;
    hop.logged("upstream connected").await;
    let mut reader = Ndjson::of(&hop).await;
    let published = publish(&mut client, &lines("event", 0..1)).await;
    assert_eq!(ids(&mut reader, 1).await, published);
}

#[tokio::test]
async fn what_a_full_stream_has_no_room_for_is_not_sent_again_behind_what_it_took() {
    let nats = Nats::jetstream().await;
    let mut foreign = nats.client().await;
    let config =
        json!({"name": "EVENTS", "subjects": ["events"], "max_bytes": 4_096, "discard": "new"});
    foreign
        .ask(json!({"do": "add_stream", "config": config}))
        .await;
    let replica = replica(&nats.stream("EVENTS")).await;
    let mut reader = Ndjson::of(&replica).await;
    let mut client = Client::connect(replica.address).await;
    let large = "x".repeat(8_192);
    let batch = ["small", &large, "small too"].map(str::to_owned);
    let (head, body) = post(&mut client, &batch).await;
    assert_ne!(head.status, 202, "{body}");
    assert!(body.contains("maximum bytes exceeded"), "{body}");
    assert_eq!(data(&mut reader, 2).await, ["small", "small too"]);
    // It was the event, not the bus: there was nothing to connect anew for.
    let published = publish(&mut client, &lines("later", 0..1)).await;
    assert_eq!(ids(&mut reader, 1).await, published);
    assert!(published[0].ends_with("-3"), "{published:?}");
    assert_eq!(replica.count("downstream lost"), 0);
}
