//! One member of a room: a task, and a handle for the test that gives orders and awaits what it wants to see.

mod member;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::Rtc;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use self::member::{Join, Member, Order, Voice};
use self::state::Shared;
pub use self::state::{Heard, State};
use super::{PATIENCE, Server, now};

/// Says which datagrams get through.
pub type Filter = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// Sees datagrams.
pub type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// What a client does when the server's offer comes while its own is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Glare {
    /// It answers every offer as it comes; its own are never out at the time.
    #[default]
    Never,
    /// It lets its own offer go first, then answers the server's: its own is rolled back and made again later.
    Polite,
    /// It lets its own offer go first and ignores the server's.
    Stubborn,
    /// As polite, and its own offer restarts ICE.
    RestartsIce,
}

/// How a client joins.
pub struct Options {
    /// Offers `sendrecv`, else `recvonly`.
    pub publish: bool,
    /// Makes an offer of its own after `joined`.
    pub offers: bool,
    /// `userInfo`; `null` leaves it out.
    pub user_info: Value,
    /// `token`
    pub token: Option<String>,
    /// Candidates go as `ice-candidate`, not in the SDP.
    pub trickle: bool,
    /// Sequence number of the first packet, below 2^16.
    pub first_seq: u16,
    /// What it does in a collision.
    pub glare: Glare,
    /// What comes in through the UDP socket.
    pub incoming: Filter,
    /// Where its UDP socket is bound; by itself the address from which the server is reached.
    pub bind: Option<IpAddr>,
    /// Most time between two checks of its path; str0m's own otherwise.
    pub check_every: Option<Duration>,
    /// Sees what leaves through it.
    pub outgoing: Tap,
    /// Names a fingerprint in its SDP that is not its certificate's.
    pub lies: bool,
    /// Keeps every packet it hears in [`State::heard`]; else only counts and latencies.
    pub keeps: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            publish: true,
            offers: true,
            user_info: Value::Null,
            token: None,
            trickle: false,
            first_seq: 1000,
            glare: Glare::Never,
            incoming: Box::new(|_| true),
            bind: None,
            check_every: None,
            outgoing: Box::new(|_| {}),
            lies: false,
            keeps: true,
        }
    }
}

impl Options {
    /// Publishes nothing.
    pub fn listener() -> Options {
        Options { publish: false, ..Options::default() }
    }
}

/// A packet of somebody else's making, placed after the one before.
pub struct Played {
    /// From the sequence number before, not 0.
    pub seq_step: i16,
    /// From the timestamp before.
    pub ticks: u32,
    /// Marker bit.
    pub marker: bool,
    /// The byte of RFC 6464.
    pub level: Option<u8>,
    /// Opus, or whatever it is.
    pub payload: Vec<u8>,
}

/// A member of a room. Leaves without a word when dropped.
pub struct Client {
    /// `userId`
    pub user: String,
    /// Stands in every frame it sends; unique in this process.
    pub id: u32,
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    task: tokio::task::JoinHandle<()>,
}

static NEXT_ID: AtomicU32 = AtomicU32::new(1);

impl Client {
    /// Joins and waits until media can flow.
    pub async fn join(server: &Server, room: &str, user: &str, options: Options) -> Client {
        let offers = options.offers;
        let client = Client::start(server.http, room, user, options).await;
        client.joined().await;
        if offers {
            client.until("a connection", |state| state.connected.then_some(())).await;
        }
        client
    }

    /// Opens the WebSocket and sends `join`; waits for nothing else.
    pub async fn start(server: SocketAddr, room: &str, user: &str, options: Options) -> Client {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Notify::new() });
        let (orders, received) = mpsc::unbounded_channel();
        let room = room.to_owned();
        let join = Join { server, room, user: user.to_owned(), info: options.user_info.clone() };
        let member = Member::new(id, join, options, Arc::clone(&shared)).await;
        let task = tokio::spawn(member.run(received));
        Client { user: user.to_owned(), id, shared, orders, task }
    }

    /// What it knows now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Waits until `find` finds something; the test fails when it does not in time.
    pub async fn until<T>(&self, what: &str, mut find: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::from_std(now() + PATIENCE);
        loop {
            let changed = self.shared.changed.notified();
            if let Some(found) = find(&self.state()) {
                return found;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let state = self.state();
                let last: Vec<_> = state.messages.iter().rev().take(6).rev().collect();
                panic!(
                    "{}: no sign of {what}; connected {}, ICE {:?}, counts {:?}, closed {:?}, faults {:?}, \
                     lines {:?}, last messages {last:#?}",
                    self.user,
                    state.connected,
                    state.ice,
                    state.counts,
                    state.closed,
                    state.faults,
                    state.lines
                );
            }
        }
    }

    /// Waits for a message of this event that `is_it`.
    pub async fn message(&self, event: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.message_since(0, event, is_it).await
    }

    /// As [`Client::message`], among those after the `from`-th.
    pub async fn message_since(&self, from: usize, event: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.until(event, |state| state.events(event, from).find(|data| is_it(data)).cloned()).await
    }

    /// How many messages came until now: a place for [`Client::message_since`].
    pub fn mark(&self) -> usize {
        self.state().messages.len()
    }

    /// Waits for `joined` with success.
    pub async fn joined(&self) -> Value {
        self.message("joined", |data| data["success"] == true).await
    }

    /// Waits for the end of the WebSocket.
    pub async fn closed(&self) -> (u16, String) {
        self.until("a close", |state| state.closed.clone()).await
    }

    /// Waits for an `error` with this code.
    pub async fn error(&self, code: &str) -> Value {
        self.message("error", |data| data["code"] == code).await
    }

    /// Waits for `more` frames of `other` beyond those heard already.
    pub async fn hears(&self, other: &Client, more: u64) {
        let goal = self.state().count(other.id) + more;
        let what = format!("{more} frames of {}", other.user);
        self.until(&what, |state| (state.count(other.id) >= goal).then_some(())).await;
    }

    /// All `listeners` hear `more` frames of each of the `speakers` but themselves, at the same time.
    pub async fn all_hear(listeners: &[Client], speakers: &[Client], more: u64) {
        let mut goals = Vec::new();
        for listener in listeners {
            let state = listener.state();
            let others = speakers.iter().filter(|speaker| speaker.id != listener.id);
            goals.extend(others.map(|speaker| (listener, speaker, state.count(speaker.id) + more)));
        }
        for (listener, speaker, goal) in goals {
            let what = format!("{more} frames of {}", speaker.user);
            listener.until(&what, |state| (state.count(speaker.id) >= goal).then_some(())).await;
        }
    }

    /// Speaks at `level` (−dBov), a frame every 20 ms.
    pub fn speak(&self, level: u8) {
        self.speak_every(level, Duration::from_millis(20));
    }

    /// Speaks at `level` (−dBov), a frame every so often.
    pub fn speak_every(&self, level: u8, every: Duration) {
        self.speak_from(level, every, now());
    }

    /// Speaks at `level` (−dBov), a frame every so often, the first at this time.
    pub fn speak_from(&self, level: u8, every: Duration, next_at: Instant) {
        self.order(Order::Speak(Voice { level, every, next_at }));
    }

    /// Sends a packet now.
    pub fn play(&self, played: Played) {
        self.order(Order::Play(played));
    }

    /// Sends no more frames.
    pub fn hush(&self) {
        self.order(Order::Hush);
    }

    /// Sends an event.
    pub fn send(&self, event: &str, data: &Value) {
        self.send_text(&json!({"event": event, "data": data}).to_string());
    }

    /// Sends any text.
    pub fn send_text(&self, text: &str) {
        self.order(Order::Send(Message::text(text)));
    }

    /// Sends any message.
    pub fn send_message(&self, message: Message) {
        self.order(Order::Send(message));
    }

    /// `user-info`
    pub fn set_muted(&self, muted: bool) {
        self.send("user-info", &json!({"isMuted": muted}));
    }

    /// `user-info`
    pub fn set_deafened(&self, deafened: bool) {
        self.send("user-info", &json!({"isDeafened": deafened}));
    }

    /// `leave`
    pub fn leave(&self) {
        self.send("leave", &json!({}));
    }

    /// Offers with new ICE credentials.
    pub fn restart_ice(&self) {
        self.order(Order::RestartIce);
    }

    /// Sends from another UDP port from now on without knowing, as behind a NAT that forgot.
    pub fn rebind(&self) {
        self.order(Order::Rebind);
    }

    /// Sends from another UDP port and restarts ICE, as after a change of networks.
    pub fn move_port(&self) {
        self.order(Order::Move);
    }

    /// Sends a datagram from the very 5-tuple of the call.
    pub fn inject(&self, datagram: Vec<u8>) {
        self.order(Order::Inject(datagram));
    }

    /// Cuts the TCP connection without a closing handshake. Media goes on.
    pub fn lose_socket(&self) {
        self.order(Order::LoseSocket);
    }

    /// Shows this token from the next join on.
    pub fn use_token(&self, token: Option<String>) {
        self.order(Order::UseToken(token));
    }

    /// Joins on a new WebSocket with the `resume` of the last `joined`.
    pub fn resume(&self) {
        self.order(Order::Resume);
    }

    fn order(&self, order: Order) {
        // A member that ended has said why in its state.
        let _ = self.orders.send(order);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            // A poisoned lock would be a panic elsewhere, and that has been seen.
            let faults = self.shared.state.lock().map(|state| state.faults.clone()).unwrap_or_default();
            assert!(faults.is_empty(), "{}: {faults:?}", self.user);
        }
    }
}

/// A close frame of ours.
pub fn close_message(code: u16) -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: "".into() }))
}
