use proptest::prelude::*;

use super::*;

/// Made by PyJWT and the Python package cryptography, as all in that folder; the private keys were not kept.
macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../vectors/", $name))
    };
}

fn algorithms(file: &[u8]) -> Vec<Vec<Algorithm>> {
    let keys = parse(file).expect("a good file");
    keys.into_iter().map(|key| key.algorithms).collect()
}

fn wrong(file: &[u8]) -> String {
    let wrong = parse(file).err().expect("a bad file");
    assert!(!wrong.contains('\n'), "{wrong}");
    wrong
}

#[test]
fn what_a_key_is_says_what_it_is_good_for() {
    let rsa = AlgorithmFamily::Rsa.algorithms().to_vec();
    let hmac = AlgorithmFamily::Hmac.algorithms().to_vec();
    for (file, expected) in [
        (&vector!("rsa.pem")[..], rsa.clone()),
        (vector!("p256.pem"), vec![Algorithm::ES256]),
        (vector!("p384.pem"), vec![Algorithm::ES384]),
        (vector!("ed25519.pem"), vec![Algorithm::EdDSA]),
        (vector!("secret.txt"), hmac.clone()),
        (&[0xFF; 32], hmac.clone()),
    ] {
        assert_eq!(algorithms(file), [expected]);
    }
    // The last one is for encryption.
    let set = [
        rsa,
        vec![Algorithm::ES256],
        vec![Algorithm::ES384],
        vec![Algorithm::EdDSA],
        hmac,
    ];
    assert_eq!(algorithms(vector!("jwks.json")), set);
}

#[test]
fn a_pem_file_may_have_several_keys_and_text_between() {
    let both = [
        b"the old one\n",
        &vector!("rsa.pem")[..],
        b"\nthe new one\n",
        vector!("p256.pem"),
    ];
    assert_eq!(algorithms(&both.concat()).len(), 2);
}

#[test]
fn the_line_end_of_a_text_is_not_part_of_a_secret() {
    let secret = [b's'; 32];
    let text = |end: &[u8]| [&secret[..], end].concat();
    let bytes = |file: &[u8]| {
        let key = parse(file).expect("a secret").remove(0).key;
        key.try_get_as_bytes().expect("it has some").to_vec()
    };
    for end in [&b""[..], b"\n", b"\r\n"] {
        assert_eq!(bytes(&text(end)), secret);
    }
    assert_eq!(bytes(&text(b"\n\n")), text(b"\n"));
    // Random bytes may end so as well.
    let random = [&[0xFF; 32][..], b"\n"].concat();
    assert_eq!(bytes(&random), random);
}

#[test]
fn a_single_jwk_is_a_set_and_its_alg_is_respected() {
    let jwk = |more: &str| {
        format!(r#" {{"kty":"oct","k":"{}"{more}}}"#, "c2VjcmV0".repeat(8)).into_bytes()
    };
    assert_eq!(
        algorithms(&jwk("")),
        [AlgorithmFamily::Hmac.algorithms().to_vec()]
    );
    assert_eq!(
        algorithms(&jwk(r#","alg":"HS384","use":"sig","key_ops":["verify"]"#)),
        [vec![Algorithm::HS384]]
    );
    for more in [
        r#","alg":"RS256""#,
        r#","alg":"A256KW""#,
        r#","use":"enc""#,
        r#","key_ops":["sign"]"#,
    ] {
        let wrong = wrong(&jwk(more));
        assert!(
            wrong.starts_with("there is no key in it that could"),
            "{wrong}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_without_showing_it() {
    let json = "it begins like JSON, but is no JWK set (line 1, column 10)";
    let set = "it is JSON, but no JWK set ({\"keys\":[…]} is expected)";
    let none = "there is no key in it that could check a signature: of public keys RSA (from 2048 bits on), P-256, P-384 and Ed25519 are known, and secrets (oct) of 32 bytes";
    let short = "it is neither PEM nor a JWK set, and as a secret it is too short: it must have 32 bytes at least (openssl rand -base64 32)";
    let nothing = "there is no public key in it (PEM with BEGIN PUBLIC KEY is expected)";
    let private = "it is a private key: keep that where tokens are made, and give the public one here (openssl pkey -pubout -in FILE)";
    let certificate =
        "it is a certificate: only its key is wanted (openssl x509 -pubkey -noout -in FILE)";
    let pem = |label: &str| format!("-----BEGIN {label}-----\nMAAA\n-----END {label}-----\n");
    for (file, expected) in [
        ("", "there is no key in it"),
        ("\n", "there is no key in it"),
        ("s3cret", short),
        (
            "{s3cret: }",
            "it begins like JSON, but is no JWK set (line 1, column 2)",
        ),
        (r#"{"a":"b" s3cret}"#, json),
        (r#"{"keys":"s3cret"}"#, set),
        (r#"{"keys":["s3cret"]}"#, set),
        (r#"{"keys":[]}"#, none),
        (r#"{"keys":[{"kty":"s3cret"}]}"#, none),
        (r#"{"keys":[{"kty":"oct","k":"s3cret"}]}"#, none),
        (
            r#"{"keys":[{"kty":"EC","crv":"P-521","x":"","y":""}]}"#,
            none,
        ),
        (r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, none),
        (&pem("PRIVATE KEY"), private),
        (&pem("RSA PRIVATE KEY"), private),
        (&pem("EC PRIVATE KEY"), private),
        (&pem("CERTIFICATE"), certificate),
        (&pem("RSA PUBLIC KEY"), nothing),
        (&pem("PUBLIC KEY"), "its public key is broken"),
        (
            "-----BEGIN PUBLIC KEY-----\ns3cret",
            "it begins like PEM, and is none",
        ),
    ] {
        assert_eq!(wrong(file.as_bytes()), expected, "{file}");
    }
    for file in [
        &vector!("p521.pem")[..],
        vector!("secp256k1.pem"),
        vector!("rsa1024.pem"),
    ] {
        assert_eq!(wrong(file), UNKNOWN_KEY);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_keys_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let json = [b"{\"keys\":[".as_slice(), &bytes].concat();
        let _ = parse(&json);
    }

    /// Broken anywhere, a public key may be another one, or none.
    #[test]
    fn a_broken_key_does_no_harm(at in 27_usize..400, byte in any::<u8>()) {
        let mut file = vector!("rsa.pem").to_vec();
        file[at] = byte;
        let _ = parse(&file);
    }
}
