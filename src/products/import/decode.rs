//! Decodes texts in any charset of the WHATWG to UTF-8, as a stream.

use std::io::{self, BufRead, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

const BUFFER_BYTES: usize = 16 * 1024;
/// Stands for bytes that are invalid in the charset. It is invalid in UTF-8, too.
const INVALID_BYTE: u8 = 0xff;

/// Returns the charset of a text by its first bytes, or `declared` without a byte order mark. `None` is UTF-8.
pub(crate) fn charset_of_text(start: &[u8], declared: Option<&'static Encoding>) -> Option<&'static Encoding> {
    let charset = Encoding::for_bom(start).map(|(charset, _)| charset).or(declared);
    charset.filter(|charset| *charset != UTF_8)
}

/// Returns the charset of an XML document by its first bytes: UTF-16, or `None` for UTF-8.
pub(crate) fn charset_of_xml(start: &[u8]) -> Option<&'static Encoding> {
    let without_mark = match start {
        [b'<', 0, ..] => Some(UTF_16LE),
        [0, b'<', ..] => Some(UTF_16BE),
        _ => None,
    };
    charset_of_text(start, without_mark)
}

/// Reads a text as UTF-8. Each sequence of bytes that is invalid in the charset becomes one byte that is invalid in UTF-8.
pub(crate) struct Utf8Reader<R> {
    inner: R,
    /// `None` if the text is in UTF-8: it is not copied.
    decoder: Option<Decoder>,
    buffer: Box<[u8]>,
    /// The bytes of `buffer` that have not been read.
    start: usize,
    end: usize,
    is_finished: bool,
}

impl<R: BufRead> Utf8Reader<R> {
    /// `charset` is `None` for UTF-8. A byte order mark of another charset is skipped.
    pub(crate) fn new(inner: R, charset: Option<&'static Encoding>) -> Self {
        let decoder = charset.map(Encoding::new_decoder_with_bom_removal);
        let buffer = vec![0; if decoder.is_some() { BUFFER_BYTES } else { 0 }].into_boxed_slice();
        Self { inner, decoder, buffer, start: 0, end: 0, is_finished: false }
    }

    pub(crate) fn inner(&self) -> &R {
        &self.inner
    }
}

/// Decodes the next bytes of `inner` to `buffer`. Returns their number and whether the text has ended.
fn decode<R: BufRead>(decoder: &mut Decoder, inner: &mut R, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
    let input = inner.fill_buf()?;
    let is_last = input.is_empty();
    let max_bytes = buffer.len() - 1;
    let (result, read, written) = decoder.decode_to_utf8_without_replacement(input, &mut buffer[..max_bytes], is_last);
    inner.consume(read);
    Ok(match result {
        DecoderResult::InputEmpty => (written, is_last),
        DecoderResult::OutputFull => (written, false),
        DecoderResult::Malformed(..) => {
            buffer[written] = INVALID_BYTE;
            (written + 1, false)
        }
    })
}

impl<R: BufRead> BufRead for Utf8Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Some(decoder) = &mut self.decoder else { return self.inner.fill_buf() };
        while self.start == self.end && !self.is_finished {
            (self.start, self.end) = (0, 0);
            (self.end, self.is_finished) = decode(decoder, &mut self.inner, &mut self.buffer)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, bytes: usize) {
        if self.decoder.is_some() { self.start += bytes } else { self.inner.consume(bytes) }
    }
}

impl<R: BufRead> Read for Utf8Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use encoding_rs::WINDOWS_1251;

    use super::*;

    fn read(bytes: &[u8], charset: Option<&'static Encoding>, chunk_bytes: usize) -> Vec<u8> {
        let mut text = Vec::new();
        let source = BufReader::with_capacity(chunk_bytes, bytes);
        Utf8Reader::new(source, charset_of_text(bytes, charset)).read_to_end(&mut text).unwrap();
        text
    }

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn texts_are_decoded_in_chunks_of_any_size() {
        let text = "цена, 🐢\n".repeat(3000);
        for chunk_bytes in [1, 3, 8192] {
            let marked = format!("\u{feff}{text}");
            for bytes in [utf16(&marked, u16::to_le_bytes), utf16(&marked, u16::to_be_bytes)] {
                assert_eq!(read(&bytes, Some(WINDOWS_1251), chunk_bytes), text.as_bytes(), "the mark decides");
            }
            assert_eq!(read(b"\xf6\xe5\xed\xe0", Some(WINDOWS_1251), chunk_bytes), "цена".as_bytes());
            assert_eq!(read(text.as_bytes(), Some(UTF_8), chunk_bytes), text.as_bytes());
        }
    }

    #[test]
    fn invalid_bytes_stay_invalid() {
        let lone_surrogate = b"\xff\xfea\0\x00\xd8b\0";
        assert_eq!(read(lone_surrogate, None, 8192), b"a\xffb");
        assert_eq!(read(b"\xff\xfea\0b", None, 8192), b"a\xff", "half a unit");
        assert_eq!(read(b"a\xffb", None, 8192), b"a\xffb");
    }

    #[test]
    fn charset_of_xml_is_recognized_without_a_mark() {
        assert_eq!(charset_of_xml(b"<\0?\0"), Some(UTF_16LE));
        assert_eq!(charset_of_xml(b"\0<\0?"), Some(UTF_16BE));
        assert_eq!(charset_of_xml(b"\xfe\xff\0<"), Some(UTF_16BE));
        assert_eq!(
            (charset_of_xml(b"<?xml"), charset_of_xml(b"\xef\xbb\xbf<"), charset_of_xml(b"")),
            (None, None, None)
        );
    }
}
