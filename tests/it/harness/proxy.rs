//! `wsevent proxy`, and backends that answer by themselves. [`Upstream`] is one that a test answers for.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::client::{Client, Head, handshake};
use super::frame::{FIN, TEXT, unmasked};
use super::http::Request;
use super::upstream::Upstream;
use super::wsevent::{Process, command};

/// A proxy that listens.
pub struct Proxy {
    pub process: Process,
    pub address: SocketAddr,
}

impl std::ops::Deref for Proxy {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl std::ops::DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Proxy {
    /// Starts a proxy on a free port of 127.0.0.1, unless `args` say where.
    pub async fn start(args: &[&str]) -> Self {
        let mut command = command(&[&["proxy", "--log-format", "json"], args].concat());
        if !args.iter().any(|arg| arg.starts_with("--serve-address")) {
            command.args(["--serve-address", "127.0.0.1:0"]);
        }
        let process = Process::spawn(command);
        let listening = process.logged("listening").await;
        Self {
            address: listening.field("address").parse().expect("an address"),
            process,
        }
    }

    /// The same, in front of these.
    pub async fn over(upstreams: &[SocketAddr], args: &[&str]) -> Self {
        let upstreams: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
        let upstreams = upstreams.iter().flat_map(|address| ["--upstream", address]);
        Self::start(&upstreams.chain(args.iter().copied()).collect::<Vec<_>>()).await
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Asks for something on a connection of its own.
    pub async fn get(&self, target: &str) -> (Head, String) {
        self.client().await.get(target, &[]).await
    }

    /// A connection that has become a WebSocket, both ends of it: the upstream is asked and agrees.
    pub async fn joined(&self, upstream: &Upstream) -> (Client, Request) {
        let mut client = self.client().await;
        client.send(handshake("/feed")).await;
        let mut request = upstream.asked().await;
        request.switch(b"").await;
        assert_eq!(client.head().await.status, 101);
        (client, request)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Request<S> {
    /// Agrees to become a WebSocket, and sends these bytes at once.
    pub async fn switch(&mut self, early: &[u8]) {
        let key = self.header("sec-websocket-key").expect("a handshake");
        let accept = derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        self.send([head.as_bytes(), early].concat()).await;
    }
}

/// A backend that says its name: as the body of an answer, or as the first event of a WebSocket, which it then keeps.
pub struct Backend {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Backend {
    pub fn start(name: &'static str) -> Self {
        Self::at(Upstream::new(), name, Duration::ZERO)
    }

    /// One that takes its time for each answer.
    pub fn slow(name: &'static str, pause: Duration) -> Self {
        Self::at(Upstream::new(), name, pause)
    }

    /// One at this port.
    pub fn at(upstream: Upstream, name: &'static str, pause: Duration) -> Self {
        let asked = Arc::<AtomicUsize>::default();
        let address = upstream.address();
        let seen = asked.clone();
        let serving = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            loop {
                let socket = upstream.next_socket().await;
                let asked = seen.clone();
                connections.spawn(async move {
                    let mut next = Request::try_read(socket).await;
                    while let Some(request) = next {
                        asked.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(pause).await;
                        next = answer(request, name).await;
                    }
                });
            }
        });
        Self {
            address,
            asked,
            serving,
        }
    }

    /// How many requests there were.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends it with all of its connections. From then on it refuses others.
    pub async fn stop(self) {
        self.serving.abort();
        // An error says that it was aborted.
        let _ = self.serving.await;
    }
}

/// The next request on the connection, if there may be one.
async fn answer(mut request: Request<TcpStream>, name: &str) -> Option<Request> {
    if request.header("upgrade").is_some() {
        request.switch(&unmasked(FIN | TEXT, name.as_bytes())).await;
        pending::<()>().await;
    }
    let length = name.len();
    request
        .send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
        ))
        .await;
    Request::try_read(request.into_socket()).await
}
