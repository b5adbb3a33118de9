//! Redis killed and restarted under load.

use std::collections::HashSet;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Poster, assert_once, missing, next};
use crate::harness::http::Ndjson;
use crate::harness::redis::{DURABLE, Redis};
use crate::harness::wire::Wire;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

/// Publishes texts of its own until it is stopped, and notes those that are taken.
struct Load {
    taken: watch::Receiver<usize>,
    stop: Arc<watch::Sender<bool>>,
    task: JoinHandle<Vec<String>>,
}

impl Load {
    async fn on(hop: &Hop, name: &'static str) -> Self {
        let mut poster = Poster::of(hop).await;
        let (count, taken) = watch::channel(0);
        let stop = Arc::new(watch::channel(false).0);
        let stopped = stop.subscribe();
        let task = tokio::spawn(async move {
            let (mut acknowledged, mut attempt) = (Vec::new(), 0);
            while !*stopped.borrow() {
                attempt += 1;
                let texts: Vec<_> = (0..20).map(|at| format!("{name} {attempt}.{at}")).collect();
                let (head, body) = poster.lines(&texts).await;
                match head.status {
                    202 => acknowledged.extend(texts),
                    503 => tokio::task::yield_now().await,
                    _ => panic!("{head:?} {body}"),
                }
                count.send_replace(acknowledged.len());
            }
            acknowledged
        });
        Self { taken, stop, task }
    }

    /// Waits until so many more are taken.
    async fn goes_on(&mut self, more: usize) {
        let goal = *self.taken.borrow() + more;
        let waiting = self.taken.wait_for(|count| *count >= goal);
        within_guard("more that is taken", waiting)
            .await
            .expect("it goes on");
    }

    async fn ends(self) -> Vec<String> {
        self.stop.send_replace(true);
        within_guard("the end of the load", self.task)
            .await
            .expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stream_has_acknowledged_is_there_once_though_the_server_is_killed() {
    let mut server = Redis::start_with(&DURABLE).await;
    let bus = server.stream("events");
    let flags = ["--bus", &bus, "--accept-publish", "--history", "64MiB"];
    let (one, other) = (Hop::start(&flags).await, Hop::start(&flags).await);
    for hop in [&one, &other] {
        hop.logged("upstream connected").await;
        hop.logged("downstream connected").await;
    }
    let mut reader = Ndjson::of(&other).await;
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        loop {
            let (_, text) = next(&mut reader).await;
            match &*text {
                "the end" => return got,
                _ => got.push(text),
            }
        }
    });
    let mut loads = [Load::on(&one, "one").await, Load::on(&other, "other").await];
    for _ in 0..3 {
        for load in &mut loads {
            load.goes_on(400).await;
        }
        server.dies().await;
        server.comes().await;
    }
    let mut acknowledged = Vec::new();
    for mut load in loads {
        load.goes_on(200).await;
        acknowledged.extend(load.ends().await);
    }
    Poster::of(&one).await.text("the end").await;
    let got = within_guard("the end of the stream", reading)
        .await
        .expect("no gap");
    assert_once(got.iter().map(String::as_str));
    let got: HashSet<_> = got.into_iter().collect();
    let missing: Vec<_> = acknowledged
        .iter()
        .filter(|text| !got.contains(*text))
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} are missing: {missing:?}",
        missing.len(),
        acknowledged.len()
    );
    // Nor is anything there twice for those who know nothing of ids.
    let there = server.field("events", "data").await;
    assert_once(there.iter().map(String::as_str));
    assert_eq!(there.len(), got.len() + 1);
}

#[tokio::test]
async fn what_is_forwarded_waits_in_the_history_and_is_there_once() {
    let mut server = Redis::start_with(&DURABLE).await;
    let url = server.stream("out");
    let flags = ["--forward", &url, "--accept-publish", "--history", "64MiB"];
    let hop = Hop::quiet(&flags).await;
    hop.logged("downstream connected").await;
    let mut load = Load::on(&hop, "all").await;
    for _ in 0..3 {
        load.goes_on(1_000).await;
        server.dies().await;
        load.goes_on(1_000).await;
        server.comes().await;
    }
    load.goes_on(1_000).await;
    let acknowledged = load.ends().await;
    Poster::of(&hop).await.text("the end").await;
    within_guard("the end of the stream", async {
        loop {
            let last: Vec<(String, Vec<(String, String)>)> = server
                .ask(&["XREVRANGE", "out", "+", "-", "COUNT", "1"])
                .await;
            if last.iter().any(|(_, fields)| fields[0].1 == "the end") {
                return;
            }
        }
    })
    .await;
    let there = server.field("out", "data").await;
    assert!(there[..there.len() - 1] == acknowledged, "not the same");
}

#[tokio::test]
async fn what_is_published_on_a_channel_while_nobody_listens_may_be_missing() {
    let mut server = Redis::start().await;
    let hop = Hop::consuming(&server.channel("events")).await;
    let mut reader = Ndjson::of(&hop).await;
    server.tell(&["PUBLISH", "events", "1"]).await;
    assert_eq!(next(&mut reader).await.1, "1");
    server.dies().await;
    hop.logged("upstream lost").await;
    server.comes().await;
    server.is_heard("events").await;
    server.tell(&["PUBLISH", "events", "2"]).await;
    assert_eq!(missing(&mut reader).await, None);
    assert_eq!(next(&mut reader).await.1, "2");
    server.tell(&["PUBLISH", "events", "3"]).await;
    assert_eq!(next(&mut reader).await.1, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_when_a_connection_was_cut_is_there_once() {
    let server = Redis::start().await;
    let wire = Wire::to(server.address());
    let url = format!("redis+stream://{}/0?stream=events", wire.address());
    let flags = ["--bus", &url, "--accept-publish", "--history", "64MiB"];
    let hop = Hop::start(&flags).await;
    hop.logged("upstream connected").await;
    hop.logged("downstream connected").await;
    let mut load = Load::on(&hop, "all").await;
    for _ in 0..20 {
        load.goes_on(100).await;
        wire.cut(server.address());
    }
    load.goes_on(100).await;
    let acknowledged = load.ends().await;
    let there = server.field("events", "data").await;
    assert_once(there.iter().map(String::as_str));
    let there: HashSet<_> = there.into_iter().collect();
    for text in acknowledged {
        assert!(there.contains(&text), "{text} is missing");
    }
}

#[tokio::test]
async fn what_a_server_that_stood_still_had_before_it_is_there_once() {
    const EACH: usize = 500;
    let server = Redis::start().await;
    let url = server.stream("out");
    let flags = ["--forward", &url, "--ping-interval", "100ms"];
    let hop = Hop::quiet(&[&flags[..], &["--accept-publish"]].concat()).await;
    hop.logged("downstream connected").await;
    let mut poster = Poster::of(&hop).await;
    let mut expected = Vec::new();
    for round in 1..=5 {
        server.signal(Signal::STOP);
        let padding = "x".repeat(500);
        let texts: Vec<_> = (0..EACH)
            .map(|at| format!("{round}.{at} {padding}"))
            .collect();
        let (head, body) = poster.lines(&texts).await;
        assert_eq!(head.status, 202, "{body}");
        expected.extend(texts);
        hop.logged_times("downstream lost", round).await;
        server.signal(Signal::CONT);
        hop.logged_times("downstream connected", round + 1).await;
        within_guard("all of it", async {
            while server.ask::<usize>(&["XLEN", "out"]).await < expected.len() {}
        })
        .await;
    }
    assert!(server.field("out", "data").await == expected, "not once");
}
