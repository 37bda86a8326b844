//! What hashing threads can do when they have nothing else to do: as many as the shop starts, PBKDF2 without end.
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
    let (iterations, time): (NonZeroU32, _) = (iterations.parse()?, Duration::from_secs(seconds.parse()?));
    let threads = thread::available_parallelism()?.get().saturating_sub(1).max(1);
    let began = Instant::now();
    let hash = move || {
        let (mut hash, mut done) = ([0; 32], 0_u32);
        while began.elapsed() < time {
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"a salt of 16 bytes", b"a password", &mut hash);
            done += 1;
        }
        done
    };
    let running: Vec<_> = (0..threads).map(|_| thread::spawn(hash)).collect();
    let done: u32 = running.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    println!("{threads} threads: {:.3} hashes/s", f64::from(done) / began.elapsed().as_secs_f64());
    Ok(())
}
