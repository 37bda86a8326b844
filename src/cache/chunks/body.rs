//! Response bodies of a chunked list, part by part.

use std::{
    iter,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress};

use super::{chunk::Chunk, gzip, list::ChunkedList};
use crate::http::{
    Representation,
    body::{FRAME_BYTES, Frames, IncompleteBody},
};

type Part = Result<Bytes, IncompleteBody>;

/// The form in which a body takes the chunks of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Deflated,
    /// Deflated, and inflated while it is sent: for a client that does not accept gzip, of a list without JSON.
    Inflated,
}

impl ChunkedList {
    fn form(&self, representation: Representation) -> Form {
        match representation {
            Representation::Gzip => Form::Deflated,
            Representation::Identity if self.has_json() => Form::Json,
            Representation::Identity => Form::Inflated,
        }
    }

    /// Returns the bytes of each chunk that a body consists of.
    pub(crate) fn body_chunks(&self, representation: Representation) -> Vec<&Bytes> {
        let form = self.form(representation);
        self.chunks().iter().map(|chunk| form.of(chunk)).collect()
    }

    /// Whether a body is computed from the chunks while it is sent.
    pub(crate) fn is_inflated(&self, representation: Representation) -> bool {
        self.form(representation) == Form::Inflated
    }

    /// Returns the parts of a body from the bytes that [`body_chunks`](Self::body_chunks) returned, which keep their
    /// memory in use until they are sent.
    pub(crate) fn body(&self, representation: Representation, chunks: Vec<Bytes>) -> Frames {
        self.frame(self.form(representation), chunks.into_iter().map(Ok))
    }

    /// Returns a body that does not keep the chunks in memory: it is incomplete if one of them is dropped before it is
    /// sent.
    pub(crate) fn weak_body(&self, representation: Representation) -> Frames {
        let form = self.form(representation);
        let chunks: Vec<_> = self.chunks().iter().map(Arc::downgrade).collect();
        self.frame(form, chunks.into_iter().flat_map(move |chunk| copied_frames(chunk, form)))
    }

    /// Puts the chunks of a body into the array and, for gzip, into the member.
    fn frame(&self, form: Form, chunks: impl Iterator<Item = Part> + Send + 'static) -> Frames {
        // the first chunk follows the bracket without a comma
        let chunks = chunks.enumerate().map(move |(index, part)| {
            let comma = if index == 0 { form.comma_bytes() } else { 0 };
            part.map(|bytes| bytes.slice(comma..))
        });
        let gzip_tail = gzip::tail(self.crc32(), self.body_bytes(Representation::Identity));
        let (head, tail) = match form {
            Form::Json => (&b"["[..], Bytes::from_static(b"]")),
            Form::Deflated => (&gzip::HEAD[..], gzip_tail),
            Form::Inflated => (&gzip::HEAD[gzip::HEADER_BYTES..], gzip_tail),
        };
        let parts = iter::once(Ok(Bytes::from_static(head))).chain(chunks).chain(iter::once(Ok(tail)));
        if form == Form::Inflated {
            return Box::new(Inflate { parts, decompress: Decompress::new(false), input: Bytes::new() });
        }
        Box::new(parts)
    }
}

impl Form {
    fn of(self, chunk: &Chunk) -> &Bytes {
        match (self, chunk.json()) {
            (Self::Json, Some(json)) => json,
            _ => chunk.deflated(),
        }
    }

    fn comma_bytes(self) -> usize {
        if self == Self::Json { 1 } else { gzip::COMMA_BLOCK.len() }
    }
}

/// Copies a chunk in frames: a slice would keep the whole chunk in memory.
fn copied_frames(chunk: Weak<Chunk>, form: Form) -> impl Iterator<Item = Part> {
    let mut offset = 0;
    iter::from_fn(move || {
        let Some(chunk) = chunk.upgrade() else {
            // the error ends the body
            return Some(Err(IncompleteBody));
        };
        let bytes = form.of(&chunk);
        let frame = bytes.slice(offset..bytes.len().min(offset + FRAME_BYTES));
        offset += frame.len();
        (!frame.is_empty()).then(|| Ok(Bytes::copy_from_slice(&frame)))
    })
}

/// Inflates the parts of a deflate stream, frame by frame.
struct Inflate<I> {
    parts: I,
    decompress: Decompress,
    /// The rest of the part that is being inflated.
    input: Bytes,
}

impl<I: Iterator<Item = Part>> Iterator for Inflate<I> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        // a full frame may leave output in the decompressor, which the next call returns
        while frame.len() < FRAME_BYTES {
            if self.input.is_empty() {
                match self.parts.next() {
                    Some(Ok(part)) => self.input = part,
                    Some(Err(error)) => return Some(Err(error)),
                    None => break,
                }
            }
            let before = self.decompress.total_in();
            let status = self.decompress.decompress_vec(&self.input, &mut frame, FlushDecompress::None);
            let read = usize::try_from(self.decompress.total_in() - before).unwrap_or(usize::MAX);
            match status {
                // the rest is the trailer of the member
                Ok(flate2::Status::StreamEnd) => self.input.clear(),
                Ok(_) => self.input = self.input.slice(read..),
                Err(_) => return Some(Err(IncompleteBody)),
            }
        }
        (!frame.is_empty()).then(|| Ok(frame.into()))
    }
}
