//! The flags of `wsevent proxy`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;
use ipnet::IpNet;

use super::tls::TlsArgs;
use super::{Usage, given, values};
use crate::listen::proxied::Version;
use crate::proxy::Config;
use crate::proxy::balance::Balance;
use crate::proxy::connect::Connector;
use crate::proxy::headers::Rules;
use crate::proxy::health::Probe;
use crate::proxy::upstreams::{self, Spec};
use crate::reason;
use crate::tls::client_config;

const EXAMPLES: &str = "\
Examples:
  wsevent proxy --upstream localhost:8080 --upstream localhost:8081 --upstream localhost:8082
      each client's connection goes to the next one in turn
  wsevent proxy --upstream-file upstreams --health-path /events --balance least-connections \\
          --serve-address 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --max-connection-age 12h
      for connections that live for days: SIGHUP reads the file again, and the certificate, which is also
      read again when it changes

Each request is a line in the log when it is over. Exit status: 0 after SIGINT or SIGTERM, 1 for what fails at run time,
2 for wrong usage.";

/// The flags of `proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ProxyArgs {
    /// Where clients are sent: host:port, http://host:port or https://host:port, then perhaps ,weight=N and ,max=N (connections); repeatable
    #[arg(
        long,
        env = "WSEVENT_UPSTREAM",
        value_name = "UPSTREAM",
        help_heading = "Upstreams"
    )]
    pub upstream: Vec<String>,

    /// More upstreams, one a line, with # for comments; SIGHUP reads it again: those that stay keep their connections, those that have gone get no new ones
    #[arg(
        long,
        env = "WSEVENT_UPSTREAM_FILE",
        value_name = "FILE",
        help_heading = "Upstreams"
    )]
    pub upstream_file: Option<PathBuf>,

    /// Who is next: round-robin, least-connections, random, or hash:ip, hash:cookie:NAME, hash:header:NAME (the same one for the same)
    #[arg(
        long,
        env = "WSEVENT_BALANCE",
        value_name = "HOW",
        default_value = "round-robin",
        help_heading = "Upstreams"
    )]
    pub balance: Balance,

    /// At most so many connections at each upstream that has no max= of its own
    #[arg(long, env = "WSEVENT_MAX_CONNECTIONS_PER_UPSTREAM", value_name = "N", value_parser = values::at_least_one, help_heading = "Upstreams")]
    pub max_connections_per_upstream: Option<usize>,

    /// How long each address of an upstream may take to accept a connection; then the next upstream is tried
    #[arg(long, env = "WSEVENT_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "3s", value_parser = values::interval, help_heading = "Upstreams")]
    pub connect_timeout: Duration,

    /// How long an upstream may take to begin its answer
    #[arg(long, env = "WSEVENT_ANSWER_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = values::interval, help_heading = "Upstreams")]
    pub answer_timeout: Duration,

    /// Trust these certificates (PEM) as well as the system's, for https:// upstreams
    #[arg(
        long,
        env = "WSEVENT_UPSTREAM_CA",
        value_name = "FILE",
        help_heading = "Upstreams"
    )]
    pub upstream_ca: Option<PathBuf>,

    /// Ask each upstream for this path now and then: 2xx and 3xx are good; where a WebSocket is at it, a handshake is tried
    #[arg(long, env = "WSEVENT_HEALTH_PATH", value_name = "PATH", value_parser = values::path_and_query, help_heading = "Upstreams")]
    pub health_path: Option<String>,

    /// Ask so often (5s with --health-path); without a path, try to connect
    #[arg(long, env = "WSEVENT_HEALTH_INTERVAL", value_name = "DURATION", value_parser = values::interval, help_heading = "Upstreams")]
    pub health_interval: Option<Duration>,

    /// How long the answer may take
    #[arg(long, env = "WSEVENT_HEALTH_TIMEOUT", value_name = "DURATION", default_value = "2s", value_parser = values::interval, help_heading = "Upstreams")]
    pub health_timeout: Duration,

    /// Send a PROXY header (v1 or v2) before anything else; each request has a connection of its own then
    #[arg(
        long,
        env = "WSEVENT_SEND_PROXY_PROTOCOL",
        value_name = "VERSION",
        help_heading = "Upstreams"
    )]
    pub send_proxy_protocol: Option<Version>,

    /// Where to listen; port 0 takes any free port
    #[arg(
        long,
        env = "WSEVENT_SERVE_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "localhost:80",
        help_heading = "Clients"
    )]
    pub serve_address: String,

    /// TLS in front
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Each connection begins with a PROXY header (v1 or v2) that says who the client is; for use behind a balancer only
    #[arg(long, env = "WSEVENT_ACCEPT_PROXY_PROTOCOL", value_parser = BoolishValueParser::new(), help_heading = "Clients")]
    pub accept_proxy_protocol: bool,

    /// Believe Forwarded and X-Forwarded-* of clients in this network, such as 10.0.0.0/8; repeatable; those of others are dropped
    #[arg(
        long,
        env = "WSEVENT_TRUST_FORWARDED",
        value_name = "CIDR",
        help_heading = "Clients"
    )]
    pub trust_forwarded: Vec<String>,

    /// Tell upstreams their own address as Host; else it stays as the client says it
    #[arg(long, env = "WSEVENT_REWRITE_HOST", value_parser = BoolishValueParser::new(), help_heading = "Clients")]
    pub rewrite_host: bool,

    /// At most so many connections of clients; as many as the limit of open files allows, if not given
    #[arg(long, env = "WSEVENT_MAX_CONNECTIONS", value_name = "N", value_parser = values::at_least_one, help_heading = "Clients")]
    pub max_connections: Option<usize>,

    /// At most so many of one address (of one /64 network with IPv6)
    #[arg(long, env = "WSEVENT_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", value_parser = values::at_least_one, help_heading = "Clients")]
    pub max_connections_per_address: Option<usize>,

    /// Let connections become about so old (give or take a tenth): WebSockets are closed with 1001 then, event streams end, so that clients spread anew
    #[arg(long, env = "WSEVENT_MAX_CONNECTION_AGE", value_name = "DURATION", value_parser = values::limit, help_heading = "Clients")]
    pub max_connection_age: Option<Duration>,

    /// End a connection whose client has sent nothing for so long
    #[arg(long, env = "WSEVENT_CLIENT_IDLE_TIMEOUT", value_name = "DURATION", value_parser = values::limit, help_heading = "Clients")]
    pub client_idle_timeout: Option<Duration>,

    /// End a connection whose upstream has sent nothing for so long
    #[arg(long, env = "WSEVENT_UPSTREAM_IDLE_TIMEOUT", value_name = "DURATION", value_parser = values::limit, help_heading = "Upstreams")]
    pub upstream_idle_timeout: Option<Duration>,

    /// Tell whoever asks which upstreams there are, for a picture of the topology (wsevent topology): else only those on this machine are told
    #[arg(long, env = "WSEVENT_TELL_TOPOLOGY", value_parser = BoolishValueParser::new(), help_heading = "Clients")]
    pub tell_topology: bool,

    /// When stopping, how long connections may take to end: after SIGTERM WebSockets and event streams each at a moment of its own in the first three quarters
    #[arg(long, env = "WSEVENT_DRAIN", value_name = "DURATION", default_value = "10s", value_parser = values::duration, help_heading = "Clients")]
    pub drain: Duration,
}

/// What the flags say, if it fits together.
pub fn config(args: ProxyArgs, matches: &ArgMatches) -> Usage<Config> {
    values::check_address(&args.serve_address)
        .map_err(|error| format!("--serve-address: {error}"))?;
    let mut upstreams = Vec::new();
    for text in words(matches, "upstream", &args.upstream) {
        let spec: Spec = text
            .parse()
            .map_err(|error| format!("--upstream: {error}"))?;
        upstreams.push(spec);
    }
    let from_file = args.upstream_file.as_deref().map(upstreams::read_file);
    let from_file = from_file
        .transpose()
        .map_err(|error| format!("--upstream-file: {}", reason::of(&error)))?
        .unwrap_or_default();
    if upstreams.is_empty() && from_file.is_empty() {
        return Err("there is nobody to send clients to: add --upstream HOST:PORT".into());
    }
    let mut trust = Vec::new();
    for text in words(matches, "trust_forwarded", &args.trust_forwarded) {
        trust.push(network(text)?);
    }
    let tls = args.tls.load()?.map(Arc::new);
    if given(matches, "health_timeout") == 2
        && args.health_path.is_none()
        && args.health_interval.is_none()
    {
        return Err(
            "--health-timeout has no effect without --health-path or --health-interval".into(),
        );
    }
    let probe = (args.health_path.is_some() || args.health_interval.is_some()).then(|| Probe {
        path: args.health_path,
        interval: args.health_interval.unwrap_or(Duration::from_secs(5)),
        timeout: args.health_timeout,
    });
    // A reload may bring one that speaks TLS, where there is a file.
    let wants_tls = args.upstream_ca.is_some()
        || args.upstream_file.is_some()
        || upstreams.iter().any(|upstream| upstream.https);
    let client_tls = wants_tls
        .then(|| client_config(args.upstream_ca.as_deref(), None))
        .transpose()
        .map_err(|error| format!("--upstream-ca: {}", reason::of(&error)))?;
    Ok(Config {
        address: args.serve_address,
        tells_topology: args.tell_topology,
        upstreams,
        upstream_file: args.upstream_file,
        balance: args.balance,
        probe,
        rules: Rules {
            trust,
            rewrite_host: args.rewrite_host,
        },
        connector: Connector {
            timeout: args.connect_timeout,
            tls: client_tls,
            proxied: args.send_proxy_protocol,
        },
        answer_timeout: args.answer_timeout,
        tls,
        accept_proxied: args.accept_proxy_protocol,
        max_connections: args.max_connections,
        max_per_address: args.max_connections_per_address,
        max_per_upstream: args.max_connections_per_upstream,
        client_idle: args.client_idle_timeout,
        upstream_idle: args.upstream_idle_timeout,
        max_age: args.max_connection_age,
        drain: args.drain,
    })
}

/// The values of a repeatable flag that hold no white space, so that it can separate them in a variable.
fn words<'a>(matches: &ArgMatches, id: &str, values: &'a [String]) -> Vec<&'a str> {
    match given(matches, id) {
        1 => values
            .iter()
            .flat_map(|list| list.split_whitespace())
            .collect(),
        _ => values.iter().map(String::as_str).collect(),
    }
}

/// A network, or a single address.
fn network(text: &str) -> Usage<IpNet> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| {
        format!("--trust-forwarded: '{text}' is no network, such as 10.0.0.0/8 or fd00::/8")
    })
}
