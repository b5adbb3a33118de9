use super::super::picture::tests::{all, hop, link, other};
use super::super::plantuml;
use super::*;

const CHAIN: &str = r#"@startuml
rectangle "producer\nlocalhost:8080\n/events" <<produce>> as producer
rectangle "hop\nlocalhost:9090\n/relay" <<hop>> as hop1
rectangle "page" <<client>> as page
rectangle "service" <<produce>> as service
service --> producer : POST
producer --> hop1
hop1 --> page
@enduml"#;

/// What runs, when the figure above is true; on other ports.
fn chain() -> Topology {
    let mut producer = hop("A", "127.0.0.1:1", &["/events"]);
    producer.streams[0].publish = true;
    let mut relay = hop("B", "[::1]:2", &["/relay"]);
    relay.streams[0].subscribers = 1;
    Topology {
        nodes: vec![relay, producer],
        links: vec![link("A", "B")],
    }
}

const PORTS: [&str; 2] = ["producer=ws://localhost:1/events", "hop1=localhost:2"];

/// What differs from the figure, and what was compared.
fn differences(
    figure: &str,
    given: &[&str],
    without: &[&str],
    topology: &Topology,
) -> (Vec<String>, String) {
    let figure = Figure::parse(figure).expect("a figure");
    let given: Vec<As> = given
        .iter()
        .map(|given| given.parse().expect("ALIAS=URL"))
        .collect();
    let without: Vec<_> = without.iter().map(|&alias| alias.to_owned()).collect();
    let verdict = Expected::new(&figure, &given, &without)
        .expect("it fits")
        .compare(topology, &[]);
    let compared = verdict.to_string();
    (verdict.differences, compared)
}

/// What differs from the chain after a change of what runs.
fn changed(change: impl FnOnce(&mut Topology)) -> Vec<String> {
    let mut topology = chain();
    change(&mut topology);
    differences(CHAIN, &PORTS, &[], &topology).0
}

#[test]
fn a_true_figure_is_true() {
    let (differences, compared) = differences(CHAIN, &PORTS, &[], &chain());
    assert_eq!(differences, [""; 0]);
    assert_eq!(compared, "2 instances, 1 link, 1 subscriber, 1 publisher");
}

#[test]
fn the_label_says_where_it_is() {
    let mut topology = chain();
    topology.nodes[0].address = "localhost:9090".to_owned();
    topology.nodes[1].address = "0.0.0.0:8080".to_owned();
    assert_eq!(differences(CHAIN, &[], &[], &topology).0, [""; 0]);
}

#[test]
fn each_difference_is_a_line() {
    assert_eq!(
        changed(|topology| topology.links.clear()),
        ["hop1 gets events from producer in the figure, but not here"]
    );
    let down = changed(|topology| {
        topology.links[0].connected = false;
        topology.links[0].reason = Some("connection refused".to_owned());
    });
    assert_eq!(
        down,
        ["the link from producer to hop1 is down: connection refused"]
    );
    assert_eq!(
        changed(|topology| topology.links.push(link("B", "A"))),
        ["a link from hop1 to producer that is not in the figure"]
    );
    let stranger = changed(|topology| {
        topology.nodes.push(hop("C", "127.0.0.1:9", &["/x"]));
        topology.links.push(Link {
            from_path: Some("/x".to_owned()),
            ..link("C", "B")
        });
    });
    assert_eq!(
        stranger,
        ["a link from 127.0.0.1:9/x to hop1 that is not in the figure"]
    );
    let dead = changed(|topology| {
        topology.links.push(Link {
            connected: false,
            ..link("ws://x.example/", "B")
        });
    });
    assert_eq!(
        dead,
        ["a link from ws://x.example/ to hop1, which is down, that is not in the figure"]
    );
    assert_eq!(
        changed(|topology| topology.nodes[0].streams[0].subscribers = 0),
        ["hop1 has 1 subscriber in the figure, but 0 here"]
    );
    assert_eq!(
        changed(|topology| topology.nodes[1].streams[0].publish = false),
        ["somebody publishes to producer in the figure, but it takes nothing here"]
    );
    assert_eq!(
        changed(|topology| topology.nodes[0].streams[0].path = "/other".to_owned()),
        ["hop1 serves no /relay"]
    );
    let gone = changed(|topology| {
        topology.nodes.remove(1);
    });
    assert_eq!(
        gone,
        [
            "producer is not at localhost:1",
            "a link from A to hop1 that is not in the figure"
        ]
    );
}

#[test]
fn who_reads_as_hops_do_is_a_subscriber() {
    let tail = |hops| {
        changed(|topology| {
            topology.nodes[0].streams[0].subscribers = 0;
            topology.nodes[0].streams[0].hops = hops;
            topology.nodes[1].streams[0].hops = 1;
        })
    };
    assert_eq!(tail(1), [""; 0]);
    assert_eq!(tail(0), ["hop1 has 1 subscriber in the figure, but 0 here"]);
}

#[test]
fn who_does_not_answer_is_not_there() {
    let figure = Figure::parse(CHAIN).expect("a figure");
    let given = PORTS.map(|given| given.parse().expect("ALIAS=URL"));
    let expected = Expected::new(&figure, &given, &[]).expect("it fits");
    let mut topology = chain();
    topology.links[0].connected = false;
    let verdict = expected.compare(&topology, &["http://127.0.0.1:1/".to_owned()]);
    assert_eq!(verdict.differences, ["producer is not at localhost:1"]);
}

#[test]
fn what_is_beyond_the_figure_is_nobodys_business() {
    let beyond = changed(|topology| {
        topology.nodes.push(hop("C", "127.0.0.1:9", &["/x"]));
        topology.nodes.push(hop("D", "127.0.0.1:10", &["/x"]));
        topology.links.push(link("C", "D"));
    });
    assert_eq!(beyond, [""; 0]);
}

#[test]
fn an_arrow_more_or_less_is_a_difference() {
    let more = CHAIN.replace(
        "hop1 --> page",
        "hop1 --> page\nhop1 --> producer\nhop1 --> page",
    );
    let expected = [
        "producer gets events from hop1 in the figure, but not here",
        "hop1 has 2 subscribers in the figure, but 1 here",
    ];
    assert_eq!(differences(&more, &PORTS, &[], &chain()).0, expected);
    let less = CHAIN.replace("producer --> hop1", "");
    assert_eq!(
        differences(&less, &PORTS, &[], &chain()).0,
        ["a link from producer to hop1 that is not in the figure"]
    );
}

#[test]
fn a_dotted_arrow_may_be_there() {
    let dotted = CHAIN.replace("producer --> hop1", "producer ..> hop1");
    let mut topology = chain();
    assert_eq!(differences(&dotted, &PORTS, &[], &topology).0, [""; 0]);
    topology.links.clear();
    assert_eq!(differences(&dotted, &PORTS, &[], &topology).0, [""; 0]);
    topology.links.push(Link {
        role: Role::Standby,
        connected: false,
        ..link("B", "A")
    });
    assert_eq!(differences(&dotted, &PORTS, &[], &topology).0, [""; 0]);
}

const BUS: &str = r#"@startuml
rectangle "one\nlocalhost:1" <<hop>> as one
rectangle "Redis" <<bus>> as redis
rectangle "two\nlocalhost:2" <<hop>> as two
one <--> redis
redis --> two
@enduml"#;

/// Two hops and a bus, by which the first speaks to the second.
fn bus() -> Topology {
    let bus = other(
        Kind::Bus,
        "redis+stream://127.0.0.1:7000/0?stream=x&maxlen=1",
    );
    let over = |from: &str, to: &str| Link {
        role: Role::Bus,
        ..link(from, to)
    };
    let links = vec![over("A", &bus.id), over(&bus.id, "A"), over(&bus.id, "B")];
    Topology {
        nodes: vec![
            hop("A", "localhost:1", &["/x"]),
            hop("B", "localhost:2", &["/x"]),
            bus,
        ],
        links,
    }
}

#[test]
fn a_bus_is_known_by_its_url() {
    let mut topology = bus();
    for url in [
        "localhost:7000",
        "redis://localhost:7000",
        "redis+stream://localhost:7000/0?stream=x",
    ] {
        assert_eq!(
            differences(BUS, &[&format!("redis={url}")], &[], &topology).0,
            [""; 0],
            "{url}"
        );
    }
    let wrong = differences(
        BUS,
        &["redis=redis+stream://localhost:7000/0?stream=y"],
        &[],
        &topology,
    )
    .0;
    assert_eq!(wrong.len(), 6, "{wrong:?}");
    topology.links.pop();
    let lost = differences(BUS, &["redis=localhost:7000"], &[], &topology).0;
    assert_eq!(
        lost,
        ["two gets events from redis in the figure, but not here"]
    );
}

#[test]
fn a_bus_may_have_several_addresses() {
    let mut topology = bus();
    topology
        .nodes
        .push(other(Kind::Bus, "zmq+tcp://localhost:7001?topic=x"));
    topology.links[2].from = topology.nodes[3].id.clone();
    let given = ["redis=localhost:7000", "redis=zmq+tcp://localhost:7001"];
    assert_eq!(differences(BUS, &given, &[], &topology).0, [""; 0]);
}

#[test]
fn what_is_left_out_is_gone_through() {
    let mut topology = bus();
    topology.nodes.pop();
    topology.links = vec![link("A", "B")];
    assert_eq!(differences(BUS, &[], &["redis"], &topology).0, [""; 0]);
    topology.links = vec![link("B", "A")];
    let expected = [
        "two gets events from one in the figure, but not here",
        "a link from two to one that is not in the figure",
    ];
    assert_eq!(differences(BUS, &[], &["redis"], &topology).0, expected);
}

#[test]
fn a_figure_wants_to_know_where_things_are() {
    let figure = Figure::parse(BUS).expect("a figure");
    let error = Expected::new(&figure, &[], &[]).expect_err("where is it?");
    assert_eq!(
        error,
        "nothing says where redis is: name it with --as redis=URL, or leave it out with --without redis"
    );
    let error = Expected::new(&figure, &[], &["nats".to_owned()]).expect_err("there is none");
    assert_eq!(error, "the figure has no box nats; it has one, redis, two");
    for wrong in ["x", "x=", "x=y", "x=unix://y"] {
        assert!(wrong.parse::<As>().is_err(), "{wrong}");
    }
}

#[test]
fn whoever_is_in_the_figure_is_asked() {
    let figure = Figure::parse(CHAIN).expect("a figure");
    let given = ["hop1=ws://localhost:2/relay".parse().expect("ALIAS=URL")];
    let expected = Expected::new(&figure, &given, &[]).expect("it fits");
    assert_eq!(
        expected.asked(&given),
        ["localhost:8080", "ws://localhost:2/relay"]
    );
}

#[test]
fn a_picture_of_what_runs_is_a_figure_of_it() {
    let mut topology = all();
    for link in &mut topology.links {
        link.connected |= link.role != Role::Standby;
    }
    let (differences, compared) = differences(&plantuml::render(&topology), &[], &[], &topology);
    assert_eq!(differences, [""; 0]);
    assert_eq!(compared, "2 instances, 3 links, 1 subscriber, 0 publishers");
}
