//! Who is asking, as far as that counts here.

use std::time::Duration;

use super::origin::{self, Origin};
use super::request::Refusal;
use crate::auth::{Identity, Right};
use crate::route::pattern::Pattern;

/// Who has sent a request.
#[derive(Clone)]
pub enum Who {
    /// It does not matter: everyone may everything.
    Anyone,
    /// Somebody, who may some things.
    Known(Identity),
}

impl Who {
    /// Whether they may do this at a path, which is in its one spelling.
    pub fn may(&self, right: Right, path: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Known(identity) => identity.may(right, path),
        }
    }

    /// Whether they may do this with any stream of a route.
    pub fn may_somewhere(&self, right: Right, pattern: &Pattern) -> bool {
        match self {
            Self::Known(identity) if pattern.is_wildcard() => {
                identity.may_below(right, pattern.base())
            }
            _ => self.may(right, pattern.base()),
        }
    }

    /// Whether they are to know of a route.
    pub fn may_see(&self, pattern: &Pattern) -> bool {
        [Right::Subscribe, Right::Publish]
            .into_iter()
            .any(|right| self.may_somewhere(right, pattern))
    }

    /// As [`Who::may`], with the answer if not.
    pub(super) fn check(&self, right: Right, path: &str) -> Result<(), Refusal> {
        match self {
            Self::Anyone => Ok(()),
            Self::Known(identity) => Ok(identity.check(right, path)?),
        }
    }

    /// For how long; none if there is no end to it.
    pub fn remaining(&self) -> Option<Duration> {
        match self {
            Self::Anyone => None,
            Self::Known(identity) => identity.remaining(),
        }
    }

    /// How the page that asks is let in. A browser sends cookies along whatever page it is for: one that is let in with all
    /// others has no claim to them.
    pub fn origin<'a>(&self, origin: Origin<'a>) -> Origin<'a> {
        match (self, origin) {
            (Self::Known(identity), Origin::Allowed(_, false)) if identity.is_ambient() => {
                Origin::Foreign(origin::REFUSED)
            }
            _ => origin,
        }
    }
}
