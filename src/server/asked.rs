//! A request for a stream: to read it, to publish to it, or to ask what is possible.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

use super::noted::Noted;
use super::origin::Origin;
use super::request::{
    Context, Handover, Kind, Outcome, Refusal, methods, options, refusal, with_headers,
};
use super::who::Who;
use crate::auth::{self, Right};
use crate::bus::deep::Deep;
use crate::endpoint::answer::{self, Representation};
use crate::endpoint::body::{self, Follower};
use crate::endpoint::fanout::Publishing;
use crate::endpoint::page::{self, Page};
use crate::endpoint::websocket::handshake;
use crate::endpoint::websocket::input::Unheard;
use crate::route::Route;
use crate::route::pattern::Key;
use crate::route::served::Lease;
use crate::source::publish::{self, Sender};
use crate::spans::Subscribing;
use crate::stream::join::{Resumed, StateWish, Wish};
use crate::wire::compress::Coding;
use crate::wire::websocket::extensions;
use crate::wire::{Format, RESUMED, hop};

/// A request for a stream, which may not be there yet.
pub struct Asked<'a> {
    /// The connection that it has come on.
    pub context: &'a Context,
    /// The request, without its body.
    pub request: &'a Parts,
    /// Where the stream belongs.
    pub route: &'a Arc<Route>,
    /// Its name.
    pub key: &'a Key,
    /// Who asks.
    pub who: Who,
    /// The page that asks.
    pub origin: Origin<'a>,
}

impl Asked<'_> {
    /// Decides what becomes of it.
    pub(super) async fn granted(&self, body: Incoming, alone: bool) -> Result<Outcome, Refusal> {
        let accepts_publish = self.route.policy.subscribers.accept_publish;
        match self.request.method {
            Method::GET | Method::CONNECT if handshake::is_meant(self.request) => {
                self.traced(self.websocket()).await
            }
            Method::GET | Method::HEAD => self.traced(self.read(alone)).await,
            Method::POST if accepts_publish => self.publish(body).await,
            Method::OPTIONS => Ok(Outcome::Answer(options(self.methods(), self.origin))),
            _ => Err(self.method_not_allowed()),
        }
    }

    /// What comes of a request to read, told to whoever collects traces.
    async fn traced(
        &self,
        granting: impl Future<Output = Result<Outcome, Refusal>>,
    ) -> Result<Outcome, Refusal> {
        let span = Subscribing::new(self.request, self.context.address);
        let granted = granting.await;
        match &granted {
            Ok(Outcome::Answer(response)) => span.granted(response.status(), "http"),
            Ok(Outcome::Upgrade(response, to)) => {
                span.granted(response.status(), to.kind.transport());
            }
            Ok(Outcome::TakeOver(to)) => span.granted(StatusCode::OK, to.kind.transport()),
            Err(refusal) => span.refused(refusal.status, &refusal.reason),
        }
        granted
    }

    /// The stream, once it is known that there is one.
    async fn open(&self) -> Result<Lease, Refusal> {
        let lease = self.route.open(self.key);
        if let Err(none) = &lease
            && none.status == StatusCode::SERVICE_UNAVAILABLE
        {
            let keeper = &self.context.keeper;
            keeper.log_full(self.context.address, none.reason.clone());
        }
        let lease = lease?;
        match lease.stream.is_there().await {
            Ok(()) if self.is_reader() => Ok(lease.of_reader()),
            Ok(()) => Ok(lease),
            Err(refused) => Err(crate::route::find::NoStream::from(&refused).into()),
        }
    }

    /// Whether they read, other than as a peer.
    fn is_reader(&self) -> bool {
        let scope = self.request.headers.get(hop::SCOPE);
        let is_peer = scope.is_some_and(|scope| scope == hop::LOCAL);
        self.request.method != Method::POST && !is_peer
    }

    fn handover(&self, lease: Lease, kind: Kind, deep: Option<Box<Deep>>) -> Handover {
        Handover {
            lease,
            remaining: self.who.remaining(),
            kind,
            deep,
        }
    }

    /// Whether who asks may do this, and the page is let in through which they ask.
    fn check(&self, right: Right) -> Result<(), Refusal> {
        self.who.check(right, self.key.path())?;
        match self.origin {
            Origin::Foreign(reason) => Err(refusal(StatusCode::FORBIDDEN, reason)),
            Origin::Own | Origin::Allowed(..) => Ok(()),
        }
    }

    /// A stream as an endless body, or the page that shows it.
    async fn read(&self, alone: bool) -> Result<Outcome, Refusal> {
        let request = self.request;
        self.check(Right::Subscribe)?;
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
        let compress = self.route.policy.subscribers.compress;
        let format = match compress {
            true => format.coded(answer::content_coding(&request.headers).map_err(|_| {
                refusal(
                    StatusCode::NOT_ACCEPTABLE,
                    "this stream can be had as it is, and with the content codings zstd and gzip",
                )
            })?),
            false => format,
        };
        let (wish, wants) = self.wish()?;
        if request.method == Method::HEAD {
            let headers = answer::headers(format, compress, Resumed::No);
            return Ok(Outcome::Answer(with_headers(headers, body::full(""))));
        }
        let lease = self.open().await?;
        let stream = &lease.stream;
        stream.log.wait_for(&wish).await;
        let _past = stream.log.compress_past(format, &wish).await;
        let mut joined = stream.log.subscribe_with(format, &wish, wants);
        let deep = stream.reach(format, &wish, &mut joined).await;
        stream.subscribers.told_gaps(format, joined.gaps.len());
        let mut headers = answer::headers(format, compress, joined.resumed);
        answer::add_instance(&mut headers, &stream.log);
        answer::add_state(&mut headers, &joined);
        let preface = answer::preface(format, &wish, &joined);
        if alone && request.version < Version::HTTP_2 {
            self.origin.let_read(&mut headers);
            let preface = answer::head_and_preface(&headers, preface);
            let kind = Kind::Body(format, preface, joined.subscription);
            return Ok(Outcome::TakeOver(self.handover(lease, kind, deep)));
        }
        let settings = &stream.policy.subscribers;
        let follower = Follower {
            log: stream.log.clone(),
            format,
            path: stream.name.clone(),
            overload: settings.overload,
            heartbeat: settings.body_heartbeat(),
            count: stream.subscribers.clone(),
            address: self.context.address,
            ender: stream.ender.clone(),
            user: lease.user,
            remaining: self.who.remaining(),
            age: settings.connection_age(),
            activity: self.context.activity.clone(),
            preface: preface.into(),
            deep,
            subscription: joined.subscription,
        };
        let body = body::follow(follower, &stream.tasks);
        Ok(Outcome::Answer(with_headers(headers, body)))
    }

    async fn websocket(&self) -> Result<Outcome, Refusal> {
        let request = self.request;
        let accept = handshake::accept(request).map_err(|wrong| Refusal {
            headers: wrong.headers(),
            ..refusal(wrong.status, wrong.reason)
        })?;
        // A browser sends a page's handshake wherever the page wants, and shows it all that comes: nothing else asks.
        self.check(Right::Subscribe)?;
        let deflate = match self.route.policy.subscribers.compress {
            true => extensions::accept(&request.headers),
            false => None,
        };
        let coding = deflate.as_ref().map(|_| Coding::Deflate);
        let agree = |headers: &mut HeaderMap| {
            if let Some(deflate) = deflate {
                headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, deflate);
            }
        };
        if handshake::offers(request, hop::SUBPROTOCOL) {
            let lease = self.open().await?;
            let mut response = handshake::response(accept);
            let headers = response.headers_mut();
            agree(headers);
            let subprotocol = HeaderValue::from_static(hop::SUBPROTOCOL);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
            answer::add_instance(headers, &lease.stream.log);
            let kind = Kind::Hop(Format::Hop.coded(coding));
            let response = response.map(body::full);
            return Ok(Outcome::Upgrade(response, self.handover(lease, kind, None)));
        }
        let (wish, wants) = self.wish()?;
        let publish = match self.route.policy.subscribers.accept_publish {
            false => Err(Unheard::Nobody),
            true if !self.who.may(Right::Publish, self.key.path()) => Err(Unheard::WithoutRight),
            true => {
                let labels = answer::labels(request);
                publish::check_labels(&labels)?;
                Ok(labels)
            }
        };
        let lease = self.open().await?;
        let log = &lease.stream.log;
        log.wait_for(&wish).await;
        let format = Format::WebSocket.coded(coding);
        let _past = log.compress_past(format, &wish).await;
        // Before the handshake is answered: what comes once the client knows that it is subscribed must reach it.
        let mut joined = log.subscribe_with(format, &wish, wants);
        let deep = lease.stream.reach(format, &wish, &mut joined);
        let deep = deep.await;
        let gaps = joined.gaps.len();
        lease.stream.subscribers.told_gaps(Format::WebSocket, gaps);
        let mut response = handshake::response(accept);
        let resumed = HeaderValue::from_static(joined.resumed.as_str());
        response.headers_mut().insert(RESUMED, resumed);
        agree(response.headers_mut());
        // A browser that has offered any subprotocol wants one of them, also if it was to carry a token only.
        if let Some(subprotocol) = auth::subprotocol(request, None) {
            let name = header::SEC_WEBSOCKET_PROTOCOL;
            response.headers_mut().insert(name, subprotocol);
        }
        answer::add_instance(response.headers_mut(), log);
        answer::add_state(response.headers_mut(), &joined);
        let outbox = &lease.stream.connections.outbox;
        let memory = self.context.keeper.bodies.memory();
        let publish = publish.map(|labels| {
            let publishing = Publishing::new(labels, outbox.clone(), memory);
            Box::new(publishing)
        });
        let kind = Kind::WebSocket(format, joined.subscription, publish);
        let response = response.map(body::full);
        Ok(Outcome::Upgrade(response, self.handover(lease, kind, deep)))
    }

    async fn publish(&self, body: Incoming) -> Result<Outcome, Refusal> {
        self.check(Right::Publish)?;
        let lease = self.open().await?;
        let Some(publisher) = &lease.stream.publisher else {
            return Err(self.method_not_allowed());
        };
        let labels = answer::labels(self.request);
        let body = Noted::new(body, self.context.activity.clone());
        let sender = Sender {
            address: self.context.address,
            bodies: &self.context.keeper.bodies,
        };
        let ids = publisher.take(self.request, body, labels, &sender).await?;
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        let mut response = with_headers(headers, body::full(ids));
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(Outcome::Answer(response))
    }

    fn methods(&self) -> HeaderValue {
        methods(self.route.policy.subscribers.accept_publish)
    }

    fn method_not_allowed(&self) -> Refusal {
        let would_publish = self.request.method == Method::POST;
        let reason = match would_publish && !self.route.policy.subscribers.accept_publish {
            true => {
                "only reading is possible here: to publish, start wsevent with --accept-publish"
            }
            false => "this method is not possible here",
        };
        Refusal {
            headers: vec![(header::ALLOW, self.methods())],
            ..refusal(StatusCode::METHOD_NOT_ALLOWED, reason)
        }
    }

    /// Where the stream is to begin, and whether with its state.
    fn wish(&self) -> Result<(Wish, StateWish), Refusal> {
        let wish = answer::wish(self.request);
        let wish = wish.and_then(|wish| Ok((wish, answer::state_wish(self.request)?)));
        wish.map_err(|reason| refusal(StatusCode::BAD_REQUEST, reason))
    }
}
