//! From a log to a bus: each event that is appended is sent on, in order. What waits is in the log's history, and nowhere else.

use std::sync::Arc;

use anyhow::Result;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::figures::Figures;
use super::read::Ended;
use super::{Bus, Patience, Sent, Writer};
use crate::event::{Event, EventId, Origin};
use crate::shutdown::until_stopped;
use crate::source::Backoff;
use crate::source::presence::Presence;
use crate::stream::follow::Follower;

/// So many events are sent at once, at most.
pub const BATCH: usize = 1_024;
/// So many bytes of payload.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// Of what is not taken, so many are told in the log one by one, and then each so-manieth.
const TOLD: u64 = 10;

/// Sends on what `follower` finds until `stop` is cancelled, and then what is left, as long as the bus is there; or until the writer
/// says that nothing more can be sent. Events with ids from `own` may get others from the bus.
pub async fn run(
    bus: Arc<Bus>,
    mut follower: Follower,
    own: Option<Origin>,
    figures: Arc<Figures>,
    stop: CancellationToken,
) {
    let mut writer = bus.writer();
    let mut backoff = Backoff::new();
    let mut forward = Forward {
        name: bus.to_string(),
        own,
        figures,
        presence: Presence::downstream(&bus),
        patience: bus.patience(),
        stuck: None,
    };
    loop {
        let connected = until_stopped(&stop, std::pin::pin!(writer.connect())).await;
        let since = Instant::now();
        let before = forward.figures.counts().events;
        let result = match connected {
            None => return forward.leave(&follower),
            Some(Ok(())) => forward.follow(&mut *writer, &mut follower, &stop).await,
            Some(Err(error)) => Err(error),
        };
        forward.figures.disconnected();
        let Err(error) = result else { return };
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return forward.presence.ended(ended.0);
        }
        let reason = forward.presence.lost(&error);
        forward.give_up(&mut follower, &reason);
        backoff.connection_ended(since, forward.figures.counts().events > before);
        let pause = backoff.pause();
        if until_stopped(&stop, std::pin::pin!(sleep(pause)))
            .await
            .is_none()
        {
            return forward.leave(&follower);
        }
    }
}

struct Forward {
    name: String,
    own: Option<Origin>,
    figures: Arc<Figures>,
    presence: Presence,
    patience: Option<Patience>,
    /// Events that have been waiting for their turn in vain.
    stuck: Option<Stuck>,
}

/// The first events behind a place, which are not taken.
struct Stuck {
    first: EventId,
    count: usize,
    since: Instant,
}

impl Forward {
    /// Sends on until the connection is lost; or until there is nothing left, when everything stops.
    async fn follow(
        &mut self,
        writer: &mut dyn Writer,
        follower: &mut Follower,
        stop: &CancellationToken,
    ) -> Result<()> {
        let mut is_told = false;
        loop {
            if !follower.has_more() {
                self.connected(&mut is_told);
                tokio::select! {
                    biased;
                    () = follower.wait() => {}
                    () = stop.cancelled() => return Ok(()),
                    error = writer.lost() => return Err(error),
                }
            }
            let batch = follower.peek(BATCH, BATCH_BYTES);
            if batch.lost > 0 {
                self.lost(batch.lost);
            }
            let mut sent = Vec::with_capacity(batch.events.len());
            let result = writer.send(&batch.events, self.own, &mut sent).await;
            // What it has confirmed before it was lost is not sent again.
            follower.advance(sent.len());
            for (event, sent) in batch.events.iter().zip(&sent) {
                self.note(event, sent);
            }
            result?;
            self.connected(&mut is_told);
        }
    }

    /// The bus is there: it has taken something, or there is nothing for it. One that can be reached and takes nothing is not.
    fn connected(&mut self, is_told: &mut bool) {
        if !std::mem::replace(is_told, true) {
            self.figures.connected();
            self.presence.connected();
        }
    }

    /// Gives the first events up, if they have been tried for as long as this bus is given.
    fn give_up(&mut self, follower: &mut Follower, reason: &str) {
        let Some(patience) = &self.patience else {
            return;
        };
        let (time, together) = (patience.time, patience.together);
        let batch = follower.peek(together, BATCH_BYTES);
        if batch.lost > 0 {
            self.lost(batch.lost);
        }
        let Some(first) = batch.events.first().map(|event| event.id) else {
            return;
        };
        match self.stuck.take() {
            Some(stuck) if stuck.first == first && stuck.since.elapsed() >= time => {
                let refused = Sent::Refused(format!("not taken within {time:?}: {reason}"));
                let given_up = batch.events.iter().take(stuck.count);
                follower.advance(given_up.len());
                given_up.for_each(|event| self.note(event, &refused));
            }
            Some(stuck) if stuck.first == first => self.stuck = Some(stuck),
            _ => {
                self.stuck = Some(Stuck {
                    first,
                    count: batch.events.len(),
                    since: Instant::now(),
                });
            }
        }
    }

    fn note(&self, event: &Event, sent: &Sent) {
        match sent {
            Sent::Taken(_) => self.figures.passed(1, event.payload.bytes.len() as u64),
            Sent::Refused(reason) => {
                let refused = self.figures.refused();
                let (url, id) = (&self.name, event.id);
                match refused <= TOLD || refused.is_multiple_of(TOLD.pow(3)) {
                    true => warn!(url, %id, %reason, refused, "event not forwarded: dead letter"),
                    false => debug!(url, %id, %reason, refused, "event not forwarded: dead letter"),
                }
            }
        }
    }

    fn lost(&self, count: u64) {
        self.figures.lost(count);
        warn!(
            url = self.name,
            lost = count,
            "events not forwarded: history has let go of them (--history keeps more)"
        );
    }

    /// The end, without the bus.
    fn leave(&self, follower: &Follower) {
        let left = follower.count();
        if left > 0 {
            self.figures.lost(left);
            warn!(
                url = self.name,
                lost = left,
                "stopping, events not forwarded"
            );
        }
    }
}
