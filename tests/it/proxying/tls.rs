//! TLS in front, and to upstreams.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertifiedKey;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::client::{handshake, request};
use crate::harness::frame::{FIN, TEXT, masked, unmasked};
use crate::harness::http::Request;
use crate::harness::proxy::{Backend, Proxy};
use crate::harness::upstream::Upstream;
use crate::harness::within_guard;
use crate::harness::wsevent::output;

/// A certificate for localhost and its key, in files.
pub struct Certificate {
    folder: TempDir,
    /// Trusts it.
    connector: TlsConnector,
}

impl Certificate {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let connector = Self::write(&folder);
        Self { folder, connector }
    }

    /// Another one in its place.
    fn renew(&mut self) {
        self.connector = Self::write(&self.folder);
    }

    fn write(folder: &TempDir) -> TlsConnector {
        let names = ["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).expect("a certificate");
        let write = |name, text| std::fs::write(folder.path().join(name), text);
        write("cert.pem", cert.pem()).expect("the folder is ours");
        write("key.pem", signing_key.serialize_pem()).expect("the folder is ours");
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a good certificate");
        let config = ClientConfig::builder().with_root_certificates(roots);
        Arc::new(config.with_no_client_auth()).into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As a flag has it.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("it is text").to_owned()
    }

    pub async fn proxy(&self, upstream: &Upstream) -> Proxy {
        let (cert, key) = (self.file("cert.pem"), self.file("key.pem"));
        let args = ["--tls-cert", &cert, "--tls-key", &key];
        Proxy::over(&[upstream.address()], &args).await
    }

    /// A client that offers these protocols (RFC 7301).
    async fn try_connect(
        &self,
        proxy: &Proxy,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(self.connector.config());
        // A session that is resumed shows no certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        let connector = TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(proxy.address).await?;
        let name = "localhost".try_into().expect("a name");
        within_guard("a TLS handshake", connector.connect(name, socket)).await
    }

    async fn connect(&self, proxy: &Proxy) -> TlsStream<TcpStream> {
        let connected = self.try_connect(proxy, &[]).await;
        connected.expect("a good TLS handshake")
    }
}

async fn read(stream: &mut TlsStream<TcpStream>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let reading = stream.read_exact(&mut bytes);
    within_guard("bytes over TLS", reading)
        .await
        .expect("it is all there");
    bytes
}

/// Makes a WebSocket of it: the client's end and the upstream's.
async fn joined(
    mut stream: TlsStream<TcpStream>,
    upstream: &Upstream,
) -> (TlsStream<TcpStream>, Request) {
    let asking = handshake("/feed");
    let sending = stream.write_all(asking.as_bytes());
    within_guard("a handshake", sending).await.expect("TLS");
    let mut asked = upstream.asked().await;
    asked.switch(b"").await;
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read(&mut stream, 1).await);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        head.escape_ascii()
    );
    (stream, asked)
}

async fn goes_both_ways(stream: &mut TlsStream<TcpStream>, asked: &mut Request) {
    let (up, down) = (masked(FIN | TEXT, b"up"), unmasked(FIN | TEXT, b"down"));
    stream.write_all(&up).await.expect("it is open");
    stream.flush().await.expect("it is open");
    assert_eq!(asked.bytes(up.len()).await, up);
    asked.send(&down).await;
    assert_eq!(read(stream, down.len()).await, down);
}

#[tokio::test]
async fn a_websocket_goes_through_tls() {
    let (certificate, upstream) = (Certificate::new(), Upstream::new());
    let proxy = certificate.proxy(&upstream).await;
    let stream = certificate.connect(&proxy).await;
    let (mut stream, mut asked) = joined(stream, &upstream).await;
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    goes_both_ways(&mut stream, &mut asked).await;
    stream.shutdown().await.expect("it is open");
    asked.ended().await;
}

#[tokio::test]
async fn http_2_is_agreed_on_and_spoken() {
    let certificate = Certificate::new();
    let upstream = Upstream::new();
    let proxy = certificate.proxy(&upstream).await;
    let _backend = Backend::at(upstream, "backend", std::time::Duration::ZERO);
    let stream = certificate.try_connect(&proxy, &["h2", "http/1.1"]).await;
    let stream = stream.expect("a good TLS handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/").body(Empty::<Bytes>::new());
    let asking = sender.send_request(request.expect("a request"));
    let answer = within_guard("an answer", asking).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), "backend");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let (mut certificate, upstream) = (Certificate::new(), Upstream::new());
    let proxy = certificate.proxy(&upstream).await;
    let stream = certificate.connect(&proxy).await;
    let (mut stream, mut asked) = joined(stream, &upstream).await;

    std::fs::write(certificate.path("key.pem"), "").expect("the folder is ours");
    proxy.signal(Signal::HUP);
    let line = proxy
        .logged("cannot load the certificate again, the old one stays")
        .await;
    assert!(line.field("reason").contains("key.pem"), "{}", line.text);
    certificate.connect(&proxy).await;

    let old = certificate.connector.clone();
    certificate.renew();
    proxy.signal(Signal::HUP);
    proxy.logged("certificate loaded again").await;
    certificate.connect(&proxy).await;
    certificate.connector = old;
    assert!(certificate.try_connect(&proxy, &[]).await.is_err());
    goes_both_ways(&mut stream, &mut asked).await;
}

#[tokio::test]
async fn who_speaks_plain_http_is_told_so() {
    let (certificate, upstream) = (Certificate::new(), Upstream::new());
    let proxy = certificate.proxy(&upstream).await;
    let mut client = proxy.client().await;
    client
        .send(request("GET / HTTP/1.1", &[("Host", "localhost")]))
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 400);
    assert!(client.body(&head).await.contains("https://"));
    client.ended().await;
    certificate.connect(&proxy).await;
}

/// As those do who write over the old one: without SIGHUP.
#[tokio::test]
async fn a_certificate_that_has_changed_is_noticed() {
    let (mut certificate, upstream) = (Certificate::new(), Upstream::new());
    let proxy = certificate.proxy(&upstream).await;
    certificate.renew();
    proxy.logged("certificate loaded again").await;
    certificate.connect(&proxy).await;
}

#[tokio::test]
async fn bad_files_are_wrong_usage() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.file("cert.pem"), certificate.file("key.pem"));
    let serve = [
        "proxy",
        "--upstream",
        "localhost:1",
        "--serve-address",
        "localhost:0",
    ];
    let cases: [(&[&str], &str); 4] = [
        (&["--tls-cert", &cert], "--tls-key"),
        (
            &["--tls-cert", &key, "--tls-key", &key],
            "there is no certificate in it",
        ),
        (
            &["--tls-cert", &cert, "--tls-key", &cert],
            "there is no key in it",
        ),
        (
            &["--tls-cert", "gone.pem", "--tls-key", &key],
            "no such file",
        ),
    ];
    for (args, expected) in cases {
        let output = output(&[&serve, args].concat(), &[]).await;
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn an_upstream_behind_tls_is_verified() {
    let (certificate, upstream) = (Certificate::new(), Upstream::new());
    let chain = CertificateDer::from_pem_file(certificate.path("cert.pem"));
    let key = PrivateKeyDer::from_pem_file(certificate.path("key.pem"));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![chain.expect("a certificate")], key.expect("a key"));
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("they belong together")));
    let url = format!("https://localhost:{}", upstream.address().port());
    let ca = certificate.file("cert.pem");

    let proxy = Proxy::start(&["--upstream", &url, "--upstream-ca", &ca]).await;
    let mut client = proxy.client().await;
    client.send(handshake("/feed")).await;
    let accepting = acceptor.accept(upstream.accept_socket().await);
    let stream = within_guard("a TLS handshake", accepting).await;
    let mut asked = Request::read(stream.expect("a good TLS handshake")).await;
    asked.switch(b"").await;
    assert_eq!(client.head().await.status, 101);
    client.send(b"up").await;
    assert_eq!(asked.bytes(2).await, b"up");

    // Who does not trust it sends it nothing.
    let proxy = Proxy::start(&["--upstream", &url]).await;
    let mut client = proxy.client().await;
    client.send(handshake("/feed")).await;
    let accepting = acceptor.accept(upstream.accept_socket().await);
    assert!(within_guard("a TLS handshake", accepting).await.is_err());
    let status = client.head().await.status;
    assert!([502, 503].contains(&status), "{status}");
}
