//! Upstreams that are not there: a client does not notice one of them, and is told when all are gone.

use std::time::Duration;

use crate::harness::client::handshake;
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;

#[tokio::test]
async fn one_that_refuses_costs_no_client_anything() {
    let dead = Upstream::away();
    let backends = ["a", "b"].map(Backend::start);
    let upstreams = [backends[0].address, dead.address(), backends[1].address];
    let proxy = Proxy::over(&upstreams, &[]).await;
    for _ in 0..20 {
        let (head, _) = proxy.get("/").await;
        assert_eq!(head.status, 200, "{head:?}");
    }
    let mut clients = vec![];
    for _ in 0..20 {
        let mut client = proxy.client().await.upgraded("/feed").await;
        client.message().await;
        clients.push(client);
    }
    let asked = backends.each_ref().map(|backend| backend.asked());
    assert_eq!(asked[0] + asked[1], 40);
    // The turns of the dead one may all fall to the same neighbour.
    assert!(asked.iter().all(|asked| *asked >= 40 / 3), "{asked:?}");
}

#[tokio::test]
async fn with_all_of_them_gone_it_is_503_and_when_to_come_again() {
    let gone = [Upstream::away(), Upstream::away()];
    let proxy = Proxy::over(&gone.each_ref().map(Upstream::address), &[]).await;
    for request in [
        handshake("/feed"),
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        let head = client.head().await;
        assert_eq!(head.status, 503, "{head:?}");
        // RFC 9110, section 10.2.3.
        let seconds = head.header("retry-after").parse::<u64>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0), "{head:?}");
    }
}

#[tokio::test]
async fn one_that_is_back_has_its_share_again() {
    let mut away = Upstream::away();
    let there = Backend::start("there");
    let proxy = Proxy::over(&[away.address(), there.address], &[]).await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.1, "there");
    }
    away.come_back();
    let back = Backend::at(away, "back", Duration::ZERO);
    within_guard("an answer of the one that is back", async {
        while proxy.get("/").await.1 != "back" {}
    })
    .await;
    let before = [&there, &back].map(Backend::asked);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.0.status, 200);
    }
    let asked = [&there, &back].map(Backend::asked);
    assert_eq!([asked[0] - before[0], asked[1] - before[1]], [10, 10]);
}

#[tokio::test]
async fn those_that_connect_again_after_a_death_are_elsewhere() {
    let [dying, staying] = ["dying", "staying"].map(Backend::start);
    let proxy = Proxy::over(&[dying.address, staying.address], &[]).await;
    let mut clients = vec![];
    for _ in 0..2 {
        let mut client = proxy.client().await.upgraded("/feed").await;
        let name = client.message().await.to_string();
        clients.push((client, name));
    }
    dying.stop().await;
    for (client, name) in &mut clients {
        if name == "dying" {
            client.ended().await;
            *client = proxy.client().await.upgraded("/feed").await;
            assert_eq!(client.message().await.to_string(), "staying");
        }
    }
    assert_eq!(staying.asked(), 2);
}
