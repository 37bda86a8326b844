//! Stress tests. Each property has a fast test, which always runs, and most have a long one, which is `#[ignore]`d here
//! and runs under `make stress`. A long test prints its result as a line for the table of results.
#![allow(clippy::cast_precision_loss, reason = "numbers for display, far below 2^52")]

mod bulk_accounts;
mod coherence;
mod enumeration;
mod fuzz_corpus;
mod hostile;
mod import_bombs;
mod kills;
mod login_flood;
mod memory;
mod rate_limits;
mod rolling;
mod smuggling;

use std::time::Duration;

/// Duration of a long test: `STRESS_SECONDS`, or the default of the test.
fn stress_duration(default_seconds: u64) -> Duration {
    let seconds = std::env::var("STRESS_SECONDS").map_or(default_seconds, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Prints a row for the table of results, which `scripts/stress.py` reads. A test that fails prints none.
pub fn record_result(property: &str, observed: &str) {
    // the test runner has printed the name of the test without a line feed
    println!("\nRESULT | {property} | {observed}");
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A pseudorandom generator with a fixed seed (xorshift64, Marsaglia 2003).
pub struct Rng(pub u64);

impl Rng {
    /// Returns a number from 0 to `limit` - 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Returns an index from 0 to `length` - 1.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }
}
