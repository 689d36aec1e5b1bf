//! What the front door tells about the house: readiness and counters.

use std::cell::RefCell;
use std::rc::Rc;

use super::handshakes::Handshakes;
use crate::http::Status;
use crate::ids::WorkerId;
use crate::metrics::counters::WorkerCounters;
use crate::metrics::exposition::{ControlCounters, Snapshot};
use crate::signalling::Signalling;

/// The latest of everything that is counted. Clones are the same.
#[derive(Clone)]
pub(super) struct House {
    workers: Rc<RefCell<Vec<WorkerCounters>>>,
    signalling: Signalling,
    handshakes: Handshakes,
}

impl House {
    pub(super) fn new(worker_count: usize, signalling: Signalling, handshakes: Handshakes) -> House {
        let workers = Rc::new(RefCell::new(vec![WorkerCounters::default(); worker_count]));
        House { workers, signalling, handshakes }
    }

    /// A worker published its counters.
    pub(super) fn take(&self, worker: WorkerId, counters: WorkerCounters) {
        self.workers.borrow_mut()[usize::from(worker.0)] = counters;
    }
}

impl Status for House {
    fn ready(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn snapshot(&self) -> Snapshot {
        let counts = self.signalling.counts();
        let (handshakes_completed, handshakes_failed) = self.handshakes.counts();
        let control = ControlCounters {
            rooms: counts.rooms as u64,
            participants: counts.participants as u64,
            joins: counts.joins,
            joins_refused: counts.joins_refused,
            handshakes: self.handshakes.unfinished_count() as u64,
            handshakes_completed,
            handshakes_failed,
        };
        Snapshot { workers: self.workers.borrow().clone(), control, ..Snapshot::default() }
    }
}
