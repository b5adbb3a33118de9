//! Webhooks: each event is a POST, in order, one after another on a connection that is kept.
//!
//! The body is the payload. Its type is `text/plain; charset=utf-8`, or `application/octet-stream` for a binary event, or `application/json` for
//! a text that is a JSON object or array. The headers are those of CloudEvents' binary mode (HTTP protocol binding, section 3.1): `ce-id`
//! is the event's id, `ce-source` `urn:wsevent:` and the origin in it, `ce-type` its type ([`UNTYPED`] without one), `ce-subject` its key,
//! `ce-time` its time. They are the same however often it is sent, and by whichever hop, so that who keeps them in mind takes it once; another
//! wsevent does.
//!
//! With `--forward-batch N` up to N events that wait are one request, as lines of the [NDJSON](crate::wire::ndjson) that is also served. Its
//! `ce-id` names the first and the last of them, and when it is sent again, it is of the same events; the batches of another hop are others.
//!
//! | answer | what it means |
//! | --- | --- |
//! | 2xx | taken |
//! | 408, 425, 429, 5xx, none | sent again, after a pause; not before what `Retry-After` says. After `--forward-retry-for` a dead letter |
//! | anything else | a dead letter at once; redirects are not followed |

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Bus, Sent};
use crate::event::{Event, EventId, Kind, Origin};
use crate::source::refusal::{Refused, Verdict, verdict};
use crate::source::upstream::{CONNECT_TIMEOUT, open_stream};
use crate::wire::cloudevents::{IN_HEADER, UNTYPED};
use crate::wire::ndjson;

/// Sending goes on for so long before those who wait hear what has become of the first.
const TURN: Duration = Duration::from_millis(100);
/// The longest answer that is read, in bytes, so that its connection can be kept.
const MAX_ANSWER: usize = 64 << 10;
/// The longest that a server is believed when it says when to come again.
const MOST_PATIENT: Duration = Duration::from_secs(60 * 60);

/// How events are sent to webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// At most so many in a request. With more than one each request is lines of NDJSON.
    pub batch: usize,
    /// How long an event is tried.
    pub retry_for: Duration,
    /// How long the answer to a request may take.
    pub timeout: Duration,
}

/// Posts events.
pub struct Writer {
    bus: Arc<Bus>,
    connection: Option<Connection>,
    /// When the server wants to be asked again.
    not_before: Option<Instant>,
    /// The request that has not been answered yet: its first event, and how many they are.
    unanswered: Option<(EventId, usize)>,
}

/// A connection that speaks HTTP.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Writer {
    /// Not connected yet.
    pub fn new(bus: Arc<Bus>) -> Self {
        Self {
            bus,
            connection: None,
            not_before: None,
            unanswered: None,
        }
    }

    async fn open(&self) -> Result<Connection> {
        let upstream = &self.bus.upstream;
        let connecting = async {
            let stream = open_stream(&upstream.url, upstream.tls.as_ref()).await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            let driver = tokio::spawn(async {
                // How it ends shows in the requests.
                let _ = connection.await;
            });
            Ok(Connection {
                sender,
                _driver: AbortOnDropHandle::new(driver),
            })
        };
        let connected = timeout(CONNECT_TIMEOUT, connecting).await;
        connected.unwrap_or_else(|_| bail!("no answer within {CONNECT_TIMEOUT:?}"))
    }

    /// Sends events in one request: what has become of them, or why nobody knows, or not yet.
    async fn post(&mut self, events: &[Event]) -> Result<Result<(), String>> {
        let response = match self.answer(events).await {
            Ok(response) => response,
            // The server had closed it meanwhile.
            Err(Lost { is_stale: true, .. }) => {
                self.answer(events).await.map_err(|lost| lost.error)?
            }
            Err(lost) => return Err(lost.error),
        };
        let status = response.status();
        if status.is_success() {
            self.unanswered = None;
            return Ok(Ok(()));
        }
        let asked = retry_after(response.headers(), SystemTime::now());
        let location = response.headers().get(header::LOCATION).cloned();
        let refused = Refused::read(&self.bus.upstream, response).await;
        let text = format!("the webhook answered {}", refused.answer());
        let error = anyhow::Error::new(refused);
        if verdict(&error) == Verdict::Away {
            let longest = self.bus.webhook.retry_for.min(MOST_PATIENT);
            self.not_before = asked.map(|asked| Instant::now() + asked.min(longest));
            bail!(text);
        }
        self.unanswered = None;
        Ok(Err(match location.filter(|_| status.is_redirection()) {
            Some(_) => {
                format!("{text}: redirects are not followed, give --forward the URL it leads to")
            }
            None => text,
        }))
    }

    async fn answer(&mut self, events: &[Event]) -> Result<Response<Full<Bytes>>, Lost> {
        let fresh = |error| Lost {
            error,
            is_stale: false,
        };
        let request = self.request(events).await.map_err(fresh)?;
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.sender.ready().await.is_err()
        {
            kept = None;
        }
        let is_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open().await.map_err(fresh)?,
        };
        let patience = self.bus.webhook.timeout;
        let answering = async {
            let response = connection.sender.send_request(request).await?;
            anyhow::Ok(whole(response).await)
        };
        let response = match timeout(patience, answering).await {
            Err(_) => return Err(fresh(anyhow!("no answer within {patience:?}"))),
            Ok(Err(error)) => {
                return Err(Lost {
                    error: error.context("the connection was lost"),
                    is_stale: is_kept,
                });
            }
            Ok(Ok(response)) => response,
        };
        let (response, is_whole) = response;
        if is_whole {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    async fn request(&self, events: &[Event]) -> Result<Request<Full<Bytes>>> {
        let upstream = &self.bus.upstream;
        let url = &upstream.url;
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut own = HeaderMap::new();
        let body = match self.bus.webhook.batch {
            1 => single(&events[0], &mut own)?,
            _ => batch(events, &mut own)?,
        };
        let mut request = Request::post(target).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(host)?);
        let agent = concat!("wsevent/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.extend(own);
        upstream.introduce(headers).await?;
        Ok(request)
    }

    /// How many of these are the next request. One that has not been answered is sent again as it was: what it is called says what is in it.
    fn count(&self, events: &[Event]) -> usize {
        let most = self.bus.webhook.batch.min(events.len());
        match (self.unanswered, events.first()) {
            (Some((first, count)), Some(event)) if first == event.id => count.min(most),
            _ => most,
        }
    }
}

/// Why there is no answer.
struct Lost {
    error: anyhow::Error,
    /// Whether the connection was there before the request, so that the server may have closed it before it knew of that.
    is_stale: bool,
}

/// Reads an answer, as far as it is needed, and says whether that is all of it.
async fn whole(response: Response<Incoming>) -> (Response<Full<Bytes>>, bool) {
    let (head, body) = response.into_parts();
    match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => (Response::from_parts(head, Full::new(body.to_bytes())), true),
        Err(_) => (Response::from_parts(head, Full::default()), false),
    }
}

/// How long the server wants to be left alone (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

/// One event as it is, named by its headers.
fn single(event: &Event, headers: &mut HeaderMap) -> Result<Bytes> {
    let bytes = &event.payload.bytes;
    let content_type = match event.payload.kind {
        Kind::Binary => "application/octet-stream",
        Kind::Text if is_json(bytes) => "application/json",
        Kind::Text => "text/plain; charset=utf-8",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let time = UNIX_EPOCH + Duration::from_micros(event.time.min(ndjson::MAX_TIME));
    let time = humantime::format_rfc3339_micros(time).to_string();
    name(headers, event, &event.id.to_string())?;
    attribute(headers, "ce-specversion", "1.0")?;
    attribute(
        headers,
        "ce-type",
        event.event_type.as_deref().unwrap_or(UNTYPED),
    )?;
    attribute(headers, "ce-time", &time)?;
    if let Some(key) = event.key.as_deref().filter(|key| !key.is_empty()) {
        attribute(headers, "ce-subject", key)?;
    }
    Ok(bytes.clone())
}

/// Several events as lines, named all together.
fn batch(events: &[Event], headers: &mut HeaderMap) -> Result<Bytes> {
    let (first, last) = events.first().zip(events.last()).context("no events")?;
    let mut lines = Vec::new();
    for event in events {
        ndjson::encode(event, &mut lines);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    let id = format!("{}..{}", first.id, last.id);
    name(headers, first, &id)?;
    Ok(lines.into())
}

fn name(headers: &mut HeaderMap, event: &Event, id: &str) -> Result<()> {
    let source = format!("urn:wsevent:{}", event.id.origin);
    attribute(headers, "ce-source", &source)?;
    attribute(headers, "ce-id", id)
}

fn attribute(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<()> {
    let value = utf8_percent_encode(value, IN_HEADER).to_string();
    headers.insert(HeaderName::from_static(name), value.try_into()?);
    Ok(())
}

/// Whether a text is a JSON object or array. Of a mere number or word nobody knows whether it was meant so.
fn is_json(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
        && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

impl super::Writer for Writer {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if let Some(not_before) = self.not_before {
                sleep_until(not_before).await;
                self.not_before = None;
            }
            let is_open = |connection: &Connection| !connection.sender.is_closed();
            if !self.connection.as_ref().is_some_and(is_open) {
                self.connection = Some(self.open().await?);
            }
            Ok(())
        })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        _: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let began = Instant::now();
            let mut rest = events;
            while !rest.is_empty() && (sent.is_empty() || began.elapsed() < TURN) {
                let (now, later) = rest.split_at(self.count(rest));
                self.unanswered = Some((now[0].id, now.len()));
                let answer = self.post(now).await?;
                sent.extend(now.iter().map(|event| match &answer {
                    Ok(()) => Sent::Taken(event.id),
                    Err(reason) => Sent::Refused(reason.clone()),
                }));
                rest = later;
            }
            Ok(())
        })
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        // A connection that has nothing to do may well be closed: the next event opens another.
        Box::pin(std::future::pending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Payload;

    fn event(payload: Payload) -> Event {
        Event {
            id: "0H3B6Q2ZK7M9T-42".parse().expect("an id"),
            time: 1_763_711_000_123_456,
            event_type: None,
            key: None,
            payload,
        }
    }

    #[test]
    fn the_type_of_a_body_is_what_it_is() {
        for (payload, expected) in [
            (Payload::text("a"), "text/plain; charset=utf-8"),
            (Payload::text("12"), "text/plain; charset=utf-8"),
            (Payload::text("{ broken"), "text/plain; charset=utf-8"),
            (Payload::text(" {\"a\": [1]}\n"), "application/json"),
            (Payload::text("[]"), "application/json"),
            (Payload::binary(&b"{}"[..]), "application/octet-stream"),
        ] {
            let mut headers = HeaderMap::new();
            let body = single(&event(payload.clone()), &mut headers).expect("headers");
            assert_eq!(headers[header::CONTENT_TYPE], expected, "{payload:?}");
            assert_eq!(body, payload.bytes);
        }
    }

    #[test]
    fn attributes_are_headers() {
        let mut headers = HeaderMap::new();
        let event = Event {
            event_type: Some("a type".into()),
            key: Some("\u{20ac} \"100%\"".into()),
            ..event(Payload::text("x"))
        };
        single(&event, &mut headers).expect("headers");
        for (name, expected) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "0H3B6Q2ZK7M9T-42"),
            ("ce-source", "urn:wsevent:0H3B6Q2ZK7M9T"),
            ("ce-type", "a%20type"),
            ("ce-subject", "%E2%82%AC%20%22100%25%22"),
            ("ce-time", "2025-11-21T07:43:20.123456Z"),
        ] {
            assert_eq!(headers[name], expected, "{name}");
        }
    }

    #[test]
    fn a_server_says_in_seconds_or_by_date_when_to_come_again() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("3", Some(3)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers =
                HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
    }
}
