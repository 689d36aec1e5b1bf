//! The SSRCs of one peer in one direction: what each has sent, within bounds.
//!
//! An entry is made by an authenticated packet and by nothing else, so only the holder of the keys can
//! fill the table. It is bounded all the same.

use super::replay::ReplayWindow;
use crate::ids::Ssrc;
use crate::packet::DropReason;

/// Streams with a replay window: at most `LIVE_MAX`. Beyond that the one longest unused is retired: its
/// window goes, its highest index stays, and nothing up to that index is ever taken again.
///
/// Forgetting an SSRC altogether would let whoever recorded it play it back from its first packet, at
/// ROC 0; and by playing back one evicted SSRC evict another. So an evicted SSRC keeps 16 bytes for as
/// long as the keys live. When these too are used up, a new SSRC is refused. A peer that comes back
/// from retirement loses only the packets that were reordered around its return.
pub(super) struct Streams<const WORDS: usize, const LIVE_MAX: usize> {
    live: Vec<Live<WORDS>>,
    retired: Vec<Retired>,
    accepted: u64,
}

/// Most retired SSRCs of a peer: 4 KiB.
pub(super) const RETIRED_MAX: usize = 256;

struct Live<const WORDS: usize> {
    ssrc: Ssrc,
    window: ReplayWindow<WORDS>,
    /// `Streams::accepted` when its last packet came.
    last_used: u64,
}

#[derive(Clone, Copy)]
struct Retired {
    ssrc: Ssrc,
    highest: u64,
}

/// Where an SSRC stands in the table. Holds until the next packet is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Live(usize),
    Retired(usize),
    New,
}

impl<const WORDS: usize, const LIVE_MAX: usize> Streams<WORDS, LIVE_MAX> {
    pub(super) const fn new() -> Streams<WORDS, LIVE_MAX> {
        Streams { live: Vec::new(), retired: Vec::new(), accepted: 0 }
    }

    pub(super) fn find(&self, ssrc: Ssrc) -> Place {
        if let Some(at) = self.live.iter().position(|stream| stream.ssrc == ssrc) {
            Place::Live(at)
        } else if let Some(at) = self.retired.iter().position(|stream| stream.ssrc == ssrc) {
            Place::Retired(at)
        } else {
            Place::New
        }
    }

    /// The highest index authenticated, `None` for a new SSRC.
    pub(super) fn highest(&self, place: Place) -> Option<u64> {
        match place {
            Place::Live(at) => Some(self.live[at].window.highest()),
            Place::Retired(at) => Some(self.retired[at].highest),
            Place::New => None,
        }
    }

    /// Whether `index` was accepted before, or is too old to tell.
    pub(super) fn has_seen(&self, place: Place, index: u64) -> bool {
        match place {
            Place::Live(at) => self.live[at].window.contains(index),
            Place::Retired(at) => index <= self.retired[at].highest,
            Place::New => false,
        }
    }

    /// Remembers an authenticated packet that was not seen before. `place` is that of `ssrc`.
    pub(super) fn accept(&mut self, place: Place, ssrc: Ssrc, index: u64) -> Result<(), DropReason> {
        if let Place::Live(at) = place {
            self.accepted += 1;
            let stream = &mut self.live[at];
            stream.window.insert(index);
            stream.last_used = self.accepted;
            return Ok(());
        }
        let window = match place {
            Place::Retired(at) => {
                let mut window = ReplayWindow::closed_up_to(self.retired.swap_remove(at).highest);
                window.insert(index);
                window
            }
            _ if self.live.len() == LIVE_MAX && self.retired.len() == RETIRED_MAX => {
                return Err(DropReason::SsrcLimit);
            }
            _ => ReplayWindow::starting_at(index),
        };
        if self.live.len() == LIVE_MAX {
            self.retire_longest_unused();
        }
        self.accepted += 1;
        // One at a time: nearly every peer sends one or two SSRCs, and few come later.
        self.live.reserve_exact(1);
        self.live.push(Live { ssrc, window, last_used: self.accepted });
        Ok(())
    }

    fn retire_longest_unused(&mut self) {
        let oldest = self.live.iter().enumerate().min_by_key(|(_, stream)| stream.last_used);
        if let Some((at, _)) = oldest {
            let stream = self.live.swap_remove(at);
            self.retired.push(Retired { ssrc: stream.ssrc, highest: stream.window.highest() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Streams<2, 4>;

    fn accept(streams: &mut Small, ssrc: u32, index: u64) -> Result<(), DropReason> {
        let place = streams.find(Ssrc(ssrc));
        if streams.has_seen(place, index) {
            return Err(DropReason::Replayed);
        }
        streams.accept(place, Ssrc(ssrc), index)
    }

    #[test]
    fn the_longest_unused_retires_and_cannot_be_replayed() {
        let mut streams = Small::new();
        for ssrc in 0..4 {
            assert_eq!(accept(&mut streams, ssrc, 100), Ok(()));
        }
        assert_eq!(accept(&mut streams, 0, 101), Ok(()));
        assert_eq!(accept(&mut streams, 4, 7), Ok(()));
        assert_eq!(streams.find(Ssrc(1)), Place::Retired(0), "1 was unused for longest");
        assert!(matches!(streams.find(Ssrc(0)), Place::Live(_)));

        for index in 0..=100 {
            assert_eq!(accept(&mut streams, 1, index), Err(DropReason::Replayed), "{index}");
        }
        assert_eq!(streams.highest(streams.find(Ssrc(1))), Some(100));
        // Its next packet brings it back, and now 2 makes room; what was closed stays closed.
        assert_eq!(accept(&mut streams, 1, 102), Ok(()));
        assert!(matches!(streams.find(Ssrc(1)), Place::Live(_)));
        assert!(matches!(streams.find(Ssrc(2)), Place::Retired(_)));
        for index in [0, 3, 98, 99, 100] {
            assert_eq!(accept(&mut streams, 1, index), Err(DropReason::Replayed), "{index}");
        }
        assert_eq!(accept(&mut streams, 1, 102), Err(DropReason::Replayed));
        assert_eq!(accept(&mut streams, 1, 101), Ok(()));
    }

    #[test]
    fn a_full_table_refuses_new_ssrcs_and_serves_the_old() {
        let mut streams = Small::new();
        let count = 4 + RETIRED_MAX as u32;
        for ssrc in 0..count {
            assert_eq!(accept(&mut streams, ssrc, 1), Ok(()));
        }
        for ssrc in count..count + 10 {
            assert_eq!(accept(&mut streams, ssrc, 1), Err(DropReason::SsrcLimit));
            assert_eq!(streams.find(Ssrc(ssrc)), Place::New);
        }
        for ssrc in (0..count).chain(0..count) {
            let next = streams.highest(streams.find(Ssrc(ssrc))).unwrap() + 1;
            assert_eq!(accept(&mut streams, ssrc, next), Ok(()), "{ssrc}");
            assert_eq!(accept(&mut streams, ssrc, next), Err(DropReason::Replayed), "{ssrc}");
        }
        assert_eq!((streams.live.len(), streams.retired.len()), (4, RETIRED_MAX));
    }
}
