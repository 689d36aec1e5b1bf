//! The ring as a [`Backend`]: one wait, then one datagram after the other.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use std::vec::Drain;

use io_uring::{cqueue, opcode, types};

use super::buffers::{BufferRing, Received};
use super::inbox::Inbox;
use super::op::Op;
use super::ring::{BUFFER_GROUP, COMPLETION_COUNT, Patience, Ring, SUBMISSION_COUNT, UringError};
use crate::net::backend::{BATCH_LEN_MAX, Backend, Counters, Options, Unsent, Wake};
use crate::net::busy_poll::BusyPollError;
use crate::net::outbox::Outbox;
use crate::net::socket::{SOCKET_COUNT_MAX, WorkerSockets};
use crate::net::wake::WakeReader;
use crate::packet::{Datagram, SocketId};

/// Receive buffers, at most.
const BUFFER_COUNT_MAX: u16 = 2048;

/// A receive that failed as often without a datagram in between is tried again only every
/// [`FAILURE_PAUSE`]: a socket that is lost must not eat the core.
const FAILURES_IN_A_ROW_MAX: u32 = 8;
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// Calls that complete a batch, at most. The kernel takes some 32 datagrams of a socket at a time.
const COLLECT_COUNT_MAX: usize = BATCH_LEN_MAX / 16;

/// With [`Options::batch_wait`]: where as many are there already, nothing is waited for. Once the worker sleeps it sleeps to
/// the end, as the kernel then counts receives, and not what they bring.
const BATCH_LEN_WANTED: u32 = 32;

// Nothing is ever held back: buffers that completed, and the end of each multishot.
const _: () = assert!(BUFFER_COUNT_MAX as usize + SUBMISSION_COUNT as usize <= COMPLETION_COUNT as usize);
// Receives and the waker.
const _: () = assert!(SOCKET_COUNT_MAX < SUBMISSION_COUNT as usize);

/// A worker's sockets and its waker on one io_uring. Stays on the thread that made it.
pub struct Uring {
    /// Dropped before the sockets by which its last messages leave.
    egress: Outbox,
    /// Dropped before the buffers that it writes to.
    ring: Ring,
    inbox: Inbox,
    buffers: BufferRing,
    /// The buffer of the datagram handed out last.
    lent: Option<Received>,
    /// Datagrams that may still be handed out before the next wait.
    budget: usize,
    sockets: WorkerSockets,
    waker: WakeReader,
    batch_wait: Duration,
    /// Of the sockets, as counted last.
    overflows: u32,
}

impl Uring {
    /// Makes the ring of the calling thread. [`probe`](super::probe) first: what fails here fails for good.
    ///
    /// # Errors
    /// When there is no ring to be had, and which kind of "no" it is.
    ///
    /// # Panics
    /// When `buffer_count` is no power of two up to 2048, or the sockets are more than a worker may have.
    pub fn new(sockets: WorkerSockets, waker: WakeReader, options: Options) -> Result<Uring, UringError> {
        assert!(options.buffer_count.is_power_of_two() && options.buffer_count <= BUFFER_COUNT_MAX);
        let ring = Ring::new()?;
        let mut files: Vec<RawFd> = sockets.fds().collect();
        let has_segmentation = sockets.has_segmentation().map(|has| has && options.segmentation);
        files.push(waker.as_raw_fd());
        ring.register_files(&files)?;
        let buffers = BufferRing::new(&ring, options.buffer_count)?;
        Ok(Uring {
            ring,
            inbox: Inbox::new(options.buffer_count),
            egress: Outbox::new(&sockets, has_segmentation)?,
            buffers,
            lent: None,
            budget: 0,
            sockets,
            waker,
            batch_wait: options.batch_wait,
            overflows: 0,
        })
    }

    fn give_back_lent(&mut self) {
        if let Some(received) = self.lent.take() {
            self.buffers.give_back(received);
        }
    }

    /// Puts what completed where the loop finds it in its turn.
    fn sort(&mut self) {
        if self.ring.holds_back_completions() {
            self.egress.counters.completions_held_back += 1;
        }
        for entry in self.ring.completions() {
            match Op::from_user_data(entry.user_data()) {
                Some(Op::Receive(socket)) => {
                    self.inbox.sort_receive(socket, &entry, &mut self.egress.counters);
                }
                Some(Op::Wake) => {
                    self.inbox.is_woken = true;
                    self.inbox.is_polling = cqueue::more(entry.flags());
                }
                None => {}
            }
        }
    }

    /// Queues a receive on every socket that has none, and the poll of the waker.
    fn arm(&mut self) -> Armed {
        let mut armed = Armed::default();
        self.inbox.is_cut_off = false;
        for index in 0..self.sockets.sockets().len() {
            if self.inbox.is_receiving[index] {
                continue;
            }
            if !may_try_again(&mut self.inbox.failures[index]) {
                armed.is_pausing = true;
                continue;
            }
            armed.has_begun = true;
            let socket = SocketId(index as u8);
            let receive =
                opcode::RecvMsgMulti::new(types::Fixed(index as u32), self.buffers.header(), BUFFER_GROUP)
                    .build()
                    .user_data(Op::Receive(socket).to_user_data());
            // SAFETY: the header lives as long as the ring, and buffers are the kernel's to pick.
            self.inbox.is_receiving[index] = unsafe { self.ring.push(&receive) };
        }
        if !self.inbox.is_polling {
            let file = types::Fixed(self.sockets.sockets().len() as u32);
            let poll = opcode::PollAdd::new(file, libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(Op::Wake.to_user_data());
            // SAFETY: points to nothing.
            self.inbox.is_polling = unsafe { self.ring.push(&poll) };
        }
        armed
    }
}

/// What [`Uring::arm`] did.
#[derive(Default)]
struct Armed {
    /// A receive begins.
    has_begun: bool,
    /// One is left out until later, because it keeps failing.
    is_pausing: bool,
}

impl Backend for Uring {
    type Egress = Outbox;

    const NAME: &str = "uring";

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wake> {
        self.give_back_lent();
        self.egress.flush();
        let armed = self.arm();
        let sooner = if !self.inbox.received.is_empty() || self.inbox.is_woken {
            Some(Duration::ZERO)
        } else {
            armed.is_pausing.then_some(FAILURE_PAUSE)
        };
        let timeout = match (sooner, timeout) {
            (Some(sooner), Some(timeout)) => Some(sooner.min(timeout)),
            (sooner, timeout) => sooner.or(timeout),
        };
        // What just begins may end at once, as it does with an empty datagram, and then nobody would listen meanwhile.
        let batch_wait = if armed.has_begun { Duration::ZERO } else { self.batch_wait };
        let patience = Patience { timeout, batch_wait, batch_len: BATCH_LEN_WANTED };
        let (_, coalescing) = self.ring.wait(patience)?;
        self.sort();
        // The kernel stops after a few dozen datagrams once there is one, and at each empty one; the rest of the batch is
        // wanted too.
        for _ in 0..COLLECT_COUNT_MAX {
            let so_far = self.inbox.received.len();
            if so_far >= BATCH_LEN_MAX || !(self.inbox.is_cut_off || self.ring.has_task_work()) {
                break;
            }
            if self.inbox.is_cut_off {
                self.arm();
            }
            self.ring.collect()?;
            self.sort();
            if self.inbox.received.len() == so_far {
                // The flag may outlive its work: the kernel raises it after it has queued work, which may be done by
                // then.
                break;
            }
        }
        self.budget = BATCH_LEN_MAX;
        let woken = std::mem::take(&mut self.inbox.is_woken);
        if woken {
            self.waker.acknowledge();
        }
        Ok(Wake { woken, coalescing })
    }

    fn next(&mut self) -> Option<(Datagram<'_>, &mut Outbox)> {
        self.give_back_lent();
        let (received, (path, arrived)) = loop {
            self.budget = self.budget.checked_sub(1)?;
            let received = self.inbox.received.pop_front()?;
            match self.buffers.origin_of(&received) {
                Ok(origin) => break (received, origin),
                Err(reason) => {
                    self.egress.counters.drop(reason, 1);
                    self.buffers.give_back(received);
                }
            }
        };
        let bytes = self.buffers.payload_mut(self.lent.insert(received));
        self.egress.counters.datagrams_received += 1;
        self.egress.counters.bytes_received += bytes.len() as u64;
        Some((Datagram { path, arrived, bytes }, &mut self.egress))
    }

    fn egress(&mut self) -> &mut Outbox {
        &mut self.egress
    }

    fn submit(&mut self) {
        self.egress.flush();
    }

    fn set_busy_poll(&mut self, time: Duration) -> Result<(), BusyPollError> {
        let sockets = self.sockets.set_busy_poll(time);
        self.ring.register_busy_poll(time).map_err(BusyPollError::Ring)?;
        sockets
    }

    fn set_batch_wait(&mut self, batch_wait: Duration) {
        self.batch_wait = batch_wait;
    }

    fn sockets(&self) -> &WorkerSockets {
        &self.sockets
    }

    fn take_counters(&mut self) -> Counters {
        let mut counters = std::mem::take(&mut self.egress.counters);
        counters.enters = std::mem::take(&mut self.ring.enters) + self.egress.take_calls();
        let overflows = self.sockets.overflows();
        counters.receive_overflows = overflows.wrapping_sub(self.overflows).into();
        self.overflows = overflows;
        counters
    }

    fn take_unsent(&mut self) -> Drain<'_, Unsent> {
        self.egress.unsent.take()
    }
}

/// Every attempt at first; from the ninth failure in a row on every second, with a pause in between.
fn may_try_again(failures: &mut u32) -> bool {
    let may = *failures <= FAILURES_IN_A_ROW_MAX;
    *failures = (*failures).min(FAILURES_IN_A_ROW_MAX);
    may
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.ring.cancel_all();
        self.sort();
        if self.inbox.is_receiving.contains(&true) {
            // The kernel did not say that it is done with the buffers, so they stay.
            self.buffers.leak();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_that_keeps_failing_pauses_every_other_time() {
        let mut failures = 0;
        let mut tries = Vec::new();
        for _ in 0..13 {
            tries.push(may_try_again(&mut failures));
            failures += u32::from(tries[tries.len() - 1]);
        }
        let expected = [true; 9].into_iter().chain([false, true, false, true]);
        assert_eq!(tries, expected.collect::<Vec<_>>());
    }
}
