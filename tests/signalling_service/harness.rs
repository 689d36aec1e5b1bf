//! A service with workers that only listen, and clients that speak JSON.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use gryt_sfu::auth::Verifier;
use gryt_sfu::config::Auth;
use gryt_sfu::control::workers::{WorkerQueue, Workers};
use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ids::{Fingerprint, TrackId, TransportId, WorkerId};
use gryt_sfu::signalling::{
    Handshakes, IceServers, Inbound, OUTBOUND_LEN, Outbound, Outbox, Settings, Signalling,
};
use gryt_sfu::time::Now;
use gryt_sfu::worker::command::Command;
use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::{Candidate, Rtc};

pub(crate) const RESUME_WINDOW: Duration = Duration::from_secs(15);
pub(crate) const JOIN_WAIT: Duration = Duration::from_secs(10);

/// What the DTLS side was told.
#[derive(Clone, Default)]
pub(crate) struct Doors(
    pub(crate) Rc<RefCell<Vec<Door>>>,
    /// The next handshake panics, as a fault of ours would.
    pub(crate) Rc<Cell<bool>>,
);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Expect(WorkerId, TransportId, Fingerprint),
    Forget(TransportId),
}

impl Handshakes for Doors {
    fn expect(&self, worker: WorkerId, transport: TransportId, fingerprint: Fingerprint) {
        self.0.borrow_mut().push(Door::Expect(worker, transport, fingerprint));
        assert!(!self.1.get(), "the trap of this test");
    }
    fn forget(&self, transport: TransportId) {
        self.0.borrow_mut().push(Door::Forget(transport));
    }
}

pub(crate) struct House {
    pub(crate) signalling: Signalling,
    pub(crate) now: Instant,
    pub(crate) doors: Doors,
    /// Which order to a worker from here on panics, as a fault of ours would. 0: none.
    pub(crate) trap: Rc<Cell<u32>>,
    queues: Vec<Receiver<Command>>,
}

pub(crate) struct Shape {
    pub(crate) ice_servers: fn(Instant) -> IceServers,
    pub(crate) workers: usize,
    pub(crate) room_span_at: usize,
    pub(crate) max_connections: usize,
    pub(crate) audio_slots: u16,
    pub(crate) queue_len: usize,
    /// What tokens are signed with, where they are asked for.
    pub(crate) auth: Option<Auth>,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            ice_servers: |_| IceServers::default(),
            workers: 1,
            room_span_at: usize::MAX,
            max_connections: 100,
            audio_slots: 32,
            queue_len: 1000,
            auth: None,
        }
    }
}

impl House {
    pub(crate) fn new() -> House {
        House::of(&Shape::default())
    }

    pub(crate) fn of(shape: &Shape) -> House {
        let (senders, queues): (Vec<_>, Vec<_>) =
            std::iter::repeat_with(|| crossbeam_channel::bounded(shape.queue_len))
                .take(shape.workers)
                .unzip();
        let trap = Rc::new(Cell::new(0_u32));
        let queue = |commands| {
            let trap = Rc::clone(&trap);
            let wake =
                move || assert_ne!(trap.replace(trap.get().saturating_sub(1)), 1, "the trap of this test");
            WorkerQueue { commands, wake: Box::new(wake) }
        };
        let now = Now::read().instant;
        let candidates: Rc<[SocketAddr]> = Rc::new(["192.0.2.1:3478".parse().unwrap()]);
        let settings = Settings {
            audio_slots: shape.audio_slots,
            max_connections: shape.max_connections,
            room_span_at: shape.room_span_at,
            resume_window: RESUME_WINDOW,
            secret: Secret::random(),
            fingerprint: Fingerprint([7; 32]),
            candidates: vec![candidates; shape.workers],
            ice_servers: (shape.ice_servers)(now),
            verifier: shape.auth.as_ref().map(|auth| Verifier::new(auth, |_| 0)),
        };
        let doors = Doors::default();
        let workers = Workers::new(senders.into_iter().map(queue).collect());
        let signalling = Signalling::new(now, settings, workers, doors.clone());
        House { signalling, now, doors, trap, queues }
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_from(9)
    }

    /// From this address of 192.0.2.0/24.
    pub(crate) fn connect_from(&self, host: u8) -> Client {
        let (inbound, outbox) = self.signalling.connect(self.now, ([192, 0, 2, host], 1234).into());
        Client { inbound: Some(inbound), outbox, peer: None, resume: String::new() }
    }

    /// A client that has joined; what it was told is read.
    pub(crate) fn join(&self, room: &str, user: &str) -> Client {
        let mut client = self.connect();
        client.join(self, room, user);
        client
    }

    /// A client that has joined and publishes.
    pub(crate) fn publisher(&self, room: &str, user: &str) -> Client {
        let mut client = self.join(room, user);
        client.publish(self);
        client
    }

    /// A client that has joined a room with a voice in it and accepted the offer that lets it listen.
    pub(crate) fn listener(&mut self, room: &str, user: &str) -> Client {
        let mut client = self.join(room, user);
        self.pass(Duration::from_secs(3));
        assert_eq!(client.answer_offers(self).len(), 1);
        client
    }

    /// So many members of a room, who have read all that they were told.
    pub(crate) fn crowd(&self, room: &str, count: usize) -> Vec<Client> {
        let mut clients: Vec<Client> = vec![];
        for at in 0..count {
            let client = self.connect();
            client.say(self, "join", json!({"roomId": room, "userId": at.to_string()}));
            clients.push(client);
            if clients.len().is_multiple_of(OUTBOUND_LEN / 2) {
                clients.iter_mut().for_each(Client::read_all);
            }
        }
        clients.iter_mut().for_each(Client::read_all);
        clients
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            let Some(due) = self.signalling.next_timeout().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.signalling.handle_timeout(self.now);
        }
        panic!("deadlines without end");
    }

    /// What the only worker was told since the last call.
    pub(crate) fn told(&self) -> Vec<Command> {
        assert_eq!(self.queues.len(), 1);
        self.told_to(0)
    }

    pub(crate) fn told_to(&self, worker: usize) -> Vec<Command> {
        self.queues[worker].try_iter().collect()
    }

    /// As [`House::told`], in words.
    pub(crate) fn told_words(&self) -> Vec<&'static str> {
        self.told().iter().map(word).collect()
    }

    pub(crate) fn doors(&self) -> Vec<Door> {
        self.doors.0.take()
    }
}

pub(crate) fn word(command: &Command) -> &'static str {
    match command {
        Command::AddRoom(_) => "AddRoom",
        Command::SpanRoom { .. } => "SpanRoom",
        Command::RemoveRoom(_) => "RemoveRoom",
        Command::AddTransport { .. } => "AddTransport",
        Command::RestartIce { .. } => "RestartIce",
        Command::RemoveTransport(_) => "RemoveTransport",
        Command::SendDtls { .. } => "SendDtls",
        Command::SetKeys { .. } => "SetKeys",
        Command::Publish { .. } => "Publish",
        Command::PublishElsewhere { .. } => "PublishElsewhere",
        Command::Unpublish(_) => "Unpublish",
        Command::SetMuted { .. } => "SetMuted",
        Command::SetDeafened { .. } => "SetDeafened",
        Command::AddSlot { .. } => "AddSlot",
        Command::AssignSlot { .. } => "AssignSlot",
        Command::Refuse { .. } => "Refuse",
        Command::Snapshot(_) => "Snapshot",
        Command::Capture { .. } => "Capture",
        Command::Stop => "Stop",
    }
}

/// The transport and track of the last `Publish` among them.
pub(crate) fn published(commands: &[Command]) -> Option<(TransportId, TrackId)> {
    commands.iter().rev().find_map(|command| match command {
        Command::Publish { transport, track, .. } => Some((*transport, *track)),
        _ => None,
    })
}

/// One browser tab.
pub(crate) struct Client {
    inbound: Option<Inbound>,
    outbox: Outbox,
    pub(crate) peer: Option<Peer>,
    /// The last token that `joined` brought.
    pub(crate) resume: String,
}

impl Client {
    pub(crate) fn say(&self, house: &House, event: &str, data: Value) {
        self.say_text(house, &json!({"event": event, "data": data}).to_string());
    }

    pub(crate) fn say_text(&self, house: &House, text: &str) {
        self.inbound.as_ref().expect("an open socket").handle_text(house.now, text);
    }

    pub(crate) fn next(&mut self) -> Option<Outbound> {
        self.outbox.try_recv().ok()
    }

    /// Takes all that came and looks at none of it.
    pub(crate) fn read_all(&mut self) {
        while self.next().is_some() {}
    }

    /// Everything that came, a Close as `{"close": code}`.
    pub(crate) fn heard(&mut self) -> Vec<Value> {
        let value = |outbound| match outbound {
            Outbound::Text(text) => serde_json::from_str(&text).unwrap(),
            Outbound::Notice { text, .. } => serde_json::from_str(&text).unwrap(),
            Outbound::Close { code, reason } => {
                assert!(reason.len() <= 123);
                json!({"close": code})
            }
        };
        std::iter::from_fn(|| self.next()).map(value).collect()
    }

    /// The events of everything that came, a Close as its code.
    pub(crate) fn heard_words(&mut self) -> Vec<String> {
        let heard = self.heard();
        heard
            .iter()
            .map(|message| message["event"].as_str().map_or(message["close"].to_string(), str::to_owned))
            .collect()
    }

    pub(crate) fn hears_nothing(&mut self) {
        assert_eq!(self.heard_words(), Vec::<String>::new());
    }

    /// The code of the `error` and of the Close, where they are the last two frames.
    pub(crate) fn heard_end(&mut self) -> (String, u64) {
        let heard = self.heard();
        let [.., error, close] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(error["event"], "error", "{heard:?}");
        (error["data"]["code"].as_str().unwrap().into(), close["close"].as_u64().expect("a close"))
    }

    /// Joins and returns the data of `joined`.
    pub(crate) fn join(&mut self, house: &House, room: &str, user: &str) -> Value {
        self.join_with(house, json!({"roomId": room, "userId": user}))
    }

    pub(crate) fn join_with(&mut self, house: &House, data: Value) -> Value {
        self.say(house, "join", data);
        let Some(Outbound::Text(text)) = self.next() else { panic!("an answer to join") };
        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(message["event"], "joined");
        let data = message["data"].clone();
        self.resume = data["resume"].as_str().unwrap_or_default().into();
        data
    }

    /// Opens a new socket in place of the lost one and shows the token there.
    pub(crate) fn resume(&mut self, house: &House, room: &str, user: &str) -> Value {
        let peer = self.peer.take();
        let resume = std::mem::take(&mut self.resume);
        *self = house.connect();
        self.peer = peer;
        self.join_with(house, json!({"roomId": room, "userId": user, "resume": resume}))
    }

    /// Offers audio both ways and takes the answer.
    pub(crate) fn publish(&mut self, house: &House) {
        self.offer(house, Direction::SendRecv);
    }

    /// Offers audio and takes the answer.
    pub(crate) fn offer(&mut self, house: &House, direction: Direction) {
        let mut peer = Peer::new(house.now);
        self.say(house, "offer", json!({"type": "offer", "sdp": peer.offer(direction)}));
        let heard = self.heard();
        let answer = heard.iter().find(|message| message["event"] == "answer").expect("an answer");
        peer.take_answer(answer["data"]["sdp"].as_str().unwrap());
        self.peer = Some(peer);
    }

    /// Answers each offer that came, until none comes; returns the offers.
    pub(crate) fn answer_offers(&mut self, house: &House) -> Vec<String> {
        let mut offers = vec![];
        loop {
            let heard = self.heard();
            assert!(heard.iter().all(|message| message["event"] != "error"), "{heard:?}");
            let Some(offer) = heard.iter().rev().find(|message| message["event"] == "offer") else {
                return offers;
            };
            let offer = offer["data"]["sdp"].as_str().unwrap().to_owned();
            let answer = self.peer.get_or_insert_with(|| Peer::new(house.now)).answer(&offer);
            self.say(house, "answer", json!({"type": "answer", "sdp": answer}));
            offers.push(offer);
        }
    }

    /// The socket breaks; the client does not know yet.
    pub(crate) fn lose(&mut self, house: &House) {
        self.close(house, None);
    }

    /// The client closes the socket, or it breaks.
    pub(crate) fn close(&mut self, house: &House, code: Option<u16>) {
        self.inbound.take().expect("an open socket").handle_close(house.now, code);
    }

    /// As [`Client::lose`], by dropping the receiving half.
    pub(crate) fn drop_socket(&mut self) {
        drop(self.inbound.take().expect("an open socket"));
    }

    pub(crate) fn is_open(&self) -> bool {
        self.inbound.is_some()
    }
}

/// An `RTCPeerConnection`.
pub(crate) struct Peer {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    audio: Option<Mid>,
}

impl Peer {
    pub(crate) fn new(now: Instant) -> Peer {
        let mut rtc = Rtc::builder().clear_codecs().enable_opus(true, false).build(now);
        rtc.add_local_candidate(Candidate::host("192.0.2.9:5000".parse().unwrap(), "udp").unwrap());
        Peer { rtc, pending: None, audio: None }
    }

    pub(crate) fn offer(&mut self, direction: Direction) -> String {
        self.try_offer(direction).expect("something to offer")
    }

    /// `None` where nothing would change.
    pub(crate) fn try_offer(&mut self, direction: Direction) -> Option<String> {
        let mut api = self.rtc.sdp_api();
        match self.audio {
            None => self.audio = Some(api.add_media(MediaKind::Audio, direction, None, None, None)),
            Some(mid) => api.set_direction(mid, direction),
        }
        let (offer, pending) = api.apply()?;
        self.pending = Some(pending);
        Some(offer.to_sdp_string())
    }

    pub(crate) fn has_offered(&self) -> bool {
        self.pending.is_some()
    }

    pub(crate) fn take_answer(&mut self, sdp: &str) {
        let answer = SdpAnswer::from_sdp_string(sdp).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().expect("an offer"), answer).unwrap();
    }

    pub(crate) fn answer(&mut self, sdp: &str) -> String {
        // As browsers do: an offer of ours that is out is rolled back.
        self.pending = None;
        let offer = SdpOffer::from_sdp_string(sdp).unwrap();
        let answer = self.rtc.sdp_api().accept_offer(offer).unwrap().to_sdp_string();
        // str0m wants to be the DTLS server where it may choose; browsers never do, and we cannot be the client.
        answer.replace("a=setup:passive", "a=setup:active")
    }
}
