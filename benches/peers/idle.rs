//! Cases I and S: ten thousand subscribers that only connect, and how soon a server is there.

use anyhow::{Context, Result};

use crate::Bench;
use crate::common::table::{Bar, Table, median, thousands};
use crate::feed::EVENT_BYTES;
use crate::load::Load;
use crate::peer::Peer;
use crate::play::rss;

/// Subscribers of case I.
const SUBSCRIBERS: usize = 10_000;

/// Memory of an idle subscriber, and CPU of its handshake.
pub fn idle(bench: &Bench) -> Result<Table> {
    let columns = [
        "case",
        "server",
        "RSS KiB/subscriber",
        "CPU µs/handshake",
        "bar",
    ];
    let mut table = Table::new(&columns);
    let rounds = bench.rounds(3);
    let mut figures: Vec<Vec<(f64, f64)>> = vec![Vec::new(); bench.peers.len()];
    for _ in 0..rounds {
        for (peer, figures) in bench.peers.iter().zip(&mut figures) {
            let figure = connect(*peer, bench).with_context(|| format!("I: {}", peer.name()));
            let figure = match figure {
                Err(error) if peer.is_foreign() => {
                    eprintln!("{error:#}");
                    continue;
                }
                figure => figure?,
            };
            bench.say(|| {
                let (bytes, cpu) = figure;
                format!("I {:11} {bytes:.0} bytes, {cpu:.1} µs", peer.name())
            });
            figures.push(figure);
        }
    }
    let bytes = |peer: Peer| {
        let at = bench.peers.iter().position(|other| *other == peer)?;
        Some(median(
            figures[at].iter().map(|(bytes, _)| *bytes).collect(),
        ))
    };
    let measured = bench.peers.iter().zip(&figures);
    for (peer, own) in measured.filter(|(_, own)| !own.is_empty()) {
        let nchan = bytes(Peer::Nchan).filter(|_| *peer == Peer::Wsevent);
        let bars = nchan.zip(bytes(*peer)).map(|(nchan, own)| {
            let text = format!("1/{:.1} of nchan's, at most 1/6", nchan / own);
            Bar::new(text, own * 6.0 < nchan)
        });
        let bars: Vec<_> = bars.into_iter().collect();
        table.push(vec![
            format!("I: {} idle", thousands(SUBSCRIBERS as u64)),
            peer.name().to_owned(),
            format!("{:.2}", bytes(*peer).unwrap_or(f64::NAN) / 1024.0),
            format!("{:.1}", median(own.iter().map(|(_, cpu)| *cpu).collect())),
            Bar::verdict(&bars),
        ]);
    }
    Ok(table)
}

/// Bytes of memory and microseconds of CPU for each of them.
fn connect(peer: Peer, bench: &Bench) -> Result<(f64, f64)> {
    let running = peer.start(EVENT_BYTES, &bench.cpus)?;
    let server = &running.server;
    let mut load = Load::new()?;
    load.settle()?;
    let (before, cpu) = (rss(&server.process)?, server.process.cpu_ns()?);
    load.connect(peer.transport(), server.address, server.path, SUBSCRIBERS)?;
    load.settle()?;
    let each = |total: u64| total as f64 / SUBSCRIBERS as f64;
    let bytes = each(rss(&server.process)?.saturating_sub(before));
    Ok((bytes, each(server.process.cpu_ns()? - cpu) / 1e3))
}

/// From `exec` to the first connection that is accepted.
pub fn start(bench: &Bench) -> Result<Table> {
    let mut table = Table::new(&["case", "server", "ms", "bar"]);
    for peer in &bench.peers {
        let mut times = Vec::new();
        for _ in 0..bench.rounds(9) {
            times.extend(peer.time_to_listen(&bench.cpus)?);
        }
        if times.is_empty() {
            continue;
        }
        let times = times.iter().map(|time| time.as_secs_f64() * 1e3);
        let time = median(times.collect());
        let bars: Vec<_> = (*peer == Peer::Wsevent)
            .then(|| Bar::at_most(time, 20.0, "ms"))
            .into_iter()
            .collect();
        table.push(vec![
            "S: from exec to the first connection".to_owned(),
            peer.name().to_owned(),
            format!("{time:.1}"),
            Bar::verdict(&bars),
        ]);
    }
    Ok(table)
}
