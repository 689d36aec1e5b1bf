//! The state machine: inputs, time-outs, and who may offer when.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::exchange::{Numbering, agree, put};
use super::line::Line;
use super::plan::{Demand, Plan, Sending, SlotCount};
use super::{Action, ErrorCode, Parameters, Voice};
use crate::ice::credentials::{LocalCredentials, RemoteCredentials};
use crate::ids::{Fingerprint, Mid, SlotIndex, TrackId};
use crate::sdp::{local, remote};
use crate::worker::command::PublishedStream;

/// How long a client's offer is held while ours is outstanding, before ours is rolled back.
pub const GLARE_WAIT: Duration = Duration::from_secs(1);
/// How long a client whose offer was dropped has to offer again before it is told of the glare, and
/// then once more before we go on without.
pub const REOFFER_WAIT: Duration = Duration::from_millis(500);
/// An answer to an offer that was rolled back is waited for so long; what comes later answers nothing.
pub const LATE_ANSWER_WAIT: Duration = Duration::from_secs(30);
/// A client negotiates so often for as long as others want it to: what changes meanwhile is one offer's,
pub const OFFER_INTERVAL: Duration = Duration::from_millis(250);
/// but the first ones, as when it joins, are made at once.
pub const OFFER_BURST: u32 = 8;
/// A member who has not offered by then gets an offer, if there is a voice to hear.
pub const FIRST_OFFER_WAIT: Duration = Duration::from_secs(3);

/// One peer's negotiation: inputs through `handle_*` and [`set_voices`](Negotiation::set_voices), then
/// [`next_action`](Negotiation::next_action) until it is empty.
pub struct Negotiation {
    pub(super) parameters: Parameters,
    joined: Instant,
    state: State,
    /// Ours; new ones at each ICE restart.
    pub(super) local: LocalCredentials,
    /// `None` before the first description with a transport.
    pub(super) remote: Option<Remote>,
    /// `sess-version` of our last description.
    pub(super) version: u64,
    pub(super) lines: Vec<Line>,
    /// Where the client sends.
    pub(super) upload: Option<usize>,
    /// What the worker was told about it.
    pub(super) published: Option<PublishedStream>,
    pub(super) voices: Vec<Voice>,
    /// Voices that the client did not want, with the m-line of ours that offered them; `None` once that is rejected.
    pub(super) refused: Vec<(TrackId, Option<usize>)>,
    /// What the worker was told of it, and how many voices it can give the client at once.
    pub(super) told_refused: Option<(u16, Box<[TrackId]>)>,
    pub(super) slot_count: SlotCount,
    pub(super) numbering: Option<Numbering>,
    /// The client's first offer was answered, or ours.
    pub(super) is_established: bool,
    /// The client has our candidates for `local`.
    pub(super) has_candidates: bool,
    /// When an offer of ours was rolled back: for a while an answer too many is an answer to it.
    rolled_back_at: Option<Instant>,
    reoffer: Option<Reoffer>,
    /// Until when our offers would have lasted, had they been made evenly.
    offers_last_until: Instant,
    /// When one is made that had to wait for that.
    offer_due: Option<Instant>,
    /// The client may believe of any slot what a `slots` message said, or what it would have said had the
    /// WebSocket not been lost.
    pub(super) has_told_slots: bool,
    pub(super) actions: VecDeque<Action>,
    answer_count: u64,
    ignored_answer_count: u64,
    ignored_candidate_count: u64,
}

enum State {
    /// Nothing outstanding.
    Stable,
    /// Our offer is.
    Offered(Box<Offered>),
    /// [`Action::Fail`] was the last action.
    Failed,
}

pub(super) struct Offered {
    sdp: String,
    tagged: Option<(Mid, usize)>,
    pub(super) plan: Plan,
    /// The m-lines that the offer makes, as the plan has them.
    pub(super) added: Vec<Line>,
    /// The client's last offer since, and when ours is rolled back for it.
    held: Option<(remote::Description, Instant)>,
}

pub(super) struct Remote {
    pub(super) credentials: RemoteCredentials,
    pub(super) fingerprint: Fingerprint,
    /// Every m-line was given up since.
    pub(super) lost_last_line: bool,
}

/// We dropped an offer of the client's, which should offer again.
struct Reoffer {
    deadline: Instant,
    is_reminded: bool,
}

/// Why a description ends the session; for the client's author.
pub(super) struct Refusal(pub(super) Cow<'static, str>);

impl From<&'static str> for Refusal {
    fn from(text: &'static str) -> Refusal {
        Refusal(text.into())
    }
}

impl From<remote::Error> for Refusal {
    fn from(error: remote::Error) -> Refusal {
        Refusal(error.to_string().into())
    }
}

/// Longest `candidate` that is looked at.
const CANDIDATE_LEN_MAX: usize = 1024;

impl Negotiation {
    /// `now` is the time of `joined`.
    pub fn new(now: Instant, parameters: Parameters) -> Negotiation {
        Negotiation {
            local: parameters.secret.credentials(parameters.worker),
            slot_count: SlotCount { max: parameters.audio_slots, ssrcs_used: 0 },
            parameters,
            joined: now,
            state: State::Stable,
            remote: None,
            version: 0,
            lines: Vec::new(),
            upload: None,
            published: None,
            voices: Vec::new(),
            refused: Vec::new(),
            told_refused: None,
            numbering: None,
            is_established: false,
            has_candidates: false,
            rolled_back_at: None,
            reoffer: None,
            offers_last_until: now,
            offer_due: None,
            has_told_slots: false,
            actions: VecDeque::new(),
            answer_count: 0,
            ignored_answer_count: 0,
            ignored_candidate_count: 0,
        }
    }

    /// The client offers.
    pub fn handle_offer(&mut self, now: Instant, sdp: &str) {
        if self.is_failed() {
            return;
        }
        let offer = match remote::Description::parse(sdp) {
            Ok(offer) => offer,
            Err(error) => return self.fail(error.into()),
        };
        match &mut self.state {
            State::Stable => self.answer(now, &offer),
            State::Offered(offered) => {
                let deadline = offered.held.as_ref().map_or(now + GLARE_WAIT, |(_, deadline)| *deadline);
                offered.held = Some((offer, deadline));
            }
            State::Failed => {}
        }
    }

    /// The client answers. Without an offer of ours outstanding that is ignored, unless one was rolled back:
    /// then the client took it after all and the two sides disagree.
    pub fn handle_answer(&mut self, now: Instant, sdp: &str) {
        match std::mem::replace(&mut self.state, State::Stable) {
            State::Offered(offered) => {
                let is_held = offered.held.is_some();
                let accepted = remote::Description::parse(sdp)
                    .map_err(Refusal::from)
                    .and_then(|answer| self.accept(*offered, &answer));
                match accepted {
                    Ok(()) => {
                        self.answer_count += 1;
                        self.reoffer =
                            is_held.then(|| Reoffer { deadline: now + REOFFER_WAIT, is_reminded: false });
                        self.settle();
                        self.offer_if_due(now);
                    }
                    Err(refusal) => self.fail(refusal),
                }
            }
            State::Stable if self.rolled_back_at.is_some_and(|at| now < at + LATE_ANSWER_WAIT) => {
                self.fail("an answer to an offer that was rolled back".into());
            }
            State::Stable => self.ignored_answer_count += 1,
            State::Failed => self.state = State::Failed,
        }
    }

    /// Checks and forgets: ICE-lite learns addresses from Binding requests.
    pub fn handle_candidate(&mut self, candidate: &str) {
        let text = candidate.strip_prefix("a=").unwrap_or(candidate);
        let is_plausible = text.is_empty() || text.starts_with("candidate:");
        if !is_plausible || text.len() > CANDIDATE_LEN_MAX {
            self.ignored_candidate_count += 1;
        }
    }

    /// All voices that the peer could hear now, in the order of their publishing. Idempotent.
    pub fn set_voices(&mut self, now: Instant, voices: &[Voice]) {
        if self.is_failed() || self.voices == voices {
            return;
        }
        self.voices = voices.to_vec();
        let tracks: HashSet<TrackId> = voices.iter().map(|voice| voice.track).collect();
        self.refused.retain(|(track, _)| tracks.contains(track));
        self.settle();
        self.offer_if_due(now);
    }

    /// The worker re-sourced slots by itself.
    pub fn handle_slots_changed(&mut self, changes: &[(SlotIndex, Option<TrackId>)]) {
        if self.is_failed() {
            return;
        }
        for (index, source) in changes {
            if let Some(slot) = self.slots_mut().find(|slot| slot.index == *index) {
                slot.source = *source;
            }
        }
        self.settle();
    }

    /// A new WebSocket took the session over: an unanswered offer is sent again, and what the client
    /// may have missed about its slots.
    pub fn handle_resume(&mut self, _now: Instant) {
        if let State::Offered(offered) = &self.state {
            let (sdp, tagged) = (offered.sdp.clone(), offered.tagged);
            self.actions.push_back(Action::SendOffer(sdp));
            self.repeat_candidates(tagged);
        }
        // All of them: a slot that has gone back to the voice that its `a=msid` names is news, too, to a client
        // that was told of another before.
        if self.has_told_slots {
            let active =
                |line: &Line| Some((line.mid?, line.slot().filter(|slot| slot.voice.is_some())?.told));
            self.actions.push_back(Action::SendSlots(self.lines.iter().filter_map(active).collect()));
        }
    }

    /// When [`handle_timeout`](Negotiation::handle_timeout) is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Offered(offered) => offered.held.as_ref().map(|(_, deadline)| *deadline),
            State::Stable if !self.is_established && !self.plan(|_| true).is_agreed(&self.lines) => {
                Some(self.joined + FIRST_OFFER_WAIT).max(self.offer_due)
            }
            State::Stable => self.reoffer.as_ref().map(|reoffer| reoffer.deadline).or(self.offer_due),
            State::Failed => None,
        }
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Stable) {
            State::Offered(offered) => {
                // Dropping `offered` is the roll-back: nothing of it was applied.
                self.rolled_back_at = Some(now);
                self.has_candidates = self.remote.is_some() && self.has_candidates;
                if let Some((offer, _)) = offered.held {
                    self.answer(now, &offer);
                }
            }
            State::Stable => {
                match &mut self.reoffer {
                    Some(reoffer) if !reoffer.is_reminded => {
                        *reoffer = Reoffer { deadline: now + REOFFER_WAIT, is_reminded: true };
                        let text =
                            "your offer crossed ours and was dropped; offer again if it is still needed";
                        self.actions.push_back(Action::SendError(ErrorCode::Glare, text.into()));
                    }
                    _ => self.reoffer = None,
                }
                self.offer_if_due(now);
            }
            State::Failed => self.state = State::Failed,
        }
    }

    /// To be drained after every input.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // Most of a session's life there are none, and some are long.
            self.actions.shrink_to_fit();
        }
        action
    }

    /// Answers to offers of ours that were accepted.
    pub fn answer_count(&self) -> u64 {
        self.answer_count
    }

    /// Answers that came when nothing was asked.
    pub fn ignored_answer_count(&self) -> u64 {
        self.ignored_answer_count
    }

    /// Candidates that were none.
    pub fn ignored_candidate_count(&self) -> u64 {
        self.ignored_candidate_count
    }

    /// Answers an offer of the client's, in the stable state.
    fn answer(&mut self, now: Instant, offer: &remote::Description) {
        self.reoffer = None;
        if let Err(refusal) = self.take_offer(offer) {
            return self.fail(refusal);
        }
        self.is_established = true;
        self.choose_upload();
        // An answer stays within its offer, whatever else the client would take.
        let may_send = |index: usize| offer.media[index].direction.receives();
        let sending = self.plan(may_send).sending;
        for (index, (line, sending)) in self.lines.iter_mut().zip(&sending).enumerate() {
            let Some(audio) = &mut line.audio else { continue };
            audio.is_receiving = self.upload == Some(index);
            agree(audio, sending.as_ref(), &mut self.slot_count);
        }
        let lines = self.lines.iter().zip(sending.iter().map(Option::as_ref));
        let description = self.describe(local::Role::Answer, lines);
        let (sdp, tagged) = (description.write(), description.tagged());
        self.version += 1;
        self.actions.push_back(Action::SendAnswer(sdp));
        if !self.has_candidates {
            self.repeat_candidates(tagged);
        }
        self.settle();
        self.offer_if_due(now);
    }

    /// The first audio m-line on which the client sends; the one that was, as long as it sends there.
    fn choose_upload(&mut self) {
        if !self.parameters.may_publish {
            return;
        }
        let is_sending = |line: &Line| line.audio.as_ref().is_some_and(|audio| audio.client_sends);
        if self.upload.is_some_and(|upload| is_sending(&self.lines[upload])) {
            return;
        }
        self.upload = self.lines.iter().position(is_sending);
    }

    /// Makes an offer where the m-lines do not say what they should, if one may be made now.
    fn offer_if_due(&mut self, now: Instant) {
        self.offer_due = None;
        let is_first_due = now >= self.joined + FIRST_OFFER_WAIT;
        let is_stable = matches!(self.state, State::Stable);
        if !is_stable || self.reoffer.is_some() || !(self.is_established || is_first_due) {
            return;
        }
        let plan = self.plan(|_| true);
        if plan.is_agreed(&self.lines) {
            return;
        }
        let begins_at = self.offers_last_until.max(now);
        if begins_at > now + OFFER_INTERVAL * (OFFER_BURST - 1) {
            self.offer_due = Some(begins_at - OFFER_INTERVAL * (OFFER_BURST - 1));
            return;
        }
        self.offers_last_until = begins_at + OFFER_INTERVAL;
        let Numbering { opus, extensions } = self.numbering();
        let mut added: Vec<Line> = Vec::with_capacity(plan.added.len());
        for (_, Sending { slot, .. }) in &plan.added {
            let mid = self.fresh_mid(*slot, &added);
            added.push(Line::ours(mid, opus, extensions));
        }
        let mut lines: Vec<(&Line, Option<&Sending>)> =
            self.lines.iter().zip(plan.sending.iter().map(Option::as_ref)).collect();
        for ((index, sending), line) in plan.added.iter().zip(&added) {
            put(&mut lines, *index, (line, Some(sending)));
        }
        let description = self.describe(local::Role::Offer, lines.into_iter());
        let (sdp, tagged) = (description.write(), description.tagged());
        self.version += 1;
        self.actions.push_back(Action::SendOffer(sdp.clone()));
        if !self.has_candidates {
            self.repeat_candidates(tagged);
        }
        self.state = State::Offered(Box::new(Offered { sdp, tagged, plan, added, held: None }));
    }

    fn repeat_candidates(&mut self, tagged: Option<(Mid, usize)>) {
        let Some((mid, index)) = tagged else { return };
        for (preference, address) in self.parameters.candidates.iter().enumerate() {
            self.actions.push_back(Action::SendCandidate {
                candidate: local::candidate(preference, address),
                mid,
                index: u16::try_from(index).unwrap_or(u16::MAX),
                ufrag: self.local.ufrag.as_str().to_owned(),
            });
        }
        self.has_candidates = true;
    }

    fn plan(&self, may_send: impl Fn(usize) -> bool) -> Plan {
        let demand = Demand::new(&self.voices, &self.refused, self.line_count_max());
        Plan::new(&demand, &self.lines, self.slot_count, may_send)
    }

    /// Most voices that can be heard at once: as many as slots, unless the client declined m-lines of ours, which stay
    /// ours, and has too few of its own.
    pub(super) fn line_count_max(&self) -> u16 {
        let count = |is_ours: bool, receives: bool| {
            let audios = self.lines.iter().filter_map(|line| line.audio.as_ref());
            audios.filter(|audio| audio.is_ours == is_ours && audio.client_receives == receives).count()
        };
        let max = self.slot_count.max;
        let declined = count(true, false).saturating_sub(count(false, true));
        max.saturating_sub(u16::try_from(declined).unwrap_or(u16::MAX))
    }

    fn is_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    fn fail(&mut self, refusal: Refusal) {
        self.state = State::Failed;
        self.actions.push_back(Action::Fail(ErrorCode::BadSdp, refusal.0.into_owned()));
    }
}
