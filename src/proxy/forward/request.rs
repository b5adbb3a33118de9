//! Any request but a WebSocket handshake: to the upstream, once more where that does no harm, and its answer back.

use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};

use super::event_stream::Reader;
use super::interim::Interim;
use super::own::{Failure, failed, refused, unfinished};
use super::{Asked, Client, Outcome, Way};
use crate::proxy::body::Upload;
use crate::proxy::connect::{Armed, Sender, is_own_fault};
use crate::proxy::exchange::Exchange;
use crate::proxy::front::gate::Verdict;
use crate::proxy::headers::Refusal;
use crate::proxy::upstreams::Place;
use crate::reason;

impl Client {
    /// Any other request, over a connection that others have used before, if there is one.
    pub(super) async fn request(&self, mut asked: Asked) -> Outcome {
        let exchange = asked.exchange.clone();
        let (place, mut way) = match self.reach(asked.key, &exchange, self.keeps()).await {
            Ok(reached) => reached,
            Err(outcome) => return outcome,
        };
        let authority = place.upstream().authority();
        let expects = expects_continue(&asked.head);
        // RFC 9110, section 15.2: not for a client of HTTP/1.0. HTTP/2 has no gate.
        let takes_interim = asked.head.version == Version::HTTP_11;
        let proxy = &self.proxy;
        proxy
            .rules
            .request(&mut asked.head, &self.from, authority, false);
        let mut upload = Upload::new(asked.body, exchange.clone(), proxy.client_idle);
        // What an upstream has closed meanwhile costs the client nothing, if asking twice does no harm.
        let mut again = (matches!(way, Way::Kept(_))
            && asked.head.method.is_idempotent()
            && upload.is_end_stream())
        .then(|| asked.head.clone());
        let reader = asked.reader.filter(|_| upload.is_end_stream());
        upload.until_answered();
        let go = expects.then(|| upload.hold());
        let mut request = Request::from_parts(asked.head, upload);
        let mut interim = self
            .control
            .as_ref()
            .filter(|_| takes_interim)
            .map(|control| Interim::of(&mut request, control.clone(), go));
        loop {
            let is_kept = matches!(way, Way::Kept(_));
            let attempt = self.attempt(way, request, reader.is_some(), &mut interim, &exchange);
            request = match (attempt.await, again.take()) {
                (Ok((response, sender, armed)), _) => {
                    let alone = armed.zip(reader);
                    return self
                        .answered(response, place, sender, alone, exchange)
                        .await;
                }
                (Err(Missed::Unsent(request)), _) if is_kept => *request,
                (Err(Missed::Lost(_)), Some(head)) if is_kept => {
                    Request::from_parts(head, Upload::empty(exchange.clone()))
                }
                (Err(missed), _) => return self.missed(missed, is_kept, &place, &exchange),
            };
            way = match self.fresh(place.upstream()).await {
                Ok(stream) => Way::Fresh(stream),
                Err(error) => {
                    let why = reason::of(&error);
                    if !is_own_fault(&error) {
                        place.connect_failed(&why);
                    }
                    return failed(&exchange, Failure::bad_gateway(why));
                }
            };
        }
    }

    /// Sends a request on one connection and waits for the answer.
    async fn attempt(
        &self,
        way: Way,
        request: Request<Upload>,
        arms: bool,
        interim: &mut Option<Interim>,
        exchange: &Exchange,
    ) -> Result<(Response<Incoming>, Sender, Option<Armed>), Missed> {
        let mut sender = match way {
            Way::Kept(sender) => sender,
            Way::Fresh(stream) => Sender::new(stream).await.map_err(Missed::Lost)?,
        };
        let armed = arms.then(|| sender.arm());
        let sent = sender.send(request);
        let sent = async {
            match interim {
                Some(interim) => interim.passed_while(sent).await,
                None => sent.await,
            }
        };
        match self.in_time(exchange, sent).await {
            Some(Ok(response)) => Ok((response, sender, armed)),
            Some(Err(mut error)) => Err(match error.take_message() {
                Some(request) => Missed::Unsent(Box::new(request)),
                None => Missed::Lost(error.into_error()),
            }),
            None => Err(Missed::Late),
        }
    }

    async fn answered(
        &self,
        response: Response<Incoming>,
        place: Place,
        sender: Sender,
        alone: Option<(Armed, Reader)>,
        exchange: Arc<Exchange>,
    ) -> Outcome {
        let (head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let why = "the upstream has switched protocols unasked";
            return failed(&exchange, Failure::bad_gateway(why));
        }
        place.answered(head.status);
        match alone {
            Some((armed, reader)) => {
                let alone = (sender, armed, reader);
                self.answered_alone(head, body, place, alone, exchange)
                    .await
            }
            None => self.relayed(head, body, place, Some(sender), exchange),
        }
    }

    fn missed(
        &self,
        missed: Missed,
        was_kept: bool,
        place: &Place,
        exchange: &Exchange,
    ) -> Outcome {
        let error = match missed {
            Missed::Late if exchange.awaits_client() => return unfinished(exchange),
            Missed::Late => {
                place.no_answer();
                return failed(exchange, Failure::timeout());
            }
            Missed::Lost(error) => error,
            Missed::Unsent(_) => {
                place.no_answer();
                let why = "the connection was closed before the request could be sent";
                return failed(exchange, Failure::bad_gateway(why));
            }
        };
        let verdict = self.control.as_ref().and_then(|control| control.verdict());
        if let Some(Verdict::BrokenBody(reason)) = verdict {
            let status = StatusCode::BAD_REQUEST;
            return refused(exchange, &Refusal { status, reason });
        }
        if error.is_user() && exchange.awaits_client() {
            return unfinished(exchange);
        }
        // That a kept one is closed just now is no sign of ill health.
        if !was_kept && !error.is_user() {
            place.no_answer();
        }
        failed(exchange, Failure::bad_gateway(reason::of(&error.into())))
    }
}

/// Why an attempt has brought no answer.
enum Missed {
    /// Nothing has gone out.
    Unsent(Box<Request<Upload>>),
    /// The connection has ended.
    Lost(hyper::Error),
    /// It does not come.
    Late,
}

/// Whether the client waits for `100 Continue` before it sends the body.
fn expects_continue(head: &Parts) -> bool {
    let expect = head.headers.get(header::EXPECT);
    expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
