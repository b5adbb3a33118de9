//! Routes: which URL path serves which stream, and to whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::endpoint::fanout::{Fanout, Settings};
use crate::source::publish::Publisher;
use crate::stream::EventLog;
use crate::stream::via::Via;
use crate::wire::Format;

/// A path and the stream behind it.
pub struct Route {
    /// The URL path, beginning with a slash.
    pub path: Arc<str>,
    /// The stream.
    pub log: Arc<EventLog>,
    /// Where it comes through.
    pub via: Arc<Via>,
    /// What holds for its subscribers.
    pub settings: Settings,
    /// How many there are.
    pub subscribers: Arc<AtomicUsize>,
    /// Takes what clients publish, if they may.
    pub publisher: Option<Publisher>,
    /// The pages of other servers that may read and publish here.
    pub origins: Origins,
    /// For each format.
    fanouts: [Fanout; Format::ALL.len()],
}

/// The other origins (RFC 6454) whose pages are let in.
#[derive(Debug, Clone, Default)]
pub struct Origins(pub Vec<String>);

impl Origins {
    /// Whether a page of this origin is let in.
    pub fn contain(&self, origin: &str) -> bool {
        let is_it = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        self.0.iter().any(is_it)
    }
}

impl Route {
    /// Serves `log` at `path`. `stop` closes the subscribers; `tasks` knows what still runs for them.
    pub fn new(
        path: &str,
        log: Arc<EventLog>,
        via: Arc<Via>,
        settings: Settings,
        origins: Origins,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Self {
        let path: Arc<str> = path.into();
        let subscribers = Arc::new(AtomicUsize::new(0));
        let fanout = |format| {
            Fanout::new(
                log.clone(),
                format,
                path.clone(),
                &settings,
                subscribers.clone(),
                (tasks, stop),
            )
        };
        Self {
            fanouts: Format::ALL.map(fanout),
            publisher: settings.accept_publish.then(|| {
                Publisher::new(
                    log.clone(),
                    settings.max_message_size,
                    settings.max_publish_rate,
                )
            }),
            path,
            log,
            via,
            settings,
            subscribers,
            origins,
        }
    }

    /// What serves the stream in this format.
    pub fn fanout(&self, format: Format) -> &Fanout {
        &self.fanouts[format as usize]
    }

    /// How many subscribers there are.
    pub fn subscriber_count(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }
}
