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
//! - [`listen`], [`route`], [`server`]: from a listening socket and a URL path to an endpoint.
//! - [`http_message`], [`tls`]: what hyper and rustls leave to those who use them.
//! - [`proxy`]: the other way to stand between: bytes pass as they are, over a connection for each client. It knows nothing of
//!   events.
//! - [`client`]: `wsevent tail`, `wsevent publish`.
//! - [`cli`], [`shutdown`], [`reason`]: how a process begins and ends, and what it says when something fails.
//!
//! `wire` imports only `event`; `stream` imports only `wire` and `event`, and never a socket; `source` and `endpoint`
//! never import each other; one function writes to the sockets of the fan-out, and hyper to its own. The library exists for the tests and benches
//! beside the binary and promises nothing to others.

#![deny(unsafe_code)]

pub mod cli;
pub mod client;
pub mod endpoint;
pub mod event;
pub mod http_message;
pub mod listen;
pub mod proxy;
pub mod reason;
pub mod route;
pub mod server;
pub mod shutdown;
pub mod source;
pub mod stream;
pub mod tls;
pub mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use cli::{Hop, Role};
use listen::Listeners;
use route::Route;
use shutdown::Signals;
use source::Destination;
use source::Source;
use stream::EventLog;
use stream::via::Via;
use wire::hop::Instance;

/// Plays the role until it is over; the exit status of the process.
pub async fn run(role: Role) -> Result<ExitCode> {
    match role {
        Role::Tail(tail) => tail.run().await.map(|()| ExitCode::SUCCESS),
        Role::Publish(publish) => publish.run().await.map(|()| ExitCode::SUCCESS),
        Role::Proxy(config) => {
            let signals = Signals::take().context("cannot listen for signals")?;
            let stop = CancellationToken::new();
            shutdown::until_signalled(signals, stop.clone(), proxy::run(*config, stop)).await
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
    let listeners = Listeners::bind(&hop.address).await?;
    let tasks = TaskTracker::new();
    let addresses = listeners.addresses()?;
    if let Some(own) = hop
        .upstreams
        .iter()
        .find(|upstream| upstream.is_at(&addresses, &hop.path))
    {
        bail!(
            "{own} is what this hop itself would serve, and events would go round for ever: serve at another address"
        );
    }
    let serving = addresses.first().map_or(hop.address.clone(), |first| {
        real_address(&hop.address, first.port())
    });
    let log = Arc::new(EventLog::new(hop.history));
    let via = Arc::new(Via::new(Instance {
        id: log.origin(),
        address: serving.as_str().into(),
    }));
    let route = Arc::new(Route::new(
        &hop.path,
        log.clone(),
        via.clone(),
        hop.subscribers,
        hop.origins,
        (&tasks, &stop),
    ));
    for address in &addresses {
        info!(%address, url = %format_args!("ws://{serving}{}", hop.path), "listening");
    }
    let produce = hop.produce.map(|produce| source::produce::Produce {
        address: serving,
        ..produce
    });
    let upstreams = hop.upstreams.into_iter().map(Source::from);
    let sources: Vec<_> = produce
        .map(Source::Produce)
        .into_iter()
        .chain(upstreams)
        .collect();
    for _ in sources.iter().filter(|source| source.has_past()) {
        log.expect_past();
    }
    for (number, source) in sources.into_iter().enumerate() {
        let to = Destination {
            log: log.clone(),
            via: via.clone(),
            number,
        };
        tasks.spawn(source.run(to, stop.clone()));
    }
    server::serve(listeners, route, hop.limits, tasks.clone(), stop).await;
    shutdown::drain(&tasks, hop.drain).await;
    Ok(())
}

/// The address as it was given, with the port that was really taken.
fn real_address(given: &str, port: u16) -> String {
    match given.rsplit_once(':') {
        Some((host, _)) => format!("{host}:{port}"),
        None => given.to_owned(),
    }
}
