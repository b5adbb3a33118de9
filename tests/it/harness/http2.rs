//! HTTP/2 as a client has it: many requests on a connection, and WebSockets among them (RFC 8441).

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, Join};
use tokio::net::TcpStream;
use tokio_util::io::StreamReader;

use super::authority::Authority;
use super::client::body::Stream;
use super::client::{Carrier, Client, Head};
use super::within_guard;
use super::wsevent::Hop;

/// The body of an answer.
type Body = StreamReader<BoxStream<'static, std::io::Result<Bytes>>, Bytes>;

/// Nothing can be sent behind a request that has no body.
impl Carrier for Join<Body, tokio::io::Empty> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// A connection that speaks HTTP/2, and has had an answer, so that the settings of the server are known (RFC 8441, section 3).
pub struct Http2(SendRequest<Empty<Bytes>>);

impl Http2 {
    async fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let io = TokioIo::new(stream);
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        // Those of the protocol, not hyper's, which are large.
        builder.initial_stream_window_size(65_535);
        builder.initial_connection_window_size(16 << 20);
        let connecting = within_guard("HTTP/2", builder.handshake(io));
        let (sender, connection) = connecting.await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut http2 = Self(sender);
        http2.ask(Request::get("https://localhost/")).await;
        http2
    }

    pub async fn secure(authority: &Authority, hop: &Hop) -> Self {
        let client = authority.client(None, &["h2", "http/1.1"]);
        let stream = client.stream(hop.address).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::on(stream).await
    }

    pub async fn plain(hop: &Hop) -> Self {
        let socket = TcpStream::connect(hop.address).await;
        Self::on(socket.expect("it listens")).await
    }

    pub async fn ask(
        &mut self,
        request: hyper::http::request::Builder,
    ) -> Response<hyper::body::Incoming> {
        let request = request.body(Empty::new()).expect("a request");
        let answer = within_guard("an answer", self.0.send_request(request)).await;
        answer.expect("an answer")
    }

    /// A handshake, which must be accepted: what its answer says, and the WebSocket.
    pub async fn open(&mut self, target: &str, headers: &[(&str, &str)]) -> (Response<()>, Client) {
        let mut request = Request::connect(format!("https://localhost{target}"))
            .extension(Protocol::from_static("websocket"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.ask(request).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let (head, body) = answer.into_parts();
        let answer = Response::from_parts(head.clone(), ());
        let upgraded = hyper::upgrade::on(Response::from_parts(head, body)).await;
        (
            answer,
            Client::over(TokioIo::new(upgraded.expect("a WebSocket"))),
        )
    }

    /// A stream that is read as a body.
    pub async fn read(&mut self, target: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = Request::get(format!("https://localhost{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = self.ask(request).await.into_parts();
        let pieces = body.into_data_stream().map_err(std::io::Error::other);
        let reader: Body = StreamReader::new(pieces.boxed());
        let client = Client::over(tokio::io::join(reader, tokio::io::empty()));
        Stream::answered(client, Head::of(&head))
    }

    pub async fn subscribe(&mut self) -> Client {
        let version = [("sec-websocket-version", "13")];
        self.open("/events", &version).await.1
    }
}
