//! The house's front door: one TCP port for the demo page, health, metrics and WebSockets
//! (RFC 9110, 9112, 6455); metrics may have a port of their own.
//!
//! Everything here runs on control's thread, inside a `LocalSet`. Whatever a stranger does, what he
//! can hold is bounded: connections, bytes of a message, frames a second, and the time of each step.
//!
//! - `listener`: accepts, for ever, and bounds how many connections there are and how long they idle
//! - `tls`, `validity`: certificate and key, and how long they are good
//! - `pace`: whose turn a TLS handshake is
//! - `bearer`, `client`, `rate`, `origin`: who asks, with which token, how often, from which page
//! - `routes`: which path answers what
//! - `demo`: the page and its headers
//! - `debug`: how rooms and peers are, for operators only
//! - `health`: liveness and readiness
//! - `probe`: the client of `health`, for `sfu --health`
//! - `frames`, `websocket`: one client's frames, to and from a [`Session`]

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::AbortHandle;

use self::bearer::Token;
use self::pace::Pace;
use self::rate::Rates;
use crate::config::{Hidden, Origin, Rate, TrustedProxies};
use crate::crowd::Crowd;
use crate::metrics::exposition::{HttpCounters, Snapshot};
use crate::signalling::{Inbound, Outbox, Signalling};
use crate::time::Now;

mod bearer;
mod client;
mod debug;
mod demo;
mod frames;
mod health;
mod listener;
mod origin;
mod pace;
mod probe;
mod rate;
mod routes;
mod tls;
mod validity;
mod websocket;

pub use debug::{CaptureRefused, Capturing, Debug, Inspect, View, WorkerSilent};
pub use listener::{serve, serve_metrics};
pub use probe::{ProbeError, probe};
pub use tls::{Certificate, Tls, TlsError};

/// What a WebSocket's messages are for: [`Signalling`], or in tests an echo.
pub trait Service: 'static {
    /// One client's end.
    type Session: Session;

    /// A client connected. What it is to be told comes out of the [`Outbox`]; when the other end of that is
    /// dropped, the connection is closed with 1000.
    fn connect(&self, now: Instant, remote: SocketAddr) -> (Self::Session, Outbox);
}

/// One client. Dropped without [`Session::handle_close`]: the connection was lost.
pub trait Session: 'static {
    /// A whole text message, at most [`MESSAGE_LEN_MAX`] bytes.
    fn handle_text(&self, now: Instant, text: &str);

    /// The client has joined.
    fn is_member(&self) -> bool;

    /// How many offers of ours it has answered.
    fn answers(&self) -> u64;

    /// The client closed the connection on purpose, with this code (RFC 6455 §7.4; 1005 where it gave none).
    fn handle_close(self, now: Instant, code: u16);
}

impl Service for Signalling {
    type Session = Inbound;

    fn connect(&self, now: Instant, remote: SocketAddr) -> (Inbound, Outbox) {
        Signalling::connect(self, now, remote)
    }
}

impl Session for Inbound {
    fn handle_text(&self, now: Instant, text: &str) {
        Inbound::handle_text(self, now, text);
    }

    fn is_member(&self) -> bool {
        Inbound::is_member(self)
    }

    fn answers(&self) -> u64 {
        Inbound::answers(self)
    }

    fn handle_close(self, now: Instant, code: u16) {
        Inbound::handle_close(self, now, Some(code));
    }
}

/// What the front door tells about the house.
pub trait Status: 'static {
    /// # Errors
    /// Why it is to be ended and started anew, in a few words.
    fn alive(&self) -> Result<(), &'static str>;

    /// # Errors
    /// Why nobody should be sent here now, in a few words.
    fn ready(&self) -> Result<(), &'static str>;

    /// Nobody new is let in: the server ends with its last call.
    fn is_draining(&self) -> bool;

    /// The latest counters of every worker and of control. The front door fills in its own.
    fn snapshot(&self) -> Snapshot;
}

/// Largest message taken from a client, in bytes, its fragments counted together.
pub const MESSAGE_LEN_MAX: usize = 256 * 1024;

/// How much, and how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// WebSockets open at a time.
    pub websockets_max: usize,
    /// Connections that are no WebSocket (yet), at a time. One more, and of the address that has the most the oldest is
    /// ended.
    pub requests_max: usize,
    /// Likewise, of connections to the port of `/metrics` alone.
    pub scrapes_max: usize,
    /// TLS handshakes of everybody together: so many at once, which come back evenly over the window. See
    /// [`Limits::handshakes_for`].
    pub handshakes: Rate,
    /// From the end of one request (or the connect) to the end of the next one's header.
    pub header_timeout: Duration,
    /// After this a connection that became no WebSocket takes no further request.
    pub request_lifetime: Duration,
    /// Between pings to a client, at least: those of many clients leave together, as far as a thirtieth of it allows.
    pub ping_interval: Duration,
    /// A client from which neither message nor pong came for this long is lost.
    pub silence_max: Duration,
    /// For one write, of a frame or several, to be taken by the kernel.
    pub write_timeout: Duration,
    /// From our Close frame to the end of the connection.
    pub close_timeout: Duration,
}

/// TLS handshakes let begin in a second, at least: with an RSA key of 2048 bits each takes control some 0.7 ms, so that
/// these are less than a third of its time.
const HANDSHAKES_PER_SECOND: u32 = 400;
/// And at most, whatever the number of those who may wait: two thirds of it.
const HANDSHAKES_PER_SECOND_MAX: u32 = 1_000;
/// The longest that a handshake waits for its turn, then it is over: half of [`HEADER_TIMEOUT`]. The rest is for the
/// handshake itself.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(2 * HANDSHAKE_WAIT_MAX.as_millis() <= HEADER_TIMEOUT.as_millis());

impl Limits {
    /// TLS handshakes where there are at most so many connections that are no WebSocket yet. So many may begin at once:
    /// after a restart everybody is back. No more can ever wait, and up to 5,000 of them have all had their turn in time,
    /// unless others come meanwhile from elsewhere, who go first where somebody's address has many.
    pub fn handshakes_for(requests_max: usize) -> Rate {
        let requests = u32::try_from(requests_max).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let all = Duration::from_secs(requests.get().into());
        let window =
            (all / HANDSHAKES_PER_SECOND).min(HANDSHAKE_WAIT_MAX).max(all / HANDSHAKES_PER_SECOND_MAX);
        Rate { requests, window }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        let requests_max = 256;
        Limits {
            websockets_max: 10_000,
            requests_max,
            scrapes_max: 64,
            handshakes: Limits::handshakes_for(requests_max),
            header_timeout: HEADER_TIMEOUT,
            request_lifetime: Duration::from_secs(300),
            ping_interval: Duration::from_secs(30),
            silence_max: Duration::from_secs(90),
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// Who is let in, and how. By default everybody, without TLS.
#[derive(Default)]
pub struct Policy {
    /// Sites whose pages may come; empty: all.
    pub origins: Vec<Origin>,
    /// Whose word on a client's address is believed.
    pub trusted_proxies: TrustedProxies,
    /// What one client may ask for.
    pub rate: Option<Rate>,
    /// `/metrics` is at a port of its own ([`serve_metrics`]) and nowhere else.
    pub metrics_are_apart: bool,
    /// What has to be shown to read `/metrics`.
    pub metrics_token: Option<Hidden>,
    /// Speak TLS, and nothing else.
    pub tls: Option<Rc<Tls>>,
}

/// What `/metrics` and `/debug` answered is answered again for so long: whoever asks however often, it is made twice a
/// second.
const FRESH: Duration = Duration::from_millis(500);

/// Beats of the house in which pings leave, in one [`Limits::ping_interval`].
const PING_BEATS: u32 = 30;

/// What the front door opens onto.
pub struct App<S> {
    service: S,
    begun: Instant,
    policy: Policy,
    /// Of requests.
    rates: Option<Rates>,
    /// Of upgrades: any site's page can make a browser ask for pages, and calls behind the same NAT go on beginning.
    upgrade_rates: Option<Rates>,
    handshakes: Pace,
    /// Of those who come from this machine.
    handshakes_here: Pace,
    metrics_token: Option<Token>,
    /// The latest page of metrics in each format, and when it was made.
    metrics: RefCell<[Option<(Instant, Bytes)>; 2]>,
    status: Box<dyn Status>,
    limits: Limits,
    counters: RefCell<HttpCounters>,
    request_id: Cell<u64>,
    /// Connections that are no WebSocket (yet), by their peers.
    requests: RefCell<Crowd<AbortHandle>>,
    /// Those at the port of `/metrics` alone.
    scrapes: RefCell<Crowd<AbortHandle>>,
    /// WebSockets of those who are no members (yet, or any more), by their clients.
    strangers: RefCell<Crowd<AbortHandle>>,
    debug: OnceCell<Debug>,
}

impl<S: Service> App<S> {
    /// Ready for [`serve`]; lets everybody in.
    pub fn new(service: S, status: impl Status, limits: Limits) -> Rc<App<S>> {
        App::with_policy(service, status, limits, Policy::default())
    }

    /// Ready for [`serve`].
    pub fn with_policy(service: S, status: impl Status, limits: Limits, policy: Policy) -> Rc<App<S>> {
        let (requests, scrapes, strangers) = Default::default();
        let (counters, metrics, debug) = (RefCell::default(), RefCell::default(), OnceCell::new());
        let begun = Now::read().instant;
        let [rates, upgrade_rates] = [(); 2].map(|()| policy.rate.map(|rate| Rates::new(begun, rate)));
        let [handshakes, handshakes_here] = [(); 2].map(|()| Pace::new(limits.handshakes));
        let metrics_token = policy.metrics_token.as_ref().map(Token::new);
        Rc::new(App {
            service,
            begun,
            policy,
            rates,
            upgrade_rates,
            handshakes,
            handshakes_here,
            metrics_token,
            metrics,
            status: Box::new(status),
            limits,
            counters,
            request_id: Cell::default(),
            requests,
            scrapes,
            strangers,
            debug,
        })
    }

    /// Lets `/debug` be seen, by whom it concerns; for good.
    pub fn open_debug(&self, debug: Debug) {
        let _ = self.debug.set(debug);
    }

    /// What the front door has counted so far.
    pub fn counters(&self) -> HttpCounters {
        self.counters.borrow().clone()
    }

    /// When the next ping is due to a client that was sent one, or came, at `last`. Rounded up to a beat of the
    /// house, so that a thousand clients are one wake-up in a while and not one each.
    fn next_ping(&self, last: Instant) -> Instant {
        let due = last + self.limits.ping_interval;
        let beat = (self.limits.ping_interval / PING_BEATS).as_nanos().max(1);
        let beats = due.saturating_duration_since(self.begun).as_nanos().div_ceil(beat);
        let nanos = u64::try_from(beats * beat).unwrap_or(u64::MAX);
        self.begun.checked_add(Duration::from_nanos(nanos)).unwrap_or(due)
    }

    /// Grows with every call.
    fn next_request_id(&self) -> u64 {
        self.request_id.replace(self.request_id.get() + 1)
    }

    fn count(&self, change: impl FnOnce(&mut HttpCounters)) {
        change(&mut self.counters.borrow_mut());
    }
}
