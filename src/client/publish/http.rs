//! Events as POST requests, one after another on one connection.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::event::{Kind, Payload};
use crate::source::Backoff;
use crate::source::upstream::{CONNECT_TIMEOUT, Upstream, open_stream};

/// How often the first request is sent again when its connection is lost.
const FIRST_ATTEMPTS: u32 = 5;
/// The longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// Events go out in one request after another.
pub struct Sender {
    upstream: Upstream,
    /// Lines of JSON, rather than one event as it is.
    is_batch: bool,
    /// `ce-source` of this run.
    source: HeaderValue,
    /// The `ce-id` of the last request.
    count: u64,
    /// How long a server that has answered may be away: the name of a request makes it safe to send it again.
    retry: Duration,
    connection: SendRequest<Full<Bytes>>,
}

/// Why a request has no answer that counts.
enum Failure {
    /// It may help to send it again.
    Lost(anyhow::Error),
    Refused(anyhow::Error),
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    ids: Vec<String>,
}

impl Sender {
    /// Connects.
    pub async fn connect(upstream: Upstream, is_batch: bool, retry: Duration) -> Result<Self> {
        let source = format!("wsevent-publish/{:032x}", rand::random::<u128>());
        Ok(Self {
            connection: connect(&upstream).await?,
            upstream,
            is_batch,
            source: source.try_into()?,
            count: 0,
            retry,
        })
    }

    /// Sends events in one request; their ids.
    pub async fn send(&mut self, events: &[Payload]) -> Result<Vec<String>> {
        self.count += 1;
        let (content_type, body) = match events {
            [event] if !self.is_batch => match event.kind {
                Kind::Text => ("text/plain; charset=utf-8", event.bytes.clone()),
                Kind::Binary => ("application/octet-stream", event.bytes.clone()),
            },
            events => ("application/x-ndjson", lines(events)?.into()),
        };
        let mut backoff = Backoff::new();
        let mut attempts = 0;
        let mut lost_at = None;
        loop {
            let error = match self.request(content_type, body.clone()).await {
                Ok(ids) if ids.len() == events.len() => return Ok(ids),
                Ok(_) => bail!("the server does not answer as wsevent does"),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Lost(error)) => error,
            };
            attempts += 1;
            let is_first = self.count == 1;
            if is_first && attempts == FIRST_ATTEMPTS {
                return Err(error);
            }
            let pause = backoff.pause();
            let away = lost_at.get_or_insert_with(Instant::now).elapsed();
            if !is_first && away + pause > self.retry {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    async fn request(
        &mut self,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Vec<String>, Failure> {
        // Servers close connections that have nothing to do.
        if self.connection.ready().await.is_err() {
            self.connection = connect(&self.upstream).await.map_err(Failure::Lost)?;
        }
        let request = self.post(content_type, body).await;
        let request = request.map_err(Failure::Refused)?;
        let patience = self.upstream.ping_interval * 2;
        let answering = async {
            let response = self.connection.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!("the answer cannot be read: {error}"))?;
            anyhow::Ok(Response::from_parts(head, body.to_bytes()))
        };
        match timeout(patience, answering).await {
            Ok(Ok(response)) => accepted(&response).map_err(Failure::Refused),
            Ok(Err(error)) => Err(Failure::Lost(error.context("the connection was lost"))),
            Err(_) => Err(Failure::Lost(anyhow!("no answer within {patience:?}"))),
        }
    }

    async fn post(&self, content_type: &'static str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let url = &self.upstream.url;
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut request = Request::post(target).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(host)?);
        let agent = concat!("wsevent/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        self.upstream.introduce(headers).await?;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert("ce-source", self.source.clone());
        headers.insert("ce-id", self.count.into());
        Ok(request)
    }
}

/// Opens a connection that speaks HTTP.
async fn connect(upstream: &Upstream) -> Result<SendRequest<Full<Bytes>>> {
    let connecting = async {
        let stream = open_stream(&upstream.url, upstream.tls.as_ref()).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How it ends shows in the requests.
        tokio::spawn(connection);
        Ok(sender)
    };
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    connected.unwrap_or_else(|_| bail!("no answer within {CONNECT_TIMEOUT:?}"))
}

fn lines(events: &[Payload]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for event in events {
        let line = match event.kind {
            Kind::Text => Line {
                data: Some(std::str::from_utf8(&event.bytes)?),
                data_base64: None,
            },
            Kind::Binary => Line {
                data: None,
                data_base64: Some(Base64Display::new(&event.bytes, &BASE64).to_string()),
            },
        };
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// The ids, if the events were accepted; else what the server says, and what to do.
fn accepted(response: &Response<Bytes>) -> Result<Vec<String>> {
    const NOT_OURS: &str = "the server does not answer as wsevent does";
    if response.status() == StatusCode::ACCEPTED {
        let answer: Answer = serde_json::from_slice(response.body()).context(NOT_OURS)?;
        return Ok(answer.ids);
    }
    let body = String::from_utf8_lossy(response.body());
    let said: String = body
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect();
    let advice = match response.status() {
        // It says itself what to do.
        _ if said.contains(" --") => "",
        StatusCode::METHOD_NOT_ALLOWED => {
            " (the server takes no events here: it must be started with --accept-publish)"
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            " (send less, or start the server with a larger --max-message-size)"
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            " (credentials can be given with --consume-header)"
        }
        _ => "",
    };
    let said = match said.is_empty() {
        true => String::new(),
        // It goes to a terminal, so it must not steer that.
        false => format!(": {}", said.escape_debug()),
    };
    bail!("the server answered {}{said}{advice}", response.status())
}
