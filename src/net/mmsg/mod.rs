//! The media loop without a ring, for machines that refuse one: epoll over the sockets and the waker,
//! `recvmmsg` and `sendmmsg`.
//!
//! Datagrams come several a call into a few fixed buffers, each of which is handled before the next call; so
//! what is worked on stays in the cache however much is waiting. They leave as on a ring: several to one
//! receiver in one message where their sizes allow (`UDP_SEGMENT`), and all messages of a socket in one call.

mod backend;
mod epoll;
mod inlet;

pub use backend::{Features, Mmsg, probe};
