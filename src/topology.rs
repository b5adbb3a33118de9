//! The picture of what runs: instances, and the links between them, as one hop and those upstream of it know them.
//!
//! A hop tells what it knows of itself and asks its upstreams for the rest, so whoever asks one hop gets all that is upstream of it.

pub mod answer;
pub mod ask;
pub mod dot;
pub mod expect;
pub mod figure;
mod format;
pub mod known;
mod merge;
pub mod mermaid;
pub(crate) mod picture;
pub mod plantuml;
pub mod trace;

pub use format::Format;
pub use picture::plain;
use serde::{Deserialize, Serialize};

/// Of what one upstream tells, so much is taken.
const MAX_TOLD_NODES: usize = 1_000;
const MAX_TOLD_LINKS: usize = 2_000;
/// Of each node.
const MAX_TOLD_STREAMS: usize = 1_000;
/// An id or an address is no longer than this, in bytes.
const LONGEST_NAME: usize = 4_096;

/// Nodes and links. Several of them are one when they are merged: nodes are the same when their ids are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Each once.
    pub nodes: Vec<Node>,
    /// In the direction in which events flow; between two nodes there may be several, of different streams.
    pub links: Vec<Link>,
}

impl Topology {
    /// Leaves of what somebody has told as much as is dealt with: the first nodes, links and streams, without those that have names
    /// which are none.
    pub fn cut(&mut self) {
        let is_name = |name: &String| name.len() <= LONGEST_NAME;
        self.nodes
            .retain(|node| is_name(&node.id) && is_name(&node.address));
        self.nodes.truncate(MAX_TOLD_NODES);
        for node in &mut self.nodes {
            node.streams.retain(|stream| is_name(&stream.path));
            node.streams.truncate(MAX_TOLD_STREAMS);
        }
        self.links
            .retain(|link| is_name(&link.from) && is_name(&link.to));
        self.links.truncate(MAX_TOLD_LINKS);
    }

    /// What it takes in memory, in bytes, about.
    pub fn size(&self) -> usize {
        let streams = self.nodes.iter().flat_map(|node| &node.streams);
        let streams = streams.map(|it| size_of::<Stream>() + it.path.len() + it.origin.len());
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|it| size_of::<Node>() + it.id.len() + it.address.len());
        let links = self.links.iter().map(|it| {
            let texts = [&it.from_path, &it.to_path, &it.transport, &it.reason];
            let texts = texts.into_iter().flatten().map(String::len);
            size_of::<Link>() + it.from.len() + it.to.len() + texts.sum::<usize>()
        });
        streams.sum::<usize>() + nodes.sum::<usize>() + links.sum::<usize>()
    }

    /// How many hop links lead from this node to none of the others: to `wsevent tail`, or to hops that nobody has asked.
    pub fn loose_ends(&self, node: &Node) -> usize {
        let hops = sum(node.streams.iter().map(|stream| stream.hops));
        let links = self.links.iter().filter(|link| link.from == node.id);
        let known = links.filter(|link| link.connected && link.transport.as_deref() == Some("hop"));
        hops.saturating_sub(known.count())
    }
}

/// Something that events come from or go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Of a hop the id of its process ([`Origin`](crate::event::Origin)), or, while nobody has told that, of its stream; of a
    /// proxy an id of the same kind; of anything else its URL as it may be shown to anyone.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is, in its own words, or as others call it: `host:port` of a hop, a URL of what is none.
    pub address: String,
    /// What it serves, as far as whoever asks may know; of a hop only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
    /// Why not all is here that is to be told of it, and of what is upstream of it, in one line; none if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

impl Node {
    /// Whether it is known by what others tell only, although it could have told itself.
    fn is_silent(&self) -> bool {
        self.incomplete.is_some() && self.streams.is_empty()
    }

    /// Those of all its streams, without links to other hops.
    fn subscribers(&self) -> usize {
        sum(self.streams.iter().map(|stream| stream.subscribers))
    }
}

/// Of numbers that somebody has told, which may be any.
fn sum(numbers: impl Iterator<Item = usize>) -> usize {
    numbers.fold(0, usize::saturating_add)
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A wsevent.
    Hop,
    /// A `wsevent proxy`.
    Proxy,
    /// Anybody's server that events are consumed from.
    Foreign,
    /// A bus, standard input or output, or a webhook.
    Bus,
    /// What an older wsevent than the one that tells of it has no word for.
    #[serde(other)]
    Other,
}

/// A stream of a hop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Its path, with the parameters that name it.
    pub path: String,
    /// In the ids of events that begin here.
    pub origin: String,
    /// Events a second, over the last few seconds.
    pub rate: f64,
    /// Now, without links to other hops.
    pub subscribers: usize,
    /// Links to hops downstream, now.
    pub hops: usize,
    /// Whether random events are made here.
    pub produces: bool,
    /// Whether clients may publish.
    pub publish: bool,
}

/// What one node gets from another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The id of the node that sends.
    pub from: String,
    /// Which of its streams, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_path: Option<String>,
    /// The id of the node that receives.
    pub to: String,
    /// Into which of its streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_path: Option<String>,
    /// What it is for.
    pub role: Role,
    /// How events are carried: `hop`, `websocket`, `sse`, `ndjson`, or the scheme of a bus; none while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Whether there is a connection now. One that is [on standby](Role::Standby) has none as a rule.
    pub connected: bool,
    /// Events a second that it has brought first, over the last few seconds, if that is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How much later than on the fastest link events come on this one, in microseconds, if they come on several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Why there is no connection, in one line, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `--consume`.
    Consume,
    /// `--consume-standby`: used while there is no other.
    Standby,
    /// `--peer`: what has entered there.
    Peer,
    /// A bus, in either direction.
    Bus,
    /// A reverse proxy's upstream.
    Proxy,
    /// What an older wsevent than the one that tells of it has no word for.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_newer_hops_tell_can_be_read() {
        let told = r#"{"nodes": [{"id": "x", "kind": "satellite", "address": "x"}],
            "links": [{"from": "x", "to": "y", "role": "beam", "connected": true}]}"#;
        let told: Topology = serde_json::from_str(told).expect("unknown words are no error");
        assert_eq!(
            (told.nodes[0].kind, told.links[0].role),
            (Kind::Other, Role::Other)
        );
        assert!(dot::render(&told).contains("other"));
        let end: trace::End = serde_json::from_str("\"lent\"").expect("nor here");
        assert_eq!(end, trace::End::Other);
    }

    #[test]
    fn no_more_is_taken_than_is_dealt_with() {
        let node = |at: usize| Node {
            id: at.to_string(),
            kind: Kind::Hop,
            address: if at == 1 {
                "x".repeat(5_000)
            } else {
                String::new()
            },
            streams: vec![],
            incomplete: None,
        };
        let mut told = Topology {
            nodes: (0..25_000).map(node).collect(),
            links: vec![],
        };
        told.cut();
        assert_eq!(told.nodes.len(), MAX_TOLD_NODES);
        assert_eq!(told.nodes[1].id, "2", "its address was none");
    }
}
