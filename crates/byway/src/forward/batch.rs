//! What QUIC has reassembled, as one buffer.

use std::io;

use bytes::{Buf, Bytes};

/// Chunks as one buffer, for vectored writes without copying. A chunk is released as soon as it is written.
pub(super) struct Batch<'a> {
    chunks: &'a mut [Bytes],
    first: usize,
    remaining: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(chunks: &'a mut [Bytes]) -> Self {
        let remaining = chunks.iter().map(Bytes::len).sum();
        Self {
            chunks,
            first: 0,
            remaining,
        }
    }
}

impl Buf for Batch<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        let rest = &self.chunks[self.first..];
        rest.iter()
            .find(|chunk| !chunk.is_empty())
            .map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'b>(&'b self, slices: &mut [io::IoSlice<'b>]) -> usize {
        let rest = self.chunks[self.first..]
            .iter()
            .filter(|chunk| !chunk.is_empty());
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(rest) {
            *slice = io::IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advanced beyond the end");
        self.remaining -= count;
        while count > 0 {
            let chunk = &mut self.chunks[self.first];
            let step = count.min(chunk.len());
            chunk.advance(step);
            count -= step;
            if chunk.is_empty() {
                *chunk = Bytes::new();
                self.first += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_as_one_buffer() {
        let mut chunks = [
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"cdef"),
            Bytes::from_static(b"g"),
        ];
        let mut batch = Batch::new(&mut chunks);
        assert_eq!(batch.remaining(), 7);
        let mut slices = [io::IoSlice::new(&[]); 8];
        assert_eq!(batch.chunks_vectored(&mut slices), 3);
        batch.advance(3);
        assert_eq!(batch.chunk(), b"def");
        assert_eq!(batch.copy_to_bytes(4), Bytes::from_static(b"defg"));
        assert_eq!(batch.remaining(), 0);
        assert_eq!(batch.chunk(), b"");
    }
}
