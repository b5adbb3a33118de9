use rcgen::{CertifiedKey, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
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
        Tls::load(&self.path("cert.pem"), &self.path("key.pem"))
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
        let mut config = config.with_no_client_auth();
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
        let mut stream = tls.accept(listener.accept().await?.0).await?;
        stream.write_u8(1).await?;
        stream.shutdown().await
    };
    let asking = async {
        let name = "localhost".try_into().expect("it is a name");
        let socket = TcpStream::connect(address).await?;
        let mut stream = client.connect(name, socket).await?;
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
    let both = files.path("both.pem");
    assert!(Tls::load(&both, &both).is_ok());
}
