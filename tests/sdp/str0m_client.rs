//! A client that was not written here: str0m, driven through its offer and answer API.

use std::time::Instant;

use gryt_sfu::signalling::negotiation::{Action, Negotiation};
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};

/// What it does with an offer of ours while its own is out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Rolls its own back and answers, as browsers do.
    Polite,
    /// Ignores ours.
    Stubborn,
}

pub(crate) struct Client {
    pub(crate) rtc: Rtc,
    pub(crate) manner: Manner,
    pub(crate) pending: Option<SdpPendingOffer>,
    /// What it has to send, in this order.
    pub(crate) outbox: Vec<Sent>,
    /// Actions that are not for the client.
    pub(crate) worker: Vec<Action>,
    pub(crate) errors: Vec<String>,
    pub(crate) slots: Vec<(String, Option<u64>)>,
    pub(crate) rolled_back_count: usize,
    pub(crate) last_offer: String,
    pub(crate) offer_count: usize,
}

#[derive(Debug)]
pub(crate) enum Sent {
    Offer(String),
    Answer(String),
}

impl Client {
    pub(crate) fn new(now: Instant, manner: Manner) -> Client {
        // A second installation is refused, which is all right.
        let provider = str0m::crypto::from_feature_flags();
        Client {
            rtc: Rtc::builder().set_crypto_provider(provider.into()).build(now),
            manner,
            pending: None,
            outbox: Vec::new(),
            worker: Vec::new(),
            errors: Vec::new(),
            slots: Vec::new(),
            rolled_back_count: 0,
            last_offer: String::new(),
            offer_count: 0,
        }
    }

    /// Queues an offer with new audio m-lines.
    pub(crate) fn offer(&mut self, directions: &[Direction]) -> Vec<Mid> {
        let mut changes = self.rtc.sdp_api();
        let add = |direction| changes.add_media(MediaKind::Audio, direction, None, None, None);
        let mids = directions.iter().copied().map(add).collect();
        let (offer, pending) = changes.apply().unwrap();
        self.pending = Some(pending);
        self.outbox.push(Sent::Offer(offer.to_sdp_string()));
        mids
    }

    pub(crate) fn restart_ice(&mut self) {
        let mut changes = self.rtc.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply().unwrap();
        self.pending = Some(pending);
        self.outbox.push(Sent::Offer(offer.to_sdp_string()));
    }

    /// Delivers everything in both directions until nobody has anything to say.
    pub(crate) fn run(&mut self, server: &mut Negotiation, now: Instant) {
        for _ in 0..100 {
            for sent in std::mem::take(&mut self.outbox) {
                match sent {
                    Sent::Offer(sdp) => server.handle_offer(now, &sdp),
                    Sent::Answer(sdp) => server.handle_answer(now, &sdp),
                }
            }
            self.receive(server);
            if self.outbox.is_empty() {
                return;
            }
        }
        panic!("the two sides never come to an end");
    }

    /// Takes what the server has for it, and leaves its own answers in the outbox.
    pub(crate) fn receive(&mut self, server: &mut Negotiation) {
        while let Some(action) = server.next_action() {
            match action {
                Action::SendOffer(sdp) => self.take_offer(&sdp),
                Action::SendAnswer(sdp) => {
                    let pending = self.pending.take().expect("an offer of its own");
                    let answer = SdpAnswer::from_sdp_string(&sdp).unwrap();
                    let accepted = self.rtc.sdp_api().accept_answer(pending, answer);
                    accepted.unwrap_or_else(|error| panic!("{error}\n{sdp}"));
                }
                Action::SendCandidate { candidate, .. } => {
                    str0m::Candidate::from_sdp_string(&candidate).unwrap();
                }
                Action::SendError(code, text) => self.errors.push(format!("{code:?}: {text}")),
                Action::Fail(code, text) => self.errors.push(format!("fail {code:?}: {text}")),
                Action::SendSlots(slots) => {
                    let slots = slots.into_iter();
                    self.slots
                        .extend(slots.map(|(mid, track)| (mid.to_string(), track.map(|track| track.0))));
                }
                action => self.worker.push(action),
            }
        }
    }

    fn take_offer(&mut self, sdp: &str) {
        self.offer_count += 1;
        self.last_offer = sdp.to_owned();
        if self.pending.is_some() && self.manner == Manner::Stubborn {
            return;
        }
        if self.pending.take().is_some() {
            self.rolled_back_count += 1;
        }
        let offer = SdpOffer::from_sdp_string(sdp).unwrap();
        let answer = self.rtc.sdp_api().accept_offer(offer);
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{sdp}"));
        self.outbox.push(Sent::Answer(answer.to_sdp_string()));
    }

    pub(crate) fn direction(&self, mid: &str) -> Direction {
        self.rtc.media(mid.into()).unwrap().direction()
    }
}
