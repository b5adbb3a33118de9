//! The old process's side: it gives away what it has, and ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::link::{Link, MAX_FILES};
use super::protocol::{self, Moved, OLDEST, VERSION};
use super::{PATIENCE, Post};
use crate::endpoint::fanout::moving::{Held, Position};
use crate::endpoint::websocket::input::Unheard;
use crate::pause::Pause;
use crate::route::Routes;
use crate::route::served::Served;
use crate::shutdown::Stop;
use crate::stream::export::Page;
use crate::wire::Format;

/// Events go out in frames of about so many bytes.
const FRAME: usize = 1 << 20;
/// So long a subscriber may take to come to the end of a message, while events flow as ever and its own wait.
const LETTING_GO: Duration = Duration::from_secs(1);
/// The same for a request that has a name and is on its way to a bus.
const NAMING: Duration = Duration::from_millis(250);
/// Nothing moves for at most so long; then it goes on here.
const STANDSTILL: Duration = Duration::from_secs(5);
/// Where subscribers stand is said for so many at a time.
const POSITIONS: usize = 2_000;
/// Who has been let in just before, and has not asked for anything yet, is still answered for so long: to come again.
const GRACE: Duration = Duration::from_secs(1);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives everything away to the next process that asks for it.
pub struct Giver {
    /// Where that asks.
    pub post: Post,
    /// Where clients come, as this process was told.
    pub address: String,
    /// What that stands for.
    pub addresses: Vec<SocketAddr>,
    /// The sockets.
    pub serving: Vec<OwnedFd>,
    /// Those for administration.
    pub admin: Vec<OwnedFd>,
    /// What there is.
    pub routes: Arc<Routes>,
    /// While it is on, nobody is let in.
    pub doors: Arc<Pause>,
    /// Stops the process.
    pub stop: Stop,
    /// Cancelled, before that, when another process has taken over.
    pub replaced: CancellationToken,
}

/// What is on its way.
struct Going {
    /// All streams there are.
    streams: Vec<Arc<Served>>,
    /// Those that go, by their numbers, and up to where their events have gone out.
    wanted: Vec<(usize, u64)>,
    /// The subscribers, in the order of their sockets, and whether they go: where others could go on with them has been said.
    held: Vec<(Held, bool)>,
}

/// Nobody is let in, and once it has [frozen](Self::freeze) them, nothing moves in the streams that go. When it is dropped everything
/// goes on.
struct Standstill<'a> {
    giver: &'a Giver,
    frozen: Vec<Arc<Served>>,
}

impl<'a> Standstill<'a> {
    fn new(giver: &'a Giver) -> Self {
        giver.doors.begin();
        Self {
            giver,
            frozen: Vec::new(),
        }
    }

    fn freeze(&mut self, streams: Vec<Arc<Served>>) {
        self.giver.routes.pause().begin();
        streams.iter().for_each(|stream| stream.log.seal());
        self.frozen = streams;
    }

    /// Another process goes on: the logs take nothing more, and sources that move again find that they have to end. Nobody is let in
    /// as long as there is this.
    fn keep(&mut self) {
        self.frozen.clear();
        self.giver.routes.pause().end();
    }
}

impl Drop for Standstill<'_> {
    fn drop(&mut self) {
        self.frozen.iter().for_each(|stream| stream.log.unseal());
        self.giver.routes.pause().end();
        self.giver.doors.end();
    }
}

impl Giver {
    /// Waits for the next process, from now on until the process stops or another one has taken over.
    pub fn start(mut self) -> JoinHandle<()> {
        if let Err(error) = self.post.open() {
            let error = format!("{error:#}");
            warn!(%error, "no other process can take over from this one");
        }
        tokio::spawn(self.run())
    }

    async fn run(self) {
        while let Some(accepted) = self
            .stop
            .begun()
            .run_until_cancelled(self.post.accept())
            .await
        {
            let given = match accepted {
                Ok(socket) => self.give(Link::new(socket)).await,
                Err(error) => {
                    sleep(PAUSE).await;
                    Err(error.into())
                }
            };
            match given {
                Ok(()) => return self.post.leave(),
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(%error, "not handed over, this instance goes on");
                }
            }
        }
    }

    async fn give(&self, mut link: Link) -> Result<()> {
        let begun = Instant::now();
        let mut standstill = None;
        let going = async {
            let mut going = timeout(PATIENCE, self.introduce(&mut link))
                .await
                .context("the new process does not say what it wants")??;
            // Twice: what comes during the first round is less than what was there before.
            for _ in 0..2 {
                going.send_events(&mut link).await?;
            }
            standstill = Some(Standstill::new(self));
            going.send_subscribers(&mut link).await?;
            anyhow::Ok(going)
        };
        let mut going = self.unless_stopped(going).await?;
        let mut standstill = standstill.context("it has just begun")?;
        let still = Instant::now();
        standstill.freeze(going.going());
        let finishing = async {
            going.finish(&mut link).await?;
            await_taken(&mut link).await
        };
        let finishing = timeout(STANDSTILL, self.unless_stopped(finishing));
        let finished = finishing.await.context("the new process takes too long");
        if let Err(error) = finished.flatten() {
            link.close();
            // It may have been said in that very moment.
            if await_taken(&mut link).await.is_err() {
                return Err(error);
            }
        }
        let silence = still.elapsed();
        let subscribers = going.held.iter().filter(|(_, goes)| *goes).count();
        let streams = going.wanted.len();
        self.leave(going);
        info!(streams, subscribers, ?silence, took = ?begun.elapsed(), "handed over to another process");
        standstill.keep();
        self.stop.begun().run_until_cancelled(sleep(GRACE)).await;
        self.stop.now();
        Ok(())
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = self.stop.begun().run_until_cancelled(work).await;
        done.context("this instance stops")?
    }

    /// What has been given away ends here without a word, and the rest is told to come again.
    fn leave(&self, going: Going) {
        for (held, goes) in going.held {
            if goes {
                held.give();
            }
        }
        self.replaced.cancel();
        self.routes.retire();
    }

    /// Says what there is, and learns what of it is to go.
    async fn introduce(&self, link: &mut Link) -> Result<Going> {
        link.greet().await?;
        ensure!(link.is_greeted().await?, "whoever asked has gone at once");
        let frame = link.receive().await?;
        ensure!(
            frame.kind == protocol::HELLO,
            "the new process does not say who it is"
        );
        let hello: protocol::Hello = frame.head()?;
        let version = match self.suits(&hello) {
            Ok(version) => version,
            Err(reason) => {
                let refused = protocol::Refused {
                    reason: reason.clone(),
                };
                link.send(protocol::REFUSED, &refused, &[], &[]).await?;
                bail!(reason);
            }
        };
        let routes = self.routes.all();
        let streams = routes.iter().flat_map(|route| route.streams(""));
        let streams: Vec<_> = streams.collect();
        let known = streams.iter().map(|stream| protocol::Stream {
            name: stream.name.clone(),
            pattern: stream.policy.pattern.to_string(),
            shape: stream.policy.shape(),
            origin: stream.log.origin().0,
            began: stream.log.began(),
        });
        let here = protocol::Here {
            version,
            instance: self.routes.instance().0,
            serving: self.serving.len(),
            admin: self.admin.len(),
            streams: known.collect(),
        };
        let sockets = self.serving.iter().chain(&self.admin);
        let sockets: Vec<_> = sockets.map(AsFd::as_fd).collect();
        link.send(protocol::HERE, &here, &[], &sockets).await?;
        let wanted: protocol::Wanted = loop {
            let frame = link.receive().await?;
            if frame.kind == protocol::WANTED {
                break frame.head()?;
            }
        };
        let wanted = wanted.streams.into_iter();
        let wanted = wanted.filter(|number| *number < streams.len());
        Ok(Going {
            wanted: wanted.map(|number| (number, 0)).collect(),
            streams,
            held: Vec::new(),
        })
    }

    /// The version to speak, or why the new process cannot take over.
    fn suits(&self, hello: &protocol::Hello) -> Result<u32, String> {
        let version = hello.version.min(VERSION);
        if version < hello.oldest.max(OLDEST) {
            return Err(format!(
                "the new process speaks versions {} to {} of the takeover protocol, the running one {OLDEST} to {VERSION}: stop that and start anew",
                hello.oldest, hello.version
            ));
        }
        let sorted = |addresses: &[SocketAddr]| {
            let mut addresses = addresses.to_vec();
            addresses.sort_unstable();
            addresses
        };
        let is_same =
            hello.address == self.address || sorted(&hello.addresses) == sorted(&self.addresses);
        if !is_same {
            return Err(format!(
                "the running instance listens on {}, and this one is to listen on {}: the address must be the same",
                self.address, hello.address
            ));
        }
        Ok(version)
    }
}

impl Going {
    fn going(&self) -> Vec<Arc<Served>> {
        let wanted = self.wanted.iter();
        wanted
            .map(|(number, _)| self.streams[*number].clone())
            .collect()
    }

    /// Sends the events that have not gone out yet.
    async fn send_events(&mut self, link: &mut Link) -> Result<()> {
        for (number, next) in &mut self.wanted {
            let stream = &self.streams[*number];
            loop {
                let Page {
                    entries,
                    next: behind,
                    is_last,
                } = stream.log.page(*next, FRAME);
                *next = behind;
                if !entries.is_empty() {
                    let mut body = Vec::new();
                    let events = entries.into_iter();
                    let events = protocol::Events {
                        stream: *number,
                        events: events.map(|entry| Moved::new(entry, &mut body)).collect(),
                    };
                    let sending = link.send(protocol::EVENTS, &events, &body, &[]);
                    patiently(sending).await?;
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Has subscribers let go of, and sends their sockets.
    async fn send_subscribers(&mut self, link: &mut Link) -> Result<()> {
        let (collector, mut collected) = mpsc::unbounded_channel();
        let mut numbers = HashMap::new();
        for (number, _) in &self.wanted {
            let stream = &self.streams[*number];
            stream.hold(&collector);
            numbers.insert(stream.name.clone(), *number);
        }
        // Once all that are to have said so have, there is none left.
        drop(collector);
        let mut batch = Vec::new();
        loop {
            batch.clear();
            let some = collected.recv_many(&mut batch, MAX_FILES);
            if timeout(LETTING_GO, some).await.unwrap_or(0) == 0 {
                return Ok(());
            }
            let subscribers = batch.iter().map(|held: &Held| protocol::Subscriber {
                stream: numbers.get(held.path()).copied().unwrap_or(usize::MAX),
                hop: held.format() == Format::Hop,
                address: held.address(),
                connected_for: micros(held.connected_for()),
                remaining: held.remaining.map(micros),
                publish: held.publish.clone().ok().map(Into::into),
                without_right: held.publish == Err(Unheard::WithoutRight),
            });
            let subscribers = protocol::Subscribers {
                subscribers: subscribers.collect(),
            };
            let sockets: Vec<_> = batch.iter().map(Held::socket).collect();
            patiently(link.send(protocol::SUBSCRIBERS, &subscribers, &[], &sockets)).await?;
            self.held.extend(batch.drain(..).map(|held| (held, false)));
        }
    }

    /// Sends what is left once nothing moves.
    async fn finish(&mut self, link: &mut Link) -> Result<()> {
        self.send_events(link).await?;
        let mut firsts = HashMap::new();
        for (number, _) in &self.wanted {
            let stream = &self.streams[*number];
            let summary = stream.log.summary();
            firsts.insert(stream.name.clone(), summary.first);
            let names = match &stream.publisher {
                Some(publisher) => timeout(NAMING, publisher.names())
                    .await
                    .context("a bus takes too long")?,
                None => None,
            };
            let upstreams = stream.via.upstreams().into_iter();
            let rest = protocol::Rest {
                stream: *number,
                summary,
                names,
                sources: upstreams
                    .map(|upstream| (upstream.url.clone(), upstream.met().clone()))
                    .collect(),
            };
            link.send(protocol::REST, &rest, &[], &[]).await?;
        }
        for some in self.held.chunks_mut(POSITIONS) {
            let (mut positions, mut body) = (Vec::new(), Vec::new());
            for (held, goes) in some {
                let first = firsts.get(held.path());
                let position = first.and_then(|first| held.settle(*first));
                *goes = position.is_some();
                positions.push(position.map(|position| said(&position, &mut body)));
            }
            let positions = protocol::Positions { positions };
            link.send(protocol::POSITIONS, &positions, &body, &[])
                .await?;
        }
        let done = protocol::Done {
            subscribers: self.held.len(),
        };
        link.send(protocol::END, &done, &[], &[]).await
    }
}

fn said(position: &Position, body: &mut Vec<u8>) -> protocol::Position {
    body.extend_from_slice(&position.rest);
    body.extend_from_slice(&position.control);
    protocol::Position {
        index: position.index,
        rest: position.rest.len(),
        control: position.control.len(),
        first: position.first,
        walked: position.walked,
        merged: position.merged,
        sent: position.sent,
    }
}

/// The new process goes on when it has said so.
async fn await_taken(link: &mut Link) -> Result<()> {
    loop {
        let frame = link.next().await?;
        let frame = frame.context("the new process has gone before it could go on")?;
        if frame.kind == protocol::TAKEN {
            return Ok(());
        }
    }
}

async fn patiently(work: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(PATIENCE, work)
        .await
        .context("the new process does not get on")?
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
