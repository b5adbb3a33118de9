//! A subscriber that wants more of the past than the log holds, where a bus holds it: page by page it gets what is only there, and
//! where the log begins it goes on as everybody else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::bus::archive::{Page, Shelf};
use crate::reason;
use crate::stream::join::{Joined, Resumed, StateWish, Wish};
use crate::stream::{EventLog, Subscription};
use crate::wire::Format;

/// So many events are fetched at once, and about so many bytes.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 256 << 10;
/// How long a bus may take to say where the past begins, while somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// A client that does not take a page for so long is given up.
const STALLED: Duration = Duration::from_secs(60);
/// So many bytes of what a client sends meanwhile are kept for later.
const MAX_EARLY: usize = 16 << 10;
/// A bus that does not answer is asked so often.
const ATTEMPTS: u32 = 5;
/// With pauses between.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a subscriber begins.
pub enum Begin {
    /// In the log.
    Here(Subscription),
    /// On the bus that the log is from.
    Earlier(Box<Earlier>),
}

/// What is only on the bus, from where a subscriber wants it.
pub struct Earlier {
    shelf: Arc<Shelf>,
    format: Format,
    page: Page,
    _permit: OwnedSemaphorePermit,
}

/// What follows on what was earlier.
pub struct Brought {
    /// Where in the log it goes on.
    pub subscription: Subscription,
    /// What the subscriber has to be told before.
    pub preface: Bytes,
    /// What it has sent meanwhile.
    pub early: Bytes,
}

impl Earlier {
    /// What a bus has of what is asked for and not in `log`; none if there is nothing, or if it cannot be had now: then what is in the log
    /// has to do, and its head says so.
    pub async fn wanted(
        shelf: Option<&Arc<Shelf>>,
        log: &EventLog,
        format: Format,
        wish: &Wish,
    ) -> Option<Box<Self>> {
        let shelf = shelf?.clone();
        // Who gets the state of a stream does not need its past.
        let past = log.lacks(wish).filter(|_| !log.retains())?;
        let Some(permit) = shelf.enter() else {
            warn!("too many read the past of this stream from its bus just now");
            return None;
        };
        let looking = async {
            let Some(place) = shelf.find(&past).await? else {
                return Ok(None);
            };
            let page = shelf.page(place, PAGE, PAGE_BYTES).await?;
            anyhow::Ok(Some(page))
        };
        let page = match timeout(PATIENCE, looking).await {
            Ok(Ok(page)) => page?,
            Ok(Err(error)) => {
                warn!(error = %reason::of(&error), "the bus does not say what was earlier");
                return None;
            }
            Err(_) => {
                warn!("the bus does not say in time what was earlier");
                return None;
            }
        };
        let first = page.events.first()?;
        (!log.holds(first.id)).then(|| {
            Box::new(Self {
                shelf,
                format,
                page,
                _permit: permit,
            })
        })
    }

    /// Brings it all: `preface` first, then what is only on the bus. An error when the client has gone or takes nothing.
    pub async fn bring<S>(
        mut self: Box<Self>,
        connection: &mut S,
        log: &EventLog,
        (preface, early): (Bytes, Bytes),
    ) -> Result<Brought>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut early = BytesMut::from(early);
        let mut frames = preface.to_vec();
        let mut scratch = Vec::new();
        loop {
            for event in &self.page.events {
                for part in self.format.encode(event, None, &mut scratch) {
                    frames.extend_from_slice(part);
                }
            }
            write(connection, &frames, &mut early).await?;
            frames.clear();
            let Some(last) = self.page.events.last() else {
                bail!("there is no past");
            };
            let wish = Wish::After(last.id.to_string().into());
            let joined = log.subscribe_with(self.format, &wish, StateWish::No);
            if joined.resumed == Resumed::Yes {
                return Ok(self.brought(joined, early));
            }
            drop(joined);
            match self.next().await {
                Some(page) => self.page = page,
                // All that there is: what follows will come to the log, or is here, behind what it cannot know.
                None => {
                    log.wait_for(&wish).await;
                    let joined = log.subscribe_with(self.format, &wish, StateWish::No);
                    return Ok(self.brought(joined, early));
                }
            }
        }
    }

    /// The next page; none at the end, and when the bus does not answer.
    async fn next(&self) -> Option<Page> {
        for attempt in 1..=ATTEMPTS {
            match self.shelf.page(self.page.next, PAGE, PAGE_BYTES).await {
                Ok(page) if page.events.is_empty() => return None,
                Ok(page) => return Some(page),
                Err(error) => {
                    debug!(error = %reason::of(&error), attempt, "no page of the past");
                    sleep(PAUSE).await;
                }
            }
        }
        warn!("the bus does not go on with what was earlier");
        None
    }

    fn brought(&self, joined: Joined, early: BytesMut) -> Brought {
        let mut preface = Vec::new();
        for gap in &joined.gaps {
            self.format.encode_gap(gap, &mut preface);
        }
        Brought {
            subscription: joined.subscription,
            preface: preface.into(),
            early: early.freeze(),
        }
    }
}

/// Writes all of it, and meanwhile keeps what comes.
async fn write<S>(connection: &mut S, bytes: &[u8], early: &mut BytesMut) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = split(connection);
    let writing = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    let listening = async {
        while early.len() < MAX_EARLY {
            if !matches!(reader.read_buf(early).await, Ok(len) if len > 0) {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        written = timeout(STALLED, writing) => match written {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the client has taken nothing for {STALLED:?}"),
        },
        () = listening => bail!("the client has gone"),
    }
}

#[cfg(test)]
mod tests;
