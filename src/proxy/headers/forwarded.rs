//! Who has asked, and for what: `Forwarded` (RFC 7239), and what was in use before it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether a field says where a request comes from, which is a proxy's to say.
pub(super) fn is_claim(name: &str) -> bool {
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

/// Tells the upstream that `client` has asked for `host`. If the client is `trusted`, what it says of the way that the request
/// has come is left, and itself added to it.
pub(super) fn tell(
    headers: &mut HeaderMap,
    client: IpAddr,
    https: bool,
    host: Option<HeaderValue>,
    trusted: bool,
) {
    let proto = if https { "https" } else { "http" };
    let mut text = [0; MAX_ADDRESS];
    let client = text_of(client, &mut text);
    // Of a proxy that sends one of the two, the other one would say that it is the client.
    let (has_for, has_forwarded) = match trusted {
        true => (
            headers.contains_key(&FOR),
            headers.contains_key(header::FORWARDED),
        ),
        false => (false, false),
    };
    if has_for || !has_forwarded {
        let value = HeaderValue::from_bytes(client).expect("an address");
        add(headers, FOR, value, has_for);
    }
    if has_forwarded || !has_for {
        let element = element(client, host.as_ref(), proto);
        add(headers, header::FORWARDED, element, has_forwarded);
    }
    if !trusted || !headers.contains_key(&PROTO) {
        headers.insert(PROTO, HeaderValue::from_static(proto));
    }
    if let Some(host) = host
        && (!trusted || !headers.contains_key(&HOST))
    {
        headers.insert(HOST, host);
    }
}

/// Who has asked, by what proxies say on the way: the last address that is not itself a trusted one (the list grows at its
/// end, so what is before that may be made up). None if nothing is said.
pub(super) fn asker(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let (name, is_list_of_pairs) = match headers.contains_key(&FOR) {
        true => (FOR, false),
        false => (header::FORWARDED, true),
    };
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    let mut last = None;
    for element in lines.iter().flat_map(|line| line.split(',')).rev() {
        let address = match is_list_of_pairs {
            true => element.split(';').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                key.eq_ignore_ascii_case("for").then_some(value)
            }),
            false => Some(element),
        };
        let Some(address) = address.and_then(address_in) else {
            break;
        };
        last = Some(address);
        if !is_trusted(address) {
            break;
        }
    }
    last
}

/// An address, perhaps with a port, brackets and quotes (RFC 7239, section 6).
fn address_in(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let bare = text.trim_matches(['[', ']']).parse().ok();
    bare.or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

/// As long as an IPv6 address can be.
const MAX_ADDRESS: usize = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

fn text_of(client: IpAddr, text: &mut [u8; MAX_ADDRESS]) -> &[u8] {
    let mut rest = &mut text[..];
    write!(rest, "{client}").expect("room for an address");
    let left = rest.len();
    &text[..MAX_ADDRESS - left]
}

/// One element of Forwarded (RFC 7239, section 4). What holds a colon or a bracket is quoted (section 6).
fn element(client: &[u8], host: Option<&HeaderValue>, proto: &str) -> HeaderValue {
    let host = host.map_or(&b""[..], HeaderValue::as_bytes);
    let room = r#"for="[]";host="";proto="#.len() + client.len() + 2 * host.len() + proto.len();
    let mut element = Vec::with_capacity(room);
    element.extend_from_slice(b"for=");
    match client.contains(&b':') {
        true => {
            element.extend_from_slice(b"\"[");
            element.extend_from_slice(client);
            element.extend_from_slice(b"]\"");
        }
        false => element.extend_from_slice(client),
    }
    if !host.is_empty() {
        element.extend_from_slice(b";host=");
        push_value(host, &mut element);
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(proto.as_bytes());
    HeaderValue::from_bytes(&element).expect("of values")
}

/// A token as it is, and anything else as a quoted string (RFC 9110, sections 5.6.2 and 5.6.4).
fn push_value(value: &[u8], out: &mut Vec<u8>) {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if value.iter().all(is_token) {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Puts `value` behind what is there: in one line, as some read only one.
fn add(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, is_there: bool) {
    if !is_there {
        headers.insert(name, value);
        return;
    }
    let mut lines: Vec<&[u8]> = headers
        .get_all(&name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    lines.push(value.as_bytes());
    let joined = HeaderValue::from_bytes(&lines.join(&b", "[..])).expect("of values");
    headers.insert(name, joined);
}
