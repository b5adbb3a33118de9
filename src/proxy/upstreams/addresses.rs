//! The addresses of an upstream's name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::Instant;
use tracing::debug;

#[cfg(test)]
mod tests;

/// Addresses older than this are looked up again.
const OLD: Duration = Duration::from_secs(30);
/// Where none of them works, they are as soon as this: the name may have moved.
const DOUBTED: Duration = Duration::from_secs(1);
/// So long nobody else asks for a name that has just failed to resolve: the others who wait have their answer.
const FAILED: Duration = Duration::from_secs(1);

/// A name and what it stands for, as far as that is known.
pub(super) struct Addresses {
    host: String,
    port: u16,
    known: Mutex<Known>,
    /// Whoever looks the name up: one at a time.
    looking_up: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    addresses: Option<Arc<[SocketAddr]>>,
    /// When they were looked up; none: they do not age, or are not known.
    since: Option<Instant>,
    /// Somebody looks them up again.
    refreshing: bool,
    /// None of them worked since.
    doubted: bool,
    /// The one that worked last.
    preferred: Option<SocketAddr>,
    failed: Option<(Instant, io::ErrorKind, String)>,
}

impl Addresses {
    pub(super) fn new(host: &str, port: u16) -> Self {
        let literal = host.parse::<IpAddr>().ok();
        Self {
            host: host.to_owned(),
            port,
            known: Mutex::new(Known {
                addresses: literal.map(|ip| Arc::from([SocketAddr::new(ip, port)])),
                ..Known::default()
            }),
            looking_up: tokio::sync::Mutex::default(),
        }
    }

    /// The addresses, the one that worked last first. Old ones are used while they are looked up again in the
    /// background.
    pub(super) async fn get(self: &Arc<Self>) -> io::Result<Arc<[SocketAddr]>> {
        self.get_by(|host, port| async move { Ok(lookup_host((host, port)).await?.collect()) })
            .await
    }

    async fn get_by<L, F>(self: &Arc<Self>, look_up: L) -> io::Result<Arc<[SocketAddr]>>
    where
        L: FnOnce(String, u16) -> F + Send + 'static,
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send,
    {
        if let Some((addresses, refresh)) = self.cached() {
            if refresh {
                let this = self.clone();
                tokio::spawn(async move {
                    let result = look_up(this.host.clone(), this.port).await;
                    if let Err(error) = this.learn(result) {
                        debug!(host = this.host, %error, "cannot look the name up again, going on with what it was");
                    }
                });
            }
            return Ok(addresses);
        }
        let _turn = self.looking_up.lock().await;
        // Whoever had the turn before may have found out.
        if let Some((addresses, _)) = self.cached() {
            return Ok(addresses);
        }
        if let Some((at, kind, text)) = &self.known().failed
            && at.elapsed() < FAILED
        {
            return Err(io::Error::new(*kind, text.clone()));
        }
        let result = look_up(self.host.clone(), self.port).await;
        self.learn(result)
    }

    /// What is known, and whether it is on the caller to look it up again.
    fn cached(&self) -> Option<(Arc<[SocketAddr]>, bool)> {
        let mut known = self.known();
        let addresses = known.addresses.clone()?;
        let old = if known.doubted { DOUBTED } else { OLD };
        let is_old = known.since.is_some_and(|since| since.elapsed() >= old);
        let refresh = is_old && !known.refreshing;
        known.refreshing |= refresh;
        Some((addresses, refresh))
    }

    fn learn(&self, result: io::Result<Vec<SocketAddr>>) -> io::Result<Arc<[SocketAddr]>> {
        let mut known = self.known();
        known.refreshing = false;
        known.doubted = false;
        let result = result.and_then(|found| {
            let mut addresses: Vec<SocketAddr> = vec![];
            for address in found {
                // A hosts file may well say the same twice.
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            match addresses.is_empty() {
                true => Err(io::Error::other("the name has no address")),
                false => Ok(addresses),
            }
        });
        match result {
            Ok(addresses) => {
                let first = known.preferred;
                let addresses = with_first(&addresses, first);
                known.addresses = Some(addresses.clone());
                known.since = Some(Instant::now());
                known.failed = None;
                Ok(addresses)
            }
            Err(error) => {
                // What was known goes on, and is not asked for at every connect.
                known.since = known.since.map(|_| Instant::now());
                known.failed = Some((Instant::now(), error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    /// This address worked: it is the first to try from now on.
    pub(super) fn prefer(&self, address: SocketAddr) {
        let mut known = self.known();
        let Some(addresses) = &known.addresses else {
            return;
        };
        if addresses.first() == Some(&address) || !addresses.contains(&address) {
            return;
        }
        known.addresses = Some(with_first(addresses, Some(address)));
        known.preferred = Some(address);
    }

    /// None of them worked: they are looked up again sooner.
    pub(super) fn doubt(&self) {
        self.known().doubted = true;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The addresses, with `first` in front if it is one of them.
fn with_first(addresses: &[SocketAddr], first: Option<SocketAddr>) -> Arc<[SocketAddr]> {
    let is_first = |address: &&SocketAddr| Some(**address) == first;
    let preferred = addresses.iter().filter(is_first);
    let others = addresses.iter().filter(|address| !is_first(address));
    preferred.chain(others).copied().collect()
}
