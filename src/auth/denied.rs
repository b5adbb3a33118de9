//! What to answer to those who are not let in (RFC 6750, section 3).

use std::fmt::{self, Display};

use hyper::StatusCode;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::http::HeaderName;

use super::Right;

/// Why somebody is not let in. Nothing of it is from the request, so it may be shown and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// The status to answer with.
    pub status: StatusCode,
    /// What is wrong and what to do, in one line. It stands in a header between quotes, and has none itself.
    pub reason: &'static str,
    error: Option<ErrorCode>,
}

/// The codes of RFC 6750, section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorCode {
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
}

impl ErrorCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

impl Denied {
    /// A token would be needed. That is no error yet, so it has no code.
    pub(super) fn without_token() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            reason: "this needs a token: as Authorization: Bearer TOKEN, cookie access_token, ?access_token=TOKEN or WebSocket subprotocol bearer.TOKEN",
            error: None,
        }
    }

    /// The request says in no clear way whose it is.
    pub(super) fn malformed(reason: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason,
            error: Some(ErrorCode::InvalidRequest),
        }
    }

    /// The token is none, or none any more.
    pub(super) fn bad_token(reason: &'static str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            reason,
            error: Some(ErrorCode::InvalidToken),
        }
    }

    /// The token is good, but not for this.
    pub(super) fn without_right(right: Right) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            reason: match right {
                Right::Subscribe => "this token gives no right to read at this path",
                Right::Publish => "this token gives no right to publish at this path",
            },
            error: Some(ErrorCode::InsufficientScope),
        }
    }

    /// What the answer has to say in its head.
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        const REALM: &str = "Bearer realm=\"wsevent\"";
        let challenge = match self.error {
            None => HeaderValue::from_static(REALM),
            Some(error) => HeaderValue::try_from(format!(
                "{REALM}, error=\"{}\", error_description=\"{}\"",
                error.as_str(),
                self.reason
            ))
            .expect("it is ASCII"),
        };
        vec![(WWW_AUTHENTICATE, challenge)]
    }
}

impl Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(denied: Denied) -> String {
        let [(name, value)] = &denied.headers()[..] else {
            panic!("one header");
        };
        assert_eq!(name, WWW_AUTHENTICATE);
        value.to_str().expect("it is text").to_owned()
    }

    #[test]
    fn challenges_are_those_of_rfc_6750() {
        let denied = Denied::without_token();
        assert_eq!(denied.status, 401);
        assert_eq!(challenge(denied), "Bearer realm=\"wsevent\"");
        let denied = Denied::bad_token("the token has expired");
        assert_eq!(denied.status, 401);
        assert_eq!(
            challenge(denied),
            "Bearer realm=\"wsevent\", error=\"invalid_token\", error_description=\"the token has expired\""
        );
        let denied = Denied::without_right(Right::Publish);
        assert_eq!(denied.status, 403);
        assert_eq!(
            challenge(denied),
            "Bearer realm=\"wsevent\", error=\"insufficient_scope\", error_description=\"this token gives no right to publish at this path\""
        );
        let denied = Denied::malformed("two tokens");
        assert_eq!(denied.status, 400);
        assert!(challenge(denied).contains("error=\"invalid_request\""));
    }
}
