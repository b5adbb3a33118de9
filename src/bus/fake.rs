//! A bus as tests want it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::{Arrival, Reader, Sent, Writer};
use crate::event::{Event, Origin};
use crate::source::presence::Named;
use crate::stream::history::Limits;

/// What a bus does with what is sent next.
pub enum Deed {
    /// It takes all.
    Take,
    /// It takes so many, confirms so many of them, and is gone.
    Break { taken: usize, confirmed: usize },
    /// It refuses all.
    Refuse,
    /// It says nothing any more.
    Hang,
    /// It is gone before it has been sent anything.
    Vanish,
}

/// What a bus has got, and what it will do.
#[derive(Default)]
pub struct Server {
    pub deeds: VecDeque<Deed>,
    /// How many attempts to connect fail next.
    pub away: usize,
    pub got: Vec<Event>,
}

/// A bus as a test wants it.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Server>>, Arc<Notify>);

impl Fake {
    pub fn with<T>(&self, act: impl FnOnce(&mut Server) -> T) -> T {
        let result = act(&mut self.0.lock().expect("nobody has failed"));
        self.1.notify_one();
        result
    }

    pub fn texts(&self) -> Vec<String> {
        let text = |event: &Event| String::from_utf8_lossy(&event.payload.bytes).into_owned();
        self.with(|server| server.got.iter().map(text).collect())
    }
}

impl Writer for Fake {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        let is_there = self.with(|server| match server.away.checked_sub(1) {
            None => true,
            Some(left) => {
                server.away = left;
                false
            }
        });
        Box::pin(async move { is_there.then_some(()).ok_or(anyhow!("nobody is there")) })
    }

    fn send<'a>(
        &'a mut self,
        events: &'a [Event],
        _: Option<Origin>,
        sent: &'a mut Vec<Sent>,
    ) -> BoxFuture<'a, Result<()>> {
        let result = self.with(|server| {
            let taken = |server: &mut Server, count: usize| {
                server.got.extend_from_slice(&events[..count]);
            };
            let confirm = |count| events[..count].iter().map(|event| Sent::Taken(event.id));
            match server.deeds.pop_front().unwrap_or(Deed::Take) {
                Deed::Take => {
                    taken(server, events.len());
                    sent.extend(confirm(events.len()));
                    Some(Ok(()))
                }
                Deed::Break {
                    taken: count,
                    confirmed,
                } => {
                    taken(server, count);
                    sent.extend(confirm(confirmed));
                    Some(Err(anyhow!("it breaks")))
                }
                Deed::Refuse => {
                    sent.extend(events.iter().map(|_| Sent::Refused("too odd".to_owned())));
                    Some(Ok(()))
                }
                Deed::Hang => None,
                Deed::Vanish => unreachable!("nothing is sent then"),
            }
        });
        match result {
            Some(result) => async move { result }.boxed(),
            None => Box::pin(std::future::pending()),
        }
    }

    fn lost(&mut self) -> BoxFuture<'_, anyhow::Error> {
        Box::pin(async {
            loop {
                let vanishes = |server: &mut Server| {
                    let next = server
                        .deeds
                        .pop_front_if(|deed| matches!(deed, Deed::Vanish));
                    next.is_some()
                };
                if vanishes(&mut self.0.lock().expect("nobody has failed")) {
                    return anyhow!("it has vanished");
                }
                self.1.notified().await;
            }
        })
    }
}

pub struct Name;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fake://bus")
    }
}

impl Named for Name {
    fn reason(&self, error: &anyhow::Error) -> String {
        error.to_string()
    }
}

/// What a reader is given, one after the other; and it waits behind the last.
pub enum Brought {
    /// An attempt to connect succeeds.
    Connected,
    /// What the bus has kept.
    Past(Vec<Event>),
    /// What comes.
    Arrivals(Vec<Arrival>),
    /// The connection is lost.
    Broken,
}

/// A reader that is given these.
pub struct FakeReader(pub VecDeque<Brought>);

impl Reader for FakeReader {
    fn connect(&mut self) -> BoxFuture<'_, Result<()>> {
        let result = match self.0.pop_front() {
            Some(Brought::Connected) => Ok(()),
            Some(Brought::Broken) => Err(anyhow!("nobody is there")),
            _ => return Box::pin(std::future::pending()),
        };
        async move { result }.boxed()
    }

    fn past(&mut self, _: Limits) -> BoxFuture<'_, Result<Vec<Event>>> {
        let result = match self.0.pop_front() {
            Some(Brought::Past(events)) => Ok(events),
            _ => Err(anyhow!("it breaks")),
        };
        async move { result }.boxed()
    }

    fn next<'a>(&'a mut self, arrivals: &'a mut Vec<Arrival>) -> BoxFuture<'a, Result<()>> {
        let result = match self.0.pop_front() {
            Some(Brought::Arrivals(brought)) => {
                arrivals.extend(brought);
                Ok(())
            }
            Some(_) => Err(anyhow!("it breaks")),
            None => return Box::pin(std::future::pending()),
        };
        async move { result }.boxed()
    }
}
