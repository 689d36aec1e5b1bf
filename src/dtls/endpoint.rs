//! One peer's server side, from the first datagram to the last: attempts one after the other until there are keys,
//! then our last flight again when the peer missed it.
//!
//! There are no second keys. An association that takes the place of one is agreed on in SDP (RFC 8842 §4), with a
//! transport of its own here; one that only a hello asks for would begin the SRTP streams of both sides again in the
//! middle of a call, where listeners are still sealed for with the indices that the publisher could then repeat.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::handshake::{Outcome, Peer};
use super::hello::{CLIENT_HELLO, Hello};
use super::identity::Identity;
use super::inbox::Inbox;
use super::keying::KeyingMaterial;
use super::reassembly::Reassembly;
use super::record::{HANDSHAKE, fragments, records};
use crate::ids::Fingerprint;

/// Handshakes worked on at the same time. One that waits for its peer is not counted, so that peers that
/// stay silent hold up nobody; those that wait for their turn cost a few kilobytes each.
const TURN_COUNT: usize = 4;
/// From an attempt's first turn, and from each step of the peer's, to the next or to keys. A browser begins no second
/// attempt, so a path that is gone for a while is not to end its first; little less than a transport waits for all of it.
const DEADLINE: Duration = Duration::from_secs(25);
/// Attempts of a peer after its first, in [`RETRY_WINDOW`].
const RETRY_COUNT_MAX: usize = 5;
const RETRY_WINDOW: Duration = Duration::from_secs(60);
/// A peer may miss our last flight for this long (RFC 6347 §4.2.4: twice the segment life time of TCP).
const LAST_FLIGHT_KEPT: Duration = Duration::from_secs(240);
/// Most times that it is sent again.
const LAST_FLIGHT_COUNT_MAX: u32 = 64;

/// What comes out of an endpoint.
pub enum Output {
    /// To be sent to the peer, over the pair that its last datagram came on.
    Datagram(Bytes),
    /// Keys, once: no hello begins anything any more.
    Established(Box<KeyingMaterial>),
    /// An attempt failed. The endpoint listens on, for five more attempts a minute.
    Failed(Error),
    // That a peer left is not told: once the keys are out nothing here can verify an alert, so a forged one
    // would end a call. ICE consent (RFC 7675) and the WebSocket tell.
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// DTLS 1.0 or 1.3 only.
    #[error("the peer does not offer DTLS 1.2")]
    Version,
    /// RFC 8827 §6.5 demands the one that we take.
    #[error("the peer does not offer TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    NoCommonCipherSuite,
    /// RFC 7627.
    #[error("the peer does not offer the extended master secret")]
    NoExtendedMasterSecret,
    /// RFC 5764 §4.1.
    #[error("the peer does not offer SRTP")]
    NoUseSrtp,
    /// RFC 5764 §4.1.2.
    #[error("the peer offers no SRTP profile of ours")]
    NoCommonProfile,
    /// RFC 8827 §6.5: both sides authenticate.
    #[error("the peer has no certificate")]
    NoCertificate,
    /// RFC 8122 §5.
    #[error("the peer's certificate is not the one in its SDP")]
    FingerprintMismatch,
    /// With the alert's description (RFC 5246 §7.2).
    #[error("the peer ended the handshake with alert {0}")]
    PeerAlert(u8),
    /// Not finished in time.
    #[error("the handshake took too long")]
    Timeout,
    /// The handshake went wrong in another way.
    #[error("the handshake failed: {0}")]
    Refused(String),
    /// It finished without keys for SRTP.
    #[error("the handshake gave no keys")]
    Export,
    /// A fault of ours that the peer brought to light.
    #[error("the handshake panicked")]
    Panicked,
}

impl Error {
    /// The alert's description that tells the peer (RFC 5246 §7.2.2), unless it was told.
    pub(super) fn alert(&self) -> Option<u8> {
        match self {
            Error::Version => Some(70),
            Error::NoCommonCipherSuite
            | Error::NoExtendedMasterSecret
            | Error::NoUseSrtp
            | Error::NoCommonProfile
            | Error::NoCertificate
            | Error::Timeout => Some(40),
            Error::Export | Error::Panicked => Some(80),
            Error::FingerprintMismatch | Error::PeerAlert(_) | Error::Refused(_) => None,
        }
    }
}

/// What all endpoints share.
pub struct Acceptor {
    pub(super) identity: Identity,
    pub(super) turns: Semaphore,
    pub(super) deadline: Duration,
}

impl Acceptor {
    /// With the certificate of this process.
    pub fn new(identity: Identity) -> Rc<Acceptor> {
        Acceptor::with_deadline(identity, DEADLINE)
    }

    /// With another deadline than the 25 s of a server.
    pub fn with_deadline(identity: Identity, deadline: Duration) -> Rc<Acceptor> {
        Rc::new(Acceptor { identity, turns: Semaphore::new(TURN_COUNT), deadline })
    }

    /// Our certificate.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// One peer's server side. Dropping it ends its tasks and frees everything.
pub struct Endpoint {
    inbox: Inbox,
    _task: AbortOnDrop<()>,
}

impl Endpoint {
    /// Waits for a peer whose SDP names its certificate by `fingerprint`.
    ///
    /// `output` is called from a task of the endpoint, never from within its methods and never after it was
    /// dropped.
    ///
    /// # Panics
    /// Outside a [`tokio::task::LocalSet`].
    pub fn new(
        acceptor: &Rc<Acceptor>,
        fingerprint: Fingerprint,
        output: impl Fn(Output) + 'static,
    ) -> Endpoint {
        let inbox = Inbox::default();
        let session = Session {
            acceptor: Rc::clone(acceptor),
            fingerprint,
            output: Box::new(output),
            inbox: inbox.clone(),
            hello: Reassembly::default(),
            established: None,
            attempts: VecDeque::new(),
        };
        Endpoint { inbox, _task: AbortOnDrop(tokio::task::spawn_local(session.run_on())) }
    }

    /// Takes a datagram of an authenticated pair. Dropped when too many wait: DTLS sends again.
    pub fn handle_datagram(&mut self, datagram: Bytes) {
        self.inbox.put(datagram);
    }
}

/// What an endpoint's task owns.
struct Session {
    acceptor: Rc<Acceptor>,
    fingerprint: Fingerprint,
    output: Box<dyn Fn(Output)>,
    inbox: Inbox,
    /// The hello that comes next.
    hello: Reassembly,
    established: Option<Established>,
    /// When the latest began.
    attempts: VecDeque<Instant>,
}

/// What stays of a handshake that succeeded.
struct Established {
    last_flight: Bytes,
    since: Instant,
    resent_count: u32,
}

impl Session {
    /// A fault of ours that a datagram brings to light costs the attempt in which it came, and no more.
    async fn run_on(mut self) {
        loop {
            contained(self.run()).await;
            self.hello = Reassembly::default();
            (self.output)(Output::Failed(Error::Panicked));
        }
    }

    /// Ends by a panic only.
    async fn run(&mut self) {
        loop {
            let datagram = self.inbox.next().await;
            let mut next = self.handle_idle(&datagram);
            while let Some(hello) = next.take() {
                // One that comes to nothing is not counted: anybody could have sent it.
                if hello.choose().is_ok() && !self.may_begin() {
                    break;
                }
                // Boxed: an endpoint is idle nearly all its life, and a task is as large as its largest wait.
                next = Box::pin(self.handshake(hello)).await;
            }
        }
    }

    /// Between attempts: returns a hello that begins one.
    fn handle_idle(&mut self, datagram: &[u8]) -> Option<Hello> {
        let mut missed_last_flight = false;
        for record in records(datagram).filter(|record| record.content_type == HANDSHAKE) {
            // A retransmitted Finished.
            missed_last_flight |= record.epoch == 1;
            for fragment in fragments(record.body).filter(|_| record.epoch == 0) {
                if fragment.message_type != CLIENT_HELLO {
                    missed_last_flight = true;
                } else if fragment.message_seq == 0
                    && self.established.is_none()
                    && let Some(hello) = self.hello.insert(&fragment).and_then(Hello::parse)
                {
                    return Some(hello);
                }
            }
        }
        if missed_last_flight
            && let Some(established) = &mut self.established
            && established.resent_count < LAST_FLIGHT_COUNT_MAX
            && established.since.elapsed() < LAST_FLIGHT_KEPT
        {
            established.resent_count += 1;
            (self.output)(Output::Datagram(established.last_flight.clone()));
        }
        None
    }

    /// Counts an attempt; `false` when there were too many of late.
    fn may_begin(&mut self) -> bool {
        let now = Instant::now();
        while self.attempts.front().is_some_and(|began| now - *began > RETRY_WINDOW) {
            self.attempts.pop_front();
        }
        let may = self.attempts.len() <= RETRY_COUNT_MAX;
        if may {
            self.attempts.push_back(now);
        }
        may
    }

    /// Returns the hello that cut this attempt short.
    async fn handshake(&mut self, hello: Hello) -> Option<Hello> {
        let outcome = Peer {
            acceptor: &self.acceptor,
            fingerprint: self.fingerprint,
            output: &self.output,
            inbox: &self.inbox,
        }
        .handshake(&hello)
        .await;
        match outcome {
            Outcome::Established { keys, last_flight } => {
                self.established = Some(Established { last_flight, since: Instant::now(), resent_count: 0 });
                (self.output)(Output::Established(keys));
            }
            Outcome::Failed(error) => (self.output)(Output::Failed(error)),
            Outcome::Superseded(hello) => return Some(hello),
            Outcome::Abandoned => {}
        }
        None
    }
}

/// Ends with the work, or with its panic.
async fn contained(work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    let step = |context: &mut Context<'_>| {
        let step = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        step.unwrap_or(Poll::Ready(())) // What the panic left behind is dropped with the work.
    };
    poll_fn(step).await;
}

/// Ends a task with its owner.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
