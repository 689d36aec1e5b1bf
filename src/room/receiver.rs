//! One listener: its slots and what they carry.

use std::mem;
use std::time::Instant;

use super::PeerKey;
use super::batch::Packet;
use super::rewrite::{Line, Rewritten};
use super::stage::HOLD_MIN;
use super::track::TrackKey;
use crate::ids::{Mid, PayloadType, SlotIndex, Ssrc, TrackId};
use crate::rtcp::report::ReportBlock;
use crate::rtp::extension::ExtensionIds;
use crate::vector;

/// Place of a receiver in its room; reused after the receiver's end.
pub type ReceiverKey = usize;

/// A line of packets towards a receiver, for the life of its transport. What each packet takes comes first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Slot {
    /// Unique on the transport, never used before under the same keys.
    pub ssrc: Ssrc,
    /// The m-line's tag.
    pub mid: Mid,
    /// Opus, as the receiver numbers it.
    pub payload_type: PayloadType,
    /// Header extensions, as the receiver numbers them.
    pub extensions: ExtensionIds,
    /// Its place.
    pub slot: SlotIndex,
    /// What it carries first; `None` keeps it closed until it is given to a track.
    pub source: Option<TrackId>,
}

/// A slot in use. What each packet takes lies in the first two cache lines.
#[repr(C, align(64))]
pub struct Seat {
    /// Where its packets stand.
    pub line: Line,
    /// Packets sealed on it (RFC 3550 §6.4.1, wraps).
    pub packet_count: u32,
    /// Payload bytes sealed on it (RFC 3550 §6.4.1, wraps).
    pub octet_count: u32,
    /// Something was sealed since the last sender report.
    pub is_active: bool,
    /// What was negotiated.
    pub slot: Slot,
    /// What it carries now.
    pub source: Option<TrackKey>,
    /// Its m-line is inactive: whatever the room decides, nothing may be sent on it.
    pub(super) is_closed: bool,
    /// Since when.
    since: Instant,
    /// What its receiver said of it last, and when.
    pub report: Option<(ReportBlock, Instant)>,
}

impl Seat {
    fn new(now: Instant, slot: Slot, random: u64) -> Seat {
        Seat {
            is_closed: slot.source.is_none(),
            slot,
            line: Line::new(now, random),
            source: None,
            since: now,
            packet_count: 0,
            octet_count: 0,
            is_active: false,
            report: None,
        }
    }

    /// Its source may be replaced without a flutter.
    pub(super) fn is_held_long(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= HOLD_MIN
    }
}

const _: () = assert!(mem::offset_of!(Seat, slot.slot) <= 2 * vector::LINE_LEN);
const _: () = assert!(size_of::<Line>() > vector::LINE_LEN);

const NO_SEAT: u16 = u16::MAX;

/// A listener of the room. What each packet takes lies in the first cache line.
#[repr(C, align(64))]
pub struct Receiver {
    /// Whose it is, as the owner of the room numbers it.
    pub peer: PeerKey,
    seats: Vec<Seat>,
    /// It is sent no media.
    pub deafened: bool,
    /// The seat that carries each track.
    seat_of: SeatTable,
    pub(super) refusal: Option<Box<Refusal>>,
}

/// What a listener did not accept of what it was offered.
pub(super) struct Refusal {
    /// Most tracks that it can hear at once.
    line_count_max: usize,
    /// It hears none of these; ascending.
    tracks: Vec<TrackKey>,
}

impl Refusal {
    pub(super) fn new(line_count_max: usize, mut tracks: Vec<TrackKey>) -> Refusal {
        tracks.sort_unstable();
        Refusal { line_count_max, tracks }
    }

    pub(super) fn forget(&mut self, track: TrackKey) {
        self.tracks.retain(|key| *key != track);
    }
}

const _: () = assert!(mem::offset_of!(Receiver, seat_of.far) <= vector::LINE_LEN);

/// Tracks that find their seat without a way to the heap, where every listener's table would be on a page of its own:
/// in most rooms, all of them. As many as fit into a listener's first cache line.
const NEAR_TRACK_COUNT: usize = 12;

/// By track: a seat, or [`NO_SEAT`].
#[repr(C)]
struct SeatTable {
    near: [u16; NEAR_TRACK_COUNT],
    far: Box<[u16]>,
}

impl SeatTable {
    fn new() -> SeatTable {
        SeatTable { near: [NO_SEAT; NEAR_TRACK_COUNT], far: Box::default() }
    }

    fn get(&self, track: TrackKey) -> Option<usize> {
        let seat = match self.near.get(track) {
            Some(seat) => Some(seat),
            None => self.far(track),
        };
        seat.filter(|&&seat| seat != NO_SEAT).map(|&seat| usize::from(seat))
    }

    fn set(&mut self, track: TrackKey, seat: u16) {
        if let Some(near) = self.near.get_mut(track) {
            *near = seat;
            return;
        }
        let track = track - NEAR_TRACK_COUNT;
        if self.far.len() <= track {
            let mut far = mem::take(&mut self.far).into_vec();
            far.resize(track + 1, NO_SEAT);
            self.far = far.into();
        }
        self.far[track] = seat;
    }

    fn fetch(&self, track: TrackKey) {
        if track >= NEAR_TRACK_COUNT
            && let Some(seat) = self.far(track)
        {
            vector::fetch(seat);
        }
    }

    /// A call, as the compiler reads where `far` is before it knows whether that is asked for, and another cache line
    /// costs more.
    #[inline(never)]
    fn far(&self, track: TrackKey) -> Option<&u16> {
        self.far.get(track.checked_sub(NEAR_TRACK_COUNT)?)
    }
}

impl Receiver {
    pub(super) fn new(peer: PeerKey) -> Receiver {
        Receiver { peer, deafened: false, seat_of: SeatTable::new(), seats: Vec::new(), refusal: None }
    }

    /// Its slots, in the order in which they were added.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// As [`Receiver::seats`], for counting.
    pub fn seats_mut(&mut self) -> &mut [Seat] {
        &mut self.seats
    }

    /// A slot that is there already is taken up again under another SSRC, with a new line. `None` where there
    /// are too many.
    pub(super) fn add_slot(&mut self, now: Instant, slot: Slot, random: u64) -> Option<usize> {
        if let Some(seat) = self.position(slot.slot) {
            self.assign(now, seat, None);
            self.seats[seat] = Seat::new(now, slot, random);
            return Some(seat);
        }
        (self.seats.len() < usize::from(NO_SEAT)).then(|| {
            self.seats.push(Seat::new(now, slot, random));
            self.seats.len() - 1
        })
    }

    pub(super) fn position(&self, slot: SlotIndex) -> Option<usize> {
        self.seats.iter().position(|seat| seat.slot.slot == slot)
    }

    pub(super) fn seat_of(&self, track: TrackKey) -> Option<usize> {
        self.seat_of.get(track)
    }

    /// Gives the seat to a track, or to none; a track leaves any other seat, which is returned.
    pub(super) fn assign(&mut self, now: Instant, seat: usize, source: Option<TrackKey>) -> Option<usize> {
        if let Some(old) = self.seats[seat].source.take() {
            self.seat_of.set(old, NO_SEAT);
        }
        let track = source?;
        let left = self.seat_of(track);
        if let Some(left) = left {
            self.seats[left].source = None;
        }
        self.seat_of.set(track, seat as u16);
        self.seats[seat].source = Some(track);
        self.seats[seat].since = now;
        left
    }

    /// The room's voices are more than it can hear at once: who is loudest decides, and else control does.
    pub(super) fn is_staged(&self, track_count: usize, audio_slots: usize) -> bool {
        let (refused, max) = match &self.refusal {
            Some(refusal) => (refusal.tracks.len(), refusal.line_count_max),
            None => (0, audio_slots),
        };
        track_count.saturating_sub(refused) > max
    }

    pub(super) fn refuses(&self, track: TrackKey) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.tracks.binary_search(&track).is_ok())
    }

    pub(super) fn interrupt(&mut self) {
        self.seats.iter_mut().for_each(|seat| seat.line.interrupt());
    }

    /// This track's packet is placed soon: what says on which seat.
    pub(super) fn fetch_table(&self, track: TrackKey) {
        self.seat_of.fetch(track);
    }

    /// And then the seat.
    pub(super) fn fetch_seat(&self, track: TrackKey) {
        if let Some(seat) = self.seat_of(track).and_then(|seat| self.seats.get(seat)) {
            vector::fetch(&seat.line); // And what else is in its two cache lines.
        }
    }

    /// The packet's place on the slot that carries its track; `None` where none does.
    pub fn rewrite(&mut self, now: Instant, packet: &Packet) -> Option<(Rewritten, &Slot)> {
        let seat = self.seat_of(packet.track)?;
        let seat = &mut self.seats[seat];
        let rewritten =
            seat.line.rewrite(now, packet.stretch, packet.index, packet.timestamp, packet.marker)?;
        seat.packet_count = seat.packet_count.wrapping_add(1);
        seat.octet_count = seat.octet_count.wrapping_add(packet.payload.len() as u32);
        seat.is_active = true;
        Some((rewritten, &seat.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_tracks_apart_near_and_far() {
        let mut table = SeatTable::new();
        let tracks = [0, 1, NEAR_TRACK_COUNT - 1, NEAR_TRACK_COUNT, NEAR_TRACK_COUNT + 1, 500];
        for (seat, track) in tracks.into_iter().enumerate() {
            assert_eq!(table.get(track), None);
            table.set(track, seat as u16);
        }
        for (seat, track) in tracks.into_iter().enumerate() {
            assert_eq!(table.get(track), Some(seat));
            table.set(track, NO_SEAT);
            assert_eq!(table.get(track), None);
        }
        assert!([2, 499, 501, usize::MAX].map(|track| table.get(track)).iter().all(Option::is_none));
    }
}
