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

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use std::time::Duration;

    use super::*;
    use crate::ice::credentials::{RemoteCredentials, Secret};
    use crate::ids::{Mid, PayloadType, RoomId, SlotIndex, Ssrc, TrackId, TransportId, WorkerId};
    use crate::packet::{DATAGRAM_LEN_MAX, Egress, Path};
    use crate::rtp::extension::ExtensionIds;
    use crate::time::Now;
    use crate::worker::Settings;
    use crate::worker::command::{Command, PublishedStream, Slot};

    /// Sends nothing.
    struct Nowhere([u8; DATAGRAM_LEN_MAX]);

    impl Egress for Nowhere {
        fn cuts_segments(&self, _: Path) -> bool {
            false
        }

        fn open(&mut self, _: Path) {}

        fn segment(&mut self, len_max: usize) -> &mut [u8] {
            &mut self.0[..len_max]
        }

        fn commit(&mut self, _: usize) {}

        fn close(&mut self) {}
    }

    /// Two members who publish; the second has two slots, and hears the first on the first of them.
    fn fill(worker: &mut Worker, now: Now, secret: &Secret, room: RoomId) {
        let mut nowhere = Nowhere([0; DATAGRAM_LEN_MAX]);
        let mut command = |command| worker.handle_command(now, command, &mut nowhere);
        let payload_type = PayloadType::new(111).expect("below 128");
        let mid = Mid::parse("0").expect("a token");
        let id = |member| room.0 * 10 + member;
        command(Command::AddRoom(room));
        for member in 0..2 {
            let transport = TransportId(id(member));
            let local = secret.credentials(WorkerId(0));
            let remote = RemoteCredentials::parse("peer", "aPasswordOf22Characters").expect("valid");
            command(Command::AddTransport { transport, room, local, remote });
            let extensions = ExtensionIds::default();
            let stream =
                Box::new(PublishedStream { mid, is_only: true, ssrcs: vec![], payload_type, extensions });
            command(Command::Publish { transport, track: TrackId(id(member)), stream, muted: false });
        }
        for slot in 0..2 {
            let source = (slot == 0).then_some(TrackId(id(0)));
            let extensions = ExtensionIds::default();
            let slot = Slot {
                slot: SlotIndex(slot),
                mid,
                ssrc: Ssrc(slot.into()),
                payload_type,
                extensions,
                source,
            };
            command(Command::AddSlot { transport: TransportId(id(1)), slot: Box::new(slot) });
        }
    }

    #[test]
    fn slot_changes_of_other_rooms_survive_a_failed_room() {
        let (now, secret) = (Now::read(), Secret::from_bytes(&[1; 32]));
        let settings = Settings {
            id: WorkerId(0),
            port_sharers: 1,
            secret: secret.clone(),
            audio_slots: 4,
            tick: Duration::ZERO,
            pad_max: 0,
            seed: [7; 32],
        };
        let mut worker = Worker::new(now, settings);
        let rooms = [RoomId(1), RoomId(2)];
        rooms.iter().for_each(|room| fill(&mut worker, now, &secret, *room));
        worker.take_events().for_each(drop);

        // In both rooms a voice moves to another slot; the second room fails before that is told.
        let failed = worker.contain(|worker| {
            for room in rooms {
                let key = worker.by_room[&room];
                worker.at_work = Some(key);
                let (_, voice) = worker.by_track[&TrackId(room.0 * 10)];
                let listener = worker.peers[worker.by_transport[&TransportId(room.0 * 10 + 1)]].receiver;
                let changes = &mut worker.changes;
                worker.rooms[key].assign_slot(now.instant, listener, SlotIndex(1), Some(voice), changes);
            }
            assert!(worker.changes.len() >= 2, "both have something to tell");
            resume_unwind(Box::new("a fault of ours")); // As a panic, but without a word on standard error.
        });
        assert!(failed);
        let events: Vec<Event> = worker.take_events().collect();
        let [Event::SlotsChanged { transport: TransportId(11), changes }, Event::RoomFailed(RoomId(2))] =
            &events[..]
        else {
            panic!("{} events", events.len());
        };
        assert!(changes.contains(&(SlotIndex(0), None)), "{changes:?}");
        assert!(worker.changes.is_empty(), "told once");
    }
}
