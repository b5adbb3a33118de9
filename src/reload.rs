//! SIGHUP: what a running process has read from files is read again.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::block_in_place;
use tracing::{info, warn};

use crate::cli::config::{ConfigFile, Unusable};
use crate::reason;
use crate::route::{Policy, Routes};

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

/// The routes in `file`. What is wrong with it changes nothing. `addresses` are where this process serves.
pub fn routes(mut file: ConfigFile, routes: Arc<Routes>, addresses: Vec<SocketAddr>) -> Again {
    const KEPT: &str = "cannot load the routes again, the old ones stay";
    Box::new(move || {
        let shown = file.path.display().to_string();
        let hop = match file.load() {
            Ok(loaded) => loaded.hop,
            Err(Unusable::File(_, faults)) => {
                for fault in faults {
                    let line = fault.line.map(tracing::field::display);
                    warn!(file = shown, line, reason = fault.reason, "{KEPT}");
                }
                return;
            }
            Err(Unusable::Usage(error)) => {
                let reason = error.kind();
                warn!(file = shown, %reason, "{KEPT}");
                return;
            }
        };
        let policies = hop.routes.into_iter();
        let policies: Result<Vec<Policy>> = policies
            .map(|policy| policy.at(routes.address(), &addresses))
            .collect();
        let policies = match policies {
            Ok(policies) => policies,
            Err(error) => {
                let reason = reason::of(&error);
                warn!(file = shown, %reason, "{KEPT}");
                return;
            }
        };
        let now = hop.file.expect("it comes from one");
        let flags = now.differences(&file);
        if !flags.is_empty() {
            let flags = flags.join(" ");
            warn!(file = shown, flags, "this takes effect after a restart");
        }
        file = now;
        let (added, removed) = routes.replace(policies);
        let all = routes.all().len();
        info!(file = shown, added, removed, all, "routes loaded again");
    })
}
