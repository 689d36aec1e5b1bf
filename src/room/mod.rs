//! Who hears whom: the tracks of a room and its receivers' slots. Knows no keys, no sockets, no JSON.
//!
//! Invariant: a track is on at most one slot of a receiver, and a receiver never hears itself.

pub mod batch;
pub mod loudness;
pub mod receiver;
pub mod rewrite;
pub mod stage;
pub mod track;

use std::ops::Range;
use std::time::{Duration, Instant};

use slab::Slab;

use self::batch::{Batch, Packet, Turn};
use self::loudness::Loudness;
use self::receiver::{Receiver, ReceiverKey, Refusal, Slot};
use self::rewrite::Stretch;
use self::stage::Stage;
use self::track::{Elsewhere, Track, TrackKey};
use crate::ids::{RoomId, SlotIndex, TrackId, WorkerId, WorkerSet};
use crate::packet::DropReason;

/// How the owner of the room numbers its peers.
pub type PeerKey = usize;

/// How often who speaks is looked at: often enough that a new voice has a slot within a syllable.
pub const STAGE_INTERVAL: Duration = Duration::from_millis(50);
/// Least time between two reports of who speaks.
const SPEAKERS_INTERVAL: Duration = Duration::from_millis(300);
/// Most speakers in a report.
const SPEAKER_COUNT_MAX: usize = 16;

/// A slot that now carries another track, or none, by the room's own decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// The receiver's owner.
    pub peer: PeerKey,
    /// Its slot.
    pub slot: SlotIndex,
    /// What it carries now.
    pub track: Option<TrackId>,
}

/// A room, or the part of it that one worker holds.
pub struct Room {
    /// Its name.
    pub id: RoomId,
    /// The other workers that hold a part of it.
    pub others: WorkerSet,
    /// Who speaks is told by this part.
    pub is_home: bool,
    /// What this part knows of speakers nobody was told, as it was not home.
    is_untold: bool,
    audio_slots: usize,
    tracks: Slab<Track>,
    receivers: Slab<Receiver>,
    batch: Batch,
    stretches: u64,
    stage: Stage,
    /// Voices outnumbered slots at some time.
    has_staged: bool,
    /// Listeners with a [`Refusal`].
    refusing_count: usize,
    speakers: Vec<TrackId>,
    speakers_at: Option<Instant>,
    /// Kept for their memory, so that an interval without news allocates nothing.
    speaking: Vec<(u8, TrackId)>,
    scores: Vec<(TrackKey, u32)>,
}

impl Room {
    /// An empty room whose receivers have at most `audio_slots` slots.
    pub fn new(id: RoomId, audio_slots: usize) -> Room {
        Room {
            id,
            others: WorkerSet::EMPTY,
            is_home: true,
            is_untold: false,
            audio_slots,
            tracks: Slab::new(),
            receivers: Slab::new(),
            batch: Batch::default(),
            stretches: 0,
            stage: Stage::default(),
            has_staged: false,
            refusing_count: 0,
            speakers: Vec::new(),
            speakers_at: None,
            speaking: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// `others` hold parts of it from now on, and this one tells who speaks or does not.
    pub fn span(&mut self, others: WorkerSet, is_home: bool) {
        self.is_untold |= is_home && !self.is_home;
        (self.others, self.is_home) = (others, is_home);
    }

    /// Adds a listener without slots.
    pub fn add_receiver(&mut self, peer: PeerKey) -> ReceiverKey {
        self.receivers.insert(Receiver::new(peer))
    }

    /// Ends a listener. What it published stays, silent, until it is unpublished or published again.
    pub fn remove_receiver(&mut self, key: ReceiverKey) {
        let Some(receiver) = self.receivers.try_remove(key) else { return };
        self.refusing_count -= usize::from(receiver.refusal.is_some());
        for (_, track) in &mut self.tracks {
            if track.publisher == Some(key) {
                track.publisher = None;
                track.reception = None;
                track.loudness.silence();
            }
        }
    }

    /// All listeners, in the order of their keys.
    pub fn receivers(&self) -> impl Iterator<Item = &Receiver> {
        self.receivers.iter().map(|(_, receiver)| receiver)
    }

    /// How many listeners.
    pub fn receiver_count(&self) -> usize {
        self.receivers.len()
    }

    /// How many tracks, those of other parts included.
    pub fn track_count(&self) -> usize {
        self.tracks.len()
    }

    /// The tracks of all parts.
    pub fn track_ids(&self) -> impl Iterator<Item = TrackId> {
        self.tracks.iter().map(|(_, track)| track.id)
    }

    /// How many tracks are of this part.
    pub fn own_track_count(&self) -> usize {
        self.tracks.iter().filter(|(_, track)| track.elsewhere.is_none()).count()
    }

    /// A listener.
    pub fn receiver(&self, key: ReceiverKey) -> Option<&Receiver> {
        self.receivers.get(key)
    }

    /// A listener.
    pub fn receiver_mut(&mut self, key: ReceiverKey) -> Option<&mut Receiver> {
        self.receivers.get_mut(key)
    }

    /// A listener with all tracks beside it.
    pub fn receiver_and_tracks(&mut self, key: ReceiverKey) -> Option<(&mut Receiver, &Slab<Track>)> {
        self.receivers.get_mut(key).map(|receiver| (receiver, &self.tracks))
    }

    /// A track.
    pub fn track(&self, key: TrackKey) -> Option<&Track> {
        self.tracks.get(key)
    }

    /// A track.
    pub fn track_mut(&mut self, key: TrackKey) -> Option<&mut Track> {
        self.tracks.get_mut(key)
    }

    /// Adds a track, or moves one that is there to its publisher's new transport.
    pub fn publish(
        &mut self,
        existing: Option<TrackKey>,
        id: TrackId,
        publisher: ReceiverKey,
        muted: bool,
    ) -> TrackKey {
        let key = self.take_up(existing, id, muted);
        self.tracks[key].publisher = Some(publisher);
        key
    }

    /// As [`Room::publish`], of a track that another part carries.
    pub fn publish_elsewhere(
        &mut self,
        existing: Option<TrackKey>,
        id: TrackId,
        worker: WorkerId,
        muted: bool,
    ) -> TrackKey {
        let key = self.take_up(existing, id, muted);
        self.tracks[key].elsewhere = Some(Elsewhere { worker, stretch: None });
        key
    }

    /// A track that nobody carries yet, its numbering begun anew.
    fn take_up(&mut self, existing: Option<TrackKey>, id: TrackId, muted: bool) -> TrackKey {
        let stretch = self.next_stretch();
        let key = existing.filter(|&key| self.tracks.contains(key)).unwrap_or_else(|| {
            self.tracks.insert(Track {
                id,
                publisher: None,
                elsewhere: None,
                muted,
                stretch,
                loudness: Loudness::default(),
                reception: None,
                last_report: None,
                clock_relayed_at: None,
                packet_count: 0,
                octet_count: 0,
                fraction_lost: 0,
                is_started: false,
            })
        });
        let track = &mut self.tracks[key];
        track.publisher = None;
        track.elsewhere = None;
        track.muted = muted;
        track.stretch = stretch;
        track.reception = None;
        track.last_report = None;
        track.is_started = false;
        key
    }

    /// Ends a track. Slots that carried it fall silent; where more voices wait than there are slots, the loudest of
    /// those takes them at the next interval, once for all that end together.
    pub fn unpublish(&mut self, now: Instant, key: TrackKey) {
        if self.tracks.try_remove(key).is_none() {
            return;
        }
        self.batch.forget(key);
        self.stage.forget(key);
        for (_, receiver) in &mut self.receivers {
            if let Some(seat) = receiver.seat_of(key) {
                receiver.assign(now, seat, None);
            }
            if let Some(refusal) = &mut receiver.refusal {
                refusal.forget(key);
            }
        }
    }

    /// A new SSRC, or the end of a mute: the numbering of what came before has no meaning any more.
    pub fn begin_stretch(&mut self, key: TrackKey) {
        let stretch = self.next_stretch();
        if let Some(track) = self.tracks.get_mut(key) {
            track.stretch = stretch;
        }
    }

    /// What a packet belongs to that `worker`'s part relayed as one of `there`, by its count; `None` where the track is not
    /// that part's.
    pub fn stretch_here(&mut self, key: TrackKey, worker: WorkerId, there: Stretch) -> Option<Stretch> {
        let track = self.tracks.get_mut(key)?;
        let elsewhere = track.elsewhere.as_mut().filter(|it| it.worker == worker)?;
        if elsewhere.stretch != Some(there) {
            elsewhere.stretch = Some(there);
            track.last_report = None; // Of another clock, perhaps.
            self.begin_stretch(key);
        }
        Some(self.tracks[key].stretch)
    }

    fn next_stretch(&mut self) -> Stretch {
        self.stretches += 1;
        Stretch(self.stretches)
    }

    /// Mutes or unmutes a track.
    pub fn set_muted(&mut self, key: TrackKey, muted: bool) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.muted == muted {
            return;
        }
        track.muted = muted;
        track.loudness.silence();
        // Whatever was counted while nothing passed must not look like loss.
        self.begin_stretch(key);
    }

    /// Deafens or undeafens a listener.
    pub fn set_deafened(&mut self, key: ReceiverKey, deafened: bool) {
        let Some(receiver) = self.receivers.get_mut(key) else { return };
        if receiver.deafened != deafened {
            receiver.deafened = deafened;
            receiver.interrupt();
        }
    }

    /// The listener can hear at most `line_count_max` tracks at once, and none of these. Takes the place of what it
    /// refused before.
    pub fn refuse(&mut self, key: ReceiverKey, line_count_max: usize, tracks: Vec<TrackKey>) {
        let Some(receiver) = self.receivers.get_mut(key) else { return };
        let refusal = Box::new(Refusal::new(line_count_max, tracks));
        self.refusing_count += usize::from(receiver.refusal.replace(refusal).is_none());
    }

    /// The listener accepted a slot that carries `source` first. `random` starts its numbering.
    pub fn add_slot(
        &mut self,
        now: Instant,
        key: ReceiverKey,
        slot: Slot,
        source: Option<TrackKey>,
        random: u64,
        changes: &mut Vec<SlotChange>,
    ) {
        let Some(receiver) = self.receivers.get_mut(key) else { return };
        let index = slot.slot;
        let is_closed = slot.source.is_none();
        if receiver.add_slot(now, slot, random).is_some() {
            if !is_closed {
                self.assign_slot(now, key, index, source, changes);
            }
            if self.stage.is_empty() {
                self.update_stage(now, changes);
            } else if self.receivers[key].seats().len() >= self.audio_slots {
                // The last of them, and this one alone: nobody else has anything new, and a room's worth of listeners
                // joins at times.
                self.reseat(now, key, changes);
            }
        }
    }

    /// Opens a slot and gives it to a track, or to none that is there. A slot that the track leaves for it is told,
    /// and, where the room has ever decided by itself, what the slot has now: that may be on its way to control still.
    pub fn assign_slot(
        &mut self,
        now: Instant,
        key: ReceiverKey,
        slot: SlotIndex,
        source: Option<TrackKey>,
        changes: &mut Vec<SlotChange>,
    ) {
        let Some(receiver) = self.receivers.get_mut(key) else { return };
        let Some(seat) = receiver.position(slot) else { return };
        let heard = |track: &TrackKey| self.tracks.get(*track).is_some_and(|t| t.publisher != Some(key));
        let source = source.filter(heard);
        receiver.seats_mut()[seat].is_closed = false;
        let peer = receiver.peer;
        if receiver.seats()[seat].source != source
            && let Some(left) = receiver.assign(now, seat, source)
        {
            let slot = receiver.seats()[left].slot.slot;
            changes.push(SlotChange { peer, slot, track: None });
        }
        if self.has_staged {
            let track = source.and_then(|key| self.tracks.get(key)).map(|track| track.id);
            changes.push(SlotChange { peer, slot, track });
        }
    }

    /// Silences a slot whose m-line is inactive. It stays so until it is assigned: the room has no say in what
    /// was negotiated.
    pub fn close_slot(&mut self, now: Instant, key: ReceiverKey, slot: SlotIndex) {
        let Some(receiver) = self.receivers.get_mut(key) else { return };
        if let Some(seat) = receiver.position(slot) {
            receiver.assign(now, seat, None);
            receiver.seats_mut()[seat].is_closed = true;
        }
    }

    /// Payload bytes that wait.
    pub fn pending_len(&self) -> usize {
        self.batch.payloads_len()
    }

    /// Keeps a payload for the packet that [`Room::handle_packet`] takes next, and says where.
    pub fn keep(&mut self, payload: &[u8]) -> Range<usize> {
        self.batch.keep(payload)
    }

    /// Takes a verified packet; it waits for the end of the batch.
    ///
    /// # Errors
    /// [`DropReason::Muted`].
    pub fn handle_packet(&mut self, now: Instant, packet: Packet) -> Result<(), DropReason> {
        let track = self.tracks.get_mut(packet.track).ok_or(DropReason::RtpUnknownStream)?;
        if track.muted {
            return Err(DropReason::Muted);
        }
        track.loudness.handle_level(now, packet.values.audio_level());
        self.batch.push(packet);
        Ok(())
    }

    /// The packets that wait.
    pub fn pending(&self) -> &[Packet] {
        self.batch.packets()
    }

    /// Whether packets wait.
    pub fn has_pending(&self) -> bool {
        !self.batch.packets().is_empty()
    }

    /// Lends the waiting packets, their payloads and each listener in turn to `serve`, then forgets the packets.
    /// Who comes soon is said a little before: listeners are more than caches hold, and memory takes its time.
    pub fn forward(&mut self, serve: impl FnMut(Turn<'_>, &[Packet], &[u8])) {
        self.batch.forward(&mut self.receivers, serve);
    }

    /// Looks at who speaks: re-sources slots where voices outnumber them, and returns the speakers, the
    /// loudest first, when that set changed, or may be news from this part, and the last report is old enough.
    pub fn handle_interval(
        &mut self,
        now: Instant,
        changes: &mut Vec<SlotChange>,
    ) -> Option<Vec<(TrackId, u8)>> {
        self.update_stage(now, changes);
        let speaking = &mut self.speaking;
        speaking.clear();
        for (_, track) in &mut self.tracks {
            if track.loudness.update_speaking(now) {
                speaking.push((track.loudness.level(now), track.id));
            }
        }
        if speaking.len() > SPEAKER_COUNT_MAX {
            // Who was told of before stays: else the set would change with every breath.
            speaking.sort_unstable_by_key(|&(level, id)| (!self.speakers.contains(&id), level, id));
            speaking.truncate(SPEAKER_COUNT_MAX);
        }
        let is_due = self.speakers_at.is_none_or(|at| now.duration_since(at) >= SPEAKERS_INTERVAL);
        let same = speaking.len() == self.speakers.len()
            && speaking.iter().all(|(_, id)| self.speakers.contains(id));
        if (same && !self.is_untold) || !is_due {
            return None;
        }
        self.is_untold = false;
        speaking.sort_unstable();
        self.speakers.clear();
        self.speakers.extend(speaking.iter().map(|&(_, id)| id));
        self.speakers_at = Some(now);
        Some(speaking.iter().map(|&(level, id)| (id, level)).collect())
    }

    /// While voices are no more than slots, control decides; beyond that the stage does.
    fn update_stage(&mut self, now: Instant, changes: &mut Vec<SlotChange>) {
        if self.tracks.len() <= self.audio_slots && self.refusing_count == 0 {
            self.stage.clear();
            return;
        }
        self.has_staged = true;
        self.scores.clear();
        self.scores.extend(self.tracks.iter().map(|(key, track)| (key, track.loudness.score(now))));
        // One more than slots: who is on stage does not hear itself.
        self.stage.update(now, self.audio_slots + 1, &self.scores);
        for key in 0..self.receivers.capacity() {
            self.reseat(now, key, changes);
        }
    }

    fn reseat(&mut self, now: Instant, key: ReceiverKey, changes: &mut Vec<SlotChange>) {
        let is_staged = |it: &&mut Receiver| it.is_staged(self.tracks.len(), self.audio_slots);
        if let Some(receiver) = self.receivers.get_mut(key).filter(is_staged) {
            stage::reseat(now, key, receiver, &self.stage, &self.tracks, changes);
        }
    }
}

#[cfg(test)]
mod tests;
