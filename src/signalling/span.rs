//! A room on several workers: what each part is told of the others. A part hears of a track before any other part may
//! relay it there, so that nothing comes that it does not know.

use super::state::State;
use crate::ids::{RoomId, WorkerId, WorkerSet};
use crate::worker::command::Command;

impl State {
    /// A room's first member on this worker comes.
    pub(super) fn open_part(&mut self, id: RoomId, worker: WorkerId) {
        self.workers.send(worker, Command::AddRoom(id));
        let Some(room) = self.registry.room(id) else { return };
        let others = room.parts().without(worker);
        if others.is_empty() {
            return;
        }
        self.tell_span(id, worker);
        let publishers = room.voices().filter_map(|voice| self.registry.participant(voice));
        for publisher in publishers {
            let (track, muted) = (publisher.track, publisher.info.is_silent());
            let command = Command::PublishElsewhere { room: id, track, worker: publisher.worker, muted };
            self.workers.send(worker, command);
        }
        others.iter().for_each(|other| self.tell_span(id, other));
    }

    /// A room's last member on this worker has left; others go on elsewhere, or none.
    pub(super) fn close_part(&mut self, id: RoomId, worker: WorkerId) {
        self.workers.send(worker, Command::RemoveRoom(id));
        let others = self.registry.room(id).map_or(WorkerSet::EMPTY, |room| room.parts());
        others.iter().for_each(|other| self.tell_span(id, other));
    }

    fn tell_span(&self, id: RoomId, worker: WorkerId) {
        let Some(room) = self.registry.room(id) else { return };
        let (others, is_home) = (room.parts().without(worker), room.home == worker);
        self.workers.send(worker, Command::SpanRoom { room: id, others, is_home });
    }

    /// Gives each of these workers an order.
    pub(super) fn tell_workers(&self, workers: WorkerSet, command: impl Fn() -> Command) {
        workers.iter().for_each(|worker| self.workers.send(worker, command()));
    }

    /// The workers that hold a part of the room.
    pub(super) fn parts_of(&self, id: RoomId) -> WorkerSet {
        self.registry.room(id).map_or(WorkerSet::EMPTY, |room| room.parts())
    }
}
