//! Random topologies.

use std::collections::BTreeSet;

use super::hop::Plan;
use super::net::Node;
use crate::endpoint::fanout::Overload;
use crate::stream::history::Limits;

/// Numbers from a seed: one from the first to the last, both included.
pub type Draw<'a> = &'a mut dyn FnMut(u64, u64) -> u64;

/// So many hops at most.
const MOST: u64 = 12;

/// What is consumed by whom: for each hop its upstreams, and the members of a mesh.
struct Shape {
    upstreams: Vec<Vec<Node>>,
    mesh: Vec<Node>,
}

/// A topology of up to 12 hops, and what it is called.
pub fn draw(draw: Draw) -> (&'static str, Vec<Plan>) {
    let count = draw(2, MOST) as usize;
    let (name, shape) = match draw(0, 7) {
        0 => ("chain", chain(count)),
        1 => ("tree", tree(count, draw)),
        2 => ("diamonds", layers(count, draw, true)),
        3 => ("ring", ring(count)),
        4 => ("hot-hot", layers(count, draw, false)),
        5 => ("mesh", mesh(count, draw)),
        6 => ("fan-in", fan_in(count)),
        _ => ("random", random(count, draw)),
    };
    let plans = shape.upstreams.iter().enumerate();
    let plans = plans.map(|(node, upstreams)| plan(node, upstreams.clone(), &shape.mesh, draw));
    (name, plans.collect())
}

fn plan(node: Node, upstreams: Vec<Node>, mesh: &[Node], draw: Draw) -> Plan {
    let is_member = mesh.contains(&node);
    let peers = mesh
        .iter()
        .copied()
        .filter(|peer| is_member && *peer != node);
    let must_publish = upstreams.is_empty() && !is_member;
    let (bytes, count) = match draw(0, 5) {
        0 => (1 << 20, Some(draw(2, 6) as usize)),
        1 => (draw(2_000, 8_000) as usize, None),
        _ => (1 << 20, None),
    };
    Plan {
        publishes: must_publish || draw(0, 3) == 0 || is_member && draw(0, 1) == 0,
        upstreams,
        peers: peers.collect(),
        history: Limits {
            bytes,
            count,
            age: None,
        },
        overload: match draw(0, 2) {
            0 => Overload::Skip,
            _ => Overload::Disconnect,
        },
    }
}

fn without_mesh(upstreams: Vec<Vec<Node>>) -> Shape {
    Shape {
        upstreams,
        mesh: Vec::new(),
    }
}

fn chain(count: usize) -> Shape {
    let upstreams = (0..count).map(|node| node.checked_sub(1).into_iter().collect());
    without_mesh(upstreams.collect())
}

fn tree(count: usize, draw: Draw) -> Shape {
    let upstreams = (0..count).map(|node| match node {
        0 => vec![],
        _ => vec![draw(0, node as u64 - 1) as usize],
    });
    without_mesh(upstreams.collect())
}

/// Pairs of hops that each consume both of the pair before; or single hops between the pairs.
fn layers(count: usize, draw: Draw, narrow: bool) -> Shape {
    let mut upstreams: Vec<Vec<Node>> = Vec::new();
    let mut before: Vec<Node> = Vec::new();
    let mut is_wide = !narrow && draw(0, 1) == 0;
    while upstreams.len() < count {
        let width = if is_wide { 2 } else { 1 };
        let from = upstreams.len();
        for _ in 0..width {
            upstreams.push(before.clone());
        }
        before = (from..from + width).collect();
        is_wide = !(narrow && is_wide);
    }
    upstreams.truncate(count);
    without_mesh(upstreams)
}

fn ring(count: usize) -> Shape {
    let upstreams = (0..count).map(|node| vec![(node + count - 1) % count]);
    without_mesh(upstreams.collect())
}

/// Some of them know all others of these; the rest hang on one of them each, and some feed one.
fn mesh(count: usize, draw: Draw) -> Shape {
    let members = draw(2, 5.min(count as u64)) as usize;
    let mut upstreams = vec![Vec::new(); count];
    for node in members..count {
        let member = draw(0, members as u64 - 1) as usize;
        match draw(0, 3) {
            0 => upstreams[member].push(node),
            _ => upstreams[node].push(member),
        }
    }
    Shape {
        upstreams,
        mesh: (0..members).collect(),
    }
}

/// All but one are consumed by that, half of them through a hop between.
fn fan_in(count: usize) -> Shape {
    let mut upstreams = vec![Vec::new(); count];
    for node in 1..count {
        let into = if node > 2 && node % 2 == 0 {
            node - 1
        } else {
            0
        };
        upstreams[into].push(node);
    }
    without_mesh(upstreams)
}

/// Any link may be there, circles included.
fn random(count: usize, draw: Draw) -> Shape {
    let upstreams = (0..count).map(|node| {
        let wanted = draw(0, 3);
        let others = (0..wanted).map(|_| draw(0, count as u64 - 1) as usize);
        let others: BTreeSet<_> = others.filter(|other| *other != node).collect();
        others.into_iter().collect()
    });
    without_mesh(upstreams.collect())
}

/// For each hop those whose own events reach it: from a member of a mesh to another goes only what has not come from a third.
pub fn sources(plans: &[&Plan]) -> Vec<BTreeSet<Node>> {
    let mut local: Vec<BTreeSet<Node>> = (0..plans.len()).map(|node| [node].into()).collect();
    let mut all = local.clone();
    loop {
        let before = (local.clone(), all.clone());
        for (node, plan) in plans.iter().enumerate() {
            for upstream in &plan.upstreams {
                let more = all[*upstream].clone();
                local[node].extend(&more);
                all[node].extend(&more);
            }
            for peer in &plan.peers {
                let more = local[*peer].clone();
                all[node].extend(&more);
            }
        }
        if before == (local.clone(), all.clone()) {
            return all;
        }
    }
}
