//! How long voices lay in the server's receive queue while it was under load, as it tells itself on `/metrics`.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::network::Network;
use super::subject::Running;

/// How many waited for so long, ever: the bounds in seconds with the counts up to each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Queue(Vec<(f64, f64)>);

/// Between two looks: pages are no newer before.
const INTERVAL: Duration = Duration::from_millis(500);

/// A page tells what was so long ago, in seconds, at most: workers publish once a second, and pages are kept for half of one.
const PAGE_AGE: f64 = 1.5;

/// What came between two moments, in seconds, and hardly anything that came before; `None` when nobody looked often enough.
pub(crate) fn between(queues: &[(f64, Queue)], from: f64, to: f64) -> Option<Queue> {
    let (began, before) = queues.iter().find(|(at, _)| *at >= from + PAGE_AGE)?;
    let (ended, after) = queues.iter().rfind(|(at, _)| *at <= to)?;
    (began < ended).then(|| after.since(before))
}

/// Looks again and again, and says when it asked, in seconds.
pub(crate) fn queues(
    running: &Running,
    network: &Network,
    began: Instant,
    is_over: impl Fn() -> bool,
) -> Result<Vec<(f64, Queue)>> {
    let mut queues = Vec::new();
    while !is_over() {
        let asked_at = began.elapsed().as_secs_f64();
        queues.push((asked_at, Queue::of(&running.metrics(network)?)));
        std::thread::sleep(INTERVAL);
    }
    Ok(queues)
}

impl Queue {
    /// Of all workers.
    fn of(page: &str) -> Queue {
        let mut counts = Vec::new();
        for line in page.lines() {
            let Some(line) = line.strip_prefix("gryt_sfu_receive_queue_seconds_bucket{") else { continue };
            let bound = line.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"')?.0.parse().ok());
            let count = line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok());
            let Some((bound, count)) = bound.zip(count) else { continue };
            match counts.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, sum)) => *sum += count,
                None => counts.push((bound, count)),
            }
        }
        Queue(counts)
    }

    /// What came since.
    pub(crate) fn since(&self, before: &Queue) -> Queue {
        let of = |bound: f64| before.0.iter().find(|(other, _)| *other == bound).map_or(0.0, |found| found.1);
        Queue(self.0.iter().map(|&(bound, count)| (bound, count - of(bound))).collect())
    }

    /// In ms, evenly within a bucket, as Prometheus takes it; not a number of nothing.
    pub(crate) fn quantile_ms(&self, part: f64) -> f64 {
        let rank = self.0.last().map_or(0.0, |(_, count)| count * part);
        let (mut lower, mut below) = (0.0, 0.0);
        for &(upper, count) in &self.0 {
            if count >= rank && count > below {
                let upper = if upper.is_finite() { upper } else { lower };
                return 1e3 * (lower + (upper - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (upper, count);
        }
        f64::NAN
    }
}

#[test]
fn quantiles_are_of_what_came_in_between_at_all_workers() {
    let page = |counts: [u32; 4]| {
        let [a, b, c, d] = counts;
        format!(
            "# TYPE gryt_sfu_receive_queue_seconds histogram\n\
             gryt_sfu_receive_queue_seconds_bucket{{worker=\"0\",le=\"0.001\"}} {a}\n\
             gryt_sfu_receive_queue_seconds_bucket{{le=\"+Inf\",worker=\"0\"}} {b}\n\
             gryt_sfu_receive_queue_seconds_bucket{{le=\"0.001\",worker=\"1\"}} {c}\n\
             gryt_sfu_receive_queue_seconds_bucket{{le=\"+Inf\",worker=\"1\"}} {d}\n\
             gryt_sfu_receive_queue_seconds_sum{{worker=\"1\"}} 5\n"
        )
    };
    let before = Queue::of(&page([100, 900, 0, 0]));
    let after = Queue::of(&page([130, 930, 30, 60]));
    assert_eq!(after.since(&before), Queue(vec![(0.001, 60.0), (f64::INFINITY, 90.0)]));
    let median = after.since(&before).quantile_ms(0.5);
    assert!((median - 0.75).abs() < 1e-9, "{median}");
    assert_eq!(after.since(&before).quantile_ms(0.99), 1.0, "beyond the last bound nobody knows");
    assert!(after.since(&after).quantile_ms(0.5).is_nan());
}

#[test]
fn what_a_page_may_hold_of_before_is_left_out() {
    let queue = |count| Queue(vec![(0.001, count)]);
    let looks =
        [(0.6, queue(10.0)), (2.4, queue(20.0)), (2.6, queue(30.0)), (4.9, queue(70.0)), (5.1, queue(99.0))];
    assert_eq!(between(&looks, 1.0, 5.0), Some(queue(40.0)));
    assert_eq!(between(&looks, 1.0, 2.7), None, "one look is none");
    assert_eq!(between(&[], 1.0, 5.0), None);
}
