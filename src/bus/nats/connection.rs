//! A connection to a NATS server. The library would reconnect for ever, and not tell; here the frame does that, so a connection is over
//! when it is lost.

use std::error::Error;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerError, Subscriber,
};
use bytes::Bytes;
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::rustls::Error as TlsError;
use url::Url;

use super::super::Bus;
use crate::source::refusal::Unfit;
use crate::source::upstream::{self, CONNECT_TIMEOUT};

/// How long the server may take to confirm what it was sent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Said of what is asked of a bus behind an error, or before it has been connected.
pub const NOT_CONNECTED: &str = "it is not connected";

/// So many messages of a subscription fit between the library's task and ours. It reads from a socket for long stretches before it lets
/// others have its thread, and drops what does not fit.
const QUEUE: usize = 512 << 10;

/// What inboxes begin with; who has restricted rights must have the right to these.
const INBOX: &str = "_INBOX";

/// A connection.
pub struct Connection {
    /// What the library does over it.
    pub client: Client,
    condition: watch::Receiver<Condition>,
    /// A subject of its own, and what comes back from there.
    inbox: String,
    echoes: Subscriber,
    /// So many messages are known to have been dropped.
    dropped: u64,
}

/// What the library has told.
#[derive(Debug, Clone, Default)]
struct Condition {
    /// Why it is of no use any more.
    over: Option<Over>,
    /// Whether what it sends to its own inbox does not come back.
    is_deaf: bool,
    /// So many messages were dropped, as far as that is known: one at least.
    dropped: u64,
}

#[derive(Debug, Clone)]
enum Over {
    Lost,
    /// In the words of the server.
    Refused(String),
}

impl Connection {
    /// Connects to the server of `bus`, and waits until it has answered.
    pub async fn open(bus: &Bus) -> Result<Self> {
        let url = &bus.upstream.url;
        let inbox = format!("{INBOX}.{:016x}", rand::random::<u64>());
        let (told, condition) = watch::channel(Condition::default());
        let own = inbox.clone();
        let options = options(bus).await?.event_callback(move |event| {
            told.send_modify(|condition| condition.note(event, &own));
            std::future::ready(())
        });
        let host = url.host_str().context("the URL has no host")?;
        let port = upstream::port(url).context("the URL has no port")?;
        // Without user and password, which have their own way.
        let server = format!("nats://{host}:{port}");
        let connecting = timeout(CONNECT_TIMEOUT, options.connect(server));
        let client = connecting.await.map_err(|_| silent())?;
        let client = client.map_err(|error| refused(bus, &error))?;
        // It cannot be told to leave reconnecting to us, only to give up after one attempt. That one is to fail at once.
        client.set_server_pool("nats://127.0.0.1:0").await?;
        let echoes = client.subscribe(inbox.clone()).await?;
        Ok(Self {
            client,
            condition,
            inbox,
            echoes,
            dropped: 0,
        })
    }

    /// Waits until the server has dealt with all that it was sent before. What it has refused of it is the error.
    ///
    /// There is no other way to have the server's confirmation from this library: its `flush` is about the socket. A server deals
    /// with what a client sends in order, so what comes back to an inbox of our own has been behind all else.
    ///
    /// Errors come through another task of the library's, which is woken first, but may be slower than one way round: where some are to
    /// be expected there should be two `rounds`.
    pub async fn settle(&mut self, rounds: usize) -> Result<Echo> {
        for _ in 0..rounds {
            let publishing = self.client.publish(self.inbox.clone(), Bytes::new());
            publishing.await?;
            let mut condition = self.condition.clone();
            let mut is_deaf = std::pin::pin!(condition.wait_for(|condition| condition.is_deaf));
            let echo = async {
                tokio::select! {
                    echo = self.echoes.next() => echo.map(|_| Echo::Heard),
                    _ = &mut is_deaf => Some(Echo::None),
                }
            };
            let over = over(self.condition.clone());
            let echo = tokio::select! {
                // Before the echo: it may be what was refused.
                biased;
                error = over => return Err(error),
                echo = timeout(PATIENCE, echo) => echo.map_err(|_| silent())?,
            };
            if let Some(Echo::None) = echo {
                return Ok(Echo::None);
            }
        }
        let condition = self.condition.borrow();
        condition.error().map_or(Ok(Echo::Heard), Err)
    }

    /// Waits until the connection is over: why.
    pub async fn over(&self) -> anyhow::Error {
        self.whether_over().await
    }

    /// The same, for whoever uses the connection meanwhile.
    pub fn whether_over(&self) -> impl Future<Output = anyhow::Error> + Send + use<> {
        over(self.condition.clone())
    }

    /// Why a message is not even sent.
    pub fn too_large(&self) -> String {
        let most = self.client.max_payload();
        format!(
            "with its headers it is longer than the {most} bytes that the server takes (max_payload)"
        )
    }

    /// Waits until there is something that is not as it should be. May be given up at any time.
    pub async fn trouble(&mut self) -> Trouble {
        let before = self.dropped;
        let is_trouble = |now: &Condition| now.over.is_some() || now.dropped > before;
        // With the library's tasks who tells is gone, too.
        let Ok(now) = self.condition.wait_for(is_trouble).await else {
            return Trouble::Over(lost());
        };
        if now.dropped > before {
            self.dropped = now.dropped;
            return Trouble::Dropped;
        }
        Trouble::Over(now.error().unwrap_or_else(lost))
    }
}

/// What is not as it should be.
#[derive(Debug)]
pub enum Trouble {
    /// Messages have been dropped that had come, because nobody read them.
    Dropped,
    /// The connection is over, for this reason.
    Over(anyhow::Error),
}

/// What has become of a message to oneself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It has come back.
    Heard,
    /// The user has no right to that; the server has said so, and so it has dealt with what came before.
    None,
}

impl Condition {
    fn note(&mut self, event: Event, inbox: &str) {
        match event {
            Event::Disconnected | Event::Closed => {
                // Why is known already if the server has said it.
                self.over.get_or_insert(Over::Lost);
            }
            Event::SlowConsumer(_) => self.dropped += 1,
            Event::ServerError(error) => {
                let said = match error {
                    ServerError::Other(said) => said,
                    other => other.to_string(),
                };
                match said.contains(inbox) {
                    true => self.is_deaf = true,
                    false => self.over = Some(Over::Refused(said)),
                }
            }
            Event::Connected | Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
    }

    fn error(&self) -> Option<anyhow::Error> {
        self.over.as_ref().map(|over| match over {
            Over::Lost => lost(),
            Over::Refused(said) => said_no(said),
        })
    }
}

async fn over(mut condition: watch::Receiver<Condition>) -> anyhow::Error {
    let over = condition.wait_for(|condition| condition.over.is_some());
    let over = over.await.map(|condition| condition.error());
    // With the library's tasks who tells is gone, too.
    over.ok().flatten().unwrap_or_else(lost)
}

fn lost() -> anyhow::Error {
    anyhow!("the connection is lost")
}

/// Nothing comes any more.
pub fn silent() -> anyhow::Error {
    anyhow!("it does not answer")
}

/// What the server says in an error (NATS protocol, -ERR). What it says of rights it will say again.
fn said_no(said: &str) -> anyhow::Error {
    let said = said.trim().trim_matches('\'').trim_start_matches("nats: ");
    let is_about_rights = ["permission", "authorization", "authentication"];
    let lower = said.to_ascii_lowercase();
    match is_about_rights.iter().any(|word| lower.contains(word)) {
        true => Unfit(format!("the server refuses: {said}")).into(),
        false => anyhow!("the server says: {said}"),
    }
}

async fn options(bus: &Bus) -> Result<ConnectOptions> {
    let upstream = &bus.upstream;
    let url = &upstream.url;
    let mut options = ConnectOptions::new()
        .name("wsevent")
        .require_tls(upstream::is_secure(url))
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(CONNECT_TIMEOUT))
        .ping_interval(upstream.ping_interval.max(Duration::from_millis(1)))
        .subscription_capacity(QUEUE)
        // The URL says which server; and each way there is the frame's.
        .ignore_discovered_servers()
        .retain_servers_order()
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO);
    if let Some(tls) = &upstream.tls {
        options = options.tls_client_config(ClientConfig::clone(tls));
    }
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decoded(url.username());
    options = match url.password().map(decoded) {
        Some(password) => options.user_and_password(user, password),
        None if !user.is_empty() => options.token(user),
        None => options,
    };
    if let Some(file) = credentials(url) {
        let reading = options.credentials_file(&file).await;
        options = reading.map_err(|error| {
            let error = crate::reason::io_text(&error);
            Unfit(format!("creds=: cannot read the credentials: {error}"))
        })?;
    }
    Ok(options)
}

type ClientConfig = tokio_rustls::rustls::ClientConfig;

/// The file with the user's JWT and seed, if there is one.
fn credentials(url: &Url) -> Option<String> {
    let mut pairs = url.query_pairs();
    let creds = pairs.find(|(name, _)| name == "creds");
    creds.map(|(_, file)| file.into_owned())
}

/// What a failed attempt to connect means.
fn refused(bus: &Bus, error: &ConnectError) -> anyhow::Error {
    let url = &bus.upstream.url;
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            let has_shown = !url.username().is_empty() || credentials(url).is_some();
            let what = match has_shown {
                true => "the server does not accept this login (authorization violation)",
                false => {
                    "the server wants a login: nats://USER:PASSWORD@HOST, nats://TOKEN@HOST or ?creds=FILE"
                }
            };
            return Unfit(what.to_owned()).into();
        }
        ConnectErrorKind::Authentication => {
            return Unfit("creds=: the credentials cannot sign what the server asks".to_owned())
                .into();
        }
        ConnectErrorKind::TimedOut => return silent(),
        _ => {}
    }
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes {
        if let Some(ServerError::Other(said)) = cause.downcast_ref() {
            return said_no(said);
        }
        let Some(error) = cause.downcast_ref::<io::Error>() else {
            continue;
        };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        return match inner.cloned() {
            Some(tls) => upstream::no_tls(url, io::Error::new(error.kind(), TlsError::clone(&tls))),
            None => {
                let error = match error.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(error.kind(), error.to_string()),
                };
                match url.host_str() {
                    Some(host) => upstream::no_address(host, error),
                    None => error.into(),
                }
            }
        };
    }
    anyhow!("{error}")
}
