//! How to reach the other side: headers, a login, what keeps a connection alive, and where secrets are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, ArgMatches};
use hyper::http::HeaderName;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::tls::ClientTlsArgs;
use super::{Usage, given, is_from_variable, lines, values};
use crate::reason;
use crate::source::secret::{self, Secret};
use crate::source::upstream::{self, Upstream, header_value};
use crate::source::websocket::login::{Keepalive, Step, Talk};
use crate::source::websocket::pattern::Pattern;
use crate::tls::client_config;

/// How to reach the other side, whatever is wanted there.
#[derive(Debug, clap::Args)]
pub struct ReachArgs {
    /// Trust the certificates in this PEM file too, beside the system's, for wss:// and https://
    #[arg(
        long,
        env = "WSEVENT_CONSUME_CA",
        value_name = "FILE",
        help_heading = "Connections"
    )]
    pub consume_ca: Option<PathBuf>,

    /// Who this side is
    #[command(flatten)]
    pub tls: ClientTlsArgs,

    /// Send this header with every request or handshake; repeatable. ${NAME} in the value is a variable of the environment, @FILE as the value is what the file holds then
    #[arg(
        long,
        env = "WSEVENT_CONSUME_HEADER",
        value_name = "NAME: VALUE",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_header: Vec<String>,
}

/// How to reach the other side; the same for a hop, for `tail` and for `publish`. All of them are a route's.
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// How to reach it
    #[command(flatten)]
    pub reach: ReachArgs,

    /// Send this text as a message whenever a WebSocket is connected (not with publish, nor to another wsevent); repeatable, in order. ${NAME} in it is a variable of the environment, @FILE instead of it is what the file holds then
    #[arg(
        long,
        env = "WSEVENT_CONSUME_MESSAGE",
        value_name = "TEXT",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_message: Vec<String>,

    /// Behind a --consume-message, wait for a text message that matches before going on; before the first, for a greeting. A JSON object matches any object that has all of its members; anything else is a regular expression. The answer is no event; repeatable
    #[arg(
        long,
        env = "WSEVENT_CONSUME_EXPECT",
        value_name = "PATTERN",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_expect: Vec<String>,

    /// How long an expected message may take to come; then the connection is given up and made anew
    #[arg(long, env = "WSEVENT_CONSUME_EXPECT_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = values::limit, help_heading = "Connections")]
    pub consume_expect_timeout: Duration,

    /// While a WebSocket is connected, send this text as a message so often (not with publish, nor to another wsevent): '{"op":"ping"}' every 20s
    // As three words, or as one.
    #[arg(
        long,
        env = "WSEVENT_CONSUME_KEEPALIVE",
        value_names = ["TEXT every DURATION"],
        num_args = 1..=3,
        action = ArgAction::Set,
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_keepalive: Vec<String>,

    /// Drop messages of a WebSocket that match, such as answers to --consume-keepalive: they are no events. The pattern is as with --consume-expect; repeatable
    #[arg(
        long,
        env = "WSEVENT_CONSUME_IGNORE",
        value_name = "PATTERN",
        hide_env_values = true,
        help_heading = "Connections"
    )]
    pub consume_ignore: Vec<String>,

    /// Ask the other side to compress what it sends (not with publish): by zstd or gzip over HTTP, by permessage-deflate over a WebSocket. For links over slow networks; another wsevent does it with --compress
    #[arg(long, env = "WSEVENT_CONSUME_COMPRESS", value_parser = BoolishValueParser::new(), help_heading = "Connections")]
    pub consume_compress: bool,

    /// Ping the other side so often; if it is silent for two intervals, it is given up. Who reads SSE gets a comment as often, and every 15 s at least
    #[arg(long, env = "WSEVENT_PING_INTERVAL", value_name = "DURATION", default_value = "30s", value_parser = values::interval, help_heading = "Connections")]
    pub ping_interval: Duration,

    /// The largest event to take from anyone
    #[arg(long, env = "WSEVENT_MAX_MESSAGE_SIZE", value_name = "BYTES", default_value = "1MiB", value_parser = values::message_size, help_heading = "Connections")]
    pub max_message_size: usize,
}

/// Those that make sense only where there is an upstream.
const OF_UPSTREAMS: [&str; 9] = [
    "consume_compress",
    "consume_ca",
    "consume_cert",
    "consume_header",
    "consume_message",
    "consume_expect",
    "consume_expect_timeout",
    "consume_keepalive",
    "consume_ignore",
];
/// Those that make sense only over a WebSocket.
const OF_WEBSOCKETS: [&str; 5] = [
    "consume_message",
    "consume_expect",
    "consume_expect_timeout",
    "consume_keepalive",
    "consume_ignore",
];

/// The first of these flags that stands on the command line, as it stands there.
fn said(matches: &ArgMatches, flags: &[&str]) -> Option<String> {
    let flag = flags.iter().find(|flag| given(matches, flag) == 2);
    flag.map(|flag| format!("--{}", flag.replace('_', "-")))
}

/// There is no upstream.
pub fn none_to_reach(matches: &ArgMatches) -> Usage<()> {
    match said(matches, &OF_UPSTREAMS) {
        None => Ok(()),
        Some(flag) => Err(format!(
            "{flag} says how to reach an upstream, but there is none: add --consume URL"
        )),
    }
}

/// Events are published, and nothing is read.
pub fn none_to_talk_to(matches: &ArgMatches) -> Usage<()> {
    let of_reading = said(matches, &OF_WEBSOCKETS).or_else(|| said(matches, &["consume_compress"]));
    match of_reading.as_deref() {
        None => Ok(()),
        Some(flag @ ("--consume-message" | "--consume-keepalive")) => {
            Err(format!("{flag} would be published: give DATA instead"))
        }
        Some(flag) => Err(format!(
            "{flag} is about what is read, and publish reads nothing"
        )),
    }
}

/// An event URL, and what in it is secret.
#[derive(Clone)]
pub struct EventUrl {
    /// Its scheme is one that can be consumed.
    pub url: Url,
    /// What stands in it for variables of the environment.
    pub variables: Vec<String>,
}

/// Reads an event URL, in which `${NAME}` is a variable.
pub fn event_url(text: &str) -> Usage<EventUrl> {
    let expanded = secret::expand_url(text).map_err(|error| format!("in the URL: {error}"))?;
    let url = match expanded.variables.is_empty() {
        true => values::event_url(&expanded.text)?,
        // What has gone wrong with it may show what it stands for.
        false => values::event_url(&expanded.text).map_err(|_| {
            "with its variables replaced, the URL is none that can be consumed: ws://HOST:PORT/PATH is expected (what a variable stands for is part of a component, / and : in it are escaped)"
        })?,
    };
    Ok(EventUrl {
        url,
        variables: expanded.variables,
    })
}

/// How to reach upstreams, all alike.
pub struct Connect {
    headers: Vec<(HeaderName, Secret)>,
    talk: Talk,
    compress: bool,
    /// There when a URL asks for it.
    tls: Option<Arc<ClientConfig>>,
    max_message_size: usize,
    ping_interval: Duration,
}

/// `urls` are those it is for.
pub fn connect(args: &ConnectArgs, matches: &ArgMatches, urls: &[EventUrl]) -> Usage<Connect> {
    let is_websocket = |url: &EventUrl| matches!(url.url.scheme(), "ws" | "wss");
    if !urls.is_empty()
        && !urls.iter().any(is_websocket)
        && let Some(flag) = said(matches, &OF_WEBSOCKETS)
    {
        return Err(format!(
            "{flag} is about messages of a WebSocket, and here is none"
        ));
    }
    Ok(Connect {
        talk: talk(args, matches)?,
        compress: args.consume_compress,
        max_message_size: args.max_message_size,
        ping_interval: args.ping_interval,
        ..reach(&args.reach, matches, urls)?
    })
}

/// The same, where nothing is said but what a request has, and little is read.
pub fn reach(args: &ReachArgs, matches: &ArgMatches, urls: &[EventUrl]) -> Usage<Connect> {
    let headers = lines(matches, "consume_header", &args.consume_header);
    let headers = headers.iter();
    let headers: Result<_, _> = headers.map(|text| header("consume-header", text)).collect();
    // Reading the system's roots takes a while, so only when they are needed.
    let is_secure = |url: &EventUrl| upstream::is_secure(&url.url);
    let identity = args.tls.identity()?;
    let wants_tls = args.consume_ca.is_some() || identity.is_some() || urls.iter().any(is_secure);
    let tls = wants_tls
        .then(|| client_config(args.consume_ca.as_deref(), identity))
        .transpose();
    Ok(Connect {
        headers: headers?,
        talk: Talk::default(),
        compress: false,
        tls: tls.map_err(|error| format!("--consume-ca: {}", reason::of(&error)))?,
        max_message_size: LARGEST,
        ping_interval: PING_INTERVAL,
    })
}

/// The largest event that is taken where nobody says how large one may be, in bytes.
const LARGEST: usize = 64 << 20;
/// How often the other side is pinged there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

impl Connect {
    /// The upstream at this URL.
    pub fn upstream(&self, url: &EventUrl) -> Upstream {
        Upstream {
            url: url.url.clone(),
            address: None,
            is_peer: false,
            within: None,
            variables: url.variables.clone(),
            headers: self.headers.clone(),
            talk: self.talk.clone(),
            compress: self.compress,
            // A redirect may lead from http:// to https://.
            tls: self.tls.clone().filter(|_| url.url.scheme() != "ws"),
            max_message_size: self.max_message_size,
            ping_interval: self.ping_interval,
        }
    }
}

/// `Name: value`, as the value of this flag. It may be a secret, so the error does not show it.
pub fn header(flag: &str, text: &str) -> Usage<(HeaderName, Secret)> {
    let wrong = |why: &str| format!("--{flag}: {why}");
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| wrong("'Name: value' is expected"))?;
    let name: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| wrong("what stands before the colon is not the name of a header"))?;
    let value = Secret::parse(value.trim()).map_err(|error| wrong(&error))?;
    header_value(&value.last(), &name).map_err(|error| wrong(&error.to_string()))?;
    Ok((name, value))
}

fn talk(args: &ConnectArgs, matches: &ArgMatches) -> Usage<Talk> {
    let ignore = lines(matches, "consume_ignore", &args.consume_ignore);
    let ignore = ignore.iter().map(|text| {
        let pattern: Usage<Pattern> = text.parse();
        pattern.map_err(|error| format!("--consume-ignore: {error}"))
    });
    let words = &args.consume_keepalive;
    Ok(Talk {
        steps: steps(args, matches)?,
        patience: args.consume_expect_timeout,
        keepalive: match words.is_empty() {
            true => None,
            false => {
                Some(keepalive(words).map_err(|error| format!("--consume-keepalive: {error}"))?)
            }
        },
        ignore: ignore.collect::<Usage<_>>()?,
    })
}

/// The steps of a login. Flags stand in the order that is meant; in variables the n-th pattern belongs to
/// the n-th message, and an empty one is none.
fn steps(args: &ConnectArgs, matches: &ArgMatches) -> Usage<Vec<Step>> {
    let (messages, patterns) = (&args.consume_message, &args.consume_expect);
    let mut flags = ["consume_message", "consume_expect"].into_iter();
    if !flags.any(|flag| is_from_variable(matches, flag)) {
        return in_order(matches, messages, patterns);
    }
    let messages = lines(matches, "consume_message", messages);
    let patterns = lines(matches, "consume_expect", patterns);
    let mut steps = Vec::new();
    for number in 0..messages.len().max(patterns.len()) {
        if let Some(text) = messages.get(number).filter(|text| !text.is_empty()) {
            steps.push(say(text)?);
        }
        if let Some(text) = patterns.get(number).filter(|text| !text.is_empty()) {
            steps.push(expect(text)?);
        }
    }
    Ok(steps)
}

fn in_order(matches: &ArgMatches, messages: &[String], patterns: &[String]) -> Usage<Vec<Step>> {
    let places = |flag| matches.indices_of(flag).into_iter().flatten();
    let mut steps = Vec::new();
    for (at, text) in places("consume_message").zip(messages) {
        steps.push((at, say(text)?));
    }
    for (at, text) in places("consume_expect").zip(patterns) {
        steps.push((at, expect(text)?));
    }
    steps.sort_by_key(|&(at, _)| at);
    Ok(steps.into_iter().map(|(_, step)| step).collect())
}

fn say(text: &str) -> Usage<Step> {
    let text = Secret::parse(text);
    text.map(Step::Say)
        .map_err(|error| format!("--consume-message: {error}"))
}

fn expect(text: &str) -> Usage<Step> {
    let pattern: Usage<Pattern> = text.parse();
    pattern
        .map(Step::Expect)
        .map_err(|error| format!("--consume-expect: {error}"))
}

/// `TEXT every DURATION`, as three words or as one. The text may be a secret, so the error does not show it.
fn keepalive(words: &[String]) -> Usage<Keepalive> {
    let whole = words.join(" ");
    let (text, interval) = match words {
        [text, every, interval] if every == "every" => (&**text, &**interval),
        [_, _, _] => return Err(KEEPALIVE.into()),
        _ => whole.rsplit_once(" every ").ok_or(KEEPALIVE)?,
    };
    Ok(Keepalive {
        text: Secret::parse(text)?,
        every: values::interval(interval)?,
    })
}

const KEEPALIVE: &str = "TEXT every DURATION is expected, such as '{\"op\":\"ping\"}' every 20s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_error_does_not_show_the_value() {
        let header = |text| header("consume-header", text);
        assert!(header("Authorization: Bearer secret").is_ok());
        for text in [
            "secret",
            "na me: secret",
            "name secret: x",
            "name: secret\u{7f}",
            "X: ${secret",
        ] {
            assert!(
                !header(text).expect_err("refused").contains("secret"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_keepalive_may_be_three_words_or_one() {
        let read = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            keepalive(&words).map(|keepalive| (keepalive.text.last(), keepalive.every))
        };
        let ping = || ("ping".to_owned(), Duration::from_secs(20));
        for words in [
            &["ping", "every", "20s"][..],
            &["ping every 20s"],
            &["ping", "every 20s"],
            &["ping every", "20s"],
        ] {
            assert_eq!(read(words), Ok(ping()), "{words:?}");
        }
        assert_eq!(
            read(&["not every time every 1m 30s"]),
            Ok(("not every time".into(), Duration::from_secs(90)))
        );
        assert_eq!(
            read(&["a every b", "every", "1s"]).map(|(text, _)| text),
            Ok("a every b".into())
        );
        for words in [
            &["s3cret"][..],
            &["s3cret", "20s"],
            &["s3cret", "each", "20s"],
            &["s3cret every day"],
            &["s3cret", "every", "1ms"],
            &["${s3-cret} every 20s"],
        ] {
            let error = read(words).expect_err("it is wrong");
            assert!(!error.contains("s3"), "{error}");
        }
    }

    #[test]
    fn an_error_about_a_url_does_not_show_what_a_variable_stands_for() {
        let url = event_url("ws://h/${CARGO_PKG_NAME}").expect("a URL");
        assert_eq!(url.url.path(), "/wsevent");
        for text in ["ftp://h/${CARGO_PKG_NAME}", "${CARGO_PKG_NAME}"] {
            let error = event_url(text).err().expect("no URL");
            assert!(!error.contains("'wsevent"), "{error}");
        }
    }
}
