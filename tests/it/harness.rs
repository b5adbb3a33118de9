//! What the tests are made of: the real binary as a child process, a foreign WebSocket server that the test plays, and
//! a client that knows no more than bytes and frames.
//!
//! Tests wait for signals: a log line, a frame, a connection, an exit. [`GUARD`] only ends a test that would hang.

pub mod authority;
pub mod client;
pub mod daemon;
pub mod events;
pub mod frame;
pub mod http;
pub mod http2;
pub mod kernel;
pub mod log;
pub mod nats;
pub mod nginx;
pub mod port;
pub mod proxy;
pub mod redis;
pub mod tokens;
pub mod upstream;
pub mod wire;
pub mod wsevent;

use std::time::Duration;

/// Far beyond what anything takes on a busy machine.
pub const GUARD: Duration = Duration::from_secs(60);

/// Waits for `future`, but not for ever; `what` is what did not happen.
pub async fn within_guard<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future)
        .await
        .unwrap_or_else(|_| panic!("waited {GUARD:?} in vain: {what}"))
}
