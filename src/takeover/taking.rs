//! The new process's side: it gets what the old one has, and goes on with it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::link::{Frame, Link};
use super::protocol::{self, Here, OLDEST, VERSION};
use super::{PATIENCE, connect};
use crate::admin;
use crate::endpoint::fanout::Publishing;
use crate::endpoint::fanout::moving::{Position, Returning};
use crate::endpoint::websocket::input::Unheard;
use crate::event::Origin;
use crate::listen::Listeners;
use crate::listen::streams::Counted;
use crate::route::find::Place;
use crate::route::pattern::Key;
use crate::route::{Estate, Inherited, Policy, Route, Routes};
use crate::server::limits::Keeper;
use crate::stream::export::{Import, Numbered};

/// An instance that others take over from may end just when this one comes to it. Then there is another one.
const ATTEMPTS: usize = 5;

/// A running instance that is ready to be taken over from.
pub struct Heir {
    link: Link,
    here: Here,
    serving: Vec<OwnedFd>,
    admin: Vec<OwnedFd>,
    begun: Instant,
}

/// What has come from there, and is not this process's before it has [said so](Self::confirm).
pub struct Legacy {
    link: Link,
    streams: Vec<protocol::Stream>,
    estate: Estate,
    subscribers: Vec<Arriving>,
    begun: Instant,
}

struct Arriving {
    socket: TcpStream,
    subscriber: protocol::Subscriber,
    position: Option<Position>,
}

/// Asks the instance that listens at `path` to give away what it has to this one, which is to listen on `address`. None if nobody listens.
///
/// An error if somebody does, and will not: nothing has changed there.
pub async fn reach(path: &Path, address: &str) -> Result<Option<Heir>> {
    let begun = Instant::now();
    let cannot = || format!("cannot take over at {}", path.display());
    for _ in 0..ATTEMPTS {
        let Some(socket) = connect(path).await? else {
            return Ok(None);
        };
        let mut link = Link::new(socket);
        let asking = timeout(PATIENCE, ask(&mut link, address));
        let here = asking
            .await
            .context("whoever listens there does not answer");
        let Some(here) = here.flatten().with_context(cannot)? else {
            continue;
        };
        let serving = link.files(here.serving).with_context(cannot)?;
        let admin = link.files(here.admin).with_context(cannot)?;
        return Ok(Some(Heir {
            link,
            here,
            serving,
            admin,
            begun,
        }));
    }
    bail!("{}: whoever listens there goes at once", cannot())
}

/// None if it goes without a word.
async fn ask(link: &mut Link, address: &str) -> Result<Option<Here>> {
    if link.greet().await.is_err() || !link.is_greeted().await? {
        return Ok(None);
    }
    let resolved = lookup_host(address).await;
    let resolved = resolved.with_context(|| format!("cannot listen on {address}"))?;
    let mut addresses: Vec<_> = resolved.collect();
    addresses.sort_unstable();
    addresses.dedup();
    let hello = protocol::Hello {
        version: VERSION,
        oldest: OLDEST,
        address: address.to_owned(),
        addresses,
    };
    link.send(protocol::HELLO, &hello, &[], &[]).await?;
    loop {
        let frame = link.receive().await?;
        match frame.kind {
            protocol::REFUSED => bail!(frame.head::<protocol::Refused>()?.reason),
            protocol::HERE => return Ok(Some(frame.head()?)),
            _ => {}
        }
    }
}

impl Heir {
    /// The name of that instance, which goes over to this one.
    pub fn instance(&self) -> Origin {
        Origin(self.here.instance)
    }

    /// Where clients come.
    pub fn listeners(&mut self) -> Result<Listeners> {
        let serving = std::mem::take(&mut self.serving);
        Listeners::inherit(serving).context("cannot listen on the sockets of the running instance")
    }

    /// Where those come who run it: on the same sockets, if that is still to be at `address`.
    pub async fn admin(&mut self, address: &str) -> Result<Listeners> {
        let sockets = std::mem::take(&mut self.admin);
        if sockets.is_empty() {
            return admin::listen(address).await;
        }
        let listeners = Listeners::inherit(sockets)
            .context("cannot listen on the sockets of the running instance")?;
        let mut there = listeners.addresses()?;
        let resolved = lookup_host(address).await;
        let resolved =
            resolved.with_context(|| format!("--admin-address: cannot listen on {address}"))?;
        let mut wanted: Vec<_> = resolved.collect();
        wanted.sort_unstable();
        wanted.dedup();
        there.sort_unstable();
        let is_same = there.len() == wanted.len()
            && there.iter().zip(&wanted).all(|(there, wanted)| {
                there.ip() == wanted.ip() && (wanted.port() == 0 || there.port() == wanted.port())
            });
        match is_same {
            true => Ok(listeners),
            false => admin::listen(address).await,
        }
    }

    /// Takes over what is to go on under `policies`: from then on it is this process's.
    pub async fn take(self, policies: &[Policy]) -> Result<Legacy> {
        let mut legacy = self.receive(policies).await?;
        legacy.confirm().await?;
        Ok(legacy)
    }

    async fn receive(self, policies: &[Policy]) -> Result<Legacy> {
        let Self {
            mut link,
            here,
            begun,
            ..
        } = self;
        let mut receiving = Receiving::of(&here, policies);
        let wanted = protocol::Wanted {
            streams: receiving.imports.keys().copied().collect(),
        };
        let cannot = "cannot take over";
        let sent = link.send(protocol::WANTED, &wanted, &[], &[]).await;
        sent.context(cannot)?;
        loop {
            let frame = timeout(PATIENCE, link.receive()).await;
            let frame = frame.context("the running instance does not get on");
            let frame = frame.flatten().context(cannot)?;
            if frame.kind == protocol::END {
                break;
            }
            receiving.take(frame, &mut link).context(cannot)?;
        }
        Ok(Legacy {
            link,
            estate: receiving.estate,
            subscribers: receiving.subscribers,
            streams: here.streams,
            begun,
        })
    }
}

/// What has come so far.
struct Receiving<'a> {
    here: &'a Here,
    imports: HashMap<usize, Import>,
    estate: Estate,
    subscribers: Vec<Arriving>,
    /// So many of them are known to stand where.
    placed: usize,
}

impl<'a> Receiving<'a> {
    fn of(here: &'a Here, policies: &[Policy]) -> Self {
        let mut imports = HashMap::new();
        for (number, stream) in here.streams.iter().enumerate() {
            let mut heirs = policies.iter();
            let Some(policy) = heirs.find(|policy| policy.shape() == stream.shape) else {
                let stream = &*stream.name;
                warn!(
                    stream,
                    "there is no such stream any more, or it holds something else: its subscribers are told to connect again"
                );
                continue;
            };
            let name = (Origin(stream.origin), stream.began);
            let import = Import::new(name, policy.history, policy.retain.clone());
            let import = match policy.peers.is_empty() {
                true => import,
                false => import.with_peers(),
            };
            imports.insert(number, import);
        }
        Self {
            here,
            imports,
            estate: Estate::new(),
            subscribers: Vec::new(),
            placed: 0,
        }
    }

    fn take(&mut self, frame: Frame, link: &mut Link) -> Result<()> {
        match frame.kind {
            protocol::EVENTS => self.take_events(frame.head()?, frame.body),
            protocol::SUBSCRIBERS => {
                let protocol::Subscribers { subscribers } = frame.head()?;
                let sockets = link.files(subscribers.len())?;
                for (subscriber, socket) in subscribers.into_iter().zip(sockets) {
                    let socket = TcpStream::from_std(socket.into())?;
                    self.subscribers.push(Arriving {
                        socket,
                        subscriber,
                        position: None,
                    });
                }
                Ok(())
            }
            protocol::REST => self.take_rest(frame.head()?),
            protocol::POSITIONS => self.take_positions(frame.head()?, frame.body),
            // Of a later version.
            _ => Ok(()),
        }
    }

    fn take_events(&mut self, events: protocol::Events, mut body: Bytes) -> Result<()> {
        let import = self.imports.get_mut(&events.stream);
        let import = import.context("events of an unknown stream have come")?;
        for event in events.events {
            let event: Numbered = event.numbered(&mut body)?;
            import.take(event);
        }
        Ok(())
    }

    fn take_rest(&mut self, rest: protocol::Rest) -> Result<()> {
        let import = self.imports.remove(&rest.stream);
        let import = import.context("an unknown stream has come")?;
        let stream = &self.here.streams[rest.stream];
        let inherited = Inherited {
            log: Arc::new(import.finish(&rest.summary)),
            names: rest.names,
            sources: rest.sources,
        };
        let streams = self.estate.entry(stream.pattern.clone()).or_default();
        streams.insert(stream.name.clone(), inherited);
        Ok(())
    }

    fn take_positions(&mut self, positions: protocol::Positions, mut body: Bytes) -> Result<()> {
        for said in positions.positions {
            let subscriber = self.subscribers.get_mut(self.placed);
            let subscriber = subscriber.context("there are fewer sockets than subscribers")?;
            self.placed += 1;
            let Some(said) = said else { continue };
            subscriber.position = Some(Position {
                index: said.index,
                rest: protocol::take(&mut body, said.rest)?,
                control: protocol::take(&mut body, said.control)?,
                first: said.first,
                walked: said.walked,
                merged: said.merged,
                sent: said.sent,
            });
        }
        Ok(())
    }
}

impl Legacy {
    /// Says that this process goes on. From then on, and only then, all of this is its own.
    async fn confirm(&mut self) -> Result<()> {
        let done = protocol::Done {
            subscribers: self.subscribers.len(),
        };
        let said = self.link.send(protocol::TAKEN, &done, &[], &[]).await;
        said.context("cannot take over: the running instance goes on by itself, or has gone")
    }

    /// The streams.
    pub fn estate(&mut self) -> Estate {
        std::mem::take(&mut self.estate)
    }

    /// Goes on with the subscribers, whose streams are among `routes`; `keeper` counts them. The other process, which waits for the
    /// end of this, then sends away who is still there.
    pub fn settle_in(self, routes: &Routes, keeper: &Keeper) {
        let mut places: HashMap<usize, Option<(Arc<Route>, Key)>> = HashMap::new();
        let mut count = 0;
        for arriving in self.subscribers {
            let number = arriving.subscriber.stream;
            let place = places.entry(number).or_insert_with(|| {
                let name = &*self.streams.get(number)?.name;
                let (path, query) = match name.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (name, None),
                };
                match routes.find(path, query) {
                    Ok(Some(Place::Stream(route, key))) => Some((route, key)),
                    _ => None,
                }
            });
            if let Some((route, key)) = place {
                count += usize::from(settle(arriving, route, key, keeper));
            }
        }
        info!(
            streams = self.streams.len(),
            subscribers = count,
            took = ?self.begun.elapsed(),
            "taken over from another process"
        );
    }
}

/// Whether the subscriber goes on here.
fn settle(arriving: Arriving, route: &Arc<Route>, key: &Key, keeper: &Keeper) -> bool {
    let Arriving {
        socket,
        subscriber,
        position,
    } = arriving;
    // Without one it stays where it was.
    let Some(position) = position else {
        return false;
    };
    let Ok(lease) = route.open(key) else {
        return false;
    };
    let format = subscriber.format();
    let accepts = route.policy.subscribers.accept_publish;
    let publish = match subscriber.publish {
        Some(labels) if accepts => {
            let outbox = lease.stream.connections.outbox.clone();
            Ok(Box::new(Publishing::new(
                labels.into(),
                outbox,
                keeper.bodies.memory(),
            )))
        }
        None if accepts && subscriber.without_right => Err(Unheard::WithoutRight),
        _ => Err(Unheard::Nobody),
    };
    lease.stream.fanout(format).resume(Returning {
        socket,
        address: subscriber.address,
        position,
        connected_for: Duration::from_micros(subscriber.connected_for),
        publish,
        remaining: subscriber.remaining.map(Duration::from_micros),
        user: lease.user,
        counted: Counted::Connection(keeper.entrance.keep(subscriber.address)),
    });
    true
}
