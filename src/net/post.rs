//! How messages reach the kernel: `sendmmsg`, one call a socket, and one more after each message that is refused.
//! Inline (`MSG_DONTWAIT`): the kernel is done with a message and its bytes when the call has returned.

use std::io;
use std::os::fd::RawFd;

use super::outbox::MESSAGE_COUNT;
use super::socket::set_may_fragment;
use crate::packet::SocketId;

/// What is queued, socket by socket.
pub(super) struct Post {
    lanes: Vec<Lane>,
    refusals: Vec<Refusal>,
    /// System calls made.
    pub(super) calls: u64,
}

/// What is queued for one socket.
struct Lane {
    fd: RawFd,
    headers: Vec<libc::mmsghdr>,
    /// The number of each.
    numbers: Vec<u16>,
}

/// A message to be sent.
#[derive(Clone, Copy)]
pub(super) struct Posted {
    /// In the kernel's layout; points to the rest of it.
    pub(super) header: libc::msghdr,
    /// What it leaves by.
    pub(super) socket: SocketId,
    /// Its number.
    pub(super) message: u16,
}

/// A message that the kernel refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    /// Its number.
    pub(super) message: u16,
    /// Why.
    pub(super) errno: i32,
}

impl Post {
    /// For these sockets, in the order of their ids. They stay open as long as it is used.
    pub(super) fn new(fds: impl Iterator<Item = RawFd>) -> Post {
        let lane = |fd| Lane {
            fd,
            headers: Vec::with_capacity(MESSAGE_COUNT),
            numbers: Vec::with_capacity(MESSAGE_COUNT),
        };
        Post { lanes: fds.map(lane).collect(), refusals: Vec::with_capacity(MESSAGE_COUNT), calls: 0 }
    }

    /// Queues a message.
    ///
    /// # Safety
    /// What the header points to stays, unchanged, until [`Post::submit`].
    pub(super) unsafe fn push(&mut self, message: Posted) {
        let lane = &mut self.lanes[usize::from(message.socket.0)];
        lane.headers.push(libc::mmsghdr { msg_hdr: message.header, msg_len: 0 });
        lane.numbers.push(message.message);
    }

    /// From now on what is longer than its path's MTU leaves by `socket` in fragments, or not at all.
    pub(super) fn set_may_fragment(&mut self, socket: SocketId, may_fragment: bool) {
        self.calls += 1;
        // Refused: then so is what is too long, and counted.
        let _ = set_may_fragment(self.lanes[usize::from(socket.0)].fd, may_fragment);
    }

    /// Hands over everything that is queued: a message leaves, or is among the refusals that come back.
    pub(super) fn submit(&mut self) -> std::vec::Drain<'_, Refusal> {
        for lane in &mut self.lanes {
            let mut done = 0;
            while done < lane.headers.len() {
                self.calls += 1;
                match send(lane.fd, &mut lane.headers[done..]) {
                    // With fewer than all the next one was refused, and the next call says why.
                    Ok(count) => done += count,
                    Err(errno) => {
                        self.refusals.push(Refusal { message: lane.numbers[done], errno });
                        done += 1;
                    }
                }
            }
            lane.headers.clear();
            lane.numbers.clear();
        }
        self.refusals.drain(..)
    }
}

/// How many of the messages left, at least one, or why the first did not.
fn send(fd: RawFd, messages: &mut [libc::mmsghdr]) -> Result<usize, i32> {
    let (first, count) = (messages.as_mut_ptr(), messages.len() as u32);
    // SAFETY: `count` valid messages; what they point to stays until they are taken.
    let sent = unsafe { libc::sendmmsg(fd, first, count, libc::MSG_DONTWAIT) };
    match usize::try_from(sent) {
        Ok(sent) if sent > 0 => Ok(sent),
        Ok(_) => Err(libc::EAGAIN),
        Err(_) => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
    }
}
