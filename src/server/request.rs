//! From a request to its answer, or to the endpoint that takes its connection over: what it is about, and what the answer
//! is where that is no stream.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::asked::Asked;
use super::limits::Keeper;
use super::list;
use super::origin::{self, Here, Origin};
use super::who::Who;
use crate::auth::{Auth, Denied};
use crate::bus::deep::Deep;
use crate::endpoint::body::{self, Activity, Body};
use crate::endpoint::fanout::Publishing;
use crate::endpoint::websocket::handshake;
use crate::endpoint::websocket::input::Unheard;
use crate::http_message;
use crate::listen::admission::NoRoom;
use crate::route::find::{NoStream, Place};
use crate::route::pattern::Key;
use crate::route::served::Lease;
use crate::route::{Listed, Route, Routes};
use crate::source::publish::Refused;
use crate::stream::Subscription;
use crate::wire::Format;

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
pub struct Handover {
    /// The stream that it is about.
    pub lease: Lease,
    /// For how long; none if there is no end to it.
    pub remaining: Option<Duration>,
    /// What it is.
    pub kind: Kind,
    /// What it gets before it reads the stream's log, if it wants more than that has.
    pub deep: Option<Box<Deep>>,
}

/// What a connection becomes.
pub enum Kind {
    /// A WebSocket that gets raw payloads, in one of the formats for that.
    WebSocket(Format, Subscription, Result<Box<Publishing>, Unheard>),
    /// A link to another hop, which says next what it wants, in one of the formats for that.
    Hop(Format),
    /// An endless body.
    Body(Format, Bytes, Subscription),
}

impl Kind {
    /// How events are carried.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::WebSocket(format, ..) | Self::Hop(format) | Self::Body(format, ..) => {
                format.name()
            }
        }
    }
}

/// The connection that a request has come on.
pub struct Context {
    /// What is served on it.
    pub routes: Arc<Routes>,
    /// Says who may what; none if everyone may everything.
    pub auth: Option<Arc<Auth>>,
    /// Who has made it.
    pub address: SocketAddr,
    /// Whether it is TLS.
    pub is_tls: bool,
    /// Whether it leads to an address that only this machine has.
    pub is_local: bool,
    /// Ends what does not end by itself.
    pub stop: CancellationToken,
    /// Notes that it gets on.
    pub activity: Arc<Activity>,
    /// Sees to the limits of the process.
    pub keeper: Arc<Keeper>,
}

/// A request that is not granted.
pub(super) struct Refusal {
    pub status: StatusCode,
    pub reason: Cow<'static, str>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

pub(super) fn refusal(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Refusal {
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

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self {
            headers: denied.headers(),
            ..refusal(denied.status, denied.reason)
        }
    }
}

impl From<NoStream> for Refusal {
    fn from(none: NoStream) -> Self {
        let mut refusal = refusal(none.status, none.reason);
        if none.status == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("5");
            refusal.headers.push((header::RETRY_AFTER, soon));
        }
        refusal
    }
}

impl From<Refusal> for Response<Body> {
    /// The status, and the reason in one line of plain text, unless the status is that there is nothing (RFC 9110, section
    /// 15.3.5): an upstream may have said that.
    fn from(refusal: Refusal) -> Self {
        if refusal.status == StatusCode::NO_CONTENT {
            let mut response = with_headers(HeaderMap::from_iter(refusal.headers), body::full(""));
            *response.status_mut() = refusal.status;
            return response;
        }
        let mut response = Response::new(body::full(format!("{}\n", refusal.reason)));
        *response.status_mut() = refusal.status;
        response.headers_mut().extend(refusal.headers);
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    }
}

/// What a request is about.
enum Target {
    /// The server as such: `*` (RFC 9110, section 9.3.7).
    Server,
    /// All streams.
    Index,
    /// Those of one route.
    List(Arc<Route>),
    /// One, which may not be there yet.
    Stream(Arc<Route>, Key),
}

impl Context {
    /// Decides what becomes of one request. `alone` says that nothing else has been on this connection, so that it may be
    /// taken over.
    pub async fn outcome(&self, request: Request<Incoming>, alone: bool) -> Outcome {
        let (request, body) = request.into_parts();
        // A stranger opens nothing, and does not learn what there is.
        let who = self.who(&request);
        // Looking up makes nothing.
        let target = self.target(&request, who.as_ref().ok());
        let about = target.as_ref().unwrap_or(&Target::Index);
        let origin = origin::of(&request, self.here(), |origin| self.lets_in(origin, about));
        let granted = match (who, target) {
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
            (Ok(who), Ok(target)) => {
                let origin = who.origin(origin);
                self.granted((&request, body), target, who, origin, alone)
                    .await
            }
        };
        let mut outcome = granted.unwrap_or_else(|refusal| {
            let status = refusal.status;
            match request.method {
                Method::POST => self.keeper.publishes.count(status),
                _ => self.keeper.handshakes.count(status),
            }
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                let (method, path) = (&request.method, request.uri.path());
                let reason = format!("{method} {path}: {}", refusal.reason);
                self.keeper.log_denied(self.address, status, reason.into());
            }
            Outcome::Answer(refusal.into())
        });
        if let Outcome::Answer(response) = &mut outcome {
            origin.let_read(response.headers_mut());
        }
        outcome
    }

    /// The answer to a request on an HTTP/2 connection for which there is no room.
    pub fn no_room(&self, no_room: NoRoom) -> Response<Body> {
        self.keeper.entrance.log(self.address, no_room);
        self.keeper.handshakes.count(no_room);
        Refusal::from(no_room).into()
    }

    async fn granted(
        &self,
        (request, body): (&Parts, Incoming),
        target: Target,
        who: Who,
        origin: Origin<'_>,
        alone: bool,
    ) -> Result<Outcome, Refusal> {
        match target {
            Target::Server => {
                let routes = self.routes.all();
                let mut policies = routes.iter().map(|route| &route.policy.subscribers);
                let methods = methods(policies.any(|policy| policy.accept_publish));
                Ok(Outcome::Answer(options(methods, origin)))
            }
            Target::Index => {
                // In a box that is there meanwhile: most requests are for streams.
                Box::pin(list::answer(&self.routes, None, request, &who, origin)).await
            }
            Target::List(route) => {
                Box::pin(list::answer(
                    &self.routes,
                    Some(&route),
                    request,
                    &who,
                    origin,
                ))
                .await
            }
            Target::Stream(ref route, ref key) => {
                let asked = Asked {
                    context: self,
                    request,
                    route,
                    key,
                    who,
                    origin,
                };
                asked.granted(body, alone).await
            }
        }
    }

    /// Who is asking. A browser's question whether a page may ask (WHATWG Fetch, section 3.2.2) comes from nobody.
    fn who(&self, request: &Parts) -> Result<Who, Refusal> {
        check_message(request).map_err(|reason| refusal(StatusCode::BAD_REQUEST, reason))?;
        match &self.auth {
            Some(auth) if request.method != Method::OPTIONS => {
                Ok(Who::Known(auth.identify(request)?))
            }
            _ => Ok(Who::Anyone),
        }
    }

    /// Where requests arrive. With TLS a name has been proved, and with tokens being here is not all that is asked.
    fn here(&self) -> Here<'_> {
        let is_open = self.is_local && !self.is_tls && self.auth.is_none();
        Here {
            is_tls: self.is_tls,
            only_as: is_open.then(|| self.routes.address()),
        }
    }

    /// Whether pages of an origin may see this.
    fn lets_in(&self, origin: &str, target: &Target) -> Listed {
        match target {
            Target::Server | Target::Index => {
                let routes = self.routes.all();
                let listed = routes
                    .iter()
                    .map(|route| route.policy.origins.contain(origin));
                listed.min().unwrap_or(Listed::No)
            }
            Target::List(route) | Target::Stream(route, _) => route.policy.origins.contain(origin),
        }
    }

    /// What a request is about. If there is no such thing, who asks is told what there is for them.
    fn target(&self, request: &Parts, who: Option<&Who>) -> Result<Target, Refusal> {
        if !http_message::has_known_coding(request) {
            return Err(refusal(
                StatusCode::NOT_IMPLEMENTED,
                "the only transfer coding that is known here is chunked",
            ));
        }
        let path = request.uri.path();
        if path == "*" && request.method == Method::OPTIONS {
            return Ok(Target::Server);
        }
        let place = self.routes.find(path, request.uri.query())?;
        Ok(match place {
            Some(Place::Stream(route, key)) => Target::Stream(route, key),
            Some(Place::List(route)) if !handshake::is_meant(request) => Target::List(route),
            None if path == "/" && !handshake::is_meant(request) => Target::Index,
            _ => {
                let routes = self.routes.all();
                let patterns = routes.iter().map(|route| &route.policy.pattern);
                let seen = patterns.filter(|pattern| who.is_some_and(|who| who.may_see(pattern)));
                return Err(NoStream::at_all(seen).into());
            }
        })
    }
}

pub(super) fn with_headers(headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// The methods there are.
pub(super) fn methods(with_publish: bool) -> HeaderValue {
    HeaderValue::from_static(match with_publish {
        true => "GET, HEAD, POST, OPTIONS",
        false => "GET, HEAD, OPTIONS",
    })
}

/// Says which methods there are, and what a page of another origin may send (WHATWG Fetch, section 3.2.2).
pub(super) fn options(methods: HeaderValue, origin: Origin<'_>) -> Response<Body> {
    let mut response = with_headers(HeaderMap::new(), body::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, methods.clone());
    origin.let_send(methods, headers);
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
