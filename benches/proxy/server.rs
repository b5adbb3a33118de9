//! The proxies under test, each in front of the same three upstreams.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::common::process::{Cpus, Process};
use crate::common::wsevent;

/// How long a proxy may take to listen.
const STARTING: Duration = Duration::from_secs(10);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No proxy: clients are connected to the upstreams.
    Direct,
    /// One thread, two sockets, one buffer.
    Bare,
    /// The distribution's nginx.
    Nginx,
    /// The distribution's HAProxy.
    Haproxy,
    /// The real binary.
    Wsevent,
}

impl Kind {
    /// All of them, in the order they take turns.
    pub const ALL: [Self; 5] = [
        Self::Direct,
        Self::Bare,
        Self::Nginx,
        Self::Haproxy,
        Self::Wsevent,
    ];

    /// As in the tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Wsevent => "wsevent",
        }
    }

    /// What it says of itself, for those that others wrote; an error says how to install them.
    pub fn version(self) -> Result<Option<String>> {
        let (program, option) = match self {
            Self::Nginx => ("nginx", "-v"),
            Self::Haproxy => ("haproxy", "-v"),
            _ => return Ok(None),
        };
        let output = command(program).arg(option).output();
        let output = output.with_context(|| {
            format!("{program} cannot be run; scripts/bench/proxy-setup installs it")
        })?;
        // nginx says it on standard error.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let number = said
            .split([' ', '/', '-', '\n'])
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        Ok(Some(format!("{program} {}", number.unwrap_or("?"))))
    }
}

/// A proxy that listens.
pub struct Server {
    /// The process, for its figures.
    pub process: Process,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Its configuration and logs.
    _folder: Option<TempDir>,
}

impl Server {
    /// Starts one in front of these upstreams; when this returns it accepts clients. None for [`Kind::Direct`].
    pub fn start(kind: Kind, upstreams: &[SocketAddr], cpus: &Cpus) -> Result<Option<Self>> {
        Ok(Some(match kind {
            Kind::Direct => return Ok(None),
            Kind::Bare => Self::start_bare(upstreams, cpus)?,
            Kind::Nginx => Self::start_configured(
                &Configured {
                    program: "nginx",
                    template: include_str!("nginx.conf"),
                    upstream: |_, address| format!("        server {address};\n"),
                    arguments: &["-e", "stderr", "-c"],
                },
                upstreams,
                cpus,
            )?,
            Kind::Haproxy => Self::start_configured(
                &Configured {
                    program: "haproxy",
                    template: include_str!("haproxy.cfg"),
                    upstream: |index, address| format!("    server producer{index} {address}\n"),
                    arguments: &["-db", "-f"],
                },
                upstreams,
                cpus,
            )?,
            Kind::Wsevent => {
                let upstreams = upstreams.iter().map(ToString::to_string);
                let upstreams: Vec<String> = upstreams.collect();
                let mut arguments = vec!["proxy"];
                for upstream in &upstreams {
                    arguments.extend(["--upstream", upstream]);
                }
                let (process, address) = wsevent::start(&arguments, cpus)?;
                Self {
                    process,
                    address,
                    _folder: None,
                }
            }
        }))
    }

    fn start_bare(upstreams: &[SocketAddr], cpus: &Cpus) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--baseline", "bare"])
            .args(upstreams.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command, cpus)?;
        let mut line = String::new();
        let output = process.child().stdout.take().context("stdout")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening ");
        Ok(Self {
            process,
            address: address.context("bare does not listen")?.parse()?,
            _folder: None,
        })
    }

    fn start_configured(
        configured: &Configured,
        upstreams: &[SocketAddr],
        cpus: &Cpus,
    ) -> Result<Self> {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
        // Neither can be told to choose a port itself and say which.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let servers = upstreams.iter().enumerate();
        let servers: String = servers
            .map(|(index, upstream)| (configured.upstream)(index + 1, *upstream))
            .collect();
        let text = configured
            .template
            .replace("{FOLDER}", folder.path().to_str().context("folder")?)
            .replace("{ADDRESS}", &address.to_string())
            .replace("{UPSTREAMS}", servers.trim_end());
        let file = folder.path().join("configuration");
        fs::write(&file, text)?;
        let log = folder.path().join("messages");
        let mut command = command(configured.program);
        command
            .args(configured.arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?);
        let mut process = Process::start(&mut command, cpus)?;
        let deadline = Instant::now() + STARTING;
        while TcpStream::connect(address).is_err() {
            let ended = process.child().try_wait()?.is_some();
            ensure!(
                !ended && Instant::now() < deadline,
                "{} does not listen: {}",
                configured.program,
                fs::read_to_string(&log)?
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self {
            process,
            address,
            _folder: Some(folder),
        })
    }

    /// The memory of all its processes, in bytes; what several share counts once.
    pub fn memory(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in self.process.tree() {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let line = line.context("Pss")?.trim().trim_end_matches(" kB");
            sum += line.parse::<u64>()? * 1024;
        }
        Ok(sum)
    }
}

/// A proxy that is told everything by a file.
struct Configured {
    program: &'static str,
    template: &'static str,
    /// A line for an upstream, by number and address.
    upstream: fn(usize, SocketAddr) -> String,
    /// What stands before the file's name.
    arguments: &'static [&'static str],
}

/// A program that may be where only root's path leads.
fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}
