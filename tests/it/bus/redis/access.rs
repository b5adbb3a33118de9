//! Who may connect, and what a wrong URL is told.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::{Poster, next};
use crate::harness::authority::Authority;
use crate::harness::http::Ndjson;
use crate::harness::redis::Redis;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::Hop;

/// Why a hop with these flags does not come to its bus; and nothing that must not be seen is in its log.
async fn refused(flag: &str, url: &str, secret: &str) -> String {
    let hop = Hop::start(&[flag, url, "--accept-publish"]).await;
    let (message, role) = match flag {
        "--forward" => ("cannot reach downstream, trying again", "forward"),
        _ => ("cannot reach upstream, trying again", "consume"),
    };
    let line = hop.logged(message).await;
    assert_eq!(line.field("refused"), "502", "{role}: {}", line.text);
    let log = hop.log.to_string();
    assert!(!log.contains(secret), "{log}");
    line.field("reason")
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_is_told_in_one_line() {
    let server = Redis::start_with(&["--requirepass", "p@ss/w:rd"]).await;
    let url = |who: &str| format!("redis+stream://{who}{}/3?stream=s", server.address());
    let right = url(":p%40ss%2Fw%3Ard@");
    let hop = Hop::start(&["--bus", &right, "--accept-publish"]).await;
    let mut subscriber = hop.subscribe().await;
    hop.logged("downstream connected").await;
    Poster::of(&hop).await.text("in").await;
    assert_eq!(subscriber.message().await, Message::text("in"));
    for flag in ["--consume", "--forward"] {
        let reason = refused(flag, &url(":hunter2hunter2@"), "hunter2").await;
        assert!(
            reason.contains("does not take this user and password"),
            "{reason}"
        );
        let reason = refused(flag, &url(""), "hunter2").await;
        assert!(reason.contains("wants a password"), "{reason}");
    }
    let channel = format!("redis://{}?channel=c", server.address());
    let reason = refused("--consume", &channel, "hunter2").await;
    assert!(reason.contains("wants a password"), "{reason}");
}

#[tokio::test]
async fn a_user_may_what_the_server_lets_it() {
    let server = Redis::start().await;
    let rights = [
        "on",
        ">alicespassword",
        "resetkeys",
        "~in*",
        "resetchannels",
        "&in*",
        "+@all",
    ];
    server
        .tell(&[&["ACL", "SETUSER", "alice"], &rights[..]].concat())
        .await;
    let who = format!("alice:alicespassword@{}", server.address());
    for url in [
        format!("redis+stream://{who}/?stream=in"),
        format!("redis://{who}/?channel=inside"),
    ] {
        let hop = Hop::start(&["--bus", &url, "--accept-publish"]).await;
        hop.logged("upstream connected").await;
        hop.logged("downstream connected").await;
        let mut subscriber = hop.subscribe().await;
        Poster::of(&hop).await.text("in").await;
        assert_eq!(subscriber.message().await, Message::text("in"));
    }
    for url in [
        format!("redis+stream://{who}/?stream=out"),
        format!("redis://{who}/?channel=out"),
    ] {
        for flag in ["--consume", "--forward"] {
            let reason = refused(flag, &url, "alicespassword").await;
            assert!(reason.contains("does not let this user do it"), "{reason}");
        }
    }
}

/// Rights of the fewest commands that are needed: no transactions, and nothing about other clients.
#[tokio::test]
async fn few_rights_are_enough() {
    let server = Redis::start().await;
    let rights = ["on", ">writerswriters", "allkeys", "nocommands", "+xadd"];
    server
        .tell(&[&["ACL", "SETUSER", "writer"], &rights[..]].concat())
        .await;
    let rights = ["on", ">readersreaders", "allkeys", "nocommands"];
    let commands = ["+xread", "+xrevrange", "+xlen", "+xinfo"];
    server
        .tell(&[&["ACL", "SETUSER", "reader"], &rights[..], &commands].concat())
        .await;
    let url = |who: &str| format!("redis+stream://{who}@{}/?stream=s", server.address());
    let writer = url("writer:writerswriters");
    let upper = Hop::quiet(&["--forward", &writer, "--accept-publish"]).await;
    let lower = Hop::consuming(&url("reader:readersreaders")).await;
    let mut reader = Ndjson::of(&lower).await;
    let mut poster = Poster::of(&upper).await;
    for number in 0..10 {
        let text = number.to_string();
        let id = poster.text(&text).await;
        assert_eq!(next(&mut reader).await, (id, text));
    }
}

#[tokio::test]
async fn a_key_of_another_type_and_a_database_that_is_not_there_are_told() {
    let server = Redis::start().await;
    server.tell(&["SET", "key", "value"]).await;
    for flag in ["--consume", "--forward"] {
        let reason = refused(flag, &server.stream("key"), "no secret").await;
        assert!(reason.contains("is no stream"), "{reason}");
        let url = format!("redis+stream://{}/99?stream=s", server.address());
        let reason = refused(flag, &url, "no secret").await;
        assert!(reason.contains("no database of this number"), "{reason}");
    }
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    let server = Upstream::new();
    let url = format!("redis://{}/?channel=c", server.address());
    let hop = Hop::start(&["--consume", &url]).await;
    let mut socket = server.accept_socket().await;
    let answer = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    answer.expect("the hop reads");
    let line = hop.logged("cannot reach upstream, trying again").await;
    assert!(
        line.field("reason")
            .contains("does not speak the protocol of Redis"),
        "{}",
        line.text
    );
}

#[tokio::test]
async fn tls_is_as_for_every_upstream() {
    let authority = Authority::new();
    let (certificate, key) = (
        authority.file("server.pem"),
        authority.file("server-key.pem"),
    );
    let flags = [
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    let server = Redis::start_with(&flags).await;
    let port = server.address().port();
    let trust = authority.trust();
    for url in [
        format!("rediss://localhost:{port}/?channel=c"),
        format!("rediss+stream://127.0.0.1:{port}/?stream=s"),
    ] {
        let flags = ["--bus", &url, "--accept-publish", &trust[0], &trust[1]];
        let hop = Hop::start(&flags).await;
        hop.logged("upstream connected").await;
        hop.logged("downstream connected").await;
        let mut reader = Ndjson::of(&hop).await;
        let id = Poster::of(&hop).await.text("secret").await;
        assert_eq!(reader.next().await["id"], json!(id));
        let reason = refused("--consume", &url, "no secret").await;
        assert!(reason.contains("--consume-ca"), "{reason}");
    }
    let plain = Redis::start().await;
    let url = format!("rediss://{}/?channel=c", plain.address());
    let hop = Hop::start(&["--consume", &url, &trust[0], &trust[1]]).await;
    let line = hop.logged("cannot reach upstream, trying again").await;
    assert!(!line.field("reason").is_empty(), "{}", line.text);
}
