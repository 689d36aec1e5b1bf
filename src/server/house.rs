//! What the front door tells about the house: life, readiness and counters.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::handshakes::Handshakes;
use super::logging;
use crate::control::workers::Workers;
use crate::http::Status;
use crate::ids::WorkerId;
use crate::metrics::counters::WorkerCounters;
use crate::metrics::exposition::{ControlCounters, Snapshot};
use crate::signalling::Signalling;
use crate::time::Now;

/// A worker publishes its counters every second, whatever else it does. This long without, and it hangs.
const WORKER_SILENCE_MAX: Duration = Duration::from_secs(5);
/// This long without, and it will not come to itself: whoever asks whether the server lives is to start it anew, although
/// that ends the calls of the other workers too.
const WORKER_DEAD_AFTER: Duration = Duration::from_secs(30);

const SILENT: &str = "a worker does not answer";

/// The latest of everything that is counted. Clones are the same.
#[derive(Clone)]
pub(super) struct House {
    /// In seconds of Unix time.
    started_at: u64,
    workers: Rc<RefCell<Vec<WorkerCounters>>>,
    /// When each worker was heard of last.
    heard_at: Rc<RefCell<Vec<Instant>>>,
    queues: Workers,
    signalling: Signalling,
    handshakes: Handshakes,
}

impl House {
    pub(super) fn new(
        now: Instant,
        queues: Workers,
        signalling: Signalling,
        handshakes: Handshakes,
    ) -> House {
        let workers = Rc::new(RefCell::new(vec![WorkerCounters::default(); queues.count()]));
        let heard_at = Rc::new(RefCell::new(vec![now; queues.count()]));
        let started_at = Now::read().ntp.unix_seconds().into();
        House { started_at, workers, heard_at, queues, signalling, handshakes }
    }

    /// Every worker was heard of lately, whether the server drains or not.
    pub(super) fn workers_answer(&self) -> bool {
        self.workers_answer_within(WORKER_SILENCE_MAX)
    }

    fn workers_answer_within(&self, silence_max: Duration) -> bool {
        let now = Now::read().instant;
        self.heard_at.borrow().iter().all(|heard_at| now.saturating_duration_since(*heard_at) <= silence_max)
    }

    /// A worker published its counters.
    pub(super) fn take(&self, now: Instant, worker: WorkerId, counters: WorkerCounters) {
        self.heard_at.borrow_mut()[usize::from(worker.0)] = now;
        self.workers.borrow_mut()[usize::from(worker.0)] = counters;
    }
}

impl Status for House {
    fn alive(&self) -> Result<(), &'static str> {
        if self.workers_answer_within(WORKER_DEAD_AFTER) { Ok(()) } else { Err(SILENT) }
    }

    fn ready(&self) -> Result<(), &'static str> {
        if self.is_draining() {
            Err("draining")
        } else if self.workers_answer() {
            Ok(())
        } else {
            Err(SILENT)
        }
    }

    fn is_draining(&self) -> bool {
        self.signalling.is_draining()
    }

    fn snapshot(&self) -> Snapshot {
        let counts = self.signalling.counts();
        let (handshakes_completed, handshakes_failed) = self.handshakes.counts();
        let control = ControlCounters {
            started_at: self.started_at,
            rooms: counts.rooms as u64,
            participants: counts.participants as u64,
            participants_lost: counts.participants_lost as u64,
            commands_waiting: counts.commands_waiting as u64,
            datagrams_dropped: self.queues.datagrams_dropped(),
            joins: counts.joins,
            resumes: counts.resumes,
            joins_refused: counts.joins_refused,
            joins_unauthorized: counts.joins_unauthorized,
            joins_rate_limited: counts.joins_rate_limited,
            media_failed: counts.media_failed,
            media_unreached: counts.media_unreached,
            messages_bad: counts.messages_bad,
            messages_unknown: counts.messages_unknown,
            clients_slow: counts.clients_slow,
            handshakes: self.handshakes.unfinished_count() as u64,
            handshakes_completed,
            handshakes_failed,
            panics: logging::panic_total(),
            log_lines_lost: logging::lost_total(),
            handshake_time: self.handshakes.durations(),
            join_to_media: self.signalling.join_to_media(),
        };
        Snapshot { workers: self.workers.borrow().clone(), control, ..Snapshot::default() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::key_log::KeyLog;
    use super::*;
    use crate::config::Config;
    use crate::control::workers::WorkerQueue;
    use crate::dtls::endpoint::Acceptor;
    use crate::dtls::identity::Identity;
    use crate::ice::credentials::Secret;
    use crate::signalling::{IceServers, Settings};

    /// Of two workers that were heard of last at this moment.
    fn house(heard_at: Instant) -> (House, Signalling) {
        let queue = |_| WorkerQueue { commands: crossbeam_channel::bounded(1).0, wake: Box::new(|| ()) };
        house_of(heard_at, Workers::new((0..2).map(queue).collect()))
    }

    /// Of workers that are nothing but their queues.
    pub(in super::super) fn house_of(heard_at: Instant, workers: Workers) -> (House, Signalling) {
        let config = Config::parse(1, |_| None).unwrap();
        let identity = Identity::generate().unwrap();
        let settings = Settings {
            audio_slots: 1,
            max_connections: 1,
            room_span_at: 1,
            resume_window: Duration::ZERO,
            secret: Secret::random(),
            fingerprint: identity.fingerprint(),
            candidates: vec![Rc::from([]); workers.count()],
            ice_servers: IceServers::new(&config, |_| 0),
            verifier: None,
        };
        let handshakes =
            Handshakes::new(Acceptor::new(identity), workers.clone(), KeyLog::start(None).unwrap());
        let signalling = Signalling::new(Now::read().instant, settings, workers.clone(), handshakes.clone());
        (House::new(heard_at, workers, signalling.clone(), handshakes), signalling)
    }

    #[test]
    fn a_worker_that_falls_silent_keeps_others_away_and_is_given_up_after_a_while() {
        let now = Now::read().instant;
        let state = |house: &House| (house.workers_answer(), house.ready(), house.alive());
        assert_eq!(state(&house(now).0), (true, Ok(()), Ok(())));
        let (silent, _) = house(now - WORKER_SILENCE_MAX - Duration::from_secs(1));
        silent.take(Now::read().instant, WorkerId(1), WorkerCounters::default());
        assert_eq!(state(&silent), (false, Err(SILENT), Ok(())), "one is enough");
        let (dead, _) = house(now - WORKER_DEAD_AFTER - Duration::from_secs(1));
        dead.take(Now::read().instant, WorkerId(1), WorkerCounters::default());
        assert_eq!(state(&dead), (false, Err(SILENT), Err(SILENT)));
        dead.take(Now::read().instant, WorkerId(0), WorkerCounters::default());
        assert_eq!(state(&dead), (true, Ok(()), Ok(())), "it came to itself");
    }

    #[test]
    fn a_server_that_drains_lives_as_long_as_its_workers_answer() {
        let now = Now::read().instant;
        let (draining, signalling) = house(now);
        signalling.drain(now, Duration::from_secs(60));
        assert_eq!((draining.workers_answer(), draining.alive()), (true, Ok(())));
        assert_eq!(draining.ready(), Err("draining"));
        let (hung, signalling) = house(now - WORKER_DEAD_AFTER - Duration::from_secs(1));
        signalling.drain(now, Duration::from_secs(60));
        assert_eq!((hung.workers_answer(), hung.alive()), (false, Err(SILENT)));
    }
}
