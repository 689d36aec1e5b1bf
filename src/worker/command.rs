//! What control tells a worker.

use bytes::Bytes;

use crate::dtls::keying::KeyingMaterial;
use crate::ice::credentials::{LocalCredentials, RemoteCredentials};
use crate::ids::{Mid, PayloadType, RoomId, SlotIndex, Ssrc, TrackId, TransportId, WorkerId, WorkerSet};
pub use crate::room::receiver::Slot;
use crate::rtp::extension::ExtensionIds;
use crate::worker::capture::Capture;

/// An order. Orders about something gone are ignored: its end crossed them on the way.
pub enum Command {
    /// Makes a room, or a part of it. The transports, tracks and slots of its members live on this worker.
    AddRoom(RoomId),
    /// The room spans workers: what its members here say goes to these parts as well, and comes from them.
    SpanRoom {
        /// The room.
        room: RoomId,
        /// The other workers that hold a part of it; empty when it is whole here again.
        others: WorkerSet,
        /// This part tells who speaks, for all.
        is_home: bool,
    },
    /// Ends a room, or the part that is here; its transports end with it.
    RemoveRoom(RoomId),
    /// Makes a peer's transport, waiting for its first Binding request.
    AddTransport {
        /// Its name.
        transport: TransportId,
        /// The room whose voices it can hear.
        room: RoomId,
        /// What we put into our SDP.
        local: LocalCredentials,
        /// What the peer's SDP said.
        remote: RemoteCredentials,
    },
    /// ICE restart (RFC 8445 §9): new credentials on both sides. Keys and indices go on.
    RestartIce {
        /// The transport.
        transport: TransportId,
        /// What our answer or offer says now.
        local: LocalCredentials,
        /// What the peer's SDP says now.
        remote: RemoteCredentials,
    },
    /// Ends a transport. Its tracks stay until they are unpublished.
    RemoveTransport(TransportId),
    /// A DTLS datagram for the peer; leaves over the pair that the peer's last one came on.
    SendDtls {
        /// The transport.
        transport: TransportId,
        /// One datagram.
        datagram: Bytes,
    },
    /// The handshake finished: media may flow both ways.
    SetKeys {
        /// The transport.
        transport: TransportId,
        /// Profile and master keys.
        keys: Box<KeyingMaterial>,
    },
    /// From now on `transport` carries `track`. A track that already exists moves to it (its slots stay).
    Publish {
        /// The publisher's transport.
        transport: TransportId,
        /// The track.
        track: TrackId,
        /// How its packets are recognised.
        stream: Box<PublishedStream>,
        /// Dropped at ingress while muted.
        muted: bool,
    },
    /// From now on another part of the room carries `track`: its packets come from there. A track that is here
    /// already moves there (its slots stay).
    PublishElsewhere {
        /// The room.
        room: RoomId,
        /// The track.
        track: TrackId,
        /// Whose part.
        worker: WorkerId,
        /// Dropped on arrival while muted.
        muted: bool,
    },
    /// The track is over: slots that carry it fall silent.
    Unpublish(TrackId),
    /// Packets of a muted track are dropped at ingress.
    SetMuted {
        /// The track.
        track: TrackId,
        /// Muted or not.
        muted: bool,
    },
    /// A deafened receiver is sent no media.
    SetDeafened {
        /// The receiver.
        transport: TransportId,
        /// Deafened or not.
        deafened: bool,
    },
    /// The receiver accepted this slot: it may be forwarded to.
    AddSlot {
        /// The receiver.
        transport: TransportId,
        /// The slot, with what it carries first.
        slot: Box<Slot>,
    },
    /// The slot carries this from now on. A track is on at most one slot of a receiver: it leaves
    /// any other.
    AssignSlot {
        /// The receiver.
        transport: TransportId,
        /// Its slot.
        slot: SlotIndex,
        /// A track of the room. `None`: the m-line is inactive, and nothing is sent until it is assigned again.
        source: Option<TrackId>,
    },
    /// What the receiver did not accept of what it was offered: where the room's voices are more than it can hear,
    /// none of these is chosen for it. Takes the place of what it refused before.
    Refuse {
        /// The receiver.
        transport: TransportId,
        /// Most voices that it can hear at once.
        line_count_max: u16,
        /// It wants to hear none of these.
        tracks: Box<[TrackId]>,
    },
    /// Asks how all peers are; told as [`Event::Snapshot`](super::event::Event::Snapshot) under this number. Takes the
    /// place of a snapshot that is not finished.
    Snapshot(u64),
    /// Copies what this transport's peer says and is sent to whoever writes it down.
    Capture {
        /// The transport.
        transport: TransportId,
        /// Where to, and for how long.
        capture: Box<Capture>,
    },
    /// End of the worker: says goodbye (BYE) on every transport and stops.
    Stop,
}

/// How the packets of a published track are recognised on its transport.
#[derive(Clone, Debug)]
pub struct PublishedStream {
    /// The m-line's tag.
    pub mid: Mid,
    /// The only m-line of the transport that publishes: packets need no MID and no declared SSRC.
    pub is_only: bool,
    /// SSRCs that the SDP declared for it (RFC 5576), at most 4.
    pub ssrcs: Vec<Ssrc>,
    /// Opus, as the publisher numbers it.
    pub payload_type: PayloadType,
    /// Header extensions, as the publisher numbers them.
    pub extensions: ExtensionIds,
}
