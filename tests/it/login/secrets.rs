//! Secrets come from files and from the environment, and go nowhere but to the upstream.

use std::fs;

use tempfile::NamedTempFile;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::text;
use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, output};

#[tokio::test]
async fn secrets_come_from_the_environment_and_from_files() {
    let file = NamedTempFile::new().expect("a file");
    let path = file.path().display().to_string();
    fs::write(&path, "t0ken one\n").expect("written");
    let upstream = Upstream::new();
    let url = format!(
        "ws://me:${{PASSWORD}}@{}/${{PASSWORD}}/x",
        upstream.address()
    );
    let message = format!("@{path}");
    let header = format!("X-Token: @{path}");
    let args = [
        "--consume",
        &url,
        "--consume-message",
        r#"{"key":"${KEY}","a":"$${KEY} $KEY @"}"#,
        "--consume-message",
        &message,
        "--consume-message",
        "@@me",
        "--consume-header",
        "X-Key: Key ${KEY}",
        "--consume-header",
        &header,
        "--log-level",
        "debug",
    ];
    let env = [("KEY", "k1"), ("PASSWORD", "p/a ss@w:ord")];
    let hop = Hop::start_with(&args, &env).await;
    let check = async |token: &str| {
        let mut link = upstream.accept().await;
        assert_eq!(link.header("authorization"), "Basic bWU6cC9hIHNzQHc6b3Jk");
        assert_eq!(link.request.uri(), "/p%2Fa%20ss%40w%3Aord/x");
        assert_eq!(
            (link.header("x-key"), link.header("x-token")),
            ("Key k1", token)
        );
        let message = r#"{"key":"k1","a":"${KEY} $KEY @"}"#;
        assert_eq!(link.receive().await, text(message));
        assert_eq!(link.receive().await, text(token));
        assert_eq!(link.receive().await, text("@me"));
        link.send(text("so that the next attempt comes soon")).await;
        link.reset();
    };
    check("t0ken one").await;
    fs::write(&path, "t0ken two\r\n").expect("written");
    // An attempt may have been on its way with the first.
    hop.logged_times("upstream connected", 1).await;
    check("t0ken two").await;
    fs::remove_file(&path).expect("it was there");
    let gone = format!("cannot read {path}: no such file or directory");
    hop.logged_where("upstream still away", |line| line.field("reason") == gone)
        .await;
    fs::write(&path, "t0ken three").expect("written");
    check("t0ken three").await;
    let log = hop.log.to_string();
    for secret in ["k1", "p/a ss@w:ord", "p%2Fa", "t0ken", "KEY"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test]
async fn what_a_server_repeats_of_a_secret_is_not_logged() {
    let file = NamedTempFile::new().expect("a file");
    let path = format!("@{}", file.path().display());
    fs::write(file.path(), r#"{"op":"login","key":"f1le-key"}"#).expect("written");
    let upstream = Upstream::new();
    let url = format!("ws://{}/${{PART}}", upstream.address());
    let keepalive = format!("{path} every 10ms");
    let args = [
        "--consume",
        &url,
        "--consume-message",
        "login ${KEY}",
        "--consume-keepalive",
        &keepalive,
        "--log-level",
        "trace",
    ];
    let hop = Hop::start_with(&args, &[("KEY", "env-k3y"), ("PART", "p4rt/y")]).await;
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, text("login env-k3y"));
    link.receive().await;
    let reason = "no env-k3y, f1le-key, p4rt/y or p4rt%2Fy";
    link.send(Message::Close(Some(CloseFrame {
        code: 4001.into(),
        reason: reason.into(),
    })))
    .await;
    let lost = hop.logged("upstream lost").await;
    let expected = "closed by the server with 4001: no ..., ..., ... or ...";
    assert_eq!(lost.field("reason"), expected);
    upstream.accept().await;
    let log = hop.log.to_string();
    for secret in ["env-k3y", "f1le-key", "p4rt"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    assert!(!hop.index().await.to_string().contains("p4rt"));
}

#[tokio::test]
async fn what_is_wrong_is_said_at_the_start_without_what_may_be_secret() {
    let consume = ["--consume", "ws://h"];
    for (args, said) in [
        (&["--consume-message", "s3cret ${NOT_SET}"][..], "NOT_SET"),
        (&["--consume-message", "s3cret ${EMPTY}"], "EMPTY"),
        (&["--consume-message", "s3cret ${"], "$${"),
        (
            &["--consume-message", "@/no/such/file"],
            "--consume-message: cannot read /no/such/file",
        ),
        (&["--consume-message", "@"], "@@"),
        (&["--consume-header", "X: s3cret ${NOT_SET}"], "NOT_SET"),
        (
            &["--consume-header", "X: @/no/such/file"],
            "--consume-header: cannot read /no/such/file",
        ),
        (&["--consume-header", "X: ${LINES}"], "--consume-header"),
        (&["--consume-keepalive", "s3cret"], "TEXT every DURATION"),
        (
            &["--consume-keepalive", "s3cret", "each", "20s"],
            "TEXT every DURATION",
        ),
        (
            &["--consume-keepalive", "s3cret every now and then"],
            "--consume-keepalive",
        ),
        (
            &["--consume-keepalive", "@/no/such/file", "every", "1s"],
            "cannot read /no/such/file",
        ),
        (
            &[
                "--consume-keepalive",
                "a every 1s",
                "--consume-keepalive",
                "b every 1s",
            ],
            "keepalive",
        ),
        (&["--consume-expect", "("], "--consume-expect: '('"),
        (&["--consume-ignore", r#"{"op":"#], "--consume-ignore"),
        (
            &["--consume-expect-timeout", "now"],
            "--consume-expect-timeout",
        ),
        (&["--consume", "ws://h/${NOT_SET}"], "NOT_SET"),
        (&["--consume", "ws://${LINES}/"], "URL"),
    ] {
        let args = [&consume[..], args].concat();
        let env = [("EMPTY", ""), ("LINES", "s3cret\ns3cret")];
        let output = output(&args, &env).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).expect("it is text");
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert!(!stderr.contains("s3cret"), "{args:?}: {stderr}");
    }
    for args in [
        &["--consume-expect", "ok"][..],
        &["--consume-keepalive", "x every 1s"],
        &["--consume", "http://h", "--consume-expect", "ok"],
        &["--consume", "http://h", "--consume-ignore", "ok"],
        &["publish", "ws://h", "--consume-keepalive", "x every 1s"],
        &["publish", "ws://h", "x", "--consume-ignore", "x"],
    ] {
        let output = output(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
