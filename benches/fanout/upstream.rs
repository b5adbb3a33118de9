//! The upstream `wsevent` consumes: a small WebSocket server in the bench process that sends what it is told. Or, of servers that
//! do not fetch anything, a publisher that has connected to them.
//!
//! Its thread runs on the servers' CPU, where the baselines have their own generators. On the load generator's CPU it
//! would be late whenever subscribers are busy reading, which is nothing a server can help.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::common::process::Cpus;
use crate::feed::{Event, FRAME_BYTES, Feed, Form, Play};

/// Appends what goes over the connection for an event.
pub type Encode = Box<dyn Fn(Event, &mut Vec<u8>) + Send>;

/// A listening upstream with a fixed number of readers to come.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    linked: Receiver<()>,
    plays: Sender<Play>,
    done: Receiver<u64>,
}

impl Upstream {
    /// The path of its feed.
    pub const PATH: &str = "/feed";

    /// Listens for exactly this many readers; nothing is sent before they are there.
    pub fn start(readers: usize, form: Form, cpus: &Cpus) -> Result<Self> {
        let cpus = *cpus;
        Self::start_on(readers, form, move || cpus.join_server())
    }

    /// The same with its thread on the load generator's CPU: where that has time for it, and the server has none to spare.
    pub fn start_apart(readers: usize, form: Form, cpus: &Cpus) -> Result<Self> {
        let cpus = *cpus;
        Self::start_on(readers, form, move || cpus.join_load())
    }

    /// For one reader and with events that `encode` makes messages of.
    pub fn start_encoding(encode: Encode, cpus: &Cpus) -> Result<Self> {
        let cpus = *cpus;
        Self::start_with(1, encode, move || cpus.join_server())
    }

    /// Publishes over this connection, in whatever `encode` makes of events.
    pub fn onto(connection: TcpStream, encode: Encode, cpus: &Cpus) -> Result<Self> {
        let cpus = *cpus;
        let address = connection.peer_addr()?;
        Self::begin(address, encode, move || {
            cpus.join_server()?;
            Ok(vec![connection])
        })
    }

    fn start_on(
        readers: usize,
        form: Form,
        join: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let encode = move |event: Event, out: &mut Vec<u8>| out.extend(event.frame(form));
        Self::start_with(readers, Box::new(encode), join)
    }

    fn start_with(
        readers: usize,
        encode: Encode,
        join: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        Self::begin(address, encode, move || {
            join()?;
            (0..readers).map(|_| accept(&listener)).collect()
        })
    }

    fn begin(
        address: SocketAddr,
        encode: Encode,
        readers: impl FnOnce() -> Result<Vec<TcpStream>> + Send + 'static,
    ) -> Result<Self> {
        let (link, linked) = channel();
        let (plays, orders) = channel();
        let (finish, done) = channel();
        thread::spawn(move || -> Result<()> {
            let mut readers = readers()?;
            link.send(())?;
            let mut feed = Feed::default();
            for play in orders {
                let last = feed.play(play, |events| send(&mut readers, &encode, events));
                finish.send(last)?;
            }
            Ok(())
        });
        Ok(Self {
            address,
            linked,
            plays,
            done,
        })
    }

    /// Its event URL.
    pub fn url(&self) -> String {
        format!("ws://{}{}", self.address, Self::PATH)
    }

    /// Returns when all readers have connected.
    pub fn wait_linked(&self, wait: Duration) -> Result<()> {
        self.linked
            .recv_timeout(wait)
            .context("nobody connects to the upstream")
    }

    /// Begins a play.
    pub fn play(&self, play: Play) -> Result<()> {
        self.plays
            .send(play)
            .map_err(|_| anyhow!("the upstream has lost its reader"))
    }

    /// The last sequence number of each finished play.
    pub fn done(&self) -> &Receiver<u64> {
        &self.done
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let socket =
        tokio_tungstenite::tungstenite::accept(stream).map_err(|error| anyhow!("{error}"))?;
    Ok(socket.into_inner())
}

/// One write per reader for all that is due; readers take turns at being first, so that none is always later.
fn send(readers: &mut [TcpStream], encode: &Encode, events: &[Event]) {
    let mut frames = Vec::with_capacity(events.len() * FRAME_BYTES);
    events.iter().for_each(|event| encode(*event, &mut frames));
    for reader in readers.iter_mut() {
        // A reader that has gone shows as lost deliveries.
        let _ = reader.write_all(&frames);
    }
    readers.rotate_left(1);
}
