//! The WebSocket endpoint: each event one message, kind and bytes unchanged.
//!
//! ```text
//!   handshake ──► Connection ──► shard driver     writes to all caught-up subscribers of its share, one after another
//!                     │             │   ▲
//!                     │     blocked ▼   │ caught up
//!                     └────────► its own task     reads (ping, pong, close); writes while the socket is behind
//! ```
//!
//! A subscriber is a [`Connection`]: a socket, a cursor on the stream's tape, and little else. Its [driver] and its own
//! [task](subscriber) both may write to it; [`Connection::write`] is the only place that does, under the connection's
//! lock, so frames are never mixed.

mod connection;
mod driver;
pub mod handshake;
mod input;
mod subscriber;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::stream::{EventLog, Subscription};
use connection::Connection;
use driver::Shard;
use input::Input;
use subscriber::Subscriber;

/// What holds for each subscriber of an endpoint.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often a subscriber is pinged; one that is silent for two intervals is closed.
    pub ping_interval: Duration,
    /// The largest message a subscriber may send, in bytes.
    pub max_message_size: usize,
}

/// Serves one stream over WebSocket.
pub struct WebSocketEndpoint {
    log: Arc<EventLog>,
    path: Arc<str>,
    settings: Settings,
    shards: Box<[Arc<Shard>]>,
    /// Round robin over the shards.
    next_shard: AtomicUsize,
    tasks: TaskTracker,
}

impl WebSocketEndpoint {
    /// An endpoint for `log`, served at `path`, with one shard for each worker thread of the current runtime.
    ///
    /// `stop` closes all subscribers; `tasks` knows what still runs.
    pub fn new(
        log: Arc<EventLog>,
        path: Arc<str>,
        settings: Settings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let shard = || {
            Shard::new(
                path.clone(),
                settings.ping_interval,
                tasks.clone(),
                stop.clone(),
            )
        };
        Self {
            log,
            shards: std::iter::repeat_with(shard).take(workers).collect(),
            path,
            settings,
            next_shard: AtomicUsize::new(0),
            tasks: tasks.clone(),
        }
    }

    /// Subscribes at the live edge. To be called before the handshake is answered: what is appended once the client
    /// knows that it is subscribed must reach it.
    pub fn subscribe(&self) -> Subscription {
        self.log.subscribe_websocket()
    }

    /// Serves one subscriber, in a task of its own. `early` is what the client sent right behind its handshake.
    pub fn serve(
        &self,
        socket: TcpStream,
        early: &[u8],
        address: SocketAddr,
        subscription: Subscription,
    ) {
        info!(%address, path = %self.path, "subscriber connected");
        let shard =
            &self.shards[self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()];
        let input = Input::new(self.settings.max_message_size);
        let Subscription { cursor, tape, head } = subscription;
        let connection = Arc::new(Connection::new(socket, address, cursor, tape, shard.tick()));
        shard.join(connection.clone(), head);
        self.tasks
            .spawn(Subscriber::new(connection, shard.clone(), input, early));
    }
}
