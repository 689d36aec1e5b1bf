//! What came of one SSRC, by the sequence numbers in the clear (RFC 3550 §5.1), and whose packets they are.

/// A jump ahead beyond this begins anew (RFC 3550 appendix A.1).
const DROPOUT_MAX: u64 = 3_000;
/// Packets behind the newest within which a late one is told from a double.
const WINDOW: u64 = 64;
/// One packet in so many is decrypted where few are.
pub(crate) const LOOK_EVERY: u32 = 100;

/// What a sequence number tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The newest; so many before it are missing.
    Newest { missing: u64 },
    /// One of the missing.
    Late,
    /// It came already, or is older than can be told.
    Double,
}

/// A packet of the line whose stamp was read: what the others' are follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    sender: u32,
    counter: u32,
    index: u64,
}

/// One line of packets.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Of the newest packet, roll-overs counted.
    newest: u64,
    /// Bit n: the packet n before the newest came.
    came: u64,
    anchor: Option<Anchor>,
    since_look: u32,
}

impl Line {
    /// A line that begins with this packet.
    pub(crate) fn new(seq: u16) -> Line {
        Line { newest: (1 << 32) + u64::from(seq), came: 1, anchor: None, since_look: 0 }
    }

    /// Of the newest packet.
    pub(crate) fn index(&self) -> u64 {
        self.newest
    }

    /// Takes the next packet: what it tells, and its index on the line.
    pub(crate) fn note(&mut self, seq: u16) -> (Arrival, u64) {
        let distance = seq.wrapping_sub(self.newest as u16).cast_signed();
        let index = self.newest.saturating_add_signed(distance.into());
        let Some(ahead) = index.checked_sub(self.newest).filter(|&ahead| ahead > 0) else {
            return (self.note_old(self.newest - index), index);
        };
        if ahead > DROPOUT_MAX {
            *self = Line { newest: index, came: 1, anchor: None, since_look: self.since_look };
            return (Arrival::Newest { missing: 0 }, index);
        }
        self.newest = index;
        self.came = if ahead < WINDOW { (self.came << ahead) | 1 } else { 1 };
        (Arrival::Newest { missing: ahead - 1 }, index)
    }

    fn note_old(&mut self, behind: u64) -> Arrival {
        if behind >= WINDOW || self.came >> behind & 1 == 1 {
            return Arrival::Double;
        }
        self.came |= 1 << behind;
        Arrival::Late
    }

    /// Whether this packet should be decrypted: the first ones until one is read, then one of [`LOOK_EVERY`].
    pub(crate) fn wants_look(&mut self) -> bool {
        self.since_look += 1;
        let wants = self.anchor.is_none() || self.since_look >= LOOK_EVERY;
        if wants {
            self.since_look = 0;
        }
        wants
    }

    /// The packet at `index` is this one of this sender.
    pub(crate) fn identify(&mut self, index: u64, sender: u32, counter: u32) {
        self.anchor = Some(Anchor { sender, counter, index });
    }

    /// Someone else may be on the line.
    pub(crate) fn forget(&mut self) {
        self.anchor = None;
    }

    /// The sender of the packet at `index`, and which of the sender's it is.
    pub(crate) fn packet_at(&self, index: u64) -> Option<(u32, u32)> {
        let anchor = self.anchor?;
        let counter = if index >= anchor.index {
            u64::from(anchor.counter).checked_add(index - anchor.index)?
        } else {
            u64::from(anchor.counter).checked_sub(anchor.index - index)?
        };
        Some((anchor.sender, u32::try_from(counter).ok()?))
    }

    /// As [`Line::packet_at`], of the newest packet.
    pub(crate) fn newest(&self) -> Option<(u32, u32)> {
        self.packet_at(self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: Arrival = Arrival::Newest { missing: 0 };

    fn notes(first: u16, rest: &[u16]) -> Vec<Arrival> {
        let mut line = Line::new(first);
        rest.iter().map(|&seq| line.note(seq).0).collect()
    }

    #[test]
    fn gaps_are_counted_across_the_wrap() {
        assert_eq!(notes(65_534, &[65_535, 0, 1]), [NONE; 3]);
        assert_eq!(notes(65_534, &[2]), [Arrival::Newest { missing: 3 }]);
        assert_eq!(
            notes(65_534, &[1, 65_535, 0, 0]),
            [Arrival::Newest { missing: 2 }, Arrival::Late, Arrival::Late, Arrival::Double]
        );
    }

    #[test]
    fn doubles_and_what_is_too_old_change_nothing() {
        assert_eq!(
            notes(100, &[100, 101, 100, 101, 99]),
            [Arrival::Double, NONE, Arrival::Double, Arrival::Double, Arrival::Late]
        );
        assert_eq!(notes(100, &[200, 137, 136])[1..], [Arrival::Late, Arrival::Double]);
    }

    #[test]
    fn a_long_jump_begins_anew() {
        assert_eq!(notes(0, &[3_000, 3_001]), [Arrival::Newest { missing: 2_999 }, NONE]);
        assert_eq!(notes(0, &[3_001, 3_002]), [NONE, NONE]);
    }

    #[test]
    fn what_an_anchor_says_of_the_others() {
        let mut line = Line::new(65_530);
        let (_, index) = line.note(65_535);
        assert_eq!(line.packet_at(index), None);
        line.identify(index, 7, 50);
        let (_, after_wrap) = line.note(4);
        assert_eq!(line.packet_at(after_wrap), Some((7, 55)));
        assert_eq!(line.packet_at(index - 50), Some((7, 0)));
        assert_eq!(line.packet_at(index - 51), None, "before the sender's first");
        line.forget();
        assert_eq!(line.newest(), None);
    }

    #[test]
    fn few_are_looked_into() {
        let mut line = Line::new(0);
        assert!(line.wants_look() && line.wants_look(), "until one is read");
        line.identify(1 << 32, 1, 0);
        let looks = (0..1_000).filter(|_| line.wants_look()).count();
        assert_eq!(looks, 10);
    }

    proptest! {
        /// Against a set of what was sent: over any number of wraps, with loss, doubles and reordering within the window.
        #[test]
        fn what_is_missing_is_what_did_not_come(
            first in any::<u16>(),
            fates in prop::collection::vec(0_u8..20, 1..5_000),
        ) {
            let mut sent: Vec<u64> = Vec::new();
            for (i, &fate) in fates.iter().enumerate() {
                let i = i as u64 + 1;
                match fate {
                    0 => {}
                    1 => sent.extend([i, i]),
                    2 if sent.len() > 2 => sent.insert(sent.len() - 2, i),
                    _ => sent.push(i),
                }
            }
            let mut line = Line::new(first);
            let (mut missing, mut came) = (0_i64, 1_u64);
            for &i in &sent {
                match line.note(first.wrapping_add(i as u16)).0 {
                    Arrival::Newest { missing: more } => { missing += more as i64; came += 1; }
                    Arrival::Late => { missing -= 1; came += 1; }
                    Arrival::Double => {}
                }
            }
            let different: std::collections::BTreeSet<u64> = sent.iter().copied().collect();
            let last = different.last().copied().unwrap_or(0);
            prop_assert_eq!(came, different.len() as u64 + 1);
            prop_assert_eq!(missing, last as i64 - different.len() as i64);
        }
    }
}
