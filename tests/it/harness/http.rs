//! Streams over plain HTTP: somebody else's server, played byte by byte, and a reader of a hop's NDJSON.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::upstream::Upstream;
use super::within_guard;
use super::wsevent::Hop;

/// The head of an answer that is an event stream and ends with its connection.
pub const EVENT_STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
/// The same, in chunks.
pub const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk of a chunked body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", bytes.len());
    [size.as_bytes(), bytes, b"\r\n"].concat()
}

impl Upstream {
    pub fn http_url(&self) -> String {
        format!("http://{}/feed", self.address())
    }

    /// The next connection and its request.
    pub async fn asked(&self) -> Request {
        Request::read(self.accept_socket().await).await
    }
}

/// A request that is to be answered.
pub struct Request<S = TcpStream> {
    head: String,
    socket: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Request<S> {
    pub async fn read(socket: S) -> Self {
        let reading = within_guard("a request", Self::try_read(socket));
        reading.await.expect("a whole request")
    }

    /// None if the connection ends first, whenever that is.
    pub async fn try_read(mut socket: S) -> Option<Self> {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.ok()?);
        }
        Some(Self {
            head: String::from_utf8_lossy(&head).into_owned(),
            socket,
        })
    }

    /// What is behind it.
    pub fn into_socket(self) -> S {
        self.socket
    }

    /// The same, to be used at once.
    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// So many bytes of what is behind it.
    pub async fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let reading = self.socket.read_exact(&mut bytes);
        within_guard("more behind a request", reading)
            .await
            .expect("it is all there");
        bytes
    }

    /// Ends its own direction only.
    pub async fn half_close(&mut self) {
        self.socket.shutdown().await.expect("the connection lives");
    }

    /// Sees the end of the other's direction, with nothing before it.
    pub async fn ended(&mut self) {
        let read = within_guard("the end", self.socket.read(&mut [0])).await;
        assert_eq!(read.expect("an end in order"), 0, "the end was expected");
    }

    /// Method and target.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// All lines of the head, as they stand on the wire.
    pub fn lines(&self) -> Vec<&str> {
        self.head.trim_end().split("\r\n").collect()
    }

    /// A header's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self
            .head
            .split("\r\n")
            .filter_map(|line| line.split_once(':'));
        let found = headers.find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sending = self.socket.write_all(bytes.as_ref());
        within_guard("sending", sending)
            .await
            .expect("the hop reads");
    }

    /// Answers, and ends the connection.
    pub async fn answer(mut self, bytes: impl AsRef<[u8]>) {
        self.send(bytes).await;
        // The other end may be gone already.
        let _ = within_guard("the end", self.socket.shutdown()).await;
    }

    pub async fn redirect(self, status: u16, to: &str) {
        let head = format!("HTTP/1.1 {status} Go\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
        self.answer(head).await;
    }

    /// Waits until the other end has left.
    pub async fn left(mut self) {
        let mut rest = vec![];
        // A reset is as good.
        let _ = within_guard("the end", self.socket.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{rest:?} came behind the request");
    }
}

impl Request {
    /// Ends the connection as a killed process does.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO))
            .expect("sockets can do that");
    }
}

/// Reads a hop's NDJSON.
pub struct Ndjson(BufReader<TcpStream>);

impl Ndjson {
    /// From here on everything is sure to come.
    pub async fn of(hop: &Hop) -> Self {
        Self::at(hop, "/events").await
    }

    pub async fn at(hop: &Hop, target: &str) -> Self {
        Self::to(hop.address, target).await
    }

    pub async fn to(address: SocketAddr, target: &str) -> Self {
        let connecting = TcpStream::connect(address);
        let socket = within_guard("a connection", connecting).await;
        let mut reader = Self(BufReader::new(socket.expect("it listens")));
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\r\n"
        );
        let sending = reader.0.get_mut().write_all(request.as_bytes());
        within_guard("sending", sending).await.expect("it reads");
        assert!(reader.line().await.starts_with("HTTP/1.1 200 "));
        while reader.line().await != "\r\n" {}
        reader
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let reading = self.0.read_line(&mut line);
        within_guard("a line", reading).await.expect("text");
        assert!(line.ends_with('\n'), "cut off in {line:?}");
        line
    }

    /// The next object.
    pub async fn next(&mut self) -> Value {
        serde_json::from_str(&self.line().await).expect("it is JSON")
    }
}
