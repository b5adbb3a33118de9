//! The hops that a stream comes through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::merge::figures::{Counts, Figures};
use crate::event::Origin;
use crate::wire::hop::Instance;

/// What this instance knows of the way to where events come from: itself, and what its upstreams say of theirs.
#[derive(Debug)]
pub struct Via {
    own: Instance,
    /// With the numbers of their sources, in that order. There is one, as a rule.
    upstreams: Mutex<Vec<(usize, Upstream)>>,
    /// Woken when an upstream has come, has gone, or has refused.
    changed: Notify,
    /// None before those downstream have been told of a change.
    telling: Mutex<Option<Box<Telling>>>,
}

/// Those downstream are told of a new path no more often than this. A hop that has gone goes round rings until it is [too far](LONGEST), and
/// round several at once each round would make more rounds, if everybody told everything at once.
pub const PACE: Duration = Duration::from_millis(200);

/// When those downstream are told of the path.
#[derive(Debug)]
struct Telling {
    /// When they were last.
    last: Instant,
    /// They are going to be told again, whatever it is then.
    is_due: bool,
}

impl Telling {
    fn at(now: Instant) -> Self {
        Self {
            last: now,
            is_due: false,
        }
    }
}

/// When those downstream are to be told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// At once.
    Now,
    /// [Again](Via::tell_again) at this time, as they have just been told.
    Later(Instant),
    /// Somebody is going to do so.
    IsDue,
}

/// What an upstream is to a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// What the stream is made of.
    #[default]
    Consumed,
    /// An instance like this one: the stream goes on without.
    Peer,
    /// The same, at an address that a name stands for at the moment.
    NamedPeer,
    /// Used only while the others are away.
    Standby,
}

impl Role {
    /// Whether it is an instance like this one.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Peer | Self::NamedPeer)
    }
}

/// What is known of one upstream.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// As it may be shown to anyone.
    pub url: Box<str>,
    /// What it is to the stream.
    pub role: Role,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// Whether events that were there before the connection are still on their way.
    pub is_behind: bool,
    /// Whether it is this stream itself, that is none.
    is_itself: bool,
    /// Whether there has been one.
    was_connected: bool,
    /// Whether an attempt has failed since.
    has_failed: bool,
    /// How it refuses, since its last connection.
    refusal: Option<Refusal>,
    /// Why there is no connection, in one line.
    pub reason: Option<Box<str>>,
    /// How events are carried, since the last handshake: `hop`, `websocket`, `sse` or `ndjson`.
    pub transport: Option<&'static str>,
    /// The instance behind it, since the last handshake, if it is a wsevent.
    instance: Option<Origin>,
    /// Whether it has told the past of the stream.
    has_told: bool,
    /// The hops that it leads through, the nearest first, as it told when it was last there.
    path: Vec<Instance>,
    /// What a source has to know when it goes on.
    met: Met,
    /// What is counted of it, if it is one of several.
    figures: Option<Arc<Figures>>,
    /// How often there has been a connection.
    pub connects: u64,
    /// How often an attempt to connect has failed, or a connection has ended.
    pub failures: u64,
}

/// What a source has to know of its upstream when it goes on, in this process or in another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Met {
    /// Whether there has been a connection.
    pub is_met: bool,
    /// Whether the state that it keeps has come as a whole.
    #[serde(default)]
    pub has_state: bool,
    /// The last id that it gave, if it numbers its events itself.
    #[serde(default)]
    pub last_event_id: Option<Box<str>>,
}

impl Upstream {
    /// The instance behind it, if it is a wsevent: the origin of the stream that comes from there.
    pub fn instance(&self) -> Option<Origin> {
        let nearest = self.path.first().map(|nearest| nearest.id);
        self.instance.or(nearest)
    }

    /// Where that serves, in its own words, if it has told.
    pub fn address(&self) -> Option<&str> {
        let nearest = self.path.first();
        let nearest = nearest.filter(|nearest| Some(nearest.id) == self.instance());
        nearest.map(|nearest| &*nearest.address)
    }

    /// Whether the last attempt to connect has failed, or the connection has ended.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// What its source has to know when it goes on.
    pub fn met(&self) -> &Met {
        &self.met
    }

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

/// More than this many hops are not told of, nor any that are so far away: it would be a circle.
const LONGEST: usize = 64;

/// What comes of a new path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The hops are now these, for those downstream to know; none if they are what they were.
    pub path: Option<Vec<Instance>>,
    /// Those that what peers get from here comes through, if they are others than before.
    pub local_path: Option<Vec<Instance>>,
    /// The only upstream leads through this instance itself now, and did not before.
    pub is_circle: bool,
}

impl Via {
    /// Nothing but this instance.
    pub fn new(own: Instance) -> Self {
        Self {
            own,
            upstreams: Mutex::default(),
            changed: Notify::new(),
            telling: Mutex::default(),
        }
    }

    /// This instance.
    pub fn own(&self) -> &Instance {
        &self.own
    }

    /// The source with this number leads through `path`, the nearest first. `tell` is given what comes of that, and those who
    /// are told by it hear of changes in their order.
    pub fn set(&self, source: usize, path: Vec<Instance>, tell: impl FnOnce(Change)) {
        let mut upstreams = self.lock();
        let paths = |upstreams: &[(usize, Upstream)]| {
            let all = self.path_through(upstreams, |_| true);
            (all, self.path_through(upstreams, |role| !role.is_peer()))
        };
        let (before, local_before) = paths(&upstreams);
        let was_circle = self.is_circle(&upstreams);
        of(&mut upstreams, source).path = path;
        let (after, local_after) = paths(&upstreams);
        tell(Change {
            path: (after != before).then_some(after),
            local_path: (local_after != local_before).then_some(local_after),
            is_circle: !was_circle && self.is_circle(&upstreams),
        });
    }

    /// When those downstream are to be told of a change that has just been made.
    pub fn when_to_tell(&self) -> Tell {
        let mut telling = self.telling();
        let now = Instant::now();
        if let Some(telling) = telling
            .as_mut()
            .filter(|it| it.is_due || it.last + PACE > now)
        {
            return match std::mem::replace(&mut telling.is_due, true) {
                true => Tell::IsDue,
                false => Tell::Later(telling.last + PACE),
            };
        }
        *telling = Some(Box::new(Telling::at(now)));
        Tell::Now
    }

    /// What was to be told later is: `tell` is given the path, and that of what peers get from here.
    pub fn tell_again(&self, tell: impl FnOnce(Vec<Instance>, Vec<Instance>)) {
        let upstreams = self.lock();
        *self.telling() = Some(Box::new(Telling::at(Instant::now())));
        tell(
            self.path_through(&upstreams, |_| true),
            self.path_through(&upstreams, |role| !role.is_peer()),
        );
    }

    fn telling(&self) -> MutexGuard<'_, Option<Box<Telling>>> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is one upstream, and what comes from there has been here.
    fn is_circle(&self, upstreams: &[(usize, Upstream)]) -> bool {
        let [(_, only)] = upstreams else { return false };
        only.path.iter().any(|hop| hop.id == self.own.id)
    }

    /// A handshake has shown how events come from the source with this number, and from which instance, if it is a wsevent.
    pub fn leads_to(&self, source: usize, transport: &'static str, instance: Option<Origin>) {
        let mut upstreams = self.lock();
        let upstream = of(&mut upstreams, source);
        upstream.transport = Some(transport);
        upstream.instance = instance;
        if instance.is_none() {
            upstream.path = vec![];
        }
    }

    /// The source with this number has told the past of the stream.
    pub fn has_told(&self, source: usize) {
        of(&mut self.lock(), source).has_told = true;
    }

    /// How many sources that have not told the past yet lead to this instance.
    pub fn untold_by(&self, instance: Origin) -> usize {
        let upstreams = self.lock();
        let upstreams = upstreams.iter().map(|(_, upstream)| upstream);
        let untold =
            upstreams.filter(|upstream| !upstream.has_told && upstream.instance == Some(instance));
        untold.count()
    }

    /// There is an upstream for the source with this number, as it may be shown to anyone.
    pub fn expect(&self, source: usize, url: &str) {
        self.expect_as(Role::Consumed, source, url);
    }

    /// The same, for one that is something else to the stream.
    pub fn expect_as(&self, role: Role, source: usize, url: &str) {
        let mut upstreams = self.lock();
        let upstream = of(&mut upstreams, source);
        (upstream.role, upstream.url) = (role, url.into());
    }

    /// The same, for a source that has no number yet: it gets the lowest that is free, from `first` on.
    pub fn expect_another(&self, role: Role, first: usize, url: &str) -> usize {
        let mut upstreams = self.lock();
        let is_taken = |number: &usize| upstreams.iter().any(|(taken, _)| taken == number);
        let mut numbers = first..;
        let number = numbers.find(|number| !is_taken(number));
        let number = number.expect("there are more numbers than upstreams");
        let upstream = of(&mut upstreams, number);
        (upstream.role, upstream.url) = (role, url.into());
        number
    }

    /// There is none any more. Its number is free.
    pub fn remove(&self, source: usize) {
        let mut upstreams = self.lock();
        upstreams.retain(|(number, _)| *number != source);
        drop(upstreams);
        self.changed.notify_waiters();
    }

    /// No peer is read any more.
    pub fn remove_peers(&self) {
        let mut upstreams = self.lock();
        upstreams.retain(|(_, upstream)| !upstream.role.is_peer());
        drop(upstreams);
        self.changed.notify_waiters();
    }

    /// The upstream of the source with this number has turned out to be this stream.
    pub fn is_itself(&self, source: usize) {
        self.change(source, |upstream| {
            upstream.is_itself = true;
            upstream.connected = false;
            upstream.path.clear();
        });
    }

    /// The upstream is not used at the moment, and nothing is to be known of it.
    pub fn rests(&self, source: usize) {
        self.change(source, |upstream| {
            *upstream = Upstream {
                url: std::mem::take(&mut upstream.url),
                role: upstream.role,
                was_connected: upstream.was_connected,
                // What has been counted stays counted.
                figures: upstream.figures.take(),
                connects: upstream.connects,
                failures: upstream.failures,
                ..Upstream::default()
            };
        });
    }

    /// Whether events that were there before the connection are still on their way from that upstream.
    pub fn set_behind(&self, source: usize, is_behind: bool) {
        self.change(source, |upstream| upstream.is_behind = is_behind);
    }

    /// Whether the upstream of the source with this number is there.
    pub fn is_connected(&self, source: usize) -> bool {
        let upstreams = self.lock();
        let mut upstreams = upstreams.iter();
        upstreams.any(|(number, upstream)| *number == source && upstream.connected)
    }

    /// What the source with this number has to know when it goes on.
    pub fn met(&self, source: usize) -> Met {
        of(&mut self.lock(), source).met.clone()
    }

    /// Changes that.
    pub fn note_met(&self, source: usize, change: impl FnOnce(&mut Met)) {
        change(&mut of(&mut self.lock(), source).met);
    }

    /// This is what is counted of the upstream of the source with this number.
    pub fn counts(&self, source: usize, figures: Arc<Figures>) {
        of(&mut self.lock(), source).figures = Some(figures);
    }

    /// The upstream of the source with this number is there.
    pub fn connected(&self, source: usize) {
        self.change(source, |upstream| {
            upstream.connected = true;
            upstream.connects += 1;
            upstream.is_itself = false;
            upstream.was_connected = true;
            upstream.has_failed = false;
            upstream.refusal = None;
            upstream.reason = None;
        });
    }

    /// There is no connection to the upstream of the source with this number, for this reason.
    pub fn away(&self, source: usize, reason: &str) {
        of(&mut self.lock(), source).reason = Some(reason.into());
    }

    /// It is not there, or no more; `refused` is a status and a reason, if it does not want this hop.
    pub fn lost(&self, source: usize, refused: Option<(u16, String)>) {
        self.change(source, |upstream| {
            upstream.connected = false;
            upstream.is_itself = false;
            upstream.is_behind = false;
            upstream.has_failed = true;
            upstream.failures += 1;
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
            if decisive(upstreams).any(|upstream| may_have(&upstream)) {
                return Some(Ok(()));
            }
            let mut refusals = decisive(upstreams).map(|upstream| &upstream.refusal);
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
                        let refusals = decisive(upstreams).map(|upstream| upstream.refusal.clone());
                        let refusals: Option<Vec<_>> = refusals.collect();
                        let refusal = refusals?.into_iter().max_by_key(|refusal| refusal.since)?;
                        let doubted = decisive(upstreams).any(|upstream| upstream.was_connected);
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
                    (!decisive(upstreams).all(refuses)).then_some(())
                });
                // Seldom, so it is in a box meanwhile.
                let _ = Box::pin(timeout(left, takes_it_back)).await;
            }
        }
    }

    /// Waits until `find` finds something in what is known of upstreams.
    pub async fn until<T>(&self, find: impl Fn(&[(usize, Upstream)]) -> Option<T>) -> T {
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
        let numbered = self.numbered().into_iter();
        numbered.map(|(_, upstream)| upstream).collect()
    }

    /// The same, with the numbers of their sources.
    pub fn numbered(&self) -> Vec<(usize, Upstream)> {
        let upstreams = self.lock();
        let others = upstreams.iter().filter(|(_, it)| !it.is_itself);
        others.cloned().collect()
    }

    /// The upstream of the source with this number.
    pub fn upstream(&self, source: usize) -> Option<Upstream> {
        let upstreams = self.lock();
        let found = upstreams.iter().find(|(number, _)| *number == source);
        found.map(|(_, upstream)| upstream.clone())
    }

    /// All hops, the nearest first, each once.
    pub fn path(&self) -> Vec<Instance> {
        self.path_through(&self.lock(), |_| true)
    }

    /// The hops that events which peers get from here come through: no other peers. Else each would tell the others of all, and of one that has
    /// gone for ever.
    pub fn local_path(&self) -> Vec<Instance> {
        self.path_through(&self.lock(), |role| !role.is_peer())
    }

    /// A hop that has gone would be told round a ring for ever, each of the others having it from the next. But each has it one
    /// link further away, so that it gets [too far](LONGEST) soon. And those that are equally far have the order of their ids, else hops in
    /// a ring could take the order from each other by turns, for ever.
    fn path_through(
        &self,
        upstreams: &[(usize, Upstream)],
        counts: impl Fn(Role) -> bool,
    ) -> Vec<Instance> {
        let mut path = vec![self.own.clone()];
        let counted = upstreams
            .iter()
            .filter(|(_, upstream)| counts(upstream.role));
        for hop in counted.flat_map(|(_, upstream)| &upstream.path) {
            let distance = hop.distance.saturating_add(1);
            match path.iter_mut().find(|known| known.id == hop.id) {
                Some(known) => known.distance = known.distance.min(distance),
                None if usize::from(distance) < LONGEST => path.push(Instance {
                    distance,
                    ..hop.clone()
                }),
                None => {}
            }
        }
        path.sort_by_key(|hop| (hop.distance, hop.id));
        path.truncate(LONGEST);
        path
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(usize, Upstream)>> {
        self.upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that decide whether there is such a stream.
fn decisive(upstreams: &[(usize, Upstream)]) -> impl Iterator<Item = &Upstream> {
    let upstreams = upstreams.iter().map(|(_, upstream)| upstream);
    upstreams.filter(|upstream| !upstream.role.is_peer())
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

    fn hop(id: u64, distance: u8) -> Instance {
        Instance {
            id: Origin(id),
            address: format!("host:{id}").into(),
            distance,
        }
    }

    fn path(hops: &[u64]) -> Vec<Instance> {
        let hops = hops.iter().enumerate();
        hops.map(|(distance, id)| hop(*id, distance as u8))
            .collect()
    }

    /// What comes of it.
    fn set(via: &Via, source: usize, path: Vec<Instance>) -> Change {
        let mut change = None;
        via.set(source, path, |told| change = Some(told));
        change.expect("it is told")
    }

    #[test]
    fn each_hop_is_there_once() {
        let via = Via::new(hop(1, 0));
        set(&via, 0, path(&[2, 3]));
        set(&via, 1, path(&[4, 3, 1]));
        let expected = vec![hop(1, 0), hop(2, 1), hop(4, 1), hop(3, 2)];
        assert_eq!(via.path(), expected);
        let expected = vec![hop(1, 0), hop(4, 1), hop(5, 1), hop(3, 2)];
        assert_eq!(set(&via, 0, path(&[5])).path, Some(expected));
        assert_eq!(set(&via, 0, path(&[5])).path, None);
        // What is new upstream is not always new here.
        assert_eq!(set(&via, 0, path(&[5, 3, 4])).path, None);
    }

    #[test]
    fn a_circle_is_noticed_once_for_each_change() {
        let via = Via::new(hop(1, 0));
        assert!(!set(&via, 0, path(&[2, 3])).is_circle);
        assert!(set(&via, 0, path(&[2, 3, 1])).is_circle);
        assert!(!set(&via, 0, path(&[2, 1])).is_circle);
        assert!(!set(&via, 0, path(&[2])).is_circle);
        assert!(set(&via, 0, path(&[2, 1])).is_circle);
        // There is another way.
        assert!(!set(&via, 1, path(&[4, 1])).is_circle);
    }

    /// Lets hops that consume each other tell each other their paths until nothing is new. How often that was.
    fn settle(vias: &[Via], links: &[(usize, usize)]) -> usize {
        let mut told: std::collections::VecDeque<usize> = (0..vias.len()).collect();
        let mut count = 0;
        while let Some(from) = told.pop_front() {
            for (source, (up, down)) in links.iter().enumerate() {
                if *up == from {
                    count += 1;
                    assert!(count < 10_000, "it goes round for ever");
                    let news = set(&vias[*down], source, vias[*up].path()).path;
                    told.extend(news.map(|_| *down));
                }
            }
        }
        count
    }

    #[test]
    fn paths_in_rings_come_to_rest_and_forget_who_has_gone() {
        let rings: [&[(usize, usize)]; 3] = [
            &[(0, 1), (1, 0)],
            &[(0, 1), (1, 2), (2, 0)],
            // Each has all others.
            &[(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)],
        ];
        for links in rings {
            let size = links.iter().map(|(up, _)| up + 1).max().unwrap_or_default();
            let mut vias: Vec<_> = (0..size).map(|id| Via::new(hop(id as u64, 0))).collect();
            settle(&vias, links);
            // One starts again, under another name.
            vias[0] = Via::new(hop(99, 0));
            settle(&vias, links);
            for via in &vias {
                let mut ids: Vec<_> = via.path().iter().map(|hop| hop.id.0).collect();
                ids.sort_unstable();
                let others = (1..size as u64).chain([99]);
                assert_eq!(ids, others.collect::<Vec<_>>());
            }
            assert_eq!(
                settle(&vias, links),
                links.len(),
                "each told once, and no more"
            );
        }
    }

    #[test]
    fn an_upstream_that_is_away_keeps_its_path() {
        let via = Via::new(hop(1, 0));
        let states = || -> Vec<_> {
            let upstreams = via.upstreams().into_iter();
            upstreams.map(|up| (up.url, up.connected)).collect()
        };
        assert_eq!(states(), []);
        via.expect(1, "ws://b/");
        via.expect(0, "ws://a/");
        via.connected(0);
        set(&via, 0, path(&[2]));
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
        assert_eq!(via.path(), path(&[1, 2]));
    }

    fn refusal() -> Option<(u16, String)> {
        Some((404, "no such stream".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_is_that_of_all_upstreams() {
        const PATIENCE: Duration = Duration::from_secs(5);
        let status = async |via: &Via| via.verdict(PATIENCE).await.map_err(|no| no.status);
        let via = Via::new(hop(1, 0));
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
        let via = Via::new(hop(1, 0));
        via.expect(0, "ws://a/");
        via.lost(0, refusal());
        assert_eq!(via.refused(PATIENCE).await.status, 404);
        via.connected(0);
        via.lost(0, refusal());
        let refused = via.refused(PATIENCE).await;
        assert!(refused.since.elapsed() >= PATIENCE);
    }
}
