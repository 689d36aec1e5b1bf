//! One receiver's packets of a batch, sealed side by side so that as few sends as possible carry them.
//!
//! The kernel cuts a send into datagrams of one length, the last perhaps shorter. So the longest go first, and a
//! packet that is nearly as long as those is filled up by RTP padding (RFC 3550 §5.1). Packets of one SSRC are
//! never put out of their order.

use std::ops::Range;

use super::capture::{Capture, copy};
use super::peer::Peer;
use super::traffic::Traffic;
use crate::metrics::counters::WorkerCounters;
use crate::packet::{DATAGRAM_LEN_MAX, DropReason, Egress, Path, Run, run};
use crate::room::batch::Packet;
use crate::room::receiver::Receiver;
use crate::room::track::TrackKey;
use crate::rtp::header::{OUTGOING_LEN_MAX, OutgoingHeader, PADDING_BIT};
use crate::srtp::context::{SRTP_OVERHEAD_MAX, SrtpTx};
use crate::srtp::index::PacketIndex;
use crate::time::Now;

/// Payload of a packet that leaves as one datagram, whatever its header becomes.
pub(super) const PAYLOAD_LEN_MAX: usize = DATAGRAM_LEN_MAX - OUTGOING_LEN_MAX - SRTP_OVERHEAD_MAX;

/// Packets that are put in order together, at most.
const ORDERED_COUNT_MAX: usize = 16;

/// Seals for one receiver after another. Holds no more than memory for that.
pub(super) struct Sealer {
    /// A packet is padded when that takes fewer bytes; 0: never. At most 255, as one byte counts them.
    pad_max: usize,
    outgoing: Vec<Outgoing>,
    padded: Box<[u8; DATAGRAM_LEN_MAX]>,
}

/// A packet as one receiver is to see it.
#[derive(Clone)]
struct Outgoing {
    track: TrackKey,
    index: PacketIndex,
    header: [u8; OUTGOING_LEN_MAX],
    header_len: usize,
    payload: Range<usize>,
}

impl Outgoing {
    const NONE: Outgoing = Outgoing {
        track: 0,
        index: PacketIndex(0),
        header: [0; OUTGOING_LEN_MAX],
        header_len: 0,
        payload: 0..0,
    };

    /// Without what sealing adds, which is the same for all packets of a receiver.
    fn len(&self) -> usize {
        self.header_len + self.payload.len()
    }
}

/// Whom a batch is sealed for.
pub(super) struct Listener<'a> {
    pub(super) peer: &'a mut Peer,
    pub(super) receiver: &'a mut Receiver,
    pub(super) counters: &'a mut WorkerCounters,
}

/// What it is sealed with, and who counts.
struct Line<'a> {
    now: Now,
    path: Path,
    tx: &'a mut SrtpTx,
    capture: &'a mut Option<Box<Capture>>,
    traffic: &'a mut Traffic,
    counters: &'a mut WorkerCounters,
}

impl Sealer {
    /// `pad_max`: see `GSO_PAD_MAX`.
    pub(super) fn new(pad_max: u8) -> Sealer {
        Sealer {
            pad_max: pad_max.into(),
            outgoing: vec![Outgoing::NONE; ORDERED_COUNT_MAX],
            padded: Box::new([0; DATAGRAM_LEN_MAX]),
        }
    }

    /// Seals one receiver's packets of a batch into one run. Each that cannot be sealed is counted, and its place on
    /// the line stays empty: the receiver sees the loss.
    pub(super) fn seal<E: Egress>(
        &mut self,
        now: Now,
        to: Listener<'_>,
        packets: &[Packet],
        payloads: &[u8],
        out: &mut E,
    ) {
        let Peer { transport, capture, traffic, .. } = to.peer;
        // Before the handshake's end there is nothing to seal with; that is no loss.
        let Some((tx, path)) = transport.sending() else { return };
        let pad_max = if out.cuts_segments(path) { self.pad_max } else { 0 };
        let mut line = Line { now, path, tx, capture, traffic, counters: to.counters };
        let mut open: Option<Run<'_, E>> = None;
        let mut out = Some(out);
        let mut packets = packets;
        while !packets.is_empty() {
            let count = self.rewrite(&mut line, to.receiver, &mut packets);
            if count == 0 {
                continue;
            }
            let outgoing = &mut self.outgoing[..count];
            sort_by_len(outgoing);
            if let Some(out) = out.take() {
                open = Some(run(out, path));
            }
            let Some(run) = &mut open else { return };
            // Of the train that is being filled.
            let mut segment_len = 0;
            for (position, outgoing) in outgoing.iter_mut().enumerate() {
                let len = outgoing.len();
                if segment_len == 0 {
                    segment_len = len;
                }
                let missing = segment_len - len;
                let is_followed = position + 1 < count;
                let padding_len = if is_followed && missing < pad_max { missing } else { 0 };
                if len + padding_len < segment_len {
                    segment_len = 0; // The shorter one ends it.
                }
                let mut payload = &payloads[outgoing.payload.clone()];
                if padding_len > 0 {
                    outgoing.header[0] |= PADDING_BIT;
                    payload = pad(payload, padding_len, &mut self.padded);
                }
                if line.seal(outgoing, payload, run) {
                    line.counters.padding_out += padding_len as u64;
                }
            }
        }
    }

    /// Takes packets off the front, as many as may be put in order, and returns how many of them are for this
    /// receiver: so many are outgoing now.
    fn rewrite(&mut self, line: &mut Line<'_>, receiver: &mut Receiver, packets: &mut &[Packet]) -> usize {
        let mut count = 0;
        while let Some((packet, rest)) = packets.split_first() {
            let is_second = |outgoing: &Outgoing| outgoing.track == packet.track;
            if count == ORDERED_COUNT_MAX || self.outgoing[..count].iter().any(is_second) {
                break;
            }
            *packets = rest;
            if let Some((rewritten, slot)) = receiver.rewrite(line.now.instant, packet) {
                let outgoing = &mut self.outgoing[count];
                outgoing.header_len = OutgoingHeader {
                    marker: rewritten.marker,
                    payload_type: slot.payload_type,
                    sequence_number: rewritten.index.seq(),
                    timestamp: rewritten.timestamp,
                    ssrc: slot.ssrc,
                    ids: &slot.extensions,
                    mid: &slot.mid,
                    values: &packet.values,
                }
                .write_to(&mut outgoing.header);
                outgoing.track = packet.track;
                outgoing.index = rewritten.index;
                outgoing.payload = packet.payload.clone();
                count += 1;
            }
        }
        count
    }
}

/// The longest first. They are few, and mostly in order.
fn sort_by_len(outgoing: &mut [Outgoing]) {
    for end in 1..outgoing.len() {
        let mut at = end;
        while at > 0 && outgoing[at - 1].len() < outgoing[at].len() {
            outgoing.swap(at - 1, at);
            at -= 1;
        }
    }
}

impl Line<'_> {
    /// `false` when it was dropped, and counted.
    fn seal<E: Egress>(&mut self, outgoing: &Outgoing, payload: &[u8], run: &mut Run<'_, E>) -> bool {
        let header = &outgoing.header[..outgoing.header_len];
        let segment = run.segment(header.len() + payload.len() + SRTP_OVERHEAD_MAX);
        let sealed = self.tx.protect_rtp(outgoing.index, header, payload, segment);
        match sealed {
            Ok(len) => {
                run.commit(len);
                self.counters.rtp_out += 1;
                self.counters.datagrams_out += 1;
                self.counters.bytes_out += len as u64;
                self.traffic.rtp_out += 1;
                self.traffic.bytes_out += len as u64;
                if self.capture.is_some() {
                    copy(self.capture, self.now, Some(self.path), true, [header, payload]);
                }
            }
            Err(reason) => self.drop_one(reason),
        }
        sealed.is_ok()
    }

    fn drop_one(&mut self, reason: DropReason) {
        self.counters.drop_one(reason);
        self.traffic.drop_one(reason);
    }
}

/// The payload and its padding, whose last byte counts it (RFC 3550 §5.1).
fn pad<'a>(payload: &[u8], padding_len: usize, into: &'a mut [u8; DATAGRAM_LEN_MAX]) -> &'a [u8] {
    let len = payload.len() + padding_len;
    into[..payload.len()].copy_from_slice(payload);
    into[payload.len()..len].fill(0);
    into[len - 1] = padding_len as u8;
    &into[..len]
}
