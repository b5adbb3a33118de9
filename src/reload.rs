//! SIGHUP: the routes are read again. Who has read other files, such as certificates or tokens, listens for it by himself.

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

/// Takes SIGHUP over from the system, which would end the process.
pub fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("cannot listen for SIGHUP")
}

/// With each SIGHUP the routes become those in `file`, which the process was started with, if there is one. `addresses` are where
/// it serves.
pub async fn on_hangup(
    mut hangups: Signal,
    file: Option<ConfigFile>,
    routes: Arc<Routes>,
    addresses: Vec<SocketAddr>,
) {
    if let Some(file) = &file
        && !file.ignored.is_empty()
    {
        let variables = file.ignored.join(" ");
        warn!(
            variables,
            "the routes are in the file: these variables do not count"
        );
    }
    while hangups.recv().await.is_some() {
        if let Some(file) = &file {
            // Files may be slow.
            block_in_place(|| reload(file, &routes, &addresses));
        }
    }
}

fn reload(file: &ConfigFile, routes: &Routes, addresses: &[SocketAddr]) {
    let shown = file.path.display().to_string();
    let hop = match changed(file, routes, addresses) {
        Ok(hop) => hop,
        Err(faults) => {
            for Fault { line, reason } in faults {
                warn!(file = shown, line, %reason, "cannot load the routes again, the old ones stay");
            }
            return;
        }
    };
    let now = hop.file.expect("it comes from one");
    let flags = now.differences(file);
    if !flags.is_empty() {
        let flags = flags.join(" ");
        warn!(file = shown, flags, "this takes effect after a restart");
    }
    let (added, removed) = routes.replace(hop.routes);
    let all = routes.all().len();
    info!(file = shown, added, removed, all, "routes loaded again");
}

/// What the file says now, if this process can have such routes. Otherwise nothing changes.
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
