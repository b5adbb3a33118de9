//! Software that nobody here wrote, as clients and as servers. WebSocket: Python's `websockets` and Node's `ws`. SSE: Node's
//! `eventsource` and Python's `httpx-sse`, and `aiohttp-sse` as a server. HTTP: curl, and HTTP/2 by Python's `httpx` and by
//! Node itself. scripts/test installs what is missing.

mod http;

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::client::Client;
use crate::harness::events::{MIB, all_sorts, assert_same};
use crate::harness::frame::TEXT;
use crate::harness::http::Ndjson;
use crate::harness::upstream::Link;
use crate::harness::wire::Wire;
use crate::harness::within_guard;
use crate::harness::wsevent::Hop;

pub use http::curl;

/// Where scripts/test installs peers.
pub fn installed(variable: &str, default: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let default = target
        .expect("it is in the target folder")
        .join("peers")
        .join(default);
    let path = env::var_os(variable).map_or(default, PathBuf::from);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is missing: run scripts/test, which installs it, or set {variable}"
    );
    path
}

/// Whose software it is.
#[derive(Clone, Copy)]
pub enum Language {
    Python,
    Node,
}

/// A running script of tests/peers.
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub fn start(language: Language, role: &str, args: &[&str]) -> Self {
        Self::start_with(language, role, args, &[])
    }

    /// The same, with something in the environment.
    pub fn start_with(language: Language, role: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let mut command = match language {
            Language::Python => {
                let python = installed("WSEVENT_TEST_PYTHON", "venv/bin/python");
                let mut command = Command::new(python);
                command.arg(scripts.join(role).with_extension("py"));
                command
            }
            Language::Node => {
                const MODULES: &str = "WSEVENT_TEST_NODE_MODULES";
                let modules = installed(MODULES, "node/node_modules");
                let mut command = Command::new("node");
                command.arg(scripts.join(role).with_extension("mjs"));
                command.env(MODULES, modules.canonicalize().expect("it exists"));
                command
            }
        };
        let command = command.args(args).envs(env.iter().copied());
        command.kill_on_drop(true);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python and Node are installed (scripts/test does that)");
        let stdout = child.stdout.take().expect("it is a pipe");
        Self {
            stdin: child.stdin.take().expect("it is a pipe"),
            stdout: BufReader::new(stdout).lines(),
            child,
        }
    }

    /// What it says next.
    pub async fn says(&mut self) -> Value {
        self.says_of("a line of the peer").await
    }

    /// The same; `what` is what it is waited for.
    pub async fn says_of(&mut self, what: &str) -> Value {
        let line = within_guard(what, self.stdout.next_line()).await;
        let line = line.expect("it is UTF-8").expect("it has more to say");
        serde_json::from_str(&line).expect("it speaks JSON")
    }

    /// The event that it says it got.
    pub async fn event(&mut self) -> Message {
        let said = self.says().await;
        let data = said["base64"]
            .as_str()
            .unwrap_or_else(|| panic!("no event: {said}"));
        let data = BASE64.decode(data).expect("it is base64");
        match said["kind"].as_str() {
            Some("text") => Message::text(String::from_utf8(data).expect("it is UTF-8")),
            _ => Message::binary(data),
        }
    }

    pub async fn tell(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stdin
            .write_all(line.as_bytes())
            .await
            .expect("it reads");
    }
}

impl Peer {
    /// Tells it that there is no more to do, and waits for its end.
    pub async fn ends(mut self) {
        drop(self.stdin);
        let end = within_guard("the end of the peer", self.child.wait()).await;
        assert!(end.expect("it is our child").success());
    }
}

/// What the servers in tests/peers send, as events.
fn sent_by_peers() -> Vec<Message> {
    let large: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8).collect();
    vec![
        Message::text("plain"),
        Message::text("é ✓ 𝄞"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::text(""),
        Message::binary(""),
        Message::text("x".repeat(MIB)),
        Message::binary(large),
        Message::text("fragmented ✓"),
        Message::binary([&[0xFF; 100_000][..], b"end"].concat()),
        Message::text("last"),
    ]
}

async fn consumes_from(language: Language) {
    let mut server = Peer::start(language, "server", &[]);
    let port = server.says().await["port"].clone();
    let url = format!("ws://127.0.0.1:{port}/feed?key=value");
    let header = [
        "--consume-header",
        "X-Peer: wsevent",
        "--consume-message",
        "hello",
    ];
    let hop = Hop::start(&[&["--consume", &url], &header[..]].concat()).await;
    let asked = json!({"path": "/feed?key=value", "header": "wsevent"});
    assert_eq!(server.says().await, asked);
    assert_eq!(server.says().await, json!({"message": "hello"}));
    assert_eq!(server.says().await, json!({"pong": true}));
    let mut subscriber = hop.subscribe().await;
    server.tell("send").await;
    let expected = sent_by_peers();
    assert_same(&subscriber.messages(expected.len()).await, &expected);
    assert_eq!(server.says().await, json!({"closed": 1000}));
    let lost = hop.logged("upstream lost").await;
    assert!(lost.field("reason").contains("1000"), "{}", lost.text);
}

async fn serves_to(language: Language) {
    let (mut link, mut hop) = Hop::fed(&[]).await;
    let mut client = Peer::start(language, "client", &[&hop.url]);
    // Both offer to compress.
    let agreed = json!({"extensions": null, "subprotocol": null});
    assert_eq!(client.says().await, agreed);
    assert_eq!(client.says().await, json!({"pong": true}));
    let sent = all_sorts();
    link.send_all(&sent).await;
    let mut got = vec![];
    while got.len() < sent.len() {
        got.push(client.event().await);
    }
    assert_same(&got, &sent);
    hop.signal(Signal::INT);
    assert_eq!(client.says().await, json!({"closed": 1001}));
    hop.stops_well().await;
}

async fn refuses_messages_of(language: Language) {
    let hop = Hop::quiet(&[]).await;
    let mut client = Peer::start(language, "client", &[&hop.url]);
    client.says().await;
    client.says().await;
    client.tell("a message").await;
    assert_eq!(client.says().await, json!({"closed": 1003}));
    assert_eq!(hop.disconnected().await.number("code"), 1003);
}

async fn echoes_messages_of(language: Language) {
    let hop = Hop::quiet(&["--accept-publish"]).await;
    let mut client = Peer::start(language, "client", &[&hop.url]);
    client.says().await;
    client.says().await;
    client.tell("a message").await;
    assert_same(&[client.event().await], &[Message::text("a message")]);
}

#[tokio::test]
async fn a_client_of_python_publishes() {
    echoes_messages_of(Language::Python).await;
}

#[tokio::test]
async fn a_client_of_node_publishes() {
    echoes_messages_of(Language::Node).await;
}

#[tokio::test]
async fn a_server_of_python_is_consumed() {
    consumes_from(Language::Python).await;
}

#[tokio::test]
async fn a_server_of_node_is_consumed() {
    consumes_from(Language::Node).await;
}

#[tokio::test]
async fn a_client_of_python_is_served() {
    serves_to(Language::Python).await;
}

#[tokio::test]
async fn a_client_of_node_is_served() {
    serves_to(Language::Node).await;
}

#[tokio::test]
async fn a_client_of_python_is_refused_in_a_way_it_understands() {
    refuses_messages_of(Language::Python).await;
}

#[tokio::test]
async fn a_client_of_node_is_refused_in_a_way_it_understands() {
    refuses_messages_of(Language::Node).await;
}
