//! One publisher's voice.

use std::time::Instant;

use super::loudness::Loudness;
use super::rewrite::Stretch;
use crate::ids::{TrackId, WorkerId};
use crate::rtcp::reception::Reception;
use crate::time::RtpTime;

/// Place of a track in its room; reused after the track's end.
pub type TrackKey = usize;

/// A voice that can be heard in the room.
pub struct Track {
    /// Its name.
    pub id: TrackId,
    /// The receiver that publishes it and so never hears it; `None` while its publisher is away.
    pub publisher: Option<super::ReceiverKey>,
    /// Another part of the room carries it; `None` where a transport of this part does, or none.
    pub elsewhere: Option<Elsewhere>,
    /// Its packets are dropped at ingress.
    pub muted: bool,
    /// What its packets belong to now.
    pub stretch: Stretch,
    /// From the audio levels that passed.
    pub loudness: Loudness,
    /// Of the stream that is bound to it; `None` before its first packet.
    pub reception: Option<Reception>,
    /// What its publisher's last sender report said, and when it came (RFC 3550 §6.4.1).
    pub last_report: Option<(RtpTime, Instant)>,
    /// When other parts were last told of one.
    pub clock_relayed_at: Option<Instant>,
    /// Packets that verified, muted ones included.
    pub packet_count: u64,
    /// Their payload's bytes.
    pub octet_count: u64,
    /// As the last report to its publisher said, in 256ths.
    pub fraction_lost: u8,
    /// Some packet of it has passed since it was published on its present transport.
    pub is_started: bool,
}

/// Where the packets of a track come from that no transport of this part carries.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// Whose part.
    pub worker: WorkerId,
    /// What they belong to there, by that part's own count; `None` before the first.
    pub stretch: Option<Stretch>,
}
