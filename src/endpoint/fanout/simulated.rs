//! A subscriber whose socket is simulated: written by the same function as any other.

use crate::endpoint::subscribers::Subscribers;
use crate::shutdown::Stop;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use super::connection::Progress;
use super::connection::{Connection, Mode};
use super::{Audience, Overload};
use crate::listen::admission::Admission;
use crate::listen::streams::Counted;
use crate::stream::tape::Chunk;
use crate::stream::{EventLog, Subscription};
use crate::wire::Format;

/// A connection without a socket.
pub struct Simulated {
    connection: Connection,
    audience: Audience,
    chunk: Option<Arc<Chunk>>,
}

impl Simulated {
    /// It is to get `preface`, and then its part of the stream in `log`.
    pub fn new(
        log: Arc<EventLog>,
        (format, overload): (Format, Overload),
        preface: Bytes,
        subscription: Subscription,
    ) -> Self {
        let admitted = Admission::new(1, None).enter().expect("room");
        let counted = Counted::Connection(admitted);
        let address = ([127, 0, 0, 1], 1).into();
        Self {
            connection: Connection::new((None, counted), address, preface, subscription, (0, None)),
            audience: Audience {
                log,
                format,
                path: "/".into(),
                heartbeat_interval: Duration::MAX,
                overload,
                max_publish_rate: None,
                max_connection_age: None,
                count: Arc::new(Subscribers::new(Stop::new(Duration::ZERO))),
            },
            chunk: None,
        }
    }

    /// Writes what is pending, as far as `try_write` takes it.
    pub fn write(&mut self, try_write: impl FnMut(&[u8]) -> io::Result<usize>) -> Progress {
        let mut writer = self.connection.lock();
        let (chunk, audience) = (&mut self.chunk, &self.audience);
        let progress = self
            .connection
            .write_with(&mut writer, chunk, audience, try_write);
        if progress == Progress::Blocked {
            // As its driver does: it keeps no chunk while it waits, but that of the rest of a frame.
            *chunk = None;
            writer.mode = Mode::Parked;
        }
        progress
    }

    /// What its driver does when history has moved on while it is blocked.
    pub fn look_at_history(&mut self) {
        let oldest = self.connection.tape().oldest().position;
        self.connection.lock().pass(oldest, &self.audience);
    }
}
