//! What a worker asked of the kernel and did not get. It works all the same, and
//! [`self_check`](super::self_check) says what to do.

use std::io;

use crate::net::busy_poll::BusyPollError;

/// Refusals; none of them by default.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// To stay on its CPU.
    pub affinity: Option<io::Error>,
    /// Of `WORKER_SCHEDULING`.
    pub scheduling: Option<io::Error>,
    /// Of `BUSY_POLL_US`.
    pub busy_poll: Option<BusyPollError>,
}

impl Refused {
    /// What one of several workers was refused: they ask for the same, so the first refusal stands for all.
    pub(super) fn or(self, other: Refused) -> Refused {
        Refused {
            affinity: self.affinity.or(other.affinity),
            scheduling: self.scheduling.or(other.scheduling),
            busy_poll: self.busy_poll.or(other.busy_poll),
        }
    }
}
