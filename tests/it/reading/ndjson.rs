//! Newline-delimited JSON as it stands on the wire.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::NDJSON;
use crate::harness::client::Client;
use crate::harness::client::body::Stream;
use crate::harness::frame::{BINARY, TEXT};
use crate::harness::wsevent::Hop;

/// Takes the time out of an event, which must have one.
fn without_time(mut object: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    let time = members.remove("time").expect("a time");
    let time = time.as_str().expect("a time is a string");
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert_eq!(shape, "9999-99-99T99:99:99.999999Z");
    object
}

#[tokio::test]
async fn events_are_one_object_a_line() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut streams = [
        Stream::open(hop.address, "/events", &[NDJSON]).await,
        Stream::open_second(hop.address, "/events", &[NDJSON]).await,
    ];
    for stream in &streams {
        assert_eq!(stream.head.header("content-type"), "application/x-ndjson");
        assert_eq!(stream.head.header("cache-control"), "no-store");
        assert_eq!(stream.head.header("x-accel-buffering"), "no");
        assert_eq!(stream.head.header("wsevent-resumed"), "no");
    }
    let texts = ["plain", "", "two\nlines\r\n", "{\"a\": \"b\"}", "é ✓ 𝄞 \0"];
    for (number, text) in texts.into_iter().enumerate() {
        link.send(Message::text(text)).await;
        let id = hop.id(number as u64 + 1).await;
        for stream in &mut streams {
            let got = without_time(stream.object().await);
            assert_eq!(got, json!({"id": id, "data": text}));
        }
    }
    link.send(Message::binary(vec![0, 1, 2, 0xFF])).await;
    let id = hop.id(texts.len() as u64 + 1).await;
    for stream in &mut streams {
        let got = without_time(stream.object().await);
        assert_eq!(got, json!({"id": id, "data_base64": "AAEC/w=="}));
    }
}

#[tokio::test]
async fn type_and_key_are_there_when_there_are_any() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut stream = Stream::open(hop.address, "/events", &[NDJSON]).await;
    let publisher = Client::connect(hop.address).await;
    let mut publisher = publisher.upgraded("/events?type=trade&key=BTC%2FEUR").await;
    publisher.send_frame(TEXT, b"1").await;
    publisher.send_frame(BINARY, b"2").await;
    let mut got = vec![];
    for _ in 0..2 {
        let mut object = without_time(stream.object().await);
        object.as_object_mut().expect("an object").remove("id");
        got.push(object);
    }
    let expected = [
        json!({"type": "trade", "key": "BTC/EUR", "data": "1"}),
        json!({"type": "trade", "key": "BTC/EUR", "data_base64": "Mg=="}),
    ];
    assert_eq!(got, expected);
}
