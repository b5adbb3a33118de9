//! From a request to its answer, or to the endpoint that takes its connection over.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio_util::sync::CancellationToken;

use super::limits::Keeper;
use super::noted::Noted;
use crate::endpoint::answer::{self, Representation};
use crate::endpoint::body::{self, Activity, Body, Follower};
use crate::endpoint::page::{self, Page};
use crate::endpoint::websocket::handshake;
use crate::endpoint::websocket::input::Unheard;
use crate::event::Labels;
use crate::http_message;
use crate::listen::admission::NoRoom;
use crate::route::Route;
use crate::source::publish::{self, Refused, Sender};
use crate::stream::Subscription;
use crate::stream::join::{Resumed, Wish};
use crate::wire::{Format, RESUMED, hop};

/// What a request becomes.
pub enum Outcome {
    /// An answer, and the next request may come.
    Answer(Response<Body>),
    /// An answer after which the connection is a WebSocket.
    Upgrade(Response<Body>, Handover),
    /// The connection leaves HTTP now, unanswered.
    TakeOver(Handover),
}

/// What a connection is to be, once it has left HTTP.
pub enum Handover {
    /// A WebSocket that gets raw payloads.
    WebSocket(Subscription, Result<Box<Labels>, Unheard>),
    /// A link to another hop, which says next what it wants.
    Hop,
    /// An endless body.
    Body(Format, Bytes, Subscription),
}

/// The connection that a request has come on.
pub struct Context {
    /// What is served on it.
    pub route: Arc<Route>,
    /// Who has made it.
    pub address: SocketAddr,
    /// Ends what does not end by itself.
    pub stop: CancellationToken,
    /// Notes that it gets on.
    pub activity: Arc<Activity>,
    /// Sees to the limits of the process.
    pub keeper: Arc<Keeper>,
}

/// A request that is not granted.
struct Refusal {
    status: StatusCode,
    reason: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn refusal(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal {
        status,
        reason: reason.into(),
        headers: Vec::new(),
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let retry_after = refused.retry_after.map(HeaderValue::from);
        Self {
            headers: Vec::from_iter(retry_after.map(|seconds| (header::RETRY_AFTER, seconds))),
            ..refusal(refused.status, refused.reason)
        }
    }
}

impl From<NoRoom> for Refusal {
    fn from(no_room: NoRoom) -> Self {
        let seconds = HeaderValue::from(no_room.retry_after());
        Self {
            headers: vec![(header::RETRY_AFTER, seconds)],
            ..refusal(no_room.status(), no_room.reason())
        }
    }
}

impl From<Refusal> for Response<Body> {
    /// The status, and the reason in one line of plain text.
    fn from(refusal: Refusal) -> Self {
        let mut response = Response::new(body::full(format!("{}\n", refusal.reason)));
        *response.status_mut() = refusal.status;
        response.headers_mut().extend(refusal.headers);
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    }
}

impl Context {
    /// Decides what becomes of one request. `alone` says that nothing else has been on this connection, so that it may be
    /// taken over.
    pub async fn outcome(&self, request: Request<Incoming>, alone: bool) -> Outcome {
        let (request, body) = request.into_parts();
        let allowed = self.foreign_origin(&request);
        let outcome = self.granted(&request, body, alone, allowed.is_err()).await;
        let mut outcome = outcome.unwrap_or_else(|refusal| Outcome::Answer(refusal.into()));
        if let (Ok(Some(origin)), Outcome::Answer(response)) = (allowed, &mut outcome) {
            let_read(response.headers_mut(), origin);
        }
        outcome
    }

    /// The answer to a request on an HTTP/2 connection for which there is no room.
    pub fn no_room(&self, no_room: NoRoom) -> Response<Body> {
        self.keeper.door.log(self.address, no_room);
        Refusal::from(no_room).into()
    }

    async fn granted(
        &self,
        request: &Parts,
        body: Incoming,
        alone: bool,
        is_foreign: bool,
    ) -> Result<Outcome, Refusal> {
        check_message(request).map_err(|reason| refusal(StatusCode::BAD_REQUEST, reason))?;
        if !http_message::has_known_coding(request) {
            return Err(refusal(
                StatusCode::NOT_IMPLEMENTED,
                "the only transfer coding that is known here is chunked",
            ));
        }
        let is_stream = request.uri.path() == &*self.route.path;
        let is_index = request.uri.path() == "/" && !handshake::is_meant(request);
        if !is_stream && !is_index {
            return Err(refusal(
                StatusCode::NOT_FOUND,
                format!(
                    "there is no stream at this path; what there is: {}",
                    self.route.path
                ),
            ));
        }
        match request.method {
            Method::GET | Method::HEAD if is_index && !is_stream => {
                self.index(request).map(Outcome::Answer)
            }
            Method::GET if handshake::is_meant(request) => {
                self.websocket(request, is_foreign).await
            }
            Method::GET | Method::HEAD => self.read(request, alone).await,
            Method::POST if is_stream && self.route.publisher.is_some() => {
                self.publish(request, body, is_foreign).await
            }
            Method::OPTIONS => Ok(Outcome::Answer(self.options(request))),
            _ => Err(self.method_not_allowed(&request.method, is_stream)),
        }
    }

    /// The list of streams.
    fn index(&self, request: &Parts) -> Result<Response<Body>, Refusal> {
        const OFFERED: [(bool, &str); 2] = [(false, "application/json"), (true, "text/html")];
        let route = &self.route;
        let (headers, body) = match answer::choose(&request.headers, &OFFERED) {
            Some(true) => page::page(Page::Index),
            Some(false) => {
                let publish = route.publisher.is_some();
                let count = route.subscriber_count();
                let json = page::index(&route.path, &route.log, &route.via, count, publish);
                let headers = HeaderMap::from_iter([
                    (
                        header::CONTENT_TYPE,
                        HeaderValue::from_static("application/json"),
                    ),
                    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                    (header::VARY, HeaderValue::from_static("accept, origin")),
                ]);
                (headers, json.into())
            }
            None => {
                return Err(refusal(
                    StatusCode::NOT_ACCEPTABLE,
                    "the list of streams can be had as application/json and text/html",
                ));
            }
        };
        Ok(with_headers(headers, body::full(body)))
    }

    /// A stream as an endless body, or the page that shows it.
    async fn read(&self, request: &Parts, alone: bool) -> Result<Outcome, Refusal> {
        let format = match answer::negotiate(&request.headers) {
            Some(Representation::Stream(format)) => format,
            Some(Representation::Page) => {
                let (headers, body) = page::page(Page::Stream);
                return Ok(Outcome::Answer(with_headers(headers, body::full(body))));
            }
            None => {
                return Err(refusal(
                    StatusCode::NOT_ACCEPTABLE,
                    "this stream can be had as text/event-stream, application/x-ndjson and text/html, and over WebSocket",
                ));
            }
        };
        let wish = wish(request)?;
        if request.method == Method::HEAD {
            let headers = answer::headers(format, Resumed::No);
            return Ok(Outcome::Answer(with_headers(headers, body::full(""))));
        }
        let route = &self.route;
        route.log.wait_for(&wish).await;
        let joined = route.log.subscribe(format, &wish);
        let mut headers = answer::headers(format, joined.resumed);
        let preface = answer::preface(format, &wish, &joined);
        if alone && request.version < Version::HTTP_2 {
            if let Ok(Some(origin)) = self.foreign_origin(request) {
                let_read(&mut headers, origin);
            }
            let preface = answer::head_and_preface(&headers, preface);
            return Ok(Outcome::TakeOver(Handover::Body(
                format,
                preface,
                joined.subscription,
            )));
        }
        let body = body::follow(Follower {
            log: route.log.clone(),
            format,
            path: route.path.clone(),
            overload: route.settings.overload,
            heartbeat: route.settings.body_heartbeat(),
            count: route.subscribers.clone(),
            address: self.address,
            stop: self.stop.clone(),
            activity: self.activity.clone(),
            preface: preface.into(),
            subscription: joined.subscription,
        });
        Ok(Outcome::Answer(with_headers(headers, body)))
    }

    async fn websocket(&self, request: &Parts, is_foreign: bool) -> Result<Outcome, Refusal> {
        let accept = handshake::accept(request).map_err(|wrong| Refusal {
            headers: wrong.headers(),
            ..refusal(wrong.status, wrong.reason)
        })?;
        if handshake::offers(request, hop::SUBPROTOCOL) {
            let mut response = handshake::response(accept);
            let subprotocol = HeaderValue::from_static(hop::SUBPROTOCOL);
            let instance = HeaderValue::try_from(self.route.log.origin().to_string());
            response.headers_mut().extend([
                (header::SEC_WEBSOCKET_PROTOCOL, subprotocol),
                (hop::INSTANCE, instance.expect("an id is ASCII")),
            ]);
            return Ok(Outcome::Upgrade(response.map(body::full), Handover::Hop));
        }
        let wish = wish(request)?;
        let route = &self.route;
        // A page of somebody else's may listen, but not speak in the name of whoever has opened it.
        let publish = match &route.publisher {
            None => Err(Unheard::Nobody),
            Some(_) if is_foreign => Err(Unheard::Page),
            Some(_) => {
                let labels = answer::labels(request);
                publish::check_labels(&labels)?;
                Ok(Box::new(labels))
            }
        };
        route.log.wait_for(&wish).await;
        // Before the handshake is answered: what comes once the client knows that it is subscribed must reach it.
        let joined = route.log.subscribe(Format::WebSocket, &wish);
        let mut response = handshake::response(accept);
        let resumed = HeaderValue::from_static(joined.resumed.as_str());
        response.headers_mut().insert(RESUMED, resumed);
        Ok(Outcome::Upgrade(
            response.map(body::full),
            Handover::WebSocket(joined.subscription, publish),
        ))
    }

    async fn publish(
        &self,
        request: &Parts,
        body: Incoming,
        is_foreign: bool,
    ) -> Result<Outcome, Refusal> {
        if is_foreign {
            return Err(refusal(StatusCode::FORBIDDEN, Unheard::PAGE));
        }
        let Some(publisher) = &self.route.publisher else {
            return Err(self.method_not_allowed(&request.method, true));
        };
        let labels = answer::labels(request);
        let body = Noted::new(body, self.activity.clone());
        let sender = Sender {
            address: self.address,
            bodies: &self.keeper.bodies,
        };
        let ids = publisher.take(request, body, labels, &sender).await?;
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        let mut response = with_headers(headers, body::full(ids));
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(Outcome::Answer(response))
    }

    /// Which methods there are, and what a page of another origin may send (WHATWG Fetch, section 3.2.2).
    fn options(&self, request: &Parts) -> Response<Body> {
        let mut response = with_headers(HeaderMap::new(), body::full(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let is_stream = request.uri.path() == &*self.route.path;
        headers.insert(header::ALLOW, self.methods(is_stream));
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if matches!(self.foreign_origin(request), Ok(Some(_))) {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                self.methods(is_stream),
            );
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("content-type, last-event-id, ce-id, ce-source, ce-specversion, ce-subject, ce-time, ce-type"),
            );
        }
        response
    }

    fn methods(&self, is_stream: bool) -> HeaderValue {
        HeaderValue::from_static(match is_stream && self.route.publisher.is_some() {
            true => "GET, HEAD, POST, OPTIONS",
            false => "GET, HEAD, OPTIONS",
        })
    }

    fn method_not_allowed(&self, method: &Method, is_stream: bool) -> Refusal {
        let would_publish = method == Method::POST && is_stream;
        let reason = match would_publish && self.route.publisher.is_none() {
            true => {
                "only reading is possible here: to publish, start wsevent with --accept-publish"
            }
            false => "this method is not possible here",
        };
        Refusal {
            headers: vec![(header::ALLOW, self.methods(is_stream))],
            ..refusal(StatusCode::METHOD_NOT_ALLOWED, reason)
        }
    }

    /// The origin of the page that sends a request, if it is another one than ours: allowed, or an error.
    fn foreign_origin<'a>(&self, request: &'a Parts) -> Result<Option<&'a HeaderValue>, ()> {
        let Some(origin) = request.headers.get(header::ORIGIN) else {
            return Ok(None);
        };
        let text = origin.to_str().map_err(|_| ())?;
        let host = match request.headers.get(header::HOST) {
            Some(host) => host.to_str().map_err(|_| ())?,
            None => request.uri.authority().map_or("", Authority::as_str),
        };
        if text
            .split_once("://")
            .is_some_and(|(_, own)| own.eq_ignore_ascii_case(host))
        {
            return Ok(None);
        }
        match self.route.origins.contain(text) {
            true => Ok(Some(origin)),
            false => Err(()),
        }
    }
}

/// Lets pages of `origin` read an answer, this header of ours included (WHATWG Fetch, section 3.2.3).
fn let_read(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("wsevent-resumed"),
    );
}

fn wish(request: &Parts) -> Result<Wish, Refusal> {
    answer::wish(request).map_err(|reason| refusal(StatusCode::BAD_REQUEST, reason))
}

fn with_headers(headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// What is left of the rules for a request (RFC 9112, sections 3.2 and 6.1), and of ours.
fn check_message(request: &Parts) -> Result<(), &'static str> {
    http_message::check_host(request)?;
    if request.headers.contains_key(header::TRANSFER_ENCODING) && request.method != Method::POST {
        return Err("only a POST has a body here, so Transfer-Encoding is not taken");
    }
    Ok(())
}
