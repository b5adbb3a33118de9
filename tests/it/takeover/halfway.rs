//! A process that asks, and does not go through with it.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Place, publish, text};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

const MAGIC: &[u8] = b"wsevent takeover\n";
const HELLO: u8 = 1;
const REFUSED: u8 = 2;
const HERE: u8 = 3;
const WANTED: u8 = 4;
const END: u8 = 9;

/// One that speaks the protocol, without caring for sockets.
struct Asking(UnixStream);

impl Asking {
    async fn new(place: &Place) -> Self {
        let socket = UnixStream::connect(place.path()).await;
        let mut asking = Self(socket.expect("it listens"));
        asking.0.write_all(MAGIC).await.expect("it reads");
        let mut magic = [0; MAGIC.len()];
        asking.0.read_exact(&mut magic).await.expect("it greets");
        assert_eq!(magic, MAGIC);
        asking
    }

    async fn say(&mut self, kind: u8, head: Value) {
        let head = head.to_string();
        let mut frame = vec![kind];
        frame.extend((head.len() as u32).to_le_bytes());
        frame.extend([0; 4]);
        frame.extend(head.as_bytes());
        self.0.write_all(&frame).await.expect("it reads");
    }

    async fn hears(&mut self) -> (u8, Value) {
        within_guard("an answer", async {
            let mut prefix = [0; 9];
            self.0.read_exact(&mut prefix).await.expect("it answers");
            let len =
                |at| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("four")) as usize;
            let mut bytes = vec![0; len(1) + len(5)];
            self.0.read_exact(&mut bytes).await.expect("a whole frame");
            let head = serde_json::from_slice(&bytes[..len(1)]);
            (prefix[0], head.expect("it is JSON"))
        })
        .await
    }

    async fn hello(&mut self, hop: &Hop, version: u32) {
        let hello = json!({
            "version": version,
            "oldest": version,
            "address": hop.address.to_string(),
            "addresses": [hop.address.to_string()],
            "of a later version": true,
        });
        self.say(HELLO, hello).await;
    }
}

#[tokio::test]
async fn whoever_dies_halfway_leaves_everything_as_it_was() {
    let place = Place::new();
    let old = place.first(&["--accept-publish"]).await;
    let mut subscribers = vec![];
    for _ in 0..20 {
        subscribers.push(old.subscribe().await);
    }
    for until in 0..4 {
        let mut asking = Asking::new(&place).await;
        if until > 0 {
            asking.hello(&old, 1).await;
            assert_eq!(asking.hears().await.0, HERE);
        }
        if until > 1 {
            // This kind is not known.
            asking.say(99, json!([])).await;
            asking.say(WANTED, json!({ "streams": [0, 7] })).await;
        }
        if until > 2 {
            // Nothing moves from here on.
            while asking.hears().await.0 != END {}
        }
        drop(asking);
        let said = "not handed over, this instance goes on";
        old.logged_times(said, until + 1).await;
        publish(old.address, &[], &until.to_string()).await;
        for subscriber in &mut subscribers {
            assert_eq!(text(&subscriber.message().await), until.to_string());
        }
        let mut publisher = old.subscribe().await;
        publisher
            .send_frame(crate::harness::frame::TEXT, b"spoken")
            .await;
        for subscriber in subscribers.iter_mut().chain([&mut publisher]) {
            assert_eq!(text(&subscriber.message().await), "spoken");
        }
    }
    assert_eq!(old.count("handed over to another process"), 0);
}

#[tokio::test]
async fn a_version_that_is_not_understood_is_refused() {
    let place = Place::new();
    let old = place.first(&["--accept-publish"]).await;
    let mut asking = Asking::new(&place).await;
    asking.hello(&old, 7).await;
    let (kind, head) = asking.hears().await;
    assert_eq!(kind, REFUSED);
    let reason = head["reason"].as_str().expect("it says why");
    assert!(reason.contains("versions 7 to 7"), "{reason}");
    publish(old.address, &[], "still here").await;
}
