//! What systemd does with a service: sockets that it hands over, and what it is told.

use std::path::PathBuf;

use rustix::process::Signal;
use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::harness::client::Client;
use crate::harness::within_guard;
use crate::harness::wsevent::{Process, command};
use crate::peers::installed;

/// Listens on a free port for each name, and becomes wsevent, as systemd does it: descriptors from 3 on.
const HANDING: &str = r#"
import fcntl, os, socket, sys
names, host, pid, binary, *args = sys.argv[1:]
sockets = [socket.create_server((host, 0)) for _ in names.split(":")]
if names == "datagram":
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
if names == "silent":
    sockets = [socket.socket()]
above = [fcntl.fcntl(each, fcntl.F_DUPFD, 50) for each in sockets]
for number, each in enumerate(above):
    os.dup2(each, 3 + number)
os.environ.update(LISTEN_FDS=str(len(above)), LISTEN_FDNAMES=names)
os.environ["LISTEN_PID"] = str(os.getpid()) if pid == "own" else pid
os.execv(binary, [binary, *args])
"#;

/// wsevent with these sockets.
fn handed(names: &str, host: &str, pid: &str, args: &[&str]) -> Process {
    let python = installed("WSEVENT_TEST_PYTHON", "venv/bin/python");
    let plain = command(args);
    let mut handing = Command::new(python);
    handing
        .args(["-c", HANDING, names, host, pid])
        .arg(plain.as_std().get_program())
        .args(plain.as_std().get_args())
        .args(["--log-format", "json"])
        .kill_on_drop(true);
    for (name, value) in plain.as_std().get_envs() {
        match value {
            Some(value) => handing.env(name, value),
            None => handing.env_remove(name),
        };
    }
    Process::spawn(handing)
}

#[tokio::test]
async fn sockets_that_are_handed_over_are_served() {
    let mut hop = handed(
        "serve:admin",
        "127.0.0.1",
        "own",
        &["--serve-address", "localhost:1"],
    );
    let listening = hop.logged("listening").await;
    let address: std::net::SocketAddr = listening.field("address").parse().expect("an address");
    assert_eq!(
        listening.field("url"),
        format!("ws://localhost:{}/events", address.port())
    );
    let admin = hop.logged("listening for administration").await;
    let admin: std::net::SocketAddr = admin.field("address").parse().expect("an address");
    assert_ne!(address.port(), admin.port());
    let (head, _) = Client::connect(address).await.get("/", &[]).await;
    assert_eq!(head.status, 200);
    let (head, _) = Client::connect(admin).await.get("/-/ready", &[]).await;
    assert_eq!(head.status, 200);
    hop.signal(Signal::TERM);
    assert_eq!(hop.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_proxy_takes_them_as_well() {
    let proxy = handed(
        "a:b",
        "127.0.0.1",
        "own",
        &["proxy", "--upstream", "127.0.0.1:9"],
    );
    let last = proxy.logged_times("listening", 2).await;
    let address = last.field("address").parse().expect("an address");
    let (head, _) = Client::connect(address).await.get("/", &[]).await;
    assert_eq!(head.status, 503);
}

#[tokio::test]
async fn what_is_another_process_s_is_left_alone() {
    // It is said by variables, and those are inherited.
    let own = handed(
        "serve",
        "127.0.0.1",
        "1",
        &["--serve-address", "127.0.0.2:0"],
    );
    let listening = own.logged("listening").await;
    assert!(listening.field("address").starts_with("127.0.0.2:"));
}

#[tokio::test]
async fn what_is_no_listening_socket_is_said() {
    for (names, why) in [
        ("datagram", "is not a valid tcp socket"),
        ("silent", "nobody listens on it"),
    ] {
        let mut hop = handed(names, "127.0.0.1", "own", &[]);
        assert_eq!(hop.exit().await.code(), Some(2));
        let log = hop.log.to_string();
        assert!(
            log.contains("socket 1 of 1 that LISTEN_FDS hands over cannot be used"),
            "{log}"
        );
        assert!(log.contains(why), "{log}");
    }
}

#[tokio::test]
async fn publishing_is_guarded_where_the_sockets_are() {
    // By its flags it would be for this machine only.
    let mut hop = handed("serve", "0.0.0.0", "own", &["--accept-publish"]);
    assert_eq!(hop.exit().await.code(), Some(2));
    let log = hop.log.to_string();
    assert!(log.contains("everyone who reaches 0.0.0.0:"), "{log}");
    let hop = handed(
        "serve",
        "0.0.0.0",
        "own",
        &["--accept-publish", "--insecure-publish"],
    );
    hop.logged("listening").await;
}

/// What a service tells.
struct Told(
    UnixDatagram,
    PathBuf,
    #[expect(dead_code)] tempfile::TempDir,
);

impl Told {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("it is free");
        Self(socket, path, folder)
    }

    fn start(&self, args: &[&str]) -> Process {
        let mut command = command(args);
        command.args(["--log-format", "json", "--serve-address", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", &self.1);
        Process::spawn(command)
    }

    async fn next(&self) -> String {
        let mut buffer = vec![0; 1_000];
        let receiving = self.0.recv(&mut buffer);
        let len = within_guard("what it tells", receiving)
            .await
            .expect("a datagram");
        buffer.truncate(len);
        String::from_utf8(buffer).expect("text")
    }
}

#[tokio::test]
async fn a_service_tells_when_it_is_ready_reloads_and_stops() {
    for args in [&["--produce"][..], &["proxy", "--upstream", "127.0.0.1:9"]] {
        let told = Told::new();
        let mut process = told.start(args);
        let ready = told.next().await;
        assert!(ready.starts_with("READY=1\nSTATUS="), "{ready}");
        process.signal(Signal::HUP);
        let reloading = told.next().await;
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        assert!(told.next().await.starts_with("READY=1\n"));
        process.signal(Signal::TERM);
        assert!(told.next().await.starts_with("STOPPING=1\n"));
        assert_eq!(process.exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn nothing_depends_on_being_heard() {
    let mut told = Told::new();
    told.1 = "/absent/notify".into();
    let mut hop = told.start(&[]);
    hop.logged("listening").await;
    hop.signal(Signal::TERM);
    assert_eq!(hop.exit().await.code(), Some(0));
}
