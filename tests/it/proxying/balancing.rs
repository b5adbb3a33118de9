//! Who is next, in each of the ways there are, and that nobody notices when the list changes.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::reload::List;
use crate::harness::client::{Client, HANDSHAKE, request};
use crate::harness::frame::{FIN, TEXT, unmasked};
use crate::harness::http::Request;
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

/// A WebSocket, and the name of the upstream it has got.
async fn connected(proxy: &Proxy) -> (Client, String) {
    let mut client = proxy.client().await.upgraded("/feed").await;
    let name = client.message().await.to_string();
    (client, name)
}

async fn several(proxy: &Proxy, count: usize) -> Vec<(Client, String)> {
    let mut clients = vec![];
    for _ in 0..count {
        clients.push(connected(proxy).await);
    }
    clients
}

/// How many of them are where.
fn counts(clients: &[(Client, String)]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (_, name) in clients {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

/// Waits until the proxy has noticed that they have left.
async fn leave(proxy: &Proxy, clients: Vec<(Client, String)>) {
    for (client, _) in clients {
        let address = client.address().to_string();
        client.reset();
        let line = proxy.logged_where("proxied", |line| line.field("client") == address);
        line.await;
    }
}

fn lines(upstreams: &[String]) -> String {
    upstreams.iter().map(|line| format!("{line}\n")).collect()
}

/// That it has nobody is all that counts, whoever was next in turn before.
#[tokio::test]
async fn least_connections_fills_up_an_upstream_that_was_added() {
    let backends = ["a", "b", "new"].map(Backend::start);
    let [a, b, new] = backends.each_ref().map(|one| one.address.to_string());
    let old = lines(&[a.clone(), b.clone()]);
    let mut list = List::balanced(&old, "least-connections").await;
    let clients = several(&list.proxy, 20).await;
    assert_eq!(counts(&clients), [("a", 10), ("b", 10)].into());
    list.becomes(&lines(&[a, b, new])).await;
    let clients = several(&list.proxy, 10).await;
    assert_eq!(counts(&clients), [("new", 10)].into());
    let further = several(&list.proxy, 6).await;
    assert_eq!(counts(&further), [("a", 2), ("b", 2), ("new", 2)].into());
}

#[tokio::test]
async fn least_connections_goes_where_clients_have_left() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|one| one.address);
    let proxy = Proxy::over(&addresses, &["--balance", "least-connections"]).await;
    let clients = several(&proxy, 12).await;
    let (leaving, _staying): (Vec<_>, Vec<_>) =
        clients.into_iter().partition(|(_, name)| name == "b");
    leave(&proxy, leaving).await;
    assert_eq!(counts(&several(&proxy, 4).await), [("b", 4)].into());
}

#[tokio::test]
async fn least_connections_is_in_proportion_to_weights() {
    let [a, b] = ["a", "b"].map(Backend::start);
    let (heavy, light) = (format!("{},weight=3", a.address), b.address.to_string());
    let args = ["--upstream", &heavy, "--upstream", &light];
    let balance = ["--balance", "least-connections"];
    let proxy = Proxy::start(&[&args[..], &balance].concat()).await;
    let clients = several(&proxy, 20).await;
    assert_eq!(counts(&clients), [("a", 15), ("b", 5)].into());
}

#[tokio::test]
async fn a_new_weight_counts_from_then_on() {
    let [a, b] = ["a", "b"].map(Backend::start);
    let (a, b) = (a.address.to_string(), b.address.to_string());
    let mut list = List::of(&lines(&[a.clone(), b.clone()])).await;
    let before = several(&list.proxy, 4).await;
    assert_eq!(counts(&before), [("a", 2), ("b", 2)].into());
    list.becomes(&lines(&[a, format!("{b},weight=3")])).await;
    let line = list.proxy.logged_where("upstreams loaded again", |line| {
        line.field("changed") == b && line.field("added").is_empty()
    });
    line.await;
    let after = several(&list.proxy, 8).await;
    assert_eq!(counts(&after), [("a", 2), ("b", 6)].into());
}

#[tokio::test]
async fn chance_reaches_all() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|one| one.address);
    let proxy = Proxy::over(&addresses, &["--balance", "random"]).await;
    let mut turns = vec![];
    within_guard("an answer of each", async {
        while turns.iter().collect::<BTreeSet<_>>().len() < 3 {
            turns.push(proxy.get("/").await.1);
        }
    })
    .await;
}

/// Asks on a connection of its own, with these bytes before and this header: who answers.
async fn asked_by(proxy: &Proxy, before: &str, (name, value): (&str, &str)) -> String {
    let mut client = proxy.client().await;
    client.send(before).await;
    let (head, body) = client.get("/", &[(name, value)]).await;
    assert_eq!(head.status, 200, "{head:?}");
    body
}

/// Each of many keys leads to the same upstream each time, and all upstreams get some. When one more is added, keys go there
/// or stay.
async fn sticks(how: &str, says: impl Fn(usize) -> (String, (&'static str, String))) {
    const KEYS: usize = 60;
    let backends = ["a", "b", "c", "new"].map(Backend::start);
    let addresses = backends.each_ref().map(|one| one.address.to_string());
    let file = tempfile::NamedTempFile::new().expect("a file for the test");
    std::fs::write(file.path(), lines(&addresses[..3])).expect("the file is ours");
    let path = file.path().to_str().expect("it is text");
    let args = ["--upstream-file", path, "--balance", how];
    let proxy = Proxy::start(&[&args[..], &["--accept-proxy-protocol"]].concat()).await;
    let round = async || {
        let mut names = vec![];
        for number in 0..KEYS {
            let (before, (name, value)) = says(number);
            names.push(asked_by(&proxy, &before, (name, &value)).await);
        }
        names
    };
    let first = round().await;
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
    assert_eq!(round().await, first);
    std::fs::write(file.path(), lines(&addresses)).expect("the file is ours");
    proxy.signal(Signal::HUP);
    proxy.logged("upstreams loaded again").await;
    let after = round().await;
    for (before, after) in first.iter().zip(&after) {
        assert!(after == before || after == "new", "{before} became {after}");
    }
    assert!(after.iter().any(|name| name == "new"), "{after:?}");
}

/// What a balancer in front says: the client's address, and its port.
fn of_address(host: usize, port: usize) -> String {
    format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 {port} 80\r\n")
}

#[tokio::test]
async fn an_address_stays_with_its_upstream() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let ports = AtomicUsize::new(1024);
    sticks("hash:ip", |number| {
        // The port is not a part of it, nor anything that is said.
        let port = ports.fetch_add(1, Ordering::Relaxed);
        (of_address(number, port), ("Cookie", format!("id={port}")))
    })
    .await;
}

#[tokio::test]
async fn a_cookie_stays_with_its_upstream() {
    sticks("hash:cookie:id", |number| {
        let cookies = format!("other=1; id=session-{number}; last=2");
        ("PROXY UNKNOWN\r\n".to_owned(), ("Cookie", cookies))
    })
    .await;
}

#[tokio::test]
async fn a_header_stays_with_its_upstream() {
    sticks("hash:header:x-room", |number| {
        let room = format!("room {number}");
        ("PROXY UNKNOWN\r\n".to_owned(), ("X-Room", room))
    })
    .await;
}

#[tokio::test]
async fn a_websocket_is_hashed_as_well() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|one| one.address);
    let proxy = Proxy::over(&addresses, &["--balance", "hash:header:x-room"]).await;
    let mut rooms = BTreeSet::new();
    for number in 0..30 {
        let room = format!("room {number}");
        let name = asked_by(&proxy, "", ("X-Room", &room)).await;
        let headers = [&HANDSHAKE[..], &[("x-room", &room)]].concat();
        let mut client = proxy.client().await;
        client.send(request("GET /feed HTTP/1.1", &headers)).await;
        assert_eq!(client.head().await.status, 101);
        assert_eq!(client.message().await.to_string(), name);
        rooms.insert(name);
    }
    assert_eq!(rooms.len(), 3);
}

/// Sends numbers until it is told to stop; then the last one is `end`.
async fn count_up(mut request: Request, mut stop: watch::Receiver<bool>) {
    for number in 0.. {
        let last = *stop.borrow_and_update();
        let text = if last {
            "end".to_owned()
        } else {
            number.to_string()
        };
        request.send(unmasked(FIN | TEXT, text.as_bytes())).await;
        if last {
            break;
        }
        tokio::task::yield_now().await;
    }
    request.left().await;
}

/// Reads numbers up to `end`, and misses none.
async fn reads_on(mut client: Client) {
    for number in 0.. {
        let said = client.message().await.to_string();
        if said == "end" {
            return;
        }
        assert_eq!(said, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_while_the_list_is_loaded_again_and_again() {
    const CLIENTS: usize = 10;
    let (staying, leaving) = (Upstream::new(), Upstream::new());
    let others = ["a", "b"].map(Backend::start);
    let [a, b] = others.each_ref().map(|one| one.address.to_string());
    let (here, gone) = (staying.address().to_string(), leaving.address().to_string());
    let mut list = List::of(&lines(&[here.clone(), gone.clone()])).await;
    let (stop, stopped) = watch::channel(false);
    let mut streams = JoinSet::new();
    for number in 0..CLIENTS {
        let upstream = [&staying, &leaving][number % 2];
        let (client, request) = list.proxy.joined(upstream).await;
        streams.spawn(count_up(request, stopped.clone()));
        streams.spawn(reads_on(client));
    }
    let mut clients = vec![];
    for round in 0..40 {
        // The one that stays is of another weight each time, and in another place.
        let weighted = format!("{here},weight={}", round % 3 + 1);
        let other = [&a, &b][round % 2].clone();
        list.becomes(&match round % 3 {
            0 => lines(&[weighted, other]),
            1 => lines(&[other, weighted, gone.clone()]),
            _ => lines(&[a.clone(), weighted]),
        })
        .await;
        // The one that stays answers no others; those that come while it is full are not to wait for it.
        if round % 10 == 9 {
            list.becomes(&lines(&[a.clone(), b.clone()])).await;
            clients.extend(several(&list.proxy, 4).await);
        }
    }
    assert_eq!(counts(&clients), [("a", 8), ("b", 8)].into());
    list.becomes(&lines(&[gone, here])).await;
    stop.send_replace(true);
    // `left` waits for the client, which ends when it has read everything.
    while let Some(ended) = within_guard("the end of a stream", streams.join_next()).await {
        ended.expect("a stream without a gap");
    }
    assert_eq!(list.proxy.count("upstream is out"), 0);
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_said_in_one_line_and_changes_nothing() {
    let backend = Backend::start("there");
    let there = backend.address.to_string();
    let list = List::of(&there).await;
    let message = "cannot load the upstreams again, the old ones stay";
    let path = list.path().to_str().expect("it is text").to_owned();
    let cases = [
        ("localhost".to_owned(), "line 1"),
        (format!("{there}\n\n# fine\nlocalhost:1,weight=0"), "line 4"),
        (format!("{there}\nlocalhost:1,max=many"), "line 2"),
        (format!("{there}\nftp://localhost:1"), "line 2"),
        (format!("{there}\n{there},weight=2"), "in line 1 already"),
        (String::new(), "no upstream"),
        (list.proxy.address.to_string(), "this proxy itself"),
    ];
    let mut reasons = vec![];
    for (number, (text, expected)) in cases.iter().enumerate() {
        std::fs::write(list.path(), text).expect("the file is ours");
        list.proxy.signal(Signal::HUP);
        let line = list.proxy.logged_times(message, number + 1).await;
        let reason = line.field("reason");
        assert!(reason.contains(expected), "{text:?}: {reason}");
        assert_eq!(list.proxy.get("/").await.1, "there");
        reasons.push(reason);
    }
    std::fs::remove_file(&path).expect("the file is ours");
    list.proxy.signal(Signal::HUP);
    let line = list.proxy.logged_times(message, cases.len() + 1).await;
    assert!(line.field("reason").contains(&path), "{}", line.text);
    assert_eq!(list.proxy.get("/").await.1, "there");
    assert_eq!(list.proxy.count("upstreams loaded again"), 0);
}
