use super::super::Stream;
use super::*;

fn hop(id: &str, address: &str, origins: &[&str]) -> Node {
    let streams = origins.iter().map(|origin| Stream {
        path: format!("/{origin}"),
        origin: (*origin).to_owned(),
        rate: 0.0,
        subscribers: 0,
        hops: 0,
        produces: false,
        publish: false,
    });
    Node {
        id: id.to_owned(),
        kind: Kind::Hop,
        incomplete: None,
        address: address.to_owned(),
        streams: streams.collect(),
    }
}

fn link(from: &str, to: &str, role: Role) -> Link {
    Link {
        from: from.to_owned(),
        from_path: None,
        to: to.to_owned(),
        to_path: None,
        role,
        transport: None,
        connected: true,
        rate: None,
        lag: None,
        reason: None,
    }
}

fn ends(topology: &Topology) -> Vec<(&str, &str)> {
    let links = topology.links.iter();
    links.map(|link| (&*link.from, &*link.to)).collect()
}

#[test]
fn whoever_stands_for_a_hop_becomes_it() {
    const UP: &str = "0000000000001";
    const STREAM: &str = "0000000000002";
    const DOWN: &str = "0000000000003";
    let mut all = Topology {
        nodes: vec![hop(DOWN, "h:1", &[]), hop(STREAM, "h:2", &[])],
        links: vec![link(STREAM, DOWN, Role::Consume)],
    };
    all.merge(&Topology {
        nodes: vec![hop(UP, "h:2", &[STREAM])],
        links: vec![],
    });
    assert_eq!(ends(&all), [(UP, DOWN)]);
    assert_eq!(all.nodes.len(), 2);
    // Who tells of the links into a stream tells of all.
    all.merge(&Topology {
        nodes: vec![],
        links: vec![link("old", DOWN, Role::Consume), link("x", UP, Role::Peer)],
    });
    assert_eq!(ends(&all), [(UP, DOWN), ("x", UP)]);
}

#[test]
fn what_a_proxy_leads_to_is_known_by_its_address() {
    const PROXY: &str = "0000000000001";
    const HOP: &str = "0000000000002";
    let foreign = |address: &str| Node {
        kind: Kind::Foreign,
        ..hop(&format!("http://{address}"), address, &[])
    };
    let mut all = Topology {
        nodes: vec![foreign("127.0.0.1:1"), foreign("127.0.0.1:2")],
        links: vec![
            link("http://127.0.0.1:1", PROXY, Role::Proxy),
            link("http://127.0.0.1:2", PROXY, Role::Proxy),
        ],
    };
    all.merge(&Topology {
        nodes: vec![hop(HOP, "localhost:2", &[])],
        links: vec![],
    });
    assert_eq!(ends(&all), [("http://127.0.0.1:1", PROXY), (HOP, PROXY)]);
    assert_eq!(all.nodes.len(), 2);
}

#[test]
fn an_address_is_that_of_a_hop() {
    for (address, own, expected) in [
        ("a:1", "A:1", true),
        ("a:1", "a:2", false),
        ("http://127.0.0.1:1", "localhost:1", true),
        ("[::1]:1", "127.0.0.1:1", true),
        ("a:1", "0.0.0.0:1", true),
        ("a:1", "b:1", false),
        ("a", "a", false),
    ] {
        assert_eq!(is_at(address, own), expected, "{address} {own}");
    }
}

#[test]
fn nobody_can_rename_who_has_told_its_own_id() {
    const OWN: &str = "0000000000001";
    const UP: &str = "0000000000002";
    const LIAR: &str = "0000000000003";
    let mut all = Topology {
        nodes: vec![hop(OWN, "h:1", &[]), hop(UP, "h:2", &["0000000000004"])],
        links: vec![link(UP, OWN, Role::Consume)],
    };
    all.merge(&Topology {
        nodes: vec![hop(LIAR, "h:3", &[OWN, UP])],
        links: vec![],
    });
    assert_eq!(ends(&all), [(UP, OWN)]);
    let ids: Vec<_> = all.nodes.iter().map(|node| &*node.id).collect();
    assert_eq!(ids, [OWN, UP, LIAR]);
}

#[test]
fn of_several_that_tell_of_the_same_the_first_counts() {
    let mut all = Topology::default();
    let told = |from: &str, path: &str| Topology {
        nodes: vec![hop("x", "h:1", &["a", path])],
        links: vec![link(from, "x", Role::Consume)],
    };
    all.merge_all(&[&told("up", "b"), &told("other", "c")]);
    assert_eq!(ends(&all), [("up", "x")]);
    let paths = all.nodes[0].streams.iter().map(|stream| &*stream.path);
    assert_eq!(paths.collect::<Vec<_>>(), ["/a", "/b", "/c"]);
}
