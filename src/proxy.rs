//! The round-robin reverse proxy: every client gets its own upstream connection, the next one in turn. It touches no
//! stream and no tape.
//!
//! ```text
//!  client ──► front ──► gate ──► hyper ──► forward ──► upstreams, balance, health
//!               │                             └──────► connect ──► hyper ──► upstream
//!               └──────────────► tunnel (after a 101: two sockets, no hyper) ──► upstream
//! ```

pub mod balance;
pub mod body;
pub mod connect;
pub mod events;
pub mod exchange;
pub mod forward;
pub mod front;
pub mod headers;
pub mod health;
pub mod tunnel;
pub mod upstreams;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::event::Origin;
use crate::listen::Listeners;
use crate::listen::admission::{Admission, OfEach, most_connections};
use crate::listen::refusal::TurningAway;
use crate::listen::tls::Tls;
use crate::shutdown::Stop;
use crate::{listen, notify, reason, shutdown};
use balance::Balance;
use connect::Connector;
use headers::Rules;
use health::Probe;
use upstreams::{Spec, Upstreams};

/// Each client has a file, and another one at its upstream.
const FILES_EACH: usize = 2;

/// What the flags say.
pub struct Config {
    /// `host:port` to listen on.
    pub address: String,
    /// Whether others than who is on this machine are told which upstreams there are.
    pub tells_topology: bool,
    /// The upstreams that the flags name.
    pub upstreams: Vec<Spec>,
    /// Where more of them are listed, to be read again on SIGHUP.
    pub upstream_file: Option<PathBuf>,
    /// Who is next.
    pub balance: Balance,
    /// How upstreams are asked whether they are well.
    pub probe: Option<Probe>,
    /// The rules for headers.
    pub rules: Rules,
    /// How upstreams are reached.
    pub connector: Connector,
    /// How long the head of an answer may take.
    pub answer_timeout: Duration,
    /// TLS for clients.
    pub tls: Option<Arc<Tls>>,
    /// Whether each connection begins with a PROXY header.
    pub accept_proxied: bool,
    /// The most connections of clients; none: as many as the limit of open files allows.
    pub max_connections: Option<usize>,
    /// The most of one address.
    pub max_per_address: Option<usize>,
    /// The most at one upstream.
    pub max_per_upstream: Option<usize>,
    /// How long a client may be silent.
    pub client_idle: Option<Duration>,
    /// How long an upstream may be silent.
    pub upstream_idle: Option<Duration>,
    /// How old a connection may become.
    pub max_age: Option<Duration>,
    /// How long stopping may take.
    pub drain: Duration,
}

/// What all connections share.
pub struct Proxy {
    /// The name of this process.
    instance: Origin,
    /// Where it serves, in its own words.
    address: String,
    tells_topology: bool,
    upstreams: Arc<Upstreams>,
    rules: Rules,
    connector: Arc<Connector>,
    answer_timeout: Duration,
    tls: Option<Arc<Tls>>,
    accept_proxied: bool,
    client_idle: Option<Duration>,
    upstream_idle: Option<Duration>,
    max_age: Option<Duration>,
    drain: Duration,
    admission: Arc<Admission>,
    turning_away: TurningAway,
    tasks: TaskTracker,
    stop: Stop,
}

impl Proxy {
    /// What it does, in a few words.
    fn status(&self) -> String {
        let (address, upstreams) = (&self.address, self.upstreams.names().len());
        format!("{address}: {upstreams} upstreams")
    }
}

/// Runs the proxy until `stop` has begun and everything has been drained.
pub async fn run(config: Config, stop: Stop) -> Result<()> {
    let mut listeners = Listeners::handed_or_bound(&config.address).await?;
    let addresses = listeners.addresses()?;
    let sources = Sources {
        named: config.upstreams,
        file: config.upstream_file,
        own: addresses.clone(),
    };
    let specs = sources.read()?;
    listeners.notice_the_dead(config.client_idle)?;
    let upstreams = Upstreams::new(specs, config.balance, config.max_per_upstream);
    let upstreams = Arc::new(upstreams);
    let tasks = TaskTracker::new();
    let begun = stop.begun().clone();
    let most = config.max_connections;
    let most = most.unwrap_or_else(|| most_connections(FILES_EACH));
    let admission = Admission::new(most, config.max_per_address.map(OfEach::address));
    let port = addresses.first().map_or(0, SocketAddr::port);
    let proxy = Arc::new(Proxy {
        instance: Origin::random(),
        address: crate::real_address(&config.address, port),
        tells_topology: config.tells_topology,
        upstreams: upstreams.clone(),
        rules: config.rules,
        connector: Arc::new(config.connector),
        answer_timeout: config.answer_timeout,
        tls: config.tls,
        accept_proxied: config.accept_proxied,
        client_idle: config.client_idle,
        upstream_idle: config.upstream_idle,
        max_age: config.max_age,
        drain: config.drain,
        admission: admission.clone(),
        turning_away: TurningAway::default(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    if let Some(probe) = config.probe {
        let connector = proxy.connector.clone();
        let begun = begun.clone();
        tasks.spawn(health::watch(upstreams, probe, connector, begun));
    }
    tasks.spawn(reload_on_hangup(proxy.clone(), sources)?);
    if let Some(tls) = &proxy.tls {
        tasks.spawn(tls.clone().watch(begun.clone()));
    }
    for address in &addresses {
        let upstreams = proxy.upstreams.names().join(" ");
        info!(%address, upstreams, balance = %proxy.upstreams.balance(), "listening");
    }
    notify::ready(&proxy.status());
    // A task on a worker thread, as in `server::serve`.
    let accepting = tasks.spawn(async move {
        while let Some((socket, address)) = begun.run_until_cancelled(listeners.accept()).await {
            let admitted = admission.enter();
            let connection = front::connection(socket, address, admitted, proxy.clone());
            proxy.tasks.spawn(connection);
        }
    });
    accepting.await.expect("accepting does not panic");
    notify::stopping();
    shutdown::drain(&tasks, &stop).await;
    Ok(())
}

/// Where the list of upstreams comes from.
struct Sources {
    /// Those that flags name.
    named: Vec<Spec>,
    /// Where there are more of them.
    file: Option<PathBuf>,
    /// Where this proxy listens itself.
    own: Vec<SocketAddr>,
}

impl Sources {
    /// The list as it is now.
    fn read(&self) -> Result<Vec<Spec>> {
        let mut all = self.named.clone();
        if let Some(file) = &self.file {
            all.extend(upstreams::read_file(file)?);
        }
        upstreams::check(&all)?;
        if let Some(own) = all
            .iter()
            .find(|spec| listen::leads_to(&self.own, &spec.host, spec.port))
        {
            bail!(
                "{own} is this proxy itself, and requests would go round for ever: name another upstream"
            );
        }
        Ok(all)
    }
}

/// On SIGHUP the certificate and the list of upstreams are read again. What is wrong with it changes nothing.
fn reload_on_hangup(
    proxy: Arc<Proxy>,
    sources: Sources,
) -> Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let stop = proxy.stop.begun().clone();
    let reloading = async move {
        while hangup.recv().await.is_some() {
            notify::reloading();
            if let Some(tls) = proxy.tls.clone() {
                let reloading = spawn_blocking(move || tls.reload_and_say());
                reloading.await.expect("reading files does not panic");
            }
            match sources.read() {
                Ok(specs) => {
                    let changes = proxy.upstreams.replace(specs);
                    info!(
                        added = changes.added.join(" "),
                        removed = changes.removed.join(" "),
                        changed = changes.changed.join(" "),
                        "upstreams loaded again"
                    );
                }
                Err(error) => {
                    let reason = reason::of(&error);
                    warn!(%reason, "cannot load the upstreams again, the old ones stay");
                }
            }
            notify::ready(&proxy.status());
        }
    };
    Ok(async move {
        stop.run_until_cancelled(reloading).await;
    })
}
