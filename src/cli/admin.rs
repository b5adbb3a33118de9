//! The flag of the address for those who run the process. It is of the process.

use super::values;

/// Where the process tells how it is.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// Tell at this address how the hop is: /-/live, /-/ready, /-/metrics, /-/streams, /-/topology and /-/version, over HTTP and to everyone who reaches it; a port alone is one of localhost
    #[arg(
        long,
        env = "WSEVENT_ADMIN_ADDRESS",
        value_name = "HOST:PORT",
        value_parser = values::local_address,
        help_heading = "Administration"
    )]
    pub admin_address: Option<String>,

    /// Bring traces of connects and reconnects to the collector at this URL, by OTLP over HTTP: http://localhost:4318 is where most listen. Without it
    /// OTEL_EXPORTER_OTLP_ENDPOINT counts, as do all others of these variables
    #[cfg(feature = "otel")]
    #[arg(
        long,
        env = "WSEVENT_OTLP_ENDPOINT",
        value_name = "URL",
        value_parser = values::collector,
        help_heading = "Administration"
    )]
    pub otlp_endpoint: Option<url::Url>,
}
