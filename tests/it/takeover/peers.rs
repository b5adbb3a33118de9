//! A member of a mesh is replaced while all of them take events from each other.

use tokio::sync::oneshot;

use super::{Place, post, publish, text};
use crate::harness::client::Client;
use crate::harness::within_guard;
use crate::mesh::{Mesh, assert_all};

/// All up to the last event of each of so many senders, which says so.
async fn until_ends(mut subscriber: Client, mut senders: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while senders > 0 {
        let message = subscriber.message().await;
        assert!(!message.is_close(), "closed after {}", texts.len());
        match text(&message) {
            "end" => senders -= 1,
            event => texts.push(event.to_owned()),
        }
    }
    texts
}

#[tokio::test]
async fn a_member_of_a_mesh_is_replaced_and_nobody_misses_anything() {
    let places = [Place::new(), Place::new(), Place::new()].map(|place| (place.path(), place));
    let mut mesh = Mesh::planned(3, &[]);
    for (number, (path, _)) in places.iter().enumerate() {
        mesh.begin(number, &["--takeover", path]).await;
    }
    for number in 0..3 {
        mesh.hop(number).logged_times("peer connected", 2).await;
    }
    let addresses = [0, 1, 2].map(|number| mesh.hop(number).address);
    let mut reading = Vec::new();
    for number in 0..3 {
        reading.push(tokio::spawn(until_ends(
            mesh.hop(number).subscribe().await,
            2,
        )));
    }
    // One sender at the member that is replaced, and one at another.
    let names = ["here", "there"];
    let (mut stops, mut posting) = (Vec::new(), Vec::new());
    for (name, address) in names.into_iter().zip(addresses) {
        let (stop, over) = oneshot::channel();
        stops.push(stop);
        posting.push(tokio::spawn(post(address, name, over)));
    }
    // And once more, as the second one has begun with what the first one had.
    for _ in 0..2 {
        let mut old = mesh.leave(0);
        mesh.begin(0, &["--takeover", &places[0].0]).await;
        let taken = mesh.hop(0).logged("taken over from another process").await;
        assert_eq!(taken.number("subscribers"), 1);
        mesh.hop(0).logged_times("peer connected", 2).await;
        old.stops_well().await;
        // Both others have come back, each told when.
        let links = old.log.all("subscriber disconnected");
        assert_eq!(links.len(), 2, "{links:?}");
        for link in links {
            let reason = link.field("reason");
            assert!(
                reason.starts_with("another process has taken over: come back in "),
                "{reason}"
            );
        }
        mesh.hop(0).logged_times("subscriber connected", 2).await;
    }
    let mut counts = Vec::new();
    for (stop, posting) in stops.into_iter().zip(posting) {
        stop.send(()).expect("it runs");
        counts.push(
            within_guard("a sender", posting)
                .await
                .expect("all were taken"),
        );
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    for address in &addresses[..2] {
        publish(*address, &[], "end").await;
    }
    let senders = [(names[0], counts[0]), (names[1], counts[1])];
    for reading in reading {
        let texts = within_guard("a subscriber", reading).await;
        assert_all(texts.expect("it was not cut off"), &senders);
    }
}
