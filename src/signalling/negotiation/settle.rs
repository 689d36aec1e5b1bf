//! What the worker and the client are told once both sides agree.

use std::collections::HashSet;

use super::Action;
use super::line::{Line, SlotLine, extension_ids};
use super::machine::Negotiation;
use super::plan::Demand;
use crate::ids::{Ssrc, TrackId};
use crate::worker::command::{PublishedStream, Slot};

impl Negotiation {
    /// Tells the worker what the m-lines say by now, and the client what they do not say.
    pub(super) fn settle(&mut self) {
        self.settle_upload();
        let line_count_max = self.line_count_max();
        self.settle_refused(line_count_max);
        let demand = Demand::new(&self.voices, &self.refused, line_count_max);
        let slots = || self.lines.iter().filter_map(Line::slot).filter(|slot| slot.voice.is_some());
        let agreed: HashSet<TrackId> = slots().filter_map(SlotLine::agreed).collect();
        let mut carried: HashSet<TrackId> = slots().filter_map(|slot| slot.source).collect();
        let mut changed = Vec::new();
        for line in &mut self.lines {
            let (Some(mid), Some(audio)) = (line.mid, &mut line.audio) else { continue };
            let Some(slot) = &mut audio.slot else { continue };
            let source = if demand.exceeds_lines {
                slot.source_among_many(&demand, &carried)
            } else {
                slot.source_of_its_own(&demand, &agreed)
            };
            carried.extend(source);
            let is_known = slot.added.is_some() && slot.added_ssrc_number == slot.ssrc_number;
            if is_known || (slot.added.is_some() && slot.voice.is_none()) {
                if slot.source != source {
                    self.actions.push_back(Action::AssignSlot(slot.index, source));
                }
            } else if slot.voice.is_some() {
                slot.added = Some(audio.opus.payload_type);
                slot.added_ssrc_number = slot.ssrc_number;
                self.actions.push_back(Action::AddSlot(Box::new(Slot {
                    slot: slot.index,
                    mid,
                    ssrc: Ssrc(self.parameters.ssrc_base.wrapping_add(slot.ssrc_number)),
                    payload_type: audio.opus.payload_type,
                    extensions: extension_ids(&audio.extensions),
                    source,
                })));
            }
            slot.source = source;
            // The next offer makes the m-line of a voice that left inactive: that is news enough.
            let is_news = source.is_some() || demand.exceeds_lines;
            if slot.voice.is_some() && slot.told != source && is_news {
                slot.told = source;
                changed.push((mid, source));
            }
        }
        if !changed.is_empty() {
            self.has_told_slots = true;
            self.actions.push_back(Action::SendSlots(changed));
        }
    }

    pub(super) fn settle_upload(&mut self) {
        let stream = self.upload.and_then(|upload| self.lines[upload].published());
        match (&stream, &self.published) {
            (Some(stream), Some(published)) if is_same(stream, published) => return,
            (Some(stream), _) => self.actions.push_back(Action::Publish(Box::new(stream.clone()))),
            (None, Some(_)) => self.actions.push_back(Action::Unpublish),
            (None, None) => {}
        }
        self.published = stream;
    }

    fn settle_refused(&mut self, line_count_max: u16) {
        // Without a transport there is nobody on the worker to tell; it is told as soon as there is one.
        if self.remote.is_none() {
            return;
        }
        let is_told = match &self.told_refused {
            Some((max, told)) => {
                *max == line_count_max && told.iter().eq(self.refused.iter().map(|(track, _)| track))
            }
            None => self.refused.is_empty() && line_count_max == self.slot_count.max,
        };
        if is_told {
            return;
        }
        let tracks: Box<[TrackId]> = self.refused.iter().map(|(track, _)| *track).collect();
        self.told_refused = Some((line_count_max, tracks.clone()));
        self.actions.push_back(Action::Refuse { line_count_max, tracks });
    }

    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut SlotLine> {
        self.lines.iter_mut().filter_map(Line::slot_mut)
    }
}

impl SlotLine {
    /// The track that the m-line names.
    fn agreed(&self) -> Option<TrackId> {
        self.voice.as_ref().map(|voice| voice.track)
    }

    /// Voices are no more than can be heard: each gets the m-line that names it. Until it has one, that which the
    /// worker lent it stays lent, whoever it names: else all whose names are gone would fall silent when one voice leaves.
    /// Nothing may be sent on an m-line that names none.
    fn source_of_its_own(&self, demand: &Demand<'_>, agreed: &HashSet<TrackId>) -> Option<TrackId> {
        let own = self.agreed()?;
        let lent = self.source.filter(|source| demand.tracks.contains(source) && !agreed.contains(source));
        lent.or(Some(own).filter(|own| demand.tracks.contains(own)))
    }

    /// Voices are more than can be heard: the worker gives them to the loudest, only an empty one is filled.
    fn source_among_many(&self, demand: &Demand<'_>, carried: &HashSet<TrackId>) -> Option<TrackId> {
        let own = self.agreed()?;
        if let Some(source) = self.source.filter(|source| demand.tracks.contains(source)) {
            return Some(source);
        }
        let is_free = |track: &TrackId| demand.tracks.contains(track) && !carried.contains(track);
        let first = || demand.wanted.iter().map(|voice| voice.track).find(is_free);
        Some(own).filter(is_free).or_else(first)
    }
}

fn is_same(a: &PublishedStream, b: &PublishedStream) -> bool {
    (a.mid, a.is_only, &a.ssrcs, a.payload_type, a.extensions)
        == (b.mid, b.is_only, &b.ssrcs, b.payload_type, b.extensions)
}
