//! One end of a connection.

use std::io::Write;

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;

use crate::wire::{Ask, Chunks, DOWN, EVENT, Layout, Message, Messages, chunk};

/// One end of a connection.
pub struct End {
    /// Its socket.
    pub socket: TcpStream,
    /// The client's number, if it is known.
    pub number: usize,
    /// What it waits for.
    pub role: Role,
    /// The head under way.
    pub rest: Vec<u8>,
    /// What is read.
    pub messages: Messages,
    /// How it is read, if in chunks.
    pub chunks: Option<Chunks>,
    /// Number of the latest message, sent or received.
    pub seq: u64,
    /// When the request under way was sent.
    pub asked_ns: u64,
}

/// What an end waits for.
#[derive(Clone, Copy, PartialEq)]
pub enum Role {
    /// Waits for the head of an answer.
    Asking(Ask),
    /// Reads a stream.
    Reading,
    /// An upstream's end that waits for a request.
    Serving,
    /// An upstream's end after that.
    Streaming(Ask),
}

impl End {
    /// One that has seen nothing yet.
    pub fn new(
        socket: TcpStream,
        number: usize,
        role: Role,
        layout: &'static Layout,
    ) -> Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            number,
            role,
            rest: Vec::new(),
            messages: Messages::new(layout),
            chunks: None,
            seq: 0,
            asked_ns: 0,
        })
    }

    /// Writes what is small enough to fit into the socket whenever the other end reads at all.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.socket.write(bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => bail!("a proxy that takes nothing more"),
            Err(error) => Err(error).context("write"),
        }
    }

    /// Sends the next message to the client.
    pub fn send_down(&mut self, created_ns: u64) -> Result<()> {
        self.seq += 1;
        match self.role {
            Role::Streaming(Ask::Sse) => self.write(&chunk(&EVENT.message(self.seq, created_ns))),
            _ => self.write(&DOWN.message(self.seq, created_ns)),
        }
    }

    /// Sends back the messages that end in these bytes.
    pub fn echo(&mut self, bytes: &[u8]) -> Result<()> {
        let mut pings = Vec::new();
        self.messages.take(bytes, |message| pings.extend(message))?;
        pings
            .into_iter()
            .try_for_each(|message: Message| self.send_down(message.created_ns))
    }
}
