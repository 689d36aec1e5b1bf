//! One receiver's packets of a batch, sealed side by side so that as few sends as possible carry them.
//!
//! The kernel cuts a send into datagrams of one length, the last perhaps shorter. So the longest go first, and a
//! packet that is nearly as long as those is filled up by RTP padding (RFC 3550 §5.1). Packets of one SSRC are
//! never put out of their order.

use std::cmp::Reverse;
use std::ops::Range;

use super::capture::copy;
use super::peer::Peer;
use crate::metrics::counters::WorkerCounters;
use crate::packet::{DATAGRAM_LEN_MAX, DropReason, Egress, Path, Run, run};
use crate::room::Packet;
use crate::room::receiver::Receiver;
use crate::room::track::TrackKey;
use crate::rtp::header::{OUTGOING_LEN_MAX, OutgoingHeader, PADDING_BIT};
use crate::srtp::context::SRTP_OVERHEAD_MAX;
use crate::srtp::index::PacketIndex;
use crate::time::Now;

/// Packets that are put in order together, at most.
const ORDERED_COUNT_MAX: usize = 16;

/// Seals for one receiver after another. Holds no more than memory for that.
pub(super) struct Sealer {
    /// A packet is padded when that takes fewer bytes; 0: never. At most 255, as one byte counts them.
    pad_max: usize,
    outgoing: Vec<Outgoing>,
}

/// A packet as one receiver is to see it.
struct Outgoing {
    track: TrackKey,
    index: PacketIndex,
    header: [u8; OUTGOING_LEN_MAX],
    header_len: usize,
    payload: Range<usize>,
}

impl Outgoing {
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

impl Sealer {
    /// `pad_max`: see `GSO_PAD_MAX`.
    pub(super) fn new(pad_max: u8) -> Sealer {
        Sealer { pad_max: pad_max.into(), outgoing: Vec::with_capacity(ORDERED_COUNT_MAX) }
    }

    /// Seals one receiver's packets of a batch into one run. Each that finds no room is counted, and its place on
    /// the line stays empty: the receiver sees the loss.
    pub(super) fn seal<E: Egress>(
        &mut self,
        now: Now,
        mut to: Listener<'_>,
        packets: &[Packet],
        payloads: &[u8],
        out: &mut E,
    ) {
        // Before the handshake's end there is nothing to seal with; that is no loss.
        let Some((_, path)) = to.peer.transport.sending() else { return };
        let pad_max = if out.cuts_segments(path) { self.pad_max } else { 0 };
        let mut open: Option<Result<Run<'_, E>, DropReason>> = None;
        let mut out = Some(out);
        let mut packets = packets.iter().peekable();
        while packets.peek().is_some() {
            self.outgoing.clear();
            while let Some(packet) = packets.next_if(|packet| self.takes(packet)) {
                self.outgoing.extend(to.rewrite(now, packet));
            }
            if self.outgoing.is_empty() {
                continue;
            }
            self.outgoing.sort_unstable_by_key(|outgoing| Reverse(outgoing.len()));
            if let Some(out) = out.take() {
                open = Some(run(out, path));
            }
            let Some(run) = &mut open else { return };
            // Of the train that is being filled.
            let mut segment_len = 0;
            for (position, outgoing) in self.outgoing.iter().enumerate() {
                let len = outgoing.len();
                if segment_len == 0 {
                    segment_len = len;
                }
                let missing = segment_len - len;
                let is_followed = position + 1 < self.outgoing.len();
                let padding_len = if is_followed && missing < pad_max { missing } else { 0 };
                if len + padding_len < segment_len {
                    segment_len = 0; // The shorter one ends it.
                }
                to.seal_one(now, path, outgoing, &payloads[outgoing.payload.clone()], padding_len, run);
            }
        }
    }

    /// It may be put in order with those that are there.
    fn takes(&self, packet: &Packet) -> bool {
        self.outgoing.len() < ORDERED_COUNT_MAX
            && self.outgoing.iter().all(|outgoing| outgoing.track != packet.track)
    }
}

impl Listener<'_> {
    /// The packet on the receiver's line; `None` when it is not for it.
    fn rewrite(&mut self, now: Now, packet: &Packet) -> Option<Outgoing> {
        if packet.payload.len() + OUTGOING_LEN_MAX + SRTP_OVERHEAD_MAX > DATAGRAM_LEN_MAX {
            self.drop_one(DropReason::TooLong);
            return None;
        }
        let (rewritten, slot) = self.receiver.rewrite(now.instant, packet)?;
        let mut header = [0; OUTGOING_LEN_MAX];
        let header_len = OutgoingHeader {
            marker: rewritten.marker,
            payload_type: slot.payload_type,
            sequence_number: rewritten.index.seq(),
            timestamp: rewritten.timestamp,
            ssrc: slot.ssrc,
            ids: &slot.extensions,
            mid: &slot.mid,
            values: &packet.values,
        }
        .write_to(&mut header);
        let (index, payload) = (rewritten.index, packet.payload.clone());
        Some(Outgoing { track: packet.track, index, header, header_len, payload })
    }

    fn seal_one<E: Egress>(
        &mut self,
        now: Now,
        path: Path,
        outgoing: &Outgoing,
        payload: &[u8],
        padding_len: usize,
        run: &mut Result<Run<'_, E>, DropReason>,
    ) {
        let Peer { transport, capture, .. } = self.peer;
        let Some((tx, _)) = transport.sending() else { return };
        let mut padded;
        let mut header = outgoing.header;
        let header = &mut header[..outgoing.header_len];
        let payload = if padding_len == 0 {
            payload
        } else {
            header[0] |= PADDING_BIT;
            padded = [0; DATAGRAM_LEN_MAX];
            pad(payload, padding_len, &mut padded)
        };
        let sealed = run.as_mut().map_err(|reason| *reason).and_then(|run| {
            let segment = run.segment(header.len() + payload.len() + SRTP_OVERHEAD_MAX)?;
            let len = tx.protect_rtp(outgoing.index, header, payload, segment)?;
            run.commit(len);
            Ok(len)
        });
        match sealed {
            Ok(len) => {
                let Listener { peer: Peer { traffic, .. }, counters, .. } = self;
                counters.rtp_out += 1;
                counters.datagrams_out += 1;
                counters.bytes_out += len as u64;
                counters.padding_out += padding_len as u64;
                traffic.rtp_out += 1;
                traffic.bytes_out += len as u64;
                if capture.is_some() {
                    copy(capture, now, Some(path), true, [header, payload]);
                }
            }
            Err(reason) => self.drop_one(reason),
        }
    }

    fn drop_one(&mut self, reason: DropReason) {
        self.counters.drop_one(reason);
        self.peer.traffic.drop_one(reason);
    }
}

/// The payload and its padding, whose last byte counts it (RFC 3550 §5.1). `into` is all zeroes.
fn pad<'a>(payload: &[u8], padding_len: usize, into: &'a mut [u8; DATAGRAM_LEN_MAX]) -> &'a [u8] {
    let len = payload.len() + padding_len;
    into[..payload.len()].copy_from_slice(payload);
    into[len - 1] = padding_len as u8;
    &into[..len]
}
