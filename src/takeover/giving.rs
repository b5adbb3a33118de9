//! The old process's side: it gives away what it has, and ends.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::going::Going;
use super::link::Link;
use super::protocol::{self, OLDEST, VERSION};
use super::standstill::Standstill;
use super::{PATIENCE, Post};
use crate::pause::Pause;
use crate::route::Routes;
use crate::shutdown::Stop;

/// Nothing moves for at most so long; then it goes on here.
const STANDSTILL: Duration = Duration::from_secs(5);
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
            standstill = Some(Standstill::begin(&self.routes, &self.doors));
            going.send_subscribers(&mut link).await?;
            anyhow::Ok(going)
        };
        let mut going = self.unless_stopped(going).await?;
        let mut standstill = standstill.context("it has just begun")?;
        let still = Instant::now();
        standstill.freeze(going.streams());
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
        let (streams, subscribers) = (going.streams().len(), going.subscribers());
        standstill.keep();
        info!(streams, subscribers, ?silence, took = ?begun.elapsed(), "handed over to another process");
        // The other one goes on first: subscribers wait for that, and for nothing here.
        let goes_on = timeout(GRACE, link.is_over());
        self.stop.begun().run_until_cancelled(goes_on).await;
        self.leave(going);
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
        going.give();
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
        let count = streams.len();
        let wanted = wanted.filter(|number| *number < count);
        Ok(Going::new(streams, wanted))
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
