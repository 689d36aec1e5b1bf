//! Rooms over the running server: how they fill, empty and overflow, and who is who in them.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use support::silence::play_silence;
use support::{Client, Options, Server, assert_clean, assert_lines_count_on, assert_silent};

/// Members `m0`, `m1`, … of a room, each in the call before the next comes.
async fn members(server: &Server, room: &str, count: usize, options: impl Fn() -> Options) -> Vec<Client> {
    let mut all = Vec::new();
    for i in 0..count {
        all.push(Client::join(server, room, &format!("m{i}"), options()).await);
    }
    all
}

/// Everybody speaks, and hears everybody else.
async fn everybody_hears_everybody(server: &Server, count: usize) {
    let all = members(server, &format!("room of {count}"), count, Options::default).await;
    for (i, member) in all.iter().enumerate() {
        member.speak(20 + i as u8);
    }
    Client::all_hear(&all, &all, 30).await;
    for listener in &all {
        assert_lines_count_on(&listener.state());
        assert_eq!(listener.state().counts.len(), count - 1);
        for speaker in all.iter().filter(|speaker| speaker.id != listener.id) {
            assert_clean(listener, speaker);
        }
    }
}

#[tokio::test]
async fn rooms_of_one_two_five_and_ten() {
    let server = Server::spawn(&[]);
    for count in [1, 2, 5, 10] {
        everybody_hears_everybody(&server, count).await;
    }
}

#[tokio::test]
async fn a_room_of_one_hears_nothing() {
    let server = Server::spawn(&[]);
    let alone = Client::join(&server, "cell", "ann", Options::default()).await;
    assert_eq!(alone.joined().await["peers"], json!([]));
    alone.speak(20);
    let (ben, cleo) = (
        Client::join(&server, "hall", "ben", Options::default()).await,
        Client::join(&server, "hall", "cleo", Options::default()).await,
    );
    ben.speak(20);
    cleo.hears(&ben, 50).await;
    assert!(alone.state().counts.is_empty() && cleo.state().count(alone.id) == 0);
}

#[tokio::test]
async fn what_a_member_does_not_say_has_a_default() {
    let server = Server::spawn(&[]);
    let user_info = json!({"nickname": "Ann of Hall", "isMuted": false});
    let ann = Client::join(&server, "hall", "ann", Options { user_info, ..Options::default() }).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    let joined = ben.joined().await;
    assert_eq!(joined["roomId"], "hall");
    assert_eq!(joined["userId"], "ben");
    assert_eq!(joined["peerInfo"]["ann"]["nickname"], "Ann of Hall");
    assert_eq!(joined["peerInfo"]["ann"]["isMuted"], false);
    assert!(joined["resume"].as_str().is_some_and(|token| token.len() >= 40), "{joined}");
    let came = ann.message("user-joined", |data| data["userId"] == "ben").await;
    assert_eq!(came["userInfo"]["nickname"], "ben");
    ben.send("user-info", &json!({"nickname": "Benedict"}));
    ann.message("user-info", |data| data["userInfo"]["nickname"] == "Benedict").await;
}

#[tokio::test]
async fn a_member_who_comes_muted_is_not_heard() {
    let server = Server::spawn(&[]);
    let user_info = json!({"isMuted": true});
    let ann = Client::join(&server, "hall", "ann", Options { user_info, ..Options::default() }).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    let cleo = Client::join(&server, "hall", "cleo", Options::default()).await;
    assert_eq!(cleo.joined().await["peerInfo"]["ann"]["isMuted"], true);
    ann.speak(10);
    ben.speak(20);
    cleo.hears(&ben, 10).await;
    assert_silent(&cleo, &ann, &cleo, &ben).await;
    ann.set_muted(false);
    cleo.hears(&ann, 10).await;
}

#[tokio::test]
async fn a_listener_without_a_microphone_hears() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    ann.speak(20);
    let before = Client::join(&server, "hall", "ben", Options::listener()).await;
    // One who never offers gets an offer from the server.
    let silent = Client::join(&server, "hall", "cleo", Options { offers: false, ..Options::default() }).await;
    tokio::join!(before.hears(&ann, 20), silent.hears(&ann, 20));
    assert_clean(&before, &ann);
    assert_clean(&silent, &ann);
}

#[tokio::test]
async fn names_are_as_people_write_them() {
    let server = Server::spawn(&[]);
    let names = ["Zoë \"the <b>\" O'Neil", "two words", "u-claims-a-digest", "a\\b", "🎤"];
    let mut all = Vec::new();
    for name in names {
        all.push(Client::join(&server, "a room; with \"quotes\"", name, Options::default()).await);
    }
    for member in &all {
        member.speak(20);
    }
    Client::all_hear(&all, &all, 20).await;
    for listener in &all {
        for speaker in all.iter().filter(|speaker| speaker.id != listener.id) {
            assert_clean(listener, speaker);
        }
    }
    for line in all[0].state().lines.values().filter_map(|line| line.stream_id.as_ref()) {
        assert!(line.len() <= 64 && line.bytes().all(|b| b.is_ascii_graphic()), "{line}");
    }
    let of = |name: &str| all[0].state().stream_of(name).expect("told");
    for odd in &names[1..] {
        assert!(of(odd).starts_with("u-") && of(odd).len() == 24, "{} for {odd}", of(odd));
    }
}

#[tokio::test]
async fn names_that_break_lines_are_refused() {
    let server = Server::spawn(&[]);
    let long = "x".repeat(129);
    for bad in ["", "a\nb", "a\r\na=candidate:1", "a\u{0}", &long] {
        let start = |room, user| Client::start(server.http, room, user, Options::default());
        for client in [start("hall", bad).await, start(bad, "ann").await] {
            client.error("bad-message").await;
            assert!(!client.state().events("joined", 0).any(|data| data["success"] == true));
        }
    }
}

#[tokio::test]
async fn the_same_name_again_takes_the_place() {
    let server = Server::spawn(&[]);
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    let first = Client::join(&server, "hall", "ann", Options::default()).await;
    first.speak(20);
    ben.speak(20);
    tokio::join!(ben.hears(&first, 20), first.hears(&ben, 20));
    let (mark, answered) = (ben.mark(), ben.state().answered);

    let second = Client::join(&server, "hall", "ann", Options::default()).await;
    first.error("already-joined").await;
    first.closed().await;
    second.speak(20);
    tokio::join!(ben.hears(&second, 30), second.hears(&ben, 30));

    let state = ben.state();
    assert_eq!(state.events("user-left", mark).count(), 0, "nobody left");
    assert_eq!(state.answered, answered, "the slot that carried her carries her again, without an offer");
    assert_eq!(state.heard.iter().map(|packet| packet.ssrc).collect::<HashSet<_>>().len(), 1);
    assert_lines_count_on(&state);
    drop(state);
    assert_clean(&ben, &second);
}

#[tokio::test]
async fn a_lost_websocket_is_resumed() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(20);
    tokio::join!(ben.hears(&ann, 10), ann.hears(&ben, 10));
    let first = ann.joined().await;
    assert_eq!(first["resumed"], false);

    ann.lose_socket();
    // Media does not notice.
    tokio::join!(ben.hears(&ann, 50), ann.hears(&ben, 50));
    let (mark, accepted) = (ann.mark(), ann.state().accepted);
    ann.resume();
    let again = ann.message_since(mark, "joined", |data| data["success"] == true).await;
    assert_eq!(again["resumed"], true, "{again}");
    assert_ne!(again["resume"], first["resume"], "a token serves once");
    tokio::join!(ben.hears(&ann, 50), ann.hears(&ben, 50));
    assert_clean(&ben, &ann);
    assert_clean(&ann, &ben);
    assert_eq!(ben.state().events("user-left", 0).count(), 0);
    assert_eq!(ann.state().accepted, accepted, "transport and keys go on");
    // The new socket is the member's voice in every sense.
    ann.set_muted(true);
    ben.message("user-info", |data| data["userInfo"]["isMuted"] == true).await;
}

#[tokio::test]
async fn a_lost_websocket_that_is_not_resumed_ends_the_membership() {
    let server = Server::spawn(&[("RESUME_WINDOW", "1s")]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    ann.lose_socket();
    ben.message("user-left", |data| data["userId"] == "ann").await;
}

#[tokio::test]
async fn active_speakers_are_told_loudest_first() {
    let server = Server::spawn(&[]);
    let all = members(&server, "hall", 3, Options::default).await;
    all[0].speak(40);
    all[1].speak(10);
    let is_it = |data: &Value| {
        let who = |i: usize| data["speakers"][i]["userId"].as_str();
        who(0) == Some("m1") && who(1) == Some("m0") && who(2).is_none()
    };
    let told = all[2].message("active-speakers", is_it).await;
    assert_eq!(told["roomId"], "hall");
    assert!(told["speakers"][0]["level"].as_u64() <= told["speakers"][1]["level"].as_u64());
    all[1].hush();
    all[2].message("active-speakers", |data| data["speakers"].as_array().is_some_and(|s| s.len() == 1)).await;
}

/// Senders whose frames came since `before`.
fn fresh(listener: &Client, speakers: &[Client], before: &[u64]) -> HashSet<usize> {
    let state = listener.state();
    (0..speakers.len()).filter(|&i| state.count(speakers[i].id) > before[i]).collect()
}

#[tokio::test]
async fn with_two_slots_the_loudest_are_heard() {
    let server = Server::spawn(&[("AUDIO_SLOTS", "2")]);
    let speakers = members(&server, "hall", 5, Options::default).await;
    let listener = Client::join(&server, "hall", "listener", Options::listener()).await;
    for (speaker, level) in speakers.iter().zip([50, 40, 30, 20, 10]) {
        speaker.speak(level);
    }
    tokio::join!(listener.hears(&speakers[3], 50), listener.hears(&speakers[4], 50));
    let counts = || -> Vec<u64> { speakers.iter().map(|s| listener.state().count(s.id)).collect() };
    let before = counts();
    tokio::join!(listener.hears(&speakers[3], 50), listener.hears(&speakers[4], 50));
    assert_eq!(fresh(&listener, &speakers, &before), HashSet::from([3, 4]));

    // The quietest raises her voice.
    speakers[0].speak(5);
    listener.hears(&speakers[0], 50).await;
    let before = counts();
    tokio::join!(listener.hears(&speakers[0], 50), listener.hears(&speakers[4], 50));
    assert_eq!(fresh(&listener, &speakers, &before), HashSet::from([0, 4]));

    {
        let state = listener.state();
        assert_lines_count_on(&state);
        let lines: HashSet<&str> = state.heard.iter().map(|packet| packet.mid.as_str()).collect();
        assert_eq!(lines.len(), 2, "two slots, two lines");
        // A slot that changes hands is told beside the media: a packet may overtake the message, not for long.
        let last = state.from(speakers[0].id).last().expect("heard");
        assert_eq!(last.carries.as_deref(), Some("m0"));
    }
    // Whoever holds one of the two hears the other and the next.
    speakers[4].hears(&speakers[3], 10).await;
}

#[tokio::test]
async fn a_loud_voice_is_not_cut_by_a_short_noise() {
    let server = Server::spawn(&[("AUDIO_SLOTS", "1")]);
    let all = members(&server, "hall", 2, Options::default).await;
    let listener = Client::join(&server, "hall", "listener", Options::listener()).await;
    all[0].speak(30);
    listener.hears(&all[0], 50).await;
    // Two frames: far less than the hysteresis of 500 ms.
    all[1].speak(5);
    all[1].until("two frames", |state| (state.sent >= 2).then_some(())).await;
    all[1].hush();
    listener.hears(&all[0], 50).await;
    assert_clean(&listener, &all[0]);
}

/// Members who all come at once.
async fn crowd(server: &Server, prefix: &str, count: usize, publish: bool) -> Vec<Client> {
    let mut all = Vec::new();
    for i in 0..count {
        let options = Options { publish, keeps: false, ..Options::default() };
        all.push(Client::start(server.http, "hall", &format!("{prefix}{i}"), options).await);
    }
    for member in &all {
        member.until("a connection", |state| state.connected.then_some(())).await;
    }
    all
}

#[tokio::test]
async fn fifty_open_microphones() {
    let server = Server::spawn(&[]);
    let all = crowd(&server, "m", 50, true).await;
    for (i, member) in all.iter().enumerate() {
        // Five frames a second each: 8000 packets a second in all, for everything here shares two cores.
        member.speak_every(if i < 32 { 30 } else { 60 }, Duration::from_millis(200));
    }
    // The first 32 are louder: everybody hears them but himself.
    Client::all_hear(&all, &all[..32], 5).await;
    // Somebody from the quiet end becomes the loudest.
    all[49].speak_every(5, Duration::from_millis(20));
    Client::all_hear(&all[..49], &all[49..], 20).await;
    for listener in &all {
        assert!(listener.state().lines.len() <= 33, "{} lines", listener.state().lines.len());
    }
}

#[tokio::test]
async fn a_hundred_and_fifty_members() {
    let server = Server::spawn(&[]);
    let speakers = crowd(&server, "s", 36, true).await;
    let listeners = crowd(&server, "l", 114, false).await;
    for speaker in &speakers[..4] {
        speaker.speak_every(20, Duration::from_millis(100));
    }
    Client::all_hear(&speakers, &speakers[..4], 10).await;
    Client::all_hear(&listeners, &speakers[..4], 10).await;
    // Those beyond the first 32 are heard when they speak.
    for speaker in &speakers[32..] {
        speaker.speak_every(5, Duration::from_millis(100));
    }
    Client::all_hear(&speakers[..32], &speakers[32..], 10).await;
    Client::all_hear(&listeners, &speakers[32..], 10).await;
}

/// Frames of 120 bytes beside longer ones, all of a tick in one send, on a stack that is not ours.
#[tokio::test]
async fn padding_is_taken_off_again() {
    let server = Server::spawn(&[("EGRESS_TICK_MS", "20"), ("GSO_PAD_MAX", "255")]);
    let all = members(&server, "padded", 4, Options::default).await;
    let [long, voices @ .., _listener] = &all[..] else { unreachable!() };
    for (i, voice) in voices.iter().enumerate() {
        voice.speak(20 + i as u8);
    }
    let heard = async {
        Client::all_hear(&all, voices, 100).await;
        // In each tick at least one of the two is not the last, and 80 bytes shorter than the longest.
        server.metric_reaches("gryt_sfu_padding_out_bytes_total", &[], 80.0 * 100.0).await;
    };
    tokio::select! {
        () = play_silence(long, 200) => unreachable!(),
        () = heard => {}
    }
    for listener in &all {
        assert_lines_count_on(&listener.state());
        for speaker in voices.iter().filter(|speaker| speaker.id != listener.id) {
            let state = listener.state();
            let frames: Vec<u32> = state.from(speaker.id).map(|heard| heard.frame.counter).collect();
            let span = (frames[frames.len() - 1] - frames[0] + 1) as usize;
            assert!(frames.len() * 100 >= span * 95, "{} of {span} frames are intact", frames.len());
        }
    }
}

/// What comes while a packet waits for its tick wakes nobody, and the worker is not late by that.
#[tokio::test]
async fn a_worker_sleeps_through_its_tick() {
    let server = Server::spawn(&[("EGRESS_TICK_MS", "20"), ("WORKERS", "1")]);
    let mut all = Vec::new();
    for i in 0..8 {
        let member = Client::join(&server, "asleep", &format!("m{i}"), Options::default()).await;
        member.speak(20 + i); // Each when it has come: the voices are spread over their packets' time.
        all.push(member);
    }
    Client::all_hear(&all, &all, 30).await;
    const METRICS: [&str; 4] = [
        "gryt_sfu_rtp_in_total",
        "gryt_sfu_wakeups_total",
        "gryt_sfu_receive_queue_seconds_sum",
        "gryt_sfu_forwarding_latency_seconds_sum",
    ];
    let counted = || server.metrics(METRICS);
    let before = counted();
    let rtp_before = before[0];
    server.metric_reaches("gryt_sfu_rtp_in_total", &[], rtp_before + 1_000.0).await;
    let after = counted();
    let [rtp, wakeups, queue, latency] = std::array::from_fn(|i| after[i] - before[i]);
    assert!(wakeups < rtp / 2.0, "{wakeups} wake-ups for {rtp} packets");
    assert!(queue < latency / 3.0, "{queue} s of {latency} s for {rtp} packets");
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = Server::spawn(&[("MAX_CONNECTIONS", "2")]);
    let _all = members(&server, "hall", 2, Options::default).await;
    let third = Client::start(server.http, "hall", "cleo", Options::default()).await;
    let refused = third.message("joined", |data| data["success"] == false).await;
    assert!(refused["message"].as_str().is_some_and(|message| !message.is_empty()), "{refused}");
    assert_eq!(third.closed().await.0, 1013);
}
