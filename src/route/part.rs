//! A part of the streams that there are: what a list shows at a time.

use std::sync::Arc;

use url::form_urlencoded;

use super::find::Place;
use super::served::Served;
use super::{Route, Routes};

/// So many streams stand in a list if nothing else is asked for, and so many at most.
const STREAMS: usize = 100;
const MAX_STREAMS: usize = 1_000;

/// The streams whose names come behind one, and no more than so many of them: `?after=` and `?limit=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    after: String,
    limit: usize,
}

/// What is in a part.
pub struct Streams {
    /// The streams, in the order of their names.
    pub streams: Vec<Arc<Served>>,
    /// The query of the next part, if there is more.
    pub next: Option<String>,
}

impl Part {
    /// The part that a query asks for; or what is wrong with that.
    pub fn of(query: &str) -> Result<Self, &'static str> {
        let mut part = Self {
            after: String::new(),
            limit: STREAMS,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" => part.after = value.into_owned(),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    let limit: usize = limit.ok_or("?limit= is a number of streams, at least 1")?;
                    part.limit = limit.min(MAX_STREAMS);
                }
                _ => {}
            }
        }
        Ok(part)
    }

    /// What is in it, of these routes, as far as it may be seen.
    pub fn select(&self, routes: &[Arc<Route>], may_see: impl Fn(&Served) -> bool) -> Streams {
        // One more than wanted shows that there is more.
        let behind = routes.iter().flat_map(|route| {
            let behind = route.streams(&self.after);
            behind.filter(|stream| may_see(stream)).take(self.limit + 1)
        });
        let mut streams: Vec<_> = behind.collect();
        streams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let has_more = streams.len() > self.limit;
        streams.truncate(self.limit);
        let next = streams.last().filter(|_| has_more).map(|last| {
            form_urlencoded::Serializer::new(String::new())
                .append_pair("after", &last.name)
                .append_pair("limit", &self.limit.to_string())
                .finish()
        });
        Streams { streams, next }
    }
}

/// The stream that a path, perhaps with a query, names, if it is there and of the `only` route that counts.
pub fn at(routes: &Routes, only: Option<&Arc<Route>>, target: &str) -> Option<Arc<Served>> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    match routes.find(path, query) {
        Ok(Some(Place::Stream(route, key)))
            if only.is_none_or(|only| Arc::ptr_eq(only, &route)) =>
        {
            route.get(&key)
        }
        _ => None,
    }
}
