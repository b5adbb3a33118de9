//! Ten thousand connections that come to nothing.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, allow_many_files};

/// What the server may need for each, in bytes. It is measured in this build, which is not optimised; hyper's buffers alone
/// would be more.
const EACH: usize = 3 << 10;

#[tokio::test]
async fn ten_thousand_half_open_handshakes_cost_little_and_hinder_nobody() {
    let files = allow_many_files();
    let count = 10_000.min(files.saturating_sub(1_000));
    let (mut link, hop) = Hop::fed(&["--handshake-timeout", "1h"]).await;
    let mut subscriber = hop.subscribe().await;
    let before = hop.resident();
    let mut half_open = vec![];
    for number in 0..count {
        let mut socket = within_guard("a connection", TcpStream::connect(hop.address))
            .await
            .expect("it listens");
        socket.write_all(b"G").await.expect("there is room");
        half_open.push(socket);
        if number % 1_000 == 0 {
            let event = Message::text(number.to_string());
            link.send(event.clone()).await;
            assert_eq!(subscriber.message().await, event);
        }
    }
    // This one was accepted behind all of them.
    let mut late = hop.subscribe().await;
    link.send(Message::text("for both")).await;
    for subscriber in [&mut subscriber, &mut late] {
        assert_eq!(subscriber.message().await, Message::text("for both"));
    }
    let each = hop.resident().saturating_sub(before) / count;
    assert!(each < EACH, "{each} bytes each");
}
