//! Datagrams that leave together. The kernel cuts a send into segments of one length (`UDP_SEGMENT`), so
//! only equal ones can, and one shorter one at the end.

use std::ops::Range;

use crate::net::backend::TRAIN_LEN_MAX;
use crate::packet::DATAGRAM_LEN_MAX;

/// Datagrams of one send.
const SEGMENT_COUNT_MAX: u16 = TRAIN_LEN_MAX as u16;

const _: () = assert!(SEGMENT_COUNT_MAX as usize * DATAGRAM_LEN_MAX <= 65_535 - 48);

/// Datagrams that leave in one send: all of `segment_len` bytes, the last perhaps shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    start: u32,
    len: u32,
    segment_len: u16,
    count: u16,
}

impl Train {
    /// One that begins with a datagram of `len` bytes, at `start` in the send memory.
    pub(super) fn new(start: usize, len: usize) -> Train {
        assert!(start <= u32::MAX as usize && (1..=DATAGRAM_LEN_MAX).contains(&len));
        Train { start: start as u32, len: len as u32, segment_len: len as u16, count: 1 }
    }

    /// Takes a datagram of `len` bytes that lies behind it, if it may follow.
    pub(super) fn push(&mut self, len: usize) -> bool {
        let is_last_full = self.len == u32::from(self.segment_len) * u32::from(self.count);
        let takes = is_last_full && len <= usize::from(self.segment_len) && self.count < SEGMENT_COUNT_MAX;
        if takes {
            self.len += len as u32;
            self.count += 1;
        }
        takes
    }

    /// Where its bytes lie in the send memory.
    pub(super) fn bytes(&self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }

    /// Bytes of each datagram but the last.
    pub(super) fn segment_len(&self) -> u16 {
        self.segment_len
    }

    /// Datagrams.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Each datagram by itself.
    pub(super) fn singles(self) -> impl Iterator<Item = Train> {
        let bytes = self.bytes();
        let segment_len = usize::from(self.segment_len);
        bytes
            .clone()
            .step_by(segment_len)
            .map(move |start| Train::new(start, segment_len.min(bytes.end - start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_ends_with_its_first_shorter_datagram() {
        let mut train = Train::new(10, 100);
        assert!(!train.push(101) && train.push(100) && train.push(99));
        assert_eq!((train.bytes(), train.count(), train.segment_len()), (10..309, 3, 100));
        assert!(!train.push(99) && !train.push(1));
    }

    #[test]
    fn a_train_has_its_longest() {
        let mut train = Train::new(0, DATAGRAM_LEN_MAX);
        assert!((1..SEGMENT_COUNT_MAX).all(|_| train.push(DATAGRAM_LEN_MAX)));
        assert!(!train.push(DATAGRAM_LEN_MAX));
        assert_eq!(train.count(), SEGMENT_COUNT_MAX);
    }

    #[test]
    fn singles_of_a_train_are_its_datagrams() {
        let mut train = Train::new(10, 100);
        assert!(train.push(100) && train.push(50));
        let singles: Vec<_> = train.singles().map(|single| (single.bytes(), single.count())).collect();
        assert_eq!(singles, [(10..110, 1), (110..210, 1), (210..260, 1)]);
    }
}
