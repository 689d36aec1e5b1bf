//! A room that is too large for one worker: each that holds a part of it opens what its own members say, relays that
//! once to each other part, and seals for its own members what is said anywhere.
//!
//! Invariant: what crosses from part to part is plaintext and the publisher's own numbering. Keys, SSRCs and indices of
//! what leaves are each part's alone, so that no nonce is ever shared (RFC 3711 §9.1).

use super::Worker;
use super::peer::RoomKey;
use super::relay::{Relay, RelayBytes, Voice};
use crate::ids::{RoomId, TrackId, WorkerId, WorkerSet};
use crate::packet::{DropReason, Egress};
use crate::room::batch::Packet;
use crate::room::rewrite::Stretch;
use crate::room::track::TrackKey;
use crate::time::{Now, RtpTime};

impl Worker {
    /// Takes note of the room's other parts.
    pub(super) fn span_room(&mut self, id: RoomId, others: WorkerSet, is_home: bool) {
        let Some(&key) = self.by_room.get(&id) else { return };
        self.at_work = Some(key);
        self.rooms[key].span(others.without(self.settings.id), is_home);
    }

    /// A track that another part carries takes part in everything here but the reports to its publisher.
    pub(super) fn publish_elsewhere(&mut self, room: RoomId, track: TrackId, worker: WorkerId, muted: bool) {
        let Some(&room) = self.by_room.get(&room) else { return };
        self.at_work = Some(room);
        let present = self.by_track.get(&track).copied();
        if worker == self.settings.id || present.is_some_and(|(other, _)| other != room) {
            return;
        }
        self.withdraw(track);
        let place = present.map(|(_, place)| place);
        let place = self.rooms[room].publish_elsewhere(place, track, worker, muted);
        self.by_track.insert(track, (room, place));
    }

    /// Hands a packet that may be heard to the room's other parts, one copy each; most rooms have none.
    pub(super) fn relay_voice(&mut self, room: RoomKey, packet: &Packet, payload: &[u8]) {
        let room = &self.rooms[room];
        if room.others.is_empty() {
            return;
        }
        let Some(track) = room.track(packet.track) else { return };
        for worker in room.others.iter() {
            self.counters.voices_relayed_out += 1;
            let voice = Voice {
                track: track.id,
                stretch: packet.stretch,
                index: packet.index,
                timestamp: packet.timestamp,
                marker: packet.marker,
                values: packet.values.clone(),
                arrived: packet.arrived,
                payload: RelayBytes::new(payload),
            };
            self.relays.push((worker, Relay::Voice(voice)));
        }
    }

    /// Tells the other parts how the publisher's clock stands.
    pub(super) fn relay_clock(&mut self, room: RoomKey, track: TrackKey, rtp_time: RtpTime) {
        let room = &self.rooms[room];
        let Some((track, stretch)) = room.track(track).map(|track| (track.id, track.stretch)) else { return };
        let relay = |worker| (worker, Relay::Clock { track, stretch, rtp_time });
        self.relays.extend(room.others.iter().map(relay));
    }

    /// Takes another part's word on a clock. One of another stretch than the packets that came has no meaning yet.
    pub(super) fn handle_clock(
        &mut self,
        now: Now,
        from: WorkerId,
        track: TrackId,
        stretch: Stretch,
        rtp_time: RtpTime,
    ) -> Result<(), DropReason> {
        let &(room, key) = self.by_track.get(&track).ok_or(DropReason::RelayUnknown)?;
        self.at_work = Some(room);
        let track = self.rooms[room].track_mut(key).ok_or(DropReason::RelayUnknown)?;
        let elsewhere = track.elsewhere.filter(|it| it.worker == from).ok_or(DropReason::RelayUnknown)?;
        if elsewhere.stretch == Some(stretch) {
            track.last_report = Some((rtp_time, now.instant));
        }
        Ok(())
    }

    /// Takes a packet from another part, if control said that the track comes from there.
    pub(super) fn handle_voice(
        &mut self,
        now: Now,
        from: WorkerId,
        voice: &Voice,
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        self.counters.voices_relayed_in += 1;
        let &(room_key, track) = self.by_track.get(&voice.track).ok_or(DropReason::RelayUnknown)?;
        self.at_work = Some(room_key);
        let room = &mut self.rooms[room_key];
        let stretch = room.stretch_here(track, from, voice.stretch).ok_or(DropReason::RelayUnknown)?;
        if room.track(track).is_none_or(|track| track.muted) {
            return Err(DropReason::Muted);
        }
        let packet = Packet {
            track,
            stretch,
            index: voice.index,
            timestamp: voice.timestamp,
            marker: voice.marker,
            values: voice.values.clone(),
            payload: 0..0,
            arrived: voice.arrived,
        };
        self.let_wait(now, room_key, packet, voice.payload.as_slice(), out)
    }
}
