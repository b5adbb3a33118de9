//! An upstream that answers, but not with what it was asked for; and what that means to those who wait for its events.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::timeout;
use tokio_rustls::rustls::{AlertDescription, Error as TlsError};

use super::secret::repeats;
use super::upstream::Upstream;

/// The most that is repeated of what an upstream says, in bytes.
const MAX_SAID: usize = 200;
/// How long it may take to say it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer of an upstream that refuses.
#[derive(Debug)]
pub struct Refused {
    /// Its status.
    pub status: StatusCode,
    /// What it says to a person, in one line; empty if that is nothing.
    said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the upstream answered {}", self.answer())
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// The status, and what it says.
    pub fn answer(&self) -> String {
        match self.said.is_empty() {
            true => self.status.to_string(),
            false => format!("{}: {}", self.status, self.said),
        }
    }

    /// Reads on, for a while, if the answer of `upstream` is an error with a reason in plain text.
    pub async fn read<B>(upstream: &Upstream, response: Response<B>) -> Self
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let mut said = Vec::new();
        if is_error && is_plain_text(response.headers()) {
            // What has come by then is better than nothing.
            let _ = timeout(PATIENCE, first_bytes(response.into_body(), &mut said)).await;
        }
        Self {
            status,
            said: line(&said)
                .filter(|line| !repeats(&upstream.secrets(), line))
                .unwrap_or_default(),
        }
    }
}

fn is_plain_text(headers: &HeaderMap) -> bool {
    let text = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let essence = text.split(|&byte| byte == b';').next().unwrap_or_default();
    let is_plain = essence.trim_ascii().eq_ignore_ascii_case(b"text/plain");
    is_plain && !headers.contains_key(header::CONTENT_ENCODING)
}

async fn first_bytes<B: Body<Data = Bytes> + Unpin>(mut body: B, said: &mut Vec<u8>) {
    while said.len() <= MAX_SAID {
        let Some(Ok(frame)) = body.frame().await else {
            return;
        };
        if let Some(data) = frame.data_ref() {
            said.extend_from_slice(&data[..data.len().min(MAX_SAID + 1)]);
        }
    }
}

/// The first line, cut off where it gets long. It goes into a log and to a terminal, so nothing in it may steer those.
fn line(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    let line = said.trim_start().lines().next()?.trim_end();
    let cut = line.floor_char_boundary(MAX_SAID);
    let dots = if cut < line.len() { "..." } else { "" };
    Some(format!("{}{dots}", line[..cut].escape_debug()))
}

/// What is there is something else than was asked for, and stays that however often it is asked.
#[derive(Debug)]
pub struct Unfit(
    /// What it is instead.
    pub String,
);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// What a failed attempt to connect means to those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream may be there again in a while.
    Away,
    /// It is not for us, as far as can be known.
    Refused {
        /// The status to answer with: its own, or 502 where it has none that fits.
        status: u16,
    },
}

/// The verdict on a failed attempt to connect, or on how a connection has ended.
pub fn verdict(error: &anyhow::Error) -> Verdict {
    let bad_gateway = Verdict::Refused {
        status: StatusCode::BAD_GATEWAY.as_u16(),
    };
    for cause in error.chain() {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return match refused.status {
                StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS => Verdict::Away,
                status if status.is_server_error() => Verdict::Away,
                status if status.is_client_error() => Verdict::Refused {
                    status: status.as_u16(),
                },
                _ => bad_gateway,
            };
        }
        if cause.is::<Unfit>() || is_no_http(cause) || is_tls_for_good(cause) {
            return bad_gateway;
        }
    }
    Verdict::Away
}

/// An answer that cannot be read.
fn is_no_http(cause: &(dyn std::error::Error + 'static)) -> bool {
    let error = cause.downcast_ref::<hyper::Error>();
    error.is_some_and(hyper::Error::is_parse)
}

/// What is wrong with a TLS handshake is mostly wrong with a certificate, or between versions: that stays so.
fn is_tls_for_good(cause: &(dyn std::error::Error + 'static)) -> bool {
    let inner = |error: &io::Error| {
        error
            .get_ref()
            .and_then(|inner| inner.downcast_ref())
            .cloned()
    };
    let error = match cause.downcast_ref::<io::Error>() {
        Some(error) => inner(error),
        None => cause.downcast_ref::<TlsError>().cloned(),
    };
    match error {
        Some(TlsError::AlertReceived(alert)) => !matches!(
            alert,
            AlertDescription::CloseNotify
                | AlertDescription::UserCanceled
                | AlertDescription::InternalError
        ),
        Some(
            TlsError::InvalidCertificate(_)
            | TlsError::InvalidMessage(_)
            | TlsError::PeerIncompatible(_)
            | TlsError::PeerMisbehaved(_)
            | TlsError::NoCertificatesPresented
            | TlsError::UnsupportedNameType
            | TlsError::NoApplicationProtocol,
        ) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
