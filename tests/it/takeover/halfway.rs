//! A process that asks, and does not go through with it.

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Place, publish, text};
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, Process, command};

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
        Self::on(socket.expect("it listens")).await
    }

    async fn on(socket: UnixStream) -> Self {
        let mut asking = Self(socket);
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

/// Whatever the running instance is asked for: when it has to stop, it does, and those who were about to go are told.
#[tokio::test]
async fn an_instance_that_stops_while_it_gives_keeps_what_it_has_to_the_end() {
    let place = Place::new();
    let mut old = place.first(&["--accept-publish", "--drain", "1s"]).await;
    let mut subscriber = old.subscribe().await;
    publish(old.address, &[], "a").await;
    assert_eq!(text(&subscriber.message().await), "a");
    let mut asking = Asking::new(&place).await;
    asking.hello(&old, 1).await;
    assert_eq!(asking.hears().await.0, HERE);
    asking.say(WANTED, json!({ "streams": [0] })).await;
    while asking.hears().await.0 != END {}
    old.signal(Signal::TERM);
    let line = old.logged("not handed over, this instance goes on").await;
    assert_eq!(line.field("error"), "this instance stops");
    assert_eq!(subscriber.closed().await, 1012);
    old.stops_well().await;
}

/// A new one that has to stop before it has taken anything ends well, however far it has come.
#[tokio::test]
async fn whoever_is_stopped_while_it_takes_over_ends_at_once() {
    for is_answered in [false, true] {
        let place = Place::new();
        let path = place.path();
        let listener = UnixListener::bind(&path).expect("the path is free");
        let args = ["--takeover", &path, "--serve-address", "127.0.0.1:0"];
        let mut new = Process::spawn(command(&args));
        let (socket, _) = within_guard("the new one", listener.accept())
            .await
            .expect("it comes");
        let mut giving = Asking::on(socket).await;
        assert_eq!(giving.hears().await.0, HELLO);
        if is_answered {
            let here = json!({ "version": 1, "instance": 1, "serving": 0, "streams": [] });
            giving.say(HERE, here).await;
            assert_eq!(giving.hears().await.0, WANTED);
        }
        new.signal(Signal::TERM);
        assert_eq!(new.exit().await.code(), Some(0));
        assert_eq!(new.count("listening"), 0);
        assert!(
            std::path::Path::new(&path).exists(),
            "it is not the new one's"
        );
    }
}
