//! Checks of our own: how many may begin, and under which transaction ids.

use std::time::Instant;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::agent::{BUDGET_PERIOD, MOVE_COUNT_MAX};
use super::stun::TransactionId;

/// At most [`MOVE_COUNT_MAX`] in any [`BUDGET_PERIOD`].
#[derive(Default)]
pub(super) struct Budget {
    spent: [Option<Instant>; MOVE_COUNT_MAX],
}

impl Budget {
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        let free = self.spent.iter_mut().find(|at| at.is_none_or(|at| at + BUDGET_PERIOD <= now));
        free.map(|at| *at = Some(now)).is_some()
    }
}

/// Transaction ids: `HMAC-SHA256(seed, count)[..12]`, so that the same seed gives the same run.
pub(super) struct Transactions {
    key: Hmac<Sha256>,
    count: u64,
}

impl Transactions {
    pub(super) fn new(seed: Zeroizing<[u8; 32]>) -> Transactions {
        let key = Hmac::new_from_slice(seed.as_ref()).expect("HMAC takes any key");
        Transactions { key, count: 0 }
    }

    pub(super) fn next_id(&mut self) -> TransactionId {
        self.count += 1;
        let mut mac = self.key.clone();
        mac.update(&self.count.to_be_bytes());
        let mut id = [0; 12];
        id.copy_from_slice(&mac.finalize().into_bytes()[..12]);
        TransactionId(id)
    }
}
