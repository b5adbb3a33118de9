//! The hops that a stream comes through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::merge::figures::{Counts, Figures};
use crate::wire::hop::Instance;

/// What this instance knows of the way to where events come from: itself, and what its upstreams say of theirs.
#[derive(Debug)]
pub struct Via {
    own: Instance,
    /// With the numbers of their sources, in that order. There is one, as a rule.
    upstreams: Mutex<Vec<(usize, Upstream)>>,
    /// Woken when an upstream has come, has gone, or has refused.
    changed: Notify,
}

/// What is known of one upstream.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// As it may be shown to anyone.
    pub url: Box<str>,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// Whether there has been one.
    was_connected: bool,
    /// Whether an attempt has failed since.
    has_failed: bool,
    /// How it refuses, since its last connection.
    refusal: Option<Refusal>,
    /// The hops that it leads through, the nearest first, as it told when it was last there.
    path: Vec<Instance>,
    /// What is counted of it, if it is one of several.
    figures: Option<Arc<Figures>>,
}

impl Upstream {
    /// What it has brought, beside what others have; none if there are no others.
    pub fn counts(&self) -> Option<Counts> {
        self.figures.as_ref().map(|figures| figures.counts())
    }

    /// Why it refuses, in one line, if it does.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refusal| &*refusal.reason)
    }
}

/// An upstream that is there, and has said that there is no stream for this hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status of HTTP that says so, to those who wait here: the upstream's own, or 502.
    pub status: u16,
    /// Why, in one line.
    pub reason: Box<str>,
    /// When it was first said.
    pub since: Instant,
}

/// More than this many hops are not told of: it would be a circle.
const LONGEST: usize = 64;

impl Via {
    /// Nothing but this instance.
    pub fn new(own: Instance) -> Self {
        Self {
            own,
            upstreams: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// This instance.
    pub fn own(&self) -> &Instance {
        &self.own
    }

    /// The source with this number leads through `path`, the nearest first. Whether that is new.
    pub fn set(&self, source: usize, path: Vec<Instance>) -> bool {
        // What stands behind this instance has been told from here. In a circle it would go round for ever, and with it whoever is
        // long gone.
        let own = |hop: &Instance| hop.id == self.own.id;
        let path: Vec<_> = path.into_iter().take_while(|hop| !own(hop)).collect();
        let mut upstreams = self.lock();
        let known = &mut of(&mut upstreams, source).path;
        let is_new = *known != path;
        *known = path;
        is_new
    }

    /// There is an upstream for the source with this number, as it may be shown to anyone.
    pub fn expect(&self, source: usize, url: &str) {
        of(&mut self.lock(), source).url = url.into();
    }

    /// This is what is counted of the upstream of the source with this number.
    pub fn counts(&self, source: usize, figures: Arc<Figures>) {
        of(&mut self.lock(), source).figures = Some(figures);
    }

    /// The upstream of the source with this number is there.
    pub fn connected(&self, source: usize) {
        self.change(source, |upstream| {
            upstream.connected = true;
            upstream.was_connected = true;
            upstream.has_failed = false;
            upstream.refusal = None;
        });
    }

    /// It is not there, or no more; `refused` is a status and a reason, if it does not want this hop.
    pub fn lost(&self, source: usize, refused: Option<(u16, String)>) {
        self.change(source, |upstream| {
            upstream.connected = false;
            upstream.has_failed = true;
            let before = upstream.refusal.take();
            upstream.refusal = refused.map(|(status, reason)| Refusal {
                status,
                reason: reason.into(),
                since: before.map_or_else(Instant::now, |refusal| refusal.since),
            });
        });
    }

    fn change(&self, source: usize, change: impl FnOnce(&mut Upstream)) {
        change(of(&mut self.lock(), source));
        self.changed.notify_waiters();
    }

    /// Waits, for `patience` at most, until it is known whether there is a stream: an error if no upstream has one for this hop.
    /// One that is away may have.
    pub async fn verdict(&self, patience: Duration) -> Result<(), Refusal> {
        let known = self.until(|upstreams| {
            let may_have = |upstream: &&Upstream| {
                upstream.connected || upstream.has_failed && upstream.refusal.is_none()
            };
            if upstreams
                .iter()
                .map(|(_, upstream)| upstream)
                .any(|upstream| may_have(&upstream))
            {
                return Some(Ok(()));
            }
            let mut refusals = upstreams
                .iter()
                .map(|(_, upstream)| upstream)
                .map(|upstream| &upstream.refusal);
            let first = refusals
                .next()
                .map_or(Some(Ok(())), |first| first.clone().map(Err))?;
            refusals.all(Option::is_some).then_some(first)
        });
        timeout(patience, known).await.unwrap_or(Ok(()))
    }

    /// Waits until all upstreams refuse. Of one that was there before, the word counts only after `patience`.
    #[expect(
        clippy::manual_async_fn,
        reason = "that would hold its arguments twice"
    )]
    pub fn refused(&self, patience: Duration) -> impl Future<Output = Refusal> {
        async move {
            loop {
                let (refusal, doubted) = self
                    .until(|upstreams| {
                        let refusals = upstreams
                            .iter()
                            .map(|(_, upstream)| upstream)
                            .map(|upstream| upstream.refusal.clone());
                        let refusals: Option<Vec<_>> = refusals.collect();
                        let refusal = refusals?.into_iter().max_by_key(|refusal| refusal.since)?;
                        let doubted = upstreams
                            .iter()
                            .map(|(_, upstream)| upstream)
                            .any(|upstream| upstream.was_connected);
                        Some((refusal, doubted))
                    })
                    .await;
                let left = patience.saturating_sub(refusal.since.elapsed());
                if !doubted || left.is_zero() {
                    return refusal;
                }
                drop(refusal);
                let takes_it_back = self.until(|upstreams| {
                    let refuses = |upstream: &Upstream| upstream.refusal.is_some();
                    (!upstreams.iter().map(|(_, upstream)| upstream).all(refuses)).then_some(())
                });
                // Seldom, so it is in a box meanwhile.
                let _ = Box::pin(timeout(left, takes_it_back)).await;
            }
        }
    }

    async fn until<T>(&self, find: impl Fn(&[(usize, Upstream)]) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Register, then check, then sleep.
            changed.as_mut().enable();
            if let Some(found) = find(&self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    /// All upstreams, in the order of their sources.
    pub fn upstreams(&self) -> Vec<Upstream> {
        self.lock()
            .iter()
            .map(|(_, upstream)| upstream.clone())
            .collect()
    }

    /// All hops, this one first, each once.
    pub fn path(&self) -> Vec<Instance> {
        let mut path = vec![self.own.clone()];
        for hop in self.lock().iter().flat_map(|(_, upstream)| &upstream.path) {
            if path.len() < LONGEST && path.iter().all(|known| known.id != hop.id) {
                path.push(hop.clone());
            }
        }
        path
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Upstream)>> {
        self.upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The upstream of the source with this number.
fn of(upstreams: &mut Vec<(usize, Upstream)>, source: usize) -> &mut Upstream {
    let at = match upstreams.binary_search_by_key(&source, |(number, _)| *number) {
        Ok(at) => at,
        Err(at) => {
            upstreams.reserve_exact(1);
            upstreams.insert(at, (source, Upstream::default()));
            at
        }
    };
    &mut upstreams[at].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    fn hop(id: u64) -> Instance {
        Instance {
            id: Origin(id),
            address: format!("host:{id}").into(),
        }
    }

    #[test]
    fn each_hop_is_there_once() {
        let via = Via::new(hop(1));
        via.set(0, vec![hop(2), hop(3)]);
        via.set(1, vec![hop(4), hop(3), hop(1)]);
        assert_eq!(via.path(), [1, 2, 3, 4].map(hop));
        assert!(via.set(0, vec![hop(5)]));
        assert!(!via.set(0, vec![hop(5)]));
        assert_eq!(via.path(), [1, 5, 4, 3].map(hop));
    }

    /// Each tells the next what it knows, until nobody learns anything.
    #[test]
    fn who_has_gone_from_a_ring_is_forgotten() {
        let vias: Vec<_> = (0..4).map(|id| Via::new(hop(id))).collect();
        vias[0].set(0, vec![hop(3), hop(2), hop(9)]);
        let mut told = 0;
        let mut quiet = 0;
        for at in (0..4).cycle() {
            let path = vias[at].path();
            quiet = match vias[(at + 1) % 4].set(0, path) {
                true => 0,
                false => quiet + 1,
            };
            told += 1;
            assert!(told < 40, "it goes round for ever");
            if quiet == 4 {
                break;
            }
        }
        assert_eq!(vias[0].path(), [0, 3, 2, 1].map(hop));
    }

    #[test]
    fn an_upstream_that_is_away_keeps_its_path() {
        let via = Via::new(hop(1));
        let states = || -> Vec<_> {
            let upstreams = via.upstreams().into_iter();
            upstreams.map(|up| (up.url, up.connected)).collect()
        };
        assert_eq!(states(), []);
        via.expect(1, "ws://b/");
        via.expect(0, "ws://a/");
        via.connected(0);
        via.set(0, vec![hop(2)]);
        assert_eq!(
            states(),
            [("ws://a/".into(), true), ("ws://b/".into(), false)]
        );
        via.lost(0, None);
        via.connected(1);
        assert_eq!(
            states(),
            [("ws://a/".into(), false), ("ws://b/".into(), true)]
        );
        assert_eq!(via.path(), [1, 2].map(hop));
    }

    fn refusal() -> Option<(u16, String)> {
        Some((404, "no such stream".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_is_that_of_all_upstreams() {
        const PATIENCE: Duration = Duration::from_secs(5);
        let status = async |via: &Via| via.verdict(PATIENCE).await.map_err(|no| no.status);
        let via = Via::new(hop(1));
        assert_eq!(status(&via).await, Ok(()), "nothing to wait for");
        via.expect(0, "ws://a/");
        via.expect(1, "ws://b/");
        let start = Instant::now();
        assert_eq!(status(&via).await, Ok(()), "patience has an end");
        assert_eq!(start.elapsed(), PATIENCE);
        via.lost(0, refusal());
        let (verdict, ()) = tokio::join!(status(&via), async { via.lost(1, refusal()) });
        assert_eq!(verdict, Err(404));
        via.lost(1, None);
        assert_eq!(status(&via).await, Ok(()), "one is merely away");
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_there_is_not_believed_at_once() {
        const PATIENCE: Duration = Duration::from_millis(20);
        let via = Via::new(hop(1));
        via.expect(0, "ws://a/");
        via.lost(0, refusal());
        assert_eq!(via.refused(PATIENCE).await.status, 404);
        via.connected(0);
        via.lost(0, refusal());
        let refused = via.refused(PATIENCE).await;
        assert!(refused.since.elapsed() >= PATIENCE);
    }
}
