//! A client's whole connection to a hop.

use std::cell::Cell;
use std::net::SocketAddr;
use std::panic;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Reads, option};
use crate::auth::{Auth, Settings};
use crate::cli::config::ConfigFile;
use crate::event::Origin;
use crate::listen::Listeners;
use crate::listen::rewound::HTTP2_PREFACE;
use crate::pause::Pause;
use crate::route::Routes;
use crate::server::limits::Keeper;
use crate::server::{Door, serve};
use crate::shutdown::Stop;

/// What the hop serves: a stream that is always there and such that come and go, of which anybody may publish to all.
const CONFIG: &str = r#"
serve-address = "127.0.0.1:0"
max-body-size = "64KiB"
max-message-size = "4KiB"
max-header-size = "8KiB"
accept-publish = true
history = "32KiB"

[[route]]
serve-path = "/events"
retain = "key"

[[route]]
serve-path = "/rooms/*"
key-query = ["room"]
max-streams = 4
"#;

/// Who may what, for inputs that ask for it: `reader` may read all and `writer` publish as well; nobody may publish without a token.
const TOKENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/tokens");

/// Longer than anything takes that waits for nobody.
const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    /// Panics on this thread. The runtime keeps those of tasks to itself.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

fn panics() -> usize {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.get()
}

/// Everything that a client sends over one connection, whatever it is: HTTP/1, HTTP/2, and what a connection becomes. The server answers in
/// its own words or not at all, lets go of whoever has gone, answers the next client, and ends when it is told to. The first byte says
/// whether tokens are wanted.
pub fn http(input: &[u8]) {
    let (options, input) = option(input);
    let reads = Reads::of(input);
    let before = panics();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // So that the server has seen what was sent when it has had its turn.
        .event_interval(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = Server::start(options & 1 != 0).await;
        let answer = exchange(server.address, reads.iter().collect()).await;
        if !answer.is_empty() && !reads.bytes.starts_with(HTTP2_PREFACE) {
            let status = status_of(&answer);
            assert!(
                status < 500 || status == 501 || status == 503 || status == 505,
                "{status}"
            );
        }
        let next = next_client(server.address).await;
        assert_eq!(status_of(&next), 200, "the next client is answered");
        server.stop().await;
    });
    assert_eq!(panics(), before, "a task has panicked");
}

struct Server {
    address: SocketAddr,
    tasks: TaskTracker,
    stop: Stop,
}

impl Server {
    async fn start(is_guarded: bool) -> Self {
        let file =
            ConfigFile::at(Path::new("fuzz.toml")).expect("nothing is wrong beside the file");
        let hop = file
            .read(CONFIG)
            .unwrap_or_else(|wrong| panic!("{wrong}"))
            .hop;
        let auth = is_guarded.then(|| {
            let settings = Settings {
                token_file: Some(TOKENS.into()),
                ..Settings::default()
            };
            Arc::new(Auth::load(settings).expect("a good file"))
        });
        let listeners = Listeners::bind(&hop.address).await.expect("a free port");
        let address = listeners.addresses().expect("it listens")[0];
        let (tasks, stop) = (TaskTracker::new(), Stop::new(Duration::from_secs(1)));
        let own = (Origin(7), "localhost:1");
        let routes = Arc::new(Routes::start(hop.routes, own, (&tasks, &stop)));
        let keeper = Keeper::new(hop.limits, true);
        let door = Door {
            tls: None,
            auth,
            routes,
        };
        let (over, running) = (stop.begun().clone(), tasks.clone());
        tokio::spawn(async move {
            serve(
                listeners,
                door,
                keeper,
                running,
                over,
                &Arc::new(Pause::default()),
            )
            .await;
        });
        Self {
            address,
            tasks,
            stop,
        }
    }

    async fn stop(self) {
        self.stop.now();
        self.tasks.close();
        let ended = timeout(PATIENCE, self.tasks.wait()).await;
        ended.expect("nothing goes on behind the end");
    }
}

/// Sends all that, and then the end, while it reads what comes.
async fn exchange(address: SocketAddr, reads: Vec<&[u8]>) -> Vec<u8> {
    let client = TcpStream::connect(address).await.expect("it listens");
    client.set_nodelay(true).expect("it is a socket");
    client.set_zero_linger().expect("it is a socket");
    let (mut from, mut to) = client.into_split();
    let mut answer = vec![];
    let writing = async {
        for read in reads {
            // It may have heard enough.
            if to.write_all(read).await.is_err() {
                return;
            }
            for _ in 0..32 {
                yield_now().await;
            }
        }
        let _ = to.shutdown().await;
    };
    // An error is an end as well.
    let reading = async { drop(from.read_to_end(&mut answer).await) };
    let both = timeout(PATIENCE, async { tokio::join!(writing, reading) }).await;
    both.expect("who has gone is let go");
    answer
}

/// What somebody is told who behaves.
async fn next_client(address: SocketAddr) -> Vec<u8> {
    let mut client = TcpStream::connect(address).await.expect("it listens");
    client.set_zero_linger().expect("it is a socket");
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.expect("it is read");
    let mut answer = vec![];
    let read = timeout(PATIENCE, client.read_to_end(&mut answer)).await;
    read.expect("it is answered").expect("as a whole");
    answer
}

/// Of the answer that comes first.
fn status_of(answer: &[u8]) -> u16 {
    let line = answer
        .strip_prefix(b"HTTP/1.1 ")
        .or(answer.strip_prefix(b"HTTP/1.0 "));
    let code = line.and_then(|line| line.get(..3));
    let code = code.and_then(|code| StatusCode::from_bytes(code).ok());
    let code = code.unwrap_or_else(|| panic!("no answer: {}", answer.escape_ascii()));
    code.as_u16()
}
