//! Several topologies become one.

use std::collections::{HashMap, HashSet};

use super::{Kind, Link, Node, Role, Topology};
use crate::event::Origin;

/// There are no more nodes than this in a topology, and no more links than that.
const MAX_NODES: usize = 1_000;
const MAX_LINKS: usize = 4_000;

impl Topology {
    /// Adds what another one has. What both tell stays as it is here: whoever tells of links into a stream, or out of it to a bus,
    /// tells of all of them.
    pub fn merge(&mut self, other: &Self) {
        self.merge_all(&[other]);
    }

    /// Adds what these have, one after the other. The first node here, and each that has told streams of its own, keeps its id
    /// whatever others say.
    pub fn merge_all(&mut self, others: &[&Self]) {
        let fixed = self.nodes.iter().enumerate();
        let fixed = fixed.filter(|(at, node)| *at == 0 || !node.streams.is_empty());
        let fixed: HashSet<_> = fixed.map(|(_, node)| node.id.clone()).collect();
        self.merge_nodes(others);
        let mut names = self.names(others);
        names.retain(|name, _| !fixed.contains(name));
        rename(&mut self.links, &names);
        self.nodes.retain(|node| !names.contains_key(&node.id));
        let mut told: HashSet<_> = self.links.iter().map(Link::told_by).collect();
        for other in others {
            if self.links.len() > MAX_LINKS {
                break;
            }
            let mut news = other.links.clone();
            rename(&mut news, &names);
            news.retain(|link| !told.contains(&link.told_by()));
            told.extend(news.iter().map(Link::told_by));
            self.links.extend(news);
        }
        if self.links.len() > MAX_LINKS {
            self.links.truncate(MAX_LINKS);
            self.is_too_large();
        }
    }

    /// Notes with the node that tells that there is more.
    pub(super) fn is_too_large(&mut self) {
        if let Some(first) = self.nodes.first_mut() {
            first.incomplete = Some("there is more than is told at once".to_owned());
        }
    }

    fn merge_nodes(&mut self, others: &[&Self]) {
        let places = self.nodes.iter().enumerate();
        let mut places: HashMap<_, _> = places.map(|(at, node)| (node.id.clone(), at)).collect();
        // The paths of those nodes that several tell of.
        let mut paths: HashMap<usize, HashSet<String>> = HashMap::new();
        for node in others.iter().flat_map(|other| &other.nodes) {
            let Some(&at) = places.get(&node.id) else {
                if self.nodes.len() < MAX_NODES {
                    places.insert(node.id.clone(), self.nodes.len());
                    self.nodes.push(node.clone());
                } else {
                    self.is_too_large();
                }
                continue;
            };
            let known = &mut self.nodes[at];
            // What it tells itself counts.
            match (known.is_silent(), node.is_silent()) {
                (true, false) => known.incomplete.clone_from(&node.incomplete),
                (false, true) => {}
                _ => known.incomplete = known.incomplete.take().or(node.incomplete.clone()),
            }
            let known = &mut known.streams;
            let paths = paths
                .entry(at)
                .or_insert_with(|| known.iter().map(|stream| stream.path.clone()).collect());
            for stream in &node.streams {
                if !paths.contains(&stream.path) {
                    paths.insert(stream.path.clone());
                    known.push(stream.clone());
                }
            }
        }
    }

    /// The node that has the stream with this origin, and the path of that.
    pub fn node_of(&self, origin: &str) -> Option<(&Node, &str)> {
        self.nodes.iter().find_map(|node| {
            let mut streams = node.streams.iter();
            let stream = streams.find(|stream| stream.origin == origin)?;
            Some((node, &*stream.path))
        })
    }

    /// For ids that stand for a node whose own id was not known to all, that one: they are the origin of one of its streams, or
    /// its address, as a proxy has it. `others` have links that are to come.
    fn names(&self, others: &[&Self]) -> HashMap<String, String> {
        let mut names = HashMap::new();
        for node in &self.nodes {
            for stream in &node.streams {
                if stream.origin != node.id {
                    // Who is nearer counts more.
                    let name = names.entry(stream.origin.clone());
                    name.or_insert_with(|| node.id.clone());
                }
            }
        }
        let others = others.iter().flat_map(|other| &other.links);
        let links = self.links.iter().chain(others);
        // Nobody has asked what stands by, either.
        let rests = |link: &Link| link.role == Role::Standby && !link.connected;
        let behind = links.filter(|link| link.role == Role::Proxy || rests(link));
        let behind: HashSet<_> = behind.map(|link| &link.from).collect();
        let foreign = self.nodes.iter().filter(|node| node.kind == Kind::Foreign);
        for node in foreign.filter(|node| behind.contains(&node.id)) {
            let hops = self.nodes.iter().filter(|hop| hop.kind == Kind::Hop);
            let mut there = hops.filter(|hop| is_at(&node.address, &hop.address));
            if let (Some(hop), None) = (there.next(), there.next()) {
                let id = names.get(&hop.id).unwrap_or(&hop.id).clone();
                names.insert(node.id.clone(), id);
            }
        }
        names
    }
}

impl Link {
    /// Who tells of it, and of which of its streams.
    fn told_by(&self) -> (String, Option<String>, bool) {
        // The id of a bus is a URL.
        let leads_out = self.role == Role::Bus && self.to.parse::<Origin>().is_err();
        match leads_out {
            true => (self.from.clone(), self.from_path.clone(), true),
            false => (self.to.clone(), self.to_path.clone(), false),
        }
    }
}

fn rename(links: &mut [Link], names: &HashMap<String, String>) {
    for link in links {
        for id in [&mut link.from, &mut link.to] {
            if let Some(name) = names.get(id) {
                id.clone_from(name);
            }
        }
    }
}

/// Whether a hop that says it serves at `own` may be the one that others reach at `address`; both are `host:port`, perhaps of a URL.
pub fn is_at(address: &str, own: &str) -> bool {
    let split = |text: &str| -> Option<(String, u16)> {
        let (host, port) = text.rsplit('/').next()?.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_ascii_lowercase(), port.parse().ok()?))
    };
    let (Some((host, port)), Some((own_host, own_port))) = (split(address), split(own)) else {
        return false;
    };
    let is_loopback = |host: &str| host == "localhost" || host == "::1" || host.starts_with("127.");
    let is_any = matches!(&*own_host, "0.0.0.0" | "::");
    let is_same = host == own_host || is_loopback(&host) && is_loopback(&own_host);
    port == own_port && (is_same || is_any)
}

#[cfg(test)]
mod tests;
