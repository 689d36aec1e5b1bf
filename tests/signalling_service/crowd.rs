//! What a change costs in a room of many.

use gryt_sfu::signalling::OUTBOUND_LEN;
use serde_json::{Value, json};
use str0m::media::Direction;

use crate::harness::{Client, House, Peer, RESUME_WINDOW, Shape};

/// A room where everybody publishes and has answered every offer, and what follows has been done.
fn crowd(members: usize) -> (House, Vec<Client>) {
    let shape = Shape { audio_slots: 2, queue_len: 100_000, ..Shape::default() };
    let mut house = House::of(&shape);
    let mut clients: Vec<Client> =
        (0..members).map(|at| house.publisher("r", &format!("member {at}"))).collect();
    for _ in 0..3 {
        house.pass(std::time::Duration::ZERO);
        clients.iter_mut().for_each(|client| drop(client.answer_offers(&house)));
    }
    (house, clients)
}

/// How many of them have an offer or a leaver's name to read.
fn told(clients: &mut [Client], is_it: impl Fn(&Value) -> bool) -> usize {
    clients.iter_mut().map(Client::heard).filter(|heard| heard.iter().any(&is_it)).count()
}

/// The control thread also carries handshakes: nothing may keep it for as long as a room is large.
#[test]
fn a_voice_reaches_a_large_room_in_turns() {
    let members = 60;
    let (mut house, mut clients) = crowd(1);
    for at in 1..members {
        clients.push(house.join("r", &format!("listener {at}")));
    }
    // Each listener has a transport and no voice to hear: the next voice is an offer to everybody.
    for client in &mut clients[1..] {
        client.offer(&house, Direction::RecvOnly);
        client.answer_offers(&house);
    }
    clients[0].heard();
    let newcomer = house.join("r", "new");
    assert_eq!(told(&mut clients, |message| message["event"] == "user-joined"), members);
    let sdp = Peer::new(house.now).offer(Direction::SendRecv);
    newcomer.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
    let is_offer = |message: &Value| message["event"] == "offer";
    assert_eq!(told(&mut clients, is_offer), 0, "of inputs there may be hundreds in one turn");
    let is_due = || house.signalling.next_timeout().is_some_and(|due| due <= house.now);
    assert!(is_due(), "at once");
    house.signalling.handle_timeout(house.now);
    let at_once = told(&mut clients, is_offer);
    assert!((1..=16).contains(&at_once), "{at_once} in one turn");
    assert!(is_due(), "the rest at once");
    // Somebody else's message has its turn in between and takes others along.
    clients[5].say(&house, "user-info", json!({"nickname": "Zoe"}));
    house.pass(std::time::Duration::ZERO);
    assert_eq!(at_once + told(&mut clients, is_offer), members, "each once");
    house.pass(std::time::Duration::ZERO);
    assert_eq!(told(&mut clients, is_offer), 0);
}

/// Voices that come while members wait are one piece of news.
#[test]
fn who_waits_is_told_of_all_voices_at_once() {
    let (mut house, mut clients) = crowd(1);
    for at in 1..50 {
        let mut listener = house.join("r", &format!("listener {at}"));
        listener.offer(&house, Direction::RecvOnly);
        listener.answer_offers(&house);
        clients.push(listener);
    }
    clients.iter_mut().for_each(|client| drop(client.heard()));
    let last_offers = |clients: &mut [Client]| -> Vec<String> {
        let heard = clients.last_mut().expect("many").heard();
        let offers = heard.iter().filter(|message| message["event"] == "offer");
        offers.map(|message| message["data"]["sdp"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let newcomers: Vec<Client> = (0..2).map(|at| house.join("r", &format!("new{at}"))).collect();
    for newcomer in &newcomers {
        let sdp = Peer::new(house.now).offer(Direction::SendRecv);
        newcomer.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
    }
    assert_eq!(last_offers(&mut clients), [""; 0], "not its turn yet");
    house.pass(std::time::Duration::ZERO);
    let offers = last_offers(&mut clients);
    assert!(offers.len() == 1, "{}", offers.len());
}

/// As with a network that fails: more at one instant than waits for a client, and each is told to who stays.
#[test]
fn those_who_are_lost_at_one_instant_leave_in_turns() {
    let count = OUTBOUND_LEN + 76;
    let mut house = House::of(&Shape { max_connections: count + 1, ..Shape::default() });
    let mut clients = house.crowd("r", count + 1);
    let mut stays = clients.pop().expect("one more");
    clients.iter_mut().for_each(|client| client.lose(&house));
    house.now += RESUME_WINDOW;
    let (mut left, mut turns) = (0, 0);
    while house.signalling.next_timeout().is_some_and(|due| due <= house.now) {
        house.signalling.handle_timeout(house.now);
        let heard = stays.heard_words();
        assert!(heard.len() <= 64 && heard.iter().all(|word| word == "user-left"), "{heard:?}");
        left += heard.len();
        turns += 1;
        assert!(turns < count, "turns without end");
    }
    assert_eq!(left, count);
    let counts = house.signalling.counts();
    assert_eq!((counts.participants, counts.participants_lost, counts.clients_slow), (1, 0, 0));
}
