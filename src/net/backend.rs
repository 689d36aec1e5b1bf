//! What a media loop needs from the kernel, whichever way it is spoken to.

use std::io;
use std::time::{Duration, Instant};
use std::vec::Drain;

use super::busy_poll::BusyPollError;
use super::socket::WorkerSockets;
use crate::packet::{Coalescing, Datagram, DropReason, Egress, Path};
use crate::time::Now;

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

    /// Hands over to the kernel what waits in the egress, as the next wait would.
    fn submit(&mut self);

    /// From now on a wait looks into the card's queue by itself for `time` before it sleeps.
    ///
    /// # Errors
    /// What of it the kernel refused; the rest is in use, and it waits as before for what is not.
    fn set_busy_poll(&mut self, time: Duration) -> Result<(), BusyPollError>;

    /// Takes the place of [`Options::batch_wait`], from the next wait on.
    fn set_batch_wait(&mut self, batch_wait: Duration);

    /// The sockets it serves.
    fn sockets(&self) -> &WorkerSockets;

    /// What was counted since the last call.
    fn take_counters(&mut self) -> Counters;

    /// Whose datagrams those were that the kernel has refused since the last call. They are among the
    /// [`Counters::drops`], all of them; here are as many as have a place.
    fn take_unsent(&mut self) -> Drain<'_, Unsent>;
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
    /// When it let more datagrams come, for a larger batch.
    pub coalescing: Option<Coalescing>,
}

/// What a backend counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that went no further, by `DropReason as usize`.
    pub drops: [u64; DropReason::COUNT],
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
    /// Counts `count` datagrams dropped for `reason`.
    pub fn drop(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
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

/// Datagrams to one receiver that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Where they were to go.
    pub path: Path,
    /// Why they did not.
    pub reason: DropReason,
    /// How many.
    pub count: u64,
}

/// Receivers whose refused datagrams are told apart at a time.
const UNSENT_COUNT_MAX: usize = 64;

/// What [`Backend::take_unsent`] gives out. Its memory stays the same.
#[derive(Debug)]
pub(super) struct UnsentList(Vec<Unsent>);

impl UnsentList {
    pub(super) fn new() -> UnsentList {
        UnsentList(Vec::with_capacity(UNSENT_COUNT_MAX))
    }

    /// Has no effect when there is no place.
    pub(super) fn add(&mut self, path: Path, reason: DropReason, count: u64) {
        let same = |unsent: &&mut Unsent| unsent.path == path && unsent.reason == reason;
        if let Some(unsent) = self.0.iter_mut().find(same) {
            unsent.count += count;
        } else if self.0.len() < UNSENT_COUNT_MAX {
            self.0.push(Unsent { path, reason, count });
        }
    }

    pub(super) fn take(&mut self) -> Drain<'_, Unsent> {
        self.0.drain(..)
    }
}

/// From now on for `batch_wait`, where what began at `began` may last until `timeout` (`None`: for ever); `None` when that
/// is over.
pub(super) fn coalescing(
    batch_wait: Duration,
    timeout: Option<Duration>,
    began: Instant,
) -> Option<Coalescing> {
    let from = Now::read().instant;
    let left = timeout.map_or(batch_wait, |timeout| timeout.saturating_sub(from.duration_since(began)));
    let until = from + batch_wait.min(left);
    (from < until).then_some(Coalescing { from, until })
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
    fn receivers_are_told_apart_up_to_a_bound() {
        let path = |port| Path {
            socket: SocketId(0),
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            local: [192, 0, 2, 2].into(),
        };
        let mut list = UnsentList::new();
        let memory = list.0.as_ptr();
        for port in 1..=1000 {
            list.add(path(port), DropReason::SendUnreachable, 2);
            list.add(path(port), DropReason::SendWouldBlock, 1);
        }
        list.add(path(1), DropReason::SendUnreachable, 3);
        let all: Vec<Unsent> = list.take().collect();
        assert_eq!(all.len(), UNSENT_COUNT_MAX);
        assert_eq!(all[0], Unsent { path: path(1), reason: DropReason::SendUnreachable, count: 5 });
        assert_eq!(list.take().count(), 0);
        assert_eq!(list.0.as_ptr(), memory);
    }
}
