//! Files of keys that check the signatures of JWTs: PEM, a JWK set, or a shared secret.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use tokio_rustls::rustls::pki_types::pem::{PemObject, SectionKind};

/// The fewest bytes of a secret: a shorter one can be found by trying (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;
/// The fewest bytes of an RSA key's modulus (RFC 7518, section 3.3).
const SHORTEST_MODULUS: usize = 2048 / 8;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

const UNKNOWN_KEY: &str =
    "of public keys RSA (from 2048 bits on), P-256, P-384 and Ed25519 are known";

/// A key, and what it may be used for. The algorithms follow from what the key is, never from what a token says: so a public key is
/// never taken for a secret (RFC 8725, section 3.1).
pub struct Key {
    /// Its name in a JWK set.
    pub id: Option<String>,
    /// The algorithms whose signatures it checks; at least one.
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub key: DecodingKey,
}

/// Reads a file of keys, whose format shows in its content. An error says what is wrong, and shows nothing of what may be secret.
pub fn parse(file: &[u8]) -> Result<Vec<Key>, String> {
    let start = file.trim_ascii_start();
    if start.starts_with(b"{") {
        return jwks(file);
    }
    if memchr::memmem::find(file, b"-----BEGIN ").is_some() {
        return pem(file);
    }
    secret(file).map(|key| vec![key])
}

fn secret(file: &[u8]) -> Result<Key, String> {
    // What an editor or echo puts at the end of a text does not belong to it. Of random bytes every one does.
    let secret = match str::from_utf8(file) {
        Ok(text) => {
            let line = text.strip_suffix('\n').unwrap_or(text);
            line.strip_suffix('\r').unwrap_or(line).as_bytes()
        }
        Err(_) => file,
    };
    if secret.is_empty() {
        return Err("there is no key in it".to_owned());
    }
    if secret.len() < SHORTEST_SECRET {
        return Err(format!(
            "it is neither PEM nor a JWK set, and as a secret it is too short: it must have {SHORTEST_SECRET} bytes at least (openssl rand -base64 32)"
        ));
    }
    Ok(Key {
        id: None,
        algorithms: AlgorithmFamily::Hmac.algorithms().to_vec(),
        key: DecodingKey::from_secret(secret),
    })
}

fn pem(file: &[u8]) -> Result<Vec<Key>, String> {
    let mut keys = vec![];
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(file) {
        match section.map_err(|_| "it begins like PEM, and is none")? {
            (SectionKind::PublicKey, der) => keys.push(public_key(&der)?),
            (SectionKind::Certificate, _) => {
                return Err("it is a certificate: only its key is wanted (openssl x509 -pubkey -noout -in FILE)".to_owned());
            }
            (
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey,
                _,
            ) => {
                return Err("it is a private key: keep that where tokens are made, and give the public one here (openssl pkey -pubout -in FILE)".to_owned());
            }
            _ => {}
        }
    }
    match keys.is_empty() {
        true => {
            Err("there is no public key in it (PEM with BEGIN PUBLIC KEY is expected)".to_owned())
        }
        false => Ok(keys),
    }
}

/// A SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
fn public_key(der: &[u8]) -> Result<Key, String> {
    let broken = |_| "its public key is broken".to_owned();
    let info = SubjectPublicKeyInfoRef::try_from(der).map_err(broken)?;
    let bits = info.subject_public_key.as_bytes().unwrap_or_default();
    let curve = info.algorithm.parameters_oid().ok();
    let (algorithms, key) = match (info.algorithm.oid, curve) {
        // A sequence of the modulus and a short number.
        (RSA, _) if bits.len() > SHORTEST_MODULUS => (
            AlgorithmFamily::Rsa.algorithms(),
            DecodingKey::from_rsa_der(bits),
        ),
        (EC, Some(P256)) => (&[Algorithm::ES256][..], DecodingKey::from_ec_der(bits)),
        (EC, Some(P384)) => (&[Algorithm::ES384][..], DecodingKey::from_ec_der(bits)),
        (ED25519, _) => (&[Algorithm::EdDSA][..], DecodingKey::from_ed_der(bits)),
        _ => return Err(UNKNOWN_KEY.to_owned()),
    };
    Ok(Key {
        id: None,
        algorithms: algorithms.to_vec(),
        key,
    })
}

/// A JWK set (RFC 7517, section 5), or a single JWK. Keys that are not known or for something else are passed over, as the RFC wants.
fn jwks(file: &[u8]) -> Result<Vec<Key>, String> {
    // What the parser says may show what it has found.
    let wrong = |error: serde_json::Error| {
        format!(
            "it begins like JSON, but is no JWK set (line {}, column {})",
            error.line(),
            error.column()
        )
    };
    let json: serde_json::Value = serde_json::from_slice(file).map_err(wrong)?;
    let set = match json.get("keys") {
        Some(_) => serde_json::from_value::<JwkSet>(json).map(|set| set.keys),
        None => serde_json::from_value::<Jwk>(json).map(|jwk| vec![jwk]),
    };
    let set = set.map_err(|_| "it is JSON, but no JWK set ({\"keys\":[…]} is expected)")?;
    let keys: Vec<_> = set.iter().filter_map(jwk).collect();
    match keys.is_empty() {
        true => Err(format!(
            "there is no key in it that could check a signature: {UNKNOWN_KEY}, and secrets (oct) of {SHORTEST_SECRET} bytes"
        )),
        false => Ok(keys),
    }
}

fn jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let verifies = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !verifies {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let possible = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => &[Algorithm::ES256][..],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        AlgorithmParameters::RSA(_) if is_long(&key) => AlgorithmFamily::Rsa.algorithms(),
        AlgorithmParameters::OctetKey(_)
            if key
                .try_get_as_bytes()
                .is_ok_and(|secret| secret.len() >= SHORTEST_SECRET) =>
        {
            AlgorithmFamily::Hmac.algorithms()
        }
        _ => return None,
    };
    // What its alg says can only leave out some.
    let is_meant = |algorithm: &&Algorithm| {
        common
            .key_algorithm
            .is_none_or(|meant| meant == (**algorithm).into())
    };
    let algorithms: Vec<_> = possible.iter().filter(is_meant).copied().collect();
    (!algorithms.is_empty()).then(|| Key {
        id: common.key_id.clone(),
        algorithms,
        key,
    })
}

fn is_long(key: &DecodingKey) -> bool {
    match key.kind() {
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= SHORTEST_MODULUS,
        jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => false,
    }
}

#[cfg(test)]
mod tests;
