//! SIGHUP: the list of upstreams is read again, and nobody is cut off.

use std::path::Path;

use rustix::process::Signal;

use crate::harness::client::Client;
use crate::harness::http::Request;
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;

/// A file of upstreams, and a proxy that reads it.
pub struct List {
    file: tempfile::NamedTempFile,
    pub proxy: Proxy,
    reloads: usize,
}

impl List {
    pub async fn of(upstreams: &str) -> Self {
        Self::balanced(upstreams, "round-robin").await
    }

    pub async fn balanced(upstreams: &str, how: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file for the test");
        std::fs::write(file.path(), upstreams).expect("the file is ours");
        let path = file.path().to_str().expect("it is text").to_owned();
        Self {
            file,
            proxy: Proxy::start(&["--upstream-file", &path, "--balance", how]).await,
            reloads: 0,
        }
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub async fn becomes(&mut self, upstreams: &str) {
        std::fs::write(self.path(), upstreams).expect("the file is ours");
        self.proxy.signal(Signal::HUP);
        self.reloads += 1;
        let message = "upstreams loaded again";
        self.proxy.logged_times(message, self.reloads).await;
    }
}

async fn goes_both_ways((client, asked): &mut (Client, Request)) {
    client.send(b"up").await;
    assert_eq!(asked.bytes(2).await, b"up");
    asked.send(b"down").await;
    assert_eq!(client.bytes(4).await, b"down");
}

#[tokio::test]
async fn clients_stay_where_they_are_and_new_ones_go_by_the_new_list() {
    let (old, new) = (Upstream::new(), Backend::start("new"));
    let mut list = List::of(&format!("# the first\n{}\n", old.address())).await;
    let mut joined = list.proxy.joined(&old).await;

    list.becomes(&format!("{}\n{}\n", old.address(), new.address))
        .await;
    goes_both_ways(&mut joined).await;

    list.becomes(&format!("{}\n", new.address)).await;
    goes_both_ways(&mut joined).await;
    for _ in 0..5 {
        assert_eq!(list.proxy.get("/").await.1, "new");
    }
    assert_eq!(new.asked(), 5);

    // And back again: it is the same one.
    list.becomes(&format!("{}\n", old.address())).await;
    goes_both_ways(&mut joined).await;
    let mut another = list.proxy.joined(&old).await;
    goes_both_ways(&mut another).await;
}

#[tokio::test]
async fn a_list_that_is_wrong_changes_nothing() {
    let backend = Backend::start("there");
    let list = List::of(&backend.address.to_string()).await;
    std::fs::write(list.path(), "no upstream at all").expect("the file is ours");
    list.proxy.signal(Signal::HUP);
    let message = "cannot load the upstreams again, the old ones stay";
    let reason = list.proxy.logged(message).await.field("reason");
    assert!(reason.contains("line 1"), "{reason}");
    assert_eq!(list.proxy.get("/").await.1, "there");
}
