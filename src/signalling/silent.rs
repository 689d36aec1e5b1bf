//! Members without a transport: they sit in the house and neither say nor hear anything.
//!
//! Some wait for the first voice of a room, so they may stay; but when the house is full, whoever has been so for long
//! makes room for who comes. Else somebody who joins often enough, answers pings and never offers keeps everybody out.
//! Whose WebSocket is lost makes room at once: nothing begins there, and joining costs so little where nobody stays.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::connection::CLOSE_FULL;
use super::message::LeaveReason;
use super::negotiation::ErrorCode;
use super::state::{ConnectionId, State};
use crate::control::participant::ParticipantId;
use crate::crowd::Crowd;
use crate::throttle::throttled;

/// A member has this long to begin its media before it may have to make room: a user is asked for the microphone first.
const MEDIA_WAIT: Duration = Duration::from_secs(30);

/// All of them.
#[derive(Default)]
pub(super) struct Silents {
    connected: Crowd<(ParticipantId, Instant)>,
    /// Those whose WebSocket is lost.
    lost: Crowd<(ParticipantId, Instant)>,
    order_next: u64,
}

impl Silents {
    fn crowd_of(&mut self, silent: Silent) -> &mut Crowd<(ParticipantId, Instant)> {
        if silent.is_lost { &mut self.lost } else { &mut self.connected }
    }
}

/// One's place.
#[derive(Clone, Copy)]
pub(super) struct Silent {
    from: IpAddr,
    /// Grows with everybody who comes to be without a transport.
    order: u64,
    since: Instant,
    is_lost: bool,
}

impl State {
    /// A connection speaks for this member from now on. One that had no transport before is silent for as long as ever,
    /// however often it joins over itself.
    pub(super) fn list_silent(&mut self, now: Instant, id: ParticipantId, connection: ConnectionId) {
        let Some(from) = self.connections.get(&connection).map(|it| it.remote) else { return };
        let before = self.unlist_silent(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.media.as_ref().is_some_and(|media| media.is_started) {
            return;
        }
        let silents = &mut self.silents;
        let (order, since) = before.map_or((silents.order_next, now), |it| (it.order, it.since));
        silents.order_next = silents.order_next.max(order + 1);
        let silent = Silent { from, order, since, is_lost: false };
        silents.crowd_of(silent).push(from, order, (id, since));
        session.silent = Some(silent);
    }

    /// No connection speaks for this member any more.
    pub(super) fn lose_silent(&mut self, id: ParticipantId) {
        let Some(silent) = self.unlist_silent(id) else { return };
        let silent = Silent { is_lost: true, ..silent };
        self.silents.crowd_of(silent).push(silent.from, silent.order, (id, silent.since));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.silent = Some(silent);
        }
    }

    /// It has a transport, or is gone.
    pub(super) fn unlist_silent(&mut self, id: ParticipantId) -> Option<Silent> {
        let silent = self.sessions.get_mut(&id)?.silent.take()?;
        self.silents.crowd_of(silent).remove(silent.from, silent.order);
        Some(silent)
    }

    /// The house is full. Of the address with the most silent members whose WebSockets are lost the oldest leaves; where
    /// there are none, of the address with the most silent members the oldest, if it has been silent for long, or of the
    /// next: who comes at ever new times drives out nobody from where there are fewer, and shields nobody.
    pub(super) fn make_room(&mut self, now: Instant, newcomer: ConnectionId) {
        let Some(from) = self.connections.get(&newcomer).map(|it| it.remote) else { return };
        let is_long = |(_, since): &(_, Instant)| now.saturating_duration_since(*since) >= MEDIA_WAIT;
        let lost = self.silents.lost.next_where(from, |_| true);
        let Some(&(id, _)) = lost.or_else(|| self.silents.connected.next_where(from, is_long)) else {
            return;
        };
        throttled!(warn, participant = %id, "members without media give way to new ones: MAX_CONNECTIONS are there");
        let connection = self.connection_of(id);
        self.leave(now, id, LeaveReason::Disconnected);
        if let Some(connection) = connection {
            self.error(
                now,
                connection,
                ErrorCode::ServerFull,
                "the server is full, and you have begun no media".into(),
            );
            self.close(now, connection, CLOSE_FULL, "server full");
        }
    }
}
