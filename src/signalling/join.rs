//! Coming in: as somebody new, over an earlier connection, or with a resume token. Where tokens are asked for,
//! nobody does without one, and nothing changes before it is found good.

use std::collections::BTreeMap;
use std::time::Instant;

use super::connection::{CLOSE_DRAINING, CLOSE_FULL, CLOSE_POLICY, CloseCode, Stage};
use super::message::{Join, Joined, PeerInfo, ServerMessage};
use super::negotiation::ErrorCode;
use super::resume::ResumeToken;
use super::session::Session;
use super::state::{ConnectionId, Deadline, Door, State};
use crate::auth::{Grants, Refusal as Unauthorized};
use crate::control::participant::{ParticipantId, UserInfo};
use crate::control::registry::Refusal;
use crate::throttle::throttled;

/// Why somebody is not let in.
enum Refused {
    Unauthorized(Unauthorized),
    /// The room has heard enough of this member's changes for now.
    RateLimited,
    Draining,
    Full,
}

impl Refused {
    const fn text(&self) -> &'static str {
        match self {
            Refused::Unauthorized(unauthorized) => unauthorized.text(),
            Refused::RateLimited => "too many changes",
            Refused::Draining => "the server is going down",
            Refused::Full => "the server is full",
        }
    }

    const fn close_code(&self) -> CloseCode {
        match self {
            Refused::Unauthorized(_) | Refused::RateLimited => CLOSE_POLICY,
            Refused::Draining => CLOSE_DRAINING,
            Refused::Full => CLOSE_FULL,
        }
    }

    /// What the close code alone does not say.
    const fn error(&self) -> Option<ErrorCode> {
        match self {
            Refused::Unauthorized(_) => Some(ErrorCode::Unauthorized),
            Refused::RateLimited => Some(ErrorCode::RateLimited),
            Refused::Draining | Refused::Full => None,
        }
    }
}

impl State {
    pub(super) fn handle_join(&mut self, now: Instant, connection: ConnectionId, join: Join) {
        let grants = match self.grants_of(now, &join) {
            Ok(grants) => grants,
            Err(unauthorized) => {
                return self.refuse(now, connection, join, &Refused::Unauthorized(unauthorized));
            }
        };
        match self.registry.find(&join.room, &join.user) {
            None if self.door != Door::Open => {
                self.refuse(now, connection, join, &Refused::Draining);
            }
            None => self.join_new(now, connection, join, grants),
            Some(id) => {
                let shown = join.resume.as_deref();
                // Another's right to be heard or to hear needs another negotiation.
                let can_resume = |session: &Session| {
                    session.can_resume(now, shown) && session.grants.are_same_media(grants)
                };
                let resumes = self.sessions.get(&id).is_some_and(|session| can_resume(session));
                let Some(before) = self.registry.participant(id).map(|participant| &participant.info) else {
                    return;
                };
                let kept = UserInfo { is_server_muted: before.is_server_muted, ..UserInfo::of(&join.user) };
                let info = if resumes { before } else { &kept }.with(&join.info);
                let is_change = info != *before;
                let session = self.sessions.get_mut(&id);
                if is_change && !session.is_some_and(|session| session.may_change(now, 1)) {
                    self.refuse(now, connection, join, &Refused::RateLimited);
                } else if resumes {
                    self.resume(now, connection, id, info, grants);
                } else {
                    self.join_again(now, connection, id, info, grants);
                }
            }
        }
    }

    fn grants_of(&self, now: Instant, join: &Join) -> Result<Grants, Unauthorized> {
        match &self.settings.verifier {
            Some(verifier) => verifier.verify(now, join.token.as_deref(), &join.room, &join.user),
            None => Ok(Grants::default()),
        }
    }

    fn join_new(&mut self, now: Instant, connection: ConnectionId, join: Join, grants: Grants) {
        let info = UserInfo::of(&join.user).with(&join.info);
        if self.registry.participant_count() >= self.settings.max_connections {
            self.make_room(now, connection);
        }
        let joined = match self.registry.join(&join.room, &join.user, info) {
            Ok(joined) => joined,
            Err(Refusal::ServerFull | Refusal::AlreadyThere) => {
                return self.refuse(now, connection, join, &Refused::Full);
            }
        };
        let id = joined.participant;
        if joined.opens_part {
            self.open_part(joined.room, joined.worker);
        }
        let media = self.new_media(now, id, joined.worker, grants);
        let session = Session {
            connection: None,
            void_at: None,
            resume: ResumeToken::random(),
            grants,
            media: Some(media),
            since: now,
            has_failed: false,
            silent: None,
            changes_last_until: now,
        };
        self.sessions.insert(id, Box::new(session));
        self.welcome(now, connection, id, false);
        if let Some(participant) = self.registry.participant(id) {
            let message = ServerMessage::UserJoined {
                room_id: join.room,
                user_id: join.user,
                user_info: participant.info.clone(),
                stream_id: participant.stream_id.to_string(),
            };
            self.broadcast(now, joined.room, Some(id), &message);
        }
        self.set_voices(now, id);
    }

    /// The client starts anew, the participant stays: the others hear of it only what differs. Its
    /// track and the slots that carry it wait for it to publish again.
    fn join_again(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        id: ParticipantId,
        info: UserInfo,
        grants: Grants,
    ) {
        self.supplant(now, id);
        self.end_media(id);
        let Some(participant) = self.registry.participant(id) else { return };
        let worker = participant.worker;
        let media = self.new_media(now, id, worker, grants);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.media = Some(media);
            session.has_failed = false;
            session.grants = grants;
        }
        self.set_info(now, id, info);
        if self.registry.is_voice(id) {
            let until = now + self.settings.resume_window;
            self.timers.set(Deadline::Inherited(id), Some(until));
        }
        self.welcome(now, connection, id, false);
        self.set_voices(now, id);
    }

    /// The client goes on where it was; its negotiation says again what the client may have missed.
    fn resume(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        id: ParticipantId,
        info: UserInfo,
        grants: Grants,
    ) {
        self.totals.resumes += 1;
        self.supplant(now, id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.grants = grants;
        }
        self.set_info(now, id, info);
        self.welcome(now, connection, id, true);
        self.negotiate(now, id, |negotiation| negotiation.handle_resume(now));
    }

    /// Ends the participant's earlier connection, if it has one: the new one wins.
    fn supplant(&mut self, now: Instant, id: ParticipantId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.void_at = None;
        let earlier = session.connection.take();
        self.timers.set(Deadline::Void(id), None);
        if let Some(earlier) = earlier {
            self.error(now, earlier, ErrorCode::AlreadyJoined, "joined again from elsewhere".into());
            self.close(now, earlier, CLOSE_POLICY, "joined elsewhere");
        }
    }

    /// Ties connection and participant together and says `joined`, with a new token; then what else a member has to know.
    fn welcome(&mut self, now: Instant, connection: ConnectionId, id: ParticipantId, resumed: bool) {
        let Some(participant) = self.registry.participant(id) else {
            return;
        };
        let (Some(room), Some(session)) = (self.registry.room(participant.room), self.sessions.get_mut(&id))
        else {
            return;
        };
        session.resume = ResumeToken::random();
        session.connection = Some(connection);
        let others = || {
            let others = room.members().filter(|member| *member != id);
            others.filter_map(|member| self.registry.participant(member))
        };
        let info = |peer: &crate::control::participant::Participant| PeerInfo {
            user_info: peer.info.clone(),
            stream_id: peer.stream_id.to_string(),
        };
        let message = ServerMessage::Joined(Box::new(Joined {
            room_id: room.name.clone(),
            user_id: participant.user.clone(),
            peers: others().map(|peer| peer.user.clone()).collect(),
            success: true,
            message: None,
            peer_info: others().map(|peer| (peer.user.clone(), info(peer))).collect(),
            ice_servers: self.settings.ice_servers.for_client(now, participant.stream_id.as_ref()),
            resume: Some(session.resume.text()),
            resumed,
            grants: Some(session.grants),
        }));
        tracing::info!(%connection, participant = %id, room = %room.name, user = %participant.user, resumed, "joined");
        self.totals.joins += 1;
        self.timers.set(Deadline::Join(connection), None);
        self.set_ice_servers_refresh(now, id);
        self.list_silent(now, id, connection);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.stage = Stage::Joined(id);
        }
        self.tell(now, connection, &message);
        self.tell_server_mute(now, id);
        self.tell_present_speakers(now, id);
        self.tell_draining(now, connection);
    }

    /// Says again what `joined` said of STUN and TURN, with a credential that lasts. A participant whose
    /// connection is lost is told when it comes back.
    pub(super) fn renew_ice_servers(&mut self, now: Instant, id: ParticipantId) {
        let Some(participant) = self.registry.participant(id) else {
            return;
        };
        let stream_id = participant.stream_id.clone();
        let ice_servers = self.settings.ice_servers.for_client(now, stream_id.as_ref());
        self.tell_participant(now, id, &ServerMessage::IceServers { ice_servers });
        self.set_ice_servers_refresh(now, id);
    }

    fn set_ice_servers_refresh(&mut self, now: Instant, id: ParticipantId) {
        let at = self.settings.ice_servers.refresh_after().map(|after| now + after);
        self.timers.set(Deadline::IceServers(id), at);
    }

    fn refuse(&mut self, now: Instant, connection: ConnectionId, join: Join, why: &Refused) {
        let (reason, room, user) = (why.text(), &join.room, &join.user);
        tracing::debug!(%connection, %room, %user, reason, "refused");
        throttled!(info, %connection, %room, %user, reason, "a join was refused");
        self.totals.joins_refused += 1;
        self.totals.joins_unauthorized += u64::from(matches!(why, Refused::Unauthorized(_)));
        self.totals.joins_rate_limited += u64::from(matches!(why, Refused::RateLimited));
        let message = ServerMessage::Joined(Box::new(Joined {
            room_id: join.room,
            user_id: join.user,
            peers: vec![],
            success: false,
            message: Some(reason.into()),
            peer_info: BTreeMap::new(),
            ice_servers: vec![],
            resume: None,
            resumed: false,
            grants: None,
        }));
        self.tell(now, connection, &message);
        if let Some(error) = why.error() {
            self.error(now, connection, error, reason.into());
        }
        self.close(now, connection, why.close_code(), reason);
    }
}
