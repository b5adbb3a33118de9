//! Joining a stream elsewhere than at its live edge: history, resuming, and what is told when something is gone.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{NDJSON, SSE, feed};
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, HANDSHAKE, handshake, request};
use crate::harness::upstream::Link;
use crate::harness::wsevent::Hop;

/// What a subscriber gets at once: `Wsevent-Resumed`, the gaps, and the texts of the events.
#[derive(Debug, PartialEq)]
struct Got {
    resumed: String,
    gaps: Vec<Value>,
    events: Vec<String>,
}

fn got(resumed: &str, gaps: &[Value], events: impl IntoIterator<Item = u64>) -> Got {
    Got {
        resumed: resumed.to_owned(),
        gaps: gaps.to_vec(),
        events: events.into_iter().map(|event| event.to_string()).collect(),
    }
}

fn gap(after: &str, next: Option<&str>, lost: Option<u64>) -> Value {
    json!({"after": after, "next": next, "lost": lost})
}

/// Sends an event that everybody gets, to see where what was before ends.
async fn mark(link: &mut Link) {
    link.send(Message::text("mark")).await;
}

async fn sse(link: &mut Link, mut stream: Stream) -> Got {
    let resumed = stream.head.header("wsevent-resumed").to_owned();
    let (mut gaps, mut events) = (vec![], vec![]);
    mark(link).await;
    loop {
        let event = stream.event().await;
        match event.data.as_str() {
            "mark" => {
                return Got {
                    resumed,
                    gaps,
                    events,
                };
            }
            _ if event.event.is_some() => gaps.push(event.gap()),
            _ => events.push(event.data),
        }
    }
}

async fn ndjson(link: &mut Link, mut stream: Stream) -> Got {
    let resumed = stream.head.header("wsevent-resumed").to_owned();
    let (mut gaps, mut events) = (vec![], vec![]);
    mark(link).await;
    loop {
        let object = stream.object().await;
        match object["data"].as_str() {
            Some("mark") => {
                return Got {
                    resumed,
                    gaps,
                    events,
                };
            }
            Some(text) => events.push(text.to_owned()),
            None => gaps.push(object["gap"].clone()),
        }
    }
}

/// A WebSocket has no gap notices but its header.
async fn websocket(link: &mut Link, hop: &Hop, target: &str, headers: &[(&str, &str)]) -> Got {
    let mut client = Client::connect(hop.address).await;
    let headers = [&HANDSHAKE[..], headers].concat();
    client
        .send(request(&format!("GET {target} HTTP/1.1"), &headers))
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 101, "{head:?}");
    mark(link).await;
    let mut events = vec![];
    loop {
        match client.message().await.into_text().expect("text").as_str() {
            "mark" => break,
            text => events.push(text.to_owned()),
        }
    }
    Got {
        resumed: head.header("wsevent-resumed").to_owned(),
        gaps: vec![],
        events,
    }
}

/// Asks over each transport, each time of a hop of its own that has the events `1` to `count`.
async fn check(
    args: &[&str],
    count: u64,
    ask: impl Fn(&str) -> (String, Option<String>),
    expected: impl Fn(&str) -> Got,
) {
    for transport in 0..5 {
        let (mut link, hop) = Hop::fed(args).await;
        feed(&mut link, &hop, count).await;
        let instance = hop.id(0).await;
        let instance = instance.strip_suffix("-0").expect("an id");
        let (target, header) = ask(instance);
        let header = header.as_deref().map(|id| ("Last-Event-ID", id));
        let headers = |accept| {
            [Some(accept), header]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        let address = hop.address;
        let got = match transport {
            0 => {
                let stream = Stream::open(address, &target, &headers(SSE)).await;
                sse(&mut link, stream).await
            }
            1 => {
                let stream = Stream::open_second(address, &target, &headers(SSE)).await;
                sse(&mut link, stream).await
            }
            2 => {
                let stream = Stream::open(address, &target, &headers(NDJSON)).await;
                ndjson(&mut link, stream).await
            }
            3 => {
                let stream = Stream::open_second(address, &target, &headers(NDJSON)).await;
                ndjson(&mut link, stream).await
            }
            _ => websocket(&mut link, &hop, &target, &headers(SSE)[1..]).await,
        };
        let mut expected = expected(instance);
        if transport == 4 {
            expected.gaps.clear();
        }
        assert_eq!(got, expected, "transport {transport}, {target} {header:?}");
    }
}

/// Ten events, and one question.
async fn check_plain(query: &str, header: Option<&str>, expected: impl Fn(&str) -> Got) {
    let ask = |instance: &str| {
        let fill = |text: &str| text.replace("ID", instance);
        (format!("/events{}", fill(query)), header.map(fill))
    };
    check(&[], 10, ask, expected).await;
}

#[tokio::test]
async fn without_a_wish_it_begins_at_the_live_edge() {
    check_plain("", None, |_| got("no", &[], [])).await;
}

#[tokio::test]
async fn history_begins_earlier() {
    check_plain("?history=3", None, |_| got("yes", &[], 8..=10)).await;
    check_plain("?history=all", None, |_| got("yes", &[], 1..=10)).await;
}

#[tokio::test]
async fn history_may_ask_for_nothing_or_for_more_than_there_is() {
    check_plain("?history=0", None, |_| got("yes", &[], [])).await;
    check_plain("?history=18446744073709551615", None, |_| {
        got("yes", &[], 1..=10)
    })
    .await;
}

#[tokio::test]
async fn it_goes_on_behind_the_last_event_id() {
    check_plain("", Some("ID-4"), |_| got("yes", &[], 5..=10)).await;
    check_plain("?last_event_id=ID-4", None, |_| got("yes", &[], 5..=10)).await;
    check_plain("", Some("ID-10"), |_| got("yes", &[], [])).await;
}

#[tokio::test]
async fn the_header_counts_more_than_the_query_and_an_id_more_than_history() {
    check_plain("?last_event_id=ID-4", Some("ID-8"), |_| {
        got("yes", &[], 9..=10)
    })
    .await;
    check_plain("?history=all&last_event_id=ID-8", None, |_| {
        got("yes", &[], 9..=10)
    })
    .await;
    check_plain("?history=all&last_event_id=", Some(""), |_| {
        got("yes", &[], 1..=10)
    })
    .await;
}

#[tokio::test]
async fn who_asks_for_what_is_not_known_begins_at_the_live_edge_and_is_told() {
    for id in ["nonsense", "0000000000000-5", "é ✓"] {
        check_plain("", Some(id), |_| got("no", &[gap(id, None, None)], [])).await;
    }
}

#[tokio::test]
async fn an_event_that_is_still_to_come_is_not_known() {
    let (mut link, hop) = Hop::fed(&[]).await;
    feed(&mut link, &hop, 3).await;
    let id = hop.id(4).await;
    let stream = Stream::open(hop.address, "/events", &[("Last-Event-ID", &id)]).await;
    let expected = got("no", &[gap(&id, None, None)], []);
    assert_eq!(sse(&mut link, stream).await, expected);
}

#[tokio::test]
async fn who_is_a_little_ahead_is_waited_for() {
    let (mut link, hop) = Hop::fed(&[]).await;
    feed(&mut link, &hop, 3).await;
    let id = hop.id(4).await;
    let mut client = Client::connect(hop.address).await;
    let headers = [("Host", "localhost"), ("Last-Event-ID", id.as_str())];
    client.send(request("GET /events HTTP/1.1", &headers)).await;
    // Whether it has been read already or not: it is answered as soon as it can be.
    link.send(Message::text("4")).await;
    link.send(Message::text("5")).await;
    let stream = Stream::of(client).await;
    let got = sse(&mut link, stream).await;
    assert_eq!(got.resumed, "yes");
    assert_eq!((got.gaps, got.events), (vec![], vec!["5".to_owned()]));
}

#[tokio::test]
async fn what_is_beyond_the_number_of_events_to_keep_is_gone_and_told() {
    let args = ["--history-count", "4"];
    let ask = |instance: &str| ("/events".to_owned(), Some(format!("{instance}-2")));
    check(&args, 10, ask, |instance| {
        let next = format!("{instance}-7");
        let gap = gap(&format!("{instance}-2"), Some(&next), Some(4));
        got("partial", &[gap], 7..=10)
    })
    .await;
    let ask = |_: &str| ("/events?history=all".to_owned(), None);
    check(&args, 10, ask, |_| got("yes", &[], 7..=10)).await;
    // The one before the oldest that is held: nothing is missing.
    let ask = |instance: &str| ("/events".to_owned(), Some(format!("{instance}-6")));
    check(&args, 10, ask, |_| got("yes", &[], 7..=10)).await;
}

#[tokio::test]
async fn what_is_too_old_is_gone_and_told() {
    let args = ["--history-age", "100ms"];
    let (mut link, hop) = Hop::fed(&args).await;
    feed(&mut link, &hop, 3).await;
    let id = hop.id(1).await;
    let target = format!("/events?last_event_id={id}");
    // How many of them are too old is for the clock to say; at the end it is all.
    loop {
        let mut stream = Stream::open(hop.address, &target, &[]).await;
        // Some of them may still be there, or else this is what comes first.
        mark(&mut link).await;
        // The stream ends if the clock was quicker than the reader.
        let (Some(first), Some(next)) = (stream.try_event().await, stream.try_event().await) else {
            continue;
        };
        if first.event.is_some() && next.data == "mark" {
            assert_eq!(first.gap()["after"], id);
            assert_eq!(stream.head.header("wsevent-resumed"), "partial");
            return;
        }
    }
}

#[tokio::test]
async fn wishes_that_make_no_sense_are_bad_requests() {
    let hop = Hop::quiet(&[]).await;
    for query in ["history=", "history=some", "history=-1", "history=1.5"] {
        let mut client = Client::connect(hop.address).await;
        let target = format!("/events?{query}");
        let (head, body) = client.get(&target, &[]).await;
        assert_eq!(head.status, 400, "{query}");
        assert!(body.contains("?history="), "{body}");
        client.send(handshake(&target)).await;
        assert_eq!(client.head().await.status, 400, "{query}");
    }
}
