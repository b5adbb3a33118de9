//! TLS: what a server shows and whom it lets in, and what a client shows.

use std::path::PathBuf;

use super::Usage;
use crate::listen::tls::{Files, Tls};
use crate::reason;
use crate::tls::{Identity, read_identity};

/// TLS in front. These are flags of a process, be it a hop or a proxy, not of a route.
#[derive(Debug, clap::Args)]
pub struct TlsArgs {
    /// Speak TLS to clients, with this certificate and those it needs (PEM); it is read again when it changes, and on SIGHUP
    #[arg(
        long,
        env = "WSEVENT_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        help_heading = "TLS"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The key of the certificate (PEM)
    #[arg(
        long,
        env = "WSEVENT_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "TLS"
    )]
    pub tls_key: Option<PathBuf>,

    /// Let only those in who have a certificate that one of these has signed (PEM)
    #[arg(
        long,
        env = "WSEVENT_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert",
        help_heading = "TLS"
    )]
    pub tls_client_ca: Option<PathBuf>,
}

impl TlsArgs {
    /// What the files hold, if they are named.
    pub fn load(self) -> Usage<Option<Tls>> {
        let (Some(certificate), Some(key)) = (self.tls_cert, self.tls_key) else {
            return Ok(None);
        };
        let client_ca = self.tls_client_ca;
        let files = Files {
            certificate,
            key,
            client_ca,
        };
        let tls = Tls::load(files).map_err(|error| reason::of(&error))?;
        Ok(Some(tls))
    }
}

/// TLS to the other side; the same for a hop, for `tail` and for `publish`.
#[derive(Debug, clap::Args)]
pub struct ClientTlsArgs {
    /// Show this certificate, and those it needs (PEM), to servers that want one, over wss:// and https://
    #[arg(
        long,
        env = "WSEVENT_CONSUME_CERT",
        value_name = "FILE",
        requires = "consume_key",
        help_heading = "Connections"
    )]
    pub consume_cert: Option<PathBuf>,

    /// The key of that certificate (PEM)
    #[arg(
        long,
        env = "WSEVENT_CONSUME_KEY",
        value_name = "FILE",
        requires = "consume_cert",
        help_heading = "Connections"
    )]
    pub consume_key: Option<PathBuf>,
}

impl ClientTlsArgs {
    /// What the files hold, if they are named.
    pub fn identity(&self) -> Usage<Option<Identity>> {
        let (Some(certificate), Some(key)) = (&self.consume_cert, &self.consume_key) else {
            return Ok(None);
        };
        let identity = read_identity(certificate, key);
        identity
            .map(Some)
            .map_err(|error| format!("--consume-cert: {}", reason::of(&error)))
    }
}
