//! Routes: which URL path serves which stream.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::endpoint::websocket::{Settings, WebSocketEndpoint};
use crate::stream::EventLog;

/// A path and the stream behind it.
pub struct Route {
    /// The URL path, beginning with a slash.
    pub path: Arc<str>,
    /// Serves the stream over WebSocket.
    pub websocket: WebSocketEndpoint,
}

impl Route {
    /// Serves `log` at `path`. `stop` closes the subscribers; `tasks` knows what still runs for them.
    pub fn new(
        path: &str,
        log: Arc<EventLog>,
        settings: Settings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let path: Arc<str> = path.into();
        Self {
            websocket: WebSocketEndpoint::new(log, path.clone(), settings, tasks, stop),
            path,
        }
    }
}
