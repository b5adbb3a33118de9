use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

use super::*;
use crate::auth::Right;

const SECRET: &[u8] = include_bytes!("vectors/secret.txt");
const JWKS: &[u8] = include_bytes!("vectors/jwks.json");
const RSA: &[u8] = include_bytes!("vectors/rsa.pem");

fn keys(files: &[&[u8]]) -> Keys {
    let mut keys = Keys::new(None, None);
    for file in files {
        keys.add(file).expect("a good file");
    }
    keys
}

/// Tokens of another implementation: algorithm, key, token.
fn vectors() -> Vec<(&'static str, &'static str, &'static str)> {
    let lines = include_str!("vectors/tokens.txt").lines();
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words");
            (word(), word(), word())
        })
        .collect()
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn signed_with(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A good token.
fn signed(claims: &Value) -> String {
    signed_with(SECRET.trim_ascii_end(), &json!({"alg": "HS256"}), claims)
}

fn check(keys: &Keys, token: &str) -> Result<Claims, &'static str> {
    keys.check(token.as_bytes()).map_err(|denied| {
        assert_eq!(denied.status, 401);
        denied.reason
    })
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

const BAD_SIGNATURE: &str = "the token's signature is wrong";
const NO_KEY: &str = "no key here fits the token's alg and kid";
const NO_JWT: &str = "the token is not known here, and is no JWT that is";

#[test]
fn tokens_of_another_implementation_are_good() {
    let pem = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/auth/jwt/vectors");
        let end = if name == "secret" { "txt" } else { "pem" };
        std::fs::read(format!("{folder}/{name}.{end}")).expect("it is there")
    };
    let set = keys(&[JWKS]);
    for (algorithm, name, token) in vectors() {
        for keys in [&keys(&[&pem(name)]), &set] {
            let claims =
                check(keys, token).unwrap_or_else(|reason| panic!("{algorithm}: {reason}"));
            assert_eq!(&*claims.name, "alice");
            assert!(claims.rights.allow(Right::Subscribe, "/live/x"));
            assert!(claims.rights.allow(Right::Publish, "/live/b"));
            assert!(!claims.rights.allow(Right::Publish, "/live/x"));
            assert_eq!(claims.expires, None);
        }
        // Nobody else's key will do.
        for other in ["rsa", "p256", "p384", "ed25519", "secret"] {
            let result = check(&keys(&[&pem(other)]), token);
            assert_eq!(result.is_ok(), other == name, "{algorithm} {other}");
        }
    }
}

#[test]
fn a_changed_token_is_refused() {
    let set = keys(&[JWKS]);
    for (algorithm, _, token) in vectors() {
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let (header, _) = message.split_once('.').expect("three parts");
        let more = part(&json!({"wsevent.publish": "*"}));
        let forged = format!("{header}.{more}.{signature}");
        assert_eq!(check(&set, &forged), Err(BAD_SIGNATURE), "{algorithm}");
        for signature in ["", "AAAA"] {
            let unsigned = format!("{message}.{signature}");
            assert_eq!(check(&set, &unsigned), Err(BAD_SIGNATURE), "{algorithm}");
        }
        assert_eq!(check(&set, message), Err(NO_JWT), "{algorithm}");
    }
}

/// Who knows a public key, as everyone does, must not be able to sign with it as if it were a secret, nor to leave signing out (RFC 8725,
/// section 2.1).
#[test]
fn a_token_cannot_choose_its_algorithm() {
    let claims = json!({"sub": "mallory", "wsevent.publish": ["*"]});
    let der: Vec<u8> = {
        let key = keys(&[RSA]).keys.remove(0).key;
        key.try_get_as_bytes().expect("it has some").to_vec()
    };
    let trimmed = RSA.trim_ascii_end();
    for secret in [RSA, trimmed, &der, b""] {
        let token = signed_with(secret, &json!({"alg": "HS256"}), &claims);
        assert_eq!(check(&keys(&[RSA]), &token), Err(NO_KEY));
        // Also where there is a secret beside, or a kid that names the public key.
        assert_eq!(check(&keys(&[RSA, SECRET]), &token), Err(BAD_SIGNATURE));
        let header = json!({"alg": "HS256", "kid": "rsa"});
        let token = signed_with(secret, &header, &claims);
        assert_eq!(check(&keys(&[JWKS]), &token), Err(NO_KEY));
    }
    for alg in ["none", "None", "NONE", "", "HS1", "ES512"] {
        let token = signed_with(SECRET.trim_ascii_end(), &json!({"alg": alg}), &claims);
        let (message, _) = token.rsplit_once('.').expect("three parts");
        for token in [&token, &format!("{message}.")] {
            assert_eq!(
                check(&keys(&[JWKS, SECRET, RSA]), token),
                Err(NO_JWT),
                "{alg}"
            );
        }
    }
    // A key that the token brings along is nobody's.
    let key = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([b'm'; 32])});
    let header = json!({"alg": "HS256", "jwk": key, "jku": "http://mallory.example"});
    let token = signed_with(&[b'm'; 32], &header, &claims);
    assert_eq!(check(&keys(&[SECRET]), &token), Err(BAD_SIGNATURE));
}

#[test]
fn the_kid_selects_and_what_has_none_is_tried() {
    let named = |kid: &str, letter: u8| {
        let k = URL_SAFE_NO_PAD.encode([letter; 32]);
        json!({"kty": "oct", "kid": kid, "k": k})
    };
    let set = json!({"keys": [named("a", b'a'), named("b", b'b')]}).to_string();
    let keys = keys(&[set.as_bytes(), &[b'c'; 32]]);
    let check = |letter: u8, header: Value| {
        let token = signed_with(&[letter; 32], &header, &json!({}));
        check(&keys, &token).map(|_| ())
    };
    for letter in *b"abc" {
        assert_eq!(check(letter, json!({"alg": "HS256"})), Ok(()));
    }
    assert_eq!(check(b'b', json!({"alg": "HS256", "kid": "b"})), Ok(()));
    assert_eq!(check(b'c', json!({"alg": "HS256", "kid": "b"})), Ok(()));
    let wrong = check(b'a', json!({"alg": "HS256", "kid": "b"}));
    assert_eq!(wrong, Err(BAD_SIGNATURE));
    let wrong = check(b'a', json!({"alg": "HS256", "kid": "z"}));
    assert_eq!(wrong, Err(BAD_SIGNATURE));
    let wrong = check(b'd', json!({"alg": "HS256"}));
    assert_eq!(wrong, Err(BAD_SIGNATURE));
}

#[test]
fn a_token_has_its_time() {
    let keys = keys(&[SECRET]);
    let check = |claims: Value| check(&keys, &signed(&claims)).map(|claims| claims.expires);
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let now = now();
    assert_eq!(check(json!({})), Ok(None));
    let in_an_hour = Ok(Some(at(now + 3600) + LEEWAY));
    assert_eq!(check(json!({"exp": now + 3600})), in_an_hour);
    assert_eq!(
        check(json!({"exp": (now + 3600) as f64 + 0.25})),
        in_an_hour
    );
    assert!(check(json!({"nbf": now - 60, "iat": now})).is_ok());
    assert_eq!(
        check(json!({"exp": now - 60})),
        Err("the token has expired")
    );
    assert_eq!(check(json!({"exp": 0})), Err("the token has expired"));
    let early = check(json!({"nbf": now + 3600}));
    assert_eq!(early, Err("the token is not valid yet"));
    assert_eq!(check(json!({"exp": u64::MAX})), Ok(None));
    assert_eq!(check(json!({"exp": 1e18})).map(|_| ()), Ok(()));
    for time in [json!("tomorrow"), json!(null), json!(-1), json!(1e300)] {
        let result = check(json!({"exp": time}));
        assert_eq!(result, Err("the token's claim exp is no time"), "{time}");
        let result = check(json!({"nbf": time}));
        assert_eq!(result, Err("the token's claim nbf is no time"), "{time}");
    }
    assert_eq!(check(json!({"exp": [now + 60]})), Err(NO_JWT));
}

#[test]
fn clocks_may_differ_a_little() {
    let mut keys = keys(&[SECRET]);
    assert_eq!(keys.validation.leeway, LEEWAY.as_secs());
    // So much of it that it does not matter how long the test takes.
    keys.validation.leeway = 3600;
    let now = now();
    for (claims, expected) in [
        (json!({"exp": now - 1800}), true),
        (json!({"exp": now - 7200}), false),
        (json!({"nbf": now + 1800}), true),
        (json!({"nbf": now + 7200}), false),
    ] {
        assert_eq!(check(&keys, &signed(&claims)).is_ok(), expected, "{claims}");
    }
}

#[test]
fn rights_are_lists_or_words_flat_or_nested() {
    let keys = keys(&[SECRET]);
    for claims in [
        json!({"wsevent.subscribe": ["/a", "/b/*"], "wsevent.publish": ["/c"]}),
        json!({"wsevent.subscribe": "/a  /b/*", "wsevent.publish": "/c"}),
        json!({"wsevent": {"subscribe": ["/a", "/b/*"], "publish": "/c"}}),
        json!({"wsevent": {"subscribe": ["/a"], "publish": null}, "wsevent.subscribe": "b/*", "wsevent.publish": ["c"]}),
    ] {
        let rights = check(&keys, &signed(&claims)).expect("good").rights;
        for (right, path, expected) in [
            (Right::Subscribe, "/a", true),
            (Right::Subscribe, "/b/x", true),
            (Right::Subscribe, "/c", false),
            (Right::Publish, "/a", false),
            (Right::Publish, "/c", true),
        ] {
            assert_eq!(rights.allow(right, path), expected, "{claims} {path}");
        }
    }
    for claims in [
        json!({}),
        json!({"wsevent": "subscribe"}),
        json!({"wsevent.subscribe": [], "wsevent.publish": ""}),
        json!({"subscribe": "*", "publish": "*", "scope": "*"}),
    ] {
        let claims = check(&keys, &signed(&claims)).expect("good");
        assert_eq!(claims.rights, Rights::default());
    }
    for wrong in [
        json!(true),
        json!(7),
        json!({"*": true}),
        json!([7]),
        json!(["/a", "b c"]),
        json!("/a*"),
    ] {
        for claims in [
            json!({"wsevent.publish": wrong}),
            json!({"wsevent": {"publish": wrong}}),
        ] {
            let reason =
                "the token's claim wsevent.publish is no list of path patterns, such as /live/*";
            assert_eq!(check(&keys, &signed(&claims)), Err(reason), "{claims}");
        }
    }
}

#[test]
fn audience_and_issuer_are_checked_where_they_are_given() {
    let mut strict = Keys::new(Some("wsevent"), Some("https://login.example"));
    strict.add(SECRET).expect("a good file");
    let check = |claims: Value| check(&strict, &signed(&claims)).map(|_| ());
    let (aud, iss) = ("wsevent", "https://login.example");
    assert_eq!(check(json!({"aud": aud, "iss": iss})), Ok(()));
    assert_eq!(check(json!({"aud": ["x", aud], "iss": iss})), Ok(()));
    let other = check(json!({"aud": "x", "iss": iss}));
    assert_eq!(other, Err("the token is for another audience"));
    let other = check(json!({"aud": [], "iss": iss}));
    assert_eq!(other, Err("the token is for another audience"));
    let other = check(json!({"aud": aud, "iss": "https://login.example/"}));
    assert_eq!(other, Err("the token is from another issuer"));
    let missing = check(json!({"iss": iss}));
    assert_eq!(missing, Err("the token's claim aud is missing"));
    let missing = check(json!({"aud": aud}));
    assert_eq!(missing, Err("the token's claim iss is missing"));
    let odd = check(json!({"aud": 7, "iss": iss}));
    assert_eq!(odd, Err("the token's claim aud is missing"));
    let token = signed(&json!({"aud": "x", "iss": "y"}));
    assert!(self::check(&keys(&[SECRET]), &token).is_ok());
}

#[test]
fn a_name_is_fit_for_a_log() {
    let keys = keys(&[SECRET]);
    let name = |sub: Value| {
        let claims = check(&keys, &signed(&json!({"sub": sub})));
        claims.expect("good").name.to_string()
    };
    assert_eq!(name(json!("auth0|42")), "auth0|42");
    assert_eq!(name(json!("a\nb\u{1b}[2J")), "a\u{fffd}b\u{fffd}[2J");
    assert_eq!(name(json!("ä".repeat(1000))), "ä".repeat(LONGEST_NAME));
    for sub in [json!(""), json!(null), json!(7)] {
        assert_eq!(name(sub), NAMELESS);
    }
}

#[test]
fn a_critical_header_that_is_not_known_is_refused() {
    let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let token = signed_with(SECRET.trim_ascii_end(), &header, &json!({}));
    assert_eq!(
        check(&keys(&[SECRET]), &token),
        Err("the token has a critical header parameter that is not known here")
    );
}

#[test]
fn nonsense_is_no_jwt() {
    let keys = keys(&[JWKS]);
    let deep = "[".repeat(100_000);
    for claims in ["7", "[]", "\"*\"", "{\"exp\":1,\"exp\":9999999999}", &deep] {
        let message = format!(
            "{}.{}",
            part(&json!({"alg": "HS256"})),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.trim_ascii_end());
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
        let token = format!("{message}.{signature}");
        assert_eq!(check(&keys, &token), Err(NO_JWT));
    }
    let deep = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"x\":{deep}"));
    for token in ["", ".", "..", "...", "t0k", "a.b.c", &format!("{deep}..")] {
        assert_eq!(check(&keys, token), Err(NO_JWT));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_token_or_not(token in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(keys(&[SECRET]).check(&token).is_err());
    }

    #[test]
    fn no_token_makes_it_panic(header in "[ -~]{0,40}", claims in "[ -~]{0,40}", signature in "[A-Za-z0-9_-]{0,40}") {
        let encode = |text| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{signature}", encode(&header), encode(&claims));
        prop_assert!(keys(&[SECRET]).check(token.as_bytes()).is_err());
    }

    #[test]
    fn one_other_letter_and_a_token_is_none(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.-]") {
        let good = signed(&json!({"sub": "alice", "wsevent.publish": ["/a"], "exp": now() + 3600}));
        let at = at.index(good.len());
        prop_assume!(good[at..=at] != letter);
        let mut token = good;
        token.replace_range(at..=at, &letter);
        prop_assert!(keys(&[SECRET]).check(token.as_bytes()).is_err());
    }
}
