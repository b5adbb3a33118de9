//! TLS in front: the certificate that the server shows, and its key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::{Error as TlsError, InconsistentKeys, ServerConfig};
use tokio_rustls::server::TlsStream;

/// What is spoken inside, by preference (RFC 7301; the names are from RFC 9113, section 3.2, and RFC 9112, section 12.4).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// So much of what is written rustls holds for a client that does not read: two records of the full size (RFC 8446, section 5.1).
const MAX_UNSENT: usize = 32 << 10;

/// A certificate and its key, from files that may change.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// Seals what clients resume sessions with (RFC 8446, section 4.6.1), so that the server need not remember them. It
    /// outlives a reload: otherwise all clients would need a full handshake after it.
    tickets: Arc<dyn ProducesTickets>,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads a certificate with its chain, and the key that belongs to it. Both files are PEM (RFC 7468).
    pub fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let tickets = ring::Ticketer::new()?;
        let config = read(certificate, key, &tickets)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            tickets,
            config: RwLock::new(config),
        })
    }

    /// Reads the files again, for the connections to come. If anything is wrong with them, the old certificate stays.
    pub fn reload(&self) -> Result<()> {
        let config = read(&self.certificate, &self.key, &self.tickets)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The server's side of a handshake. Which protocol the two have agreed on is in the connection then.
    pub async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self
            .config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        TlsAcceptor::from(config)
            .accept_with(socket, |connection| {
                connection.set_buffer_limit(Some(MAX_UNSENT));
            })
            .await
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>> {
    let chain = read_chain(certificate)
        .with_context(|| format!("cannot read the certificate {}", certificate.display()))?;
    let private =
        read_key(key).with_context(|| format!("cannot read the key {}", key.display()))?;
    // By name: left to itself, rustls chooses, and panics where two providers have been compiled in.
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private);
    let mut config = match config {
        Ok(config) => config,
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => bail!(
            "the key {} does not belong to the certificate {}",
            key.display(),
            certificate.display()
        ),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot use the certificate {} with the key {}",
                    certificate.display(),
                    key.display()
                )
            });
        }
    };
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    config.ticketer = tickets.clone();
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = fs::read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>()?;
    if chain.is_empty() {
        bail!("there is no certificate in it (PEM is expected)");
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let text = fs::read(path)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Err(pem::Error::NoItemsFound) => {
            bail!("there is no key in it (PEM without a passphrase is expected)")
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests;
