//! What the proxy answers itself.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::Outcome;
use crate::proxy::body::Answer;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers::Refusal;
use crate::proxy::upstreams::NoneLeft;

/// Why there is no answer of an upstream.
pub struct Failure {
    status: StatusCode,
    reason: &'static str,
    why: String,
}

impl Failure {
    /// It was none, or there was none.
    pub fn bad_gateway(why: impl ToString) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            reason: "the upstream has given no proper answer",
            why: why.to_string(),
        }
    }

    /// It has not come.
    pub fn timeout() -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            reason: "the upstream has not answered in time",
            why: "the upstream does not answer".into(),
        }
    }
}

/// The status, and the reason in one line of plain text.
fn own(status: StatusCode, reason: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(format!("{reason}\n").into()));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// It must not be passed on.
pub fn refused(exchange: &Exchange, refusal: &Refusal) -> Outcome {
    exchange.answered(refusal.status);
    exchange.ended("refused");
    Outcome::Answer(own(refusal.status, refusal.reason))
}

/// Its body does not come.
pub fn unfinished(exchange: &Exchange) -> Outcome {
    let status = StatusCode::REQUEST_TIMEOUT;
    exchange.answered(status);
    exchange.ended("the client sends nothing any more");
    let mut response = own(status, "the body has not come in time");
    // RFC 9110, section 15.5.9.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    Outcome::Answer(response)
}

/// No upstream can take it now.
pub fn unavailable(exchange: &Exchange, none: NoneLeft) -> Outcome {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    exchange.answered(status);
    let (why, reason) = match none.are_up {
        true => (
            "no upstream has room for it",
            "no upstream has room for it at the moment",
        ),
        false => (
            "no upstream can take it",
            "no upstream can be reached at the moment",
        ),
    };
    exchange.ended(why);
    let mut response = own(status, reason);
    let headers = response.headers_mut();
    // Whole seconds (RFC 9110, section 10.2.3), and not too early.
    let seconds = none.retry_after.as_secs_f64().ceil() as u64;
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Outcome::Answer(response)
}

/// No upstream has answered it.
pub fn failed(exchange: &Exchange, failure: Failure) -> Outcome {
    exchange.answered(failure.status);
    exchange.ended(failure.why);
    Outcome::Answer(own(failure.status, failure.reason))
}
