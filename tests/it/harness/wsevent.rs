//! The real binary as a child process.

use std::env;
use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::client::Client;
use super::log::{Line, Log};
use super::upstream::{Link, Upstream};
use super::within_guard;

/// A command that runs wsevent, whatever the environment of the tests says.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsevent"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("WSEVENT_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Some systems allow a process 1,024 files unless it asks for more; what it starts inherits that. How many it may have then.
pub fn allow_many_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("up to the maximum is allowed");
    maximum.map_or(usize::MAX, |files| files as usize)
}

/// Runs wsevent to its end.
pub async fn output(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = command(args);
    let running = command.envs(env.iter().copied()).output();
    within_guard("wsevent's end", running)
        .await
        .expect("it runs")
}

/// A running wsevent. When it is dropped, it is killed; if the test has failed, its log is printed.
pub struct Process {
    child: Child,
    pub log: Log,
    stdout: Option<ChildStdout>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be run");
        let stderr = child.stderr.take().expect("it is a pipe");
        let stderr = stderr.into_owned_fd().expect("it is a file");
        Self {
            stdout: child.stdout.take(),
            child,
            log: Log::read(std::fs::File::from(stderr)),
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it has not been waited for");
        let pid = Pid::from_raw(id as i32).expect("it is above 0");
        kill_process(pid, signal).expect("it is our child");
    }

    /// How much memory it has, in bytes (proc(5)).
    pub fn resident(&self) -> usize {
        let id = self.child.id().expect("it has not been waited for");
        let sizes = std::fs::read_to_string(format!("/proc/{id}/statm")).expect("it runs");
        let pages = sizes.split(' ').nth(1).expect("a second number");
        pages.parse::<usize>().expect("a number") * rustix::param::page_size()
    }

    /// Waits for its end, and for the end of its log.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = within_guard("the exit of wsevent", self.child.wait()).await;
        self.log.end().await;
        status.expect("it is our child")
    }

    /// Waits for a log line with this message.
    pub async fn logged(&self, message: &str) -> Line {
        self.log.wait(message, 1, |_| true).await
    }

    /// Waits for a log line with this message that satisfies `wanted`.
    pub async fn logged_where(&self, message: &str, wanted: impl Fn(&Line) -> bool) -> Line {
        self.log.wait(message, 1, wanted).await
    }

    /// Waits for so many log lines with this message.
    pub async fn logged_times(&self, message: &str, count: usize) -> Line {
        self.log.wait(message, count, |_| true).await
    }

    /// How many log lines have this message so far.
    pub fn count(&self, message: &str) -> usize {
        self.log.all(message).len()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let log = self.log.to_string();
        if thread::panicking() {
            eprintln!("--- the log of process {:?}:\n{log}---", self.child.id());
        } else {
            assert!(!log.contains("panicked at"), "wsevent has panicked:\n{log}");
        }
    }
}

/// A running `wsevent tail`.
pub struct Tail {
    pub process: Process,
    /// What it prints; gone once a test has closed it.
    pub lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Tail {
    /// Starts `wsevent tail URL`.
    pub fn start(url: &str, args: &[&str]) -> Self {
        let mut process = Process::spawn(command(
            &[&["tail", url, "--log-format", "json"], args].concat(),
        ));
        let stdout = process.stdout.take().expect("it is a pipe");
        Self {
            lines: Some(BufReader::new(stdout).lines()),
            process,
        }
    }

    /// The next line, without its end; none at the end of the output.
    pub async fn line(&mut self) -> Option<String> {
        let lines = self.lines.as_mut().expect("the output is not closed");
        let line = within_guard("a line of tail", lines.next_line()).await;
        line.expect("lines are UTF-8")
    }

    /// Waits for its end, with this status and without another line.
    pub async fn ends_with(mut self, code: i32) -> Log {
        if self.lines.is_some() {
            assert_eq!(self.line().await, None);
        }
        let status = self.process.exit().await;
        assert_eq!(status.code(), Some(code), "{status}");
        self.process.log.clone()
    }
}

/// A hop that listens.
pub struct Hop {
    pub process: Process,
    pub address: SocketAddr,
    /// As it says itself.
    pub url: String,
    /// Holds the port of an upstream that is never there.
    away: Option<Upstream>,
}

impl std::ops::Deref for Hop {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl std::ops::DerefMut for Hop {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Hop {
    /// Starts a hop on a free port of 127.0.0.1, unless `args` or `env` say where.
    pub async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command(args);
        command.args(["--log-format", "json"]);
        command.envs(env.iter().copied());
        let says = |text: &str| {
            let flag = text.split('=').next().unwrap_or_default();
            matches!(
                flag,
                "--serve" | "--serve-address" | "WSEVENT_SERVE" | "WSEVENT_SERVE_ADDRESS"
            )
        };
        let vars = env.iter().map(|(name, _)| *name);
        if !args.iter().copied().chain(vars).any(says) {
            command.args(["--serve-address", "127.0.0.1:0"]);
        }
        let process = Process::spawn(command);
        let listening = process.logged("listening").await;
        let address = listening.field("address");
        Self {
            address: address.parse().expect("an address"),
            url: listening.field("url"),
            process,
            away: None,
        }
    }

    pub async fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[]).await
    }

    /// Starts a hop that has no events.
    pub async fn quiet(args: &[&str]) -> Self {
        let away = Upstream::away();
        let url = away.url();
        let mut hop = Self::start(&[&["--consume", &url], args].concat()).await;
        hop.away = Some(away);
        hop
    }

    /// Starts a hop that consumes `url`, which must be there, and waits until it is connected.
    pub async fn consuming(url: &str) -> Self {
        let hop = Self::start(&["--consume", url]).await;
        hop.logged("upstream connected").await;
        hop
    }

    /// Starts a hop that is connected to a foreign server.
    pub async fn connected(args: &[&str], env: &[(&str, &str)]) -> (Upstream, Link, Self) {
        let upstream = Upstream::new();
        let url = upstream.url();
        let hop = Self::start_with(&[&["--consume", &url], args].concat(), env).await;
        let link = upstream.accept().await;
        hop.logged("upstream connected").await;
        (upstream, link, hop)
    }

    /// The same, where the one connection is all that matters.
    pub async fn fed(args: &[&str]) -> (Link, Self) {
        let (_, link, hop) = Self::connected(args, &[]).await;
        (link, hop)
    }

    /// The same, where all subscribers are in one shard.
    pub async fn fed_single(args: &[&str]) -> (Link, Self) {
        let (_, link, hop) = Self::connected(args, &[("TOKIO_WORKER_THREADS", "1")]).await;
        (link, hop)
    }

    /// A subscriber, once it is sure to get what comes.
    pub async fn subscribe(&self) -> Client {
        Client::connect(self.address)
            .await
            .upgraded("/events")
            .await
    }

    /// The list of streams, as `GET /` tells it.
    pub async fn index(&self) -> serde_json::Value {
        let mut client = Client::connect(self.address).await;
        let (head, body) = client.get("/", &[]).await;
        assert_eq!(head.status, 200, "{head:?}");
        serde_json::from_str(&body).expect("the list is JSON")
    }

    /// What its one stream comes from, without what is counted of that.
    pub async fn upstreams(&self) -> serde_json::Value {
        let mut upstreams = self.index().await["streams"][0]["upstreams"].take();
        for upstream in upstreams.as_array_mut().expect("a list") {
            let upstream = upstream.as_object_mut().expect("an object");
            upstream.retain(|name, _| matches!(&**name, "url" | "connected" | "peer" | "standby"));
        }
        upstreams
    }

    /// The id of an event that got it here.
    pub async fn id(&self, seq: u64) -> String {
        let index = self.index().await;
        let instance = index["instance"].as_str().expect("it has a name");
        format!("{instance}-{seq}")
    }

    /// Waits for the line about the first subscriber that has left.
    pub async fn disconnected(&self) -> Line {
        self.logged("subscriber disconnected").await
    }

    /// Waits for the end of the hop after a signal, which must be a good one.
    pub async fn stops_well(&mut self) {
        let status = self.exit().await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
}
