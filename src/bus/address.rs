//! What the URL of a bus says.
//!
//! | URL | what it is |
//! | --- | --- |
//! | `redis://host:6379/0?channel=c`, `?pattern=c*` | Pub/Sub |
//! | `redis+stream://host:6379/0?stream=s` | a stream: `&field=` that of the payload, `&maxlen=` how many entries it keeps |
//! | `nats://host:4222/subject` | a subject, wildcards too |
//! | `nats+jetstream://host:4222/stream?subject=s` | a stream, all of it or what has that subject |
//! | `zmq+tcp://host:5556?topic=t` | SUB or PUB; with `&bind` others connect to it |
//! | `file:///path`, `file:path` | a recording: `?speed=`, `&loop`, `&keep-ids` |
//! | `-` | standard input or output, one event a line |
//! | `http://…`, `https://…` | a webhook, to be forwarded to |
//!
//! `rediss`, `natss` in place of `redis`, `nats`: with TLS. A star at the end of a name stands for what a route's star stands for.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::route::pattern::{Key, Pattern};
use crate::source::upstream::{port, shown};
pub use recording::{Recording, Speed};

mod recording;
#[cfg(test)]
mod tests;

/// Where on which bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The server; of [`Kind::Lines`] none that means anything.
    pub url: Url,
    /// What there.
    pub kind: Kind,
}

/// What on a bus, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A channel of Redis Pub/Sub, or all whose names match a glob.
    RedisChannel {
        /// The channel, or the glob.
        name: String,
        /// Whether it is a glob: then it is for reading only.
        is_pattern: bool,
    },
    /// A Redis stream.
    RedisStream {
        /// Its key.
        stream: String,
        /// The field of an entry that is the payload, if others write them.
        field: Option<String>,
        /// About how many entries are left in it, if it is to be trimmed.
        max_len: Option<u64>,
    },
    /// A subject of NATS.
    Nats {
        /// The subject, which may have wildcards for reading.
        subject: String,
    },
    /// A stream of NATS JetStream.
    JetStream {
        /// Its name.
        stream: String,
        /// What of it; and what is written gets this subject.
        subject: Option<String>,
    },
    /// A ZeroMQ socket: SUB for reading, PUB for writing.
    ZeroMq {
        /// What messages begin with.
        topic: String,
        /// Whether others connect here.
        is_bound: bool,
    },
    /// An HTTP server that gets each event in a request.
    Webhook,
    /// Standard input or output.
    Lines,
    /// A recording.
    Recording(Recording),
}

/// What an event is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// `--consume`.
    Consume,
    /// `--forward`.
    Forward,
    /// `--bus`.
    Both,
}

/// Whether a text is to be read as the address of a bus when it is consumed.
pub fn is_bus(text: &str) -> bool {
    let scheme = match recording::rest(text) {
        Some(_) => "file",
        None => text.split_once("://").map_or(text, |(scheme, _)| scheme),
    };
    text == "-" || SCHEMES.contains(&scheme.to_ascii_lowercase().as_str())
}

/// The schemes, without those that a webhook has in common with what else is consumed.
pub const SCHEMES: [&str; 10] = [
    "redis",
    "rediss",
    "redis+stream",
    "rediss+stream",
    "nats",
    "natss",
    "nats+jetstream",
    "natss+jetstream",
    "zmq+tcp",
    "file",
];

/// Written in the form it would have as a flag, without what may be a secret.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = shown(&self.url);
        let mut names = Vec::new();
        match &self.kind {
            Kind::Lines => return f.write_str("-"),
            Kind::Recording(recording) => return recording.fmt(f),
            Kind::Webhook => return url.fmt(f),
            Kind::RedisChannel { name, is_pattern } => {
                let key = if *is_pattern { "pattern" } else { "channel" };
                names.push((key, name));
            }
            Kind::RedisStream { stream, .. } => names.push(("stream", stream)),
            Kind::Nats { subject } => {
                url.set_path("");
                url.set_query(None);
                return write!(f, "{}/{subject}", url.as_str().trim_end_matches('/'));
            }
            Kind::JetStream { subject, .. } => {
                names.extend(subject.iter().map(|subject| ("subject", subject)));
            }
            Kind::ZeroMq { topic, .. } => names.push(("topic", topic)),
        }
        url.set_query(None);
        url.fmt(f)?;
        for (separator, (key, name)) in ["?", "&"].into_iter().zip(names) {
            write!(
                f,
                "{separator}{key}={}",
                utf8_percent_encode(name, IN_QUERY)
            )?;
        }
        Ok(())
    }
}

const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'&').add(b'#').add(b'%').add(b'+');

impl Address {
    /// Reads the address of a bus that is used so. The text may hold secrets, so an error does not show it.
    pub fn parse(text: &str, usage: Use) -> Result<Self, String> {
        if text == "-" {
            let url = Url::parse("data:").expect("a URL");
            let kind = Kind::Lines;
            return match usage {
                Use::Both => Err("standard input and output are no bus".to_owned()),
                _ => Ok(Self { url, kind }),
            };
        }
        if let Some(rest) = recording::rest(text) {
            let recording = match usage {
                Use::Consume => Recording::parse(rest)?,
                _ => return Err("a recording is read only: wsevent record writes one".to_owned()),
            };
            let url = Url::parse("file:///").expect("a URL");
            let kind = Kind::Recording(recording);
            return Ok(Self { url, kind });
        }
        let url = Url::parse(text).map_err(|error| {
            format!(
                "this is not a URL ({error}): such as redis://HOST:PORT/0?channel=NAME is expected"
            )
        })?;
        let kind = kind(&url, usage)?;
        built_in(&kind)?;
        Ok(Self { url, kind })
    }

    /// Whether it is plainly the same as another one.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let server = |url: &Url| {
            (
                url.host_str().map(str::to_owned),
                port(url),
                url.path().to_owned(),
            )
        };
        self.kind != Kind::Lines
            && self.kind == other.kind
            && server(&self.url) == server(&other.url)
    }

    /// Whether it is many places: where streams come and go, the star is theirs, and each has one.
    pub fn is_many(&self, pattern: &Pattern) -> bool {
        let is_wild = |subject: &str| subject.split('.').any(|token| matches!(token, "*" | ">"));
        !pattern.is_on_demand()
            && match &self.kind {
                Kind::Nats { subject } => is_wild(subject),
                Kind::JetStream { subject, .. } => subject.as_deref().is_some_and(is_wild),
                _ => false,
            }
    }

    /// Whether it fits a route: with a star at the end of its name if the route has one, and only then.
    pub fn check_pattern(&self, pattern: &Pattern) -> Result<(), String> {
        if self.kind == Kind::Webhook {
            return pattern.check_upstream(&self.url).map_err(str::to_owned);
        }
        // Each stream has a replay of its own.
        let is_one_for_all = matches!(self.kind, Kind::Recording(_));
        match pattern.is_on_demand() && !is_one_for_all && !self.name().ends_with('*') {
            true => Err(
                "for streams that come and go, the name on the bus has to end in *, for what is theirs: such as channel=live:*"
                    .to_owned(),
            ),
            false => Ok(()),
        }
    }

    /// What a stream of a route has its events from.
    pub fn of_stream(&self, pattern: &Pattern, key: &Key) -> Self {
        let mut address = self.clone();
        if address.kind == Kind::Webhook {
            address.url = pattern.upstream(&self.url, key);
        } else if pattern.is_on_demand() {
            address.fill_in(key.name.strip_prefix(pattern.base()).unwrap_or_default());
        }
        address
    }

    fn name(&self) -> &str {
        match &self.kind {
            Kind::RedisChannel { name, .. } => name,
            Kind::RedisStream { stream, .. } => stream,
            Kind::Nats { subject } => subject,
            Kind::JetStream { subject, .. } => subject.as_deref().unwrap_or_default(),
            Kind::ZeroMq { topic, .. } => topic,
            Kind::Webhook | Kind::Lines | Kind::Recording(_) => "",
        }
    }

    /// Puts the rest of a path where the star is.
    fn fill_in(&mut self, rest: &str) {
        let plain = percent_decode_str(rest);
        let plain = plain.decode_utf8().map_or(rest.to_owned(), Into::into);
        let put = |name: &mut String, rest: &str| {
            if let Some(base) = name.strip_suffix('*') {
                *name = format!("{base}{rest}");
            }
        };
        match &mut self.kind {
            Kind::RedisChannel { name, .. } => put(name, &plain),
            Kind::RedisStream { stream, .. } => put(stream, &plain),
            Kind::ZeroMq { topic, .. } => put(topic, &plain),
            Kind::Nats { subject } => put(subject, &tokens(&plain)),
            Kind::JetStream { subject, .. } => {
                if let Some(subject) = subject {
                    put(subject, &tokens(&plain));
                }
            }
            Kind::Webhook | Kind::Lines | Kind::Recording(_) => {}
        }
    }
}

/// A path as tokens of a NATS subject: what stands between slashes stands between dots, and what has a meaning there is escaped.
fn tokens(path: &str) -> String {
    const MEANS: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');
    let tokens: Vec<_> = path
        .split('/')
        .map(|token| utf8_percent_encode(token, MEANS).to_string())
        .collect();
    tokens.join(".")
}

fn kind(url: &Url, usage: Use) -> Result<Kind, String> {
    let scheme = url.scheme();
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("it names no host: {scheme}://HOST... is expected"));
    }
    match scheme
        .trim_end_matches("+stream")
        .trim_end_matches("+jetstream")
    {
        "http" | "https" if usage == Use::Forward => return Ok(Kind::Webhook),
        "http" | "https" => return Err("an HTTP server is no bus".to_owned()),
        _ => {}
    }
    let names: &[&str] = match scheme {
        "redis" | "rediss" => &["channel", "pattern"],
        "redis+stream" | "rediss+stream" => &["stream", "field", "maxlen"],
        "nats" | "natss" => &["creds"],
        "nats+jetstream" | "natss+jetstream" => &["subject", "creds"],
        "zmq+tcp" => &["topic", "bind"],
        _ => {
            let known = SCHEMES.join("://, ");
            return Err(format!("this is no bus that is known: {known}:// are"));
        }
    };
    let options = Options::of(url, names)?;
    match scheme {
        "redis" | "rediss" => redis_channel(url, &options, usage),
        "redis+stream" | "rediss+stream" => {
            check_database(url)?;
            Ok(Kind::RedisStream {
                stream: options.needed("stream", "redis+stream://HOST/0?stream=NAME")?,
                field: options.get("field"),
                max_len: options.number("maxlen")?,
            })
        }
        "nats" | "natss" => {
            let subject = segment(url)?;
            let example = format!("{scheme}://HOST:4222/SUBJECT is expected");
            check_subject(&subject, usage).map_err(|wrong| format!("{wrong}: {example}"))?;
            Ok(Kind::Nats { subject })
        }
        "nats+jetstream" | "natss+jetstream" => {
            let stream = segment(url)?;
            if stream.is_empty() || stream.contains(['.', '*', '>', ' ', '/']) {
                return Err(format!(
                    "its path is not the name of a stream: {scheme}://HOST:4222/STREAM?subject=SUBJECT is expected"
                ));
            }
            let subject = options.get("subject");
            if let Some(subject) = &subject {
                check_subject(subject, usage)?;
            }
            Ok(Kind::JetStream { stream, subject })
        }
        _ => {
            if url.port().is_none() || !matches!(url.path(), "" | "/") {
                return Err("zmq+tcp://HOST:PORT?topic=TOPIC is expected".to_owned());
            }
            match usage {
                Use::Both => Err(
                    "ZeroMQ has one address for what is sent and another for what is received: use --forward and --consume".to_owned(),
                ),
                _ => Ok(Kind::ZeroMq {
                    topic: options.get("topic").unwrap_or_default(),
                    is_bound: options.flag("bind")?,
                }),
            }
        }
    }
}

fn redis_channel(url: &Url, options: &Options, usage: Use) -> Result<Kind, String> {
    check_database(url)?;
    match (options.get("channel"), options.get("pattern")) {
        (Some(name), None) => Ok(Kind::RedisChannel {
            name,
            is_pattern: false,
        }),
        (None, Some(_)) if usage != Use::Consume => Err(
            "events go to one channel, and pattern= may be many: say channel=NAME".to_owned(),
        ),
        (None, Some(name)) => Ok(Kind::RedisChannel {
            name,
            is_pattern: true,
        }),
        (Some(_), Some(_)) => Err("channel= and pattern= exclude each other".to_owned()),
        (None, None) => Err(
            "it does not say which channel: redis://HOST:6379/0?channel=NAME is expected (or redis+stream://HOST:6379/0?stream=NAME)"
                .to_owned(),
        ),
    }
}

fn check_database(url: &Url) -> Result<(), String> {
    let path = url.path().trim_matches('/');
    match path.is_empty() || path.parse::<u16>().is_ok() {
        true => Ok(()),
        false => Err("its path is not the number of a database, such as /0".to_owned()),
    }
}

/// The path as one name.
fn segment(url: &Url) -> Result<String, String> {
    let path = url.path().trim_start_matches('/');
    let name = percent_decode_str(path).decode_utf8();
    name.map(Into::into)
        .map_err(|_| "its path is not UTF-8".to_owned())
}

/// Tokens between dots; `*` stands for one, and `>` at the end for the rest, where it is read.
fn check_subject(subject: &str, usage: Use) -> Result<(), String> {
    let tokens: Vec<_> = subject.split('.').collect();
    let is_token = |token: &&str| {
        !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if !tokens.iter().all(is_token) {
        return Err(
            "what it says is not a subject, which is words with dots between them".to_owned(),
        );
    }
    // A star at the end may be that of a route; that is known later.
    let is_wild = |token: &&str| matches!(*token, "*" | ">");
    let wild = tokens.iter().position(is_wild);
    match wild {
        Some(at) if usage != Use::Consume && (tokens[at] == ">" || at + 1 < tokens.len()) => {
            Err("events go to one subject, and one with wildcards may be many".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether this program has what it takes.
fn built_in(kind: &Kind) -> Result<(), String> {
    let (feature, is_there) = match kind {
        Kind::RedisChannel { .. } | Kind::RedisStream { .. } => ("redis", cfg!(feature = "redis")),
        Kind::Nats { .. } | Kind::JetStream { .. } => ("nats", cfg!(feature = "nats")),
        Kind::ZeroMq { .. } => ("zeromq", cfg!(feature = "zeromq")),
        Kind::Webhook | Kind::Lines | Kind::Recording(_) => return Ok(()),
    };
    match is_there {
        true => Ok(()),
        false => Err(format!(
            "this wsevent was built without {feature}: build it with --features {feature}"
        )),
    }
}

/// The query of a URL.
struct Options(Vec<(String, String)>);

impl Options {
    fn of(url: &Url, known: &[&str]) -> Result<Self, String> {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&&**name) {
                let known = known.join("=, ");
                return Err(format!("'{name}=' is not known there: {known}= are"));
            }
            if pairs[..at].iter().any(|(before, _)| before == name) {
                return Err(format!("{name}= stands there twice"));
            }
        }
        Ok(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &str, example: &str) -> Result<String, String> {
        self.get(name)
            .ok_or_else(|| format!("it does not say which {name}: {example} is expected"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let number = self.get(name).map(|text| text.parse());
        match number {
            Some(Err(_) | Ok(0)) => Err(format!("{name}= is not a number from 1 on")),
            Some(Ok(number)) => Ok(Some(number)),
            None => Ok(None),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        let found = self.0.iter().find(|(found, _)| found == name);
        match found.map(|(_, value)| &**value) {
            None | Some("0" | "no" | "false") => Ok(false),
            Some("" | "1" | "yes" | "true") => Ok(true),
            Some(_) => Err(format!("{name} is yes or no")),
        }
    }
}
