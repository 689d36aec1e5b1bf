//! What a moderator does to others: kick and mute. Whose token does not allow it is told so.

use std::time::Instant;

use super::connection::CLOSE_POLICY;
use super::message::{LeaveReason, ServerMessage};
use super::negotiation::ErrorCode;
use super::state::State;
use crate::control::participant::{ParticipantId, UserInfo};
use crate::ids::{RoomId, UserId};

impl State {
    /// Puts a user out of the room: its place is gone, and with it what would let it resume.
    pub(super) fn handle_kick(&mut self, now: Instant, moderator: ParticipantId, user: &UserId) {
        let Some(room) = self.moderated_room(now, moderator) else { return };
        let Some(id) = self.registry.member(room, user) else {
            return self.tell_nobody_there(now, moderator);
        };
        let connection = self.sessions.get(&id).and_then(|session| session.connection);
        self.log_moderation(moderator, id, "kicked");
        self.leave(now, id, LeaveReason::Kicked);
        if let Some(connection) = connection {
            self.error(
                now,
                connection,
                ErrorCode::Kicked,
                "a moderator has removed you from the room".into(),
            );
            self.close(now, connection, CLOSE_POLICY, "kicked");
        }
    }

    fn log_moderation(&self, moderator: ParticipantId, id: ParticipantId, what: &'static str) {
        let Some(participant) = self.registry.participant(id) else { return };
        let Some(room) = self.registry.room(participant.room) else { return };
        tracing::info!(
            connection = self.connection_of(id).map(tracing::field::display),
            participant = %id,
            room = %room.name,
            user = %participant.user,
            by = %moderator,
            "{what}"
        );
    }

    /// Mutes a user, whatever it says of itself, or lets it speak again. The whole room is told, so that counts among
    /// the moderator's own changes; who mutes a large room's members one by one is told when those are too many, and
    /// stays. A user that is muted and away stays muted, and can be forgiven while it is away.
    pub(super) fn handle_mute(&mut self, now: Instant, moderator: ParticipantId, user: &UserId, muted: bool) {
        let Some(room) = self.moderated_room(now, moderator) else { return };
        if let Some(id) = self.registry.member(room, user)
            && let Some(participant) = self.registry.participant(id)
        {
            let info = UserInfo { is_server_muted: muted, ..participant.info.clone() };
            if info == participant.info {
                return;
            }
            if !self.sessions.get_mut(&moderator).is_some_and(|it| it.may_change(now, 1)) {
                return self.tell_error(
                    now,
                    moderator,
                    ErrorCode::RateLimited,
                    "too many changes: try again",
                );
            }
            self.log_moderation(moderator, id, if muted { "server mute" } else { "server mute ended" });
            self.set_info(now, id, info);
        } else if muted || !self.registry.forgive(room, user) {
            self.tell_nobody_there(now, moderator);
        }
    }

    /// Tells a participant what a moderator did to it before it joined again or resumed.
    pub(super) fn tell_server_mute(&mut self, now: Instant, id: ParticipantId) {
        if let Some(participant) = self.registry.participant(id).filter(|it| it.info.is_server_muted)
            && let Some(room) = self.registry.room(participant.room)
        {
            let message = ServerMessage::UserInfo {
                room_id: room.name.clone(),
                user_id: participant.user.clone(),
                user_info: participant.info.clone(),
            };
            self.tell_participant(now, id, &message);
        }
    }

    /// The room of somebody who may moderate it.
    fn moderated_room(&mut self, now: Instant, id: ParticipantId) -> Option<RoomId> {
        if self.sessions.get(&id).is_some_and(|session| session.grants.moderate) {
            return Some(self.registry.participant(id)?.room);
        }
        self.tell_error(now, id, ErrorCode::Unauthorized, "only a moderator may do that");
        None
    }

    fn tell_nobody_there(&mut self, now: Instant, id: ParticipantId) {
        self.tell_error(now, id, ErrorCode::BadMessage, "nobody of that userId is in this room");
    }

    fn tell_error(&mut self, now: Instant, id: ParticipantId, code: ErrorCode, message: &str) {
        self.tell_participant(now, id, &ServerMessage::Error { code, message: message.to_owned() });
    }
}
