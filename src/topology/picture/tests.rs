use super::super::{Kind, Link, Node, Role, Stream, Topology};
use super::*;

/// A hop with streams that nobody reads.
pub fn hop(id: &str, address: &str, paths: &[&str]) -> Node {
    let stream = |path: &&str| Stream {
        path: (*path).to_owned(),
        origin: id.to_owned(),
        rate: 10.0,
        subscribers: 0,
        hops: 0,
        produces: false,
        publish: false,
    };
    Node {
        id: id.to_owned(),
        kind: Kind::Hop,
        incomplete: None,
        address: address.to_owned(),
        streams: paths.iter().map(stream).collect(),
    }
}

/// Something that is no hop.
pub fn other(kind: Kind, url: &str) -> Node {
    Node {
        id: url.to_owned(),
        kind,
        incomplete: None,
        address: url.to_owned(),
        streams: Vec::new(),
    }
}

/// A connection between hops.
pub fn link(from: &str, to: &str) -> Link {
    Link {
        from: from.to_owned(),
        from_path: None,
        to: to.to_owned(),
        to_path: None,
        role: Role::Consume,
        transport: Some("hop".to_owned()),
        connected: true,
        rate: None,
        lag: None,
        reason: None,
    }
}

/// One of everything: a producer with a subscriber, a hop that has its events from there and from a foreign server that is away, a bus.
pub fn all() -> Topology {
    let mut producer = hop("A", "localhost:8080", &["/events"]);
    producer.streams[0].produces = true;
    producer.streams[0].subscribers = 1;
    let relay = hop("B", "localhost:9090", &["/relay", "/also"]);
    let foreign = other(Kind::Foreign, "wss://feed.example/x");
    let bus = other(Kind::Bus, "redis://localhost:6379/0?channel=x");
    let links = vec![
        Link {
            rate: Some(9.96),
            lag: Some(1_500),
            from_path: Some("/events".to_owned()),
            to_path: Some("/relay".to_owned()),
            ..link("A", "B")
        },
        Link {
            role: Role::Standby,
            transport: None,
            connected: false,
            ..link("A", "B")
        },
        Link {
            connected: false,
            transport: None,
            reason: Some("connection refused".to_owned()),
            ..link(&foreign.id, "B")
        },
        Link {
            role: Role::Bus,
            transport: Some("redis".to_owned()),
            ..link("B", &bus.id)
        },
    ];
    Topology {
        nodes: vec![foreign, relay, bus, producer],
        links,
    }
}

/// Everything that a stranger could call things, in one topology.
pub fn hostile(name: &str) -> Topology {
    let mut hop = hop("A", name, &[name, "/other"]);
    hop.streams[0].subscribers = 2;
    let link = Link {
        from_path: Some(name.to_owned()),
        to_path: Some(name.to_owned()),
        transport: Some(name.to_owned()),
        connected: false,
        reason: Some(name.to_owned()),
        ..link(name, "A")
    };
    Topology {
        nodes: vec![hop],
        links: vec![link],
    }
}

/// Names that mean something somewhere.
pub const HOSTILE: [&str; 16] = [
    "\"]; n1 --> n1\n@enduml\n!include /etc/passwd",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a\\",
    "\\\"",
    "\\N\\G\\l",
    "%load_json(\"x\") %22 $x !theme",
    "**bold** //it// __u__ --s-- ~~w~~ \"\"m\"\" ==h== [[http://x]] {{json}}",
    "`md` #quot; #60;b#62; &lt;b&gt; &#60;",
    "<U+0041> &#65; <&heart> :) <$sprite>",
    "end subgraph click n1 callback",
    "|x| ]] }} )) --> %% comment",
    "' wsevent /' '/ skinparam x y",
    "\u{202e}txt.exe\u{200b}\u{0}\u{7f}\u{85}",
    "",
    " ",
    "/päth/✓/🦀",
];

#[test]
fn what_is_there_has_one_order() {
    let mut topology = all();
    let picture = Picture::of(&topology);
    topology.nodes.reverse();
    topology.links.reverse();
    assert_eq!(Picture::of(&topology), picture);
    let shapes = picture.shapes.iter();
    let shapes: Vec<_> = shapes
        .map(|shape| format!("{} {} {}", shape.alias, shape.title, shape.lines.concat()))
        .collect();
    let expected = [
        "n1 producer localhost:8080/events 10/s",
        "n2 hop localhost:9090/also 10/s/relay 10/s",
        "n3 bus redis://localhost:6379/0?channel=x",
        "n4 server wss://feed.example/x",
        "s1 1 subscriber ",
    ];
    assert_eq!(shapes, expected);
    let arrows: Vec<_> = picture
        .arrows
        .iter()
        .map(|arrow| {
            format!(
                "{} {} {:?} {}",
                arrow.from,
                arrow.to,
                arrow.look,
                arrow.lines.join("; ")
            )
        })
        .collect();
    let expected = [
        "n1 n2 Standby standby",
        "n1 n2 Live /events to /relay; hop; 10/s; 1.5 ms later",
        "n2 n3 Live redis",
        "n4 n2 Dead down: connection refused",
        "n1 s1 Live ",
    ];
    assert_eq!(arrows, expected);
}

#[test]
fn a_link_from_nowhere_has_an_end_of_its_own() {
    let topology = Topology {
        nodes: vec![hop("A", "localhost:1", &[])],
        links: vec![link("GONE", "A")],
    };
    let picture = Picture::of(&topology);
    assert_eq!(picture.shapes[1].lines, ["GONE"]);
    assert_eq!(picture.arrows.len(), 1);
}

#[test]
fn a_link_to_nobody_known_is_counted() {
    let mut topology = all();
    let counts = |topology: &Topology| {
        let shapes = Picture::of(topology).shapes.into_iter();
        let clients = shapes.filter(|shape| shape.class == Class::Client);
        clients.map(|shape| shape.title).collect::<Vec<_>>()
    };
    topology.nodes[3].streams[0].hops = 1;
    assert_eq!(counts(&topology), ["1 subscriber"]);
    topology.nodes[3].streams[0].hops = 3;
    topology.nodes[1].streams[0].hops = 1;
    assert_eq!(
        counts(&topology),
        ["1 subscriber, 2 hop links", "1 hop link"]
    );
}

#[test]
fn many_streams_are_counted() {
    let paths: Vec<_> = (0..30).map(|number| format!("/{number:02}")).collect();
    let paths: Vec<_> = paths.iter().map(String::as_str).collect();
    let topology = Topology {
        nodes: vec![hop("A", "localhost:1", &paths)],
        links: Vec::new(),
    };
    let shape = &Picture::of(&topology).shapes[0];
    assert_eq!(shape.lines.len(), 10);
    assert_eq!(shape.lines[9], "and 22 more");
}

#[test]
fn rates_are_short() {
    let rates = [0.0, 0.04, 0.25, 5.0, 9.94, 9.95, 1234.5, f64::NAN].map(rate);
    assert_eq!(rates, ["0", "0", "0.2", "5", "9.9", "10", "1234", "?"]);
}

#[test]
fn plain_text_is_one_short_line() {
    assert_eq!(plain("a\nb\u{202e}c"), "a\u{fffd}b\u{fffd}c");
    let long = plain(&"é".repeat(100));
    assert_eq!(long.chars().count(), 81);
    assert!(long.ends_with('…'));
}
