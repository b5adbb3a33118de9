use std::io::Write;

use tempfile::NamedTempFile;

use super::*;

fn spec(text: &str) -> Spec {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn an_upstream_is_read_and_written() {
    for (text, https, host, port, written) in [
        ("localhost:8080", false, "localhost", 8080, "localhost:8080"),
        (
            "http://localhost:8080",
            false,
            "localhost",
            8080,
            "localhost:8080",
        ),
        (
            "ws://Example.COM",
            false,
            "example.com",
            80,
            "example.com:80",
        ),
        (
            "HTTPS://example.com",
            true,
            "example.com",
            443,
            "https://example.com:443",
        ),
        (
            "wss://example.com:8443",
            true,
            "example.com",
            8443,
            "https://example.com:8443",
        ),
        ("127.0.0.1:80", false, "127.0.0.1", 80, "127.0.0.1:80"),
        ("[::1]:8080", false, "::1", 8080, "[::1]:8080"),
        ("[0:0::1]:8080", false, "::1", 8080, "[::1]:8080"),
        (
            "https://[2001:db8::1]",
            true,
            "2001:db8::1",
            443,
            "https://[2001:db8::1]:443",
        ),
        (
            "my_host-1.local:1",
            false,
            "my_host-1.local",
            1,
            "my_host-1.local:1",
        ),
        (
            "bücher.example:80",
            false,
            "xn--bcher-kva.example",
            80,
            "xn--bcher-kva.example:80",
        ),
    ] {
        let spec = spec(text);
        let read = (spec.https, &*spec.host, spec.port, spec.weight, spec.max);
        assert_eq!(read, (https, host, port, 1, None), "{text}");
        assert_eq!(spec.to_string(), written);
        assert_eq!(written.parse(), Ok(spec));
    }
}

#[test]
fn weight_and_limit_are_settings() {
    for (text, weight, max, written) in [
        ("a:1,weight=2", 2, None, "a:1,weight=2"),
        ("a:1,max=10", 1, Some(10), "a:1,max=10"),
        (
            "a:1, max=10 ,weight=1000",
            1000,
            Some(10),
            "a:1,weight=1000,max=10",
        ),
        ("a:1,weight=1", 1, None, "a:1"),
    ] {
        let spec = spec(text);
        assert_eq!((spec.weight, spec.max), (weight, max), "{text}");
        assert_eq!(spec.name(), "a:1");
        assert_eq!(spec.to_string(), written);
        assert_eq!(written.parse(), Ok(spec));
    }
}

#[test]
fn a_host_has_no_port_that_goes_without_saying() {
    for (text, authority) in [
        ("localhost:8080", "localhost:8080"),
        ("localhost:80", "localhost"),
        ("localhost:443", "localhost:443"),
        ("https://localhost:443", "localhost"),
        ("https://[::1]:80", "[::1]:80"),
    ] {
        assert_eq!(spec(text).authority(), authority);
    }
}

#[test]
fn what_is_wrong_with_an_upstream_is_said() {
    for (text, why) in [
        ("", "'' has no port"),
        (
            "localhost",
            "'localhost' has no port: HOST:PORT is expected",
        ),
        ("8080", "'8080' has no port"),
        ("[::1]", "'[::1]' has no port"),
        ("localhost:", "'localhost:': '' is not a port"),
        (
            "localhost:0",
            "'localhost:0': '0' is not a port: a number from 1",
        ),
        (
            "localhost:65536",
            "'localhost:65536': '65536' is not a port",
        ),
        ("localhost:+80", "'localhost:+80': '+80' is not a port"),
        (":80", "':80': '' is not a host"),
        ("a b:80", "'a b:80': 'a b' is not a host"),
        ("::1:8080", "'::1:8080': an IPv6 address needs brackets"),
        ("[::1:8080", "'[::1:8080': '[::1' is not a host"),
        ("[::g]:80", "'[::g]:80': '[::g]' is not a host"),
        (
            "http://localhost:80/",
            "'http://localhost:80/' has a path, and requests keep their own",
        ),
        ("localhost:80/events", "'localhost:80/events' has a path"),
        ("localhost:80?a", "'localhost:80?a' has a path"),
        (
            "tcp://localhost:80",
            "tcp:// cannot be an upstream: http:// and https:// can",
        ),
        ("a:1,weight=0", "weight=0: a whole number from 1 to 1000"),
        ("a:1,weight=1001", "weight=1001: a whole number"),
        ("a:1,weight=x", "weight=x: a whole number"),
        (
            "a:1,max=0",
            "max=0: a number of connections is expected, at least 1",
        ),
        ("a:1,max=-1", "max=-1: a number of connections"),
        ("a:1,weight=1,weight=2", "weight is said twice"),
        ("a:1,max=1,max=1", "max is said twice"),
        (
            "a:1,backup",
            "'backup' is not a setting of an upstream: weight=N and max=N are",
        ),
        ("a:1,", "'' is not a setting"),
    ] {
        let error = text.parse::<Spec>().expect_err(text);
        assert!(error.starts_with(why), "{text}: {error}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_password_is_not_shown() {
    for text in [
        "http://me:secret@a:1",
        "me:secret@a:1",
        "a:1,x@secret",
        "http://me:secret@a:1/path",
    ] {
        let error = text.parse::<Spec>().expect_err(text);
        assert!(
            error.starts_with("a user name or password has no place"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn an_upstream_that_is_there_twice_is_an_error() {
    let check = |texts: &[&str]| {
        let specs: Vec<_> = texts.iter().map(|text| spec(text)).collect();
        check(&specs).map_err(|error| error.to_string())
    };
    assert_eq!(check(&["a:1", "a:2", "b:1", "https://a:1"]), Ok(()));
    let twice = Err("a:80 is there twice: give it a weight instead".to_owned());
    assert_eq!(check(&["a:80", "b:1", "http://A,weight=2"]), twice);
    assert!(check(&[]).is_err());
}

fn read(text: &[u8]) -> Result<Vec<Spec>, String> {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text).expect("written");
    let path = file.path().display().to_string();
    read_file(file.path()).map_err(|error| crate::reason::of(&error).replace(&path, "FILE"))
}

#[test]
fn a_file_has_one_upstream_a_line() {
    let text = "\u{feff}# ours\r\n\r\n  a:1  \r\n\tb:2,weight=3 # the large one\n#c:3\nd:4";
    assert_eq!(
        read(text.as_bytes()),
        Ok(vec![spec("a:1"), spec("b:2,weight=3"), spec("d:4")])
    );
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    for (text, why) in [
        (&b""[..], "FILE: there is no upstream in it"),
        (b"# a:1\n\n", "FILE: there is no upstream in it"),
        (b"a:1\n\nb\n", "FILE, line 3: 'b' has no port"),
        (
            b"a:1\nb:1\nws://a:1",
            "FILE, line 3: a:1 is in line 1 already",
        ),
        (b"a:1\n\xff", "cannot read upstreams from FILE: "),
    ] {
        let error = read(text).expect_err(why);
        assert!(error.starts_with(why), "{error}");
    }
    let error = read_file(Path::new("/nowhere/upstreams")).expect_err("there is none");
    let why = "cannot read upstreams from /nowhere/upstreams: no such file or directory";
    assert_eq!(crate::reason::of(&error), why);
}
