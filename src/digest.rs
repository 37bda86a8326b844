//! SHA-256 and hexadecimal text.

use ring::digest::{Context, SHA256};

/// Returns the SHA-256 digest of the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    finish(context)
}

/// Returns the SHA-256 digest of the concatenation of parts that can fail, such as the blocks of a file.
pub(crate) fn sha256_of_blocks<E>(blocks: impl Iterator<Item = Result<Vec<u8>, E>>) -> Result<[u8; 32], E> {
    let mut context = Context::new(&SHA256);
    for block in blocks {
        context.update(&block?);
    }
    Ok(finish(context))
}

fn finish(context: Context) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
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
