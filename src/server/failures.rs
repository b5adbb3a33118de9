//! What has come of those who were not served, counted by a few reasons.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

use crate::listen::admission::NoRoom;

/// Why a client was not served what it came for. The set is closed, as figures are kept for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There are too many connections.
    Connections,
    /// There are too many of its address.
    ConnectionsOfAddress,
    /// Its address makes them too fast, or publishes too fast.
    Rate,
    /// There is no TLS with it.
    Tls,
    /// No whole request has come in time.
    Late,
    /// It has said something that is no request, or none that is understood.
    Malformed,
    /// Its request is too long.
    TooLarge,
    /// It has shown nothing that lets it in.
    Unauthorized,
    /// It may not do that, or the page may not through which it asks.
    Forbidden,
    /// There is no such stream.
    NotFound,
    /// That cannot be done there.
    NotPossible,
    /// The hello of a hop link is none.
    Hello,
    /// The upstream has refused, or a bus has.
    Upstream,
    /// There is no room, or what is needed is away for now.
    Unavailable,
}

impl Failure {
    /// All of them; a failure's place here is its value as a number.
    pub const ALL: [Self; 14] = [
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::Rate,
        Self::Tls,
        Self::Late,
        Self::Malformed,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::NotPossible,
        Self::Hello,
        Self::Upstream,
        Self::Unavailable,
    ];

    /// The name for figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections_of_address",
            Self::Rate => "rate",
            Self::Tls => "tls",
            Self::Late => "late",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::NotPossible => "not_possible",
            Self::Hello => "hello",
            Self::Upstream => "upstream",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What a request was refused with.
impl From<StatusCode> for Failure {
    fn from(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_ACCEPTABLE => Self::NotPossible,
            StatusCode::REQUEST_TIMEOUT => Self::Late,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::TooLarge,
            StatusCode::TOO_MANY_REQUESTS => Self::Rate,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            StatusCode::NOT_IMPLEMENTED => Self::Malformed,
            status if status.is_client_error() && status.as_u16() < 410 => Self::Malformed,
            StatusCode::UPGRADE_REQUIRED
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => Self::Malformed,
            // Whatever an upstream has said, which is repeated here.
            _ => Self::Upstream,
        }
    }
}

impl From<NoRoom> for Failure {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::InAll => Self::Connections,
            NoRoom::OfAddress => Self::ConnectionsOfAddress,
            NoRoom::Haste => Self::Rate,
        }
    }
}

/// Counts them.
#[derive(Debug, Default)]
pub struct Failures([AtomicU64; Failure::ALL.len()]);

impl Failures {
    /// One more.
    pub fn count(&self, failure: impl Into<Failure>) {
        self.0[failure.into() as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    pub fn of(&self, failure: Failure) -> u64 {
        self.0[failure as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_found_at_its_place_and_has_a_name_of_its_own() {
        for (place, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
            let same = Failure::ALL.into_iter();
            assert_eq!(same.filter(|it| it.name() == failure.name()).count(), 1);
        }
    }

    #[test]
    fn a_status_says_what_has_failed() {
        for (status, expected) in [
            (400, Failure::Malformed),
            (401, Failure::Unauthorized),
            (403, Failure::Forbidden),
            (404, Failure::NotFound),
            (405, Failure::NotPossible),
            (413, Failure::TooLarge),
            (422, Failure::Malformed),
            (426, Failure::Malformed),
            (429, Failure::Rate),
            (502, Failure::Upstream),
            (503, Failure::Unavailable),
            (204, Failure::Upstream),
            (410, Failure::Upstream),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Failure::from(status), expected, "{status}");
        }
    }
}
