//! A candidate pair: what is known of it.

use std::time::Instant;

use super::stun::TransactionId;
use crate::packet::Path;

/// An authenticated pair.
pub(super) struct Pair {
    pub(super) path: Path,
    /// The last authenticated request.
    pub(super) heard: Instant,
    /// PRIORITY of that.
    pub(super) priority: u32,
    /// Whose credentials it was signed with.
    pub(super) generation: u32,
    pub(super) proof: Proof,
    /// The peer's first under the credentials in use.
    pub(super) nomination: Option<Nomination>,
}

/// A request with USE-CANDIDATE.
#[derive(Clone, Copy)]
pub(super) struct Nomination {
    pub(super) transaction_id: TransactionId,
    pub(super) priority: u32,
}

/// That the peer receives at the pair's remote address.
#[derive(Clone, Copy)]
pub(super) enum Proof {
    /// Nobody asked for it.
    None,
    /// Checks of ours are under way; for the first time, or after none was answered.
    Checking { transaction_id: TransactionId, sent_count: u8, due: Instant, is_first: bool },
    /// No answer to any of our checks; they begin anew when the peer wants the pair again, which has to wait for one then.
    Refused,
    /// All of DTLS came over it, or a check was answered.
    Verified,
}

impl Proof {
    /// Whether this answers a check of ours that was sent.
    pub(super) fn expects(&self, id: TransactionId) -> bool {
        match self {
            Proof::Checking { transaction_id, sent_count, .. } => *sent_count > 0 && *transaction_id == id,
            Proof::None | Proof::Refused | Proof::Verified => false,
        }
    }
}
