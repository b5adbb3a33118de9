//! The buses: those of the distribution, on ports of loopback that they or the system choose.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::common::process::{Cpus, Process};

/// How long one may take to listen.
const STARTING: Duration = Duration::from_secs(10);

/// A Redis and a NATS with JetStream.
pub struct Servers {
    /// Where Redis listens.
    pub redis: SocketAddr,
    /// Where NATS listens.
    pub nats: SocketAddr,
    /// What they are, for the figures.
    pub versions: String,
    _processes: [Process; 2],
    /// What they write.
    _dir: TempDir,
}

impl Servers {
    /// Starts both, beside the load generator.
    pub async fn start(cpus: &Cpus) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let cpus = cpus.beside_load();
        let (redis_process, redis) = start_redis(dir.path(), &cpus).await?;
        let (nats_process, nats) = start_nats(dir.path(), &cpus).await?;
        let versions = format!(
            "{}, {}",
            version("redis-server")?,
            version("nats-server")?.replace(": v", " ")
        );
        Ok(Self {
            redis,
            nats,
            versions,
            _processes: [redis_process, nats_process],
            _dir: dir,
        })
    }
}

/// A server of the distribution; Debian has some where only root looks.
fn installed(name: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { path } else { name.into() }
}

fn version(name: &str) -> Result<String> {
    let said = Command::new(installed(name)).arg("--version").output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // Redis says much more.
    let words = said.split_whitespace().take(3).collect::<Vec<_>>();
    Ok(words.join(" ").replace("Redis server v=", "Redis "))
}

async fn start_redis(dir: &Path, cpus: &Cpus) -> Result<(Process, SocketAddr)> {
    // It cannot choose a port itself; this one is free, and nobody is given it again so soon.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut command = Command::new(installed("redis-server"));
    command
        .args(["--bind", "127.0.0.1", "--port"])
        .arg(address.port().to_string())
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir);
    let process = start(&mut command, cpus)?;
    until_listening(address).await.context("redis-server")?;
    Ok((process, address))
}

async fn start_nats(dir: &Path, cpus: &Cpus) -> Result<(Process, SocketAddr)> {
    let mut command = Command::new(installed("nats-server"));
    command
        .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
        .arg(dir.join("jetstream"))
        .arg("--ports_file_dir")
        .arg(dir);
    let process = start(&mut command, cpus)?;
    let deadline = Instant::now() + STARTING;
    let address = loop {
        if let Some(address) = port_of_nats(dir)? {
            break address;
        }
        ensure!(Instant::now() < deadline, "nats-server says no port");
        sleep(Duration::from_millis(5)).await;
    };
    until_listening(address).await.context("nats-server")?;
    Ok((process, address))
}

/// What the file of its ports says, once it is whole.
fn port_of_nats(dir: &Path) -> Result<Option<SocketAddr>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "ports")
        {
            continue;
        }
        let text = fs::read_to_string(path)?;
        let ports = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
        let url = ports["nats"][0].as_str().unwrap_or_default();
        return Ok(url.trim_start_matches("nats://").parse().ok());
    }
    Ok(None)
}

fn start(command: &mut Command, cpus: &Cpus) -> Result<Process> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process::start(command, cpus)
}

async fn until_listening(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + STARTING;
    while TcpStream::connect(address).await.is_err() {
        ensure!(Instant::now() < deadline, "it does not listen");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
