//! What the kernel allows its sockets (tcp(7), sysctl).

use std::fs;

use rustix::param::page_size;

use super::Finding;

const AREA: &str = "kernel";

/// Settings of the kernel; none where there is no such setting, or it cannot be read.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// `net.core.somaxconn`: connections that wait to be accepted.
    pub accept_queue: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`: handshakes under way.
    pub syn_queue: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: ports of connections that are made from here.
    pub ports: Option<[u64; 2]>,
    /// The most that a socket may buffer for sending, of `net.ipv4.tcp_wmem`, in bytes.
    pub send_buffer: Option<u64>,
    /// The most that it may buffer of what has come, of `net.ipv4.tcp_rmem`, in bytes.
    pub receive_buffer: Option<u64>,
    /// The most that all sockets may take, of `net.ipv4.tcp_mem`, in bytes.
    pub memory: Option<u64>,
    /// `net.netfilter.nf_conntrack_max` and how many there are, where connections are tracked.
    pub tracked: Option<[u64; 2]>,
}

impl Settings {
    fn read() -> Self {
        let numbers = |name: &str| -> Vec<u64> {
            let text = fs::read_to_string(format!("/proc/sys/net/{name}"));
            let text = text.unwrap_or_default();
            text.split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect()
        };
        let one = |name: &str| numbers(name).first().copied();
        let third = |name: &str| numbers(name).get(2).copied();
        Self {
            accept_queue: one("core/somaxconn"),
            syn_queue: one("ipv4/tcp_max_syn_backlog"),
            ports: numbers("ipv4/ip_local_port_range").try_into().ok(),
            send_buffer: third("ipv4/tcp_wmem"),
            receive_buffer: third("ipv4/tcp_rmem"),
            memory: third("ipv4/tcp_mem").map(|pages| pages.saturating_mul(page_size() as u64)),
            tracked: one("netfilter/nf_conntrack_max")
                .zip(one("netfilter/nf_conntrack_count"))
                .map(|(most, now)| [most, now]),
        }
    }
}

/// What there is to say here. `connections` is `--max-connections`.
pub fn look(connections: Option<usize>) -> Vec<Finding> {
    judge(
        &Settings::read(),
        connections.map(|connections| connections as u64),
    )
}

/// Whether these settings are enough for so many connections.
pub fn judge(settings: &Settings, connections: Option<u64>) -> Vec<Finding> {
    let mut findings = vec![];
    let mut at_least = |name: &str, value: Option<u64>, least: u64, why: &str| {
        findings.push(match value {
            None => Finding::skipped(AREA, format!("{name} cannot be read here")),
            Some(value) if value < least => Finding::warning(
                AREA,
                format!("{name} is {value}: {why}"),
                format!("sysctl -w {name}={least}"),
            ),
            Some(value) => Finding::ok(AREA, format!("{name} is {value}")),
        });
    };
    // Where connections come all at once, such as behind a restart.
    let why = "when many clients come at once, some wait a second or more for their connection";
    at_least("net.core.somaxconn", settings.accept_queue, 4_096, why);
    at_least(
        "net.ipv4.tcp_max_syn_backlog",
        settings.syn_queue,
        1_024,
        why,
    );
    let buffers = [
        (
            "net.ipv4.tcp_wmem",
            settings.send_buffer,
            "what a far subscriber can be sent a second is so much, divided by the round trip",
        ),
        (
            "net.ipv4.tcp_rmem",
            settings.receive_buffer,
            "what a far upstream can send a second is so much, divided by the round trip",
        ),
    ];
    for (name, value, why) in buffers {
        const LEAST: u64 = 1 << 20;
        let Some(value) = value else { continue };
        findings.push(match value < LEAST {
            true => Finding::warning(
                AREA,
                format!("the largest of {name} is {value} bytes: {why}"),
                format!("sysctl -w {name}='4096 131072 6291456'"),
            ),
            false => Finding::ok(AREA, format!("the largest of {name} is {value} bytes")),
        });
    }
    findings.extend(settings.ports.map(ports));
    findings.extend(
        settings
            .memory
            .zip(connections)
            .and_then(|(memory, connections)| memory_of(memory, connections)),
    );
    findings.extend(
        settings
            .tracked
            .map(|[most, now]| tracked(most, now, connections)),
    );
    findings
}

/// Ports of connections that are made from here.
fn ports([first, last]: [u64; 2]) -> Finding {
    const FEW: u64 = 10_000;
    let count = last.saturating_add(1).saturating_sub(first);
    let what = format!(
        "net.ipv4.ip_local_port_range is {first} to {last}: {count} connections to one address (as of proxy and bench)"
    );
    match count < FEW {
        true => Finding::warning(
            AREA,
            what,
            "sysctl -w net.ipv4.ip_local_port_range='10240 65535'",
        ),
        false => Finding::ok(AREA, what),
    }
}

/// What all sockets may take, where each has something on its way.
fn memory_of(memory: u64, connections: u64) -> Option<Finding> {
    /// Of a socket that has little to say.
    const EACH: u64 = 8 << 10;
    let needed = connections.saturating_mul(EACH);
    (memory < needed).then(|| {
        let pages = needed.saturating_mul(2) / page_size() as u64;
        Finding::warning(
            AREA,
            format!("net.ipv4.tcp_mem lets all sockets take {memory} bytes, little for {connections} connections: the kernel then slows all of them"),
            format!("sysctl -w net.ipv4.tcp_mem='{} {} {pages}'", pages / 2, pages * 3 / 4),
        )
    })
}

/// Connections that a firewall keeps account of: what does not fit is dropped without a word.
fn tracked(most: u64, now: u64, connections: Option<u64>) -> Finding {
    let what = format!("net.netfilter.nf_conntrack_max is {most}, and {now} are tracked");
    let wanted = now.saturating_add(connections.unwrap_or_default());
    match wanted > most || now > most / 10 * 9 {
        true => Finding::warning(
            AREA,
            format!("{what}: packets of connections beyond it are dropped"),
            format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                wanted.max(most).saturating_mul(2)
            ),
        ),
        false => Finding::ok(AREA, what),
    }
}
