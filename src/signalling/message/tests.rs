//! What the README dialect reads and writes.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(message: Value) -> Result<ClientMessage, Unreadable> {
    ClientMessage::parse(&message.to_string())
}

fn is_malformed(message: Value) -> bool {
    matches!(parse(message), Err(Unreadable::Malformed(_)))
}

#[test]
fn a_join_typed_by_hand_is_understood() {
    let text = r#"{"event":"join","data":{"roomId":"test","userId":"alice","userInfo":{"nickname":"Alice","isMuted":false}}}"#;
    let Ok(ClientMessage::Join(join)) = ClientMessage::parse(text) else {
        panic!("a join");
    };
    assert_eq!((join.room.as_str(), join.user.as_str()), ("test", "alice"));
    let nickname = Nickname::parse("Alice");
    assert_eq!(join.info, UserInfoChange { nickname, is_muted: Some(false), is_deafened: None });
    assert_eq!(join.resume, None);
}

#[test]
fn what_may_be_absent_may_be_null_and_what_is_not_known_is_ignored() {
    let whole =
        json!({"v": 2, "event": "join", "data": {"roomId": "r", "userId": "u", "x": [1], "token": null}});
    let plain = parse(whole).unwrap();
    let nulls = json!({"nickname": null, "isMuted": null});
    for info in [json!({}), json!(null), nulls] {
        let data = json!({"roomId": "r", "userId": "u", "userInfo": info, "resume": null});
        assert_eq!(parse(json!({"data": data, "event": "join"})), Ok(plain.clone()));
    }
    for message in [
        json!({"event": "leave"}),
        json!({"event": "leave", "data": {}}),
        json!({"event": "leave", "data": 1}),
    ] {
        assert_eq!(parse(message), Ok(ClientMessage::Leave));
    }
    assert_eq!(parse(json!({"event": "keep_alive", "data": "…"})), Ok(ClientMessage::KeepAlive));
    assert_eq!(parse(json!({"event": "renegotiate", "data": ""})), Err(Unreadable::UnknownEvent));
}

#[test]
fn the_end_of_candidates_has_many_forms() {
    for data in [json!(null), json!({}), json!({"candidate": ""}), json!({"candidate": "", "sdpMid": null})] {
        let message = json!({"event": "ice-candidate", "data": data});
        assert_eq!(parse(message), Ok(ClientMessage::Candidate(String::new())));
    }
    assert_eq!(parse(json!({"event": "ice-candidate"})), Ok(ClientMessage::Candidate(String::new())));
}

#[test]
fn a_description_has_the_type_of_its_event() {
    let message = |event, kind| json!({"event": event, "data": {"type": kind, "sdp": "v=0\r\n"}});
    assert_eq!(parse(message("offer", "offer")), Ok(ClientMessage::Offer("v=0\r\n".into())));
    assert_eq!(parse(message("answer", "answer")), Ok(ClientMessage::Answer("v=0\r\n".into())));
    for (event, kind) in
        [("offer", "answer"), ("answer", "offer"), ("answer", "pranswer"), ("offer", "rollback")]
    {
        assert!(is_malformed(message(event, kind)), "{event} {kind}");
    }
}

#[test]
fn what_is_wrong_is_said_to_be_wrong() {
    let join = |data| json!({"event": "join", "data": data});
    let long = "x".repeat(129);
    for data in [
        json!(null),
        json!("text"),
        json!({"roomId": "r"}),
        json!({"roomId": "", "userId": "u"}),
        json!({"roomId": "r", "userId": "a\nb"}),
        json!({"roomId": long, "userId": "u"}),
        json!({"roomId": 1, "userId": "u"}),
        json!({"roomId": "r", "userId": "u", "userInfo": "Alice"}),
        json!({"roomId": "r", "userId": "u", "userInfo": {"isMuted": "yes"}}),
        json!({"roomId": "r", "userId": "u", "userInfo": {"nickname": "é".repeat(65)}}),
        json!({"roomId": "r", "userId": "u", "token": 1}),
    ] {
        assert!(is_malformed(join(data.clone())), "{data}");
    }
    for message in [
        json!({"event": "kick"}),
        json!({"event": "kick", "data": {"userId": ""}}),
        json!({"event": "mute", "data": {"userId": "u"}}),
        json!({"event": "mute", "data": {"userId": "u", "muted": "yes"}}),
    ] {
        assert!(is_malformed(message.clone()), "{message}");
    }
    for text in [
        "",
        "null",
        "join",
        "[]",
        "{}",
        "{\"event\":1}",
        "{\"event\":\"leave\"",
        "\u{0}",
        "{\"event\":\"leave\"}x",
    ] {
        assert!(matches!(ClientMessage::parse(text), Err(Unreadable::Malformed(_))), "{text:?}");
    }
}

#[test]
fn reasons_are_short_however_long_the_message() {
    let Err(Unreadable::Malformed(reason)) = parse(json!({"event": "join", "data": "é".repeat(5000)}))
    else {
        panic!("malformed");
    };
    assert!((1..=REASON_LEN_MAX).contains(&reason.len()));
}

#[test]
fn sizes_are_bounded_by_kind() {
    let padded = |event: &str, len: usize| {
        let start = format!(r#"{{"event":"{event}","data":{{"type":"{event}","sdp":""#);
        format!(r#"{start}{}"}}}}"#, "x".repeat(len - start.len() - 3))
    };
    assert!(ClientMessage::parse(&padded("offer", DESCRIPTION_LEN_MAX)).is_ok());
    assert_eq!(ClientMessage::parse(&padded("offer", DESCRIPTION_LEN_MAX + 1)), Err(Unreadable::TooBig));
    assert_eq!(ClientMessage::parse(&padded("leave", MESSAGE_LEN_MAX)), Ok(ClientMessage::Leave));
    assert_eq!(ClientMessage::parse(&padded("leave", MESSAGE_LEN_MAX + 1)), Err(Unreadable::TooBig));
    assert_eq!(ClientMessage::parse(&padded("other", MESSAGE_LEN_MAX + 1)), Err(Unreadable::TooBig));
}

#[test]
fn depth_does_not_exhaust_the_stack() {
    let text = format!(r#"{{"event":"keep_alive","data":{}"#, "[".repeat(16_000));
    assert!(matches!(ClientMessage::parse(&text), Err(Unreadable::Malformed(_))));
}

#[test]
fn secrets_do_not_reach_debug_output() {
    let data = json!({"roomId": "r", "userId": "u", "resume": "s3cret", "token": "s3cret"});
    let join = parse(json!({"event": "join", "data": data})).unwrap();
    let joined = joined(vec![], Some(ResumeText("s3cret".into())));
    assert!(!format!("{join:?} {joined:?}").contains("s3cret"));
    assert!(joined.write().contains("s3cret"));
}

fn joined(peers: Vec<(UserId, PeerInfo)>, resume: Option<ResumeText>) -> ServerMessage {
    ServerMessage::Joined(Box::new(Joined {
        room_id: RoomName::parse("r").unwrap(),
        user_id: UserId::parse("u").unwrap(),
        peers: peers.iter().map(|(user, _)| user.clone()).collect(),
        success: resume.is_some(),
        message: resume.is_none().then(|| "full".into()),
        peer_info: peers.into_iter().collect(),
        ice_servers: vec![],
        grants: resume.is_some().then(Grants::default),
        resume,
        resumed: false,
    }))
}

#[test]
fn what_is_sent_looks_as_the_protocol_says() {
    let user_info = UserInfo {
        nickname: Nickname::parse("B \"b\"").unwrap(),
        is_muted: true,
        is_deafened: false,
        is_server_muted: true,
    };
    let user = |text| UserId::parse(text).unwrap();
    let room_id = RoomName::parse("r").unwrap();
    let peer = PeerInfo { user_info: user_info.clone(), stream_id: "bob".into() };
    let info = json!({"nickname": "B \"b\"", "isMuted": true, "isDeafened": false, "isServerMuted": true});
    let cases = [
        (
            joined(vec![(user("bob"), peer)], Some(ResumeText("t".into()))),
            json!({"event": "joined", "data": {
                "roomId": "r", "userId": "u", "peers": ["bob"], "success": true,
                "peerInfo": {"bob": {"nickname": "B \"b\"", "isMuted": true, "isDeafened": false,
                    "isServerMuted": true, "streamId": "bob"}},
                "iceServers": [], "resume": "t", "resumed": false,
                "grants": {"publish": true, "subscribe": true, "moderate": false}}}),
        ),
        (
            joined(vec![], None),
            json!({"event": "joined", "data": {
                "roomId": "r", "userId": "u", "peers": [], "success": false, "message": "full",
                "peerInfo": {}, "iceServers": [], "resumed": false}}),
        ),
        (
            ServerMessage::UserJoined {
                room_id: room_id.clone(),
                user_id: user("bob"),
                user_info: user_info.clone(),
                stream_id: "bob".into(),
            },
            json!({"event": "user-joined",
                "data": {"roomId": "r", "userId": "bob", "userInfo": info, "streamId": "bob"}}),
        ),
        (
            ServerMessage::UserLeft {
                room_id: room_id.clone(),
                user_id: user("bob"),
                reason: LeaveReason::Left,
            },
            json!({"event": "user-left", "data": {"roomId": "r", "userId": "bob", "reason": "left"}}),
        ),
        (
            ServerMessage::UserInfo { room_id: room_id.clone(), user_id: user("bob"), user_info },
            json!({"event": "user-info", "data": {"roomId": "r", "userId": "bob", "userInfo": info}}),
        ),
        (
            ServerMessage::Answer(Description { kind: DescriptionKind::Answer, sdp: "v=0\r\n".into() }),
            json!({"event": "answer", "data": {"type": "answer", "sdp": "v=0\r\n"}}),
        ),
        (
            ServerMessage::IceCandidate(Candidate {
                candidate: "candidate:1".into(),
                sdp_mid: Some("0".into()),
                sdp_m_line_index: Some(0),
                username_fragment: Some("f".into()),
            }),
            json!({"event": "ice-candidate", "data": {
                "candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "f"}}),
        ),
        (
            ServerMessage::ActiveSpeakers {
                room_id,
                speakers: vec![Speaker { user_id: user("bob"), level: 12 }],
            },
            json!({"event": "active-speakers",
                "data": {"roomId": "r", "speakers": [{"userId": "bob", "level": 12}]}}),
        ),
        (
            ServerMessage::Slots(BTreeMap::from([
                (Mid::parse("1").unwrap(), Some(user("bob"))),
                (Mid::parse("2").unwrap(), None),
            ])),
            json!({"event": "slots", "data": {"1": "bob", "2": null}}),
        ),
        (
            ServerMessage::IceServers {
                ice_servers: vec![
                    IceServer { urls: vec!["stun:s".into()], username: None, credential: None },
                    IceServer {
                        urls: vec!["turn:t".into()],
                        username: Some("1:u".into()),
                        credential: Some(CredentialText("p".into())),
                    },
                ],
            },
            json!({"event": "ice-servers", "data": {"iceServers": [
                {"urls": ["stun:s"]}, {"urls": ["turn:t"], "username": "1:u", "credential": "p"}]}}),
        ),
        (
            ServerMessage::Error { code: ErrorCode::BadSdp, message: "no".into() },
            json!({"event": "error", "data": {"code": "bad-sdp", "message": "no"}}),
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(serde_json::from_str::<Value>(&message.write()).unwrap(), expected);
        assert_eq!(ServerMessage::parse(&message.write()), Ok(message));
    }
}

fn name() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,32}"
}

fn user() -> impl Strategy<Value = UserId> {
    name().prop_map(|text| UserId::parse(&text).unwrap())
}

fn room() -> impl Strategy<Value = RoomName> {
    name().prop_map(|text| RoomName::parse(&text).unwrap())
}

fn mid() -> impl Strategy<Value = Mid> {
    "[a-zA-Z0-9_-]{1,16}".prop_map(|text| Mid::parse(&text).unwrap())
}

fn nickname() -> impl Strategy<Value = Nickname> {
    ".{0,64}".prop_map(|text| Nickname::parse(&text).unwrap())
}

fn change() -> impl Strategy<Value = UserInfoChange> {
    (option::of(nickname()), any::<Option<bool>>(), any::<Option<bool>>())
        .prop_map(|(nickname, is_muted, is_deafened)| UserInfoChange { nickname, is_muted, is_deafened })
}

fn whole_info() -> impl Strategy<Value = UserInfo> {
    (nickname(), any::<[bool; 3]>()).prop_map(|(nickname, [is_muted, is_deafened, is_server_muted])| {
        UserInfo { nickname, is_muted, is_deafened, is_server_muted }
    })
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let secret = || option::of(".{0,50}");
    let join =
        (room(), user(), change(), secret(), secret()).prop_map(|(room, user, info, resume, token)| {
            ClientMessage::Join(Box::new(Join { room, user, info, resume, token }))
        });
    prop_oneof![
        join,
        Just(ClientMessage::Leave),
        "(?s).{0,200}".prop_map(ClientMessage::Offer),
        "(?s).{0,200}".prop_map(ClientMessage::Answer),
        "(?s).{0,200}".prop_map(ClientMessage::Candidate),
        change().prop_map(ClientMessage::UserInfo),
        user().prop_map(ClientMessage::Kick),
        (user(), any::<bool>()).prop_map(|(user, muted)| ClientMessage::Mute { user, muted }),
        Just(ClientMessage::KeepAlive),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let peer = (
        user(),
        (whole_info(), ".{0,20}").prop_map(|(user_info, stream_id)| PeerInfo { user_info, stream_id }),
    );
    let speaker = (user(), 0..128_u8).prop_map(|(user_id, level)| Speaker { user_id, level });
    prop_oneof![
        (vec(peer, 0..4), option::of(".{0,43}".prop_map(ResumeText)))
            .prop_map(|(peers, resume)| joined(peers, resume)),
        (room(), user(), whole_info(), ".{0,20}").prop_map(|(room_id, user_id, user_info, stream_id)| {
            ServerMessage::UserJoined { room_id, user_id, user_info, stream_id }
        }),
        (room(), user()).prop_map(|(room_id, user_id)| ServerMessage::UserLeft {
            room_id,
            user_id,
            reason: LeaveReason::Disconnected
        }),
        (room(), vec(speaker, 0..4))
            .prop_map(|(room_id, speakers)| ServerMessage::ActiveSpeakers { room_id, speakers }),
        btree_map(mid(), option::of(user()), 0..4).prop_map(ServerMessage::Slots),
        (0..CODES.len(), ".{0,50}")
            .prop_map(|(code, message)| ServerMessage::Error { code: CODES[code].0, message }),
    ]
}

proptest! {
    #[test]
    fn client_messages_survive_the_wire(message in client_message()) {
        prop_assert_eq!(ClientMessage::parse(&message.write()), Ok(message));
    }

    #[test]
    fn server_messages_survive_the_wire(message in server_message()) {
        prop_assert_eq!(ServerMessage::parse(&message.write()), Ok(message));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,300}") {
        let _ = ClientMessage::parse(&text);
    }

    #[test]
    fn no_damage_makes_it_panic(
        message in client_message(),
        at in any::<prop::sample::Index>(),
        with in "(?s).{0,4}",
    ) {
        let mut text: Vec<char> = message.write().chars().collect();
        let at = at.index(text.len());
        text.splice(at..=at, with.chars());
        let _ = ClientMessage::parse(&text.into_iter().collect::<String>());
    }
}
