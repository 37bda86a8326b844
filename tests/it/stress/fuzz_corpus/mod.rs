//! No input causes a 5xx or keeps the server from responding. `fuzz/` generates inputs for minutes, guided by code
//! coverage; this test sends the inputs of its corpus, and mutations of them.

mod targets;

use std::path::Path;

use self::targets::{TARGETS, Target, request, run_case, spawn_app};
use super::{Rng, record_result};

/// Reads the corpus of a fuzz target, in the order of the file names.
fn load_corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Inserts, removes, flips, appends or replaces bytes, the latter two with bytes of another input.
fn mutate(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let offset = rng.index(bytes.len() + 1);
        match rng.below(5) {
            0 => bytes.insert(offset, rng.below(256).try_into().unwrap()),
            1 => bytes.truncate(offset),
            2 => bytes.extend_from_slice(&other[rng.index(other.len() + 1)..]),
            3 => bytes.splice(offset.., other[rng.index(other.len() + 1)..].iter().copied()).for_each(drop),
            _ => {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    bytes
}

/// The seeds of the generated workbooks that once took any amount of memory or time.
const BOMBS: [(&str, &[u8]); 3] = [
    // one text of 250 kB, and 1100 cells outside of rows that refer to it
    ("bomb-cells", &[192, 1, 0, 6, 0, 5, 0, 0, 0, 0, 6, 1, 0, 6, 5]),
    // 2000 sheets whose target has 900 kB
    ("bomb-target", &[192, 0, 0, 0, 7, 0, 1, 0, 6]),
    // 2000 numbered sheets
    ("bomb-sheets", &[192, 0, 5, 1, 0, 0, 0, 0, 1, 6]),
];

#[tokio::test]
async fn seeds_generate_the_bombs() {
    let (app, token) = spawn_app().await;
    let staff = crate::harness::TestClient::new(app.server.address).with_token(&token);
    let inputs = load_corpus("import");
    for ((name, seed), expected) in
        BOMBS.iter().zip(["\"skipped\":1100", "a name longer than 1024 bytes", "more than 256 sheets"])
    {
        assert!(inputs.iter().any(|input| input == seed), "{name} is missing in the corpus");
        let request = request(Target::Import, seed, &token);
        let response = staff.raw(&request).await;
        assert!(response.contains(expected), "{name}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fuzz_corpus_causes_no_5xx_or_hang() {
    send_corpus(40).await;
}

#[ignore = "minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn mutated_fuzz_corpus_causes_no_5xx_or_hang() {
    let (inputs, kinds) = send_corpus(1_000).await;
    let observed = format!("{inputs} inputs of {kinds} kinds");
    record_result("no input of the fuzz corpus causes a 5xx or a hang", &observed);
}

/// Sends the inputs of each target, and this number of mutations of them. Returns the numbers of inputs and of targets.
async fn send_corpus(mutations: usize) -> (usize, usize) {
    let (app, token) = spawn_app().await;
    let (mut rng, mut count) = (Rng(0xfa57), 0);
    for (target, name) in TARGETS {
        let inputs = load_corpus(name);
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        let mut mutation = || {
            let (bytes, other) = (rng.pick(&inputs), rng.pick(&inputs));
            mutate(bytes, other, &mut rng)
        };
        let mutations: Vec<_> = (0..mutations).map(|_| mutation()).collect();
        for bytes in inputs.iter().chain(&mutations) {
            run_case(target, bytes, app.server.address, &token).await;
            count += 1;
        }
    }
    (count, TARGETS.len())
}
