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
use self::receiver::{Receiver, ReceiverKey, Slot};
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
    audio_slots: usize,
    tracks: Slab<Track>,
    receivers: Slab<Receiver>,
    batch: Batch,
    stretches: u64,
    stage: Stage,
    /// Voices outnumbered slots at some time.
    has_staged: bool,
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
            audio_slots,
            tracks: Slab::new(),
            receivers: Slab::new(),
            batch: Batch::default(),
            stretches: 0,
            stage: Stage::default(),
            has_staged: false,
            speakers: Vec::new(),
            speakers_at: None,
            speaking: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Adds a listener without slots.
    pub fn add_receiver(&mut self, peer: PeerKey) -> ReceiverKey {
        self.receivers.insert(Receiver::new(peer))
    }

    /// Ends a listener. What it published stays, silent, until it is unpublished or published again.
    pub fn remove_receiver(&mut self, key: ReceiverKey) {
        if self.receivers.try_remove(key).is_none() {
            return;
        }
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

    /// Ends a track. Slots that carried it fall silent; where more voices wait than there are slots, the
    /// loudest of those takes them.
    pub fn unpublish(&mut self, now: Instant, key: TrackKey, changes: &mut Vec<SlotChange>) {
        if self.tracks.try_remove(key).is_none() {
            return;
        }
        self.batch.forget(key);
        for (_, receiver) in &mut self.receivers {
            if let Some(seat) = receiver.seat_of(key) {
                receiver.assign(now, seat, None);
            }
        }
        self.update_stage(now, changes);
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
                self.seat(now, key, index, source, changes);
            }
            if self.stage.is_empty() {
                self.update_stage(now, changes);
            } else {
                // This one alone: nobody else has anything new, and a room's worth of listeners joins at times.
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
        self.seat(now, key, slot, source, changes);
        let Some(receiver) = self.receivers.get(key).filter(|_| self.has_staged) else { return };
        if let Some(seat) = receiver.position(slot) {
            let source = receiver.seats()[seat].source.and_then(|track| self.tracks.get(track));
            changes.push(SlotChange { peer: receiver.peer, slot, track: source.map(|track| track.id) });
        }
    }

    fn seat(
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
        if receiver.seats()[seat].source == source {
            return;
        }
        if let Some(left) = receiver.assign(now, seat, source) {
            let slot = receiver.seats()[left].slot.slot;
            changes.push(SlotChange { peer: receiver.peer, slot, track: None });
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
    /// loudest first, when that set changed and the last report is old enough.
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
        if same || !is_due {
            return None;
        }
        speaking.sort_unstable();
        self.speakers.clear();
        self.speakers.extend(speaking.iter().map(|&(_, id)| id));
        self.speakers_at = Some(now);
        Some(speaking.iter().map(|&(level, id)| (id, level)).collect())
    }

    /// While voices are no more than slots, control decides; beyond that the stage does.
    fn update_stage(&mut self, now: Instant, changes: &mut Vec<SlotChange>) {
        if self.tracks.len() <= self.audio_slots {
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
        let receiver = self.receivers.get_mut(key).filter(|it| it.seats().len() >= self.audio_slots);
        if let Some(receiver) = receiver {
            stage::reseat(now, key, receiver, &self.stage, &self.tracks, changes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Mid, PayloadType, Ssrc};
    use crate::rtp::extension::{ExtensionIds, Values};
    use crate::srtp::index::PacketIndex;
    use crate::time::RtpTime;

    /// A room whose receivers have their slots, and a clock.
    struct Scene {
        room: Room,
        now: Instant,
        changes: Vec<SlotChange>,
    }

    impl Scene {
        fn new(audio_slots: usize) -> Scene {
            let now = crate::time::Now::read().instant;
            Scene { room: Room::new(RoomId(1), audio_slots), now, changes: Vec::new() }
        }

        fn join(&mut self, slots: u16) -> ReceiverKey {
            let peer = self.room.receiver_count();
            let key = self.room.add_receiver(peer);
            for slot in 0..slots {
                let slot = Slot {
                    slot: SlotIndex(slot),
                    mid: Mid::parse("s0").unwrap(),
                    ssrc: Ssrc(u32::from(slot)),
                    payload_type: PayloadType::new(111).unwrap(),
                    extensions: ExtensionIds::default(),
                    source: Some(TrackId(u64::MAX)), // Gone since.
                };
                self.room.add_slot(self.now, key, slot, None, 0, &mut self.changes);
            }
            key
        }

        fn publish(&mut self, publisher: ReceiverKey) -> TrackKey {
            let id = TrackId(publisher as u64);
            self.room.publish(None, id, publisher, false)
        }

        /// A second of packets at these levels, and what changed.
        fn speak(&mut self, levels: &[(TrackKey, u8)]) -> (Vec<SlotChange>, Vec<Vec<TrackId>>) {
            let mut reports = Vec::new();
            for frame in 0..50 {
                self.now += Duration::from_millis(20);
                for &(track, level) in levels {
                    self.say(track, frame, level).unwrap();
                }
                self.room.forward(|_, _, _| {});
                if let Some(speakers) = self.room.handle_interval(self.now, &mut self.changes) {
                    reports.push(speakers.into_iter().map(|(id, _)| id).collect());
                }
            }
            (std::mem::take(&mut self.changes), reports)
        }

        fn say(&mut self, track: TrackKey, index: u64, level: u8) -> Result<(), DropReason> {
            let stretch = self.room.track(track).unwrap().stretch;
            self.room.handle_packet(
                self.now,
                Packet {
                    track,
                    stretch,
                    index: PacketIndex(index),
                    timestamp: RtpTime(0),
                    marker: false,
                    values: Values::new(Some(level), None),
                    payload: 0..1,
                    arrived: None,
                },
            )
        }

        fn heard_by(&mut self, key: ReceiverKey) -> Vec<TrackKey> {
            let receiver = &self.room.receivers[key];
            let mut heard: Vec<_> = receiver.seats().iter().filter_map(|seat| seat.source).collect();
            heard.sort_unstable();
            heard
        }
    }

    #[test]
    fn while_voices_fit_the_room_changes_nothing_by_itself() {
        let mut scene = Scene::new(3);
        let members: Vec<_> = (0..3).map(|_| scene.join(3)).collect();
        let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
        scene.room.assign_slot(scene.now, members[0], SlotIndex(0), Some(tracks[1]), &mut scene.changes);
        let (changes, _) = scene.speak(&[(tracks[1], 20), (tracks[2], 20)]);
        assert_eq!(changes, []);
        assert_eq!(scene.heard_by(members[0]), [tracks[1]]);
    }

    #[test]
    fn a_track_leaves_its_old_slot_and_nobody_hears_itself() {
        let mut scene = Scene::new(4);
        let (a, b) = (scene.join(2), scene.join(2));
        let (voice_a, voice_b) = (scene.publish(a), scene.publish(b));
        let mut changes = Vec::new();
        scene.room.assign_slot(scene.now, a, SlotIndex(0), Some(voice_a), &mut changes);
        assert!(scene.heard_by(a).is_empty());
        scene.room.assign_slot(scene.now, a, SlotIndex(0), Some(voice_b), &mut changes);
        assert_eq!(changes, []);
        scene.room.assign_slot(scene.now, a, SlotIndex(1), Some(voice_b), &mut changes);
        assert_eq!(scene.heard_by(a), [voice_b]);
        assert_eq!(changes, [SlotChange { peer: 0, slot: SlotIndex(0), track: None }]);
    }

    #[test]
    fn beyond_the_slots_the_loudest_are_heard_by_speakers_and_listeners_alike() {
        let mut scene = Scene::new(2);
        let members: Vec<_> = (0..6).map(|_| scene.join(2)).collect();
        let tracks: Vec<_> = members[..5].iter().map(|&key| scene.publish(key)).collect();
        let quiet = [(tracks[0], 90), (tracks[1], 90), (tracks[2], 90)];
        scene.speak(&quiet);
        let (changes, _) = scene.speak(&[quiet[0], quiet[1], quiet[2], (tracks[3], 20), (tracks[4], 25)]);
        assert!(!changes.is_empty());
        assert_eq!(scene.heard_by(members[5]), [tracks[3], tracks[4]], "a listener");
        assert_eq!(scene.heard_by(members[0]), [tracks[3], tracks[4]], "a quiet member");
        assert!(scene.heard_by(members[3]).contains(&tracks[4]), "a speaker hears the other");
        assert!(!scene.heard_by(members[3]).contains(&tracks[3]), "and not itself");
        // Each on the stage becomes loud in turn, the one that a listener has no seat for included.
        for speaker in 0..5 {
            let levels: Vec<_> = (0..5).map(|at| (tracks[at], if at == speaker { 15 } else { 80 })).collect();
            scene.speak(&levels);
            assert!(scene.heard_by(members[5]).contains(&tracks[speaker]), "speaker {speaker}");
        }
    }

    #[test]
    fn equal_voices_do_not_flutter() {
        let mut scene = Scene::new(2);
        let members: Vec<_> = (0..5).map(|_| scene.join(2)).collect();
        let voices = members.iter().enumerate().map(|(at, &key)| (scene.publish(key), 30 + at as u8 % 2));
        let levels: Vec<_> = voices.collect();
        scene.speak(&levels);
        let (changes, _) = scene.speak(&levels);
        assert_eq!(changes, []);
    }

    #[test]
    fn a_voice_that_ends_gives_its_slot_to_one_that_waits() {
        let mut scene = Scene::new(2);
        let members: Vec<_> = (0..4).map(|_| scene.join(2)).collect();
        let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
        scene.speak(&[(tracks[0], 20), (tracks[1], 20), (tracks[2], 90), (tracks[3], 90)]);
        assert_eq!(scene.heard_by(members[2]), [tracks[0], tracks[1]]);
        let mut changes = Vec::new();
        scene.room.unpublish(scene.now, tracks[0], &mut changes);
        assert_eq!(scene.heard_by(members[2]), [tracks[1], tracks[3]]);
        assert!(changes.iter().any(|change| change.peer == 2 && change.track == Some(TrackId(3))));
    }

    #[test]
    fn a_closed_slot_stays_silent_until_it_is_assigned() {
        let mut scene = Scene::new(2);
        let members: Vec<_> = (0..5).map(|_| scene.join(2)).collect();
        let tracks: Vec<_> = members[..4].iter().map(|&key| scene.publish(key)).collect();
        let levels: Vec<_> = tracks.iter().map(|&track| (track, 20 + track as u8)).collect();
        scene.speak(&levels);
        let listener = members[4];
        assert_eq!(scene.heard_by(listener), tracks[..2]);
        scene.room.close_slot(scene.now, listener, SlotIndex(0));
        let (changes, _) = scene.speak(&levels);
        assert_eq!(scene.heard_by(listener).len(), 1);
        let of_listener = |change: &&SlotChange| change.peer == 4 && change.slot == SlotIndex(0);
        assert_eq!(changes.iter().find(of_listener), None);
        // One that control assigns is open again, even where the track has gone meanwhile.
        let mut changes = Vec::new();
        scene.room.assign_slot(scene.now, listener, SlotIndex(0), None, &mut changes);
        scene.speak(&levels);
        assert_eq!(scene.heard_by(listener), tracks[..2]);
    }

    #[test]
    fn a_slot_that_is_added_without_a_voice_is_closed() {
        let mut scene = Scene::new(1);
        let members: Vec<_> = (0..2).map(|_| scene.join(0)).collect();
        let tracks: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
        let listener = scene.join(0);
        let slot = Slot {
            slot: SlotIndex(0),
            mid: Mid::parse("s0").unwrap(),
            ssrc: Ssrc(1),
            payload_type: PayloadType::new(111).unwrap(),
            extensions: ExtensionIds::default(),
            source: None,
        };
        let mut changes = Vec::new();
        scene.room.add_slot(scene.now, listener, slot, None, 0, &mut changes);
        scene.speak(&[(tracks[0], 20), (tracks[1], 20)]);
        assert!(scene.heard_by(listener).is_empty());
    }

    #[test]
    fn speakers_are_told_when_they_change_and_not_more_often() {
        let mut scene = Scene::new(8);
        let (a, b) = (scene.join(0), scene.join(0));
        let (voice_a, voice_b) = (scene.publish(a), scene.publish(b));
        let (_, reports) = scene.speak(&[(voice_a, 30), (voice_b, 20)]);
        assert_eq!(reports.last().unwrap(), &[TrackId(1), TrackId(0)]);
        assert!(reports.len() <= 2, "one a change");
        let (_, reports) = scene.speak(&[(voice_a, 30), (voice_b, 127)]);
        assert_eq!(reports, [[TrackId(0)]]);
        let (_, reports) = scene.speak(&[]);
        assert_eq!(reports, [[]]);
    }

    #[test]
    fn of_more_speakers_than_are_told_the_same_stay_while_they_speak() {
        let mut scene = Scene::new(64);
        let members: Vec<_> = (0..20).map(|_| scene.join(0)).collect();
        let voices: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
        let loud = |from: usize| {
            voices.iter().enumerate().map(|(at, &v)| (v, 20 + ((at + from) % 20) as u8)).collect()
        };
        let levels: Vec<_> = loud(0);
        let (_, reports) = scene.speak(&levels);
        assert_eq!(reports.last().map(Vec::len), Some(SPEAKER_COUNT_MAX));
        for from in 1..5 {
            let levels: Vec<_> = loud(from);
            assert_eq!(scene.speak(&levels).1, Vec::<Vec<TrackId>>::new(), "whoever is loudest now");
        }
    }

    #[test]
    fn where_the_room_decides_control_is_told_what_its_own_orders_came_to() {
        let mut scene = Scene::new(2);
        let members: Vec<_> = (0..3).map(|_| scene.join(2)).collect();
        let voices: Vec<_> = members.iter().map(|&key| scene.publish(key)).collect();
        let listener = scene.join(2);
        let peer = scene.room.receivers[listener].peer;
        scene.speak(&[(voices[0], 20), (voices[1], 30), (voices[2], 40)]);
        // The slot's new voice is on its way to control, which has just given it to another.
        scene.room.unpublish(scene.now, voices[0], &mut scene.changes);
        let mut changes = Vec::new();
        let given = Some(voices[1]);
        for slot in [SlotIndex(0), SlotIndex(1)] {
            scene.room.assign_slot(scene.now, listener, slot, given, &mut changes);
            let told =
                changes.iter().rev().find(|change| change.peer == peer && change.slot == slot).cloned();
            assert_eq!(told, Some(SlotChange { peer, slot, track: Some(TrackId(voices[1] as u64)) }));
        }
    }

    #[test]
    fn a_muted_voice_goes_nowhere_and_leaves_no_gap() {
        let mut scene = Scene::new(8);
        let (a, b) = (scene.join(0), scene.join(1));
        let voice = scene.publish(a);
        scene.room.assign_slot(scene.now, b, SlotIndex(0), Some(voice), &mut scene.changes);
        let mut forwarded = Vec::new();
        for index in 0..9 {
            if index % 3 == 0 {
                scene.room.set_muted(voice, index == 3);
            }
            assert_eq!(scene.say(voice, index, 20).is_err(), (3..6).contains(&index));
            let now = scene.now;
            scene.room.forward(|turn, packets, _| {
                let Turn::Now(receiver) = turn else { return };
                for packet in packets {
                    forwarded.extend(receiver.rewrite(now, packet).map(|(rewritten, _)| rewritten.index.0));
                }
            });
        }
        assert_eq!(forwarded, [0, 1, 2, 3, 4, 5]);
        scene.room.set_deafened(b, true);
        scene.say(voice, 9, 20).unwrap();
        scene.room.forward(|turn, _, _| {
            if let Turn::Now(receiver) = turn {
                assert_ne!(receiver.peer, 1);
            }
        });
    }

    #[test]
    fn nobody_is_always_the_first_or_the_last() {
        let mut scene = Scene::new(8);
        for _ in 0..3 {
            scene.join(0);
        }
        let mut firsts = Vec::new();
        for _ in 0..8 {
            let mut order = Vec::new();
            scene.room.forward(|turn, _, _| {
                if let Turn::Now(receiver) = turn {
                    order.push(receiver.peer);
                }
            });
            assert_eq!(order.len(), 3);
            firsts.push(order[0]);
        }
        assert!((0..3).all(|peer| firsts.contains(&peer)), "{firsts:?}");
    }
}
