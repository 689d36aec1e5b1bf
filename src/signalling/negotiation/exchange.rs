//! What a description of either side changes.

use super::Action;
use super::line::{Audio, Line, SlotLine};
use super::machine::{Negotiation, Offered, Refusal, Remote};
use super::plan::{Sending, SlotCount};
use crate::ice::credentials::RemoteCredentials;
use crate::ids::{Mid, PayloadType, SlotIndex, Ssrc};
use crate::sdp::{Direction, Extensions, Opus, local, remote};

const PAYLOAD_TYPE_CHANGED: &str = "an m-line no longer has the payload type agreed for opus";

/// Where the client has offered no audio: Chromium's own numbers.
const DEFAULT_NUMBERING: Numbering = Numbering {
    opus: Opus::new(PayloadType::new(111).expect("below 128")),
    extensions: Extensions { audio_level: Some(1), mid: Some(4), abs_capture_time: Some(8) },
};

/// How our own m-lines are numbered: as the client's first. One number means one thing in a bundle, or a
/// browser refuses the whole description.
#[derive(Clone, Copy)]
pub(super) struct Numbering {
    pub(super) opus: Opus,
    pub(super) extensions: Extensions,
}

impl Negotiation {
    /// Brings the m-lines to what the client offers.
    pub(super) fn take_offer(&mut self, offer: &remote::Description) -> Result<(), Refusal> {
        if offer.media.len() < self.lines.len() {
            return Err("the offer has fewer m-lines than agreed before".into());
        }
        let had_line = self.has_line();
        for (index, media) in offer.media.iter().enumerate() {
            match self.lines.get_mut(index) {
                None => self.lines.push(Line::of(media)),
                Some(line) if line.audio.is_none() => *line = Line::of(media),
                Some(line) => {
                    line.check(media)?;
                    if !media.is_usable() {
                        self.reject(index);
                        continue;
                    }
                    let Some(audio) = &mut line.audio else { continue };
                    audio.opus = audio.opus_of(media).ok_or(PAYLOAD_TYPE_CHANGED)?;
                    audio.extensions = media.extensions;
                    audio.ssrcs.clone_from(&media.ssrcs);
                    audio.client_sends = media.direction.sends();
                    let is_carrying = audio.slot.as_ref().is_some_and(|slot| slot.source.is_some());
                    if media.direction.receives() {
                        audio.client_receives = true;
                        self.refused.retain(|(_, refused_at)| *refused_at != Some(index));
                    } else if is_carrying {
                        self.refuse(index);
                    }
                    // Else it may only repeat what we said: some clients do.
                }
            }
        }
        self.take_numbering();
        if let Some(transport) = &offer.transport {
            self.take_transport(transport, local::Role::Answer)?;
        }
        self.note_last_line(had_line);
        Ok(())
    }

    fn has_line(&self) -> bool {
        self.lines.iter().any(|line| line.audio.is_some())
    }

    /// With its last m-line a browser ends its transport, and begins another with the next.
    fn note_last_line(&mut self, had_line: bool) {
        let has_line = self.has_line();
        if let Some(remote) = &mut self.remote {
            remote.lost_last_line = !has_line && (had_line || remote.lost_last_line);
        }
    }

    /// The client does not receive on this m-line, whose slot another may have. If the m-line is one of ours, the
    /// client does not want to hear its voice; if it is the client's own, another m-line may carry it.
    pub(super) fn refuse(&mut self, index: usize) {
        let Some(audio) = &mut self.lines[index].audio else { return };
        audio.client_receives = false;
        let Some(slot) = audio.slot.take() else { return };
        if slot.added.is_some() {
            self.actions.push_back(Action::AssignSlot(slot.index, None));
        }
        if let Some(voice) = slot.voice.filter(|_| audio.is_ours) {
            self.refused.push((voice.track, Some(index)));
        }
    }

    /// The client gave this m-line up.
    pub(super) fn reject(&mut self, index: usize) {
        self.refuse(index);
        self.lines[index].audio = None;
        for (_, refused_at) in self.refused.iter_mut().filter(|(_, at)| *at == Some(index)) {
            *refused_at = None;
        }
        if self.upload == Some(index) {
            self.upload = None;
        }
    }

    /// Takes the answer to an offer of ours.
    pub(super) fn accept(&mut self, offered: Offered, answer: &remote::Description) -> Result<(), Refusal> {
        let Offered { plan, added, .. } = offered;
        let had_line = self.has_line();
        let mut sending = plan.sending;
        for ((index, added_sending), line) in plan.added.into_iter().zip(added) {
            put(&mut self.lines, index, line);
            put(&mut sending, index, Some(added_sending));
        }
        if answer.media.len() != self.lines.len() {
            return Err("the answer has another number of m-lines than the offer".into());
        }
        if let Some(transport) = &answer.transport {
            self.take_transport(transport, local::Role::Offer)?;
        }
        self.is_established = true;
        for (index, (media, sending)) in answer.media.iter().zip(sending).enumerate() {
            let line = &mut self.lines[index];
            line.check(media)?;
            let Some(audio) = &mut line.audio else {
                if media.is_rejected {
                    continue;
                }
                return Err("the answer accepts an m-line that was rejected".into());
            };
            if media.is_rejected {
                // Known here, so that the voice counts as refused.
                agree(audio, sending.as_ref(), &mut self.slot_count);
                self.reject(index);
                continue;
            }
            if !media.is_usable() {
                return Err("the answer accepts an audio m-line without opus/48000/2".into());
            }
            // Its parameters stay ours, the same on every m-line.
            audio.opus.payload_type = audio.opus_of(media).ok_or(PAYLOAD_TYPE_CHANGED)?.payload_type;
            audio.extensions = audio.extensions.in_common(&media.extensions);
            if audio.client_sends && self.upload == Some(index) {
                audio.client_sends = media.direction.sends();
                audio.is_receiving = audio.client_sends;
                audio.ssrcs.clone_from(&media.ssrcs);
            }
            let is_sending = sending.is_some();
            agree(audio, sending.as_ref(), &mut self.slot_count);
            if is_sending && !media.direction.receives() {
                self.refuse(index);
            }
        }
        self.note_last_line(had_line);
        Ok(())
    }

    /// The first transport starts ours; new credentials restart ICE (RFC 8839 §4.4.1.1). `role` is ours.
    pub(super) fn take_transport(
        &mut self,
        transport: &remote::Transport,
        role: local::Role,
    ) -> Result<(), Refusal> {
        let credentials = RemoteCredentials::parse(&transport.ufrag, &transport.password)
            .ok_or("a=ice-ufrag or a=ice-pwd is not as RFC 8839 section 5.4 has it")?;
        let fingerprint = transport.fingerprint;
        let Some(known) = &mut self.remote else {
            self.remote =
                Some(Remote { credentials: credentials.clone(), fingerprint, lost_last_line: false });
            let (local, remote) = (self.local, credentials);
            self.actions.push_back(Action::StartTransport { local, remote, fingerprint });
            return Ok(());
        };
        if known.fingerprint != fingerprint {
            return Err("a=fingerprint changed: join again to begin a new DTLS session".into());
        }
        if known.credentials != credentials {
            if known.lost_last_line {
                // Its DTLS would begin anew, and never end: here there is one session a transport.
                return Err("all m-lines were rejected before: join again to begin a new DTLS session".into());
            }
            known.credentials = credentials.clone();
            // An answer cannot restart ICE unless its offer did, but where it does, what we offered stands.
            if role == local::Role::Answer {
                self.local = self.parameters.secret.credentials(self.parameters.worker);
                self.has_candidates = false;
            }
            self.actions.push_back(Action::RestartIce { local: self.local, remote: credentials });
        }
        Ok(())
    }

    /// A tag that no m-line has: `s` and the slot's number, or a higher one.
    pub(super) fn fresh_mid(&self, slot: SlotIndex, added: &[Line]) -> Mid {
        let mut candidates = (u32::from(slot.0)..).filter_map(|number| Mid::parse(&format!("s{number}")));
        let is_taken = |mid: &Mid| self.lines.iter().chain(added).any(|line| line.mid == Some(*mid));
        candidates.find(|mid| !is_taken(mid)).expect("more numbers than m-lines")
    }

    pub(super) fn describe<'a>(
        &'a self,
        role: local::Role,
        lines: impl Iterator<Item = (&'a Line, Option<&'a Sending>)>,
    ) -> local::Description<'a> {
        let numbering = self.numbering();
        let media = lines.enumerate().map(|(index, (line, sending))| local::Media {
            format: line.format,
            mid: line.mid,
            audio: line.audio.as_ref().map(|audio| local::Audio {
                direction: Direction::new(sending.is_some(), self.is_receiving(index, audio)),
                opus: numbering.parameters_of(audio.opus),
                extensions: audio.extensions,
                voice: sending.map(|sending| local::Voice {
                    stream_id: &sending.voice.stream_id,
                    track: sending.voice.track,
                    ssrc: self.ssrc(sending.ssrc_number),
                }),
            }),
        });
        local::Description {
            role,
            session_id: self.parameters.session_id,
            version: self.version + 1,
            ufrag: self.local.ufrag.as_str(),
            password: self.local.password.as_str(),
            fingerprint: self.parameters.fingerprint,
            candidates: &self.parameters.candidates,
            media: media.collect(),
        }
    }

    pub(super) fn ssrc(&self, number: u32) -> Ssrc {
        Ssrc(self.parameters.ssrc_base.wrapping_add(number))
    }

    /// We listen on the m-line: to one voice of the client, where it sends it.
    pub(super) fn is_receiving(&self, index: usize, audio: &Audio) -> bool {
        self.upload == Some(index) && audio.client_sends
    }

    /// Numbers are those of the client's first audio m-line for ever, parameters those of its last offer.
    fn take_numbering(&mut self) {
        let mut audios = self.lines.iter().filter_map(|line| line.audio.as_ref());
        match &mut self.numbering {
            None => {
                let first = audios.next();
                self.numbering =
                    first.map(|audio| Numbering { opus: audio.opus, extensions: audio.extensions });
            }
            Some(Numbering { opus, .. }) => {
                let same = audios.find(|audio| audio.opus.payload_type == opus.payload_type);
                *opus = same.map_or(*opus, |audio| audio.opus);
            }
        }
    }

    pub(super) fn numbering(&self) -> Numbering {
        self.numbering.unwrap_or(DEFAULT_NUMBERING)
    }
}

impl Numbering {
    fn parameters_of(&self, opus: Opus) -> Opus {
        if opus.payload_type == self.opus.payload_type { self.opus } else { opus }
    }
}

/// Replaces what is at `index`, or appends.
pub(super) fn put<T>(all: &mut Vec<T>, index: usize, one: T) {
    match all.get_mut(index) {
        Some(place) => *place = one,
        None => all.push(one),
    }
}

/// Both sides agree that the m-line carries this voice, or none.
pub(super) fn agree(audio: &mut Audio, sending: Option<&Sending>, slots: &mut SlotCount) {
    if let Some(sending) = sending {
        slots.ssrcs_used = slots.ssrcs_used.max(sending.ssrc_number + 1);
    }
    let voice = sending.map(|sending| sending.voice.clone());
    let told = sending.map(|sending| sending.voice.track);
    match (&mut audio.slot, sending) {
        (Some(slot), _) if slot.voice == voice => {}
        (Some(slot), _) => {
            (slot.voice, slot.told) = (voice, told);
            slot.ssrc_number = sending.map_or(slot.ssrc_number, |sending| sending.ssrc_number);
        }
        (None, Some(sending)) => {
            let Sending { slot: index, ssrc_number, .. } = *sending;
            let (added, added_ssrc_number) = (None, ssrc_number);
            let slot = SlotLine { index, ssrc_number, voice, added, added_ssrc_number, source: None, told };
            audio.slot = Some(slot);
        }
        (None, None) => {}
    }
}
