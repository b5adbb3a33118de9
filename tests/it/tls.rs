//! `wss://` and `https://` upstreams: certificates are verified, and a private CA can be added.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::events::{all_sorts, assert_same};
use crate::harness::http::{EVENT_STREAM, Request};
use crate::harness::upstream::{Link, Upstream};
use crate::harness::within_guard;
use crate::harness::wsevent::{Hop, Tail, output};

/// A CA of our own, and a foreign server that has a certificate from it.
struct Private {
    upstream: Upstream,
    acceptor: TlsAcceptor,
    /// Where the CA's certificate is.
    ca: PathBuf,
    _folder: TempDir,
}

impl Private {
    fn new(names: &[&str]) -> Self {
        Self::with(names, |_| ())
    }

    /// `change` may spoil the server's certificate.
    fn with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new([]).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a CA");

        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &ca).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key);

        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, ca.pem()).expect("the folder is ours");
        Self {
            upstream: Upstream::new(),
            acceptor: TlsAcceptor::from(Arc::new(config.expect("they belong together"))),
            ca: path,
            _folder: folder,
        }
    }

    fn ca(&self) -> &str {
        self.ca.to_str().expect("it is text")
    }

    fn url(&self, host: &str) -> String {
        format!("wss://{host}:{}/feed", self.upstream.address().port())
    }

    /// The next connection, after both handshakes.
    async fn accept(&self) -> Link<TlsStream<TcpStream>> {
        let accepting = self.acceptor.accept(self.upstream.accept_socket().await);
        let socket = within_guard("a TLS handshake", accepting).await;
        Link::accept(socket.expect("a good TLS handshake")).await
    }

    fn https_url(&self, host: &str) -> String {
        self.url(host).replace("wss://", "https://")
    }

    /// The next connection and its request.
    async fn asked(&self) -> Request<TlsStream<TcpStream>> {
        let accepting = self.acceptor.accept(self.upstream.accept_socket().await);
        let socket = within_guard("a TLS handshake", accepting).await;
        Request::read(socket.expect("a good TLS handshake")).await
    }

    /// The next connection, whose TLS handshake must fail.
    async fn refused(&self) {
        let accepting = self.acceptor.accept(self.upstream.accept_socket().await);
        let result = within_guard("a TLS handshake", accepting).await;
        assert!(result.is_err(), "the hop should have refused");
    }
}

#[tokio::test]
async fn an_upstream_with_a_private_ca_is_trusted_if_told() {
    for host in ["localhost", "127.0.0.1"] {
        let private = Private::new(&[host]);
        let url = private.url(host);
        let hop = Hop::start(&["--consume", &url, "--consume-ca", private.ca()]).await;
        let mut link = private.accept().await;
        let connected = hop.logged("upstream connected").await;
        assert_eq!(connected.field("url"), url);
        let mut subscriber = hop.subscribe().await;
        let sent = all_sorts();
        link.send_all(&sent).await;
        assert_same(&subscriber.messages(sent.len()).await, &sent);
    }
}

#[tokio::test]
async fn the_ca_may_come_from_the_environment_or_from_the_system() {
    // SSL_CERT_FILE replaces the system's roots.
    for variable in ["WSEVENT_CONSUME_CA", "SSL_CERT_FILE"] {
        let private = Private::new(&["localhost"]);
        let url = private.url("localhost");
        let env = [(variable, private.ca()), ("WSEVENT_CONSUME", url.as_str())];
        let hop = Hop::start_with(&[], &env).await;
        private.accept().await;
        hop.logged("upstream connected").await;
    }
}

#[tokio::test]
async fn a_tail_trusts_a_private_ca_too() {
    let private = Private::new(&["localhost"]);
    let args = ["--consume-ca", private.ca(), "--count", "1"];
    let mut tail = Tail::start(&private.url("localhost"), &args);
    private.accept().await.send(Message::text("an event")).await;
    assert_eq!(tail.line().await.as_deref(), Some("an event"));
    tail.ends_with(0).await;
}

#[tokio::test]
async fn an_event_stream_over_tls_is_read() {
    for host in ["localhost", "127.0.0.1"] {
        let private = Private::new(&[host]);
        let url = private.https_url(host);
        let hop = Hop::start(&["--consume", &url, "--consume-ca", private.ca()]).await;
        let mut subscriber = hop.subscribe().await;
        let mut request = private.asked().await;
        request.send(EVENT_STREAM).await;
        request.send("data: an event\n\n").await;
        assert_eq!(subscriber.message().await, Message::text("an event"));
        let connected = hop.logged("upstream connected").await;
        assert_eq!(connected.field("url"), url);
    }
}

#[tokio::test]
async fn an_event_stream_with_an_unknown_ca_is_not_trusted() {
    let private = Private::new(&["localhost"]);
    let hop = Hop::start(&["--consume", &private.https_url("localhost")]).await;
    private.refused().await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert!(
        lost.field("reason").contains("UnknownIssuer"),
        "{}",
        lost.text
    );
}

#[tokio::test]
async fn a_redirect_may_lead_to_tls_but_not_away_from_it() {
    let (private, plain) = (Private::new(&["localhost"]), Upstream::new());
    let url = plain.http_url();
    let hop = Hop::start(&["--consume", &url, "--consume-ca", private.ca()]).await;
    let to = private.https_url("localhost");
    plain.asked().await.redirect(302, &to).await;
    let mut request = private.asked().await;
    request.send(EVENT_STREAM).await;
    hop.logged("upstream connected").await;

    let args = ["--consume", &to, "--consume-ca", private.ca()];
    let hop = Hop::start(&args).await;
    private.asked().await.redirect(302, &url).await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert!(
        lost.field("reason").contains("from https:// to"),
        "{}",
        lost.text
    );
}

/// Lets a hop try twice, which must fail, and returns the reason in its log.
async fn distrusted(private: &Private, args: &[&str]) -> String {
    let url = private.url("localhost");
    let hop = Hop::start(&[&["--consume", &url], args].concat()).await;
    private.refused().await;
    private.refused().await;
    let lost = hop.logged("cannot reach upstream, trying again").await;
    assert_eq!(hop.count("cannot reach upstream, trying again"), 1);
    assert_eq!(hop.count("upstream connected"), 0);
    assert_eq!(lost.field("url"), url);
    lost.field("reason")
}

#[tokio::test]
async fn an_upstream_with_an_unknown_ca_is_not_trusted() {
    let private = Private::new(&["localhost"]);
    let reason = distrusted(&private, &[]).await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    // Another CA does not help.
    let other = Private::new(&["localhost"]);
    let reason = distrusted(&private, &["--consume-ca", other.ca()]).await;
    assert!(reason.contains("certificate"), "{reason}");
}

/// Somebody who is trusted may have the same name, and sign with another kind of key.
#[tokio::test]
async fn an_unknown_ca_is_told_whatever_names_there_are() {
    let private = Private::new(&["localhost"]);
    let mut params = CertificateParams::new([]).expect("no names are good names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let namesake = CertifiedIssuer::self_signed(params, key).expect("a CA");
    std::fs::write(private.ca(), namesake.pem()).expect("the folder is ours");
    let reason = distrusted(&private, &["--consume-ca", private.ca()]).await;
    let expected =
        "nobody that is trusted here has signed its certificate: say who has with --consume-ca";
    assert_eq!(reason, expected);
}

/// `openssl req -x509` makes such ones.
#[tokio::test]
async fn a_certificate_that_is_a_ca_is_told_as_what_it_is() {
    let private = Private::with(&["localhost"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let reason = distrusted(&private, &["--consume-ca", private.ca()]).await;
    assert!(
        reason.ends_with("with basicConstraints CA:FALSE"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let private = Private::new(&["elsewhere.example"]);
    let reason = distrusted(&private, &["--consume-ca", private.ca()]).await;
    assert!(reason.contains("not valid for name"), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_the_past_is_not_trusted() {
    let private = Private::with(&["localhost"], |params| {
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let reason = distrusted(&private, &["--consume-ca", private.ca()]).await;
    assert!(reason.contains("expired"), "{reason}");
}

#[tokio::test]
async fn tls_and_plain_do_not_mix() {
    let plain = Upstream::new();
    let url = plain.url().replace("ws://", "wss://");
    let hop = Hop::start(&["--consume", &url]).await;
    // It gets the beginning of a TLS handshake, which is no HTTP.
    drop(plain.accept_socket().await);
    hop.logged("cannot reach upstream, trying again").await;
    plain.accept_socket().await;

    let private = Private::new(&["localhost"]);
    let url = private.upstream.url();
    let hop = Hop::start(&["--consume", &url]).await;
    private.refused().await;
    hop.logged("cannot reach upstream, trying again").await;
    private.refused().await;
}

#[tokio::test]
async fn a_tail_that_does_not_trust_says_so() {
    let private = Private::new(&["localhost"]);
    let url = private.url("localhost");
    let args = ["tail", &url, "--exit-on-close"];
    let (output, ()) = tokio::join!(output(&args, &[]), private.refused());
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("it is text");
    assert!(stderr.contains("UnknownIssuer"), "{stderr}");
}
