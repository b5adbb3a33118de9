//! The hop between a bus and its clients, and those.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::common::process::{Cpus, Process};
use crate::common::wsevent;

/// How long it may take to reach its bus.
const CONNECTING: Duration = Duration::from_secs(10);

/// A running hop.
pub struct Hop {
    process: Process,
    address: SocketAddr,
}

impl Hop {
    /// Starts it, and waits until it is connected to its bus.
    pub async fn start(arguments: &[&str], cpus: &Cpus) -> Result<Self> {
        let (process, address) = wsevent::start(arguments, cpus)?;
        let hop = Self { process, address };
        let deadline = Instant::now() + CONNECTING;
        loop {
            let buses = hop.buses().await?;
            let is_connected = |bus: &Value| bus["connected"] == true;
            if !buses.is_empty() && buses.iter().all(is_connected) {
                return Ok(hop);
            }
            ensure!(
                Instant::now() < deadline,
                "the hop does not reach its bus: {buses:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// CPU time of it so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64> {
        self.process.cpu_ns()
    }

    /// What it says of its connections to buses.
    pub async fn buses(&self) -> Result<Vec<Value>> {
        let mut client = Client::connect(self.address).await?;
        let request = Request::get("/")
            .header("host", "localhost")
            .header("accept", "application/json");
        let (_, body) = client.ask(request.body(Full::default())?).await?;
        let mut list: Value = serde_json::from_slice(&body)?;
        let buses = list["streams"][0]["buses"].take();
        Ok(buses.as_array().cloned().unwrap_or_default())
    }

    /// A subscriber that gets what comes from now on.
    pub async fn subscribe(&self) -> Result<Subscriber> {
        let url = format!("ws://{}/events", self.address);
        let (stream, _) = connect_async(url).await?;
        Ok(Subscriber(stream))
    }

    /// A client that publishes.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(self.address).await
    }
}

/// A WebSocket.
pub struct Subscriber(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Subscriber {
    /// The next event.
    pub async fn next(&mut self) -> Result<Bytes> {
        loop {
            match self.0.next().await.context("the hop has ended")?? {
                Message::Text(text) => return Ok(text.into()),
                Message::Binary(bytes) => return Ok(bytes),
                Message::Close(close) => bail!("closed by the hop: {close:?}"),
                _ => {}
            }
        }
    }
}

/// An HTTP connection.
pub struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes)> {
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Publishes these lines of NDJSON: once this returns, the bus has confirmed them.
    pub async fn publish(&mut self, lines: Bytes) -> Result<()> {
        let request = Request::post("/events")
            .header("host", "localhost")
            .header("content-type", "application/x-ndjson");
        let (status, body) = self.ask(request.body(Full::new(lines))?).await?;
        ensure!(
            (200..300).contains(&status),
            "not published: {status} {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }
}
