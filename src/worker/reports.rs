//! RTCP ends here: publishers get receiver reports from us, listeners sender reports of their slots (RFC 3550
//! §6.4), each with our CNAME, and a BYE at the end.

use std::time::Duration;

use super::capture::copy;
use super::{PeerKey, Worker};
use crate::ids::Ssrc;
use crate::packet::{DropReason, Egress, run};
use crate::room::Room;
use crate::room::rewrite::OPUS_CLOCK_RATE;
use crate::rtcp::packet::{Compound, Packet};
use crate::rtcp::report::{ReportBlock, ReportBlocks, SenderInfo};
use crate::rtcp::writer::{OutOfRoom, Writer};
use crate::sdp::local::CNAME;
use crate::srtp::context::SRTCP_OVERHEAD_MAX;
use crate::time::Now;

/// Between two reports on what a peer publishes: a speaker's browser suits its redundancy to the loss that they tell, and
/// shows the round trip.
const RECEIVER_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two reports on what a peer is sent, which a browser only shows: what RFC 3550 §6.2 recommends, and browsers
/// themselves do for audio.
const SENDER_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Other parts are told of a publisher's clock that often at most; a browser reports on it each second or less often.
const CLOCK_INTERVAL: Duration = Duration::from_millis(500);

/// Plaintext of one datagram of reports.
const COMPOUND_LEN_MAX: usize = 1_100;

/// SSRCs in one BYE (RFC 3550 §6.6).
const BYE_COUNT_MAX: usize = 31;

/// What one round of reports says; kept for its memory.
#[derive(Default)]
pub(super) struct Reports {
    blocks: Vec<ReportBlock>,
    infos: Vec<SenderInfo>,
}

impl Worker {
    /// Opens a compound in place and takes what it says of the peer's own streams.
    pub(super) fn handle_rtcp(&mut self, now: Now, key: PeerKey, bytes: &mut [u8]) -> Result<(), DropReason> {
        let peer = &mut self.peers[key];
        let len = peer.transport.open_rtcp(bytes)?;
        peer.traffic.bytes_in += bytes.len() as u64;
        peer.traffic.last_in = Some(now.instant);
        if peer.capture.is_some() {
            copy(&mut peer.capture, now, peer.transport.selected(), false, [&bytes[..len], &[]]);
        }
        peer.rtcp_bucket.take(now.instant, len)?;
        for packet in Compound::parse(&bytes[..len])?.packets() {
            match packet {
                Packet::SenderReport { info, reports } => {
                    self.handle_sender_report(now, key, &info);
                    self.handle_reports(now, key, reports);
                }
                Packet::ReceiverReport { reports, .. } => self.handle_reports(now, key, reports),
                Packet::Bye { ssrcs } => ssrcs.iter().for_each(|ssrc| self.handle_bye(key, ssrc)),
                // Loss is left to the receiver's concealment and in-band FEC: nothing else is negotiated.
                _ => {}
            }
        }
        Ok(())
    }

    fn handle_sender_report(&mut self, now: Now, key: PeerKey, info: &SenderInfo) {
        let peer = &self.peers[key];
        let Some(place) = peer.track_of_ssrc(info.ssrc) else { return };
        let room_key = peer.room;
        let track = self.rooms.get_mut(room_key).and_then(|room| room.track_mut(place));
        let Some(track) = track else { return };
        let Some(reception) = &mut track.reception else { return };
        reception.handle_sender_report(now.instant, info.ntp);
        track.last_report = Some((info.rtp_time, now.instant));
        // A compound may hold dozens, and other parts' queues are for voices first.
        if track.clock_relayed_at.is_none_or(|at| now.instant.duration_since(at) >= CLOCK_INTERVAL) {
            track.clock_relayed_at = Some(now.instant);
            self.relay_clock(room_key, place, info.rtp_time);
        }
    }

    /// What the peer says of its slots; it moves nothing but figures.
    fn handle_reports(&mut self, now: Now, key: PeerKey, blocks: ReportBlocks<'_>) {
        let peer = &mut self.peers[key];
        let room = self.rooms.get_mut(peer.room);
        let Some(receiver) = room.and_then(|room| room.receiver_mut(peer.receiver)) else { return };
        for block in blocks.iter() {
            let Some(seat) = receiver.seats_mut().iter_mut().find(|seat| seat.slot.ssrc == block.ssrc) else {
                continue;
            };
            seat.report = Some((block, now.instant));
            if let Some(round_trip) = block.round_trip(now.ntp) {
                peer.traffic.round_trip = Some(round_trip);
            }
        }
    }

    fn handle_bye(&mut self, key: PeerKey, ssrc: Ssrc) {
        let peer = &self.peers[key];
        let room = self.rooms.get_mut(peer.room);
        if let Some(track) = peer.track_of_ssrc(ssrc).and_then(|place| room?.track_mut(place)) {
            track.loudness.silence();
        }
    }

    /// Reports on what the peer publishes, and at times on the slots that carried something since the last time.
    pub(super) fn report(&mut self, now: Now, key: PeerKey, out: &mut impl Egress) {
        let peer = &mut self.peers[key];
        peer.report_at = now.instant + about(RECEIVER_REPORT_INTERVAL, self.random.number());
        peer.traffic.rate(now.instant);
        let (ssrc, receiver) = (peer.ssrc, peer.receiver);
        let Some(room) = self.rooms.get_mut(peer.room) else { return };
        let publications = &peer.publications;
        let blocks = publications.iter().filter_map(|publication| {
            let track = room.track_mut(publication.key)?;
            // The block of who publishes it now: a track may have moved to another transport.
            let reception = track.reception.as_mut();
            let block = reception
                .filter(|reception| Some(reception.ssrc()) == publication.ssrc)?
                .report_block(now.instant);
            track.fraction_lost = block.as_ref().map_or(0, |block| block.fraction_lost);
            block
        });
        let mut reports = std::mem::take(&mut self.reports);
        reports.blocks.clear();
        reports.blocks.extend(blocks);
        reports.infos.clear();
        if now.instant >= peer.sender_report_at {
            sender_infos(now, room, receiver, &mut reports.infos);
        }
        if !reports.infos.is_empty() {
            peer.sender_report_at = now.instant + about(SENDER_REPORT_INTERVAL, self.random.number());
        }
        self.send_reports(now, key, ssrc, &mut reports, out);
        self.reports = reports;
    }

    fn send_reports(
        &mut self,
        now: Now,
        key: PeerKey,
        ssrc: Ssrc,
        reports: &mut Reports,
        out: &mut impl Egress,
    ) {
        let Reports { blocks, infos } = reports;
        if blocks.is_empty() && infos.is_empty() {
            return;
        }
        let mut infos = infos.as_slice();
        loop {
            let mut compound = [0; COMPOUND_LEN_MAX];
            let mut writer = Writer::new(&mut compound);
            // The buffer holds far more than one report and a name.
            let begun =
                writer.receiver_report(ssrc, blocks.drain(..)).and_then(|()| writer.cname(ssrc, CNAME));
            while let Some((info, rest)) = infos.split_first() {
                if write_sender_report(&mut writer, info).is_err() {
                    break;
                }
                infos = rest;
            }
            let len = writer.len();
            if begun.is_ok() {
                self.send_rtcp(Some(now), key, &compound[..len], out);
            }
            if infos.is_empty() || begun.is_err() {
                return;
            }
        }
    }

    /// BYE for every slot of the peer (RFC 3550 §6.6).
    pub(super) fn say_goodbye(&mut self, key: PeerKey, out: &mut impl Egress) {
        let ssrc = self.peers[key].ssrc;
        let Some((room, receiver)) = self.room_of(key) else { return };
        let Some(receiver) = room.receiver_mut(receiver) else { return };
        let ssrcs: Vec<Ssrc> = receiver.seats().iter().map(|seat| seat.slot.ssrc).collect();
        for ssrcs in ssrcs.chunks(BYE_COUNT_MAX) {
            let mut compound = [0; COMPOUND_LEN_MAX];
            let mut writer = Writer::new(&mut compound);
            let written = writer
                .receiver_report(ssrc, [])
                .and_then(|()| writer.cname(ssrc, CNAME))
                .and_then(|()| writer.bye(ssrcs));
            let len = writer.len();
            if written.is_ok() {
                self.send_rtcp(None, key, &compound[..len], out);
            }
        }
    }

    /// `now` is not known of goodbyes; those are in no capture.
    fn send_rtcp(&mut self, now: Option<Now>, key: PeerKey, compound: &[u8], out: &mut impl Egress) {
        let Some((tx, path)) = self.peers[key].transport.sending() else { return };
        let mut run = run(out, path);
        match tx.protect_rtcp(compound, run.segment(compound.len() + SRTCP_OVERHEAD_MAX)) {
            Ok(len) => {
                run.commit(len);
                self.counters.datagrams_out += 1;
                self.counters.bytes_out += len as u64;
                let peer = &mut self.peers[key];
                peer.traffic.bytes_out += len as u64;
                if let (Some(now), true) = (now, peer.capture.is_some()) {
                    copy(&mut peer.capture, now, Some(path), true, [compound, &[]]);
                }
            }
            Err(reason) => {
                self.counters.drop_one(reason);
                self.peers[key].traffic.drop_one(reason);
            }
        }
    }
}

/// Three to five quarters of an interval: reports that once fell together, as after a pause of the machine, do not stay so
/// for ever (RFC 3550 §6.3.1).
fn about(interval: Duration, random: u64) -> Duration {
    interval * 3 / 4 + Duration::from_micros(random % (interval.as_micros() as u64 / 2))
}

/// A report with the name that says whose it is, or neither.
fn write_sender_report(writer: &mut Writer<'_>, info: &SenderInfo) -> Result<(), OutOfRoom> {
    /// Sender report and CNAME chunk, at most.
    const LEN_MAX: usize = 28 + 8 + 2 + CNAME.len() + 4;
    if writer.len() + LEN_MAX > COMPOUND_LEN_MAX {
        return Err(OutOfRoom);
    }
    writer.sender_report(info, [])?;
    writer.cname(info.ssrc, CNAME)
}

/// Sender information of each slot that carried something since the last report.
fn sender_infos(now: Now, room: &mut Room, receiver: usize, infos: &mut Vec<SenderInfo>) {
    let Some((receiver, tracks)) = room.receiver_and_tracks(receiver) else { return };
    for seat in receiver.seats_mut() {
        if !std::mem::take(&mut seat.is_active) {
            continue;
        }
        let track = seat.source.and_then(|source| tracks.get(source));
        let reported = track.and_then(|track| Some((track.stretch, track.last_report?)));
        let mapped = reported.and_then(|(stretch, (rtp_time, at))| {
            let media = rtp_time.after(now.instant.duration_since(at), OPUS_CLOCK_RATE);
            seat.line.timestamp_of(stretch, media)
        });
        infos.push(SenderInfo {
            ssrc: seat.slot.ssrc,
            ntp: now.ntp,
            // Before the publisher's first report: by the newest packet.
            rtp_time: mapped.unwrap_or_else(|| seat.line.timestamp_at(now.instant)),
            packet_count: seat.packet_count,
            octet_count: seat.octet_count,
        });
    }
}
