//! Asking another hop: what it knows of itself, and of what is upstream of it.
//!
//! Only what is configured is asked, at the host that is configured, and with what is configured to be said there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use url::{Url, form_urlencoded};

use super::merge::is_at;
use super::{Kind, Link, Role, Topology};
use crate::event::{self, Origin};
use crate::source::refusal::Refused;
use crate::source::upstream::{Upstream, get, open_stream_at};

/// The whole answer to a question may take so long, with all that has to be asked for it.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// An answer has at most so many bytes.
pub const MAX_ANSWER: usize = 1 << 20;
/// Who is asked may be one of several behind an address: it is tried so often at most to get the one that is meant.
pub const MAX_TRIES: usize = 8;
/// How many intermediaries may pass a request on (RFC 9110, section 7.6.2).
pub const MAX_FORWARDS: HeaderName = HeaderName::from_static("max-forwards");

/// What one answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The id of the node that answers.
    pub instance: String,
    /// What it knows.
    #[serde(flatten)]
    pub topology: Topology,
}

/// What is behind an event URL.
#[derive(Debug, Clone, PartialEq)]
pub struct Behind {
    /// All that was told.
    pub topology: Arc<Topology>,
    /// What that takes, in bytes, about.
    pub size: usize,
    /// The id of the node that answers there: of several, the one that was meant.
    pub node: String,
    /// Where that serves, in its own words.
    pub address: String,
    /// The path of the stream there, if it is known.
    pub path: Option<String>,
    /// The id of the proxy in between, if there is one that tells.
    pub proxy: Option<String>,
}

/// An answer, and the clock of this machine before the question and behind the answer, in microseconds since the Unix epoch.
pub struct Answer {
    /// What it says.
    pub body: Bytes,
    /// When the question was sent.
    pub asked: u64,
    /// When the answer was here.
    pub answered: u64,
}

/// A question to the hop behind an event URL.
pub struct Question<'a> {
    /// The event URL, and how it is reached.
    pub upstream: &'a Upstream,
    /// The parameter of the query that asks, and its value.
    pub what: (&'a str, &'a str),
    /// Whether it is about the stream at that URL, and not about all that the hop has.
    pub of_stream: bool,
    /// The origins of the streams for which it is asked, the nearest last.
    pub via: &'a [Origin],
    /// Of a stream that several instances may have behind that URL, the origin at the one that is meant: others need not ask on.
    pub at: Option<Origin>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

impl Question<'_> {
    /// Where it is asked.
    fn url(&self) -> Result<Url> {
        let event_url = &self.upstream.url;
        let mut url = event_url.clone();
        let scheme = match event_url.scheme() {
            "ws" | "http" => "http",
            "wss" | "https" => "https",
            other => bail!("{other}: is none of ws:, wss:, http: and https:"),
        };
        // It fails between schemes of another kind only.
        let _ = url.set_scheme(scheme);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair(self.what.0, self.what.1);
        if self.of_stream {
            query.append_pair("of", &target(event_url));
            url.set_path("/");
        }
        if !self.via.is_empty() {
            let via: Vec<_> = self.via.iter().map(ToString::to_string).collect();
            query.append_pair("via", &via.join(","));
        }
        if let Some(at) = self.at {
            query.append_pair("at", &at.to_string());
        }
        query.append_pair("within", &self.within().as_millis().to_string());
        // A token may be among them.
        query.extend_pairs(event_url.query_pairs());
        url.set_query(Some(&query.finish()));
        Ok(url)
    }

    /// What is left for whoever is asked: less than there is here, so that an answer that comes late there is in time here.
    fn within(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        left.saturating_sub((left / 32).max(Duration::from_millis(5)))
    }

    /// Asks once.
    pub async fn ask(&self) -> Result<Answer> {
        let url = self.url()?;
        let mut request = get(&url)?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, json);
        self.upstream.introduce(request.headers_mut()).await?;
        self.send(&url, request).await
    }

    /// Asks the first intermediary on the way what it is, if it is one that says so. It has no use for credentials.
    async fn ask_proxy(&self) -> Result<Told> {
        let url = self.url()?;
        let mut request = get(&url)?;
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = self.upstream.url.path().parse()?;
        let none = HeaderValue::from_static("0");
        request.headers_mut().insert(MAX_FORWARDS, none);
        let answer = self.send(&url, request).await?;
        let mut told: Told = serde_json::from_slice(&answer.body)?;
        told.topology.cut();
        let mut nodes = told.topology.nodes.iter();
        match nodes.any(|node| node.id == told.instance && node.kind == Kind::Proxy) {
            true => Ok(told),
            false => bail!("it is no proxy"),
        }
    }

    async fn send(&self, url: &Url, request: Request<Empty<Bytes>>) -> Result<Answer> {
        let asking = async {
            let Upstream { address, tls, .. } = self.upstream;
            let stream = open_stream_at(*address, url, tls.as_ref()).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(async move { drop(connection.await) });
            let _connection = AbortOnDropHandle::new(connection);
            let asked = event::now();
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::OK {
                return Err(Refused::read(self.upstream, response).await.into());
            }
            let content = response.headers().get(header::CONTENT_TYPE);
            let content = content.map_or(&b""[..], HeaderValue::as_bytes);
            if !content.starts_with(b"application/json") {
                bail!("it is no wsevent, or an older one: the answer is no JSON");
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await;
            let body = body.map_err(|error| anyhow!("its answer cannot be read: {error}"))?;
            anyhow::Ok(Answer {
                body: body.to_bytes(),
                asked,
                answered: event::now(),
            })
        };
        let answer = timeout_at(self.deadline, asking).await;
        answer.unwrap_or_else(|_| bail!("no answer in time"))
    }

    async fn told(&self) -> Result<Told> {
        let answer = self.ask().await?;
        let told = serde_json::from_slice(&answer.body);
        let mut told: Told =
            told.context("it does not tell its topology: an older wsevent, or none")?;
        told.topology.cut();
        Ok(told)
    }

    /// What is behind the URL, and upstream of that; `meant` is the origin of the stream there, if it is known.
    pub async fn topology(&self, meant: Option<Origin>) -> Result<Behind> {
        let (proxy, first) = tokio::join!(self.ask_proxy(), self.told());
        let proxy = proxy.ok();
        let meant = meant.map(|origin| origin.to_string());
        let is_meant = |told: &Told| match &meant {
            Some(origin) => told.topology.node_of(origin).is_some(),
            None => true,
        };
        let mut all = vec![first?];
        let others = proxy.as_ref().map_or(1, |proxy| {
            let links = proxy.topology.links.iter();
            links.filter(|link| link.connected).count()
        });
        for _ in 1..MAX_TRIES {
            if all.iter().any(is_meant) && all.len() >= others {
                break;
            }
            // What there is counts more than what else there may be.
            let Ok(told) = self.told().await else { break };
            if all.iter().all(|known| known.instance != told.instance) {
                all.push(told);
            }
        }
        Ok(behind(proxy, all, meant.as_deref()))
    }
}

/// Puts together what several instances behind one URL have told.
fn behind(proxy: Option<Told>, mut all: Vec<Told>, meant: Option<&str>) -> Behind {
    let found = meant.and_then(|origin| {
        let mut answers = all.iter().enumerate();
        answers.find_map(|(at, told)| {
            let (node, path) = told.topology.node_of(origin)?;
            Some((at, node.id.clone(), path.to_owned()))
        })
    });
    let (first, node, path) = match (found, meant) {
        (Some((at, node, path)), _) => (all.swap_remove(at), node, Some(path)),
        (None, meant) => {
            let first = all.swap_remove(0);
            let node = meant.unwrap_or(&first.instance).to_owned();
            (first, node, None)
        }
    };
    // Somebody else in that place has nothing to do with it, unless a proxy leads to both.
    let mut topology = match path.is_none() && meant.is_some() && proxy.is_none() {
        true => Topology::default(),
        false => first.topology,
    };
    let known = topology.nodes.iter().find(|known| known.id == node);
    let address = known.map_or_else(String::new, |known| known.address.clone());
    let instance = proxy.as_ref().map(|proxy| proxy.instance.clone());
    if let Some(proxy) = proxy {
        for other in all {
            topology.merge(&other.topology);
        }
        topology.merge(&through(proxy, &node, &address));
    }
    Behind {
        size: topology.size(),
        topology: Arc::new(topology),
        node,
        address,
        path,
        proxy: instance,
    }
}

/// What a proxy has told. If the hop that was found behind it calls itself otherwise than the proxy calls it, there is a link
/// more, from that.
fn through(proxy: Told, hop: &str, address: &str) -> Topology {
    let mut topology = proxy.topology;
    let mut nodes = topology.nodes.iter();
    let is_listed = nodes.any(|node| node.kind != Kind::Proxy && is_at(&node.address, address));
    if !is_listed && !address.is_empty() {
        topology.links.push(Link {
            from: hop.to_owned(),
            from_path: None,
            to: proxy.instance,
            to_path: None,
            role: Role::Proxy,
            transport: None,
            connected: true,
            rate: None,
            lag: None,
            reason: None,
        });
    }
    topology
}

/// Path and query.
fn target(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}
