//! Readers that fall out of history: they are closed, or skip what they have missed and are told exactly that.

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{NDJSON, SSE};
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::events::text;
use crate::harness::frame::{CLOSE, PING, PONG, TEXT};
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::upstream::Link;
use crate::harness::wsevent::Hop;

const DISCONNECT: &[&str] = &["--history", "256KiB"];
const SKIP: &[&str] = &["--history", "256KiB", "--overload", "skip"];

/// An event begins with its number and is of one of many lengths, so that writes end anywhere in it.
fn event(seq: u64) -> String {
    let len = [10, 3_000, 8_000, 1, 12_000, 500][seq as usize % 6];
    format!("{seq} {}", text(len))
}

/// Sends events from number 1, more than the kernel keeps for a reader that does not read. The number of the last one.
async fn flood(link: &mut Link, hop: &Hop) -> u64 {
    // So many fit into the history, so a reader that keeps up is not passed by.
    const BATCH: usize = 30;
    let mut fast = hop.subscribe().await;
    let (mut sent, mut seq) = (0, 0);
    while sent < more_than_kernel_buffers() + (1 << 20) {
        let batch: Vec<_> = (1..=BATCH as u64).map(|at| event(seq + at)).collect();
        seq += BATCH as u64;
        sent += batch.iter().map(String::len).sum::<usize>();
        let batch: Vec<_> = batch.into_iter().map(Message::text).collect();
        link.send_all(&batch).await;
        fast.messages(BATCH).await;
    }
    seq
}

/// A reader that takes next to nothing unless it reads.
async fn slow(hop: &Hop, accept: (&str, &str), is_first: bool) -> Stream {
    let client = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let client = if is_first {
        client
    } else {
        client.used().await
    };
    Stream::on(client, "/events", &[accept]).await
}

/// What comes next: an event's id and text, or a gap.
enum Item {
    Event(String, String),
    Gap(Value),
}

async fn next(stream: &mut Stream) -> Option<Item> {
    if stream.head.header("content-type") == "text/event-stream" {
        let event = stream.try_event().await?;
        return Some(match &event.event {
            Some(_) => Item::Gap(event.gap()),
            None => Item::Event(event.id().to_owned(), event.data),
        });
    }
    let object = stream.try_object().await?;
    let text = |name: &str| object[name].as_str().expect("a string").to_owned();
    Some(match object.get("gap") {
        Some(gap) => Item::Gap(gap.clone()),
        None => Item::Event(text("id"), text("data")),
    })
}

async fn is_told_what_it_skips(accept: (&str, &str), is_first: bool) {
    let (mut link, hop) = Hop::fed(SKIP).await;
    let instance = hop.id(0).await;
    let instance = instance.strip_suffix("-0").expect("an id");
    let id = |seq: u64| format!("{instance}-{seq}");
    let mut stream = slow(&hop, accept, is_first).await;
    let last = flood(&mut link, &hop).await;
    let (mut expected, mut gaps) = (1, 0);
    while expected <= last {
        match next(&mut stream).await.expect("it goes on") {
            Item::Event(got, data) => {
                assert_eq!(got, id(expected));
                assert!(data == event(expected), "event {expected} is not whole");
                expected += 1;
            }
            Item::Gap(gap) => {
                assert_eq!(gap["after"], id(expected - 1));
                let lost = gap["lost"].as_u64().expect("a number");
                assert!(lost > 0);
                expected += lost;
                assert_eq!(gap["next"], id(expected));
                gaps += 1;
            }
        }
    }
    assert!(gaps > 0, "it has missed nothing");
    // It is one like others again.
    link.send(Message::text("then")).await;
    match next(&mut stream).await.expect("it goes on") {
        Item::Event(got, data) => assert_eq!((got, &*data), (id(last + 1), "then")),
        Item::Gap(gap) => panic!("{gap}"),
    }
    assert_eq!(hop.index().await["streams"][0]["events"], last + 1);
}

#[tokio::test]
async fn a_reader_of_sse_is_told_what_it_skips() {
    is_told_what_it_skips(SSE, true).await;
}

#[tokio::test]
async fn a_reader_of_ndjson_is_told_what_it_skips() {
    is_told_what_it_skips(NDJSON, true).await;
}

#[tokio::test]
async fn a_reader_of_sse_on_a_used_connection_is_told_what_it_skips() {
    is_told_what_it_skips(SSE, false).await;
}

#[tokio::test]
async fn a_reader_of_ndjson_on_a_used_connection_is_told_what_it_skips() {
    is_told_what_it_skips(NDJSON, false).await;
}

#[tokio::test]
async fn a_websocket_skips_and_goes_on() {
    let (mut link, hop) = Hop::fed(SKIP).await;
    let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = slow.upgraded("/events").await;
    let last = flood(&mut link, &hop).await;
    let (mut before, mut skips) = (0, 0);
    while before < last {
        let frame = slow.frame().await.expect("it goes on");
        assert_ne!(frame.opcode, CLOSE);
        if frame.opcode != TEXT {
            continue;
        }
        let text = String::from_utf8(frame.payload).expect("text is UTF-8");
        let (seq, _) = text.split_once(' ').expect("a number first");
        let seq: u64 = seq.parse().expect("a number");
        assert!(text == event(seq), "event {seq} is not whole");
        assert!(seq > before, "{seq} after {before}");
        skips += u64::from(seq > before + 1);
        before = seq;
    }
    assert!(skips > 0, "it has missed nothing");
    slow.send_frame(PING, b"still here").await;
    let frame = slow.frame().await.expect("a pong");
    assert_eq!(frame.opcode, PONG);
}

/// Reads what is left; whole events from the first one on, and then the end.
async fn ends_with_an_event(mut stream: Stream, last: u64) -> u64 {
    let mut count = 0;
    while let Some(item) = next(&mut stream).await {
        match item {
            Item::Event(_, data) => {
                count += 1;
                assert!(data == event(count), "event {count} is not whole");
            }
            Item::Gap(gap) => panic!("{gap}"),
        }
    }
    assert!(count < last, "it has got everything");
    count
}

#[tokio::test]
async fn a_reader_that_is_passed_by_gets_whole_events_and_the_end() {
    for accept in [SSE, NDJSON] {
        let (mut link, hop) = Hop::fed(DISCONNECT).await;
        let mut stream = slow(&hop, accept, true).await;
        stream.may_be_cut = true;
        let last = flood(&mut link, &hop).await;
        // Before it reads on, it is known what will become of it; it is told once it does.
        let count = ends_with_an_event(stream, last).await;
        let line = hop
            .logged_where("subscriber disconnected", |line| {
                line.field("transport") != "websocket"
            })
            .await;
        assert!(line.field("reason").contains("history"), "{}", line.text);
        // The last one may have been cut.
        assert!((count..=count + 1).contains(&line.number("events")));
    }
}

#[tokio::test]
async fn so_does_one_on_a_used_connection_and_may_ask_again() {
    for accept in [SSE, NDJSON] {
        let (mut link, hop) = Hop::fed(DISCONNECT).await;
        let stream = slow(&hop, accept, false).await;
        let last = flood(&mut link, &hop).await;
        ends_with_an_event(stream, last).await;
        let line = hop
            .logged_where("subscriber disconnected", |line| {
                line.field("transport") != "websocket"
            })
            .await;
        assert!(line.field("reason").contains("history"), "{}", line.text);
    }
}

#[tokio::test]
async fn who_was_disconnected_resumes_and_is_told_what_is_gone() {
    let (mut link, hop) = Hop::fed(DISCONNECT).await;
    let mut stream = slow(&hop, SSE, true).await;
    stream.may_be_cut = true;
    let last = flood(&mut link, &hop).await;
    let count = ends_with_an_event(stream, last).await;
    let id = hop.id(count).await;
    let headers = [SSE, ("Last-Event-ID", &id)];
    let mut stream = Stream::open(hop.address, "/events", &headers).await;
    assert_eq!(stream.head.header("wsevent-resumed"), "partial");
    let Some(Item::Gap(gap)) = next(&mut stream).await else {
        panic!("no gap first");
    };
    let lost = gap["lost"].as_u64().expect("a number");
    assert_eq!(gap["after"], id);
    for expected in count + lost + 1..=last {
        let event = stream.event().await;
        assert_eq!(event.id(), hop.id(expected).await);
    }
}

#[tokio::test]
async fn readers_that_do_not_read_take_little_memory() {
    const READERS: usize = 20;
    let (mut link, hop) = Hop::fed(SKIP).await;
    let mut readers = vec![];
    for number in 0..READERS {
        readers.push(slow(&hop, SSE, number % 2 == 0).await);
    }
    flood(&mut link, &hop).await;
    let before = hop.resident();
    flood(&mut link, &hop).await;
    let grown = hop.resident().saturating_sub(before);
    // Less than half of what each would hold if it kept what it is sent.
    let sent = more_than_kernel_buffers() * READERS / 2;
    assert!(grown < sent / 4, "{grown} bytes more");
    // Those that did read have left.
    hop.logged_times("subscriber disconnected", 2).await;
    assert_eq!(hop.index().await["streams"][0]["subscribers"], READERS);
}
