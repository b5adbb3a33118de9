//! Reverse proxies on the way.

use super::{Told, consuming, id};
use crate::harness::client::{Client, request};
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::wsevent::Hop;

/// Asks whoever comes first, or second, and so on.
async fn asked(proxy: &Proxy, forwards: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut client = Client::connect(proxy.address).await;
    let headers = [
        &[("Host", "localhost"), ("Max-Forwards", forwards)],
        headers,
    ]
    .concat();
    client
        .send(request("OPTIONS /events HTTP/1.1", &headers))
        .await;
    let head = client.head().await;
    match head.header("content-length") {
        "" => (head.status, String::new()),
        _ => (head.status, client.body(&head).await),
    }
}

#[tokio::test]
async fn a_proxy_tells_of_itself_who_may_know() {
    let backend = Backend::start("b");
    let proxy = Proxy::over(&[backend.address], &[]).await;
    let (status, body) = asked(&proxy, "0", &[]).await;
    assert_eq!(status, 200);
    let told = Told(serde_json::from_str(&body).expect("it is JSON"));
    let own = told.0["instance"].as_str().expect("an id");
    let node = told.node(own);
    assert_eq!(node["kind"], "proxy");
    assert_eq!(node["address"], proxy.address.to_string());
    assert_eq!(told.ends(&[("proxy", own)]), ["foreign>proxy"]);
    // Who may come from elsewhere is not told, and nothing is passed on.
    let through = [("X-Forwarded-For", "192.0.2.1")];
    assert_eq!(asked(&proxy, "0", &through).await, (204, String::new()));
    assert_eq!(backend.asked(), 0);
    let open = Proxy::over(&[backend.address], &["--tell-topology"]).await;
    assert_eq!(asked(&open, "0", &through).await.0, 200);
    // What may be passed on is, with one less.
    assert_eq!(asked(&proxy, "1", &[]).await, (200, "b".to_owned()));
    let second = Proxy::over(&[proxy.address], &["--tell-topology"]).await;
    assert_eq!(
        asked(&second, "1", &[]).await.0,
        204,
        "it has come through a proxy"
    );
    assert_eq!(asked(&proxy, "-1", &[]).await.0, 400);
}

#[tokio::test]
async fn a_proxy_on_the_way_is_in_the_picture() {
    let (a, b) = (
        Hop::start(&["--accept-publish"]).await,
        Hop::start(&["--accept-publish"]).await,
    );
    let proxy = Proxy::over(&[a.address, b.address], &[]).await;
    let url = format!("ws://{}/events", proxy.address);
    let down = consuming(&[&url], &[]).await;
    let told = Told::all(&down).await;
    let ids = [id(&a).await, id(&b).await, id(&down).await];
    let names = [("a", &*ids[0]), ("b", &*ids[1]), ("down", &*ids[2])];
    let expected = ["a>proxy", "b>proxy", "proxy>down"];
    assert_eq!(told.ends(&names), expected, "{}", told.0);
    assert_eq!(told.nodes().len(), 4);
    // Who asks through it sees the same.
    let printed = super::printed(&[&url]).await;
    assert_eq!(
        printed.ends(&names),
        ["a>proxy", "b>proxy"],
        "{}",
        printed.0
    );
}
