use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::yield_now;

use super::*;

/// Two ends of a connection, the reading one last.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let (writer, reader) = tokio::join!(TcpStream::connect(address), listener.accept());
    (writer.expect("it listens"), reader.expect("a client").0)
}

/// What `read` makes of a connection on which these bytes arrive, and what it leaves of them.
async fn read_of(bytes: &[u8]) -> (Result<Proxied, Failure>, Vec<u8>) {
    let (mut writer, mut reader) = connection().await;
    writer.write_all(bytes).await.expect("it is read");
    writer.shutdown().await.expect("it is open");
    let result = read(&mut reader).await;
    let mut left = vec![];
    reader.read_to_end(&mut left).await.expect("it ends");
    (result, left)
}

/// Reads a header that is a good one with something behind it.
async fn good(header: &[u8]) -> Proxied {
    let (result, left) = read_of(&[header, b"GET /"].concat()).await;
    let shown = header.escape_ascii();
    assert_eq!(left, b"GET /", "behind {shown}");
    result.unwrap_or_else(|failure| panic!("{shown}: {failure}"))
}

/// Reads a header that is a bad one.
async fn bad(header: &[u8]) -> String {
    match read_of(header).await.0 {
        Ok(proxied) => panic!("{} is {proxied:?}", header.escape_ascii()),
        Err(failure) => failure.to_string(),
    }
}

fn proxied(source: &str, destination: &str) -> Proxied {
    let parse = |address: &str| address.parse().expect("an address");
    Proxied {
        source: parse(source),
        destination: parse(destination),
    }
}

/// A header of version 2.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family][..], &length, rest].concat()
}

#[tokio::test]
async fn examples_of_the_specification() {
    // Section 2.1.
    let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
    let expected = proxied("192.168.0.1:56324", "192.168.0.11:443");
    assert_eq!(good(line).await, expected);
    assert_eq!(write(Version::V1, expected), line);
    // The longest lines there are, with their lengths.
    let line = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert_eq!(line.len(), 56);
    let expected = proxied("255.255.255.255:65535", "255.255.255.255:65535");
    assert_eq!(good(line).await, expected);
    let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let line = format!("PROXY TCP6 {full} {full} 65535 65535\r\n");
    assert_eq!(line.len(), 104);
    let address = format!("[{full}]:65535");
    let expected = proxied(&address, &address);
    assert_eq!(good(line.as_bytes()).await, expected);
    assert_eq!(write(Version::V1, expected), line.as_bytes());
}

/// Recorded from HAProxy 2.6: `send-proxy`, `send-proxy-v2`, and that with a checksum and a unique id behind it.
#[tokio::test]
async fn headers_of_haproxy() {
    let line = b"PROXY TCP4 127.0.0.1 127.0.0.1 42950 18101\r\n";
    let expected = proxied("127.0.0.1:42950", "127.0.0.1:18101");
    assert_eq!(good(line).await, expected);
    assert_eq!(write(Version::V1, expected), line);

    let line = b"PROXY TCP6 ::1 ::1 38616 18103\r\n";
    let expected = proxied("[::1]:38616", "[::1]:18103");
    assert_eq!(good(line).await, expected);
    assert_eq!(write(Version::V1, expected), line);

    let header = b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\xdd\"F\xb6";
    let expected = proxied("127.0.0.1:56610", "127.0.0.1:18102");
    assert_eq!(good(header).await, expected);
    assert_eq!(write(Version::V2, expected), header);

    let header = b"\r\n\r\n\x00\r\nQUIT\n!!\x00$\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\
        \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x80\xa2F\xb8";
    let expected = proxied("[::1]:32930", "[::1]:18104");
    assert_eq!(good(header).await, expected);
    assert_eq!(write(Version::V2, expected), header);

    let header = b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x1e\x7f\x00\x00\x01\x7f\x00\x00\x01\xe0^F\xb9\
        \x03\x00\x04\xc8\xd7\xc6\xba\x05\x00\x00 \x00\x05\x00\x00\x00\x00\x00";
    let expected = proxied("127.0.0.1:57438", "127.0.0.1:18105");
    assert_eq!(good(header).await, expected);
}

#[tokio::test]
async fn without_addresses_the_connection_has_its_own() {
    let ones = [1; 16 + 16 + 2 + 2];
    let unix = [1; 2 * 108];
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN \r\n".to_vec(),
        b"PROXY UNKNOWN 1 2 3 4 5 6 7 8 9\r\n".to_vec(),
        b"PROXY UNKNOWN \xff\xfe\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'f'; 91][..], b"\r\n"].concat(),
        binary(LOCAL, 0, b""),
        // The family of such a header is ignored, whatever it is.
        binary(LOCAL, TCP4, &ones),
        binary(LOCAL, 0xff, &ones),
        binary(PROXY, 0, b""),
        binary(PROXY, 0, &ones),
        // Datagrams, sockets of Unix, and what has a family only.
        binary(PROXY, 0x12, &ones),
        binary(PROXY, 0x20, &ones),
        binary(PROXY, 0x31, &unix),
        binary(PROXY, 0, &[0; MAX_REST]),
        write_local(Version::V2, proxied("127.0.0.1:1", "127.0.0.1:2")),
    ];
    for header in headers {
        let (mut writer, mut reader) = connection().await;
        writer.write_all(&header).await.expect("it is read");
        let own = read(&mut reader).await.expect("it is a good header");
        let expected = Proxied {
            source: writer.local_addr().expect("it is open"),
            destination: writer.peer_addr().expect("it is open"),
        };
        assert_eq!(own, expected, "{}", header.escape_ascii());
    }
}

#[tokio::test]
async fn what_is_no_header_is_refused() {
    let begins = "no PROXY header: the connection begins otherwise";
    let address = "no PROXY header: its address is none";
    let port = "no PROXY header: its port is none";
    let end = "no PROXY header: its line does not end with CR LF";
    let long = "no PROXY header: its line is too long";
    let protocol = "no PROXY header: its protocol is not known";
    let cut = "the connection ended before its PROXY header";
    let too_long = [b"PROXY UNKNOWN ", &[b'f'; 92][..], b"\r\n"].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"", cut),
        (b"PRO", cut),
        (b"PROXY TCP4 1.2.3.4 ", cut),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r", cut),
        (b"GET / HTTP/1.1\r\n\r\n", begins),
        (b"G", begins),
        (b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", begins),
        (b"PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n", begins),
        (b"\r\n\r\n\0\r\nQUIT\r", begins),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", end),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rG\n", end),
        (b"PROXY UNKNOWN\n\r\n", end),
        (b"PROXY UNKNOWNS\r\n", protocol),
        (&too_long, long),
        (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", protocol),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", protocol),
        (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", protocol),
        (b"PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n", address),
        (b"PROXY TCP4 1.2.3.4 1.2.3.256 1 2\r\n", address),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", address),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", address),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", address),
        (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", address),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", address),
        (b"PROXY TCP6 [::1] [::1] 1 2\r\n", address),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", port),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", port),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", port),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", port),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1  2\r\n", port),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            "no PROXY header: there is more in its line",
        ),
        (
            b"PROXY TCP4 \xff.2.3.4 1.2.3.4 1 2\r\n",
            "no PROXY header: its line is not text",
        ),
    ];
    for (header, expected) in cases {
        assert_eq!(bad(header).await, *expected, "{}", header.escape_ascii());
    }
}

#[tokio::test]
async fn what_is_no_binary_header_is_refused() {
    let version = "no PROXY header: its version is not known";
    let command = "no PROXY header: its command is not known";
    let family = "no PROXY header: its address family is not known";
    let short = "no PROXY header: it is too short for its addresses";
    let cases = [
        (binary(0x11, TCP4, &[1; 12]), version),
        (binary(0x31, TCP4, &[1; 12]), version),
        (binary(0x22, TCP4, &[1; 12]), command),
        (binary(0x2f, TCP4, &[1; 12]), command),
        (binary(PROXY, 0x13, &[1; 12]), family),
        (binary(PROXY, 0x41, &[1; 12]), family),
        (binary(PROXY, 0x03, &[1; 12]), family),
        (binary(PROXY, TCP4, &[1; 11]), short),
        (binary(PROXY, TCP6, &[1; 35]), short),
        (binary(PROXY, 0x31, &[1; 215]), short),
        (
            binary(PROXY, TCP4, &[1; MAX_REST + 1]),
            "no PROXY header: it is too long",
        ),
    ];
    for (header, expected) in cases {
        assert_eq!(bad(&header).await, expected, "{}", header.escape_ascii());
    }
    let header = binary(PROXY, TCP4, &[1; 12]);
    for length in 0..header.len() {
        assert_eq!(
            bad(&header[..length]).await,
            "the connection ended before its PROXY header"
        );
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let expected = proxied("[2001:db8::1]:1234", "[2001:db8::2]:443");
    for version in [Version::V1, Version::V2] {
        let (mut writer, mut reader) = connection().await;
        writer.set_nodelay(true).expect("it is open");
        let header = write(version, expected);
        let writing = async {
            for byte in &header {
                writer.write_u8(*byte).await.expect("it is read");
                // The reader has its turn.
                yield_now().await;
            }
        };
        let (result, ()) = tokio::join!(read(&mut reader), writing);
        assert_eq!(result.expect("it is a good header"), expected);
    }
}

/// An allow-list of IPv4 networks must hold whichever way the address is written, and a header has one family.
#[tokio::test]
async fn addresses_of_ipv4_within_ipv6_are_ipv4() {
    let expected = proxied("10.1.2.3:1", "10.1.2.4:2");
    let line = b"PROXY TCP6 ::ffff:10.1.2.3 ::ffff:a01:204 1 2\r\n";
    assert_eq!(good(line).await, expected);
    let written = proxied("[::ffff:10.1.2.3]:1", "10.1.2.4:2");
    assert_eq!(
        write(Version::V1, written),
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2\r\n"
    );
    let mixed = proxied("[2001:db8::1]:1", "10.1.2.4:2");
    assert_eq!(
        write(Version::V1, mixed),
        b"PROXY TCP6 2001:db8::1 ::ffff:10.1.2.4 1 2\r\n"
    );
    for version in [Version::V1, Version::V2] {
        assert_eq!(good(&write(version, mixed)).await, mixed);
    }
}

#[test]
fn versions_have_names() {
    for version in [Version::V1, Version::V2] {
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    assert!("v3".parse::<Version>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr) {
        let proxied = Proxied { source, destination }.canonical();
        let runtime = Builder::new_current_thread().enable_io().build()?;
        for version in [Version::V1, Version::V2] {
            prop_assert_eq!(runtime.block_on(good(&write(version, proxied))), proxied);
        }
    }

    /// Whatever comes is a header or none, and nothing panics.
    #[test]
    fn anything_may_come(version_2: bool, rest: Vec<u8>) {
        let start = if version_2 { &SIGNATURE[..] } else { LINE_START };
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let _ = runtime.block_on(read_of(&[start, &rest].concat()));
    }
}
