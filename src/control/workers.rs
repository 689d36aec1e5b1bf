//! The way to the workers: one bounded queue each, in order, nothing that carries state ever lost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crossbeam_channel::{Sender, TrySendError};

use crate::ids::WorkerId;
use crate::throttle::throttled;
use crate::worker::command::Command;

/// One worker as control sees it.
pub struct WorkerQueue {
    /// Where its commands go.
    pub commands: Sender<Command>,
    /// Wakes it; called after each command that was queued. Must not call back into [`Workers`].
    pub wake: Box<dyn Fn()>,
}

/// All workers' queues. Clones are the same queues: orders of all of control's parts to one worker
/// arrive in the order in which they were given.
#[derive(Clone)]
pub struct Workers(Rc<RefCell<Vec<Lane>>>);

struct Lane {
    queue: WorkerQueue,
    /// What did not fit, the oldest first. Nothing overtakes it.
    backlog: VecDeque<Command>,
    datagrams_dropped: u64,
    is_gone: bool,
}

impl Workers {
    /// Worker i is `queues[i]`.
    pub fn new(queues: Vec<WorkerQueue>) -> Workers {
        let lane = |queue| Lane { queue, backlog: VecDeque::new(), datagrams_dropped: 0, is_gone: false };
        Workers(Rc::new(RefCell::new(queues.into_iter().map(lane).collect())))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Queues a command. What does not fit is kept for [`Workers::retry`], but for DTLS datagrams: those
    /// may be lost like any datagram, and are counted.
    ///
    /// # Panics
    /// For a worker that does not exist.
    pub fn send(&self, worker: WorkerId, command: Command) {
        self.0.borrow_mut()[usize::from(worker.0)].send(command);
    }

    /// Tries again what did not fit. Returns whether everything has been queued now.
    pub fn retry(&self) -> bool {
        // Every lane is tried: one full queue must not hold up the others.
        let mut is_queued = true;
        for lane in self.0.borrow_mut().iter_mut() {
            is_queued &= lane.retry();
        }
        is_queued
    }

    /// Commands that wait for room in their queue, over all workers.
    pub fn backlog_len(&self) -> usize {
        self.0.borrow().iter().map(|lane| lane.backlog.len()).sum()
    }

    /// DTLS datagrams dropped because a queue was full, since the start.
    pub fn datagrams_dropped(&self) -> u64 {
        self.0.borrow().iter().map(|lane| lane.datagrams_dropped).sum()
    }
}

impl Lane {
    fn send(&mut self, command: Command) {
        self.retry();
        if let Some(command) = self.try_queue(command) {
            match command {
                Command::SendDtls { .. } => self.datagrams_dropped += 1,
                // Whoever asked hears nothing, and asks again.
                Command::Snapshot(_) => {}
                _ => {
                    self.backlog.push_back(command);
                    throttled!(warn, waiting = self.backlog.len(), "a worker is behind with its orders");
                }
            }
        }
    }

    fn retry(&mut self) -> bool {
        while let Some(command) = self.backlog.pop_front() {
            if let Some(command) = self.push(command) {
                self.backlog.push_front(command);
                return false;
            }
        }
        true
    }

    /// Returns the command when it has to wait.
    fn try_queue(&mut self, command: Command) -> Option<Command> {
        if self.backlog.is_empty() { self.push(command) } else { Some(command) }
    }

    fn push(&mut self, command: Command) -> Option<Command> {
        match self.queue.commands.try_send(command) {
            Ok(()) => (self.queue.wake)(),
            Err(TrySendError::Full(command)) => return Some(command),
            Err(TrySendError::Disconnected(_)) if self.is_gone => {}
            Err(TrySendError::Disconnected(_)) => {
                self.is_gone = true;
                tracing::error!("a worker has ended; its rooms are dead");
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bytes::Bytes;
    use crossbeam_channel::Receiver;

    use super::*;
    use crate::ids::{RoomId, TransportId};

    fn one_worker(queue_len: usize) -> (Workers, Receiver<Command>, Rc<Cell<usize>>) {
        let (commands, receiver) = crossbeam_channel::bounded(queue_len);
        let wakes = Rc::new(Cell::new(0));
        let wake = wakes.clone();
        let queue = WorkerQueue { commands, wake: Box::new(move || wake.set(wake.get() + 1)) };
        (Workers::new(vec![queue]), receiver, wakes)
    }

    fn rooms(receiver: &Receiver<Command>) -> Vec<u64> {
        let room = |command| match command {
            Command::AddRoom(room) => room.0,
            _ => panic!("only rooms were sent"),
        };
        receiver.try_iter().map(room).collect()
    }

    #[test]
    fn what_does_not_fit_waits_and_keeps_its_order() {
        let (workers, receiver, wakes) = one_worker(2);
        for room in 0..5 {
            workers.send(WorkerId(0), Command::AddRoom(RoomId(room)));
        }
        assert_eq!((workers.backlog_len(), wakes.get()), (3, 2));
        assert!(!workers.retry(), "the queue is still full");
        assert_eq!(rooms(&receiver), [0, 1]);
        workers.send(WorkerId(0), Command::AddRoom(RoomId(5)));
        assert_eq!(rooms(&receiver), [2, 3], "a later one does not overtake");
        assert!(workers.retry());
        assert_eq!(rooms(&receiver), [4, 5]);
        assert_eq!((workers.backlog_len(), wakes.get()), (0, 6));
    }

    #[test]
    fn a_full_queue_does_not_hold_up_another_worker() {
        let (commands, receivers): (Vec<_>, Vec<_>) =
            std::iter::repeat_with(|| crossbeam_channel::bounded(1)).take(2).unzip();
        let queue = |commands| WorkerQueue { commands, wake: Box::new(|| ()) };
        let workers = Workers::new(commands.into_iter().map(queue).collect());
        for worker in [0, 0, 1, 1] {
            workers.send(WorkerId(worker), Command::AddRoom(RoomId(0)));
        }
        assert_eq!(rooms(&receivers[1]), [0]);
        assert!(!workers.retry());
        assert_eq!(rooms(&receivers[1]), [0]);
    }

    #[test]
    fn datagrams_are_dropped_and_counted() {
        let (workers, receiver, _) = one_worker(1);
        workers.send(WorkerId(0), Command::AddRoom(RoomId(0)));
        let datagram = Bytes::from_static(&[22]);
        workers.send(WorkerId(0), Command::SendDtls { transport: TransportId(1), datagram });
        assert_eq!((workers.backlog_len(), workers.datagrams_dropped()), (0, 1));
        assert_eq!(rooms(&receiver), [0]);
    }

    #[test]
    fn a_dead_worker_keeps_nothing() {
        let (workers, receiver, wakes) = one_worker(1);
        drop(receiver);
        workers.send(WorkerId(0), Command::AddRoom(RoomId(0)));
        workers.send(WorkerId(0), Command::AddRoom(RoomId(1)));
        assert!(workers.retry());
        assert_eq!((workers.backlog_len(), wakes.get()), (0, 0));
    }
}
