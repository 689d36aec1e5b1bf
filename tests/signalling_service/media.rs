//! Offers and answers become commands; voices spread through a room.

use std::collections::HashSet;
use std::time::Duration;

use gryt_sfu::ids::{RoomId, SlotIndex, TrackId, TransportId, WorkerId};
use gryt_sfu::worker::command::Command;
use gryt_sfu::worker::event::{ConnectionState, Event};
use serde_json::{Value, json};
use str0m::media::Direction;

use crate::harness::{Client, Door, House, Peer, RESUME_WINDOW, Shape, published, word};

const WORKER: WorkerId = WorkerId(0);

#[test]
fn an_offer_is_answered_and_the_candidates_follow() {
    let house = House::new();
    let mut a = house.join("r", "a");
    house.told();
    let sdp = Peer::new(house.now).offer(Direction::SendRecv);
    a.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
    let heard = a.heard();
    let events: Vec<&Value> = heard.iter().map(|message| &message["event"]).collect();
    assert_eq!(events, ["answer", "ice-candidate"]);
    assert_eq!(heard[0]["data"]["type"], "answer");
    let candidate = &heard[1]["data"];
    assert!(candidate["candidate"].as_str().unwrap().starts_with("candidate:"));
    assert!(candidate["sdpMid"].is_string() && candidate["sdpMLineIndex"] == 0);
    assert!(
        heard[0]["data"]["sdp"].as_str().unwrap().contains(candidate["usernameFragment"].as_str().unwrap())
    );

    let told = house.told();
    let [Command::AddTransport { transport, .. }, Command::Publish { transport: from, muted, .. }] =
        &told[..]
    else {
        panic!("{:?}", told.iter().map(word).collect::<Vec<_>>())
    };
    assert_eq!((transport, muted), (from, &false));
    let doors = house.doors();
    let [Door::Expect(WORKER, expected, fingerprint)] = doors[..] else { panic!("{doors:?}") };
    assert_eq!(expected, *transport);
    assert!(sdp.to_uppercase().contains(&fingerprint.to_string()));
}

#[test]
fn a_new_voice_is_offered_to_everybody_else_in_its_room() {
    let house = House::new();
    let mut a = house.publisher("r", "a");
    let mut elsewhere = house.publisher("s", "c");
    house.told();
    let mut b = house.publisher("r", "b");
    let told = house.told();
    let (_, track) = published(&told).unwrap();
    let offers = a.answer_offers(&house);
    assert_eq!(offers.len(), 1);
    assert!(offers[0].contains("a=msid:b "), "named by its stream id: {}", offers[0]);
    let told = house.told();
    let [Command::AddSlot { slot, .. }] = &told[..] else {
        panic!("{:?}", told.iter().map(word).collect::<Vec<_>>())
    };
    assert_eq!(slot.source, Some(track));
    assert_eq!(b.answer_offers(&house).len(), 0, "a was there: its voice came with the answer");
    elsewhere.hears_nothing();
}

#[test]
fn a_voice_that_goes_silent_leaves_the_slots_of_the_others() {
    let house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.publisher("r", "b"));
    a.answer_offers(&house);
    house.told();
    let peer = b.peer.as_mut().unwrap();
    let sdp = peer.offer(Direction::RecvOnly);
    b.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
    let words = house.told_words();
    assert_eq!(words, ["Unpublish", "AssignSlot"], "the worker first forgets the track");
    assert_eq!(a.answer_offers(&house).len(), 1);
    assert_eq!(house.signalling.counts().voices, 1);
}

/// Only some of a large room are told before it is back.
#[test]
fn a_voice_that_ends_and_begins_again_at_once_is_heard_by_everybody() {
    let mut house = House::new();
    let mut a = house.publisher("r", "a");
    let mut listeners: Vec<Client> = vec![];
    for at in 0..40 {
        listeners.push(house.listener("r", &at.to_string()));
        listeners.iter_mut().chain([&mut a]).for_each(Client::read_all);
    }
    house.told();
    let mut peer = a.peer.take().unwrap();
    for direction in [Direction::RecvOnly, Direction::SendRecv] {
        a.say(&house, "offer", json!({"type": "offer", "sdp": peer.offer(direction)}));
        let heard = a.heard();
        let answer = heard.iter().find(|message| message["event"] == "answer").expect("an answer");
        peer.take_answer(answer["data"]["sdp"].as_str().unwrap());
    }
    while {
        house.pass(Duration::from_secs(3));
        listeners.iter_mut().map(|listener| listener.answer_offers(&house).len()).sum::<usize>() > 0
    } {}

    // As the worker has it: a track that ended is in no slot any more.
    let mut hearing = HashSet::new();
    let mut present = None;
    for command in house.told() {
        match command {
            Command::Unpublish(_) => hearing.clear(),
            Command::Publish { track, .. } => present = Some(track),
            Command::AddSlot { transport, slot } if slot.source == present => drop(hearing.insert(transport)),
            Command::AssignSlot { transport, source, .. } if source == present => {
                hearing.insert(transport);
            }
            Command::AssignSlot { transport, .. } => drop(hearing.remove(&transport)),
            _ => {}
        }
    }
    assert_eq!(hearing.len(), listeners.len());
}

#[test]
fn who_listens_only_is_offered_a_transport_when_there_is_a_voice() {
    let mut house = House::new();
    let mut a = house.join("r", "a");
    house.pass(Duration::from_secs(60));
    a.hears_nothing();
    let _b = house.publisher("r", "b");
    house.told();
    house.pass(Duration::ZERO);
    assert_eq!(a.answer_offers(&house).len(), 1);
    assert_eq!(house.told_words(), ["AddTransport", "AddSlot"]);
}

#[test]
fn mute_and_deafness_from_before_reach_the_worker_with_track_and_transport() {
    let house = House::new();
    let mut a = house.connect();
    let info = json!({"isMuted": true, "isDeafened": true});
    a.join_with(&house, json!({"roomId": "r", "userId": "a", "userInfo": info}));
    house.told();
    a.publish(&house);
    let told = house.told();
    let [
        Command::AddTransport { transport, .. },
        Command::SetDeafened { transport: deaf, deafened: true },
        Command::Publish { muted: true, .. },
    ] = &told[..]
    else {
        panic!("{:?}", told.iter().map(word).collect::<Vec<_>>())
    };
    assert_eq!(transport, deaf);
}

#[test]
fn who_joins_again_takes_its_track_back_and_nobody_notices() {
    let mut house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.publisher("r", "b"));
    a.answer_offers(&house);
    let (old_transport, track) = published(&house.told()).unwrap();
    house.doors();

    let mut again = house.connect();
    assert_eq!(again.join(&house, "r", "b")["peers"], json!(["a"]));
    assert_eq!(b.heard_end(), ("already-joined".into(), 1008));
    again.publish(&house);
    let told = house.told();
    assert_eq!(
        told.iter().map(word).collect::<Vec<_>>(),
        ["RemoveTransport", "AddTransport", "Publish", "AddSlot"]
    );
    assert!(matches!(told[0], Command::RemoveTransport(transport) if transport == old_transport));
    let (transport, same) = published(&told).unwrap();
    assert!(same == track && transport != old_transport, "the same track on a new transport");
    assert!(
        matches!(house.doors()[..], [Door::Forget(old), Door::Expect(_, new, _)] if old == old_transport && new == transport)
    );
    house.pass(RESUME_WINDOW * 2);
    a.hears_nothing();
}

#[test]
fn who_joins_again_as_another_is_told_of() {
    let house = House::new();
    let (mut a, b) = (house.join("r", "a"), house.join("r", "b"));
    a.heard();
    let mut again = house.connect();
    again.join_with(&house, json!({"roomId": "r", "userId": "b", "userInfo": {"nickname": "Bob"}}));
    assert_eq!(a.heard_words(), ["user-info"]);
    drop(b);
}

#[test]
fn who_joins_again_and_only_listens_gives_its_track_up() {
    let mut house = House::new();
    let (mut a, b) = (house.publisher("r", "a"), house.publisher("r", "b"));
    a.answer_offers(&house);
    let mut again = house.join("r", "b");
    house.told();
    again.offer(&house, Direction::RecvOnly);
    let words = house.told_words();
    assert_eq!(words.iter().filter(|word| **word == "Unpublish").count(), 1, "{words:?}");
    a.answer_offers(&house);
    house.pass(RESUME_WINDOW * 2);
    assert_eq!(house.signalling.counts().voices, 1);
    drop(b);
}

#[test]
fn who_joins_again_and_says_nothing_gives_its_track_up_in_the_end() {
    let mut house = House::new();
    let (mut a, b) = (house.publisher("r", "a"), house.publisher("r", "b"));
    a.answer_offers(&house);
    let again = house.join("r", "b");
    house.told();
    house.pass(RESUME_WINDOW - Duration::from_millis(1));
    assert!(house.told().is_empty());
    house.pass(Duration::from_millis(1));
    assert_eq!(house.told_words(), ["Unpublish", "AssignSlot"]);
    assert_eq!(house.signalling.counts().participants, 2);
    drop((again, b));
}

#[test]
fn a_description_that_is_none_ends_the_connection_but_keeps_the_place() {
    let mut house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.publisher("r", "b"));
    a.answer_offers(&house);
    house.told();
    house.doors();
    b.say(&house, "offer", json!({"type": "offer", "sdp": "v=0\r\nnonsense"}));
    assert_eq!(b.heard_end(), ("bad-sdp".into(), 1008));
    assert_eq!(house.told_words(), ["RemoveTransport"]);
    assert_eq!(house.doors().len(), 1);
    a.hears_nothing();
    assert_eq!(b.resume(&house, "r", "b")["resumed"], false, "there is nothing to resume");
    b.publish(&house);
    house.pass(RESUME_WINDOW * 2);
    a.hears_nothing();
    assert_eq!(house.signalling.counts().voices, 2);
}

fn transport_of(house: &House) -> TransportId {
    published(&house.told()).unwrap().0
}

fn failed(house: &House, transport: TransportId) {
    let event = Event::Connection { transport, state: ConnectionState::Failed };
    house.signalling.handle_event(house.now, WORKER, event);
}

/// Who has nothing to offer, or asks for a microphone first, does not join slowly.
#[test]
fn the_way_to_media_begins_with_the_first_offer() {
    let mut house = House::new();
    let media_flows = |house: &mut House, transport: TransportId| {
        house.pass(Duration::from_millis(200));
        for _ in 0..2 {
            let event = Event::Connection { transport, state: ConnectionState::Connected };
            house.signalling.handle_event(house.now, WORKER, event);
        }
    };
    let mut listener = house.join("r", "a");
    house.pass(Duration::from_secs(600));
    let mut speaker = house.join("r", "b");
    house.pass(Duration::from_secs(20));
    speaker.publish(&house);
    let transport = transport_of(&house);
    media_flows(&mut house, transport);
    house.pass(Duration::from_secs(3));
    assert_eq!(listener.answer_offers(&house).len(), 1);
    let added = |command| match command {
        Command::AddTransport { transport, .. } => Some(transport),
        _ => None,
    };
    let transport = house.told().into_iter().find_map(added).expect("a transport");
    media_flows(&mut house, transport);
    let times = house.signalling.join_to_media();
    assert_eq!(times.count(), 2);
    assert!(times.sum() < 7_000_000_000, "{} ns", times.sum());

    // Neither is among those who came to no media.
    failed(&house, transport);
    assert_eq!((house.signalling.counts().media_failed, house.signalling.counts().media_unreached), (1, 0));
}

#[test]
fn a_failed_transport_sends_its_client_to_join_again() {
    let house = House::new();
    let mut b = house.publisher("r", "b");
    house.told();
    let mut a = house.publisher("r", "a");
    let transport = transport_of(&house);
    b.answer_offers(&house);
    house.told();
    failed(&house, transport);
    assert_eq!(a.heard_end(), ("internal".into(), 1011));
    assert_eq!(house.told_words(), ["RemoveTransport"]);
    b.hears_nothing();
    assert_eq!(a.resume(&house, "r", "a")["resumed"], false);
    b.hears_nothing();
    failed(&house, transport);
    a.hears_nothing();
}

#[test]
fn a_failed_transport_without_a_client_is_the_end() {
    let house = House::new();
    let mut b = house.join("r", "b");
    house.told();
    let mut a = house.publisher("r", "a");
    let transport = transport_of(&house);
    b.heard();
    a.lose(&house);
    failed(&house, transport);
    assert_eq!(b.heard()[0]["data"]["reason"], "failed");
    assert_eq!(house.told_words(), ["RemoveTransport", "Unpublish"]);
}

#[test]
fn a_failed_transport_sends_its_client_away_and_one_that_is_gone_is_nobodys() {
    let house = House::new();
    let mut a = house.publisher("r", "a");
    let transport = transport_of(&house);
    failed(&house, TransportId(u64::MAX));
    for state in [ConnectionState::Connecting, ConnectionState::Connected, ConnectionState::Disconnected] {
        house.signalling.handle_event(house.now, WORKER, Event::Connection { transport, state });
    }
    a.hears_nothing();
    failed(&house, transport);
    assert_eq!(a.heard_end(), ("internal".into(), 1011));
    assert_eq!(house.signalling.counts().media_failed, 1);
}

#[test]
fn speakers_are_named_to_their_room() {
    let house = House::of(&Shape { workers: 2, ..Shape::default() });
    let (mut a, mut other) = (house.publisher("r", "a"), house.publisher("s", "a"));
    let told = house.told_to(0);
    let Command::AddRoom(room) = told[0] else { panic!("a room first") };
    let (_, track) = published(&told).unwrap();
    a.heard();
    other.heard();
    let speakers = || Event::ActiveSpeakers { room, speakers: vec![(track, 12), (TrackId(u64::MAX), 30)] };
    house.signalling.handle_event(house.now, WorkerId(1), speakers());
    a.hears_nothing();
    house.signalling.handle_event(house.now, WORKER, speakers());
    let expected = json!({"roomId": "r", "speakers": [{"userId": "a", "level": 12}]});
    assert_eq!(a.heard(), [json!({"event": "active-speakers", "data": expected})]);
    other.hears_nothing();
    // Who comes meanwhile is told as well.
    let mut late = house.join("r", "b");
    assert_eq!(late.heard(), [json!({"event": "active-speakers", "data": expected})]);
    a.heard();
    let nobody = Event::ActiveSpeakers { room, speakers: vec![] };
    house.signalling.handle_event(house.now, WORKER, nobody);
    assert_eq!(a.heard()[0]["data"]["speakers"], json!([]));
    house.join("r", "c").hears_nothing();
    let gone = Event::ActiveSpeakers { room: RoomId(u64::MAX), speakers: vec![] };
    house.signalling.handle_event(house.now, WORKER, gone);
}

/// Control and the worker count alike: else each would undo what the other does, for ever.
#[test]
fn where_the_worker_decides_it_is_left_to_though_some_lines_were_refused() {
    let mut house = House::of(&Shape { audio_slots: 3, ..Shape::default() });
    let publish = |user| {
        house.told();
        let client = house.publisher("r", user);
        (client, published(&house.told()).unwrap().1)
    };
    let voices = ["a", "b", "c", "d", "e"].map(publish);
    let mut listener = house.join("r", "l");
    house.pass(Duration::from_secs(3));
    house.told();
    let heard = listener.heard();
    let offer = heard.iter().find(|message| message["event"] == "offer").expect("an offer");
    let answer = Peer::new(house.now).answer(offer["data"]["sdp"].as_str().unwrap());
    let (first, others) = answer.match_indices("m=audio").nth(1).map(|(at, _)| answer.split_at(at)).unwrap();
    let answer = format!("{first}{}", others.replace("a=recvonly", "a=inactive"));
    listener.say(&house, "answer", json!({"type": "answer", "sdp": answer}));
    let told = house.told();
    let [.., Command::Refuse { line_count_max: 1, tracks, .. }, Command::AddSlot { transport, slot }] =
        &told[..]
    else {
        panic!("{:?}", told.iter().map(word).collect::<Vec<_>>())
    };
    assert_eq!(**tracks, [voices[1].1, voices[2].1]);
    for track in [voices[3].1, voices[4].1, voices[0].1] {
        let changes = vec![(slot.slot, Some(track))];
        let event = Event::SlotsChanged { transport: *transport, changes };
        house.signalling.handle_event(house.now, WORKER, event);
        assert_eq!(house.told_words(), Vec::<&str>::new());
    }
    assert!(listener.heard_words().contains(&"slots".to_owned()));
}

#[test]
fn slots_that_change_hands_are_named_by_their_m_line() {
    let house = House::of(&Shape { audio_slots: 1, ..Shape::default() });
    let mut a = house.publisher("r", "a");
    let (transport, _) = published(&house.told()).unwrap();
    let publish = |user| -> (Client, TrackId) {
        house.told();
        let client = house.publisher("r", user);
        (client, published(&house.told()).unwrap().1)
    };
    let ((_b, _), (_c, c_track)) = (publish("b"), publish("c"));
    a.answer_offers(&house);
    let changes = vec![(SlotIndex(0), Some(c_track))];
    house.signalling.handle_event(house.now, WORKER, Event::SlotsChanged { transport, changes });
    let heard = a.heard();
    let slots = heard.iter().rev().find(|message| message["event"] == "slots").expect("slots");
    let users: Vec<&Value> = slots["data"].as_object().unwrap().values().collect();
    assert_eq!(users, [&json!("c")]);
    let gone = Event::SlotsChanged { transport: TransportId(u64::MAX), changes: vec![] };
    house.signalling.handle_event(house.now, WORKER, gone);
}

#[test]
fn a_room_stays_on_its_worker_and_new_rooms_go_where_there_is_least() {
    let house = House::of(&Shape { workers: 2, ..Shape::default() });
    let _clients = [house.publisher("r", "a"), house.publisher("s", "b"), house.publisher("r", "c")];
    let words = |worker| house.told_to(worker).iter().map(word).collect::<Vec<_>>();
    assert_eq!(words(0).iter().filter(|word| **word == "AddTransport").count(), 2);
    assert_eq!(words(1), ["AddRoom", "AddTransport", "Publish"]);
}
