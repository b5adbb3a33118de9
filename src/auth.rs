//! Who is asking, and what they may.
//!
//! ```text
//!   request ──► credentials ──► token ──┬─► token_file (hashes) ──┐
//!                                       └─► jwt (signatures) ─────┴─► identity ──► may it? ──► denied
//! ```
//!
//! A request has one token or none. Whose it is stands in the token file, or in the token itself if it is a JWT that is signed with a
//! known key. That makes an [`Identity`], which is then asked what it may, per right and path. Whoever cannot be let in gets a [`Denied`], with
//! all that the answer needs. Nothing of a token ever stands in an error.
//!
//! It knows nothing of streams: a path is a text that the caller has normalised.

mod credentials;
mod denied;
mod identity;
pub(crate) mod jwt;
mod patterns;
pub(crate) mod token_file;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, anyhow};
use hyper::http::request::Parts;

pub use credentials::{Place, subprotocol};
pub use denied::Denied;
pub use identity::{Identity, Right};

use credentials::presented;
use identity::Rights;
use jwt::Keys;
use token_file::Tokens;

/// Where it stands who may what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// A file of tokens' hashes.
    pub token_file: Option<PathBuf>,
    /// Files of keys that check JWTs.
    pub jwt_keys: Vec<PathBuf>,
    /// A JWT must be for this audience (RFC 7519, section 4.1.3).
    pub jwt_audience: Option<String>,
    /// A JWT must be from this issuer (RFC 7519, section 4.1.1).
    pub jwt_issuer: Option<String>,
}

/// Says who is asking. The files that say it can be read again.
pub struct Auth {
    settings: Settings,
    known: RwLock<Arc<Known>>,
}

/// What stood in the files when they were read.
struct Known {
    tokens: Option<Tokens>,
    keys: Option<Keys>,
    /// The rights of those without a token; others have them as well.
    everyone: Arc<Rights>,
}

impl Auth {
    /// Reads the files. An error names the file, the line where there is one, and what is wrong.
    pub fn load(settings: Settings) -> Result<Self> {
        let known = Known::read(&settings)?;
        Ok(Self {
            settings,
            known: RwLock::new(Arc::new(known)),
        })
    }

    /// Reads the files again, for the requests to come. If anything is wrong with one, all stays as it was. An [`Identity`] that has been
    /// found out keeps its rights: who is connected stays so.
    pub fn reload(&self) -> Result<()> {
        let known = Known::read(&self.settings)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    /// Finds out who is asking. Without a token, that is someone anonymous if such may do anything at all; a token that is not good is an
    /// error even then.
    pub fn identify(&self, request: &Parts) -> Result<Identity, Denied> {
        let known = self.known();
        let Some(presented) = presented(request)? else {
            let everyone = known.tokens.as_ref().and_then(Tokens::everyone);
            let (name, _) = everyone.ok_or_else(Denied::without_token)?;
            return Ok(Identity {
                name: name.clone(),
                rights: known.everyone.clone(),
                everyone: known.everyone.clone(),
                expires: None,
                place: None,
            });
        };
        let listed = known.tokens.as_ref();
        let (name, rights, expires) = match listed.and_then(|list| list.find(&presented.token)) {
            Some((name, rights)) => (name, rights, None),
            None => {
                let unknown = Denied::bad_token("the token is not known here");
                let keys = known.keys.as_ref().ok_or(unknown)?;
                let claims = keys.check(&presented.token)?;
                (claims.name, Arc::new(claims.rights), claims.expires)
            }
        };
        Ok(Identity {
            name,
            rights,
            everyone: known.everyone.clone(),
            expires,
            place: Some(presented.place),
        })
    }

    fn known(&self) -> Arc<Known> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Known {
    fn read(settings: &Settings) -> Result<Self> {
        let tokens = settings
            .token_file
            .as_deref()
            .map(read_tokens)
            .transpose()?;
        let everyone = tokens.as_ref().and_then(Tokens::everyone);
        let everyone = everyone.map(|(_, rights)| rights.clone());
        Ok(Self {
            everyone: everyone.unwrap_or_default(),
            tokens,
            keys: read_keys(settings)?,
        })
    }
}

fn read_tokens(path: &Path) -> Result<Tokens> {
    let cannot = || format!("cannot use the token file {}", path.display());
    let file = fs::read(path).with_context(cannot)?;
    let text = str::from_utf8(&file).map_err(|_| anyhow!("it is not a text in UTF-8"));
    Tokens::parse(text.with_context(cannot)?)
        .map_err(|wrong| match wrong.line {
            Some(line) => anyhow!("line {line}: {}", wrong.reason),
            None => anyhow!(wrong.reason),
        })
        .with_context(cannot)
}

fn read_keys(settings: &Settings) -> Result<Option<Keys>> {
    if settings.jwt_keys.is_empty() {
        return Ok(None);
    }
    let audience = settings.jwt_audience.as_deref();
    let mut keys = Keys::new(audience, settings.jwt_issuer.as_deref());
    for path in &settings.jwt_keys {
        let cannot = || format!("cannot use the JWT keys {}", path.display());
        let file = fs::read(path).with_context(cannot)?;
        keys.add(&file)
            .map_err(|wrong| anyhow!(wrong))
            .with_context(cannot)?;
    }
    Ok(Some(keys))
}

#[cfg(test)]
mod tests;
