//! How often one client may ask: a bucket for each address's requests and one for its upgrades, and one for each
//! WebSocket's messages.
//!
//! Invariant: each table of addresses has [`CLIENT_COUNT_MAX`] entries at most, whoever comes from wherever.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::config::Rate;
use crate::crowd::key;

/// Addresses that are remembered at a time, by each of the two tables in some 4 MiB.
const CLIENT_COUNT_MAX: usize = 65_536;

/// Between two clean-ups of the table, at least.
const CLEAN_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The rates of all clients.
pub(super) struct Rates {
    rate: Rate,
    clients: RefCell<DefaultKeyedRateLimiter<IpAddr>>,
    cleaned: RefCell<Instant>,
}

/// One WebSocket's rate.
pub(super) struct MessageRate(DefaultDirectRateLimiter);

impl Rates {
    pub(super) fn new(now: Instant, rate: Rate) -> Rates {
        let clients = RefCell::new(RateLimiter::keyed(quota(rate)));
        Rates { rate, clients, cleaned: RefCell::new(now) }
    }

    /// # Errors
    /// How long this client has to wait.
    pub(super) fn take(&self, now: Instant, client: IpAddr) -> Result<(), Duration> {
        self.clean(now);
        let checked = self.clients.borrow().check_key(&key(client));
        checked.map_err(|not_until| not_until.wait_time_from(MonotonicClock.now()))
    }

    /// For a WebSocket that opens.
    pub(super) fn of_messages(&self) -> MessageRate {
        MessageRate(RateLimiter::direct(quota(self.rate)))
    }

    /// Forgets whose bucket is full again, once a window or when the table is full. If it is a crowd that fills
    /// it, all are forgotten: those who come from ever new addresses have a full bucket each anyway.
    fn clean(&self, now: Instant) {
        let mut clients = self.clients.borrow_mut();
        let is_full = clients.len() >= CLIENT_COUNT_MAX;
        let interval = self.rate.window.max(CLEAN_INTERVAL_MIN);
        if !is_full && now.saturating_duration_since(*self.cleaned.borrow()) < interval {
            return;
        }
        *self.cleaned.borrow_mut() = now;
        clients.retain_recent();
        if clients.len() > CLIENT_COUNT_MAX / 2 {
            *clients = RateLimiter::keyed(quota(self.rate));
        } else if is_full {
            clients.shrink_to_fit();
        }
    }
}

impl MessageRate {
    /// `false` when the client says more than it may.
    pub(super) fn take(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// So many at once, which come back evenly over the window.
pub(super) fn quota(rate: Rate) -> Quota {
    // Not nothing: a window is 1 ms at least, and a million requests are the most.
    let each = (rate.window / rate.requests.get()).max(Duration::from_nanos(1));
    let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(rate.requests));
    quota.allow_burst(rate.requests)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use super::*;
    use crate::time::Now;

    fn rates(requests: u32) -> (Instant, Rates) {
        let now = Now::read().instant;
        let rate = Rate { requests: NonZeroU32::new(requests).unwrap(), window: Duration::from_secs(3600) };
        (now, Rates::new(now, rate))
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_a_64() {
        let (now, rates) = rates(1);
        let take = |ip: &str| rates.take(now, ip.parse().unwrap()).is_ok();
        assert!(take("2001:db8:0:1::1"));
        assert!(!take("2001:db8:0:1:ffff::2"), "the same /64");
        assert!(take("2001:db8:0:2::1"), "another /64");
        assert!(take("192.0.2.1"));
        assert!(!take("::ffff:192.0.2.1"), "the same address");
        assert!(take("192.0.2.2"), "another address");
        assert!(take("::ffff:192.0.2.3"), "mapped ones are not all in one /64");
    }

    #[test]
    fn so_many_at_once_and_then_a_wait() {
        let (now, rates) = rates(60);
        let ip = Ipv4Addr::LOCALHOST.into();
        assert_eq!((0..100).filter(|_| rates.take(now, ip).is_ok()).count(), 60);
        let wait = rates.take(now, ip).unwrap_err();
        assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60), "{wait:?}");
        let messages = rates.of_messages();
        assert_eq!((0..100).filter(|_| messages.take()).count(), 60);
    }

    #[test]
    fn a_crowd_does_not_fill_the_memory() {
        let (now, rates) = rates(1);
        let last = 3 * CLIENT_COUNT_MAX as u32 - 2;
        for i in 0..=last {
            assert!(rates.take(now, Ipv4Addr::from_bits(i).into()).is_ok());
            assert!(rates.clients.borrow().len() <= CLIENT_COUNT_MAX);
        }
        assert!(rates.take(now, Ipv4Addr::from_bits(last).into()).is_err(), "the latest are known");
    }

    #[test]
    fn the_table_is_cleaned_once_a_window() {
        let now = Now::read().instant;
        let rate = Rate { requests: NonZeroU32::MIN, window: Duration::from_millis(1) };
        let rates = Rates::new(now, rate);
        for i in 0..100 {
            assert!(rates.take(now, Ipv4Addr::from_bits(i).into()).is_ok());
        }
        let deadline = now + Duration::from_secs(20);
        while rates.clients.borrow().len() > 1 {
            assert!(Now::read().instant < deadline, "nobody is forgotten");
            let _ = rates.take(now + 2 * CLEAN_INTERVAL_MIN, Ipv4Addr::LOCALHOST.into());
            *rates.cleaned.borrow_mut() = now;
        }
    }
}
