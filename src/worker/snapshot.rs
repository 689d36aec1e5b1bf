//! How a worker's peers are, for whoever asks why audio does not flow. Asked for by a command and told in pieces,
//! a few peers a wake-up, so that no packet waits for it.

use std::time::Instant;

use super::Worker;
use super::event::Event;
use super::peer::{Peer, Publication};
use super::traffic::Traffic;
use crate::dtls::keying::SrtpProfile;
use crate::ids::{Mid, PayloadType, SlotIndex, Ssrc, TrackId, TransportId};
use crate::packet::Path;
use crate::room::Room;
use crate::room::receiver::Seat;
use crate::rtcp::report::ReportBlock;
use crate::transport::ConnectionState;

/// Peers, slots and tracks told in one wake-up; the last peer's are told whole.
const ROW_COUNT_MAX: usize = 128;
/// Places looked at in one wake-up.
const PLACE_COUNT_MAX: usize = 1024;

/// Some of a worker's peers.
#[derive(Debug)]
pub struct Piece {
    /// As it was asked for.
    pub request: u64,
    /// Its place among the pieces, from 0: one that control had no room for is missed.
    pub index: u32,
    /// They.
    pub peers: Vec<PeerSnapshot>,
    /// The snapshot is whole now.
    pub is_last: bool,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Its name.
    pub transport: TransportId,
    /// Its connection.
    pub state: ConnectionState,
    /// Since when it is so.
    pub since: Instant,
    /// Where media goes.
    pub selected: Option<Path>,
    /// Its handshake.
    pub dtls: DtlsState,
    /// What media is sealed with.
    pub profile: Option<SrtpProfile>,
    /// It is sent no media.
    pub deafened: bool,
    /// What passed.
    pub traffic: Traffic,
    /// What it publishes.
    pub published: Vec<PublishedSnapshot>,
    /// What it may be sent.
    pub slots: Vec<SlotSnapshot>,
}

/// How far a handshake is, as the W3C names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsState {
    /// No datagram yet.
    New,
    /// Under way.
    Connecting,
    /// There are keys.
    Connected,
}

/// What a peer publishes.
#[derive(Clone, Debug)]
pub struct PublishedSnapshot {
    /// Its name.
    pub track: TrackId,
    /// The m-line's tag.
    pub mid: Mid,
    /// What carries it now; `None` before its first packet.
    pub ssrc: Option<Ssrc>,
    /// Opus, as the publisher numbers it.
    pub payload_type: PayloadType,
    /// Its packets are dropped.
    pub muted: bool,
    /// Packets that verified, muted ones included.
    pub packets: u64,
    /// Their payload's bytes.
    pub bytes: u64,
    /// Packets that did not come (RFC 3550 §6.4.1).
    pub lost: i32,
    /// Of the last second, in 256ths.
    pub fraction_lost: u8,
    /// Of their arrival, in ticks of the clock.
    pub jitter: u32,
    /// 0 (loudest) to 127 (RFC 6464).
    pub level: u8,
    /// It is a speaker now.
    pub is_speaking: bool,
}

/// A line towards a peer.
#[derive(Clone, Debug)]
pub struct SlotSnapshot {
    /// Its place.
    pub slot: SlotIndex,
    /// The m-line's tag.
    pub mid: Mid,
    /// Ours.
    pub ssrc: Ssrc,
    /// What it carries.
    pub source: Option<TrackId>,
    /// Packets sealed (wraps).
    pub packets: u32,
    /// Their payload's bytes (wraps).
    pub bytes: u32,
    /// What the peer said of it last, and when.
    pub report: Option<(ReportBlock, Instant)>,
}

/// A snapshot that is being told.
pub(super) struct Asked {
    request: u64,
    /// Of the next piece.
    index: u32,
    /// The place to go on from.
    next: usize,
    pub(super) at: Instant,
}

impl Worker {
    /// One at a time: a new one takes the place of one that is not finished.
    pub(super) fn ask_snapshot(&mut self, now: Instant, request: u64) {
        self.asked = Some(Asked { request, index: 0, next: 0, at: now });
    }

    /// Tells the next piece, if one is asked for.
    pub(super) fn tell_snapshot(&mut self, now: Instant) {
        let Some(asked) = &mut self.asked else { return };
        let (mut peers, mut rows) = (Vec::new(), 0);
        let first = asked.next;
        while asked.next < self.peers.capacity()
            && rows < ROW_COUNT_MAX
            && asked.next - first < PLACE_COUNT_MAX
        {
            if let Some(peer) = self.peers.get(asked.next)
                && let Some(room) = self.rooms.get(peer.room)
            {
                let peer = snapshot(now, peer, room);
                rows += 1 + peer.published.len() + peer.slots.len();
                peers.push(peer);
            }
            asked.next += 1;
        }
        let is_last = asked.next >= self.peers.capacity();
        let piece = Piece { request: asked.request, index: asked.index, peers, is_last };
        asked.index += 1;
        self.events.push(Event::Snapshot(Box::new(piece)));
        if is_last {
            self.asked = None;
        }
    }
}

fn snapshot(now: Instant, peer: &Peer, room: &Room) -> PeerSnapshot {
    let transport = &peer.transport;
    let receiver = room.receiver(peer.receiver);
    let dtls = match (transport.has_keys(), transport.dtls_path()) {
        (true, _) => DtlsState::Connected,
        (false, Some(_)) => DtlsState::Connecting,
        (false, None) => DtlsState::New,
    };
    PeerSnapshot {
        transport: transport.id,
        state: transport.state(),
        since: transport.since(),
        selected: transport.selected(),
        dtls,
        profile: transport.profile(),
        deafened: receiver.is_some_and(|receiver| receiver.deafened),
        traffic: peer.traffic.clone(),
        published: peer.publications.iter().filter_map(|it| published(now, it, room)).collect(),
        slots: receiver.map_or(&[][..], |it| it.seats()).iter().map(|seat| slot(seat, room)).collect(),
    }
}

fn published(now: Instant, publication: &Publication, room: &Room) -> Option<PublishedSnapshot> {
    let track = room.track(publication.key)?;
    let reception = track.reception.as_ref().filter(|it| Some(it.ssrc()) == publication.ssrc);
    Some(PublishedSnapshot {
        track: track.id,
        mid: publication.stream.mid,
        ssrc: publication.ssrc,
        payload_type: publication.stream.payload_type,
        muted: track.muted,
        packets: track.packet_count,
        bytes: track.octet_count,
        lost: reception.map_or(0, |reception| reception.cumulative_lost()),
        fraction_lost: track.fraction_lost,
        jitter: reception.map_or(0, |reception| reception.jitter()),
        level: track.loudness.level(now),
        is_speaking: track.loudness.is_speaking(),
    })
}

fn slot(seat: &Seat, room: &Room) -> SlotSnapshot {
    SlotSnapshot {
        slot: seat.slot.slot,
        mid: seat.slot.mid,
        ssrc: seat.slot.ssrc,
        source: seat.source.and_then(|source| room.track(source)).map(|track| track.id),
        packets: seat.packet_count,
        bytes: seat.octet_count,
        report: seat.report,
    }
}
