//! The 48-bit packet index (RFC 3711 §3.3.1).

/// `2^16 * ROC + SEQ`; below 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketIndex(pub u64);

impl PacketIndex {
    /// The last index of a key (RFC 3711 §9.2).
    pub const MAX: PacketIndex = PacketIndex((1 << 48) - 1);

    /// The low 16 bits: the RTP sequence number.
    pub const fn seq(self) -> u16 {
        self.0 as u16
    }

    /// The rollover counter.
    pub const fn roc(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The index nearest to `self`, the highest one authenticated, whose low 16 bits are `seq`
    /// (RFC 3711 §3.3.1); `None` beyond [`PacketIndex::MAX`].
    ///
    /// A guess until the tag verifies: callers must not store it before that. Exactly half way the ROC
    /// stays what it is, as in appendix A. Where the appendix steps below index 0, to a ROC of 2^32 − 1
    /// that no sender starts with, we stay in the first round: it is the only index left that can verify,
    /// after a burst of loss early in a stream.
    pub fn nearest(self, seq: u16) -> Option<PacketIndex> {
        let distance = match seq.wrapping_sub(self.seq()) as i16 {
            i16::MIN if self.seq() < 0x8000 => 0x8000,
            distance => i64::from(distance),
        };
        let guess = self.0.checked_add_signed(distance).map_or(PacketIndex(seq.into()), PacketIndex);
        (guess <= PacketIndex::MAX).then_some(guess)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 3711 appendix A, as it is written there.
    fn appendix_a(s_l: u16, roc: u32, seq: u16) -> (u32, u64) {
        let (s_l, seq) = (i64::from(s_l), i64::from(seq));
        let v = if s_l < 32_768 {
            if seq - s_l > 32_768 { roc.wrapping_sub(1) } else { roc }
        } else if s_l - 32_768 > seq {
            roc.wrapping_add(1)
        } else {
            roc
        };
        (v, seq as u64 + u64::from(v) * 65_536)
    }

    /// Where the two part: below index 0 and above 2^48 − 1.
    fn expected(last: PacketIndex, seq: u16) -> Option<PacketIndex> {
        let (v, index) = appendix_a(last.seq(), last.roc(), seq);
        match (last.roc(), v) {
            (0, u32::MAX) => Some(PacketIndex(seq.into())),
            (u32::MAX, 0) => None,
            _ => Some(PacketIndex(index)),
        }
    }

    #[test]
    fn agrees_with_the_appendix_for_every_distance_at_the_corners() {
        for roc in [0, 1, 2, 0x7FFF_FFFF, u32::MAX - 1, u32::MAX] {
            for s_l in [0, 1, 2, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xFFFE, 0xFFFF] {
                let last = PacketIndex(u64::from(roc) << 16 | s_l);
                for seq in 0..=u16::MAX {
                    assert_eq!(last.nearest(seq), expected(last, seq), "{last:?} {seq}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_appendix(last in 0..=PacketIndex::MAX.0, seq: u16) {
            prop_assert_eq!(PacketIndex(last).nearest(seq), expected(PacketIndex(last), seq));
        }

        #[test]
        fn no_index_with_that_seq_is_nearer(last in 0..=PacketIndex::MAX.0, seq: u16) {
            if let Some(guess) = PacketIndex(last).nearest(seq) {
                prop_assert_eq!(guess.seq(), seq);
                for other in [guess.0.checked_sub(1 << 16), Some(guess.0 + (1 << 16))].into_iter().flatten() {
                    prop_assert!(guess.0.abs_diff(last) <= other.abs_diff(last));
                }
            }
        }
    }
}
