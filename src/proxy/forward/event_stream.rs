//! An answer that is an event stream: where it is the only one on its connection, both sockets leave hyper.
//!
//! What hyper keeps of two connections on which next to nothing happens is most of what they cost.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use hyper::body::{Body, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderValue};
use hyper::http::{request, response};
use hyper::{Method, Version};

use super::own::{Failure, failed};
use super::{Client, Opened, Outcome, head};
use crate::proxy::connect::{Armed, Sender};
use crate::proxy::exchange::Exchange;
use crate::proxy::tunnel::event_stream::Content;
use crate::proxy::upstreams::Place;

/// An event stream whose head nobody has sent yet.
pub struct Streamed {
    /// The upstream's end.
    pub opened: Opened,
    /// What the client is sent first.
    pub head: BytesMut,
    /// What is behind that.
    pub content: Content,
}

/// Who can get an event stream without hyper.
#[derive(Clone, Copy)]
pub struct Reader {
    /// Whether chunks mean something to it (RFC 9112, section 7.1).
    takes_chunks: bool,
}

impl Reader {
    /// Whoever has sent this request, if it has no body.
    pub fn of(request: &request::Parts) -> Option<Self> {
        (request.method == Method::GET).then_some(Self {
            takes_chunks: request.version == Version::HTTP_11,
        })
    }

    /// What it gets behind the head of an answer, if hyper is not needed for that.
    fn content(self, head: &response::Parts, body: &Incoming) -> Option<Content> {
        // Some answers have no body, whatever their heads say.
        if body.size_hint().exact().is_some() {
            return None;
        }
        Content::of(head).filter(|content| self.takes_chunks || !content.is_chunked())
    }
}

impl Client {
    /// An upstream's answer to someone who can get it without hyper: that, or by hyper after all.
    pub(super) async fn answered_alone(
        &self,
        head: response::Parts,
        body: Incoming,
        place: Place,
        (sender, armed, reader): (Sender, Armed, Reader),
        exchange: Arc<Exchange>,
    ) -> Outcome {
        let content = reader.content(&head, &body);
        let Some(content) = content.filter(|_| armed.take()) else {
            drop(armed);
            return self.relayed(head, body, place, Some(sender), exchange);
        };
        let Some(upstream) = sender.taken(body).await else {
            let why = "the connection was closed behind the head of the answer";
            return failed(&exchange, Failure::bad_gateway(why));
        };
        exchange.answered(head.status);
        let head = self.last_head(head, &content);
        let opened = Opened {
            upstream,
            place,
            exchange,
            client: None,
        };
        Outcome::Stream(Box::new(Streamed {
            opened,
            head,
            content,
        }))
    }

    /// The head of a connection's last answer, as it is sent.
    fn last_head(&self, mut answer: response::Parts, content: &Content) -> BytesMut {
        let status = answer.status;
        let reason = answer.extensions.remove::<ReasonPhrase>();
        self.proxy.rules.response(&mut answer, false);
        let mut headers = answer.headers;
        let close = HeaderValue::from_static("close");
        headers.insert(header::CONNECTION, close);
        if content.is_chunked() {
            let chunked = HeaderValue::from_static("chunked");
            headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        // RFC 9110, section 6.6.1.
        headers.entry(header::DATE).or_insert_with(|| {
            let now = httpdate::fmt_http_date(SystemTime::now());
            HeaderValue::try_from(now).expect("a date is text")
        });
        let canonical = status.canonical_reason().unwrap_or_default();
        let reason = reason
            .as_ref()
            .map_or(canonical.as_bytes(), ReasonPhrase::as_bytes);
        BytesMut::from(head::encode_answer(status, reason, &headers).as_slice())
    }
}
