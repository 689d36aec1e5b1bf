//! Any history at all: what each worker is told stays coherent, and so do the parts of a room; every client is told a coherent story,
//! and when all have gone nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gryt_sfu::ids::{RoomId, SlotIndex, TrackId, TransportId, WorkerId, WorkerSet};
use gryt_sfu::worker::command::Command;
use gryt_sfu::worker::event::{ConnectionState, Event};
use proptest::prelude::*;
use serde_json::json;
use str0m::media::Direction;

use crate::harness::{Client, Door, House, Peer, RESUME_WINDOW, Shape};

const CLIENT_COUNT: usize = 5;
const USERS: [&str; 3] = ["a", "b", "c d"];
const ROOMS: [&str; 2] = ["r", "s"];

#[derive(Clone, Debug)]
enum Act {
    Join { room: usize, user: usize, shows_token: bool },
    Offer(bool),
    AnswerAll,
    StaleAnswer,
    Leave,
    Lose,
    Drop,
    Reconnect,
    UserInfo(Option<bool>, Option<bool>),
    Junk(String),
    TransportFails(usize),
    SlotsMove(usize),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..ROOMS.len(), 0..USERS.len(), any::<bool>())
            .prop_map(|(room, user, shows_token)| Act::Join { room, user, shows_token }),
        6 => any::<bool>().prop_map(Act::Offer),
        4 => Just(Act::AnswerAll),
        1 => Just(Act::StaleAnswer),
        1 => Just(Act::Leave),
        2 => Just(Act::Lose),
        1 => Just(Act::Drop),
        4 => Just(Act::Reconnect),
        2 => (any::<Option<bool>>(), any::<Option<bool>>()).prop_map(|(a, b)| Act::UserInfo(a, b)),
        1 => ".{0,20}".prop_map(Act::Junk),
        1 => (0..8_usize).prop_map(Act::TransportFails),
        1 => (0..8_usize).prop_map(Act::SlotsMove),
        3 => (0..20_000_u64).prop_map(Act::Pass),
    ]
}

/// A worker that only keeps books, and refuses orders that make no sense.
#[derive(Default)]
struct Books {
    /// Each with its other parts, and whether this is home.
    rooms: BTreeMap<RoomId, (WorkerSet, bool)>,
    transports: BTreeMap<TransportId, RoomId>,
    /// Each with its room, and whether it is published here.
    tracks: BTreeMap<TrackId, (RoomId, bool)>,
    slots: BTreeMap<(TransportId, SlotIndex), Option<TrackId>>,
    refused: BTreeMap<TransportId, Box<[TrackId]>>,
    ssrcs: BTreeSet<(TransportId, u32)>,
    names_used: BTreeSet<u64>,
}

impl Books {
    fn take(&mut self, command: Command) {
        match command {
            Command::AddRoom(room) => {
                assert!(self.rooms.insert(room, (WorkerSet::EMPTY, true)).is_none());
            }
            Command::SpanRoom { room, others, is_home } => {
                *self.rooms.get_mut(&room).expect("a room that is here") = (others, is_home);
            }
            Command::RemoveRoom(room) => {
                assert!(self.rooms.remove(&room).is_some());
                assert!(self.transports.values().all(|of| *of != room), "its transports go first");
                // Tracks of other parts go with it, and those of its own before it.
                self.tracks.retain(|_, (of, is_own)| {
                    assert!(*of != room || !*is_own, "its own tracks go first");
                    *of != room
                });
            }
            Command::AddTransport { transport, room, .. } => {
                assert!(self.rooms.contains_key(&room) && self.names_used.insert(transport.0));
                self.transports.insert(transport, room);
            }
            Command::RestartIce { transport, .. } | Command::SetDeafened { transport, .. } => {
                assert!(self.transports.contains_key(&transport));
            }
            Command::RemoveTransport(transport) => {
                assert!(self.transports.remove(&transport).is_some());
                self.slots.retain(|(of, _), _| *of != transport);
            }
            Command::Publish { transport, track, .. } => {
                let room = self.transports[&transport];
                assert!(self.tracks.insert(track, (room, true)).is_none_or(|before| before == (room, true)));
            }
            Command::PublishElsewhere { room, track, worker, .. } => {
                assert!(self.rooms[&room].0.contains(worker), "of a part that it knows");
                let before = self.tracks.insert(track, (room, false));
                assert!(before.is_none_or(|before| before == (room, false)), "nobody moves");
            }
            Command::Unpublish(track) => assert!(self.tracks.remove(&track).is_some(), "it was published"),
            Command::SetMuted { track, .. } => assert!(self.tracks.contains_key(&track)),
            Command::AddSlot { transport, slot } => {
                self.check_source(transport, slot.source);
                // One that is taken up again comes with another SSRC (a nonce depends on it).
                assert!(self.ssrcs.insert((transport, slot.ssrc.0)), "an SSRC is never used twice");
                self.slots.insert((transport, slot.slot), slot.source);
            }
            Command::AssignSlot { transport, slot, source } => {
                self.check_source(transport, source);
                *self.slots.get_mut(&(transport, slot)).expect("a slot that was added") = source;
            }
            Command::Refuse { transport, tracks, .. } => {
                assert!(self.transports.contains_key(&transport));
                self.refused.insert(transport, tracks);
            }
            Command::SendDtls { .. }
            | Command::SetKeys { .. }
            | Command::Snapshot(_)
            | Command::Capture { .. }
            | Command::Stop => {
                panic!("not signalling's")
            }
        }
    }

    /// A receiver hears only what is published in its own room, and nothing that it refused.
    fn check_source(&self, transport: TransportId, source: Option<TrackId>) {
        let room = self.transports[&transport];
        let Some(track) = source else { return };
        assert!(self.tracks.get(&track).is_some_and(|(of, _)| *of == room));
        assert!(self.refused.get(&transport).is_none_or(|refused| !refused.contains(&track)));
    }

    fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.transports.is_empty() && self.tracks.is_empty() && self.slots.is_empty()
    }
}

/// All that has been told by now is in the books: the parts of each room know each other, and the same tracks.
fn check_parts(books: &[Books]) {
    let rooms: BTreeSet<RoomId> = books.iter().flat_map(|books| books.rooms.keys().copied()).collect();
    for room in rooms {
        let parts = || (0..books.len()).filter(|at| books[*at].rooms.contains_key(&room));
        let all: WorkerSet = parts().map(|at| WorkerId(at as u8)).collect();
        let homes = parts().filter(|at| books[*at].rooms[&room].1).count();
        assert_eq!(homes, 1, "one part tells who speaks");
        let tracks = |at: usize, own: Option<bool>| -> BTreeSet<TrackId> {
            let tracks = books[at].tracks.iter().filter(|(_, (of, _))| *of == room);
            tracks
                .filter(|(_, (_, is_own))| own.is_none_or(|own| own == *is_own))
                .map(|(id, _)| *id)
                .collect()
        };
        let own: Vec<TrackId> = parts().flat_map(|at| tracks(at, Some(true))).collect();
        let published: BTreeSet<TrackId> = own.iter().copied().collect();
        assert_eq!(own.len(), published.len(), "each is published on one part");
        for at in parts() {
            assert_eq!(books[at].rooms[&room].0, all.without(WorkerId(at as u8)));
            assert_eq!(tracks(at, None), published, "and known on all");
        }
    }
}

/// Takes what the workers were told since the last time.
fn keep(books: &mut [Books], house: &House) {
    for (worker, books) in books.iter_mut().enumerate() {
        house.told_to(worker).into_iter().for_each(|command| books.take(command));
    }
}

/// What one socket was told, checked for order.
#[derive(Default)]
struct Story {
    joined: bool,
    closed: bool,
    peers: BTreeSet<String>,
}

impl Story {
    fn take(&mut self, message: &serde_json::Value) {
        assert!(!self.closed, "nothing follows a Close: {message}");
        if message.get("close").is_some() {
            self.closed = true;
            return;
        }
        let data = &message["data"];
        let user = || data["userId"].as_str().unwrap().to_owned();
        match message["event"].as_str().unwrap() {
            "joined" => {
                assert!(!self.joined);
                self.joined = data["success"].as_bool().unwrap();
                self.peers =
                    data["peers"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().into()).collect();
                assert_eq!(self.peers.len(), data["peerInfo"].as_object().unwrap().len());
            }
            "error" => {}
            _ if !self.joined => panic!("joined is the first: {message}"),
            "user-joined" => assert!(self.peers.insert(user()), "who is there does not come: {message}"),
            "user-left" => assert!(self.peers.remove(&user()), "who is not there does not leave: {message}"),
            "user-info" => assert!(self.peers.contains(&user())),
            _ => {}
        }
    }
}

struct Seat {
    client: Client,
    story: Story,
    offer: Option<String>,
    has_answered: Option<String>,
    /// Which seat, room and user `client.peer` negotiated for.
    peer_of: Option<(usize, usize, usize)>,
}

impl Seat {
    fn new(house: &House) -> Seat {
        Seat {
            client: house.connect(),
            story: Story::default(),
            offer: None,
            has_answered: None,
            peer_of: None,
        }
    }

    fn listen(&mut self) {
        for message in self.client.heard() {
            self.story.take(&message);
            let sdp = message["data"]["sdp"].as_str();
            match message["event"].as_str() {
                Some("joined") => {
                    self.client.resume = message["data"]["resume"].as_str().unwrap_or_default().into();
                    if message["data"]["resumed"] == false {
                        self.client.peer = None;
                        self.offer = None;
                    }
                }
                Some("offer") => self.offer = sdp.map(str::to_owned),
                Some("answer") => {
                    let peer = self.client.peer.as_mut().unwrap();
                    if peer.has_offered() {
                        peer.take_answer(sdp.unwrap());
                    }
                }
                _ => {}
            }
        }
    }

    fn say(&mut self, house: &House, event: &str, data: serde_json::Value) {
        if self.client.is_open() {
            self.client.say(house, event, data);
        }
    }

    fn answer(&mut self, house: &House) {
        let Some(offer) = self.offer.take() else { return };
        let answer = self.client.peer.get_or_insert_with(|| Peer::new(house.now)).answer(&offer);
        self.has_answered = Some(answer.clone());
        self.say(house, "answer", json!({"type": "answer", "sdp": answer}));
    }
}

fn run(acts: Vec<(usize, Act)>, shape: &Shape) {
    let mut house = House::of(shape);
    let mut books: Vec<Books> = std::iter::repeat_with(Books::default).take(shape.workers).collect();
    let mut doors = BTreeSet::new();
    let mut tokens: BTreeMap<(usize, usize), (usize, String)> = BTreeMap::new();
    let mut seats: Vec<Seat> = (0..CLIENT_COUNT).map(|_| Seat::new(&house)).collect();
    for (index, act) in acts {
        let seat = &mut seats[index];
        match act {
            Act::Join { room, user, shows_token } => {
                let shown = tokens.get(&(room, user)).filter(|_| shows_token);
                let data = json!({"roomId": ROOMS[room], "userId": USERS[user], "resume": shown.map(|(_, token)| token)});
                let was_joined = seat.story.joined;
                let peer_of = (index, room, user);
                // With a token of another tab comes no peer connection: it has to begin with a new one.
                if !was_joined && (shown.is_none_or(|(of, _)| *of != index) || seat.peer_of != Some(peer_of))
                {
                    seat.client.peer = None;
                }
                seat.say(&house, "join", data);
                seat.listen();
                if seat.story.joined && !was_joined {
                    seat.peer_of = Some(peer_of);
                    tokens.insert((room, user), (index, seat.client.resume.clone()));
                }
            }
            Act::Offer(sends) => {
                let direction = if sends { Direction::SendRecv } else { Direction::RecvOnly };
                if seat.client.peer.as_ref().is_none_or(|peer| !peer.has_offered()) && seat.offer.is_none() {
                    let peer = seat.client.peer.get_or_insert_with(|| Peer::new(house.now));
                    if let Some(sdp) = peer.try_offer(direction) {
                        seat.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
                    }
                }
            }
            Act::AnswerAll => seat.answer(&house),
            Act::StaleAnswer => {
                if let Some(sdp) = seat.has_answered.clone() {
                    seat.say(&house, "answer", json!({"type": "answer", "sdp": sdp}));
                }
            }
            Act::Leave => seat.say(&house, "leave", json!({})),
            Act::Lose if seat.client.is_open() => seat.client.lose(&house),
            Act::Drop if seat.client.is_open() => seat.client.drop_socket(),
            Act::Lose | Act::Drop => {}
            Act::Reconnect => {
                if !seat.client.is_open() || seat.story.closed {
                    let peer = seat.client.peer.take();
                    let peer_of = seat.peer_of;
                    *seat = Seat::new(&house);
                    (seat.client.peer, seat.peer_of) = (peer, peer_of);
                }
            }
            Act::UserInfo(muted, deafened) => {
                seat.say(&house, "user-info", json!({"isMuted": muted, "isDeafened": deafened}));
            }
            Act::Junk(text) if seat.client.is_open() => seat.client.say_text(&house, &text),
            Act::Junk(_) => {}
            Act::TransportFails(nth) => {
                let mut transports = books.iter().flat_map(|books| books.transports.keys());
                if let Some(transport) = transports.nth(nth).copied() {
                    let event = Event::Connection { transport, state: ConnectionState::Failed };
                    house.signalling.handle_event(house.now, WorkerId(0), event);
                }
            }
            Act::SlotsMove(nth) => {
                if let Some((key, source)) = books.iter_mut().flat_map(|books| &mut books.slots).nth(nth) {
                    *source = None;
                    let event = Event::SlotsChanged { transport: key.0, changes: vec![(key.1, None)] };
                    house.signalling.handle_event(house.now, WorkerId(0), event);
                }
            }
            Act::Pass(ms) => house.pass(Duration::from_millis(ms)),
        }
        // As the runner does, at once; fails where deadlines never end.
        house.pass(Duration::ZERO);
        for seat in &mut seats {
            seat.listen();
        }
        // Doors open and close with the transports, in the same order.
        for door in house.doors() {
            match door {
                Door::Expect(_, transport, _) => assert!(doors.insert(transport)),
                Door::Forget(transport) => assert!(doors.remove(&transport)),
            }
        }
        keep(&mut books, &house);
        if house.signalling.counts().commands_waiting == 0 {
            let transports = books.iter().flat_map(|books| books.transports.keys().copied());
            assert_eq!(doors, transports.collect(), "a door for each transport");
            check_parts(&books);
        }
    }
    for seat in &mut seats {
        if seat.client.is_open() {
            seat.client.drop_socket();
        }
    }
    for _ in 0..2 {
        house.signalling.handle_timeout(house.now);
        house.pass(RESUME_WINDOW);
    }
    while house.signalling.counts().commands_waiting > 0 {
        keep(&mut books, &house);
        house.pass(Duration::from_millis(5));
    }
    keep(&mut books, &house);
    assert!(books.iter().all(Books::is_empty), "the workers have nothing left");
    let counts = house.signalling.counts();
    assert_eq!((counts.connections, counts.participants, counts.rooms, counts.voices), (0, 0, 0, 0));
    assert_eq!(house.signalling.next_timeout(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_coherent(
        acts in prop::collection::vec((0..CLIENT_COUNT, act()), 1..120),
        audio_slots in 1..3_u16,
        max_connections in 3..8_usize,
        queue_len in prop_oneof![Just(1_usize), Just(1000)],
        workers in 1..4_usize,
        room_span_at in 1..3_usize,
    ) {
        run(acts, &Shape { audio_slots, max_connections, queue_len, workers, room_span_at, ..Shape::default() });
    }
}
