//! Publishing by POST: what a request brings becomes events, and the answer is made when they are in the log.
//!
//! Of a request with several events all are taken or none; around a bus, which takes them one by one, perhaps some. An event's labels are those that stand nearest to it: its own
//! members, else the `ce-` headers, else those of the URL. A name (`ce-id`, with `ce-source`) makes it safe to send a
//! request again: what has been published under it is not appended once more, and the answer is the same.

mod bodies;
mod content;
mod repeated;
mod sink;

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::event::{EventId, Kind, Labels, NewEvent, Payload};
use crate::listen::rate::OfAddresses;
use crate::wire::cloudevents::{self, CloudEvent, Name};
use crate::wire::{RESERVED_TYPES, ndjson};
use bodies::Received;
use content::{Content, only};
use repeated::{Letter, Repeated};

pub use bodies::Bodies;
pub use repeated::Names;
pub use sink::Sink;

/// So many events may be in one request: they are appended in a row, and nobody else appends meanwhile.
const MAX_EVENTS: usize = 100_000;
/// A body that does not get on for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// How long, and how much, is read of a body that nobody wants.
const DISCARDING: Duration = Duration::from_secs(5);
const MAX_DISCARDED: usize = 256 << 20;
/// So much room is made for a body on its sender's word alone.
const TRUSTED: usize = 64 << 10;
/// The longest type or key in bytes.
pub const MAX_LABEL: usize = 1 << 10;
/// After so many events of a request others get their turn.
const TURN: usize = 1_000;

const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");

/// Takes events from clients.
pub struct Publisher {
    sink: Sink,
    max_message_size: usize,
    rate: Option<Arc<OfAddresses>>,
    /// Once there has been something with a name.
    repeated: OnceLock<Arc<Mutex<Repeated>>>,
}

/// Who publishes.
pub struct Sender<'a> {
    /// The client's address.
    pub address: SocketAddr,
    /// The bodies that it is one of.
    pub bodies: &'a Bodies,
}

/// Why something is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status to answer with.
    pub status: StatusCode,
    /// What is wrong, in one line.
    pub reason: Cow<'static, str>,
    /// When it may be taken, in seconds, if that is all that is wrong (RFC 9110, section 10.2.3).
    pub retry_after: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason: reason.into(),
            retry_after: None,
        }
    }

    fn bad(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    fn unsupported(reason: &'static str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason)
    }

    /// The same about one of several.
    fn of(self, what: &str, number: usize) -> Self {
        Self {
            reason: format!("{what} {number}: {}", self.reason).into(),
            ..self
        }
    }
}

/// Whether events may have these labels.
pub fn check_labels(labels: &Labels) -> Result<(), Refused> {
    check_label("type", labels.event_type.as_deref())?;
    check_label("key", labels.key.as_deref())
}

fn check_label(name: &str, label: Option<&str>) -> Result<(), Refused> {
    match label {
        Some(text) if name == "type" && RESERVED_TYPES.contains(&text) => {
            Err(Refused::bad(format!("the type {text} is not for events")))
        }
        Some(text) if text.len() > MAX_LABEL => Err(Refused::bad(format!(
            "the {name} is longer than {MAX_LABEL} bytes"
        ))),
        // It will stand in a line of its own, or in a header.
        Some(text) if text.chars().any(char::is_control) => {
            Err(Refused::bad(format!("the {name} has control characters")))
        }
        _ => Ok(()),
    }
}

impl Publisher {
    /// Brings events to `sink`; no event above `max_message_size` bytes, and from one address no more often than
    /// `rate` allows, which others may share.
    pub fn new(sink: Sink, max_message_size: usize, rate: Option<Arc<OfAddresses>>) -> Self {
        Self {
            sink,
            max_message_size,
            rate,
            repeated: OnceLock::new(),
        }
    }

    /// What has been published lately under names, once what is being published under one has come to its end; none if there has
    /// been nothing.
    pub async fn names(&self) -> Option<Names> {
        match self.repeated.get() {
            Some(repeated) => Some(repeated.lock().await.names()),
            None => None,
        }
    }

    /// The same, with what another process knows of names.
    pub fn knowing(self, names: Option<Names>) -> Self {
        if let Some(names) = names {
            let _ = self.repeated.set(Arc::new(Mutex::new(names.into())));
        }
        self
    }

    /// Appends the events that a request brings, with `labels` where it says no others. The answer is its body: JSON with
    /// their ids.
    pub async fn take<B>(
        &self,
        request: &Parts,
        mut body: B,
        labels: Labels,
        sender: &Sender<'_>,
    ) -> Result<Vec<u8>, Refused>
    where
        B: Body<Data = Bytes, Error: Error> + Send + Unpin + 'static,
    {
        let taken = self
            .append(&request.headers, &mut body, labels, sender)
            .await;
        if let Err(refused) = &taken {
            sender.bodies.log(sender.address, refused);
        }
        // A client that is told to go away while it sends might well not hear it: closing a socket with unread input resets
        // the connection. One that waits to be told to begin (RFC 9110, section 10.1.1) must not be.
        let is_wanted = taken.is_ok() || request.headers.contains_key(header::EXPECT);
        if !is_wanted && !body.is_end_stream() {
            tokio::spawn(timeout(DISCARDING, discard(body)));
        }
        taken.map(|ids| answer(&ids))
    }

    async fn append<B>(
        &self,
        headers: &HeaderMap,
        body: &mut B,
        labels: Labels,
        sender: &Sender<'_>,
    ) -> Result<Vec<EventId>, Refused>
    where
        B: Body<Data = Bytes, Error: Error> + Unpin,
    {
        let content = Content::of(headers)?;
        let name = name(headers)?;
        let labels = with_headers(labels, headers)?;
        check_labels(&labels)?;
        let limit = match content {
            Content::Payload(_) => self.max_message_size.min(sender.bodies.max_size()),
            _ => sender.bodies.max_size(),
        };
        // Whoever is too fast is told before its body is taken.
        self.pace(|rate| rate.check(sender.address.ip()))?;
        let mut body = read(body, limit, sender.bodies).await?;
        let events = match content {
            Content::Payload(kind) => {
                let event = labels.event(payload(kind, body.take())?);
                vec![CloudEvent { name, event }]
            }
            Content::Lines => {
                let events = self.lines(&body, &labels).await?;
                self.pace(|rate| rate.take(sender.address.ip(), events.len()))?;
                return match name {
                    Some(name) => self.named(Letter::Whole(name, events)).await,
                    None => self.sink.append_all(events).await,
                };
            }
            Content::CloudEvent => {
                let event = self.cloud_event(&body, &labels)?;
                let name = event.name.or(name);
                vec![CloudEvent { name, ..event }]
            }
            Content::CloudEvents => self.cloud_events(&body, &labels).await?,
        };
        self.pace(|rate| rate.take(sender.address.ip(), events.len()))?;
        if events.iter().any(|event| event.name.is_some()) {
            return self.named(Letter::Each(events)).await;
        }
        let events: Vec<_> = events.into_iter().map(|event| event.event).collect();
        self.sink.append_all(events).await
    }

    /// Refuses what comes too soon, if there is a limit.
    fn pace(
        &self,
        allowed: impl FnOnce(&OfAddresses) -> Result<(), Duration>,
    ) -> Result<(), Refused> {
        let Some(rate) = &self.rate else {
            return Ok(());
        };
        allowed(rate).map_err(|wait| {
            let reason = format!("this client {}", rate.rate().exceeded());
            Refused {
                retry_after: Some(wait.as_secs_f64().ceil() as u64),
                ..Refused::new(StatusCode::TOO_MANY_REQUESTS, reason)
            }
        })
    }

    /// A name is looked up and its events are appended under one lock: two requests with the same name may well come at once. And
    /// what has begun is brought to its end, whether or not its client still waits: it will ask again.
    async fn named(&self, letter: Letter) -> Result<Vec<EventId>, Refused> {
        let repeated = self.repeated.get_or_init(Arc::default).clone();
        let sink = self.sink.clone();
        let append = async move { repeated.lock().await.append(&sink, letter).await };
        match &self.sink {
            // It waits for nothing.
            Sink::Log(_) => append.await,
            Sink::Bus(_) => tokio::spawn(append).await.unwrap_or_else(|_| {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Err(Refused::new(status, "publishing has failed"))
            }),
        }
    }

    /// The events in lines of JSON; lines that are blank are none.
    async fn lines(&self, body: &[u8], labels: &Labels) -> Result<Vec<NewEvent>, Refused> {
        let mut events = Vec::new();
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
        for (index, end) in ends.enumerate() {
            let line = &body[start..end];
            start = (end + 1).min(body.len());
            if line.trim_ascii().is_empty() {
                continue;
            }
            let event = ndjson::decode_new(line).map_err(Refused::bad);
            let event = event.and_then(|event| self.checked(event, labels));
            events.push(event.map_err(|refused| refused.of("line", index + 1))?);
            take_turns(events.len()).await?;
        }
        Ok(events)
    }

    fn cloud_event(&self, text: &[u8], labels: &Labels) -> Result<CloudEvent, Refused> {
        let CloudEvent { name, event } = cloudevents::decode(text).map_err(Refused::bad)?;
        let event = self.checked(event, labels)?;
        Ok(CloudEvent { name, event })
    }

    async fn cloud_events(&self, body: &[u8], labels: &Labels) -> Result<Vec<CloudEvent>, Refused> {
        let mut events = Vec::new();
        let texts = cloudevents::split_batch(body, MAX_EVENTS + 1).map_err(Refused::bad)?;
        for text in texts {
            let event = self.cloud_event(text.get().as_bytes(), labels);
            events.push(event.map_err(|refused| refused.of("event", events.len() + 1))?);
            take_turns(events.len()).await?;
        }
        Ok(events)
    }

    /// The event with labels, if it may be in the stream so.
    fn checked(&self, mut event: NewEvent, labels: &Labels) -> Result<NewEvent, Refused> {
        check_label("type", event.event_type.as_deref())?;
        check_label("key", event.key.as_deref())?;
        let not_empty = |label: &Arc<str>| !label.is_empty();
        event.event_type = event.event_type.filter(not_empty);
        event.event_type = event.event_type.or_else(|| labels.event_type.clone());
        event.key = event.key.filter(not_empty).or_else(|| labels.key.clone());
        match event.payload.bytes.len() > self.max_message_size {
            true => Err(too_large("event", self.max_message_size)),
            false => Ok(event),
        }
    }
}

/// Lets others run now and then, for a large body takes a while; and ends one that has too many events.
async fn take_turns(count: usize) -> Result<(), Refused> {
    if count > MAX_EVENTS {
        let reason = format!("at most {MAX_EVENTS} events are taken in one request");
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    if count.is_multiple_of(TURN) {
        yield_now().await;
    }
    Ok(())
}

/// What the request is called, if it has an id.
fn name(headers: &HeaderMap) -> Result<Option<Name>, Refused> {
    if let Some(version) = attribute(headers, &CE_SPECVERSION)? {
        cloudevents::check_version(&version).map_err(Refused::bad)?;
    }
    let Some(id) = attribute(headers, &CE_ID)? else {
        return Ok(None);
    };
    let source = attribute(headers, &CE_SOURCE)?.unwrap_or_default();
    Ok(Some(Name {
        source: source.into(),
        id: id.into(),
    }))
}

/// The labels in the headers, and else those that there are.
fn with_headers(labels: Labels, headers: &HeaderMap) -> Result<Labels, Refused> {
    let label = |name| Ok(attribute(headers, name)?.map(Arc::from));
    Ok(Labels {
        event_type: label(&CE_TYPE)?
            .filter(|event_type: &Arc<str>| **event_type != *cloudevents::UNTYPED)
            .or(labels.event_type),
        key: label(&CE_SUBJECT)?.or(labels.key),
    })
}

/// An attribute of a CloudEvent, if there is one: it must not be empty.
fn attribute(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refused> {
    let Some(value) = only(headers, name)? else {
        return Ok(None);
    };
    let text = cloudevents::decode_header(value);
    let text = text.map_err(|reason| Refused::bad(format!("{name}: {reason}")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn payload(kind: Option<Kind>, body: Vec<u8>) -> Result<Payload, Refused> {
    let is_text = || std::str::from_utf8(&body).is_ok();
    let kind = match kind {
        Some(Kind::Text) if !is_text() => {
            return Err(Refused::bad(
                "text must be UTF-8: what is not, is application/octet-stream",
            ));
        }
        Some(kind) => kind,
        None if is_text() => Kind::Text,
        None => Kind::Binary,
    };
    // No more memory than it needs, for as long as the history keeps it.
    let bytes = body.into_boxed_slice().into();
    Ok(Payload { kind, bytes })
}

fn too_large(what: &str, limit: usize) -> Refused {
    let reason = format!("the {what} is longer than {limit} bytes, the most that is taken");
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
}

/// The whole body, copied: hyper's buffers are larger than most events.
async fn read<'a, B>(
    body: &mut B,
    limit: usize,
    bodies: &'a Bodies,
) -> Result<Received<'a>, Refused>
where
    B: Body<Data = Bytes, Error: Error> + Unpin,
{
    // Content-Length, where there is one.
    let length = body.size_hint().lower();
    if length > limit as u64 {
        return Err(too_large("body", limit));
    }
    let mut received = bodies.receive();
    received.make_room(TRUSTED.min(length as usize))?;
    loop {
        let frame = match timeout(STALLED, body.frame()).await {
            Err(_) => {
                let reason = format!("nothing of the body has come for {STALLED:?}");
                return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, reason));
            }
            Ok(None) => return Ok(received),
            Ok(Some(Err(error))) => {
                return Err(Refused::bad(format!("the body is not whole: {error}")));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        received.push(&frame.into_data().unwrap_or_default(), limit)?;
    }
}

/// Reads a body to its end, but not a very long one.
async fn discard(mut body: impl Body<Data = Bytes, Error: Error> + Unpin) {
    let mut len = 0;
    while let Some(Ok(frame)) = body.frame().await {
        len += frame.into_data().map_or(0, |piece| piece.len());
        if len > MAX_DISCARDED {
            return;
        }
    }
}

/// `{"ids":["…","…"]}`, and a line end.
fn answer(ids: &[EventId]) -> Vec<u8> {
    const LONGEST_ID: usize = 37;
    let mut text = String::with_capacity(16 + ids.len() * LONGEST_ID);
    text.push_str("{\"ids\":[");
    let mut separator = "\"";
    for id in ids {
        let _ = write!(text, "{separator}{id}\"");
        separator = ",\"";
    }
    text.push_str("]}\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests;
