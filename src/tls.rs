//! TLS, as a server and as a client: certificates and keys from files, and whom to trust as a client.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    ClientConfig, Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig,
};
use tracing::debug;

/// A certificate with its chain, and the key that belongs to it: who somebody is.
pub type Identity = Arc<CertifiedKey>;

/// What encrypts. By name: left to itself, rustls chooses, and panics where two providers have been compiled in.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Reads a certificate with its chain, and its key. Both files are PEM (RFC 7468), and may be one.
pub fn read_identity(certificate: &Path, key: &Path) -> Result<Identity> {
    let chain = read_certificates(certificate)
        .with_context(|| format!("cannot read the certificate {}", certificate.display()))?;
    let private =
        read_key(key).with_context(|| format!("cannot read the key {}", key.display()))?;
    let identity = CertifiedKey::from_der(chain, private, &ring::default_provider());
    match identity {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => bail!(
            "the key {} does not belong to the certificate {}",
            key.display(),
            certificate.display()
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot use the certificate {} with the key {}",
                certificate.display(),
                key.display()
            )
        }),
    }
}

/// Reads the certificates of those who sign others, in a PEM file.
pub fn read_roots(path: &Path) -> Result<RootCertStore> {
    let cannot = || format!("cannot read certificates from {}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path).with_context(cannot)? {
        roots.add(certificate).with_context(cannot)?;
    }
    Ok(roots)
}

/// Reads the certificates in a PEM file; one at least.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
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

/// The TLS settings for upstreams: the system's roots, and those in the PEM file `ca`; `identity` is shown to those who ask
/// for it.
pub fn client_config(ca: Option<&Path>, identity: Option<Identity>) -> Result<Arc<ClientConfig>> {
    let mut roots = system_roots().clone();
    if let Some(path) = ca {
        Arc::make_mut(&mut roots).extend(read_roots(path)?.roots);
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => config.with_no_client_auth(),
    }))
}

/// The TLS settings of a server. Who is not signed by `client_roots`, if there are some, is refused.
pub fn server_config(
    identity: Identity,
    client_roots: Option<RootCertStore>,
) -> Result<ServerConfig> {
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = match client_roots {
        Some(roots) => config.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?,
        ),
        None => config.with_no_client_auth(),
    };
    Ok(config.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

/// The system's roots. Many routes share them: reading them takes a while, and they are a hundred or more.
fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in native.errors {
            debug!(%error, "cannot read one of the system's root certificates");
        }
        roots.add_parsable_certificates(native.certs);
        Arc::new(roots)
    })
}
