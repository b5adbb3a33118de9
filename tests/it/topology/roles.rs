//! Links that are something else than what a stream is made of, and links among several.

use serde_json::Value;

use super::{Told, consuming, id, printed};
use crate::harness::port::ReservedPort;
use crate::harness::wire::Wire;
use crate::harness::wsevent::Hop;
use crate::mesh::Mesh;

/// Of all links, in their order.
fn all<'a>(told: &'a Told, field: &str) -> Vec<&'a Value> {
    told.links().iter().map(|link| &link[field]).collect()
}

#[tokio::test]
async fn a_mesh_is_told_whole_by_each_of_it() {
    let mesh = Mesh::start(3, &[]).await;
    let ids = [
        id(mesh.hop(0)).await,
        id(mesh.hop(1)).await,
        id(mesh.hop(2)).await,
    ];
    let names = [("a", &*ids[0]), ("b", &*ids[1]), ("c", &*ids[2])];
    for number in 0..3 {
        let told = printed(&[&mesh.url(number)]).await;
        assert_eq!(
            told.ends(&names),
            ["a>b", "a>c", "b>a", "b>c", "c>a", "c>b"],
            "{}",
            told.0
        );
        assert_eq!(told.nodes().len(), 3, "{}", told.0);
        assert_eq!(all(&told, "role"), ["peer"; 6]);
        assert_eq!(all(&told, "transport"), ["hop"; 6]);
    }
}

#[tokio::test]
async fn what_links_bring_is_told_where_there_are_several() {
    let a = Hop::start(&["--produce-rate", "100"]).await;
    let (b, c) = (Hop::consuming(&a.url).await, Hop::consuming(&a.url).await);
    let d = consuming(&[&b.url, &c.url], &[]).await;
    let mut reader = d.subscribe().await;
    reader.message().await;
    let told = Told::all(&d).await;
    let own = id(&d).await;
    let links = told.links().into_iter();
    let links: Vec<_> = links.filter(|link| link["to"] == own).collect();
    assert_eq!(links.len(), 2, "{}", told.0);
    assert!(links.iter().all(|link| link["rate"].is_f64()), "{}", told.0);
}

#[tokio::test]
async fn a_standby_is_told_while_it_rests_and_in_use() {
    let origin = Hop::start(&["--accept-publish"]).await;
    let first = Hop::consuming(&origin.url).await;
    let second = Hop::consuming(&origin.url).await;
    let (wire, away) = (Wire::to(first.address), ReservedPort::new());
    let used = format!("ws://{}/events", wire.address());
    let hop = Hop::start(&["--consume", &used, "--consume-standby", &second.url]).await;
    hop.logged("upstream connected").await;
    let standby = |told: &Told| {
        let links = told.links().into_iter();
        let links: Vec<_> = links.filter(|link| link["role"] == "standby").collect();
        assert_eq!(links.len(), 1, "{}", told.0);
        (links[0]["from"].clone(), links[0]["connected"].clone())
    };
    // Nobody has been there yet.
    let rests = standby(&Told::all(&hop).await);
    assert_eq!(rests, (second.url.as_str().into(), false.into()));
    wire.cut(away.address());
    hop.logged_where("upstream connected", |line| line.field("url") == second.url)
        .await;
    let of_second: Value = id(&second).await.into();
    let told = Told::all(&hop).await;
    assert_eq!(standby(&told), (of_second.clone(), true.into()));
    // And what is upstream of it.
    let of_origin = id(&origin).await;
    let mut links = told.links().into_iter();
    assert!(
        links.any(|link| link["from"] == of_origin && link["to"] == of_second),
        "{}",
        told.0
    );
    wire.cut(first.address);
    hop.logged("giving back: an upstream is there again").await;
    let resting = async || standby(&Told::all(&hop).await);
    while resting().await.1 == true {}
    assert_eq!(resting().await, (of_second, false.into()));
}
