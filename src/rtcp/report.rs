//! Sender information and report blocks (RFC 3550 §6.4).

use std::time::Duration;

use crate::ids::Ssrc;
use crate::time::{NtpTime, RtpTime};

/// Bytes of a report block.
pub const REPORT_BLOCK_LEN: usize = 24;
/// Bytes of a sender's SSRC and information.
pub(super) const SENDER_INFO_LEN: usize = 24;

/// Least and most that 24 bits of two's complement can say of lost packets; duplicates make it negative.
pub const CUMULATIVE_LOST_RANGE: std::ops::RangeInclusive<i32> = -0x80_0000..=0x7F_FFFF;

/// What a sender says of its own stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The stream.
    pub ssrc: Ssrc,
    /// When this was sent, by the sender's wall clock.
    pub ntp: NtpTime,
    /// The same moment in the stream's media time.
    pub rtp_time: RtpTime,
    /// Packets sent since the stream began; wraps.
    pub packet_count: u32,
    /// Payload bytes sent, without headers and padding; wraps.
    pub octet_count: u32,
}

/// What a receiver says of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: Ssrc,
    /// Lost since the report before, in 256ths.
    pub fraction_lost: u8,
    /// Lost since the stream began, clamped to [`CUMULATIVE_LOST_RANGE`].
    pub cumulative_lost: i32,
    /// Highest sequence number received; the upper 16 bits count its wraps.
    pub highest_seq: u32,
    /// Mean deviation of the time between packets, in the stream's clock ticks.
    pub jitter: u32,
    /// [`NtpTime::middle`] of the last sender report; 0 when none came.
    pub last_sr: u32,
    /// Since that one came, in 65536ths of a second; 0 when none came.
    pub delay_since_last_sr: u32,
}

/// The report blocks of a packet.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlocks<'a>(&'a [[u8; REPORT_BLOCK_LEN]]);

impl SenderInfo {
    pub(super) fn read(bytes: &[u8; SENDER_INFO_LEN]) -> SenderInfo {
        SenderInfo {
            ssrc: Ssrc(word(bytes, 0)),
            ntp: NtpTime(u64::from(word(bytes, 1)) << 32 | u64::from(word(bytes, 2))),
            rtp_time: RtpTime(word(bytes, 3)),
            packet_count: word(bytes, 4),
            octet_count: word(bytes, 5),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; SENDER_INFO_LEN] {
        bytes([
            self.ssrc.0,
            (self.ntp.0 >> 32) as u32,
            self.ntp.0 as u32,
            self.rtp_time.0,
            self.packet_count,
            self.octet_count,
        ])
    }
}

impl ReportBlock {
    /// Time to the reporter and back, less what it waited, as of `now`, when the report came (RFC 3550
    /// §6.4.1); `None` when it had no sender report of ours yet, or names one from the future. Zero when
    /// it waited longer than it can have: clocks of a millisecond say so on a near path.
    pub fn round_trip(&self, now: NtpTime) -> Option<Duration> {
        if self.last_sr == 0 {
            return None;
        }
        let elapsed = now.middle().wrapping_sub(self.last_sr);
        // Longer than half of what 32 bits can say is a report from the future.
        let elapsed = (elapsed <= i32::MAX as u32).then_some(elapsed)?;
        Some(from_65536ths(elapsed.saturating_sub(self.delay_since_last_sr)))
    }

    fn read(bytes: &[u8; REPORT_BLOCK_LEN]) -> ReportBlock {
        let losses = word(bytes, 1);
        ReportBlock {
            ssrc: Ssrc(word(bytes, 0)),
            fraction_lost: (losses >> 24) as u8,
            cumulative_lost: ((losses << 8) as i32) >> 8, // Takes the sign along.
            highest_seq: word(bytes, 2),
            jitter: word(bytes, 3),
            last_sr: word(bytes, 4),
            delay_since_last_sr: word(bytes, 5),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; REPORT_BLOCK_LEN] {
        let lost = self.cumulative_lost.clamp(*CUMULATIVE_LOST_RANGE.start(), *CUMULATIVE_LOST_RANGE.end());
        bytes([
            self.ssrc.0,
            u32::from(self.fraction_lost) << 24 | lost as u32 & 0xFF_FFFF,
            self.highest_seq,
            self.jitter,
            self.last_sr,
            self.delay_since_last_sr,
        ])
    }
}

impl<'a> ReportBlocks<'a> {
    pub(super) fn new(blocks: &'a [[u8; REPORT_BLOCK_LEN]]) -> ReportBlocks<'a> {
        ReportBlocks(blocks)
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ReportBlock> + use<'a> {
        self.0.iter().map(ReportBlock::read)
    }
}

/// Both formats here are six words.
fn word(bytes: &[u8; 24], at: usize) -> u32 {
    u32::from_be_bytes(bytes.as_chunks::<4>().0[at])
}

fn bytes(words: [u32; 6]) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_be_bytes();
    }
    bytes
}

/// A duration in the unit of LSR and DLSR, saturating after 18 hours.
pub(super) fn to_65536ths(duration: Duration) -> u32 {
    let ticks =
        (u128::from(duration.as_secs()) << 16) + (u128::from(duration.subsec_nanos()) << 16) / 1_000_000_000;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

fn from_65536ths(ticks: u32) -> Duration {
    Duration::from_nanos((u64::from(ticks) * 1_000_000_000) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_of_rfc_3550_figure_2() {
        // LSR, DLSR and the time of arrival as the figure has them; it finds 6.125 s.
        let block = ReportBlock {
            ssrc: Ssrc(1),
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_seq: 0,
            jitter: 0,
            last_sr: 0xB705_2000,
            delay_since_last_sr: 0x0005_4000,
        };
        let arrival = NtpTime(0x0000_B710_8000_0000);
        assert_eq!(block.round_trip(arrival), Some(Duration::from_millis(6_125)));
        assert_eq!(ReportBlock { last_sr: 0, ..block }.round_trip(arrival), None);
        assert_eq!(ReportBlock { last_sr: 0xB710_8001, ..block }.round_trip(arrival), None, "the future");
        for delay_since_last_sr in [0xB_6000, 0xB_6001, u32::MAX] {
            let block = ReportBlock { delay_since_last_sr, ..block };
            assert_eq!(block.round_trip(arrival), Some(Duration::ZERO));
        }
        // Across the wrap of the middle 32 bits.
        let wrapped = ReportBlock { last_sr: 0xFFFF_8000, delay_since_last_sr: 0x8000, ..block };
        assert_eq!(wrapped.round_trip(NtpTime(0x0001_0000 << 16)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn delays_saturate() {
        assert_eq!(to_65536ths(Duration::from_millis(1500)), 0x1_8000);
        assert_eq!(to_65536ths(Duration::from_nanos(15_258)), 0);
        assert_eq!(to_65536ths(Duration::from_nanos(15_259)), 1);
        assert_eq!(to_65536ths(Duration::from_secs(65_536)), u32::MAX);
        assert_eq!(from_65536ths(0x1_8000), Duration::from_millis(1500));
    }
}
