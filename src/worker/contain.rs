//! A fault of ours ends the room that it struck, not the worker: the calls of the others go on.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::event::Event;
use super::{PeerKey, RoomKey, Worker};

impl Worker {
    /// Does a part of a wake-up. A panic in it ends the room that was dealt with at the time, and `true` is
    /// returned: what was left undone is to be taken up again. Without such a room the panic goes on.
    pub fn contain(&mut self, work: impl FnOnce(&mut Worker)) -> bool {
        self.at_work = None;
        let Err(cause) = catch_unwind(AssertUnwindSafe(|| work(self))) else { return false };
        match self.at_work.take() {
            Some(room) if self.rooms.contains(room) => self.abandon_room(room),
            _ => resume_unwind(cause),
        }
        true
    }

    /// Notes which room a panic would be the fault of.
    pub(super) fn works_for(&mut self, key: PeerKey) {
        self.at_work = self.peers.get(key).map(|peer| peer.room);
    }

    /// Takes the room out of every table, without asking it for anything: its state may be half changed.
    fn abandon_room(&mut self, room: RoomKey) {
        let members: Vec<PeerKey> =
            self.peers.iter().filter(|(_, peer)| peer.room == room).map(|(key, _)| key).collect();
        for key in members {
            self.forget_peer(key);
        }
        self.by_track.retain(|_, (track_room, _)| *track_room != room);
        // Of the others: what control is not told of, it would believe to be as before.
        self.tell_changes();
        let id = self.rooms.remove(room).id;
        self.by_room.remove(&id);
        self.waiting.retain(|(_, key)| *key != room);
        self.events.push(Event::RoomFailed(id));
    }
}
