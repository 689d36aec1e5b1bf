//! The front door: WebSockets and workers' news come in here, frames and commands leave.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::{CloseCode, Outbox, Stage};
use super::ice_servers::IceServers;
use super::state::{Culprit, Deadline, Door, State};
use super::uninformed::TOLD_AT_ONCE;
use super::{ConnectionId, Counts};
use crate::auth::Verifier;
use crate::control::workers::Workers;
use crate::ice::credentials::Secret;
use crate::ids::{Fingerprint, TransportId, WorkerId};
use crate::metrics::histogram::Histogram;
use crate::worker::event::Event;

/// What signalling is told at the start.
pub struct Settings {
    /// Most slots of a receiver.
    pub audio_slots: u16,
    /// Most participants, over all rooms. Twice as many WebSockets may be open, so that one who comes back
    /// is not turned away for its own dead connection.
    pub max_connections: usize,
    /// Members of a room on one worker before it takes another, too.
    pub room_span_at: usize,
    /// How long a participant whose WebSocket is lost is waited for.
    pub resume_window: Duration,
    /// Source of our ICE credentials.
    pub secret: Secret,
    /// Of our DTLS certificate.
    pub fingerprint: Fingerprint,
    /// Where each worker can be reached, worker 0 first, its preferred address first.
    pub candidates: Vec<Rc<[SocketAddr]>>,
    /// STUN and TURN for clients.
    pub ice_servers: IceServers,
    /// Looks at the tokens of those who join. `None`: anyone may, and nobody moderates.
    pub verifier: Option<Verifier>,
}

/// DTLS endpoints, one for each transport. Must not call back into [`Signalling`].
pub trait Handshakes {
    /// A ClientHello may come for this transport, from a peer whose certificate has this fingerprint.
    fn expect(&self, worker: WorkerId, transport: TransportId, fingerprint: Fingerprint);
    /// The transport is no more.
    fn forget(&self, transport: TransportId);
}

/// All sessions. Clones are the same.
///
/// One thread owns it. Nothing here waits, and nothing reads a clock: every input brings its time. The runner
/// calls [`Signalling::handle_timeout`] at [`Signalling::next_timeout`], and looks again when
/// [`Signalling::rearmed`] resolves.
#[derive(Clone)]
pub struct Signalling(Rc<Inner>);

struct Inner {
    state: RefCell<State>,
    /// Connections whose [`Inbound`] was dropped, which brings no time along: taken up by the next input.
    lost: RefCell<Vec<ConnectionId>>,
    latest: Cell<Instant>,
    rearm: Notify,
}

impl Signalling {
    /// `now` is the time of the start.
    ///
    /// # Panics
    /// When the settings have not as many lists of candidates as there are workers.
    pub fn new(
        now: Instant,
        settings: Settings,
        workers: Workers,
        handshakes: impl Handshakes + 'static,
    ) -> Signalling {
        Signalling(Rc::new(Inner {
            state: RefCell::new(State::new(settings, workers, Box::new(handshakes))),
            lost: RefCell::default(),
            latest: Cell::new(now),
            rearm: Notify::new(),
        }))
    }

    /// A WebSocket opened. What comes from it goes into [`Inbound`], what is in the [`Outbox`] is to be written to
    /// it; nothing follows a Close frame.
    pub fn connect(&self, now: Instant, remote: SocketAddr) -> (Inbound, Outbox) {
        let (connection, outbox) = self.enter(now, |state| state.connect(now, remote));
        (Inbound { signalling: self.clone(), connection, is_open: true }, outbox)
    }

    /// News from a worker. DTLS datagrams and counters are for others, and ignored.
    pub fn handle_event(&self, now: Instant, worker: WorkerId, event: Event) {
        let culprit = event.transport().map(Culprit::Transport);
        self.enter_for(now, culprit, |state| state.handle_event(now, worker, event));
    }

    /// A worker's thread has used this much CPU time since its start.
    pub fn handle_load(&self, now: Instant, worker: WorkerId, cpu_time: Duration) {
        self.enter(now, |state| state.registry.handle_load(now, worker, cpu_time));
    }

    /// When something is due; may be past.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.0.lost.borrow().is_empty() {
            self.0.state.borrow().next_timeout()
        } else {
            Some(self.0.latest.get())
        }
    }

    /// Does what is due; where that is much, the rest is due still.
    pub fn handle_timeout(&self, now: Instant) {
        for deadline in self.enter(now, |state| state.take_due(now)) {
            match deadline {
                Deadline::Inform => self.inform(now),
                _ => self.enter_for(now, deadline.culprit(), |state| state.handle_deadline(now, deadline)),
            }
        }
    }

    /// Resolves once [`Signalling::next_timeout`] has become earlier since it resolved last.
    pub async fn rearmed(&self) {
        self.0.rearm.notified().await;
    }

    /// Says that the server goes down after `grace`. Nobody new comes in from now on; who is there may come back.
    pub fn drain(&self, now: Instant, grace: Duration) {
        self.enter(now, |state| state.drain(now, grace));
    }

    /// Closes every connection, those to come as well. `reason` is at most 123 bytes.
    pub fn close_all(&self, now: Instant, code: CloseCode, reason: &'static str) {
        self.enter(now, |state| state.close_all(now, code, reason));
    }

    /// [`Signalling::drain`] or [`Signalling::close_all`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.state.borrow().door != Door::Open
    }

    /// For metrics: nanoseconds from each join to a transport that media can flow over.
    pub fn join_to_media(&self) -> Histogram<12> {
        self.0.state.borrow().join_to_media.clone()
    }

    /// For metrics and health.
    pub fn counts(&self) -> Counts {
        self.0.state.borrow().counts()
    }

    /// Tells some of the members who wait of their room's voices, each as an input of its own: a fault over one of them
    /// is not the fault of whom the news is about.
    fn inform(&self, now: Instant) {
        for _ in 0..TOLD_AT_ONCE {
            let Some(member) = self.take(now, State::next_uninformed) else { return };
            self.take_for(now, Culprit::Participant(member), |state| state.set_voices(now, member));
        }
    }

    /// As [`Signalling::enter`], with somebody to blame for a panic, if there is one: else it goes on to the caller.
    fn enter_for(&self, now: Instant, culprit: Option<Culprit>, input: impl FnOnce(&mut State)) {
        match culprit {
            Some(culprit) => self.follow(now, || self.take_for(now, culprit, input)),
            None => self.enter(now, input),
        }
    }

    /// An input, and what follows from it for others.
    fn enter<R>(&self, now: Instant, input: impl FnOnce(&mut State) -> R) -> R {
        self.follow(now, || self.take(now, input))
    }

    /// To look at, between two inputs.
    pub(super) fn state(&self) -> std::cell::Ref<'_, State> {
        self.0.state.borrow()
    }

    /// Does what `input` brings about for others: at once where that is little, else in turns of its own, as of inputs there
    /// may be hundreds in one.
    fn follow<R>(&self, now: Instant, input: impl FnOnce() -> R) -> R {
        let before = self.next_timeout();
        let waited_nobody = self.state().uninformed.is_empty();
        let result = input();
        if waited_nobody && (1..=TOLD_AT_ONCE).contains(&self.state().uninformed.len()) {
            self.inform(now);
        }
        let is_earlier = |after| before.is_none_or(|before| after < before);
        if self.next_timeout().is_some_and(is_earlier) {
            self.0.rearm.notify_one();
        }
        result
    }

    /// As [`Signalling::take`]. A panic ends the session that the input is about, and the others go on.
    fn take_for(&self, now: Instant, culprit: Culprit, input: impl FnOnce(&mut State)) {
        if catch_unwind(AssertUnwindSafe(|| self.take(now, input))).is_err() {
            self.take(now, |state| state.end_faulty(now, culprit));
        }
    }

    /// Every input passes here, and ends here: what it brings about for others does not follow.
    fn take<R>(&self, now: Instant, input: impl FnOnce(&mut State) -> R) -> R {
        self.0.latest.set(now);
        let lost = self.0.lost.take();
        let mut state = self.0.state.borrow_mut();
        for connection in lost {
            state.handle_close(now, connection, None);
        }
        let result = input(&mut state);
        state.settle(now);
        result
    }
}

/// The receiving half of a WebSocket. Dropped: the connection is lost.
pub struct Inbound {
    signalling: Signalling,
    connection: ConnectionId,
    is_open: bool,
}

impl Inbound {
    /// For logs: the number that signalling's own lines carry as `connection`.
    pub fn id(&self) -> ConnectionId {
        self.connection
    }

    /// A whole text message came.
    pub fn handle_text(&self, now: Instant, text: &str) {
        let culprit = Some(Culprit::Connection(self.connection));
        self.signalling.enter_for(now, culprit, |state| state.handle_text(now, self.connection, text));
    }

    /// It speaks for a participant.
    pub fn is_member(&self) -> bool {
        let state = self.signalling.state();
        state.connections.get(&self.connection).is_some_and(|it| matches!(it.stage, Stage::Joined(_)))
    }

    /// How many offers of the present negotiation the client has answered.
    pub fn answers(&self) -> u64 {
        let state = self.signalling.state();
        let Some(&Stage::Joined(id)) = state.connections.get(&self.connection).map(|it| &it.stage) else {
            return 0;
        };
        let media = state.sessions.get(&id).and_then(|session| session.media.as_ref());
        media.map_or(0, |media| media.negotiation.answer_count())
    }

    /// The client closed the WebSocket with this code (RFC 6455 §7.4), or it broke. 1000 is a leave; after any
    /// other end the participant is waited for.
    pub fn handle_close(mut self, now: Instant, code: Option<CloseCode>) {
        self.is_open = false;
        self.signalling.enter(now, |state| state.handle_close(now, self.connection, code));
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if self.is_open {
            self.signalling.0.lost.borrow_mut().push(self.connection);
            self.signalling.0.rearm.notify_one();
        }
    }
}
