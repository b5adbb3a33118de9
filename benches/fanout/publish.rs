//! Case J: what an event costs that a client publishes by POST, one a request and many a request.
//!
//! A few publishers with a connection each wait for every answer before they send the next request. One subscriber reads
//! what they publish.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use memchr::memmem;

use crate::cases::Bench;
use crate::common::now_ns;
use crate::common::table::thousands;
use crate::common::table::{Bar, Table, median};
use crate::feed::{Event, Form};
use crate::load::Load;
use crate::server::Hop;
use crate::transport::Transport;

/// Publishers at once.
const PUBLISHERS: usize = 8;

/// Events a second for each core that the server uses, one event a request.
const LEAST: u64 = 20_000;

/// One way to publish.
#[derive(Clone, Copy)]
struct Way {
    events_per_request: u64,
    /// In a full run.
    requests: u64,
    least_per_core: u64,
}

/// One event as the body itself, and many as lines of JSON.
const WAYS: [Way; 2] = [
    Way {
        events_per_request: 1,
        requests: 40_000,
        least_per_core: LEAST,
    },
    Way {
        events_per_request: 500,
        requests: 2_000,
        least_per_core: 10 * LEAST,
    },
];

/// What one turn showed.
struct Turn {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    wrong: u64,
}

/// The columns of this case.
pub fn table() -> Table {
    Table::new(&[
        "case",
        "events a request",
        "CPU µs/event",
        "events/s per core",
        "events/s",
        "p50 ms",
        "p99 ms",
        "lost",
        "bar",
    ])
}

/// Runs the case and adds its rows; says whether everything was delivered.
pub fn publish(table: &mut Table, bench: &Bench) -> Result<bool> {
    let hop = Hop::start(&["--no-produce", "--accept-publish"], &bench.cpus)?;
    let mut load = Load::new()?;
    load.connect(Transport::WebSocket, hop.address, Hop::PATH, 1)?;
    let mut rounds: [Vec<Turn>; WAYS.len()] = Default::default();
    for _ in 0..bench.rounds(5) {
        for (way, turns) in WAYS.into_iter().zip(&mut rounds) {
            let turn = way.run(&hop, &mut load, bench)?;
            if bench.verbose {
                eprintln!(
                    "J {:3} a request: {:.3} µs/event, {:.0}/s",
                    way.events_per_request, turn.cpu_us, turn.per_second
                );
            }
            turns.push(turn);
        }
    }
    let mut all_whole = true;
    for (way, turns) in WAYS.into_iter().zip(&rounds) {
        all_whole &= way.add(table, turns);
    }
    Ok(all_whole)
}

impl Way {
    fn run(self, hop: &Hop, load: &mut Load, bench: &Bench) -> Result<Turn> {
        let requests = self.requests / if bench.quick { 4 } else { 1 };
        let (next, left) = (AtomicU64::new(1), AtomicU64::new(requests));
        let due = requests * self.events_per_request;
        load.start();
        let cpu = hop.process.cpu_ns()?;
        let began = Instant::now();
        let mut latest = began;
        thread::scope(|scope| -> Result<()> {
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|_| scope.spawn(|| self.publish(hop.address, &next, &left)))
                .collect();
            let mut received = 0;
            while received < due && latest.elapsed() < Duration::from_secs(5) {
                load.turn(Duration::from_millis(20))?;
                if load.received() > received {
                    (received, latest) = (load.received(), Instant::now());
                }
            }
            for publisher in publishers {
                publisher
                    .join()
                    .map_err(|_| anyhow!("a publisher panicked"))??;
            }
            Ok(())
        })?;
        let cpu = hop.process.cpu_ns()? - cpu;
        let tally = &load.tallies()[0];
        // Each once: then numbers and sum are both right.
        let is_right = tally.received == due && tally.sum == due * (due + 1) / 2;
        let us = |part| tally.latency.quantile(part) as f64 / 1e3;
        Ok(Turn {
            cpu_us: cpu as f64 / 1e3 / due as f64,
            per_second: due as f64 / (latest - began).as_secs_f64(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            wrong: match is_right {
                true => 0,
                false => due.abs_diff(tally.received).max(1),
            },
        })
    }

    /// One publisher: takes numbers from `next` until no request is left.
    fn publish(self, hop: SocketAddr, next: &AtomicU64, left: &AtomicU64) -> Result<()> {
        let mut socket = TcpStream::connect(hop)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut body, mut answer) = (Vec::new(), vec![0; 64 << 10]);
        let one_less = |left: u64| left.checked_sub(1);
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            let first = next.fetch_add(self.events_per_request, Ordering::Relaxed);
            let created_ns = now_ns();
            body.clear();
            for seq in first..first + self.events_per_request {
                let payload = Event { seq, created_ns }.payload(Form::Text);
                if self.events_per_request == 1 {
                    body.extend_from_slice(&payload);
                } else {
                    body.extend_from_slice(b"{\"data\":\"");
                    body.extend_from_slice(&payload);
                    body.extend_from_slice(b"\"}\n");
                }
            }
            let content_type = match self.events_per_request {
                1 => "text/plain",
                _ => "application/x-ndjson",
            };
            let mut request = format!(
                "POST {} HTTP/1.1\r\nHost: {hop}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
                Hop::PATH,
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            socket.write_all(&request)?;
            read_answer(&mut socket, &mut answer)?;
        }
        Ok(())
    }

    fn add(self, table: &mut Table, turns: &[Turn]) -> bool {
        let mid = |field: fn(&Turn) -> f64| median(turns.iter().map(field).collect());
        let cpu_us = mid(|turn| turn.cpu_us);
        let wrong = turns.iter().map(|turn| turn.wrong).sum();
        let bars = [
            Bar::at_least(1e6 / cpu_us, self.least_per_core, "/s per core"),
            Bar::none(wrong),
        ];
        table.push(vec![
            format!("J: {PUBLISHERS} publishers, 1 subscriber"),
            self.events_per_request.to_string(),
            format!("{cpu_us:.3}"),
            thousands((1e6 / cpu_us) as u64),
            thousands(mid(|turn| turn.per_second) as u64),
            format!("{:.2}", mid(|turn| turn.p50_us) / 1e3),
            format!("{:.2}", mid(|turn| turn.p99_us) / 1e3),
            thousands(wrong),
            Bar::verdict(&bars),
        ]);
        bars[1].reached()
    }
}

/// Reads one answer, which must be that all was accepted.
fn read_answer(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let (mut have, mut whole) = (0, None);
    while whole.is_none_or(|whole| have < whole) {
        let read = socket.read(&mut buffer[have..])?;
        ensure!(read > 0, "the server has closed a publisher's connection");
        have += read;
        let Some(end) = memmem::find(&buffer[..have], b"\r\n\r\n").filter(|_| whole.is_none())
        else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 202 "), "refused: {head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .context("an answer without a length")?;
        whole = Some(end + 4 + length.parse::<usize>()?);
    }
    Ok(())
}
