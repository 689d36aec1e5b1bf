//! A lost connection, and what comes after it.

use std::time::Duration;

use gryt_sfu::worker::command::Command;
use serde_json::json;

use crate::harness::{Door, House, RESUME_WINDOW, published};

const A_MOMENT: Duration = Duration::from_millis(1);

#[test]
fn who_does_not_come_back_in_time_has_left() {
    let mut house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.listener("r", "b"));
    a.heard();
    house.told();
    house.doors();
    a.lose(&house);
    house.pass(RESUME_WINDOW - A_MOMENT);
    b.hears_nothing();
    assert!(house.told().is_empty(), "its transport goes on");
    assert_eq!(house.signalling.counts().participants_lost, 1);
    house.pass(A_MOMENT);
    assert_eq!(
        b.heard()[0],
        json!({"event": "user-left", "data": {"roomId": "r", "userId": "a", "reason": "disconnected"}})
    );
    assert_eq!(house.told_words(), ["RemoveTransport", "Unpublish", "AssignSlot"]);
    assert!(matches!(house.doors()[..], [Door::Forget(_)]));
    assert_eq!(a.resume(&house, "r", "a")["resumed"], false, "the token went with the session");
}

/// 1000 means that the purpose is fulfilled (RFC 6455 §7.4.1).
#[test]
fn who_closes_with_1000_has_left_at_once() {
    let house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.join("r", "b"));
    a.heard();
    house.told();
    a.close(&house, Some(1000));
    assert_eq!(
        b.heard()[0],
        json!({"event": "user-left", "data": {"roomId": "r", "userId": "a", "reason": "left"}})
    );
    assert_eq!(house.told_words(), ["RemoveTransport", "Unpublish"]);
    assert_eq!(a.resume(&house, "r", "a")["resumed"], false);
}

/// A reload says 1001, a browser's `close()` nothing, a server between us 1006 or what it likes.
#[test]
fn any_other_end_is_a_lost_socket() {
    for code in [1001, 1005, 1006, 1011, 4000] {
        let house = House::new();
        let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
        b.heard();
        a.close(&house, Some(code));
        b.hears_nothing();
        assert_eq!(a.resume(&house, "r", "a")["resumed"], true, "{code}");
    }
}

/// What a connection says that no longer speaks for its participant is not heard, its close included.
#[test]
fn a_supplanted_connection_cannot_leave_for_its_participant() {
    let house = House::new();
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    b.heard();
    let _again = house.join("r", "a");
    a.close(&house, Some(1000));
    b.hears_nothing();
    assert_eq!(house.signalling.counts().participants, 2);
}

#[test]
fn who_comes_back_in_time_goes_on_unseen() {
    let mut house = House::new();
    let (mut a, mut b) = (house.publisher("r", "a"), house.listener("r", "b"));
    a.heard();
    let before = published(&house.told()).unwrap();
    a.lose(&house);
    house.pass(RESUME_WINDOW - A_MOMENT);
    let token = a.resume.clone();
    let data = a.resume(&house, "r", "a");
    assert_eq!((&data["resumed"], &data["peers"]), (&json!(true), &json!(["b"])));
    assert!(a.resume != token && a.resume.len() == 43, "a new token at each use");
    assert!(house.told().is_empty() && house.doors().len() == 2);
    house.pass(RESUME_WINDOW * 2);
    b.hears_nothing();
    a.say(&house, "user-info", json!({"isMuted": true}));
    assert!(matches!(house.told()[..], [Command::SetMuted { track, .. }] if track == before.1));
    let counts = house.signalling.counts();
    assert_eq!((counts.resumes, counts.participants, counts.participants_lost), (1, 2, 0));
}

#[test]
fn a_resume_says_anew_only_what_it_names() {
    let house = House::new();
    let (mut a, mut b) = (house.connect(), house.join("r", "b"));
    a.join_with(
        &house,
        json!({"roomId": "r", "userId": "a", "userInfo": {"nickname": "Ann", "isMuted": true}}),
    );
    b.heard();
    a.lose(&house);
    let token = a.resume.clone();
    let info = json!({"isMuted": false});
    let mut again = house.connect();
    let data = json!({"roomId": "r", "userId": "a", "resume": token, "userInfo": info});
    assert_eq!(again.join_with(&house, data)["resumed"], true);
    let info = json!({"nickname": "Ann", "isMuted": false, "isDeafened": false, "isServerMuted": false});
    assert_eq!(b.heard()[0]["data"]["userInfo"], info);
}

#[test]
fn a_token_is_good_once_and_for_its_own_user_and_room() {
    let house = House::new();
    let mut a = house.join("r", "a");
    let b = house.join("r", "b");
    house.join("s", "a");
    let show = |token: &str, room: &str, user: &str| {
        let mut client = house.connect();
        let data = json!({"roomId": room, "userId": user, "resume": token});
        client.join_with(&house, data)["resumed"].as_bool().unwrap()
    };
    let first = a.resume.clone();
    assert!(!show(&first, "r", "b") && !show(&first, "s", "a") && !show(&first, "r", "new"));
    assert!(!show(&b.resume, "r", "b"), "joined again since: void");
    assert!(show(&first, "r", "a"));
    assert!(!show(&first, "r", "a"), "used");
    for junk in ["", "=", "\u{0}", &"A".repeat(43), &"A".repeat(5000)] {
        assert!(!show(junk, "r", "a"));
    }
    assert_eq!(a.heard_end(), ("already-joined".into(), 1008));
}

#[test]
fn a_token_is_void_when_its_time_is_up_though_no_timer_ran_yet() {
    let mut house = House::new();
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    b.heard();
    a.lose(&house);
    house.now += RESUME_WINDOW;
    assert_eq!(a.resume(&house, "r", "a")["resumed"], false);
    house.pass(RESUME_WINDOW);
    b.hears_nothing();
}

#[test]
fn the_new_connection_wins_though_the_old_one_is_still_open() {
    let mut house = House::new();
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    a.heard();
    let mut again = house.connect();
    let data = json!({"roomId": "r", "userId": "a", "resume": a.resume});
    assert_eq!(again.join_with(&house, data)["resumed"], true);
    assert_eq!(a.heard_end(), ("already-joined".into(), 1008));
    a.say(&house, "leave", json!({}));
    a.say(&house, "user-info", json!({"isMuted": true}));
    a.lose(&house);
    house.pass(RESUME_WINDOW * 2);
    b.hears_nothing();
    again.hears_nothing();
    assert_eq!(house.signalling.counts().participants, 2);
}

#[test]
fn a_socket_that_is_dropped_is_lost_from_the_next_wake_up_on() {
    let mut house = House::new();
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    b.heard();
    house.pass(Duration::from_secs(60));
    a.drop_socket();
    assert!(house.signalling.next_timeout().is_some_and(|due| due <= house.now));
    let woken =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            tokio::time::timeout(Duration::from_secs(5), house.signalling.rearmed()).await
        });
    assert!(woken.is_ok(), "whoever sleeps is woken");
    // The runner slept for a minute before it looked: that minute is not the client's.
    house.now += Duration::from_secs(60);
    house.signalling.handle_timeout(house.now);
    house.pass(RESUME_WINDOW - A_MOMENT);
    b.hears_nothing();
    house.pass(A_MOMENT);
    assert_eq!(b.heard_words(), ["user-left"]);
}

#[test]
fn an_unanswered_offer_is_sent_again() {
    let house = House::new();
    let mut a = house.publisher("r", "a");
    let _b = house.publisher("r", "b");
    assert_eq!(a.heard_words(), ["user-joined", "offer"]);
    a.lose(&house);
    assert_eq!(a.resume(&house, "r", "a")["resumed"], true);
    house.told();
    assert_eq!(a.answer_offers(&house).len(), 1);
    assert_eq!(house.told_words(), ["AddSlot"]);
}

#[test]
fn what_came_about_while_nobody_listened_is_offered_on_return() {
    let mut house = House::new();
    let mut a = house.publisher("r", "a");
    a.lose(&house);
    let b = house.publisher("r", "b");
    house.pass(Duration::from_secs(5));
    let data = a.resume(&house, "r", "a");
    assert_eq!((&data["resumed"], &data["peers"]), (&json!(true), &json!(["b"])));
    house.told();
    let offers = a.answer_offers(&house);
    assert!(offers.len() == 1 && offers[0].contains("a=msid:b "), "{offers:?}");
    assert_eq!(house.told_words(), ["AddSlot"]);
    assert!(b.is_open());
}
