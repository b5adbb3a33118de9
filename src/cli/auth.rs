//! Who may what: the flags that say where it stands. They are of the process, whatever its routes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ArgMatches;
use clap::builder::BoolishValueParser;

use super::{Usage, given, lines};
use crate::auth::{Auth, Settings};
use crate::reason;
use crate::route::Policy;

/// Where it stands who may what. All are of the process.
#[derive(Debug, clap::Args)]
pub struct AuthArgs {
    /// Let in who has a token that is listed in this file, one name:sha256:paths:rights a line
    #[arg(
        long,
        env = "WSEVENT_AUTH_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Access"
    )]
    pub auth_token_file: Option<PathBuf>,

    /// The files of keys; text, as a variable may hold several
    #[arg(
        long,
        env = "WSEVENT_JWT_KEYS",
        help = "Let in who has a JWT that is signed with a key of this file: public keys (PEM), a JWK set, or a shared secret; repeatable",
        value_name = "FILE",
        help_heading = "Access"
    )]
    pub jwt_keys: Vec<String>,

    /// Take only JWTs for this audience (aud)
    #[arg(
        long,
        env = "WSEVENT_JWT_AUDIENCE",
        value_name = "AUDIENCE",
        help_heading = "Access"
    )]
    pub jwt_audience: Option<String>,

    /// Take only JWTs from this issuer (iss)
    #[arg(
        long,
        env = "WSEVENT_JWT_ISSUER",
        value_name = "ISSUER",
        help_heading = "Access"
    )]
    pub jwt_issuer: Option<String>,

    /// Let everyone publish who reaches this address, even if that is not only this machine and nobody has to say who they are
    #[arg(long, env = "WSEVENT_INSECURE_PUBLISH", value_parser = BoolishValueParser::new(), help_heading = "Access")]
    pub insecure_publish: bool,
}

impl AuthArgs {
    /// Publishing is for this machine where nobody has to say who they are, with a token or a certificate (`is_guarded`), unless
    /// somebody says that he means it.
    pub fn check_exposure(&self, address: &str, routes: &[Policy], is_guarded: bool) -> Usage<()> {
        if is_guarded || self.insecure_publish || is_of_this_machine(address) {
            return Ok(());
        }
        let publishes = |route: &&Policy| route.subscribers.accept_publish;
        match routes.iter().find(publishes) {
            Some(route) => Err(format!(
                "everyone who reaches {address} could publish at {}: say who may with --auth-token-file, --jwt-keys or --tls-client-ca, or that all may with --insecure-publish",
                route.pattern
            )),
            None => Ok(()),
        }
    }
}

/// Whether only this machine reaches an address. A name other than localhost is not looked up.
fn is_of_this_machine(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    ip.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback())
}

/// What the flags say; none if they name no file.
pub fn settings(args: &AuthArgs, matches: &ArgMatches) -> Usage<Option<Settings>> {
    let keys = lines(matches, "jwt_keys", &args.jwt_keys);
    if keys.is_empty() {
        for flag in ["jwt_audience", "jwt_issuer"] {
            if given(matches, flag) == 2 {
                let flag = flag.replace('_', "-");
                return Err(format!(
                    "--{flag} says which JWTs to take, but no key checks any: add --jwt-keys FILE"
                ));
            }
        }
    }
    if args.auth_token_file.is_none() && keys.is_empty() {
        return Ok(None);
    }
    Ok(Some(Settings {
        token_file: args.auth_token_file.clone(),
        jwt_keys: keys.into_iter().map(PathBuf::from).collect(),
        jwt_audience: args.jwt_audience.clone(),
        jwt_issuer: args.jwt_issuer.clone(),
    }))
}

/// Reads the files that are named. A broken one is a usage error.
pub fn load(settings: Settings) -> Usage<Arc<Auth>> {
    let auth = Auth::load(settings).map_err(|error| reason::of(&error))?;
    Ok(Arc::new(auth))
}
