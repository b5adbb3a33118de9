//! The token file: one `name:sha256:paths:rights` a line. It holds hashes, so that reading it gives nobody a token.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::identity::Rights;
use super::patterns::Pattern;

/// The SHA-256 of a token.
type Digest = [u8; 32];

/// Of an empty text: what comes out when the token was in a variable that has another name.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What stands in a token file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    holders: Vec<Holder>,
    /// The lines with `-` in place of a hash.
    everyone: Option<(Arc<str>, Arc<Rights>)>,
}

/// All lines that have the same hash.
#[derive(PartialEq, Eq)]
struct Holder {
    digest: Digest,
    name: Arc<str>,
    rights: Arc<Rights>,
}

/// What is wrong with a token file. It shows nothing of the line, which may hold a token by mistake.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The line, from 1 on; none if it is not about one.
    pub line: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl Tokens {
    /// Reads the text of a token file.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let mut tokens = Self::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = parse_line(line).and_then(|entry| tokens.add(entry));
            added.map_err(|reason| Wrong {
                line: Some(number + 1),
                reason,
            })?;
        }
        if tokens == Self::default() {
            return Err(Wrong {
                line: None,
                reason: "there is no token in it".to_owned(),
            });
        }
        Ok(tokens)
    }

    fn add(&mut self, entry: Entry) -> Result<(), String> {
        let same = match &entry.digest {
            None => self.everyone.as_mut().map(|(name, rights)| (name, rights)),
            Some(digest) => {
                let mut holders = self.holders.iter_mut();
                holders
                    .find(|holder| holder.digest == *digest)
                    .map(|holder| (&mut holder.name, &mut holder.rights))
            }
        };
        match (same, entry.digest) {
            (Some((name, _)), _) if **name != *entry.name => Err(format!(
                "the name for this hash is '{name}' on a line above: it has one"
            )),
            (Some((_, rights)), _) => {
                let rights = Arc::make_mut(rights);
                rights.subscribe.extend(entry.rights.subscribe);
                rights.publish.extend(entry.rights.publish);
                Ok(())
            }
            (None, None) => {
                self.everyone = Some((entry.name, Arc::new(entry.rights)));
                Ok(())
            }
            (None, Some(digest)) => {
                self.holders.push(Holder {
                    digest,
                    name: entry.name,
                    rights: Arc::new(entry.rights),
                });
                Ok(())
            }
        }
    }

    /// Whose token this is, and what they may.
    pub fn find(&self, token: &[u8]) -> Option<(Arc<str>, Arc<Rights>)> {
        let presented = digest(&SHA256, token);
        let same = |holder: &Holder| holder.digest.ct_eq(presented.as_ref());
        let holder = &self.holders[select(&self.holders, same)?];
        Some((holder.name.clone(), holder.rights.clone()))
    }

    /// What can be done without a token, and the name of those who do.
    pub fn everyone(&self) -> Option<&(Arc<str>, Arc<Rights>)> {
        self.everyone.as_ref()
    }
}

/// Which one of `list` it is. All are looked at, whichever it is, and nothing branches on the way, so how long it takes says
/// nothing about what has been found.
fn select<T>(list: &[T], mut is_it: impl FnMut(&T) -> Choice) -> Option<usize> {
    let mut found = Choice::from(0);
    let mut place = 0;
    for (number, item) in list.iter().enumerate() {
        let is_it = is_it(item);
        place.conditional_assign(&(number as u64), is_it);
        found |= is_it;
    }
    bool::from(found).then_some(place as usize)
}

/// A line.
struct Entry {
    name: Arc<str>,
    digest: Option<Digest>,
    rights: Rights,
}

fn parse_line(line: &str) -> Result<Entry, String> {
    const EXPECTED: &str = "NAME:SHA256:PATHS:RIGHTS is expected";
    // A path may have colons, the others have none.
    let (name, rest) = line.split_once(':').ok_or(EXPECTED)?;
    let (hash, rest) = rest.split_once(':').ok_or(EXPECTED)?;
    let (paths, rights) = rest.rsplit_once(':').ok_or(EXPECTED)?;
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_control) {
        return Err("the name is missing, or is not plain text".to_owned());
    }
    let digest = match hash.trim() {
        "-" => None,
        hash if hash.eq_ignore_ascii_case(OF_NOTHING) => {
            return Err("this is the hash of an empty token".to_owned());
        }
        hash => Some(hex(hash).ok_or(
            "the SHA-256 of the token is expected behind the name, as 64 hex digits (printf %s \"$token\" | sha256sum), or - for everyone",
        )?),
    };
    let patterns = paths
        .split(',')
        .map(|pattern| pattern.trim().parse::<Pattern>());
    let patterns = patterns
        .collect::<Result<Vec<_>, _>>()
        .map_err(|expected| format!("the paths: {expected}, with commas between several"))?;
    let mut granted = Rights::default();
    for right in rights.split(',') {
        match right.trim() {
            "subscribe" => granted.subscribe.clone_from(&patterns),
            "publish" => granted.publish.clone_from(&patterns),
            _ => {
                return Err(
                    "the rights: subscribe, publish or subscribe,publish is expected".to_owned(),
                );
            }
        }
    }
    Ok(Entry {
        name: name.into(),
        digest,
        rights: granted,
    })
}

fn hex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    // Digits only: parsing would take a sign as well.
    if text.len() != 2 * digest.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(digest)
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Holder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
