//! The guard of debug builds against sealing under one index twice, which with GCM gives the key's
//! authentication away (RFC 7714 §12.1, RFC 3711 §9.1).

use super::index::PacketIndex;
use super::replay::ReplayWindow;
use crate::ids::Ssrc;

/// Remembers 2^16 indices of an SSRC: 8 KiB.
type Window = ReplayWindow<1024>;

/// SSRCs under guard; the one that came first makes room.
const SSRC_MAX: usize = 64;

/// What was sealed of late. Allocates at the first packet of an SSRC only.
#[derive(Default)]
pub(super) struct Spent(Vec<(Ssrc, Box<Window>)>);

impl Spent {
    /// # Panics
    /// When `index` of `ssrc` is among those remembered.
    pub(super) fn spend(&mut self, ssrc: Ssrc, index: PacketIndex) {
        let Some((_, window)) = self.0.iter_mut().find(|(known, _)| *known == ssrc) else {
            if self.0.len() == SSRC_MAX {
                self.0.remove(0);
            }
            self.0.push((ssrc, Box::new(Window::starting_at(index.0))));
            return;
        };
        // Too old to tell: 2^16 packets later a receiver's window is long past it.
        if window.highest().saturating_sub(index.0) < 1 << 16 {
            assert!(!window.contains(index.0), "{ssrc:?} seals {index:?} a second time");
            window.insert(index.0);
        }
    }
}
