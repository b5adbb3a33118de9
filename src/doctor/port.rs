//! Whether there is room to listen, and for whom.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use tokio::net::lookup_host;

use super::{Finding, said};
use crate::process::{self, Process};

const AREA: &str = "port";

/// What there is to say about listening at `address`: each of those that the name stands for is tried, for a moment. `takes_over`: whoever
/// listens there now may be taken over from.
pub async fn look(address: &str, takes_over: bool) -> Vec<Finding> {
    let addresses: Vec<_> = match lookup_host(address).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let what = format!("{address} cannot be looked up: {}", said(&error));
            return vec![Finding::problem(
                AREA,
                what,
                "name an address of this machine with --serve-address",
            )];
        }
    };
    let judge = |address: SocketAddr| {
        let tried = TcpListener::bind(address)
            .map(drop)
            .map_err(|error| (error.kind(), said(&error)));
        let holders = match &tried {
            Err((ErrorKind::AddrInUse, _)) => process::holders(&process::listening(address.port())),
            _ => vec![],
        };
        judge(address, &tried, &holders, takes_over)
    };
    addresses.into_iter().map(judge).collect()
}

/// What trying to listen there has led to. Of a port in use `holders` are those who have it, as far as that can be seen.
pub fn judge(
    address: SocketAddr,
    tried: &Result<(), (io::ErrorKind, String)>,
    holders: &[Process],
    takes_over: bool,
) -> Finding {
    let (kind, text) = match tried {
        Ok(()) => {
            let whose = match address.ip() {
                ip if ip.is_loopback() => "for this machine only",
                ip if ip.is_unspecified() => "for all networks of this machine",
                _ => "for that network",
            };
            return Finding::ok(AREA, format!("{address} is free, {whose}"));
        }
        Err((kind, text)) => (kind, text),
    };
    match kind {
        ErrorKind::AddrInUse => {
            let names: Vec<_> = holders
                .iter()
                .map(|holder| format!("{} (pid {})", holder.name, holder.pid))
                .collect();
            let who = match names.is_empty() {
                true => "a process of somebody else's".to_owned(),
                false => names.join(", "),
            };
            let is_ours = holders.iter().any(|holder| holder.name == "wsevent");
            if takes_over && is_ours {
                return Finding::ok(
                    AREA,
                    format!("{address} is in use by {who}, to be taken over from"),
                );
            }
            let port = address.port();
            let who_it_is = format!(
                "end it (ss -ltnp 'sport = :{port}' shows it as root), or take another --serve-address"
            );
            let advice = match is_ours {
                true => format!(
                    "{who_it_is}; an instance with --takeover can be replaced without a cut"
                ),
                false => who_it_is,
            };
            Finding::problem(AREA, format!("{address} is in use by {who}"), advice)
        }
        ErrorKind::PermissionDenied => {
            let port = address.port();
            Finding::problem(
                AREA,
                format!("this user may not listen on port {port}"),
                format!(
                    "AmbientCapabilities=CAP_NET_BIND_SERVICE in a systemd unit, sysctl -w net.ipv4.ip_unprivileged_port_start={port}, or a port from 1024 on"
                ),
            )
        }
        ErrorKind::AddrNotAvailable => Finding::problem(
            AREA,
            format!("{} is no address of this machine", address.ip()),
            "ip address shows which are; 0.0.0.0 and [::] stand for all",
        ),
        _ => Finding::problem(
            AREA,
            format!("cannot listen on {address}: {text}"),
            "take another --serve-address",
        ),
    }
}

/// Who can read what is served at `address`.
pub fn exposure(address: &str, has_tls: bool, is_guarded: bool) -> Option<Finding> {
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let is_local = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match (is_local, has_tls, is_guarded) {
        (true, ..) | (_, true, true) => None,
        (false, _, false) => Some(Finding::warning(
            AREA,
            format!("whoever reaches {address} may read all streams"),
            "ask for tokens (--auth-token-file) or certificates (--tls-client-ca), or leave that to a proxy in front and listen on localhost",
        )),
        (false, false, true) => Some(Finding::warning(
            AREA,
            format!("tokens cross the network in the clear to {address}"),
            "--tls-cert FILE --tls-key FILE, or a proxy with TLS in front",
        )),
    }
}
