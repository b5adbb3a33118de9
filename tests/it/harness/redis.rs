//! A redis-server of a test.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, Value};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::daemon::{installed, running};
use super::port::ReservedPort;
use super::within_guard;

/// A running redis-server. It keeps its address and its files over a restart.
pub struct Redis {
    port: ReservedPort,
    folder: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

/// Every command that is answered is on disk.
pub const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

impl Redis {
    /// One that forgets everything with its process.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One with these flags.
    pub async fn start_with(args: &[&str]) -> Self {
        let mut server = Self::away(args);
        server.comes().await;
        server
    }

    /// One that is not there yet.
    pub fn away(args: &[&str]) -> Self {
        Self {
            port: ReservedPort::new(),
            folder: tempfile::tempdir().expect("a folder for the test"),
            args: args.iter().map(ToString::to_string).collect(),
            child: None,
        }
    }

    /// Starts it.
    pub async fn comes(&mut self) {
        let mut command = Command::new(installed("redis-server"));
        let port = self.address().port().to_string();
        // With TLS it has that port and no other.
        let is_secure = self.args.iter().any(|arg| arg == "--tls-port");
        let plain = if is_secure { "0" } else { &port };
        command.args(["--port", plain, "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--logfile", "/dev/stderr", "--dir"]);
        command.arg(self.folder.path());
        command.args(self.args.iter().map(|arg| match &**arg {
            "PORT" => &port,
            arg => arg,
        }));
        let begun = |line: &str| line.contains("Ready to accept connections");
        self.child = Some(running(command, begun).await);
    }

    /// Kills it, as a crash does.
    pub async fn dies(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.expect("it is our child");
    }

    /// Makes it stand still, or go on.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        let pid = Pid::from_raw(id as i32).expect("it is above 0");
        kill_process(pid, signal).expect("it is our child");
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// A channel of it, as a flag has it.
    pub fn channel(&self, name: &str) -> String {
        format!("redis://{}/0?channel={name}", self.address())
    }

    /// A stream of it.
    pub fn stream(&self, key: &str) -> String {
        format!("redis+stream://{}/0?stream={key}", self.address())
    }

    /// As its own clients have it.
    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address())
    }

    /// A connection of somebody else's.
    pub async fn connect(&self) -> MultiplexedConnection {
        let client = Client::open(self.url()).expect("a URL");
        let connecting = client.get_multiplexed_async_connection();
        let connected = within_guard("a connection to Redis", connecting).await;
        connected.expect("it listens")
    }

    /// Has it do something.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = Cmd::new();
        command.arg(words);
        let mut connection = self.connect().await;
        let asking = command.query_async(&mut connection);
        let answer = within_guard("an answer of Redis", asking).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Has it do something of which no answer is wanted.
    pub async fn tell(&self, words: &[&str]) {
        self.ask::<Value>(words).await;
    }

    /// A field of all entries of a stream.
    pub async fn field(&self, key: &str, field: &str) -> Vec<String> {
        let entries: Vec<(String, Vec<(String, String)>)> =
            self.ask(&["XRANGE", key, "-", "+"]).await;
        let fields = entries.into_iter().map(|(id, fields)| {
            let found = fields.into_iter().find(|(name, _)| name == field);
            found.unwrap_or_else(|| panic!("{id} has no {field}")).1
        });
        fields.collect()
    }

    /// Waits until somebody listens to a channel.
    pub async fn is_heard(&self, channel: &str) {
        within_guard("a subscriber of the channel", async {
            loop {
                let count: (String, usize) = self.ask(&["PUBSUB", "NUMSUB", channel]).await;
                if count.1 > 0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
