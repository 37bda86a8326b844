//! Message authentication (HMAC-SHA-256) with keys derived from the secrets in `JWT_SECRET`.

use ring::{
    digest::{SHA256, digest},
    hkdf::{HKDF_SHA256, Salt},
    hmac::{Context, HMAC_SHA256, Key},
};
use secrecy::{ExposeSecret, SecretString};

/// Separates these keys from every other use of the secrets.
const SALT: &[u8] = b"testshop derived keys";

/// An HMAC-SHA-256.
pub(crate) type Mac = [u8; 32];

/// The keys of one purpose, one per secret: the first signs, all verify.
pub(crate) struct MacKeys(Vec<Key>);

impl MacKeys {
    /// Derives the keys of a purpose (HKDF, RFC 5869). Keys of different purposes are independent of each other and of
    /// the secrets.
    pub(crate) fn derive(secrets: &[SecretString], purpose: &'static str) -> Self {
        let salt = Salt::new(HKDF_SHA256, SALT);
        let derive = |secret: &SecretString| {
            let prk = salt.extract(secret.expose_secret().as_bytes());
            let info = [purpose.as_bytes()];
            let okm = prk.expand(&info, HMAC_SHA256);
            Key::from(okm.unwrap_or_else(|error| unreachable!("32 bytes can be expanded: {error}")))
        };
        Self(secrets.iter().map(derive).collect())
    }

    /// Returns the MAC of the concatenation of `parts`, made with the first key.
    ///
    /// The caller ensures that different sequences of parts have different concatenations.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> Mac {
        self.0.first().map_or([0; 32], |key| compute(key, parts))
    }

    /// Returns the MACs of the concatenation of `parts` under each key, that of [`MacKeys::sign`] first.
    pub(crate) fn sign_all(&self, parts: &[&[u8]]) -> Vec<Mac> {
        self.0.iter().map(|key| compute(key, parts)).collect()
    }

    /// Returns whether `mac` is the MAC of the concatenation of `parts` under one of the keys.
    pub(crate) fn verify(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        // comparing hashes leaks no timing about the MAC itself
        let expected = digest(&SHA256, mac);
        self.0.iter().any(|key| digest(&SHA256, &compute(key, parts)).as_ref() == expected.as_ref())
    }
}

fn compute(key: &Key, parts: &[&[u8]]) -> Mac {
    let mut context = Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let mut mac = [0; 32];
    mac.copy_from_slice(context.sign().as_ref());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str], purpose: &'static str) -> MacKeys {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        MacKeys::derive(&secrets, purpose)
    }

    #[test]
    fn first_secret_signs_and_all_verify() {
        let (old, new, unrelated) = ("old".repeat(12), "new".repeat(12), "unrelated".repeat(4));
        let mac = keys(&[&old], "a").sign(&[b"one", b"two"]);
        assert!(keys(&[&new, &old], "a").verify(&[b"onetwo"], &mac));
        assert_ne!(keys(&[&new, &old], "a").sign(&[b"onetwo"]), mac);
        assert!(!keys(&[&new, &unrelated], "a").verify(&[b"onetwo"], &mac));
        assert!(!keys(&[&old], "b").verify(&[b"onetwo"], &mac), "keys of another purpose");
        assert!(!keys(&[&old], "a").verify(&[b"onetwO"], &mac));
        assert!(!keys(&[&old], "a").verify(&[b"onetwo"], &mac[..31]));
        assert!(!keys(&[], "a").verify(&[b"onetwo"], &[0; 32]), "without a secret nothing verifies");
    }
}
