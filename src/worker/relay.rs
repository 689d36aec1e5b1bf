//! What workers that share a port tell each other: datagrams that arrived at the wrong one, and which
//! 5-tuples belong to whom.

use crate::packet::{DATAGRAM_LEN_MAX, Path};

/// A message from one worker to another.
#[expect(clippy::large_enum_variant, reason = "datagrams are the rule; a box would be an allocation each")]
pub enum Relay {
    /// A datagram of yours. May be dropped when the queue is full.
    Datagram {
        /// Where it came from.
        path: Path,
        /// STUN may fill a quarter of the queue only: anybody who can read our SDP can send it.
        is_stun: bool,
        /// The datagram.
        bytes: RelayBytes,
    },
    /// This 5-tuple is mine from now on: it sent a valid MESSAGE-INTEGRITY. Never dropped.
    Learn(Path),
    /// This 5-tuple is nobody's now. Never dropped.
    Forget(Path),
}

/// A datagram by value: no allocation, no shared buffer.
pub struct RelayBytes {
    len: u16,
    bytes: [u8; DATAGRAM_LEN_MAX],
}

impl RelayBytes {
    /// Copies a datagram of at most [`DATAGRAM_LEN_MAX`] bytes.
    pub fn new(datagram: &[u8]) -> RelayBytes {
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        bytes[..datagram.len()].copy_from_slice(datagram);
        RelayBytes { len: datagram.len() as u16, bytes }
    }

    /// The datagram.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}
