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
    follower: Follower,
    own: Option<Origin>,
    figures: Arc<Figures>,
    stop: CancellationToken,
) {
    let forward = Forward {
        name: bus.to_string(),
        own,
        figures,
        presence: Presence::downstream(&bus),
        patience: bus.patience(),
        stuck: None,
    };
    carry(forward, bus.writer(), follower, stop).await;
}

async fn carry(
    mut forward: Forward,
    mut writer: Box<dyn Writer>,
    mut follower: Follower,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new();
    loop {
        let connected = until_stopped(&stop, std::pin::pin!(writer.connect())).await;
        let since = Instant::now();
        let before = forward.figures.counts().events;
        let result = match connected {
            None => return forward.leave(&follower),
            Some(Ok(())) => forward.follow(&mut *writer, &mut follower, &stop).await,
            Some(Err(error)) => Err(error),
        };
        let Err(error) = result else {
            return forward.figures.ended();
        };
        if let Some(ended) = error.downcast_ref::<Ended>() {
            forward.figures.ended();
            return forward.presence.ended(ended.0);
        }
        let reason = forward.presence.lost(&error);
        forward.figures.away(&reason);
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::super::fake::{Deed, Fake, Name};
    use super::super::figures::{Counts, Way};
    use super::*;
    use crate::event::Payload;
    use crate::stream::EventLog;
    use crate::stream::history::Limits;

    struct Running {
        log: Arc<EventLog>,
        bus: Fake,
        figures: Arc<Figures>,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    fn start(away: usize, deeds: impl IntoIterator<Item = Deed>) -> Running {
        let bus = Fake::default();
        bus.with(|server| {
            server.away = away;
            server.deeds.extend(deeds);
        });
        let mut limits = Limits::from(1 << 20);
        limits.count = Some(3);
        let log = Arc::new(EventLog::new(limits));
        let figures = Arc::new(Figures::new("fake".to_owned(), Way::Out));
        let forward = Forward {
            name: "fake".to_owned(),
            own: None,
            figures: figures.clone(),
            presence: Presence::downstream(&Arc::new(Name)),
            patience: None,
            stuck: None,
        };
        let (follower, stop) = (Follower::new(log.clone()), CancellationToken::new());
        let writer = Box::new(bus.clone());
        let task = tokio::spawn(carry(forward, writer, follower, stop.clone()));
        Running {
            log,
            bus,
            figures,
            stop,
            task,
        }
    }

    impl Running {
        fn append(&self, texts: &[&str]) {
            for text in texts {
                self.log.append(Payload::text(*text));
            }
        }

        /// Lets it end with what there is.
        async fn finish(self) -> (Vec<String>, Counts) {
            self.stop.cancel();
            self.task.await.expect("it ends");
            (self.bus.texts(), self.figures.counts())
        }

        async fn has_sent(&self, count: u64) {
            while self.figures.counts().events < count {
                sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_brought_when_the_bus_comes_and_before_the_end() {
        let running = start(3, []);
        running.append(&["a", "b"]);
        running.has_sent(2).await;
        running.append(&["c"]);
        let (texts, counts) = running.finish().await;
        assert_eq!(texts, ["a", "b", "c"]);
        assert_eq!(
            (counts.lost, counts.refused, counts.connected),
            (0, 0, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_confirmed_is_sent_again() {
        let running = start(
            0,
            [Deed::Break {
                taken: 2,
                confirmed: 1,
            }],
        );
        running.append(&["a", "b", "c"]);
        running.has_sent(3).await;
        let (texts, counts) = running.finish().await;
        assert_eq!(texts, ["a", "b", "b", "c"]);
        assert_eq!(counts.events, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_history_let_go_of_or_the_bus_refuses_is_counted() {
        let running = start(2, [Deed::Refuse]);
        running.append(&["a", "b", "c", "d"]);
        running.has_refused(3).await;
        running.append(&["e"]);
        running.has_sent(1).await;
        let (texts, counts) = running.finish().await;
        assert_eq!(texts, ["e"]);
        assert_eq!((counts.lost, counts.refused, counts.events), (1, 3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_without_a_bus_is_lost_and_counted() {
        let running = start(1_000_000, []);
        running.append(&["a", "b"]);
        let (texts, counts) = running.finish().await;
        assert!(texts.is_empty());
        assert_eq!(counts.lost, 2);
    }

    impl Running {
        async fn has_refused(&self, count: u64) {
            while self.figures.counts().refused < count {
                sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    }
}
