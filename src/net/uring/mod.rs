//! The media loop on io_uring: receive, send, time-out and wake-up of a worker are one ring on one
//! thread, and one system call submits what the last batch produced and waits for the next.
//!
//! Datagrams come by multishot `RECVMSG` into buffers that the kernel picks; they leave by `SENDMSG`,
//! several to one receiver in one send where their sizes allow (`UDP_SEGMENT`).
//!
//! Completions are only sorted while they are reaped, never acted upon. Memory is the kernel's or ours
//! by type: a receive buffer is a `buffers::Received` while it is ours, and send memory is written only
//! while the submission queue holds nothing that points there (see `net::outbox`).

mod backend;
mod buffers;
mod inbox;
mod op;
mod post;
mod ring;

pub use backend::Uring;
pub use post::{UringEgress, UringPost};
pub use ring::{Features, UringError, probe};
