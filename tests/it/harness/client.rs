//! A client that writes what a test wants, wrong or right, and reads strictly.

pub mod body;

use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use super::frame::{self, CLOSE, FIN, Frame, PING, PONG, close_payload, masked};
use super::within_guard;

/// The example of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The headers of a handshake that is right in all respects.
pub const HANDSHAKE: [(&str, &str); 5] = [
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
];

/// A request, as it stands on the wire.
pub fn request(line: &str, headers: &[(&str, &str)]) -> String {
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("{line}\r\n{}\r\n", headers.collect::<String>())
}

/// A handshake that is right in all respects.
pub fn handshake(path: &str) -> String {
    request(&format!("GET {path} HTTP/1.1"), &HANDSHAKE)
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        Self {
            status: status.unwrap_or_else(|| panic!("no answer of HTTP: {text:?}")),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
        }
    }

    /// One that a client of others has read.
    pub fn of(answer: &hyper::http::response::Parts) -> Self {
        let headers = answer.headers.iter();
        let headers = headers.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.into_owned())
        });
        Self {
            status: answer.status.as_u16(),
            headers: headers.collect(),
        }
    }

    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }
}

/// What a client speaks over.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket below, if it has that for itself.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Carrier for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Carrier for TlsStream<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
}

/// One stream of an HTTP/2 connection.
impl Carrier for TokioIo<Upgraded> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// One connection.
pub struct Client {
    stream: Box<dyn Carrier>,
    /// What has arrived and is not taken yet.
    buffer: Vec<u8>,
    taken: usize,
    /// The most that one read takes.
    read_size: usize,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let connecting = TcpStream::connect(address);
        Self::new(
            within_guard("a connection", connecting)
                .await
                .expect("it listens"),
        )
    }

    /// With a receive buffer so small that the server soon cannot write.
    pub async fn connect_with_buffer(address: SocketAddr, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket
            .set_recv_buffer_size(bytes)
            .expect("sockets can do that");
        let connecting = socket.connect(address);
        Self::new(
            within_guard("a connection", connecting)
                .await
                .expect("it listens"),
        )
    }

    fn new(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("sockets can do that");
        Self::over(socket)
    }

    /// Over a connection that is there.
    pub fn over(stream: impl Carrier + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: vec![],
            taken: 0,
            read_size: 64 << 10,
        }
    }

    fn socket(&self) -> &TcpStream {
        self.stream.socket().expect("a connection of its own")
    }

    /// Its own end.
    pub fn address(&self) -> SocketAddr {
        self.socket().local_addr().expect("it is connected")
    }

    /// All that comes up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        mem::take(&mut self.buffer)
    }

    /// From now on at most so many bytes a read.
    pub fn read_at_most(mut self, bytes: usize) -> Self {
        self.read_size = bytes;
        self
    }

    /// Makes a WebSocket of it.
    pub async fn upgraded(mut self, path: &str) -> Self {
        self.send(handshake(path)).await;
        let head = self.head().await;
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), ACCEPT);
        self
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the server reads");
    }

    /// For a server that may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let writing = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        within_guard("writing", writing).await
    }

    /// Sends a final frame.
    pub async fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.send(masked(FIN | opcode, payload)).await;
    }

    /// Reads more; false at the end. A reset is an end, too.
    async fn fill(&mut self) -> bool {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let mut piece = vec![0; self.read_size];
        let len = within_guard("reading", self.stream.read(&mut piece)).await;
        let len = len.unwrap_or(0);
        self.buffer.extend(&piece[..len]);
        len > 0
    }

    /// The next answer's head.
    pub async fn head(&mut self) -> Head {
        self.try_head().await.expect("an answer")
    }

    /// The next answer's head, unless the connection ends instead.
    pub async fn try_head(&mut self) -> Option<Head> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(Head::parse(&String::from_utf8_lossy(&head)))
    }

    /// The lines of the next answer's head, as they stand on the wire.
    pub async fn head_lines(&mut self) -> Vec<String> {
        let head = self.until(b"\r\n\r\n").await.expect("an answer");
        let head = String::from_utf8(head).expect("a head is text");
        head.split("\r\n").map(ToOwned::to_owned).collect()
    }

    /// So many bytes, as the body of an answer.
    pub async fn body(&mut self, head: &Head) -> String {
        let len = head.header("content-length").parse().expect("a length");
        String::from_utf8(self.bytes(len).await).expect("the body is text")
    }

    /// So many bytes.
    pub async fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() - self.taken < len {
            assert!(self.fill().await, "it is not all there");
        }
        let bytes = self.buffer[self.taken..][..len].to_vec();
        self.taken += len;
        bytes
    }

    /// What comes before this delimiter, which is taken too; none if the connection ends first.
    async fn until(&mut self, delimiter: &[u8]) -> Option<Vec<u8>> {
        loop {
            let rest = &self.buffer[self.taken..];
            let mut windows = rest.windows(delimiter.len());
            if let Some(end) = windows.position(|window| window == delimiter) {
                let found = rest[..end].to_vec();
                self.taken += end + delimiter.len();
                return Some(found);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Has a request answered first, so that the connection is not a new one any more.
    pub async fn used(mut self) -> Self {
        self.get("/", &[]).await;
        self
    }

    /// Asks for something that has an end.
    pub async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> (Head, String) {
        let headers = [&[("Host", "localhost")], headers].concat();
        let line = format!("GET {target} HTTP/1.1");
        self.send(request(&line, &headers)).await;
        let head = self.head().await;
        let body = self.body(&head).await;
        (head, body)
    }

    /// The next line of an endless body, without its end. The head of a chunk (RFC 9112, section 7.1) is one as well.
    pub async fn line(&mut self) -> String {
        loop {
            let rest = &self.buffer[self.taken..];
            if let Some(end) = memchr::memchr(b'\n', rest) {
                let line = String::from_utf8(rest[..end].to_vec()).expect("lines are UTF-8");
                self.taken += end + 1;
                return line;
            }
            assert!(self.fill().await, "the body has ended");
        }
    }

    /// The next line with this text in it.
    pub async fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The next frame; none at the end of the connection, which must not be in the middle of one.
    pub async fn frame(&mut self) -> Option<Frame> {
        let frame = self.frame_or_cut().await;
        if frame.is_none() {
            let rest = self.buffer.len() - self.taken;
            assert_eq!(rest, 0, "the connection ended within a frame");
        }
        frame
    }

    /// The next whole frame; none at the end of the connection, wherever it comes.
    pub async fn frame_or_cut(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, len)) = frame::parse(&self.buffer[self.taken..]) {
                self.taken += len;
                return Some(frame);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next event, or the Close frame. Pings are answered on the way.
    pub async fn message(&mut self) -> Message {
        within_guard("an event", self.next_message()).await
    }

    async fn next_message(&mut self) -> Message {
        loop {
            let frame = self.frame().await.expect("a frame before the end");
            assert!(frame.fin, "an event is one frame");
            assert!(!frame.compressed, "nobody has asked for that");
            let text = |bytes| String::from_utf8(bytes).expect("text is UTF-8");
            match frame.opcode {
                frame::TEXT => return Message::text(text(frame.payload)),
                frame::BINARY => return Message::binary(frame.payload),
                CLOSE => return Message::Close(None),
                PING => drop(self.try_send(masked(FIN | PONG, &frame.payload)).await),
                PONG => {}
                other => panic!("opcode {other:#x} from a server"),
            }
        }
    }

    /// The next `count` events.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = vec![];
        for _ in 0..count {
            let message = self.message().await;
            assert!(!message.is_close(), "closed after {}", messages.len());
            messages.push(message);
        }
        messages
    }

    /// Reads up to the Close frame: the events before it, its code and its reason.
    pub async fn until_close(&mut self) -> (Vec<Frame>, u16, String) {
        within_guard("a Close frame", async {
            let mut frames = vec![];
            loop {
                let frame = self.frame().await.expect("a Close frame before the end");
                if let Some((code, reason)) = frame.close() {
                    return (frames, code, reason);
                }
                frames.push(frame);
            }
        })
        .await
    }

    /// The code of the Close frame that must come next; answers it, and sees the end.
    pub async fn closed(mut self) -> u16 {
        let (frames, code, _) = self.until_close().await;
        assert!(
            frames.is_empty(),
            "nothing was expected before the Close frame"
        );
        self.answer_close(code).await;
        code
    }

    /// Answers a Close frame and sees the end of the connection.
    pub async fn answer_close(mut self, code: u16) {
        let answer = masked(FIN | CLOSE, &close_payload(code, b""));
        // The server may be gone already, as it need not wait for this.
        drop(self.try_send(answer).await);
        self.ended().await;
    }

    /// Sees the end of the connection, with nothing before it.
    pub async fn ended(&mut self) {
        let frame = self.frame().await;
        assert_eq!(frame, None, "the end was expected");
    }

    /// Ends its own direction only.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("the connection lives");
    }

    /// Vanishes with a reset.
    pub fn reset(self) {
        sockopt::set_socket_linger(self.socket(), Some(Duration::ZERO))
            .expect("sockets can do that");
    }
}
