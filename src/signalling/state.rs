//! All connections and sessions, and what an input does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::{
    CLOSE_DRAINING, CLOSE_FULL, CLOSE_INTERNAL, CLOSE_NORMAL, CLOSE_POLICY, CLOSE_TOO_BIG, CloseCode,
    Connection, Outbox, Stage, Waiting,
};
use super::message::{ClientMessage, LeaveReason, ServerMessage, Unreadable};
use super::negotiation::ErrorCode;
use super::service::{Handshakes, Settings};
use super::session::Session;
use super::silent::Silents;
use super::timers::Timers;
use super::uninformed::Uninformed;
use crate::control::participant::{ParticipantId, UserInfo};
use crate::control::registry::Registry;
use crate::control::workers::Workers;
use crate::ids::{RoomId, TransportId, WorkerId};
use crate::metrics::counters::WAIT_BOUNDS;
use crate::metrics::histogram::Histogram;
use crate::worker::command::Command;

/// How long what the whole room is told may wait to leave with more, for each of its members: so a room costs some
/// 20,000 writes a second at most, however many come and go.
const NOTICE_PATIENCE: Duration = Duration::from_micros(50);

/// A WebSocket has this long to join.
const JOIN_WAIT: Duration = Duration::from_secs(10);

/// Commands that did not fit a worker's queue are tried again after this.
const RETRY_WAIT: Duration = Duration::from_millis(5);

/// WebSockets for each participant that may be there.
const CONNECTIONS_PER_PARTICIPANT: usize = 2;

/// One WebSocket; never used again in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What there is now, and what has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// WebSockets, joined or not.
    pub connections: usize,
    /// Participants, those whose WebSocket is lost included.
    pub participants: usize,
    /// Participants whose WebSocket is lost.
    pub participants_lost: usize,
    /// Participants with a negotiated transport.
    pub transports: usize,
    /// Participants that publish.
    pub voices: usize,
    /// Rooms.
    pub rooms: usize,
    /// Commands that wait for room in a worker's queue.
    pub commands_waiting: usize,
    /// Total: messages from clients.
    pub messages: u64,
    /// Total: messages that could not be read.
    pub messages_bad: u64,
    /// Total: messages of unknown kind.
    pub messages_unknown: u64,
    /// Total: joins that were granted, of all kinds.
    pub joins: u64,
    /// Total: joins that took a session over with its token.
    pub resumes: u64,
    /// Total: joins that were refused.
    pub joins_refused: u64,
    /// Total: of those, for want of a good token.
    pub joins_unauthorized: u64,
    /// Total: and of members who change more than their rooms can hear of.
    pub joins_rate_limited: u64,
    /// Total: clients let go because they did not read.
    pub clients_slow: u64,
    /// Total: sessions whose negotiation or transport failed.
    pub media_failed: u64,
    /// Total: of those, before there was any media.
    pub media_unreached: u64,
}

/// What has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// A connection has to join.
    Join(ConnectionId),
    /// A participant's connection has to come back.
    Void(ParticipantId),
    /// A participant that joined again has to publish again.
    Inherited(ParticipantId),
    /// A negotiation wants to be woken.
    Negotiation(ParticipantId),
    /// Members wait to be told of voices.
    Inform,
    /// A participant's TURN credential has to be renewed.
    IceServers(ParticipantId),
    /// Commands wait for room in a queue.
    Retry,
}

impl Deadline {
    /// Whose it is, if anybody's.
    pub(super) fn culprit(self) -> Option<Culprit> {
        match self {
            Deadline::Join(id) => Some(Culprit::Connection(id)),
            Deadline::Void(id)
            | Deadline::Inherited(id)
            | Deadline::Negotiation(id)
            | Deadline::IceServers(id) => Some(Culprit::Participant(id)),
            Deadline::Inform | Deadline::Retry => None,
        }
    }
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Everybody.
    Open,
    /// Who is in a room already: the server drains, and calls that go on mend their connections until then.
    MembersOnly(Instant),
    /// Nobody: the server goes down.
    Shut,
}

/// Whose input a panic came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Culprit {
    Connection(ConnectionId),
    Transport(TransportId),
    Participant(ParticipantId),
}

/// Everything; one borrow of it lasts for one input.
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) workers: Workers,
    pub(super) handshakes: Box<dyn Handshakes>,
    pub(super) registry: Registry,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// What waits for all of them.
    waiting: Waiting,
    /// Of every participant of the registry. Boxed, as a map keeps up to twice the room that it needs.
    pub(super) sessions: BTreeMap<ParticipantId, Box<Session>>,
    /// Whose transport it is.
    pub(super) transports: BTreeMap<TransportId, ParticipantId>,
    pub(super) timers: Timers<Deadline>,
    /// Rooms in which a voice came or went: [`State::settle`] tells the members.
    pub(super) restless: BTreeSet<RoomId>,
    pub(super) uninformed: Uninformed,
    pub(super) silents: Silents,
    pub(super) door: Door,
    pub(super) totals: Counts,
    /// Nanoseconds from a join to a transport that media can flow over.
    pub(super) join_to_media: Histogram<12>,
    connection_next: u64,
}

impl State {
    pub(super) fn new(settings: Settings, workers: Workers, handshakes: Box<dyn Handshakes>) -> State {
        assert_eq!(settings.candidates.len(), workers.count(), "each worker has its candidates");
        State {
            registry: Registry::new(workers.count(), settings.max_connections, settings.room_span_at),
            settings,
            workers,
            handshakes,
            connections: BTreeMap::new(),
            waiting: Waiting::default(),
            sessions: BTreeMap::new(),
            transports: BTreeMap::new(),
            timers: Timers::new(),
            restless: BTreeSet::new(),
            uninformed: Uninformed::default(),
            silents: Silents::default(),
            door: Door::Open,
            totals: Counts::default(),
            join_to_media: Histogram::new(WAIT_BOUNDS),
            connection_next: 1,
        }
    }

    pub(super) fn connect(&mut self, now: Instant, remote: SocketAddr) -> (ConnectionId, Outbox) {
        let id = ConnectionId(self.connection_next);
        self.connection_next += 1;
        tracing::debug!(connection = %id, %remote, "connected");
        let (connection, outbox) = Connection::new(remote.ip(), &self.waiting);
        let is_full = self.connections.len()
            >= self.settings.max_connections.saturating_mul(CONNECTIONS_PER_PARTICIPANT);
        self.connections.insert(id, connection);
        self.timers.set(Deadline::Join(id), Some(now + JOIN_WAIT));
        if self.door == Door::Shut {
            self.close(now, id, CLOSE_DRAINING, "server is going down");
        } else if is_full {
            self.error(now, id, ErrorCode::ServerFull, "the server is full".into());
            self.close(now, id, CLOSE_FULL, "server full");
        }
        (id, outbox)
    }

    pub(super) fn handle_text(&mut self, now: Instant, id: ConnectionId, text: &str) {
        let Some(stage) = self.connections.get(&id).map(|connection| connection.stage) else {
            return;
        };
        if stage == Stage::Closing {
            return;
        }
        self.totals.messages += 1;
        match (ClientMessage::parse(text), stage) {
            (Ok(ClientMessage::KeepAlive), _) => {}
            (Ok(ClientMessage::Join(join)), Stage::Waiting) => self.handle_join(now, id, *join),
            (Ok(ClientMessage::Join(_)), _) => {
                self.error(now, id, ErrorCode::AlreadyJoined, "this connection has joined".into());
            }
            (Ok(ClientMessage::Leave), _) => {
                if let Stage::Joined(participant) = stage {
                    self.leave(now, participant, LeaveReason::Left);
                }
                self.close(now, id, CLOSE_NORMAL, "left");
            }
            (Ok(message), Stage::Joined(participant)) => self.handle_message(now, participant, message),
            (Ok(_), _) => self.error(now, id, ErrorCode::NotJoined, "join first".into()),
            (Err(Unreadable::UnknownEvent), _) => self.totals.messages_unknown += 1,
            (Err(Unreadable::Malformed(reason)), _) => {
                self.totals.messages_bad += 1;
                self.error(now, id, ErrorCode::BadMessage, reason);
            }
            (Err(Unreadable::TooBig), _) => {
                self.totals.messages_bad += 1;
                self.error(now, id, ErrorCode::BadMessage, "the message is too big".into());
                self.close(now, id, CLOSE_TOO_BIG, "message too big");
            }
        }
    }

    fn handle_message(&mut self, now: Instant, id: ParticipantId, message: ClientMessage) {
        match message {
            ClientMessage::Offer(sdp) => {
                self.negotiate(now, id, |negotiation| negotiation.handle_offer(now, &sdp))
            }
            ClientMessage::Answer(sdp) => {
                self.negotiate(now, id, |negotiation| negotiation.handle_answer(now, &sdp))
            }
            ClientMessage::Candidate(candidate) => {
                self.negotiate(now, id, |negotiation| negotiation.handle_candidate(&candidate));
            }
            ClientMessage::UserInfo(change) => {
                if self.may_change(now, id, 1)
                    && let Some(participant) = self.registry.participant(id)
                {
                    let info = participant.info.with(&change);
                    self.set_info(now, id, info);
                }
            }
            ClientMessage::Kick(user) => self.handle_kick(now, id, &user),
            ClientMessage::Mute { user, muted } => self.handle_mute(now, id, &user, muted),
            ClientMessage::Join(_) | ClientMessage::Leave | ClientMessage::KeepAlive => {}
        }
    }

    /// The WebSocket is gone. A client that said so with 1000 has left (pages that go away say 1001); any other
    /// is waited for.
    pub(super) fn handle_close(&mut self, now: Instant, id: ConnectionId, code: Option<CloseCode>) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        tracing::debug!(connection = %id, "closed");
        self.timers.set(Deadline::Join(id), None);
        match connection.stage {
            Stage::Joined(participant) if code == Some(CLOSE_NORMAL) => {
                self.leave(now, participant, LeaveReason::Left);
            }
            stage => self.detach(now, id, stage),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What is due; where that is much, the rest is due still.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Deadline> {
        self.timers.take_due(now)
    }

    pub(super) fn handle_deadline(&mut self, now: Instant, deadline: Deadline) {
        match deadline {
            Deadline::Join(id) => {
                self.error(now, id, ErrorCode::NotJoined, "no join in time".into());
                self.close(now, id, CLOSE_POLICY, "no join in time");
            }
            Deadline::Void(id) => self.leave(now, id, LeaveReason::Disconnected),
            Deadline::Inherited(id) => self.drop_inherited(id),
            Deadline::Negotiation(id) => {
                self.negotiate(now, id, |negotiation| negotiation.handle_timeout(now));
            }
            Deadline::IceServers(id) => self.renew_ice_servers(now, id),
            Deadline::Inform | Deadline::Retry => {} // The service tells who waits; `settle` tries after every input.
        }
    }

    /// After every input: whom it is news to. They are told by inputs of their own.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(room) = self.restless.pop_first() {
            let members = self.registry.room(room).into_iter().flat_map(|room| room.members());
            members.for_each(|member| self.uninformed.push(member));
        }
        self.timers.set(Deadline::Inform, (!self.uninformed.is_empty()).then_some(now));
        let is_queued = self.workers.retry();
        self.timers.set(Deadline::Retry, (!is_queued).then_some(now + RETRY_WAIT));
    }

    /// Who has to be told of its room's voices next.
    pub(super) fn next_uninformed(&mut self) -> Option<ParticipantId> {
        self.uninformed.pop()
    }

    /// Ends the session that our own fault struck; everybody else goes on.
    pub(super) fn end_faulty(&mut self, now: Instant, culprit: Culprit) {
        let participant = match culprit {
            Culprit::Transport(transport) => self.transports.get(&transport).copied(),
            Culprit::Participant(id) => Some(id),
            Culprit::Connection(id) => match self.connections.get(&id).map(|connection| connection.stage) {
                Some(Stage::Joined(participant)) => Some(participant),
                Some(Stage::Waiting) => {
                    self.close(now, id, CLOSE_INTERNAL, "internal error");
                    None
                }
                Some(Stage::Closing) | None => None,
            },
        };
        if let Some(participant) = participant {
            self.end_by_our_fault(now, participant);
        }
    }

    /// The room is no more on one of its workers, and with that on none: its members hear that it was our fault, and may
    /// join again.
    pub(super) fn handle_room_failed(&mut self, now: Instant, worker: WorkerId, id: RoomId) {
        let room = self.registry.room(id).filter(|room| room.parts().contains(worker));
        let members: Vec<ParticipantId> = room.into_iter().flat_map(|room| room.members()).collect();
        for member in members {
            let connection = self.connection_of(member);
            // Nobody is to stay, so nobody is told who left: all of it would be more than waits for a client.
            self.take_out(member, LeaveReason::Failed);
            self.tell_our_fault(now, connection);
        }
    }

    fn end_by_our_fault(&mut self, now: Instant, id: ParticipantId) {
        let connection = self.connection_of(id);
        self.leave(now, id, LeaveReason::Failed);
        self.tell_our_fault(now, connection);
    }

    fn tell_our_fault(&mut self, now: Instant, connection: Option<ConnectionId>) {
        if let Some(connection) = connection {
            self.error(now, connection, ErrorCode::Internal, "an internal error ended this session".into());
            self.close(now, connection, CLOSE_INTERNAL, "internal error");
        }
    }

    pub(super) fn drain(&mut self, now: Instant, grace: Duration) {
        self.door = Door::MembersOnly(now + grace);
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.tell_draining(now, id);
        }
    }

    /// Tells a member how long the server has yet, if it drains; others hear of it with the answer to their join.
    pub(super) fn tell_draining(&mut self, now: Instant, id: ConnectionId) {
        let Door::MembersOnly(until) = self.door else { return };
        let stage = self.connections.get(&id).map(|connection| connection.stage);
        if matches!(stage, Some(Stage::Joined(_))) {
            let left = until.saturating_duration_since(now).as_millis();
            let deadline = u64::try_from(left).unwrap_or(u64::MAX);
            self.tell(now, id, &ServerMessage::Draining { deadline });
        }
    }

    pub(super) fn close_all(&mut self, now: Instant, code: CloseCode, reason: &'static str) {
        self.door = Door::Shut;
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.close(now, id, code, reason);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let sessions = || self.sessions.values();
        Counts {
            connections: self.connections.len(),
            participants: self.registry.participant_count(),
            participants_lost: sessions().filter(|session| session.connection.is_none()).count(),
            transports: sessions()
                .flat_map(|session| &session.media)
                .filter(|media| media.is_started)
                .count(),
            voices: self.registry.rooms().map(|(_, room)| room.voices().count()).sum(),
            rooms: self.registry.room_count(),
            commands_waiting: self.workers.backlog_len(),
            ..self.totals
        }
    }

    /// Takes a participant out of its room and tells the others.
    pub(super) fn leave(&mut self, now: Instant, id: ParticipantId, reason: LeaveReason) {
        if let Some((room, message)) = self.take_out(id, reason) {
            self.broadcast(now, room, None, &message);
        }
    }

    /// Takes a participant out of its room. Returns what the others are to be told, where there are any.
    fn take_out(&mut self, id: ParticipantId, reason: LeaveReason) -> Option<(RoomId, ServerMessage)> {
        self.end_media(id);
        self.unlist_silent(id);
        let connection = self.sessions.remove(&id).and_then(|session| session.connection);
        self.timers.set(Deadline::Void(id), None);
        self.timers.set(Deadline::Inherited(id), None);
        self.timers.set(Deadline::IceServers(id), None);
        let left = self.registry.leave(id)?;
        let room = left.participant.room;
        if left.was_voice {
            self.tell_workers(left.parts, || Command::Unpublish(left.participant.track));
            self.restless.insert(room);
        }
        if left.closed_part {
            self.close_part(room, left.participant.worker);
        }
        let (room_id, user_id) = (left.room_name, left.participant.user);
        tracing::info!(
            connection = connection.map(tracing::field::display),
            participant = %id,
            room = %room_id,
            user = %user_id,
            ?reason,
            "left"
        );
        (!left.was_last).then_some((room, ServerMessage::UserLeft { room_id, user_id, reason }))
    }

    /// Changes what a participant says of itself; tells the room and the worker what differs.
    pub(super) fn set_info(&mut self, now: Instant, id: ParticipantId, info: UserInfo) {
        let Some(before) = self.registry.set_info(id, info) else {
            return;
        };
        let Some(participant) = self.registry.participant(id).cloned() else {
            return;
        };
        let Some(room) = self.registry.room(participant.room) else {
            return;
        };
        let (room_id, info) = (room.name.clone(), participant.info);
        if info.is_silent() != before.is_silent() && self.registry.is_voice(id) {
            let (track, muted) = (participant.track, info.is_silent());
            self.tell_workers(self.parts_of(participant.room), || Command::SetMuted { track, muted });
        }
        let media = self.sessions.get(&id).and_then(|session| session.media.as_ref());
        if info.is_deafened != before.is_deafened
            && let Some(media) = media.filter(|media| media.is_started)
        {
            self.workers.send(
                participant.worker,
                Command::SetDeafened { transport: media.transport, deafened: info.is_deafened },
            );
        }
        // What it did not say itself is news to it, too.
        let except = (info.is_server_muted == before.is_server_muted).then_some(id);
        let message = ServerMessage::UserInfo { room_id, user_id: participant.user, user_info: info };
        self.broadcast(now, participant.room, except, &message);
    }

    /// Sends to every member of a room that has a connection, in the order of joining.
    pub(super) fn broadcast(
        &mut self,
        now: Instant,
        room: RoomId,
        except: Option<ParticipantId>,
        message: &ServerMessage,
    ) {
        let Some(room) = self.registry.room(room) else {
            return;
        };
        let text: Rc<str> = message.write().into();
        let patience = NOTICE_PATIENCE * room.members().count() as u32;
        let mut slow = vec![];
        for member in room.members().filter(|member| Some(*member) != except) {
            let id = self.sessions.get(&member).and_then(|session| session.connection);
            if let Some(id) = id
                && let Some(connection) = self.connections.get(&id)
                && connection.notify(&text, patience).is_err()
            {
                slow.push(id);
            }
        }
        for id in slow {
            self.let_go(now, id);
        }
    }

    pub(super) fn connection_of(&self, id: ParticipantId) -> Option<ConnectionId> {
        self.sessions.get(&id).and_then(|session| session.connection)
    }

    /// Sends to the participant's connection, if there is one.
    pub(super) fn tell_participant(&mut self, now: Instant, id: ParticipantId, message: &ServerMessage) {
        if let Some(connection) = self.connection_of(id) {
            self.tell(now, connection, message);
        }
    }

    pub(super) fn tell(&mut self, now: Instant, id: ConnectionId, message: &ServerMessage) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.send(message).is_err()
        {
            self.let_go(now, id);
        }
    }

    pub(super) fn error(&mut self, now: Instant, id: ConnectionId, code: ErrorCode, message: String) {
        self.tell(now, id, &ServerMessage::Error { code, message });
    }

    /// Closes from our side. The participant, if it is still there, is waited for.
    pub(super) fn close(&mut self, now: Instant, id: ConnectionId, code: CloseCode, reason: &'static str) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let stage = connection.stage;
        if stage == Stage::Closing {
            return;
        }
        connection.close(code, reason);
        tracing::debug!(connection = %id, code, reason, "closing");
        self.timers.set(Deadline::Join(id), None);
        self.detach(now, id, stage);
    }

    /// Counts changes that the whole room is told of; who makes too many is sent away.
    pub(super) fn may_change(&mut self, now: Instant, id: ParticipantId, count: u32) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let may = session.may_change(now, count);
        if let Some(connection) = session.connection.filter(|_| !may) {
            self.refuse_changes(now, connection);
        }
        may
    }

    fn refuse_changes(&mut self, now: Instant, connection: ConnectionId) {
        self.error(now, connection, ErrorCode::RateLimited, "too many changes".into());
        self.close(now, connection, CLOSE_POLICY, "too many changes");
    }

    /// A client that does not read costs memory; it may come back.
    fn let_go(&mut self, now: Instant, id: ConnectionId) {
        self.totals.clients_slow += 1;
        if let Some(connection) = self.connections.get(&id) {
            connection.take_back();
        }
        self.close(now, id, CLOSE_POLICY, "too slow");
    }

    /// The connection no longer speaks for its participant, whose time runs from now on.
    fn detach(&mut self, now: Instant, id: ConnectionId, stage: Stage) {
        if let Stage::Joined(participant) = stage
            && let Some(session) = self.sessions.get_mut(&participant)
            && session.connection == Some(id)
        {
            session.connection = None;
            let void_at = now + self.settings.resume_window;
            session.void_at = Some(void_at);
            self.timers.set(Deadline::Void(participant), Some(void_at));
            self.lose_silent(participant);
        }
    }
}
