//! Kept state: a snapshot before the live edge, over each transport and over hops; and conflation for slow readers.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::body::Stream;
use crate::harness::client::{Client, handshake, request};
use crate::harness::events::text;
use crate::harness::frame::{CLOSE, TEXT};
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::upstream::Link;
use crate::harness::wsevent::{Hop, Tail, output};
use crate::links::Down;

const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");
const SSE: (&str, &str) = ("Accept", "text/event-stream");
const KEPT: &[&str] = &["--accept-publish", "--retain", "key"];

/// Publishes one event with a key.
async fn publish(hop: &Hop, key: &str, data: &str) {
    let length = data.len().to_string();
    let headers = [("Host", "localhost"), ("Content-Length", &length)];
    let head = request(&format!("POST /events?key={key} HTTP/1.1"), &headers);
    let mut client = Client::connect(hop.address).await;
    client.send([head, data.to_owned()].concat()).await;
    let head = client.head().await;
    assert_eq!(head.status, 202, "{head:?}");
}

/// A hop that keeps `a` and `c`, and of whose history only the last event is left.
async fn with_state(args: &[&str]) -> Hop {
    let hop = Hop::start(&[KEPT, &["--history-count", "1"], args].concat()).await;
    for (key, data) in [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("b", ""),
        ("a", "4"),
        ("d", "5"),
        ("d", ""),
    ] {
        publish(&hop, key, data).await;
    }
    hop
}

#[tokio::test]
async fn an_event_stream_begins_with_the_state() {
    let hop = with_state(&[]).await;
    let (c, a) = ("data: 3\n\n", "data: 4\n\n");
    let end = format!(
        "event: wsevent.snapshot\ndata: {{\"state\":\"end\",\"after\":\"{}\"}}\n\n",
        hop.id(7).await
    );
    let position = format!("id: {}\n\n", hop.id(7).await);
    let begin = "event: wsevent.snapshot\ndata: {\"state\":\"begin\",\"count\":2}\n\n";
    let mut stream = Stream::open(hop.address, "/events", &[SSE]).await;
    assert_eq!(stream.head.header("wsevent-snapshot"), "2");
    // Nothing before the end says where the reader stands: cut off, it begins anew.
    assert_eq!(stream.opening().await.as_deref(), Some("\n"));
    for block in [begin, c, a, &end, &position] {
        assert_eq!(stream.block().await.as_deref(), Some(block));
    }
    let mut without = Stream::open(hop.address, "/events?snapshot=no", &[SSE]).await;
    assert_eq!(without.head.header("wsevent-snapshot"), "");
    let opening = without.block().await.expect("a block");
    assert!(opening.contains("id: "), "{opening}");
    publish(&hop, "a", "then").await;
    assert_eq!(stream.event().await.data, "then");
    assert_eq!(without.event().await.data, "then");
    publish(&hop, "a", "4").await;
    let mut client = Client::connect(hop.address).await;
    let (head, _) = client.get("/events?snapshot=x", &[SSE]).await;
    assert_eq!(head.status, 400);
    // The same once more, on a connection that has been used.
    let mut stream = Stream::open_second(hop.address, "/events", &[SSE]).await;
    let (mut blocks, position) = (vec![], format!("id: {}\n\n", hop.id(9).await));
    while blocks.last() != Some(&position) {
        blocks.push(stream.block().await.expect("a block"));
    }
    assert_eq!(blocks.len(), 6, "{blocks:?}");
    assert_eq!(blocks[2..4], ["data: 3\n\n", "data: 4\n\n"]);
    assert!(blocks[..5].iter().all(|block| !block.contains("id: ")));
}

#[tokio::test]
async fn lines_and_messages_begin_with_the_state() {
    let hop = with_state(&[]).await;
    let mut stream = Stream::open(hop.address, "/events", &[NDJSON]).await;
    assert_eq!(
        stream.object().await,
        json!({"snapshot": {"state": "begin", "count": 2}})
    );
    for (seq, key, data) in [(3, "c", "3"), (5, "a", "4")] {
        let event = stream.object().await;
        assert_eq!(event["id"], hop.id(seq).await);
        assert_eq!((&event["key"], &event["data"]), (&json!(key), &json!(data)));
        assert_eq!(event["snapshot"], true);
    }
    let end = json!({"snapshot": {"state": "end", "after": hop.id(7).await}});
    assert_eq!(stream.object().await, end);
    let mut socket = Client::connect(hop.address).await;
    socket.send(handshake("/events")).await;
    let head = socket.head().await;
    assert_eq!(head.header("wsevent-snapshot"), "2");
    let expected = [Message::text("3"), Message::text("4")];
    assert_eq!(socket.messages(2).await, expected);
    publish(&hop, "c", "").await;
    assert_eq!(socket.message().await, Message::text(""));
    let deleted = stream.object().await;
    assert_eq!(
        (&deleted["key"], &deleted["data"]),
        (&json!("c"), &json!(""))
    );
    assert_eq!(deleted.get("snapshot"), None);
    // What is deleted is no state any more, and the past begins behind it.
    let mut stream = Stream::open(hop.address, "/events?history=1", &[NDJSON]).await;
    assert_eq!(stream.object().await["snapshot"]["count"], 1);
    assert_eq!(stream.object().await["data"], "4");
    assert_eq!(stream.object().await["snapshot"]["state"], "end");
    assert_eq!(stream.object().await["id"], hop.id(8).await);
}

#[tokio::test]
async fn who_goes_on_gets_the_state_again_only_if_something_is_missing() {
    let hop = with_state(&[]).await;
    let last = hop.id(6).await;
    let headers = [SSE, ("Last-Event-ID", &last)];
    let mut stream = Stream::open(hop.address, "/events", &headers).await;
    assert_eq!(stream.head.header("wsevent-resumed"), "yes");
    assert_eq!(stream.head.header("wsevent-snapshot"), "");
    assert_eq!(stream.event().await.id(), hop.id(7).await);
    // As a browser that was cut off within the snapshot that it got for this says it again.
    for _ in 0..2 {
        let gone = hop.id(2).await;
        let headers = [SSE, ("Last-Event-ID", &gone)];
        let mut stream = Stream::open(hop.address, "/events", &headers).await;
        assert_eq!(stream.head.header("wsevent-resumed"), "partial");
        let opening = stream.block().await.expect("a block");
        assert!(opening.contains(&format!("id: {gone}\n")), "{opening}");
        assert_eq!(stream.event().await.gap()["lost"], 4);
        let begin = stream.event().await;
        assert_eq!(begin.event.as_deref(), Some("wsevent.snapshot"));
        for data in ["3", "4"] {
            let event = stream.event().await;
            assert_eq!((event.id, &*event.data), (None, data));
        }
        assert!(stream.event().await.data.contains("end"));
        assert_eq!(stream.event().await.id(), hop.id(7).await);
    }
}

/// An event of a foreign feed: of one of many keys, and numbered.
fn quote(number: usize, keys: usize, len: usize) -> String {
    let key = number * 7 % keys;
    format!(
        "{{\"number\":{number},\"symbol\":\"k{key}\",\"x\":\"{}\"}}",
        text(len)
    )
}

/// What a reader knows of a feed.
#[derive(Default)]
struct Known {
    state: BTreeMap<String, u64>,
    events: u64,
}

impl Known {
    /// Whether it was not the last one.
    fn take(&mut self, data: &str) -> bool {
        let event: Value = serde_json::from_str(data).expect("it is whole");
        let Some(key) = event["symbol"].as_str() else {
            return false;
        };
        let number = event["number"].as_u64().expect("a number");
        let before = self.state.insert(key.to_owned(), number);
        assert!(
            before.is_none_or(|before| before < number),
            "{key} goes back to {number}"
        );
        self.events += 1;
        true
    }

    /// What there is to be known of the first `count` events.
    fn all(count: usize, keys: usize) -> BTreeMap<String, u64> {
        let numbers = (0..count).map(|number| (format!("k{}", number * 7 % keys), number as u64));
        numbers.collect()
    }
}

/// Joins by one of all ways there are, and reads to the last event.
async fn joiner(hop_address: std::net::SocketAddr, way: usize) -> Known {
    let mut known = Known::default();
    match way % 5 {
        way @ 0..3 => {
            let mut stream = match way {
                0 => Stream::open(hop_address, "/events", &[SSE]).await,
                1 => Stream::open_second(hop_address, "/events", &[SSE]).await,
                _ => Stream::open(hop_address, "/events", &[NDJSON]).await,
            };
            loop {
                let data = match way {
                    2 => {
                        let object = stream.object().await;
                        assert_eq!(object.get("gap"), None);
                        object["data"].as_str().map(str::to_owned)
                    }
                    _ => {
                        let event = stream.event().await;
                        event.event.is_none().then_some(event.data)
                    }
                };
                if data.is_some_and(|data| !known.take(&data)) {
                    return known;
                }
            }
        }
        3 => {
            let mut socket = Client::connect(hop_address).await.upgraded("/events").await;
            while let Message::Text(data) = socket.message().await
                && known.take(&data)
            {}
        }
        _ => {
            let mut down = Down::connect(hop_address, "!hello from=live state=yes").await;
            loop {
                let line = down.line().await;
                if let Some((_, data)) = line.split_once('\n')
                    && !known.take(data)
                {
                    break;
                }
            }
        }
    }
    known
}

#[tokio::test]
async fn a_hundred_joiners_under_load_end_with_the_same_state() {
    const KEYS: usize = 400;
    const BATCH: usize = 50;
    const ROUNDS: usize = 100;
    let (mut link, hop) = Hop::fed(&["--retain", "/symbol"]).await;
    let mut seen = hop.subscribe().await;
    let mut joiners = vec![];
    for round in 0..ROUNDS {
        let first = round * BATCH;
        let batch = (first..first + BATCH).map(|number| Message::text(quote(number, KEYS, 20)));
        link.send_all(&batch.collect::<Vec<_>>()).await;
        joiners.push(tokio::spawn(joiner(hop.address, round)));
        seen.messages(BATCH).await;
    }
    // However late they are, there is an end for them.
    hop.logged_times("subscriber connected", ROUNDS + 1).await;
    link.send(Message::text("{\"end\":true}")).await;
    let expected = Known::all(ROUNDS * BATCH, KEYS);
    for (way, joiner) in joiners.into_iter().enumerate() {
        let known = joiner.await.expect("it does not panic");
        assert!(known.state == expected, "way {} differs", way % 5);
    }
}

const CONFLATE: &[&str] = &[
    "--retain",
    "/symbol",
    "--overload",
    "conflate",
    "--history",
    "256KiB",
];

/// Sends more than the kernel keeps for a reader that does not read, and then the last event. How many there are before.
async fn flood(link: &mut Link, hop: &Hop, keys: usize) -> usize {
    const BATCH: usize = 30;
    let mut fast = hop.subscribe().await;
    let (mut sent, mut count) = (0, 0);
    while sent < more_than_kernel_buffers() + (1 << 20) {
        let batch = (count..count + BATCH).map(|number| quote(number, keys, 2_000));
        let batch: Vec<_> = batch.map(Message::text).collect();
        count += BATCH;
        sent += BATCH * 2_000;
        link.send_all(&batch).await;
        fast.messages(BATCH).await;
    }
    link.send(Message::text("{\"end\":true}")).await;
    fast.message().await;
    count
}

#[tokio::test]
async fn a_slow_websocket_gets_the_newest_of_each_key() {
    const KEYS: usize = 200;
    let (mut link, hop) = Hop::fed(CONFLATE).await;
    let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = slow.upgraded("/events").await;
    let count = flood(&mut link, &hop, KEYS).await;
    let mut known = Known::default();
    loop {
        let frame = slow.frame().await.expect("it goes on");
        assert_ne!(frame.opcode, CLOSE);
        if frame.opcode == TEXT {
            let data = String::from_utf8(frame.payload).expect("text is UTF-8");
            if !known.take(&data) {
                break;
            }
        }
    }
    assert!(known.state == Known::all(count, KEYS));
    assert!(known.events < count as u64, "nothing was merged");
    let address = slow.address().to_string();
    drop(slow);
    let line = hop
        .logged_where("subscriber disconnected", |line| {
            line.field("address") == address
        })
        .await;
    assert_eq!(line.number("events"), known.events + 1, "{}", line.text);
    assert_eq!(
        line.number("merged"),
        count as u64 - known.events,
        "{}",
        line.text
    );
}

async fn is_told_what_was_merged(accept: (&str, &str), is_first: bool) {
    const KEYS: usize = 200;
    let (mut link, hop) = Hop::fed(CONFLATE).await;
    let client = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let client = if is_first {
        client
    } else {
        client.used().await
    };
    let mut stream = Stream::on(client, "/events", &[accept]).await;
    let count = flood(&mut link, &hop, KEYS).await;
    let (mut known, mut merged) = (Known::default(), 0);
    loop {
        let (data, notice) = if accept == SSE {
            let event = stream.event().await;
            match event.event.as_deref() {
                None => (Some(event.data), None),
                Some("wsevent.merged") => {
                    assert_eq!(event.id, None);
                    (None, serde_json::from_str(&event.data).ok())
                }
                Some(other) => {
                    assert_eq!(other, "wsevent.snapshot");
                    (None, None)
                }
            }
        } else {
            let object = stream.object().await;
            assert_eq!(object.get("gap"), None);
            let data = object["data"].as_str().map(str::to_owned);
            (data, object.get("merged").cloned())
        };
        merged += notice.map_or(0, |notice: Value| {
            notice["merged"].as_u64().expect("a number")
        });
        if data.is_some_and(|data| !known.take(&data)) {
            break;
        }
    }
    assert!(known.state == Known::all(count, KEYS));
    // The notice of the last walk stands behind the last event.
    if merged + known.events < count as u64 {
        link.send(Message::text("{}")).await;
        let behind = match accept == SSE {
            true => stream.event().await.data,
            false => stream.object().await["merged"].to_string(),
        };
        let notice: Value = serde_json::from_str(&behind).expect("JSON");
        merged += notice["merged"].as_u64().expect("a number");
    }
    assert!(merged > 0, "nothing was merged");
    assert_eq!(merged + known.events, count as u64);
}

#[tokio::test]
async fn a_slow_reader_is_told_how_many_were_merged() {
    is_told_what_was_merged(SSE, true).await;
    is_told_what_was_merged(NDJSON, true).await;
}

#[tokio::test]
async fn so_is_one_on_a_used_connection() {
    is_told_what_was_merged(SSE, false).await;
    is_told_what_was_merged(NDJSON, false).await;
}

/// Key and data of what a reader gets first.
async fn state_of(hop: &Hop) -> Vec<(String, String)> {
    let mut stream = Stream::open(hop.address, "/events", &[NDJSON]).await;
    let mut state = vec![];
    loop {
        let object = stream.object().await;
        if object["snapshot"]["state"] == "end" {
            return state;
        }
        if let (Some(key), Some(data)) = (object["key"].as_str(), object["data"].as_str()) {
            state.push((key.to_owned(), data.to_owned()));
        }
    }
}

#[tokio::test]
async fn the_state_reaches_the_end_of_a_chain_long_after_history_has_moved_on() {
    let first = with_state(&[]).await;
    let expected = state_of(&first).await;
    assert_eq!(expected.len(), 2);
    let retain = |url: &str| ["--consume", url, "--retain", "key"].map(str::to_owned);
    let start = async |url: &str| {
        let args = retain(url);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let hop = Hop::start(&args).await;
        hop.logged("upstream connected").await;
        hop
    };
    let second = start(&first.url).await;
    let third = start(&second.url).await;
    assert_eq!(state_of(&third).await, expected);
    let http = start(&first.url.replace("ws://", "http://")).await;
    // A hop that does not keep the state does not take it for news.
    let plain = Hop::consuming(&first.url.replace("ws://", "http://")).await;
    let mut readers = vec![];
    for hop in [&third, &http, &plain] {
        readers.push(Stream::open(hop.address, "/events?snapshot=no", &[NDJSON]).await);
    }
    publish(&first, "c", "").await;
    publish(&first, "e", "6").await;
    for reader in &mut readers {
        // Over HTTP nothing says when the state is there, so to who reads already it is news.
        let mut seen = vec![];
        while seen.last().is_none_or(|data| data != "6") {
            let event = reader.object().await;
            seen.push(event["data"].as_str().expect("text").to_owned());
        }
        assert_eq!(seen[seen.len() - 2..], ["", "6"]);
    }
    let expected = [("a", "4"), ("e", "6")].map(|(key, data)| (key.to_owned(), data.to_owned()));
    for hop in [&first, &second, &third, &http] {
        assert_eq!(state_of(hop).await, expected);
    }
    assert_eq!(plain.count("event not taken"), 0);
}

#[tokio::test]
async fn a_hop_that_comes_back_learns_what_has_changed() {
    let first = with_state(&[]).await;
    let mut down = Down::connect(first.address, "!hello from=all").await;
    assert!(down.line().await.starts_with("!welcome "));
    assert_eq!(
        down.event().await.0,
        7,
        "who does not ask for the state gets none"
    );
    let hello = format!("!hello have={} state=missed", first.id(2).await);
    let mut down = Down::connect(first.address, &hello).await;
    down.line().await;
    assert!(down.line().await.starts_with("!gap "));
    assert_eq!(down.line().await, "!snapshot state=begin count=2");
    assert_eq!(down.event().await, (3, "3".into()));
    assert_eq!(down.event().await, (5, "4".into()));
    let end = format!("!snapshot state=end after={}", first.id(6).await);
    assert_eq!(down.line().await, end);
    assert_eq!(down.event().await.0, 7);
    let hello = format!("!hello have={} state=missed", first.id(6).await);
    let mut down = Down::connect(first.address, &hello).await;
    down.line().await;
    assert_eq!(down.event().await.0, 7, "nothing is missing");
}

#[tokio::test]
async fn tail_prints_the_state_and_what_follows() {
    let hop = with_state(&[]).await;
    for (url, transport) in [
        (&hop.url, "websocket"),
        (&hop.url, "sse"),
        (&hop.url, "ndjson"),
    ] {
        let mut tail = Tail::start(url, &["--transport", transport, "--count", "2"]);
        assert_eq!(tail.line().await.as_deref(), Some("3"), "{transport}");
        assert_eq!(tail.line().await.as_deref(), Some("4"), "{transport}");
        let log = tail.ends_with(0).await;
        assert_eq!(log.all("the state of the stream comes first").len(), 1);
    }
}

#[tokio::test]
async fn too_much_state_is_said_once() {
    let mut hop = Hop::start(&[KEPT, &["--retain-max", "1KiB"]].concat()).await;
    for number in 0..20 {
        publish(&hop, &format!("k{number}"), "x").await;
    }
    let state = state_of(&hop).await;
    assert!((1..20).contains(&state.len()));
    assert_eq!(state[state.len() - 1].0, "k19");
    let warning = "the state is larger than --retain-max: keys that have not changed for longest are not kept";
    hop.logged(warning).await;
    hop.signal(Signal::INT);
    hop.stops_well().await;
    assert_eq!(hop.count(warning), 1);
}

#[tokio::test]
async fn what_does_not_fit_together_is_said() {
    for (args, reason) in [
        (&["--overload", "conflate"][..], "--retain"),
        (&["--retain-max", "1MiB"], "--retain"),
        (&["--retain", "symbol"], "JSON pointer"),
        (&["--retain", "/a~2"], "JSON pointer"),
        (&["--overload", "merge"], "conflate"),
    ] {
        let output = output(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(reason), "{said}");
    }
}
