//! Access tokens: JWTs with HS256 and no other algorithm (RFC 7519), validated as RFC 8725 recommends.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use foldhash::HashMap;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error as JwtError, ErrorKind},
};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use signature::{Error as SignatureError, Signer, Verifier};
use uuid::Uuid;

use crate::{
    digest::sha256,
    error::{Error, Result},
    sync,
};

const ISSUER: &str = "testshop";
const AUDIENCE: &str = "testshop";
const TYPE: &str = "access";
/// Longer than any token that this program issues.
const MAX_TOKEN_BYTES: usize = 4096;
/// Maximum difference between the clocks of two instances.
const CLOCK_SKEW_SECONDS: i64 = 5;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The user id.
    pub(crate) sub: String,
    /// The id of the token.
    pub(crate) jti: String,
    /// When the token was issued, in seconds since 1970.
    pub(crate) iat: i64,
    /// When the token expires, in seconds since 1970.
    pub(crate) exp: i64,
    iss: String,
    aud: String,
    token_type: String,
    /// The session: one login and all its refreshes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<String>,
    /// The user's token generation when the token was issued. A token without it belongs to generation 0.
    #[serde(default)]
    pub(crate) generation: i32,
}

impl Claims {
    /// Returns the time until the token expires.
    pub(crate) fn remaining_lifetime(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.exp.saturating_sub(now())).unwrap_or_default())
    }
}

/// Issues and verifies access tokens.
pub(crate) struct Tokens {
    signing_key: EncodingKey,
    verifying_keys: Vec<DecodingKey>,
    validation: Validation,
    header: Header,
    ttl: Duration,
    /// The same secrets, for [`Tokens::mac`].
    mac_keys: Vec<hmac::Key>,
    /// Tokens with a valid signature and valid claims; only their expiry must be checked again.
    cached: RwLock<HashMap<SignatureSuffix, CachedToken>>,
}

/// The last bytes of a token. They are part of its signature, so they identify it.
type SignatureSuffix = [u8; 16];

/// Half of an HMAC-SHA256.
pub(crate) type Mac = [u8; 16];
/// Separates MACs from token signatures: no JWT begins with these bytes.
const MAC_CONTEXT: &[u8] = b"testshop mark\0";

struct CachedToken {
    token: Box<[u8]>,
    claims: Arc<Claims>,
}

/// When the cache of tokens has this many entries, it is cleared.
const MAX_CACHED_TOKENS: usize = 10_000;

impl Tokens {
    /// The first secret signs, all verify. The caller ensures that there is at least one and that each is long enough.
    pub(crate) fn new(secrets: &[SecretString], ttl: Duration) -> Self {
        // an error means that this provider is installed already
        let _ = CRYPTO_PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let bytes = |secret: &SecretString| secret.expose_secret().as_bytes().to_vec();
        Self {
            signing_key: EncodingKey::from_secret(&secrets.first().map(bytes).unwrap_or_default()),
            verifying_keys: secrets.iter().map(|secret| DecodingKey::from_secret(&bytes(secret))).collect(),
            validation,
            header: Header::new(Algorithm::HS256),
            ttl,
            mac_keys: secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &bytes(secret))).collect(),
            cached: RwLock::default(),
        }
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns a new token for a session of a user.
    pub(crate) fn issue(&self, user: i64, session: Uuid, generation: i32) -> Result<String> {
        let iat = now();
        let claims = Claims {
            sub: user.to_string(),
            jti: Uuid::new_v4().simple().to_string(),
            iat,
            exp: iat.saturating_add_unsigned(self.ttl.as_secs()),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            token_type: TYPE.to_owned(),
            sid: Some(session.simple().to_string()),
            generation,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing_key).map_err(Error::internal)
    }

    /// Returns the MAC of `data`, made with the secret that signs.
    pub(crate) fn mac(&self, data: &[u8]) -> Mac {
        self.mac_keys.first().map_or(Mac::default(), |key| compute_mac(key, data))
    }

    /// Returns whether `mac` is the MAC of `data` under one of the secrets.
    pub(crate) fn verify_mac(&self, data: &[u8], mac: &[u8]) -> bool {
        // comparing hashes leaks no timing about the MAC itself
        self.mac_keys.iter().any(|key| sha256(&[&compute_mac(key, data)]) == sha256(&[mac]))
    }

    /// Returns the claims of a token that was verified before, or an error if it has expired since; `None` for any
    /// other.
    pub(crate) fn cached(&self, token: &[u8]) -> Option<Result<Arc<Claims>>> {
        let suffix: &SignatureSuffix = token.last_chunk()?;
        let cached = sync::read(&self.cached);
        let entry = cached.get(suffix).filter(|entry| *entry.token == *token)?;
        Some(if entry.claims.exp > now() { Ok(Arc::clone(&entry.claims)) } else { Err(Error::ExpiredToken) })
    }

    /// Verifies signature and claims, and caches the token if they are valid.
    pub(crate) fn verify(&self, token: &[u8]) -> Result<Arc<Claims>> {
        let text = str::from_utf8(token).map_err(|_| Error::InvalidToken)?;
        let claims = Arc::new(self.decode(text)?);
        if let Some(suffix) = token.last_chunk() {
            let mut cached = sync::write(&self.cached);
            if cached.len() >= MAX_CACHED_TOKENS {
                cached.clear();
            }
            cached.insert(*suffix, CachedToken { token: token.into(), claims: Arc::clone(&claims) });
        }
        Ok(claims)
    }

    fn decode(&self, token: &str) -> Result<Claims> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::InvalidToken);
        }
        for key in &self.verifying_keys {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                // no critical extension is supported (RFC 7515, 4.1.11)
                Ok(decoded) if decoded.header.crit.is_some() => return Err(Error::InvalidToken),
                Ok(decoded) => return check_claims(decoded.claims),
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::ExpiredSignature => return Err(Error::ExpiredToken),
                    _ => return Err(Error::InvalidToken),
                },
            }
        }
        Err(Error::InvalidToken)
    }
}

fn compute_mac(key: &hmac::Key, data: &[u8]) -> Mac {
    let tag = hmac::sign(key, &[MAC_CONTEXT, data].concat());
    let mut mac = Mac::default();
    mac.copy_from_slice(&tag.as_ref()[..size_of::<Mac>()]);
    mac
}

fn check_claims(claims: Claims) -> Result<Claims> {
    let is_valid = claims.token_type == TYPE
        && claims.iss == ISSUER
        && claims.aud == AUDIENCE
        && !claims.jti.is_empty()
        && claims.iat <= now() + CLOCK_SKEW_SECONDS;
    if is_valid { Ok(claims) } else { Err(Error::InvalidToken) }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The HS256 implementation of ring for jsonwebtoken, whose own backends bring a second crypto stack or an unpatched
/// RSA.
static CRYPTO_PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => {
            Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))) as Box<dyn JwtSigner>)
        }
        _ => Err(JwtError::from(ErrorKind::InvalidAlgorithm)),
    },
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::HS256 => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?);
            Ok(Box::new(Hs256(key)) as Box<dyn JwtVerifier>)
        }
        _ => Err(JwtError::from(ErrorKind::InvalidAlgorithm)),
    },
    key_utils: KeyUtils::new_unimplemented(),
};

struct Hs256(hmac::Key);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        // in constant time
        hmac::verify(&self.0, message, signature).map_err(|_| SignatureError::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}
