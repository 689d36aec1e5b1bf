//! What a member should have heard, and did not.

use std::collections::{HashMap, HashSet};

use super::super::line::Line;
use super::{News, Session};

/// Packets that a speaker sent, at least, before it counts as unheard: two seconds, for lines to be negotiated.
const UNHEARD_MIN: u32 = 100;

impl Session<'_> {
    /// What should have come by now, and did not.
    pub(super) fn settle(&mut self) {
        self.receive();
        // Of what a deaf one was sent nobody can tell.
        let is_deaf = !self.plan.hears && self.drain_at.is_some();
        if self.connected_at.is_some() && self.plan.is_sent_voices && !is_deaf {
            let others = self.others();
            let is_crowd = self.is_crowd(&others);
            let newest: HashMap<u32, u32> = self.lines.values().filter_map(Line::newest).collect();
            let heard: HashSet<u32> = self.heard.keys().copied().collect();
            self.house.tally.change(|counts| {
                for (sender, sent) in others {
                    let could_be_heard = self.could_be_heard(sender, sent);
                    if heard.contains(&sender) {
                        counts.pairs_heard += 1;
                    } else if could_be_heard > 0 {
                        counts.pairs_unheard += 1;
                    }
                    if is_crowd {
                        continue;
                    }
                    let missing = match newest.get(&sender) {
                        Some(newest) => sent.saturating_sub(newest.saturating_add(1)),
                        None if heard.contains(&sender) => 0,
                        None => could_be_heard,
                    };
                    counts.missing += i64::from(missing);
                }
            });
        }
        self.house.tell(News::Counted);
    }

    /// Of a speaker whose packet `counter` is the first that is heard: how many are missing before it.
    pub(super) fn missed_before(&self, sender: u32, counter: u32) -> u32 {
        let others = self.others();
        if self.is_crowd(&others) { 0 } else { self.could_be_heard(sender, counter) }
    }

    /// Who speaks in the room, with how much each has said.
    fn others(&self) -> Vec<(u32, u32)> {
        let me = self.voice.as_ref().map(|voice| voice.sender);
        let mut others = self.house.speakers.in_room(self.plan.room_number);
        others.retain(|(sender, _)| Some(*sender) != me);
        others
    }

    /// The loudest only are heard in a crowd: nobody can tell who should have been.
    fn is_crowd(&self, others: &[(u32, u32)]) -> bool {
        others.len() > self.plan.slots
    }

    /// Of what a speaker has sent, the packets that should have come since this member is connected, once there was time
    /// to negotiate.
    fn could_be_heard(&self, sender: u32, sent: u32) -> u32 {
        let before = self.before.get(&sender).copied().unwrap_or(0);
        sent.saturating_sub(before).saturating_sub(UNHEARD_MIN)
    }
}
