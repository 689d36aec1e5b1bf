//! What the front door tells about the house: readiness and counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::handshakes::Handshakes;
use crate::http::Status;
use crate::ids::WorkerId;
use crate::metrics::counters::WorkerCounters;
use crate::metrics::exposition::{ControlCounters, Snapshot};
use crate::signalling::Signalling;
use crate::time::Now;

/// A worker publishes its counters every second, whatever else it does. This long without, and it hangs.
const WORKER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// The latest of everything that is counted. Clones are the same.
#[derive(Clone)]
pub(super) struct House {
    workers: Rc<RefCell<Vec<WorkerCounters>>>,
    /// When each worker was heard of last.
    heard_at: Rc<RefCell<Vec<Instant>>>,
    signalling: Signalling,
    handshakes: Handshakes,
}

impl House {
    pub(super) fn new(
        now: Instant,
        worker_count: usize,
        signalling: Signalling,
        handshakes: Handshakes,
    ) -> House {
        let workers = Rc::new(RefCell::new(vec![WorkerCounters::default(); worker_count]));
        let heard_at = Rc::new(RefCell::new(vec![now; worker_count]));
        House { workers, heard_at, signalling, handshakes }
    }

    /// A worker published its counters.
    pub(super) fn take(&self, now: Instant, worker: WorkerId, counters: WorkerCounters) {
        self.heard_at.borrow_mut()[usize::from(worker.0)] = now;
        self.workers.borrow_mut()[usize::from(worker.0)] = counters;
    }
}

impl Status for House {
    fn ready(&self) -> Result<(), &'static str> {
        let now = Now::read().instant;
        let is_silent = |heard_at: &Instant| now.saturating_duration_since(*heard_at) > WORKER_SILENCE_MAX;
        if self.is_draining() {
            Err("draining")
        } else if self.heard_at.borrow().iter().any(is_silent) {
            Err("a worker does not answer")
        } else {
            Ok(())
        }
    }

    fn is_draining(&self) -> bool {
        self.signalling.is_draining()
    }

    fn snapshot(&self) -> Snapshot {
        let counts = self.signalling.counts();
        let (handshakes_completed, handshakes_failed) = self.handshakes.counts();
        let control = ControlCounters {
            rooms: counts.rooms as u64,
            participants: counts.participants as u64,
            joins: counts.joins,
            joins_refused: counts.joins_refused,
            joins_unauthorized: counts.joins_unauthorized,
            media_unreached: counts.media_unreached,
            handshakes: self.handshakes.unfinished_count() as u64,
            handshakes_completed,
            handshakes_failed,
            panics: counts.panics,
            handshake_time: self.handshakes.durations(),
            join_to_media: self.signalling.join_to_media(),
        };
        Snapshot { workers: self.workers.borrow().clone(), control, ..Snapshot::default() }
    }
}
