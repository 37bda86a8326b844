//! Stress tests. Each property has a fast test, which always runs, and most have a long one, which is `#[ignore]`d here and
//! runs under `make stress`. A long test prints its result as a line for the table of results.
#![allow(clippy::cast_precision_loss, reason = "numbers for people, far from 2^52")]

mod coherence;
mod enumeration;
mod fuzz_corpus;
mod hostile;
mod kills;
mod login_flood;
mod rate_limits;
mod rolling;
mod smuggling;

use std::time::Duration;

/// How long a long test runs: `STRESS_SECONDS`, or else the test's own default.
fn stress_duration(default_seconds: u64) -> Duration {
    let seconds = std::env::var("STRESS_SECONDS").map_or(default_seconds, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Prints a row for the table of results, from which `scripts/stress.py` reads it. A test that fails prints none.
pub fn record_result(property: &str, observed: &str) {
    // the test runner has printed the name of the test without a line feed
    println!("\nRESULT | {property} | {observed}");
}

/// A pseudorandom generator with a fixed seed (xorshift64, Marsaglia 2003).
struct Rng(u64);

impl Rng {
    /// Returns a number from 0 to `limit` - 1.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
