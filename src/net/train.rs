//! Datagrams that leave together. The kernel cuts a send into segments of one length (`UDP_SEGMENT`), so
//! only equal ones can, and one shorter one at the end.

use crate::net::backend::TRAIN_LEN_MAX;
use crate::packet::DATAGRAM_LEN_MAX;

/// Datagrams of one send.
const SEGMENT_COUNT_MAX: u16 = TRAIN_LEN_MAX as u16;

const _: () = assert!(SEGMENT_COUNT_MAX as usize * DATAGRAM_LEN_MAX <= 65_535 - 48);

/// Datagrams that leave in one send: all of `segment_len` bytes, the last perhaps shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train {
    /// Where its bytes begin in the send memory.
    pub(super) start: usize,
    /// All of its bytes.
    pub(super) len: usize,
    /// Those of each datagram but the last.
    pub(super) segment_len: usize,
    pub(super) count: u16,
}

impl Train {
    /// One that begins with a datagram of `len` bytes.
    pub(super) fn new(start: usize, len: usize) -> Train {
        Train { start, len, segment_len: len, count: 1 }
    }

    /// A datagram of `len` bytes may follow.
    pub(super) fn takes(&self, len: usize) -> bool {
        let is_last_full = self.len == self.segment_len * usize::from(self.count);
        is_last_full && len <= self.segment_len && self.count < SEGMENT_COUNT_MAX
    }

    /// Each datagram by itself.
    pub(super) fn singles(self) -> impl Iterator<Item = Train> {
        (0..usize::from(self.count)).map(move |index| {
            let offset = index * self.segment_len;
            let len = self.segment_len.min(self.len - offset);
            Train::new(self.start + offset, len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_ends_with_its_first_shorter_datagram() {
        let mut train = Train::new(10, 100);
        assert!(train.takes(100) && train.takes(1) && !train.takes(101));
        train.len += 99;
        train.count += 1;
        assert!(!train.takes(99) && !train.takes(1));
    }

    #[test]
    fn a_train_has_its_longest() {
        let train = Train { start: 0, len: 16 * 50, segment_len: 50, count: SEGMENT_COUNT_MAX };
        assert!(!train.takes(50));
    }

    #[test]
    fn singles_of_a_train_are_its_datagrams() {
        let train = Train { start: 10, len: 250, segment_len: 100, count: 3 };
        let singles: Vec<_> =
            train.singles().map(|single| (single.start, single.len, single.count)).collect();
        assert_eq!(singles, [(10, 100, 1), (110, 100, 1), (210, 50, 1)]);
    }
}
