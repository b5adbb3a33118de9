//! The lists: of all streams, and of those of one route.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use url::form_urlencoded;

use super::origin::Origin;
use super::request::{Outcome, Refusal, options, refusal, with_headers};
use super::who::Who;
use crate::auth::Right;
use crate::endpoint::answer;
use crate::endpoint::body;
use crate::endpoint::page::{self, Index, Page, Stream};
use crate::route::find::Place;
use crate::route::served::Served;
use crate::route::{Route, Routes};
use crate::topology;
use crate::topology::answer::Question;

/// So many streams stand in a list if nothing else is asked for, and so many at most.
const STREAMS: usize = 100;
const MAX_STREAMS: usize = 1_000;

/// The answer to a request for a list: of one route, or of all.
pub async fn answer(
    routes: &Routes,
    of: Option<&Arc<Route>>,
    request: &Parts,
    who: &Who,
    origin: Origin<'_>,
) -> Result<Outcome, Refusal> {
    const OFFERED: [(bool, &str); 2] = [(false, "application/json"), (true, "text/html")];
    let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
    match request.method {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => {
            return Ok(Outcome::Answer(options(methods, origin)));
        }
        Method::POST if of.is_some() => {
            return Err(Refusal {
                headers: vec![(header::ALLOW, methods)],
                ..refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this is the list of streams: publish to one of them, at a path below",
                )
            });
        }
        _ => {
            return Err(Refusal {
                headers: vec![(header::ALLOW, methods)],
                ..refusal(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this method is not possible here",
                )
            });
        }
    }
    if let Origin::Foreign(reason) = origin {
        return Err(refusal(StatusCode::FORBIDDEN, reason));
    }
    if let Some(question) = Question::of(request) {
        let question = question.map_err(|reason| refusal(StatusCode::BAD_REQUEST, reason))?;
        let may = |right, path: &str| who.may(right, path);
        let target = question
            .target()
            .and_then(|target| self::of(routes, of, target));
        let target = target.filter(|stream| may(Right::Subscribe, stream.path()));
        let json = topology::answer::answer(routes, of, &question, target, &may).await;
        let json = json.map_err(|none| refusal(none.status, none.reason))?;
        let headers = json_headers();
        return Ok(Outcome::Answer(with_headers(headers, body::full(json))));
    }
    let (headers, body) = match answer::choose(&request.headers, &OFFERED) {
        Some(true) => page::page(Page::Index),
        Some(false) => {
            let wanted = Wanted::of(request)?;
            let json = wanted.list(routes, of, who, request.uri.path());
            (json_headers(), json.into())
        }
        None => {
            return Err(refusal(
                StatusCode::NOT_ACCEPTABLE,
                "the list of streams can be had as application/json and text/html",
            ));
        }
    };
    Ok(Outcome::Answer(with_headers(headers, body::full(body))))
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("accept")),
    ])
}

/// Which part of a list is asked for: `?after=` and `?limit=`, or `?of=` for the one stream at a path.
struct Wanted {
    after: String,
    limit: usize,
    of: Option<String>,
}

impl Wanted {
    fn of(request: &Parts) -> Result<Self, Refusal> {
        let mut wanted = Self {
            after: String::new(),
            limit: STREAMS,
            of: None,
        };
        let query = request.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" => wanted.after = value.into_owned(),
                "of" => wanted.of = Some(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit > 0);
                    let limit: usize = limit.ok_or(refusal(
                        StatusCode::BAD_REQUEST,
                        "?limit= is a number of streams, at least 1",
                    ))?;
                    wanted.limit = limit.min(MAX_STREAMS);
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn list(&self, routes: &Routes, of: Option<&Arc<Route>>, who: &Who, path: &str) -> Vec<u8> {
        let listed = match of {
            Some(route) => vec![route.clone()],
            None => routes.all(),
        };
        let may_see = |stream: &Served| who.may(Right::Subscribe, stream.path());
        let mut streams: Vec<Arc<Served>> = match &self.of {
            Some(target) => self::of(routes, of, target)
                .filter(|stream| may_see(stream))
                .into_iter()
                .collect(),
            // One more than wanted shows that there is more.
            None => listed
                .iter()
                .flat_map(|route| {
                    let behind = route.streams(&self.after);
                    behind.filter(|stream| may_see(stream)).take(self.limit + 1)
                })
                .collect(),
        };
        streams.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let has_more = streams.len() > self.limit;
        streams.truncate(self.limit);
        let next = streams.last().filter(|_| has_more).map(|last| {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("after", &last.name)
                .append_pair("limit", &self.limit.to_string())
                .finish();
            format!("{path}?{query}")
        });
        let on_demand = listed.iter().filter(|route| {
            let pattern = &route.policy.pattern;
            pattern.is_on_demand() && who.may_see(pattern)
        });
        let route = |route: &Arc<Route>| page::Route {
            path: route.policy.pattern.to_string(),
            streams: match who {
                Who::Anyone => route.count(),
                Who::Known(_) => route.streams("").filter(|stream| may_see(stream)).count(),
            },
            publish: route.policy.subscribers.accept_publish
                && who.may_somewhere(Right::Publish, &route.policy.pattern),
        };
        let index = Index {
            instance: routes.instance().to_string(),
            address: routes.address(),
            routes: on_demand.map(route).collect(),
            streams: streams.iter().map(|stream| entry(stream, who)).collect(),
            next,
        };
        index.json()
    }
}

/// The stream that a path, perhaps with a query, names, if it is there and of the `only` route that counts.
fn of(routes: &Routes, only: Option<&Arc<Route>>, target: &str) -> Option<Arc<Served>> {
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

/// What `who` may know of a stream: whether it takes events, too, is about them.
fn entry(stream: &Served, who: &Who) -> Stream {
    let publish = stream.publisher.is_some() && who.may(Right::Publish, stream.path());
    Stream::new(
        (&stream.name, publish),
        &stream.log,
        &stream.via,
        &stream.connections.figures,
        stream.subscribers.all(),
    )
}
