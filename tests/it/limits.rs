//! What a client may cost: each row of the table in docs/limits.md.

mod connections;
mod flood;
mod http2;
mod publishing;
mod requests;

use crate::harness::client::{Client, Head, handshake};
use crate::harness::log::Line;
use crate::harness::wsevent::Hop;

/// Tries to become a subscriber; the answer, and what stands in it.
async fn asks(hop: &Hop) -> (Client, Head) {
    let mut client = Client::connect(hop.address).await;
    client.send(handshake("/events")).await;
    let head = client.head().await;
    (client, head)
}

/// An answer that says when to come again (RFC 9110, section 10.2.3), and why.
async fn is_told_to_come_again(client: &mut Client, head: &Head, status: u16) {
    assert_eq!(head.status, status, "{head:?}");
    let seconds = head.header("retry-after").parse::<u64>();
    assert!(seconds.is_ok_and(|seconds| seconds > 0), "{head:?}");
    assert!(!client.body(head).await.is_empty());
}

/// Waits for the line about a refusal of this kind.
async fn refusal(hop: &Hop, message: &str, status: &str) -> Line {
    let line = hop.logged_where(message, |line| line.field("status") == status);
    let line = line.await;
    assert_eq!(line.field("level"), "INFO");
    assert!(line.field("address").starts_with("127.0.0.1:"), "{line:?}");
    assert!(!line.field("reason").is_empty(), "{line:?}");
    line
}
