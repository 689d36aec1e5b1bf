//! How messages reach the kernel by the ring: one submission each, all with the next system call.

use std::io;

use io_uring::{cqueue, opcode, squeue, types};

use super::inbox::Inbox;
use super::op::Op;
use super::ring::{Ring, SUBMISSION_COUNT};
use crate::net::backend::Counters;
use crate::net::outbox::{MESSAGE_COUNT, Outbox, Post, Posted, Refusal};
use crate::net::socket::SOCKET_COUNT_MAX;

/// The egress of a ring.
pub type UringEgress = Outbox<UringPost>;

// Receives and the waker find a place beside all messages.
const _: () = assert!(MESSAGE_COUNT + SOCKET_COUNT_MAX < SUBMISSION_COUNT as usize);

/// The ring, and what came in by it while it was asked about messages.
pub struct UringPost {
    pub(super) ring: Ring,
    pub(super) inbox: Inbox,
}

impl Post for UringPost {
    unsafe fn push(&mut self, message: Posted) {
        let op = Op::Send { message: message.message, generation: message.generation };
        let socket = types::Fixed(u32::from(message.socket.0));
        let entry = opcode::SendMsg::new(socket, message.header.as_ptr())
            .flags(libc::MSG_DONTWAIT as u32)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(op.to_user_data());
        // SAFETY: by the caller's word the message stays until the queue is empty, and the kernel needs it
        // no longer, since such a send is done when it was submitted.
        let is_queued = unsafe { self.ring.push(&entry) };
        assert!(is_queued, "the queue has an entry for each message");
    }

    fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(|_| ())
    }

    fn has_submitted_all(&mut self) -> bool {
        self.ring.has_submitted_all()
    }

    fn sort(&mut self, counters: &mut Counters, mut on_refusal: impl FnMut(&mut Counters, Refusal)) {
        if self.ring.holds_back_completions() {
            counters.completions_held_back += 1;
        }
        for entry in self.ring.completions() {
            match Op::from_user_data(entry.user_data()) {
                Some(Op::Receive(socket)) => self.inbox.sort_receive(socket, &entry, counters),
                Some(Op::Wake) => {
                    self.inbox.is_woken = true;
                    self.inbox.is_polling = cqueue::more(entry.flags());
                }
                Some(Op::Send { message, generation }) if entry.result() < 0 => {
                    on_refusal(counters, Refusal { message, generation, errno: -entry.result() });
                }
                Some(Op::Send { .. }) | None => {}
            }
        }
    }
}
