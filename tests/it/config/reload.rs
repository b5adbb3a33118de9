//! SIGHUP: the file is read again, and who has nothing to do with what has changed does not notice.

use rustix::process::Signal;
use tokio_tungstenite::tungstenite::Message;

use super::File;
use crate::harness::client::Client;
use crate::harness::events::{assert_same, numbered};
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, allow_many_files};

const RELOADED: &str = "routes loaded again";
const KEPT: &str = "cannot load the routes again, the old ones stay";

fn route(path: &str, lines: &str) -> String {
    format!("[[route]]\nserve-path = \"{path}\"\n{lines}\n")
}

async fn subscriber(hop: &Hop, path: &str) -> Client {
    Client::connect(hop.address).await.upgraded(path).await
}

#[tokio::test]
async fn routes_that_did_not_change_do_not_notice() {
    allow_many_files();
    let upstream = Upstream::new();
    let kept = route("/kept", &format!("consume = \"{}\"", upstream.url()));
    let file = File::new(&(kept.clone() + &route("/old", "")));
    let hop = file.hop(&[]).await;
    let mut link = upstream.accept().await;
    hop.logged("upstream connected").await;
    let mut subscribers = vec![];
    while subscribers.len() < 1_000 {
        let subscriber = subscriber(&hop, "/kept").await;
        subscribers.push(subscriber.read_at_most(4 << 10));
    }
    let mut old = subscriber(&hop, "/old").await;
    let sent = numbered(90);
    for (reload, events) in sent.chunks(30).enumerate() {
        let new = route(&format!("/new-{reload}"), "");
        // What is said first, and in which order, changes nothing.
        file.becomes(&format!("# again\n{new}{kept}"));
        let (before, after) = events.split_at(15);
        link.send_all(before).await;
        hop.signal(Signal::HUP);
        link.send_all(after).await;
        let line = hop.logged_times(RELOADED, reload + 1).await;
        assert_eq!(
            (line.number("added"), line.number("removed")),
            (1, 1),
            "{}",
            line.text
        );
        let mut new = subscriber(&hop, &format!("/new-{reload}")).await;
        assert!(new.message().await.is_text());
    }
    let (_, code, reason) = old.until_close().await;
    assert_eq!(code, 1012);
    assert_eq!(reason, "this route has changed: connect again");
    let (head, _) = Client::connect(hop.address).await.get("/old", &[]).await;
    assert_eq!(head.status, 404);
    for subscriber in &mut subscribers {
        assert_same(&subscriber.messages(90).await, &sent);
    }
    assert_eq!(hop.count("upstream connected"), 1);
    let lost = hop.log.all("subscriber disconnected");
    assert!(lost.iter().all(|line| line.field("path") != "/kept"));
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why() {
    let file = File::new(&route("/a", "produce-rate = \"max\""));
    let hop = file.hop(&[]).await;
    let mut reader = subscriber(&hop, "/a").await;
    file.becomes("drian = \"1s\"\n[[route]]\nserve-path = \"/b\"\nhistory = \"s\"\n");
    hop.signal(Signal::HUP);
    let line = hop.logged_times(KEPT, 2).await;
    let lines: Vec<_> = hop
        .log
        .all(KEPT)
        .iter()
        .map(|line| line.number("line"))
        .collect();
    assert_eq!(lines, [1, 4]);
    assert_eq!(line.field("level"), "WARN");
    assert!(
        line.field("reason")
            .starts_with("invalid value 's' for history: "),
        "{}",
        line.text
    );
    assert_eq!(line.field("file"), file.path());
    // It would consume itself, which only it can know.
    let own = format!("consume = \"ws://{}/c\"", hop.address);
    file.becomes(&route("/c", &own));
    hop.signal(Signal::HUP);
    let line = hop.logged_times(KEPT, 3).await;
    assert!(
        line.field("reason")
            .contains("is what this hop itself would serve"),
        "{}",
        line.text
    );
    reader.messages(100).await;
    assert_eq!(hop.count(RELOADED), 0);
    file.becomes(&route("/b", ""));
    hop.signal(Signal::HUP);
    hop.logged(RELOADED).await;
    subscriber(&hop, "/b").await;
    assert_eq!(reader.until_close().await.1, 1012);
}

#[tokio::test]
async fn flags_of_the_process_change_with_a_restart_and_no_sooner() {
    let publishing = route("/b", "accept-publish = true");
    let file = File::new(&format!("drain = \"1s\"\n{}", route("/a", "")));
    let hop = file.hop(&[]).await;
    file.becomes(&format!(
        "drain = \"2s\"\nserve-address = \"a:1\"\ninsecure-publish = true\n{}",
        route("/a", "")
    ));
    hop.signal(Signal::HUP);
    let line = hop.logged("this takes effect after a restart").await;
    // The command line says where to listen, whatever the file says.
    assert_eq!(line.field("flags"), "drain insecure-publish");
    hop.logged(RELOADED).await;

    // Whoever could publish where this process listens, could do so now, not after a restart.
    let file = File::new(&route("/a", ""));
    let args = ["--serve-address", "0.0.0.0:0", "--config", file.path()];
    let hop = Hop::start(&args).await;
    file.becomes(&format!("insecure-publish = true\n{publishing}"));
    hop.signal(Signal::HUP);
    let line = hop.logged(KEPT).await;
    assert!(
        line.field("reason")
            .starts_with("everyone who reaches 0.0.0.0:0 could publish at /b"),
        "{}",
        line.text
    );
}

#[tokio::test]
async fn what_was_published_is_still_there_under_another_policy() {
    let file = File::new(&route("/t/*", "accept-publish = true"));
    let hop = file.hop(&[]).await;
    let mut before = subscriber(&hop, "/t/a").await;
    before.send_frame(1, b"one").await;
    assert_eq!(before.message().await, Message::text("one"));
    file.becomes(&route(
        "/t/*",
        "accept-publish = true\nallow-origin = \"https://a.example\"",
    ));
    hop.signal(Signal::HUP);
    assert_eq!(before.until_close().await.1, 1012);
    hop.logged(RELOADED).await;
    let mut after = subscriber(&hop, "/t/a?history=all").await;
    assert_eq!(after.message().await, Message::text("one"));
}

#[tokio::test]
async fn without_a_file_sighup_ends_nothing() {
    let hop = Hop::start(&["--produce-rate", "max"]).await;
    let mut reader = hop.subscribe().await;
    hop.signal(Signal::HUP);
    reader.messages(1_000).await;
    hop.signal(Signal::HUP);
    reader.messages(1_000).await;
}

#[tokio::test]
async fn tokens_come_before_routes_and_do_not_stand_in_their_way() {
    let tokens = File::new("anonymous:-:*:subscribe\n");
    let head = format!("auth-token-file = \"{}\"\n", tokens.path());
    let file = File::new(&(head.clone() + &route("/a", "")));
    let hop = file.hop(&[]).await;
    let mut reader = subscriber(&hop, "/a").await;
    tokens.becomes("broken");
    file.becomes(&(head + &route("/a", "") + &route("/b", "")));
    hop.signal(Signal::HUP);
    hop.logged(RELOADED).await;
    // It was said before.
    assert_eq!(
        hop.count("cannot load the access files again, the old rules stay"),
        1
    );
    subscriber(&hop, "/b").await;
    reader.messages(1).await;
}

#[tokio::test]
async fn the_list_of_a_route_has_none_of_another() {
    let file = File::new(&(route("/a/*", "") + &route("/b/*", "")));
    let hop = file.hop(&[]).await;
    let _there = subscriber(&hop, "/a/x").await;
    let mut client = Client::connect(hop.address).await;
    for (target, count) in [("/a/?of=/a/x", 1), ("/b/?of=/a/x", 0), ("/?of=/a/x", 1)] {
        let (_, body) = client.get(target, &[]).await;
        let list: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let streams = list["streams"].as_array().expect("a list");
        assert_eq!(streams.len(), count, "{target}");
    }
}
