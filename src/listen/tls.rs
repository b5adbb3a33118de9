//! TLS in front: the certificate that the server shows, its key, and whose clients it lets in.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hyper::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ProducesTickets};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::refusal::say_no;
use super::rewound::HTTP2_PREFACE;
use super::stream::Stream;
use crate::reason;
use crate::tls;

/// What is spoken inside, by preference (RFC 7301; the names are from RFC 9113, section 3.2, and RFC 9112, section 12.4).
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";
/// So much of what is written rustls holds for a client that does not read: two records of the full size (RFC 8446, section 5.1).
const MAX_UNSENT: usize = 32 << 10;
/// A handshake must be done by then, and with HTTP/2 its preface be here, unless something else is wanted.
pub const OPENING: Duration = Duration::from_secs(10);
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A certificate and its key, from files that may change.
pub struct Tls {
    files: Files,
    /// How the files were when they were last read.
    loaded: Mutex<Vec<Version>>,
    /// Seals what clients resume sessions with (RFC 8446, section 4.6.1), so that the server need not remember them. It
    /// outlives a reload: otherwise all clients would need a full handshake after it.
    tickets: Arc<dyn ProducesTickets>,
    config: RwLock<Arc<ServerConfig>>,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with those that it needs.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs the certificates that clients must have.
    pub client_ca: Option<PathBuf>,
}

/// What tells a file from what it was: where it is, how long, and when it last changed, the rights to it included; none
/// if it is not there. Links are followed, as those who renew certificates often change a link only.
type Version = Option<(u64, u64, u64, i64, i64)>;

impl Files {
    fn versions(&self) -> Vec<Version> {
        let files = [&self.certificate, &self.key];
        let version = |path: &PathBuf| {
            let file = fs::metadata(path).ok()?;
            let changed = (file.ctime(), file.ctime_nsec());
            Some((file.dev(), file.ino(), file.len(), changed.0, changed.1))
        };
        let files = files.into_iter().chain(&self.client_ca);
        files.map(version).collect()
    }
}

impl Tls {
    /// Reads the files, all of which are PEM (RFC 7468).
    pub fn load(files: Files) -> Result<Self> {
        let tickets = ring::Ticketer::new()?;
        let loaded = files.versions();
        let config = read(&files, &tickets)?;
        Ok(Self {
            files,
            loaded: Mutex::new(loaded),
            tickets,
            config: RwLock::new(config),
        })
    }

    /// Reads the files again, for the connections to come. If anything is wrong with them, the old certificate stays.
    pub fn reload(&self) -> Result<()> {
        *self.loaded() = self.files.versions();
        let config = read(&self.files, &self.tickets)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn loaded(&self) -> MutexGuard<'_, Vec<Version>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, and the log says how it went. Files may be slow: for threads that may wait.
    pub fn reload_and_say(&self) {
        match self.reload() {
            Ok(()) => info!("certificate loaded again"),
            Err(error) => {
                let reason = reason::of(&error);
                warn!(%reason, "cannot load the certificate again, the old one stays");
            }
        }
    }

    /// The server's side of a handshake, and it must be done `within` this time. With the connection comes the preface of HTTP/2, if the two have
    /// agreed on that. Who has sent plain HTTP is told so.
    pub async fn open(
        &self,
        socket: TcpStream,
        within: Duration,
    ) -> Result<(Stream, Option<Bytes>)> {
        let opening = timeout(within, self.try_open(socket)).await;
        opening.context("the client takes too long")?
    }

    async fn try_open(&self, mut socket: TcpStream) -> Result<(Stream, Option<Bytes>)> {
        if speaks_http(&socket).await? {
            const REASON: &str =
                "this port speaks TLS: ask with https://, or wss:// for a WebSocket";
            say_no(&mut socket, StatusCode::BAD_REQUEST, REASON).await;
            bail!("it speaks plain HTTP");
        }
        let config = self
            .config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut stream = TlsAcceptor::from(config)
            .accept_with(socket, |connection| {
                connection.set_buffer_limit(Some(MAX_UNSENT));
            })
            .await?;
        let mut preface = None;
        if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            // hyper would wait for it for ever.
            let mut read = [0; HTTP2_PREFACE.len()];
            stream.read_exact(&mut read).await?;
            preface = Some(Bytes::copy_from_slice(&read));
        }
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), preface))
    }

    /// Reads the files again when they have changed, until `stop` is cancelled.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let watching = async move {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut before = self.loaded().clone();
            loop {
                looks.tick().await;
                // On threads that may wait: a disk may be slow to answer.
                let tls = self.clone();
                let Ok(now) = spawn_blocking(move || tls.files.versions()).await else {
                    return;
                };
                // Whoever renews the certificate and its key changes one after the other: what has just changed is given until
                // the next look.
                let is_new = now != *self.loaded() && now == before;
                before = now;
                if is_new {
                    let tls = self.clone();
                    if spawn_blocking(move || tls.reload_and_say()).await.is_err() {
                        return;
                    }
                }
            }
        };
        stop.run_until_cancelled(watching).await;
    }
}

/// Whether what comes first is a method of HTTP (RFC 9110, section 9.1; a letter in all that there are) and no record of TLS
/// (RFC 8446, section 5.1; 22 for a handshake).
async fn speaks_http(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let len = socket.peek(&mut first).await?;
    Ok(len > 0 && first[0].is_ascii_alphabetic())
}

fn read(files: &Files, tickets: &Arc<dyn ProducesTickets>) -> Result<Arc<ServerConfig>> {
    let identity = tls::read_identity(&files.certificate, &files.key)?;
    let roots = files.client_ca.as_deref().map(read_roots).transpose()?;
    let must_be_signed = roots.is_some();
    let mut config = tls::server_config(identity, roots)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    if must_be_signed {
        // A session that is resumed shows no certificate: one that has expired since, or that another CA than today's has
        // signed, would be let in.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    } else {
        config.ticketer = tickets.clone();
    }
    Ok(Arc::new(config))
}

fn read_roots(path: &Path) -> Result<RootCertStore> {
    tls::read_roots(path).context("clients cannot be checked")
}

#[cfg(test)]
mod tests;
