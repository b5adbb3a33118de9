//! Holds what runs against a figure: what is drawn must be there, and nothing else between the instances that are drawn.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use url::Url;

use super::figure::{Arrow, Class, Figure, Shape};
use super::{Kind, Link, Node, Role, Topology};

/// Says where something in a figure runs, where its label says it otherwise, or not at all: `ALIAS=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct As {
    /// Of a box.
    pub alias: String,
    /// Where it is, as given: a URL, or `host:port`.
    pub url: String,
    place: Place,
}

impl FromStr for As {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (alias, url) = text
            .split_once('=')
            .ok_or("it is ALIAS=URL, as in hop1=ws://localhost:9090/events")?;
        let place =
            Place::of(url).ok_or_else(|| format!("'{url}' says neither a URL nor host:port"))?;
        Ok(Self {
            alias: alias.to_owned(),
            url: url.to_owned(),
            place,
        })
    }
}

/// A host and a port, and what is said of where it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    path: Option<String>,
    query: Vec<(String, String)>,
}

impl Place {
    fn of(text: &str) -> Option<Self> {
        let url = match text.contains("://") {
            true => Url::parse(text),
            false => Url::parse(&format!("none://{text}")),
        };
        let url = url.ok()?;
        let port = url.port().or(match url.scheme().split('+').next()? {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            "redis" | "rediss" => Some(6379),
            "nats" => Some(4222),
            _ => None,
        })?;
        let host = url.host_str()?.to_ascii_lowercase();
        // This machine has many names.
        let is_here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
        let path = Some(url.path()).filter(|path| !["", "/"].contains(path));
        Some(Self {
            host: if is_here {
                "localhost".to_owned()
            } else {
                host
            },
            port,
            path: path.map(str::to_owned),
            query: url.query_pairs().into_owned().collect(),
        })
    }

    /// Whether both have the same host and port. Who listens on all addresses is at any of them.
    fn is_at(&self, other: &Self) -> bool {
        let is_any = |place: &Self| ["0.0.0.0", "[::]"].contains(&&*place.host);
        self.port == other.port && (self.host == other.host || is_any(self) || is_any(other))
    }

    /// Whether `other` is there, and is all that this says.
    fn is(&self, other: &Self) -> bool {
        self.is_at(other)
            && (self.path.is_none() || self.path == other.path)
            && self.query.iter().all(|pair| other.query.contains(pair))
    }
}

/// A figure, and what in it runs where.
#[derive(Debug)]
pub struct Expected {
    arrows: Vec<Arrow>,
    /// In the order of the figure; those that are nowhere are outside: clients, and programs that know wsevent by its URL only.
    located: Vec<(Shape, Vec<Place>)>,
}

/// What has come of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Each in one line; none if the figure is true.
    pub differences: Vec<String>,
    instances: usize,
    links: usize,
    subscribers: usize,
    publishers: usize,
}

impl fmt::Display for Verdict {
    /// What has been compared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: usize, unit: &str| {
            format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
        };
        write!(
            f,
            "{}, {}, {}, {}",
            count(self.instances, "instance"),
            count(self.links, "link"),
            count(self.subscribers, "subscriber"),
            count(self.publishers, "publisher"),
        )
    }
}

impl Expected {
    /// The figure with what `given` says of where things are, and `without` those boxes that are not there today: what would go through them
    /// goes from one instance to the next. An error is for whoever has given these.
    pub fn new(figure: &Figure, given: &[As], without: &[String]) -> Result<Self, String> {
        let aliases = given.iter().map(|given| &given.alias).chain(without);
        for alias in aliases {
            if figure.shape(alias).is_none() {
                let known: Vec<_> = figure
                    .shapes
                    .iter()
                    .map(|shape| shape.alias.as_str())
                    .collect();
                return Err(format!(
                    "the figure has no box {alias}; it has {}",
                    known.join(", ")
                ));
            }
        }
        let mut located = Vec::new();
        for shape in figure
            .shapes
            .iter()
            .filter(|shape| !without.contains(&shape.alias))
        {
            let places = places(shape, given);
            match shape.class {
                Class::Client => {}
                Class::Produce if places.is_empty() => {}
                _ if places.is_empty() => {
                    let alias = &shape.alias;
                    return Err(format!(
                        "nothing says where {alias} is: name it with --as {alias}=URL, or leave it out with --without {alias}"
                    ));
                }
                _ => located.push((shape.clone(), places)),
            }
        }
        let is_located = |alias: &str| {
            located
                .iter()
                .any(|(shape, _): &(Shape, _)| shape.alias == alias)
        };
        let arrows = without.iter().fold(figure.arrows.clone(), |arrows, gone| {
            joined(arrows, gone, is_located)
        });
        Ok(Self { arrows, located })
    }

    /// Where the instances of the figure are, to be asked: as `given`, or as their labels say.
    pub fn asked(&self, given: &[As]) -> Vec<String> {
        let instances = self.located.iter().filter(|(shape, _)| is_instance(shape));
        let at = |(shape, _): &(Shape, Vec<Place>)| {
            let given = given.iter().find(|given| given.alias == shape.alias);
            let given = given.map(|given| given.url.clone());
            given.or_else(|| shape.place.clone())
        };
        instances.filter_map(at).collect()
    }

    /// The box with this alias, if it is somewhere.
    fn located(&self, alias: &str) -> Option<&Shape> {
        let mut shapes = self.located.iter().map(|(shape, _)| shape);
        shapes.find(|shape| shape.alias == alias)
    }

    /// Holds what runs against it; who has been asked at the URLs in `silent` has not answered, whatever others know of it.
    pub fn compare(&self, topology: &Topology, silent: &[String]) -> Verdict {
        let silent: Vec<_> = silent.iter().filter_map(|url| Place::of(url)).collect();
        let is_silent = |place: &Place| silent.iter().any(|silent| place.is_at(silent));
        let located = self.located.iter();
        let silent = located.filter(|(_, places)| places.iter().any(is_silent));
        let silent = silent.map(|(shape, _)| &*shape.alias).collect();
        let ids = self.located.iter().map(|(shape, places)| {
            let nodes = topology.nodes.iter().filter(|node| is(shape, places, node));
            (&*shape.alias, nodes.collect::<Vec<_>>())
        });
        let mut comparison = Comparison {
            expected: self,
            topology,
            nodes: ids.collect(),
            silent,
            verdict: Verdict::default(),
        };
        comparison.instances();
        comparison.arrows();
        comparison.links();
        comparison.verdict
    }
}

/// Where a box is: as given, perhaps in several ways, or else as its label says.
fn places(shape: &Shape, given: &[As]) -> Vec<Place> {
    let given = given.iter().filter(|given| given.alias == shape.alias);
    let given: Vec<_> = given.map(|given| given.place.clone()).collect();
    match given.is_empty() {
        true => shape
            .place
            .as_deref()
            .and_then(Place::of)
            .into_iter()
            .collect(),
        false => given,
    }
}

/// The arrows without those of `gone`: each way through it is an arrow from where it begins to where it ends, between two that are somewhere.
fn joined(arrows: Vec<Arrow>, gone: &str, is_located: impl Fn(&str) -> bool) -> Vec<Arrow> {
    let (through, mut kept): (Vec<_>, Vec<_>) = arrows
        .into_iter()
        .partition(|arrow| arrow.from == gone || arrow.to == gone);
    for into in through
        .iter()
        .filter(|arrow| arrow.to == gone && is_located(&arrow.from))
    {
        let out_of = through
            .iter()
            .filter(|arrow| arrow.from == gone && is_located(&arrow.to));
        kept.extend(out_of.filter(|out| out.to != into.from).map(|out| Arrow {
            from: into.from.clone(),
            to: out.to.clone(),
            must: into.must && out.must,
        }));
    }
    kept
}

/// Whether the node is what the box stands for.
fn is(shape: &Shape, places: &[Place], node: &Node) -> bool {
    let Some(at) = Place::of(&node.address) else {
        return false;
    };
    match (shape.class, node.kind) {
        // A proxy knows its upstreams by their addresses only.
        (Class::Hop | Class::Produce, Kind::Hop | Kind::Foreign) | (Class::Proxy, Kind::Proxy) => {
            places.iter().any(|place| place.is_at(&at))
        }
        (Class::Bus | Class::Foreign, Kind::Bus | Kind::Foreign) => {
            places.iter().any(|place| place.is(&at))
        }
        // Where there is no bus, one of us may stand in its place.
        (Class::Bus | Class::Foreign, _) => places.iter().any(|place| place.is_at(&at)),
        _ => false,
    }
}

/// A comparison on its way.
struct Comparison<'a> {
    expected: &'a Expected,
    topology: &'a Topology,
    /// What each box that is somewhere stands for.
    nodes: HashMap<&'a str, Vec<&'a Node>>,
    /// The boxes of those that have not answered.
    silent: Vec<&'a str>,
    verdict: Verdict,
}

impl<'a> Comparison<'a> {
    fn differs(&mut self, line: String) {
        if !self.verdict.differences.contains(&line) {
            self.verdict.differences.push(line);
        }
    }

    fn of(&self, alias: &str) -> &[&'a Node] {
        self.nodes.get(alias).map_or(&[], Vec::as_slice)
    }

    /// The instance; none if there is nothing but an address, or no answer from there.
    fn node(&self, alias: &str) -> Option<&'a Node> {
        let is_silent = self.silent.contains(&alias);
        let first = self.of(alias).first().copied().filter(|_| !is_silent);
        first.filter(|node| matches!(node.kind, Kind::Hop | Kind::Proxy))
    }

    /// Each instance is where it is said to be, and serves what it is said to.
    fn instances(&mut self) {
        let expected = self.expected;
        for (shape, places) in &expected.located {
            if !is_instance(shape) {
                continue; // nobody knows of them but by links
            }
            let alias = &shape.alias;
            let Some(node) = self.node(alias) else {
                let at = places
                    .first()
                    .map(|place| format!("{}:{}", place.host, place.port));
                self.differs(format!("{alias} is not at {}", at.unwrap_or_default()));
                continue;
            };
            self.verdict.instances += 1;
            if let Some(reason) = &node.incomplete {
                self.differs(format!(
                    "not all that is upstream of {alias} is known: {reason}"
                ));
            }
            if shape.class == Class::Proxy {
                continue;
            }
            let given = places.iter().filter_map(|place| place.path.as_ref());
            for path in shape.paths.iter().chain(given) {
                let is_pattern = path.ends_with('*') || path.ends_with('…');
                if !is_pattern
                    && !node
                        .streams
                        .iter()
                        .any(|stream| without_query(&stream.path) == without_query(path))
                {
                    self.differs(format!("{alias} serves no {path}"));
                }
            }
        }
    }

    /// Each arrow is there.
    fn arrows(&mut self) {
        let expected = self.expected;
        let mut seen = Vec::new();
        let mut readers: Vec<(&Shape, usize)> = Vec::new();
        for arrow in expected.arrows.iter().filter(|arrow| arrow.must) {
            match (expected.located(&arrow.from), expected.located(&arrow.to)) {
                // Drawn twice it is still one.
                (Some(from), Some(to)) if seen.contains(&(&from.alias, &to.alias)) => {}
                (Some(from), Some(to)) => {
                    seen.push((&from.alias, &to.alias));
                    self.link(from, to);
                }
                (Some(from), None) if is_hop(from) => match readers
                    .iter_mut()
                    .find(|(shape, _)| shape.alias == from.alias)
                {
                    Some((_, count)) => *count += 1,
                    None => readers.push((from, 1)),
                },
                (None, Some(to)) if is_hop(to) => self.publisher(to),
                _ => {}
            }
        }
        for (shape, count) in readers {
            self.readers(shape, count);
        }
    }

    /// There is a connection that brings events from one to the other.
    fn link(&mut self, from: &Shape, to: &Shape) {
        let is_there = |shape: &Shape| !is_hop(shape) || self.node(&shape.alias).is_some();
        if !is_there(from) || !is_there(to) {
            return; // said already
        }
        let is_end =
            |shape: &Shape, id: &String| self.of(&shape.alias).iter().any(|node| node.id == *id);
        let links = self.topology.links.iter();
        let links: Vec<_> = links
            .filter(|link| is_end(from, &link.from) && is_end(to, &link.to))
            .collect();
        let (from, to) = (&from.alias, &to.alias);
        if links.iter().any(|link| link.connected) {
            self.verdict.links += 1;
        } else if let Some(link) = links.first() {
            let reason = link.reason.as_ref().map(|reason| format!(": {reason}"));
            self.differs(format!(
                "the link from {from} to {to} is down{}",
                reason.unwrap_or_default()
            ));
        } else {
            self.differs(format!(
                "{to} gets events from {from} in the figure, but not here"
            ));
        }
    }

    /// Somebody may publish there.
    fn publisher(&mut self, shape: &Shape) {
        let Some(node) = self.node(&shape.alias) else {
            return; // said already
        };
        match node.streams.iter().any(|stream| stream.publish) {
            true => self.verdict.publishers += 1,
            false => self.differs(format!(
                "somebody publishes to {} in the figure, but it takes nothing here",
                shape.alias
            )),
        }
    }

    /// So many read there, at least.
    fn readers(&mut self, shape: &Shape, count: usize) {
        let Some(node) = self.node(&shape.alias) else {
            return; // said already
        };
        // wsevent tail reads as hops do.
        let there = node
            .subscribers()
            .saturating_add(self.topology.loose_ends(node));
        match there >= count {
            true => self.verdict.subscribers += count,
            false => {
                let unit = if count == 1 {
                    "subscriber"
                } else {
                    "subscribers"
                };
                let alias = &shape.alias;
                self.differs(format!(
                    "{alias} has {count} {unit} in the figure, but {there} here"
                ));
            }
        }
    }

    /// Each link of an instance is drawn.
    fn links(&mut self) {
        for link in &self.topology.links {
            if link.role == Role::Standby && !link.connected {
                continue; // it may be there, and is not used
            }
            let (from, to) = (self.aliases(&link.from), self.aliases(&link.to));
            let is_of_figure = |ends: &[&str]| {
                ends.iter()
                    .filter_map(|alias| self.expected.located(alias))
                    .any(is_instance)
            };
            if !is_of_figure(&from) && !is_of_figure(&to) {
                continue; // between others
            }
            let arrows = &self.expected.arrows;
            let is_drawn = arrows
                .iter()
                .any(|arrow| from.contains(&&*arrow.from) && to.contains(&&*arrow.to));
            if !is_drawn {
                let down = if link.connected {
                    ""
                } else {
                    ", which is down,"
                };
                let line = format!(
                    "a link from {} to {}{down} that is not in the figure",
                    self.name(&from, &link.from, link),
                    self.name(&to, &link.to, link)
                );
                self.differs(line);
            }
        }
    }

    /// The boxes that stand for a node.
    fn aliases(&self, id: &str) -> Vec<&str> {
        let located = self.expected.located.iter().map(|(shape, _)| &*shape.alias);
        located
            .filter(|alias| self.of(alias).iter().any(|node| node.id == id))
            .collect()
    }

    /// What one end of a link is called: by its alias, or where it is.
    fn name(&self, aliases: &[&str], id: &str, link: &Link) -> String {
        if let Some(alias) = aliases.first() {
            return (*alias).to_owned();
        }
        let node = self.topology.nodes.iter().find(|node| node.id == id);
        let path = if id == link.from {
            &link.from_path
        } else {
            &link.to_path
        };
        match (node, path) {
            (Some(node), Some(path)) if node.kind == Kind::Hop => format!("{}{path}", node.address),
            (Some(node), _) => node.address.clone(),
            (None, _) => id.to_owned(),
        }
    }
}

/// Whether it can be asked.
fn is_instance(shape: &Shape) -> bool {
    !matches!(shape.class, Class::Bus | Class::Foreign)
}

fn is_hop(shape: &Shape) -> bool {
    matches!(shape.class, Class::Hop | Class::Produce)
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}
