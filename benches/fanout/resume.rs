//! Case I: a thousand subscribers come back at once, and each is ten thousand events behind.
//!
//! How long until all of them have read everything, beside a bare loop that writes the same bytes to as many sockets; and
//! what those notice of it who were there all the time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::setpriority_process;
use rustix::thread::gettid;

use crate::cases::{Bench, Seat};
use crate::common::table::thousands;
use crate::common::table::{Bar, Table, median};
use crate::feed::{Form, Play};
use crate::load::Load;
use crate::play::run;
use crate::server::{Hop, Server};
use crate::transport::{Item, Transport};
use crate::upstream::Upstream;

/// Who comes back.
const RETURNING: usize = 1_000;

/// What each of them has missed.
const BEHIND: u64 = 10_000;

/// Who is there all the time, over WebSocket, and gets so many events a second.
const LIVE: usize = 100;
const RATE: u64 = 50;

/// How long the live ones are watched while nobody comes back, in seconds.
const CALM: u64 = 3;

/// After this long a resumption has failed.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The transports that are compared.
const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Sse];

/// One turn of one transport.
#[derive(Debug, Default)]
struct Turn {
    /// What each subscriber reads.
    bytes: usize,
    /// From the first connect to the last event of the last subscriber, in seconds.
    bare: f64,
    /// The same of `wsevent`.
    wsevent: f64,
    /// 99th percentile of the live ones in µs, without a resumption.
    calm_us: f64,
    /// The same during one.
    meanwhile_us: f64,
    /// How long that one took, in seconds.
    meanwhile: f64,
    /// Events that were due to anyone and did not come, or came twice.
    wrong: u64,
}

/// The columns of this case.
pub fn table() -> Table {
    Table::new(&[
        "case",
        "transport",
        "MB each",
        "bare s",
        "wsevent s",
        "× bare",
        "live p99 ms",
        "live p99 ms meanwhile",
        "× calm",
        "lost",
        "bar",
    ])
}

/// Runs the case and adds its rows; says whether everything was delivered.
pub fn resume(table: &mut Table, bench: &Bench) -> Result<bool> {
    let upstream = Upstream::start_apart(1, Form::Text, &bench.cpus)?;
    let server = Server::start_hop(upstream, &bench.cpus)?;
    let mut live = Seat::fill(server, Transport::WebSocket, LIVE)?;
    let play = Play::Burst { events: BEHIND };
    let sample = run(play, &mut live.server.source, None, &mut live.load)?;
    ensure!(sample.behind == 0, "the live subscribers are behind");

    let mut rounds = Vec::new();
    for _ in 0..bench.rounds(3) {
        let round = TRANSPORTS.map(|transport| Turn::take(transport, &mut live, bench));
        rounds.push(round.into_iter().collect::<Result<Vec<_>>>()?);
    }
    let add = |index| {
        add(
            table,
            TRANSPORTS[index],
            rounds.iter().map(|round| &round[index]),
        )
    };
    Ok((0..TRANSPORTS.len())
        .map(add)
        .fold(true, |all, whole| all & whole))
}

impl Turn {
    fn take(transport: Transport, live: &mut Seat, bench: &Bench) -> Result<Self> {
        let hop = live.server.address;
        let returning = Returning::prepare(transport, hop)?;
        let mut turn = Self {
            bytes: returning.answer.len(),
            ..Self::default()
        };
        let bare = Server::start_backlog(&returning.answer, &bench.cpus)?;
        turn.bare = returning.read(bare.address)?.0;
        drop(bare);
        (turn.wsevent, turn.wrong) = returning.read(hop)?;
        turn.watch(&returning, live)?;
        if bench.verbose {
            eprintln!("I {:9} {turn:?}", transport.name());
        }
        Ok(turn)
    }

    /// What the live ones get: first while nothing else happens, then while the others come back.
    fn watch(&mut self, returning: &Returning, live: &mut Seat) -> Result<()> {
        let hop = live.server.address;
        let (source, load) = (&mut live.server.source, &mut live.load);
        let paced = |seconds: u64| Play::Paced {
            events: RATE * seconds,
            rate: RATE,
        };
        let calm = run(paced(CALM), source, None, load)?;
        self.calm_us = calm.p99_us;
        self.wrong += calm.lost + calm.disordered + calm.disconnected;

        let play = paced((self.wsevent * 3.0) as u64 + 2);
        load.start();
        source.play(play)?;
        thread::scope(|scope| -> Result<()> {
            let back = scope.spawn(|| {
                // The live ones are to wait for the server, not for those who share a CPU with them.
                setpriority_process(Some(gettid()), 10)?;
                returning.read(hop)
            });
            while !back.is_finished() {
                load.turn(Duration::from_millis(20))?;
            }
            let latency = load
                .tallies()
                .iter()
                .map(|tally| tally.latency.quantile(0.99));
            self.meanwhile_us = latency.max().unwrap_or(0) as f64 / 1e3;
            let (seconds, wrong) = back.join().map_err(|_| anyhow!("a reader panicked"))??;
            self.meanwhile = seconds;
            self.wrong += wrong;
            Ok(())
        })?;
        let deadline = Instant::now() + play.length() + TIME_LIMIT;
        let mut last = None;
        while last.is_none_or(|last| load.behind(last) > 0) && Instant::now() < deadline {
            load.turn(Duration::from_millis(20))?;
            last = last.or(source.finished()?);
        }
        let due = play.events() * LIVE as u64;
        self.wrong += due.abs_diff(load.received()) + load.disordered() + load.closed();
        Ok(())
    }
}

/// Those who come back.
struct Returning {
    transport: Transport,
    /// What they ask for.
    target: String,
    /// The last event that they have missed.
    until: u64,
    /// All that one of them is sent.
    answer: Vec<u8>,
}

impl Returning {
    /// Finds out what to ask for, and asks once.
    fn prepare(transport: Transport, hop: SocketAddr) -> Result<Self> {
        let newest = ask(Transport::Sse, hop, &format!("{}?history=1", Hop::PATH), 1)?;
        let newest = String::from_utf8_lossy(&newest.0).into_owned();
        // Before it stands the id of the one before.
        let id = newest
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("id: "));
        let (origin, number) = id.and_then(|id| id.rsplit_once('-')).context("no id")?;
        let after = number
            .parse::<u64>()?
            .checked_sub(BEHIND)
            .context("no backlog")?;
        let target = format!("{}?last_event_id={origin}-{after}", Hop::PATH);
        let (answer, until) = ask(transport, hop, &target, BEHIND)?;
        Ok(Self {
            transport,
            target,
            until,
            answer,
        })
    }

    /// Connects them all, and returns when all have read everything: in how many seconds, and how many events were wrong.
    fn read(&self, server: SocketAddr) -> Result<(f64, u64)> {
        let mut load = Load::new()?;
        let began = Instant::now();
        load.connect(self.transport, server, &self.target, RETURNING)?;
        while load.behind(self.until) > 0 {
            load.turn(Duration::from_millis(20))?;
            ensure!(
                began.elapsed() < TIME_LIMIT,
                "the backlog is not read within a minute"
            );
        }
        let due = RETURNING as u64 * BEHIND;
        let wrong = due.saturating_sub(load.received()) + load.disordered() + load.closed();
        Ok((began.elapsed().as_secs_f64(), wrong))
    }
}

/// Asks for so many events: all that comes up to the end of the last of them, and its sequence number.
fn ask(
    transport: Transport,
    server: SocketAddr,
    target: &str,
    events: u64,
) -> Result<(Vec<u8>, u64)> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(transport.request(server, target).as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let (mut at, mut found) = (0, 0);
    loop {
        let read = socket.read(&mut buffer)?;
        ensure!(read > 0, "the answer ended after {found} events");
        bytes.extend_from_slice(&buffer[..read]);
        if at == 0 {
            at = transport.head(&bytes)?.unwrap_or(0);
        }
        while at > 0
            && let Some((item, length)) = transport.item(&bytes[at..])?
        {
            at += length;
            if let Item::Event(event) = item {
                found += 1;
                if found == events {
                    bytes.truncate(at);
                    return Ok((bytes, event.seq));
                }
            }
        }
    }
}

fn add<'a>(
    table: &mut Table,
    transport: Transport,
    turns: impl Iterator<Item = &'a Turn> + Clone,
) -> bool {
    let mid = |field: fn(&Turn) -> f64| median(turns.clone().map(field).collect());
    let longer = mid(|turn| turn.wsevent / turn.bare);
    let later = mid(|turn| turn.meanwhile_us / turn.calm_us);
    let wrong: u64 = turns.clone().map(|turn| turn.wrong).sum();
    let bars = [
        Bar::at_most(longer, 1.5, "× bare"),
        Bar::at_most(later, 3.0, "× calm"),
        Bar::none(wrong),
    ];
    table.push(vec![
        format!(
            "I: {} back, {} events behind",
            thousands(RETURNING as u64),
            thousands(BEHIND)
        ),
        transport.name().to_owned(),
        format!("{:.2}", mid(|turn| turn.bytes as f64) / 1e6),
        format!("{:.3}", mid(|turn| turn.bare)),
        format!("{:.3}", mid(|turn| turn.wsevent)),
        format!("{longer:.2}"),
        format!("{:.2}", mid(|turn| turn.calm_us) / 1e3),
        format!("{:.2}", mid(|turn| turn.meanwhile_us) / 1e3),
        format!("{later:.2}"),
        thousands(wrong),
        Bar::verdict(&bars),
    ]);
    bars[2].reached()
}
