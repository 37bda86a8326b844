//! What the server was seen to survive. Each promise has a fast test, which always runs, and a long one, which `make
//! hard` runs: `#[ignore]`d here, and its last words are a line for the table.
#![allow(clippy::cast_precision_loss, reason = "numbers for people, far from 2^52")]

mod coherence;
mod enumeration;
mod hostile;
mod inputs;
mod kills;
mod rolling;
mod smuggling;
mod storm;
mod throttles;

use std::time::Duration;

/// How long the long form of a test takes: `HARD_SECONDS`, or as long as it says itself.
fn duration(seconds: u64) -> Duration {
    Duration::from_secs(std::env::var("HARD_SECONDS").map_or(seconds, |seconds| seconds.parse().unwrap()))
}

/// A line of the table: what was promised, and the numbers that were seen. A test that fails has none.
pub fn seen(promise: &str, numbers: &str) {
    // the name of the test stands on the line before
    println!("\nSEEN | {promise} | {numbers}");
}

/// Numbers without a pattern, the same ones for the same seed (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
