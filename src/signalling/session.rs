//! A participant's side of signalling: it outlives a lost connection by the resume window.

use std::time::{Duration, Instant};

use super::ConnectionId;
use super::negotiation::Negotiation;
use super::resume::ResumeToken;
use super::silent::Silent;
use crate::auth::Grants;
use crate::ids::TransportId;

/// What a participant says of itself, or a moderator makes of others, may change so often for as long as it likes: the
/// whole room is told.
const CHANGE_INTERVAL: Duration = Duration::from_millis(50);

/// And so many times at once, far fewer than may wait for a client that reads.
const CHANGE_BURST: u32 = 100;

/// Beginning or ending to publish counts for so many changes: the whole room negotiates.
pub(super) const PUBLISH_CHANGES: u32 = 5;

/// One participant's state besides what the registry knows.
pub(super) struct Session {
    /// The WebSocket that speaks for it; `None` while it is lost.
    pub(super) connection: Option<ConnectionId>,
    /// When the session ends unless a connection comes back; `None` while there is one.
    pub(super) void_at: Option<Instant>,
    /// What lets a new connection go on with this session.
    pub(super) resume: ResumeToken,
    /// What its last `join` allows it.
    pub(super) grants: Grants,
    /// `None` once its negotiation or its transport has failed: only a new `join` mends that.
    pub(super) media: Option<Media>,
    /// When it was made, or its media ended.
    pub(super) since: Instant,
    /// Its media ended because the transport failed, not because its negotiation did.
    pub(super) has_failed: bool,
    /// While it has no transport: its place among those who make room for others.
    pub(super) silent: Option<Silent>,
    /// Until when the changes that were made would have lasted, had they come evenly.
    pub(super) changes_last_until: Instant,
}

/// Negotiation and transport, which begin and end together.
pub(super) struct Media {
    pub(super) transport: TransportId,
    pub(super) negotiation: Negotiation,
    pub(super) made_at: Instant,
    /// The worker has been told of the transport.
    pub(super) is_started: bool,
    /// When the first offer came or left; `None` before. Who joins may have nothing to offer for hours.
    pub(super) offered_at: Option<Instant>,
    /// Media could flow, be it no more.
    pub(super) is_reached: bool,
    /// This negotiation (not one before it) publishes the participant's track.
    pub(super) publishes: bool,
}

impl Session {
    /// Counts changes that the whole room is told of; `false` when those were too many.
    pub(super) fn may_change(&mut self, now: Instant, count: u32) -> bool {
        let last_until = self.changes_last_until.max(now) + CHANGE_INTERVAL * count;
        let is_allowed = last_until <= now + CHANGE_INTERVAL * CHANGE_BURST;
        if is_allowed {
            self.changes_last_until = last_until;
        }
        is_allowed
    }

    /// Whether a connection that shows this token may go on with the session.
    pub(super) fn can_resume(&self, now: Instant, shown: Option<&str>) -> bool {
        let is_right = shown.is_some_and(|shown| self.resume.matches(shown));
        is_right && self.media.is_some() && self.void_at.is_none_or(|void_at| now < void_at)
    }
}
