//! One subscriber: connects, and reads until the end.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::Empty;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, interval_at, timeout};
use url::Url;

use super::reading::body::{Chunks, Head};
use super::reading::{Format, Frames, Lines, Wrong};
use super::shard::{End, Parser, State, lock};
use crate::client::tail;
use crate::event::{Kind, Payload};
use crate::source::http::client::{EVENT_STREAM, NDJSON};
use crate::source::presence::Named;
use crate::source::upstream::{CONNECT_TIMEOUT, Stream, Upstream, get, open_stream_at};
use crate::source::websocket::login::{Step, Talk};
use crate::source::websocket::{self, Agreed, Offered};
use crate::wire::hop::{Begin, Control, Hello, Scope, StateWish};

/// The longest head of an answer, and the longest message of a login, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// What subscribers read over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Messages of a WebSocket
    #[value(alias = "websocket")]
    Ws,
    /// Server-sent events
    Sse,
    /// One JSON object a line
    Ndjson,
    /// A link as between hops, with ids and times
    Hop,
}

impl Transport {
    /// What the scheme of an event URL stands for.
    pub fn of(url: &Url) -> Self {
        match tail::Transport::of(url) {
            tail::Transport::Websocket => Self::Ws,
            tail::Transport::Sse | tail::Transport::Ndjson => Self::Sse,
        }
    }

    /// The URL of the same stream with a scheme of this transport.
    pub fn mapped(self, url: Url) -> Url {
        let of_tail = match self {
            Self::Ws | Self::Hop => tail::Transport::Websocket,
            Self::Sse | Self::Ndjson => tail::Transport::Sse,
        };
        of_tail.mapped(url)
    }

    /// As in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Hop => "hop",
        }
    }
}

/// What all subscribers have in common.
pub struct Subscription {
    /// Where they connect to.
    pub upstream: Upstream,
    /// What they read over.
    pub transport: Transport,
    /// The number of the last event that has been published.
    pub published: Arc<AtomicU64>,
}

/// A connection that is one of an event stream, and what has come over it already.
struct Connected {
    stream: Stream,
    early: Bytes,
    parser: Parser,
}

impl Subscription {
    /// Connects once; if that fails, it is counted as refused. What comes then is counted until the connection ends.
    pub async fn connect(
        &self,
        state: &Arc<Mutex<State>>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let connecting = timeout(CONNECT_TIMEOUT, self.try_connect());
        let connected = match connecting.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                let reason = self.upstream.reason(&error);
                lock(state).refused.add(&reason, 1);
                return None;
            }
            Err(_) => {
                let reason = format!("no answer within {CONNECT_TIMEOUT:?}");
                lock(state).refused.add(&reason, 1);
                return None;
            }
        };
        let seq = self.published.load(Ordering::Acquire);
        let at = lock(state).open(connected.parser, seq);
        let keepalive = match self.transport {
            Transport::Ws => self.upstream.talk.keepalive.as_ref(),
            _ => None,
        };
        let keepalive = keepalive.map(|keepalive| (keepalive.text.last(), keepalive.every));
        let state = state.clone();
        Some(async move {
            let reading = read(&state, at, connected.stream, connected.early, keepalive);
            let Err(end) = reading.await;
            lock(&state).close(at, &end.reason());
        })
    }

    async fn try_connect(&self) -> Result<Connected> {
        match self.transport {
            Transport::Ws => self.websocket().await,
            Transport::Hop => self.hop_link().await,
            Transport::Sse => self.body(Format::EventStream).await,
            Transport::Ndjson => self.body(Format::Ndjson).await,
        }
    }

    async fn websocket(&self) -> Result<Connected> {
        let (stream, come, _) = self.shaken_hands(false).await?;
        let mut connected = Connected {
            stream,
            early: come,
            parser: Parser::Frames(Frames::new(false)),
        };
        connected.log_in(&self.upstream.talk).await?;
        Ok(connected)
    }

    async fn hop_link(&self) -> Result<Connected> {
        let (mut stream, come, agreed) = self.shaken_hands(true).await?;
        ensure!(
            agreed.is_hop,
            "it is no wsevent, as a hop link needs: read it with --transport ws"
        );
        let hello = Control::Hello(Hello {
            id: None,
            have: vec![],
            from: Begin::Live,
            state: StateWish::No,
            scope: Scope::All,
        });
        let hello = message(hello.to_string().as_bytes());
        stream.write_all(&hello).await?;
        // One that has just started waits for its own upstreams first.
        let mut come = come.to_vec();
        while !text(&mut stream, &mut come).await?.starts_with(b"!welcome") {}
        Ok(Connected {
            stream,
            early: come.into(),
            parser: Parser::Frames(Frames::new(true)),
        })
    }

    /// A connection behind the opening handshake of a WebSocket, and what has come behind that.
    async fn shaken_hands(&self, offer: bool) -> Result<(Stream, Bytes, Agreed)> {
        let request = websocket::request(&self.upstream, offer).await?;
        let (stream, head, rest) = self.asked(&request).await?;
        if head.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(&head, &rest));
        }
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
        let key = key.context("the request has no key")?.as_bytes();
        let offered = Offered::by(&request);
        let agreed = websocket::check(&head.response, key, &offered)?;
        Ok((stream, rest, agreed))
    }

    async fn body(&self, format: Format) -> Result<Connected> {
        let mut request = get(&self.upstream.url)?;
        let accept = match format {
            Format::EventStream => EVENT_STREAM,
            Format::Ndjson => NDJSON,
        };
        let agent = concat!("wsevent/", env!("CARGO_PKG_VERSION"));
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        self.upstream.introduce(headers).await?;
        let (stream, head, rest) = self.asked(&request).await?;
        let is_chunked = check(&head, format, &rest)?;
        Ok(Connected {
            stream,
            early: rest,
            parser: Parser::Body(Lines::new(format), is_chunked.then(Chunks::default)),
        })
    }

    /// A connection behind the head of the answer to a request, and what has come behind that.
    ///
    /// Not by hyper: a server that is full may answer before it is asked, which hyper takes for an error of another kind, and that is
    /// just what is to be counted here.
    async fn asked(&self, request: &Request<Empty<Bytes>>) -> Result<(Stream, Head, Bytes)> {
        let upstream = &self.upstream;
        let tls = upstream.tls.as_ref();
        let mut stream = open_stream_at(upstream.address, &upstream.url, tls).await?;
        // If it fails, an answer may say why.
        let written = stream.write_all(&on_the_wire(request)).await;
        let mut come = Vec::with_capacity(1 << 10);
        loop {
            if let Some(head) = Head::read(&come).map_err(|Wrong(what)| anyhow!(what))? {
                let rest = Bytes::copy_from_slice(&come[head.length..]);
                return Ok((stream, head, rest));
            }
            ensure!(come.len() < MAX_HEAD, "the head of its answer is too long");
            let read = stream.read_buf(&mut come).await?;
            if read == 0 {
                written?;
                bail!("connection lost before an answer");
            }
        }
    }
}

/// A request without a body, as it goes over the wire (RFC 9112, section 3).
fn on_the_wire(request: &Request<Empty<Bytes>>) -> Vec<u8> {
    let mut bytes = format!("GET {} HTTP/1.1\r\n", request.uri()).into_bytes();
    for (name, value) in request.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// What a server has answered that does not let in; the beginning of the body may say why.
fn refused(head: &Head, body: &[u8]) -> anyhow::Error {
    let status = head.response.status();
    if status.is_redirection() {
        return anyhow!("the server answered {status}: give the URL that it redirects to");
    }
    let said = String::from_utf8_lossy(body);
    let said: String = said
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(100)
        .collect();
    match said.is_empty() || head.is_chunked() != Ok(false) {
        true => anyhow!("the server answered {status}"),
        false => anyhow!("the server answered {status}: {}", said.escape_debug()),
    }
}

/// Whether the answer is the stream that was asked for, and comes in chunks.
fn check(head: &Head, format: Format, body: &[u8]) -> Result<bool> {
    if head.response.status() != StatusCode::OK {
        return Err(refused(head, body));
    }
    let content_type = head.content_type();
    let fits = match format {
        Format::EventStream => content_type == "text/event-stream",
        Format::Ndjson => matches!(
            &*content_type,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl"
        ),
    };
    ensure!(
        fits,
        "the server's answer is of the type '{}', and not what was asked for",
        content_type.escape_debug()
    );
    head.is_chunked().map_err(|Wrong(what)| anyhow!(what))
}

impl Connected {
    /// Says what a foreign server wants to be told, and waits for what it answers.
    async fn log_in(&mut self, talk: &Talk) -> Result<()> {
        let mut come = self.early.to_vec();
        for step in &talk.steps {
            let taking = async {
                match step {
                    Step::Say(text) => {
                        let text = text.read().await?;
                        self.stream.write_all(&message(text.as_bytes())).await?;
                    }
                    Step::Expect(pattern) => loop {
                        let text = text(&mut self.stream, &mut come).await?;
                        if pattern.matches(&Payload {
                            kind: Kind::Text,
                            bytes: text,
                        }) {
                            break;
                        }
                    },
                }
                anyhow::Ok(())
            };
            let taken = timeout(talk.patience, taking).await;
            taken.context("the server has not answered a message in time")??;
        }
        self.early = come.into();
        Ok(())
    }
}

/// The next text message that is one frame; `come` is what has been read before.
async fn text(stream: &mut Stream, come: &mut Vec<u8>) -> Result<Bytes> {
    loop {
        if let [first, second, rest @ ..] = &come[..] {
            let (header, length): (usize, _) = match second & 0x7f {
                126 if rest.len() >= 2 => (4, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
                126 => (4, usize::MAX),
                127 => bail!("the server's answer is too long"),
                short => (2, usize::from(short)),
            };
            if let Some(end) = header.checked_add(length).filter(|&end| end <= come.len()) {
                let (first, payload) = (*first, Bytes::copy_from_slice(&come[header..end]));
                come.drain(..end);
                match first {
                    0x81 => return Ok(payload),
                    0x88 => bail!("the server has closed the connection during the login"),
                    _ => continue,
                }
            }
        }
        ensure!(come.len() <= MAX_HEAD, "the server's answer is too long");
        let read = stream.read_buf(come).await?;
        ensure!(read > 0, "connection lost during the login");
    }
}

/// A text message of a client: masked, with the key that leaves the bytes as they are.
fn message(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

/// What can never be: a reader that has come to an end without one.
enum Never {}

/// Reads until the connection ends, and says so often what keeps it alive.
async fn read(
    state: &Arc<Mutex<State>>,
    at: usize,
    mut stream: Stream,
    early: Bytes,
    keepalive: Option<(String, Duration)>,
) -> Result<Never, End> {
    let answers = lock(state).early(at, &early)?;
    answer(&mut stream, &answers).await?;
    drop((early, answers));
    let Some((text, every)) = keepalive else {
        loop {
            let reading = poll_fn(|cx| lock(state).poll_read(at, &mut stream, cx));
            let answers = reading.await?;
            answer(&mut stream, &answers).await?;
        }
    };
    let mut due = interval_at(Instant::now() + every, every);
    loop {
        let answers = tokio::select! {
            answers = poll_fn(|cx| lock(state).poll_read(at, &mut stream, cx)) => answers?,
            _ = due.tick() => message(text.as_bytes()),
        };
        answer(&mut stream, &answers).await?;
    }
}

async fn answer(stream: &mut Stream, answers: &[u8]) -> Result<(), End> {
    if answers.is_empty() {
        return Ok(());
    }
    let writing = async {
        stream.write_all(answers).await?;
        stream.flush().await
    };
    writing.await.map_err(|error| End::Broken(error.kind()))
}
