//! What compression saves, and what it costs: the same events to many subscribers, as they are and in each coding.
//!
//! ```text
//! cargo bench --bench compress                     a thousand subscribers, fifty events a second of 1 KiB
//! cargo bench --bench compress -- 1000 50 1024     so many of each
//! ```
//!
//! The server is the real binary on one CPU; the subscribers (this process) have another. They count bytes, and one of them looks into what
//! it has got. The exit code is 1 if anybody got less than that one, or that one not every event.

#[path = "common/mod.rs"]
#[allow(dead_code)] // Other benches measure more with it.
mod common;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use wsevent::event::Kind;
use wsevent::wire::compress::{Coding, Expander};
use wsevent::wire::websocket::{Inflater, message_header};

use common::process::Process;
use common::table::{Table, machine};

const TIME_LIMIT: Duration = Duration::from_secs(5 * 60);
/// So long events are played.
const SECONDS: usize = 4;
/// So many connect at a time.
const CONNECTING: usize = 100;
/// After so long without a byte nothing more is to come.
const QUIET: Duration = Duration::from_millis(300);

const USAGE: &str = "cargo bench --bench compress -- [SUBSCRIBERS] [EVENTS A SECOND] [BYTES]";

/// Which transport, and what is asked for.
const CASES: [(&str, Option<Coding>); 5] = [
    ("websocket", None),
    ("websocket", Some(Coding::Deflate)),
    ("sse", None),
    ("sse", Some(Coding::Gzip)),
    ("sse", Some(Coding::Zstd)),
];

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
    let subscribers = numbers.first().copied().unwrap_or(1_000);
    let rate = numbers.get(1).copied().unwrap_or(50);
    let len = numbers.get(2).copied().unwrap_or(1 << 10);
    let cpus = common::prepare(TIME_LIMIT)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let events = events();
    let mut table = Table::new(&[
        "transport",
        "coding",
        "bytes/delivery",
        "CPU µs/delivery",
        "lost",
    ]);
    let mut is_whole = true;
    for (transport, coding) in CASES {
        let case = Case {
            transport,
            coding,
            subscribers,
            rate,
            len,
        };
        let (process, address) =
            common::wsevent::start(&["--accept-publish", "--compress"], &cpus)?;
        let row = runtime.block_on(case.run(&process, address))?;
        is_whole &= row.last().is_some_and(|lost| lost == "0");
        eprintln!("{}", row.join(" "));
        table.push(row);
    }
    println!("Machine: {}.\n", machine(cpus.pinned));
    println!("{}", events.to_markdown());
    print!("{}", table.to_markdown());
    Ok(match is_whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What it takes to compress one event, without anything else.
fn events() -> Table {
    let mut table = Table::new(&["bytes", "coding", "CPU µs/event", "of its bytes"]);
    for len in [100, 1 << 10, 16 << 10, 1 << 20] {
        let events: Vec<_> = (0..64).map(|number| event(number * 1_000, len)).collect();
        for coding in Coding::ALL {
            let (mut out, mut total) = (Vec::new(), 0);
            let rounds = (64 << 20) / len.max(16 << 10);
            let mut begun = common::now_ns();
            for round in 0..2 * rounds {
                // The first half warms up.
                if round == rounds {
                    (begun, total) = (common::now_ns(), 0);
                }
                out.clear();
                coding.append(&[events[round % events.len()].as_bytes()], &mut out);
                total += out.len();
            }
            let each = (common::now_ns() - begun) as f64 / rounds as f64;
            table.push(vec![
                len.to_string(),
                coding.name().to_owned(),
                format!("{:.1}", each / 1_000.0),
                format!("{:.0} %", total as f64 * 100.0 / (rounds * len) as f64),
            ]);
        }
    }
    table
}

struct Case {
    transport: &'static str,
    coding: Option<Coding>,
    subscribers: usize,
    rate: usize,
    len: usize,
}

impl Case {
    async fn run(&self, process: &Process, address: SocketAddr) -> Result<Vec<String>> {
        let counts: Arc<[AtomicU64]> = (0..self.subscribers).map(|_| AtomicU64::new(0)).collect();
        let mut readers = JoinSet::new();
        let mut first = None;
        for begin in (0..self.subscribers).step_by(CONNECTING) {
            let some = begin..self.subscribers.min(begin + CONNECTING);
            let connecting = some.map(async |number| (number, self.connect(address).await));
            for (number, connected) in futures_util::future::join_all(connecting).await {
                let (connected, counts) = (connected?, counts.clone());
                match number {
                    0 => first = Some(tokio::spawn(read(connected, counts, 0, true))),
                    _ => drop(readers.spawn(read(connected, counts, number, false))),
                }
            }
        }
        let total = || {
            counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        quiet(total).await;
        counts
            .iter()
            .for_each(|count| count.store(0, Ordering::Relaxed));
        let cpu = process.cpu_ns()?;
        let events = self.rate * SECONDS;
        self.publish(address, events).await?;
        quiet(total).await;
        let cpu = process.cpu_ns()? - cpu;
        let deliveries = (events * self.subscribers) as f64;
        let bytes = total() as f64 / deliveries;
        let expected = counts[0].load(Ordering::Relaxed);
        let lost = counts
            .iter()
            .filter(|count| count.load(Ordering::Relaxed) != expected);
        let mut lost = lost.count();
        readers.shutdown().await;
        let first = first.context("there are no subscribers")?;
        // It ends when it has been quiet for some time.
        let got = timeout(QUIET * 20, first).await;
        lost += usize::from(!matches!(got, Ok(Ok(Ok(seen))) if seen == events));
        Ok(vec![
            self.transport.to_owned(),
            self.coding.map_or("none", Coding::name).to_owned(),
            format!("{bytes:.0}"),
            format!("{:.2}", cpu as f64 / 1_000.0 / deliveries),
            lost.to_string(),
        ])
    }

    async fn connect(&self, address: SocketAddr) -> Result<Connected> {
        let mut request = "GET /events HTTP/1.1\r\nHost: localhost\r\n".to_owned();
        request += match (self.transport, self.coding) {
            ("websocket", None) => "",
            ("websocket", Some(_)) => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            (_, None) => "Accept: text/event-stream\r\n",
            (_, Some(Coding::Gzip)) => "Accept: text/event-stream\r\nAccept-Encoding: gzip\r\n",
            (_, Some(_)) => "Accept: text/event-stream\r\nAccept-Encoding: zstd\r\n",
        };
        if self.transport == "websocket" {
            request += UPGRADE;
        }
        let (socket, early) = ask(address, &(request + "\r\n")).await?;
        Ok(Connected {
            socket,
            early,
            coding: self.coding,
        })
    }

    /// Sends the events at their pace, each with its number and of the length that is asked for.
    async fn publish(&self, address: SocketAddr, events: usize) -> Result<()> {
        let request = format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n");
        let (socket, _) = ask(address, &request).await?;
        let (mut from, mut to) = socket.into_split();
        let reading =
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
        let mut ticks = interval(Duration::from_secs(1) / self.rate as u32);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..events {
            ticks.tick().await;
            let event = event(number, self.len);
            let mut frame = message_header(Kind::Text, event.len()).as_ref().to_vec();
            // A mask that changes nothing.
            frame[1] |= 0x80;
            frame.extend_from_slice(&[0; 4]);
            frame.extend_from_slice(event.as_bytes());
            to.write_all(&frame).await?;
        }
        sleep(QUIET).await;
        reading.abort();
        Ok(())
    }
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// JSON as feeds have it: names that repeat, and numbers that do not.
fn event(number: usize, len: usize) -> String {
    let mut event = format!("{{\"number\":{number},\"quotes\":[");
    let mut noise = number as u64 + 1;
    while event.len() + 100 < len {
        noise = noise.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17);
        let (bid, cents, size) = (noise % 900, noise >> 7 & 63, noise >> 20 & 0xFFF);
        event += &format!(
            "{{\"symbol\":\"S{}\",\"bid\":{bid}.{cents},\"size\":{size},\"venue\":\"XNAS\"}},",
            noise % 500
        );
    }
    event.truncate(event.trim_end_matches(',').len());
    event += "],\"pad\":\"";
    while event.len() + 2 < len {
        noise = noise.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17);
        event += &format!("{noise:016x}");
    }
    event.truncate(len.saturating_sub(2));
    event + "\"}"
}

struct Connected {
    socket: TcpStream,
    early: Vec<u8>,
    coding: Option<Coding>,
}

/// Asks, and reads the head of the answer; with it comes what has arrived behind that.
async fn ask(address: SocketAddr, request: &str) -> Result<(TcpStream, Vec<u8>)> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    loop {
        if let Some(end) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head[..end]).into_owned();
            ensure!(
                text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.1 101"),
                "{text}"
            );
            let early = head.split_off(end + 4);
            return Ok((socket, early));
        }
        ensure!(socket.read_buf(&mut head).await? > 0, "no answer");
    }
}

/// Counts what comes. If it is to look into it, it ends when nothing comes any more, and says how many events there were.
async fn read(
    connected: Connected,
    counts: Arc<[AtomicU64]>,
    number: usize,
    looks: bool,
) -> Result<usize> {
    let Connected {
        mut socket,
        early,
        coding,
    } = connected;
    let (mut all, mut buffer) = (early, vec![0; 16 << 10]);
    loop {
        // Between the last event and the end of the measurement it is quiet for longer than between two events.
        let patience = if looks { QUIET * 10 } else { TIME_LIMIT };
        let len = match timeout(patience, socket.read(&mut buffer)).await {
            Ok(len) => len?,
            Err(_) => break,
        };
        if len == 0 {
            break;
        }
        counts[number].fetch_add(len as u64, Ordering::Relaxed);
        if looks {
            all.extend_from_slice(&buffer[..len]);
        }
    }
    let mut plain = Vec::new();
    match coding {
        None => plain = all,
        Some(Coding::Deflate) => {
            let taken = Inflater::new(1 << 20).take(&all, &mut plain);
            taken.map_err(|(_, reason)| anyhow::anyhow!("{reason}"))?;
        }
        Some(coding) => {
            let mut expander = Expander::new(coding).context("it is a coding of bodies")?;
            let mut rest = &all[..];
            loop {
                let len = expander.next(&mut rest, &mut buffer)?;
                plain.extend_from_slice(&buffer[..len]);
                if len < buffer.len() {
                    break;
                }
            }
        }
    }
    let text = String::from_utf8_lossy(&plain);
    Ok(text.matches("{\"number\":").count())
}

/// Waits until a number does not change any more.
async fn quiet(number: impl Fn() -> u64) {
    let mut before = number();
    loop {
        sleep(QUIET).await;
        let now = number();
        if std::mem::replace(&mut before, now) == now {
            return;
        }
    }
}
