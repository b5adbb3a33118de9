//! What publishers may cost: the size of bodies, the memory of all of them, and how often events come.

use tokio_tungstenite::tungstenite::Message;

use super::{is_told_to_come_again, refusal};
use crate::harness::client::{Client, request};
use crate::harness::frame::{FIN, TEXT, masked};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

async fn hop(args: &[&str]) -> Hop {
    Hop::quiet(&[&["--accept-publish"], args].concat()).await
}

fn post(body: &str, more: &[(&str, &str)]) -> String {
    let length = body.len().to_string();
    let common = [("Host", "localhost"), ("Content-Length", &length)];
    request("POST /events HTTP/1.1", &[&common, more].concat()) + body
}

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

#[tokio::test]
async fn a_body_may_be_so_long_and_no_longer() {
    let hop = hop(&["--max-body-size", "1KiB"]).await;
    let mut client = Client::connect(hop.address).await;
    // One event, and several of them.
    for headers in [&[][..], &[LINES]] {
        let line = "{\"data\":\"x\"}\n";
        for (count, status) in [(1_024 / line.len(), 202), (100, 413)] {
            client.send(post(&line.repeat(count), headers)).await;
            let head = client.head().await;
            assert_eq!(head.status, status);
            client.body(&head).await;
        }
    }
    let line = refusal(&hop, "request refused", "413").await;
    assert!(line.field("reason").contains("1024 bytes"), "{line:?}");
}

#[tokio::test]
async fn all_bodies_together_have_so_much_memory() {
    let args = ["--max-body-size", "64KiB", "--max-body-memory", "64KiB"];
    let hop = hop(&args).await;
    let body = "x".repeat(64 << 10);
    let mut first = Client::connect(hop.address).await;
    let whole = post(&body, &[("Expect", "100-continue")]);
    let (begin, end) = whole.split_at(whole.len() - body.len());
    first.send(begin).await;
    // Room has been made for it by now.
    assert_eq!(first.head().await.status, 100);
    let mut second = Client::connect(hop.address).await;
    second.send(post("an event", &[])).await;
    let head = second.head().await;
    is_told_to_come_again(&mut second, &head, 503).await;
    refusal(&hop, "request refused", "503").await;
    first.send(end).await;
    assert_eq!(first.head().await.status, 202);
    second.send(post("an event", &[])).await;
    assert_eq!(second.head().await.status, 202);
}

#[tokio::test]
async fn who_posts_too_often_is_told_when_to_come_back() {
    let hop = hop(&["--max-publish-rate", "2"]).await;
    let mut reader = hop.subscribe().await;
    let mut client = Client::connect(hop.address).await;
    // More than the rate allows, and just as much as nobody else has used up.
    client
        .send(post(&"{\"data\":\"x\"}\n".repeat(100), &[LINES]))
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 202);
    client.body(&head).await;
    client.send(post("too soon", &[])).await;
    let head = client.head().await;
    is_told_to_come_again(&mut client, &head, 429).await;
    // A hundred take fifty seconds; after all but one of them there may be two.
    let seconds: u64 = head.header("retry-after").parse().expect("a number");
    assert!((1..=50).contains(&seconds), "{seconds}");
    let line = refusal(&hop, "request refused", "429").await;
    assert_eq!(
        line.field("reason"),
        "this client publishes faster than 2 events a second"
    );
    reader.messages(100).await;
    assert_eq!(hop.index().await["streams"][0]["events"], 100);
}

#[tokio::test]
async fn a_websocket_that_publishes_too_fast_is_closed() {
    let hop = hop(&["--max-publish-rate", "3"]).await;
    let mut reader = hop.subscribe().await;
    let mut writer = hop.subscribe().await;
    let frames: Vec<_> = (0..10).map(|_| masked(FIN | TEXT, b"an event")).collect();
    writer.send(frames.concat()).await;
    let (events, code, reason) = writer.until_close().await;
    assert_eq!(code, 1008);
    assert_eq!(reason, "publishes faster than 3 events a second");
    assert!(events.len() <= 3);
    writer.answer_close(code).await;
    assert_eq!(reader.messages(3).await, vec![Message::text("an event"); 3]);
    let line = hop.disconnected().await;
    assert_eq!(line.number("code"), 1008);
    assert_eq!(line.field("reason"), reason);
    // Each connection has a bucket of its own.
    let mut other = hop.subscribe().await;
    other.send_frame(TEXT, b"another").await;
    within_guard("an event", async {
        assert_eq!(reader.message().await, Message::text("another"));
    })
    .await;
}
