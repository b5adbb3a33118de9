//! The hop link between instances: who has spoken docs/protocol.md on one side, and the real binary on the other.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async};

use crate::harness::events::{MIB, bytes, numbered, text};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::{Link, Upstream};
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

/// A link to a hop, as another hop would have it.
pub struct Down(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Down {
    /// Shakes hands and says `hello`.
    pub async fn connect(address: SocketAddr, hello: &str) -> Self {
        let down = Self::try_connect(address, hello).await;
        down.expect("a good handshake")
    }

    /// The same with a server that may be about to go, or not be there.
    pub async fn try_connect(address: SocketAddr, hello: &str) -> Option<Self> {
        let url = format!("ws://{address}/events");
        let mut request = url.into_client_request().expect("a URL");
        let subprotocol = "wsevent.v1".parse().expect("a header");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", subprotocol);
        let connecting = connect_async(request);
        let (mut socket, answer) = within_guard("a handshake", connecting).await.ok()?;
        assert_eq!(answer.headers()["sec-websocket-protocol"], "wsevent.v1");
        assert_eq!(answer.headers()["wsevent-instance"].len(), 13);
        socket.send(Message::text(hello)).await.ok()?;
        Some(Self(socket))
    }

    async fn say(&mut self, line: &str) {
        self.0.send(Message::text(line)).await.expect("it reads");
    }

    /// The next message; none when the connection has ended, in whatever way.
    pub async fn try_next(&mut self) -> Option<Message> {
        loop {
            let message = within_guard("a message", self.0.next()).await;
            match message?.ok()? {
                Message::Ping(_) => {}
                message => return Some(message),
            }
        }
    }

    async fn next(&mut self) -> Message {
        self.try_next().await.expect("it is open")
    }

    /// The next message, which must be text.
    pub async fn line(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not text: {other:?}"),
        }
    }

    /// The next event: its number and its payload.
    pub async fn event(&mut self) -> (u64, String) {
        let mut message = self.line().await;
        // It may change at any time.
        while message.starts_with("!path ") {
            message = self.line().await;
        }
        let (line, payload) = message.split_once('\n').expect("an event");
        let id = line.split(' ').next().expect("an id");
        let (_, seq) = id.rsplit_once('-').expect("a number in the id");
        (seq.parse().expect("a number"), payload.to_owned())
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.map_or(1005, |frame| frame.code.into());
            }
        }
    }
}

/// What a line says behind `name=`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The number in the id that a line says behind `name=`.
fn seq(line: &str, name: &str) -> Option<u64> {
    field(line, name)?.rsplit_once('-')?.1.parse().ok()
}

/// A hop with so many numbered events, and what feeds it.
async fn hop_with(count: usize, args: &[&str]) -> (Link, Hop) {
    let (mut link, hop) = Hop::fed(args).await;
    let mut seen = hop.subscribe().await;
    link.send_all(&numbered(count)).await;
    seen.messages(count).await;
    (link, hop)
}

#[tokio::test]
async fn an_event_is_a_line_and_its_payload_unchanged() {
    let (mut link, hop) = Hop::fed(&[]).await;
    let mut down = Down::connect(hop.address, "!hello from=live").await;
    let welcome = down.line().await;
    assert!(welcome.starts_with("!welcome backlog=0 "), "{welcome}");
    let path = field(&welcome, "path").expect("a path");
    let (instance, address) = path.split_once('@').expect("an instance");
    assert_eq!(address, hop.address.to_string());
    let two_lines = "two\nlines é";
    link.send(Message::text(two_lines)).await;
    link.send(Message::binary(bytes(1_000))).await;
    link.send(Message::text("")).await;
    let first = down.line().await;
    let (line, payload) = first.split_once('\n').expect("a line and a payload");
    assert_eq!(payload, two_lines);
    assert!(line.starts_with(&format!("{instance}-1 t=")), "{line}");
    match down.next().await {
        Message::Binary(message) => {
            let end = message.iter().position(|&byte| byte == b'\n');
            assert_eq!(message[end.expect("a line") + 1..], bytes(1_000));
        }
        other => panic!("binary stays binary: {other:?}"),
    }
    assert_eq!(down.event().await, (3, String::new()));
}

#[tokio::test]
async fn a_link_begins_where_it_says() {
    let (_link, hop) = hop_with(10, &[]).await;
    for (hello, backlog, first) in [
        ("!hello", 10, Some(1)),
        ("!hello from=all", 10, Some(1)),
        ("!hello from=first", 10, Some(1)),
        ("!hello from=3", 3, Some(8)),
        ("!hello from=live", 0, None),
    ] {
        let mut down = Down::connect(hop.address, hello).await;
        let welcome = down.line().await;
        assert_eq!(field(&welcome, "backlog"), Some(&*backlog.to_string()));
        if let Some(first) = first {
            let expected = (first, format!("event {}", first - 1));
            assert_eq!(down.event().await, expected, "{hello}");
        }
    }
}

#[tokio::test]
async fn a_link_goes_on_behind_what_it_has() {
    let (mut link, hop) = hop_with(10, &[]).await;
    let mut down = Down::connect(hop.address, "!hello").await;
    let welcome = down.line().await;
    let origin = field(&welcome, "path").expect("a path")[..13].to_owned();
    drop(down);
    let hello = format!("!hello have={origin}-7,0000000000001-5");
    let mut again = Down::connect(hop.address, &hello).await;
    let welcome = again.line().await;
    assert_eq!(field(&welcome, "resumed"), Some("yes"), "{welcome}");
    assert_eq!(field(&welcome, "backlog"), Some("3"), "{welcome}");
    link.send(Message::text("event 10")).await;
    for number in 8..=11 {
        let expected = (number, format!("event {}", number - 1));
        assert_eq!(again.event().await, expected);
    }
}

#[tokio::test]
async fn what_is_gone_is_told_exactly() {
    let (_link, hop) = hop_with(10, &["--history-count", "3"]).await;
    let mut down = Down::connect(hop.address, "!hello from=all").await;
    let welcome = down.line().await;
    assert_eq!(down.event().await.0, 8, "all that is held, without a gap");
    let origin = field(&welcome, "path").expect("a path")[..13].to_owned();
    for (hello, lost, after) in [
        (format!("!hello have={origin}-2"), "5", Some(2)),
        ("!hello from=first".to_owned(), "7", None),
    ] {
        let mut down = Down::connect(hop.address, &hello).await;
        let welcome = down.line().await;
        assert_eq!(field(&welcome, "resumed"), Some("partial"), "{welcome}");
        let gap = down.line().await;
        assert!(gap.starts_with("!gap "), "{gap}");
        assert_eq!(field(&gap, "lost"), Some(lost), "{gap}");
        assert_eq!((seq(&gap, "after"), seq(&gap, "next")), (after, Some(8)));
        assert_eq!(down.event().await.0, 8);
    }
}

#[tokio::test]
async fn who_does_not_say_hello_is_sent_away() {
    let hop = Hop::quiet(&[]).await;
    for wrong in [
        "hello",
        "",
        "!welcome backlog=0",
        "!hello have=nothing",
        "!hello from=yesterday",
        "0000000000001-1 t=1\nevent",
    ] {
        let mut down = Down::connect(hop.address, wrong).await;
        assert_eq!(down.close_code().await, 1002, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_link_only_listens() {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut down = Down::connect(hop.address, "!hello from=live").await;
    down.line().await;
    down.say("an event that nobody has asked for").await;
    assert_eq!(down.close_code().await, 1003);
}

#[tokio::test]
async fn hops_find_each_other_and_tell_the_path() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let (_link, first) = Hop::fed(&[]).await;
    let args = ["--consume", &first.url, "--serve-address", &address];
    let mut second = Hop::start(&args).await;
    let third = Hop::consuming(&second.url).await;
    let connected = second.logged("subscriber connected").await;
    assert_eq!(connected.field("transport"), "hop");
    let mut down = Down::connect(third.address, "!hello").await;
    let welcome = down.line().await;
    let addresses = |line: &str| -> Vec<String> {
        let path = field(line, "path").expect("a path");
        let instances = path.split(',').filter_map(|hop| hop.split_once('@'));
        instances.map(|(_, address)| address.to_owned()).collect()
    };
    let expected = [&third, &second, &first].map(|hop| hop.address.to_string());
    assert_eq!(addresses(&welcome), expected);
    // The one in the middle comes back with another id.
    second.signal(Signal::KILL);
    second.exit().await;
    let _second = Hop::start(&args).await;
    let changed = down.line().await;
    assert!(changed.starts_with("!path "), "{changed}");
    assert_eq!(addresses(&changed), expected);
    assert_ne!(field(&changed, "path"), field(&welcome, "path"));
}

#[tokio::test]
async fn a_server_that_refuses_the_offer_is_read_raw_and_not_asked_again() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    let mut socket = upstream.accept_socket().await;
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        within_guard("a request", socket.read_exact(&mut byte))
            .await
            .expect("a request");
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).expect("a request is text");
    assert!(request.contains("wsevent.v1"), "{request}");
    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    socket.write_all(refusal).await.expect("it reads");
    let mut link = upstream.accept().await;
    assert_eq!(link.header("sec-websocket-protocol"), "");
    let mut subscriber = hop.subscribe().await;
    link.send(Message::text("raw")).await;
    assert_eq!(subscriber.message().await, Message::text("raw"));
    link.reset();
    let link = upstream.accept().await;
    assert_eq!(link.header("sec-websocket-protocol"), "");
    assert_eq!(hop.count("upstream lost"), 1);
}

#[tokio::test]
async fn a_gap_that_nobody_can_count_is_passed_on() {
    let (upstream, mut link, first) = Hop::connected(&[], &[]).await;
    let second = Hop::consuming(&first.url).await;
    let mut down = Down::connect(second.address, "!hello").await;
    down.line().await;
    link.send(Message::text("before")).await;
    assert_eq!(down.event().await, (1, "before".into()));
    link.reset();
    let mut link = upstream.accept().await;
    first.logged_times("upstream connected", 2).await;
    link.send(Message::text("behind")).await;
    let gap = down.line().await;
    assert!(gap.starts_with("!gap "), "{gap}");
    assert_eq!((seq(&gap, "after"), seq(&gap, "next")), (Some(1), Some(2)));
    assert_eq!(field(&gap, "lost"), None, "{gap}");
    assert_eq!(down.event().await, (2, "behind".into()));
}

#[tokio::test]
async fn an_event_that_is_too_large_is_a_gap_and_no_end() {
    let (mut link, first) = Hop::fed(&[]).await;
    let args = ["--consume", &first.url, "--max-message-size", "100KiB"];
    let second = Hop::start(&args).await;
    second.logged("upstream connected").await;
    let mut down = Down::connect(second.address, "!hello").await;
    down.line().await;
    for event in [text(10), text(MIB), text(100 << 10)] {
        link.send(Message::text(event)).await;
    }
    assert_eq!(down.event().await, (1, text(10)));
    let gap = down.line().await;
    assert_eq!(field(&gap, "lost"), Some("1"), "{gap}");
    assert_eq!(down.event().await, (3, text(100 << 10)));
    assert_eq!(second.count("upstream lost"), 0);
}

#[tokio::test]
async fn a_circle_repeats_nothing() {
    let ports = [ReservedPort::new(), ReservedPort::new()];
    let address = |index: usize| ports[index].address().to_string();
    let mut hops = vec![];
    let upstream = Upstream::new();
    for index in 0..2 {
        let next = format!("ws://{}/events", address(1 - index));
        let (serve, feed) = (address(index), upstream.url());
        let mut args = vec!["--serve-address", &serve, "--consume", &next];
        if index == 0 {
            args.extend(["--consume", &feed]);
        }
        hops.push(Hop::start(&args).await);
    }
    let mut link = upstream.accept().await;
    for (hop, times) in hops.iter().zip([2, 1]) {
        hop.logged_times("upstream connected", times).await;
    }
    let mut down = vec![];
    for hop in &hops {
        let mut link = Down::connect(hop.address, "!hello").await;
        link.line().await;
        down.push(link);
    }
    link.send_all(&numbered(100)).await;
    for down in &mut down {
        let mut number = 0;
        while number < 100 {
            let message = down.line().await;
            if !message.starts_with('!') {
                assert!(message.ends_with(&format!("\nevent {number}")), "{message}");
                number += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_relay_that_starts_gets_the_past_and_its_subscribers_do_not() {
    let (mut link, first) = hop_with(10, &[]).await;
    let second = Hop::consuming(&first.url).await;
    let mut live = second.subscribe().await;
    let mut down = Down::connect(second.address, "!hello from=all").await;
    let welcome = down.line().await;
    assert_eq!(field(&welcome, "backlog"), Some("10"), "{welcome}");
    link.send(Message::text("news")).await;
    assert_eq!(live.message().await, Message::text("news"));
    for number in 1..=10 {
        assert_eq!(
            down.event().await,
            (number, format!("event {}", number - 1))
        );
    }
    assert_eq!(down.event().await, (11, "news".into()));
}

#[tokio::test]
async fn what_a_producer_says_before_its_relay_finds_it_is_news() {
    let port = ReservedPort::new();
    let url = format!("ws://{}/events", port.address());
    let relay = Hop::start(&["--consume", &url]).await;
    let mut subscriber = relay.subscribe().await;
    let address = port.address().to_string();
    let args = ["--serve-address", &address, "--produce-rate", "50"];
    let _producer = Hop::start(&args).await;
    let Message::Text(event) = subscriber.message().await else {
        panic!("what is produced is text");
    };
    assert!(event.starts_with("1 "), "the first of all: {event}");
}

/// A server that has taken the offer to be a hop link.
pub struct Up(WebSocketStream<TcpStream>);

impl Up {
    pub const ID: &str = "0H3B6Q2ZK7M9T";

    /// Takes the next connection, and welcomes it with so many events to come; what it has said.
    async fn welcome(upstream: &Upstream, backlog: usize) -> (Self, String) {
        let (mut up, hello) = Self::silent(upstream).await;
        up.say(format!("!welcome backlog={backlog}")).await;
        (up, hello)
    }

    /// Takes the next connection, and what it says, and welcomes nobody.
    pub async fn silent(upstream: &Upstream) -> (Self, String) {
        let socket = upstream.accept_socket().await;
        // The signature is tungstenite's.
        #[expect(clippy::result_large_err)]
        let answer = |_: &Request, mut response: Response| {
            for (name, value) in [
                ("Sec-WebSocket-Protocol", "wsevent.v1"),
                ("Wsevent-Instance", Self::ID),
            ] {
                let value = value.parse().expect("a header");
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        };
        let shaking = accept_hdr_async(socket, answer);
        let socket = within_guard("a handshake", shaking).await;
        let mut up = Self(socket.expect("a good handshake"));
        let hello = within_guard("a hello", up.0.next()).await;
        let hello = hello.expect("it lives").expect("a message");
        (up, hello.into_text().expect("text").to_string())
    }

    async fn say(&mut self, line: String) {
        let sending = self.0.send(Message::text(line));
        within_guard("sending", sending).await.expect("it reads");
    }

    /// Sends these events, with a time long before anything here.
    async fn send(&mut self, seqs: std::ops::RangeInclusive<u64>) {
        for seq in seqs {
            self.say(format!("{}-{seq} t={seq}\nevent {seq}", Self::ID))
                .await;
        }
    }
}

/// The events that somebody gets who wants all.
async fn expect_all(hop: &Hop, count: u64) {
    let mut down = Down::connect(hop.address, "!hello").await;
    down.line().await;
    for seq in 1..=count {
        assert_eq!(down.event().await, (seq, format!("event {seq}")));
    }
}

#[tokio::test]
async fn what_was_missed_is_no_past_whatever_the_clock_upstream_says() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    let (mut up, _) = Up::welcome(&upstream, 0).await;
    up.send(1..=3).await;
    hop.logged("upstream connected").await;
    expect_all(&hop, 3).await;
    drop(up);
    let (mut up, hello) = Up::welcome(&upstream, 3).await;
    assert_eq!(seq(&hello, "have"), Some(3), "{hello}");
    up.send(4..=7).await;
    expect_all(&hop, 7).await;
}

#[tokio::test]
async fn a_past_that_comes_in_two_parts_is_whole() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    let (mut up, _) = Up::welcome(&upstream, 6).await;
    up.send(1..=3).await;
    drop(up);
    let (mut up, hello) = Up::welcome(&upstream, 3).await;
    assert_eq!(seq(&hello, "have"), Some(3), "{hello}");
    up.send(4..=7).await;
    hop.logged_times("upstream connected", 2).await;
    expect_all(&hop, 7).await;
}

#[tokio::test]
async fn a_past_may_end_with_what_is_too_large() {
    let upstream = Upstream::new();
    let args = ["--consume", &upstream.url(), "--max-message-size", "1KiB"];
    let hop = Hop::start(&args).await;
    let (mut up, _) = Up::welcome(&upstream, 3).await;
    up.send(1..=2).await;
    up.say(format!("{}-3 t=3\n{}", Up::ID, text(2 << 10))).await;
    hop.logged("an event above --max-message-size is passed over")
        .await;
    expect_all(&hop, 2).await;
}
