//! What a receiver counts of one stream (RFC 3550 §6.4.1, appendices A.1, A.3 and A.8).
//!
//! Packets are authentic and no replays when they come here, so a new stream is believed from its first
//! packet on: there is no probation as in appendix A.1.

use std::time::{Duration, Instant};

use super::report::{CUMULATIVE_LOST_RANGE, ReportBlock, to_65536ths};
use crate::ids::Ssrc;
use crate::time::{NtpTime, RtpTime};

/// A gap from which on the sender may have begun anew (RFC 3550 A.1).
const DROPOUT_MAX: u16 = 3000;
/// How late a packet may be before the sender may have begun anew: as late as the replay window lets it be. The 100 of
/// RFC 3550 A.1, which knows of no such window, would take two packets that a slow path held back for a new beginning,
/// and all that came before them for lost.
const MISORDER_MAX: u16 = 1024;

/// Statistics of one received stream.
#[derive(Clone, Debug)]
pub struct Reception {
    ssrc: Ssrc,
    /// Nothing before the first packet.
    stream: Option<Stream>,
    last_sr: Option<LastSenderReport>,
    /// A packet or a report has come since the last block.
    has_news: bool,
}

#[derive(Clone, Debug)]
struct Stream {
    /// Arrival of the first packet: arrivals in media time count from there.
    origin: Instant,
    sequence: Sequence,
    /// Arrival less media time of the last packet, in clock ticks; wraps.
    transit: u32,
    /// In 16ths of a clock tick.
    jitter_16ths: u32,
}

/// Sequence numbers since the sender began.
#[derive(Clone, Debug)]
struct Sequence {
    /// The first; wraps counted in the upper 16 bits, as in `highest`.
    base: u32,
    highest: u32,
    received_count: u32,
    /// The number that would make a jump a new beginning.
    after_jump: Option<u16>,
    expected_prior: u32,
    received_prior: u32,
}

#[derive(Clone, Copy, Debug)]
struct LastSenderReport {
    middle: u32,
    at: Instant,
}

impl Reception {
    /// Nothing received yet.
    pub fn new(ssrc: Ssrc) -> Reception {
        Reception { ssrc, stream: None, last_sr: None, has_news: false }
    }

    /// The stream.
    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// A media packet came at `now`; `clock_rate` is its payload type's, in Hz.
    pub fn handle_packet(&mut self, now: Instant, rtp_time: RtpTime, seq: u16, clock_rate: u32) {
        self.has_news = true;
        let Some(stream) = &mut self.stream else {
            let (sequence, transit) = (Sequence::new(seq), rtp_time.0.wrapping_neg());
            self.stream = Some(Stream { origin: now, sequence, transit, jitter_16ths: 0 });
            return;
        };
        stream.sequence.handle(seq);
        let elapsed = now.saturating_duration_since(stream.origin);
        let transit = ticks(elapsed, clock_rate).wrapping_sub(rtp_time.0);
        let deviation = (transit.wrapping_sub(stream.transit) as i32).unsigned_abs();
        stream.transit = transit;
        let smoothed = stream.jitter_16ths - ((stream.jitter_16ths + 8) >> 4);
        stream.jitter_16ths = smoothed.saturating_add(deviation).min(u32::MAX - 8);
    }

    /// A sender report of the stream came at `now`.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.has_news = true;
        self.last_sr = Some(LastSenderReport { middle: ntp.middle(), at: now });
    }

    /// The report on everything so far; the next one's `fraction_lost` counts from here. `None` before
    /// the first packet, and where nothing has come since the last (RFC 3550 §6.4).
    pub fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let stream = self.stream.as_mut()?;
        if !std::mem::take(&mut self.has_news) {
            return None;
        }
        let (last_sr, delay_since_last_sr) = match self.last_sr {
            Some(sr) => (sr.middle, to_65536ths(now.saturating_duration_since(sr.at))),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: stream.sequence.fraction_lost(),
            cumulative_lost: stream.sequence.cumulative_lost(),
            highest_seq: stream.sequence.highest,
            jitter: stream.jitter_16ths >> 4,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// Of the arrival of packets, in clock ticks.
    pub fn jitter(&self) -> u32 {
        self.stream.as_ref().map_or(0, |stream| stream.jitter_16ths >> 4)
    }

    /// Packets received since the sender began.
    pub fn received_count(&self) -> u32 {
        self.stream.as_ref().map_or(0, |stream| stream.sequence.received_count)
    }

    /// Packets lost since the sender began; negative where duplicates outweigh losses.
    pub fn cumulative_lost(&self) -> i32 {
        self.stream.as_ref().map_or(0, |stream| stream.sequence.cumulative_lost())
    }
}

impl Sequence {
    fn new(seq: u16) -> Sequence {
        Sequence {
            base: seq.into(),
            highest: seq.into(),
            received_count: 1,
            after_jump: None,
            expected_prior: 0,
            received_prior: 0,
        }
    }

    /// `update_seq` of RFC 3550 A.1.
    fn handle(&mut self, seq: u16) {
        let ahead = seq.wrapping_sub(self.highest as u16);
        if ahead < DROPOUT_MAX {
            self.highest = self.highest.wrapping_add(ahead.into());
        } else if ahead <= MISORDER_MAX.wrapping_neg() {
            if self.after_jump != Some(seq) {
                self.after_jump = Some(seq.wrapping_add(1));
                return;
            }
            // Two packets in a row beyond the jump: the sender began anew.
            *self = Sequence::new(seq);
            return;
        }
        self.received_count = self.received_count.wrapping_add(1);
    }

    fn expected_count(&self) -> u32 {
        self.highest.wrapping_sub(self.base).wrapping_add(1)
    }

    fn cumulative_lost(&self) -> i32 {
        let lost = self.expected_count().wrapping_sub(self.received_count) as i32;
        lost.clamp(*CUMULATIVE_LOST_RANGE.start(), *CUMULATIVE_LOST_RANGE.end())
    }

    /// Since the last call (RFC 3550 A.3).
    fn fraction_lost(&mut self) -> u8 {
        let expected = self.expected_count().wrapping_sub(self.expected_prior);
        let received = self.received_count.wrapping_sub(self.received_prior);
        self.expected_prior = self.expected_count();
        self.received_prior = self.received_count;
        match expected.wrapping_sub(received) as i32 {
            lost @ 1.. => (u64::from(lost.unsigned_abs()) * 256 / u64::from(expected)).min(255) as u8,
            _ => 0,
        }
    }
}

/// A duration in clock ticks; wraps as media time does.
fn ticks(elapsed: Duration, clock_rate: u32) -> u32 {
    let rate = u64::from(clock_rate);
    let whole = elapsed.as_secs().wrapping_mul(rate);
    whole.wrapping_add(u64::from(elapsed.subsec_nanos()) * rate / 1_000_000_000) as u32
}
