//! What goes over the Unix socket: frames of a kind, a head in JSON, a body of bytes, and files.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::sleep;

/// What both sides say first, so that neither takes somebody else for a wsevent.
const MAGIC: &[u8; 17] = b"wsevent takeover\n";

/// So many files may go with one message (unix(7)).
pub const MAX_FILES: usize = 253;

/// What may be in one frame: events come in frames of a few MiB, unless one alone is larger.
const MAX_PART: usize = 1 << 30;

/// Kind, length of the head, length of the body.
const PREFIX: usize = 9;

/// What one read takes.
const READ: usize = 256 << 10;

/// How long to wait when too many files are on their way (unix(7), ETOOMANYREFS).
const TOO_MANY: Duration = Duration::from_millis(1);

/// A connection between two processes.
pub struct Link {
    socket: UnixStream,
    arrived: BytesMut,
    files: VecDeque<OwnedFd>,
    buffer: Box<[u8]>,
}

/// What has come.
pub struct Frame {
    /// Of which kind.
    pub kind: u8,
    head: Bytes,
    /// Its bytes.
    pub body: Bytes,
}

impl Frame {
    /// Its head, without what is not known here.
    pub fn head<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.head)
            .with_context(|| format!("a message of kind {} cannot be read", self.kind))
    }
}

impl Link {
    /// Over this socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            arrived: BytesMut::new(),
            files: VecDeque::new(),
            buffer: vec![0; READ].into(),
        }
    }

    /// Says what this is.
    pub async fn greet(&mut self) -> Result<()> {
        Ok(self.write(MAGIC, &[]).await?)
    }

    /// Reads what the other side is; false if it has gone without a word.
    pub async fn is_greeted(&mut self) -> Result<bool> {
        while self.arrived.len() < MAGIC.len() {
            let known = self.arrived.len();
            if self.arrived[..] != MAGIC[..known] {
                break;
            }
            if !self.read().await? {
                return Ok(false);
            }
        }
        ensure!(
            self.arrived.starts_with(MAGIC),
            "it does not speak as wsevent does"
        );
        self.arrived.advance(MAGIC.len());
        Ok(true)
    }

    /// Sends a frame, with these files.
    pub async fn send(
        &mut self,
        kind: u8,
        head: &impl Serialize,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let mut frame = vec![0; PREFIX];
        serde_json::to_writer(&mut frame, head)?;
        let head_len = u32::try_from(frame.len() - PREFIX)?;
        frame[0] = kind;
        frame[1..5].copy_from_slice(&head_len.to_le_bytes());
        frame[5..9].copy_from_slice(&u32::try_from(body.len())?.to_le_bytes());
        frame.extend_from_slice(body);
        Ok(self.write(&frame, files).await?)
    }

    async fn write(&mut self, mut bytes: &[u8], mut files: &[BorrowedFd<'_>]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sending = self.socket.async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
                    return Err(io::Error::other("too many files for one message"));
                }
                let slices = [IoSlice::new(bytes)];
                let sent = sendmsg(&self.socket, &slices, &mut control, SendFlags::NOSIGNAL);
                Ok(sent?)
            });
            match sending.await {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    files = &[];
                }
                Err(error) if error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error()) => {
                    sleep(TOO_MANY).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next frame; none at the end of the connection.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// The next frame, which must come.
    pub async fn receive(&mut self) -> Result<Frame> {
        let frame = self.next().await?;
        frame.context("the other process has closed the connection")
    }

    fn take(&mut self) -> Result<Option<Frame>> {
        let Some((prefix, rest)) = self.arrived.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [kind, lens @ ..] = *prefix;
        let [a, b, c, d, e, f, g, h] = lens;
        let len = |bytes| u32::from_le_bytes(bytes) as usize;
        let (head, body) = (len([a, b, c, d]), len([e, f, g, h]));
        ensure!(
            head.max(body) <= MAX_PART,
            "the other process has sent what is no message"
        );
        if rest.len() < head + body {
            self.arrived.reserve(PREFIX + head + body - rest.len());
            return Ok(None);
        }
        self.arrived.advance(PREFIX);
        let head = self.arrived.split_to(head).freeze();
        let body = self.arrived.split_to(body).freeze();
        Ok(Some(Frame { kind, head, body }))
    }

    /// Reads more; false at the end.
    async fn read(&mut self) -> Result<bool> {
        let (buffer, files) = (&mut self.buffer, &mut self.files);
        let socket = &self.socket;
        let receiving = socket.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(buffer)];
            let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    files.extend(descriptors);
                }
            }
            Ok((received.bytes, received.flags))
        });
        let (len, flags) = receiving.await?;
        if flags.contains(ReturnFlags::CTRUNC) {
            bail!("not all sockets have come: the limit of open files is too low here (ulimit -n)");
        }
        self.arrived.extend_from_slice(&self.buffer[..len]);
        Ok(len > 0)
    }

    /// The next files that have come with frames.
    pub fn files(&mut self, count: usize) -> Result<Vec<OwnedFd>> {
        ensure!(
            self.files.len() >= count,
            "not all sockets have come that were announced"
        );
        Ok(self.files.drain(..count).collect())
    }

    /// Waits until the other side has closed it.
    pub async fn is_over(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }

    /// Nothing can come any more, and what has come by now is all there is.
    pub fn close(&mut self) {
        let _ = shutdown(self.socket.as_fd(), Shutdown::Both);
    }
}
