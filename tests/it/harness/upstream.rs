//! Somebody else's WebSocket server, played by the test.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::port::ReservedPort;
use super::within_guard;

/// The server's port; it may be away at times.
pub struct Upstream {
    port: ReservedPort,
    listener: Option<TcpListener>,
}

impl Upstream {
    /// One that accepts connections.
    pub fn new() -> Self {
        let mut upstream = Self::away();
        upstream.come_back();
        upstream
    }

    /// One that refuses connections.
    pub fn away() -> Self {
        Self {
            port: ReservedPort::new(),
            listener: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn url(&self) -> String {
        format!("ws://{}/feed", self.address())
    }

    /// Refuses connections from now on.
    pub fn go_away(&mut self) {
        self.listener = None;
    }

    /// Accepts connections again, on the same port.
    pub fn come_back(&mut self) {
        self.listener = Some(self.port.listen());
    }

    /// The next connection, before anything has been read from it.
    pub async fn accept_socket(&self) -> TcpStream {
        within_guard("a connection to the upstream", self.next_socket()).await
    }

    /// The same, whenever that is.
    pub async fn next_socket(&self) -> TcpStream {
        let listener = self.listener.as_ref().expect("the upstream is not away");
        let (socket, _) = listener.accept().await.expect("a connection");
        socket.set_nodelay(true).expect("sockets can do that");
        socket
    }

    /// The next connection, after its handshake.
    pub async fn accept(&self) -> Link {
        Link::accept(self.accept_socket().await).await
    }
}

/// A connection from a hop.
pub struct Link<S = TcpStream> {
    /// The request that began it.
    pub request: Request,
    websocket: WebSocketStream<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Answers the handshake.
    pub async fn accept(socket: S) -> Self {
        let mut seen = None;
        // The signature is tungstenite's.
        #[expect(clippy::result_large_err)]
        let callback = |request: &Request, response: Response| {
            seen = Some(request.clone());
            Ok(response)
        };
        let accepting = accept_hdr_async(socket, callback);
        let websocket = within_guard("a handshake", accepting).await;
        Self {
            websocket: websocket.expect("a good handshake"),
            request: seen.expect("the request has been seen"),
        }
    }

    pub async fn send(&mut self, message: Message) {
        let sending = self.websocket.send(message);
        within_guard("sending", sending)
            .await
            .expect("the hop reads");
    }

    /// The same, to a hop that may end the connection meanwhile.
    pub async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        within_guard("sending", self.websocket.send(message)).await
    }

    /// All of them in one write if they are small, so that a peer that leaves after some of them cannot break it.
    pub async fn send_all(&mut self, messages: &[Message]) {
        let sending = async {
            for message in messages {
                self.websocket.feed(message.clone()).await?;
            }
            self.websocket.flush().await
        };
        within_guard("sending", sending)
            .await
            .expect("the hop reads");
    }

    /// Sends one message in several frames, with a ping between each two.
    pub async fn send_fragmented(&mut self, kind: Data, fragments: &[&[u8]]) {
        for (index, fragment) in fragments.iter().enumerate() {
            let kind = if index == 0 { kind } else { Data::Continue };
            let last = index + 1 == fragments.len();
            let frame = Frame::message(fragment.to_vec(), OpCode::Data(kind), last);
            self.send(Message::Frame(frame)).await;
            if !last {
                self.send(Message::Ping("between fragments".into())).await;
            }
        }
    }

    /// What the hop sends next.
    pub async fn receive(&mut self) -> Message {
        let message = within_guard("a message of the hop", self.websocket.next()).await;
        message.expect("the connection lives").expect("a message")
    }

    /// Reads up to the hop's Close frame: its code.
    pub async fn close_code(&mut self) -> Option<u16> {
        within_guard("a Close frame of the hop", async {
            loop {
                if let Message::Close(frame) = self.receive().await {
                    return frame.map(|frame| frame.code.into());
                }
            }
        })
        .await
    }

    /// Answers the Close frame that has come, or sees the answer to its own, and ends the connection.
    pub async fn closed(mut self) {
        let closing = async { while let Some(Ok(_)) = self.websocket.next().await {} };
        within_guard("the end of a WebSocket", closing).await;
    }

    /// A header of the request; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.request.headers().get(name);
        value.map_or("", |value| value.to_str().expect("it is text"))
    }

    pub fn socket(&mut self) -> &mut S {
        self.websocket.get_mut()
    }
}

impl Link {
    /// Ends the connection as a killed process does: by a reset, without a Close frame.
    pub fn reset(mut self) {
        let socket = self.socket();
        sockopt::set_socket_linger(&*socket, Some(Duration::ZERO)).expect("sockets can do that");
    }
}
