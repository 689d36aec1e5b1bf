//! What the members of one thread count together.

use std::sync::{Mutex, PoisonError};

use super::histogram::Histogram;

/// Counts since they were last taken.
#[derive(Default)]
pub(crate) struct Counts {
    /// RTP packets that left.
    pub(crate) sent: u64,
    /// RTP packets that came, doubles left out.
    pub(crate) received: u64,
    /// Gaps in the sequence numbers; less than nothing where a packet of an earlier gap came late.
    pub(crate) missing: i64,
    /// Packets that came more than once.
    pub(crate) doubles: u64,
    /// Packets that could not be decrypted, or whose payload is not what a speaker sent.
    pub(crate) unreadable: u64,
    /// Datagrams that the kernel dropped because a receiver's buffer was full.
    pub(crate) overflowed: u64,
    /// (Listener, speaker) pairs that were heard, and that were not.
    pub(crate) pairs_heard: u64,
    pub(crate) pairs_unheard: u64,
    /// From the speaker's hand to the listener's socket, in microseconds.
    pub(crate) latency: Histogram,
}

impl Counts {
    /// Adds what `other` counted, and empties it.
    pub(crate) fn absorb(&mut self, other: &mut Counts) {
        self.latency.absorb(&mut other.latency);
        for (mine, theirs) in [
            (&mut self.sent, &mut other.sent),
            (&mut self.received, &mut other.received),
            (&mut self.doubles, &mut other.doubles),
            (&mut self.unreadable, &mut other.unreadable),
            (&mut self.overflowed, &mut other.overflowed),
            (&mut self.pairs_heard, &mut other.pairs_heard),
            (&mut self.pairs_unheard, &mut other.pairs_unheard),
        ] {
            *mine += std::mem::take(theirs);
        }
        self.missing += std::mem::take(&mut other.missing);
    }

    /// In percent of what should have come.
    pub(crate) fn loss_percent(&self) -> f64 {
        let missing = self.missing.max(0) as f64;
        let expected = self.received as f64 + missing;
        if expected == 0.0 { 0.0 } else { 100.0 * missing / expected }
    }
}

/// The counts of one thread.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
