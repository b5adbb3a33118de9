//! Reading a stream from outside, over one connection after the other: what `wsevent tail` and `wsevent record` have in common.

mod http;
mod websocket;

use std::borrow::Cow;
use std::mem;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use futures_util::SinkExt;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;
use tracing::{info, warn};
use url::Url;

use crate::event::{EventId, Gap, Merged, Snapshot};
use crate::source::Backoff;
use crate::source::http::client::{
    Answer, Client, EVENT_STREAM, NDJSON, NDJSON_OR_EVENT_STREAM, Stream,
};
use crate::source::presence::Named;
use crate::source::refusal::{Verdict, verdict};
use crate::source::upstream::Upstream;
use crate::source::websocket::{Connected, Offer, come_back};
use crate::wire::hop::{Begin, Control, Hello, Scope, StateWish};
use crate::wire::recording::Taken;
use websocket::Messages;

/// What becomes of what is read.
pub trait Sink {
    /// How many events it has taken.
    fn taken(&self) -> u64;

    /// Takes an event: how that ends the reading, if it does.
    fn take(&mut self, event: Taken) -> Result<Option<End>>;

    /// Nothing more has arrived for now.
    fn flush(&mut self) -> Result<Option<End>>;

    /// Events are missing here, and the log has been told.
    fn gap(&mut self, _: &Gap) -> Result<()> {
        Ok(())
    }

    /// Nobody knows what has been sent since the last event.
    fn interrupted(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What to read, and how.
pub struct Reading {
    /// The stream: one at least, and if there are more, each serves the same events. The scheme of their URLs is one of the transport's.
    pub upstreams: Vec<Upstream>,
    /// How to read it.
    pub transport: Transport,
    /// Where that is NDJSON, server-sent events will do as well.
    pub or_sse: bool,
    /// How much of its past is wanted: a number of events, or `all`.
    pub history: Option<String>,
    /// The event to begin behind.
    pub last_event_id: Option<String>,
    /// Of each origin the last event that is here from before.
    pub have: Vec<EventId>,
    /// There are events from before, whether or not they have ids.
    pub goes_on: bool,
    /// End with the connection.
    pub exit_on_close: bool,
}

/// What a stream can be read over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Messages of a WebSocket.
    Websocket,
    /// Server-sent events.
    Sse,
    /// One JSON object a line.
    Ndjson,
}

impl Transport {
    /// What the scheme of an event URL stands for.
    pub fn of(url: &Url) -> Self {
        match url.scheme() {
            "http" | "https" => Self::Sse,
            _ => Self::Websocket,
        }
    }

    /// The URL of the same stream with a scheme of this transport.
    pub fn mapped(self, mut url: Url) -> Url {
        let is_secure = matches!(url.scheme(), "https" | "wss");
        let scheme = match (self, is_secure) {
            (Self::Websocket, false) => "ws",
            (Self::Websocket, true) => "wss",
            (Self::Sse | Self::Ndjson, false) => "http",
            (Self::Sse | Self::Ndjson, true) => "https",
        };
        url.set_scheme(scheme)
            .expect("a host is all that these schemes want");
        url
    }
}

/// How one connection ended.
pub enum End {
    /// All that was asked for is here.
    Done,
    /// Nobody reads the output any more.
    OutputClosed,
    /// The server closed it in due form.
    Closed(anyhow::Error),
    /// It broke.
    Lost(anyhow::Error),
    /// There was none.
    Unreached(anyhow::Error),
}

/// A connection that has lasted for so long may be followed by the next without a pause, if that is made elsewhere.
const LASTED: Duration = Duration::from_secs(1);

impl Reading {
    /// Reads events into `sink` until that has enough; with `exit_on_close`, or until the connection ends, which is an error unless
    /// the server closed it.
    pub async fn run(self, sink: &mut impl Sink) -> Result<()> {
        let mut connections = Connections::new(&self);
        let count = self.upstreams.len();
        let mut told = false;
        // Attempts since the last pause, and refusals in a row.
        let (mut attempts, mut refusals) = (0, 0);
        loop {
            let begun = Instant::now();
            let end = connections.read_one(sink, &mut told).await?;
            attempts = match begun.elapsed() < LASTED || matches!(end, End::Unreached(_)) {
                true => attempts + 1,
                false => 0,
            };
            let is_round = attempts >= count;
            let (error, is_last) = match end {
                End::Done | End::OutputClosed => return Ok(()),
                End::Closed(_) if self.exit_on_close => return Ok(()),
                End::Lost(error) => (error, self.exit_on_close),
                End::Unreached(error) => (error, self.exit_on_close && is_round),
                End::Closed(error) => (error, false),
            };
            refusals = match verdict(&error) {
                Verdict::Refused { .. } => refusals + 1,
                Verdict::Away => 0,
            };
            let site = connections.site();
            let (url, reason) = (&site.shown, site.upstream.reason(&error));
            if is_last || count > 1 && refusals >= count {
                return Err(anyhow!(reason)).context(url.clone());
            }
            if !told {
                match (connections.were_there, count) {
                    (true, 1) => warn!(url, %reason, "connection lost, trying again"),
                    (false, 1) => warn!(url, %reason, "cannot connect, trying again"),
                    (true, _) => warn!(url, %reason, "connection lost, trying the next URL"),
                    (false, _) => warn!(url, %reason, "cannot connect, trying the next URL"),
                }
                told = true;
            }
            connections.current = (connections.current + 1) % count;
            if count == 1 || is_round {
                attempts = 0;
                let backoff = &mut connections.backoff;
                backoff.come_back_in(come_back(&error));
                sleep(backoff.pause()).await;
            }
        }
    }

    /// The URL that says where to begin.
    fn first_url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        let wishes = [
            ("history", &self.history),
            ("last_event_id", &self.last_event_id),
        ];
        for (name, value) in wishes {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }
}

/// Where connections are made to.
struct Site {
    upstream: Upstream,
    /// For the log.
    shown: String,
    /// Says where to begin. Once something has come, it would bring that again.
    first_url: Url,
    way: Way,
}

/// One connection after the other.
struct Connections {
    sites: Vec<Site>,
    /// The site whose turn it is.
    current: usize,
    backoff: Backoff,
    /// One at least has been made.
    were_there: bool,
    /// Of each origin the last event that came over a hop link.
    have: Vec<EventId>,
    /// There are events from before the first.
    goes_on: bool,
    /// The event to begin behind.
    last_event_id: Option<String>,
}

/// What connections are made with.
enum Way {
    WebSocket(Box<WebSocket>),
    Http(Box<Client>),
}

/// A connection that has been made.
enum Connection {
    WebSocket(Box<Connected>),
    Http(Box<Stream>),
}

/// How WebSockets are made.
struct WebSocket {
    upstream: Upstream,
    offer: Offer,
    /// Where a hop link begins; none if only the URL can say it.
    begin: Option<Begin>,
}

impl WebSocket {
    fn new(reading: &Reading, upstream: &Upstream) -> Self {
        let begin = match (&reading.last_event_id, reading.history.as_deref()) {
            (Some(id), _) => id.parse().ok().map(Begin::After),
            (None, None) => Some(Begin::Live),
            (None, Some("all")) => Some(Begin::All),
            (None, Some(count)) => count.parse().ok().map(Begin::Last),
        };
        Self {
            upstream: upstream.clone(),
            offer: Offer::default(),
            begin,
        }
    }

    /// Connects once, as a hop link if the server is a hop: then it can be told what has come.
    async fn connect(&mut self, url: Url, have: &[EventId]) -> Result<Connected> {
        self.upstream.url = url;
        let Some(begin) = self.begin else {
            return self.upstream.connect_raw().await;
        };
        let mut connected = self.offer.connect(&self.upstream).await?;
        if !connected.is_hop {
            return Ok(connected);
        }
        let hello = Control::Hello(Hello {
            id: None,
            have: have.to_vec(),
            from: if have.is_empty() { begin } else { Begin::First },
            state: self.state_wish(),
            scope: Scope::All,
        });
        let hello = Message::text(hello.to_string());
        connected.link.send(hello).await?;
        Ok(connected)
    }
}

impl WebSocket {
    /// What the URL says of the state of the stream, as a server that is asked for that URL would take it.
    fn state_wish(&self) -> StateWish {
        let mut query = self.upstream.url.query_pairs();
        let is_no = |(name, value): (Cow<'_, str>, Cow<'_, str>)| {
            name == "snapshot" && matches!(&*value, "no" | "0")
        };
        match query.any(is_no) {
            true => StateWish::No,
            false => StateWish::Missed,
        }
    }
}

impl Connections {
    fn new(reading: &Reading) -> Self {
        let http = |upstream: &Upstream, accept| {
            let client = Client::new(upstream.clone().into(), accept);
            Way::Http(Box::new(client))
        };
        let site = |upstream: &Upstream| Site {
            upstream: upstream.clone(),
            shown: upstream.to_string(),
            first_url: reading.first_url(&upstream.url),
            way: match reading.transport {
                Transport::Websocket => Way::WebSocket(Box::new(WebSocket::new(reading, upstream))),
                Transport::Sse => http(upstream, EVENT_STREAM),
                Transport::Ndjson if reading.or_sse => http(upstream, NDJSON_OR_EVENT_STREAM),
                Transport::Ndjson => http(upstream, NDJSON),
            },
        };
        Self {
            sites: reading.upstreams.iter().map(site).collect(),
            current: 0,
            backoff: Backoff::new(),
            were_there: false,
            have: reading.have.clone(),
            goes_on: reading.goes_on,
            last_event_id: reading.last_event_id.clone(),
        }
    }

    fn site(&self) -> &Site {
        &self.sites[self.current]
    }

    /// Connects once; none if the server says that there is nothing more to come.
    async fn connect(&mut self, url: Url) -> Result<Option<Connection>> {
        match &mut self.sites[self.current].way {
            Way::WebSocket(websocket) => {
                let connected = websocket.connect(url, &self.have).await?;
                Ok(Some(Connection::WebSocket(Box::new(connected))))
            }
            Way::Http(client) => {
                client.set_url(url);
                // Other people's servers know the header only.
                client.resume_after(self.last_event_id.as_deref());
                Ok(match client.open().await? {
                    Answer::Stream(stream) => Some(Connection::Http(stream)),
                    Answer::NoContent => None,
                })
            }
        }
    }

    /// Connects once and reads what comes. `told` says whether the log has been told of a loss, and so has to hear of a
    /// connection.
    async fn read_one(&mut self, sink: &mut impl Sink, told: &mut bool) -> Result<End> {
        let taken = sink.taken();
        let url = match taken {
            0 => self.site().first_url.clone(),
            _ => self.site().upstream.url.clone(),
        };
        let connection = match self.connect(url).await {
            Ok(Some(connection)) => connection,
            Ok(None) => {
                info!(
                    url = self.site().shown,
                    "the stream has ended: the server answered 204"
                );
                return Ok(End::Done);
            }
            Err(error) => return Ok(End::Unreached(error)),
        };
        if let Connection::WebSocket(connected) = &connection {
            // Over a raw WebSocket it is said nowhere else.
            if connected.falls_short && !connected.is_hop && taken == 0 {
                self.warn_of_wish();
            }
        }
        let resumes = match &connection {
            Connection::WebSocket(connected) => connected.is_hop,
            Connection::Http(_) => self.last_event_id.is_some(),
        };
        if !resumes && (taken > 0 || self.goes_on) {
            sink.interrupted()?;
        }
        let mut since = None;
        let is_one_of_several = self.sites.len() > 1;
        let site = &self.sites[self.current];
        let mut tell = || {
            if mem::take(told) || is_one_of_several {
                match self.were_there {
                    true => info!(url = site.shown, "connected again"),
                    false => info!(url = site.shown, "connected"),
                }
            }
            self.were_there = true;
            since = Some(Instant::now());
        };
        let end = match connection {
            Connection::WebSocket(connected) => {
                let (link, upstream) = (connected.link, &site.upstream);
                let messages = match connected.is_hop {
                    true => Messages::of_hop(&mut self.have, &site.shown),
                    false => Messages::of_others(&upstream.talk, &site.shown),
                };
                let interval = upstream.ping_interval;
                messages.read(sink, link, interval, tell).await
            }
            Connection::Http(mut stream) => {
                tell();
                let backoff = &mut self.backoff;
                let end = http::read(sink, &mut stream, backoff, &site.shown).await;
                // With none, it is unknown where the next one goes on; with an empty one, so it wants to be.
                if let Some(id) = stream.last_event_id() {
                    self.last_event_id = Some(id.to_owned());
                }
                end
            }
        };
        if let Some(since) = since {
            let brought_events = sink.taken() > taken;
            self.backoff.connection_ended(since, brought_events);
        }
        end
    }

    /// The server does not know where to begin, or has no longer all that followed.
    fn warn_of_wish(&self) {
        if let Some(id) = &self.last_event_id {
            let gap = Gap {
                after: Some(id.as_str().into()),
                next: None,
                lost: None,
            };
            warn_of(&gap, &self.site().shown);
        }
    }
}

/// Tells of a gap where it does not get in the way of events. `url` is where it was.
fn warn_of(gap: &Gap, url: &str) {
    let next = gap.next.map(|next| next.to_string());
    // It comes from the server and goes to a terminal.
    let after = gap
        .after
        .as_deref()
        .map(|after| after.escape_debug().to_string());
    warn!(url, after, next, lost = gap.lost, "events are missing");
}

/// Tells of the state that the stream begins with.
fn tell_of_snapshot(boundary: &Snapshot, url: &str) {
    match boundary {
        Snapshot::Begin { count } => info!(url, count, "the state of the stream comes first"),
        Snapshot::End { .. } => info!(url, "the state of the stream is here"),
    }
}

/// Tells that events were merged because they were not read fast enough.
fn warn_of_merged(merged: &Merged, url: &str) {
    let id = |id: Option<EventId>| id.map(|id| id.to_string());
    let (after, next) = (id(merged.after), id(merged.next));
    warn!(
        url,
        after,
        next,
        merged = merged.merged,
        "events were merged"
    );
}
