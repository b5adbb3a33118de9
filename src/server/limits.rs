//! What a client may cost the process, whatever it asks for.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::time::Instant;

use super::failures::{Failure, Failures};
use crate::endpoint::body::Activity;
use crate::listen::entrance::{Bounds, Entrance};
use crate::listen::sampled::Sampled;
use crate::source::publish::Bodies;

/// The limits of a process, as the flags say them.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Who is let in.
    pub entrance: Bounds,
    /// How long the first head of a request may take from when the connection is accepted, and each further one from its first
    /// byte.
    pub handshake_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// The longest head of a request, in bytes: 8 KiB at least, as hyper wants.
    pub max_header_size: usize,
    /// The longest body of a request, in bytes.
    pub max_body_size: usize,
    /// How much memory all bodies may take together that are being received, in bytes.
    pub max_body_memory: usize,
}

/// Sees to the limits.
pub struct Keeper {
    /// Lets connections in.
    pub entrance: Arc<Entrance>,
    /// As [`Limits::handshake_timeout`].
    pub handshake_timeout: Duration,
    /// As [`Limits::idle_timeout`].
    pub idle_timeout: Duration,
    /// As [`Limits::max_header_size`].
    pub max_header_size: usize,
    /// The bodies that are being received; messages share their memory.
    pub bodies: Bodies,
    /// What has come of those who wanted to read, and of connections.
    pub handshakes: Failures,
    /// What has come of requests that publish.
    pub publishes: Failures,
    late: Arc<Sampled>,
    large: Arc<Sampled>,
    idle: Arc<Sampled>,
    stuck: Arc<Sampled>,
    full: Arc<Sampled>,
    denied: Arc<Sampled>,
}

/// An answer that does not get on for so long is given up: streams have a heartbeat that is shorter, and other requests are
/// answered at once.
const STUCK: Duration = Duration::from_secs(45);

impl Keeper {
    /// Of these limits. `is_plain`: clients do not speak TLS.
    pub fn new(limits: Limits, is_plain: bool) -> Arc<Self> {
        Arc::new(Self {
            entrance: Entrance::new(limits.entrance, is_plain),
            handshake_timeout: limits.handshake_timeout,
            idle_timeout: limits.idle_timeout,
            max_header_size: limits.max_header_size,
            bodies: Bodies::new(limits.max_body_size, limits.max_body_memory),
            handshakes: Failures::default(),
            publishes: Failures::default(),
            late: Sampled::new("request refused"),
            large: Sampled::new("request refused"),
            idle: Sampled::new("connection closed"),
            stuck: Sampled::new("connection closed"),
            full: Sampled::new("request refused"),
            denied: Sampled::new("request refused"),
        })
    }

    /// When the patience with a connection of HTTP/1 ends, if nothing happens on it.
    pub fn deadline(&self, activity: &Activity) -> Instant {
        match activity.head_since() {
            Some(since) => since + self.handshake_timeout,
            None if activity.is_busy() => activity.last() + self.idle_timeout.max(STUCK),
            None => activity.last() + self.idle_timeout,
        }
    }

    /// What a client is told whose request does not come as a whole.
    pub const LATE: (StatusCode, &str) = (
        StatusCode::REQUEST_TIMEOUT,
        "the head of the request has not come in time",
    );

    /// Notes a connection whose request has not come in time; if nothing of it has, the client is not told.
    pub fn log_late(&self, address: SocketAddr, is_told: bool) {
        let (status, reason) = Self::LATE;
        self.handshakes.count(Failure::Late);
        match is_told {
            true => self.late.note(address, status.as_u16(), reason),
            false => self.late.note(address, None, "no request has come in time"),
        }
    }

    /// Notes a request whose head is too long. hyper has answered.
    pub fn log_large(&self, address: SocketAddr) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16();
        let reason = "the head of the request is too long";
        self.handshakes.count(Failure::TooLarge);
        self.large.note(address, status, reason);
    }

    /// Notes a connection that has been without a request for too long.
    pub fn log_idle(&self, address: SocketAddr) {
        let reason = format!("no request has come for {:?}", self.idle_timeout);
        self.idle.note(address, None, reason);
    }

    /// Notes a request for a stream for which there is no room in its route.
    pub fn log_full(&self, address: SocketAddr, reason: String) {
        let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        self.full.note(address, status, reason);
    }

    /// Notes a request of somebody who is not let in.
    pub fn log_denied(&self, address: SocketAddr, status: StatusCode, reason: Cow<'static, str>) {
        self.denied.note(address, status.as_u16(), reason);
    }

    /// Notes a connection whose client does not take what it has asked for.
    pub fn log_stuck(&self, address: SocketAddr) {
        self.stuck.note(address, None, "the client takes nothing");
    }
}
