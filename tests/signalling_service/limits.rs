//! What happens when somebody or something is too slow.

use std::time::Duration;

use gryt_sfu::auth::mint;
use gryt_sfu::config::{Auth, Hidden, TokenFlags};
use gryt_sfu::ids::Fingerprint;
use gryt_sfu::signalling::{OUTBOUND_BYTES_MAX, OUTBOUND_LEN, Outbound};
use gryt_sfu::time::Now;
use serde_json::json;
use str0m::media::Direction;

use crate::harness::{Client, House, Peer, Shape, word};

#[test]
fn who_does_not_read_is_let_go_and_may_come_back() {
    let mut house = House::new();
    let (mut a, mut slow) = (house.join("r", "a"), house.join("r", "slow"));
    a.heard();
    for turn in 0..OUTBOUND_LEN + 100 {
        a.say(&house, "user-info", json!({"isMuted": turn % 2 == 0}));
        house.pass(Duration::from_millis(50)); // Else it is too many.
        assert_eq!(house.signalling.counts().clients_slow, u64::from(turn >= OUTBOUND_LEN));
    }
    let heard: Vec<Outbound> = std::iter::from_fn(|| slow.next()).collect();
    assert_eq!(
        heard,
        [Outbound::Close { code: 1008, reason: "too slow" }],
        "and nothing that it would not read"
    );
    a.hears_nothing();
    slow.lose(&house);
    assert_eq!(slow.resume(&house, "r", "slow")["resumed"], true);
    a.hears_nothing();
}

/// An offer to listen on so many m-lines, in few words. Its answer has many.
fn offer_to_listen(line_count: usize) -> String {
    let mids: String = (0..line_count).map(|mid| format!(" {mid}")).collect();
    let line = |mid| {
        format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{mid}\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=rtpmap:111 opus/48000/2\r\n"
        )
    };
    let lines: String = (0..line_count).map(line).collect();
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=group:BUNDLE{mids}\r\n\
         a=ice-ufrag:wqHh\r\na=ice-pwd:V7uVDhwTqRcAhVJ0sBsfHgEN\r\na=setup:actpass\r\n\
         a=fingerprint:sha-256 {}\r\n{lines}",
        Fingerprint([0xC4; 32])
    )
}

#[test]
fn what_waits_for_who_does_not_read_is_bounded_in_bytes() {
    let house = House::new();
    let (mut quick, mut slow) = (house.join("r", "quick"), house.join("s", "slow"));
    let offer = json!({"type": "offer", "sdp": offer_to_listen(300)});
    let text_len = |frame: &Outbound| match frame {
        Outbound::Text(text) => text.len(),
        Outbound::Notice { text, .. } => text.len(),
        Outbound::Close { .. } => 0,
    };
    let (mut read_len, close) = (0, Outbound::Close { code: 1008, reason: "too slow" });
    for _ in 0..40 {
        quick.say(&house, "offer", offer.clone());
        slow.say(&house, "offer", offer.clone());
        while let Some(frame) = quick.next() {
            assert_ne!(frame, close, "it reads");
            read_len += text_len(&frame);
        }
    }
    assert!(read_len > OUTBOUND_BYTES_MAX, "{read_len} bytes are not enough for this test");
    let heard: Vec<Outbound> = std::iter::from_fn(|| slow.next()).collect();
    assert_eq!(heard.last(), Some(&close));
    let waited: usize = heard.iter().map(text_len).sum();
    // `joined` was not counted.
    assert!(waited <= OUTBOUND_BYTES_MAX + 1024 && heard.len() < OUTBOUND_LEN, "{waited}, {}", heard.len());
    assert_eq!(house.signalling.counts().clients_slow, 1);
}

#[test]
fn who_changes_too_often_is_let_go_and_the_others_stay() {
    let mut house = House::new();
    let (mut a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    a.heard();
    let change =
        |a: &Client, house: &House, turn| a.say(house, "user-info", json!({"isMuted": turn % 2 == 0}));
    (0..100).for_each(|turn| change(&a, &house, turn));
    a.hears_nothing();
    house.pass(Duration::from_millis(50));
    (100..102).for_each(|turn| change(&a, &house, turn));
    let heard = a.heard();
    assert_eq!(heard.len(), 2);
    assert_eq!(heard[0]["data"]["code"], "rate-limited");
    assert_eq!(heard[1], json!({"close": 1008}));
    assert_eq!(b.heard_words(), vec!["user-info"; 101]);
    a.lose(&house);
    // A new connection begins with no new burst.
    assert_eq!(a.resume(&house, "r", "a")["resumed"], true);
    change(&a, &house, 102);
    assert_eq!(a.heard().last(), Some(&json!({"close": 1008})));
    b.hears_nothing();
}

#[test]
fn a_moderator_who_mutes_too_often_is_told_and_everybody_stays() {
    let auth = Auth::Secret(Hidden::new("0123456789abcdef0123456789abcdef"));
    let house = House::of(&Shape { auth: Some(auth.clone()), ..Shape::default() });
    let [mut moderator, mut ann, mut ben] = ["mod", "ann", "ben"].map(|user| {
        let flags = TokenFlags {
            room: "r".into(),
            user: user.into(),
            ttl: Duration::from_secs(60),
            moderate: user == "mod",
            no_publish: false,
            no_subscribe: false,
            key: None,
        };
        let token = mint(&flags, Some(&auth), Now::read()).unwrap();
        let mut client = house.connect();
        client.join_with(&house, json!({"roomId": "r", "userId": user, "token": token}));
        client
    });
    let mute = |moderator: &Client, muted: bool| {
        moderator.say(&house, "mute", json!({"userId": "ann", "muted": muted}));
    };
    [&mut moderator, &mut ann, &mut ben].into_iter().for_each(Client::read_all);
    // What changes nothing costs nothing.
    (0..200).for_each(|_| mute(&moderator, true));
    for client in [&mut moderator, &mut ann, &mut ben] {
        assert_eq!(client.heard_words(), ["user-info"]);
    }
    (0..200).for_each(|turn| mute(&moderator, turn % 2 == 1));
    let heard = moderator.heard();
    let refused: Vec<_> = heard.iter().filter(|message| message["event"] == "error").collect();
    assert!(refused.iter().all(|error| error["data"]["code"] == "rate-limited"), "{refused:?}");
    // Every second one of the other 101 would have changed something.
    assert_eq!((heard.len() - refused.len(), refused.len()), (99, 51));
    for client in [&mut ann, &mut ben] {
        assert_eq!(client.heard_words(), vec!["user-info"; 99]);
    }
    // It was not at the muted one's cost.
    ann.say(&house, "user-info", json!({"isMuted": true}));
    assert_eq!(ben.heard_words(), ["user-info"]);
}

#[test]
fn who_publishes_on_and_off_too_often_is_let_go() {
    let house = House::new();
    let mut a = house.publisher("r", "a");
    let mut peer = a.peer.take().unwrap();
    let mut turns = 0;
    loop {
        let direction = if turns & 1 == 0 { Direction::Inactive } else { Direction::SendRecv };
        a.say(&house, "offer", json!({"type": "offer", "sdp": peer.offer(direction)}));
        let heard = a.heard();
        turns += 1;
        if let [.., error, close] = &heard[..]
            && *close == json!({"close": 1008})
        {
            assert_eq!(error["data"]["code"], "rate-limited");
            break;
        }
        let answer = heard.iter().find(|message| message["event"] == "answer").expect("an answer");
        peer.take_answer(answer["data"]["sdp"].as_str().unwrap());
    }
    assert_eq!(turns, 20, "the first offer began to publish, too");
}

/// Each time the workers look for who carried the voice before.
#[test]
fn who_publishes_under_ever_new_ssrcs_is_let_go() {
    let house = House::new();
    let mut a = house.join("r", "a");
    let sdp = Peer::new(house.now).offer(Direction::SendRecv);
    let ssrc = sdp.split("a=ssrc:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    for turn in 0..200_u32 {
        let sdp = sdp.replace(&ssrc, &(1_000 + turn).to_string());
        a.say(&house, "offer", json!({"type": "offer", "sdp": sdp}));
        let heard = a.heard();
        if let [.., error, close] = &heard[..]
            && *close == json!({"close": 1008})
        {
            assert_eq!(error["data"]["code"], "rate-limited");
            assert!(turn > 80, "{turn}");
            return;
        }
        assert!(heard.iter().any(|message| message["event"] == "answer"), "{heard:?}");
    }
    panic!("nobody minds");
}

#[test]
fn who_joins_again_and_again_as_another_is_refused_and_the_others_stay() {
    let mut house = House::new();
    let (_a, mut b) = (house.join("r", "a"), house.join("r", "b"));
    b.heard();
    let again = |house: &House, turn: u32| {
        let mut client = house.connect();
        client.say(
            house,
            "join",
            json!({"roomId": "r", "userId": "a", "userInfo": {"isMuted": turn & 1 == 0}}),
        );
        client.heard()
    };
    for turn in 0..100 {
        assert_eq!(again(&house, turn)[0]["event"], "joined");
    }
    let refused = again(&house, 100);
    let joined = &refused[0]["data"];
    assert_eq!((&refused[0]["event"], &joined["success"]), (&json!("joined"), &json!(false)));
    assert_eq!(joined["message"], "too many changes");
    assert_eq!(refused[1]["data"]["code"], "rate-limited");
    assert_eq!(refused[2..], [json!({"close": 1008})]);
    let counts = house.signalling.counts();
    assert_eq!((counts.joins_refused, counts.joins_rate_limited, counts.joins_unauthorized), (1, 1, 0));
    assert_eq!(b.heard_words(), vec!["user-info"; 100]);
    house.pass(Duration::from_millis(50));
    assert_eq!(again(&house, 100)[0]["event"], "joined");
}

#[test]
fn what_a_worker_has_no_room_for_arrives_later_and_in_order() {
    let mut house = House::of(&Shape { queue_len: 1, ..Shape::default() });
    let a = house.publisher("r", "a");
    assert_eq!(house.signalling.counts().commands_waiting, 2);
    let mut words = vec![];
    for _ in 0..3 {
        words.extend(house.told().iter().map(word));
        house.pass(Duration::from_millis(5));
    }
    assert_eq!(words, ["AddRoom", "AddTransport", "Publish"]);
    assert_eq!((house.signalling.counts().commands_waiting, house.signalling.next_timeout()), (0, None));
    drop(a);
}
