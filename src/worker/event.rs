//! What a worker tells control.

use bytes::Bytes;

use crate::ids::{RoomId, SlotIndex, TrackId, TransportId};
use crate::metrics::counters::WorkerCounters;
pub use crate::transport::ConnectionState;
use crate::worker::snapshot::Piece;

/// News from a worker.
pub enum Event {
    /// A DTLS datagram came over an authenticated pair of this transport.
    Dtls {
        /// The transport.
        transport: TransportId,
        /// One datagram.
        datagram: Bytes,
    },
    /// The transport's connection changed.
    Connection {
        /// The transport.
        transport: TransportId,
        /// What it is now.
        state: ConnectionState,
    },
    /// First media packet of a track that verified since it was published on this transport.
    TrackStarted(TrackId),
    /// The worker gave slots of a receiver to other tracks, or to none, by itself.
    SlotsChanged {
        /// The receiver.
        transport: TransportId,
        /// Each changed slot with what it carries now.
        changes: Vec<(SlotIndex, Option<TrackId>)>,
    },
    /// Who speaks, the loudest first; sent when the set changes, at most every 300 ms a room.
    ActiveSpeakers {
        /// The room.
        room: RoomId,
        /// Tracks with their level, 0 (loudest) to 127 (RFC 6464).
        speakers: Vec<(TrackId, u8)>,
    },
    /// A fault of ours struck while the worker dealt with this room; the room and its transports are gone.
    RoomFailed(RoomId),
    /// Some of what [`Command::Snapshot`](super::command::Command::Snapshot) asked for.
    Snapshot(Box<Piece>),
    /// Everything counted since the start; once a second.
    Counters(Box<WorkerCounters>),
}

impl Event {
    /// The transport that it is about.
    pub fn transport(&self) -> Option<TransportId> {
        match self {
            Event::Dtls { transport, .. }
            | Event::Connection { transport, .. }
            | Event::SlotsChanged { transport, .. } => Some(*transport),
            Event::TrackStarted(_)
            | Event::ActiveSpeakers { .. }
            | Event::RoomFailed(_)
            | Event::Snapshot(_)
            | Event::Counters(_) => None,
        }
    }
}
