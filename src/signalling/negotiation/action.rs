//! What goes into a negotiation and what comes out.

use crate::ice::credentials::{LocalCredentials, RemoteCredentials};
use crate::ids::{Fingerprint, Mid, SlotIndex, TrackId};
use crate::worker::command::{PublishedStream, Slot};

/// Somebody else's voice in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// The track.
    pub track: TrackId,
    /// What stands in `a=msid` before the track id; 1–64 token characters (RFC 8830).
    pub stream_id: std::rc::Rc<str>,
}

/// What is to be done after an input, in this order.
pub enum Action {
    /// Write an offer to the client.
    SendOffer(String),
    /// Write an answer to the client.
    SendAnswer(String),
    /// Repeat our candidates as `ice-candidate` events, after the SDP just sent: (candidate, mid, m-line index).
    SendCandidate {
        /// `candidate:…`
        candidate: String,
        /// The first m-line's tag.
        mid: Mid,
        /// Its index.
        index: u16,
        /// Our ufrag.
        ufrag: String,
    },
    /// Write an `error`.
    SendError(ErrorCode, String),
    /// The two sides disagree: error, then close 1008 or 1011.
    Fail(ErrorCode, String),
    /// First description of the peer: make its transport. Once.
    StartTransport {
        /// In our SDP.
        local: LocalCredentials,
        /// In the peer's.
        remote: RemoteCredentials,
        /// Of the peer's certificate.
        fingerprint: Fingerprint,
    },
    /// The peer restarted ICE.
    RestartIce {
        /// In our SDP.
        local: LocalCredentials,
        /// In the peer's.
        remote: RemoteCredentials,
    },
    /// The peer publishes its voice like this from now on.
    Publish(Box<PublishedStream>),
    /// The peer no longer publishes.
    Unpublish,
    /// The peer accepted a slot.
    AddSlot(Box<Slot>),
    /// A slot that the peer accepted before carries this now.
    AssignSlot(SlotIndex, Option<TrackId>),
    /// What the peer did not accept of what it was offered; takes the place of what it refused before.
    Refuse {
        /// Most voices that it can hear at once.
        line_count_max: u16,
        /// It wants to hear none of these.
        tracks: Box<[TrackId]>,
    },
    /// Tell the client which slots changed hands without an offer.
    SendSlots(Vec<(Mid, Option<TrackId>)>),
}

/// `code` of an `error` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// `bad-message`
    BadMessage,
    /// `not-joined`
    NotJoined,
    /// `already-joined`
    AlreadyJoined,
    /// `unauthorized`
    Unauthorized,
    /// `kicked`
    Kicked,
    /// `room-full`
    RoomFull,
    /// `server-full`
    ServerFull,
    /// `rate-limited`
    RateLimited,
    /// `bad-sdp`
    BadSdp,
    /// `glare`
    Glare,
    /// `draining`
    Draining,
    /// `internal`
    Internal,
}

/// What stays the same for one peer.
pub struct Parameters {
    /// Source of our ICE credentials.
    pub secret: crate::ice::credentials::Secret,
    /// The worker that owns the peer's room.
    pub worker: crate::ids::WorkerId,
    /// Of our DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where we can be reached, the preferred first.
    pub candidates: std::rc::Rc<[std::net::SocketAddr]>,
    /// Most slots of a receiver.
    pub audio_slots: u16,
    /// Whether the peer may be heard; else no m-line is answered so that it sends.
    pub may_publish: bool,
    /// First SSRC of ours; each line taken up has the next.
    pub ssrc_base: u32,
    /// `sess-id` of our SDP, below 2^62.
    pub session_id: u64,
}
