//! What a media loop needs from the kernel, whichever way it is spoken to.

use std::io;
use std::time::Duration;

use super::socket::WorkerSockets;
use crate::packet::{Datagram, DropReason, Egress, Path};

/// Datagrams handed out between two waits, at most: what bounds the work of one wake-up.
pub const BATCH_LEN_MAX: usize = 1024;

/// Datagrams that leave in one send, at most. The kernel would take 64; the gain is in the first few.
pub const TRAIN_LEN_MAX: usize = 16;

/// A worker's sockets and its waker, behind one wait. Used in turns: [`Backend::wait`], then
/// [`Backend::next`] until it returns `None`.
pub trait Backend {
    /// Where the answers go.
    type Egress: Egress;

    /// What operators call it.
    const NAME: &str;

    /// Sends what is queued, then waits for a datagram, a wake-up or `timeout` (`None`: for ever).
    /// May return early with nothing at all.
    ///
    /// # Errors
    /// Only when the backend itself is lost; what happens to single datagrams is counted instead.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wake>;

    /// The next datagram of this wake-up, with the egress beside it; the previous one's buffer goes
    /// back. `None` when all are handled, or [`BATCH_LEN_MAX`] of them: then it is time to wait again.
    fn next(&mut self) -> Option<(Datagram<'_>, &mut Self::Egress)>;

    /// Where datagrams go that answer no other, such as those of a timer.
    fn egress(&mut self) -> &mut Self::Egress;

    /// The sockets it serves.
    fn sockets(&self) -> &WorkerSockets;

    /// Puts what was counted since the last call into `counters`, and takes up the memory that was there.
    fn swap_counters(&mut self, counters: &mut Counters);

    /// As [`Backend::swap_counters`], for those who ask now and then.
    fn take_counters(&mut self) -> Counters {
        let mut counters = Counters::default();
        self.swap_counters(&mut counters);
        counters
    }
}

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a wake-up may be put off for a larger batch (`BATCH_WAIT_US`); zero: not at all.
    pub batch_wait: Duration,
    /// Datagrams that can be under way from the kernel, at most: a power of two up to 2048. More wait in the
    /// socket's own buffer.
    pub buffer_count: u16,
    /// Several datagrams to one receiver may leave in one send.
    pub segmentation: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { batch_wait: Duration::ZERO, buffer_count: 512, segmentation: true }
    }
}

/// What a wait ended with, besides datagrams. Whether its time has passed is for the clock to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// Somebody called [`Waker::wake`](super::wake::Waker::wake): the queues are to be looked at.
    pub woken: bool,
}

/// Different receivers whose refused datagrams are told apart in one wake-up. Beyond that they are only counted.
const REFUSED_COUNT_MAX: usize = 64;

/// Datagrams to one receiver that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where they were to go.
    pub path: Path,
    /// Why they did not.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
}

/// What a backend counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that went no further, by `DropReason as usize`.
    pub drops: [u64; DropReason::COUNT],
    /// Whose those were that the kernel refused; empty while it refuses none.
    pub refused: Vec<Refused>,
    /// Datagrams handed out.
    pub datagrams_received: u64,
    /// Their payload bytes.
    pub bytes_received: u64,
    /// Datagrams handed to the kernel; those it refused are in `drops` besides.
    pub datagrams_sent: u64,
    /// Their payload bytes.
    pub bytes_sent: u64,
    /// Sends that carried them, by how many: fewer than datagrams, thanks to segmentation offload.
    pub trains: [u64; TRAIN_LEN_MAX + 1],
    /// Sends of several segments that the kernel refused as such; they went out again one by one.
    pub segmentation_refused: u64,
    /// Times the receive buffers ran out. Nothing is lost by that, the socket buffer holds the rest.
    pub receive_starved: u64,
    /// Errors that a receive ended with; it was begun again.
    pub receive_errors: u64,
    /// Datagrams that the kernel dropped because a socket's buffer was full.
    pub receive_overflows: u64,
    /// Times the kernel had no room for a completion and kept it back.
    pub completions_held_back: u64,
    /// System calls that submitted or waited.
    pub enters: u64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            drops: [0; DropReason::COUNT],
            refused: Vec::new(),
            datagrams_received: 0,
            bytes_received: 0,
            datagrams_sent: 0,
            bytes_sent: 0,
            trains: [0; TRAIN_LEN_MAX + 1],
            segmentation_refused: 0,
            receive_starved: 0,
            receive_errors: 0,
            receive_overflows: 0,
            completions_held_back: 0,
            enters: 0,
        }
    }
}

impl Counters {
    /// Begins anew, in the same memory.
    pub(super) fn reset(&mut self) {
        let mut refused = std::mem::take(&mut self.refused);
        refused.clear();
        *self = Counters { refused, ..Counters::default() };
    }

    /// Counts `count` datagrams dropped for `reason`.
    pub fn drop(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }

    /// Counts `count` datagrams along `path` that the kernel refused with `errno`.
    pub(super) fn refuse(&mut self, path: Path, errno: i32, count: u64) {
        let reason = send_drop_reason(errno);
        self.drop(reason, count);
        let same = |refused: &&mut Refused| refused.path == path && refused.reason == reason;
        if let Some(refused) = self.refused.iter_mut().find(same) {
            refused.count += count;
        } else if self.refused.len() < REFUSED_COUNT_MAX {
            self.refused.push(Refused { path, reason, count });
        }
    }

    /// Sends handed to the kernel.
    pub fn sends(&self) -> u64 {
        self.trains.iter().sum()
    }

    /// How many were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

/// The counter of a refused send.
pub(super) fn send_drop_reason(errno: i32) -> DropReason {
    match errno {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::SendWouldBlock,
        libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::ENETDOWN
        | libc::EHOSTDOWN
        | libc::ECONNREFUSED
        | libc::EPERM => DropReason::SendUnreachable,
        _ => DropReason::SendFailed,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::packet::SocketId;

    #[test]
    fn errors_of_a_send_have_three_counters() {
        assert_eq!(send_drop_reason(libc::ENOBUFS), DropReason::SendWouldBlock);
        assert_eq!(send_drop_reason(libc::EPERM), DropReason::SendUnreachable);
        assert_eq!(send_drop_reason(libc::EINVAL), DropReason::SendFailed);
    }

    #[test]
    fn refusals_are_told_apart_up_to_a_bound_and_counted_beyond() {
        let path = |port| Path {
            socket: SocketId(0),
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            local: [192, 0, 2, 2].into(),
        };
        let mut counters = Counters::default();
        for port in 1..=1000 {
            counters.refuse(path(port), libc::ENETUNREACH, 2);
            counters.refuse(path(port), libc::EAGAIN, 1);
        }
        counters.refuse(path(1), libc::EPERM, 3);
        assert_eq!(counters.dropped(DropReason::SendUnreachable), 2003);
        assert_eq!(counters.dropped(DropReason::SendWouldBlock), 1000);
        assert_eq!(counters.refused.len(), REFUSED_COUNT_MAX);
        let first = Refused { path: path(1), reason: DropReason::SendUnreachable, count: 5 };
        assert_eq!(counters.refused[0], first);
    }
}
