//! What control orders: transports, tracks and slots come and go.

use std::time::Duration;

use super::command::{Command, PublishedStream, Slot};
use super::peer::{Peer, Publication, TokenBucket};
use super::traffic::Traffic;
use super::{PeerKey, Worker};
use crate::ice::credentials::{LocalCredentials, RemoteCredentials};
use crate::ids::{RoomId, Ssrc, TrackId, TransportId};
#[cfg(feature = "tools")]
use crate::packet::DropReason;
use crate::packet::Egress;
use crate::room::Room;
#[cfg(feature = "tools")]
use crate::srtp::index::PacketIndex;
use crate::time::Now;
use crate::transport::Transport;

/// The first report follows the first packets soon, so that a browser knows its round-trip time.
const FIRST_REPORT: Duration = Duration::from_secs(1);

impl Worker {
    /// Obeys. Orders about something gone are ignored: its end crossed them on the way.
    pub fn handle_command(&mut self, now: Now, command: Command, out: &mut impl Egress) {
        self.at_work = None;
        match command {
            Command::AddRoom(id) => self.add_room(id),
            Command::SpanRoom { room, others, is_home } => self.span_room(room, others, is_home),
            Command::RemoveRoom(id) => self.remove_room(id, out),
            Command::AddTransport { transport, room, local, remote } => {
                self.add_transport(now, transport, room, local, remote);
            }
            Command::RestartIce { transport, local, remote } => {
                if let Some(key) = self.key_of(transport) {
                    self.peers[key].transport.restart_ice(now.instant, local, remote);
                    self.learn_ufrags(key);
                }
            }
            Command::RemoveTransport(transport) => {
                if let Some(key) = self.key_of(transport) {
                    self.remove_peer(key, out);
                }
            }
            Command::SendDtls { transport, datagram } => {
                let Some(key) = self.key_of(transport) else { return };
                match self.peers[key].transport.send_dtls(datagram.len()) {
                    Ok(path) => self.send(path, &datagram, out),
                    Err(reason) => {
                        self.counters.drop_one(reason);
                        self.peers[key].traffic.drop_one(reason);
                    }
                }
            }
            Command::SetKeys { transport, keys } => {
                if let Some(key) = self.key_of(transport) {
                    self.peers[key].transport.set_keys(now.instant, &keys);
                    self.tell_state(now, key);
                }
            }
            Command::Publish { transport, track, stream, muted } => {
                self.publish(now, transport, track, *stream, muted);
            }
            Command::PublishElsewhere { room, track, worker, muted } => {
                self.publish_elsewhere(room, track, worker, muted);
            }
            Command::Unpublish(track) => self.unpublish(now, track),
            Command::SetMuted { track, muted } => {
                if let Some(&(room, key)) = self.by_track.get(&track) {
                    self.at_work = Some(room);
                    self.rooms[room].set_muted(key, muted);
                }
            }
            Command::SetDeafened { transport, deafened } => {
                let key = self.key_of(transport);
                if let Some((room, receiver)) = key.and_then(|key| self.room_of(key)) {
                    room.set_deafened(receiver, deafened);
                }
            }
            Command::AddSlot { transport, slot } => self.add_slot(now, transport, *slot),
            Command::AssignSlot { transport, slot, source } => {
                let Some(key) = self.key_of(transport) else { return };
                let (room_key, receiver) = (self.peers[key].room, self.peers[key].receiver);
                if source.is_none() {
                    return self.rooms[room_key].close_slot(now.instant, receiver, slot);
                }
                let source = self.track_in(room_key, source);
                self.rooms[room_key].assign_slot(now.instant, receiver, slot, source, &mut self.changes);
                self.tell_changes();
            }
            Command::Refuse { transport, line_count_max, tracks } => {
                let Some(key) = self.key_of(transport) else { return };
                let (room, receiver) = (self.peers[key].room, self.peers[key].receiver);
                let tracks = tracks.iter().filter_map(|&track| self.track_in(room, Some(track))).collect();
                self.rooms[room].refuse(receiver, usize::from(line_count_max), tracks);
            }
            Command::Snapshot(request) => self.ask_snapshot(now.instant, request),
            Command::Capture { transport, capture } => self.begin_capture(transport, capture),
            Command::Stop => self.stop(out),
        }
    }

    /// As [`Transport::leave_plaintext`].
    #[cfg(feature = "tools")]
    pub fn leave_plaintext(&mut self, transport: TransportId, is_plaintext_out: bool) {
        if let Some(key) = self.key_of(transport) {
            self.peers[key].transport.leave_plaintext(is_plaintext_out);
        }
    }

    /// As [`Transport::begin_at`].
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "tools")]
    pub fn begin_at(
        &mut self,
        transport: TransportId,
        ssrc: Ssrc,
        index: PacketIndex,
    ) -> Result<(), DropReason> {
        let key = self.key_of(transport).ok_or(DropReason::UnknownPath)?;
        self.peers[key].transport.begin_at(ssrc, index)
    }

    fn key_of(&mut self, transport: TransportId) -> Option<PeerKey> {
        let key = self.by_transport.get(&transport).copied()?;
        self.works_for(key);
        self.look_soon(key);
        Some(key)
    }

    /// The track's place, if it is in this room.
    fn track_in(&self, room: usize, track: Option<TrackId>) -> Option<usize> {
        let &(track_room, key) = self.by_track.get(&track?)?;
        (track_room == room).then_some(key)
    }

    fn add_room(&mut self, id: RoomId) {
        if !self.by_room.contains_key(&id) {
            let key = self.rooms.insert(Room::new(id, usize::from(self.settings.audio_slots)));
            self.by_room.insert(id, key);
        }
    }

    fn remove_room(&mut self, id: RoomId, out: &mut impl Egress) {
        let Some(room) = self.by_room.remove(&id) else { return };
        let members: Vec<PeerKey> = self.rooms[room].receivers().map(|receiver| receiver.peer).collect();
        for key in members {
            self.remove_peer(key, out);
        }
        for track in self.rooms[room].track_ids() {
            self.by_track.remove(&track);
        }
        self.waiting.retain(|(_, key)| *key != room);
        self.rooms.remove(room);
    }

    fn add_transport(
        &mut self,
        now: Now,
        id: TransportId,
        room: RoomId,
        local: LocalCredentials,
        remote: RemoteCredentials,
    ) {
        let Some(&room) = self.by_room.get(&room) else { return };
        self.at_work = Some(room);
        if self.by_transport.contains_key(&id) {
            return;
        }
        let transport = Transport::new(now.instant, id, local, remote, self.random.bytes());
        let entry = self.peers.vacant_entry();
        let key = entry.key();
        if self.look_at.len() <= key {
            self.look_at.resize(key + 1, now.instant);
        }
        entry.insert(Peer {
            transport,
            room,
            receiver: self.rooms[room].add_receiver(key),
            publications: Vec::new(),
            ufrags: Vec::new(),
            ssrc: Ssrc(self.random.number() as u32),
            traffic: Traffic::new(now.instant),
            capture: None,
            rtcp_bucket: TokenBucket::new(now.instant),
            took_back_at: None,
            is_contested: false,
            report_at: now.instant + FIRST_REPORT,
            sender_report_at: now.instant,
        });
        self.by_transport.insert(id, key);
        self.look_soon(key);
        self.learn_ufrags(key);
    }

    fn remove_peer(&mut self, key: PeerKey, out: &mut impl Egress) {
        self.say_goodbye(key, out);
        let (room, receiver) = (self.peers[key].room, self.peers[key].receiver);
        self.forget_peer(key);
        if let Some(room) = self.rooms.get_mut(room) {
            room.remove_receiver(receiver);
        }
    }

    /// Takes a peer out of the tables; its room is left as it is.
    pub(super) fn forget_peer(&mut self, key: PeerKey) {
        let paths: Vec<_> = self.peers[key].transport.paths().collect();
        for path in paths {
            self.forget_path(key, path);
        }
        let peer = self.peers.remove(key);
        for ufrag in peer.ufrags {
            self.by_ufrag.remove(&ufrag);
        }
        self.by_transport.remove(&peer.transport.id);
    }

    fn publish(
        &mut self,
        now: Now,
        transport: TransportId,
        track: TrackId,
        stream: PublishedStream,
        muted: bool,
    ) {
        let Some(key) = self.key_of(transport) else { return };
        let (room_key, receiver) = (self.peers[key].room, self.peers[key].receiver);
        let present = self.by_track.get(&track).copied();
        if present.is_some_and(|(room, _)| room != room_key) {
            return;
        }
        self.withdraw(track);
        let place = present.map(|(_, place)| place);
        let place = self.rooms[room_key].publish(place, track, receiver, muted);
        self.by_track.insert(track, (room_key, place));
        self.peers[key].publications.push(Publication {
            track,
            key: place,
            stream,
            ssrc: None,
            bucket: TokenBucket::new(now.instant),
        });
    }

    /// No transport carries the track now. To be called before what the room knows of it changes.
    pub(super) fn withdraw(&mut self, track: TrackId) {
        let Some(&(room, place)) = self.by_track.get(&track) else { return };
        let room = &self.rooms[room];
        let publisher = room.track(place).and_then(|track| room.receiver(track.publisher?));
        if let Some(peer) = publisher.and_then(|publisher| self.peers.get_mut(publisher.peer)) {
            peer.publications.retain(|publication| publication.track != track);
        }
    }

    fn unpublish(&mut self, now: Now, track: TrackId) {
        self.withdraw(track);
        if let Some((room, key)) = self.by_track.remove(&track) {
            self.at_work = Some(room);
            self.rooms[room].unpublish(now.instant, key);
        }
    }

    fn add_slot(&mut self, now: Now, transport: TransportId, slot: Slot) {
        let Some(key) = self.key_of(transport) else { return };
        let (room_key, receiver) = (self.peers[key].room, self.peers[key].receiver);
        let source = self.track_in(room_key, slot.source);
        let random = self.random.number();
        self.rooms[room_key].add_slot(now.instant, receiver, slot, source, random, &mut self.changes);
        self.tell_changes();
    }

    fn stop(&mut self, out: &mut impl Egress) {
        for key in 0..self.peers.capacity() {
            if self.peers.contains(key) {
                self.say_goodbye(key, out);
            }
        }
        self.is_stopped = true;
    }
}
