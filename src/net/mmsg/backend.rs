//! Sockets and waker behind epoll as a [`Backend`]: one wait, then one datagram after the other.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;
use std::vec::Drain;

use super::epoll::{Epoll, is_readable_within};
use super::inlet::{Brought, Inlet};
use crate::net::backend::{BATCH_LEN_MAX, Backend, Counters, Options, Unsent, Wake, coalescing};
use crate::net::busy_poll::BusyPollError;
use crate::net::limits::kernel_release;
use crate::net::outbox::Outbox;
use crate::net::socket::{SOCKET_COUNT_MAX, WorkerSockets, has_segmentation};
use crate::net::wake::WakeReader;
use crate::packet::{Datagram, SocketId};
use crate::time::Now;

/// A receive that failed as often without a datagram in between is tried again only every
/// [`FAILURE_PAUSE`]: a socket that is lost must not eat the core.
const FAILURES_IN_A_ROW_MAX: u32 = 8;
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// What epoll calls the waker; sockets are called by their index.
const WAKER: u64 = u64::MAX;

/// What the kernel offers; its `Display` is one line for the start banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// As `uname -r` has it.
    pub kernel: String,
    /// One send of several datagrams (Linux 4.18).
    pub has_segmentation: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no = if self.has_segmentation { "" } else { "no " };
        write!(f, "recvmmsg and sendmmsg on Linux {}: epoll, {no}segmentation", self.kernel)
    }
}

/// Says what this kernel can do without a ring. Every kernel can do something.
pub fn probe() -> Features {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    Features {
        kernel: kernel_release(),
        has_segmentation: socket.is_ok_and(|socket| has_segmentation(socket.as_raw_fd())),
    }
}

/// A worker's sockets and its waker without a ring. Stays on the thread that made it.
pub struct Mmsg {
    /// Dropped before the sockets by which its last messages leave.
    egress: Outbox,
    inlet: Inlet,
    epoll: Epoll,
    /// Sockets that have something, as far as is known.
    is_ready: [bool; SOCKET_COUNT_MAX],
    /// The socket received from last: the next one has its turn first.
    turn: usize,
    /// Receives in a row that failed, of each socket.
    failures: [u32; SOCKET_COUNT_MAX],
    /// Datagrams that may still be handed out before the next wait.
    budget: usize,
    sockets: WorkerSockets,
    waker: WakeReader,
    batch_wait: Duration,
    /// System calls made that are not the egress's.
    calls: u64,
    /// Of the sockets, as counted last.
    overflows: u32,
}

impl Mmsg {
    /// Takes the sockets.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub fn new(sockets: WorkerSockets, waker: WakeReader, options: Options) -> io::Result<Mmsg> {
        let has_segmentation = sockets.has_segmentation().map(|has| has && options.segmentation);
        let epoll = Epoll::new()?;
        for (index, fd) in sockets.fds().enumerate() {
            epoll.add(fd, index as u64)?;
        }
        epoll.add(waker.as_raw_fd(), WAKER)?;
        Ok(Mmsg {
            egress: Outbox::new(&sockets, has_segmentation)?,
            inlet: Inlet::new(options.buffer_count)?,
            epoll,
            is_ready: [false; SOCKET_COUNT_MAX],
            turn: 0,
            failures: [0; SOCKET_COUNT_MAX],
            budget: 0,
            sockets,
            waker,
            batch_wait: options.batch_wait,
            calls: 0,
            overflows: 0,
        })
    }

    /// Waits for the sockets and the waker; `true` when it was the waker.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.calls += 1;
        let mut is_woken = false;
        self.is_ready = [false; SOCKET_COUNT_MAX];
        for token in self.epoll.wait(timeout)? {
            match self.is_ready.get_mut(token as usize) {
                Some(is_ready) => *is_ready = true,
                None => is_woken |= token == WAKER,
            }
        }
        Ok(is_woken)
    }

    /// As [`Mmsg::poll`]. Sockets that keep failing are left out of the wait and tried after it.
    fn poll_with_pause(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let failing = self.failures.map(|count| count > FAILURES_IN_A_ROW_MAX);
        if !failing.contains(&true) {
            return self.poll(timeout);
        }
        let lost = || self.sockets.fds().enumerate().filter(|(index, _)| failing[*index]);
        // Errors of these are none of the loop's: the socket is lost already, and the others go on.
        lost().for_each(|(_, fd)| drop(self.epoll.remove(fd)));
        let fds: Vec<(usize, RawFd)> = lost().collect();
        let is_woken = self.poll(Some(timeout.map_or(FAILURE_PAUSE, |timeout| timeout.min(FAILURE_PAUSE))));
        for (index, fd) in fds {
            let _ = self.epoll.add(fd, index as u64);
            self.is_ready[index] = true;
        }
        is_woken
    }

    /// Receives from the next socket that has something; `false` when none has.
    fn receive(&mut self) -> bool {
        let count = self.sockets.sockets().len();
        for offset in 1..=count {
            let index = (self.turn + offset) % count;
            if !self.is_ready[index] {
                continue;
            }
            self.turn = index;
            self.calls += 1;
            let fd = self.sockets.sockets()[index].as_raw_fd();
            let brought = self.inlet.fill(SocketId(index as u8), fd);
            self.is_ready[index] = brought == Brought::Full;
            match brought {
                Brought::Full => self.egress.counters.receive_starved += 1,
                Brought::Last => {}
                Brought::Error => {
                    self.egress.counters.receive_errors += 1;
                    self.failures[index] = self.failures[index].saturating_add(1);
                }
            }
            if self.inlet.has_some() {
                self.failures[index] = 0;
                return true;
            }
        }
        false
    }
}

impl Backend for Mmsg {
    type Egress = Outbox;

    const NAME: &str = "mmsg";

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wake> {
        self.egress.flush();
        let timeout = if self.inlet.has_some() { Some(Duration::ZERO) } else { timeout };
        let began = (!self.batch_wait.is_zero()).then(|| Now::read().instant);
        let mut woken = self.poll_with_pause(timeout)?;
        let began = began.filter(|_| !woken && self.is_ready.contains(&true));
        let coalescing = began.and_then(|began| coalescing(self.batch_wait, timeout, began));
        if let Some(coalescing) = &coalescing {
            // Nothing can wait for a number of datagrams here, so it is the whole time, unless somebody wakes.
            self.calls += 1;
            woken = is_readable_within(self.waker.as_raw_fd(), coalescing.duration());
        }
        self.budget = BATCH_LEN_MAX;
        if woken {
            self.waker.clear();
        }
        Ok(Wake { woken, coalescing })
    }

    fn next(&mut self) -> Option<(Datagram<'_>, &mut Outbox)> {
        let (index, (path, arrived)) = loop {
            self.budget = self.budget.checked_sub(1)?;
            let index = match self.inlet.take() {
                Some(index) => index,
                None if self.receive() => self.inlet.take()?,
                None => return None,
            };
            match self.inlet.origin_of(index) {
                Ok(origin) => break (index, origin),
                Err(reason) => self.egress.counters.drop(reason, 1),
            }
        };
        let bytes = self.inlet.payload_mut(index);
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
        self.epoll.set_busy_poll(time).map_err(BusyPollError::Epoll)?;
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
        counters.enters = std::mem::take(&mut self.calls) + self.egress.take_calls();
        let overflows = self.sockets.overflows();
        counters.receive_overflows = overflows.wrapping_sub(self.overflows).into();
        self.overflows = overflows;
        counters
    }

    fn take_unsent(&mut self) -> Drain<'_, Unsent> {
        self.egress.unsent.take()
    }
}
