//! What passes between a worker and one peer: plain fields on the packet path, rates once a second.

use std::mem;
use std::time::{Duration, Instant};

use crate::packet::DropReason;
use crate::vector;

/// Counted since the transport was made. What comes in counts once it has verified. What each packet changes comes first,
/// in one cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Traffic {
    /// RTP packets from the peer.
    pub rtp_in: u64,
    /// RTP packets sealed for it.
    pub rtp_out: u64,
    /// Bytes of RTP and RTCP from it (UDP payload).
    pub bytes_in: u64,
    /// Bytes of RTP and RTCP to it (UDP payload).
    pub bytes_out: u64,
    /// When RTP or RTCP came last.
    pub last_in: Option<Instant>,
    /// From its latest report on a slot (RFC 3550 §6.4.1).
    pub round_trip: Option<Duration>,
    /// Of the last whole interval.
    pub rates: Rates,
    rated_at: Instant,
    rated: [u64; 4],
    drops: [u64; DropReason::COUNT],
}

const _: () = assert!(mem::offset_of!(Traffic, round_trip) <= vector::LINE_LEN);

/// How much a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// RTP packets from the peer.
    pub packets_in: u32,
    /// RTP packets to it.
    pub packets_out: u32,
    /// Bits of RTP and RTCP from it.
    pub bits_in: u64,
    /// Bits of RTP and RTCP to it.
    pub bits_out: u64,
}

impl Traffic {
    pub(super) fn new(now: Instant) -> Traffic {
        Traffic {
            rtp_in: 0,
            rtp_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            last_in: None,
            round_trip: None,
            rates: Rates::default(),
            rated_at: now,
            rated: [0; 4],
            drops: [0; DropReason::COUNT],
        }
    }

    pub(super) fn drop_one(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(super) fn drop_many(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }

    /// How many were dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Ends an interval of rates.
    pub(super) fn rate(&mut self, now: Instant) {
        let elapsed_ms = now.duration_since(self.rated_at).as_millis().max(1) as u64;
        let totals = [self.rtp_in, self.rtp_out, self.bytes_in, self.bytes_out];
        let [packets_in, packets_out, bytes_in, bytes_out] =
            std::array::from_fn(|at| (totals[at] - self.rated[at]) * 1_000);
        self.rates = Rates {
            packets_in: (packets_in / elapsed_ms) as u32,
            packets_out: (packets_out / elapsed_ms) as u32,
            bits_in: bytes_in * 8 / elapsed_ms,
            bits_out: bytes_out * 8 / elapsed_ms,
        };
        (self.rated_at, self.rated) = (now, totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_interval_alone() {
        let t0 = crate::time::Now::read().instant;
        let mut traffic = Traffic::new(t0);
        (traffic.rtp_in, traffic.bytes_in) = (100, 10_000);
        traffic.rate(t0 + Duration::from_secs(2));
        assert_eq!((traffic.rates.packets_in, traffic.rates.bits_in), (50, 40_000));
        traffic.rtp_in += 25;
        traffic.rate(t0 + Duration::from_millis(2_500));
        assert_eq!((traffic.rates.packets_in, traffic.rates.bits_in), (50, 0));
    }
}
