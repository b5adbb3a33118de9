//! Several links that bring the same events: losing one of them loses nothing.

use rustix::process::Signal;

use crate::harness::events::{assert_same, numbered};
use crate::harness::wsevent::Hop;

#[tokio::test]
async fn losing_one_of_two_links_loses_nothing() {
    let (mut link, origin) = Hop::fed(&[]).await;
    let mut first = Hop::consuming(&origin.url).await;
    let second = Hop::consuming(&origin.url).await;
    let urls = ["--consume", &first.url, "--consume", &second.url];
    // Nothing may depend on time.
    let hop = Hop::start(&[&urls[..], &["--gap-wait", "1h"]].concat()).await;
    hop.logged_times("upstream connected", 2).await;
    let mut subscriber = hop.subscribe().await;
    let sent = numbered(300);
    link.send_all(&sent[..100]).await;
    assert_same(&subscriber.messages(100).await, &sent[..100]);

    first.signal(Signal::KILL);
    first.exit().await;
    link.send_all(&sent[100..200]).await;
    assert_same(&subscriber.messages(100).await, &sent[100..200]);
    hop.logged("upstream lost").await;

    let address = first.address.to_string();
    let again = ["--consume", &origin.url, "--serve-address", &address];
    let again = Hop::start(&again).await;
    again.logged("upstream connected").await;
    hop.logged_times("upstream connected", 3).await;
    second.signal(Signal::KILL);
    link.send_all(&sent[200..]).await;
    assert_same(&subscriber.messages(100).await, &sent[200..]);

    let index = hop.index().await;
    let upstreams = index["streams"][0]["upstreams"].as_array();
    let upstreams = upstreams.expect("there are upstreams");
    let wins = upstreams.iter().map(|upstream| upstream["wins"].as_u64());
    assert_eq!(wins.sum::<Option<u64>>(), Some(300), "{index}");
}
