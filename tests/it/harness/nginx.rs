//! nginx: what most people have there already.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::daemon::{installed, running};
use super::port::ReservedPort;

/// A running nginx.
pub struct Nginx {
    pub address: SocketAddr,
    /// What it takes relative paths to be in.
    pub folder: TempDir,
    _port: ReservedPort,
    _child: Child,
}

impl Nginx {
    /// With what `server` is to be in its configuration.
    pub async fn start(server: &str) -> Self {
        Self::start_with("", "", server).await
    }

    /// The same, with directives above all others, and with these words behind the address it listens on.
    pub async fn start_with(first: &str, listen: &str, server: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let port = ReservedPort::new();
        let address = port.address();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};"))
            .join(" ");
        let config = format!(
            "{first} daemon off; master_process off; pid nginx.pid; error_log stderr notice; events {{}}
             http {{ access_log off; {temporary} server {{ listen {address} {listen}; {server} }} }}"
        );
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, config).expect("the folder is ours");
        let mut command = Command::new(installed("nginx"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(&path);
        command.args(["-e", "stderr"]);
        // It listens before it says so.
        let begun = |line: &str| line.contains("[notice]") && line.contains(": nginx/");
        let child = running(command, begun).await;
        Self {
            address,
            folder,
            _port: port,
            _child: child,
        }
    }
}
