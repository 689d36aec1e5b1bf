//! Randomness as a field: unpredictable with a random seed, reproducible with a fixed one.

use sha2::{Digest, Sha256};

/// A stream of 32-byte blocks: SHA-256 of the seed and a counter.
pub(super) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    /// Begins a stream.
    pub(super) fn new(seed: [u8; 32]) -> Random {
        Random { seed, counter: 0 }
    }

    /// The next 32 bytes.
    pub(super) fn bytes(&mut self) -> [u8; 32] {
        self.counter += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_be_bytes());
        hash.finalize().into()
    }

    /// The next 64 bits.
    pub(super) fn number(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}
