//! Which voice each m-line should carry by the next description.

use std::collections::HashSet;

use super::Voice;
use super::line::Line;
use crate::ids::{SlotIndex, TrackId};

/// A voice on a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) slot: SlotIndex,
    /// Of its SSRC, counted from the transport's first.
    pub(super) ssrc_number: u32,
    pub(super) voice: Voice,
}

/// What the next description should say.
pub(super) struct Plan {
    /// Of each m-line there is.
    pub(super) sending: Vec<Option<Sending>>,
    /// Of each m-line to be made, in our own offers, with its index: that of a rejected one, or the next.
    pub(super) added: Vec<(usize, Sending)>,
}

/// How many slots there may be, and what was used up.
#[derive(Clone, Copy)]
pub(super) struct SlotCount {
    pub(super) max: u16,
    /// SSRCs that have been used: never one twice under the same keys.
    pub(super) ssrcs_used: u32,
}

/// Voices that have or deserve a slot, and whether there are more of them than can be heard at once.
pub(super) struct Demand<'a> {
    pub(super) wanted: Vec<&'a Voice>,
    pub(super) tracks: HashSet<TrackId>,
    pub(super) exceeds_lines: bool,
}

impl<'a> Demand<'a> {
    /// `refused` voices were offered and not accepted: they want nothing. At most `line_count_max` are heard at once.
    /// A worker counts the same way ([`Action::Refuse`](super::Action::Refuse)): where the two differed, each would undo
    /// for ever what the other does.
    pub(super) fn new(
        voices: &'a [Voice],
        refused: &[(TrackId, Option<usize>)],
        line_count_max: u16,
    ) -> Demand<'a> {
        let refused: HashSet<TrackId> = refused.iter().map(|(track, _)| *track).collect();
        let wanted: Vec<&Voice> = voices.iter().filter(|voice| !refused.contains(&voice.track)).collect();
        let tracks = wanted.iter().map(|voice| voice.track).collect();
        Demand { exceeds_lines: wanted.len() > usize::from(line_count_max), wanted, tracks }
    }
}

impl Plan {
    /// `may_send` says of an m-line, by its index, whether the next description may have us send there.
    pub(super) fn new(
        demand: &Demand<'_>,
        lines: &[Line],
        slots: SlotCount,
        may_send: impl Fn(usize) -> bool,
    ) -> Plan {
        let held: HashSet<SlotIndex> = lines.iter().filter_map(Line::slot).map(|slot| slot.index).collect();
        let mut free = (0..slots.max).map(SlotIndex).filter(|index| !held.contains(index));
        // An m-line that was inactive comes back under a new SSRC: Chromium gives a receiver that is taken up
        // again under its old one no sound.
        let mut ssrc_numbers = slots.ssrcs_used..;
        let mut send = |slot, voice: &Voice| {
            let ssrc_number = ssrc_numbers.next()?;
            Some(Sending { slot, ssrc_number, voice: voice.clone() })
        };
        let keep = |(index, line)| keep(line, demand).filter(|_| may_send(index));
        let mut sending: Vec<Option<Sending>> = lines.iter().enumerate().map(keep).collect();
        let kept: HashSet<TrackId> = sending.iter().flatten().map(|kept| kept.voice.track).collect();
        let mut waiting = demand.wanted.iter().filter(|voice| !kept.contains(&voice.track)).peekable();
        // Where the client only listens comes first: there it said that it wants to hear somebody.
        let listening = |index: usize, sends: bool| {
            let audio = lines[index].audio.as_ref().filter(|_| may_send(index));
            audio.is_some_and(|audio| audio.client_receives && audio.client_sends == sends)
        };
        let mut line_count = 0;
        for sends in [false, true] {
            for index in (0..lines.len()).filter(|index| listening(*index, sends)) {
                let slot = lines[index].slot();
                if slot.is_none_or(|slot| slot.voice.is_none()) && waiting.peek().is_some() {
                    let Some(slot) = slot.map(|slot| slot.index).or_else(|| free.next()) else { continue };
                    sending[index] = waiting.next().and_then(|voice| send(slot, voice));
                }
                line_count += 1;
            }
        }
        // An m-line that is on its way to inactive is free one offer later: no new one in its stead.
        let missing = demand.wanted.len().saturating_sub(line_count);
        // One that the client is silent on by direction stays ours: as many as slots, or they would become more for ever.
        let ours = lines.iter().filter(|line| line.audio.as_ref().is_some_and(|audio| audio.is_ours)).count();
        let reusable = (0..lines.len()).filter(|index| lines[*index].is_reusable());
        let places = reusable.chain(lines.len()..).take(usize::from(slots.max).saturating_sub(ours));
        let added = waiting.take(missing).zip(places).map_while(|(voice, index)| {
            let slot = free.next()?;
            Some((index, send(slot, voice)?))
        });
        let added = added.collect();
        Plan { sending, added }
    }

    /// The m-lines say this already.
    pub(super) fn is_agreed(&self, lines: &[Line]) -> bool {
        self.added.is_empty()
            && self.sending.iter().zip(lines).all(|(sending, line)| {
                let agreed = line.slot().and_then(|slot| slot.voice.as_ref());
                sending.as_ref().map(|sending| &sending.voice) == agreed
            })
    }
}

/// An m-line stays with its voice. Where voices are more than can be heard it stays active even when its voice is
/// gone: the worker has others for it.
fn keep(line: &Line, demand: &Demand<'_>) -> Option<Sending> {
    let audio = line.audio.as_ref().filter(|audio| audio.client_receives)?;
    let slot = audio.slot.as_ref()?;
    let voice = slot.voice.as_ref()?;
    let stays = demand.exceeds_lines || demand.tracks.contains(&voice.track);
    stays.then(|| Sending { slot: slot.index, ssrc_number: slot.ssrc_number, voice: voice.clone() })
}
