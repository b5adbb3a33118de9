//! Replacing a running hop by another process: subscribers do not notice it.

mod drained;
mod halfway;
mod lives;
mod peers;

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::body::Stream;
use crate::harness::client::{Client, request};
use crate::harness::frame::TEXT;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, allow_many_files, output};
use crate::peers::{Language, Peer};

/// The folder of a socket at which instances take over from each other.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }

    fn path(&self) -> String {
        let path = self.0.path().join("takeover");
        path.to_str().expect("it is plain").to_owned()
    }

    /// The first hop here, on a free port.
    async fn first(&self, args: &[&str]) -> Hop {
        Hop::start(&[&["--takeover", &self.path()], args].concat()).await
    }

    /// The next one, in the place of `hop`; serves when this returns.
    async fn next(&self, hop: &Hop, args: &[&str]) -> Hop {
        let address = hop.address.to_string();
        let own = ["--takeover", &self.path(), "--serve-address", &address];
        Hop::start(&[&own[..], args].concat()).await
    }
}

/// Publishes one event, and does it again if it is asked to.
async fn publish(address: SocketAddr, headers: &[(&str, &str)], text: &str) -> String {
    loop {
        let mut client = Client::connect(address).await;
        let length = text.len().to_string();
        let common = [("Host", "localhost"), ("Content-Length", &length)];
        let head = request("POST /events HTTP/1.1", &[&common, headers].concat());
        client
            .send([head.as_bytes(), text.as_bytes()].concat())
            .await;
        let head = client.head().await;
        let body = client.body(&head).await;
        match head.status {
            503 => assert_eq!(head.header("retry-after"), "1"),
            status => {
                assert_eq!(status, 202, "{body}");
                return body;
            }
        }
    }
}

fn text(message: &Message) -> &str {
    message.to_text().expect("it is text")
}

/// All up to the last event, which says so. Any end of the connection before that is a panic.
async fn all(mut subscriber: Client) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let message = subscriber.message().await;
        assert!(!message.is_close(), "closed after {}", texts.len());
        if text(&message) == "end" {
            return texts;
        }
        texts.push(text(&message).to_owned());
    }
}

/// Those of one publisher are all there, once, in order.
fn assert_whole(texts: &[String], publisher: &str, count: usize) {
    let own = texts.iter().filter(|text| text.starts_with(publisher));
    let own: Vec<_> = own.cloned().collect();
    let expected: Vec<_> = (0..count).map(|n| format!("{publisher} {n}")).collect();
    assert!(own == expected, "{} of {count}: {own:?}", own.len());
}

/// Publishes one event after the other until it is told to end. How many there were.
async fn post(
    address: SocketAddr,
    name: &str,
    mut over: tokio::sync::oneshot::Receiver<()>,
) -> usize {
    let mut count = 0;
    while over.try_recv().is_err() {
        publish(address, &[], &format!("{name} {count}")).await;
        count += 1;
    }
    count
}

/// Publishes on a WebSocket, and waits for each event to come back, until it is told to end. How many there were.
async fn chat(mut client: Client, mut over: tokio::sync::oneshot::Receiver<()>) -> (Client, usize) {
    let mut count = 0;
    while over.try_recv().is_err() {
        let own = format!("chat {count}");
        client.send_frame(TEXT, own.as_bytes()).await;
        while text(&client.message().await) != own {}
        count += 1;
    }
    (client, count)
}

#[tokio::test]
async fn a_thousand_subscribers_do_not_notice_that_the_process_is_another_one() {
    allow_many_files();
    let place = Place::new();
    let mut old = place.first(&["--accept-publish"]).await;
    let address = old.address;
    let mut subscribers = JoinSet::new();
    for _ in 0..1_000 {
        subscribers.spawn(all(old.subscribe().await));
    }
    let downstream = Hop::consuming(&old.url).await;
    let behind = tokio::spawn(all(downstream.subscribe().await));
    let url = format!("ws://{address}/events");
    let mut foreign = Peer::start(Language::Python, "client", &[&url]);
    // What it has agreed on, and that its ping is answered.
    foreign.says().await;
    foreign.says().await;
    let (stop_chat, over) = tokio::sync::oneshot::channel();
    let chatting = tokio::spawn(chat(old.subscribe().await, over));
    let (stop_posts, over) = tokio::sync::oneshot::channel();
    let posting = tokio::spawn(post(address, "post", over));

    let new = place.next(&old, &["--accept-publish"]).await;
    let taken = new.logged("taken over from another process").await;
    assert_eq!(taken.number("subscribers"), 1_000 + 3);
    old.stops_well().await;
    assert_eq!(old.count("subscriber disconnected"), 0);

    // It goes on, and now and again.
    publish(address, &[], "later").await;
    stop_chat.send(()).expect("it runs");
    stop_posts.send(()).expect("it runs");
    let posts = posting.await.expect("all were taken");
    let (_chat, chats) = chatting.await.expect("it was not cut off");
    assert!(posts > 0 && chats > 0);
    publish(address, &[], "end").await;
    while let Some(texts) = subscribers.join_next().await {
        let texts = texts.expect("it was not cut off");
        assert_whole(&texts, "post", posts);
        assert_whole(&texts, "chat", chats);
        assert_eq!(texts.len(), posts + chats + 1);
    }
    let texts = within_guard("the hop's subscriber", behind).await;
    let texts = texts.expect("it was not cut off");
    assert_whole(&texts, "post", posts);
    assert_whole(&texts, "chat", chats);
    assert_eq!(downstream.count("upstream lost, trying again"), 0);
    let mut texts = Vec::new();
    loop {
        let event = foreign.event().await;
        if text(&event) == "end" {
            break;
        }
        texts.push(text(&event).to_owned());
    }
    assert_whole(&texts, "post", posts);
    assert_whole(&texts, "chat", chats);
}

#[tokio::test]
async fn ids_names_and_history_go_on_however_often() {
    let place = Place::new();
    let args = ["--accept-publish", "--history-count", "3"];
    let mut hop = place.first(&args).await;
    let mut subscriber = hop.subscribe().await;
    let instance = hop.index().await["instance"].clone();
    let name = [
        ("ce-id", "one"),
        ("ce-source", "/test"),
        ("ce-specversion", "1.0"),
    ];
    let first = publish(hop.address, &name, "named").await;
    assert_eq!(text(&subscriber.message().await), "named");
    for round in 0..3 {
        let next = place.next(&hop, &args).await;
        hop.stops_well().await;
        hop = next;
        assert_eq!(hop.index().await["instance"], instance);
        assert_eq!(publish(hop.address, &name, "named").await, first);
        let id = hop.id(round + 2).await;
        let own = publish(hop.address, &[], &round.to_string()).await;
        assert!(own.contains(&id), "{own} is not {id}");
        assert_eq!(text(&subscriber.message().await), round.to_string());
    }
    let after = hop.id(2).await;
    let mut stream = Stream::open(
        hop.address,
        "/events",
        &[("Accept", "text/event-stream"), ("Last-Event-ID", &after)],
    )
    .await;
    assert_eq!(stream.head.header("wsevent-resumed"), "yes");
    assert_eq!(stream.event().await.data, "1");
    assert_eq!(stream.event().await.data, "2");
    assert!(Path::new(&place.path()).exists());
    hop.signal(rustix::process::Signal::INT);
    assert_eq!(subscriber.closed().await, 1001);
    hop.stops_well().await;
    assert!(!Path::new(&place.path()).exists(), "it is taken away");
}

#[tokio::test]
async fn readers_that_cannot_be_handed_over_come_back_without_a_loss() {
    let place = Place::new();
    let mut old = place.first(&["--accept-publish"]).await;
    let address = old.address;
    let accept = [("Accept", "text/event-stream")];
    let mut stream = Stream::open(address, "/events", &accept).await;
    publish(address, &[], "a").await;
    let last = stream.event().await;
    assert_eq!(last.data, "a");
    let _new = place.next(&old, &["--accept-publish"]).await;
    publish(address, &[], "b").await;
    let pause = stream.block().await.expect("when to come back");
    assert!(pause.starts_with("retry: "), "{pause}");
    stream.ended().await;
    let headers = [accept[0], ("Last-Event-ID", last.id())];
    let mut stream = Stream::open(address, "/events", &headers).await;
    assert_eq!(stream.head.header("wsevent-resumed"), "yes");
    assert_eq!(stream.event().await.data, "b");
    old.stops_well().await;
}

#[tokio::test]
async fn what_comes_from_upstream_is_whole_over_either_transport() {
    let source = Hop::start(&["--accept-publish"]).await;
    for scheme in ["ws", "http"] {
        let place = Place::new();
        let url = format!("{scheme}://{}/events", source.address);
        let mut old = place.first(&["--consume", &url]).await;
        old.logged("upstream connected").await;
        let reading = tokio::spawn(all(old.subscribe().await));
        let address = source.address;
        let (stop, over) = tokio::sync::oneshot::channel();
        let posting = tokio::spawn(post(address, "post", over));
        let new = place.next(&old, &["--consume", &url]).await;
        old.stops_well().await;
        new.logged("upstream connected").await;
        stop.send(()).expect("it runs");
        let count = posting.await.expect("all were taken");
        publish(address, &[], "end").await;
        let texts = within_guard(scheme, reading).await;
        assert_whole(&texts.expect("it was not cut off"), "post", count);
    }
}

#[tokio::test]
async fn what_a_foreign_server_sent_meanwhile_is_told_as_a_gap() {
    let place = Place::new();
    let upstream = Upstream::new();
    let url = upstream.url();
    let mut old = place.first(&["--consume", &url]).await;
    let mut link = upstream.accept().await;
    old.logged("upstream connected").await;
    let mut subscriber = old.subscribe().await;
    for sent in ["a", "b"] {
        link.send(Message::text(sent)).await;
        assert_eq!(text(&subscriber.message().await), sent);
    }
    let new = place.next(&old, &["--consume", &url]).await;
    let mut link = upstream.accept().await;
    new.logged("upstream connected").await;
    link.send(Message::text("c")).await;
    assert_eq!(text(&subscriber.message().await), "c");
    let accept = [("Accept", "application/x-ndjson")];
    let mut all = Stream::open(new.address, "/events?history=all", &accept).await;
    for expected in ["a", "b"] {
        assert_eq!(all.object().await["data"], expected);
    }
    let gap = all.object().await;
    assert_eq!(gap["lost"], serde_json::Value::Null, "{gap}");
    assert_eq!(all.object().await["data"], "c");
    old.stops_well().await;
}

#[tokio::test]
async fn produced_events_are_counted_on() {
    let place = Place::new();
    let args = ["--produce-rate", "500"];
    let mut old = place.first(&args).await;
    let mut subscriber = old.subscribe().await;
    let number = |message: Message| -> u64 {
        let number = text(&message)
            .split(' ')
            .next()
            .and_then(|it| it.parse().ok());
        number.expect("a number comes first")
    };
    let first = number(subscriber.message().await);
    let new = place.next(&old, &args).await;
    old.stops_well().await;
    for expected in first + 1..first + 500 {
        assert_eq!(number(subscriber.message().await), expected);
    }
    drop(new);
}

#[tokio::test]
async fn a_stream_that_is_no_more_is_ended_by_the_old_process() {
    let place = Place::new();
    let mut old = place.first(&["--accept-publish"]).await;
    let subscriber = old.subscribe().await;
    let args = ["--accept-publish", "--serve-path", "/others"];
    let new = place.next(&old, &args).await;
    new.logged_where(
        "there is no such stream any more, or it holds something else: its subscribers are told to connect again",
        |line| line.field("stream") == "/events",
    )
    .await;
    assert_eq!(subscriber.closed().await, 1012);
    old.stops_well().await;
}

#[tokio::test]
async fn another_address_is_an_error_and_changes_nothing() {
    let place = Place::new();
    let old = place.first(&["--accept-publish"]).await;
    let mut subscriber = old.subscribe().await;
    let path = place.path();
    let args = ["--takeover", &path, "--serve-address", "127.0.0.2:1"];
    let said = output(&args, &[]).await;
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(1), "{errors}");
    assert!(errors.contains("the address must be the same"), "{errors}");
    publish(old.address, &[], "still here").await;
    assert_eq!(text(&subscriber.message().await), "still here");
}

#[tokio::test]
async fn who_is_no_wsevent_is_not_taken_over_from() {
    let place = Place::new();
    let path = place.path();
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("the path is free");
    let foreign = std::thread::spawn(move || {
        use std::io::Write;
        let (mut socket, _) = listener.accept().expect("it comes");
        let _ = socket.write_all(b"220 mail.example ESMTP\r\n");
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut socket, &mut rest);
        drop(listener);
    });
    let args = ["--takeover", &path, "--serve-address", "127.0.0.1:0"];
    let said = output(&args, &[]).await;
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("does not speak as wsevent does"),
        "{errors}"
    );
    foreign.join().expect("it ends");

    // Nobody listens at its socket any more, so it is in nobody's use.
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        let file = std::fs::metadata(path).expect("it is there");
        file.permissions().mode() & 0o777
    };
    assert!(Path::new(&path).exists());
    let hop = place.first(&[]).await;
    assert_eq!(mode(&path), 0o600);
    drop(hop);

    let file = place.0.path().join("file");
    std::fs::write(&file, "precious").expect("the folder is ours");
    let args = ["--takeover", file.to_str().expect("it is plain")];
    let said = output(&args, &[]).await;
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(errors.contains("something else than a socket"), "{errors}");
    assert_eq!(std::fs::read(&file).expect("it is there"), b"precious");
}
