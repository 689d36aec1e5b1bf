//! Members who have yet to be told of their room's voices.
//!
//! One voice is news to every member, and each may need an offer of its own: in a room of hundreds that
//! is too long for one turn of the control thread, on which handshakes and everybody else's messages
//! wait. So they are told a few at a time, and who is still waiting when the next voice comes is told of
//! both at once.

use std::collections::{BTreeSet, VecDeque};

use crate::control::participant::ParticipantId;

/// Members told in one turn.
pub(super) const TOLD_AT_ONCE: usize = 16;

/// A queue with everybody in it at most once.
#[derive(Debug, Default)]
pub(super) struct Uninformed {
    queue: VecDeque<ParticipantId>,
    queued: BTreeSet<ParticipantId>,
}

impl Uninformed {
    pub(super) fn push(&mut self, id: ParticipantId) {
        if self.queued.insert(id) {
            self.queue.push_back(id);
        }
    }

    pub(super) fn pop(&mut self) -> Option<ParticipantId> {
        let id = self.queue.pop_front()?;
        self.queued.remove(&id);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_waits_once_and_keeps_the_place() {
        let mut uninformed = Uninformed::default();
        for id in [1, 2, 3, 1, 3] {
            uninformed.push(ParticipantId(id));
        }
        assert_eq!(uninformed.pop(), Some(ParticipantId(1)));
        uninformed.push(ParticipantId(1));
        let rest: Vec<_> = std::iter::from_fn(|| uninformed.pop()).collect();
        assert_eq!(rest, [2, 3, 1].map(ParticipantId));
        assert!(uninformed.is_empty());
    }
}
