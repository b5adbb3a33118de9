//! Tokens, and lines of the file that says what they are for.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::{digest, hmac};
use serde_json::{Value, json};

/// What JWTs are signed with.
pub const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// A line of the token file.
pub fn line(name: &str, token: &str, paths: &str, rights: &str) -> String {
    let mut hash = String::new();
    for byte in digest::digest(&digest::SHA256, token.as_bytes()).as_ref() {
        write!(hash, "{byte:02x}").expect("a String takes all");
    }
    format!("{name}:{hash}:{paths}:{rights}\n")
}

/// A JWT (RFC 7519) with these claims.
pub fn jwt(claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let head = part(&json!({"alg": "HS256", "typ": "JWT"}));
    let signed = format!("{head}.{}", part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature.as_ref()))
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_secs() as i64
}
