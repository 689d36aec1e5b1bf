//! Whose turn it is to begin what takes control's time, and not little of it: so many a second, one after the other, and
//! addresses by turns.
//!
//! Invariant: of each address one at most stands in the line, and the others behind him. Whoever comes waits for those who
//! come from elsewhere, once for each address, and not for as many as one of them has sent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use governor::clock::{Clock, MonotonicClock};
use governor::{DefaultDirectRateLimiter, RateLimiter};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::rate::quota;
use crate::config::Rate;
use crate::crowd::key;

/// Everybody's turns.
pub(super) struct Pace {
    bucket: DefaultDirectRateLimiter,
    /// First come, first served.
    line: Mutex<()>,
    /// Of each address, or /64, from which somebody waits.
    lanes: RefCell<BTreeMap<IpAddr, Lane>>,
}

type Lane = Rc<Mutex<()>>;

impl Pace {
    pub(super) fn new(rate: Rate) -> Pace {
        Pace { bucket: RateLimiter::direct(quota(rate)), line: Mutex::default(), lanes: RefCell::default() }
    }

    /// Waits until somebody from there may begin.
    pub(super) async fn turn(&self, from: IpAddr) {
        let place = Place::new(self, from);
        let _first_of_his_own = place.lane.lock().await;
        let _first_of_all = self.line.lock().await;
        while let Err(not_until) = self.bucket.check() {
            sleep(not_until.wait_time_from(MonotonicClock.now())).await;
        }
        // The next one has to wait for that: between two of them whoever else is ready has his turn.
        yield_now().await;
    }
}

/// Somebody who waits, counted by his address's lane: the last one takes it out of the table.
struct Place<'a> {
    pace: &'a Pace,
    from: IpAddr,
    lane: Lane,
}

impl<'a> Place<'a> {
    fn new(pace: &'a Pace, from: IpAddr) -> Place<'a> {
        let from = key(from);
        let lane = Rc::clone(pace.lanes.borrow_mut().entry(from).or_default());
        Place { pace, from, lane }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // This one, and the table's.
        if Rc::strong_count(&self.lane) == 2 {
            self.pace.lanes.borrow_mut().remove(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use tokio::task::{JoinHandle, LocalSet};

    use super::super::Limits;
    use super::*;
    use crate::time::Now;

    fn pace(requests: u32, window: Duration) -> Rc<Pace> {
        Rc::new(Pace::new(Rate { requests: NonZeroU32::new(requests).unwrap(), window }))
    }

    /// Addresses are numbers here, and written down by who has had his turn.
    fn come(pace: &Rc<Pace>, from: u32, turns: &Rc<RefCell<Vec<u32>>>) -> JoinHandle<()> {
        let (pace, turns) = (Rc::clone(pace), Rc::clone(turns));
        tokio::task::spawn_local(async move {
            pace.turn(Ipv4Addr::from_bits(from).into()).await;
            turns.borrow_mut().push(from);
        })
    }

    #[test]
    fn all_who_can_wait_have_their_turn_before_they_are_too_slow() {
        let patience = Limits::default().header_timeout;
        for count in [1, 256, 1_000, 5_000, 10_000, 200_000] {
            let Rate { requests, window } = Limits::handshakes_for(count);
            assert_eq!(requests.get() as usize, count, "after a restart");
            assert!(2 * window <= patience || count > 5_000, "{window:?}");
            let rate = f64::from(requests.get()) / window.as_secs_f64();
            assert!((400.0..1_000.1).contains(&rate), "{rate} a second");
        }
    }

    #[tokio::test]
    async fn so_many_at_once_and_then_evenly() {
        let run = async {
            let (pace, turns) = (pace(10, Duration::from_millis(200)), Rc::default());
            let begun = Now::read().instant;
            let crowd: Vec<_> = (0..20).map(|from| come(&pace, from, &turns)).collect();
            for it in crowd {
                it.await.unwrap();
            }
            assert!(
                begun.elapsed() >= Duration::from_millis(200),
                "ten at 20 ms each: {:?}",
                begun.elapsed()
            );
            assert!(turns.borrow().iter().copied().eq(0..20), "who came first was first");
        };
        LocalSet::new().run_until(run).await;
    }

    #[tokio::test]
    async fn addresses_take_turns_and_who_goes_holds_up_nobody() {
        let run = async {
            let (pace, turns) = (pace(1, Duration::from_millis(2)), Rc::default());
            let mut crowd: Vec<_> = (0..40).map(|_| come(&pace, 1, &turns)).collect();
            crowd.extend([2, 3, 2, 3].map(|from| come(&pace, from, &turns)));
            yield_now().await;
            assert_eq!(pace.lanes.borrow().len(), 3);
            let (gone, stayed): (Vec<_>, Vec<_>) =
                crowd.into_iter().enumerate().partition(|(number, _)| (10..35).contains(number));
            gone.iter().for_each(|(_, it)| it.abort());
            for (_, it) in stayed {
                it.await.unwrap();
            }
            assert_eq!(turns.borrow()[..7], [1, 2, 3, 1, 2, 3, 1]);
            assert_eq!(turns.borrow().len(), 19);
            assert!(pace.lanes.borrow().is_empty(), "nobody waits");
        };
        LocalSet::new().run_until(run).await;
    }

    /// However many come at once, and however many may.
    #[tokio::test]
    async fn between_two_of_them_others_have_their_turn() {
        let run = async {
            let (pace, turns) = (pace(1_000, Duration::from_millis(1)), Rc::default());
            let most = Rc::new(Cell::new(0_usize));
            let bystander = tokio::task::spawn_local({
                let (turns, most): (Rc<RefCell<Vec<u32>>>, _) = (Rc::clone(&turns), Rc::clone(&most));
                async move {
                    let mut before = 0;
                    while before < 100 {
                        yield_now().await;
                        let count = turns.borrow().len();
                        most.set(most.get().max(count - before));
                        before = count;
                    }
                }
            });
            let crowd: Vec<_> = (0..100).map(|number| come(&pace, number % 10, &turns)).collect();
            for it in crowd {
                it.await.unwrap();
            }
            bystander.await.unwrap();
            // One that had its turn before him in this round, and one after him in the round before.
            assert!(most.get() <= 2, "{} without a turn of his", most.get());
        };
        LocalSet::new().run_until(run).await;
    }
}
