//! The bodies that pass through, in both directions, frame by frame.

use std::error::Error;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connect::Sender;
use super::events::Events;
use super::exchange::{AGED, COMPLETE, Exchange, SILENT, STOPPED};
use super::front::gate::is_forbidden;
use super::upstreams::Place;
use crate::shutdown::Stop;

/// Why a body cannot go on.
pub type Broken = Box<dyn Error + Send + Sync>;

/// How long a body waits for the upstream to say `100 Continue` (RFC 9110, section 10.1.1: not for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// What a client sends to an upstream.
pub struct Upload {
    body: Option<Incoming>,
    exchange: Arc<Exchange>,
    /// There until the upstream wants the body.
    held: Option<Box<Held>>,
    idle: Option<Box<Idle>>,
    /// Ready when the answer is over: nobody wants the rest of the body then.
    answered: Option<oneshot::Receiver<()>>,
}

/// A body that the upstream is to ask for first.
struct Held {
    go: oneshot::Receiver<()>,
    enough: Pin<Box<Sleep>>,
}

impl Upload {
    /// `body`, as long as something of it comes once in `idle`.
    pub fn new(body: Incoming, exchange: Arc<Exchange>, idle: Option<Duration>) -> Self {
        let is_over = body.is_end_stream();
        Self {
            idle: idle.filter(|_| !is_over).map(Idle::new),
            body: Some(body).filter(|_| !is_over),
            exchange,
            held: None,
            answered: None,
        }
    }

    /// Nothing.
    pub fn empty(exchange: Arc<Exchange>) -> Self {
        Self {
            body: None,
            exchange,
            held: None,
            idle: None,
            answered: None,
        }
    }

    /// Ends it when the answer is over, which it may well be before.
    pub fn until_answered(&mut self) {
        if self.body.is_some() {
            let (sender, answered) = oneshot::channel();
            self.answered = Some(answered);
            self.exchange.ends_upload_with(sender);
        }
    }

    /// Holds it back until the sender says go, or is dropped, or some time has passed.
    pub fn hold(&mut self) -> oneshot::Sender<()> {
        let (sender, go) = oneshot::channel();
        self.held = Some(Box::new(Held {
            go,
            enough: Box::pin(sleep(CONTINUE_WAIT)),
        }));
        sender
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if let Some(held) = &mut this.held {
            if Pin::new(&mut held.go).poll(cx).is_pending() {
                ready!(held.enough.as_mut().poll(cx));
            }
            this.held = None;
        }
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        this.exchange.set_awaits_client(frame.is_pending());
        let Poll::Ready(frame) = frame else {
            if let Some(answered) = &mut this.answered
                && Pin::new(answered).poll(cx).is_ready()
            {
                let error = io::Error::other("the answer is over");
                return Poll::Ready(Some(Err(error.into())));
            }
            return match Idle::poll(&mut this.idle, cx) {
                Poll::Ready(()) => {
                    this.exchange.ended("the client sends nothing any more");
                    let error = io::Error::from(io::ErrorKind::TimedOut);
                    Poll::Ready(Some(Err(error.into())))
                }
                Poll::Pending => Poll::Pending,
            };
        };
        Idle::note(&mut this.idle);
        let frame = frame.map(|frame| frame.map(without_forbidden));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.exchange.to_upstream(data.len() as u64);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// Trailers of HTTP/2 do not come through the gate, and are held to the same rule.
fn without_forbidden(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Err(frame) => frame,
        Ok(mut trailers) => {
            let forbidden = trailers.keys().filter(|name| is_forbidden(name.as_str()));
            for name in forbidden.cloned().collect::<Vec<_>>() {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
    }
}

/// What a client is answered.
pub enum Answer {
    /// By the proxy itself.
    Own(Bytes),
    /// By an upstream.
    Relayed(Box<Relayed>),
}

/// What an upstream answers.
pub struct Relayed {
    body: Incoming,
    /// Whether its end has been seen. Of a body whose length is not known before, hyper does not say so itself.
    is_over: bool,
    exchange: Arc<Exchange>,
    place: Place,
    /// The connection it comes on, if it may be used again after it.
    sender: Option<Sender>,
    idle: Option<Box<Idle>>,
    /// There if it is a stream of events, which need not ever end by itself.
    stream: Option<Box<EventStream>>,
}

/// What a body needs beside its bytes.
pub struct Setting {
    /// What it is a part of.
    pub exchange: Arc<Exchange>,
    /// Its place at its upstream.
    pub place: Place,
    /// The connection it comes on, if it may be used again after it.
    pub sender: Option<Sender>,
    /// It is given up if nothing comes for so long.
    pub idle: Option<Duration>,
    /// When a stream of events is to be ended, so that its reader connects again.
    pub until: Option<Instant>,
    /// Ends a stream of events as well, at a moment of its own.
    pub stop: Stop,
}

impl Relayed {
    /// `body` came with these headers.
    pub fn new(body: Incoming, headers: &HeaderMap, setting: Setting) -> Self {
        let stream = match body.size_hint().exact() {
            None => EventStream::new(headers, setting.until, setting.stop).map(Box::new),
            Some(_) => None,
        };
        Self {
            is_over: body.is_end_stream(),
            body,
            exchange: setting.exchange,
            place: setting.place,
            sender: setting.sender,
            idle: setting.idle.map(Idle::new),
            stream,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(stream) = &mut self.stream
            && let Some(why) = stream.poll_end(cx)
        {
            self.exchange.ended(why);
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return match Idle::poll(&mut self.idle, cx) {
                Poll::Ready(()) => {
                    self.exchange.ended(SILENT);
                    let error = io::Error::from(io::ErrorKind::TimedOut);
                    Poll::Ready(Some(Err(error.into())))
                }
                Poll::Pending => Poll::Pending,
            };
        };
        Idle::note(&mut self.idle);
        match &frame {
            Some(Ok(frame)) => {
                // hyper asks neither for what is behind trailers nor for what is behind a length that it knows.
                self.is_over = frame.is_trailers() || self.body.is_end_stream();
                if let Some(data) = frame.data_ref() {
                    self.exchange.to_client(data.len() as u64);
                    if let Some(stream) = &mut self.stream {
                        stream.events.note(data);
                    }
                }
            }
            Some(Err(error)) => {
                let why = format!("the upstream has broken off: {error}");
                self.exchange.ended(why);
            }
            None => self.is_over = true,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.exchange.end_upload();
        if !self.is_over {
            return;
        }
        self.exchange.ended(COMPLETE);
        if let Some(sender) = self.sender.take()
            && !self.place.upstream().is_removed()
        {
            self.place.upstream().pool.put(sender);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
            Self::Relayed(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Relayed(relayed) => relayed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relayed(relayed) => relayed.body.size_hint(),
        }
    }
}

/// A body that consists of events, and may end behind each of them.
struct EventStream {
    events: Events,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    until: Option<Pin<Box<Sleep>>>,
    leaving: Option<&'static str>,
}

impl EventStream {
    fn new(headers: &HeaderMap, until: Option<Instant>, stop: Stop) -> Option<Self> {
        Some(Self {
            events: Events::of(headers)?,
            stop: Box::pin(stop.departure()),
            until: until.map(|until| Box::pin(sleep_until(until))),
            leaving: None,
        })
    }

    /// Why it is to end here and now, if it is.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        if self.leaving.is_none() {
            let until = self.until.as_mut();
            if self.stop.as_mut().poll(cx).is_ready() {
                self.leaving = Some(STOPPED);
            } else if until.is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
                self.leaving = Some(AGED);
            }
        }
        self.leaving.filter(|_| self.events.is_between())
    }
}

/// Ends what is waited for and does not come. It is set again not with each frame but when it goes off.
struct Idle {
    limit: Duration,
    /// Since when it is waited for. Whoever does not ask does not wait.
    since: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(limit: Duration) -> Box<Self> {
        Box::new(Self {
            limit,
            since: None,
            sleep: Box::pin(sleep(limit)),
        })
    }

    /// Something has come.
    fn note(this: &mut Option<Box<Self>>) {
        if let Some(idle) = this {
            idle.since = None;
        }
    }

    /// Nothing is there yet; ready if it is too late now.
    fn poll(this: &mut Option<Box<Self>>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(idle) = this else {
            return Poll::Pending;
        };
        let end = *idle.since.get_or_insert_with(Instant::now) + idle.limit;
        loop {
            if idle.sleep.deadline() < end {
                idle.sleep.as_mut().reset(end);
            }
            ready!(idle.sleep.as_mut().poll(cx));
            if Instant::now() >= end {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_frame_and_route_nothing() {
        let names = [
            "content-length",
            "forwarded",
            "host",
            "x-checksum",
            "x-forwarded-for",
        ];
        let trailers = names.map(|name| {
            let name = hyper::header::HeaderName::from_static(name);
            (name, hyper::header::HeaderValue::from_static("1"))
        });
        let frame = without_forbidden(Frame::trailers(HeaderMap::from_iter(trailers)));
        let left = frame.into_trailers().expect("trailers");
        assert_eq!(left.keys().collect::<Vec<_>>(), ["x-checksum"]);
    }
}
