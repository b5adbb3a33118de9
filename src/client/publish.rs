//! `wsevent publish`: sends events, and knows which were accepted.
//!
//! Over HTTP what is there goes out in one request at a time; each has a name (`ce-id`), so that one whose answer was lost
//! can be sent again without being published twice. Over a WebSocket a Pong to a Ping sent behind the events tells that they
//! have arrived; what was on its way when a connection is lost may have arrived or not, so it is not sent again.

mod http;
mod input;
mod websocket;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep_until};
use url::Url;

use crate::event::{Kind, Payload};
use crate::source::presence::Named;
use crate::source::produce::Rate;
use crate::source::upstream::Upstream;
use input::Input;

/// How long it runs before it shows how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to publish, where, and how.
pub struct Publish {
    /// The stream; with type and key of the events in its query.
    pub upstream: Upstream,
    /// How to send them.
    pub transport: Transport,
    /// Where the events come from.
    pub data: Data,
    /// Events are binary, even if they could be text.
    pub binary: bool,
    /// Events a second, at most.
    pub rate: Rate,
    /// Print the ids of all events.
    pub ids: bool,
    /// Over HTTP, how long a server that has answered before may be away.
    pub retry: Duration,
}

/// Where the events come from.
pub enum Data {
    /// One, from the command line.
    Given(String),
    /// Standard input is one.
    Whole,
    /// Each line of standard input is one.
    Lines,
}

/// How events travel to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// POST requests
    Http,
    /// Messages on a WebSocket
    Websocket,
}

impl Transport {
    /// That of the URL.
    pub fn of(url: &Url) -> Self {
        match url.scheme() {
            "ws" | "wss" => Self::Websocket,
            _ => Self::Http,
        }
    }

    /// The URL with the scheme that this transport wants.
    pub fn mapped(self, mut url: Url) -> Url {
        let scheme = match (self, url.scheme()) {
            (Self::Http, "ws") => "http",
            (Self::Http, "wss") => "https",
            (Self::Websocket, "http") => "ws",
            (Self::Websocket, "https") => "wss",
            _ => return url,
        };
        // It fails only between schemes that have a host and those that have none.
        let _ = url.set_scheme(scheme);
        url
    }
}

/// A connection that events are sent over.
pub enum Sender {
    /// In requests.
    Http(Box<http::Sender>),
    /// As messages.
    WebSocket(Box<websocket::Sender>),
}

impl Sender {
    /// Connects. Over HTTP `is_batch` says whether a request may have several events, and `retry` how long a server that has answered
    /// may be away.
    pub async fn connect(
        transport: Transport,
        upstream: Upstream,
        is_batch: bool,
        retry: Duration,
    ) -> Result<Self> {
        Ok(match transport {
            Transport::Http => {
                let sender = http::Sender::connect(upstream, is_batch, retry).await?;
                Self::Http(Box::new(sender))
            }
            Transport::Websocket => {
                let sender = websocket::Sender::connect(upstream).await?;
                Self::WebSocket(Box::new(sender))
            }
        })
    }

    /// Sends events, and waits until they are accepted; their ids, where the server says them.
    pub async fn send(&mut self, events: &[Payload]) -> Result<Vec<String>> {
        match self {
            Self::Http(sender) => sender.send(events).await,
            Self::WebSocket(sender) => {
                sender.send(events).await?;
                Ok(vec![])
            }
        }
    }

    /// Waits for `future`, and sees to the connection meanwhile.
    pub async fn while_alive<T>(&mut self, future: impl Future<Output = Result<T>>) -> Result<T> {
        match self {
            Self::Http(_) => future.await,
            Self::WebSocket(sender) => sender.while_alive(future).await,
        }
    }

    /// Ends the connection in due form.
    pub async fn close(self) {
        if let Self::WebSocket(sender) = self {
            sender.close().await;
        }
    }
}

impl Publish {
    /// Sends all events; an error if one of them was not accepted.
    pub async fn run(self) -> Result<()> {
        let upstream = self.upstream.clone();
        let url = upstream.to_string();
        let mut done = Done::new(self.ids || !matches!(self.data, Data::Lines));
        let result = self.send_all(&mut done).await;
        done.bar.finish_and_clear();
        let result = result.map_err(|error| anyhow::anyhow!(upstream.reason(&error)));
        result.with_context(|| match done.count {
            0 => url,
            1 => format!("{url}: 1 event was accepted, and then"),
            count => format!("{url}: {count} events were accepted, and then"),
        })
    }

    async fn send_all(self, done: &mut Done) -> Result<()> {
        let is_batch = matches!(self.data, Data::Lines);
        let connecting = Sender::connect(self.transport, self.upstream, is_batch, self.retry);
        let mut sender = connecting.await?;
        let mut input = Input::open(self.data);
        let start = Instant::now();
        loop {
            let due = match self.rate {
                Rate::Max => usize::MAX,
                Rate::PerSecond(rate) => {
                    let next = Duration::try_from_secs_f64(done.count as f64 / rate);
                    let next = next.ok().and_then(|next| start.checked_add(next));
                    sleep_until(next.context("the rate is too low")?).await;
                    let due = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
                    due.saturating_sub(done.count).max(1) as usize
                }
            };
            let batch = sender.while_alive(input.next(due)).await?;
            if batch.is_empty() {
                break;
            }
            let batch: Vec<_> = batch
                .into_iter()
                .map(|bytes| payload(bytes, self.binary))
                .collect();
            let ids = sender.send(&batch).await?;
            done.accepted(batch.len(), &ids)?;
        }
        sender.close().await;
        Ok(())
    }
}

/// Text if it can be, unless it is to be binary.
fn payload(bytes: Vec<u8>, binary: bool) -> Payload {
    let is_text = !binary && std::str::from_utf8(&bytes).is_ok();
    Payload {
        kind: if is_text { Kind::Text } else { Kind::Binary },
        bytes: bytes.into(),
    }
}

/// What has been accepted.
struct Done {
    count: u64,
    print_ids: bool,
    start: Instant,
    bar: ProgressBar,
}

impl Done {
    fn new(print_ids: bool) -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}, {elapsed}");
        Self {
            count: 0,
            print_ids,
            start: Instant::now(),
            bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())),
        }
    }

    fn accepted(&mut self, count: usize, ids: &[String]) -> Result<()> {
        self.count += count as u64;
        self.bar.inc(count as u64);
        // Somebody who types sees what is typed.
        if self.bar.is_hidden() && self.start.elapsed() > PATIENCE && !io::stdin().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if !self.print_ids || ids.is_empty() {
            return Ok(());
        }
        let text = ids.join("\n") + "\n";
        let written = self.bar.suspend(|| io::stdout().write_all(text.as_bytes()));
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to standard output")
            }
            // Nobody wants the ids; the events are still to be sent.
            Err(_) => {
                self.print_ids = false;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
