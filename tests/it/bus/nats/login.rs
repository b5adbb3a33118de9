//! Who is let in by a server, over which connection, and what is said of it.

use super::{hop, lines, publish, text};
use crate::harness::authority::Authority;
use crate::harness::client::Client;
use crate::harness::http::Ndjson;
use crate::harness::nats::Nats;
use crate::harness::wsevent::Hop;

const SECRET: &str = "hunter2hunter2";

/// A hop that goes round by the server, at this URL.
async fn goes_round(bus: &str, args: &[&str]) {
    let hop = hop(&[&["--bus", bus, "--accept-publish"], args].concat()).await;
    let mut reader = Ndjson::of(&hop).await;
    let mut client = Client::connect(hop.address).await;
    let ids = publish(&mut client, &lines("event", 0..1)).await;
    assert_eq!(text(&reader.next().await, "id"), ids[0]);
    assert!(!hop.log.to_string().contains(SECRET));
}

/// What is said when this does not work.
async fn reason(flag: &str, bus: &str, args: &[&str]) -> String {
    let hop = Hop::start(&[&[flag, bus], args].concat()).await;
    let role = if flag == "--forward" {
        "downstream"
    } else {
        "upstream"
    };
    let line = hop
        .logged(&format!("cannot reach {role}, trying again"))
        .await;
    assert!(!hop.log.to_string().contains(SECRET));
    line.field("reason")
}

#[tokio::test]
async fn by_user_and_password() {
    let config = format!("authorization {{ users = [ {{ user: ann, password: {SECRET} }} ] }}");
    let nats = Nats::configured(&config).await;
    let address = nats.address;
    goes_round(&format!("nats://ann:{SECRET}@{address}/events"), &[]).await;
    let said = reason("--consume", &nats.url("events"), &[]).await;
    assert!(said.contains("wants a login"), "{said}");
    let wrong = format!("nats://ann:{SECRET}x@{address}/events");
    for flag in ["--consume", "--forward"] {
        let said = reason(flag, &wrong, &[]).await;
        assert!(said.contains("does not accept this login"), "{said}");
    }
}

#[tokio::test]
async fn by_token() {
    let nats = Nats::start(&["--auth", SECRET]).await;
    let address = nats.address;
    goes_round(&format!("nats://{SECRET}@{address}/events"), &[]).await;
    let said = reason("--consume", &format!("nats://wrong@{address}/events"), &[]).await;
    assert!(said.contains("does not accept this login"), "{said}");
}

#[tokio::test]
async fn with_credentials_that_cannot_be_read() {
    let nats = Nats::start(&[]).await;
    let bus = format!("{}?creds=/nowhere/at/all", nats.url("events"));
    let said = reason("--consume", &bus, &[]).await;
    assert!(said.contains("cannot read the credentials"), "{said}");
}

/// What the server lets nobody do is no success.
#[tokio::test]
async fn without_the_right() {
    let config = r#"authorization {
        reader = { publish: { deny: ">" }, subscribe: [ "events", "_INBOX.>" ] }
        writer = { publish: [ "events", "_INBOX.>" ], subscribe: "_INBOX.>" }
        users = [
            { user: reader, password: one, permissions: $reader }
            { user: writer, password: two, permissions: $writer }
        ]
    }"#;
    let nats = Nats::configured(config).await;
    let address = nats.address;
    let at = |user: &str, subject: &str| format!("nats://{user}@{address}/{subject}");
    for (flag, bus, says) in [
        (
            "--consume",
            at("reader:one", "other"),
            "Permissions Violation for Subscription to",
        ),
        ("--forward", at("reader:one", "events"), "_INBOX.>"),
    ] {
        let said = reason(flag, &bus, &[]).await;
        assert!(said.contains(says), "{bus}: {said}");
    }
    // Who may only read can read, and who may only write can write.
    let consuming = hop(&["--consume", &at("reader:one", "events")]).await;
    let mut reader = Ndjson::of(&consuming).await;
    let forwarding = hop(&["--accept-publish", "--forward", &at("writer:two", "events")]).await;
    let mut client = Client::connect(forwarding.address).await;
    let ids = publish(&mut client, &lines("event", 0..1)).await;
    assert_eq!(text(&reader.next().await, "id"), ids[0]);
    // What it may not shows when it does it.
    let forwarding = hop(&["--accept-publish", "--forward", &at("writer:two", "other")]).await;
    let mut client = Client::connect(forwarding.address).await;
    publish(&mut client, &lines("event", 0..1)).await;
    let lost = forwarding.logged("downstream lost").await;
    let said = lost.field("reason");
    assert!(
        said.contains("Permissions Violation for Publish to"),
        "{said}"
    );
}

#[tokio::test]
async fn over_tls() {
    let authority = Authority::new();
    let (cert, key) = (
        authority.file("server.pem"),
        authority.file("server-key.pem"),
    );
    let args = ["--tls", "--tlscert", &cert, "--tlskey", &key];
    let nats = Nats::start(&args).await;
    let trust = authority.trust();
    let trust: Vec<_> = trust.iter().map(String::as_str).collect();
    let port = nats.address.port();
    goes_round(&format!("natss://localhost:{port}/events"), &trust).await;
    // A server that insists on it gets it.
    goes_round(&nats.url("events"), &trust).await;
    let said = reason("--consume", &nats.url("events"), &[]).await;
    assert!(said.contains("--consume-ca"), "{said}");
    let plain = Nats::start(&[]).await;
    let bus = format!("natss://{}/events", plain.address);
    let said = reason("--consume", &bus, &trust).await;
    assert!(said.contains("did you mean nats://?"), "{said}");
}

#[tokio::test]
async fn a_stream_over_tls_too() {
    let authority = Authority::new();
    let (cert, key) = (
        authority.file("server.pem"),
        authority.file("server-key.pem"),
    );
    let args = ["-js", "--tls", "--tlscert", &cert, "--tlskey", &key];
    let nats = Nats::start(&args).await;
    let port = nats.address.port();
    let ca = format!("ca={}", authority.file("ca.pem"));
    let url = format!("tls://localhost:{port}");
    let mut foreign = nats.client_with(&url, &[&ca]).await;
    foreign.add_stream("EVENTS", &["events"]).await;
    let trust = authority.trust();
    let trust: Vec<_> = trust.iter().map(String::as_str).collect();
    goes_round(
        &format!("natss+jetstream://localhost:{port}/EVENTS"),
        &trust,
    )
    .await;
}
