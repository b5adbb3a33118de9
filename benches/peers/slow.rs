//! Case R: a hundred subscribers read, and a hundred others never do.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Bench;
use crate::common::process::Process;
use crate::common::table::{Bar, Table, thousands};
use crate::feed::Play;
use crate::load::Load;
use crate::peer::Peer;
use crate::play::{Sample, run, warm_up};
use crate::server::Server;

/// Of each kind.
const SUBSCRIBERS: usize = 100;
/// Bytes of an event.
const BYTES: usize = 4096;
/// Events a second.
const RATE: u64 = 500;

/// What one server showed.
struct Figures {
    /// All read.
    calm: Sample,
    /// Half of them do not.
    with_slow: Sample,
    /// Events a second that could be published meanwhile.
    published: f64,
    /// The most memory it has had, in bytes.
    peak: u64,
}

/// The table, and whether `wsevent` delivered everything to those who read.
pub fn slow(bench: &Bench) -> Result<(Table, bool)> {
    let mut table = Table::new(&[
        "case",
        "server",
        "peak RSS MiB",
        "p99 ms",
        "p99 ms, all read",
        "×",
        "published/s",
        "lost of those who read",
        "bar",
    ]);
    let mut whole = true;
    let peers = bench.peers.iter().filter(|peer| **peer != Peer::Bare);
    for peer in peers {
        let figures = measure(*peer, bench).with_context(|| format!("R: {}", peer.name()));
        let figures = match figures {
            Err(error) if peer.is_foreign() => {
                eprintln!("{error:#}");
                continue;
            }
            figures => figures?,
        };
        let Figures {
            calm,
            with_slow,
            published,
            peak,
        } = figures;
        bench.say(|| format!("R {:11} {with_slow}, calm {calm}", peer.name()));
        let mib = peak as f64 / f64::from(1 << 20);
        let ratio = with_slow.p99_us / calm.p99_us;
        let wrong = with_slow.lost + with_slow.disordered;
        let mut bars = Vec::new();
        if *peer == Peer::Wsevent {
            whole = wrong == 0;
            bars = vec![
                Bar::at_most(mib, 64.0, "MiB"),
                Bar::at_most(ratio, 1.2, "× all read"),
                Bar::none(wrong),
            ];
        }
        table.push(vec![
            format!("R: {SUBSCRIBERS} read, {SUBSCRIBERS} do not, 4 KiB × {RATE}/s"),
            peer.name().to_owned(),
            format!("{mib:.1}"),
            format!("{:.2}", with_slow.p99_us / 1e3),
            format!("{:.2}", calm.p99_us / 1e3),
            format!("{ratio:.2}"),
            format!("{published:.0}"),
            thousands(wrong),
            Bar::verdict(&bars),
        ]);
    }
    Ok((table, whole))
}

fn measure(peer: Peer, bench: &Bench) -> Result<Figures> {
    let seconds = if bench.quick { 4 } else { 12 };
    let play = Play::Paced {
        events: RATE * seconds,
        rate: RATE,
    };
    let calm = {
        let mut running = peer.start(BYTES, &bench.cpus)?;
        let mut load = readers(peer, &mut running.server)?;
        play_to(play, &mut running.server, &mut load)?
    };
    let mut running = peer.start(BYTES, &bench.cpus)?;
    let mut load = readers(peer, &mut running.server)?;
    let before = warm_up_again(&mut running.server, &mut load)?;
    let silent = (0..SUBSCRIBERS).map(|_| silent(peer, &running.server));
    let _silent = silent.collect::<Result<Vec<_>>>()?;
    let with_slow = play_to(play, &mut running.server, &mut load)?;
    Ok(Figures {
        published: (with_slow.last - before) as f64 / with_slow.sending,
        peak: peak(&running.server.process)?,
        calm,
        with_slow,
    })
}

fn readers(peer: Peer, server: &mut Server) -> Result<Load> {
    let mut load = Load::new()?;
    load.connect(peer.transport(), server.address, server.path, SUBSCRIBERS)?;
    warm_up(&mut server.source, &mut load)?;
    Ok(load)
}

/// The number of the last event that has been sent.
fn warm_up_again(server: &mut Server, load: &mut Load) -> Result<u64> {
    let play = Play::Paced {
        events: 10,
        rate: 100,
    };
    Ok(play_to(play, server, load)?.last)
}

fn play_to(play: Play, server: &mut Server, load: &mut Load) -> Result<Sample> {
    run(play, &mut server.source, Some(&server.process), load)
}

/// A subscriber that reads no further than it must to be one.
fn silent(peer: Peer, server: &Server) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = peer.transport().request(server.address, server.path);
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while peer.transport().head(&head)?.is_none() {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(stream)
}

/// The most memory that the processes of a server have had, in bytes.
fn peak(process: &Process) -> Result<u64> {
    let mut sum = 0;
    for pid in process.tree() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let line = line.context("VmHWM")?;
        sum += line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    }
    Ok(sum)
}
