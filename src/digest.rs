//! SHA-256 and hexadecimal text.

use std::{fs::File, io, os::unix::fs::FileExt};

use ring::digest::{Context, SHA256};

/// Bytes that are read from a file at a time.
const READ_BYTES: usize = 64 * 1024;

/// Returns the SHA-256 digest of the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    finish(context)
}

/// Returns the SHA-256 digest of `prefix` and the whole of `file`. Other readers of the file are not affected.
pub(crate) fn sha256_of_file(prefix: &[u8], file: &File) -> io::Result<[u8; 32]> {
    let (mut context, mut buffer, mut offset) = (Context::new(&SHA256), vec![0; READ_BYTES], 0);
    context.update(prefix);
    loop {
        let length = file.read_at(&mut buffer, offset)?;
        if length == 0 {
            return Ok(finish(context));
        }
        context.update(&buffer[..length]);
        offset += length as u64;
    }
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
    use std::io::Write;

    use super::*;

    #[test]
    fn sha256_of_parts_and_files_equals_sha256_of_concatenation() {
        // FIPS 180-2, B.1
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(&[b"abc"])), abc);
        assert_eq!(hex(&sha256(&[b"a", b"", b"bc"])), abc);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; READ_BYTES + 1]).unwrap();
        let parts: [&[u8]; 2] = [b"prefix", &vec![7; READ_BYTES + 1]];
        assert_eq!(sha256_of_file(b"prefix", &file).unwrap(), sha256(&parts));
    }
}
