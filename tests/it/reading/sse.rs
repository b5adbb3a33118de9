//! Server-Sent Events as they stand on the wire (WHATWG HTML, section 9.2).

use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{SSE, feed};
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::frame::{PING, PONG, TEXT};
use crate::harness::wsevent::Hop;

/// Payloads, and their blocks without the id.
fn blocks() -> Vec<(Message, String)> {
    let text = |text: &str, block: &str| (Message::text(text), block.to_owned());
    let long = "long ".repeat(50_000);
    vec![
        text("plain", "data: plain\n\n"),
        text("", "data: \n\n"),
        text(" led by a space", "data:  led by a space\n\n"),
        text("LF\nhere", "data: LF\ndata: here\n\n"),
        text("CR\rhere", "data: CR\ndata: here\n\n"),
        text("CRLF\r\nhere", "data: CRLF\ndata: here\n\n"),
        text("\n", "data: \ndata: \n\n"),
        text("\r\n\r\n", "data: \ndata: \ndata: \n\n"),
        text("\n\r", "data: \ndata: \ndata: \n\n"),
        text(
            "id: 7\nevent: x\n\n",
            "data: id: 7\ndata: event: x\ndata: \ndata: \n\n",
        ),
        text("é ✓ 𝄞 \0", "data: é ✓ 𝄞 \0\n\n"),
        text(&long, &format!("data: {long}\n\n")),
        (
            Message::binary(vec![0, 1, 2, 0xFF]),
            "data: data:application/octet-stream;base64,AAEC/w==\n\n".to_owned(),
        ),
        (
            Message::binary(vec![]),
            "data: data:application/octet-stream;base64,\n\n".to_owned(),
        ),
    ]
}

#[tokio::test]
async fn events_are_blocks_of_lines() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut streams = [
        Stream::open(hop.address, "/events", &[]).await,
        Stream::open(hop.address, "/events", &[SSE]).await,
        Stream::open_second(hop.address, "/events", &[("Accept", "*/*")]).await,
    ];
    for stream in &mut streams {
        assert_eq!(stream.opening().await.as_deref(), Some("\n"));
    }
    for (number, (message, block)) in blocks().into_iter().enumerate() {
        link.send(message).await;
        let id = hop.id(number as u64 + 1).await;
        for stream in &mut streams {
            assert_eq!(stream.block().await, Some(format!("id: {id}\n{block}")));
        }
    }
}

#[tokio::test]
async fn an_event_with_a_type_names_it() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut stream = Stream::open(hop.address, "/events", &[]).await;
    let publisher = Client::connect(hop.address).await;
    let mut publisher = publisher.upgraded("/events?type=a%20type&key=k").await;
    publisher.send_frame(TEXT, b"hello").await;
    let id = hop.id(1).await;
    stream.block().await;
    let expected = format!("id: {id}\nevent: a type\ndata: hello\n\n");
    assert_eq!(stream.block().await, Some(expected));
}

#[tokio::test]
async fn the_head_is_what_browsers_and_proxies_need() {
    let hop = Hop::quiet(&[]).await;
    let first = Stream::open(hop.address, "/events", &[]).await;
    assert_eq!(first.head.header("connection"), "close");
    assert_eq!(first.head.header("transfer-encoding"), "");
    let second = Stream::open_second(hop.address, "/events", &[]).await;
    assert_eq!(second.head.header("transfer-encoding"), "chunked");
    for head in [&first.head, &second.head] {
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("wsevent-resumed", "no"),
            ("content-length", ""),
            ("access-control-allow-origin", ""),
        ] {
            assert_eq!(head.header(name), value, "{name}");
        }
        assert!(head.header("vary").contains("accept"));
        assert!(head.header("date").ends_with(" GMT"));
    }
}

/// Else a browser that loses its connection before the first event would come back without an id.
#[tokio::test]
async fn it_begins_with_the_place_where_the_reader_stands() {
    let (mut link, hop) = Hop::fed(&["--history-count", "3"]).await;
    feed(&mut link, &hop, 5).await;
    let (second, fifth) = (hop.id(2).await, hop.id(5).await);
    for (query, header, id) in [
        ("", "", &*fifth),
        ("?history=all", "", &second),
        ("?history=0", "", &fifth),
        ("", &fifth, &fifth),
        ("", &second, &second),
        ("", "unknown", "unknown"),
        ("?last_event_id=1%00", "", ""),
        ("?last_event_id=1%0D", "", ""),
        ("?last_event_id=1%0A%0Adata:2", "", ""),
    ] {
        let target = format!("/events{query}");
        let mut stream = Stream::open(hop.address, &target, &[("Last-Event-ID", header)]).await;
        let id = match id {
            "" => String::new(),
            id => format!("id: {id}\n"),
        };
        let expected = format!("{id}\n");
        assert_eq!(stream.opening().await, Some(expected), "{query} {header}");
    }
}

#[tokio::test]
async fn a_quiet_stream_has_heartbeats() {
    let hop = Hop::quiet(&["--ping-interval", "200ms"]).await;
    let mut streams = [
        Stream::open(hop.address, "/events", &[]).await,
        Stream::open_second(hop.address, "/events", &[]).await,
    ];
    for stream in &mut streams {
        assert_eq!(stream.opening().await.as_deref(), Some("\n"));
        for _ in 0..3 {
            assert_eq!(stream.block().await.as_deref(), Some(":\n\n"));
        }
    }
}

#[tokio::test]
async fn one_that_goes_away_is_logged_and_not_counted_any_more() {
    let (mut link, hop) = Hop::fed(&[]).await;
    for round in 1..=3 {
        let mut streams = [
            Stream::open(hop.address, "/events", &[]).await,
            Stream::open_second(hop.address, "/events", &[]).await,
        ];
        assert_eq!(hop.index().await["streams"][0]["subscribers"], 2);
        link.send(Message::text("one")).await;
        for stream in &mut streams {
            assert_eq!(stream.event().await.data, "one");
        }
        let [first, second] = streams;
        match round {
            1 => drop((first, second)),
            2 => {
                first.client.reset();
                second.client.reset();
            }
            _ => {
                let mut ending = [first, second];
                for stream in &mut ending {
                    stream.client.half_close().await;
                }
                hop.logged_times("subscriber disconnected", 6).await;
            }
        }
        hop.logged_times("subscriber disconnected", 2 * round).await;
        assert_eq!(hop.index().await["streams"][0]["subscribers"], 0);
    }
    for line in hop.log.all("subscriber disconnected") {
        assert_eq!(line.field("transport"), "sse");
        assert_eq!(line.field("path"), "/events");
        assert_eq!(line.number("events"), 1);
        assert_eq!(line.field("reason"), "closed by the subscriber");
    }
}

#[tokio::test]
async fn when_the_server_stops_bodies_end_where_an_event_does() {
    let (mut link, mut hop) = Hop::fed(&[]).await;
    let mut streams = [
        Stream::open(hop.address, "/events", &[]).await,
        Stream::open_second(hop.address, "/events", &[]).await,
    ];
    link.send(Message::text("last")).await;
    for stream in &mut streams {
        assert_eq!(stream.event().await.data, "last");
    }
    hop.signal(Signal::INT);
    for stream in streams {
        let mut stream = stream;
        stream.ended().await;
    }
    hop.stops_well().await;
    for line in hop.log.all("subscriber disconnected") {
        assert_eq!(line.field("reason"), "the server is stopping");
    }
    assert_eq!(hop.count("subscriber disconnected"), 2);
}

#[tokio::test]
async fn a_stream_without_pause_stops_at_once_too() {
    let mut hop = Hop::start(&["--produce-rate", "max", "--drain", "50s"]).await;
    let mut streams = [
        Stream::open(hop.address, "/events?history=all", &[]).await,
        Stream::open_second(hop.address, "/events?history=all", &[]).await,
    ];
    for stream in &mut streams {
        stream.event().await;
    }
    hop.signal(Signal::INT);
    for stream in &mut streams {
        stream.drain().await;
    }
    drop(streams);
    hop.stops_well().await;
}

#[tokio::test]
async fn all_transports_count_as_subscribers() {
    let hop = Hop::quiet(&[]).await;
    let mut websocket = hop.subscribe().await;
    // Its task runs once there is an answer to this.
    websocket.send_frame(PING, b"").await;
    assert_eq!(websocket.frame().await.expect("a pong").opcode, PONG);
    let _streams = (
        Stream::open(hop.address, "/events", &[]).await,
        Stream::open(hop.address, "/events", &[super::NDJSON]).await,
        Stream::open_second(hop.address, "/events", &[super::NDJSON]).await,
    );
    let index = hop.index().await;
    let stream = &index["streams"][0];
    assert_eq!(stream["subscribers"], 4);
    assert_eq!(stream["path"], "/events");
    assert_eq!(stream["publish"], json!(false));
    assert_eq!(stream["events"], 0);
    assert_eq!(stream["rate"], 0.0);
    assert_eq!(index["address"], hop.address.to_string());
    assert_eq!(stream["via"][0]["id"], index["instance"]);
}
