//! Where a list is divided into chunks.
//!
//! The rule is content-defined chunking with rows as units: whether a chunk ends after a row follows from that row and
//! the size of the chunk up to it. The same rows therefore always have the same chunks. After a change the boundaries
//! are the old ones again from the first common boundary on, which is nearly always the end of the changed chunk.
//!
//! The probability of an end grows with the size of the chunk, so that sizes vary less than with a constant probability
//! (a Rayleigh instead of an exponential distribution). It is proportional to the size of the row: lists of short and of
//! long rows have chunks of the same size, and a limit in rows is not needed.

/// A chunk of fewer bytes ends only at the end of the list, so a list of a few hundred usual rows is one chunk.
const MIN_BYTES: usize = 128 << 10;
/// The scale of the distribution. The mean size of a chunk is `MIN_BYTES + 1.25 * SCALE_BYTES`.
const SCALE_BYTES: usize = 84 << 10;
/// A chunk ends after the row with which it reaches this size. Chance alone makes one chunk in 30,000 that large.
pub(super) const MAX_BYTES: usize = 512 << 10;

/// Whether a chunk of `chunk_bytes` ends after its last row, which has this id and takes `row_bytes` of them.
pub(super) fn is_last_row(id: i64, row_bytes: usize, chunk_bytes: usize) -> bool {
    if chunk_bytes >= MAX_BYTES {
        return true;
    }
    let Some(excess) = chunk_bytes.checked_sub(MIN_BYTES) else { return false };
    // hash / 2^64 < row_bytes * excess / SCALE_BYTES^2, in integers: every instance must decide alike
    let scaled_hash = u128::from(hash(id)) * (SCALE_BYTES * SCALE_BYTES) as u128;
    scaled_hash < ((row_bytes * excess) as u128) << 64
}

/// Returns a uniformly distributed hash of an id: the output function of SplitMix64.
fn hash(id: i64) -> u64 {
    let mut hash = id.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Divides `rows` rows of `row_bytes` bytes each, whose ids are `step` apart, into chunks. Returns the sizes of the
    /// chunks in bytes.
    fn sizes(rows: i64, row_bytes: usize, step: i64) -> Vec<usize> {
        let mut sizes = vec![0];
        for id in (1..=rows).map(|row| row * step) {
            let last = sizes.len() - 1;
            sizes[last] += row_bytes;
            if is_last_row(id, row_bytes, sizes[last]) {
                sizes.push(0);
            }
        }
        sizes.pop();
        sizes
    }

    #[test]
    fn hash_is_split_mix_64() {
        // the reference implementation's first outputs for the seed 0
        assert_eq!(
            [0, 0x9e37_79b9_7f4a_7c15_u64.cast_signed()].map(hash),
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]
        );
    }

    #[test]
    fn sizes_are_alike_for_all_ids_and_rows() {
        for (row_bytes, step) in [(30, 1), (230, 1), (230, -1), (230, 1000), (230, 1 << 40), (5_000, 7), (50_000, 1)] {
            let rows = i64::try_from((60 << 20) / row_bytes).unwrap();
            let sizes = sizes(rows, row_bytes, step);
            let mean = sizes.iter().sum::<usize>() / sizes.len();
            assert!((200 << 10..280 << 10).contains(&mean), "{row_bytes} {step}: {mean}");
            let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*min >= MIN_BYTES && *max < MAX_BYTES + row_bytes, "{row_bytes} {step}: {min} {max}");
        }
        assert_eq!(sizes(3, MAX_BYTES, 1), [MAX_BYTES; 3], "a huge row ends its chunk");
    }
}
