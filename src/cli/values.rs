//! How single values are read: sizes, durations, rates, addresses, paths, URLs.

use std::env;
use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command};
use hyper::http::Uri;
use hyper::http::uri::PathAndQuery;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use crate::endpoint::fanout::Overload;
use crate::source::produce::Rate;
use crate::stream::retained::key::KeySource;

/// A frame must fit a chunk of a tape, which has 32 bits for its length: each byte of a text may become seven (a line end on
/// SSE).
const MAX_MESSAGE_SIZE: usize = 512 << 20;

/// hyper's buffer is as large (`max_buf_size`).
const MIN_HEADER_SIZE: usize = 8 << 10;
/// Each connection may need as much.
const MAX_HEADER_SIZE: usize = 1 << 20;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How a value is read that is one of a few words, for whoever lists them: completions and manual pages.
#[derive(Clone)]
pub struct Words<T> {
    words: &'static [&'static str],
    read: fn(&str) -> Result<T, String>,
}

impl<T> Words<T> {
    /// These words, and no others, are what `read` takes.
    pub const fn new(words: &'static [&'static str], read: fn(&str) -> Result<T, String>) -> Self {
        Self { words, read }
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        self.read.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(PossibleValue::new)))
    }
}

/// A number of bytes: `1000`, `64KiB`, `16 MiB`, `1.5GB`; `k`, `M`, `G` alone are powers of 1024.
pub fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => {
            return Err(format!(
                "unknown unit '{}': use KiB, MiB or GiB",
                unit.trim()
            ));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a number of bytes is expected, such as 64KiB".to_owned())?;
    let bytes = number * factor as f64;
    if bytes > usize::MAX as f64 / 2.0 {
        return Err("that is more than any memory".to_owned());
    }
    Ok(bytes.round() as usize)
}

/// The size of a message.
pub fn message_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        size if size <= MAX_MESSAGE_SIZE => Ok(size),
        _ => Err("at most 512MiB is possible".to_owned()),
    }
}

/// The size of a request's head.
pub fn header_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        size if size < MIN_HEADER_SIZE => Err("at least 8KiB is needed".to_owned()),
        size if size > MAX_HEADER_SIZE => Err("at most 1MiB is possible".to_owned()),
        size => Ok(size),
    }
}

/// A duration with a unit: `30s`, `1m 30s`, `250ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        // Clocks do not go on for ever.
        Ok(duration) if duration > DAY * 10_000 => Err("at most 10000days is possible".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; a duration is expected, such as 30s")),
    }
}

/// A duration that something is repeated after.
pub fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval < Duration::from_millis(10) => {
            Err("at least 10ms is needed".to_owned())
        }
        interval if interval > DAY => Err("at most 1day is possible".to_owned()),
        interval => Ok(interval),
    }
}

/// How old a connection may become.
pub fn age(text: &str) -> Result<Duration, String> {
    match limit(text)? {
        age if age < Duration::from_secs(1) => Err("at least 1s is needed".to_owned()),
        age => Ok(age),
    }
}

/// How long something may last at most.
pub fn limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        limit if limit < Duration::from_millis(10) => Err("at least 10ms is needed".to_owned()),
        limit => Ok(limit),
    }
}

/// A number of events.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a number of events is expected, at least 1".to_owned()),
    }
}

/// What happens to a subscriber that falls out of history.
pub const OVERLOAD: Words<Overload> = Words::new(&["disconnect", "skip", "conflate"], overload);

fn overload(text: &str) -> Result<Overload, String> {
    match text {
        "disconnect" => Ok(Overload::Disconnect),
        "skip" => Ok(Overload::Skip),
        "conflate" => Ok(Overload::Conflate),
        _ => Err("disconnect, skip or conflate is expected".to_owned()),
    }
}

/// Where keys come from.
pub fn key_source(text: &str) -> Result<KeySource, String> {
    match text {
        "key" => Ok(KeySource::Own),
        _ if text.starts_with('/') => text.parse().map(KeySource::Pointer),
        _ => Err("key is expected, or a JSON pointer such as /symbol".to_owned()),
    }
}

/// Whether this is the origin of a page as a browser says it (RFC 6454, section 6.2), or the sign for all.
pub fn is_origin(text: &str) -> bool {
    let is_plain = |url: Url| url.origin().ascii_serialization() == text.to_ascii_lowercase();
    text == "*" || text == "null" || Url::parse(text).is_ok_and(is_plain)
}

/// Events a second.
pub fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::PerSecond(rate)),
        _ => Err("a positive number of events a second is expected, or max".to_owned()),
    }
}

/// Checks `host:port`.
pub fn check_address(text: &str) -> Result<(), String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port.parse::<u16>());
    // An IPv6 address needs its brackets; a user name has no place here, and a password none in an error text.
    let host = text.rsplit_once(':').map_or("", |(host, _)| host);
    if host.contains('@') {
        return Err("a user name has no place in HOST:PORT".to_owned());
    }
    let is_bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    match (port, text.contains('/') || is_bare_ipv6) {
        (Some(Ok(_)), false) => Ok(()),
        _ => Err(format!("'{text}' is not HOST:PORT, such as localhost:8080")),
    }
}

/// `host:port`, where a port alone, with or without its colon, is one of this machine's own.
pub fn local_address(text: &str) -> Result<String, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let address = match is_port {
        true => format!("localhost:{port}"),
        false => text.to_owned(),
    };
    match check_address(&address) {
        Ok(()) => Ok(address),
        Err(_) => Err("HOST:PORT or a port is expected, such as localhost:9464".to_owned()),
    }
}

/// Where a collector of traces is.
#[cfg(feature = "otel")]
pub fn collector(text: &str) -> Result<url::Url, String> {
    let url = text.parse::<url::Url>().ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| {
        "an http:// or https:// URL is expected, such as http://localhost:4318".to_owned()
    })
}

/// A URL path, with its leading slash: `events` and `/events` are the same.
pub fn path(text: &str) -> Result<String, String> {
    let path = format!("/{}", text.strip_prefix('/').unwrap_or(text));
    match path.parse::<Uri>() {
        Ok(uri)
            if path.is_ascii()
                && uri.path() == path
                && uri.query().is_none()
                && uri.authority().is_none() =>
        {
            Ok(path)
        }
        _ => Err(format!("'{text}' is not a URL path, such as /events")),
    }
}

/// `ADDRESS/PATH`, with or without `ws://` before it.
pub fn address_and_path(text: &str) -> Result<(String, String), String> {
    let wrong = |why: &str| {
        format!("--serve: {why}: ADDRESS/PATH is expected, such as localhost:9090/events")
    };
    let rest = match text.split_once("://") {
        None => text,
        Some(("ws", rest)) => rest,
        Some((scheme, _)) => return Err(wrong(&format!("{scheme}:// cannot be served"))),
    };
    let (address, rest) = rest.split_once('/').unwrap_or((rest, "events"));
    check_address(address).map_err(|error| wrong(&error))?;
    Ok((
        address.to_owned(),
        path(rest).map_err(|error| wrong(&error))?,
    ))
}

/// An event URL.
pub fn event_url(text: &str) -> Result<Url, String> {
    // What stands before an @ or behind a ? may be a secret.
    let shown = match text.contains(['@', '?']) {
        true => "the URL".to_owned(),
        false => format!("'{text}'"),
    };
    // HOST:PORT/PATH reads like a URL with an odd scheme, or like none at all.
    let address = text.split('/').next().unwrap_or_default();
    if shown != "the URL" && check_address(address).is_ok() {
        return Err(format!("{shown} is not a URL: did you mean ws://{text}?"));
    }
    let url = Url::parse(text).map_err(|error| {
        format!("{shown} is not a URL ({error}): ws://HOST:PORT/PATH is expected")
    })?;
    match url.scheme() {
        "ws" | "wss" | "http" | "https" if url.host().is_some() => Ok(url),
        "ws" | "wss" | "http" | "https" => Err(format!("{shown} names no host")),
        _ => Err(format!(
            "{shown} is no event URL: ws://, wss://, http:// and https:// are (--consume takes those of buses and file:// too)"
        )),
    }
}

/// How much of a stream's past is wanted, as the parameter `history` of its URL says it.
pub fn past(text: &str) -> Result<String, String> {
    match text.parse::<u64>() {
        Ok(count) => Ok(count.to_string()),
        Err(_) if text == "all" => Ok(text.to_owned()),
        Err(_) => Err("a number of events is expected, or all".to_owned()),
    }
}

/// A number above 0.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is expected".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// How often something may be done in a second.
pub fn per_second(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| format!("a number from 1 to {} is expected", u32::MAX))
}

/// A path as it stands in a request, perhaps with a query.
pub fn path_and_query(text: &str) -> Result<String, String> {
    let target = match text.starts_with('/') {
        true => text.to_owned(),
        false => format!("/{text}"),
    };
    match target.parse::<PathAndQuery>() {
        Ok(_) if !text.contains('#') => Ok(target),
        _ => Err("a path of a URL is expected, such as /healthz".to_owned()),
    }
}

/// What to log when no flag says it.
pub fn default_log_level() -> String {
    match env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => "info".to_owned(),
    }
}

/// Directives in the syntax of `RUST_LOG`.
pub fn log_filter(text: &str) -> Result<String, String> {
    // A word that is no level names a target, and then nothing else is logged: hardly ever what was meant.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_target = |word: &str| !word.contains('=') && !is_level(word.trim());
    match EnvFilter::try_new(text) {
        Ok(_) if text.split(',').all(is_target) => {
            Err("no such level: error, warn, info, debug or trace are, or directives such as wsevent=debug".to_owned())
        }
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{error}; a level is expected, such as info or debug"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", 0),
            ("1000", 1_000),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("16 MiB", 16 << 20),
            ("1.5GB", 1_500_000_000),
            ("2gib", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "1.2.3", "10 parsecs", "-1", "1e400"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(message_size("1GiB").is_err());
    }

    #[test]
    fn durations_end_before_clocks_do() {
        assert_eq!(duration("10000days"), Ok(DAY * 10_000));
        for text in ["10001days", "18446744073709551615s", "1", "-1s", "forever"] {
            assert!(duration(text).is_err(), "{text}");
            assert!(limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistyped_level_is_no_silence() {
        for text in [
            "info",
            "off",
            "WARN",
            "wsevent=debug",
            "info,hyper",
            "hyper=trace",
        ] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in ["inof", "warning", "", "loud,louder"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for text in ["localhost:0", "127.0.0.1:80", "[::1]:80", "a.example:1"] {
            assert!(check_address(text).is_ok(), "{text}");
        }
        for text in ["localhost", ":80", "::1:80", "a:b", "a:70000", "a:1/x"] {
            assert!(check_address(text).is_err(), "{text}");
        }
        assert!(
            !check_address("user:secret@a:1")
                .expect_err("refused")
                .contains("secret")
        );
    }

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for (text, address) in [
            ("9464", "localhost:9464"),
            (":9464", "localhost:9464"),
            ("0", "localhost:0"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::]:1", "[::]:1"),
        ] {
            assert_eq!(local_address(text).as_deref(), Ok(address));
        }
        for text in ["", ":", "a", "70000", ":70000", "+1", "::1:1", "a:1/x"] {
            assert!(local_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_positive() {
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("0.5"), Ok(Rate::PerSecond(0.5)));
        for text in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_may_lack_their_slash() {
        assert_eq!(path("events"), path("/events"));
        assert_eq!(path("/a/b%20c").as_deref(), Ok("/a/b%20c"));
        assert_eq!(path("").as_deref(), Ok("/"));
        for text in ["a?b", "a b", "a#b", "/ä"] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn serve_is_an_address_and_a_path() {
        let expected = Ok(("localhost:9090".to_owned(), "/proxy-events".to_owned()));
        assert_eq!(address_and_path("localhost:9090/proxy-events"), expected);
        assert_eq!(
            address_and_path("ws://localhost:9090/proxy-events"),
            expected
        );
        assert_eq!(
            address_and_path("[::1]:80/x"),
            Ok(("[::1]:80".to_owned(), "/x".to_owned()))
        );
        assert_eq!(
            address_and_path("a:1"),
            Ok(("a:1".to_owned(), "/events".to_owned()))
        );
        for text in ["wss://a:1/x", "localhost/x", "/x", "a:b/x", ":1/x", ""] {
            assert!(address_and_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn event_urls_are_websockets_or_plain_http() {
        for scheme in ["ws", "wss", "http", "https"] {
            assert!(event_url(&format!("{scheme}://localhost:8080/events")).is_ok());
            assert!(event_url(&format!("{scheme}://feed.example")).is_ok());
        }
        for text in ["ftp://a/", "localhost:8080/events", "ws://", "events"] {
            assert!(event_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_about_a_url_does_not_show_what_may_be_a_secret() {
        for text in [
            "ftp://me:secret@a/",
            "me:secret@a/",
            "ftp://a/?key=secret",
            "/?secret",
            "ws:///?secret",
        ] {
            let error = event_url(text).map(|url| url.to_string());
            assert!(
                error.is_err_and(|error| !error.contains("secret")),
                "{text}"
            );
        }
    }
}
