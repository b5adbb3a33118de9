use rcgen::{CertifiedKey, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};

use super::*;
use crate::reason;

/// The two files, and what a client must trust.
struct Files {
    folder: TempDir,
    roots: RootCertStore,
}

impl Files {
    fn new() -> Self {
        let mut files = Self {
            folder: tempfile::tempdir().expect("a folder for the test"),
            roots: RootCertStore::empty(),
        };
        files.renew();
        files
    }

    /// A new certificate with a new key. Only it is trusted from now on.
    fn renew(&mut self) {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        self.write("cert.pem", &cert.pem());
        self.write("key.pem", &signing_key.serialize_pem());
        self.roots = RootCertStore::empty();
        self.roots
            .add(cert.der().clone())
            .expect("a good certificate");
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder is ours");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Result<Tls> {
        Tls::load(self.files("cert.pem", "key.pem"))
    }

    fn files(&self, certificate: &str, key: &str) -> super::Files {
        let client_ca = self.path("ca.pem");
        super::Files {
            certificate: self.path(certificate),
            key: self.path(key),
            client_ca: client_ca.exists().then_some(client_ca),
        }
    }

    /// What is said when the files cannot be loaded, without the names of folders.
    fn refused(&self) -> String {
        let error = self.load().err().expect("the files are bad");
        let folder = format!("{}/", self.folder.path().display());
        reason::of(&error).replace(&folder, "")
    }

    fn client(&self, protocols: &[&[u8]]) -> TlsConnector {
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that ring has")
            .with_root_certificates(self.roots.clone());
        let identity = tls::read_identity(&self.path("cert.pem"), &self.path("key.pem"));
        let identity = SingleCertAndKey::from(identity.expect("good files"));
        let mut config = match self.path("ca.pem").exists() {
            true => config.with_client_cert_resolver(Arc::new(identity)),
            false => config.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config).into()
    }
}

/// A connection of this client, on which a byte has gone from the server to it; the protocol agreed on.
async fn connect(
    tls: &Tls,
    client: &TlsConnector,
) -> io::Result<(Option<HandshakeKind>, Option<Vec<u8>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = async {
        let opened = tls.open(listener.accept().await?.0, OPENING).await;
        let (mut stream, _) = opened.map_err(io::Error::other)?;
        stream.write_u8(1).await?;
        stream.shutdown().await
    };
    let asking = async {
        let name = "localhost".try_into().expect("it is a name");
        let socket = TcpStream::connect(address).await?;
        let mut stream = client.connect(name, socket).await?;
        if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            stream.write_all(HTTP2_PREFACE).await?;
        }
        // Tickets come behind the handshake.
        assert_eq!(stream.read_u8().await?, 1);
        let connection = stream.get_ref().1;
        let protocol = connection.alpn_protocol().map(<[u8]>::to_vec);
        io::Result::Ok((connection.handshake_kind(), protocol))
    };
    let (served, asked) = tokio::join!(serving, asking);
    let asked = asked?;
    served?;
    Ok(asked)
}

#[tokio::test]
async fn both_agree_on_a_protocol() {
    let files = Files::new();
    let tls = files.load().expect("good files");
    let expect = async |offered: &[&[u8]], expected: Option<&[u8]>| {
        let (_, protocol) = connect(&tls, &files.client(offered)).await.expect("TLS");
        assert_eq!(protocol.as_deref(), expected);
    };
    expect(&[b"http/1.1", b"h2"], Some(b"h2")).await;
    expect(&[b"http/1.1"], Some(b"http/1.1")).await;
    expect(&[b"h3", b"http/1.1"], Some(b"http/1.1")).await;
    expect(&[], None).await;
    assert!(connect(&tls, &files.client(&[b"h3"])).await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed_even_after_a_reload() {
    let files = Files::new();
    let tls = files.load().expect("good files");
    let client = files.client(&[]);
    let (kind, _) = connect(&tls, &client).await.expect("TLS");
    assert_eq!(kind, Some(HandshakeKind::Full));
    let (kind, _) = connect(&tls, &client).await.expect("TLS");
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    tls.reload().expect("good files");
    let (kind, _) = connect(&tls, &client).await.expect("TLS");
    assert_eq!(kind, Some(HandshakeKind::Resumed));
}

/// What a resumed session shows is no certificate, so it must not be enough.
#[tokio::test]
async fn where_clients_need_a_certificate_each_shows_it() {
    let files = Files::new();
    // They show the server's own, which is signed by itself.
    let certificate = fs::read_to_string(files.path("cert.pem")).expect("it is there");
    files.write("ca.pem", &certificate);
    let tls = files.load().expect("good files");
    let client = files.client(&[]);
    for _ in 0..3 {
        let (kind, _) = connect(&tls, &client).await.expect("TLS");
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
    let other = Files::new();
    let certificate = fs::read_to_string(other.path("cert.pem")).expect("it is there");
    files.write("ca.pem", &certificate);
    tls.reload().expect("good files");
    assert!(connect(&tls, &client).await.is_err());
}

/// A server's end of a connection, and the client's.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens");
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (accepted.expect("a client").0, connected.expect("a server"))
}

/// With the clock paused, a timer is over as soon as nothing else can happen.
#[tokio::test(start_paused = true)]
async fn who_begins_a_handshake_and_stops_is_given_up() {
    let files = Files::new();
    let tls = files.load().expect("good files");
    // The header of a record of 512 bytes that do not come, and nothing at all.
    for begun in [&b"\x16\x03\x01\x02\x00\x01"[..], b""] {
        let (server, mut client) = pair().await;
        client.write_all(begun).await.expect("it is open");
        let error = tls
            .open(server, OPENING)
            .await
            .err()
            .expect("it takes too long");
        assert!(reason::of(&error).starts_with("the client takes too long"));
        let mut rest = vec![];
        // A reset is an end as well.
        let _ = client.read_to_end(&mut rest).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_agrees_on_http_2_and_does_not_begin_it_is_given_up() {
    let files = Files::new();
    let tls = files.load().expect("good files");
    let client = files.client(&[b"h2"]);
    let (server, socket) = pair().await;
    let name = "localhost".try_into().expect("it is a name");
    let (opened, _stream) = tokio::join!(tls.open(server, OPENING), client.connect(name, socket));
    let error = opened.err().expect("it takes too long");
    assert!(reason::of(&error).starts_with("the client takes too long"));
}

#[tokio::test]
async fn a_reload_takes_the_new_certificate_unless_it_is_broken() {
    let mut files = Files::new();
    let tls = files.load().expect("good files");
    let old = files.client(&[]);
    files.write("key.pem", "");
    assert!(tls.reload().is_err());
    assert!(connect(&tls, &old).await.is_ok(), "the old one has stayed");
    files.renew();
    tls.reload().expect("good files");
    assert!(connect(&tls, &files.client(&[])).await.is_ok());
    let (_, stranger) = (files.renew(), files.client(&[]));
    assert!(connect(&tls, &stranger).await.is_err());
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let files = Files::new();
    let read = |name| fs::read_to_string(files.path(name)).expect("it is there");
    let (certificate, key) = (read("cert.pem"), read("key.pem"));
    assert!(files.load().is_ok());

    files.write("key.pem", &certificate);
    assert_eq!(
        files.refused(),
        "cannot read the key key.pem: there is no key in it (PEM without a passphrase is expected)"
    );
    let other = KeyPair::generate().expect("a key");
    files.write("key.pem", &other.serialize_pem());
    assert_eq!(
        files.refused(),
        "the key key.pem does not belong to the certificate cert.pem"
    );
    fs::remove_file(files.path("key.pem")).expect("it is there");
    assert_eq!(
        files.refused(),
        "cannot read the key key.pem: no such file or directory"
    );
    files.write("cert.pem", &key);
    assert_eq!(
        files.refused(),
        "cannot read the certificate cert.pem: there is no certificate in it (PEM is expected)"
    );
    fs::remove_file(files.path("cert.pem")).expect("it is there");
    assert_eq!(
        files.refused(),
        "cannot read the certificate cert.pem: no such file or directory"
    );
    // One file may hold both.
    files.write("both.pem", &format!("{certificate}{key}"));
    assert!(Tls::load(files.files("both.pem", "both.pem")).is_ok());
    // Whose clients are let in is known, or nobody's are.
    files.write("ca.pem", &key);
    let error = Tls::load(files.files("both.pem", "both.pem")).err();
    let said = reason::of(&error.expect("there is no certificate in it"));
    assert!(said.starts_with("clients cannot be checked: "), "{said}");
}
