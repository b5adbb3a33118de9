//! Who is asking, once that is known, and what they may.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Denied;
use super::credentials::Place;
use super::patterns::Pattern;

/// What can be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To read it, and to see it in a list.
    Subscribe,
    /// To append events to it.
    Publish,
}

/// What somebody may, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// The paths to read.
    pub subscribe: Vec<Pattern>,
    /// The paths to publish at.
    pub publish: Vec<Pattern>,
}

impl Rights {
    /// Whether this is among them. `path` is normalised already.
    pub fn allow(&self, right: Right, path: &str) -> bool {
        let patterns = match right {
            Right::Subscribe => &self.subscribe,
            Right::Publish => &self.publish,
        };
        patterns.iter().any(|pattern| pattern.matches(path))
    }
}

/// Who is asking. It keeps the rights that it had at first, also when the files are read again.
#[derive(Clone)]
pub struct Identity {
    pub(super) name: Arc<str>,
    pub(super) rights: Arc<Rights>,
    /// What they need no token for.
    pub(super) everyone: Arc<Rights>,
    pub(super) expires: Option<SystemTime>,
    /// Where the token was; none without a token.
    pub(super) place: Option<Place>,
}

impl Identity {
    /// What to call them in the log. Not a secret, without control characters, and of a bounded length.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether they came without a token.
    pub fn is_anonymous(&self) -> bool {
        self.place.is_none()
    }

    /// Whether it is the browser that has sent the token, as it sends cookies: whatever page has made it ask. Then the page's origin
    /// must be checked (RFC 6455, section 10.2, and cross-site request forgery in general).
    pub fn is_ambient(&self) -> bool {
        self.place == Some(Place::Cookie)
    }

    /// Whether they may do this at `path`, which is normalised already.
    pub fn may(&self, right: Right, path: &str) -> bool {
        self.rights.allow(right, path) || self.everyone.allow(right, path)
    }

    /// As [`Identity::may`]; if not, with what to answer: 401 to who might have a token, 403 to who has the wrong one.
    pub fn check(&self, right: Right, path: &str) -> Result<(), Denied> {
        match self.may(right, path) {
            true => Ok(()),
            false if self.is_anonymous() => Err(Denied::without_token()),
            false => Err(Denied::without_right(right)),
        }
    }

    /// From when on the token would not be taken any more. What it has opened should end then.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// How long it is until [`Identity::expires`], by the clock of now.
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.expires?.duration_since(SystemTime::now());
        Some(left.unwrap_or_default())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("place", &self.place)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
