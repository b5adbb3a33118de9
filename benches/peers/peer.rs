//! The usual alternatives, each in the way its documentation shows, on one CPU, with what feeds it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::common::process::{Cpus, Process};
use crate::common::wsevent;
use crate::feed::{Event, Form};
use crate::server::{Kind, Server, Source};
use crate::transport::Transport;
use crate::upstream::{Encode, Upstream};

/// How long a server may take to listen, and to reach its upstream.
const STARTING: Duration = Duration::from_secs(10);

/// Where nginx's modules may be.
const NCHAN: [&str; 2] = [
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "/usr/share/nginx/modules/ngx_nchan_module.so",
];

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// One thread, one `write` per delivery.
    Bare,
    /// The real binary.
    Wsevent,
    /// nginx with nchan.
    Nchan,
    /// A server made of Node's `ws`.
    NodeWs,
    /// The NATS server, with its own protocol.
    Nats,
    /// `websocat broadcast:`.
    Websocat,
}

impl Peer {
    /// All of them, in the order they take turns.
    pub const ALL: [Self; 6] = [
        Self::Bare,
        Self::Wsevent,
        Self::Nchan,
        Self::NodeWs,
        Self::Nats,
        Self::Websocat,
    ];

    /// As in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Wsevent => "wsevent",
            Self::Nchan => "nchan",
            Self::NodeWs => "Node ws",
            Self::Nats => "nats-server",
            Self::Websocat => "websocat",
        }
    }

    /// Whether others wrote it: then the bench goes on if it does not get through.
    pub fn is_foreign(self) -> bool {
        !matches!(self, Self::Bare | Self::Wsevent)
    }

    /// How its subscribers read.
    pub fn transport(self) -> Transport {
        match self {
            Self::Nats => Transport::Nats,
            _ => Transport::WebSocket,
        }
    }

    /// Which one it is; an error if it is not there.
    pub fn version(self) -> Result<String> {
        let said = match self {
            Self::Bare => return Ok("bare".to_owned()),
            Self::Wsevent => return Ok(format!("wsevent {}", env!("CARGO_PKG_VERSION"))),
            Self::Nchan => {
                nchan()?;
                let version = |package| say("dpkg-query", &["-W", "-f", "${Version}", package]);
                let (nginx, nchan) = (version("nginx")?, version("libnginx-mod-nchan")?);
                return Ok(format!("nginx {nginx} with nchan {nchan}"));
            }
            Self::NodeWs => {
                let ws = say("node", &["-p", "require('ws/package.json').version"])?;
                return Ok(format!("Node {} with ws {ws}", say("node", &["-v"])?));
            }
            Self::Nats => say("nats-server", &["-v"])?,
            Self::Websocat => say("websocat", &["--version"])?,
        };
        Ok(said.replace(": v", " "))
    }

    /// Starts one with events of so many bytes; when this returns it accepts subscribers and a play reaches it.
    pub fn start(self, bytes: usize, cpus: &Cpus) -> Result<Running> {
        let directory = tempfile::tempdir()?;
        let fed = || Upstream::start_encoding(frames(bytes), cpus);
        let server = match self {
            Self::Bare => Server::start(Kind::Bare, cpus)?,
            Self::Wsevent => Server::start_hop(fed()?, cpus)?,
            Self::Nchan => {
                let (process, address) = self.listening(&directory, None, cpus)?;
                let publisher = publisher(address, "/publish")?;
                let source = Upstream::onto(publisher, masked_frames(bytes), cpus)?;
                server(process, address, "/bench", source)
            }
            Self::NodeWs | Self::Websocat => {
                let upstream = fed()?;
                let url = upstream.url();
                let (process, address) = self.listening(&directory, Some(&url), cpus)?;
                server(process, address, "/", upstream)
            }
            Self::Nats => {
                let (process, address) = self.listening(&directory, None, cpus)?;
                let publisher = TcpStream::connect(address)?;
                drain(&publisher)?;
                let source = Upstream::onto(publisher, publishes(bytes), cpus)?;
                server(process, address, "bench", source)
            }
        };
        Ok(Running {
            server,
            _directory: directory,
        })
    }

    /// Starts the process and returns when it accepts connections.
    fn listening(
        self,
        directory: &TempDir,
        upstream: Option<&str>,
        cpus: &Cpus,
    ) -> Result<(Process, SocketAddr)> {
        let address = free_address()?;
        let mut command = self.command(directory.path(), address, upstream)?;
        let process = Process::start(&mut command, cpus)?;
        let listening = match self {
            // One that connects and goes ends it: it panics at "invalid key".
            Self::Websocat => wait_unseen(address),
            _ => wait_for(address),
        };
        listening.with_context(|| self.name())?;
        Ok((process, address))
    }

    /// How long it takes from `exec` until it accepts a connection; none for what is no server of its own.
    pub fn time_to_listen(self, cpus: &Cpus) -> Result<Option<Duration>> {
        if self == Self::Bare {
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        let upstream = Upstream::start_encoding(frames(128), cpus)?;
        let url = upstream.url();
        let address = free_address()?;
        let mut command = self.command(directory.path(), address, Some(&url))?;
        let began = Instant::now();
        let _process = Process::start(&mut command, cpus)?;
        wait_for(address).with_context(|| self.name())?;
        Ok(Some(began.elapsed()))
    }

    fn command(
        self,
        directory: &Path,
        address: SocketAddr,
        upstream: Option<&str>,
    ) -> Result<Command> {
        let port = address.port().to_string();
        let mut command = match self {
            Self::Bare => bail!("it is part of the bench"),
            Self::Wsevent => {
                let mut command = wsevent::command(wsevent::OURS.as_ref());
                command.args(["--serve-address", &address.to_string()]);
                command.args(upstream.map(|url| ["--consume", url]).into_iter().flatten());
                command
            }
            Self::Nchan => {
                let replaced = include_str!("nginx.conf")
                    .replace("MODULE", &nchan()?.display().to_string())
                    .replace("DIR", &directory.display().to_string())
                    .replace("PORT", &port);
                let file = directory.join("nginx.conf");
                fs::write(&file, replaced)?;
                let mut command = program("nginx");
                command.arg("-c").arg(file).arg("-p").arg(directory);
                // Its workers would be another user, who cannot get into the folder.
                command.args(["-g", "user root;"]);
                command
            }
            Self::NodeWs => {
                let file = directory.join("server.cjs");
                fs::write(&file, include_str!("ws_server.cjs"))?;
                let mut command = program("node");
                command
                    .arg(file)
                    .arg(upstream.context("an upstream")?)
                    .arg(port);
                command
            }
            Self::Nats => {
                let mut command = program("nats-server");
                command.args(["-a", "127.0.0.1", "-p", &port]);
                command
            }
            Self::Websocat => {
                let mut command = program("websocat");
                command.args(["-b", "-E"]);
                command.arg(format!("ws-l:{address}"));
                command.arg(format!("broadcast:{}", upstream.context("an upstream")?));
                command
            }
        };
        let log = File::create(directory.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

/// A server with what it needs on disk.
pub struct Running {
    /// The server.
    pub server: Server,
    _directory: TempDir,
}

fn server(process: Process, address: SocketAddr, path: &'static str, source: Upstream) -> Server {
    Server {
        process,
        address,
        path,
        source: Source::Upstream(source),
    }
}

/// As a server sends them.
fn frames(bytes: usize) -> Encode {
    Box::new(move |event, out| frame(event, bytes, false, out))
}

/// As a client does, with the mask that leaves the bytes as they are.
fn masked_frames(bytes: usize) -> Encode {
    Box::new(move |event, out| frame(event, bytes, true, out))
}

fn frame(event: Event, bytes: usize, is_masked: bool, out: &mut Vec<u8>) {
    let payload = event.padded(Form::Binary, bytes);
    let length = u16::try_from(payload.len()).expect("64 KiB at most");
    out.extend([0x82, if is_masked { 0xfe } else { 126 }]);
    out.extend(length.to_be_bytes());
    out.extend(is_masked.then_some([0; 4]).into_iter().flatten());
    out.extend(payload);
}

/// As NATS wants them.
fn publishes(bytes: usize) -> Encode {
    Box::new(move |event, out| {
        let payload = event.padded(Form::Binary, bytes);
        out.extend(format!("PUB bench {}\r\n", payload.len()).into_bytes());
        out.extend(payload);
        out.extend(b"\r\n");
    })
}

/// A WebSocket on which to publish.
fn publisher(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{address}{path}");
    let (socket, _) =
        tokio_tungstenite::tungstenite::client(url, stream).map_err(|error| anyhow!("{error}"))?;
    let stream = socket.into_inner();
    drain(&stream)?;
    Ok(stream)
}

/// Reads what a publisher is answered, which nobody wants to know.
fn drain(stream: &TcpStream) -> Result<()> {
    let mut answers = stream.try_clone()?;
    thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    Ok(())
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until somebody listens there, and does not connect.
fn wait_unseen(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + STARTING;
    let listening = format!(":{:04X} 00000000:0000 0A ", address.port());
    while !fs::read_to_string("/proc/net/tcp")?.contains(&listening) {
        ensure!(Instant::now() < deadline, "it does not listen at {address}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + STARTING;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < deadline, "it does not listen at {address}");
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn nchan() -> Result<PathBuf> {
    let mut places = NCHAN.iter().map(PathBuf::from);
    let found = places.find(|place| place.exists());
    found.context("nginx's module nchan is not installed")
}

/// Not everybody has /usr/sbin in the path, where some of them live.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

fn say(name: &str, arguments: &[&str]) -> Result<String> {
    let output = program(name).args(arguments).output();
    let output = output.with_context(|| format!("{name} cannot be run"))?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
