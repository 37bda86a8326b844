//! No input makes a fault of the server's own, or keeps it from answering. `fuzz/` makes inputs up for minutes, led by what
//! they reach in the code; what it kept of them is tried here each time, with some changes.

mod attempt;

use std::path::Path;

use self::attempt::{PLACES, attempt, shop};
use super::{Dice, seen};

/// The bytes that `fuzz/` kept, or was given to begin with.
fn kept(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Some bytes changed, doubled, left out, or taken from another.
fn changed(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let below = |dice: &mut Dice, bound: usize| usize::try_from(dice.below(bound as u64 + 1)).unwrap();
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        let place = below(dice, bytes.len());
        match dice.below(5) {
            0 => bytes.insert(place, dice.below(256).try_into().unwrap()),
            1 => bytes.truncate(place),
            2 => bytes.extend_from_slice(&other[below(dice, other.len())..]),
            3 => bytes.splice(place.., other[below(dice, other.len())..].iter().copied()).for_each(drop),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn no_input_makes_a_fault_or_a_hang() {
    const CHANGES: usize = 400;
    let (shop, token) = shop().await;
    let (mut dice, mut count) = (Dice(0xfa57), 0);
    for (place, folder) in PLACES {
        let inputs = kept(folder);
        assert!(!inputs.is_empty(), "{folder} has nothing to begin with");
        let any = |dice: &mut Dice| &inputs[usize::try_from(dice.below(inputs.len() as u64)).unwrap()];
        let changes: Vec<_> = (0..CHANGES).map(|_| changed(any(&mut dice), any(&mut dice), &mut dice)).collect();
        for bytes in inputs.iter().chain(&changes) {
            attempt(place, bytes, shop.server.address, &token).await;
            count += 1;
        }
    }
    seen("no input makes a fault or a hang", &format!("{count} inputs of {} kinds", PLACES.len()));
}
