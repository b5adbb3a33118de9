//! The pages for a person in a browser, and the list of streams.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use rand::RngExt;
use serde::Serialize;

use crate::bus::figures::Figures;
use crate::stream::EventLog;
use crate::stream::merge::figures::Counts;
use crate::stream::via::{self, Via};
use crate::wire::hop::Instance;

/// Shows one stream as it flows.
const STREAM: &str = include_str!("page/stream.html");
/// Lists the streams.
const INDEX: &str = include_str!("page/index.html");

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Of a stream.
    Stream,
    /// Of this instance.
    Index,
}

/// A page and its headers. Nothing in it may run or be shown but what has the nonce, which is another one each time (W3C
/// Content Security Policy Level 3, section 2.3.1).
pub fn page(page: Page) -> (HeaderMap, Bytes) {
    let nonce = format!("{:032x}", rand::rng().random::<u128>());
    let text = match page {
        Page::Stream => STREAM,
        Page::Index => INDEX,
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("a nonce is hexadecimal");
    let headers = HeaderMap::from_iter([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CONTENT_SECURITY_POLICY, policy),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("accept")),
    ]);
    (headers, text.replace("{{nonce}}", &nonce).into())
}

/// A list of streams.
#[derive(Debug, Serialize)]
pub struct Index<'a> {
    /// The process.
    pub instance: String,
    /// Where it serves, in its own words.
    pub address: &'a str,
    /// Routes whose streams come and go.
    pub routes: Vec<Route>,
    /// The streams, in the order of their names, or some of them.
    pub streams: Vec<Stream>,
    /// Where the list goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A route whose streams come and go.
#[derive(Debug, Serialize)]
pub struct Route {
    /// Its pattern.
    pub path: String,
    /// How many streams there are.
    pub streams: usize,
    /// Whether clients may publish.
    pub publish: bool,
}

/// A stream.
#[derive(Debug, Serialize)]
pub struct Stream {
    path: String,
    /// The instance that its own events are named after.
    origin: String,
    /// Events a second.
    rate: f64,
    /// Since start.
    events: u64,
    subscribers: usize,
    publish: bool,
    via: Vec<Hop>,
    upstreams: Vec<Upstream>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    buses: Vec<Bus>,
}

/// What a stream is made of.
#[derive(Debug, Serialize)]
pub struct Upstream {
    url: Box<str>,
    connected: bool,
    /// It is an instance like this one.
    #[serde(skip_serializing_if = "is_false")]
    peer: bool,
    /// It is used only while the others are away.
    #[serde(skip_serializing_if = "is_false")]
    standby: bool,
    #[serde(flatten)]
    beside_others: Option<BesideOthers>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "that is how serde asks")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What an upstream has brought, where there are several.
#[derive(Debug, Serialize)]
struct BesideOthers {
    /// Events that it has brought first.
    wins: u64,
    /// Events that were here already.
    repeated: u64,
    /// How often it has skipped something.
    holes: u64,
    /// How often others have brought that before it was called a gap.
    filled: u64,
    /// How much later it brings what is here already, in microseconds.
    lag: Option<u64>,
}

impl From<Counts> for BesideOthers {
    fn from(counts: Counts) -> Self {
        Self {
            wins: counts.wins,
            repeated: counts.repeated,
            holes: counts.holes,
            filled: counts.filled,
            lag: counts.lag,
        }
    }
}

/// A connection to a bus.
#[derive(Debug, Serialize)]
pub struct Bus {
    url: String,
    /// Where events go: `in` from the bus, or `out` to it.
    way: &'static str,
    connected: bool,
    /// That have gone over it.
    events: u64,
    /// That were not taken, and never will be.
    refused: u64,
    /// That are known to be missing.
    lost: u64,
}

/// An instance that a stream comes through.
#[derive(Debug, Serialize)]
pub struct Hop {
    id: String,
    address: Box<str>,
}

impl From<Instance> for Hop {
    fn from(instance: Instance) -> Self {
        Self {
            id: instance.id.to_string(),
            address: instance.address,
        }
    }
}

impl From<via::Upstream> for Upstream {
    fn from(upstream: via::Upstream) -> Self {
        Self {
            beside_others: upstream.counts().map(BesideOthers::from),
            url: upstream.url,
            connected: upstream.connected,
            peer: upstream.role.is_peer(),
            standby: upstream.role == via::Role::Standby,
        }
    }
}

impl From<&Figures> for Bus {
    fn from(figures: &Figures) -> Self {
        let counts = figures.counts();
        Self {
            url: figures.bus.clone(),
            way: figures.way.name(),
            connected: counts.connected,
            events: counts.events,
            refused: counts.refused,
            lost: counts.lost,
        }
    }
}

impl Stream {
    /// The stream that is served at `path`; `publish` says whether whoever asks may publish there.
    pub fn new(
        (path, publish): (&str, bool),
        log: &EventLog,
        via: &Via,
        buses: &[Arc<Figures>],
        subscribers: usize,
    ) -> Self {
        let figures = log.figures();
        Self {
            path: path.to_owned(),
            origin: log.origin().to_string(),
            rate: figures.rate,
            events: figures.events,
            subscribers,
            publish,
            via: via.path().into_iter().map(Hop::from).collect(),
            upstreams: via.upstreams().into_iter().map(Upstream::from).collect(),
            buses: buses.iter().map(|bus| Bus::from(&**bus)).collect(),
        }
    }
}

impl Index<'_> {
    /// The list as JSON.
    pub fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).expect("names and numbers are JSON");
        json.push(b'\n');
        json
    }
}
