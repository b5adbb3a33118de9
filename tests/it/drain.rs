//! Draining: on SIGTERM subscribers go one by one, each told when to come back; and connections that are old enough go likewise.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::authority::Authority;
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, request};
use crate::harness::frame::{CLOSE, Frame, close_payload};
use crate::harness::http2::Http2;
use crate::harness::port::ReservedPort;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, Tail};

const SSE: (&str, &str) = ("Accept", "text/event-stream");
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

/// The pause that a reason ends with, in milliseconds.
pub fn pause_of(reason: &str, why: &str) -> u64 {
    let pause = reason
        .strip_prefix(why)
        .unwrap_or_else(|| panic!("{reason}"));
    let pause = pause.strip_prefix(": come back in ").expect("when");
    let pause = pause.strip_suffix(" ms").expect("in milliseconds");
    pause.parse().expect("a number")
}

/// The numbers of generated events, which must have none twice and miss none.
fn in_a_row(events: &[String]) -> usize {
    let number = |event: &String| -> u64 {
        let digits: String = event.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("it begins with a number")
    };
    for pair in events.windows(2) {
        assert_eq!(number(&pair[1]), number(&pair[0]) + 1, "{pair:?}");
    }
    events.len()
}

fn texts(frames: Vec<Frame>) -> Vec<String> {
    let data = frames.into_iter().filter(|frame| frame.opcode != 9);
    let text = |frame: Frame| String::from_utf8(frame.payload).expect("it is text");
    data.map(text).collect()
}

/// What a WebSocket has got when it is sent away, and the pause that it is told.
async fn sent_away(mut client: Client) -> (usize, u64) {
    let (frames, code, reason) = client.until_close().await;
    assert_eq!(code, 1012, "{reason}");
    client.answer_close(code).await;
    (in_a_row(&texts(frames)), pause_of(&reason, "restarting"))
}

/// The same of SSE: the last block is the pause.
async fn sse_sent_away(mut stream: Stream) -> (usize, u64) {
    stream.opening().await;
    let (mut events, mut last) = (vec![], String::new());
    while let Some(block) = stream.block().await {
        let data = block.lines().find_map(|line| line.strip_prefix("data: "));
        events.extend(data.map(ToOwned::to_owned));
        last = block;
    }
    let pause = last
        .strip_prefix("retry: ")
        .unwrap_or_else(|| panic!("{last}"));
    let pause = pause.trim_end().parse().expect("a number");
    (in_a_row(&events), pause)
}

async fn ndjson_sent_away(mut stream: Stream) -> usize {
    let mut events = vec![];
    while let Some(object) = stream.try_object().await {
        events.push(object["data"].as_str().expect("a text").to_owned());
    }
    in_a_row(&events)
}

/// They were sent away at moments of their own, with pauses of their own.
fn differ(got: &[(usize, u64)]) {
    let moments: BTreeSet<_> = got.iter().map(|(events, _)| events).collect();
    assert!(moments.len() > got.len() / 2, "{got:?}");
    let pauses: BTreeSet<_> = got.iter().map(|(_, pause)| pause).collect();
    assert!(pauses.len() > got.len() / 2, "{got:?}");
    assert!(pauses.iter().all(|pause| (500..=2_000).contains(*pause)));
}

#[tokio::test]
async fn each_goes_at_a_moment_of_its_own_and_gets_all_events_until_then() {
    let mut hop = Hop::start(&["--produce-rate", "500", "--drain", "2s"]).await;
    let (mut websockets, mut events, mut lines) = (vec![], vec![], vec![]);
    for second in [false, true, false, true, false, true] {
        websockets.push(hop.subscribe().await);
        for (streams, accept) in [(&mut events, SSE), (&mut lines, NDJSON)] {
            streams.push(match second {
                false => Stream::open(hop.address, "/events", &[accept]).await,
                true => Stream::open_second(hop.address, "/events", &[accept]).await,
            });
        }
    }
    hop.signal(Signal::TERM);
    let mut got = vec![];
    let reading = (
        websockets
            .into_iter()
            .map(|client| tokio::spawn(sent_away(client)))
            .collect::<Vec<_>>(),
        events
            .into_iter()
            .map(|stream| tokio::spawn(sse_sent_away(stream)))
            .collect::<Vec<_>>(),
        lines
            .into_iter()
            .map(|stream| tokio::spawn(ndjson_sent_away(stream)))
            .collect::<Vec<_>>(),
    );
    for reading in reading.0.into_iter().chain(reading.1) {
        got.push(within_guard("the end", reading).await.expect("no panic"));
    }
    differ(&got);
    let mut counts = BTreeSet::new();
    for reading in reading.2 {
        counts.insert(within_guard("the end", reading).await.expect("no panic"));
    }
    assert!(counts.len() > 2, "{counts:?}");
    hop.stops_well().await;
    let line = hop.log.all("draining");
    assert_eq!(line.len(), 1);
    assert_eq!(line[0].number("subscribers"), 18);
    assert_eq!(line[0].field("over"), "1.5s");
    assert_eq!(hop.count("stopped"), 1);
    for line in hop.log.all("subscriber disconnected") {
        pause_of(&line.field("reason"), "restarting");
    }
}

#[tokio::test]
async fn so_it_is_over_tls_and_http2() {
    let authority = Authority::new();
    let mut hop = authority
        .hop(&["--produce-rate", "500", "--drain", "2s"])
        .await;
    let mut http2 = Http2::secure(&authority, &hop).await;
    let (mut websockets, mut streams) = (vec![], vec![]);
    for _ in 0..6 {
        websockets.push(authority.subscribe(&hop).await);
        websockets.push(http2.subscribe().await);
        streams.push(http2.read("/events", &[SSE]).await);
    }
    hop.signal(Signal::TERM);
    let websockets: Vec<_> = websockets
        .into_iter()
        .map(|client| tokio::spawn(sent_away(client)))
        .collect();
    let streams: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::spawn(sse_sent_away(stream)))
        .collect();
    let mut got = vec![];
    for reading in websockets.into_iter().chain(streams) {
        got.push(within_guard("the end", reading).await.expect("no panic"));
    }
    differ(&got);
    hop.stops_well().await;
}

/// Publishes one event; the status of the answer.
async fn publish(client: &mut Client, event: &str) -> u16 {
    let len = event.len().to_string();
    let headers = [("Host", "localhost"), ("Content-Length", &len)];
    client
        .send(request("POST /events HTTP/1.1", &headers) + event)
        .await;
    let head = client.head().await;
    client.body(&head).await;
    head.status
}

async fn status(admin: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = Client::connect(admin).await.get(path, &[]).await;
    (head.status, body)
}

#[tokio::test]
async fn meanwhile_it_lives_is_not_ready_and_serves_who_is_there() {
    let args = [
        "--accept-publish",
        "--drain",
        "1h",
        "--admin-address",
        "127.0.0.1:0",
    ];
    let mut hop = Hop::start(&args).await;
    let line = hop.logged("listening for administration").await;
    let admin = line.field("address").parse().expect("an address");
    let mut subscriber = hop.subscribe().await;
    let mut publisher = Client::connect(hop.address).await;
    assert_eq!(publish(&mut publisher, "before").await, 202);
    assert_eq!(
        subscriber.message().await.into_text().expect("text"),
        "before"
    );
    let mut idle = Client::connect(hop.address).await.used().await;
    let headers = [
        ("Host", "localhost"),
        ("Content-Length", "6"),
        ("Expect", "100-continue"),
    ];
    publisher
        .send(request("POST /events HTTP/1.1", &headers))
        .await;
    // It is being served once it is asked for its body.
    assert_eq!(publisher.head().await.status, 100);
    hop.signal(Signal::TERM);
    hop.logged("draining").await;
    assert!(
        idle.try_head().await.is_none(),
        "who asks for nothing is let go"
    );
    let (ready, why) = status(admin, "/-/ready").await;
    assert_eq!(ready, 503);
    assert!(why.contains("draining"), "{why}");
    assert_eq!(status(admin, "/-/live").await.0, 200);
    publisher.send("during").await;
    let head = publisher.head().await;
    assert_eq!((head.status, head.header("connection")), (202, "close"));
    assert_eq!(
        subscriber.message().await.into_text().expect("text"),
        "during"
    );
    assert_eq!(hop.count("stopped"), 0);
    // With nobody left there is nothing to wait for.
    subscriber
        .send_frame(CLOSE, &close_payload(1000, b""))
        .await;
    let (_, code, _) = subscriber.until_close().await;
    assert_eq!(code, 1000);
    hop.stops_well().await;
}

#[tokio::test]
async fn hops_come_back_when_they_are_told_to_and_lose_nothing() {
    let producer = Hop::start(&["--produce-rate", "100"]).await;
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let args = [
        "--consume",
        &producer.url,
        "--serve-address",
        &address,
        "--drain",
        "300ms",
    ];
    let mut middle = Hop::start(&args).await;
    let end = Hop::consuming(&middle.url).await;
    let mut stream = Stream::open(end.address, "/events", &[NDJSON]).await;
    let mut tail = Tail::start(&middle.url, &[]);
    let mut events = vec![];
    let mut printed = vec![tail.line().await.expect("a line")];
    for _ in 0..20 {
        events.push(data(&stream.object().await));
    }
    middle.signal(Signal::TERM);
    middle.stops_well().await;
    let lost = end.logged("upstream lost").await.field("reason");
    let (_, said) = lost.split_once("restarting").expect("why");
    pause_of(said, "");
    let _middle = Hop::start(&args).await;
    for _ in 0..200 {
        events.push(data(&stream.object().await));
        printed.push(tail.line().await.expect("a line"));
    }
    assert_eq!(in_a_row(&events), 220);
    assert_eq!(in_a_row(&printed), 201);
    let lost = tail.process.logged("connection lost, trying again").await;
    assert!(
        lost.field("reason").contains("come back in"),
        "{}",
        lost.text
    );
}

/// The text of an event, which is none that is missing.
fn data(object: &Value) -> String {
    object["data"]
        .as_str()
        .unwrap_or_else(|| panic!("{object}"))
        .to_owned()
}

#[tokio::test]
async fn who_is_old_enough_comes_again_and_misses_nothing() {
    let args = ["--produce-rate", "50", "--max-connection-age", "1s"];
    let hop = Hop::start(&args).await;
    let end = Hop::consuming(&hop.url).await;
    let mut behind = Stream::open(end.address, "/events", &[NDJSON]).await;
    // A WebSocket is told, and goes on where its last event was.
    let mut client = Client::connect(hop.address).await.upgraded("/events").await;
    let (frames, code, reason) = client.until_close().await;
    assert_eq!(code, 1012);
    let pause = pause_of(&reason, "this connection has lasted long enough");
    assert!((50..=500).contains(&pause), "{reason}");
    client.answer_close(code).await;
    let mut texts = texts(frames);
    let seq: u64 = {
        let last = texts.last().expect("some events");
        let digits: String = last.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let first = hop.index().await["streams"][0]["origin"]
        .as_str()
        .expect("a name")
        .to_owned();
    let mut id = format!("{first}-{seq}");
    // And so on over the other transports, each behind the one before.
    for (accept, is_second) in [(SSE, false), (SSE, true), (NDJSON, false), (NDJSON, true)] {
        let headers = [accept, ("Last-Event-ID", &id)];
        let mut stream = match is_second {
            false => Stream::open(hop.address, "/events", &headers).await,
            true => Stream::open_second(hop.address, "/events", &headers).await,
        };
        assert_eq!(stream.head.header("wsevent-resumed"), "yes");
        let mut got = vec![];
        if accept == SSE {
            stream.opening().await;
            let mut last = String::new();
            while let Some(block) = stream.block().await {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name).map(ToOwned::to_owned))
                };
                got.extend(field("data: ").map(|text| (field("id: ").expect("an id"), text)));
                last = block;
            }
            assert!(last.starts_with("retry: "), "{last}");
        } else {
            while let Some(object) = stream.try_object().await {
                got.push((
                    object["id"].as_str().expect("an id").to_owned(),
                    data(&object),
                ));
            }
        }
        id = got.last().expect("some events").0.clone();
        texts.extend(got.into_iter().map(|(_, text)| text));
    }
    assert!(in_a_row(&texts) > 100, "{}", texts.len());
    // The link between the hops was renewed meanwhile, more than once.
    let lost = end.logged_times("upstream connected", 3).await;
    assert_eq!(lost.field("message"), "upstream connected");
    let mut events = vec![];
    for _ in 0..texts.len() {
        events.push(data(&behind.object().await));
    }
    in_a_row(&events);
}

#[tokio::test]
async fn an_age_is_a_second_at_least() {
    let output = crate::harness::wsevent::output(&["--max-connection-age", "900ms"], &[]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("at least 1s is needed"), "{said}");
}

/// The tunnels of the reverse proxy end one by one as well: those of an upstream that goes on sending have got different amounts.
#[tokio::test]
async fn the_tunnels_of_a_proxy_end_at_moments_of_their_own() {
    let hop = Hop::start(&["--produce-rate", "500"]).await;
    let mut proxy = Proxy::over(&[hop.address], &["--drain", "2s"]).await;
    let mut reading = vec![];
    for _ in 0..10 {
        let client = proxy.client().await.upgraded("/events").await;
        reading.push(client);
    }
    proxy.signal(Signal::TERM);
    let reading: Vec<_> = reading
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let (frames, code, _) = client.until_close().await;
                assert_eq!(code, 1001);
                client.answer_close(code).await;
                in_a_row(&texts(frames))
            })
        })
        .collect();
    let mut counts = BTreeSet::new();
    for reading in reading {
        counts.insert(within_guard("the end", reading).await.expect("no panic"));
    }
    assert!(counts.len() > 5, "{counts:?}");
    assert_eq!(proxy.exit().await.code(), Some(0));
}

/// Sources go on while there are subscribers, and not for longer.
#[tokio::test]
async fn upstreams_are_left_when_the_last_subscriber_has_gone() {
    let upstream = Upstream::new();
    let mut hop = Hop::start(&["--consume", &upstream.url(), "--drain", "1h"]).await;
    let mut link = upstream.accept().await;
    hop.logged("upstream connected").await;
    let mut subscriber = hop.subscribe().await;
    hop.signal(Signal::TERM);
    hop.logged("draining").await;
    link.send("still here".into()).await;
    assert_eq!(
        subscriber.message().await.into_text().expect("text"),
        "still here"
    );
    drop(subscriber);
    assert_eq!(link.close_code().await, Some(1001));
    hop.stops_well().await;
}
