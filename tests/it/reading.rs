//! Reading a stream over HTTP: SSE, NDJSON, and what is around them.

mod http;
mod ndjson;
mod overload;
mod resume;
mod sse;

use tokio_tungstenite::tungstenite::Message;

use crate::harness::upstream::Link;
use crate::harness::wsevent::Hop;

const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");
const SSE: (&str, &str) = ("Accept", "text/event-stream");

/// Sends the events `1` to `count`, and waits until they are in the log.
async fn feed(link: &mut Link, hop: &Hop, count: u64) {
    let mut subscriber = hop.subscribe().await;
    for number in 1..=count {
        link.send(Message::text(number.to_string())).await;
        subscriber.message().await;
    }
}
