//! Hops that consume each other.

use rustix::process::Signal;

use super::{Told, id};
use crate::harness::port::ReservedPort;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, output};
use crate::links::{Down, Up};

/// A ring of hops, where each consumes the one before it.
struct Ring {
    ports: Vec<ReservedPort>,
    hops: Vec<Hop>,
}

impl Ring {
    async fn new(size: usize) -> Self {
        let mut ring = Self {
            ports: (0..size).map(|_| ReservedPort::new()).collect(),
            hops: vec![],
        };
        for at in 0..size {
            let hop = ring.start(at).await;
            ring.hops.push(hop);
        }
        for hop in &ring.hops {
            hop.logged("upstream connected").await;
        }
        ring
    }

    async fn start(&self, at: usize) -> Hop {
        let before = (at + self.ports.len() - 1) % self.ports.len();
        let upstream = format!("ws://{}/events", self.ports[before].address());
        let address = self.ports[at].address().to_string();
        let args = [
            "--consume",
            &upstream,
            "--serve-address",
            &address,
            "--accept-publish",
        ];
        Hop::start(&args).await
    }

    async fn restart(&mut self, at: usize) {
        self.hops[at].signal(Signal::KILL);
        self.hops[at].exit().await;
        self.hops[at] = self.start(at).await;
        self.hops[at].logged("upstream connected").await;
        let behind = &self.hops[(at + 1) % self.ports.len()];
        behind.logged_times("upstream connected", 2).await;
    }

    async fn publish(&self, at: usize, text: &str) {
        let url = format!("http://{}/events", self.ports[at].address());
        let output = output(&["publish", &url, text], &[]).await;
        assert_eq!(output.status.code(), Some(0));
    }
}

#[tokio::test]
async fn two_that_consume_each_other_pass_events_at_once() {
    let ring = Ring::new(2).await;
    let mut subscribers = [
        ring.hops[0].subscribe().await,
        ring.hops[1].subscribe().await,
    ];
    for (at, text) in [(0, "first"), (1, "second")] {
        ring.publish(at, text).await;
        for subscriber in &mut subscribers {
            let message = subscriber.message().await;
            assert_eq!(message.to_text().expect("text"), text);
        }
    }
}

#[tokio::test]
async fn who_is_to_tell_the_past_is_not_kept_waiting_for_it() {
    let upstream = Upstream::new();
    let hop = Hop::start(&["--consume", &upstream.url()]).await;
    // It has shaken hands, and is not welcomed.
    let _up = Up::silent(&upstream).await;
    let mut stranger = Down::connect(hop.address, "!hello id=0000000000007").await;
    let mut itself = Down::connect(hop.address, &format!("!hello id={}", Up::ID)).await;
    tokio::select! {
        biased;
        line = stranger.line() => panic!("a stranger first: {line}"),
        line = itself.line() => assert!(line.starts_with("!welcome "), "{line}"),
    }
}

#[tokio::test]
async fn a_ring_is_told_whole_by_each_of_it() {
    let ring = Ring::new(3).await;
    let [a, b, c] = &ring.hops[..] else {
        panic!("three of them")
    };
    let ids = [id(a).await, id(b).await, id(c).await];
    let names = [("a", &*ids[0]), ("b", &*ids[1]), ("c", &*ids[2])];
    let expected = ["a>b", "b>c", "c>a"];
    for hop in &ring.hops {
        let told = Told::all(hop).await;
        assert_eq!(told.ends(&names), expected, "{}", told.0);
        assert_eq!(told.nodes().len(), 3);
    }
    // Nobody waits for another who waits for him.
    for _ in 0..3 {
        let asking = ring
            .hops
            .iter()
            .flat_map(|hop| [Told::all(hop), Told::all(hop)]);
        for told in futures_util::future::join_all(asking).await {
            assert_eq!(told.ends(&names), expected, "{}", told.0);
        }
    }
}

#[tokio::test]
async fn the_paths_of_a_ring_come_to_rest() {
    let mut ring = Ring::new(3).await;
    let mut down = Down::connect(ring.hops[0].address, "!hello from=live").await;
    let mut path = down.line().await;
    ring.restart(1).await;
    let mut total = 0;
    let mut quiet = 0;
    // How many it takes depends on how fast they go round: what has gone goes on by one hop with each path, and paths have a pace.
    let rest = async {
        for number in 0.. {
            let marker = format!("marker {number}");
            ring.publish(2, &marker).await;
            let mut news = 0;
            loop {
                let line = within_guard("a line", down.line()).await;
                if line.ends_with(&marker) {
                    break;
                }
                if line.starts_with("!path") {
                    path = line;
                    news += 1;
                }
            }
            total += news;
            assert!(total < 200, "{total} paths have been told");
            quiet = if news == 0 { quiet + 1 } else { 0 };
            let knows_all = path.matches('@').count() == 3;
            if knows_all && quiet == 3 {
                break;
            }
        }
    };
    within_guard("paths that are at rest", rest).await;
    let new = id(&ring.hops[1]).await;
    assert!(path.contains(&new), "{path}");
}

#[tokio::test]
async fn who_is_its_own_and_only_upstream_says_so_once() {
    const MESSAGE: &str = "this stream comes from this hop itself: its only upstream leads back here. Nothing goes round, but only what \
                           enters on the way comes: if no ring is meant, check --consume";
    let ring = Ring::new(2).await;
    let mut subscriber = ring.hops[0].subscribe().await;
    for (at, hop) in ring.hops.iter().enumerate() {
        assert_eq!(hop.logged(MESSAGE).await.field("level"), "WARN");
        ring.publish(at, "x").await;
        subscriber.message().await;
    }
    // Who connects anew brings a path that is no news.
    let told = Down::connect(ring.hops[0].address, "!hello").await;
    ring.publish(1, "y").await;
    subscriber.message().await;
    drop(told);
    for hop in &ring.hops {
        assert_eq!(hop.count(MESSAGE), 1);
    }
}
