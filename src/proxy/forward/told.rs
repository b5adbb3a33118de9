//! What the proxy tells of itself: who asks `OPTIONS` with `Max-Forwards: 0` asks whoever comes first on the way (RFC 9110, section
//! 7.6.2), and gets a [topology](crate::topology) of the proxy and its upstreams, if that is for him.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::own::refused;
use super::{Client, Outcome};
use crate::proxy::body::Answer;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers::Refusal;
use crate::topology::ask::{MAX_FORWARDS, Told};
use crate::topology::{Kind, Link, Node, Role, Topology};

/// Who sends one of these is not alone on the way, wherever the connection comes from.
const OF_OTHERS: [HeaderName; 3] = [
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-forwarded-for"),
];

impl Client {
    /// The answer to a request that is to go no further than here. One that may is one step nearer to its end.
    pub(super) fn told(&self, head: &mut Parts, exchange: &Exchange) -> Option<Outcome> {
        if head.method != Method::OPTIONS {
            return None;
        }
        match forwards(&head.headers)? {
            Err(refusal) => Some(refused(exchange, &refusal)),
            Ok(0) => Some(Outcome::Answer(self.answer(&head.headers, exchange))),
            Ok(left) => {
                let left = HeaderValue::from(left - 1);
                head.headers.insert(MAX_FORWARDS, left);
                None
            }
        }
    }

    fn answer(&self, headers: &HeaderMap, exchange: &Exchange) -> Response<Answer> {
        let is_alone = OF_OTHERS.iter().all(|name| !headers.contains_key(name));
        let is_here = self.from.client.ip().to_canonical().is_loopback() && is_alone;
        let mut response = match self.proxy.tells_topology || is_here {
            true => {
                let told = serde_json::to_vec(&self.topology());
                let told = told.expect("names and numbers are JSON");
                let mut response = Response::new(Answer::Own(told.into()));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            false => {
                let mut response = Response::new(Answer::Own("".into()));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
        };
        let none = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, none);
        exchange.answered(response.status());
        exchange.ended("it is for the proxy itself");
        response
    }

    fn topology(&self) -> Told {
        let proxy = &self.proxy;
        let id = proxy.instance.to_string();
        let upstreams = proxy.upstreams.watch().borrow().clone();
        let url = |name: &str| match name.contains("://") {
            true => name.to_owned(),
            false => format!("http://{name}"),
        };
        let node = |id: &str, kind, address: &str| Node {
            id: id.to_owned(),
            kind,
            address: address.to_owned(),
            streams: vec![],
            incomplete: None,
        };
        let own = [node(&id, Kind::Proxy, &proxy.address)];
        let others = upstreams.iter().map(|upstream| {
            let id = url(upstream.name());
            node(&id, Kind::Foreign, upstream.name())
        });
        let links = upstreams.iter().map(|upstream| Link {
            from: url(upstream.name()),
            from_path: None,
            to: id.clone(),
            to_path: None,
            role: Role::Proxy,
            transport: None,
            connected: upstream.is_up(),
            rate: None,
            lag: None,
            reason: (!upstream.is_up()).then(|| "the upstream is out".to_owned()),
        });
        let topology = Topology {
            links: links.collect(),
            nodes: own.into_iter().chain(others).collect(),
        };
        Told {
            instance: id,
            topology,
        }
    }
}

/// How often a request may still be passed on, if it says so.
fn forwards(headers: &HeaderMap) -> Option<Result<u64, Refusal>> {
    let value = headers.get(MAX_FORWARDS)?;
    let digits = value
        .to_str()
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.map(|digits| digits.parse().unwrap_or(u64::MAX));
    Some(number.ok_or(Refusal {
        status: StatusCode::BAD_REQUEST,
        reason: "Max-Forwards is no number",
    }))
}
