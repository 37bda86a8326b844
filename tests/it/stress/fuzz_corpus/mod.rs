//! No input makes a fault of the server's own, or keeps it from answering. `fuzz/` makes inputs up for minutes, led by what
//! they reach in the code; what it kept of them is tried here each time, with some changes.

mod targets;

use std::path::Path;

use self::targets::{TARGETS, run_case, spawn_app};
use super::{Rng, record_result};

/// The bytes that `fuzz/` kept, or was given to begin with.
fn load_corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Some bytes changed, doubled, left out, or taken from another.
fn mutate(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let below = |rng: &mut Rng, bound: usize| usize::try_from(rng.below(bound as u64 + 1)).unwrap();
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let place = below(rng, bytes.len());
        match rng.below(5) {
            0 => bytes.insert(place, rng.below(256).try_into().unwrap()),
            1 => bytes.truncate(place),
            2 => bytes.extend_from_slice(&other[below(rng, other.len())..]),
            3 => bytes.splice(place.., other[below(rng, other.len())..].iter().copied()).for_each(drop),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn fuzz_corpus_causes_no_5xx_or_hang() {
    const CHANGES: usize = 400;
    let (app, token) = spawn_app().await;
    let (mut rng, mut count) = (Rng(0xfa57), 0);
    for (place, folder) in TARGETS {
        let inputs = load_corpus(folder);
        assert!(!inputs.is_empty(), "{folder} has nothing to begin with");
        let any = |rng: &mut Rng| &inputs[usize::try_from(rng.below(inputs.len() as u64)).unwrap()];
        let changes: Vec<_> = (0..CHANGES).map(|_| mutate(any(&mut rng), any(&mut rng), &mut rng)).collect();
        for bytes in inputs.iter().chain(&changes) {
            run_case(place, bytes, app.server.address, &token).await;
            count += 1;
        }
    }
    record_result("no input makes a fault or a hang", &format!("{count} inputs of {} kinds", TARGETS.len()));
}
