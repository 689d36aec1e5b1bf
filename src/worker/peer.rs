//! A transport in its room: what it publishes there, and which receiver it is.

use std::mem;
use std::time::{Duration, Instant};

use super::capture::Capture;
use super::command::PublishedStream;
use super::traffic::Traffic;
use crate::ice::credentials::LocalUfrag;
use crate::ids::{Ssrc, TrackId};
use crate::packet::{DropReason, Path};
use crate::room::receiver::ReceiverKey;
use crate::room::track::TrackKey;
use crate::rtp::extension::Values;
use crate::rtp::header::Header;
use crate::transport::{ConnectionState, Transport};
use crate::vector;

/// Place of a room on its worker; reused after the room's end.
pub(super) type RoomKey = usize;

/// One participant's connection. What packets take of it here comes first, in one cache line.
#[repr(C)]
pub(super) struct Peer {
    pub capture: Option<Box<Capture>>,
    pub room: RoomKey,
    pub receiver: ReceiverKey,
    pub publications: Vec<Publication>,
    pub traffic: Traffic,
    pub transport: Transport,
    /// As they stand in the worker's table.
    pub ufrags: Vec<LocalUfrag>,
    /// Ours, in receiver reports.
    pub ssrc: Ssrc,
    /// When its rates are counted, and what it publishes is reported on.
    pub report_at: Instant,
    /// When what it is sent is reported on, if something is.
    pub sender_report_at: Instant,
    pub rtcp_bucket: TokenBucket,
    /// When it last took a pair back from another peer.
    pub took_back_at: Option<Instant>,
    /// Another worker claims a pair that this one holds, and not all may have heard that it keeps it.
    pub is_contested: bool,
}

/// A track as its publisher's transport carries it.
pub(super) struct Publication {
    pub track: TrackId,
    pub key: TrackKey,
    pub stream: PublishedStream,
    /// The SSRC that carries it now.
    pub ssrc: Option<Ssrc>,
    pub bucket: TokenBucket,
}

const _: () = assert!(mem::offset_of!(Peer, traffic) == vector::LINE_LEN);

// A slab keeps what is in it side by side, without a word between that says so: `Peer::fetch_behind` counts on it.
const _: () = assert!(size_of::<Option<Peer>>() == size_of::<Peer>());

impl Peer {
    /// Something is sealed soon for the peer so many places behind this one, whose entry need not be read for that;
    /// [`Transport::fetch_keys`] comes between.
    pub(super) fn fetch_behind(&self, places: isize) {
        let distance = places * size_of::<Peer>() as isize;
        vector::fetch_start_behind(self, distance);
        vector::fetch_start_behind(&self.traffic, distance);
        self.transport.fetch_sending(distance);
    }

    /// Media goes this way, the peer is heard there, and has proven that it receives there, where a valid
    /// MESSAGE-INTEGRITY can come from a forged address.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.transport.selected() == Some(*path)
            && self.transport.is_verified(path)
            && self.transport.state() == ConnectionState::Connected
    }

    /// Counts that it takes a pair back from another peer; `false` when it just did. Two that share one must not keep
    /// all workers of a port busy with learning whose it is.
    pub(super) fn may_take_back(&mut self, now: Instant) -> bool {
        let may = self.took_back_at.is_none_or(|at| now.duration_since(at) >= TAKE_BACK_INTERVAL);
        if may {
            self.took_back_at = Some(now);
        }
        may
    }

    /// When there may be something to do for it, unless something comes meanwhile.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let is_settled =
            !matches!(self.transport.state(), ConnectionState::New | ConnectionState::Connecting);
        if self.capture.is_some() || !is_settled {
            return now;
        }
        self.transport.next_timeout().map_or(self.report_at, |at| at.min(self.report_at))
    }

    /// The track that this SSRC of the peer's carries now: what it says of others' counts for nothing.
    pub(super) fn track_of_ssrc(&self, ssrc: Ssrc) -> Option<TrackKey> {
        let publication = self.publications.iter().find(|publication| publication.ssrc == Some(ssrc));
        publication.map(|publication| publication.key)
    }

    /// The publication that a verified packet belongs to: by bound SSRC, by MID, by declared SSRC, or because
    /// there is only one (RFC 8843 §9.2). The flag says that the SSRC is new to it.
    pub(super) fn publication_of(
        &mut self,
        header: &Header,
        packet: &[u8],
    ) -> Result<(&mut Publication, Values, bool), DropReason> {
        let bound = self.publications.iter().position(|publication| publication.ssrc == Some(header.ssrc));
        if let Some(position) = bound {
            let publication = &mut self.publications[position];
            let values = header.extensions(packet, &publication.stream.extensions);
            return Ok((publication, values, false));
        }
        let position = self.publications.iter().position(|publication| {
            let stream = &publication.stream;
            match header.extensions(packet, &stream.extensions).mid() {
                Some(mid) => mid == stream.mid,
                None => stream.ssrcs.contains(&header.ssrc) || stream.is_only,
            }
        });
        let publication = &mut self.publications[position.ok_or(DropReason::RtpUnknownStream)?];
        if publication.stream.payload_type != header.payload_type {
            return Err(DropReason::RtpUnknownPayloadType);
        }
        publication.ssrc = Some(header.ssrc);
        let values = header.extensions(packet, &publication.stream.extensions);
        Ok((publication, values, true))
    }
}

/// Between two times that a peer takes a pair back from another, at least; browsers check theirs each 2.5 s.
const TAKE_BACK_INTERVAL: Duration = Duration::from_secs(1);

/// Packets a second that a publisher may send: five times what 20 ms frames need.
const PACKET_RATE_MAX: u32 = 250;
/// Bytes of payload a second: twice Opus's highest bitrate (RFC 7587 §3.1.1), with framing.
const BYTE_RATE_MAX: u32 = 160_000;

/// What a publisher may still send: packets and bytes, refilled as time goes, one second of each at most.
pub(super) struct TokenBucket {
    packets: u32,
    bytes: u32,
    refilled_at: Instant,
}

impl TokenBucket {
    pub(super) fn new(now: Instant) -> TokenBucket {
        TokenBucket { packets: PACKET_RATE_MAX, bytes: BYTE_RATE_MAX, refilled_at: now }
    }

    /// Takes a packet's worth, or refuses it.
    pub(super) fn take(&mut self, now: Instant, len: usize) -> Result<(), DropReason> {
        let elapsed = now.duration_since(self.refilled_at).min(Duration::from_secs(1));
        // Whole packets only, so that no fraction is lost between two refills.
        let packets = (elapsed.as_micros() as u32) * PACKET_RATE_MAX / 1_000_000;
        if packets > 0 {
            self.packets = (self.packets + packets).min(PACKET_RATE_MAX);
            self.bytes = (self.bytes + packets * (BYTE_RATE_MAX / PACKET_RATE_MAX)).min(BYTE_RATE_MAX);
            self.refilled_at = if elapsed.as_secs() > 0 {
                now
            } else {
                self.refilled_at + Duration::from_secs(1) * packets / PACKET_RATE_MAX
            };
        }
        let bytes = self.bytes.checked_sub(len as u32).ok_or(DropReason::RateLimited)?;
        self.packets = self.packets.checked_sub(1).ok_or(DropReason::RateLimited)?;
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voice_passes_and_a_flood_is_cut_to_the_rate() {
        let t0 = crate::time::Now::read().instant;
        let mut bucket = TokenBucket::new(t0);
        let voice = (0..3_000).filter(|i| bucket.take(t0 + Duration::from_millis(20) * *i, 160).is_ok());
        assert_eq!(voice.count(), 3_000);
        let t1 = t0 + Duration::from_secs(100);
        let mut bucket = TokenBucket::new(t1);
        let flood = (0..25_000).filter(|i| bucket.take(t1 + Duration::from_micros(400) * *i, 20).is_ok());
        let passed = flood.count();
        assert!((2_700..=2_751).contains(&passed), "{passed} of 25000 in 10 s");
    }
}
