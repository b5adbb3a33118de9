//! The cryptography of JWTs (RFC 7518, section 3), by ring. Only what a server needs: it checks signatures and makes none.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::error::Unspecified;
use ring::hmac;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(Error::from(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: |algorithm, key| {
        // What an algorithm and the key of another one would make of each other nobody should have to know.
        if key.family() != algorithm.family() {
            return Err(Error::from(ErrorKind::InvalidAlgorithm));
        }
        Ok(Box::new(Signature {
            algorithm: *algorithm,
            key: key.clone(),
        }))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes ring check the signatures. To be called before the first one is, as often as one likes.
pub fn install() {
    // An error says that it is there already.
    let _ = RING.install_default();
}

/// What a signature is checked with.
struct Signature {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Signature {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Signature {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        self.check(message, signature)
            .map_err(|_| SignatureError::new())
    }
}

impl Signature {
    fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), Unspecified> {
        match self.algorithm {
            Algorithm::HS256 => self.hmac(hmac::HMAC_SHA256, message, signature),
            Algorithm::HS384 => self.hmac(hmac::HMAC_SHA384, message, signature),
            Algorithm::HS512 => self.hmac(hmac::HMAC_SHA512, message, signature),
            Algorithm::RS256 => {
                self.rsa(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Algorithm::RS384 => {
                self.rsa(&signature::RSA_PKCS1_2048_8192_SHA384, message, signature)
            }
            Algorithm::RS512 => {
                self.rsa(&signature::RSA_PKCS1_2048_8192_SHA512, message, signature)
            }
            Algorithm::PS256 => self.rsa(&signature::RSA_PSS_2048_8192_SHA256, message, signature),
            Algorithm::PS384 => self.rsa(&signature::RSA_PSS_2048_8192_SHA384, message, signature),
            Algorithm::PS512 => self.rsa(&signature::RSA_PSS_2048_8192_SHA512, message, signature),
            Algorithm::ES256 => self.curve(&signature::ECDSA_P256_SHA256_FIXED, message, signature),
            Algorithm::ES384 => self.curve(&signature::ECDSA_P384_SHA384_FIXED, message, signature),
            Algorithm::EdDSA => self.curve(&signature::ED25519, message, signature),
            _ => Err(Unspecified),
        }
    }

    fn bytes(&self) -> Result<&[u8], Unspecified> {
        self.key.try_get_as_bytes().map_err(|_| Unspecified)
    }

    fn hmac(
        &self,
        algorithm: hmac::Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Unspecified> {
        let key = hmac::Key::new(algorithm, self.bytes()?);
        hmac::verify(&key, message, signature)
    }

    fn rsa(
        &self,
        parameters: &'static RsaParameters,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Unspecified> {
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            DecodingKeyKind::SecretOrDer(der) => {
                UnparsedPublicKey::new(parameters, der).verify(message, signature)
            }
        }
    }

    fn curve(
        &self,
        algorithm: &'static dyn signature::VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Unspecified> {
        UnparsedPublicKey::new(algorithm, self.bytes()?).verify(message, signature)
    }
}
