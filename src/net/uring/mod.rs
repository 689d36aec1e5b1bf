//! The media loop on io_uring: receive, time-out and wake-up of a worker are one ring on one thread, and one
//! system call waits for all of them.
//!
//! Datagrams come by multishot `RECVMSG` into buffers that the kernel picks. They leave by `sendmmsg` as without a
//! ring (see `net::outbox`): a submission for each is some 60 ns dearer than a message of that call, whatever
//! the batch, as the kernel makes a request of it first.
//!
//! Completions are only sorted while they are reaped, never acted upon. Memory is the kernel's or ours
//! by type: a receive buffer is a `buffers::Received` while it is ours.

mod backend;
mod buffers;
mod inbox;
mod op;
mod ring;

pub use backend::Uring;
pub use ring::{Features, UringError, probe};
