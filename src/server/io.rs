//! Which way media passes between kernel and workers, and the runtime of control that goes with it.
//!
//! Where the kernel grants a ring everything is on rings. Where it refuses one (a seccomp filter, a sysctl, an
//! old kernel) both do without, and what runs on top is the same.

use std::fmt;
use std::io;

use tokio::task::LocalSet;

use crate::config::IoBackend;
use crate::net::mmsg;
use crate::net::uring::{self, UringError};

/// The way, with what this kernel can do on it.
#[derive(Debug)]
pub enum Io {
    /// One ring a thread.
    Uring(uring::Features),
    /// epoll, `recvmmsg` and `sendmmsg`.
    Mmsg {
        /// What it can do.
        features: mmsg::Features,
        /// Why it is not a ring, if one was tried.
        refused: Option<UringError>,
    },
}

impl Io {
    /// Tries what was asked for.
    ///
    /// # Errors
    /// When a ring was asked for by name and is refused.
    pub fn choose(wanted: IoBackend) -> Result<Io, UringError> {
        let without = |refused| Io::Mmsg { features: mmsg::probe(), refused };
        match wanted {
            IoBackend::Uring => uring::probe().map(Io::Uring),
            IoBackend::Mmsg => Ok(without(None)),
            IoBackend::Auto => Ok(uring::probe().map_or_else(|refused| without(Some(refused)), Io::Uring)),
        }
    }

    /// Runs control on the calling thread until `future` ends.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output> {
        match self {
            // Panics where there is no ring; there is one.
            Io::Uring(_) => Ok(tokio_uring::start(future)),
            Io::Mmsg { .. } => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(LocalSet::new().block_on(&runtime, future))
            }
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Io::Uring(features) => features.fmt(f),
            Io::Mmsg { features, .. } => features.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_without_a_ring_runs_local_tasks() {
        let io = Io::choose(IoBackend::Mmsg).unwrap();
        let answer = io.block_on(async {
            let local = std::rc::Rc::new(7);
            tokio::task::spawn_local(async move { *local }).await
        });
        assert_eq!(answer.unwrap().unwrap(), 7);
    }
}
