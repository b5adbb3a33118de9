//! Which route serves a URL.

use std::fmt::Write;

use hyper::StatusCode;

use super::pattern::{Key, Pattern};
use crate::url_path;

/// So many routes are named to whoever asks for something else.
const MAX_NAMED: usize = 20;

/// The longest name of a stream, in bytes. Names are kept and logged, and strangers make them.
const MAX_NAME: usize = 1 << 10;

/// What is at a path.
#[derive(Debug)]
pub enum Place<R> {
    /// A stream of this route, or one that could be.
    Stream(R, Key),
    /// The list of a route's streams.
    List(R),
}

/// Why a request gets no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoStream {
    /// The status to answer with.
    pub status: StatusCode,
    /// Why, in one line.
    pub reason: String,
}

impl NoStream {
    fn bad(reason: impl ToString) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason: reason.to_string(),
        }
    }

    /// No route has this path; these there are, as far as it is to be told.
    pub fn at_all<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Self {
        let mut reason = "there is no stream at this path".to_owned();
        let mut before = "; what there is: ";
        for pattern in patterns.into_iter().take(MAX_NAMED) {
            let _ = write!(reason, "{before}{pattern}");
            before = " ";
        }
        Self {
            status: StatusCode::NOT_FOUND,
            reason,
        }
    }
}

/// What is at a path, as a request has it, and a query; `pattern` is that of a route. A path that is served as it is counts
/// more than one with a star, and of these the longest counts.
pub fn find<'a, R>(
    routes: &'a [R],
    pattern: impl Fn(&'a R) -> &'a Pattern,
    path: &str,
    query: Option<&str>,
) -> Result<Option<Place<&'a R>>, NoStream> {
    let patterns = routes.iter().map(|route| (route, pattern(route)));
    let normal = match url_path::normal(path) {
        Ok(normal) => normal,
        Err(wrong) => {
            let mut below = patterns.filter(|(_, pattern)| path.starts_with(pattern.base()));
            return match below.any(|(_, pattern)| pattern.is_wildcard()) {
                true => Err(NoStream::bad(wrong)),
                false => Ok(None),
            };
        }
    };
    let best = patterns
        .clone()
        .filter(|(_, pattern)| pattern.matches(&normal))
        .max_by_key(|(_, pattern)| (!pattern.is_wildcard(), pattern.base().len()));
    // A list is served as it is, even where a shorter pattern has all that is below.
    let mut lists = patterns.filter(|(_, pattern)| pattern.is_wildcard());
    let list = lists.find(|(_, pattern)| pattern.base() == normal && normal != "/");
    let is_exact = best.is_some_and(|(_, pattern)| !pattern.is_wildcard());
    if let Some((route, _)) = list.filter(|_| !is_exact) {
        return Ok(Some(Place::List(route)));
    }
    if let Some((route, pattern)) = best {
        let key = pattern.key(&normal, query).map_err(NoStream::bad)?;
        if key.name.len() > MAX_NAME {
            return Err(NoStream {
                status: StatusCode::URI_TOO_LONG,
                reason: format!("the name of a stream has at most {MAX_NAME} bytes"),
            });
        }
        return Ok(Some(Place::Stream(route, key)));
    }
    Ok(None)
}
