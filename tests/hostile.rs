//! Peers and strangers who do not behave, against the running server while a call goes on: the call must not
//! notice.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use support::stun::{BindingRequest, is_stun, is_success};
use support::{Client, Options, PATIENCE, Server, assert_clean};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// Two members who hear each other.
async fn call(server: &Server) -> (Client, Client) {
    let ann = Client::join(server, "hall", "ann", Options::default()).await;
    let ben = Client::join(server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(20);
    tokio::join!(ann.hears(&ben, 10), ben.hears(&ann, 10));
    (ann, ben)
}

async fn both_still_hear(ann: &Client, ben: &Client) {
    tokio::join!(ann.hears(ben, 50), ben.hears(ann, 50));
    assert_clean(ann, ben);
    assert_clean(ben, ann);
}

fn media(member: &Client) -> SocketAddr {
    member.state().media.expect("it sends media")
}

/// Numbers that are the same at every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Datagrams of every kind, none of them valid.
fn rubbish() -> Vec<Vec<u8>> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut all = vec![vec![0], vec![0x80], vec![0xFF; 1500], vec![0x80; 3000]];
    for first in [0_u8, 1, 3, 4, 15, 16, 20, 22, 23, 63, 64, 79, 127, 128, 144, 191, 192, 255] {
        for len in [1_usize, 4, 11, 12, 13, 19, 20, 28, 100, 172, 1200, 1472] {
            let mut datagram = random.bytes(len);
            datagram[0] = first;
            all.push(datagram);
        }
    }
    // STUN: header only; with a length that lies; with an attribute that runs out of the message; 300 attributes.
    let header = |len: u16| {
        let mut message = vec![0, 1];
        message.extend_from_slice(&len.to_be_bytes());
        message.extend_from_slice(&[0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        message
    };
    all.push(header(0));
    all.push(header(0xFFFC));
    all.push([header(4), vec![0, 6, 0xFF, 0xFF]].concat());
    all.push([header(1200), [0, 6, 0, 0].repeat(300)].concat());
    all.push([header(8), vec![0x80, 0x28, 0, 4, 0, 0, 0, 0]].concat());
    // DTLS in the clear: close_notify, a fatal alert, ChangeCipherSpec, an empty handshake record, a ClientHello that
    // says it is longer than any datagram.
    let record = |kind: u8, body: &[u8]| {
        [&[kind, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, body.len() as u8], body].concat()
    };
    all.push(record(21, &[1, 0]));
    all.push(record(21, &[2, 40]));
    all.push(record(20, &[1]));
    all.push(record(22, &[]));
    all.push(record(22, &[1, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFE, 0xFD]));
    // RTP: extension beyond the packet; 15 CSRCs in 12 bytes; all padding.
    all.push(vec![0x90, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xBE, 0xDE, 0xFF, 0xFF, 0x1F, 1, 2, 3]);
    all.push([vec![0x8F, 111], random.bytes(10)].concat());
    all.push([vec![0xA0, 111], random.bytes(40), vec![0xFF; 30]].concat());
    // RTCP: lengths beyond the datagram; a BYE; a compound of empty reports.
    all.push([vec![0x80, 200, 0xFF, 0xFF], random.bytes(24)].concat());
    all.push([vec![0x81, 203, 0, 1], random.bytes(24)].concat());
    all.push([0x80, 201, 0, 0].repeat(100));
    all
}

#[tokio::test]
async fn rubbish_from_strangers_gets_no_answer() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    for _ in 0..5 {
        for datagram in rubbish() {
            stranger.send_to(&datagram, media(&ann)).await.expect("loopback takes it");
        }
        ben.hears(&ann, 5).await;
    }
    // A real ClientHello's first bytes from a 5-tuple without ICE get nothing, either. The first thing that is answered
    // is a Binding request with a member's credentials.
    let question = ann.state().binding_request(false);
    stranger.send_to(&question, media(&ann)).await.expect("loopback takes it");
    let mut buffer = [0; 2000];
    let answer = tokio::time::timeout(PATIENCE, stranger.recv_from(&mut buffer)).await;
    let (len, from) = answer.expect("an answer in time").expect("no error");
    assert!(is_success(&buffer[..len]), "the stranger was answered: {:02x?}", &buffer[..len]);
    assert_eq!(from, media(&ann));
    assert!(len <= question.len(), "{len} bytes for {}", question.len());
    both_still_hear(&ann, &ben).await;
}

#[tokio::test]
async fn rubbish_from_a_members_own_address_changes_nothing() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    for _ in 0..5 {
        for datagram in rubbish() {
            ann.inject(datagram);
        }
        ben.hears(&ann, 5).await;
    }
    both_still_hear(&ann, &ben).await;
    assert_eq!(ben.state().broken, 0);
}

#[tokio::test]
async fn forged_and_repeated_media_is_not_heard() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    for round in 0_u16..60 {
        let genuine = ann.state().last_rtp.clone();
        assert!(genuine.len() > 12);
        // The same again; another sequence number; another SSRC; a flipped bit; cut short; longer.
        ann.inject(genuine.clone());
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut forged = genuine.clone();
            change(&mut forged);
            forged
        };
        ann.inject(with(&|f| f[2..4].copy_from_slice(&(round * 1000).to_be_bytes())));
        ann.inject(with(&|f| f[8] ^= 0xFF));
        ann.inject(with(&|f| *f.last_mut().expect("not empty") ^= 1));
        ann.inject(with(&|f| f.truncate(13)));
        ann.inject(with(&|f| f.resize(1400, 0)));
        ben.hears(&ann, 1).await;
    }
    both_still_hear(&ann, &ben).await;
    // Workers report once a second.
    server.metric_reaches("gryt_sfu_drops_total", &["\"bad_auth_tag\""], 60.0).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"replayed\""], 1.0).await;
}

/// What an operator finds under `gryt_sfu_drops_total`, one kind at a time.
#[tokio::test]
async fn what_is_repeated_or_forged_is_counted_by_its_kind() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    ann.hush();
    ben.hush();
    let genuine = ann.state().last_rtp.clone();
    for _ in 0..7 {
        ann.inject(genuine.clone());
    }
    for ahead in 1_u16..=6 {
        let mut forged = genuine.clone();
        let sequence = u16::from_be_bytes([genuine[2], genuine[3]]).wrapping_add(1000 + ahead);
        forged[2..4].copy_from_slice(&sequence.to_be_bytes());
        *forged.last_mut().expect("not empty") ^= 1;
        ann.inject(forged);
    }
    let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let (ufrag, ours) = {
        let state = ann.state();
        (state.remote.ufrag.clone(), state.local.ufrag.clone())
    };
    let question = |username: &str, number: u8| {
        let password = "not the password of anybody here";
        BindingRequest { username, password, use_candidate: true, transaction: [number; 12] }.to_bytes()
    };
    for number in 0..5 {
        let question = question(&format!("{ufrag}:{ours}"), number);
        stranger.send_to(&question, media(&ann)).await.expect("loopback takes it");
    }
    for number in 0..4 {
        let question = question("nobody:here", number);
        stranger.send_to(&question, media(&ann)).await.expect("loopback takes it");
    }
    for (reason, count) in
        [("replayed", 7.0), ("bad_auth_tag", 6.0), ("stun_unauthenticated", 5.0), ("stun_unknown_user", 4.0)]
    {
        let label = format!("reason=\"{reason}\"");
        server.metric_reaches("gryt_sfu_drops_total", &[&label], count).await;
        assert_eq!(server.metric("gryt_sfu_drops_total", &[&label]), count, "{reason}");
    }
    assert!(server.metric("gryt_sfu_stun_answered_total", &[]) >= 2.0);
    let (_, metrics) = server.get("/metrics");
    let help =
        metrics.lines().find(|line| line.starts_with("# HELP gryt_sfu_drops_total ")).expect("a help line");
    assert!(help.contains("SRTP replays") && help.contains("bad_auth_tag"), "{help}");
}

/// A member nominates, with credentials that are his, an address that is not: nothing but STUN may go there, and his
/// own media stays where it was.
#[tokio::test]
async fn a_member_cannot_aim_the_room_at_a_victim() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let victim = UdpSocket::bind("127.0.0.9:0").await.expect("all of 127/8 is ours");
    let (mut sent, mut received) = (0, 0);
    let mut buffer = [0; 2000];
    for _ in 0..40 {
        let request = ann.state().binding_request(true);
        sent += request.len();
        victim.send_to(&request, media(&ann)).await.expect("loopback takes it");
        ann.hears(&ben, 2).await;
        while let Ok((len, _)) = victim.try_recv_from(&mut buffer) {
            received += len;
            assert!(is_stun(&buffer[..len]), "media at the victim: {:02x?}", &buffer[..len.min(16)]);
        }
    }
    assert!(received > 0, "the request was a valid one");
    // Our own checks of the pair, at most 7, come on top of the answers.
    assert!(received <= sent + 7 * 150, "{received} bytes at the victim for {sent}");
    both_still_hear(&ann, &ben).await;
}

/// The handshake ends with a peer whose certificate is another than its SDP says.
#[tokio::test]
async fn a_foreign_certificate_gets_no_keys() {
    let server = Server::spawn(&[]);
    let (ann, _ben) = call(&server).await;
    let mallory =
        Client::start(server.http, "hall", "mallory", Options { lies: true, ..Options::default() }).await;
    mallory.joined().await;
    mallory.speak(10);
    mallory.until("ICE", |state| state.ice.filter(|ice| ice.is_connected())).await;
    let dave = Client::join(&server, "hall", "dave", Options::listener()).await;
    dave.hears(&ann, 150).await;
    assert_eq!(dave.state().count(mallory.id), 0);
    assert!(mallory.state().counts.is_empty(), "she hears nobody");
}

async fn start(server: &Server, user: &str) -> Client {
    Client::start(server.http, "hall", user, Options { offers: false, ..Options::default() }).await
}

#[tokio::test]
async fn messages_that_make_no_sense_are_told_apart() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    for nonsense in [
        "",
        "nonsense",
        "[]",
        "null",
        "\"join\"",
        "{}",
        r#"{"event":7,"data":{}}"#,
        r#"{"event":"offer","data":[]}"#,
        r#"{"event":"offer","data":{"type":"offer"}}"#,
        r#"{"event":"user-info","data":{"nickname":7}}"#,
        &format!(r#"{{"event":"user-info","data":{{"nickname":"{}"}}}}"#, "x".repeat(65)),
    ] {
        let client = start(&server, "odd").await;
        client.joined().await;
        client.send_text(nonsense);
        let what = format!("bad-message for {nonsense:?}");
        let error = client.until(&what, |state| state.events("error", 0).next().cloned()).await;
        assert_eq!(error["code"], "bad-message", "{nonsense}");
        assert!(error["message"].as_str().is_some_and(|text| text.len() > 3), "{nonsense}: {error}");
    }
    both_still_hear(&ann, &ben).await;
}

#[tokio::test]
async fn the_first_message_must_be_join() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let mut raw = support::socket::Socket::open(server.http, "/").await.expect("an upgrade");
    raw.send(Message::text(r#"{"event":"user-info","data":{}}"#)).await.expect("open");
    assert_eq!(first_error(&mut raw).await["code"], "not-joined");

    let twice = start(&server, "cleo").await;
    twice.joined().await;
    twice.send("join", &json!({"roomId": "hall", "userId": "cleo"}));
    twice.error("already-joined").await;
    both_still_hear(&ann, &ben).await;
}

async fn first_error(raw: &mut support::socket::Socket) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, raw.next()).await.expect("in time");
        let Message::Text(text) = message.expect("an error before the close") else { continue };
        let mut message: Value = serde_json::from_str(&text).expect("JSON");
        if message["event"] == "error" {
            return message["data"].take();
        }
    }
}

#[tokio::test]
async fn unknown_events_are_ignored() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    ann.send("dance", &json!({"partner": "ben"}));
    ann.send("keep_alive", &json!({}));
    ann.send("answer", &json!({"type": "answer", "sdp": "v=0\r\n"}));
    ann.send(
        "ice-candidate",
        &json!({"candidate": "candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active"}),
    );
    ann.send("ice-candidate", &json!({"candidate": "candidate:1 1 udp 1 5f3a.local 5000 typ host"}));
    ann.send("user-info", &json!({"nickname": "still here"}));
    ben.message("user-info", |data| data["userInfo"]["nickname"] == "still here").await;
    both_still_hear(&ann, &ben).await;
    assert_eq!(ann.state().events("error", 0).count(), 0);
}

#[tokio::test]
async fn bad_offers_are_refused() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let line = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
    let head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    for sdp in [
        String::new(),
        "v=0".into(),
        "\u{1F3A4}".repeat(1000),
        format!("{head}{line}a=rtpmap:111 opus/48000/2\r\n"), // Neither ufrag nor fingerprint.
        format!("{head}{}", line.repeat(2000)),
        format!("{head}{line}{}", "a=ssrc:1 cname:x\r\n".repeat(10_000)),
        format!("{head}m=audio 9 UDP/TLS/RTP/SAVPF 999\r\na=rtpmap:999 opus/48000/2\r\n"),
    ] {
        let client = start(&server, "odd").await;
        client.joined().await;
        client.send("offer", &json!({"type": "offer", "sdp": sdp}));
        client.error("bad-sdp").await;
    }
    both_still_hear(&ann, &ben).await;
}

#[tokio::test]
async fn messages_too_big_end_the_connection() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let big = start(&server, "big").await;
    big.joined().await;
    big.send("user-info", &json!({"nickname": "x".repeat(17 * 1024)}));
    assert_eq!(big.closed().await.0, 1009);
    let bigger = start(&server, "bigger").await;
    bigger.joined().await;
    bigger.send("offer", &json!({"type": "offer", "sdp": "x".repeat(300 * 1024)}));
    assert_eq!(bigger.closed().await.0, 1009);
    both_still_hear(&ann, &ben).await;
}

#[tokio::test]
async fn a_flood_of_messages_is_stopped() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let flood = start(&server, "flood").await;
    flood.joined().await;
    let started = Instant::now();
    for i in 0..5000 {
        flood.send("user-info", &json!({"nickname": format!("name {i}")}));
    }
    assert_eq!(flood.closed().await.0, 1008);
    both_still_hear(&ann, &ben).await;
    // 100 at once and 20 a second are let through, which the room's other members bear.
    let admitted = 100 + 20 * (started.elapsed().as_secs() as usize + 1);
    let told = ann.state().events("user-info", 0).count();
    assert!(told <= admitted, "the room was told {told} times");
    assert_eq!(ann.state().closed, None);
}

#[tokio::test]
async fn half_joined_members_are_cleared_away() {
    let server = Server::spawn(&[("RESUME_WINDOW", "1s")]);
    let (ann, ben) = call(&server).await;
    for i in 0..20 {
        let name = format!("half {i}");
        let half = Client::start(server.http, "hall", &name, Options::default()).await;
        half.joined().await; // And gone, between the offer and ICE.
        drop(half);
        ann.message("user-left", |data| data["userId"] == name.as_str()).await;
    }
    both_still_hear(&ann, &ben).await;
}

#[tokio::test]
async fn a_publisher_who_floods_costs_only_himself() {
    let server = Server::spawn(&[]);
    let (ann, ben) = call(&server).await;
    let flood = Client::join(&server, "hall", "flood", Options::default()).await;
    flood.speak_every(20, Duration::from_micros(500)); // 2000 packets a second
    both_still_hear(&ann, &ben).await;
    flood.until("a second of flood", |state| (state.sent > 2000).then_some(())).await;
    let (heard, sent) = (ben.state().count(flood.id), flood.state().sent);
    assert!(heard < u64::from(sent) * 3 / 4, "{heard} of {sent} went through");
}

/// The listener hears these two, and none of the others.
async fn hears_two_alone(listener: &Client, loudest: [&Client; 2], others: &[&Client]) {
    let counts = || -> Vec<u64> { others.iter().map(|other| listener.state().count(other.id)).collect() };
    // A slot that has to change hands has done so by then.
    tokio::join!(listener.hears(loudest[0], 50), listener.hears(loudest[1], 50));
    let before = counts();
    tokio::join!(listener.hears(loudest[0], 50), listener.hears(loudest[1], 50));
    assert_eq!(counts(), before, "{} hears somebody else", listener.user);
}

/// As who shouts does: the level is everybody's own word.
#[tokio::test]
async fn who_lies_about_loudness_takes_one_slot_and_leaves_the_others_to_the_loudest() {
    let server = Server::spawn(&[("AUDIO_SLOTS", "2")]);
    let (ann, ben) = call(&server).await;
    ann.speak(10);
    let cleo = Client::join(&server, "hall", "cleo", Options::default()).await;
    cleo.speak(40);
    let liar = Client::join(&server, "hall", "liar", Options::default()).await;
    liar.speak(0);
    ann.hears(&liar, 50).await;
    let listener = Client::join(&server, "hall", "listener", Options::listener()).await;
    hears_two_alone(&listener, [&liar, &ann], &[&ben, &cleo]).await;
    hears_two_alone(&cleo, [&liar, &ann], &[&ben]).await;
    // On stage they hear each other beside him, and have done so all the while.
    both_still_hear(&ann, &ben).await;
}

/// Nothing tells a lie from a shout: what is left is a moderator.
#[tokio::test]
async fn as_many_liars_about_loudness_as_slots_are_all_that_is_heard_until_one_is_muted() {
    let server = Server::spawn(&[("AUDIO_SLOTS", "2")]);
    let (ann, ben) = call(&server).await;
    ann.speak(10);
    let liars = [
        Client::join(&server, "hall", "liar", Options::default()).await,
        Client::join(&server, "hall", "another", Options::default()).await,
    ];
    for liar in &liars {
        liar.speak(0);
    }
    let listener = Client::join(&server, "hall", "listener", Options::listener()).await;
    hears_two_alone(&listener, [&liars[0], &liars[1]], &[&ann, &ben]).await;
    hears_two_alone(&ben, [&liars[0], &liars[1]], &[&ann]).await;
    liars[1].set_muted(true); // As a moderator could.
    hears_two_alone(&listener, [&liars[0], &ann], &[&ben, &liars[1]]).await;
    hears_two_alone(&ben, [&liars[0], &ann], &[&liars[1]]).await;
    ann.hears(&ben, 50).await;
}
