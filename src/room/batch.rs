//! Packets that wait for the end of a batch, and the listeners that they are lent to one after the other.

use std::ops::Range;
use std::time::Duration;

use slab::Slab;

use super::PeerKey;
use super::receiver::{Receiver, ReceiverKey};
use super::rewrite::Stretch;
use super::track::TrackKey;
use crate::rtp::extension::Values;
use crate::srtp::index::PacketIndex;
use crate::time::RtpTime;
use crate::vector;

/// So many turns before its own a listener's entry is read, and what it leads to is asked for. Memory takes as long as
/// one or two turns.
const SOON: usize = 6;
/// And so many before, what that leads to.
const NEXT: usize = 3;
/// How far behind the entry that is read the one lies that is asked for, in bytes.
const FAR_BEHIND: isize = (SOON - NEXT) as isize * size_of::<Receiver>() as isize;
/// Packets of a batch that memory is asked for: those of a few tracks, whose seats lie side by side.
const FETCHED_COUNT_MAX: usize = 4;

/// A verified packet of a track, waiting to be forwarded.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Whose.
    pub track: TrackKey,
    /// The unbroken stretch it belongs to.
    pub stretch: Stretch,
    /// Its place in the publisher's sequence.
    pub index: PacketIndex,
    /// On the publisher's clock.
    pub timestamp: RtpTime,
    /// As the publisher set it.
    pub marker: bool,
    /// Extensions that are mapped.
    pub values: Values,
    /// Where the payload lies among those that wait: see [`Room::keep`](super::Room::keep).
    pub payload: Range<usize>,
    /// See [`Datagram::arrived`](crate::packet::Datagram::arrived).
    pub arrived: Option<Duration>,
}

/// A listener's, while a room forwards.
pub enum Turn<'a> {
    /// Comes soon: what is kept of its peer is worth asking memory for.
    Soon(PeerKey),
    /// Comes next: what that points to, too.
    Next(PeerKey),
    /// Has come.
    Now(&'a mut Receiver),
}

/// What waits.
#[derive(Default)]
pub(super) struct Batch {
    packets: Vec<Packet>,
    /// Of the packets, one after the other.
    payloads: Vec<u8>,
    /// Where the next batch begins, so that no receiver is always the last when slots run out.
    first_receiver: ReceiverKey,
}

impl Batch {
    pub(super) fn packets(&self) -> &[Packet] {
        &self.packets
    }

    pub(super) fn payloads_len(&self) -> usize {
        self.payloads.len()
    }

    /// The payload of the packet that is pushed next.
    pub(super) fn keep(&mut self, payload: &[u8]) -> Range<usize> {
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload);
        start..self.payloads.len()
    }

    pub(super) fn push(&mut self, packet: Packet) {
        self.packets.push(packet);
    }

    /// A track's packets go nowhere.
    pub(super) fn forget(&mut self, track: TrackKey) {
        self.packets.retain(|packet| packet.track != track);
        if self.packets.is_empty() {
            self.payloads.clear();
        }
    }

    /// As [`Room::forward`](super::Room::forward).
    pub(super) fn forward(
        &mut self,
        receivers: &mut Slab<Receiver>,
        mut serve: impl FnMut(Turn<'_>, &[Packet], &[u8]),
    ) {
        let places = receivers.capacity();
        let first = self.first_receiver.min(places);
        let key_at = |turn: usize| if turn < places - first { first + turn } else { first + turn - places };
        for step in 0..places + SOON {
            let at =
                |ahead: usize| (step + ahead).checked_sub(SOON).filter(|turn| *turn < places).map(key_at);
            if let Some(receiver) = at(SOON).and_then(|key| receivers.get(key)) {
                vector::fetch_start_behind(receiver, FAR_BEHIND);
                let fetched = self.packets.iter().take(FETCHED_COUNT_MAX);
                fetched.for_each(|packet| receiver.fetch_table(packet.track));
                serve(Turn::Soon(receiver.peer), &self.packets, &self.payloads);
            }
            if let Some(receiver) = at(NEXT).and_then(|key| receivers.get(key)) {
                let fetched = self.packets.iter().take(FETCHED_COUNT_MAX);
                fetched.for_each(|packet| receiver.fetch_seat(packet.track));
                serve(Turn::Next(receiver.peer), &self.packets, &self.payloads);
            }
            if let Some(receiver) = at(0).and_then(|key| receivers.get_mut(key))
                && !receiver.deafened
            {
                serve(Turn::Now(receiver), &self.packets, &self.payloads);
            }
        }
        // To the next that is there: places that stand empty would make whoever follows them first too often.
        self.first_receiver = (first + 1..places).find(|&key| receivers.contains(key)).unwrap_or_default();
        self.packets.clear();
        self.payloads.clear();
    }
}
