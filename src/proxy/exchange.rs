//! One request, or one tunnel: what the log says of it when it is over.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::upstreams::Upstream;
use crate::listen::streams::Entered;

/// Why an answer ends that has come as a whole.
pub const COMPLETE: &str = "complete";
/// Why an endless answer ends, when everything does.
pub const STOPPED: &str = "the proxy stops";
/// Why an endless answer ends, when its connection is old.
pub const AGED: &str = "it has reached its age";
/// Why what is not over ends, when the process does.
pub const DRAINED: &str = "the proxy has stopped";
/// Why an answer ends of which nothing comes.
pub const SILENT: &str = "the upstream sends nothing any more";
/// Why an answer ends that nobody reads.
pub const GONE: &str = "the client has gone";

/// Shared by all who take part in it; the last one who lets go of it writes its line.
pub struct Exchange {
    client: SocketAddr,
    /// Who has asked, where the client is a proxy that is believed.
    forwarded_for: Option<IpAddr>,
    method: Method,
    /// Without the query, which may well hold a secret.
    path: Box<str>,
    began: Instant,
    status: AtomicU16,
    upstream: OnceLock<Arc<Upstream>>,
    to_client: AtomicU64,
    to_upstream: AtomicU64,
    /// Whether the next of it is the client's to send.
    awaits_client: AtomicBool,
    why: OnceLock<Cow<'static, str>>,
    stop: CancellationToken,
    /// What ends the upload when it is dropped.
    upload: Mutex<Option<oneshot::Sender<()>>>,
    /// Over HTTP/2, where a request counts.
    entered: OnceLock<Entered>,
}

impl Exchange {
    /// It begins.
    pub fn begin(
        client: SocketAddr,
        forwarded_for: Option<IpAddr>,
        request: &Parts,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            forwarded_for,
            method: request.method.clone(),
            path: request.uri.path().into(),
            stop,
            began: Instant::now(),
            status: AtomicU16::new(0),
            upstream: OnceLock::new(),
            to_client: AtomicU64::new(0),
            to_upstream: AtomicU64::new(0),
            awaits_client: AtomicBool::new(false),
            why: OnceLock::new(),
            upload: Mutex::new(None),
            entered: OnceLock::new(),
        })
    }

    /// The upload ends when `sender` is dropped.
    pub fn ends_upload_with(&self, sender: oneshot::Sender<()>) {
        *self.upload.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    /// Nobody wants the rest of the upload.
    pub fn end_upload(&self) {
        self.upload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// It counts as one of the client's connections until it is over.
    pub fn counts(&self, entered: Entered) {
        let _ = self.entered.set(entered);
    }

    /// Who answers.
    pub fn at(&self, upstream: &Arc<Upstream>) {
        let _ = self.upstream.set(upstream.clone());
    }

    /// What the client is answered.
    pub fn answered(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// So many bytes more of content for the client.
    pub fn to_client(&self, bytes: u64) {
        self.to_client.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes more of content for the upstream.
    pub fn to_upstream(&self, bytes: u64) {
        self.to_upstream.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many bytes of content have gone to the upstream.
    pub fn bytes_to_upstream(&self) -> u64 {
        self.to_upstream.load(Ordering::Relaxed)
    }

    /// Notes whether nothing can go to the upstream because the client sends nothing.
    pub fn set_awaits_client(&self, awaits: bool) {
        self.awaits_client.store(awaits, Ordering::Relaxed);
    }

    /// Whether nothing can go to the upstream because the client sends nothing: then no answer is not the upstream's fault.
    pub fn awaits_client(&self) -> bool {
        self.awaits_client.load(Ordering::Relaxed)
    }

    /// Why it ends; what is said first counts.
    pub fn ended(&self, why: impl Into<Cow<'static, str>>) {
        let _ = self.why.set(why.into());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Nobody has said anything: hyper has dropped it, because the client's connection has ended.
        let unsaid = match self.stop.is_cancelled() {
            true => DRAINED,
            false => GONE,
        };
        let why = self.why.get().map_or(unsaid, |why| why);
        info!(
            client = %self.client,
            forwarded_for = self.forwarded_for.map(tracing::field::display),
            upstream = self.upstream.get().map_or("none", |upstream| upstream.name()),
            method = %self.method,
            path = &*self.path,
            status = *self.status.get_mut(),
            to_client = *self.to_client.get_mut(),
            to_upstream = *self.to_upstream.get_mut(),
            duration = ?self.began.elapsed(),
            why,
            "proxied"
        );
    }
}
