//! Members that a name stands for, which come and go. Names are looked up in a file here: libnss_wrapper takes the place of the system's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{assert_all, from, objects, past, publish};
use crate::harness::http::Ndjson;
use crate::harness::port::ReservedPort;
use crate::harness::wsevent::Hop;

const NAME: &str = "mesh.test";

/// A name, what it stands for, and the members at 127.0.0.2 and so on, all with one port.
struct Members {
    directory: TempDir,
    ports: Vec<ReservedPort>,
}

impl Members {
    fn new(count: u8) -> Self {
        let address = |number| Ipv4Addr::new(127, 0, 0, 2 + number);
        let ports = loop {
            let first = ReservedPort::new();
            let port = first.address().port();
            let others = (0..count).map(|number| ReservedPort::at((address(number), port).into()));
            if let Ok(ports) = others.collect::<Result<Vec<_>, _>>() {
                break ports;
            }
        };
        let directory = tempfile::tempdir().expect("a folder");
        Self { directory, ports }
    }

    fn address(&self, number: usize) -> SocketAddr {
        self.ports[number].address()
    }

    fn url(&self) -> String {
        format!("ws://{NAME}:{}/events", self.address(0).port())
    }

    /// As the list of streams shows it.
    fn shown(&self, number: usize) -> String {
        format!("ws://{}/events", self.address(number))
    }

    /// From now on the name stands for these. Who reads the file finds it as a whole.
    fn are(&self, numbers: &[usize]) {
        let lines = numbers
            .iter()
            .map(|&number| format!("{} {NAME}\n", self.address(number).ip()));
        let new = self.directory.path().join("new");
        fs::write(&new, lines.collect::<String>()).expect("it can be written");
        fs::rename(new, self.file()).expect("it can be renamed");
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("hosts")
    }

    /// A member that has all others for peers, as they come and go.
    async fn begin(&self, number: usize) -> Hop {
        let wrapper = wrapper();
        let hosts = self.file();
        let hosts = hosts.to_str().expect("a name");
        let address = self.address(number).to_string();
        let args = ["--serve-address", &address, "--accept-publish"];
        let more = ["--peer-dns", &self.url(), "--peer-dns-interval", "100ms"];
        let env = [("LD_PRELOAD", &*wrapper), ("NSS_WRAPPER_HOSTS", hosts)];
        Hop::start_with(&[&args[..], &more].concat(), &env).await
    }
}

/// Where the library is. Debian's name for its folder differs from one kind of machine to the next.
fn wrapper() -> String {
    let arch = std::env::consts::ARCH;
    let names = [
        format!("/usr/lib/{arch}-linux-gnu/libnss_wrapper.so"),
        "/usr/lib64/libnss_wrapper.so".to_owned(),
        "/usr/lib/libnss_wrapper.so".to_owned(),
    ];
    let found = names.into_iter().find(|name| Path::new(name).exists());
    found.expect("libnss_wrapper is missing: scripts/test installs it (the package libnss-wrapper)")
}

/// Waits until the peers of a hop, and whether they are there, are these.
async fn peers(hop: &Hop, wanted: &[(String, bool)]) {
    let entry = |(url, connected): &(String, bool)| json!({"url": url, "connected": connected, "peer": true});
    let sorted = |mut entries: Vec<Value>| {
        entries.sort_by_key(|entry| entry["url"].to_string());
        entries
    };
    let wanted = sorted(wanted.iter().map(entry).collect());
    let looking = async {
        loop {
            let found = hop.upstreams().await;
            if sorted(found.as_array().expect("a list").clone()) == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    crate::harness::within_guard("the right peers", looking).await;
}

#[tokio::test]
async fn members_come_and_go_with_their_addresses() {
    let members = Members::new(3);
    members.are(&[0, 1]);
    let first = members.begin(0).await;
    let mut second = members.begin(1).await;
    first
        .logged("this peer is the hop itself, and left out")
        .await;
    first.logged("peer connected").await;
    second.logged("peer connected").await;
    peers(&first, &[(members.shown(1), true)]).await;
    let mut reader = Ndjson::of(&first).await;
    publish(&second, &from("second", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("second", 10)]);
    // One more.
    members.are(&[0, 1, 2]);
    let third = members.begin(2).await;
    peers(
        &first,
        &[(members.shown(1), true), (members.shown(2), true)],
    )
    .await;
    peers(
        &third,
        &[(members.shown(0), true), (members.shown(1), true)],
    )
    .await;
    publish(&third, &from("third", 10)).await;
    assert_all(objects(&mut reader, 10).await, &[("third", 10)]);
    let mut late = past(&third).await;
    assert_all(
        objects(&mut late, 20).await,
        &[("second", 10), ("third", 10)],
    );
    // A link that works stays while a name stands for less.
    members.are(&[0, 2]);
    publish(&second, &from("still", 1)).await;
    assert_eq!(objects(&mut reader, 1).await, ["still 0"]);
    // It ends once it is down.
    second.signal(Signal::KILL);
    second.exit().await;
    first.logged("peer gone").await;
    peers(&first, &[(members.shown(2), true)]).await;
    assert_eq!(first.count("this peer is the hop itself, and left out"), 1);
    // And it may come back.
    members.are(&[0, 1, 2]);
    let second = members.begin(1).await;
    peers(
        &first,
        &[(members.shown(1), true), (members.shown(2), true)],
    )
    .await;
    publish(&second, &from("again", 1)).await;
    assert_eq!(objects(&mut reader, 1).await, ["again 0"]);
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_changes_nothing() {
    let members = Members::new(2);
    members.are(&[0, 1]);
    let first = members.begin(0).await;
    let second = members.begin(1).await;
    first.logged("peer connected").await;
    members.are(&[]);
    first
        .logged("cannot look up peers, keeping those there are")
        .await;
    let mut reader = Ndjson::of(&first).await;
    publish(&second, &from("second", 1)).await;
    assert_eq!(objects(&mut reader, 1).await, ["second 0"]);
    members.are(&[0, 1]);
    first.logged("peers can be looked up again").await;
    peers(&first, &[(members.shown(1), true)]).await;
    assert_eq!(first.count("peer found"), 2);
}
