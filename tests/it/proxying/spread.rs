//! Every client gets the next upstream, however fast each of them is.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::proxy::{Backend, Proxy};

/// How many clients connect at once.
const CLIENTS: usize = 50;

#[tokio::test]
async fn a_thousand_clients_are_spread_evenly_over_upstreams_of_uneven_speed() {
    let backends = [
        Backend::start("fast"),
        Backend::slow("slow", Duration::from_millis(20)),
        Backend::slow("slower", Duration::from_millis(60)),
    ];
    let proxy = Proxy::over(&backends.each_ref().map(|backend| backend.address), &[]).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let address = proxy.address;
        clients.spawn(async move {
            let mut connected = vec![];
            for _ in 0..1_000 / CLIENTS {
                let mut client = Client::connect(address).await.upgraded("/feed").await;
                let name = client.message().await;
                // They stay: it is connections that are spread.
                connected.push((client, name));
            }
            connected
        });
    }
    let connected: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    let mut names = BTreeMap::<String, usize>::new();
    for (_, name) in &connected {
        let name = name.to_text().expect("a name");
        *names.entry(name.to_owned()).or_default() += 1;
    }
    let mut counts: Vec<_> = names.values().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts, [333, 333, 334], "{names:?}");
    let asked = backends.iter().map(Backend::asked).sum::<usize>();
    assert_eq!(asked, 1_000, "nobody is asked twice");
}

#[tokio::test]
async fn requests_on_one_connection_take_turns_as_well() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let proxy = Proxy::over(&backends.each_ref().map(|backend| backend.address), &[]).await;
    let mut client = proxy.client().await;
    let mut names = vec![];
    for _ in 0..9 {
        let (head, name) = client.get("/", &[]).await;
        assert_eq!(head.status, 200, "{head:?}");
        names.push(name);
    }
    assert_eq!(names[..3], names[3..6]);
    assert_eq!(names[..3], names[6..]);
    names.truncate(3);
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_weight_counts() {
    let backends = ["a", "b"].map(Backend::start);
    let proxy = Proxy::start(&[
        "--upstream",
        &format!("{},weight=3", backends[0].address),
        "--upstream",
        &backends[1].address.to_string(),
    ])
    .await;
    let mut clients = vec![];
    for _ in 0..40 {
        let mut client = proxy.client().await.upgraded("/feed").await;
        assert!(matches!(client.message().await, Message::Text(_)));
        clients.push(client);
    }
    assert_eq!(backends.each_ref().map(|backend| backend.asked()), [30, 10]);
}
