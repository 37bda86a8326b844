//! The rate of the hashing threads alone: the server's pool, with as many threads as it starts, kept busy.
//!
//!     cargo run --release --example hashing -- ITERATIONS SECONDS

use std::{
    num::NonZeroU32,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use testshop::auth::password_hashing::{PasswordHasherPool, StoredPassword};

/// Comparisons that wait for a thread.
const WAITING: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(iterations), Some(seconds)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: hashing ITERATIONS SECONDS");
    };
    let (iterations, duration): (NonZeroU32, _) = (iterations.parse()?, Duration::from_secs(seconds.parse()?));
    let threads = thread::available_parallelism()?.get().saturating_sub(1).max(1);
    let pool = PasswordHasherPool::start(threads, iterations);
    let text =
        format!("pbkdf2_sha256${iterations}$saltsaltsaltsaltsaltsa$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let stored = StoredPassword { text: Some(text), max_iterations: iterations.get() };
    let started = Instant::now();
    let hash_until_end = async || {
        let mut count = 0_u32;
        while started.elapsed() < duration {
            pool.verify("a password".to_owned().into(), stored.clone()).await?;
            count += 1;
        }
        anyhow::Ok(count)
    };
    let counts = join_all((0..threads + WAITING).map(|_| hash_until_end())).await;
    let hashes: u32 = counts.into_iter().sum::<anyhow::Result<u32>>()?;
    println!("{threads} threads: {:.3} hashes/s", f64::from(hashes) / started.elapsed().as_secs_f64());
    Ok(())
}
