//! A CA of our own, what it signs, and hops and clients that have it.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::client::Client;
use super::upstream::{Link, Upstream};
use super::within_guard;
use super::wsevent::Hop;

/// The names that certificates are for.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Who signs certificates. All that there is to it is in a folder: `ca.pem`, and `NAME.pem` with `NAME-key.pem` for each
/// that it has signed.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// One that has signed a certificate for `server`.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names are good names");
        // Some take a certificate for its own issuer if the names are the same.
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = Self {
            folder: tempfile::tempdir().expect("a folder for the test"),
            issuer: CertifiedIssuer::self_signed(params, key).expect("a CA"),
        };
        authority.write("ca.pem", &authority.issuer.pem());
        authority.sign("server");
        authority
    }

    /// Another certificate with another key, in place of what has this name.
    pub fn sign(&self, name: &str) {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).expect("good names");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}-key.pem"), &key.serialize_pem());
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("the folder is ours");
    }

    /// A file of it, as a flag has it.
    pub fn file(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("it is text").to_owned()
    }

    /// The certificate of this name.
    pub fn certificate(&self, name: &str) -> CertificateDer<'static> {
        let file = self.file(&format!("{name}.pem"));
        CertificateDer::from_pem_file(file).expect("it has been signed")
    }

    /// The flags of a server.
    pub fn flags(&self) -> [String; 4] {
        let (cert, key) = (self.file("server.pem"), self.file("server-key.pem"));
        ["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key]
    }

    /// The flags of whoever trusts it.
    pub fn trust(&self) -> [String; 2] {
        ["--consume-ca".to_owned(), self.file("ca.pem")]
    }

    /// A hop with TLS.
    pub async fn hop(&self, args: &[&str]) -> Hop {
        let flags = self.flags();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        Hop::start(&[&flags, args].concat()).await
    }

    /// The same, connected to a foreign server.
    pub async fn fed(&self, args: &[&str]) -> (Link, Hop) {
        let upstream = Upstream::new();
        let url = upstream.url();
        let hop = self.hop(&[&["--consume", &url], args].concat()).await;
        let link = upstream.accept().await;
        hop.logged("upstream connected").await;
        (link, hop)
    }

    /// A client that trusts it, shows this one's certificate if one is named, and offers these protocols (RFC 7301).
    pub fn client(&self, identity: Option<&str>, protocols: &[&str]) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("ca")).expect("a CA");
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}-key.pem")));
                let key = key.expect("it has been signed");
                let config = config.with_client_auth_cert(vec![self.certificate(name)], key);
                config.expect("they belong together")
            }
        };
        // A session that is resumed shows no certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        Secure(Arc::new(config).into())
    }

    /// A subscriber that trusts it, once it is sure to get what comes.
    pub async fn subscribe(&self, hop: &Hop) -> Client {
        let client = self.client(None, &[]).connect(hop.address).await;
        client.upgraded("/events").await
    }
}

/// How a client makes connections.
pub struct Secure(TlsConnector);

impl Secure {
    pub async fn try_over(&self, socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        socket.set_nodelay(true)?;
        let name = "localhost".try_into().expect("a name");
        within_guard("a TLS handshake", self.0.connect(name, socket)).await
    }

    pub async fn stream(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let connecting = TcpStream::connect(address);
        let socket = within_guard("a connection", connecting).await;
        let stream = self.try_over(socket.expect("it listens")).await;
        stream.expect("a good TLS handshake")
    }

    pub async fn connect(&self, address: SocketAddr) -> Client {
        Client::over(self.stream(address).await)
    }

    /// With a receive buffer so small that the server soon cannot write.
    pub async fn connect_with_buffer(&self, address: SocketAddr, bytes: u32) -> Client {
        let socket = TcpSocket::new_v4().expect("sockets can be made");
        socket
            .set_recv_buffer_size(bytes)
            .expect("sockets can do that");
        let socket = within_guard("a connection", socket.connect(address)).await;
        let stream = self.try_over(socket.expect("it listens")).await;
        Client::over(stream.expect("a good TLS handshake"))
    }
}
