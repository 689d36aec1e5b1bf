//! On which worker a room begins, and a member of it is put: by measured load, and by what was put there since.
//!
//! Who is there stays where it is: only those who come can be spread.

use std::time::{Duration, Instant};

use crate::ids::{WorkerId, WorkerSet};

/// Millionths of a CPU.
type Share = u32;

/// One CPU.
const WHOLE: Share = 1_000_000;
/// What a member is taken to need until its worker's load shows it: to hear two voices.
const EXPECTED: Share = WHOLE / 1_000;
/// Loads that differ by less are alike: they change by as much from second to second.
const STEP: Share = WHOLE / 32;
/// A worker that is busier takes nobody in whom another can take.
const BUSY: Share = WHOLE * 3 / 4;
/// Two measurements that are closer together say nothing.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How busy the workers are.
#[derive(Debug)]
pub struct Placement {
    span_at: usize,
    workers: Vec<Load>,
}

#[derive(Clone, Debug, Default)]
struct Load {
    /// CPU time over the last interval, smoothed.
    measured: Share,
    /// Of those who came lately.
    expected: Share,
    members: usize,
    latest: Option<(Instant, Duration)>,
}

impl Load {
    fn share(&self) -> Share {
        self.measured.saturating_add(self.expected)
    }

    /// In coarse steps, so that among workers that are equally busy the members decide.
    fn rank(&self) -> (Share, usize) {
        (self.share() / STEP, self.members)
    }
}

impl Placement {
    /// For `worker_count` workers; a worker with `span_at` members of a room takes no more of them while another can.
    pub fn new(worker_count: usize, span_at: usize) -> Placement {
        Placement { span_at, workers: vec![Load::default(); worker_count] }
    }

    /// A worker's thread has used this much CPU time since its start.
    pub fn measure(&mut self, now: Instant, worker: WorkerId, cpu_time: Duration) {
        let load = &mut self.workers[usize::from(worker.0)];
        if let Some((at, before)) = load.latest {
            let elapsed = now.saturating_duration_since(at);
            if elapsed < INTERVAL_MIN {
                return;
            }
            let used = cpu_time.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
            let share = (used.min(1.0) * f64::from(WHOLE)) as Share;
            load.measured = (load.measured + share) / 2;
            // Whoever came is seen a little more with each measurement.
            load.expected /= 2;
        }
        load.latest = Some((now, cpu_time));
    }

    /// Where a new room begins: on the least busy worker; of equals, on that with the fewest members, and then the first.
    pub fn of_room(&self) -> WorkerId {
        self.least_busy(|_| true).unwrap_or(WorkerId(0))
    }

    /// Where a new member of a room is put, which has so many members on these workers: where the room is already, unless
    /// all of those have enough of it, or are too busy, and another has clearly less to do.
    pub fn of_member(&self, parts: &[(WorkerId, usize)]) -> WorkerId {
        let held: WorkerSet = parts.iter().map(|(worker, _)| *worker).collect();
        let enough: WorkerSet =
            parts.iter().filter(|(_, members)| *members >= self.span_at).map(|(worker, _)| *worker).collect();
        let takes = |worker: &WorkerId| !enough.contains(*worker) && self.load(*worker).share() < BUSY;
        if let Some(worker) = self.least_busy(|worker| held.contains(*worker) && takes(worker)) {
            return worker;
        }
        let Some(here) = self.least_busy(|worker| held.contains(*worker)) else { return self.of_room() };
        let elsewhere = self.least_busy(|worker| !held.contains(*worker));
        let pays = |there: &WorkerId| {
            // Each part more is a copy more of each packet.
            let (there, here) = (self.load(*there), self.load(here));
            there.share() < BUSY && (enough == held || there.share() + STEP < here.share())
        };
        elsewhere.filter(pays).unwrap_or(here)
    }

    /// Somebody was put there.
    pub fn add(&mut self, worker: WorkerId) {
        let load = &mut self.workers[usize::from(worker.0)];
        load.members += 1;
        load.expected = load.expected.saturating_add(EXPECTED);
    }

    /// Somebody left.
    pub fn remove(&mut self, worker: WorkerId) {
        let load = &mut self.workers[usize::from(worker.0)];
        load.members = load.members.saturating_sub(1);
    }

    /// How many members a worker has.
    pub fn member_count(&self, worker: WorkerId) -> usize {
        self.load(worker).members
    }

    fn load(&self, worker: WorkerId) -> &Load {
        &self.workers[usize::from(worker.0)]
    }

    fn least_busy(&self, may: impl Fn(&WorkerId) -> bool) -> Option<WorkerId> {
        // Registry has checked that there are no more workers than ids.
        let all = (0..self.workers.len()).map(|index| WorkerId(index as u8));
        all.filter(may).min_by_key(|worker| self.load(*worker).rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Workers that are this busy, in percent, for long enough to be believed.
    fn busy(span_at: usize, percent: &[u64]) -> Placement {
        let mut placement = Placement::new(percent.len(), span_at);
        let start = crate::time::Now::read().instant;
        for second in 0..20_u32 {
            measure(&mut placement, start + SECOND * second, percent, second);
        }
        placement
    }

    fn measure(placement: &mut Placement, now: Instant, percent: &[u64], second: u32) {
        for (index, percent) in percent.iter().enumerate() {
            placement.measure(now, WorkerId(index as u8), Duration::from_millis(10 * percent) * second);
        }
    }

    #[test]
    fn a_room_begins_where_least_is_done() {
        assert_eq!(busy(9, &[40, 10, 30]).of_room(), WorkerId(1));
        assert_eq!(busy(9, &[1, 0, 2]).of_room(), WorkerId(0), "alike");
        let mut placement = busy(9, &[1, 0, 2]);
        [0, 1, 0].map(WorkerId).into_iter().for_each(|worker| placement.add(worker));
        assert_eq!(placement.of_room(), WorkerId(2), "the fewest members");
        placement.remove(WorkerId(0));
        placement.remove(WorkerId(0));
        assert_eq!((placement.of_room(), placement.member_count(WorkerId(0))), (WorkerId(0), 0));
    }

    #[test]
    fn a_burst_is_spread_before_it_can_be_measured_and_forgotten_afterwards() {
        let mut placement = busy(9, &[10, 0]);
        let mut count = [0; 2];
        for _ in 0..400 {
            let worker = placement.of_room();
            placement.add(worker);
            count[usize::from(worker.0)] += 1;
        }
        assert!((230..=270).contains(&count[1]), "{count:?}: a tenth of a CPU is a hundred members");
        assert!(placement.load(WorkerId(1)).expected > WHOLE / 5);
        let later = crate::time::Now::read().instant + SECOND * 60;
        for second in 0..20 {
            measure(&mut placement, later + SECOND * second, &[0, 50], 1_000 + second);
        }
        assert_eq!(placement.load(WorkerId(1)).expected, 0);
        assert_eq!(placement.of_room(), WorkerId(0));
    }

    #[test]
    fn a_member_goes_where_its_room_is_until_that_has_enough() {
        let placement = busy(3, &[40, 0, 0]);
        assert_eq!(placement.of_member(&[(WorkerId(0), 2)]), WorkerId(0), "one part is best");
        assert_eq!(placement.of_member(&[(WorkerId(0), 3)]), WorkerId(1));
        assert_eq!(placement.of_member(&[(WorkerId(0), 3), (WorkerId(1), 1)]), WorkerId(1));
        assert_eq!(placement.of_member(&[(WorkerId(0), 2), (WorkerId(1), 3)]), WorkerId(0));
        assert_eq!(placement.of_member(&[(WorkerId(0), 3), (WorkerId(1), 3)]), WorkerId(2));
        let all = [(WorkerId(0), 3), (WorkerId(1), 3), (WorkerId(2), 3)];
        assert_eq!(placement.of_member(&all), WorkerId(1), "nobody is left: the least busy");
        assert_eq!(busy(3, &[40]).of_member(&[(WorkerId(0), 9)]), WorkerId(0));
    }

    #[test]
    fn a_busy_worker_is_relieved_where_that_pays() {
        let room = [(WorkerId(0), 2)];
        assert_eq!(busy(9, &[80, 20]).of_member(&room), WorkerId(1));
        assert_eq!(busy(9, &[70, 20]).of_member(&room), WorkerId(0), "it can do it alone");
        assert_eq!(busy(9, &[80, 79]).of_member(&room), WorkerId(0), "the other is as busy");
        assert_eq!(busy(2, &[20, 80]).of_member(&room), WorkerId(0), "enough, but the other is busy");
        // What came since the last measurement counts as well.
        let mut placement = busy(999, &[50, 0]);
        (0..300).for_each(|_| placement.add(WorkerId(0)));
        assert_eq!(placement.of_member(&[(WorkerId(0), 300)]), WorkerId(1));
    }

    #[test]
    fn two_measurements_at_once_and_a_clock_that_went_back_say_nothing() {
        let now = crate::time::Now::read().instant;
        let mut placement = Placement::new(1, 9);
        placement.measure(now, WorkerId(0), SECOND);
        placement.measure(now, WorkerId(0), SECOND * 2);
        assert_eq!(placement.load(WorkerId(0)).measured, 0);
        placement.measure(now + SECOND, WorkerId(0), Duration::ZERO);
        assert_eq!(placement.load(WorkerId(0)).measured, 0);
        placement.measure(now + SECOND * 2, WorkerId(0), SECOND * 9);
        assert_eq!(placement.load(WorkerId(0)).measured, WHOLE / 2, "a CPU at most");
    }
}
