//! Certificates: those of clients, and those that change.

use std::os::unix::fs::symlink;

use rustix::process::Signal;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::authority::Authority;
use crate::harness::events::{assert_same, numbered};
use crate::harness::upstream::Link;
use crate::harness::wsevent::{Hop, Tail, output};

/// A hop that lets in whom `clients` has signed.
async fn guarded(server: &Authority, clients: &Authority) -> (Link, Hop) {
    let ca = clients.file("ca.pem");
    server.fed(&["--tls-client-ca", &ca]).await
}

/// Whether a client gets an answer. With TLS 1.3 the client's handshake is over before its certificate has been looked at.
async fn is_let_in(server: &Authority, identity: Option<&str>, hop: &Hop) -> bool {
    let mut client = server.client(identity, &[]).connect(hop.address).await;
    let asking = client.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    asking.await.is_ok() && client.try_head().await.is_some()
}

#[tokio::test]
async fn clients_need_a_certificate_where_one_is_wanted() {
    let (server, clients) = (Authority::new(), Authority::new());
    let (mut link, hop) = guarded(&server, &clients).await;
    // The server's own CA is not the clients'.
    server.sign("stranger");
    assert!(!is_let_in(&server, Some("stranger"), &hop).await);
    assert!(!is_let_in(&server, None, &hop).await);
    clients.sign("known");
    for name in ["known.pem", "known-key.pem"] {
        let text = std::fs::read_to_string(clients.file(name)).expect("it is there");
        server.write(name, &text);
    }
    let known = server.client(Some("known"), &[]);
    let client = known.connect(hop.address).await;
    let mut subscriber = client.upgraded("/events").await;
    link.send(Message::text("for you")).await;
    assert_eq!(subscriber.message().await, Message::text("for you"));
    hop.logged("subscriber connected").await;
    assert_eq!(hop.count("subscriber connected"), 1);
}

#[tokio::test]
async fn hops_and_clients_show_their_certificates() {
    let (server, clients) = (Authority::new(), Authority::new());
    let (mut link, hop) = guarded(&server, &clients).await;
    clients.sign("hop");
    let [flag, ca] = &server.trust();
    let (cert, key) = (clients.file("hop.pem"), clients.file("hop-key.pem"));
    let shown = [flag, ca, "--consume-cert", &cert, "--consume-key", &key];
    let down = Hop::start(&[&["--consume", &hop.url], &shown[..]].concat()).await;
    down.logged("upstream connected").await;
    let https = hop.url.replace("wss://", "https://");
    let mut tails = [&hop.url, &https].map(|url| Tail::start(url, &shown));
    hop.logged_times("subscriber connected", 3).await;
    let mut subscriber = down.subscribe().await;
    link.send(Message::text("an event")).await;
    assert_eq!(subscriber.message().await, Message::text("an event"));
    for tail in &mut tails {
        assert_eq!(tail.line().await.as_deref(), Some("an event"));
    }
    // Without one, it is said why.
    let args = ["tail", &hop.url, "--exit-on-close", flag, ca];
    let output = output(&args, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_wrong_usage() {
    let authority = Authority::new();
    authority.write("empty.pem", "");
    authority.sign("other");
    let file = |name| authority.file(name);
    let (cert, key, empty) = (
        file("server.pem"),
        file("server-key.pem"),
        file("empty.pem"),
    );
    let (other, gone) = (file("other-key.pem"), file("gone.pem"));
    let pair = ["--tls-cert", &cert, "--tls-key", &key];
    let consume = ["--consume", "wss://localhost:1/"];
    let cases: [(Vec<&str>, &str); 8] = [
        (vec!["--tls-cert", &cert], "--tls-key"),
        (vec!["--tls-key", &key], "--tls-cert"),
        (vec!["--tls-client-ca", &cert], "--tls-cert"),
        (
            vec!["--tls-cert", &cert, "--tls-key", &other],
            "does not belong to the certificate",
        ),
        (
            [&pair[..], &["--tls-client-ca", &empty]].concat(),
            "clients cannot be checked: cannot read certificates from",
        ),
        (
            [&pair[..], &["--tls-client-ca", &gone]].concat(),
            "no such file",
        ),
        (
            [&consume[..], &["--consume-cert", &cert]].concat(),
            "--consume-key",
        ),
        (
            [
                &consume[..],
                &["--consume-cert", &cert, "--consume-key", &empty],
            ]
            .concat(),
            "--consume-cert: cannot read the key",
        ),
    ];
    for (args, expected) in cases {
        let output = output(&args, &[]).await;
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

/// The certificate that the server shows now.
async fn shown(authority: &Authority, hop: &Hop) -> CertificateDer<'static> {
    let stream = authority.client(None, &[]).stream(hop.address).await;
    let chain = stream.get_ref().1.peer_certificates();
    chain.expect("it shows one")[0].clone().into_owned()
}

/// Exchanges the certificate while events flow and clients come, and sees that nobody is disturbed. `exchange` does it, and
/// returns when the hop has it.
async fn exchanged_under_load(
    authority: &Authority,
    (link, hop): (&mut Link, &Hop),
    exchange: impl AsyncFnOnce(),
) {
    let before = shown(authority, hop).await;
    assert_eq!(before, authority.certificate("server"));
    let mut staying = vec![];
    for _ in 0..20 {
        staying.push(authority.subscribe(hop).await);
    }
    let sent = numbered(500);
    let is_done = std::cell::Cell::new(false);
    let coming = async {
        let mut count = 0;
        while !is_done.get() {
            // Whatever is shown just then, it is good.
            drop(authority.subscribe(hop).await);
            count += 1;
        }
        count
    };
    let exchanging = async {
        link.send_all(&sent[..250]).await;
        exchange().await;
        link.send_all(&sent[250..]).await;
        is_done.set(true);
    };
    let (count, ()) = tokio::join!(coming, exchanging);
    assert!(count > 0);
    for subscriber in &mut staying {
        assert_same(&subscriber.messages(sent.len()).await, &sent);
    }
    let after = shown(authority, hop).await;
    assert_eq!(after, authority.certificate("server"));
    assert_ne!(after, before);
}

const LOADED: &str = "certificate loaded again";
const BROKEN: &str = "cannot load the certificate again, the old one stays";

#[tokio::test]
async fn a_change_of_the_files_is_enough() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&[]).await;
    for round in 1..=2 {
        exchanged_under_load(&authority, (&mut link, &hop), async || {
            authority.sign("server");
            hop.logged_times(LOADED, round).await;
        })
        .await;
    }
    assert_eq!(hop.count(BROKEN), 0);
}

#[tokio::test]
async fn a_signal_is_enough() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&[]).await;
    exchanged_under_load(&authority, (&mut link, &hop), async || {
        authority.sign("server");
        hop.signal(Signal::HUP);
        hop.logged(LOADED).await;
    })
    .await;
    // Without a change too, as who sends one wants to know.
    hop.signal(Signal::HUP);
    hop.logged_times(LOADED, 2).await;
}

/// As Kubernetes does with the files of a secret: they are links into a folder that is a link itself, and that is exchanged.
#[tokio::test]
async fn an_exchanged_link_is_a_change() {
    let authority = Authority::new();
    authority.sign("new");
    let of = |name: &str| std::path::PathBuf::from(authority.file(name));
    for (version, name) in [("v1", "server"), ("v2", "new")] {
        std::fs::create_dir(of(version)).expect("the folder is ours");
        for (from, to) in [
            (format!("{name}.pem"), "cert.pem"),
            (format!("{name}-key.pem"), "key.pem"),
        ] {
            std::fs::copy(of(&from), of(version).join(to)).expect("the folder is ours");
        }
    }
    symlink("v1", of("data")).expect("the folder is ours");
    let (cert, key) = (
        authority.file("data/cert.pem"),
        authority.file("data/key.pem"),
    );
    let hop = Hop::start(&["--tls-cert", &cert, "--tls-key", &key]).await;
    assert_eq!(
        shown(&authority, &hop).await,
        authority.certificate("server")
    );
    symlink("v2", of("data-new")).expect("the folder is ours");
    std::fs::rename(of("data-new"), of("data")).expect("the folder is ours");
    hop.logged(LOADED).await;
    assert_eq!(shown(&authority, &hop).await, authority.certificate("new"));
}

#[tokio::test]
async fn a_broken_certificate_changes_nothing_and_is_told_once() {
    let authority = Authority::new();
    let (mut link, hop) = authority.fed(&[]).await;
    let before = authority.certificate("server");
    let mut subscriber = authority.subscribe(&hop).await;
    authority.write("server-key.pem", "");
    let line = hop.logged(BROKEN).await;
    assert!(
        line.field("reason").contains("server-key.pem"),
        "{}",
        line.text
    );
    assert_eq!(shown(&authority, &hop).await, before);
    // One that belongs to another certificate is another mistake.
    authority.sign("other");
    let other = std::fs::read_to_string(authority.file("other-key.pem")).expect("it is there");
    authority.write("server-key.pem", &other);
    let line = hop.logged_times(BROKEN, 2).await;
    assert!(
        line.field("reason").contains("does not belong"),
        "{}",
        line.text
    );
    authority.sign("server");
    hop.logged(LOADED).await;
    assert_eq!(hop.count(BROKEN), 2);
    assert_eq!(
        shown(&authority, &hop).await,
        authority.certificate("server")
    );
    link.send(Message::text("still there")).await;
    assert_eq!(subscriber.message().await, Message::text("still there"));
}

#[tokio::test]
async fn a_new_ca_for_clients_counts_at_once() {
    let (server, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let text =
        |of: &Authority, name: &str| std::fs::read_to_string(of.file(name)).expect("it is there");
    for (authority, name) in [(&old, "old"), (&new, "new")] {
        authority.sign("client");
        for (from, to) in [("client.pem", ".pem"), ("client-key.pem", "-key.pem")] {
            server.write(&format!("{name}{to}"), &text(authority, from));
        }
    }
    server.write("clients.pem", &text(&old, "ca.pem"));
    let (mut link, hop) = server
        .fed(&["--tls-client-ca", &server.file("clients.pem")])
        .await;
    assert!(is_let_in(&server, Some("old"), &hop).await);
    let staying = server.client(Some("old"), &[]).connect(hop.address).await;
    let mut staying = staying.upgraded("/events").await;
    assert!(!is_let_in(&server, Some("new"), &hop).await);
    server.write("clients.pem", &text(&new, "ca.pem"));
    hop.logged(LOADED).await;
    assert!(!is_let_in(&server, Some("old"), &hop).await);
    assert!(is_let_in(&server, Some("new"), &hop).await);
    link.send(Message::text("still there")).await;
    assert_eq!(staying.message().await, Message::text("still there"));
}
