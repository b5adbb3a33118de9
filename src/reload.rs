//! SIGHUP: what has come from files is read again: who may what, then the certificate, then the routes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::block_in_place;
use tracing::{info, warn};

use crate::auth::Auth;
use crate::cli::Hop;
use crate::cli::config::{ConfigFile, Fault, Unusable};
use crate::listen::tls::Tls;
use crate::notify;
use crate::reason;
use crate::route::Routes;

/// Takes SIGHUP over from the system, which would end the process.
pub fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("cannot listen for SIGHUP")
}

/// What has come from files.
pub struct Files {
    /// Who may what.
    pub auth: Option<Arc<Auth>>,
    /// The certificate.
    pub tls: Option<Arc<Tls>>,
    /// The routes.
    pub routes: Option<ConfigFile>,
}

/// With each SIGHUP the files are read again, and `routes` become those in theirs. `addresses` are where the process serves.
pub async fn on_hangup(
    mut hangups: Signal,
    files: Files,
    routes: Arc<Routes>,
    addresses: Vec<SocketAddr>,
) {
    if let Some(file) = &files.routes
        && !file.ignored.is_empty()
    {
        let variables = file.ignored.join(" ");
        warn!(
            variables,
            "the routes are in the file: these variables do not count"
        );
    }
    while hangups.recv().await.is_some() {
        notify::reloading();
        // Files may be slow.
        block_in_place(|| {
            // In this order: a new route finds its tokens. None stands in the way of another.
            if let Some(auth) = &files.auth {
                reload_auth(auth);
            }
            if let Some(tls) = &files.tls {
                tls.reload_and_say();
            }
            if let Some(file) = &files.routes {
                reload(file, &routes, &addresses);
            }
        });
        notify::ready(&routes.status());
    }
}

fn reload_auth(auth: &Auth) {
    match auth.reload() {
        Ok(()) => info!("access files loaded again"),
        Err(error) => {
            let reason = reason::of(&error);
            warn!(%reason, "cannot load the access files again, the old rules stay");
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
