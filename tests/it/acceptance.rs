//! One hop with TLS and tokens before servers of many streams that nobody here wrote.

mod nchan;
mod peers;
mod refused;
mod upstreams;

use std::fmt::Write;

use futures_util::{StreamExt, stream};
use rustix::process::Signal;
use serde_json::json;

use crate::harness::authority::{Authority, Secure};
use crate::harness::client::body::Stream;
use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::frame::{CLOSE, close_payload};
use crate::harness::http2::Http2;
use crate::harness::tokens::{SECRET, jwt, line, now};
use crate::harness::wsevent::{Hop, allow_many_files};
use nchan::Nchan;

/// How the upstream is read, which is also what its channels and our paths begin with.
const KINDS: [&str; 2] = ["websocket", "sse"];
/// URLs of each kind.
const ROOMS: usize = 50;
/// Connections at each URL that have nothing but this one stream.
const ALONE: usize = 16;
/// HTTP/2 connections. Each reads the same room numbers of both kinds, and each URL in as many ways as there are.
const SHARED: usize = 10;
const ROOMS_SHARED: usize = ROOMS / SHARED;
const WAYS_SHARED: usize = 4;
const SUBSCRIBERS: usize = KINDS.len() * ROOMS * (ALONE + WAYS_SHARED);
/// Published on each channel.
const EVENTS: usize = 10;
/// So many connections are made at the same time.
const AT_ONCE: usize = 32;

const SSE: (&str, &str) = ("Accept", "text/event-stream");
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

/// A URL: how its upstream is read, and its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Feed(&'static str, usize);

impl Feed {
    fn all() -> impl Iterator<Item = Self> {
        KINDS
            .into_iter()
            .flat_map(|kind| (0..ROOMS).map(move |room| Self(kind, room)))
    }

    fn channel(self) -> String {
        format!("{}/room-{}", self.0, self.1)
    }

    fn path(self) -> String {
        format!("/{}", self.channel())
    }

    /// A token for nothing else, of the file or signed.
    fn token(self, signed: bool) -> String {
        match signed {
            true => claims([self]),
            false => format!("token-of-{}-{}", self.0, self.1),
        }
    }

    fn event(self, number: usize) -> String {
        format!("{number} in {}", self.channel())
    }
}

/// A JWT to read these.
fn claims(feeds: impl IntoIterator<Item = Feed>) -> String {
    let paths: Vec<_> = feeds.into_iter().map(Feed::path).collect();
    jwt(&json!({"sub": "reader", "exp": now() + 3_600, "wsevent.subscribe": paths}))
}

/// A hop with TLS and tokens that serves all channels, plainly read.
async fn hop_before(nchan: &Nchan, authority: &Authority) -> Hop {
    let routes = KINDS.into_iter().zip(["ws", "http"]).map(|(kind, scheme)| {
        let url = nchan.feeds(scheme, kind);
        format!("[[route]]\nserve-path = \"/{kind}/*\"\nconsume = {url:?}\n")
    });
    hop_with(authority, &routes.collect::<String>()).await
}

/// A hop with TLS, a token for each URL, and these routes.
async fn hop_with(authority: &Authority, routes: &str) -> Hop {
    let mut tokens = String::new();
    for feed in Feed::all() {
        let name = feed.channel().replace('/', "-");
        tokens += &line(&name, &feed.token(false), &feed.path(), "subscribe");
    }
    authority.write("tokens", &tokens);
    authority.write("secret", std::str::from_utf8(SECRET).expect("it is text"));
    let mut config = String::from("drain = \"1m\"\nlinger = \"100ms\"\nping-interval = \"1h\"\n");
    for (flag, name) in [
        ("tls-cert", "server.pem"),
        ("tls-key", "server-key.pem"),
        ("auth-token-file", "tokens"),
        ("jwt-keys", "secret"),
    ] {
        let file = authority.file(name);
        writeln!(config, "{flag} = {file:?}").expect("a String takes all");
    }
    authority.write("wsevent.toml", &(config + routes));
    let config = authority.file("wsevent.toml");
    Hop::start(&["--config", &config]).await
}

/// Somebody who reads, in one of the ways there are.
enum Subscriber {
    WebSocket(Client),
    Sse(Stream),
    Ndjson(Stream),
}

impl Subscriber {
    /// Number `number` of those that have a connection for themselves: transport, kind of token and its place differ.
    async fn alone(secure: &Secure, hop: &Hop, feed: Feed, number: usize) -> Self {
        let client = secure.connect(hop.address).await;
        let mut target = feed.path();
        let token = feed.token((number / 2 + feed.1).is_multiple_of(2));
        let is_websocket = number.is_multiple_of(2);
        let value;
        let credential = match number / 4 {
            0 => {
                value = format!("Bearer {token}");
                Some(("Authorization", &*value))
            }
            1 if is_websocket => {
                value = format!("bearer.{token}");
                Some(("Sec-WebSocket-Protocol", &*value))
            }
            2 => {
                value = format!("theme=dark; access_token={token}");
                Some(("Cookie", &*value))
            }
            _ => {
                target += &format!("?access_token={token}");
                None
            }
        };
        let credential: Vec<_> = credential.into_iter().collect();
        match number % 4 {
            1 => Self::Sse(Stream::on(client, &target, &[&credential[..], &[SSE]].concat()).await),
            3 => Self::Ndjson(
                Stream::on(client, &target, &[&credential[..], &[NDJSON]].concat()).await,
            ),
            _ => Self::WebSocket(upgraded(client, &target, &credential).await),
        }
    }

    /// All those of some rooms that share a connection.
    async fn sharing(authority: &Authority, hop: &Hop, number: usize) -> Vec<(Feed, Self)> {
        let mut http2 = Http2::secure(authority, hop).await;
        let is_ours = |feed: &Feed| feed.1 / ROOMS_SHARED == number;
        let token = format!("Bearer {}", claims(Feed::all().filter(is_ours)));
        let token = ("authorization", &*token);
        let version = ("sec-websocket-version", "13");
        let mut subscribers = vec![];
        for feed in Feed::all().filter(is_ours) {
            let path = feed.path();
            for way in 0..WAYS_SHARED {
                let subscriber = match way {
                    0 => Self::Sse(http2.read(&path, &[token, SSE]).await),
                    1 => Self::Ndjson(http2.read(&path, &[token, NDJSON]).await),
                    _ => Self::WebSocket(http2.open(&path, &[token, version]).await.1),
                };
                subscribers.push((feed, subscriber));
            }
        }
        subscribers
    }

    /// The next event.
    async fn event(&mut self) -> String {
        match self {
            Self::WebSocket(client) => client.message().await.to_string(),
            Self::Sse(body) => body.event().await.data,
            Self::Ndjson(body) => {
                let mut object = body.object().await;
                assert!(object["id"].is_string(), "{object}");
                serde_json::from_value(object["data"].take()).expect("a text")
            }
        }
    }

    /// Leaves.
    async fn leave(self) {
        match self {
            Self::WebSocket(mut client) => {
                client.send_frame(CLOSE, &close_payload(1000, b"")).await;
                assert_eq!(client.closed().await, 1000);
            }
            Self::Sse(body) | Self::Ndjson(body) => drop(body),
        }
    }

    /// Is told that the hop stops, and nothing before.
    async fn stopped(self) {
        match self {
            Self::WebSocket(client) => assert_eq!(client.closed().await, 1001),
            Self::Sse(mut body) | Self::Ndjson(mut body) => body.ended().await,
        }
    }
}

/// Makes a WebSocket of a connection, with a token.
async fn upgraded(mut client: Client, target: &str, credential: &[(&str, &str)]) -> Client {
    let headers = [&HANDSHAKE[..], credential].concat();
    let line = format!("GET {target} HTTP/1.1");
    client.send(request(&line, &headers)).await;
    let head = client.head().await;
    assert_eq!(head.status, 101, "{target} {head:?}");
    client
}

/// Two thousand subscribers, each with its URL.
async fn subscribers(authority: &Authority, hop: &Hop) -> Vec<(Feed, Subscriber)> {
    let secure = authority.client(None, &[]);
    let alone = (0..ALONE).flat_map(|number| Feed::all().map(move |feed| (feed, number)));
    let alone = stream::iter(alone)
        .map(async |(feed, number)| (feed, Subscriber::alone(&secure, hop, feed, number).await))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>();
    let sharing = stream::iter(0..SHARED)
        .map(|number| Subscriber::sharing(authority, hop, number))
        .buffer_unordered(SHARED)
        .concat();
    let (mut subscribers, sharing) = tokio::join!(alone, sharing);
    subscribers.extend(sharing);
    subscribers
}

#[tokio::test]
async fn a_hundred_urls_for_two_thousand_subscribers_are_a_hundred_connections() {
    allow_many_files();
    let mut nchan = Nchan::start().await;
    let authority = Authority::new();
    let mut hop = hop_before(&nchan, &authority).await;
    let mut all = subscribers(&authority, &hop).await;
    assert_eq!(all.len(), SUBSCRIBERS);
    let urls = Feed::all().count();
    assert_eq!((SUBSCRIBERS, urls), (2_000, 100));
    nchan.has_subscribers(urls).await;

    // Everyone gets what is published at their URL, in order and once: what they have had when they are closed is counted below.
    for number in 0..EVENTS {
        for feed in Feed::all() {
            nchan.publish(&feed.channel(), &feed.event(number)).await;
        }
    }
    for (feed, subscriber) in &mut all {
        for number in 0..EVENTS {
            assert_eq!(subscriber.event().await, feed.event(number));
        }
    }
    assert_eq!(nchan.subscribers().await, urls);
    assert_eq!(nchan.connections().await, urls);
    assert_eq!(hop.count("upstream connected"), urls);

    // The last one of two URLs leaves, and so does the hop there.
    let left = KINDS.map(|kind| Feed(kind, 0));
    let (leaving, mut rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(feed, _)| left.contains(feed));
    for (_, subscriber) in leaving {
        subscriber.leave().await;
    }
    nchan.has_subscribers(urls - left.len()).await;
    // Who comes then opens them anew.
    let secure = authority.client(None, &[]);
    for feed in left {
        let mut subscriber = Subscriber::alone(&secure, &hop, feed, 0).await;
        nchan.has_subscribers(urls - 1).await;
        nchan.publish(&feed.channel(), "back").await;
        assert_eq!(subscriber.event().await, "back");
        subscriber.leave().await;
        nchan.has_subscribers(urls - left.len()).await;
    }

    // Nothing more comes before the end.
    hop.signal(Signal::INT);
    let rest = rest.drain(..);
    stream::iter(rest.map(|(_, subscriber)| subscriber.stopped()))
        .buffer_unordered(SUBSCRIBERS)
        .collect::<()>()
        .await;
    hop.stops_well().await;
    nchan.has_subscribers(0).await;
    let ends = hop.log.all("subscriber disconnected");
    let had = |events: usize| {
        let had = ends.iter().map(|line| line.number("events"));
        had.filter(|had| *had == events as u64).count()
    };
    assert_eq!((had(EVENTS), had(1)), (SUBSCRIBERS, left.len()));
    assert_eq!(ends.len(), SUBSCRIBERS + left.len());
}
