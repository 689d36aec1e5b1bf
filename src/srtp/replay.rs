//! Which indices of one SSRC have been seen (RFC 3711 §3.3.2).

/// A bitmap over the last `WORDS * 64` indices up to the highest seen.
///
/// Index i owns bit i mod `WORDS * 64`, so nothing is shifted when the window moves on.
pub(super) struct ReplayWindow<const WORDS: usize> {
    highest: u64,
    seen: [u64; WORDS],
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    const LEN: u64 = WORDS as u64 * 64;

    /// A window whose first index is `index`. What came before it is not held against it.
    pub(super) fn starting_at(index: u64) -> ReplayWindow<WORDS> {
        let mut window = ReplayWindow { highest: index, seen: [0; WORDS] };
        window.set(index);
        window
    }

    /// A window that takes nothing up to and including `highest`.
    pub(super) fn closed_up_to(highest: u64) -> ReplayWindow<WORDS> {
        ReplayWindow { highest, seen: [u64::MAX; WORDS] }
    }

    /// The highest index seen.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` was inserted, or is too old to tell.
    pub(super) fn contains(&self, index: u64) -> bool {
        let Some(age) = self.highest.checked_sub(index) else {
            return false;
        };
        age >= Self::LEN || self.seen[Self::word(index)] & Self::bit(index) != 0
    }

    /// Remembers `index`, which the window does not contain.
    pub(super) fn insert(&mut self, index: u64) {
        debug_assert!(!self.contains(index), "index {index} is known or too old");
        if index > self.highest {
            self.advance(index);
        }
        self.set(index);
    }

    /// Forgets what falls out of the window below `highest`. One step for a packet in order; the loop is
    /// bounded, and only an authenticated packet gets here.
    fn advance(&mut self, highest: u64) {
        if highest - self.highest >= Self::LEN {
            self.seen = [0; WORDS];
        } else {
            for index in self.highest + 1..=highest {
                self.seen[Self::word(index)] &= !Self::bit(index);
            }
        }
        self.highest = highest;
    }

    fn set(&mut self, index: u64) {
        self.seen[Self::word(index)] |= Self::bit(index);
    }

    fn word(index: u64) -> usize {
        (index % Self::LEN / 64) as usize
    }

    fn bit(index: u64) -> u64 {
        1 << (index % 64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_its_whole_length_and_nothing_older() {
        let mut window = ReplayWindow::<16>::starting_at(5000);
        assert!(window.contains(5000));
        assert!(!window.contains(5000 - 1023), "the oldest place in the window is open");
        assert!(window.contains(5000 - 1024), "what is older counts as seen");
        assert!(!window.contains(5001));
        window.insert(5000 - 1023);
        assert!(window.contains(5000 - 1023));
        window.insert(5001);
        assert!(window.contains(5000 - 1023), "out of the window by one");
        assert!(!window.contains(5000 - 1022));
    }

    #[test]
    fn closed_takes_only_what_is_newer() {
        let mut window = ReplayWindow::<2>::closed_up_to(1000);
        assert!((0..=1000).all(|index| window.contains(index)));
        window.insert(1003);
        assert!(window.contains(1000) && window.contains(1003));
        assert!(!window.contains(1001) && !window.contains(1002));
    }

    proptest! {
        /// Against a set that forgets nothing.
        #[test]
        fn agrees_with_a_set(
            start in 0..100_000_u64,
            steps in proptest::collection::vec(prop_oneof![
                8 => -140..140_i64,
                1 => -3000..3000_i64,
            ], 1..600),
        ) {
            let mut window = ReplayWindow::<2>::starting_at(start);
            let mut seen = HashSet::from([start]);
            let mut highest = start;
            for step in steps {
                let Some(index) = highest.checked_add_signed(step) else { continue };
                let known = seen.contains(&index) || index + 128 <= highest;
                prop_assert_eq!(window.contains(index), known, "{} at {}", index, highest);
                if !known {
                    window.insert(index);
                    seen.insert(index);
                    highest = highest.max(index);
                }
                prop_assert_eq!(window.highest(), highest);
            }
        }
    }
}
