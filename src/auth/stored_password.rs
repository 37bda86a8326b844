//! The stored form of passwords, and their comparison in equal time.
//!
//! It is that of `django.contrib.auth.hashers`: `pbkdf2_sha256$<iterations>$<salt>$<base64 of 32 bytes>`.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use prometheus_client::metrics::counter::Counter;
use ring::{
    pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, Result};

const ALGORITHM: &str = "pbkdf2_sha256";
const HASH_BYTES: usize = 32;
/// Length of Django's salts in characters of [`SALT_ALPHABET`]: 131 bits.
const SALT_LENGTH: usize = 22;
const SALT_ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// A stored password with more iterations never matches, so it cannot occupy a thread. `password_iterations()` in the
/// database has the same limit.
const MAX_ITERATIONS: u32 = 10_000_000;

/// Takes a few milliseconds.
const MEASURED_ITERATIONS: u32 = 20_000;

/// The result of comparing a password with a stored hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The password differs, or there is no valid stored hash.
    Mismatch,
    Match,
    /// The password matches, but its hash has fewer iterations than are configured now.
    MatchNeedsRehash,
}

/// What a password is compared with.
#[derive(Debug, Clone)]
pub struct StoredPassword {
    /// The stored form; `None` for an account that does not exist.
    pub text: Option<String>,
    /// The largest number of iterations of all stored passwords, from the same read.
    pub max_iterations: u32,
}

/// Returns the stored form of a new password.
pub(super) fn hash(password: &SecretString, iterations: NonZeroU32, counter: &Counter) -> Result<String> {
    let salt = random_salt().map_err(|_| Error::internal("no random bytes from the operating system"))?;
    let mut out = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.expose_secret().as_bytes(), &mut out);
    counter.inc_by(iterations.get().into());
    let salt = std::str::from_utf8(&salt).map_err(Error::internal)?;
    Ok(format!("{ALGORITHM}${iterations}${salt}${}", BASE64_STANDARD.encode(out)))
}

fn random_salt() -> Result<[u8; SALT_LENGTH], ring::error::Unspecified> {
    let random = SystemRandom::new();
    let mut salt = [0; SALT_LENGTH];
    for letter in &mut salt {
        *letter = loop {
            let mut byte = [0];
            random.fill(&mut byte)?;
            // 248 is the largest multiple of 62 in a byte: each letter is equally likely
            if byte[0] < 248 {
                break SALT_ALPHABET[usize::from(byte[0] % 62)];
            }
        };
    }
    Ok(salt)
}

struct ParsedHash<'a> {
    iterations: NonZeroU32,
    salt: &'a str,
    hash: [u8; HASH_BYTES],
}

impl<'a> ParsedHash<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('$');
        let (ALGORITHM, iterations, salt, hash, None) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        // `password_iterations()` in the database reads at most eight digits and no sign, and `parse` accepts more
        let is_canonical = iterations.len() <= 8 && iterations.bytes().all(|byte| byte.is_ascii_digit());
        let iterations: NonZeroU32 = is_canonical.then(|| iterations.parse().ok())??;
        let iterations = (iterations.get() <= MAX_ITERATIONS).then_some(iterations)?;
        let hash = BASE64_STANDARD.decode(hash).ok()?.try_into().ok()?;
        (!salt.is_empty()).then_some(Self { iterations, salt, hash })
    }
}

/// Compares a password with a stored one. The number of iterations that this takes, which `counter` counts, is the same
/// for every stored password up to `max_iterations`, for a malformed and for a missing one.
pub(super) fn verify(
    password: &SecretString,
    stored: &StoredPassword,
    configured: NonZeroU32,
    counter: &Counter,
) -> Check {
    let password = password.expose_secret().as_bytes();
    let parsed = stored.text.as_deref().and_then(ParsedHash::parse);
    let own = parsed.as_ref().map_or(0, |parsed| parsed.iterations.get());
    let total = total_iterations(own, stored.max_iterations, configured);
    counter.inc_by(total.into());
    let check = parsed.map_or(Check::Mismatch, |parsed| compare(password, &parsed, configured));
    equalize_time(password, total - own);
    check
}

/// Returns how many iterations a comparison with a stored password of `own` iterations takes.
fn total_iterations(own: u32, max_stored: u32, configured: NonZeroU32) -> u32 {
    configured.get().max(max_stored.min(MAX_ITERATIONS)).max(own)
}

fn compare(password: &[u8], stored: &ParsedHash<'_>, configured: NonZeroU32) -> Check {
    let ParsedHash { iterations, salt, hash } = stored;
    match pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, *iterations, salt.as_bytes(), password, hash) {
        Ok(()) if *iterations < configured => Check::MatchNeedsRehash,
        Ok(()) => Check::Match,
        Err(_) => Check::Mismatch,
    }
}

/// Runs this many iterations and discards the result, to equalize response times.
///
/// It calls the function that does the real comparison: another one was measured to take 1.5 % longer.
fn equalize_time(password: &[u8], iterations: u32) {
    if let Some(iterations) = NonZeroU32::new(iterations) {
        let (salt, hash) = ([b'-'; SALT_LENGTH], [0; HASH_BYTES]);
        let outcome = pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &hash);
        let _ = std::hint::black_box(outcome);
    }
}

/// Returns how long this many iterations take, extrapolated from [`MEASURED_ITERATIONS`].
pub(crate) fn measure_iterations(iterations: NonZeroU32) -> Duration {
    let began = Instant::now();
    equalize_time(b"a password", MEASURED_ITERATIONS);
    began.elapsed() * iterations.get() / MEASURED_ITERATIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> SecretString {
        text.to_owned().into()
    }

    const TEST_ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    /// Returns the result and the iterations that it took.
    fn verify_counted(text: &str, stored: Option<&str>, configured: NonZeroU32, max_iterations: u32) -> (Check, u64) {
        let (stored, counter) =
            (StoredPassword { text: stored.map(str::to_owned), max_iterations }, Counter::default());
        (verify(&password(text), &stored, configured, &counter), counter.get())
    }

    fn check(text: &str, stored: &str, configured: NonZeroU32) -> Check {
        verify_counted(text, Some(stored), configured, 0).0
    }

    fn hash(text: &str, iterations: u32) -> String {
        super::hash(&password(text), iterations.try_into().unwrap(), &Counter::default()).unwrap()
    }

    #[test]
    fn hash_of_python_hashlib_matches() {
        // hashlib.pbkdf2_hmac('sha256', b'lètmein', b'seasalt', 10000), the salt and password of Django's own tests
        let stored = "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=";
        let ten_thousand = NonZeroU32::new(10_000).unwrap();
        assert_eq!(check("lètmein", stored, ten_thousand), Check::Match);
        assert_eq!(check("letmein", stored, ten_thousand), Check::Mismatch);
        let more = NonZeroU32::new(10_001).unwrap();
        assert_eq!(check("lètmein", stored, more), Check::MatchNeedsRehash);
    }

    #[test]
    fn own_hash_matches_and_salts_differ() {
        let text = hash("s3cret", 1000);
        assert!(text.starts_with("pbkdf2_sha256$1000$") && text.len() < 128, "{text}");
        assert_eq!(check("s3cret", &text, TEST_ITERATIONS), Check::Match);
        assert_ne!(text, hash("s3cret", 1000), "the salts differ");
    }

    #[test]
    fn malformed_hash_is_a_mismatch() {
        let good = hash("", 1000);
        for text in [
            "",
            "$",
            "$$$",
            "pbkdf2_sha256$0$salt$AAAA",
            "pbkdf2_sha256$10000001$salt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=",
            "pbkdf2_sha256$-1$salt$x",
            &good.replace("$1000$", "$+1000$"),
            &good.replace("$1000$", "$000001000$"),
            "pbkdf2_sha256$1$salt$",
            "md5$1$salt$x",
            "!unusable",
            &good[..good.len() - 4],
            &format!("{good}$"),
            &good.replacen("pbkdf2_sha256", "pbkdf2_sha1", 1),
        ] {
            assert_eq!(check("", text, TEST_ITERATIONS), Check::Mismatch, "{text}");
        }
    }

    #[test]
    fn every_comparison_takes_the_largest_number_of_iterations() {
        let (few, configured, many) = (hash("a", 100), hash("a", 1000), hash("a", 3000));
        for (stored, expected) in [
            (Some(many.as_str()), Check::Match),
            (Some(&configured), Check::Match),
            (Some(&few), Check::MatchNeedsRehash),
            (Some("pbkdf2_sha256$many$salt$hash"), Check::Mismatch),
            (None, Check::Mismatch),
        ] {
            assert_eq!(verify_counted("a", stored, TEST_ITERATIONS, 3000), (expected, 3000), "{stored:?}");
            assert_eq!(verify_counted("b", stored, TEST_ITERATIONS, 3000), (Check::Mismatch, 3000), "{stored:?}");
        }
        assert_eq!(verify_counted("a", Some(&few), TEST_ITERATIONS, 0).1, 1000, "at least the configured number");
        assert_eq!(total_iterations(0, u32::MAX, TEST_ITERATIONS), MAX_ITERATIONS);
    }

    proptest::proptest! {
        #[test]
        fn parsing_a_hash_does_not_panic(text in r"(pbkdf2_sha256)?\$?[0-9]{0,12}\$?.{0,40}") {
            let _ = ParsedHash::parse(&text);
        }
    }
}
