//! How messages reach the kernel by `sendmmsg`: one call a socket, and one more after each message that is
//! refused.

use std::io;
use std::os::fd::RawFd;

use crate::net::backend::Counters;
use crate::net::outbox::{MESSAGE_COUNT, Outbox, Post, Posted, Refusal};

/// The egress of sockets without a ring.
pub type MmsgEgress = Outbox<MmsgPost>;

/// What is queued, socket by socket.
pub struct MmsgPost {
    lanes: Vec<Lane>,
    refusals: Vec<Refusal>,
    /// System calls made.
    pub(super) calls: u64,
}

/// What is queued for one socket.
struct Lane {
    fd: RawFd,
    headers: Vec<libc::mmsghdr>,
    /// Number and use of each.
    numbers: Vec<(u16, u32)>,
}

impl MmsgPost {
    /// For these sockets, in the order of their ids. They stay open as long as it is used.
    pub(super) fn new(fds: impl Iterator<Item = RawFd>) -> MmsgPost {
        let lane = |fd| Lane {
            fd,
            headers: Vec::with_capacity(MESSAGE_COUNT),
            numbers: Vec::with_capacity(MESSAGE_COUNT),
        };
        MmsgPost { lanes: fds.map(lane).collect(), refusals: Vec::with_capacity(MESSAGE_COUNT), calls: 0 }
    }
}

impl Post for MmsgPost {
    unsafe fn push(&mut self, message: Posted) {
        let lane = &mut self.lanes[usize::from(message.socket.0)];
        // SAFETY: a header by the caller's word.
        let msg_hdr = unsafe { message.header.read() };
        lane.headers.push(libc::mmsghdr { msg_hdr, msg_len: 0 });
        lane.numbers.push((message.message, message.generation));
    }

    /// Takes everything: a message leaves or is refused.
    fn submit(&mut self) -> io::Result<()> {
        for lane in &mut self.lanes {
            let mut done = 0;
            while done < lane.headers.len() {
                self.calls += 1;
                match send(lane.fd, &mut lane.headers[done..]) {
                    // With fewer than all the next one was refused, and the next call says why.
                    Ok(count) => done += count,
                    Err(errno) => {
                        let (message, generation) = lane.numbers[done];
                        self.refusals.push(Refusal { message, generation, errno });
                        done += 1;
                    }
                }
            }
            lane.headers.clear();
            lane.numbers.clear();
        }
        Ok(())
    }

    fn has_submitted_all(&mut self) -> bool {
        self.lanes.iter().all(|lane| lane.headers.is_empty())
    }

    fn sort(&mut self, counters: &mut Counters, mut on_refusal: impl FnMut(&mut Counters, Refusal)) {
        self.refusals.drain(..).for_each(|refusal| on_refusal(counters, refusal));
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
