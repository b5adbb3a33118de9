//! Peers that do not keep to the protocol, or do not read: nobody else notices.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::forwarder::Forwarder;
use super::{connected, frames, listens, send, subscribed};
use crate::harness::http::Ndjson;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

/// A connection on which the test says what it likes.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn greeting(address: &str) -> Self {
        let connecting = TcpStream::connect(address);
        let socket = within_guard("a connection", connecting)
            .await
            .expect("it listens");
        let mut raw = Self(socket);
        let mut greeting = [0; 64];
        (greeting[0], greeting[9], greeting[10], greeting[11]) = (0xff, 0x7f, 3, 1);
        greeting[12..16].copy_from_slice(b"NULL");
        raw.send(&greeting).await;
        let mut theirs = [0; 64];
        within_guard("a greeting", raw.0.read_exact(&mut theirs))
            .await
            .expect("a greeting");
        raw
    }

    /// Has shaken hands as this kind of socket.
    pub async fn connect(address: &str, socket: &str) -> Self {
        let mut raw = Self::greeting(address).await;
        raw.ready(socket).await;
        // Theirs: a command of one length byte.
        let mut head = [0; 2];
        within_guard("a command", raw.0.read_exact(&mut head))
            .await
            .expect("READY");
        let mut body = vec![0; head[1].into()];
        within_guard("a command", raw.0.read_exact(&mut body))
            .await
            .expect("READY");
        assert!(body.starts_with(b"\x05READY"), "{body:?}");
        raw
    }

    async fn ready(&mut self, socket: &str) {
        let mut body = b"\x05READY\x0bSocket-Type\0\0\0".to_vec();
        body.push(socket.len() as u8);
        body.extend(socket.as_bytes());
        self.send(&[4, body.len() as u8]).await;
        self.send(&body).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        within_guard("sending", self.0.write_all(bytes))
            .await
            .expect("it is there");
    }

    /// Waits until the other side has ended the connection.
    async fn dropped(mut self) {
        let mut rest = vec![];
        // A reset is as good.
        let _ = within_guard("the end", self.0.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn a_length_alone_takes_no_memory_and_nobody_down() {
    let hop = Hop::start(&["--consume", "zmq+tcp://127.0.0.1:0?bind"]).await;
    let address = listens(&hop, "publisher").await;
    let before = hop.resident();
    let mut all = vec![];
    for _ in 0..8 {
        let mut raw = Raw::connect(&address, "PUB").await;
        raw.send(&[2]).await;
        raw.send(&(1_u64 << 50).to_be_bytes()).await;
        raw.send(&[0; 100_000]).await;
        all.push(raw);
    }
    let mut publisher = connected("pub", &address, &[]);
    subscribed(&mut publisher, "").await;
    let mut reader = Ndjson::of(&hop).await;
    send(&mut publisher, json!(["t", "all is well"])).await;
    assert_eq!(reader.next().await["data"], "all is well");
    let grown = hop.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown}");
}

#[tokio::test]
async fn who_does_not_keep_to_the_protocol_is_dropped_alone() {
    let forwarder = Forwarder::start(&[]).await;
    let mut publisher = connected("pub", &forwarder.publishers, &[]);
    let mut subscriber = connected("sub", &forwarder.subscribers, &["t"]);
    subscribed(&mut publisher, "t").await;
    for (address, socket, sends, reason) in [
        (
            &forwarder.publishers,
            "SUB",
            &b""[..],
            "its socket is a SUB, and no peer for XSUB",
        ),
        (
            &forwarder.subscribers,
            "PUSH",
            b"",
            "its socket is a PUSH, and no peer for XPUB",
        ),
        (
            &forwarder.publishers,
            "PUB",
            b"\xff\xff\xff",
            "no frame of ZeroMQ",
        ),
        (
            &forwarder.subscribers,
            "SUB",
            b"\x06\xff\xff\xff\xff\xff\xff\xff\xff",
            "no command of ZeroMQ",
        ),
        (
            &forwarder.subscribers,
            "XSUB",
            b"\x02\0\0\0\0\x7f\0\0\0",
            "too long",
        ),
    ] {
        let mut raw = Raw::greeting(address).await;
        raw.ready(socket).await;
        raw.send(sends).await;
        let side = if *address == forwarder.publishers {
            "publisher"
        } else {
            "subscriber"
        };
        let message = format!("{side} disconnected");
        let is_it = |line: &crate::harness::log::Line| line.field("reason").contains(reason);
        if reason == "too long" {
            raw.send(&[0; 100_000]).await;
            drop(raw);
        } else {
            forwarder.process.logged_where(&message, is_it).await;
            raw.dropped().await;
        }
    }
    // Somebody who speaks something else.
    let mut raw = Raw(TcpStream::connect(&forwarder.publishers)
        .await
        .expect("it listens"));
    raw.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    raw.dropped().await;
    send(&mut publisher, json!(["t", "all is well"])).await;
    assert_eq!(frames(&mut subscriber).await, json!(["t", "all is well"]));
}

#[tokio::test]
async fn who_does_not_read_keeps_nobody_else_waiting() {
    let forwarder = Forwarder::start(&[]).await;
    let mut publisher = connected("pub", &forwarder.publishers, &["patient"]);
    let mut stuck = Raw::connect(&forwarder.subscribers, "SUB").await;
    // In the form of ZMTP 3.0, which is taken as well.
    stuck.send(b"\0\x05\x01many").await;
    subscribed(&mut publisher, "many").await;
    let mut subscriber = connected("sub", &forwarder.subscribers, &["many", "last", "patient"]);
    subscribed(&mut publisher, "last").await;
    let before = forwarder.process.resident();
    let large = "x".repeat(1 << 19);
    for number in 0..128 {
        let message = json!(["many", number.to_string(), large]);
        send(&mut publisher, message).await;
        assert_eq!(frames(&mut subscriber).await[1], json!(number.to_string()));
    }
    let slow = "subscriber is too slow, messages are lost to it";
    forwarder.process.logged(slow).await;
    let grown = forwarder.process.resident().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown}");
    assert_eq!(forwarder.process.count(slow), 1);
}

/// A subscription in the form of ZMTP 3.1.
fn subscribe(topic: &[u8]) -> Vec<u8> {
    let body = [b"\x09SUBSCRIBE", topic].concat();
    let length = (body.len() as u64).to_be_bytes();
    [&[6], &length[..], &body].concat()
}

#[tokio::test]
async fn who_subscribes_to_too_much_is_dropped_alone() {
    let forwarder = Forwarder::start(&[]).await;
    let mut publisher = connected("pub", &forwarder.publishers, &[]);
    let mut subscriber = connected("sub", &forwarder.subscribers, &["t"]);
    subscribed(&mut publisher, "t").await;
    let before = forwarder.process.resident();
    let long = |number: usize, len: usize| format!("{number:0len$}").into_bytes();
    let too_long = subscribe(&long(0, (64 << 10) - 10));
    let too_many_bytes: Vec<u8> = (0..1_025)
        .flat_map(|number| subscribe(&long(number, 1 << 10)))
        .collect();
    let too_many: Vec<u8> = (0..10_001)
        .flat_map(|number| subscribe(&long(number, 5)))
        .collect();
    for (sends, taken, reason) in [
        (too_long, 0, "a topic of 65526 bytes"),
        (too_many_bytes, 1_024, "topics of more than 1048576 bytes"),
        (too_many, 10_000, "more than 10000 topics"),
    ] {
        let mut raw = Raw::connect(&forwarder.subscribers, "SUB").await;
        // It may be dropped before it has said all.
        let _ = within_guard("sending", raw.0.write_all(&sends)).await;
        let is_it = |line: &crate::harness::log::Line| line.field("reason").contains(reason);
        let gone = "subscriber disconnected";
        forwarder.process.logged_where(gone, is_it).await;
        raw.dropped().await;
        // What was taken is asked for, and then no more.
        for number in 0..2 * taken {
            let said = publisher.says().await;
            assert_eq!(said["subscribed"], number < taken, "{number}");
        }
        send(&mut publisher, json!(["t", reason])).await;
        assert_eq!(frames(&mut subscriber).await, json!(["t", reason]));
    }
    let grown = forwarder.process.resident().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown}");
    assert_eq!(forwarder.process.count("subscriber disconnected"), 3);
}
