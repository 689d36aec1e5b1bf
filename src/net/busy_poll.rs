//! Busy polling: a wait that looks into the network card's queue by itself for a while before it sleeps, instead
//! of being woken by an interrupt.
//!
//! Both halves are needed. The socket is asked for it (`SO_BUSY_POLL`), and so is what waits for several
//! sockets: the ring (`IORING_REGISTER_NAPI`) or epoll (`EPIOCSPARAMS`). Cards that have no such queue, loopback among
//! them, are waited for as ever.

use std::io;

/// What of it the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum BusyPollError {
    /// A kernel built without, or one that asks for `CAP_NET_ADMIN`.
    #[error("SO_BUSY_POLL: {0}")]
    Socket(io::Error),
    /// The card goes on with its interrupts meanwhile: without `CAP_NET_ADMIN` they are not for us to hold off.
    #[error("SO_PREFER_BUSY_POLL: {0}")]
    Preference(io::Error),
    /// Linux before 6.9.
    #[error("IORING_REGISTER_NAPI: {0}")]
    Ring(io::Error),
    /// Linux before 6.9.
    #[error("EPIOCSPARAMS: {0}")]
    Epoll(io::Error),
}
