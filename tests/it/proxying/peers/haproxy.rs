//! HAProxy before and behind the proxy: whose PROXY protocol it is, understands it and is understood.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{server, talk};
use crate::harness::client::Client;
use crate::harness::daemon::{installed, running};
use crate::harness::port::ReservedPort;
use crate::harness::proxy::{Backend, Proxy};
use crate::peers::Language;

/// A running HAProxy.
struct Haproxy {
    address: SocketAddr,
    _folder: TempDir,
    _port: ReservedPort,
    _child: Child,
}

impl Haproxy {
    /// With these words behind the address it listens on, these rules, and this server.
    async fn start(bind: &str, rules: &str, server: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let port = ReservedPort::new();
        let address = port.address();
        let config = format!(
            "defaults\n mode http\n timeout connect 1m\n timeout client 1h\n timeout server 1h\n timeout tunnel 1h\n\
             listen all\n bind {address} {bind}\n {rules}\n server one {server}\n"
        );
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, config).expect("the folder is ours");
        let mut command = Command::new(installed("haproxy"));
        command.args(["-W", "-db", "-f"]).arg(&path);
        let child = running(command, |line| line.contains("Loading success")).await;
        Self {
            address,
            _folder: folder,
            _port: port,
            _child: child,
        }
    }
}

#[tokio::test]
async fn haproxy_in_front_says_who_the_client_is() {
    let backend = Backend::start("there");
    for send in ["send-proxy", "send-proxy-v2"] {
        let proxy = Proxy::over(&[backend.address], &["--accept-proxy-protocol"]).await;
        let server = format!("{} {send}", proxy.address);
        let haproxy = Haproxy::start("", "", &server).await;
        let mut client = Client::connect(haproxy.address).await;
        assert_eq!(client.get("/", &[]).await.1, "there");
        let line = proxy.logged("proxied").await;
        assert_eq!(line.field("client"), client.address().to_string());
    }
}

#[tokio::test]
async fn haproxy_behind_is_told_who_the_client_is() {
    let rules = "http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst_port]\"";
    for version in ["v1", "v2"] {
        let haproxy = Haproxy::start("accept-proxy", rules, "127.0.0.1:1").await;
        let args = ["--send-proxy-protocol", version, "--health-path", "/"];
        let proxy = Proxy::over(&[haproxy.address], &args).await;
        for _ in 0..3 {
            let mut client = proxy.client().await;
            let (_, said) = client.get("/", &[]).await;
            let expected = format!("{} {}", client.address(), proxy.address.port());
            assert_eq!(said, expected);
        }
        // Probes are understood as well.
        assert_eq!(proxy.count("upstream is out"), 0, "{}", proxy.log);
    }
}

#[tokio::test]
async fn websockets_go_through_haproxy_and_the_proxy_in_either_order() {
    let (mut echo, upstream) = server(Language::Node, "echo_server", &["chat.v1"]).await;
    let path = "/echo?key=value&key=%2f";

    let proxy = Proxy::start(&["--upstream", &upstream, "--accept-proxy-protocol"]).await;
    let to = format!("{} send-proxy-v2", proxy.address);
    let haproxy = Haproxy::start("", "", &to).await;
    let url = format!("ws://{}{path}", haproxy.address);
    talk(&url, Language::Python, &mut echo).await;

    let haproxy = Haproxy::start("accept-proxy", "option forwardfor if-none", &upstream).await;
    let args = ["--send-proxy-protocol", "v2"];
    let proxy = Proxy::over(&[haproxy.address], &args).await;
    let url = format!("ws://{}{path}", proxy.address);
    talk(&url, Language::Node, &mut echo).await;
}
