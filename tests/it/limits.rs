//! What a client may cost: each row of the table in docs/limits.md.

mod connections;
mod flood;
mod http2;
mod publishing;
mod requests;
mod tls;

use crate::harness::client::{Client, Head, handshake};
use crate::harness::log::Line;
use crate::harness::wsevent::{Hop, allow_many_files, output};

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

#[tokio::test]
async fn what_is_no_limit_is_a_usage_error() {
    for (args, expected) in [
        (
            &["--max-connections", "0"][..],
            "a number from 1 on is expected",
        ),
        (
            &["--max-handshakes-per-second", "0"],
            "a number from 1 to 4294967295 is expected",
        ),
        (&["--max-publish-rate", "0.5"], "a number from 1 to"),
        (
            &["--max-publish-rate", "5"],
            "--max-publish-rate has no effect where nobody may publish: add --accept-publish",
        ),
        (&["--max-header-size", "8191"], "at least 8KiB is needed"),
        (&["--max-header-size", "2MiB"], "at most 1MiB is possible"),
        (&["--handshake-timeout", "0s"], "at least 10ms is needed"),
        (
            &["--max-body-size", "2KiB", "--max-body-memory", "1KiB"],
            "a body may have 2048 bytes, but all bodies together only 1024: raise --max-body-memory or lower --max-body-size",
        ),
    ] {
        let output = output(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8(output.stderr).expect("an error is text");
        assert!(text.contains(expected), "{args:?}: {text}");
    }
}

/// The defaults of what one address may do are for strangers.
#[tokio::test]
async fn this_machine_is_spared_unless_it_is_said() {
    allow_many_files();
    let hop = Hop::quiet(&[]).await;
    let mut clients = vec![];
    // More than either limit of an address.
    for _ in 0..1_100 {
        clients.push(Client::connect(hop.address).await);
    }
    hop.subscribe().await;
    assert_eq!(hop.count("connection refused"), 0);
}
