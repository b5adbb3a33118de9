//! wsevent moves endless event streams over point-to-point links. The modules in the order in which events flow:
//!
//! ```text
//!   cli ──► main ──► run
//!                     │
//!     source/  ──►  stream (log, history, tapes, cursors)  ──►  endpoint/
//!     produce, publish │ encodes each event once with             fanout, body, page
//!     websocket, http  └──► wire/                                     ▲
//!                                                       server, route ┘ bring each request there
//! ```
//!
//! - [`event`]: what moves: events and their ids.
//! - [`source`]: brings events in; reconnects.
//! - [`stream`]: the log of one stream. The heart of the program: everything else moves bytes into or out of it.
//! - [`wire`]: the formats, pure functions.
//! - [`endpoint`]: serves a stream to its subscribers.
//! - [`auth`]: who is asking, and what they may.
//! - [`listen`], [`route`], [`server`]: from a listening socket and a URL path to an endpoint.
//! - [`http_message`], [`tls`]: what hyper and rustls leave to those who use them; [`url_path`]: the one spelling of a path.
//! - [`proxy`]: the other way to stand between: bytes pass as they are, over a connection for each client. It knows nothing of
//!   events.
//! - [`bus`]: source and endpoint in one, for streams that somebody else's system keeps or spreads: Redis, NATS, ZeroMQ, webhooks.
//! - [`recording`]: streams in files: what `wsevent record` writes, and what is read again as a source.
//! - [`client`]: `wsevent tail`, `wsevent record`, `wsevent publish`, `wsevent bench`, `wsevent trace`, `wsevent topology`.
//! - [`topology`]: who gets events from whom, as a hop tells it; and how an event has come.
//! - [`admin`], [`metrics`], [`spans`]: how a process is, for those who run it.
//! - [`doctor`]: whether a hop has what it needs on this machine.
//! - [`process`]: other processes of this machine, as the system tells of them.
//! - [`cli`], [`logging`], [`notify`], [`reload`], [`shutdown`], [`reason`]: how a process begins, changes and ends, and what it says when something fails.
//! - [`takeover`], [`pause`]: how it goes on as another process.
//!
//! `wire` imports only `event`; `stream` imports only `wire` and `event`, and never a socket; `source` and `endpoint`
//! never import each other; one function writes to the sockets of the fan-out, and hyper to its own. The library exists for the tests and benches
//! beside the binary and promises nothing to others.

#![deny(unsafe_code)]

pub mod admin;
pub mod auth;
pub mod bus;
pub mod cli;
pub mod client;
pub mod doctor;
pub mod endpoint;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http_message;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod pause;
pub mod process;
pub mod proxy;
pub mod reason;
pub mod recording;
pub mod reload;
pub mod route;
pub mod server;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod spans;
pub mod stdout;
pub mod stream;
pub mod takeover;
pub mod tls;
pub mod topology;
pub mod url_path;
pub mod wire;

use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use admin::Admin;
use cli::config::ConfigFile;
use cli::{Hop, Role};
use event::Origin;
use listen::Listeners;
use pause::Pause;
use route::Routes;
use server::Door;
use server::limits::Keeper;
use shutdown::{Signals, Stop};
use takeover::{Beginning, Giver, Heir, Legacy, Post};

/// Plays the role until it is over; the exit status of the process.
pub async fn run(role: Role) -> Result<ExitCode> {
    match role {
        Role::Tail(tail) => tail.run().await.map(|()| ExitCode::SUCCESS),
        Role::Record(record) => record.run().await.map(|()| ExitCode::SUCCESS),
        Role::Inspect(inspect) => inspect.run(),
        Role::Pages(pages) => pages.run().map(|()| ExitCode::SUCCESS),
        Role::Publish(publish) => publish.run().await.map(|()| ExitCode::SUCCESS),
        Role::Bench(bench) => bench.run().await,
        Role::Topology(topology) => topology.run().await,
        Role::Trace(trace) => trace.run().await,
        Role::Check(check) => check.run(),
        Role::Explain(explain) => explain.run(),
        Role::Doctor(doctor) => doctor.run().await,
        Role::Proxy(config) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = Stop::new(config.drain);
            shutdown::until_signalled(signals, stop.clone(), proxy::run(*config, stop)).await
        }
        #[cfg(feature = "zeromq")]
        Role::Forwarder(config) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = Stop::new(config.drain);
            let forwarding = bus::zeromq::forwarder::run(config, stop.begun().clone());
            shutdown::until_signalled(signals, stop, forwarding).await
        }
        Role::Hop(hop) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = Stop::new(hop.drain);
            shutdown::until_signalled(signals, stop.clone(), run_hop(hop, stop)).await
        }
    }
}

/// A hop that is ready to let clients in.
struct Begun {
    listeners: Listeners,
    addresses: Vec<SocketAddr>,
    admin: Option<Listeners>,
    /// Where the next process may come to take over, and the sockets for it, with those for administration.
    post: Option<(Post, [Vec<OwnedFd>; 2])>,
    routes: Arc<Routes>,
    /// How many routes were configured, and where the first one is.
    configured: (usize, String),
    keeper: Arc<Keeper>,
}

impl Begun {
    /// Finds a place to listen, or takes over from a process that does, and begins to bring events in.
    async fn new(hop: &mut Hop, tasks: &TaskTracker, stop: &Stop) -> Result<Self> {
        let Beginning {
            listeners,
            admin,
            post,
            heir,
        } = Beginning::find(hop.takeover.as_deref(), &hop.address, hop.admin.as_deref()).await?;
        let addresses = listeners.addresses()?;
        // Before anything is taken over: nothing may fail behind that.
        let post = match post {
            Some(post) => {
                let copy = admin.as_ref().map(Listeners::duplicate).transpose()?;
                Some((post, [listeners.duplicate()?, copy.unwrap_or_default()]))
            }
            None => None,
        };
        let serving = addresses.first().map_or(hop.address.clone(), |first| {
            real_address(&hop.address, first.port())
        });
        let policies = mem::take(&mut hop.routes).into_iter();
        let policies: Vec<_> = policies
            .map(|policy| policy.at(&serving, &addresses))
            .collect::<Result<_>>()?;
        let scheme = if hop.tls.is_some() { "wss" } else { "ws" };
        let path = policies.first().map(|policy| policy.pattern.to_string());
        let url = format!("{scheme}://{serving}{}", path.unwrap_or_default());
        let count = policies.len();
        let instance = heir.as_ref().map_or_else(Origin::random, Heir::instance);
        let mut legacy = match heir {
            Some(heir) => Some(heir.take(&policies).await?),
            None => None,
        };
        // From here on nothing waits: what has been taken is gone on with.
        let estate = legacy.as_mut().map(Legacy::estate);
        let own = (instance, &*serving);
        let routes = Arc::new(Routes::go_on(policies, own, (tasks, stop), estate));
        let keeper = Keeper::new(hop.limits.clone(), hop.tls.is_none());
        if let Some(legacy) = legacy {
            legacy.settle_in(&routes, &keeper);
        }
        Ok(Self {
            listeners,
            addresses,
            admin,
            post,
            routes,
            configured: (count, url),
            keeper,
        })
    }

    /// Lets the next process take over, if one may. `doors` are shut while it does, and `replaced` is cancelled once it has.
    fn give(
        &mut self,
        address: &str,
        doors: &Arc<Pause>,
        stop: &Stop,
        replaced: &CancellationToken,
    ) -> Option<JoinHandle<()>> {
        let (post, [serving, admin]) = self.post.take()?;
        let giver = Giver {
            post,
            address: address.to_owned(),
            addresses: self.addresses.clone(),
            serving,
            admin,
            routes: self.routes.clone(),
            doors: doors.clone(),
            stop: stop.clone(),
            replaced: replaced.clone(),
        };
        Some(giver.start())
    }
}

/// Runs a hop until `stop` has begun and everything has been drained.
async fn run_hop(mut hop: Hop, stop: Stop) -> Result<()> {
    // Before anything else: until then it would end the process.
    let hangups = reload::hangups()?;
    let tasks = TaskTracker::new();
    let beginning = Begun::new(&mut hop, &tasks, &stop);
    let Some(begun) = stop.begun().run_until_cancelled(beginning).await else {
        return Ok(());
    };
    let mut begun = begun?;
    let (doors, replaced) = (Arc::new(Pause::default()), CancellationToken::new());
    let giving = begun.give(&hop.address, &doors, &stop, &replaced);
    let Begun {
        listeners,
        addresses,
        admin,
        routes,
        configured: (count, url),
        keeper,
        ..
    } = begun;
    for address in &addresses {
        info!(%address, %url, routes = count, "listening");
    }
    if let Some(tls) = &hop.tls {
        tasks.spawn(tls.clone().watch(stop.over().clone()));
    }
    let files = reload::Files {
        auth: hop.auth.clone(),
        tls: hop.tls.clone(),
        routes: hop.file.map(ConfigFile::left_alone),
    };
    // It watches all others, so it is not one of them.
    let mut admin = admin
        .map(|listeners| Admin::start(listeners, routes.clone(), keeper.clone(), stop.clone()))
        .transpose()?;
    let reloading = reload::on_hangup(hangups, files, routes.clone(), addresses);
    notify::ready(&routes.status());
    let stopped = stop.over().clone();
    tasks.spawn(async move { stopped.run_until_cancelled(reloading).await });
    let door = Door {
        tls: hop.tls,
        auth: hop.auth,
        routes: routes.clone(),
    };
    let ending = stop.begun().clone();
    server::serve(listeners, door, keeper, tasks.clone(), ending, &doors).await;
    notify::stopping();
    if let Some(giving) = giving {
        // What it may be about to give away is not to be ended here.
        let _ = giving.await;
    }
    if replaced.is_cancelled()
        && let Some(admin) = admin.take()
    {
        // Others answer there now.
        admin.close().await;
    }
    if stop.is_drain() {
        routes.drain();
    }
    shutdown::let_go(&stop).await;
    shutdown::drain(&tasks, &stop).await;
    if let Some(admin) = admin {
        admin.close().await;
    }
    Ok(())
}

/// The address as it was given, with the port that was really taken.
fn real_address(given: &str, port: u16) -> String {
    match given.rsplit_once(':') {
        Some((host, _)) => format!("{host}:{port}"),
        None => given.to_owned(),
    }
}
