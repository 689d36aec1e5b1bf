//! What came in while nobody was looking.

use std::collections::VecDeque;

use io_uring::cqueue;

use super::buffers::Received;
use crate::net::backend::Counters;
use crate::net::socket::SOCKET_COUNT_MAX;
use crate::packet::SocketId;

/// Completions are sorted into it whenever there are some, and handled in the loop's turn.
pub(super) struct Inbox {
    /// Datagrams in the order of their arrival. Each has a buffer of its own, which bounds them.
    pub(super) received: VecDeque<Received>,
    /// The sockets that a receive is under way on.
    pub(super) is_receiving: [bool; SOCKET_COUNT_MAX],
    /// A receive ended with a datagram, as it does with an empty one: more may lie behind that.
    pub(super) is_cut_off: bool,
    /// Receives in a row that ended with an error and without a datagram.
    pub(super) failures: [u32; SOCKET_COUNT_MAX],
    /// The poll of the waker is under way.
    pub(super) is_polling: bool,
    /// The waker was used.
    pub(super) is_woken: bool,
}

impl Inbox {
    pub(super) fn new(buffer_count: u16) -> Inbox {
        Inbox {
            received: VecDeque::with_capacity(buffer_count.into()),
            is_receiving: [false; SOCKET_COUNT_MAX],
            is_cut_off: false,
            failures: [0; SOCKET_COUNT_MAX],
            is_polling: false,
            is_woken: false,
        }
    }

    /// Of a receive: a datagram, or the reason why there is none.
    pub(super) fn sort_receive(&mut self, socket: SocketId, entry: &cqueue::Entry, counters: &mut Counters) {
        let index = usize::from(socket.0);
        self.is_receiving[index] = cqueue::more(entry.flags());
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            self.failures[index] = 0;
            self.is_cut_off |= !self.is_receiving[index];
            self.received.push_back(Received::new(socket, buffer, entry.result().max(0) as usize));
        } else if entry.result() == -libc::ENOBUFS {
            counters.receive_starved += 1;
        } else if entry.result() < 0 {
            counters.receive_errors += 1;
            self.failures[index] = self.failures[index].saturating_add(1);
        }
    }
}
