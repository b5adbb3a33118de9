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
//! - [`client`]: `wsevent tail`, `wsevent publish`.
//! - [`admin`], [`metrics`]: how a process is, for those who run it.
//! - [`cli`], [`reload`], [`shutdown`], [`reason`]: how a process begins, changes and ends, and what it says when something fails.
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
pub mod endpoint;
pub mod event;
pub mod http_message;
pub mod listen;
pub mod metrics;
pub mod proxy;
pub mod reason;
pub mod reload;
pub mod route;
pub mod server;
pub mod shutdown;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod stdout;
pub mod stream;
pub mod tls;
pub mod topology;
pub mod url_path;
pub mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use admin::Admin;
use cli::config::ConfigFile;
use cli::{Hop, Role};
use event::Origin;
use listen::Listeners;
use route::Routes;
use server::Door;
use shutdown::Signals;

/// Plays the role until it is over; the exit status of the process.
pub async fn run(role: Role) -> Result<ExitCode> {
    match role {
        Role::Tail(tail) => tail.run().await.map(|()| ExitCode::SUCCESS),
        Role::Publish(publish) => publish.run().await.map(|()| ExitCode::SUCCESS),
        Role::Check(check) => Ok(check.run()),
        Role::Explain(explain) => Ok(explain.run()),
        Role::Proxy(config) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = CancellationToken::new();
            shutdown::until_signalled(signals, stop.clone(), proxy::run(*config, stop)).await
        }
        #[cfg(feature = "zeromq")]
        Role::Forwarder(config) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = CancellationToken::new();
            let forwarding = bus::zeromq::forwarder::run(config, stop.clone());
            shutdown::until_signalled(signals, stop, forwarding).await
        }
        Role::Hop(hop) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = CancellationToken::new();
            shutdown::until_signalled(signals, stop.clone(), run_hop(hop, stop)).await
        }
    }
}

/// Runs a hop until `stop` is cancelled and everything has been drained.
async fn run_hop(hop: Hop, stop: CancellationToken) -> Result<()> {
    // Before anything else: until then it would end the process.
    let hangups = reload::hangups()?;
    let listeners = Listeners::bind(&hop.address).await?;
    let admin = match &hop.admin {
        Some(address) => Some(admin::listen(address).await?),
        None => None,
    };
    let tasks = TaskTracker::new();
    let addresses = listeners.addresses()?;
    let serving = addresses.first().map_or(hop.address.clone(), |first| {
        real_address(&hop.address, first.port())
    });
    let policies = hop.routes.into_iter();
    let policies: Vec<_> = policies
        .map(|policy| policy.at(&serving, &addresses))
        .collect::<Result<_>>()?;
    let first = policies.first().map(|policy| policy.pattern.to_string());
    let scheme = if hop.tls.is_some() { "wss" } else { "ws" };
    for address in &addresses {
        let path = first.as_deref().unwrap_or_default();
        info!(%address, url = %format_args!("{scheme}://{serving}{path}"), routes = policies.len(), "listening");
    }
    if let Some(tls) = &hop.tls {
        tasks.spawn(tls.clone().watch(stop.clone()));
    }
    let own = (Origin::random(), &*serving);
    let routes = Arc::new(Routes::start(policies, own, (&tasks, &stop)));
    let files = reload::Files {
        auth: hop.auth.clone(),
        tls: hop.tls.clone(),
        routes: hop.file.map(ConfigFile::left_alone),
    };
    // It watches all others, so it is not one of them.
    let admin = admin
        .map(|listeners| Admin::start(listeners, routes.clone(), stop.clone()))
        .transpose()?;
    let reloading = reload::on_hangup(hangups, files, routes.clone(), addresses);
    let stopped = stop.clone();
    tasks.spawn(async move { stopped.run_until_cancelled(reloading).await });
    let door = Door {
        tls: hop.tls,
        auth: hop.auth,
        routes,
    };
    server::serve(listeners, door, hop.limits, tasks.clone(), stop).await;
    shutdown::drain(&tasks, hop.drain).await;
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
