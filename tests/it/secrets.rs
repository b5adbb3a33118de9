//! Secrets stay where they belong: no log line and no error text shows them.

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::upstream::Upstream;
use crate::harness::wsevent::{Hop, Tail, output};

/// A password, a query, a header and a message to be kept, and the password as the header that carries it.
const SECRETS: [&str; 5] = ["pa55word", "t0ken", "b3arer", "m3ssage", "bWU6cGE1NXdvcmQ"];

const ARGS: [&str; 4] = [
    "--consume-header",
    "Authorization: Bearer b3arer",
    "--consume-message",
    "login with m3ssage",
];

fn url(upstream: &Upstream) -> String {
    format!("ws://me:pa55word@{}/feed?key=t0ken", upstream.address())
}

fn assert_clean(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is in:\n{text}");
    }
}

/// Lets the upstream refuse, accept, break, send nonsense, and go away.
async fn trouble(upstream: &mut Upstream) {
    drop(upstream.accept_socket().await);
    let mut socket = upstream.accept_socket().await;
    let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
    socket.write_all(answer.as_bytes()).await.expect("it reads");
    let mut link = upstream.accept().await;
    assert_eq!(link.receive().await, Message::text("login with m3ssage"));
    link.send(Message::text("an event")).await;
    link.reset();
    let mut link = upstream.accept().await;
    link.send(Message::text("an event")).await;
    let nonsense = link.socket().write_all(&[0xFF; 20]);
    nonsense.await.expect("it reads");
    link.close_code().await;
    upstream.go_away();
    upstream.come_back();
    upstream.accept().await.send(Message::Close(None)).await;
    upstream.accept().await;
}

#[tokio::test]
async fn no_secret_is_in_the_log_of_a_hop() {
    for level in ["info", "debug", "wsevent=trace", "trace"] {
        let mut upstream = Upstream::new();
        let url = url(&upstream);
        let args = [&ARGS[..], &["--consume", &url, "--log-level", level]].concat();
        let mut hop = Hop::start(&args).await;
        trouble(&mut upstream).await;
        hop.signal(Signal::INT);
        hop.stops_well().await;
        assert!(hop.count("upstream lost") > 0);
        assert_clean(&hop.log.to_string());
        // It does say which upstream.
        let address = upstream.address();
        assert!(
            hop.log
                .to_string()
                .contains(&format!("ws://{address}/feed"))
        );
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_of_a_tail() {
    let mut upstream = Upstream::new();
    let tail = Tail::start(
        &url(&upstream),
        &[&ARGS[..], &["--log-level", "debug"]].concat(),
    );
    trouble(&mut upstream).await;
    tail.process.logged("connection lost, trying again").await;
    assert_clean(&tail.process.log.to_string());
}

#[tokio::test]
async fn no_secret_is_in_what_a_failing_tail_says() {
    let upstream = Upstream::away();
    let url = url(&upstream);
    let args = [&["tail", &url, "--exit-on-close"], &ARGS[..]].concat();
    let output = output(&args, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_clean(&String::from_utf8(output.stderr).expect("it is text"));
}

#[tokio::test]
async fn no_secret_is_in_a_usage_error() {
    let header = "Authorization: Bearer b3arer";
    for args in [
        &["--consume", "ftp://me:pa55word@a/?t0ken"][..],
        &["--consume", "me:pa55word@a/"],
        &["--consume", "/feed?t0ken"],
        &["--consume", "ws://me:pa55word@a:65536/?t0ken"],
        &[
            "--consume",
            "ws://a",
            "--consume",
            "ftp://a?t0ken",
            "--consume-header",
            header,
        ],
        &["--consume-header", header],
        &["--consume-message", "m3ssage"],
        &[
            "--consume",
            "ws://a",
            "--consume-header",
            "Authorization Bearer b3arer",
        ],
        &[
            "--consume",
            "ws://a",
            "--consume-header",
            "Authorization Bearer b3arer: oh",
        ],
        &[
            "--consume",
            "ws://a",
            "--consume-header",
            "Authorization: b3arer\u{7f}",
        ],
        &[
            "--consume",
            "ws://me:pa55word@a/?t0ken",
            "--produce-rate",
            "1",
        ],
        &["tail", "ftp://me:pa55word@a/?t0ken"],
        &["tail", "me:pa55word@a/?t0ken"],
        &["tail", "ws://me:pa55word@a/?t0ken", "--count", "0"],
        &[
            "tail",
            "ws://a",
            "--consume-header",
            "Authorization Bearer b3arer",
        ],
    ] {
        let output = output(args, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_clean(&String::from_utf8(output.stderr).expect("it is text"));
    }
}

#[tokio::test]
async fn no_secret_is_in_the_help() {
    let env = [
        ("WSEVENT_CONSUME", "ws://me:pa55word@a/?t0ken"),
        ("WSEVENT_CONSUME_HEADER", "Authorization: Bearer b3arer"),
        ("WSEVENT_CONSUME_MESSAGE", "m3ssage"),
    ];
    for args in [&["--help"][..], &["-h"], &["tail", "--help"]] {
        let output = output(args, &env).await;
        assert_eq!(output.status.code(), Some(0));
        assert_clean(&String::from_utf8(output.stdout).expect("it is text"));
    }
}
