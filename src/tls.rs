//! TLS as a client: whom to trust.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::debug;

/// The TLS settings for upstreams: the system's roots, and those in the PEM file `ca`.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = system_roots().clone();
    if let Some(path) = ca {
        let roots = Arc::make_mut(&mut roots);
        let cannot = || format!("cannot read certificates from {}", path.display());
        let file = BufReader::new(File::open(path).with_context(cannot)?);
        let mut count = 0;
        for certificate in CertificateDer::pem_reader_iter(file) {
            roots
                .add(certificate.with_context(cannot)?)
                .with_context(cannot)?;
            count += 1;
        }
        if count == 0 {
            bail!(
                "{}: there is no certificate in it (PEM is expected)",
                cannot()
            );
        }
    }
    // By name: left to itself, rustls chooses, and panics where two providers have been compiled in.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
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
