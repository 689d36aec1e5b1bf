//! Media: one packet in, decrypted once; a batch out, sealed receiver by receiver.

use super::capture::copy;
use super::peer::Peer;
use super::{BATCH_LEN_MAX, PeerKey, Worker};
use crate::metrics::counters::WorkerCounters;
use crate::packet::{DATAGRAM_LEN_MAX, DropReason, Egress, Run, run};
use crate::room::Packet;
use crate::room::receiver::Receiver;
use crate::room::rewrite::OPUS_CLOCK_RATE;
use crate::rtcp::reception::Reception;
use crate::rtp::header::{OUTGOING_LEN_MAX, OutgoingHeader};
use crate::srtp::context::SRTP_OVERHEAD_MAX;
use crate::time::Now;
use crate::worker::event::Event;

impl Worker {
    /// Opens a packet in place and lets it wait for the end of the batch.
    pub(super) fn handle_rtp(
        &mut self,
        now: Now,
        key: PeerKey,
        bytes: &mut [u8],
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        let peer = &mut self.peers[key];
        let (header, index, len) = peer.transport.open_rtp(bytes)?;
        peer.traffic.rtp_in += 1;
        peer.traffic.bytes_in += bytes.len() as u64;
        peer.traffic.last_in = Some(now.instant);
        let packet = &bytes[..len];
        if peer.capture.is_some() {
            copy(&mut peer.capture, now, peer.transport.selected(), false, [packet, &[]]);
        }
        self.counters.rtp_in += 1;
        let room_key = peer.room;
        let (publication, values, is_new_ssrc) = peer.publication_of(&header, packet)?;
        if publication.stream.payload_type != header.payload_type {
            return Err(DropReason::RtpUnknownPayloadType);
        }
        let payload = header.payload(packet)?;
        publication.bucket.take(now.instant, payload.len())?;
        let track_key = publication.key;
        let room = self.rooms.get_mut(room_key).ok_or(DropReason::RtpUnknownStream)?;
        if is_new_ssrc {
            room.begin_stretch(track_key);
        }
        let track = room.track_mut(track_key).ok_or(DropReason::RtpUnknownStream)?;
        if is_new_ssrc {
            track.reception = None;
        }
        track.reception.get_or_insert_with(|| Reception::new(header.ssrc)).handle_packet(
            now.instant,
            header.timestamp,
            header.sequence_number,
            OPUS_CLOCK_RATE,
        );
        track.packet_count += 1;
        track.octet_count += payload.len() as u64;
        if track.muted {
            return Err(DropReason::Muted);
        }
        if payload.is_empty() {
            return Ok(()); // Padding that probes the path: nothing for anybody to hear.
        }
        if !track.is_started {
            track.is_started = true;
            self.events.push(Event::TrackStarted(track.id));
        }
        let stretch = track.stretch;
        if self.batch.bytes.len() + payload.len() > BATCH_LEN_MAX {
            self.flush(now, out);
            self.at_work = Some(room_key);
        }
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(payload);
        let room = &mut self.rooms[room_key];
        if !room.has_pending() {
            self.batch.rooms.push(room_key);
        }
        room.handle_packet(
            now.instant,
            Packet {
                track: track_key,
                stretch,
                index,
                timestamp: header.timestamp,
                marker: header.marker,
                values,
                payload: start..start + payload.len(),
            },
        )
    }

    /// Seals everything that waits, receiver by receiver: one receiver's packets lie side by side.
    pub fn flush(&mut self, now: Now, out: &mut impl Egress) {
        for room_key in self.batch.rooms.drain(..) {
            let Some(room) = self.rooms.get_mut(room_key) else { continue };
            self.at_work = Some(room_key);
            room.forward(|receiver, packets| {
                let Some(peer) = self.peers.get_mut(receiver.peer) else { return };
                let batch = &self.batch.bytes;
                seal_run(now, peer, receiver, packets, batch, &mut self.counters, out);
            });
        }
        self.batch.bytes.clear();
    }
}

/// Seals one receiver's packets of a batch into one run. Each that finds no room is counted, and its place on
/// the line stays empty: the receiver sees the loss.
fn seal_run<E: Egress>(
    now: Now,
    peer: &mut Peer,
    receiver: &mut Receiver,
    packets: &[Packet],
    batch: &[u8],
    counters: &mut WorkerCounters,
    out: &mut E,
) {
    // Before the handshake's end there is nothing to seal with; that is no loss.
    let Peer { transport, traffic, capture, .. } = peer;
    let Some((tx, path)) = transport.sending() else { return };
    let mut open: Option<Result<Run<'_, E>, DropReason>> = None;
    let mut out = Some(out);
    for packet in packets {
        if packet.payload.len() + OUTGOING_LEN_MAX + SRTP_OVERHEAD_MAX > DATAGRAM_LEN_MAX {
            counters.drop_one(DropReason::TooLong);
            traffic.drop_one(DropReason::TooLong);
            continue;
        }
        let Some((rewritten, slot)) = receiver.rewrite(now.instant, packet) else { continue };
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
        if let Some(out) = out.take() {
            open = Some(run(out, path));
        }
        let Some(open) = &mut open else { break };
        let payload = &batch[packet.payload.clone()];
        let sealed = open.as_mut().map_err(|reason| *reason).and_then(|run| {
            let segment = run.segment(header_len + payload.len() + SRTP_OVERHEAD_MAX)?;
            let len = tx.protect_rtp(rewritten.index, &header[..header_len], payload, segment)?;
            run.commit(len);
            Ok(len)
        });
        match sealed {
            Ok(len) => {
                counters.rtp_out += 1;
                counters.datagrams_out += 1;
                counters.bytes_out += len as u64;
                traffic.rtp_out += 1;
                traffic.bytes_out += len as u64;
                if capture.is_some() {
                    copy(capture, now, Some(path), true, [&header[..header_len], payload]);
                }
            }
            Err(reason) => {
                counters.drop_one(reason);
                traffic.drop_one(reason);
            }
        }
    }
}
