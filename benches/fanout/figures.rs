//! Case K: what figures cost. The same million deliveries a second with nobody asking for figures and with a scrape each second; and, if
//! `WSEVENT_BENCH_BEFORE` names a binary of `wsevent` that does not count them yet, by that one.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cases::{Bench, Seat};
use crate::common::table::thousands;
use crate::common::table::{Bar, Table, median};
use crate::feed::{Form, Play};
use crate::play::{Sample, run};
use crate::report::middle;
use crate::server::Server;
use crate::transport::Transport;
use crate::upstream::Upstream;

const SUBSCRIBERS: usize = 1_000;
const RATE: u64 = 1_000;
const SECONDS: u64 = 3;
const ROUNDS: usize = 9;
/// Most CPU, as a multiple of that without.
const MOST: f64 = 1.02;
/// Names the binary from before.
const BEFORE: &str = "WSEVENT_BENCH_BEFORE";

/// One way to do the work.
struct Variant {
    name: &'static str,
    /// Another binary than the one that is built here.
    binary: Option<OsString>,
    is_scraped: bool,
}

/// The columns of this case.
pub fn table() -> Table {
    Table::new(&[
        "case",
        "figures",
        "CPU µs/delivery",
        "× the first",
        "deliveries/s",
        "p99 ms",
        "lost",
        "disconnected",
        "bar",
    ])
}

/// Lets the variants take turns, and adds their rows; says whether everything was delivered.
pub fn figures(table: &mut Table, bench: &Bench) -> Result<bool> {
    let before = std::env::var_os(BEFORE).map(|binary| Variant {
        name: "not counted",
        binary: Some(binary),
        is_scraped: false,
    });
    let own = |name, is_scraped| Variant {
        name,
        binary: None,
        is_scraped,
    };
    let own = [
        own("counted", false),
        own("counted, asked for each second", true),
    ];
    let variants: Vec<_> = before.into_iter().chain(own).collect();
    let mut seats = variants
        .iter()
        .map(|variant| variant.seat(bench).context(variant.name))
        .collect::<Result<Vec<_>>>()?;
    let play = Play::Paced {
        events: RATE * SECONDS,
        rate: RATE,
    };
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds(ROUNDS) {
        let mut round = Vec::new();
        for (variant, (seat, admin)) in variants.iter().zip(&mut seats) {
            let scraper = variant.is_scraped.then(|| Scraper::start(*admin));
            let Server {
                source, process, ..
            } = &mut seat.server;
            let sample = run(play, source, Some(process), &mut seat.load)?;
            if let Some(scraper) = scraper {
                scraper.stop()?;
            }
            if bench.verbose {
                eprintln!("K {:30} {sample}", variant.name);
            }
            round.push(sample);
        }
        rounds.push(round);
    }
    Ok(add(table, &variants, &rounds))
}

impl Variant {
    /// A hop with its subscribers, and where it tells its figures.
    fn seat(&self, bench: &Bench) -> Result<(Seat, SocketAddr)> {
        // Free a moment ago, and chosen by the system so that it is free for a while.
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let upstream = Upstream::start(1, Form::Binary, &bench.cpus)?;
        let at = admin.to_string();
        let args = ["--admin-address", &*at];
        let server = Server::start_hop_of(self.binary.as_deref(), upstream, &args, &bench.cpus)?;
        let seat = Seat::fill(server, Transport::WebSocket, SUBSCRIBERS)?;
        Ok((seat, admin))
    }
}

/// Asks for the figures each second.
struct Scraper {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Result<()>>,
}

impl Scraper {
    fn start(admin: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let asking = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                scrape(admin)?;
                thread::park_timeout(Duration::from_secs(1));
            }
            Ok(())
        });
        Self { stop, asking }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.thread().unpark();
        self.asking.join().expect("it does not panic")
    }
}

fn scrape(admin: SocketAddr) -> Result<()> {
    let mut socket = TcpStream::connect(admin)?;
    socket.write_all(b"GET /-/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    ensure!(text.contains("wsevent_stream_events_total"), "{text}");
    Ok(())
}

/// `rounds[round][variant]`.
fn add(table: &mut Table, variants: &[Variant], rounds: &[Vec<Sample>]) -> bool {
    let mut all_whole = true;
    for (at, variant) in variants.iter().enumerate() {
        let samples = || rounds.iter().map(|round| &round[at]);
        let ratios = rounds
            .iter()
            .map(|round| round[at].cpu_us / round[0].cpu_us);
        let ratio = median(ratios.collect());
        let mut bars = Vec::new();
        if at > 0 {
            bars.push(Bar::at_most(ratio, MOST, "× the first"));
        }
        let whole = Bar::whole(samples());
        all_whole &= whole.reached();
        bars.push(whole);
        table.push(vec![
            format!(
                "K: {} × {}/s",
                thousands(SUBSCRIBERS as u64),
                thousands(RATE)
            ),
            variant.name.to_owned(),
            format!("{:.3}", middle(samples(), |sample| sample.cpu_us)),
            format!("{ratio:.3}"),
            thousands(middle(samples(), |sample| sample.per_second) as u64),
            format!("{:.2}", middle(samples(), |sample| sample.p99_us) / 1e3),
            thousands(samples().map(|sample| sample.lost).sum()),
            thousands(samples().map(|sample| sample.disconnected).sum()),
            Bar::verdict(&bars),
        ]);
    }
    all_whole
}
