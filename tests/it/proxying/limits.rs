//! How many connections there may be: in all, of one address, at one upstream.

use crate::harness::client::{Client, Head, handshake};
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::within_guard;

/// Tries to become a WebSocket; `before` is what a balancer in front would say first.
async fn asks(proxy: &Proxy, before: &str) -> (Client, Head) {
    let mut client = proxy.client().await;
    client.send([before, &handshake("/feed")].concat()).await;
    let head = client.head().await;
    (client, head)
}

/// Becomes a WebSocket, and says who is at the other end.
async fn enters(proxy: &Proxy, before: &str) -> (Client, String) {
    let (mut client, head) = asks(proxy, before).await;
    assert_eq!(head.status, 101, "{head:?}");
    let name = client.message().await.to_string();
    (client, name)
}

/// Is told to come again later (RFC 9110, section 10.2.3).
async fn is_turned_away(proxy: &Proxy, before: &str, status: u16) {
    let (mut client, head) = asks(proxy, before).await;
    assert_eq!(head.status, status, "{head:?}");
    let seconds = head.header("retry-after").parse::<u64>();
    assert!(seconds.is_ok_and(|seconds| seconds > 0), "{head:?}");
    assert!(!client.body(&head).await.is_empty());
}

/// Leaves; then its place is free, as is sure once there is a line about it in the log.
async fn leaves(proxy: &Proxy, client: Client) {
    let address = client.address().to_string();
    client.reset();
    let line = proxy.logged_where("proxied", |line| line.field("client") == address);
    line.await;
}

#[tokio::test]
async fn more_than_wanted_are_told_to_come_later() {
    let backend = Backend::start("there");
    let proxy = Proxy::over(&[backend.address], &["--max-connections", "2"]).await;
    let (first, _) = enters(&proxy, "").await;
    let (_second, _) = enters(&proxy, "").await;
    for _ in 0..3 {
        is_turned_away(&proxy, "", 503).await;
    }
    assert_eq!(backend.asked(), 2);
    leaves(&proxy, first).await;
    let (_third, _) = enters(&proxy, "").await;
    is_turned_away(&proxy, "", 503).await;
}

#[tokio::test]
async fn a_connection_counts_from_its_first_moment() {
    let backend = Backend::start("there");
    let proxy = Proxy::over(&[backend.address], &["--max-connections", "1"]).await;
    // It has not said anything.
    let silent = proxy.client().await;
    is_turned_away(&proxy, "", 503).await;
    drop(silent);
    within_guard("room", async {
        while asks(&proxy, "").await.1.status != 101 {}
    })
    .await;
}

#[tokio::test]
async fn one_address_does_not_take_all_the_room() {
    let backend = Backend::start("there");
    let args = [
        "--max-connections-per-address",
        "2",
        "--accept-proxy-protocol",
    ];
    let proxy = Proxy::over(&[backend.address], &args).await;
    let [greedy, other] = ["192.0.2.1", "192.0.2.2"]
        .map(|address| format!("PROXY TCP4 {address} 198.51.100.1 4711 80\r\n"));
    let (_first, _) = enters(&proxy, &greedy).await;
    let (_second, _) = enters(&proxy, &greedy).await;
    is_turned_away(&proxy, &greedy, 429).await;
    let (_another, _) = enters(&proxy, &other).await;
    // One network of IPv6 is one customer (RFC 6177).
    let mut of_network = vec![];
    for host in ["1", "2"] {
        let header = format!("PROXY TCP6 2001:db8::{host} 2001:db8:1::1 4711 80\r\n");
        of_network.push(enters(&proxy, &header).await);
    }
    let header = "PROXY TCP6 2001:db8::3 2001:db8:1::1 4711 80\r\n";
    is_turned_away(&proxy, header, 429).await;
    let header = "PROXY TCP6 2001:db8:0:1::3 2001:db8:1::1 4711 80\r\n";
    enters(&proxy, header).await;
}

#[tokio::test]
async fn who_leaves_makes_room_for_its_address() {
    let backend = Backend::start("there");
    let args = ["--max-connections-per-address", "1"];
    let proxy = Proxy::over(&[backend.address], &args).await;
    let (first, _) = enters(&proxy, "").await;
    is_turned_away(&proxy, "", 429).await;
    leaves(&proxy, first).await;
    enters(&proxy, "").await;
}

#[tokio::test]
async fn an_upstream_gets_no_more_than_it_takes() {
    let [small, large] = ["small", "large"].map(Backend::start);
    let one = format!("{},max=1", small.address);
    let other = large.address.to_string();
    let proxy = Proxy::start(&[
        "--upstream",
        &one,
        "--upstream",
        &other,
        "--max-connections-per-upstream",
        "3",
    ])
    .await;
    let mut clients = vec![];
    for _ in 0..4 {
        clients.push(enters(&proxy, "").await);
    }
    assert_eq!([small.asked(), large.asked()], [1, 3]);
    // That a place is missing is no sign of ill health.
    is_turned_away(&proxy, "", 503).await;
    let line = proxy.logged_where("proxied", |line| line.field("status") == "503");
    let line = line.await;
    assert_eq!(line.field("upstream"), "none");
    assert_eq!(line.field("why"), "no upstream has room for it");
    assert_eq!(proxy.count("upstream is out"), 0);
    // The place that is free is taken, wherever it is.
    for name in ["small", "large"] {
        let number = clients.iter().position(|(_, of)| of == name);
        let (client, _) = clients.swap_remove(number.expect("it has one"));
        leaves(&proxy, client).await;
        clients.push(enters(&proxy, "").await);
        assert_eq!(clients[3].1, name);
        is_turned_away(&proxy, "", 503).await;
    }
}
