//! A real client and the negotiation, with every message on its way for as long as chance wants it. Whatever
//! happens, once nothing is on its way any more both sides agree.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Instant;

use gryt_sfu::ids::{SlotIndex, Ssrc, TrackId};
use gryt_sfu::signalling::negotiation::{Action, Negotiation};
use proptest::prelude::*;
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};

use crate::fixtures::{negotiation, now, section, voices};
use crate::str0m_client::{Manner, Sent};

const AUDIO_SLOTS: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// Who is in the room now.
    Voices(Vec<u64>),
    /// The client wants another m-line, or to restart ICE, as soon as it may offer.
    Listen,
    Send,
    Restart,
    /// The client gives the first m-line up on which it hears, and the voice with it.
    Stop,
    /// The client hears nothing on it any more, and keeps it.
    Decline,
    /// One message arrives.
    ToServer,
    ToClient,
    /// The worker gives a slot to somebody louder.
    Louder(u16, u64),
    /// All messages arrive, then time passes until the next time-out.
    Wait,
    /// The socket is lost with everything on its way, and taken up again.
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    let tracks = prop::sample::subsequence((1..=6).collect::<Vec<u64>>(), 0..=6);
    prop_oneof![
        3 => tracks.prop_map(Step::Voices),
        1 => Just(Step::Listen),
        1 => Just(Step::Send),
        1 => Just(Step::Restart),
        1 => Just(Step::Stop),
        1 => Just(Step::Decline),
        6 => Just(Step::ToServer),
        6 => Just(Step::ToClient),
        1 => (0..AUDIO_SLOTS, 1..=6_u64).prop_map(|(slot, track)| Step::Louder(slot, track)),
        1 => Just(Step::Wait),
        1 => Just(Step::Resume),
    ]
}

enum Down {
    Offer(String),
    Answer(String),
}

struct Sim {
    now: Instant,
    manner: Manner,
    server: Negotiation,
    client: Rtc,
    /// The client's offer that is out, with its text.
    pending: Option<(SdpPendingOffer, String)>,
    wishes: Vec<Step>,
    /// What its offer that is out asks for.
    asked: Vec<Step>,
    to_server: VecDeque<Sent>,
    to_client: VecDeque<Down>,
    tracks: Vec<u64>,
    /// What the client gave up or declined: m-lines, and the voices on them.
    stopped: Vec<(Mid, u64)>,
    /// What the worker knows of that: most voices that the client can hear at once, and which it does not want.
    refused: (usize, Vec<u64>),
    /// The worker's slots: tag and source.
    slots: BTreeMap<SlotIndex, (String, Option<TrackId>)>,
    /// That were ever used.
    ssrcs: HashSet<Ssrc>,
    has_transport: bool,
    /// What the client made of the last description that it took.
    agreed: String,
}

impl Sim {
    fn new(manner: Manner) -> Sim {
        let now = now();
        let provider = str0m::crypto::from_feature_flags();
        let mut sim = Sim {
            now,
            manner,
            server: negotiation(now, AUDIO_SLOTS),
            client: Rtc::builder().set_crypto_provider(provider.into()).build(now),
            pending: None,
            wishes: vec![Step::Send],
            asked: Vec::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            tracks: Vec::new(),
            stopped: Vec::new(),
            refused: (usize::from(AUDIO_SLOTS), Vec::new()),
            slots: BTreeMap::new(),
            ssrcs: HashSet::new(),
            has_transport: false,
            agreed: String::new(),
        };
        sim.offer_wishes();
        sim
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Voices(tracks) => {
                self.server.set_voices(self.now, &voices(&tracks));
                self.tracks = tracks;
            }
            Step::Listen | Step::Send | Step::Restart | Step::Stop | Step::Decline => {
                self.wishes.push(step);
                self.offer_wishes();
            }
            Step::ToServer => self.deliver_to_server(),
            Step::ToClient => self.deliver_to_client(),
            Step::Louder(slot, track) => self.louder(SlotIndex(slot), track),
            Step::Wait => {
                self.deliver_all();
                if let Some(due) = self.server.next_timeout() {
                    self.now = self.now.max(due);
                    self.server.handle_timeout(self.now);
                }
            }
            Step::Resume => {
                // Who ignores offers must not lose an answer: asked again, he would not give it again.
                while self.manner == Manner::Stubborn && !self.to_server.is_empty() {
                    self.deliver_to_server();
                    self.take_actions();
                }
                self.to_server.clear();
                self.to_client.clear();
                self.server.handle_resume(self.now);
                if let Some((_, sdp)) = &self.pending {
                    self.to_server.push_back(Sent::Offer(sdp.clone()));
                }
            }
        }
        self.take_actions();
    }

    fn louder(&mut self, slot: SlotIndex, track: u64) {
        // What a worker does by itself: where voices are more than can be heard, on a slot that is not closed, and a
        // track is on one slot at most.
        if !self.exceeds() || !self.wanted().contains(&track) {
            return;
        }
        let is_elsewhere = self.slots.values().any(|(_, source)| *source == Some(TrackId(track)));
        let open = self.slots.get_mut(&slot).filter(|(_, source)| source.is_some());
        if let Some((_, source)) = open.filter(|_| !is_elsewhere) {
            *source = Some(TrackId(track));
            self.server.handle_slots_changed(&[(slot, *source)]);
        }
    }

    /// Who is there and was not refused.
    fn wanted(&self) -> Vec<u64> {
        self.tracks.iter().copied().filter(|track| !self.refused.1.contains(track)).collect()
    }

    fn exceeds(&self) -> bool {
        self.wanted().len() > self.refused.0
    }

    fn offer_wishes(&mut self) {
        if self.pending.is_some() || self.wishes.is_empty() {
            return;
        }
        let heard = self.heard();
        let mut changes = self.client.sdp_api();
        let wishes = std::mem::take(&mut self.wishes);
        for wish in &wishes {
            let direction = match wish {
                Step::Stop | Step::Decline => {
                    let Some((mid, track)) = heard else { continue };
                    match wish {
                        Step::Stop => changes.stop_media(mid),
                        _ => changes.set_direction(mid, Direction::Inactive),
                    }
                    self.stopped.push((mid, track));
                    continue;
                }
                Step::Listen => Direction::RecvOnly,
                Step::Send => Direction::SendRecv,
                _ => {
                    changes.ice_restart(true);
                    continue;
                }
            };
            changes.add_media(MediaKind::Audio, direction, None, None, None);
        }
        let Some((offer, pending)) = changes.apply() else { return };
        self.asked.extend(wishes);
        let sdp = offer.to_sdp_string();
        self.pending = Some((pending, sdp.clone()));
        self.to_server.push_back(Sent::Offer(sdp));
    }

    /// The first m-line of the server's that carries a voice, as far as the client knows.
    fn heard(&self) -> Option<(Mid, u64)> {
        let mids = self.agreed.lines().filter_map(|line| line.strip_prefix("a=mid:"));
        // str0m's own have three characters.
        mids.filter(|mid| mid.starts_with('s') && mid.len() == 2).find_map(|mid| {
            let (_, line, _) = section(&self.agreed, mid);
            let (_, track) = line.split_once("a=msid:user-")?;
            let (track, _) = track.split_once(' ')?;
            Some((mid.into(), track.parse().unwrap()))
        })
    }

    fn deliver_to_server(&mut self) {
        match self.to_server.pop_front() {
            Some(Sent::Offer(sdp)) => self.server.handle_offer(self.now, &sdp),
            Some(Sent::Answer(sdp)) => self.server.handle_answer(self.now, &sdp),
            None => {}
        }
    }

    fn deliver_to_client(&mut self) {
        match self.to_client.pop_front() {
            Some(Down::Offer(sdp)) => self.client_takes_offer(sdp),
            Some(Down::Answer(sdp)) => {
                let Some((pending, _)) = self.pending.take() else { panic!("an answer to nothing") };
                let answer = SdpAnswer::from_sdp_string(&sdp).unwrap();
                let taken = self.client.sdp_api().accept_answer(pending, answer);
                taken.unwrap_or_else(|error| panic!("{error}\n{sdp}"));
                self.asked.clear();
                self.agreed = sdp;
                self.offer_wishes();
            }
            None => {}
        }
    }

    fn client_takes_offer(&mut self, sdp: String) {
        if self.pending.is_some() {
            if self.manner == Manner::Stubborn {
                return;
            }
            self.pending = None;
            self.wishes.append(&mut self.asked);
        }
        let offer = SdpOffer::from_sdp_string(&sdp).unwrap();
        let answer = self.client.sdp_api().accept_offer(offer);
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{sdp}"));
        // Asked first, str0m would be the server of the handshake, where RFC 8842 §5.3 and every browser
        // prefer to be its client. There is no handshake here.
        let answer = answer.to_sdp_string().replace("a=setup:passive", "a=setup:active");
        self.to_server.push_back(Sent::Answer(answer));
        self.agreed = sdp;
        self.offer_wishes();
    }

    fn deliver_all(&mut self) {
        for _ in 0..1000 {
            self.deliver_to_server();
            self.take_actions();
            self.deliver_to_client();
            if self.to_server.is_empty() && self.to_client.is_empty() {
                return;
            }
        }
        panic!("the two sides never come to an end");
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.server.next_action() {
            match action {
                Action::SendOffer(sdp) => self.to_client.push_back(Down::Offer(sdp)),
                Action::SendAnswer(sdp) => self.to_client.push_back(Down::Answer(sdp)),
                Action::StartTransport { .. } => {
                    assert!(!self.has_transport, "a second transport");
                    self.has_transport = true;
                }
                Action::RestartIce { .. } | Action::Publish(_) => assert!(self.has_transport),
                Action::Fail(_, text) => panic!("{text}"),
                Action::AddSlot(slot) => {
                    assert!(self.has_transport);
                    assert!(slot.slot.0 < AUDIO_SLOTS);
                    assert!(self.ssrcs.insert(slot.ssrc), "an SSRC is used once");
                    let known = self.slots.insert(slot.slot, (slot.mid.to_string(), None));
                    let is_silent = known.is_none_or(|(_, source)| source.is_none());
                    assert!(is_silent, "a slot is taken up again when it is silent");
                    self.assign(slot.slot, slot.source);
                }
                Action::AssignSlot(slot, source) => self.assign(slot, source),
                Action::Refuse { line_count_max, tracks } => {
                    let tracks: Vec<u64> = tracks.iter().map(|track| track.0).collect();
                    assert!(tracks.iter().all(|track| self.stopped.iter().any(|(_, it)| it == track)));
                    self.refused = (usize::from(line_count_max), tracks);
                }
                Action::SendCandidate { .. }
                | Action::SendError(..)
                | Action::SendSlots(_)
                | Action::Unpublish => {}
            }
        }
    }

    fn assign(&mut self, slot: SlotIndex, source: Option<TrackId>) {
        for (_, other) in self.slots.values_mut().filter(|(_, other)| source.is_some() && *other == source) {
            *other = None;
        }
        self.slots.get_mut(&slot).expect("a slot that was added").1 = source;
    }

    fn finish(&mut self) {
        for _ in 0..1000 {
            self.deliver_all();
            match self.server.next_timeout() {
                Some(due) => {
                    self.now = self.now.max(due);
                    self.server.handle_timeout(self.now);
                    self.take_actions();
                }
                None => return,
            }
        }
        panic!("time-outs without end");
    }

    fn check(&self) {
        assert!(self.pending.is_none(), "the client's offer was never answered");
        let mut carried: Vec<u64> =
            self.slots.values().filter_map(|(_, source)| source.map(|track| track.0)).collect();
        carried.sort_unstable();
        let wanted = self.wanted();
        assert!(carried.iter().all(|track| self.tracks.contains(track)), "none that is gone");
        assert!(carried.is_sorted_by(|a, b| a < b), "each voice once: {carried:?}");
        assert!(carried.iter().all(|track| wanted.contains(track)), "none that was refused");
        if !self.exceeds() {
            assert!(wanted.iter().all(|track| carried.contains(track)), "{carried:?} of {wanted:?}");
        } else {
            assert_eq!(carried.len(), self.refused.0, "no m-line is idle");
        }
        for (mid, source) in self.slots.values() {
            let mid: Mid = mid.as_str().into();
            if self.stopped.iter().any(|(stopped, _)| *stopped == mid) && source.is_none() {
                continue; // Rejected, or another m-line is in its place.
            }
            let direction = self.client.media(mid).unwrap().direction();
            let (_, line, _) = section(&self.agreed, &mid);
            assert_eq!(direction.is_receiving(), source.is_some(), "{mid} is {direction}");
            assert_eq!(line.contains("a=msid:"), source.is_some(), "{line}");
            if let Some(track) = source.filter(|_| !self.exceeds()) {
                assert!(line.contains(&format!("a=msid:user-{track} t{track}\r\n")), "{track} on {line}");
            }
        }
    }
}

fn run(manner: Manner, steps: Vec<Step>) {
    let mut sim = Sim::new(manner);
    for step in steps {
        sim.take(step);
    }
    sim.finish();
    sim.check();
    // And it still works: everyone leaves, two come.
    for tracks in [vec![], vec![5, 6]] {
        sim.take(Step::Voices(tracks));
        sim.finish();
        sim.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_rolls_back_always_agrees(steps in prop::collection::vec(step(), 0..60)) {
        run(Manner::Polite, steps);
    }

    #[test]
    fn a_client_that_keeps_its_own_always_agrees(steps in prop::collection::vec(step(), 0..60)) {
        run(Manner::Stubborn, steps);
    }
}
