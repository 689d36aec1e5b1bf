//! The guard of debug builds against sealing under one index twice, which with GCM gives the key's
//! authentication away (RFC 7714 §12.1, RFC 3711 §9.1).

use super::index::PacketIndex;
use super::replay::ReplayWindow;
use crate::config::Limits;
use crate::ids::Ssrc;

/// Remembers 2^16 indices of an SSRC: 8 KiB.
type Window = ReplayWindow<1024>;

/// SSRCs under guard: as many as a client has voices, each under one of its own. Of more, the one longest unused is
/// forgotten.
const SSRC_MAX: usize = Limits::AUDIO_SLOT_COUNT_MAX as usize;

/// What was sealed, the SSRC longest unused first. Allocates at the first packet of an SSRC only.
#[derive(Default)]
pub(super) struct Spent(Vec<(Ssrc, Box<Window>)>);

impl Spent {
    /// # Panics
    /// When `index` of `ssrc` is among those remembered, or too far behind the highest to tell; nobody who keeps to the
    /// rules seals that late.
    pub(super) fn spend(&mut self, ssrc: Ssrc, index: PacketIndex) {
        let Some(at) = self.0.iter().rposition(|(known, _)| *known == ssrc) else {
            if self.0.len() == SSRC_MAX {
                self.0.remove(0);
            }
            self.0.push((ssrc, Box::new(Window::starting_at(index.0))));
            return;
        };
        let (_, window) = &mut self.0[at];
        assert!(
            !window.contains(index.0),
            "{ssrc:?} seals {index:?} a second time, or far behind {}",
            window.highest()
        );
        window.insert(index.0);
        self.0[at..].rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Index 1 of so many SSRCs.
    fn spent(count: usize) -> Spent {
        let mut spent = Spent::default();
        (0..count).for_each(|ssrc| spent.spend(Ssrc(ssrc as u32), PacketIndex(1)));
        spent
    }

    #[test]
    #[should_panic(expected = "Ssrc(0) seals PacketIndex(1) a second time")]
    fn as_many_ssrcs_as_there_may_be_slots_are_remembered() {
        spent(256).spend(Ssrc(0), PacketIndex(1));
    }

    #[test]
    #[should_panic(expected = "Ssrc(0) seals PacketIndex(2) a second time")]
    fn the_ssrc_longest_unused_makes_room() {
        let mut spent = spent(SSRC_MAX);
        spent.spend(Ssrc(0), PacketIndex(2));
        spent.spend(Ssrc(SSRC_MAX as u32), PacketIndex(1));
        // Nobody remembers.
        spent.spend(Ssrc(1), PacketIndex(1));
        spent.spend(Ssrc(0), PacketIndex(2));
    }

    #[test]
    #[should_panic(expected = "far behind 65545")]
    fn an_index_too_far_behind_to_tell_counts_as_spent() {
        let mut spent = Spent::default();
        for index in [(1 << 16) + 9, 10, 9] {
            spent.spend(Ssrc(7), PacketIndex(index));
        }
    }
}
