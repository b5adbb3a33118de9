//! What is drawn of a topology, whatever the format: shapes and arrows with their texts, in an order that depends on nothing but what there is.

#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;

use super::{Kind, Link, Node, Role, Stream, Topology};

/// More streams of an instance than this are only counted.
const STREAMS: usize = 8;
/// A text from a stranger is cut off here, in characters.
const LONGEST: usize = 80;

/// All of it.
#[derive(Debug, PartialEq)]
pub struct Picture {
    pub shapes: Vec<Shape>,
    pub arrows: Vec<Arrow>,
}

/// A box.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// Its name for arrows: a letter and a number.
    pub alias: String,
    pub class: Class,
    /// What it is, in words of this program.
    pub title: String,
    /// Where it is and what it has: texts of strangers, [plain], but not escaped for any format.
    pub lines: Vec<String>,
    /// Whether all is drawn that is upstream of it.
    pub is_whole: bool,
}

/// What is drawn alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Produce,
    Hop,
    Proxy,
    Foreign,
    Bus,
    /// Subscribers of a hop, all of them together.
    Client,
}

impl Class {
    pub const ALL: [Self; 6] = [
        Self::Produce,
        Self::Hop,
        Self::Proxy,
        Self::Foreign,
        Self::Bus,
        Self::Client,
    ];

    /// Its name in formats that have classes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Hop => "hop",
            Self::Proxy => "proxy",
            Self::Foreign => "foreign",
            Self::Bus => "bus",
            Self::Client => "client",
        }
    }

    /// The colours of its border and of what is inside: those of the figures in docs/puml.
    pub const fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Produce => ("#C77C02", "#FFF4DB"),
            Self::Hop => ("#2F6FB8", "#E6F1FF"),
            Self::Proxy => ("#7048A8", "#F1E9FB"),
            Self::Foreign => ("#52606D", "#FFFFFF"),
            Self::Bus => ("#7B8794", "#F2F4F6"),
            Self::Client => ("#2E8540", "#E6F8E9"),
        }
    }
}

/// The colour of texts, of arrows, and of arrows that stand for no connection.
pub const TEXT: &str = "#1F2933";
pub const ARROW: &str = "#52606D";
pub const DEAD: &str = "#C02626";

/// An arrow, in the direction of events.
#[derive(Debug, PartialEq)]
pub struct Arrow {
    /// Aliases.
    pub from: String,
    pub to: String,
    pub look: Look,
    /// As those of a shape.
    pub lines: Vec<String>,
}

/// How an arrow is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Live,
    /// Dashed: it is there for when others are not.
    Standby,
    /// Red: there should be a connection, and there is none.
    Dead,
}

impl Picture {
    /// What is drawn of this topology.
    pub fn of(topology: &Topology) -> Self {
        let nodes = sorted_nodes(topology);
        let ids: HashMap<&str, usize> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| (node.id.as_str(), at))
            .collect();
        let mut links: Vec<_> = topology
            .links
            .iter()
            .filter_map(|link| Some((*ids.get(&*link.from)?, *ids.get(&*link.to)?, link)))
            .collect();
        links.sort_by_key(|(from, to, link)| (*from, *to, key(link)));
        let arrow = |(from, to, link): &(usize, usize, &Link)| Arrow {
            from: alias(*from),
            to: alias(*to),
            look: look(link),
            lines: of_link(link, has_several(&nodes[*from]) || has_several(&nodes[*to])),
        };
        let mut arrows: Vec<_> = links.iter().map(arrow).collect();
        let mut shapes: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| of_node(at, node))
            .collect();
        for (at, node) in nodes.iter().enumerate() {
            let count = node.subscribers();
            let links = topology.loose_ends(node);
            if count == 0 && links == 0 {
                continue;
            }
            let mut counts = Vec::new();
            if count > 0 {
                counts.push(counted(count, "subscriber"));
            }
            if links > 0 {
                counts.push(counted(links, "hop link"));
            }
            let readers = format!("s{}", at + 1);
            arrows.push(Arrow {
                from: alias(at),
                to: readers.clone(),
                look: Look::Live,
                lines: Vec::new(),
            });
            shapes.push(Shape {
                alias: readers,
                class: Class::Client,
                title: counts.join(", "),
                lines: Vec::new(),
                is_whole: true,
            });
        }
        Self { shapes, arrows }
    }
}

/// The nodes in the order of their addresses, and behind them, as somebody else's server, each that is the end of a link only.
fn sorted_nodes(topology: &Topology) -> Vec<Node> {
    let mut nodes = topology.nodes.clone();
    nodes.sort_by(|a, b| (&a.address, a.kind as u8, &a.id).cmp(&(&b.address, b.kind as u8, &b.id)));
    nodes.dedup_by(|a, b| a.id == b.id);
    let ends = topology
        .links
        .iter()
        .flat_map(|link| [&link.from, &link.to]);
    let mut unknown: Vec<_> = ends
        .filter(|id| !topology.nodes.iter().any(|node| node.id == **id))
        .collect();
    unknown.sort();
    unknown.dedup();
    nodes.extend(unknown.into_iter().map(|id| Node {
        id: id.clone(),
        kind: Kind::Foreign,
        address: id.clone(),
        streams: Vec::new(),
        incomplete: None,
    }));
    nodes
}

fn alias(at: usize) -> String {
    format!("n{}", at + 1)
}

/// What tells links between the same two nodes apart.
fn key(link: &Link) -> (Option<&str>, Option<&str>, u8, Option<&str>, Option<&str>) {
    (
        link.from_path.as_deref(),
        link.to_path.as_deref(),
        link.role as u8,
        link.transport.as_deref(),
        link.reason.as_deref(),
    )
}

fn look(link: &Link) -> Look {
    match (link.role, link.connected) {
        (Role::Standby, _) => Look::Standby,
        (_, true) => Look::Live,
        (_, false) => Look::Dead,
    }
}

fn has_several(node: &Node) -> bool {
    node.streams.len() > 1
}

fn of_node(at: usize, node: &Node) -> Shape {
    let (class, title) = match node.kind {
        Kind::Hop if node.streams.iter().any(|stream| stream.produces) => {
            (Class::Produce, "producer")
        }
        Kind::Hop => (Class::Hop, "hop"),
        Kind::Proxy => (Class::Proxy, "proxy"),
        Kind::Foreign => (Class::Foreign, "server"),
        // It is read as a bus is.
        Kind::Bus if node.address.starts_with("file:") => (Class::Bus, "recording"),
        Kind::Bus => (Class::Bus, "bus"),
        Kind::Other => (Class::Foreign, "other"),
    };
    let mut streams: Vec<&Stream> = node.streams.iter().collect();
    streams.sort_by(|a, b| a.path.cmp(&b.path));
    let shown = streams.iter().take(STREAMS);
    let shown = shown.map(|stream| format!("{} {}/s", plain(&stream.path), rate(stream.rate)));
    let more = streams.len().saturating_sub(STREAMS);
    let more = (more > 0).then(|| format!("and {more} more"));
    let why = node.incomplete.as_deref();
    let why = why.map(|why| format!("incomplete: {}", plain(why)));
    Shape {
        is_whole: why.is_none(),
        alias: alias(at),
        class,
        title: title.to_owned(),
        lines: [plain(&node.address)]
            .into_iter()
            .chain(shown)
            .chain(more)
            .chain(why)
            .collect(),
    }
}

fn counted(count: usize, unit: &str) -> String {
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// What is said of a link; which streams it is between, if the two have others.
fn of_link(link: &Link, with_paths: bool) -> Vec<String> {
    let paths = match (&link.from_path, &link.to_path) {
        (Some(from), Some(to)) if from == to => Some(plain(from)),
        (Some(from), Some(to)) => Some(format!("{} to {}", plain(from), plain(to))),
        (Some(from), None) => Some(plain(from)),
        (None, Some(to)) => Some(format!("to {}", plain(to))),
        (None, None) => None,
    };
    let role = match link.role {
        Role::Standby if link.connected => Some("standby, in use".to_owned()),
        Role::Standby => Some("standby".to_owned()),
        Role::Peer => Some("peer".to_owned()),
        Role::Consume | Role::Bus | Role::Proxy | Role::Other => None,
    };
    let down = match (&link.reason, look(link)) {
        (_, Look::Live) | (None, Look::Standby) => None,
        (None, Look::Dead) => Some("down".to_owned()),
        (Some(reason), _) => Some(format!("down: {}", plain(reason))),
    };
    let transport = link.transport.as_deref().map(plain);
    let brought = link.rate.map(|of| format!("{}/s", rate(of)));
    let lag = link
        .lag
        .map(|micros| format!("{} ms later", rate(micros as f64 / 1000.0)));
    let lines = [
        paths.filter(|_| with_paths),
        transport,
        role,
        brought,
        lag,
        down,
    ];
    lines.into_iter().flatten().collect()
}

/// A figure as short as it may be: whole from ten on.
fn rate(value: f64) -> String {
    match value {
        value if !value.is_finite() => "?".to_owned(),
        value if value >= 9.95 => format!("{value:.0}"),
        value => format!("{value:.1}").trim_end_matches(".0").to_owned(),
    }
}

/// A stranger's text as one short line in which nothing is hidden: no control characters, nothing that turns the direction of
/// writing (Unicode Standard Annex 9, section 2), nothing without width.
pub fn plain(text: &str) -> String {
    let is_hidden = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
    };
    let shown = |letter| {
        if is_hidden(letter) {
            '\u{fffd}'
        } else {
            letter
        }
    };
    let mut line: String = text.chars().take(LONGEST).map(shown).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}
