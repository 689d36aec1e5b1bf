//! Media: one packet in, decrypted once, and a batch out when it is due.

use std::time::{Duration, Instant};

use super::capture::copy;
use super::peer::RoomKey;
use super::seal::{Listener, PAYLOAD_LEN_MAX};
use super::{BATCH_LEN_MAX, PeerKey, Worker};
use crate::packet::{DropReason, Egress};
use crate::room::batch::{Packet, Turn};
use crate::room::rewrite::OPUS_CLOCK_RATE;
use crate::rtcp::reception::Reception;
use crate::time::{Now, NtpTime};
use crate::worker::event::Event;

/// A packet that lies longer more likely came before the clock was set, which is no jitter.
const AGE_MAX: Duration = Duration::from_secs(1);

/// For how long the kernel has had a packet: the worker may have let it lie for a while. Zero where nobody knows.
fn age(now: Now, arrived: Option<Duration>) -> Duration {
    arrived.and_then(|arrived| now.ntp.since(NtpTime::from_unix(arrived))).unwrap_or_default()
}

impl Worker {
    /// Counts for how long a voice lay in the socket that this worker reads, but for what it was to wait there.
    pub(super) fn count_wait(&mut self, now: Now, arrived: Option<Duration>) {
        if arrived.is_none() {
            return;
        }
        let age = age(now, arrived);
        let since = now.instant.checked_sub(age).unwrap_or(now.instant);
        let meant =
            self.coalescing.map_or(Duration::ZERO, |coalescing| coalescing.within(since, now.instant));
        self.counters.receive_queue.record(age.saturating_sub(meant).as_nanos() as u64);
    }

    /// Opens a packet in place and lets it wait for the others of its room's batch.
    pub(super) fn handle_rtp(
        &mut self,
        now: Now,
        key: PeerKey,
        arrived: Option<Duration>,
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
        let age = age(now, arrived);
        let room_key = peer.room;
        let (publication, values, is_new_ssrc) = peer.publication_of(&header, packet)?;
        if publication.stream.payload_type != header.payload_type {
            return Err(DropReason::RtpUnknownPayloadType);
        }
        let track_key = publication.key;
        let room = self.rooms.get_mut(room_key).ok_or(DropReason::RtpUnknownStream)?;
        if is_new_ssrc {
            room.begin_stretch(track_key); // It is bound by now, whatever becomes of the packet.
        }
        let track = room.track_mut(track_key).ok_or(DropReason::RtpUnknownStream)?;
        if is_new_ssrc {
            track.reception = None;
            track.last_report = None; // Of another clock.
        }
        let payload = header.payload(packet)?;
        if payload.len() > PAYLOAD_LEN_MAX {
            return Err(DropReason::TooLong);
        }
        publication.bucket.take(now.instant, payload.len())?;
        let came_at = Some(age).filter(|age| *age < AGE_MAX).and_then(|age| now.instant.checked_sub(age));
        track.reception.get_or_insert_with(|| Reception::new(header.ssrc)).handle_packet(
            came_at.unwrap_or(now.instant),
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
        let packet = Packet {
            track: track_key,
            stretch: track.stretch,
            index,
            timestamp: header.timestamp,
            marker: header.marker,
            values,
            payload: 0..0,
            arrived,
        };
        self.relay_voice(room_key, &packet, payload);
        self.let_wait(now, room_key, packet, payload, out)
    }

    /// Keeps a packet that may be heard for the end of its room's batch.
    pub(super) fn let_wait(
        &mut self,
        now: Now,
        room_key: RoomKey,
        packet: Packet,
        payload: &[u8],
        out: &mut impl Egress,
    ) -> Result<(), DropReason> {
        let room = &self.rooms[room_key];
        if room.pending_len() + payload.len() > BATCH_LEN_MAX {
            self.flush_room(room_key, now, out);
        }
        let room = &mut self.rooms[room_key];
        if !room.has_pending() {
            let due = now.instant + self.settings.tick.saturating_sub(age(now, packet.arrived));
            let place =
                self.waiting.iter().rposition(|(before, _)| *before <= due).map_or(0, |last| last + 1);
            self.waiting.insert(place, (due, room_key));
        }
        let payload = room.keep(payload);
        room.handle_packet(now.instant, Packet { payload, ..packet })
    }

    /// Seals what has waited long enough, receiver by receiver: one receiver's packets lie side by side.
    pub fn flush(&mut self, now: Now, out: &mut impl Egress) {
        // Without a tick all of it, whatever the time.
        let is_ticking = !self.settings.tick.is_zero();
        let is_due = |at: Instant| at <= now.instant || !is_ticking;
        while let Some(&(_, key)) = self.waiting.front().filter(|(at, _)| is_due(*at)) {
            self.waiting.pop_front();
            self.flush_room(key, now, out);
        }
    }

    fn flush_room(&mut self, key: RoomKey, now: Now, out: &mut impl Egress) {
        // Empty where so much came that it did not wait.
        let Some(room) = self.rooms.get_mut(key).filter(|room| room.has_pending()) else { return };
        self.at_work = Some(key);
        self.has_sealed = true;
        self.arrivals.extend(room.pending().iter().filter_map(|packet| packet.arrived));
        // A peer whose entry has been read: where the others are follows from it.
        let mut near = None;
        room.forward(|turn, packets, payloads| {
            let receiver = match turn {
                Turn::Soon(key) => {
                    let from = *near.get_or_insert(key);
                    let places = key.wrapping_sub(from).cast_signed();
                    return self.peers.get(from).map_or((), |peer| peer.fetch_behind(places));
                }
                Turn::Next(key) => return self.peers.get(key).map_or((), |peer| peer.transport.fetch_keys()),
                Turn::Now(receiver) => receiver,
            };
            near = Some(receiver.peer);
            let Some(peer) = self.peers.get_mut(receiver.peer) else { return };
            let listener = Listener { peer, receiver, counters: &mut self.counters };
            self.sealer.seal(now, listener, packets, payloads, out);
        });
    }
}
