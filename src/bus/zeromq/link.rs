//! One connection to a ZeroMQ socket: the handshake, what comes in, what goes out, and whether the other side is still there.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::source::refusal::Unfit;
use crate::source::upstream::CONNECT_TIMEOUT;
use crate::wire::zmtp::{
    Command, Decoder, GREETING, Item, Socket, VERSION, check_greeting, check_version, greeting,
    ping, pong, ready,
};

/// So many bytes are read, or written, at once.
const CHUNK: usize = 64 << 10;
/// What a message costs in a queue, beside its bytes.
const OVERHEAD: usize = size_of::<Bytes>();

/// What waits for one peer. It is bounded: what finds no room is not taken.
pub struct Outgoing {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Notify,
    /// There is nothing to write any more.
    emptied: Notify,
    /// The most bytes that wait.
    most: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Whether some of what has been taken from it is not written yet.
    is_writing: bool,
}

impl Outgoing {
    /// Nothing waits yet, and no more than `most` bytes ever will.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            most,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something behind what waits. Whether there was room.
    pub fn put(&self, bytes: Bytes) -> bool {
        let mut queue = self.lock();
        let size = bytes.len() + OVERHEAD;
        // One that is larger than all may still be alone.
        if queue.bytes + size > self.most && !queue.waiting.is_empty() {
            return false;
        }
        queue.bytes += size;
        queue.waiting.push_back(bytes);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Whether all has been written.
    pub fn is_empty(&self) -> bool {
        let queue = self.lock();
        queue.waiting.is_empty() && !queue.is_writing
    }

    /// Waits until all has been written.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Whoever it was for has gone.
    pub fn give_up(&self) {
        *self.lock() = Queue::default();
        self.emptied.notify_waiters();
    }

    /// Moves what waits to `out`, a chunk of it.
    fn take(&self, out: &mut BytesMut) {
        let mut queue = self.lock();
        while out.len() < CHUNK
            && let Some(bytes) = queue.waiting.pop_front()
        {
            queue.bytes -= bytes.len() + OVERHEAD;
            out.extend_from_slice(&bytes);
        }
        queue.is_writing = !out.is_empty();
        if !queue.is_writing {
            drop(queue);
            self.emptied.notify_waiters();
        }
    }
}

/// The way in.
pub struct Incoming<S> {
    reader: ReadHalf<S>,
    buffer: BytesMut,
    decoder: Decoder,
    outgoing: Arc<Outgoing>,
    /// So many bytes are read at once.
    chunk: usize,
    /// Whether the peer answers pings, and knows subscriptions that are commands.
    pub knows_commands: bool,
    /// After so long a silence it is asked whether it is there, and given up after two.
    patience: Duration,
}

/// The way out.
pub struct Outlet<S> {
    writer: WriteHalf<S>,
    out: BytesMut,
    outgoing: Arc<Outgoing>,
}

/// How a connection is kept.
pub struct Terms {
    /// The socket that it is one of.
    pub own: Socket,
    /// The longest message that is taken, in bytes.
    pub most: usize,
    /// After so long a silence a peer is asked whether it is there, and given up after two.
    pub patience: Duration,
    /// What is written to it.
    pub outgoing: Arc<Outgoing>,
}

/// Shakes hands with whoever is at the other end of `stream`.
pub async fn open<S>(mut stream: S, terms: Terms) -> Result<(Incoming<S>, Outlet<S>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shaking = async {
        stream.write_all(&greeting()).await?;
        let mut theirs = [0; GREETING];
        let begun: &mut [u8; VERSION] = theirs.first_chunk_mut().expect("it is longer");
        stream.read_exact(begun).await?;
        check_version(begun)?;
        stream.read_exact(&mut theirs[VERSION..]).await?;
        let knows_commands = check_greeting(&theirs)?;
        stream.write_all(&ready(terms.own)).await?;
        let mut decoder = Decoder::new(terms.own, terms.most);
        let mut buffer = BytesMut::with_capacity(GREETING);
        loop {
            match decoder.decode(&mut buffer)? {
                Some(Item::Command(Command::Ready)) => break,
                Some(Item::Command(Command::Error(reason))) => {
                    return Err(Unfit(format!("it refuses: {reason}")).into());
                }
                Some(_) => return Err(Unfit("it does not begin with READY".to_owned()).into()),
                None if stream.read_buf(&mut buffer).await? == 0 => {
                    bail!("it closed the connection during the handshake")
                }
                None => {}
            }
        }
        anyhow::Ok((knows_commands, decoder, buffer))
    };
    let shaken = timeout(CONNECT_TIMEOUT, shaking).await;
    let shaken = shaken.with_context(|| format!("no handshake within {CONNECT_TIMEOUT:?}"))?;
    let (knows_commands, decoder, buffer) = shaken?;
    let (reader, writer) = split(stream);
    let incoming = Incoming {
        reader,
        buffer,
        decoder,
        outgoing: terms.outgoing.clone(),
        // Of those who send little there may be many.
        chunk: terms.most.min(CHUNK),
        knows_commands,
        patience: terms.patience,
    };
    let outlet = Outlet {
        writer,
        out: BytesMut::new(),
        outgoing: terms.outgoing,
    };
    Ok((incoming, outlet))
}

impl<S: AsyncRead + AsyncWrite> Incoming<S> {
    /// Waits until there is something, and adds all that is there.
    pub async fn next(&mut self, items: &mut Vec<Item>) -> Result<()> {
        let mut is_silent = false;
        loop {
            while let Some(item) = self.decoder.decode(&mut self.buffer)? {
                match item {
                    Item::Command(Command::Ping(context)) => {
                        self.answer(pong(&context))?;
                    }
                    Item::Command(Command::Error(reason)) => bail!("it gives up: {reason}"),
                    Item::Command(Command::Ready | Command::Other) => {}
                    item => items.push(item),
                }
            }
            if !items.is_empty() {
                return Ok(());
            }
            self.buffer.reserve(self.chunk);
            let reading = self.reader.read_buf(&mut self.buffer);
            match timeout(self.patience, reading).await {
                Ok(Ok(0)) => bail!("it closed the connection"),
                Ok(read) => drop(read?),
                Err(_) if !self.knows_commands => {}
                Err(_) if is_silent => bail!("it has been silent for {:?}", self.patience * 2),
                Err(_) => {
                    self.answer(ping())?;
                    is_silent = true;
                    continue;
                }
            }
            is_silent = false;
        }
    }

    /// Whoever asks, and does not read, has too many answers waiting.
    fn answer(&self, bytes: Bytes) -> Result<()> {
        match self.outgoing.put(bytes) {
            true => Ok(()),
            false => bail!("it does not read"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite> Outlet<S> {
    /// Writes what waits until the connection is lost. May be given up at any time, and gone on with.
    pub async fn run(&mut self) -> anyhow::Error {
        match self.write().await {
            Ok(never) => never,
            Err(error) => error.into(),
        }
    }

    async fn write(&mut self) -> io::Result<anyhow::Error> {
        loop {
            self.outgoing.take(&mut self.out);
            if self.out.is_empty() {
                self.outgoing.filled.notified().await;
                continue;
            }
            while self.out.has_remaining() {
                if self.writer.write_buf(&mut self.out).await? == 0 {
                    return Ok(anyhow!("it closed the connection"));
                }
            }
        }
    }
}
