//! Where published events go: into the log, or to the bus that it has them from.

use std::sync::Arc;

use hyper::StatusCode;

use super::Refused;
use crate::bus::outbox::{NotTaken, Outbox};
use crate::event::{EventId, NewEvent};
use crate::stream::{Carrier, EventLog, Sealed, Way};

/// After so many seconds a bus that is away may be back.
const RETRY_AFTER: u64 = 2;

/// Where published events go.
#[derive(Clone)]
pub enum Sink {
    /// Into the log.
    Log(Arc<EventLog>),
    /// To a bus, and from there into the logs of all hops around it.
    Bus(Arc<Outbox>),
}

impl Sink {
    /// Takes events in a row, with nothing between them from here. Their ids, once they are in the log, or once the bus has them.
    pub async fn append_all(&self, events: Vec<NewEvent>) -> Result<Vec<EventId>, Refused> {
        match self {
            Self::Log(log) => log
                .offer(Way::default().by(Carrier::Post), events)
                .map_err(|Sealed| replaced()),
            Self::Bus(_) if events.is_empty() => Ok(Vec::new()),
            Self::Bus(outbox) => outbox.publish(events).await.map_err(refused),
        }
    }
}

/// For a moment, or for good: then whoever has taken over answers on the next connection.
fn replaced() -> Refused {
    Refused {
        retry_after: Some(1),
        ..Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "this instance is being replaced: try again",
        )
    }
}

fn refused(not_taken: NotTaken) -> Refused {
    let away = |reason: String| Refused {
        retry_after: Some(RETRY_AFTER),
        ..Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason)
    };
    match not_taken {
        NotTaken::Away(reason) => away(format!("the bus is away: {reason}")),
        NotTaken::Full => away("the bus takes less than comes: try again".to_owned()),
        NotTaken::Refused(reason) => Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the bus refuses this: {reason}"),
        ),
    }
}
