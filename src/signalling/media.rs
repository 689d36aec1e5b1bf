//! Between a session's negotiation, its worker and its DTLS endpoint.

use std::time::Instant;

use super::connection::{CLOSE_INTERNAL, CLOSE_POLICY};
use super::message::{Candidate, Description, DescriptionKind, LeaveReason, ServerMessage, Speaker};
use super::negotiation::{Action, ErrorCode, Negotiation, Parameters, Voice};
use super::resume::random_bytes;
use super::session::{Media, PUBLISH_CHANGES};
use super::state::{Deadline, State};
use crate::auth::Grants;
use crate::control::participant::ParticipantId;
use crate::ids::{Mid, RoomId, SlotIndex, TrackId, TransportId, UserId, WorkerId};
use crate::worker::command::Command;
use crate::worker::event::{ConnectionState, Event};

impl State {
    pub(super) fn handle_event(&mut self, now: Instant, worker: WorkerId, event: Event) {
        match event {
            Event::Connection { transport, state: ConnectionState::Failed } => {
                self.handle_transport_failed(now, transport);
            }
            Event::Connection { transport, state } => {
                if state == ConnectionState::Connected {
                    self.count_join_to_media(now, transport);
                }
                if let Some(id) = self.transports.get(&transport)
                    && let Some(participant) = self.registry.participant(*id)
                    && let Some(room) = self.registry.room(participant.room)
                {
                    let (room, user) = (&room.name, &participant.user);
                    tracing::debug!(participant = %id, %room, %user, %transport, ?state, "connection");
                }
            }
            Event::TrackStarted(track) => {
                if let Some(participant) = self.registry.publisher(track)
                    && let Some(room) = self.registry.room(participant.room)
                {
                    tracing::debug!(room = %room.name, user = %participant.user, %track, "first packet");
                }
            }
            Event::SlotsChanged { transport, changes } => self.handle_slots_changed(now, transport, &changes),
            Event::ActiveSpeakers { room, speakers } => self.tell_speakers(now, worker, room, &speakers),
            Event::RoomFailed(room) => self.handle_room_failed(now, worker, room),
            Event::Dtls { .. } | Event::Counters(_) | Event::Snapshot(_) => {}
        }
    }

    fn count_join_to_media(&mut self, now: Instant, transport: TransportId) {
        let session = self.transports.get(&transport).and_then(|id| self.sessions.get_mut(id));
        let Some(media) = session.and_then(|session| session.media.as_mut()) else {
            return;
        };
        let is_first = !std::mem::replace(&mut media.is_reached, true);
        if let Some(offered_at) = media.offered_at.filter(|_| is_first) {
            let elapsed = now.saturating_duration_since(offered_at);
            self.join_to_media.record(elapsed.as_nanos() as u64);
        }
    }

    /// No more media over this transport. A client that is there is sent away to join again; one that is
    /// not has nothing left to come back to.
    pub(super) fn handle_transport_failed(&mut self, now: Instant, transport: TransportId) {
        if let Some(id) = self.transports.get(&transport).copied() {
            self.fail(now, id, ErrorCode::Internal, "the media connection failed; join again".into());
        }
    }

    pub(super) fn new_media(
        &mut self,
        now: Instant,
        id: ParticipantId,
        worker: WorkerId,
        grants: Grants,
    ) -> Media {
        let transport = self.registry.next_transport();
        self.transports.insert(transport, id);
        let parameters = Parameters {
            secret: self.settings.secret.clone(),
            worker,
            fingerprint: self.settings.fingerprint,
            candidates: self.settings.candidates[usize::from(worker.0)].clone(),
            audio_slots: self.settings.audio_slots,
            may_publish: grants.publish,
            // Slot n adds n to it: no sum may wrap.
            ssrc_base: u32::from_ne_bytes(random_bytes())
                .min(u32::MAX - u32::from(self.settings.audio_slots)),
            session_id: u64::from_ne_bytes(random_bytes()) >> 2,
        };
        Media {
            transport,
            negotiation: Negotiation::new(now, parameters),
            made_at: now,
            is_started: false,
            offered_at: None,
            is_reached: false,
            publishes: false,
        }
    }

    /// Ends negotiation and transport. The track stays a voice of the room.
    pub(super) fn end_media(&mut self, id: ParticipantId) {
        let Some(media) = self.sessions.get_mut(&id).and_then(|session| session.media.take()) else {
            return;
        };
        self.transports.remove(&media.transport);
        self.timers.set(Deadline::Negotiation(id), None);
        if media.is_started {
            self.handshakes.forget(media.transport);
            if let Some(worker) = self.worker_of(id) {
                self.workers.send(worker, Command::RemoveTransport(media.transport));
            }
        }
    }

    /// Gives a participant's negotiation an input and does what follows.
    pub(super) fn negotiate(
        &mut self,
        now: Instant,
        id: ParticipantId,
        input: impl FnOnce(&mut Negotiation),
    ) {
        let Some(media) = self.media_mut(id) else {
            return;
        };
        input(&mut media.negotiation);
        let mut has_description = false;
        while let Some(media) = self.media_mut(id) {
            let Some(action) = media.negotiation.next_action() else {
                let next_timeout = media.negotiation.next_timeout();
                self.timers.set(Deadline::Negotiation(id), next_timeout);
                break;
            };
            has_description |= matches!(action, Action::SendAnswer(_) | Action::StartTransport { .. });
            self.act(now, id, action);
        }
        if has_description {
            self.drop_inherited(id);
        }
    }

    /// Tells a participant's negotiation of the others' voices: of none, if it may not hear.
    pub(super) fn set_voices(&mut self, now: Instant, id: ParticipantId) {
        let Some(participant) = self.registry.participant(id) else {
            return;
        };
        let may_hear = self.sessions.get(&id).is_some_and(|session| session.grants.subscribe);
        let others = if may_hear { self.voices_but(participant.room, id) } else { vec![] };
        self.negotiate(now, id, |negotiation| negotiation.set_voices(now, &others));
    }

    /// A track that was published before its participant joined again is over unless this
    /// negotiation, too, publishes it.
    pub(super) fn drop_inherited(&mut self, id: ParticipantId) {
        self.timers.set(Deadline::Inherited(id), None);
        if self
            .sessions
            .get(&id)
            .and_then(|session| session.media.as_ref())
            .is_some_and(|media| !media.publishes)
        {
            self.unpublish(id);
        }
    }

    fn act(&mut self, now: Instant, id: ParticipantId, action: Action) {
        let Some(participant) = self.registry.participant(id).cloned() else {
            return;
        };
        let Some(worker) = self.worker_of(id) else {
            return;
        };
        let Some(media) = self.media_mut(id) else {
            return;
        };
        let transport = media.transport;
        // An answer leaves at once when the client's offer has come.
        if matches!(action, Action::SendOffer(_) | Action::SendAnswer(_)) {
            media.offered_at.get_or_insert(now);
        }
        match action {
            Action::SendOffer(sdp) => {
                let offer = Description { kind: DescriptionKind::Offer, sdp };
                self.tell_participant(now, id, &ServerMessage::Offer(offer));
            }
            Action::SendAnswer(sdp) => {
                let answer = Description { kind: DescriptionKind::Answer, sdp };
                self.tell_participant(now, id, &ServerMessage::Answer(answer));
            }
            Action::SendCandidate { candidate, mid, index, ufrag } => {
                let candidate = Candidate {
                    candidate,
                    sdp_mid: Some(mid.to_string()),
                    sdp_m_line_index: Some(index),
                    username_fragment: Some(ufrag),
                };
                self.tell_participant(now, id, &ServerMessage::IceCandidate(candidate));
            }
            Action::SendError(code, message) => {
                self.tell_participant(now, id, &ServerMessage::Error { code, message });
            }
            Action::Fail(code, message) => self.fail(now, id, code, message),
            Action::StartTransport { local, remote, fingerprint } => {
                media.is_started = true;
                self.unlist_silent(id);
                self.handshakes.expect(worker, transport, fingerprint);
                let room = participant.room;
                self.workers.send(worker, Command::AddTransport { transport, room, local, remote });
                if participant.info.is_deafened {
                    self.workers.send(worker, Command::SetDeafened { transport, deafened: true });
                }
            }
            Action::RestartIce { local, remote } => {
                self.workers.send(worker, Command::RestartIce { transport, local, remote });
            }
            Action::Publish(stream) => {
                media.publishes = true;
                let (room, track, muted) =
                    (participant.room, participant.track, participant.info.is_silent());
                let others = self.parts_of(room).without(worker);
                self.tell_workers(others, || Command::PublishElsewhere { room, track, worker, muted });
                self.workers.send(worker, Command::Publish { transport, track, stream, muted });
                // The same voice under another SSRC, or the like, is work for the workers alone.
                let is_new = self.registry.publish(id);
                if is_new {
                    self.restless.insert(room);
                }
                self.may_change(now, id, if is_new { PUBLISH_CHANGES } else { 1 });
            }
            Action::Unpublish => {
                media.publishes = false;
                self.unpublish(id);
                self.may_change(now, id, PUBLISH_CHANGES);
            }
            Action::AddSlot(slot) => {
                self.workers.send(worker, Command::AddSlot { transport, slot });
            }
            Action::AssignSlot(slot, source) => {
                self.workers.send(worker, Command::AssignSlot { transport, slot, source });
            }
            Action::Refuse { line_count_max, tracks } => {
                self.workers.send(worker, Command::Refuse { transport, line_count_max, tracks });
            }
            Action::SendSlots(slots) => self.tell_slots(now, id, &slots),
        }
    }

    /// The two sides cannot go on with this negotiation and transport. The participant keeps its place
    /// for the resume window, so that joining again shows nobody that it was away.
    fn fail(&mut self, now: Instant, id: ParticipantId, code: ErrorCode, message: String) {
        let connection = self.sessions.get(&id).and_then(|session| session.connection);
        if let Some(participant) = self.registry.participant(id)
            && let Some(room) = self.registry.room(participant.room)
        {
            let (room, user) = (&room.name, &participant.user);
            tracing::info!(
                connection = connection.map(tracing::field::display),
                participant = %id,
                %room,
                %user,
                ?code,
                reason = message,
                "media failed"
            );
        }
        self.totals.media_failed += 1;
        let media = self.sessions.get(&id).and_then(|session| session.media.as_ref());
        self.totals.media_unreached += u64::from(media.is_some_and(|media| !media.is_reached));
        self.end_media(id);
        let is_internal = code == ErrorCode::Internal;
        if let Some(session) = self.sessions.get_mut(&id) {
            (session.since, session.has_failed) = (now, is_internal);
        }
        let Some(connection) = connection else {
            return self.leave(now, id, LeaveReason::Failed);
        };
        let close_code = if is_internal { CLOSE_INTERNAL } else { CLOSE_POLICY };
        self.error(now, connection, code, message);
        self.close(now, connection, close_code, "join again");
    }

    fn unpublish(&mut self, id: ParticipantId) {
        let Some(room) = self.registry.participant(id).map(|it| it.room) else { return };
        if let Some(track) = self.registry.unpublish(id) {
            self.tell_workers(self.parts_of(room), || Command::Unpublish(track));
            self.restless.insert(room);
        }
    }

    fn handle_slots_changed(
        &mut self,
        now: Instant,
        transport: TransportId,
        changes: &[(SlotIndex, Option<TrackId>)],
    ) {
        let Some(id) = self.transports.get(&transport).copied() else {
            return;
        };
        self.negotiate(now, id, |negotiation| negotiation.handle_slots_changed(changes));
    }

    fn tell_slots(&mut self, now: Instant, id: ParticipantId, slots: &[(Mid, Option<TrackId>)]) {
        let slots =
            slots.iter().map(|(mid, source)| (*mid, source.and_then(|track| self.user_of(track)))).collect();
        self.tell_participant(now, id, &ServerMessage::Slots(slots));
    }

    fn tell_speakers(&mut self, now: Instant, worker: WorkerId, room: RoomId, speakers: &[(TrackId, u8)]) {
        if self.registry.set_speakers(worker, room, speakers)
            && let Some(message) = self.speakers_of(room)
        {
            self.broadcast(now, room, None, &message);
        }
    }

    fn speakers_of(&self, room: RoomId) -> Option<ServerMessage> {
        let room = self.registry.room(room)?;
        let speaker =
            |(track, level): &(TrackId, u8)| Some(Speaker { user_id: self.user_of(*track)?, level: *level });
        let speakers = room.speakers().iter().filter_map(speaker).collect();
        Some(ServerMessage::ActiveSpeakers { room_id: room.name.clone(), speakers })
    }

    /// Who comes while somebody speaks is told so: the others are when that changes.
    pub(super) fn tell_present_speakers(&mut self, now: Instant, id: ParticipantId) {
        let Some(room) = self.registry.participant(id).map(|it| it.room) else { return };
        let speaks = self.registry.room(room).is_some_and(|room| !room.speakers().is_empty());
        if let Some(message) = self.speakers_of(room).filter(|_| speaks) {
            self.tell_participant(now, id, &message);
        }
    }

    /// Everybody's but this one's, in the order of publishing.
    fn voices_but(&self, room: RoomId, listener: ParticipantId) -> Vec<Voice> {
        let voice = |id| {
            let participant = self.registry.participant(id)?;
            Some(Voice { track: participant.track, stream_id: participant.stream_id.clone() })
        };
        let voices = self.registry.room(room).into_iter().flat_map(|room| room.voices());
        voices.filter(|publisher| *publisher != listener).filter_map(voice).collect()
    }

    fn user_of(&self, track: TrackId) -> Option<UserId> {
        self.registry.publisher(track).map(|participant| participant.user.clone())
    }

    fn worker_of(&self, id: ParticipantId) -> Option<WorkerId> {
        Some(self.registry.participant(id)?.worker)
    }

    fn media_mut(&mut self, id: ParticipantId) -> Option<&mut Media> {
        self.sessions.get_mut(&id)?.media.as_mut()
    }
}
