//! Who is where, for whoever asks why audio does not flow.

use std::time::Instant;

use super::{ConnectionId, Signalling};
use crate::control::participant::{ParticipantId, UserInfo};
use crate::ids::{RoomId, RoomName, TrackId, TransportId, UserId, WorkerId, WorkerSet};

/// A participant as control knows it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: ParticipantId,
    /// Its room.
    pub room: RoomId,
    /// Where its transports live.
    pub worker: WorkerId,
    /// Its name there.
    pub user: UserId,
    /// What it says of itself.
    pub info: UserInfo,
    /// What it publishes, or would.
    pub track: TrackId,
    /// It publishes.
    pub is_voice: bool,
    /// Its WebSocket; `None` while it is lost.
    pub connection: Option<ConnectionId>,
    /// Its transport; `None` once that has failed or was closed.
    pub transport: Option<TransportId>,
    /// The worker knows it: an offer or an answer has said where to.
    pub is_started: bool,
    /// Since when there is a transport, or none.
    pub since: Instant,
    /// Why there is none: it failed, and was not closed.
    pub has_failed: bool,
}

/// A room as control knows it.
#[derive(Clone, Debug)]
pub struct RoomView {
    /// Its id.
    pub id: RoomId,
    /// As the clients call it.
    pub name: RoomName,
    /// The worker that speaks for it.
    pub home: WorkerId,
    /// The workers that hold a part of it.
    pub parts: WorkerSet,
}

impl Signalling {
    /// All participants in the order of joining.
    pub fn members(&self) -> Vec<Member> {
        let state = self.state();
        let members = state.sessions.iter().filter_map(|(&id, session)| {
            let participant = state.registry.participant(id)?;
            let media = session.media.as_ref();
            Some(Member {
                id,
                room: participant.room,
                worker: participant.worker,
                user: participant.user.clone(),
                info: participant.info.clone(),
                track: participant.track,
                is_voice: state.registry.is_voice(id),
                connection: session.connection,
                transport: media.map(|media| media.transport),
                is_started: media.is_some_and(|media| media.is_started),
                since: media.map_or(session.since, |media| media.made_at),
                has_failed: session.has_failed,
            })
        });
        members.collect()
    }

    /// All rooms in the order of their making.
    pub fn rooms(&self) -> Vec<RoomView> {
        let state = self.state();
        let view = |(id, room): (RoomId, &crate::control::registry::Room)| RoomView {
            id,
            name: room.name.clone(),
            home: room.home,
            parts: room.parts(),
        };
        state.registry.rooms().map(view).collect()
    }
}
