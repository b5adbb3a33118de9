//! The flags of further links: peers, and upstreams that stand by. They are of a route.

use std::time::Duration;

use clap::ArgMatches;

use super::connect::{Connect, EventUrl, event_url};
use super::{Usage, given, is_from_variable, values};
use crate::route::links::Peers;
use crate::route::pattern::Pattern;
use crate::source::upstream::Upstream;

/// Where else events come from, and when.
#[derive(Debug, clap::Args)]
pub struct LinkArgs {
    /// Take from this other wsevent (ws:// or wss://) what enters the stream there, while it takes what enters here: with all instances peers of all others, each has everything, once; repeatable. If the served path ends in /*, so does this one
    #[arg(
        long,
        env = "WSEVENT_PEER",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Sources"
    )]
    pub peer: Vec<String>,

    /// The same with every address that the host of this URL stands for, such as a headless service; instances may come and go, and this one may be among them; repeatable
    #[arg(
        long,
        env = "WSEVENT_PEER_DNS",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Sources"
    )]
    pub peer_dns: Vec<String>,

    /// How often the hosts of --peer-dns are looked up
    #[arg(long, env = "WSEVENT_PEER_DNS_INTERVAL", value_name = "DURATION", default_value = "5s", value_parser = values::interval, help_heading = "Sources")]
    pub peer_dns_interval: Duration,

    /// Consume this event URL (ws://, wss://, http:// or https://) only while nothing that is consumed otherwise, or no peer if there is nothing else, has been there for a second; repeatable: the first that can be reached
    #[arg(
        long,
        env = "WSEVENT_CONSUME_STANDBY",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Sources"
    )]
    pub consume_standby: Vec<String>,
}

/// The URLs of these flags.
pub struct Urls {
    peers: Vec<EventUrl>,
    named: Vec<EventUrl>,
    standbys: Vec<EventUrl>,
    interval: Duration,
}

impl LinkArgs {
    /// What the flags say, if it fits the streams that are served.
    pub fn urls(&self, pattern: &Pattern, matches: &ArgMatches) -> Usage<Urls> {
        let urls = |flag: &str, texts: &[String]| urls(flag, texts, pattern, matches);
        let urls = Urls {
            peers: urls("peer", &self.peer)?,
            named: urls("peer-dns", &self.peer_dns)?,
            standbys: urls("consume-standby", &self.consume_standby)?,
            interval: self.peer_dns_interval,
        };
        for (flag, peers) in [("peer", &urls.peers), ("peer-dns", &urls.named)] {
            let mut peers = peers.iter();
            if peers.any(|url| !matches!(url.url.scheme(), "ws" | "wss")) {
                return Err(format!(
                    "--{flag}: peers are reached by ws://HOST:PORT/PATH or wss://"
                ));
            }
        }
        if urls.named.is_empty() && given(matches, "peer_dns_interval") == 2 {
            return Err("--peer-dns-interval has no effect without --peer-dns URL".into());
        }
        Ok(urls)
    }
}

fn urls(
    flag: &str,
    texts: &[String],
    pattern: &Pattern,
    matches: &ArgMatches,
) -> Usage<Vec<EventUrl>> {
    // URLs hold no white space, so that it can separate them in a variable.
    let texts: Vec<_> = match is_from_variable(matches, &flag.replace('-', "_")) {
        true => texts
            .iter()
            .flat_map(|text| text.split_whitespace())
            .collect(),
        false => texts.iter().map(String::as_str).collect(),
    };
    let read = |text| {
        let url = event_url(text).map_err(|error| format!("--{flag}: {error}"))?;
        let fits = pattern.check_upstream(&url.url);
        fits.map_err(|why| format!("--{flag} with --serve-path {pattern}: {why}"))?;
        Ok(url)
    };
    texts.into_iter().map(read).collect()
}

impl Urls {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &EventUrl> {
        self.peers.iter().chain(&self.named).chain(&self.standbys)
    }

    /// Whether there are peers.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty() || !self.named.is_empty()
    }

    /// Peers and standbys, and how to reach them. `is_consuming` says whether there is something else to consume.
    pub fn upstreams(
        &self,
        connect: &Connect,
        is_consuming: bool,
    ) -> Usage<(Peers, Vec<Upstream>)> {
        if !self.standbys.is_empty() && !is_consuming && !self.has_peers() {
            return Err(
                "--consume-standby takes over where others are away, and there are none: add --consume URL".into(),
            );
        }
        let peer = |url| Upstream {
            is_peer: true,
            ..connect.upstream(url)
        };
        let peers = Peers {
            listed: self.peers.iter().map(peer).collect(),
            named: self.named.iter().map(peer).collect(),
            interval: self.interval,
        };
        let standbys = self.standbys.iter().map(|url| connect.upstream(url));
        Ok((peers, standbys.collect()))
    }
}
