//! What hops tell of themselves and of those upstream, and `wsevent topology`.

mod loops;
mod proxies;
mod roles;

use std::fs;
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::port::ReservedPort;
use crate::harness::proxy::Proxy;
use crate::harness::tokens::line;
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, output};

/// A topology, as it was told.
pub struct Told(pub Value);

impl Told {
    /// Asks for this.
    pub async fn by(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = Client::connect(address).await;
        let (head, body) = client.get(target, headers).await;
        assert_eq!(head.status, 200, "{target} {body}");
        assert_eq!(head.header("content-type"), "application/json");
        Self(serde_json::from_str(&body).expect("it is JSON"))
    }

    /// All that a hop has to tell.
    pub async fn all(hop: &Hop) -> Self {
        Self::by(hop.address, "/?topology", &[]).await
    }

    pub fn nodes(&self) -> Vec<&Value> {
        self.0["nodes"].as_array().expect("nodes").iter().collect()
    }

    pub fn links(&self) -> Vec<&Value> {
        self.0["links"].as_array().expect("links").iter().collect()
    }

    pub fn node(&self, id: &str) -> &Value {
        let nodes = self.nodes().into_iter();
        let mut found = nodes.filter(|node| node["id"] == id);
        let node = found
            .next()
            .unwrap_or_else(|| panic!("no {id} in {}", self.0));
        assert!(found.next().is_none(), "{id} twice in {}", self.0);
        node
    }

    /// What the links lead from and to, in the names of `hops`, sorted; what is none of them is by its kind.
    pub fn ends(&self, hops: &[(&str, &str)]) -> Vec<String> {
        let name = |id: &Value| {
            let id = id.as_str().expect("an id");
            let mut hops = hops.iter();
            match hops.find(|(_, known)| *known == id) {
                Some((name, _)) => (*name).to_owned(),
                None => self.node(id)["kind"].as_str().expect("a kind").to_owned(),
            }
        };
        let links = self.links().into_iter();
        let mut ends: Vec<_> = links
            .map(|link| {
                let dead = if link["connected"] == true { "" } else { "!" };
                format!("{}{dead}>{}", name(&link["from"]), name(&link["to"]))
            })
            .collect();
        ends.sort();
        ends
    }
}

/// The id of a process.
pub async fn id(hop: &Hop) -> String {
    let index = hop.index().await;
    index["instance"].as_str().expect("an id").to_owned()
}

/// A hop that consumes these, connected to all.
pub async fn consuming(urls: &[&str], args: &[&str]) -> Hop {
    let consumed = urls.iter().flat_map(|url| ["--consume", url]);
    let args: Vec<_> = consumed.chain(args.iter().copied()).collect();
    let hop = Hop::start(&args).await;
    hop.logged_times("upstream connected", urls.len()).await;
    hop
}

/// What `wsevent topology` prints as JSON.
async fn printed(urls: &[&str]) -> Told {
    let args = [&["topology", "--format", "json"], urls].concat();
    let output = output(&args, &[]).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    Told(serde_json::from_slice(&output.stdout).expect("it is JSON"))
}

#[tokio::test]
async fn a_chain_is_told_from_its_end() {
    let a = Hop::start(&["--accept-publish"]).await;
    let b = Hop::consuming(&a.url).await;
    let c = Hop::consuming(&format!("http://{}/events", b.address)).await;
    let _reader = c.subscribe().await;
    let told = Told::all(&c).await;
    let ids = [id(&a).await, id(&b).await, id(&c).await];
    let names = [("a", &*ids[0]), ("b", &*ids[1]), ("c", &*ids[2])];
    assert_eq!(told.ends(&names), ["a>b", "b>c"], "{}", told.0);
    assert_eq!(told.nodes().len(), 3);
    assert_eq!(told.0["instance"], ids[2]);
    let stream = &told.node(&ids[0])["streams"][0];
    assert_eq!(stream["path"], "/events");
    assert_eq!(stream["publish"], true);
    assert_eq!(
        (&stream["hops"], &stream["subscribers"]),
        (&1.into(), &0.into())
    );
    // SSE is not told from any other reader there.
    let stream = &told.node(&ids[1])["streams"][0];
    assert_eq!(
        (&stream["hops"], &stream["subscribers"]),
        (&0.into(), &1.into())
    );
    let transports: Vec<_> = told.links().iter().map(|link| &link["transport"]).collect();
    assert_eq!(transports, ["sse", "hop"]);
    for link in told.links() {
        assert_eq!(
            (&link["from_path"], &link["to_path"]),
            (&"/events".into(), &"/events".into())
        );
        assert_eq!(link["role"], "consume");
    }
    let printed = printed(&[&c.url]).await;
    assert_eq!(printed.ends(&names), ["a>b", "b>c"], "{}", printed.0);
}

#[tokio::test]
async fn all_ways_of_a_diamond_are_told_once() {
    let a = Hop::start(&["--accept-publish"]).await;
    let (b, c) = (Hop::consuming(&a.url).await, Hop::consuming(&a.url).await);
    let d = consuming(&[&b.url, &c.url], &[]).await;
    let ids = [id(&a).await, id(&b).await, id(&c).await, id(&d).await];
    let names = [
        ("a", &*ids[0]),
        ("b", &*ids[1]),
        ("c", &*ids[2]),
        ("d", &*ids[3]),
    ];
    // However many ask at once.
    let asking = (0..50).map(|_| Told::all(&d));
    for told in futures_util::future::join_all(asking).await {
        assert_eq!(
            told.ends(&names),
            ["a>b", "a>c", "b>d", "c>d"],
            "{}",
            told.0
        );
        assert_eq!(told.nodes().len(), 4);
    }
}

#[tokio::test]
async fn a_chain_of_ten_is_walked_by_the_command() {
    let mut hops = vec![Hop::start(&["--accept-publish"]).await];
    while hops.len() < 10 {
        let next = Hop::consuming(&hops[hops.len() - 1].url).await;
        hops.push(next);
    }
    let told = printed(&[&hops[9].url]).await;
    assert_eq!(
        (told.nodes().len(), told.links().len()),
        (10, 9),
        "{}",
        told.0
    );
}

#[tokio::test]
async fn several_are_asked_and_what_is_common_is_one() {
    let a = Hop::start(&["--accept-publish"]).await;
    let (b, c) = (Hop::consuming(&a.url).await, Hop::consuming(&a.url).await);
    let of_all = format!("http://{}/", c.address);
    let told = printed(&[&b.url, &of_all]).await;
    assert_eq!(
        (told.nodes().len(), told.links().len()),
        (3, 2),
        "{}",
        told.0
    );
    // One that is not there, and one that has no such stream.
    let away = Upstream::away();
    let none = format!("{}/none", b.url);
    let args = ["topology", &b.url, &away.url(), &none, "--format", "json"];
    let output = output(&args, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let told = Told(serde_json::from_slice(&output.stdout).expect("the rest is printed"));
    assert_eq!(told.nodes().len(), 2);
    let errors = String::from_utf8(output.stderr).expect("text");
    let mut errors = errors.lines();
    let mut next = || errors.next().expect("a line").to_owned();
    assert_eq!(
        next(),
        format!("wsevent: {}: connection refused", away.url())
    );
    let line = next();
    assert!(
        line.starts_with(&format!(
            "wsevent: {none}: there is no stream at /events/none"
        )),
        "{line}"
    );
    assert_eq!(errors.next(), None);
}

#[tokio::test]
async fn only_what_one_may_see_is_told() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("the folder is ours");
        path.to_str().expect("it is text").to_owned()
    };
    let tokens = [
        line("hop", "for-hops", "/a", "subscribe"),
        line("one", "for-one", "/b", "subscribe,publish"),
    ];
    let tokens = path("tokens", &tokens.concat());
    let routes = path(
        "wsevent.toml",
        "[[route]]\nserve-path = \"/a\"\naccept-publish = true\n[[route]]\nserve-path = \"/b\"\naccept-publish = true\n",
    );
    let up = Hop::start(&["--config", &routes, "--auth-token-file", &tokens]).await;
    let url = format!("ws://{}/a", up.address);
    let header = ["--consume-header", "Authorization: Bearer for-hops"];
    let down = consuming(&[&url], &header).await;
    // It asks with what it has itself been given, and about what it consumes.
    let told = Told::all(&down).await;
    let (up_id, down_id) = (id_of(&up, "for-one").await, id(&down).await);
    assert_eq!(
        told.ends(&[("up", &up_id), ("down", &down_id)]),
        ["up>down"]
    );
    let paths = |told: &Told| -> Vec<String> {
        let streams = told.node(&up_id)["streams"].as_array().cloned();
        let streams = streams.unwrap_or_default();
        streams
            .iter()
            .map(|stream| stream["path"].to_string())
            .collect()
    };
    assert_eq!(paths(&told), ["\"/a\""]);
    let bearer = ("Authorization", "Bearer for-one");
    let own = Told::by(up.address, "/?topology", &[bearer]).await;
    assert_eq!(paths(&own), ["\"/b\""]);
    let other = Told::by(up.address, "/?topology&of=/a", &[bearer]).await;
    assert_eq!(paths(&other), [""; 0]);
    for (token, status) in [("", 401), ("for-one", 404)] {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer)];
        let headers = if token.is_empty() { &[][..] } else { &headers };
        let mut client = Client::connect(up.address).await;
        let trace = "/?trace=0000000000001-1&of=/a";
        let (head, body) = client.get(trace, headers).await;
        assert_eq!(head.status, status, "{body}");
    }
    let output = output(&["topology", &url, "--format", "json"], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.starts_with(&format!("wsevent: {url}: ")) && errors.contains("401"),
        "{errors}"
    );
}

/// The id of a process that wants a token.
async fn id_of(hop: &Hop, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    let mut client = Client::connect(hop.address).await;
    let (_, body) = client.get("/", &[("Authorization", &bearer)]).await;
    let index: Value = serde_json::from_str(&body).expect("JSON");
    index["instance"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_dead_link_still_says_where_it_leads() {
    let port = ReservedPort::new();
    let address = port.address().to_string();
    let serve = ["--serve-address", &address, "--accept-publish"];
    let mut up = Hop::start(&serve).await;
    let down = consuming(&[&up.url], &[]).await;
    let (first, own) = (id(&up).await, id(&down).await);
    let names = |id| [("up", id), ("down", &*own)];
    // One who has asked before, and one who has not.
    let other = consuming(&[&up.url], &[]).await;
    let told = Told::all(&down).await;
    assert_eq!(told.ends(&names(&*first)), ["up>down"]);
    up.signal(Signal::KILL);
    up.exit().await;
    down.logged("upstream lost").await;
    let told = Told::all(&down).await;
    assert_eq!(told.ends(&names(&*first)), ["up!>down"], "{}", told.0);
    assert_eq!(told.node(&first)["address"], address);
    let reason = told.links()[0]["reason"].as_str().expect("a reason");
    assert!(!reason.is_empty());
    other.logged("upstream lost").await;
    let told = Told::all(&other).await;
    assert_eq!(
        told.ends(&[("up", &first), ("down", &id(&other).await)]),
        ["up!>down"]
    );
    // Under another name it is another one.
    let up = Hop::start(&serve).await;
    down.logged_times("upstream connected", 2).await;
    let second = id(&up).await;
    assert_ne!(first, second);
    let told = Told::all(&down).await;
    assert_eq!(told.ends(&names(&*second)), ["up>down"], "{}", told.0);
    assert_eq!(told.nodes().len(), 2);
}

#[tokio::test]
async fn others_servers_and_buses_are_nodes_too() {
    let (upstream, _link, hop) =
        Hop::connected(&["--forward", "http://127.0.0.1:1/x?y=1"], &[]).await;
    let told = Told::all(&hop).await;
    assert_eq!(
        told.ends(&[("hop", &id(&hop).await)]),
        ["foreign>hop", "hop!>bus"],
        "{}",
        told.0
    );
    let foreign = told.node(&upstream.url());
    assert_eq!(foreign["kind"], "foreign");
    let bus = told.nodes().into_iter().find(|node| node["kind"] == "bus");
    assert!(bus.is_some_and(|bus| {
        bus["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("http://127.0.0.1:1/x"))
    }));
    let link = told
        .links()
        .into_iter()
        .find(|link| link["role"] == "consume");
    assert_eq!(link.expect("a link")["transport"], "websocket");
}

#[tokio::test]
async fn streams_that_come_and_go_are_told_while_they_are_there() {
    let up = Hop::start(&["--serve-path", "/t/*", "--accept-publish"]).await;
    let template = format!("ws://{}/t/*", up.address);
    let down = Hop::start(&["--serve-path", "/d/*", "--consume", &template]).await;
    let mut a = Client::connect(down.address).await.upgraded("/d/a").await;
    let mut b = Client::connect(down.address).await.upgraded("/d/b").await;
    down.logged_times("upstream connected", 2).await;
    let names = [id(&up).await, id(&down).await];
    let names = [("up", &*names[0]), ("down", &*names[1])];
    for target in ["/?topology", "/d/?topology"] {
        let told = Told::by(down.address, target, &[]).await;
        assert_eq!(told.ends(&names), ["up>down", "up>down"], "{target}");
    }
    let told = Told::by(down.address, "/?topology&of=/d/b", &[]).await;
    assert_eq!(told.ends(&names), ["up>down"]);
    assert_eq!(told.links()[0]["from_path"], "/t/b");
    let told = Told::by(down.address, "/?topology&of=/d/none", &[]).await;
    assert_eq!(told.nodes().len(), 1);
    a.half_close().await;
    b.half_close().await;
}

#[tokio::test]
async fn however_many_ask_an_upstream_is_asked_now_and_then() {
    let up = Hop::start(&["--accept-publish"]).await;
    let proxy = Proxy::over(&[up.address], &[]).await;
    let url = format!("ws://{}/events", proxy.address);
    let down = consuming(&[&url], &[]).await;
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        futures_util::future::join_all((0..100).map(|_| Told::all(&down))).await;
    }
    let seconds = begun.elapsed().as_secs() as usize;
    // The proxy has a line for each.
    let lines = proxy.log.lines();
    let asked = lines
        .iter()
        .filter(|line| line.field("method") == "GET" && line.field("path") == "/");
    let asked = asked.count();
    assert!((1..=seconds + 1).contains(&asked), "{asked} in {seconds} s");
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let hop = Hop::start(&["--accept-publish"]).await;
    for (target, status, reason) in [
        ("/?trace=x&of=/events", 400, "?trace= is the id of an event"),
        (
            "/?trace=0000000000001-1",
            400,
            "?trace= needs &of= with the path of a stream",
        ),
        (
            "/?trace=0000000000001-1&of=/x",
            404,
            "there is no stream at the path that of= names",
        ),
        (
            "/?trace=0000000000001-1&of=/events&at=x",
            400,
            "at= is an origin",
        ),
        ("/?topology&via=x", 400, "via= is a list of origins"),
        (
            "/?topology&within=x",
            400,
            "within= is a number of milliseconds",
        ),
    ] {
        let mut client = Client::connect(hop.address).await;
        let (head, body) = client.get(target, &[]).await;
        assert_eq!((head.status, body.trim_end()), (status, reason), "{target}");
    }
    // Who finds itself among those for whom it is asked tells itself.
    let own = id(&hop).await;
    let told = Told::by(hop.address, &format!("/?topology&via={own}"), &[]).await;
    assert_eq!(told.nodes().len(), 1);
}

#[tokio::test]
async fn an_upstream_that_is_silent_costs_no_more_than_patience() {
    let up = Hop::start(&["--accept-publish"]).await;
    let down = consuming(&[&up.url], &[]).await;
    let ids = [id(&up).await, id(&down).await];
    up.signal(Signal::STOP);
    let told = within_guard("an answer", Told::all(&down)).await;
    let args = ["topology", &down.url, "--format", "json"];
    let printed = within_guard("a picture", output(&args, &[])).await;
    up.signal(Signal::CONT);
    assert!(told.node(&ids[0])["incomplete"].is_string(), "{}", told.0);
    // A picture that is cut off says so.
    assert_eq!(printed.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&printed.stderr);
    let line = format!(
        "wsevent: {}: not all that is upstream of it is known: ",
        up.address
    );
    assert!(errors.starts_with(&line), "{errors}");
    let printed = Told(serde_json::from_slice(&printed.stdout).expect("the rest is printed"));
    assert_eq!(printed.nodes().len(), 2);
    // The link knows who is there.
    assert_eq!(
        told.ends(&[("up", &ids[0]), ("down", &ids[1])]),
        ["up>down"],
        "{}",
        told.0
    );
}

/// How often the hop behind this proxy was asked.
fn asked(proxy: &Proxy) -> usize {
    let lines = proxy.log.lines();
    let asked = lines
        .iter()
        .filter(|line| line.field("method") == "GET" && line.field("path") == "/");
    asked.count()
}

#[tokio::test]
async fn who_has_little_time_or_names_others_does_not_get_an_upstream_asked_more_often() {
    let up = Hop::start(&["--accept-publish"]).await;
    let proxy = Proxy::over(&[up.address], &[]).await;
    let url = format!("ws://{}/events", proxy.address);
    let down = consuming(&[&url], &[]).await;
    for _ in 0..20 {
        Told::by(down.address, "/?topology&within=5", &[]).await;
    }
    assert_eq!(asked(&proxy), 0);
    // Each of them names somebody else, and does not wait.
    let begun = std::time::Instant::now();
    for number in 1..=20 {
        let via = format!("{number:013}");
        let target = format!("/?topology&within=100&via={via}");
        Told::by(down.address, &target, &[]).await;
    }
    let seconds = begun.elapsed().as_secs() as usize;
    let asked = asked(&proxy);
    assert!((1..=seconds + 1).contains(&asked), "{asked} in {seconds} s");
}

#[tokio::test]
async fn nobody_falsifies_what_others_are_told() {
    let a = Hop::start(&["--accept-publish"]).await;
    let b = Hop::consuming(&a.url).await;
    let c = Hop::consuming(&b.url).await;
    let d = Hop::consuming(&c.url).await;
    let ids = [id(&a).await, id(&b).await, id(&c).await, id(&d).await];
    let names = [
        ("a", &*ids[0]),
        ("b", &*ids[1]),
        ("c", &*ids[2]),
        ("d", &*ids[3]),
    ];
    let index = a.index().await;
    let origin = index["streams"][0]["origin"].as_str().expect("an origin");
    // A stranger who says that he asks for what is upstream.
    Told::by(c.address, &format!("/?topology&via={origin}"), &[]).await;
    let told = Told::all(&d).await;
    assert_eq!(told.ends(&names), ["a>b", "b>c", "c>d"], "{}", told.0);
    let streams = told.node(&ids[0])["streams"].as_array();
    assert_eq!(streams.map(Vec::len), Some(1), "{}", told.0);
    let told = Told::by(d.address, "/?topology&via=0000000000001", &[]).await;
    assert_eq!(told.ends(&names), ["a>b", "b>c", "c>d"], "{}", told.0);
}
