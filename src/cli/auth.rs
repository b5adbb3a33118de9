//! Who may what: the flags that say where it stands. They are of the process, whatever its routes.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ArgMatches;

use super::{Usage, given, lines};
use crate::auth::{Auth, Settings};
use crate::reason;

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
}

/// Reads the files that the flags name; none if they name none. A broken one is a usage error.
pub fn auth(args: &AuthArgs, matches: &ArgMatches) -> Usage<Option<Arc<Auth>>> {
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
    let settings = Settings {
        token_file: args.auth_token_file.clone(),
        jwt_keys: keys.into_iter().map(PathBuf::from).collect(),
        jwt_audience: args.jwt_audience.clone(),
        jwt_issuer: args.jwt_issuer.clone(),
    };
    let auth = Auth::load(settings).map_err(|error| reason::of(&error))?;
    Ok(Some(Arc::new(auth)))
}
