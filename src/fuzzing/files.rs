//! What stands in files, and in tokens that are signed with what does.

use std::path::Path;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use toml::de::{DeTable, DeValue};

use super::option;
use crate::auth::jwt::Keys;
use crate::auth::token_file::Tokens;
use crate::cli::config::{self, ConfigFile, Unusable};

/// A configuration file: either it says a hop, whose routes are the rows of flags that they were read from, or what is wrong with it, each
/// with a line that there is. No file that it names is read.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if DeTable::parse(text).is_ok_and(|table| {
        table
            .get_ref()
            .iter()
            .any(|(_, value)| names_a_file(value.get_ref()))
    }) {
        return;
    }
    let file = ConfigFile::at(Path::new("file.toml")).expect("nothing is wrong beside the file");
    match file.left_alone().read(text) {
        Ok(loaded) => {
            assert!(!loaded.hop.routes.is_empty());
            for policy in &loaded.hop.routes {
                config::route_matches(policy).expect("a row of flags");
            }
            let file = loaded.hop.file.expect("it comes from one");
            assert_eq!(file.suits(&loaded.hop.routes), Ok(()));
            assert!(file.differences(&file).is_empty());
        }
        Err(Unusable::File(_, faults)) => {
            assert!(!faults.is_empty());
            let lines = text.lines().count().max(1);
            for fault in faults {
                assert!(!fault.reason.is_empty());
                let line = fault.line.unwrap_or(1);
                assert!((1..=lines).contains(&line), "line {line} of {lines}");
            }
        }
        Err(Unusable::Usage(error)) => panic!("it is the file's: {error}"),
    }
}

/// Whether a text in it begins with `@`, which stands for what is in a file.
fn names_a_file(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => text.starts_with('@'),
        DeValue::Array(values) => values.iter().any(|value| names_a_file(value.get_ref())),
        DeValue::Table(table) => table.iter().any(|(_, value)| names_a_file(value.get_ref())),
        _ => false,
    }
}

const SECRET: &[u8] = include_bytes!("../auth/jwt/vectors/secret.txt");
const JWKS: &[u8] = include_bytes!("../auth/jwt/vectors/jwks.json");

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let mut keys = Keys::new(None, None);
    keys.add(JWKS).expect("a good file");
    keys
});
static OWN_KEY: LazyLock<hmac::Key> =
    LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, b"known to nobody, not to a fuzzer"));
static OWN: LazyLock<Keys> = LazyLock::new(|| {
    let mut keys = Keys::new(None, None);
    keys.add(b"known to nobody, not to a fuzzer")
        .expect("it is long enough");
    keys
});

/// A JWT. The first byte says what the rest is:
///
/// - `0`: a token as it comes, checked with keys that others have; it is good only if another reading of RFC 7515 says so;
/// - `1`: the claims of one that is signed, so that they are looked at;
/// - `2`: header and claims, with a line end between them;
/// - `3`: a file of keys.
pub fn jwt(input: &[u8]) {
    let (options, input) = option(input);
    match options & 3 {
        0 => {
            if KEYS.check(input).is_ok() {
                assert!(is_signed(input), "nobody has signed it");
            }
        }
        1 => check_signed(br#"{"alg":"HS256"}"#, input),
        2 => {
            let end = memchr::memchr(b'\n', input).unwrap_or(input.len());
            let (header, claims) = input.split_at(end);
            check_signed(header, claims.get(1..).unwrap_or_default());
        }
        _ => {
            if let Err(reason) = Keys::new(None, None).add(input) {
                assert!(!reason.contains('\n'), "{reason:?}");
            }
        }
    }
}

fn check_signed(header: &[u8], claims: &[u8]) {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&OWN_KEY, message.as_bytes()));
    if let Ok(claims) = OWN.check(format!("{message}.{signature}").as_bytes()) {
        assert!(!claims.name.is_empty() && claims.name.chars().count() <= 128);
        assert!(!claims.name.contains(char::is_control));
    }
    let forged = OWN.check(format!("{message}.{}", "A".repeat(43)).as_bytes());
    assert!(forged.is_err(), "nobody has signed it");
}

/// Whether it is one of those whose makers have the keys, or signed with the secret that is public here.
fn is_signed(token: &[u8]) -> bool {
    let known = include_str!("../auth/jwt/vectors/tokens.txt");
    let mut known = known.lines().filter_map(|line| line.split(' ').nth(2));
    if known.any(|known| known.as_bytes() == token) {
        return true;
    }
    let Some(dot) = memchr::memrchr(b'.', token) else {
        return false;
    };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(&token[dot + 1..]) else {
        return false;
    };
    let algorithms = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
    algorithms.into_iter().any(|algorithm| {
        let key = hmac::Key::new(algorithm, SECRET.trim_ascii_end());
        hmac::verify(&key, &token[..dot], &signature).is_ok()
    })
}

/// A token file: what ends its lines does not matter, and what is wrong is said of a line that there is. Nobody has a token by accident.
pub fn token_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let tokens = Tokens::parse(text);
    if !text.contains('\r') {
        assert_eq!(Tokens::parse(&text.replace('\n', "\r\n")), tokens);
    }
    match tokens {
        Ok(tokens) => {
            for token in ["", "a token that nobody has", text] {
                assert!(tokens.find(token.as_bytes()).is_none());
            }
            if let Some((name, _)) = tokens.everyone() {
                assert!(!name.contains(char::is_control));
            }
        }
        Err(wrong) => {
            let lines = text.lines().count().max(1);
            assert!((1..=lines).contains(&wrong.line.unwrap_or(1)));
            assert!(!wrong.reason.contains('\n'), "{:?}", wrong.reason);
        }
    }
}
