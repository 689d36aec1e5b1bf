//! Faults of ours: a panic ends the session or the room that it struck, and no other.

use std::time::Duration;

use gryt_sfu::ids::{RoomId, WorkerId};
use gryt_sfu::signalling::OUTBOUND_LEN;
use gryt_sfu::worker::command::Command;
use gryt_sfu::worker::event::Event;
use serde_json::json;
use str0m::media::Direction;

use crate::harness::{House, Peer, Shape};

/// The first that the worker was told of.
fn room_of(house: &House) -> RoomId {
    let room = house.told().into_iter().find_map(|command| match command {
        Command::AddRoom(room) => Some(room),
        _ => None,
    });
    room.expect("the first room")
}

#[test]
fn a_panic_ends_the_session_whose_message_it_was() {
    let house = House::new();
    let (mut a, mut b, mut c) = (house.join("r", "a"), house.publisher("r", "b"), house.join("r", "c"));
    for client in [&mut a, &mut b, &mut c] {
        client.heard();
    }
    house.doors.1.set(true);
    let sdp = Peer::new(house.now).offer(Direction::SendRecv);
    c.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
    house.doors.1.set(false);
    assert_eq!(c.heard_end(), ("internal".to_owned(), 1011));
    let gone = json!({"event": "user-left", "data": {"roomId": "r", "userId": "c", "reason": "failed"}});
    assert_eq!(a.heard()[0], gone);
    assert_eq!(b.heard()[0], gone);
    // The others go on, and it may come back.
    a.say(&house, "user-info", json!({"isMuted": true}));
    assert_eq!(b.heard_words(), ["user-info"]);
    assert!(house.publisher("r", "c").is_open());
}

/// An offer that meets one of ours waits for its answer, and is taken when none comes.
#[test]
fn a_panic_over_what_waited_ends_the_session_that_it_came_from() {
    let mut house = House::new();
    let (mut a, _b) = (house.join("r", "a"), house.publisher("r", "b"));
    let mut c = house.join("r", "c");
    house.pass(Duration::from_secs(3));
    assert!(c.heard_words().contains(&"offer".to_owned()), "an offer that it does not answer");
    a.heard();
    let sdp = Peer::new(house.now).offer(Direction::SendRecv);
    c.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
    c.hears_nothing();
    house.doors.1.set(true);
    house.pass(Duration::from_secs(2));
    house.doors.1.set(false);
    assert_eq!(c.heard_end(), ("internal".to_owned(), 1011));
    assert_eq!(a.heard()[0]["event"], "user-left");
}

/// What follows for a listener from a voice that stops is not the fault of whose voice it was.
#[test]
fn a_panic_over_news_ends_the_session_of_whom_it_struck_and_not_of_whom_it_was_about() {
    let mut house = House::new();
    let mut b = house.publisher("r", "b");
    let mut a = house.listener("r", "a");
    a.read_all();
    b.read_all();
    house.told();
    let stopped = b.peer.as_mut().unwrap().offer(Direction::Inactive);
    // The voice is taken away by the first order, the listener's slot emptied by the second.
    house.trap.set(2);
    b.say(&house, "offer", json!({"type": "offer", "sdp": stopped}));
    assert_eq!(house.trap.get(), 0, "{:?}", house.told_words());
    assert_eq!(house.told_words()[..2], ["Unpublish", "AssignSlot"]);
    assert_eq!(a.heard_end(), ("internal".to_owned(), 1011));
    let gone = json!({"event": "user-left", "data": {"roomId": "r", "userId": "a", "reason": "failed"}});
    assert_eq!(b.heard().last(), Some(&gone));
    assert_eq!(house.signalling.counts().participants, 1);
}

#[test]
fn members_of_a_room_that_failed_hear_that_it_was_our_fault() {
    let house = House::new();
    let (mut a, mut b, mut other) = (house.publisher("r", "a"), house.join("r", "b"), house.join("s", "x"));
    for client in [&mut a, &mut b, &mut other] {
        client.heard();
    }
    house.signalling.handle_event(house.now, WorkerId(0), Event::RoomFailed(room_of(&house)));
    assert_eq!(a.heard_end(), ("internal".to_owned(), 1011));
    assert_eq!(b.heard_end(), ("internal".to_owned(), 1011));
    other.hears_nothing();
    assert_eq!(house.signalling.counts().rooms, 1);
    assert!(house.join("r", "a").is_open());
}

/// As many as there are leave, which is more than waits for one of them.
#[test]
fn members_of_a_large_room_that_failed_hear_that_and_nothing_else() {
    let count = OUTBOUND_LEN + 76;
    let house = House::of(&Shape { max_connections: count, ..Shape::default() });
    let mut clients = house.crowd("r", count);
    house.signalling.handle_event(house.now, WorkerId(0), Event::RoomFailed(room_of(&house)));
    for client in &mut clients {
        let heard = client.heard();
        let [error, close] = &heard[..] else { panic!("{} frames, {:?}", heard.len(), heard.first()) };
        assert_eq!((&error["data"]["code"], &close["close"]), (&json!("internal"), &json!(1011)));
    }
    let counts = house.signalling.counts();
    assert_eq!((counts.clients_slow, counts.participants, counts.rooms), (0, 0, 0));
}
