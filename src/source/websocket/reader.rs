//! Reads one connection after another of the same upstream into the log.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::Destination;
use super::login::{Login, Talk};
use super::{Connected, Heartbeat, Link, close, complaint, payload};
use crate::event::{Event, Gap, Payload, Snapshot};
use crate::shutdown::until_stopped;
use crate::source::upstream::Upstream;
use crate::stream::EventLog;
use crate::wire::Format;
use crate::wire::hop::{self, Begin, Control, Hello, Instance, StateWish, Welcome};

/// How long a hop may take to answer a hello. One that waits for its own upstream takes a few seconds.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// More notices than this are not kept at once: there is at most one for each origin.
const MAX_GAPS: usize = 1_000;

/// What is known of an upstream from one connection to the next.
pub struct Reader<'a> {
    to: &'a Destination,
    /// The largest event taken, in bytes.
    max_message_size: usize,
    /// Whether there has been a connection before.
    has_met: bool,
    /// Events since they were last counted.
    count: u64,
    /// Messages that were to be ignored.
    ignored: u64,
    /// To be told with the event that they name as the next, or with whatever comes next.
    gaps: Vec<Gap>,
    /// What has come so far of a past that is not all here.
    past: Option<Past>,
    /// What comes is the state that the upstream keeps.
    is_state: bool,
    /// All of that has come once.
    has_state: bool,
}

/// Events that were in the upstream's log before this one began.
struct Past {
    /// So many of the upstream's backlog are still to come.
    left: u64,
    events: VecDeque<Event>,
    bytes: usize,
}

impl<'a> Reader<'a> {
    /// Nothing has been read yet, by this process.
    pub fn new(to: &'a Destination, max_message_size: usize) -> Self {
        let met = to.via.met(to.number);
        if met.is_met {
            to.log.past_is_settled();
        }
        Self {
            to,
            max_message_size,
            has_met: met.is_met,
            count: 0,
            ignored: 0,
            gaps: Vec::new(),
            past: None,
            is_state: false,
            has_state: met.has_state,
        }
    }

    /// How many events have come since this was last asked.
    pub fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }

    /// Reads one connection to its end, which is an error, or until `stop` is cancelled. `tell` is called once the server has
    /// shown what it is.
    pub async fn read(
        &mut self,
        connected: &mut Connected,
        upstream: &Upstream,
        tell: impl FnOnce(),
        stop: &CancellationToken,
    ) -> Result<()> {
        let Connected { link, is_hop, .. } = connected;
        let result = {
            let following = pin!(self.follow(link, upstream, *is_hop, tell));
            match until_stopped(stop, following).await {
                Some(error) => Err(error),
                None => Ok(()),
            }
        };
        // What has come of it is better than nothing, and the next connection goes on from there.
        if self.past.is_some() {
            self.settle_past();
        }
        let farewell = match &result {
            Ok(()) => Some(CloseFrame {
                code: CloseCode::Away,
                reason: "stopping".into(),
            }),
            Err(error) => complaint(error),
        };
        close(link, farewell).await;
        result
    }

    /// Takes what comes until the connection ends, and says how it did.
    async fn follow(
        &mut self,
        link: &mut Link,
        upstream: &Upstream,
        is_hop: bool,
        tell: impl FnOnce(),
    ) -> anyhow::Error {
        let mut heartbeat = Heartbeat::new(upstream.ping_interval);
        let begun = match is_hop {
            true => Box::pin(self.begin_hop(link, &mut heartbeat)).await,
            false => Box::pin(self.begin_raw(link, &mut heartbeat, &upstream.talk)).await,
        };
        if let Err(error) = begun {
            return error;
        }
        tell();
        loop {
            let message = match heartbeat.next(link).await {
                Ok(message) => message,
                Err(error) => return error,
            };
            // Whatever else has already arrived is taken at once.
            let mut arrived = Some(message);
            while let Some(message) = arrived {
                let taken = match payload(message) {
                    Ok(Some(payload)) if is_hop => self.take(payload),
                    Ok(Some(payload)) => {
                        self.take_raw(payload, &upstream.talk);
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if let Err(error) = taken {
                    return error;
                }
                arrived = link.next().now_or_never();
            }
        }
    }

    async fn begin_raw(
        &mut self,
        link: &mut Link,
        heartbeat: &mut Heartbeat,
        talk: &Talk,
    ) -> Result<()> {
        if self.has_met {
            // What such a server has sent meanwhile, nobody knows.
            self.gaps = vec![Gap {
                after: self.to.log.last().map(|id| id.to_string().into()),
                next: None,
                lost: None,
            }];
        }
        let mut login = Login::new(talk);
        while let Some(payload) = login.next(link, heartbeat).await? {
            self.note_met();
            self.take_raw(payload, talk);
        }
        self.note_met();
        Ok(())
    }

    /// Takes one message of a foreign WebSocket.
    fn take_raw(&mut self, payload: Payload, talk: &Talk) {
        if talk.ignores(&payload) {
            self.ignored += 1;
            let (number, ignored) = (self.to.number, self.ignored);
            debug!(upstream = number, ignored, "message ignored");
            return;
        }
        self.count += 1;
        self.to.log.append_with_gap(payload, self.gaps.pop());
    }

    async fn begin_hop(&mut self, link: &mut Link, heartbeat: &mut Heartbeat) -> Result<()> {
        let hello = Control::Hello(Hello {
            id: Some(self.to.log.origin()),
            have: self.to.log.have(),
            from: match self.has_met {
                true => Begin::First,
                false => Begin::All,
            },
            state: match (self.to.log.retains(), self.has_state) {
                (false, _) => StateWish::No,
                (true, false) => StateWish::Yes,
                (true, true) => StateWish::Missed,
            },
        });
        link.send(Message::text(hello.to_string())).await?;
        let welcome = async {
            loop {
                if let Some(payload) = payload(heartbeat.next(link).await?)? {
                    return match hop::decode(payload) {
                        Ok(hop::Message::Control(Control::Welcome(welcome))) => Ok(welcome),
                        _ => bail!("the upstream does not answer as a hop does"),
                    };
                }
            }
        };
        let Welcome { path, backlog, .. } = match timeout(WELCOME_TIMEOUT, welcome).await {
            Ok(welcome) => welcome?,
            Err(_) => bail!("the upstream does not welcome this hop"),
        };
        self.set_path(path);
        self.gaps.clear();
        self.is_state = false;
        self.past = Some(Past {
            left: backlog,
            events: VecDeque::new(),
            bytes: 0,
        });
        if backlog == 0 {
            self.settle_past();
        }
        Ok(())
    }

    /// Takes one message of a hop link.
    fn take(&mut self, payload: Payload) -> Result<()> {
        match hop::decode(payload)? {
            hop::Message::Event(event) => {
                self.count += 1;
                let len = event.payload.bytes.len();
                let is_too_large = len > self.max_message_size;
                if is_too_large {
                    // Refused with the connection, it would come again with the next one. The event behind it shows the gap.
                    warn!(id = %event.id, len, "an event above --max-message-size is passed over");
                }
                if self.is_state {
                    if !is_too_large {
                        self.adopt(event);
                    }
                    return Ok(());
                }
                if let Some(past) = &mut self.past {
                    past.left = past.left.saturating_sub(1);
                    let is_last = past.left == 0;
                    // What has happened since this log began is news here, as it is to those who have been waiting for it. So
                    // is what goes on where the last connection ended, whatever the clock at the origin says.
                    let log = &self.to.log;
                    if is_too_large || event.time < log.began() && !log.goes_on_with(event.id) {
                        if !is_too_large {
                            past.push(event, log);
                        }
                        if is_last {
                            self.settle_past();
                        }
                        return Ok(());
                    }
                    self.settle_past();
                }
                if is_too_large {
                    return Ok(());
                }
                let is_before = |gap: &Gap| gap.next.is_none_or(|next| next == event.id);
                let at = self.gaps.iter().position(is_before);
                let gap = at.map(|at| self.gaps.swap_remove(at));
                self.to.log.relay(event, gap);
            }
            hop::Message::Control(Control::Gap(gap)) if self.gaps.len() < MAX_GAPS => {
                self.gaps.push(gap);
            }
            hop::Message::Control(Control::Path(path)) => self.set_path(path),
            hop::Message::Control(Control::Snapshot(boundary)) => {
                self.is_state = matches!(boundary, Snapshot::Begin { .. });
                self.has_state |= !self.is_state;
                let (via, has_state) = (&self.to.via, self.has_state);
                via.note_met(self.to.number, |met| met.has_state = has_state);
            }
            hop::Message::Control(_) | hop::Message::Unknown => {}
        }
        Ok(())
    }

    /// Takes one event of the state that the upstream keeps.
    fn adopt(&mut self, event: Event) {
        // Should it be news, what is missing behind it shows by the ids.
        self.gaps
            .retain(|gap| gap.next.is_none_or(|next| next.origin != event.id.origin));
        self.to.log.adopt(event);
    }

    /// Lets the hops downstream know, too, when the path has changed.
    fn set_path(&self, path: Vec<Instance>) {
        let Destination {
            log, via, number, ..
        } = self.to;
        if via.set(*number, path) {
            let mut frame = Vec::new();
            hop::encode_control(&Control::Path(via.path()), &mut frame);
            log.announce(Format::Hop, &frame);
        }
    }

    /// What is to come from here on is news.
    fn settle_past(&mut self) {
        if let Some(past) = self.past.take() {
            self.to.log.backfill(past.events);
        }
        self.note_met();
    }

    fn note_met(&mut self) {
        if !std::mem::replace(&mut self.has_met, true) {
            let (via, number) = (&self.to.via, self.to.number);
            via.note_met(number, |met| met.is_met = true);
            self.to.log.past_is_settled();
        }
    }
}

impl Past {
    /// Takes the next event, and keeps no more bytes of the newest than `log` will. What goes may still be state.
    fn push(&mut self, event: Event, log: &EventLog) {
        let capacity = log.capacity();
        self.bytes += event.payload.bytes.len() + size_of::<Event>();
        self.events.push_back(event);
        while self.bytes > capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.payload.bytes.len() + size_of::<Event>();
            if log.retains() {
                log.adopt(oldest);
            }
        }
    }
}
