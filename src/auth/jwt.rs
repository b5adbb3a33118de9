//! JSON Web Tokens (RFC 7519): signed by whoever knows the users, checked here with a key and without asking anybody.

mod keys;
mod verify;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::Denied;
use super::identity::Rights;
use super::patterns::Pattern;
use keys::Key;

/// How far the clocks of those who make tokens and ours may be apart.
pub const LEEWAY: Duration = Duration::from_secs(10);
/// The longest name in characters; what is more is cut off.
const LONGEST_NAME: usize = 128;
/// Who has a token that does not say whose it is.
const NAMELESS: &str = "unnamed";

/// The keys, and what tokens must say beside being signed with one.
pub struct Keys {
    keys: Vec<Key>,
    validation: Validation,
}

/// What a good token says.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// Its claim `sub`, fit for a log.
    pub name: Arc<str>,
    /// Its claims `wsevent.subscribe` and `wsevent.publish`.
    pub rights: Rights,
    /// From when on it is not taken any more: `exp` and [`LEEWAY`].
    pub expires: Option<SystemTime>,
}

impl Keys {
    /// No keys yet. Where `audience` or `issuer` are given, a token must have the claim, with this among its values.
    pub fn new(audience: Option<&str>, issuer: Option<&str>) -> Self {
        verify::install();
        let mut validation = Validation::default();
        validation.algorithms.clear();
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        // The claims that matter here name wsevent, so that a token with them is meant for one, whatever else it says.
        validation.validate_aud = audience.is_some();
        validation.required_spec_claims.clear();
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self {
            keys: vec![],
            validation,
        }
    }

    /// Adds the keys of a file. An error says what is wrong with it.
    pub fn add(&mut self, file: &[u8]) -> Result<(), String> {
        self.keys.extend(keys::parse(file)?);
        Ok(())
    }

    /// Checks a token. What it says itself decides which of the fitting keys are tried, and nothing else.
    pub fn check(&self, token: &[u8]) -> Result<Claims, Denied> {
        let header =
            decode_header(token).map_err(|error| Denied::bad_token(reason(error.kind())))?;
        // RFC 7515, section 4.1.11: none is understood here.
        if header.crit.is_some() {
            return Err(Denied::bad_token(
                "the token has a critical header parameter that is not known here",
            ));
        }
        let fitting = self.keys.iter().filter(|key| key.fits(&header));
        let mut result = Err(Denied::bad_token(
            "no key here fits the token's alg and kid",
        ));
        for key in fitting {
            let mut validation = self.validation.clone();
            validation.algorithms.clone_from(&key.algorithms);
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(token) => return claims(&token.claims),
                // Perhaps it is from another one.
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {
                    result = Err(Denied::bad_token(reason(error.kind())));
                }
                Err(error) => return Err(Denied::bad_token(reason(error.kind()))),
            }
        }
        result
    }
}

impl Key {
    /// Whether a token with this header may be signed with it. A key without a name may be any.
    fn fits(&self, header: &Header) -> bool {
        let is_it = match (&self.id, &header.kid) {
            (Some(own), Some(wanted)) => own == wanted,
            _ => true,
        };
        is_it && self.algorithms.contains(&header.alg)
    }
}

/// What to say of an error. Nothing of the token.
fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => {
            "the token's claim aud is missing"
        }
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => {
            "the token's claim iss is missing"
        }
        ErrorKind::InvalidClaimFormat(claim) if claim == "exp" => {
            "the token's claim exp is no time"
        }
        ErrorKind::InvalidClaimFormat(claim) if claim == "nbf" => {
            "the token's claim nbf is no time"
        }
        _ => "the token is not known here, and is no JWT that is",
    }
}

fn claims(claims: &Map<String, Value>) -> Result<Claims, Denied> {
    let wrong_subscribe =
        "the token's claim wsevent.subscribe is no list of path patterns, such as /live/*";
    let wrong_publish =
        "the token's claim wsevent.publish is no list of path patterns, such as /live/*";
    Ok(Claims {
        name: name(claims.get("sub")),
        rights: Rights {
            subscribe: patterns(claims, "subscribe").ok_or(Denied::bad_token(wrong_subscribe))?,
            publish: patterns(claims, "publish").ok_or(Denied::bad_token(wrong_publish))?,
        },
        expires: claims.get("exp").and_then(expires),
    })
}

/// The paths of `wsevent.RIGHT`, flat or nested; both count where both are. None if anything of it is wrong: who has made the token
/// means something else then than what is read here.
fn patterns(claims: &Map<String, Value>, right: &str) -> Option<Vec<Pattern>> {
    let nested = claims.get("wsevent").and_then(|object| object.get(right));
    let flat = claims.get(&format!("wsevent.{right}"));
    let mut patterns = vec![];
    for claim in [flat, nested].into_iter().flatten() {
        match claim {
            Value::Null => {}
            Value::String(list) => {
                for pattern in list.split_ascii_whitespace() {
                    patterns.push(pattern.parse().ok()?);
                }
            }
            Value::Array(list) => {
                for pattern in list {
                    patterns.push(pattern.as_str()?.parse().ok()?);
                }
            }
            _ => return None,
        }
    }
    Some(patterns)
}

/// A name that cannot break a line of the log.
fn name(sub: Option<&Value>) -> Arc<str> {
    let sub = sub.and_then(Value::as_str).unwrap_or_default();
    let plain = |letter: char| match letter.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => letter,
    };
    let name: String = sub.chars().take(LONGEST_NAME).map(plain).collect();
    match name.is_empty() {
        true => NAMELESS.into(),
        false => name.into(),
    }
}

/// From `exp`, whose form has been checked: seconds since 1970, perhaps with a fraction. A time that is beyond what the system can
/// express does not come.
fn expires(exp: &Value) -> Option<SystemTime> {
    let seconds = match exp.as_u64() {
        Some(seconds) => seconds,
        None => exp.as_f64()?.round() as u64,
    };
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    expires.checked_add(LEEWAY)
}

#[cfg(test)]
mod tests;
