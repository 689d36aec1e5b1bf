//! Coming in, being there, going away.

use std::time::Duration;

use gryt_sfu::worker::command::Command;
use serde_json::{Value, json};

use crate::harness::{House, JOIN_WAIT, Shape};

#[test]
fn the_first_to_come_makes_the_room_and_is_told_that_nobody_is_there() {
    let house = House::new();
    let mut alice = house.connect();
    alice.hears_nothing();
    let text = r#"{"event":"join","data":{"roomId":"test","userId":"alice","userInfo":{"nickname":"Alice","isMuted":false}}}"#;
    alice.say_text(&house, text);
    let heard = alice.heard();
    let mut data = heard[0]["data"].clone();
    let resume = data.as_object_mut().unwrap().remove("resume").unwrap();
    assert_eq!(resume.as_str().unwrap().len(), 43);
    let expected = json!({"roomId": "test", "userId": "alice", "peers": [], "success": true, "peerInfo": {},
        "iceServers": [], "resumed": false,
        "grants": {"publish": true, "subscribe": true, "moderate": false}});
    assert_eq!((heard.len(), &heard[0]["event"], data), (1, &json!("joined"), expected));
    assert_eq!(house.told_words(), ["AddRoom"]);
}

#[test]
fn those_who_are_there_and_those_who_come_hear_of_each_other() {
    let house = House::new();
    let mut zoe = house.connect();
    zoe.join_with(
        &house,
        json!({"roomId": "r", "userId": "zoe", "userInfo": {"nickname": "Zoë", "isMuted": true}}),
    );
    let mut al = house.join("r", "Al B");
    al.hears_nothing();
    let joined = json!({"event": "user-joined", "data": {"roomId": "r", "userId": "Al B",
        "userInfo": {"nickname": "Al B", "isMuted": false, "isDeafened": false, "isServerMuted": false}, "streamId": "u-NCeUBmZkkzFfOwWz_St48P"}});
    assert_eq!(zoe.heard(), std::slice::from_ref(&joined));
    let data = house.connect().join(&house, "r", "bob");
    assert_eq!(data["peers"], json!(["zoe", "Al B"]), "in the order of joining");
    let info = json!({"nickname": "Zoë", "isMuted": true, "isDeafened": false, "isServerMuted": false, "streamId": "zoe"});
    assert_eq!(data["peerInfo"]["zoe"], info);
    assert_eq!(data["peerInfo"]["Al B"]["streamId"], joined["data"]["streamId"]);
    assert_eq!(
        (zoe.heard_words(), al.heard_words()),
        (vec!["user-joined".into()], vec!["user-joined".into()])
    );
    assert_eq!(house.told_words(), ["AddRoom"], "one room, no transports yet");
}

#[test]
fn rooms_do_not_hear_of_each_other() {
    let house = House::new();
    let mut a = house.join("r", "a");
    let data = house.connect().join(&house, "s", "a");
    assert_eq!((&data["peers"], &data["success"]), (&json!([]), &json!(true)), "the same user, another room");
    a.hears_nothing();
    assert_eq!(house.signalling.counts().rooms, 2);
}

#[test]
fn who_leaves_is_missed_and_who_leaves_last_takes_the_room_along() {
    let house = House::new();
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    a.heard();
    b.say(&house, "leave", json!({}));
    assert_eq!(b.heard(), [json!({"close": 1000})], "nothing but the close");
    assert_eq!(
        a.heard(),
        [json!({"event": "user-left", "data": {"roomId": "r", "userId": "b", "reason": "left"}})]
    );
    b.say(&house, "offer", json!({"type": "offer", "sdp": "v=0"}));
    b.say(&house, "join", json!({"roomId": "r", "userId": "b"}));
    b.hears_nothing();
    a.say_text(&house, r#"{"event":"leave"}"#);
    assert_eq!(house.told_words(), ["AddRoom", "RemoveRoom"]);
    let counts = house.signalling.counts();
    assert_eq!((counts.rooms, counts.participants, counts.connections), (0, 0, 2));
    drop((a, b));
    house.signalling.handle_timeout(house.now);
    assert_eq!(house.signalling.counts().connections, 0);
    assert_eq!(house.signalling.next_timeout(), None);
}

#[test]
fn who_leaves_without_having_joined_is_let_go() {
    let house = House::new();
    let mut a = house.connect();
    a.say(&house, "leave", json!({}));
    assert_eq!(a.heard(), [json!({"close": 1000})]);
}

#[test]
fn who_does_not_join_in_time_is_sent_away() {
    let mut house = House::new();
    let (mut idle, mut joined) = (house.connect(), house.join("r", "a"));
    house.pass(JOIN_WAIT - Duration::from_millis(1));
    idle.say(&house, "keep_alive", json!({}));
    idle.hears_nothing();
    house.pass(Duration::from_millis(1));
    assert_eq!(idle.heard_end(), ("not-joined".into(), 1008));
    joined.hears_nothing();
}

#[test]
fn what_is_said_before_joining_is_refused_and_joining_is_still_possible() {
    let house = House::new();
    let mut a = house.connect();
    for event in ["offer", "answer"] {
        a.say(&house, event, json!({"type": event, "sdp": "v=0\r\n"}));
    }
    a.say(&house, "ice-candidate", json!({"candidate": ""}));
    a.say(&house, "user-info", json!({"isMuted": true}));
    let codes: Vec<Value> = a.heard().iter().map(|message| message["data"]["code"].clone()).collect();
    assert_eq!(codes, ["not-joined"; 4]);
    a.say(&house, "join", json!({"roomId": "r", "userId": ""}));
    a.say_text(&house, "hello");
    let codes: Vec<Value> = a.heard().iter().map(|message| message["data"]["code"].clone()).collect();
    assert_eq!(codes, ["bad-message"; 2]);
    assert_eq!(a.join(&house, "r", "a")["success"], true);
    a.say(&house, "join", json!({"roomId": "s", "userId": "a"}));
    assert_eq!(a.heard()[0]["data"]["code"], "already-joined");
    assert_eq!(house.signalling.counts().rooms, 1, "it stays where it is");
}

#[test]
fn unknown_events_and_keep_alives_are_not_answered() {
    let house = House::new();
    let mut a = house.join("r", "a");
    for event in ["renegotiate", "keep_alive", "Join", ""] {
        a.say(&house, event, json!("x"));
    }
    a.hears_nothing();
    let counts = house.signalling.counts();
    assert_eq!((counts.messages, counts.messages_unknown, counts.messages_bad), (5, 3, 0));
}

#[test]
fn a_message_that_is_too_big_ends_the_connection() {
    let house = House::new();
    let mut a = house.join("r", "a");
    a.say(&house, "user-info", json!({"x": "x".repeat(16 * 1024)}));
    assert_eq!(a.heard_end(), ("bad-message".into(), 1009));
}

#[test]
fn a_full_server_says_so_and_still_takes_back_its_own() {
    let house = House::of(&Shape { max_connections: 2, ..Shape::default() });
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    let mut c = house.connect();
    let data = c.join(&house, "r", "c");
    assert_eq!((&data["success"], &data["peers"]), (&json!(false), &json!([])));
    assert!(data["message"].as_str().unwrap().contains("full") && data.get("resume").is_none());
    assert_eq!(c.heard(), [json!({"close": 1013})]);
    a.heard();
    b.lose(&house);
    assert_eq!(b.resume(&house, "r", "b")["resumed"], true);
    assert_eq!(house.join("r", "a").heard_words(), Vec::<String>::new(), "over its own connection");
    assert_eq!(a.heard_end(), ("already-joined".into(), 1008));
    assert_eq!(house.signalling.counts().joins_refused, 1);
}

#[test]
fn open_sockets_are_bounded() {
    let house = House::of(&Shape { max_connections: 2, ..Shape::default() });
    let mut clients: Vec<_> = (0..5).map(|_| house.connect()).collect();
    assert_eq!(clients[4].heard_end(), ("server-full".into(), 1013));
    clients[3].hears_nothing();
    drop(clients);
    house.connect().hears_nothing();
}

#[test]
fn changes_of_what_one_says_of_oneself_reach_the_others_and_only_changes_do() {
    let house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.join("r", "b"));
    a.heard();
    house.told();
    a.say(&house, "user-info", json!({"isMuted": true}));
    let info = json!({"nickname": "a", "isMuted": true, "isDeafened": false, "isServerMuted": false});
    assert_eq!(
        b.heard(),
        [json!({"event": "user-info", "data": {"roomId": "r", "userId": "a", "userInfo": info}})]
    );
    assert!(matches!(house.told()[..], [Command::SetMuted { muted: true, .. }]));
    a.say(&house, "user-info", json!({"nickname": "Ann", "isDeafened": true}));
    let info = json!({"nickname": "Ann", "isMuted": true, "isDeafened": true, "isServerMuted": false});
    assert_eq!(b.heard()[0]["data"]["userInfo"], info);
    assert!(matches!(house.told()[..], [Command::SetDeafened { deafened: true, .. }]));
    a.say(&house, "user-info", json!({"isMuted": true, "nickname": "Ann"}));
    a.say(&house, "user-info", json!({}));
    assert!(house.told().is_empty());
    b.hears_nothing();
    b.say(&house, "user-info", json!({"isMuted": true, "isDeafened": true}));
    assert!(house.told().is_empty(), "no track and no transport to tell the worker of");
    assert_eq!(a.heard_words(), ["user-info"]);
    b.hears_nothing();
}

#[test]
fn a_server_that_goes_down_says_so_and_takes_nobody_in() {
    let mut house = House::new();
    let (mut a, mut late) = (house.join("r", "a"), house.connect());
    house.signalling.drain(house.now, Duration::from_secs(20));
    assert_eq!(a.heard(), [json!({"event": "draining", "data": {"deadline": 20_000}})]);
    late.hears_nothing();
    assert_eq!(late.join(&house, "r", "late")["success"], false);
    assert_eq!(late.heard(), [json!({"close": 1001})]);
    // Whose connection breaks meanwhile takes its session up again.
    a.lose(&house);
    house.pass(Duration::from_secs(5));
    assert_eq!(a.resume(&house, "r", "a")["resumed"], true);
    assert_eq!(a.heard(), [json!({"event": "draining", "data": {"deadline": 15_000}})]);
    let mut again = house.connect();
    assert_eq!(again.join(&house, "r", "a")["resumed"], false);
    assert_eq!(again.heard(), [json!({"event": "draining", "data": {"deadline": 15_000}})]);
    let mut a = again;
    a.say(&house, "user-info", json!({"isMuted": true}));
    house.signalling.close_all(house.now, 1001, "going down");
    assert_eq!(a.heard(), [json!({"close": 1001})]);
    assert_eq!(house.connect().heard(), [json!({"close": 1001})]);
}
