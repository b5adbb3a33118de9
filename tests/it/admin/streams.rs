//! The lists for those who run a hop: of its streams, and of what it is a part of.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{ANY, admin_of, get, hop};
use crate::harness::client::Client;
use crate::harness::http::Ndjson;
use crate::harness::kernel::more_than_kernel_buffers;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, output};

/// What is told at a path, which is JSON.
async fn told(admin: std::net::SocketAddr, path: &str) -> Value {
    let (status, text) = get(admin, path).await;
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The one stream there is, as soon as it is as wanted.
async fn stream_where(
    admin: std::net::SocketAddr,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let asking = async {
        loop {
            let stream = told(admin, "/-/streams").await["streams"][0].take();
            if wanted(&stream) {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    within_guard(what, asking).await
}

#[tokio::test]
async fn a_stream_is_told_with_sources_readers_and_history() {
    let args = [&ANY[..], &["--history-count", "2", "--overload", "skip"]].concat();
    let (upstream, mut link, hop) = Hop::connected(&args, &[]).await;
    let admin = admin_of(&hop).await;
    let mut readers = [hop.subscribe().await, hop.subscribe().await];
    let mut ndjson = Ndjson::of(&hop).await;
    for text in ["one", "two", "three"] {
        link.send(Message::text(text)).await;
        for reader in &mut readers {
            reader.message().await;
        }
        ndjson.next().await;
    }
    let sent = |stream: &Value, format: &str| stream["subscribers"][format]["sent"]["events"] == 3;
    let stream = stream_where(admin, "all has been counted", |stream| {
        stream["subscribers"]["websocket"]["sent"]["events"] == 6 && sent(stream, "ndjson")
    })
    .await;
    assert_eq!(
        (&stream["path"], &stream["route"]),
        (&"/events".into(), &"/events".into())
    );
    assert_eq!(
        (&stream["events"], &stream["bytes"]),
        (&3.into(), &11.into())
    );
    assert_eq!(
        stream["received"],
        json!({"websocket": {"events": 3, "bytes": 11}})
    );
    assert_eq!(stream["publish"], false);
    assert!(stream.get("on_demand").is_none() && stream.get("retained").is_none());
    let history = &stream["history"];
    assert_eq!(
        (&history["events"], &history["max_events"]),
        (&2.into(), &2.into())
    );
    assert!(history["bytes"].as_u64() > Some(8) && history["max_bytes"] == 16 << 20);
    assert_eq!(history["oldest"]["id"], hop.id(2).await);
    assert_eq!(history["newest"]["id"], hop.id(3).await);
    let ages = ["oldest", "newest"].map(|which| history[which]["age"].as_f64());
    assert!(ages[0] >= ages[1] && ages[1] >= Some(0.0), "{history}");
    let websocket = &stream["subscribers"]["websocket"];
    assert_eq!(
        (&websocket["connected"], &websocket["joined"]),
        (&2.into(), &2.into())
    );
    // Two bytes of a header, and the payloads.
    assert_eq!(websocket["sent"]["bytes"], 2 * (3 * 2 + 11));
    let none = json!({"subscribers": 0, "events": 0, "bytes": 0, "seconds": 0.0});
    assert_eq!(websocket["lag"], none);
    assert_eq!(stream["subscribers"]["sse"]["lag"], Value::Null);
    assert_eq!(stream["overload"]["policy"], "skip");
    let source = &stream["upstreams"][0];
    assert_eq!(
        (&source["url"], &source["transport"]),
        (&upstream.url().into(), &"websocket".into())
    );
    assert_eq!(source["connected"], true);
    assert_eq!(
        (&source["connects"], &source["failures"]),
        (&1.into(), &0.into())
    );
    drop((readers, link));
    let source = stream_where(admin, "the upstream is away, and nobody reads", |stream| {
        stream["upstreams"][0]["connected"] == false
            && stream["subscribers"]["websocket"]["connected"] == 0
    })
    .await["upstreams"][0]
        .take();
    assert_eq!(source["reason"], "connection lost");
    assert!(source["failures"].as_u64() >= Some(1), "{source}");
}

#[tokio::test]
async fn many_streams_are_told_in_parts_or_one_by_one() {
    let args = ["--serve-path=/t/*", "--accept-publish", "--linger=1h"];
    let (hop, admin) = hop(&args).await;
    for name in ["b", "c", "a"] {
        let path = format!("/t/{name}");
        drop(Client::connect(hop.address).await.upgraded(&path).await);
    }
    let paths = |list: &Value| -> Vec<String> {
        let streams = list["streams"].as_array().expect("a list");
        let paths = streams.iter().map(|stream| stream["path"].as_str());
        paths.map(|path| path.expect("a path").to_owned()).collect()
    };
    let first = told(admin, "/-/streams?limit=2").await;
    assert_eq!(paths(&first), ["/t/a", "/t/b"]);
    assert_eq!(first["address"], hop.address.to_string());
    assert_eq!(first["instance"], hop.index().await["instance"]);
    let next = first["next"].as_str().expect("there is more");
    let second = told(admin, next).await;
    assert_eq!(paths(&second), ["/t/c"]);
    assert!(second.get("next").is_none());
    let one = told(admin, "/-/streams?path=/t/b").await;
    assert_eq!(paths(&one), ["/t/b"]);
    assert_eq!(one["streams"][0]["on_demand"]["linger"], 3600.0);
    let (status, text) = get(admin, "/-/streams?path=/t/z").await;
    let expected = "there is no stream at this path now: see /-/streams for what there is\n";
    assert_eq!((status, &*text), (404, expected));
    // Asking opens nothing.
    assert_eq!(paths(&told(admin, "/-/streams").await).len(), 3);
    let (status, text) = get(admin, "/-/streams?limit=0").await;
    assert_eq!(
        (status, &*text),
        (400, "?limit= is a number of streams, at least 1\n")
    );
}

#[tokio::test]
async fn who_is_behind_is_told_and_what_is_done_about_it() {
    let args = [&ANY[..], &["--history", "64MiB"]].concat();
    let (mut link, hop) = Hop::fed(&args).await;
    let admin = admin_of(&hop).await;
    let slow = Client::connect_with_buffer(hop.address, 4 << 10).await;
    let slow = slow.upgraded("/events").await;
    let mut fast = hop.subscribe().await;
    const LEN: usize = 50_000;
    for _ in 0..more_than_kernel_buffers() / LEN {
        link.send(Message::binary(vec![0; LEN])).await;
        fast.message().await;
    }
    let stream = stream_where(admin, "somebody is behind", |stream| {
        stream["subscribers"]["websocket"]["lag"]["subscribers"] == 1
    })
    .await;
    let lag = &stream["subscribers"]["websocket"]["lag"];
    assert!(lag["events"].as_u64() >= Some(1), "{lag}");
    assert!(lag["bytes"].as_u64() >= Some(LEN as u64), "{lag}");
    assert!(lag["seconds"].as_f64() > Some(0.0), "{lag}");
    let none = json!({"disconnect": 0, "skip": 0, "conflate": 0});
    assert_eq!(
        stream["overload"],
        json!({"policy": "disconnect", "actions": none})
    );
    drop(slow);
    stream_where(admin, "nobody is behind", |stream| {
        stream["subscribers"]["websocket"]["lag"]["subscribers"] == 0
    })
    .await;
}

#[tokio::test]
async fn the_topology_is_told_in_each_format() {
    let origin = Hop::start(&["--produce"]).await;
    let args = [&ANY[..], &["--consume", &origin.url]].concat();
    let hop = Hop::start(&args).await;
    let admin = admin_of(&hop).await;
    hop.logged("upstream connected").await;
    let topology = told(admin, "/-/topology").await;
    let addresses: Vec<_> = topology["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| node["address"].as_str())
        .collect();
    let both = [&hop, &origin].map(|hop| hop.address.to_string());
    assert_eq!(addresses, [Some(&*both[0]), Some(&*both[1])]);
    assert_eq!(topology["links"][0]["transport"], "hop");
    // What is drawn is what the command draws, but for rates and readers, which change.
    for (format, begins) in [
        ("puml", "@startuml"),
        ("mermaid", "flowchart"),
        ("dot", "digraph"),
    ] {
        let (status, text) = get(admin, &format!("/-/topology?format={format}&of=/events")).await;
        assert_eq!(status, 200, "{text}");
        let printed = output(&["topology", &hop.url, "--format", format], &[]).await;
        let printed = String::from_utf8(printed.stdout).expect("it is text");
        let first = text.lines().find(|line| line.starts_with(begins));
        assert!(first.is_some(), "{text}");
        assert_eq!(
            text.lines().count(),
            printed.lines().count(),
            "{text}{printed}"
        );
    }
    for (query, status, reason) in [
        (
            "format=svg",
            400,
            "?format= is one of json, puml, mermaid and dot\n",
        ),
        ("within=x", 400, "within= is a number of milliseconds\n"),
        (
            "of=/x",
            404,
            "there is no stream at the path that of= names\n",
        ),
    ] {
        let (is, text) = get(admin, &format!("/-/topology?{query}")).await;
        assert_eq!((is, &*text), (status, reason), "{query}");
    }
}
