//! One set of counters a worker: plain fields, added up by nobody else.

use super::histogram::Histogram;
use crate::packet::DropReason;

/// Nanoseconds: 25 µs to 0.1 s, each twice the one before.
pub const LATENCY_BOUNDS: &[u64; 13] = &[
    25_000,
    50_000,
    100_000,
    200_000,
    400_000,
    800_000,
    1_600_000,
    3_200_000,
    6_400_000,
    12_800_000,
    25_600_000,
    51_200_000,
    102_400_000,
];
/// Nanoseconds: 50 µs to 0.1 s.
pub const QUEUE_BOUNDS: &[u64; 11] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
];
/// Nanoseconds: 5 ms to 10 s, each twice the one before.
pub const WAIT_BOUNDS: &[u64; 12] = &[
    5_000_000,
    10_000_000,
    20_000_000,
    40_000_000,
    80_000_000,
    160_000_000,
    320_000_000,
    640_000_000,
    1_280_000_000,
    2_560_000_000,
    5_120_000_000,
    10_240_000_000,
];
/// Datagrams of a wake-up.
pub const BATCH_BOUNDS: &[u64; 11] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// Datagrams of a send.
pub const TRAIN_BOUNDS: &[u64; 8] = &[1, 2, 3, 4, 6, 8, 12, 16];

/// Cumulative since the worker's start. Gauges are said to be so.
#[derive(Clone, Debug)]
pub struct WorkerCounters {
    /// How it speaks to the kernel; `None` until its loop runs.
    pub backend: Option<&'static str>,
    /// Datagrams taken from the kernel.
    pub datagrams_in: u64,
    /// Their bytes (UDP payload).
    pub bytes_in: u64,
    /// Datagrams handed to the kernel.
    pub datagrams_out: u64,
    /// Their bytes (UDP payload).
    pub bytes_out: u64,
    /// Bytes of RTP padding among them.
    pub padding_out: u64,
    /// RTP packets that verified.
    pub rtp_in: u64,
    /// RTP packets sealed for a receiver.
    pub rtp_out: u64,
    /// Datagrams handed to the worker that owns them.
    pub relayed_out: u64,
    /// RTP packets relayed to other workers that hold a part of their room, one a part.
    pub voices_relayed_out: u64,
    /// RTP packets relayed by other workers, those dropped included.
    pub voices_relayed_in: u64,
    /// Binding requests answered.
    pub stun_answered: u64,
    /// Wake-ups of the loop.
    pub wakeups: u64,
    /// Nanoseconds spent between wake-up and the next wait.
    pub busy_ns: u64,
    /// Nanoseconds of CPU time of its thread.
    pub cpu_ns: u64,
    /// Nanoseconds that its thread waited for a CPU.
    pub cpu_wait_ns: u64,
    /// Nanoseconds that it was overloaded, and packets waited for others therefore.
    pub overload_ns: u64,
    /// System calls of the ring.
    pub enters: u64,
    /// Sends handed to the kernel; several datagrams to one receiver may leave in one.
    pub sends: u64,
    /// Sends of several datagrams that the kernel refused as such; they went out one by one.
    pub segmentation_refused: u64,
    /// Times the receive buffers ran out.
    pub receive_starved: u64,
    /// Errors that a receive ended with.
    pub receive_errors: u64,
    /// Datagrams that the kernel dropped because a socket's buffer was full.
    pub receive_overflows: u64,
    /// Times the kernel kept a completion back for want of room.
    pub completions_held_back: u64,
    /// Nanoseconds from the kernel's receive timestamp to the wake-up that found it, less the coalescing before that,
    /// of each voice packet of a known 5-tuple that the kernel handed to this worker.
    pub receive_queue: Histogram<11>,
    /// Nanoseconds from the kernel's receive timestamp to submission, of each voice packet that came.
    pub forwarding_latency: Histogram<13>,
    /// Datagrams that a wake-up found, where there were any.
    pub batches: Histogram<11>,
    /// Datagrams that left in one send.
    pub trains: Histogram<8>,
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
            backend: None,
            datagrams_in: 0,
            bytes_in: 0,
            datagrams_out: 0,
            bytes_out: 0,
            padding_out: 0,
            rtp_in: 0,
            rtp_out: 0,
            relayed_out: 0,
            voices_relayed_out: 0,
            voices_relayed_in: 0,
            stun_answered: 0,
            wakeups: 0,
            busy_ns: 0,
            cpu_ns: 0,
            cpu_wait_ns: 0,
            overload_ns: 0,
            enters: 0,
            sends: 0,
            segmentation_refused: 0,
            receive_starved: 0,
            receive_errors: 0,
            receive_overflows: 0,
            completions_held_back: 0,
            receive_queue: Histogram::new(QUEUE_BOUNDS),
            forwarding_latency: Histogram::new(LATENCY_BOUNDS),
            batches: Histogram::new(BATCH_BOUNDS),
            trains: Histogram::new(TRAIN_BOUNDS),
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
