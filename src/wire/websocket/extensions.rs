//! Agreeing on `permessage-deflate` (RFC 7692, section 7.1), the one extension that is spoken here: always so that both sides
//! compress each message alone.

use hyper::header::{self, HeaderMap, HeaderValue};

use crate::wire::compress::WINDOW_BITS;

const NAME: &str = "permessage-deflate";
const SERVER_ALONE: &str = "server_no_context_takeover";
const CLIENT_ALONE: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// What a client offers that needs each message to be compressed alone, by either side.
pub const OFFER: &str =
    "permessage-deflate; client_no_context_takeover; server_no_context_takeover";

/// What a server answers, if the client offers anything that can be taken: the value of `Sec-WebSocket-Extensions`. What cannot is
/// passed over (section 5.1).
pub fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = all(headers)?;
    let taken = offers.iter().find_map(|offer| offer.taken())?;
    // A server may say so of both, asked or not (sections 7.1.1.1 and 7.1.1.2).
    let mut answer = format!("{NAME}; {SERVER_ALONE}; {CLIENT_ALONE}");
    if taken.asks_for_window {
        answer += &format!("; {SERVER_WINDOW}={WINDOW_BITS}");
    }
    HeaderValue::try_from(answer).ok()
}

/// Whether a server has taken the [`OFFER`]; an error if it has answered anything that was not offered.
pub fn agreed(headers: &HeaderMap) -> Result<bool, NotOffered> {
    let answers = all(headers).ok_or(NotOffered)?;
    let [answer] = &answers[..] else {
        return match answers.is_empty() {
            true => Ok(false),
            false => Err(NotOffered),
        };
    };
    let taken = answer.taken().ok_or(NotOffered)?;
    // It must say so, as it was asked (section 7.1.1.1); what limits the client has not been offered to it (section 7.1.2.2).
    match taken.server_alone && !taken.has_client_window {
        true => Ok(true),
        false => Err(NotOffered),
    }
}

/// An extension, or parameters of one, that nobody has offered.
#[derive(Debug, PartialEq, Eq)]
pub struct NotOffered;

/// An extension with its parameters (RFC 6455, section 9.1).
#[derive(Debug, PartialEq, Eq)]
struct Extension {
    name: String,
    parameters: Vec<(String, Option<String>)>,
}

/// What one asks for, if it can be granted.
#[derive(Default)]
struct Taken {
    server_alone: bool,
    asks_for_window: bool,
    has_client_window: bool,
}

impl Extension {
    /// What it says; none if it is another extension, or has parameters that are not known, not valid, or there twice.
    fn taken(&self) -> Option<Taken> {
        if !self.name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut taken = Taken::default();
        let mut client_alone = false;
        for (name, value) in &self.parameters {
            let seen = match (name.as_str(), value.as_deref()) {
                (SERVER_ALONE, None) => &mut taken.server_alone,
                (CLIENT_ALONE, None) => &mut client_alone,
                // Our window is as small as one of theirs that is not smaller.
                (SERVER_WINDOW, Some(bits)) if window(bits)? >= WINDOW_BITS => {
                    &mut taken.asks_for_window
                }
                (CLIENT_WINDOW, None) => &mut taken.has_client_window,
                (CLIENT_WINDOW, Some(bits)) => {
                    window(bits)?;
                    &mut taken.has_client_window
                }
                _ => return None,
            };
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        Some(taken)
    }
}

/// 8 to 15, without leading zeros (section 7.1.2.1).
fn window(bits: &str) -> Option<u8> {
    let parsed = bits.parse().ok()?;
    ((8..=15).contains(&parsed) && !bits.starts_with(['0', '+'])).then_some(parsed)
}

/// All that are listed; none if they cannot be read.
fn all(headers: &HeaderMap) -> Option<Vec<Extension>> {
    let mut all = Vec::new();
    for line in headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS) {
        for item in split(line.to_str().ok()?, ',') {
            let mut parts = split(item, ';').into_iter().map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty());
            // A list may have empty elements (RFC 9110, section 5.6.1).
            let Some(name) = name else { continue };
            let parameters = parts.map(|part| match part.split_once('=') {
                None => (part.to_ascii_lowercase(), None),
                Some((name, value)) => {
                    let value = value.trim();
                    let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                    let name = name.trim().to_ascii_lowercase();
                    (name, Some(quoted.unwrap_or(value).to_owned()))
                }
            });
            all.push(Extension {
                name: name.to_owned(),
                parameters: parameters.collect(),
            });
        }
    }
    Some(all)
}

/// Splits a text at a delimiter that is not quoted.
fn split(text: &str, delimiter: char) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|character| {
        is_quoted ^= character == '"';
        character == delimiter && !is_quoted
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = HeaderValue::from_str(line).expect("a header");
            headers.append(header::SEC_WEBSOCKET_EXTENSIONS, line);
        }
        headers
    }

    fn accepted(lines: &[&str]) -> Option<String> {
        let answer = accept(&headers(lines))?;
        Some(answer.to_str().expect("text").to_owned())
    }

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn what_clients_offer_is_answered_so_that_each_message_stands_alone() {
        for offer in [
            "permessage-deflate",
            // Chromium, Firefox, Node's ws.
            "permessage-deflate; client_max_window_bits",
            "Permessage-Deflate;client_max_window_bits=15 ; server_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
            ",, permessage-deflate; server_max_window_bits=8, permessage-deflate",
            r#"other; a="x, permessage-deflate; y", permessage-deflate; client_max_window_bits="9""#,
        ] {
            assert_eq!(accepted(&[offer]).as_deref(), Some(BOTH), "{offer}");
        }
        assert_eq!(
            accepted(&["permessage-deflate; x", "permessage-deflate"]).as_deref(),
            Some(BOTH)
        );
        // Python's websockets.
        let asked = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12";
        let answer = format!("{BOTH}; server_max_window_bits=12");
        assert_eq!(accepted(&[asked]), Some(answer));
    }

    #[test]
    fn what_cannot_be_granted_is_passed_over() {
        for offer in [
            "",
            "deflate",
            "permessage-deflate; server_max_window_bits=11",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=012",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=x",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; unknown",
            "permessage-deflate; ",
        ] {
            assert_eq!(accepted(&[offer]), None, "{offer:?}");
        }
        assert_eq!(accepted(&[]), None);
    }

    #[test]
    fn an_answer_has_to_be_one_to_the_offer() {
        for good in [
            "permessage-deflate; server_no_context_takeover",
            BOTH,
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
        ] {
            assert_eq!(agreed(&headers(&[good])), Ok(true), "{good}");
        }
        assert_eq!(agreed(&headers(&[])), Ok(false));
        for wrong in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover, permessage-deflate",
            "other",
        ] {
            assert_eq!(agreed(&headers(&[wrong])), Err(NotOffered), "{wrong}");
        }
    }
}
