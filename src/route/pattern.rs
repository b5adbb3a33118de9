//! Which URLs a route serves, and where the streams behind them come from.

use std::fmt;
use std::sync::Arc;

use url::{Url, form_urlencoded};

use crate::url_path;

/// How a pattern ends that stands for all paths below it.
const ALL_BELOW: &str = "/*";

/// Parameters that say how a stream is read or published to, so they cannot say which one it is.
const TAKEN: [&str; 6] = [
    "history",
    "last_event_id",
    "access_token",
    "snapshot",
    "type",
    "key",
];

/// The URLs of a route: one path, or all paths below one, and perhaps parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Up to the slash before the star, or all of it.
    base: Box<str>,
    is_wildcard: bool,
    /// The parameters of a query that are part of a stream's name.
    key_query: Vec<String>,
}

/// The name of a stream within a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The path, in its one spelling, with those parameters that count.
    pub name: Arc<str>,
    /// Where in it the path ends.
    path_len: usize,
}

impl Key {
    /// The path, without parameters.
    pub fn path(&self) -> &str {
        &self.name[..self.path_len]
    }

    fn query(&self) -> Option<&str> {
        self.name.get(self.path_len + 1..)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)?;
        f.write_str(if self.is_wildcard { "*" } else { "" })
    }
}

impl Pattern {
    /// Reads a path, with or without its first slash, that may end in `/*`.
    pub fn new(text: &str, key_query: Vec<String>) -> Result<Self, String> {
        let path = format!("/{}", text.strip_prefix('/').unwrap_or(text));
        let wrong =
            |why: &str| format!("'{text}' is not a URL path, such as /events or /live/*: {why}");
        let (base, is_wildcard) = match path.strip_suffix(ALL_BELOW) {
            Some(base) => (format!("{base}/"), true),
            None => (path, false),
        };
        if base.contains('*') {
            return Err(wrong("a star stands at the end only, behind a slash"));
        }
        if base.contains(['?', '#']) || !base.is_ascii() || base.contains(' ') {
            return Err(wrong(
                "it has a query, a fragment, a blank or a letter beyond ASCII",
            ));
        }
        let base = url_path::normal(&base).map_err(|error| wrong(error.0))?;
        if let Some(name) = key_query.iter().find(|name| TAKEN.contains(&&***name)) {
            return Err(format!(
                "the parameter '{name}' means something else already"
            ));
        }
        Ok(Self {
            base: base.into(),
            is_wildcard,
            key_query,
        })
    }

    /// The path that all its streams begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Whether it stands for all paths below its base.
    pub fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }

    /// Whether its streams come and go with those who ask for them.
    pub fn is_on_demand(&self) -> bool {
        self.is_wildcard || !self.key_query.is_empty()
    }

    /// The parameters that are part of a stream's name.
    pub fn key_query(&self) -> &[String] {
        &self.key_query
    }

    /// Whether a path, in its one spelling, is of a stream of this route. The base of a wildcard is none: it is the list.
    pub fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.base) {
            Some(rest) => rest.is_empty() != self.is_wildcard,
            None => false,
        }
    }

    /// The stream that such a path and a query name. Parameters that do not count are left out; one that does must not stand
    /// there twice.
    pub fn key(&self, path: &str, query: Option<&str>) -> Result<Key, String> {
        debug_assert!(self.matches(path));
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        for name in &self.key_query {
            let query = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
            let mut values = query.filter(|(found, _)| found == name);
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => {
                    return Err(format!("the parameter '{name}' stands there twice"));
                }
                (Some((_, value)), None) => drop(parameters.append_pair(name, &value)),
                (None, _) => {}
            }
        }
        let parameters = parameters.finish();
        let name = match parameters.is_empty() {
            true => path.into(),
            false => format!("{path}?{parameters}").into(),
        };
        Ok(Key {
            name,
            path_len: path.len(),
        })
    }

    /// Where the stream with this name is upstream: `template` with the star replaced by the rest of the path, and with the
    /// parameters that count. Never another host, nor a path that is not below the template's.
    pub fn upstream(&self, template: &Url, key: &Key) -> Url {
        let mut url = template.clone();
        if let Some(base) = template
            .path()
            .strip_suffix('*')
            .filter(|_| self.is_wildcard)
        {
            let rest = key.path().strip_prefix(&*self.base).unwrap_or_default();
            let path = format!("{base}{rest}");
            url.set_path(&path);
            // What is in its one spelling has nothing that a parser of URLs would change.
            assert_eq!(url.path(), path, "a path must stay what it is");
        }
        if let Some(parameters) = key.query() {
            let query = match template.query() {
                Some(query) => format!("{query}&{parameters}"),
                None => parameters.to_owned(),
            };
            url.set_query(Some(&query));
        }
        url
    }

    /// What all upstreams of a template are below, where a client says which one it is: host and path.
    pub fn upstreams(&self, template: &Url) -> Option<Url> {
        self.is_on_demand().then(|| {
            let mut base = template.clone();
            let path = template.path();
            base.set_path(path.strip_suffix('*').unwrap_or(path));
            base.set_query(None);
            base
        })
    }

    /// Whether an upstream's URL fits: a star at the end of its path where there is one here, and nowhere else.
    pub fn check_upstream(&self, template: &Url) -> Result<(), &'static str> {
        let star = template.path().find('*');
        let at_the_end = template.path().ends_with(ALL_BELOW);
        match (self.is_wildcard, star) {
            (true, Some(at)) if at_the_end && at + 1 == template.path().len() => Ok(()),
            (true, _) => Err(
                "for all paths below one, the path of the upstream has to end in /* as well: the rest of the path is carried over",
            ),
            (false, Some(_)) if at_the_end => Err(
                "it ends in /*, so the path that is served has to as well, such as --serve-path '/live/*'",
            ),
            (false, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
