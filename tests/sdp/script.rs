//! A peer played by hand: each input with what comes of it.

use std::time::{Duration, Instant};

use gryt_sfu::ids::{SlotIndex, TrackId};
use gryt_sfu::signalling::negotiation::{Action, ErrorCode, Negotiation};

use crate::fixtures::{answer_to, chromium_offer, negotiation, now, voices};

pub(crate) struct Script {
    pub(crate) server: Negotiation,
    pub(crate) now: Instant,
}

impl Script {
    pub(crate) fn new(audio_slots: u16) -> Script {
        let now = now();
        Script { server: negotiation(now, audio_slots), now }
    }

    /// A Chromium that sends and has its answer.
    pub(crate) fn joined(audio_slots: u16, tracks: &[u64]) -> Script {
        let mut script = Script::new(audio_slots);
        script.voices(tracks);
        let actions = script.offer(&chromium_offer());
        if let Some(offer) = sent_offer(&actions) {
            let actions = script.answer(&answer_to(offer));
            assert_eq!(sent_offer(&actions), None, "all voices in one offer");
        }
        script
    }

    fn drain(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.server.next_action()).collect()
    }

    pub(crate) fn offer(&mut self, sdp: &str) -> Vec<Action> {
        self.server.handle_offer(self.now, sdp);
        self.drain()
    }

    pub(crate) fn answer(&mut self, sdp: &str) -> Vec<Action> {
        self.server.handle_answer(self.now, sdp);
        self.drain()
    }

    pub(crate) fn voices(&mut self, tracks: &[u64]) -> Vec<Action> {
        self.server.set_voices(self.now, &voices(tracks));
        self.drain()
    }

    pub(crate) fn slots_changed(&mut self, changes: &[(u16, Option<u64>)]) -> Vec<Action> {
        let changes: Vec<_> =
            changes.iter().map(|(slot, track)| (SlotIndex(*slot), track.map(TrackId))).collect();
        self.server.handle_slots_changed(&changes);
        self.drain()
    }

    pub(crate) fn resume(&mut self) -> Vec<Action> {
        self.server.handle_resume(self.now);
        self.drain()
    }

    /// Moves the clock and fires what is due on the way, each at its time.
    pub(crate) fn wait(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some(due) = self.server.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let before = self.server.next_timeout();
            self.server.handle_timeout(self.now);
            assert_ne!(self.server.next_timeout(), before, "a time-out that stays due");
            actions.extend(self.drain());
        }
        self.now = end;
        actions
    }
}

pub(crate) fn sent_offer(actions: &[Action]) -> Option<&str> {
    let mut offers = actions.iter().filter_map(|action| match action {
        Action::SendOffer(sdp) => Some(sdp.as_str()),
        _ => None,
    });
    assert!(offers.clone().count() <= 1, "two offers outstanding");
    offers.next()
}

pub(crate) fn sent_answer(actions: &[Action]) -> Option<&str> {
    actions.iter().find_map(|action| match action {
        Action::SendAnswer(sdp) => Some(sdp.as_str()),
        _ => None,
    })
}

/// Short names of what happened, in order: what a test compares.
pub(crate) fn summary(actions: &[Action]) -> Vec<String> {
    let track = |track: &Option<TrackId>| track.map_or("-".into(), |track| track.to_string());
    actions
        .iter()
        .map(|action| match action {
            Action::SendOffer(_) => "offer".into(),
            Action::SendAnswer(_) => "answer".into(),
            Action::SendCandidate { mid, index, .. } => format!("candidate {mid} {index}"),
            Action::SendError(code, _) => format!("error {code:?}"),
            Action::Fail(ErrorCode::BadSdp, _) => "fail".into(),
            Action::Fail(code, _) => format!("fail {code:?}"),
            Action::StartTransport { .. } => "transport".into(),
            Action::RestartIce { .. } => "restart".into(),
            Action::Publish(stream) => format!("publish {}", stream.mid),
            Action::Unpublish => "unpublish".into(),
            Action::AddSlot(slot) => format!("add {} {} {}", slot.slot, slot.mid, track(&slot.source)),
            Action::AssignSlot(slot, source) => format!("assign {slot} {}", track(source)),
            Action::Refuse { line_count_max, tracks } => {
                let tracks = tracks.iter().map(|track| format!(" {track}"));
                format!("refuse of {line_count_max}:{}", tracks.collect::<String>())
            }
            Action::SendSlots(slots) => {
                let slots = slots.iter().map(|(mid, source)| format!(" {mid}={}", track(source)));
                format!("slots{}", slots.collect::<String>())
            }
        })
        .collect()
}
