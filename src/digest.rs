//! SHA-256 and hexadecimal text.

use ring::digest::{Context, SHA256};

/// The SHA-256 digest of bytes that arrive in parts.
#[derive(Clone)]
pub(crate) struct Sha256(Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256 {
    pub(crate) fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

/// Returns the SHA-256 digest of the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::default();
    parts.iter().for_each(|part| digest.update(part));
    digest.finish()
}

/// Returns the SHA-256 digest of the concatenation of parts that can fail, such as the blocks of a file.
pub(crate) fn sha256_of_blocks<E>(blocks: impl Iterator<Item = Result<Vec<u8>, E>>) -> Result<[u8; 32], E> {
    let mut digest = Sha256::default();
    for block in blocks {
        digest.update(&block?);
    }
    Ok(digest.finish())
}

/// Returns `bytes` in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_parts_equals_sha256_of_concatenation() {
        // FIPS 180-2, B.1
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(&[b"abc"])), abc);
        assert_eq!(hex(&sha256(&[b"a", b"", b"bc"])), abc);
        let blocks = [Ok(b"a".to_vec()), Ok(Vec::new()), Ok(b"bc".to_vec())];
        assert_eq!(sha256_of_blocks(blocks.into_iter()).map(|digest| hex(&digest)), Ok::<_, ()>(abc.to_owned()));
        assert_eq!(sha256_of_blocks([Ok(b"a".to_vec()), Err("unreadable")].into_iter()), Err("unreadable"));
    }
}
