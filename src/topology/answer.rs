//! What a hop tells whoever asks for its topology: itself, the links into it, and what those upstream tell of theirs.
//!
//! ```text
//!   GET /?topology ──► own node, own links ──► for each upstream: Known ──► GET /?topology&of=…&via=… at the upstream
//!                                                                 └──────── or what it said within the last second
//! ```
//!
//! `via` names the streams for which it is asked, so a question does not go round. Every hop tells its own links whoever asks, also
//! where it does not ask on, and so nothing is missing where several ways lead to the same hop.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use hyper::StatusCode;
use hyper::http::request::Parts;
use tokio::time::Instant;
use url::form_urlencoded;

use super::ask::{self, MAX_ANSWER, PATIENCE, Told};
use super::known::Slot;
use super::{Kind, Link, Node, Role, Stream, Topology};
use crate::auth::Right;
use crate::bus::figures::{Figures, Way};
use crate::event::{EventId, Origin};
use crate::route::find::NoStream;
use crate::route::served::Served;
use crate::route::{Route, Routes};
use crate::source::upstream::{self, Upstream};
use crate::stream::via;
use crate::wire::Format;

/// So many streams are told of at most.
const MAX_STREAMS: usize = 1_000;
/// Of streams that come and go, so many are asked about upstream.
const MAX_ON_DEMAND: usize = 100;
/// So many questions are asked at once.
const AT_ONCE: usize = 16;
/// A question that has come through so many hops is not asked on.
pub const DEEPEST: usize = 64;

/// Why nobody is asked who asks: the answer is with whoever does.
const WAITS: &str = "it waits for the answer to the same question";

/// What may be done where; a path is in its one spelling.
pub type May<'a> = &'a (dyn Fn(Right, &str) -> bool + Sync);

/// What a query asks.
pub struct Question {
    /// An event, or the topology.
    event: Option<EventId>,
    of: Option<String>,
    /// The origins of the streams for which it is asked, the nearest last.
    pub(super) via: Vec<Origin>,
    /// The origin of the stream that is meant, where several may answer.
    pub(super) at: Option<Origin>,
    pub(super) deadline: Instant,
}

impl Question {
    /// The question that is in a request, if there is one; or what is wrong with it.
    pub fn of(request: &Parts) -> Option<Result<Self, &'static str>> {
        let query = request.uri.query().unwrap_or_default();
        let pairs = || form_urlencoded::parse(query.as_bytes());
        let asks = |(name, _): &(_, _)| matches!(AsRef::<str>::as_ref(name), "topology" | "trace");
        pairs().any(|pair| asks(&pair)).then(|| Self::parse(query))
    }

    /// The question for the topology, whatever else is in a query: of the stream that it names with `of`, or of all.
    pub fn of_topology(query: &str) -> Result<Self, &'static str> {
        Ok(Self {
            event: None,
            ..Self::parse(query)?
        })
    }

    fn parse(query: &str) -> Result<Self, &'static str> {
        let first = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        let id = |text: String| text.parse().map_err(|_| "?trace= is the id of an event");
        let event = first("trace").map(id).transpose()?;
        let of = first("of");
        if event.is_some() && of.is_none() {
            return Err("?trace= needs &of= with the path of a stream");
        }
        let via = first("via").filter(|via| !via.is_empty());
        let via = via.iter().flat_map(|via| via.split(','));
        let via: Result<Vec<_>, _> = via.map(str::parse).collect();
        let within = first("within").map(|within| within.parse().map(Duration::from_millis));
        let within = within
            .transpose()
            .map_err(|_| "within= is a number of milliseconds")?;
        let at = first("at").map(|at| at.parse()).transpose();
        Ok(Self {
            event,
            at: at.map_err(|_| "at= is an origin")?,
            of,
            via: via.map_err(|_| "via= is a list of origins")?,
            deadline: Instant::now() + within.unwrap_or(PATIENCE).min(PATIENCE),
        })
    }

    /// The path of the one stream that it is about, if it is about one.
    pub fn target(&self) -> Option<&str> {
        self.of.as_deref()
    }

    /// Why it is not asked on for this stream, if that is so.
    pub(super) fn silence(&self, stream: &Served) -> Option<&'static str> {
        match self.via.contains(&stream.log.origin()) {
            true => Some(WAITS),
            false => {
                (self.via.len() >= DEEPEST).then_some("more hops are on the way than are asked")
            }
        }
    }

    /// For whom an upstream of this stream is asked.
    pub(super) fn via(&self, stream: &Served) -> Vec<Origin> {
        let own = [stream.log.origin()];
        self.via.iter().copied().chain(own).collect()
    }
}

/// The answer as JSON. `only` is the route that it is about, if it is about one, and `target` the stream, if it is there and may be
/// seen.
pub async fn answer(
    routes: &Routes,
    only: Option<&Arc<Route>>,
    question: &Question,
    target: Option<Arc<Served>>,
    may: May<'_>,
) -> Result<Vec<u8>, NoStream> {
    if let Some(event) = question.event {
        let stream = target.ok_or(NoStream {
            status: StatusCode::NOT_FOUND,
            reason: "there is no stream at the path that of= names".to_owned(),
        })?;
        let legs = super::trace::legs(routes, &stream, event, question).await;
        return Ok(json(&legs));
    }
    let topology = told_to(routes, only, question, target, may).await;
    Ok(bounded(Told {
        instance: routes.instance().to_string(),
        topology,
    }))
}

/// The topology that a question asks for, as [`answer`] tells it.
pub async fn told_to(
    routes: &Routes,
    only: Option<&Arc<Route>>,
    question: &Question,
    target: Option<Arc<Served>>,
    may: May<'_>,
) -> Topology {
    let streams: Vec<_> = match (&question.of, only) {
        (Some(_), _) => target.into_iter().collect(),
        (None, only) => {
            let routes = only.map_or_else(|| routes.all(), |only| vec![only.clone()]);
            let seen = routes.iter().flat_map(|route| {
                let streams = route.streams("");
                streams.filter(|stream| may(Right::Subscribe, stream.path()))
            });
            seen.take(MAX_STREAMS + 1).collect()
        }
    };
    routes.known().forget_but(|| {
        let routes = routes.all();
        let streams = routes.iter().flat_map(|route| route.streams(""));
        streams.map(|stream| stream.log.origin()).collect()
    });
    let told = &streams[..streams.len().min(MAX_STREAMS)];
    let mut topology = topology(routes, told, question, may).await;
    if told.len() < streams.len() {
        topology.is_too_large();
    }
    topology
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec(value).expect("names and numbers are JSON");
    json.push(b'\n');
    json
}

/// As JSON, with no more than is taken of it: what is nearest stands first in it.
fn bounded(mut told: Told) -> Vec<u8> {
    loop {
        let json = json(&told);
        if json.len() <= MAX_ANSWER {
            return json;
        }
        let Topology { nodes, links } = &mut told.topology;
        for node in nodes.iter_mut() {
            node.streams.truncate(node.streams.len().div_ceil(2));
        }
        nodes.truncate(nodes.len().div_ceil(2).max(1));
        links.truncate(links.len() / 2);
        told.topology.is_too_large();
    }
}

async fn topology(
    routes: &Routes,
    streams: &[Arc<Served>],
    question: &Question,
    may: May<'_>,
) -> Topology {
    let own = routes.instance().to_string();
    let mut all = Topology {
        nodes: vec![Node {
            id: own.clone(),
            kind: Kind::Hop,
            address: routes.address().to_owned(),
            streams: streams.iter().map(|stream| told(stream, may)).collect(),
            incomplete: None,
        }],
        links: vec![],
    };
    for stream in streams {
        for bus in &stream.connections.figures {
            all.nodes.push(bus_node(bus));
            all.links.push(bus_link(bus, &own, &stream.name));
        }
    }
    let mut on_demand = 0;
    let mut asked = vec![];
    for stream in streams {
        on_demand += usize::from(stream.policy.pattern.is_on_demand());
        let silence = match on_demand > MAX_ON_DEMAND {
            true => Some("not all of so many streams are asked about"),
            false => question.silence(stream),
        };
        for (number, known) in stream.via.numbered() {
            // Of buses others tell.
            let Some(upstream) = stream.upstreams.get(number) else {
                continue;
            };
            let incoming = Incoming {
                stream,
                number,
                known,
                upstream,
                silence,
            };
            asked.push(incoming.find(routes, question));
        }
    }
    // In order, so that the answer is the same each time.
    let mut found = stream::iter(asked).buffered(AT_ONCE);
    let mut behind = vec![];
    while let Some(found) = found.next().await {
        let mut link = found.link;
        link.to.clone_from(&own);
        all.links.push(link);
        behind.push(found.behind);
    }
    // All that is here first: who tells of links into a stream tells of all of them.
    let behind: Vec<_> = behind.iter().flatten().map(|behind| &**behind).collect();
    all.merge_all(&behind);
    all
}

/// A stream, as whoever asks may know it.
fn told(stream: &Served, may: May<'_>) -> Stream {
    let hops = stream.subscribers.of(Format::Hop);
    Stream {
        path: stream.name.to_string(),
        origin: stream.log.origin().to_string(),
        rate: stream.log.figures().rate,
        subscribers: stream.subscribers.all().saturating_sub(hops),
        hops,
        produces: stream.policy.produce.is_some(),
        publish: stream.publisher.is_some() && may(Right::Publish, stream.path()),
    }
}

/// A link, but for the id of its end here; and what is behind it.
struct Found {
    link: Link,
    /// In parts, which others may have as well.
    behind: Vec<Arc<Topology>>,
}

/// A way into a stream.
struct Incoming<'a> {
    stream: &'a Served,
    number: usize,
    known: via::Upstream,
    upstream: Arc<Upstream>,
    /// Why nobody is asked, if that is so.
    silence: Option<&'static str>,
}

impl Incoming<'_> {
    async fn find(self, routes: &Routes, question: &Question) -> Found {
        let known = &self.known;
        let mut link = self.link();
        let slot = routes.known().slot(self.stream.log.origin(), self.number);
        let Some(origin) = known.instance() else {
            // What stands by has nothing to say while it rests; it may have been here before.
            let rests = link.role == Role::Standby && !known.connected;
            let last = slot.last().filter(|_| rests);
            let node = last.as_deref().and_then(last_known);
            let node = node.unwrap_or_else(|| self::node(Kind::Foreign, &known.url, &known.url));
            link.from.clone_from(&node.id);
            return Found {
                link,
                behind: one(node),
            };
        };
        let waits = question.via.contains(&origin).then_some(WAITS);
        let silence = match (known.connected, self.silence.or(waits)) {
            (true, None) => match self.ask(question, &slot, origin).await {
                Ok(behind) => return self.told(link, &behind, origin),
                Err(reason) => Some(reason),
            },
            (true, Some(reason)) => Some(reason.into()),
            // That is told by the link.
            (false, _) => None,
        };
        // Where it leads is known from before, or from its handshake.
        link.from_path = Some(self.upstream.url.path().to_owned());
        let last = slot.last().filter(|_| !known.connected);
        let behind = last.as_deref().and_then(last_known);
        let behind = behind.unwrap_or_else(|| self.stand_in(origin, silence.as_deref()));
        link.from.clone_from(&behind.id);
        Found {
            link,
            behind: one(behind),
        }
    }

    async fn ask(
        &self,
        question: &Question,
        slot: &Arc<Slot>,
        origin: Origin,
    ) -> Result<Arc<ask::Behind>, Arc<str>> {
        let via = question.via(self.stream);
        let ask = ask::Question {
            upstream: &self.upstream,
            what: ("topology", ""),
            of_stream: true,
            via: &via,
            at: None,
            deadline: question.deadline - Duration::from_millis(5),
        };
        let path = self.stream.via.path();
        let mut upstream = path.iter().skip(1).map(|hop| hop.id);
        let is_upstream = upstream.any(|hop| question.via.contains(&hop));
        slot.clone().told(ask, Some(origin), is_upstream).await
    }

    /// What has been told is behind the link.
    fn told(&self, mut link: Link, behind: &ask::Behind, origin: Origin) -> Found {
        link.from.clone_from(&behind.node);
        link.from_path.clone_from(&behind.path);
        let mut topology = vec![behind.topology.clone()];
        if let Some(proxy) = &behind.proxy {
            link.from.clone_from(proxy);
            link.from_path = None;
        } else if behind.path.is_none() {
            let reason = "it does not tell of this stream, or others answer in its place";
            topology.extend(one(self.stand_in(origin, Some(reason))));
        }
        Found {
            link,
            behind: topology,
        }
    }

    /// What stands for a hop that has not told its id, and why, if it could have.
    fn stand_in(&self, origin: Origin, incomplete: Option<&str>) -> Node {
        let url = &self.upstream.url;
        let address = self.known.address().map(str::to_owned).unwrap_or_else(|| {
            if let Some(address) = self.upstream.address {
                return address.to_string();
            }
            let host = url.host_str().unwrap_or_default();
            let port = upstream::port(url).unwrap_or_default();
            format!("{host}:{port}")
        });
        Node {
            incomplete: incomplete.map(str::to_owned),
            ..node(Kind::Hop, &origin.to_string(), &address)
        }
    }

    fn link(&self) -> Link {
        let Self { stream, known, .. } = self;
        // What comes on the only way is all there is.
        let is_all = stream.via.upstreams().len() == 1
            && stream.policy.produce.is_none()
            && stream.publisher.is_none();
        let counts = known.counts();
        let rate = match counts {
            Some(counts) => Some(counts.rate),
            None => is_all.then(|| stream.log.figures().rate),
        };
        Link {
            from: String::new(),
            from_path: None,
            to: String::new(),
            to_path: Some(stream.name.to_string()),
            role: match known.role {
                via::Role::Consumed => Role::Consume,
                via::Role::Peer | via::Role::NamedPeer => Role::Peer,
                via::Role::Standby => Role::Standby,
            },
            transport: known.transport.map(str::to_owned),
            connected: known.connected,
            rate,
            lag: counts.and_then(|counts| counts.lag),
            reason: known.reason.as_deref().map(str::to_owned),
        }
    }
}

/// Where a link has led when it was last known.
fn last_known(last: &ask::Behind) -> Option<Node> {
    let id = last.proxy.as_ref().unwrap_or(&last.node);
    let mut nodes = last.topology.nodes.iter();
    let known = nodes.find(|node| node.id == *id)?;
    Some(node(known.kind, &known.id, &known.address))
}

fn node(kind: Kind, id: &str, address: &str) -> Node {
    Node {
        id: id.to_owned(),
        kind,
        address: address.to_owned(),
        streams: vec![],
        incomplete: None,
    }
}

fn one(node: Node) -> Vec<Arc<Topology>> {
    vec![Arc::new(Topology {
        nodes: vec![node],
        links: vec![],
    })]
}

fn bus_node(bus: &Figures) -> Node {
    node(Kind::Bus, &bus.bus, &bus.bus)
}

fn bus_link(bus: &Figures, own: &str, path: &str) -> Link {
    let (scheme, _) = bus.bus.split_once(':').unwrap_or((&bus.bus, ""));
    let (here, there) = (own.to_owned(), bus.bus.clone());
    let path = Some(path.to_owned());
    let (from, from_path, to, to_path) = match bus.way {
        Way::In => (there, None, here, path),
        Way::Out => (here, path, there, None),
    };
    let (connected, reason) = bus.presence();
    Link {
        from,
        from_path,
        to,
        to_path,
        role: Role::Bus,
        transport: Some(scheme.to_owned()),
        connected,
        rate: None,
        lag: None,
        reason,
    }
}
