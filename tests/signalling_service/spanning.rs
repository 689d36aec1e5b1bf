//! A room on two workers: what each part is told, and who speaks for all.

use gryt_sfu::ids::{RoomId, TrackId, WorkerId, WorkerSet};
use gryt_sfu::worker::command::Command;
use gryt_sfu::worker::event::Event;
use serde_json::json;
use std::time::Duration;

use crate::harness::{Client, Door, House, Shape, published, word};

const WORKERS: [WorkerId; 2] = [WorkerId(0), WorkerId(1)];

/// Two workers, and a room that spans them from its second member on.
fn house() -> House {
    House::of(&Shape { workers: 2, room_span_at: 1, ..Shape::default() })
}

fn words(commands: &[Command]) -> Vec<&'static str> {
    commands.iter().map(word).collect()
}

fn room_of(commands: &[Command]) -> RoomId {
    let room = commands.iter().find_map(|command| match command {
        Command::AddRoom(room) => Some(*room),
        _ => None,
    });
    room.expect("a room")
}

/// The other parts and home, as the last order on it says.
fn span(commands: &[Command]) -> Option<(WorkerSet, bool)> {
    commands.iter().rev().find_map(|command| match command {
        Command::SpanRoom { others, is_home, .. } => Some((*others, *is_home)),
        _ => None,
    })
}

/// Track, worker and mute of what is published elsewhere.
fn elsewhere(commands: &[Command]) -> Vec<(TrackId, WorkerId, bool)> {
    let one = |command: &Command| match command {
        Command::PublishElsewhere { track, worker, muted, .. } => Some((*track, *worker, *muted)),
        _ => None,
    };
    commands.iter().filter_map(one).collect()
}

#[test]
fn a_part_hears_of_all_tracks_before_anybody_relays_to_it() {
    let house = house();
    let a = house.publisher("r", "a");
    a.say(&house, "user-info", json!({"isMuted": true}));
    let told = house.told_to(0);
    let (_, a_track) = published(&told).unwrap();
    assert_eq!(words(&told), ["AddRoom", "AddTransport", "Publish", "SetMuted"]);
    let mut b = house.join("r", "b");
    let told = house.told_to(1);
    assert_eq!(words(&told), ["AddRoom", "SpanRoom", "PublishElsewhere"]);
    let only = |worker| WorkerSet::EMPTY.with(worker);
    assert_eq!(span(&told), Some((only(WORKERS[0]), false)));
    assert_eq!(elsewhere(&told), [(a_track, WORKERS[0], true)]);
    assert_eq!(span(&house.told_to(0)), Some((only(WORKERS[1]), true)));
    b.publish(&house);
    b.answer_offers(&house);
    let told = house.told_to(1);
    let (_, b_track) = published(&told).unwrap();
    assert_eq!(elsewhere(&house.told_to(0)), [(b_track, WORKERS[1], false)]);
    let Some(Door::Expect(worker, ..)) = house.doors().pop() else { panic!("a handshake") };
    assert_eq!(worker, WORKERS[1], "its transport is where it was put");
    // What concerns a track all parts are told, a receiver's matters its own.
    b.say(&house, "user-info", json!({"isMuted": true, "isDeafened": true}));
    assert_eq!(words(&house.told_to(0)), ["SetMuted"]);
    assert_eq!(words(&house.told_to(1)), ["SetMuted", "SetDeafened"]);
    b.say(&house, "leave", json!({}));
    assert_eq!(words(&house.told_to(0))[..2], ["Unpublish", "SpanRoom"]);
    assert_eq!(words(&house.told_to(1)), ["RemoveTransport", "Unpublish", "RemoveRoom"]);
}

#[test]
fn a_part_without_members_ends_and_another_is_home() {
    let house = house();
    let (mut a, mut b) = (house.publisher("r", "a"), house.publisher("r", "b"));
    let room = room_of(&house.told_to(0));
    let (_, b_track) = published(&house.told_to(1)).unwrap();
    b.heard();
    a.say(&house, "leave", json!({}));
    assert_eq!(a.heard_words().last().map(String::as_str), Some("1000"));
    assert_eq!(words(&house.told_to(0)), ["RemoveTransport", "Unpublish", "RemoveRoom"]);
    let told = house.told_to(1);
    assert_eq!(words(&told)[..2], ["Unpublish", "SpanRoom"]);
    assert_eq!(span(&told), Some((WorkerSet::EMPTY, true)));
    b.heard();
    let speakers = || Event::ActiveSpeakers { room, speakers: vec![(b_track, 12)] };
    house.signalling.handle_event(house.now, WORKERS[0], speakers());
    b.hears_nothing();
    house.signalling.handle_event(house.now, WORKERS[1], speakers());
    assert_eq!(b.heard_words(), ["active-speakers"]);
    // The room comes back to the first worker under the same number.
    let _c = house.join("r", "c");
    assert_eq!(words(&house.told_to(0)), ["AddRoom", "SpanRoom", "PublishElsewhere"]);
    assert_eq!(words(&house.told_to(1)), ["SpanRoom"]);
}

#[test]
fn who_joins_again_stays_on_its_worker() {
    let house = house();
    let _a = house.publisher("r", "a");
    let _b = house.publisher("r", "b");
    house.doors();
    house.told_to(0);
    let _again = house.publisher("r", "b");
    let expected = |door: &Door| matches!(door, Door::Expect(WorkerId(1), ..));
    assert!(house.doors().iter().any(expected));
    assert_eq!(words(&house.told_to(0)), ["PublishElsewhere"], "its track is the same");
}

#[test]
fn a_part_that_fails_takes_the_whole_room_along() {
    let house = house();
    let mut members: Vec<Client> = ["a", "b", "c"].map(|user| house.publisher("r", user)).into();
    let room = room_of(&house.told_to(0));
    house.told_to(1);
    members.iter_mut().for_each(|member| drop(member.heard()));
    let elsewhere = Event::RoomFailed(RoomId(u64::MAX));
    house.signalling.handle_event(house.now, WORKERS[1], elsewhere);
    members.iter_mut().for_each(Client::hears_nothing);
    house.signalling.handle_event(house.now, WORKERS[1], Event::RoomFailed(room));
    for member in &mut members {
        assert_eq!(member.heard_end(), ("internal".to_owned(), 1011));
    }
    for worker in 0..2 {
        assert_eq!(words(&house.told_to(worker)).last(), Some(&"RemoveRoom"));
    }
    assert_eq!(house.signalling.counts().rooms, 0);
}

#[test]
fn members_are_spread_by_the_measured_load() {
    let house = House::of(&Shape { workers: 2, ..Shape::default() });
    let _a = house.join("r", "a");
    assert_eq!(words(&house.told_to(0)), ["AddRoom"]);
    for second in 0..9 {
        let (now, busy) = (house.now + Duration::from_secs(second), Duration::from_millis(900 * second));
        house.signalling.handle_load(now, WORKERS[0], busy);
        house.signalling.handle_load(now, WORKERS[1], Duration::ZERO);
    }
    let _b = house.join("r", "b");
    assert_eq!(words(&house.told_to(1)), ["AddRoom", "SpanRoom"]);
    let _s = house.join("s", "s");
    assert_eq!(words(&house.told_to(1)), ["AddRoom"], "and a new room goes there, too");
}
