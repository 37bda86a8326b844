//! The hash rate of the hashing threads alone: as many threads as the server starts, PBKDF2 in a loop.
//!
//!     cargo run --release --example hashing -- ITERATIONS SECONDS

use std::{
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use ring::pbkdf2;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(iterations), Some(seconds)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: hashing ITERATIONS SECONDS");
    };
    let (iterations, duration): (NonZeroU32, _) = (iterations.parse()?, Duration::from_secs(seconds.parse()?));
    let threads = thread::available_parallelism()?.get().saturating_sub(1).max(1);
    let started = Instant::now();
    let hash_until_end = move || {
        let (mut hash, mut count) = ([0; 32], 0_u32);
        while started.elapsed() < duration {
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"a salt of 16 bytes", b"a password", &mut hash);
            count += 1;
        }
        count
    };
    let handles: Vec<_> = (0..threads).map(|_| thread::spawn(hash_until_end)).collect();
    let hashes: u32 = handles.into_iter().map(|handle| handle.join().unwrap_or(0)).sum();
    println!("{threads} threads: {:.3} hashes/s", f64::from(hashes) / started.elapsed().as_secs_f64());
    Ok(())
}
