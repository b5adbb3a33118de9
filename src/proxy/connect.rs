//! Connections to upstreams: how they are made, and those that wait for their next request.

mod sender;
mod sluice;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tracing::debug;

use super::body::Upload;
use super::upstreams::Upstream;
use crate::listen::KEEPALIVE;
use crate::listen::proxied::{self, Proxied};
use crate::listen::stream::Stream;

pub use sender::Sender;
pub use sluice::Armed;

/// So many connections wait at most for one upstream's next request.
const MAX_WAITING: usize = 128;
/// After waiting for so long a connection is closed; most servers do so themselves after about a minute.
const MAX_WAIT: Duration = Duration::from_secs(50);
/// The longest head of an answer, and what hyper keeps of a body that the other side is slow to take, in bytes.
pub const MAX_HEAD: usize = 64 << 10;

/// Makes connections.
pub struct Connector {
    /// How long each address of an upstream may take to answer.
    pub timeout: Duration,
    /// For upstreams that speak TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether the upstream is told at once who the client is.
    pub proxied: Option<proxied::Version>,
}

impl Connector {
    /// A fresh connection. `client` says who it is for.
    pub async fn open(&self, upstream: &Upstream, client: Option<Proxied>) -> Result<Stream> {
        let mut socket = self.socket(upstream).await?;
        socket.set_nodelay(true)?;
        // What is silent for days may be gone without a word.
        SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE)?;
        if let Some(version) = self.proxied {
            let header = match client {
                Some(client) => proxied::write(version, client),
                None => {
                    let (source, destination) = (socket.local_addr()?, socket.peer_addr()?);
                    proxied::write_local(
                        version,
                        Proxied {
                            source,
                            destination,
                        },
                    )
                }
            };
            socket.write_all(&header).await?;
        }
        if !upstream.spec.https {
            return Ok(Stream::Plain(socket));
        }
        let tls = self.tls.clone().context("there are no TLS settings")?;
        let name = ServerName::try_from(upstream.spec.host.clone())?;
        let connecting = TlsConnector::from(tls).connect(name, socket);
        let connected = timeout(self.timeout, connecting).await;
        let connected = connected.context("the TLS handshake takes too long")??;
        Ok(Stream::Tls(Box::new(connected.into())))
    }

    /// Tries the upstream's addresses in turn.
    async fn socket(&self, upstream: &Upstream) -> Result<TcpStream> {
        let addresses = upstream.addresses().await?;
        let mut failure = None;
        for (number, &address) in addresses.iter().enumerate() {
            match timeout(self.timeout, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => {
                    if number > 0 {
                        upstream.prefer(address);
                    }
                    return Ok(socket);
                }
                Ok(Err(error)) => failure = Some(error.into()),
                Err(_) => failure = Some(anyhow::anyhow!("{address} does not answer")),
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => bail!("its name has no address"),
        }
    }
}

/// Whether it is for want of means of this process that no connection has come about: files or memory. That says
/// nothing of any upstream.
pub fn is_own_fault(error: &anyhow::Error) -> bool {
    let code = error
        .downcast_ref::<io::Error>()
        .and_then(Errno::from_io_error);
    matches!(
        code,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Makes a connection one that HTTP/1.1 is spoken on. A task of its own does the connection's work until it ends.
pub async fn speak_http<S>(stream: S) -> hyper::Result<SendRequest<Upload>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (requests, link) = handshake(stream).await?;
    tokio::spawn(async move {
        if let Err(error) = link.await {
            debug!(%error, "connection to an upstream failed");
        }
    });
    Ok(requests)
}

/// A connection that somebody has to drive.
async fn handshake<S>(
    stream: S,
) -> hyper::Result<(SendRequest<Upload>, Connection<TokioIo<S>, Upload>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
}

/// The connections to one upstream that wait for their next request.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Waiting>>);

struct Waiting {
    sender: Sender,
    since: Instant,
}

impl Pool {
    /// The one that has waited least: it is the least likely to be closed by the upstream right now.
    pub fn take(&self) -> Option<Sender> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(Waiting::is_alive);
        // One on which an upload goes on although it has been answered is not ready.
        let ready = waiting.iter().rposition(|one| one.sender.is_ready())?;
        Some(waiting.remove(ready).sender)
    }

    /// Its answer has been read to the end.
    pub fn put(&self, sender: Sender) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(Waiting::is_alive);
        let one = Waiting {
            sender,
            since: Instant::now(),
        };
        if one.is_alive() && waiting.len() < MAX_WAITING {
            waiting.push(one);
        }
    }

    /// Closes them all.
    pub fn clear(&self) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.clear();
    }
}

impl Waiting {
    fn is_alive(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < MAX_WAIT
    }
}
