//! SIGHUP: what a running process has read from files is read again.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::block_in_place;
use tracing::{info, warn};

use crate::cli::Hop;
use crate::cli::config::{ConfigFile, Fault, Unusable};
use crate::reason;
use crate::route::Routes;

/// Reads something again, and says in the log how it went. It may wait for files.
pub type Again = Box<dyn FnMut() + Send>;

/// Takes SIGHUP over from the system, which would end the process.
pub fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("cannot listen for SIGHUP")
}

/// Reads all of this again, whenever there is a SIGHUP.
pub async fn on(mut hangups: Signal, mut all: Vec<Again>) {
    while hangups.recv().await.is_some() {
        info!("SIGHUP");
        block_in_place(|| all.iter_mut().for_each(|again| again()));
    }
}

/// Reads what `what` names by `read`. If that fails, what was there stays.
pub fn of(what: &'static str, mut read: impl FnMut() -> Result<()> + Send + 'static) -> Again {
    Box::new(move || match read() {
        Ok(()) => info!(what, "loaded again"),
        Err(error) => {
            let reason = reason::of(&error);
            warn!(what, %reason, "cannot be loaded again, the old ones stay");
        }
    })
}

/// The routes in `file`, as it was when the process began. What is wrong with it now changes nothing. `addresses` are where
/// this process serves.
pub fn routes(file: ConfigFile, routes: Arc<Routes>, addresses: Vec<SocketAddr>) -> Again {
    Box::new(move || {
        let shown = file.path.display().to_string();
        let hop = match changed(&file, &routes, &addresses) {
            Ok(hop) => hop,
            Err(faults) => {
                for Fault { line, reason } in faults {
                    warn!(file = shown, line, %reason, "cannot load the routes again, the old ones stay");
                }
                return;
            }
        };
        let now = hop.file.expect("it comes from one");
        let flags = now.differences(&file);
        if !flags.is_empty() {
            let flags = flags.join(" ");
            warn!(file = shown, flags, "this takes effect after a restart");
        }
        let (added, removed) = routes.replace(hop.routes);
        let all = routes.all().len();
        info!(file = shown, added, removed, all, "routes loaded again");
    })
}

/// What the file says now, if this process can have such routes.
fn changed(
    file: &ConfigFile,
    routes: &Routes,
    addresses: &[SocketAddr],
) -> Result<Hop, Vec<Fault>> {
    let fault = |reason| vec![Fault { line: None, reason }];
    let hop = file.load().map_err(Unusable::faults)?.hop;
    // What the file says now about the process does not hold yet: who may publish, for one.
    file.suits(&hop.routes).map_err(fault)?;
    let policies = hop.routes.into_iter();
    let policies = policies.map(|policy| policy.at(routes.address(), addresses));
    let routes: Result<_> = policies.collect();
    Ok(Hop {
        routes: routes.map_err(|error| fault(reason::of(&error)))?,
        ..hop
    })
}
