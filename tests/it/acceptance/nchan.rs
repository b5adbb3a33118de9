//! A server of many streams that others wrote: nginx with the module nchan, which has a channel for each URL, over WebSocket
//! and EventSource. scripts/test installs it.

use std::path::Path;

use crate::harness::authority::{Authority, Secure};
use crate::harness::client::{Client, request};
use crate::harness::nginx::Nginx;
use crate::harness::within_guard;

/// Where Debian has it.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A room is a channel; nothing else is there.
const CHANNELS: &str = r"
    nchan_subscriber_first_message newest;
    location ~ ^/feeds/websocket/(room-\d+)$ { nchan_subscriber websocket; nchan_channel_id websocket/$1; }
    location ~ ^/feeds/sse/(room-\d+)$ { nchan_subscriber eventsource; nchan_channel_id sse/$1; }";

/// For the test itself, over one connection for all that it asks.
const CONTROL: &str = "
    keepalive_requests 1000000;
    location ~ ^/publish/(.+)$ { auth_basic off; nchan_publisher; nchan_channel_id $1; }
    location = /channels { auth_basic off; nchan_stub_status; }
    location = /connections { auth_basic off; stub_status; }";

/// A running nchan.
pub struct Nchan {
    nginx: Nginx,
    control: Client,
}

impl Nchan {
    pub async fn start() -> Self {
        let nginx = Self::nginx("", "").await;
        let control = Client::connect(nginx.address).await;
        Self { nginx, control }
    }

    /// Behind TLS, for who has a user name and a password that are a line of `passwords`.
    pub async fn guarded(authority: &Authority, passwords: &str) -> Self {
        authority.write("passwords", passwords);
        let [certificate, key, passwords] =
            ["server.pem", "server-key.pem", "passwords"].map(|name| authority.file(name));
        let rules = format!(
            "ssl_certificate {certificate}; ssl_certificate_key {key};
             auth_basic feeds; auth_basic_user_file {passwords};"
        );
        let nginx = Self::nginx("ssl", &rules).await;
        let secure: Secure = authority.client(None, &[]);
        let control = secure.connect(nginx.address).await;
        Self { nginx, control }
    }

    async fn nginx(listen: &str, rules: &str) -> Nginx {
        assert!(
            Path::new(MODULE).exists(),
            "{MODULE} is missing: run scripts/test, which installs it"
        );
        let first = format!("load_module {MODULE};");
        Nginx::start_with(&first, listen, &format!("{rules} {CHANNELS} {CONTROL}")).await
    }

    /// The URLs of its channels that are read in one way, as a route has them.
    pub fn feeds(&self, scheme: &str, kind: &str) -> String {
        let port = self.nginx.address.port();
        format!("{scheme}://localhost:{port}/feeds/{kind}/*")
    }

    /// Publishes an event; it has been sent when this returns.
    pub async fn publish(&mut self, channel: &str, text: &str) {
        let line = format!("POST /publish/{channel} HTTP/1.1");
        let length = text.len().to_string();
        let headers = [
            ("Host", "localhost"),
            ("Content-Type", "text/plain"),
            ("Content-Length", &*length),
        ];
        self.control.send(request(&line, &headers) + text).await;
        let head = self.control.head().await;
        assert!(matches!(head.status, 201 | 202), "{head:?}");
        self.control.body(&head).await;
    }

    /// Waits until it has so many subscribers.
    pub async fn has_subscribers(&mut self, count: usize) {
        let what = format!("{count} subscribers at nchan");
        within_guard(&what, async {
            while self.subscribers().await != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// How many subscribers it has.
    pub async fn subscribers(&mut self) -> usize {
        let text = self.status("/channels").await;
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("subscribers: "));
        count.expect("it says so").parse().expect("a number")
    }

    /// How many connections others have ever made to it.
    pub async fn connections(&mut self) -> usize {
        let text = self.status("/connections").await;
        let line = text.lines().nth(2).unwrap_or_default();
        let accepted = line.split_whitespace().next().expect("it says so");
        accepted.parse::<usize>().expect("a number") - 1
    }

    async fn status(&mut self, path: &str) -> String {
        let (head, text) = self.control.get(path, &[]).await;
        assert_eq!(head.status, 200, "{head:?}");
        text
    }
}
