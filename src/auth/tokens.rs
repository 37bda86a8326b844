//! Access tokens: JWT, HS256 and nothing else (RFC 7519; RFC 8725 for what to refuse).

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
/// A longer token is none of ours.
const MAX_TOKEN_BYTES: usize = 4096;
/// How far the clocks of two instances may be apart.
const CLOCK_SKEW_SECONDS: i64 = 5;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The user's id, as text.
    pub(crate) sub: String,
    /// The token's own id.
    pub(crate) jti: String,
    /// When it was issued, in seconds since 1970.
    pub(crate) iat: i64,
    /// When it expires, in seconds since 1970.
    pub(crate) exp: i64,
    iss: String,
    aud: String,
    token_type: String,
    /// The session that it belongs to: the login and all its renewals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<String>,
    /// The generation of the user's tokens under which it was issued; a token that does not say belongs to the first.
    #[serde(default)]
    pub(crate) generation: i32,
}

/// Issues and verifies access tokens.
pub(crate) struct Tokens {
    signing: EncodingKey,
    verifying: Vec<DecodingKey>,
    validation: Validation,
    header: Header,
    lifetime: Duration,
    /// The same secrets, for marks.
    marking: Vec<hmac::Key>,
    /// Tokens whose signature and claims were found good; only time is still to be asked.
    verified: RwLock<HashMap<Ending, Verified>>,
}

/// The end of a token: a part of its signature, and so as good as all of it to find it by.
type Ending = [u8; 16];

/// What tells a text that was made here from one that was made up: half of an HMAC-SHA256.
pub(crate) type Mark = [u8; 16];
/// No JWT begins like this: a mark is good for nothing else.
const MARKED: &[u8] = b"testshop mark\0";

/// A token that was found good.
struct Verified {
    token: Box<[u8]>,
    claims: Arc<Claims>,
}

/// So many verified tokens are remembered; then all are verified anew.
const MAX_VERIFIED: usize = 10_000;

impl Tokens {
    /// The first secret signs, all verify. The caller has seen to it that there is one and that each is long enough.
    pub(crate) fn new(secrets: &[SecretString], lifetime: Duration) -> Self {
        // a second installation finds the same provider in place
        let _ = RING.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let bytes = |secret: &SecretString| secret.expose_secret().as_bytes().to_vec();
        Self {
            signing: EncodingKey::from_secret(&secrets.first().map(bytes).unwrap_or_default()),
            verifying: secrets.iter().map(|secret| DecodingKey::from_secret(&bytes(secret))).collect(),
            validation,
            header: Header::new(Algorithm::HS256),
            lifetime,
            marking: secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &bytes(secret))).collect(),
            verified: RwLock::default(),
        }
    }

    /// How long a token lives.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new token of this user in this session.
    pub(crate) fn issue(&self, user: i64, session: Uuid, generation: i32) -> Result<String> {
        let iat = now();
        let claims = Claims {
            sub: user.to_string(),
            jti: Uuid::new_v4().simple().to_string(),
            iat,
            exp: iat.saturating_add_unsigned(self.lifetime.as_secs()),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            token_type: TYPE.to_owned(),
            sid: Some(session.simple().to_string()),
            generation,
        };
        jsonwebtoken::encode(&self.header, &claims, &self.signing).map_err(Error::internal)
    }

    /// The mark of a text, by the secret that signs.
    pub(crate) fn mark(&self, text: &[u8]) -> Mark {
        self.marking.first().map_or(Mark::default(), |key| marked(key, text))
    }

    /// Whether one of our secrets made this mark of this text.
    pub(crate) fn is_marked(&self, text: &[u8], mark: &[u8]) -> bool {
        // in time that tells nothing: both are hashed before they are compared
        self.marking.iter().any(|key| sha256(&[&marked(key, text)]) == sha256(&[mark]))
    }

    /// What is known of a token that was verified before.
    pub(crate) fn verified(&self, token: &[u8]) -> Option<Result<Arc<Claims>>> {
        let ending: &Ending = token.last_chunk()?;
        let verified = sync::read(&self.verified);
        let known = verified.get(ending).filter(|known| *known.token == *token)?;
        Some(if known.claims.exp > now() { Ok(Arc::clone(&known.claims)) } else { Err(Error::ExpiredToken) })
    }

    /// What a token says, if one of our secrets signed it and it is still in force.
    pub(crate) fn verify(&self, token: &[u8]) -> Result<Arc<Claims>> {
        let text = str::from_utf8(token).map_err(|_| Error::InvalidToken)?;
        let claims = Arc::new(self.decode(text)?);
        if let Some(ending) = token.last_chunk() {
            let mut verified = sync::write(&self.verified);
            if verified.len() >= MAX_VERIFIED {
                verified.clear();
            }
            verified.insert(*ending, Verified { token: token.into(), claims: Arc::clone(&claims) });
        }
        Ok(claims)
    }

    fn decode(&self, token: &str) -> Result<Claims> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::InvalidToken);
        }
        for key in &self.verifying {
            match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                // extensions that must be understood are understood by nobody here (RFC 7515, 4.1.11)
                Ok(decoded) if decoded.header.crit.is_some() => return Err(Error::InvalidToken),
                Ok(decoded) => return check(decoded.claims),
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

fn marked(key: &hmac::Key, text: &[u8]) -> Mark {
    let tag = hmac::sign(key, &[MARKED, text].concat());
    let mut mark = Mark::default();
    mark.copy_from_slice(&tag.as_ref()[..size_of::<Mark>()]);
    mark
}

fn check(claims: Claims) -> Result<Claims> {
    let sane = claims.token_type == TYPE
        && claims.iss == ISSUER
        && claims.aud == AUDIENCE
        && !claims.jti.is_empty()
        && claims.iat <= now() + CLOCK_SKEW_SECONDS;
    if sane { Ok(claims) } else { Err(Error::InvalidToken) }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// jsonwebtoken's cryptography, by ring: its own backends bring a second stack or an unpatched RSA.
static RING: CryptoProvider = CryptoProvider {
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
