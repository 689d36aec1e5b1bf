//! What workers tell each other: those that share a port, datagrams that arrived at the wrong one, and which
//! 5-tuples belong to whom; those that hold parts of one room, what was said in it.

use std::time::Duration;

use crate::ids::{TrackId, WorkerId};
use crate::packet::{DATAGRAM_LEN_MAX, Path};
use crate::room::rewrite::Stretch;
use crate::rtp::extension::Values;
use crate::srtp::index::PacketIndex;
use crate::time::RtpTime;

/// A message from one worker to another, by value: a box would be an allocation each.
pub enum Relay {
    /// A datagram of yours. May be dropped when the queue is full.
    Datagram {
        /// Where it came from.
        path: Path,
        /// STUN may fill a quarter of the queue only: anybody who can read our SDP can send it.
        is_stun: bool,
        /// See [`Datagram::arrived`](crate::packet::Datagram::arrived).
        arrived: Option<Duration>,
        /// The datagram.
        bytes: RelayBytes,
    },
    /// What a member of a room said of which you hold a part. May be dropped when the queue is full.
    Voice(Voice),
    /// What the publisher's sender report says of its clock (RFC 3550 §6.4.1). May be dropped when the queue is full.
    Clock {
        /// Whose.
        track: TrackId,
        /// What it belongs to, as in [`Voice`].
        stretch: Stretch,
        /// Its media time now.
        rtp_time: RtpTime,
    },
    /// This 5-tuple is mine from now on, unless a peer of yours holds it: it sent a valid MESSAGE-INTEGRITY. Never
    /// dropped.
    Learn(Path),
    /// Somebody claims this 5-tuple, and the owner's peer that holds it keeps it. Never dropped.
    Keep {
        /// What is claimed.
        path: Path,
        /// Who says this, or whoever refused it the claim.
        owner: WorkerId,
    },
    /// This 5-tuple is not mine, or no longer. Never dropped.
    Forget(Path),
}

/// A packet that one part of a room has opened and let pass, for another: plaintext, and nothing of keys, SSRCs or
/// sequence numbers that leave.
pub struct Voice {
    /// Whose. Never used for another in this process.
    pub track: TrackId,
    /// What it belongs to, by the count of the part that relays it.
    pub stretch: Stretch,
    /// Its place in the publisher's sequence.
    pub index: PacketIndex,
    /// On the publisher's clock.
    pub timestamp: RtpTime,
    /// As the publisher set it.
    pub marker: bool,
    /// Extensions that are mapped.
    pub values: Values,
    /// See [`Datagram::arrived`](crate::packet::Datagram::arrived).
    pub arrived: Option<Duration>,
    /// What was said.
    pub payload: RelayBytes,
}

/// A datagram, or a part of one, by value: no allocation, no shared buffer.
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
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// As [`RelayBytes::as_slice`], to be opened in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}
