//! The figures, as somebody else's parsers read them: those of Python's `prometheus_client`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{ANY, admin_of, get, hop};
use crate::harness::client::{Client, request};
use crate::harness::http::Ndjson;
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::port::ReservedPort;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;
use crate::peers::{Language, Peer};

/// All samples, by name and labels.
struct Scrape {
    families: Value,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(families: Value) -> Self {
        let mut samples = BTreeMap::new();
        for family in families.as_object().expect("families").values() {
            for sample in family["samples"].as_array().expect("samples") {
                let name = sample[0].as_str().expect("a name");
                let value = sample[2].as_f64().expect("a number");
                let before = samples.insert(format!("{name} {}", sample[1]), value);
                assert!(before.is_none(), "twice: {sample}");
            }
        }
        Self { families, samples }
    }

    /// The figure with this name and these labels.
    fn get(&self, name: &str, labels: &Value) -> Option<f64> {
        self.samples.get(&format!("{name} {labels}")).copied()
    }

    /// Whether there is a sample of this name.
    fn has(&self, name: &str) -> bool {
        let name = format!("{name} ");
        self.samples.keys().any(|sample| sample.starts_with(&name))
    }
}

/// What both parsers make of what there is now, which is the same but for their formats.
async fn scrape(admin: SocketAddr) -> Scrape {
    let url = format!("http://{admin}/-/metrics");
    let mut peer = Peer::start(Language::Python, "metrics", &[&url]);
    let mut open = peer.says().await;
    let mut plain = peer.says().await;
    let open_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open["type"], open_type);
    assert_eq!(plain["type"], "text/plain; version=0.0.4; charset=utf-8");
    peer.ends().await;
    let open = Scrape::of(open["families"].take());
    let plain = Scrape::of(plain["families"].take());
    let names = |scrape: &Scrape| -> Vec<_> { scrape.samples.keys().cloned().collect() };
    assert_eq!(names(&open), names(&plain));
    open
}

/// Asks again until there is, or is not, a figure as wanted.
async fn until(admin: SocketAddr, what: &str, wanted: impl Fn(&str) -> bool) {
    let asking = async {
        let mut client = Client::connect(admin).await;
        while !wanted(&client.get("/-/metrics", &[]).await.1) {
            tokio::task::yield_now().await;
        }
    };
    within_guard(what, asking).await;
}

#[tokio::test]
async fn what_goes_through_streams_is_counted() {
    let (_upstream, mut link, hop) = Hop::connected(&ANY, &[]).await;
    let admin = admin_of(&hop).await;
    let mut readers = [hop.subscribe().await, hop.subscribe().await];
    let mut ndjson = Ndjson::of(&hop).await;
    for text in ["one", "", "three"] {
        link.send(Message::text(text)).await;
        readers[0].message().await;
    }
    ndjson.next().await;
    let found = scrape(admin).await;
    let stream = json!({"stream": "/events"});
    assert_eq!(found.get("wsevent_stream_events_total", &stream), Some(3.0));
    assert_eq!(found.get("wsevent_stream_bytes_total", &stream), Some(8.0));
    let found_in = |name: &str, labels: &Value| found.get(name, labels);
    for (transport, count) in [("websocket", 2), ("hop", 0), ("sse", 0), ("ndjson", 1)] {
        let labels = json!({"stream": "/events", "transport": transport});
        let found = found.get("wsevent_stream_subscribers", &labels);
        assert_eq!(found, Some(f64::from(count)), "{transport}");
        let connects = found_in("wsevent_subscriber_connects_total", &labels);
        assert_eq!(connects, Some(f64::from(count)), "{transport}");
    }
    let websocket = json!({"stream": "/events", "transport": "websocket"});
    for (name, expected) in [("events", 3.0), ("bytes", 8.0)] {
        let name = format!("wsevent_stream_received_{name}_total");
        assert_eq!(found_in(&name, &websocket), Some(expected), "{name}");
    }
    let route = json!({"route": "/events"});
    assert_eq!(found.get("wsevent_streams", &route), Some(1.0));
    let version = json!({"version": env!("CARGO_PKG_VERSION")});
    assert_eq!(found.get("wsevent_build_info", &version), Some(1.0));
    let url = hop
        .log
        .all("upstream connected")
        .first()
        .map(|line| line.field("url"));
    let upstream = json!({"stream": "/events", "url": url});
    for (name, expected) in [
        ("connected", 1.0),
        ("refuses", 0.0),
        ("connects_total", 1.0),
        ("failures_total", 0.0),
    ] {
        let name = format!("wsevent_upstream_{name}");
        assert_eq!(found.get(&name, &upstream), Some(expected), "{name}");
    }
    drop(link);
    until(admin, "the upstream is away", |text| {
        text.contains("wsevent_upstream_connected{stream=\"/events\"") && text.contains("\"} 0\n")
    })
    .await;
    // As the system says of it, at another moment.
    let resident = found.get("process_resident_memory_bytes", &json!({}));
    let resident = resident.expect("there is /proc") / hop.resident() as f64;
    assert!((0.2..5.0).contains(&resident), "{resident}");
    let files = found.get("process_open_fds", &json!({}));
    assert!(files > Some(6.0), "{files:?}");
}

#[tokio::test]
async fn what_has_gone_is_not_told_any_more() {
    let args = ["--serve-path=/t/*", "--accept-publish", "--linger=0s"];
    let (hop, admin) = hop(&args).await;
    let name = "/t/a%20b";
    let subscriber = Client::connect(hop.address).await.upgraded(name).await;
    let found = scrape(admin).await;
    let stream = json!({"stream": name});
    assert_eq!(found.get("wsevent_stream_events_total", &stream), Some(0.0));
    drop(subscriber);
    hop.logged("stream closed").await;
    until(admin, "the stream has gone", |text| !text.contains("/t/a")).await;
    let found = scrape(admin).await;
    assert!(!found.has("wsevent_stream_events_total"));
    let route = json!({"route": "/t/*"});
    assert_eq!(found.get("wsevent_streams", &route), Some(0.0));
}

#[tokio::test]
async fn buses_that_look_the_same_are_one() {
    let port = ReservedPort::new();
    let url = format!("redis://{}?channel=x", port.address());
    // What is produced goes round by the bus, and so does what is published: two connections.
    let (hop, admin) = hop(&["--bus", &url, "--accept-publish", "--produce"]).await;
    hop.logged_times("cannot reach downstream, trying again", 2)
        .await;
    let found = scrape(admin).await;
    for way in ["in", "out"] {
        let bus = json!({"bus": url, "stream": "/events", "way": way});
        assert_eq!(found.get("wsevent_bus_connected", &bus), Some(0.0));
        for name in ["connects", "events", "bytes", "refused", "lost"] {
            let name = format!("wsevent_bus_{name}_total");
            assert_eq!(found.get(&name, &bus), Some(0.0), "{name}");
        }
    }
}

/// The value of a sample in the text format, if it is there.
fn sample(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok())
}

#[tokio::test]
async fn what_is_sent_missed_and_done_about_the_slow_is_counted() {
    let args = ["--history", "256KiB", "--overload", "skip"];
    let (mut link, hop) = Hop::fed(&[&ANY[..], &args].concat()).await;
    let admin = admin_of(&hop).await;
    let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let mut slow = slow.upgraded("/events").await;
    let mut fast = hop.subscribe().await;
    const LEN: usize = 8 << 10;
    let count = more_than_kernel_buffers() / LEN;
    for _ in 0..count {
        link.send(Message::binary(vec![0; LEN])).await;
        fast.message().await;
    }
    let behind = r#"wsevent_subscribers_behind{stream="/events",transport="websocket"}"#;
    until(admin, "one is behind", |text| {
        sample(text, behind) == Some(1.0)
    })
    .await;
    // It goes on behind what it has missed.
    let skips = r#"wsevent_subscriber_overloads_total{stream="/events",action="skip"}"#;
    slow.message().await;
    let mut received = 1;
    while sample(&get(admin, "/-/metrics").await.1, skips) != Some(1.0) {
        slow.message().await;
        received += 1;
    }
    let labels = r#"{stream="/events",transport="websocket"}"#;
    let text = get(admin, "/-/metrics").await.1;
    let value = |name: &str| sample(&text, &format!("{name}{labels}"));
    assert_eq!(value("wsevent_subscriber_gaps_total"), Some(1.0));
    let sent = value("wsevent_subscriber_sent_events_total").expect("it is counted");
    assert!(sent >= (count + received) as f64, "{sent}");
    let bytes = value("wsevent_subscriber_sent_bytes_total").expect("it is counted");
    assert!(bytes >= sent * LEN as f64, "{bytes}");
    // All that is left for it, and no more than that, has been counted in the end.
    link.send(Message::text("last")).await;
    fast.message().await;
    while slow.message().await != Message::text("last") {
        received += 1;
    }
    let all = (count + 1 + received + 1) as f64;
    let sent = format!("wsevent_subscriber_sent_events_total{labels}");
    until(admin, "all is counted", |text| {
        sample(text, &sent) == Some(all)
    })
    .await;
}

#[tokio::test]
async fn readers_that_share_their_connection_are_counted_as_well() {
    let (mut link, hop) = Hop::fed(&ANY).await;
    let admin = admin_of(&hop).await;
    let mut reader = Client::connect(hop.address).await.used().await;
    let headers = [("Host", "localhost"), ("Accept", "application/x-ndjson")];
    reader.send(request("GET /events HTTP/1.1", &headers)).await;
    assert_eq!(reader.head().await.status, 200);
    for number in 0..3 {
        link.send(Message::text(number.to_string())).await;
    }
    reader.line_with("\"data\":\"2\"").await;
    let labels = r#"{stream="/events",transport="ndjson"}"#;
    let expected = [
        ("wsevent_stream_subscribers", 1.0),
        ("wsevent_subscriber_connects_total", 1.0),
        ("wsevent_subscriber_sent_events_total", 3.0),
        ("wsevent_subscribers_behind", 0.0),
    ];
    until(admin, "three events", |text| {
        expected
            .iter()
            .all(|(name, value)| sample(text, &format!("{name}{labels}")) == Some(*value))
    })
    .await;
    drop(reader);
    let nobody = format!("wsevent_stream_subscribers{labels}");
    until(admin, "nobody", |text| sample(text, &nobody) == Some(0.0)).await;
}

#[tokio::test]
async fn who_is_not_let_in_is_counted_by_reason() {
    let args = [
        "--accept-publish",
        "--max-message-size",
        "10",
        "--max-header-size",
        "8KiB",
    ];
    let (hop, admin) = hop(&args).await;
    let mut client = Client::connect(hop.address).await;
    assert_eq!(client.get("/nothing", &[]).await.0.status, 404);
    assert_eq!(client.get("/events?history=x", &[]).await.0.status, 400);
    let json = [("Accept", "application/json")];
    assert_eq!(client.get("/events", &json).await.0.status, 406);
    let foreign = [("Origin", "https://elsewhere.example")];
    assert_eq!(client.get("/events", &foreign).await.0.status, 403);
    let post = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n12345678901";
    client.send(post).await;
    assert_eq!(client.head().await.status, 413);
    let mut hostile = Client::connect(hop.address).await;
    hostile.send("\u{16}\u{3}\u{1} what is this\r\n\r\n").await;
    assert_eq!(hostile.head().await.status, 400);
    let mut gone = Client::connect(hop.address).await;
    gone.send(request(
        "GET /events HTTP/1.1",
        &[("Host", "localhost"), ("Last-Event-ID", "gone")],
    ))
    .await;
    assert_eq!(gone.head().await.status, 200);
    let expected = [
        (
            r#"wsevent_handshake_failures_total{reason="not_found"}"#,
            1.0,
        ),
        (
            r#"wsevent_handshake_failures_total{reason="malformed"}"#,
            2.0,
        ),
        (
            r#"wsevent_handshake_failures_total{reason="not_possible"}"#,
            1.0,
        ),
        (
            r#"wsevent_handshake_failures_total{reason="forbidden"}"#,
            1.0,
        ),
        (r#"wsevent_handshake_failures_total{reason="tls"}"#, 0.0),
        (r#"wsevent_publish_failures_total{reason="too_large"}"#, 1.0),
        (
            r#"wsevent_subscriber_gaps_total{stream="/events",transport="sse"}"#,
            1.0,
        ),
    ];
    until(admin, "all of them", |text| {
        expected
            .iter()
            .all(|(name, value)| sample(text, name) == Some(*value))
    })
    .await;
    let text = get(admin, "/-/metrics").await.1;
    let connections = sample(&text, "wsevent_connections").expect("there are some");
    assert!(connections >= 1.0 && sample(&text, "wsevent_connections_max") > Some(connections));
}

/// In docs/metrics.md: name, type, labels.
fn documented() -> Families {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("there is a page about it");
    let names = |cell: &str| -> BTreeSet<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let (_, figures) = text.split_once("\n## Figures\n").expect("a chapter");
    let rows = figures
        .lines()
        .filter(|row| row.starts_with("| `") && !row.starts_with("| `/"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 4, "{row}");
        let name = names(cells[0]).pop_first().expect("a name is code");
        (name, (cells[1].trim().to_owned(), names(cells[2])))
    })
    .collect()
}

/// Names, each with its type and labels.
pub type Families = BTreeMap<String, (String, BTreeSet<String>)>;

/// What a hop tells that has some of everything.
pub async fn families() -> Families {
    let port = ReservedPort::new();
    let forward = format!("redis://{}?channel=x", port.address());
    let origin = Hop::start(&["--produce-rate", "50"]).await;
    // The same once more, so that each event comes twice.
    let (first, second) = (origin.url.clone(), format!("{}?again", origin.url));
    let twice = ["--consume", &first, "--consume", &second];
    let args = [&ANY[..], &["--forward", &forward], &twice].concat();
    let hop = Hop::start(&args).await;
    let admin = admin_of(&hop).await;
    let is_late = |page: &Scrape| {
        let lag = &page.families["wsevent_upstream_lag_seconds"]["samples"];
        lag.as_array().is_some_and(|lag| !lag.is_empty())
    };
    // Of what carries events, there is what has carried some.
    until(admin, "events", |text| {
        text.contains("received_events_total{")
    })
    .await;
    let found = within_guard("a copy that is late", async {
        loop {
            let found = scrape(admin).await;
            if is_late(&found) {
                return found;
            }
        }
    })
    .await;
    let mut there = BTreeMap::new();
    for (name, family) in found.families.as_object().expect("families") {
        let kind = family["type"].as_str().expect("a type");
        // OpenMetrics names families, Prometheus what is in them.
        let (name, kind) = match kind {
            "counter" => (format!("{name}_total"), kind),
            "info" => (format!("{name}_info"), "gauge"),
            _ => (name.clone(), kind),
        };
        assert!(family["help"] != "", "{name}");
        let samples = family["samples"].as_array().expect("samples");
        let labels = samples
            .iter()
            .filter_map(|sample| sample[1].as_object())
            .flat_map(|labels| labels.keys().cloned())
            .collect::<BTreeSet<_>>();
        there.insert(name, (kind.to_owned(), labels));
    }
    there
}

#[tokio::test]
async fn the_page_about_figures_has_exactly_those_there_are() {
    assert_eq!(documented(), families().await);
}
