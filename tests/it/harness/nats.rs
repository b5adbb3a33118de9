//! A nats-server of a test, and nats-py as whoever else uses it.

use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::daemon::{installed, running};
use super::port::ReservedPort;
use super::within_guard;
use crate::peers::{Language, Peer};

/// A nats-server, which may go and come back.
pub struct Nats {
    pub address: SocketAddr,
    /// Where it keeps its streams.
    folder: TempDir,
    args: Vec<String>,
    _port: ReservedPort,
    child: Option<Child>,
}

impl Nats {
    /// One with these arguments that is not there yet.
    pub fn away(args: &[&str]) -> Self {
        let port = ReservedPort::new();
        Self {
            address: port.address(),
            folder: tempfile::tempdir().expect("a folder for the test"),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            _port: port,
            child: None,
        }
    }

    pub async fn start(args: &[&str]) -> Self {
        let mut nats = Self::away(args);
        nats.restart().await;
        nats
    }

    /// One with JetStream.
    pub async fn jetstream() -> Self {
        Self::start(&["-js"]).await
    }

    /// One with this as its configuration, and JetStream.
    pub async fn configured(config: &str) -> Self {
        let mut nats = Self::away(&["-js"]);
        let path = nats.folder.path().join("nats.conf");
        std::fs::write(&path, config).expect("the folder is ours");
        let path = path.to_str().expect("it is text").to_owned();
        nats.args.extend(["-c".to_owned(), path]);
        nats.restart().await;
        nats
    }

    /// Starts it, once more perhaps: with the streams that it had.
    pub async fn restart(&mut self) {
        let mut command = Command::new(installed("nats-server"));
        command.args(["-a", "127.0.0.1", "-p", &self.address.port().to_string()]);
        command.arg("-sd").arg(self.folder.path()).args(&self.args);
        self.child = Some(running(command, |line| line.contains("Server is ready")).await);
    }

    /// Kills it, without any warning.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.start_kill().expect("it is our child");
        let end = within_guard("the end of nats-server", child.wait()).await;
        end.expect("it is our child");
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        let pid = Pid::from_raw(id as i32).expect("it is above 0");
        kill_process(pid, signal).expect("it is our child");
    }

    /// A subject of it.
    pub fn url(&self, subject: &str) -> String {
        format!("nats://{}/{subject}", self.address)
    }

    /// A stream of it.
    pub fn stream(&self, stream: &str) -> String {
        format!("nats+jetstream://{}/{stream}", self.address)
    }

    /// Somebody else's client of it.
    pub async fn client(&self) -> Foreign {
        self.client_with(&format!("nats://{}", self.address), &[])
            .await
    }

    /// The same, at this URL, with more arguments.
    pub async fn client_with(&self, url: &str, args: &[&str]) -> Foreign {
        let args = [&[url], args].concat();
        let mut peer = Peer::start(Language::Python, "nats_client", &args);
        assert_eq!(peer.says().await, json!({"ready": true}));
        Foreign(peer)
    }
}

/// nats-py, which does as it is told.
pub struct Foreign(Peer);

impl Foreign {
    /// What it says when it has done this.
    pub async fn ask(&mut self, command: Value) -> Value {
        self.0.tell(&command.to_string()).await;
        self.0.says().await
    }

    /// Has it publish payloads, all of which the server has when this returns.
    pub async fn publish(&mut self, subject: &str, payloads: &[&str]) {
        let command = json!({"do": "publish", "subject": subject, "payloads": payloads});
        self.ask(command).await;
    }

    /// Has it listen; from now on [`message`](Self::message) says what it gets.
    pub async fn subscribe(&mut self, subject: &str) {
        self.ask(json!({"do": "subscribe", "subject": subject}))
            .await;
    }

    /// What it has got: subject, headers and payload.
    pub async fn message(&mut self) -> Value {
        self.0.says_of("a message").await
    }

    /// Makes a stream with these subjects.
    pub async fn add_stream(&mut self, name: &str, subjects: &[&str]) {
        let config = json!({"name": name, "subjects": subjects});
        self.ask(json!({"do": "add_stream", "config": config}))
            .await;
    }
}
