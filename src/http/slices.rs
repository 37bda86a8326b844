//! Bytes in memory in several parts, which are written together.

use std::{io::IoSlice, vec};

use bytes::{Buf, Bytes};

/// A frame of a response body. One system call writes many parts of it; each part is dropped when it is written.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    first: Bytes,
    rest: vec::IntoIter<Bytes>,
    /// The bytes of all parts.
    remaining: usize,
}

impl From<Bytes> for Slices {
    fn from(bytes: Bytes) -> Self {
        Self { remaining: bytes.len(), first: bytes, rest: vec::IntoIter::default() }
    }
}

impl FromIterator<Bytes> for Slices {
    fn from_iter<T: IntoIterator<Item = Bytes>>(parts: T) -> Self {
        let parts: Vec<Bytes> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let remaining = parts.iter().map(Bytes::len).sum();
        let mut rest = parts.into_iter();
        Self { first: rest.next().unwrap_or_default(), rest, remaining }
    }
}

impl Slices {
    /// Returns the first `max` bytes and keeps the rest.
    pub(super) fn split_to(&mut self, max: usize) -> Self {
        if self.remaining <= max {
            return std::mem::take(self);
        }
        let (mut parts, mut missing) = (Vec::new(), max);
        while missing > 0 {
            let part = self.first.slice(..self.first.len().min(missing));
            self.advance(part.len());
            missing -= part.len();
            parts.push(part);
        }
        parts.into_iter().collect()
    }
}

impl Buf for Slices {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, target: &mut [IoSlice<'a>]) -> usize {
        let parts = std::iter::once(&self.first).chain(self.rest.as_slice()).filter(|part| !part.is_empty());
        target.iter_mut().zip(parts).map(|(slot, part)| *slot = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced by {count} of {} bytes", self.remaining);
        self.remaining -= count;
        while count >= self.first.len() {
            count -= self.first.len();
            let Some(next) = self.rest.next() else {
                self.first = Bytes::new();
                return;
            };
            self.first = next;
        }
        self.first.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_are_the_parts_one_after_the_other(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..6),
            steps in prop::collection::vec((0..9_usize, 1..4_usize), 0..20),
            max in 1..9_usize,
        ) {
            let expected = parts.concat();
            let mut slices: Slices = parts.into_iter().map(Bytes::from).collect();
            let mut sent = 0;
            for (count, vectors) in steps {
                prop_assert_eq!(slices.remaining(), expected.len() - sent);
                prop_assert_eq!(slices.has_remaining(), !slices.chunk().is_empty());
                let mut target = vec![IoSlice::new(&[]); vectors];
                let filled = slices.chunks_vectored(&mut target);
                prop_assert_eq!(filled > 0, slices.has_remaining());
                let seen = target[..filled].iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>();
                prop_assert!(expected[sent..].starts_with(&seen));
                prop_assert!(filled == vectors || seen.len() == slices.remaining());
                let count = count.min(slices.remaining());
                slices.advance(count);
                sent += count;
            }
            let mut frame = slices.split_to(max);
            prop_assert_eq!(frame.remaining(), max.min(expected.len() - sent));
            let frame = frame.copy_to_bytes(frame.remaining());
            let rest = slices.copy_to_bytes(slices.remaining());
            prop_assert_eq!([frame, rest].concat(), &expected[sent..]);
        }
    }

    #[test]
    fn part_is_dropped_when_it_is_written() {
        let part = Bytes::from(vec![1, 2]);
        let mut slices: Slices = [part.clone(), Bytes::from_static(b"3")].into_iter().collect();
        slices.advance(1);
        assert!(!part.is_unique());
        slices.advance(1);
        assert!(part.is_unique());
    }
}
