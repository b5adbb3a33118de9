//! More of a stream than a hop's memory holds.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{hop, lines, publish, text, with_stream};
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::nats::Nats;
use crate::harness::wsevent::Hop;
use crate::links::Down;

const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

/// So many events are stored before.
const KEPT: usize = 3_000;

/// A server with many events, and a replica that holds a few of them.
async fn much(more: &[&str]) -> (Nats, Hop, Client) {
    let nats = with_stream().await;
    let mut foreign = nats.client().await;
    let payloads = lines("kept", 0..KEPT);
    let command = json!({"do": "publish", "subject": "events", "payloads": payloads});
    foreign.ask(command).await;
    let bus = nats.stream("EVENTS");
    let args = ["--bus", &bus, "--accept-publish", "--history-count", "50"];
    let hop = hop(&[&args, more].concat()).await;
    let client = Client::connect(hop.address).await;
    (nats, hop, client)
}

/// Number and data of an event, whose id is its last.
fn outline(event: &Value) -> (u64, String) {
    assert!(event["gap"].is_null(), "{event}");
    let (_, seq) = text(event, "id").split_once('-').expect("an id");
    let seq = seq.parse().expect("a number");
    (seq, text(event, "data").to_owned())
}

/// The events up to the one with this id, in order and without a gap.
async fn until(stream: &mut Stream, last: &str) -> Vec<(u64, String)> {
    let mut got = Vec::new();
    loop {
        let event = stream.object().await;
        got.push(outline(&event));
        if event["id"] == last {
            return got;
        }
    }
}

/// What was stored before from this number on, and what came then.
fn expected(from: usize, later: &[Vec<String>]) -> Vec<(u64, String)> {
    let all = lines("kept", 0..KEPT).into_iter().chain(later.concat());
    (1..).zip(all).skip(from).collect()
}

#[tokio::test]
async fn all_that_is_kept_comes_and_then_what_is_new() {
    let (_nats, hop, mut client) = much(&[]).await;
    let mut streams = Vec::new();
    for target in ["/events?history=all", "/events?history=1000"] {
        streams.push(Stream::open(hop.address, target, &[NDJSON]).await);
        streams.push(Stream::open_second(hop.address, target, &[NDJSON]).await);
    }
    for stream in &streams {
        assert_eq!(stream.head.header("wsevent-resumed"), "yes");
    }
    let more = lines("new", 0..20);
    let ids = publish(&mut client, &more).await;
    for (stream, from) in streams.iter_mut().zip([0, 0, KEPT - 1_000, KEPT - 1_000]) {
        let got = until(stream, &ids[19]).await;
        assert!(
            got == expected(from, std::slice::from_ref(&more)),
            "from {from}"
        );
    }
    // Who is at the end of it is a subscriber like any other.
    let last = publish(&mut client, &lines("last", 0..1)).await;
    for stream in &mut streams {
        assert_eq!(text(&stream.object().await, "id"), last[0]);
    }
    hop.logged_times("subscriber connected", 4).await;
}

#[tokio::test]
async fn an_id_that_memory_has_forgotten_is_resumed_at_in_each_format() {
    let (_nats, hop, mut client) = much(&[]).await;
    let newest = publish(&mut client, &lines("newest", 0..1)).await.remove(0);
    let origin = newest.split('-').next().expect("an id");
    let after = format!("{origin}-{}", KEPT - 500);
    let headers = [NDJSON, ("Last-Event-ID", &*after)];
    let mut ndjson = Stream::open(hop.address, "/events", &headers).await;
    assert_eq!(ndjson.head.header("wsevent-resumed"), "yes");
    let later = [lines("newest", 0..1)];
    assert!(until(&mut ndjson, &newest).await == expected(KEPT - 500, &later));
    let mut sse = Stream::open(hop.address, "/events", &[("Last-Event-ID", &after)]).await;
    for (seq, data) in expected(KEPT - 500, &later) {
        let event = sse.event().await;
        assert_eq!(event.id(), format!("{origin}-{seq}"));
        assert_eq!(event.data, data);
    }
    let target = format!("/events?last_event_id={after}");
    let mut websocket = Client::connect(hop.address).await.upgraded(&target).await;
    for (_, data) in expected(KEPT - 500, &later) {
        assert_eq!(websocket.message().await, Message::text(data));
    }
}

#[tokio::test]
async fn what_the_stream_has_let_go_of_is_told() {
    let (nats, hop, mut client) = much(&[]).await;
    let newest = publish(&mut client, &lines("newest", 0..1)).await.remove(0);
    let origin = newest.split('-').next().expect("an id");
    let command = json!({"do": "purge_stream", "name": "EVENTS", "keep": 1_000});
    nats.client().await.ask(command).await;
    let after = format!("{origin}-10");
    let headers = [NDJSON, ("Last-Event-ID", &*after)];
    let mut stream = Stream::open(hop.address, "/events", &headers).await;
    assert_eq!(stream.head.header("wsevent-resumed"), "partial");
    let gap = stream.object().await;
    assert_eq!(gap["gap"]["after"], after);
    assert_eq!(gap["gap"]["lost"], KEPT + 1 - 1_000 - 10);
    let later = [lines("newest", 0..1)];
    assert!(until(&mut stream, &newest).await == expected(KEPT + 1 - 1_000, &later));
}

/// While events come at full speed, some subscribers dig out what there was before; history hardly ever holds what they are at. Whom it has
/// passed is cut off, and comes again with the last id.
#[tokio::test]
async fn who_digs_while_events_come_misses_nothing() {
    let (_nats, hop, mut client) = much(&[]).await;
    let address = hop.address;
    let (told, last) = tokio::sync::watch::channel(String::new());
    let publishing = tokio::spawn(async move {
        let mut sent = Vec::new();
        let mut last = String::new();
        for batch in 0..100 {
            let lines = lines("more", batch * 30..batch * 30 + 30);
            last = publish(&mut client, &lines).await.pop().expect("an id");
            sent.push(lines);
        }
        // One more, so that who has all of these is sure to get something.
        told.send_replace(last);
        let end = lines("end", 0..1);
        publish(&mut client, &end).await;
        sent.push(end);
        sent
    });
    let digging = (0..8).map(|_| {
        let last = last.clone();
        tokio::spawn(async move {
            let mut got = Vec::new();
            let mut stream = Stream::open(address, "/events?history=all", &[NDJSON]).await;
            let mut at = String::new();
            loop {
                let Some(event) = stream.try_object().await else {
                    let headers = [NDJSON, ("Last-Event-ID", &*at)];
                    stream = Stream::open(address, "/events", &headers).await;
                    assert_eq!(stream.head.header("wsevent-resumed"), "yes");
                    continue;
                };
                got.push(outline(&event));
                let is_end = *last.borrow() == at && !at.is_empty();
                at = text(&event, "id").to_owned();
                if is_end {
                    return got;
                }
            }
        })
    });
    let digging: Vec<_> = digging.collect();
    let sent = publishing.await.expect("it has published");
    for digging in digging {
        assert!(digging.await.expect("it has read") == expected(0, &sent));
    }
}

/// A link to another hop goes on where it was, even if memory does not reach back to that.
#[tokio::test]
async fn a_link_goes_on_beyond_memory() {
    let (_nats, hop, mut client) = much(&[]).await;
    let newest = publish(&mut client, &lines("newest", 0..1)).await.remove(0);
    let origin = newest.split('-').next().expect("an id");
    let hello = format!("!hello have={origin}-{}", KEPT - 500);
    let mut link = Down::connect(hop.address, &hello).await;
    assert_eq!(
        link.line().await.split(" path=").next(),
        Some("!welcome backlog=501 resumed=yes")
    );
    for (seq, data) in expected(KEPT - 500, &[lines("newest", 0..1)]) {
        assert_eq!(link.event().await, (seq, data));
    }
}

#[tokio::test]
async fn without_the_bus_there_is_what_memory_holds() {
    let (mut nats, hop, _client) = much(&[]).await;
    nats.kill().await;
    hop.logged("upstream lost").await;
    let mut stream = Stream::open(hop.address, "/events?history=all", &[NDJSON]).await;
    assert_eq!(stream.head.header("wsevent-resumed"), "partial");
    let first: Value = stream.object().await;
    assert_eq!(text(&first, "data"), format!("kept {}", KEPT - 50));
}
