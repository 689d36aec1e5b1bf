//! Members without a transport: they sit in the house and neither say nor hear anything.
//!
//! Some wait for the first voice of a room, so they may stay; but when the house is full, whoever has been so for long
//! makes room for who comes. Else somebody who joins often enough, answers pings and never offers keeps everybody out.

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
    crowd: Crowd<(ParticipantId, Instant)>,
    order_next: u64,
}

/// One's place.
#[derive(Clone, Copy)]
pub(super) struct Silent {
    from: IpAddr,
    /// Grows with everybody who comes to be without a transport.
    order: u64,
    since: Instant,
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
        silents.crowd.push(from, order, (id, since));
        session.silent = Some(Silent { from, order, since });
    }

    /// It has a transport, or is gone.
    pub(super) fn unlist_silent(&mut self, id: ParticipantId) -> Option<Silent> {
        let silent = self.sessions.get_mut(&id)?.silent.take()?;
        self.silents.crowd.remove(silent.from, silent.order);
        Some(silent)
    }

    /// The house is full. Of the address with the most silent members the oldest leaves, if it has been silent for long, or
    /// of the next: who comes at ever new times drives out nobody from where there are fewer, and shields nobody.
    pub(super) fn make_room(&mut self, now: Instant, newcomer: ConnectionId) {
        let Some(from) = self.connections.get(&newcomer).map(|it| it.remote) else { return };
        let is_long = |(_, since): &(_, Instant)| now.saturating_duration_since(*since) >= MEDIA_WAIT;
        let Some(&(id, _)) = self.silents.crowd.next_where(from, is_long) else { return };
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
