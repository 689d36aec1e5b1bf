//! One set of counters a worker: plain fields, added up by nobody else.

use crate::packet::DropReason;

/// Cumulative since the worker's start. Gauges are said to be so.
#[derive(Clone, Debug)]
pub struct WorkerCounters {
    /// Datagrams taken from the kernel.
    pub datagrams_in: u64,
    /// Their bytes (UDP payload).
    pub bytes_in: u64,
    /// Datagrams handed to the kernel.
    pub datagrams_out: u64,
    /// Their bytes (UDP payload).
    pub bytes_out: u64,
    /// RTP packets that verified.
    pub rtp_in: u64,
    /// RTP packets sealed for a receiver.
    pub rtp_out: u64,
    /// Datagrams handed to the worker that owns them.
    pub relayed_out: u64,
    /// Binding requests answered.
    pub stun_answered: u64,
    /// Wake-ups of the loop.
    pub wakeups: u64,
    /// Nanoseconds spent between wake-up and the next wait.
    pub busy_ns: u64,
    /// Gauge: transports.
    pub transports: u64,
    /// Gauge: rooms.
    pub rooms: u64,
    /// Gauge: published tracks.
    pub tracks: u64,
    /// Gauge: slots.
    pub slots: u64,
    drops: [u64; DropReason::COUNT],
}

impl Default for WorkerCounters {
    fn default() -> WorkerCounters {
        WorkerCounters {
            datagrams_in: 0,
            bytes_in: 0,
            datagrams_out: 0,
            bytes_out: 0,
            rtp_in: 0,
            rtp_out: 0,
            relayed_out: 0,
            stun_answered: 0,
            wakeups: 0,
            busy_ns: 0,
            transports: 0,
            rooms: 0,
            tracks: 0,
            slots: 0,
            drops: [0; DropReason::COUNT],
        }
    }
}

impl WorkerCounters {
    /// Counts a drop.
    pub fn drop_one(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Counts several drops.
    pub fn drop_many(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }

    /// How many were dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}
