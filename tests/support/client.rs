//! One member of a room: a task that owns a WebSocket, a UDP socket and an [`Rtc`], and a handle for the
//! test that gives orders and awaits what it wants to see.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::frame::{FRAME_TICKS, Frame, nanos};
use super::sdp::{Description, Line, candidate_address};
use super::socket::Socket;
use super::stun::BindingRequest;
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

/// A voice packet that came, decrypted and intact.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What its payload says.
    pub frame: Frame,
    /// Of the line it came on.
    pub mid: String,
    /// Stream id that the SDP gave that line, or the user that `slots` gave it since.
    pub carries: Option<String>,
    /// Synchronization source.
    pub ssrc: u32,
    /// With the roll-overs counted.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Audio level in −dBov, where the packet has it.
    pub level: Option<u8>,
    /// From the sender's hand to ours.
    pub latency: Duration,
}

/// What a client knows.
#[derive(Default)]
pub struct State {
    /// Every message of the server: event and data.
    pub messages: Vec<(String, Value)>,
    /// How the WebSocket ended.
    pub closed: Option<(u16, String)>,
    /// ICE and DTLS are up.
    pub connected: bool,
    /// As str0m names it.
    pub ice: Option<IceConnectionState>,
    /// Packets in the order of their coming.
    pub heard: Vec<Heard>,
    /// Packets by sender's id.
    pub counts: HashMap<u32, u64>,
    /// Microseconds from the sender's hand to ours, where packets are not kept.
    pub latencies: Vec<u32>,
    /// Packets whose payload is not a frame.
    pub broken: u64,
    /// The server's last description, by mid.
    pub lines: BTreeMap<String, Line>,
    /// What `slots` said since that description.
    pub slots: HashMap<String, Option<String>>,
    /// Server's ufrag, password, candidates.
    pub remote: Description,
    /// Our ufrag and password.
    pub local: Description,
    /// Where our UDP socket is.
    pub address: Option<SocketAddr>,
    /// Where our datagrams go.
    pub media: Option<SocketAddr>,
    /// The last SRTP datagram that left, ciphertext.
    pub last_rtp: Vec<u8>,
    /// Frames sent.
    pub sent: u32,
    /// Offers of the server that we answered.
    pub answered: usize,
    /// Offers of ours that the server answered.
    pub accepted: usize,
    /// What should not have happened.
    pub faults: Vec<String>,
}

impl State {
    /// Messages of one event since the `from`-th message.
    pub fn events<'a>(&'a self, event: &'a str, from: usize) -> impl Iterator<Item = &'a Value> {
        self.messages.iter().skip(from).filter(move |(name, _)| name == event).map(|(_, data)| data)
    }

    /// How many frames of this sender came.
    pub fn count(&self, sender: u32) -> u64 {
        self.counts.get(&sender).copied().unwrap_or(0)
    }

    /// Packets of this sender.
    pub fn from(&self, sender: u32) -> impl Iterator<Item = &Heard> {
        self.heard.iter().filter(move |heard| heard.frame.sender == sender)
    }

    /// Stream id of a user, as `joined` or `user-joined` told.
    pub fn stream_of(&self, user: &str) -> Option<String> {
        let told = |(event, data): &(String, Value)| {
            let info = match event.as_str() {
                "joined" => &data["peerInfo"][user],
                "user-joined" if data["userId"] == user => &data["userInfo"],
                _ => return None,
            };
            let stream = info["streamId"].as_str().or_else(|| data["streamId"].as_str());
            stream.map(str::to_owned)
        };
        self.messages.iter().rev().find_map(told)
    }

    /// A Binding request as this member may write them.
    pub fn binding_request(&self, use_candidate: bool) -> Vec<u8> {
        let username = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        let transaction = nanos().to_be_bytes().repeat(2)[..12].try_into().expect("12 bytes");
        let password = &self.remote.pwd;
        BindingRequest { username: &username, password, use_candidate, transaction }.to_bytes()
    }

    fn carries(&self, mid: &str) -> Option<String> {
        match self.slots.get(mid) {
            Some(user) => user.clone(),
            None => self.lines.get(mid)?.stream_id.clone(),
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    fn fault(&self, text: String) {
        self.change(|state| state.faults.push(text));
    }
}

enum Order {
    Speak(Voice),
    Play(Played),
    Hush,
    Send(Message),
    RestartIce,
    Rebind,
    Move,
    Inject(Vec<u8>),
    LoseSocket,
    UseToken(Option<String>),
    Resume,
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

struct Join {
    server: SocketAddr,
    room: String,
    user: String,
    info: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Media,
    /// One more m-line to listen on.
    Line,
    RestartIce,
    MovePort,
}

struct Voice {
    level: u8,
    every: Duration,
    next_at: Instant,
}

struct Member {
    id: u32,
    join: Join,
    options: Options,
    shared: Arc<Shared>,
    socket: Option<Socket>,
    rtc: Rtc,
    udp: UdpSocket,
    /// Where ICE believes that we are; elsewhere than `udp` after a rebinding.
    local: SocketAddr,
    pending: Option<(SdpPendingOffer, Wish)>,
    wish: Option<Wish>,
    collided: bool,
    mid: Option<Mid>,
    voice: Option<Voice>,
    seq: u64,
    timestamp: u32,
    counter: u32,
    timeout: Instant,
}

impl Member {
    async fn new(id: u32, join: Join, options: Options, shared: Arc<Shared>) -> Member {
        let udp = bind_udp(join.server, options.bind).await;
        let local = udp.local_addr().expect("bound");
        shared.change(|state| state.address = Some(local));
        let mut config = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false);
        if let Some(interval) = options.check_every {
            config.set_max_stun_rto(interval);
        }
        let mut rtc = config.build(now());
        if !options.trickle {
            rtc.add_local_candidate(Candidate::host(local, "udp").expect("a host address"));
        }
        let seq = u64::from(options.first_seq);
        let socket = None;
        let mut member = Member {
            id,
            join,
            options,
            shared,
            socket,
            rtc,
            udp,
            local,
            pending: None,
            wish: None,
            collided: false,
            mid: None,
            voice: None,
            seq,
            timestamp: id.wrapping_mul(0x1234_5677),
            counter: 0,
            timeout: now(),
        };
        member.open(None).await;
        member
    }

    async fn open(&mut self, resume: Option<String>) {
        match Socket::open(self.join.server, "/").await {
            Ok(socket) => self.socket = Some(socket),
            Err(error) => return self.shared.fault(format!("no WebSocket: {error}")),
        }
        let mut data = json!({"roomId": self.join.room, "userId": self.join.user});
        for (key, value) in [("token", self.options.token.clone()), ("resume", resume)] {
            if let Some(value) = value {
                data[key] = value.into();
            }
        }
        if !self.join.info.is_null() {
            data["userInfo"] = self.join.info.clone();
        }
        self.say("join", data).await;
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            self.drain();
            let wake_at = self.voice.as_ref().map_or(self.timeout, |voice| voice.next_at.min(self.timeout));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                message = next_message(&mut self.socket) => self.handle_message(message).await,
                _ = self.udp.readable() => self.receive(),
                () = tokio::time::sleep_until(wake_at.into()) => self.handle_timeout(),
            }
        }
    }

    fn handle_timeout(&mut self) {
        let time = now();
        if let Some(voice) = &mut self.voice
            && voice.next_at <= time
        {
            voice.next_at += voice.every;
            self.send_frame();
        }
        if self.timeout <= time {
            self.input(Input::Timeout(time));
        }
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input)
            && !self.options.lies
        {
            self.shared.fault(format!("str0m: {error}"));
        }
        self.drain();
    }

    /// Everything str0m wants, up to its next timeout.
    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.timeout = at;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    if transmit.contents.first().is_some_and(|first| (128..192).contains(first)) {
                        self.shared.state().media = Some(transmit.destination);
                        if transmit.contents[1] & 0x7F < 64 || transmit.contents[1] & 0x7F > 95 {
                            self.shared.state().last_rtp = transmit.contents.to_vec();
                        }
                    }
                    (self.options.outgoing)(&transmit.contents);
                    // A candidate pair that cannot work, or a full buffer: a datagram may be lost.
                    let _ = self.udp.try_send_to(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(event)) => self.handle_event(event),
                Err(error) => {
                    // A liar is told so by the server.
                    if !self.options.lies {
                        self.shared.fault(format!("str0m: {error}"));
                    }
                    self.timeout = now() + Duration::from_secs(1);
                    return;
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected => self.shared.change(|state| state.connected = true),
            Event::IceConnectionStateChange(ice) => self.shared.change(|state| state.ice = Some(ice)),
            Event::RtpPacket(packet) => self.hear(&packet),
            Event::Closed => self.shared.change(|state| state.connected = false),
            _ => {}
        }
    }

    fn hear(&mut self, packet: &RtpPacket) {
        let ssrc = packet.header.ssrc;
        let mid = self.rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid().to_string());
        let frame = Frame::from_payload(&packet.payload);
        let keeps = self.options.keeps;
        self.shared.change(|state| {
            let (Some(mid), Some(frame)) = (mid, frame) else {
                state.broken += 1;
                return;
            };
            *state.counts.entry(frame.sender).or_default() += 1;
            let latency = Duration::from_nanos(nanos().saturating_sub(frame.sent_at));
            if !keeps {
                state.latencies.push(latency.as_micros() as u32);
            } else {
                let carries = state.carries(&mid);
                state.heard.push(Heard {
                    frame,
                    mid,
                    carries,
                    ssrc: *ssrc,
                    seq: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    level: packet.header.ext_vals.audio_level.map(i8::unsigned_abs),
                    latency,
                });
            }
        });
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2000];
        // As many as are there, within bounds: the WebSocket wants its turn, too.
        for _ in 0..64 {
            let Ok((len, source)) = self.udp.try_recv_from(&mut buffer) else { return };
            let bytes = &buffer[..len];
            if !(self.options.incoming)(bytes) {
                continue;
            }
            let Ok(contents) = bytes.try_into() else { continue };
            let destination = self.local;
            self.input(Input::Receive(
                now(),
                Receive { proto: Protocol::Udp, source, destination, contents },
            ));
        }
    }

    fn send_frame(&mut self) {
        let Some(level) = self.voice.as_ref().map(|voice| voice.level) else { return };
        let payload = Frame::new(self.id, self.counter).to_payload();
        let ext_vals = ExtensionValues {
            audio_level: Some(-(level as i8)),
            voice_activity: Some(level < 127),
            ..ExtensionValues::default()
        };
        if self.write_rtp(payload.to_vec(), ext_vals, self.counter == 0) {
            self.seq += 1;
            self.counter += 1;
            self.timestamp = self.timestamp.wrapping_add(FRAME_TICKS);
            let counter = self.counter;
            self.shared.change(|state| state.sent = counter);
        }
    }

    fn play(&mut self, played: Played) {
        self.seq = self.seq.saturating_add_signed(played.seq_step.into());
        self.timestamp = self.timestamp.wrapping_add(played.ticks);
        let ext_vals = ExtensionValues {
            audio_level: played.level.map(|level| -((level & 0x7F) as i8)),
            voice_activity: played.level.map(|level| level & 0x80 != 0),
            ..ExtensionValues::default()
        };
        self.write_rtp(played.payload, ext_vals, played.marker);
    }

    /// Sends a packet at the present place of our stream, once there is one.
    fn write_rtp(&mut self, payload: Vec<u8>, ext_vals: ExtensionValues, marker: bool) -> bool {
        let Some(mid) = self.mid.filter(|_| self.shared.state().connected) else { return false };
        let Some(pt) = self.rtc.media(mid).and_then(|media| media.remote_pts().first().copied()) else {
            return false;
        };
        let Some(codec) = self.rtc.codec_config().params().iter().find(|params| params.pt() == pt) else {
            self.shared.fault(format!("the server negotiated payload type {pt}, which we did not offer"));
            return false;
        };
        let (pt, time) = (codec.pt(), now());
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else { return false };
        let write = RtpWrite::new(pt, self.seq.into(), self.timestamp, time, payload);
        stream.write_rtp(write.ext_vals(ext_vals).marker(marker));
        self.drain();
        self.input(Input::Timeout(time));
        true
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Speak(voice) => self.voice = Some(voice),
            Order::Play(played) => self.play(played),
            Order::Hush => self.voice = None,
            Order::Send(message) => self.send(message).await,
            Order::RestartIce => self.offer(Wish::RestartIce).await,
            Order::Move => self.offer(Wish::MovePort).await,
            Order::Rebind => {
                self.udp = bind_udp(self.join.server, self.options.bind).await;
                let address = self.udp.local_addr().ok();
                let (check, target) = self.shared.change(|state| {
                    state.address = address;
                    (state.binding_request(true), state.media)
                });
                if let Some(target) = target {
                    // str0m checks every few seconds; we are not that patient.
                    let _ = self.udp.try_send_to(&check, target);
                }
            }
            Order::Inject(datagram) => {
                let target = self.shared.state().media;
                if let Some(target) = target {
                    let _ = self.udp.try_send_to(&datagram, target);
                }
            }
            Order::LoseSocket => self.socket = None,
            Order::UseToken(token) => self.options.token = token,
            Order::Resume => {
                let last = |state: &State| {
                    let given = state.events("joined", 0).filter_map(|joined| joined["resume"].as_str());
                    given.last().map(str::to_owned)
                };
                let token = last(&self.shared.state());
                self.open(token).await;
            }
        }
    }

    async fn handle_message(&mut self, message: Result<Message, Error>) {
        match message {
            Ok(Message::Text(text)) => self.handle_text(&text).await,
            Ok(Message::Binary(_)) => self.shared.fault("a binary message".into()),
            Ok(Message::Close(frame)) => {
                let how = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                self.shared.change(|state| state.closed = Some(how));
            }
            Ok(_) => {}
            Err(error) => {
                self.socket = None;
                self.shared.change(|state| state.closed.get_or_insert((1006, error.to_string())).0);
            }
        }
    }

    async fn handle_text(&mut self, text: &str) {
        let Ok(Value::Object(envelope)) = serde_json::from_str(text) else {
            return self.shared.fault(format!("not an envelope: {text}"));
        };
        let (event, data) = (envelope.get("event").and_then(Value::as_str), envelope.get("data"));
        let (Some(event), Some(data)) = (event, data.filter(|data| data.is_object())) else {
            return self.shared.fault(format!("not an event with an object: {text}"));
        };
        self.shared.change(|state| {
            if let ("slots", Some(slots)) = (event, data.as_object()) {
                let told = slots.iter().map(|(mid, user)| (mid.clone(), user.as_str().map(str::to_owned)));
                state.slots.extend(told);
            }
            state.messages.push((event.to_owned(), data.clone()));
        });
        match event {
            "joined" if data["success"] == true && self.options.offers && self.mid.is_none() => {
                self.offer(Wish::Media).await;
            }
            "offer" => self.handle_offer(data["sdp"].as_str().unwrap_or_default()).await,
            "answer" => self.handle_answer(data["sdp"].as_str().unwrap_or_default()).await,
            "ice-candidate" => self.handle_candidate(data["candidate"].as_str().unwrap_or_default()),
            "error" if data["code"] == "glare" => self.offer_again().await,
            _ => {}
        }
    }

    async fn offer(&mut self, wish: Wish) {
        if self.pending.is_some() {
            self.wish = Some(wish);
            return;
        }
        let mut api = self.rtc.sdp_api();
        match wish {
            Wish::Media => {
                let direction = if self.options.publish { Direction::SendRecv } else { Direction::RecvOnly };
                let mid = api.add_media(MediaKind::Audio, direction, Some("voice".into()), None, None);
                self.mid = Some(mid);
            }
            Wish::Line => drop(api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None)),
            Wish::RestartIce => drop(api.ice_restart(true)),
            Wish::MovePort => drop(api.ice_restart(false)),
        }
        let (offer, pending) = api.apply().expect("there is something to offer");
        self.pending = Some((pending, wish));
        let sdp = self.as_told(offer.to_sdp_string());
        self.shared.change(|state| state.local = Description::parse(&sdp));
        self.say("offer", json!({"type": "offer", "sdp": sdp})).await;
        if self.options.trickle && wish == Wish::Media {
            let candidate = Candidate::host(self.local, "udp").expect("a host address");
            let text = candidate.to_sdp_string();
            self.rtc.add_local_candidate(candidate);
            let text = text.trim_start_matches("a=");
            let mid = self.mid.map(|mid| mid.to_string());
            self.say("ice-candidate", json!({"candidate": text, "sdpMid": mid, "sdpMLineIndex": 0})).await;
            self.say("ice-candidate", json!({"candidate": "", "sdpMid": mid, "sdpMLineIndex": 0})).await;
        }
    }

    async fn offer_again(&mut self) {
        if let Some(wish) = self.wish.take() {
            self.offer(wish).await;
        }
    }

    async fn handle_offer(&mut self, sdp: &str) {
        if self.options.glare != Glare::Never && !self.collided {
            // Our offer crosses theirs on the way. Once.
            self.collided = true;
            let restarts = self.options.glare == Glare::RestartsIce;
            self.offer(if restarts { Wish::RestartIce } else { Wish::Line }).await;
        }
        if self.options.glare == Glare::Stubborn && self.pending.is_some() {
            return;
        }
        self.learn(sdp);
        // RFC 8842 §5.3: who answers should be active, as browsers are; str0m would be passive.
        let sdp = &sdp.replace("a=setup:actpass", "a=setup:passive");
        let answer = SdpOffer::from_sdp_string(sdp).and_then(|offer| self.accept_offer(offer));
        match answer {
            Ok(answer) => {
                let answer = self.as_told(answer);
                self.shared.change(|state| state.local = Description::parse(&answer));
                self.say("answer", json!({"type": "answer", "sdp": answer})).await;
                self.shared.change(|state| state.answered += 1);
                if let Some((_, wish)) = self.pending.take() {
                    // Rolled back by str0m. The server says `glare` when it has waited for us.
                    self.wish = Some(wish);
                    if self.options.glare == Glare::RestartsIce {
                        self.offer_again().await;
                    }
                }
            }
            Err(error) => self.shared.fault(format!("the server's offer: {error}\n{sdp}")),
        }
    }

    /// Our description as the server gets to see it.
    fn as_told(&self, mut sdp: String) -> String {
        if self.options.lies {
            let prefix = "a=fingerprint:sha-256 ";
            let at = sdp.find(prefix).expect("a description has a fingerprint") + prefix.len();
            let first = if &sdp[at..at + 2] == "00" { "01" } else { "00" };
            sdp.replace_range(at..at + 2, first);
        }
        sdp
    }

    fn accept_offer(&mut self, offer: SdpOffer) -> Result<String, str0m::error::SdpError> {
        match self.rtc.sdp_api().accept_offer(offer) {
            Ok(answer) => Ok(answer.to_sdp_string()),
            Err(error) => {
                self.shared.fault(format!("the server's offer: {error}"));
                Ok(String::new())
            }
        }
    }

    async fn handle_answer(&mut self, sdp: &str) {
        let Some((pending, wish)) = self.pending.take() else {
            return self.shared.fault("an answer to nothing".into());
        };
        self.learn(sdp);
        let answer = match SdpAnswer::from_sdp_string(sdp) {
            Ok(answer) => answer,
            Err(error) => return self.shared.fault(format!("the server's answer: {error}\n{sdp}")),
        };
        if let Err(error) = self.rtc.sdp_api().accept_answer(pending, answer) {
            return self.shared.fault(format!("the server's answer: {error}\n{sdp}"));
        }
        // Else its checks begin at its next timeout, up to a second later.
        self.input(Input::Timeout(now()));
        if wish == Wish::MovePort {
            self.udp = bind_udp(self.join.server, self.options.bind).await;
            self.local = self.udp.local_addr().expect("bound");
            self.rtc.add_local_candidate(Candidate::host(self.local, "udp").expect("a host address"));
            let address = Some(self.local);
            self.shared.change(|state| state.address = address);
        }
        self.shared.change(|state| state.accepted += 1);
        self.offer_again().await;
    }

    fn learn(&self, sdp: &str) {
        let remote = Description::parse(sdp);
        self.shared.change(|state| {
            state.lines = remote.lines.iter().map(|line| (line.mid.clone(), line.clone())).collect();
            state.slots.clear();
            state.remote = remote;
        });
    }

    fn handle_candidate(&mut self, candidate: &str) {
        if candidate.is_empty() {
            return;
        }
        let known = candidate_address(candidate.trim_start_matches("candidate:"));
        match Candidate::from_sdp_string(candidate) {
            Ok(candidate) => self.rtc.add_remote_candidate(candidate),
            Err(error) => {
                self.shared.fault(format!("the server's candidate {candidate:?} ({known:?}): {error}"))
            }
        }
    }

    async fn say(&mut self, event: &str, data: Value) {
        self.send(Message::text(json!({"event": event, "data": data}).to_string())).await;
    }

    async fn send(&mut self, message: Message) {
        let Some(socket) = &mut self.socket else { return };
        // An end of the connection shows when we read.
        let _ = socket.send(message).await;
    }
}

async fn next_message(socket: &mut Option<Socket>) -> Result<Message, Error> {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

/// On the address from which the server is reached, unless another is asked for: our candidate names it.
async fn bind_udp(server: SocketAddr, wanted: Option<IpAddr>) -> UdpSocket {
    let probe = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|probe| {
        probe.connect(server)?;
        probe.local_addr()
    });
    let found = || probe.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
    let address = wanted.unwrap_or_else(found);
    let socket = UdpSocket::bind((address, 0)).await.expect("a free port");
    // `try_send_to` refuses what comes before tokio has seen so: the first check would be lost.
    socket.writable().await.expect("a socket");
    socket
}

/// A close frame of ours.
pub fn close_message(code: u16) -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: "".into() }))
}
