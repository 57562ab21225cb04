//! Bytes on their way through: a fixed block with a filled middle.

use std::fmt;

/// A block of bytes of which `start..end` is filled. It is initialised once and then reused, so
/// reading into it needs neither zeroing nor unsafe code.
#[derive(Default)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer that can hold `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), start: 0, end: 0 }
    }

    /// How many bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that are there.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The bytes that are there, to be rearranged in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// How many bytes are there.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room for more, behind what is there. Moves what is there to the front when the room behind
    /// it has run out; empty only when the buffer is full.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Counts the first `n` bytes of [`spare`](Self::spare) as filled.
    pub fn fill(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Drops the first `n` filled bytes.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Makes room for `capacity` bytes in all, keeping what is there.
    pub fn grow(&mut self, capacity: usize) {
        let mut larger = Self::with_capacity(capacity);
        larger.append(self.filled());
        *self = larger;
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Appends as much of `bytes` as there is room for, and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = spare.len().min(bytes.len());
        if let (Some(to), Some(from)) = (spare.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.fill(n);
        n
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}..{} of {})", self.start, self.end, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_by_moving_what_is_there_to_the_front() {
        let mut buffer = Buffer::with_capacity(4);
        assert_eq!(buffer.append(b"abcdef"), 4);
        assert!(buffer.spare().is_empty(), "full");
        buffer.consume(3);
        assert_eq!(buffer.spare().len(), 3);
        assert_eq!(buffer.append(b"xyz!"), 3);
        assert_eq!(buffer.filled(), b"dxyz");
        buffer.consume(9);
        assert!(buffer.is_empty());
        assert_eq!(buffer.spare().len(), 4);
    }
}
