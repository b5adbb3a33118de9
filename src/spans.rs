//! What is traced: how links to upstreams come to be and come back, and how subscribers are let in.
//!
//! ```text
//!   connect, reconnect   from the first attempt, or the loss of a connection, up to when there is one
//!     └── attempt        each attempt on the way, and why it has failed
//!   subscribe            a request to read a stream, up to the head of its answer
//! ```
//!
//! Spans are made here for whoever collects them (`export`, with the cargo feature `otel`). Where nobody does they are disabled: then one atomic
//! load is all that they cost, and nothing is kept. The log leaves them out: it has lines of its own about the same.
//!
//! Numbers are signed, as those of OpenTelemetry are: others would become texts. Names of attributes are those of OpenTelemetry's semantic conventions, where these have one.

#[cfg(feature = "otel")]
pub mod export;

use std::fmt::Display;
use std::net::SocketAddr;

use hyper::StatusCode;
use hyper::http::request::Parts;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::event::Origin;

/// The target of all spans, by which they are told from what is for the log. It is no module, as filters would take lines of that for spans.
pub const TARGET: &str = "wsevent-spans";

/// How a connection to the other side comes to be, as it is traced.
#[derive(Default)]
pub struct Connecting(Option<Box<Underway>>);

struct Underway {
    /// From the first attempt, or from the loss of the connection before.
    whole: Span,
    /// The attempt that is being made, if one is.
    attempt: Option<Span>,
    attempts: u64,
}

impl Connecting {
    /// An attempt to reach `url` begins. `again` says that there has been a connection before.
    pub fn attempt(&mut self, (role, url): (&'static str, &dyn Display), again: bool) {
        let Some(underway) = self.underway((role, url), again) else {
            return;
        };
        underway.attempts += 1;
        let number = underway.attempts as i64;
        underway.attempt = Some(info_span!(
            target: TARGET,
            parent: &underway.whole,
            "attempt",
            otel.kind = "client",
            otel.status_code = Empty,
            otel.status_description = Empty,
            url.full = %url,
            wsevent.attempt = number,
            wsevent.transport = Empty,
            wsevent.instance = Empty,
        ));
    }

    fn underway(
        &mut self,
        (role, url): (&'static str, &dyn Display),
        again: bool,
    ) -> Option<&mut Underway> {
        if self.0.is_none() {
            let whole = match again {
                false => {
                    info_span!(target: TARGET, parent: None, "connect", otel.status_code = Empty, url.full = %url, wsevent.role = role, wsevent.attempts = Empty, wsevent.lost = Empty)
                }
                true => {
                    info_span!(target: TARGET, parent: None, "reconnect", otel.status_code = Empty, url.full = %url, wsevent.role = role, wsevent.attempts = Empty, wsevent.lost = Empty)
                }
            };
            if whole.is_disabled() {
                return None;
            }
            self.0 = Some(Box::new(Underway {
                whole,
                attempt: None,
                attempts: 0,
            }));
        }
        self.0.as_deref_mut()
    }

    /// The handshake of the attempt has shown how events come, and from which instance, if it is a wsevent.
    pub fn leads_to(&self, transport: &'static str, instance: Option<Origin>) {
        let underway = self.0.as_ref();
        if let Some(attempt) = underway.and_then(|underway| underway.attempt.as_ref()) {
            attempt.record("wsevent.transport", transport);
            if let Some(instance) = instance {
                attempt.record("wsevent.instance", tracing::field::display(instance));
            }
        }
    }

    /// There is a connection.
    pub fn connected(&mut self) {
        if let Some(underway) = self.0.take() {
            underway.end(true);
        }
    }

    /// The attempt has failed; or, if there was none, a connection has ended.
    pub fn lost(&mut self, (role, url): (&'static str, &dyn Display), again: bool, reason: &str) {
        let attempt = self.0.as_mut().and_then(|it| it.attempt.take());
        if let Some(attempt) = attempt {
            attempt.record("otel.status_code", "ERROR");
            attempt.record("otel.status_description", reason);
        } else if let Some(underway) = self.underway((role, url), again) {
            underway.whole.record("wsevent.lost", reason);
        }
    }
}

impl Underway {
    fn end(&self, is_connected: bool) {
        self.whole.record("wsevent.attempts", self.attempts as i64);
        if !is_connected {
            self.whole.record("otel.status_code", "ERROR");
        }
    }
}

/// It is given up.
impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(underway) = self.0.take() {
            underway.end(false);
        }
    }
}

/// A request to read a stream, as it is traced.
pub struct Subscribing(Span);

impl Subscribing {
    /// It has come from `address`. What its query says may be a secret.
    pub fn new(request: &Parts, address: SocketAddr) -> Self {
        Self(info_span!(
            target: TARGET,
            parent: None,
            "subscribe",
            otel.kind = "server",
            otel.status_code = Empty,
            otel.status_description = Empty,
            http.request.method = request.method.as_str(),
            http.response.status_code = Empty,
            url.path = request.uri.path(),
            network.peer.address = %address.ip(),
            network.peer.port = i64::from(address.port()),
            wsevent.transport = Empty,
            wsevent.refusal = Empty,
        ))
    }

    /// It is answered with a stream.
    pub fn granted(self, status: StatusCode, transport: &'static str) {
        self.0.record("wsevent.transport", transport);
        self.0
            .record("http.response.status_code", i64::from(status.as_u16()));
    }

    /// It is refused. That is an error only if it is not the client's.
    pub fn refused(self, status: StatusCode, reason: &str) {
        self.0
            .record("http.response.status_code", i64::from(status.as_u16()));
        self.0.record("wsevent.refusal", reason);
        if status.is_server_error() {
            self.0.record("otel.status_code", "ERROR");
            self.0.record("otel.status_description", reason);
        }
    }
}
