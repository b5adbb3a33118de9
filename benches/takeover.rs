//! How long it takes to replace a process that has ten thousand subscribers, and how long the longest silence is that one of them
//! sees.
//!
//! ```text
//! cargo bench --bench takeover                  ten thousand subscribers, ten events a second
//! cargo bench --bench takeover -- 1000 50       so many of each
//! ```
//!
//! Both processes are the real binary and share one CPU, the subscribers (this process) have another. The exit code is 1 if a subscriber
//! was cut off, or an event was lost or repeated.

#[path = "common/mod.rs"]
#[allow(dead_code)] // Other benches measure more with it.
mod common;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// Longer than this a run cannot be right.
const TIME_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Before the replacement, and after it, everything goes its way for so long.
const CALM: Duration = Duration::from_secs(5);
/// So many connect at a time.
const CONNECTING: usize = 100;

const USAGE: &str = "cargo bench --bench takeover -- [SUBSCRIBERS] [EVENTS A SECOND]";

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` comes by here too, but says nothing of `--bench`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let numbers = arguments.iter().filter(|argument| *argument != "--bench");
    let numbers = numbers.map(|number| number.parse().context(USAGE));
    let numbers: Vec<usize> = numbers.collect::<Result<_>>()?;
    let count = numbers.first().copied().unwrap_or(10_000);
    let rate = numbers.get(1).copied().unwrap_or(10);
    let cpus = common::prepare(TIME_LIMIT)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(count, rate, cpus))
}

async fn measure(count: usize, rate: usize, cpus: common::process::Cpus) -> Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("takeover").display().to_string();
    let start = move || {
        let rate = rate.to_string();
        common::wsevent::start(&["--takeover", &path, "--produce-rate", &rate], &cpus)
    };
    let (mut old, address) = spawn_blocking(start.clone()).await??;
    let over = Arc::new(AtomicBool::new(false));
    let mut subscribers = JoinSet::new();
    for _ in 0..count.div_ceil(CONNECTING) {
        let some = (0..CONNECTING).map(|_| Subscriber::connect(address));
        for subscriber in futures_util::future::join_all(some).await {
            let (subscriber, over) = (subscriber?, over.clone());
            subscribers.spawn(subscriber.read(over));
        }
    }
    sleep(CALM).await;
    let begun = Instant::now();
    let (_new, _) = spawn_blocking(start).await??;
    let replaced = begun.elapsed();
    sleep(CALM).await;
    over.store(true, Ordering::Relaxed);
    let (mut silences, mut cut, mut broken) = (Vec::new(), 0, 0);
    while let Some(seen) = subscribers.join_next().await {
        let seen = seen?;
        silences.push(seen.longest);
        cut += usize::from(seen.cut);
        broken += seen.broken;
    }
    silences.sort_unstable();
    let ended = spawn_blocking(move || old.child().wait());
    let ended = timeout(Duration::from_secs(20), ended).await???;
    let median = silences
        .get(silences.len() / 2)
        .copied()
        .unwrap_or_default();
    let longest = silences.last().copied().unwrap_or_default();
    println!(
        "{} subscribers, {rate} events a second: from the start of the new process until it serves {replaced:.0?}; \
         longest silence {longest:.0?}, of the median subscriber {median:.0?} (events are {:.0?} apart); \
         {cut} cut off, {broken} events lost or repeated; the old process: {ended}",
        silences.len(),
        Duration::from_secs(1) / rate as u32,
    );
    Ok(match cut == 0 && broken == 0 && ended.success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

struct Subscriber {
    socket: TcpStream,
    arrived: Vec<u8>,
    seen: Seen,
    last: Option<(Instant, u64)>,
}

/// What a subscriber has seen.
#[derive(Default)]
struct Seen {
    longest: Duration,
    cut: bool,
    broken: usize,
}

impl Subscriber {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let mut socket = TcpStream::connect(address).await?;
        let request = "GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).await?;
        let mut arrived = Vec::new();
        let end = loop {
            ensure!(socket.read_buf(&mut arrived).await? > 0, "no handshake");
            if let Some(end) = arrived.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(arrived.starts_with(b"HTTP/1.1 101"), "it is refused");
        arrived.drain(..end);
        Ok(Self {
            socket,
            arrived,
            seen: Seen::default(),
            last: None,
        })
    }

    async fn read(mut self, over: Arc<AtomicBool>) -> Seen {
        while !over.load(Ordering::Relaxed) {
            match self.socket.read_buf(&mut self.arrived).await {
                Ok(0) | Err(_) => {
                    self.seen.cut = true;
                    break;
                }
                Ok(_) => self.take(),
            }
        }
        self.seen
    }

    /// Whole frames, all of them short: a number, and something behind it.
    fn take(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(&[first, len]) = self.arrived.get(at..at + 2) {
            let Some(payload) = self.arrived.get(at + 2..at + 2 + usize::from(len)) else {
                break;
            };
            at += 2 + payload.len();
            if first != 0x81 {
                continue;
            }
            let text = std::str::from_utf8(payload).unwrap_or_default();
            let number = text
                .split(' ')
                .next()
                .and_then(|number| number.parse().ok());
            let number: u64 = number.unwrap_or_default();
            if let Some((then, before)) = self.last {
                self.seen.longest = self.seen.longest.max(now - then);
                self.seen.broken += usize::from(number != before + 1);
            }
            self.last = Some((now, number));
        }
        self.arrived.drain(..at);
    }
}
