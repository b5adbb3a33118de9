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
use crate::route::part::{self, Part, Streams};
use crate::route::served::Served;
use crate::route::{Route, Routes};
use crate::topology;
use crate::topology::answer::Question;

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
            .and_then(|target| part::at(routes, of, target));
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

/// Which part of a list is asked for, or `?of=` for the one stream at a path.
struct Wanted {
    part: Part,
    of: Option<String>,
}

impl Wanted {
    fn of(request: &Parts) -> Result<Self, Refusal> {
        let query = request.uri.query().unwrap_or_default();
        let part = Part::of(query).map_err(|reason| refusal(StatusCode::BAD_REQUEST, reason))?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let of = pairs.find(|(name, _)| name == "of");
        Ok(Self {
            part,
            of: of.map(|(_, value)| value.into_owned()),
        })
    }

    fn list(&self, routes: &Routes, of: Option<&Arc<Route>>, who: &Who, path: &str) -> Vec<u8> {
        let listed = match of {
            Some(route) => vec![route.clone()],
            None => routes.all(),
        };
        let may_see = |stream: &Served| who.may(Right::Subscribe, stream.path());
        let Streams { streams, next } = match &self.of {
            Some(target) => Streams {
                streams: part::at(routes, of, target)
                    .filter(|stream| may_see(stream))
                    .into_iter()
                    .collect(),
                next: None,
            },
            None => self.part.select(&listed, may_see),
        };
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
            next: next.map(|query| format!("{path}?{query}")),
        };
        index.json()
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
