//! Between kernel and bytes: sockets, rings, threads' places. Knows addresses and datagrams, nothing
//! of what is in them. One of the two rooms with `unsafe` in it; the other is `vector`.
//!
//! [`Backend`] is what a media loop needs from the kernel; [`uring`] is the one over io_uring, [`mmsg`] the
//! one for machines that refuse it. Everything here is counted ([`Counters`]) and nothing that a peer or the
//! network does ends a loop.

pub mod backend;
pub mod busy_poll;
pub mod interfaces;
pub mod limits;
pub mod mmsg;
mod msghdr;
mod outbox;
mod post;
mod slab;
pub mod socket;
mod steer;
pub mod thread;
mod train;
pub mod uring;
pub mod wake;

pub use backend::{Backend, Counters, Options, Wake};
