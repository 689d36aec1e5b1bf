//! Crowds that come and go: what they leave behind, and how the house closes on them.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use str0m::media::{Direction, MediaKind};
use str0m::{Candidate, Rtc};
use support::socket::Socket;
use support::stun::BindingRequest;
use support::{Client, Options, Server, now};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// Everything that a member is counted by while it is there.
const GAUGES: [&str; 8] = [
    "gryt_sfu_rooms_active",
    "gryt_sfu_peers_active",
    "gryt_sfu_dtls_handshakes_active",
    "gryt_sfu_websocket_connections_active",
    "gryt_sfu_transports_active",
    "gryt_sfu_worker_rooms_active",
    "gryt_sfu_tracks_active",
    "gryt_sfu_slots_active",
];

/// Peers that are there at a time. Even, for they come in pairs.
const WAVE_SIZE: usize = 500;

/// Joins on the way at a time: as many as the clients' own time-outs bear on a slow machine.
const JOINS_AT_ONCE: usize = 16;

/// That many members, two a room, all connected.
async fn crowd(server: &Server, wave: usize, count: usize) -> Vec<Client> {
    let turns = Arc::new(Semaphore::new(JOINS_AT_ONCE));
    let mut joining = JoinSet::new();
    for at in 0..count {
        let (turns, http) = (Arc::clone(&turns), server.http);
        joining.spawn(async move {
            let _turn = turns.acquire_owned().await.expect("never closed");
            let (room, user) = (format!("room {wave}.{}", at / 2), format!("user {wave}.{at}"));
            let client = Client::start(http, &room, &user, Options::default()).await;
            client.until("a connection", |state| state.connected.then_some(())).await;
            client
        });
    }
    joining.join_all().await
}

/// Memory that has come to rest: the same to a percent in three looks, half a second apart.
async fn resting_kib(server: &Server) -> u64 {
    let mut looks = vec![server.resident_kib()];
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await; // Nobody tells when it changes.
        looks.push(server.resident_kib());
        if let [.., a, b, c] = looks[..]
            && a.max(b).max(c) - a.min(b).min(c) <= c / 100
        {
            break;
        }
    }
    looks[looks.len() - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waves_of_peers_leave_nothing_behind_and_cost_little_while_they_stay() {
    let server = Server::spawn(&[("MAX_CONNECTIONS", "1000")]);
    // What is made once for everybody is not any peer's.
    let first = crowd(&server, 0, 10).await;
    first.iter().for_each(Client::leave);
    server.metrics_fall_to(&GAUGES, 0.0, Duration::from_secs(30)).await;
    drop(first);
    let before = resting_kib(&server).await;
    let mut after = vec![];
    for wave in 1..=3 {
        let members = crowd(&server, wave, WAVE_SIZE).await;
        server.metric_reaches("gryt_sfu_slots_active", &[], WAVE_SIZE as f64).await;
        let full = resting_kib(&server).await;
        let each = full.saturating_sub(before) / WAVE_SIZE as u64;
        println!("wave {wave}: {full} KiB with {WAVE_SIZE} peers, {each} KiB each");
        assert!(
            each <= 32,
            "{each} KiB for each of {WAVE_SIZE} peers: {before} KiB before, {full} KiB with them"
        );
        members.iter().for_each(Client::leave);
        server.metrics_fall_to(&GAUGES, 0.0, Duration::from_secs(30)).await;
        drop(members);
        after.push(resting_kib(&server).await);
        println!("wave {wave}: {} KiB after it ({before} before the first)", after[wave - 1]);
    }
    assert!(after[2] <= after[0] + after[0] / 10, "KiB after each wave: {after:?}");
}

/// An offer of a client that will never be heard of again.
fn offer() -> String {
    let mut rtc = Rtc::builder().clear_codecs().enable_opus(true, false).build(now());
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    rtc.add_local_candidate(Candidate::host(nowhere, "udp").expect("a host address"));
    let mut api = rtc.sdp_api();
    api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
    let (offer, _) = api.apply().expect("something to offer");
    offer.to_sdp_string()
}

/// Joins and offers, and has its answer.
async fn half_join(server: &Server, user: &str) -> Socket {
    let mut socket = Socket::open(server.http, "/").await.expect("an upgrade");
    let join = json!({"event": "join", "data": {"roomId": "hall", "userId": user}});
    socket.send(Message::text(join.to_string())).await.expect("open");
    let offer = json!({"event": "offer", "data": {"type": "offer", "sdp": offer()}});
    socket.send(Message::text(offer.to_string())).await.expect("open");
    loop {
        let message = socket.next().await.expect("an answer before the end");
        if message.to_text().is_ok_and(|text| text.contains("\"answer\"")) {
            return socket;
        }
    }
}

/// A client that sees no DTLS of the server's.
fn deaf_to_dtls() -> Options {
    // One that lies does not mind what becomes of its handshake.
    let incoming = Box::new(|bytes: &[u8]| !matches!(bytes.first(), Some(20..=63)));
    Options { incoming, lies: true, ..Options::default() }
}

#[tokio::test]
async fn half_joins_are_freed_to_the_last() {
    let server = Server::spawn(&[("RESUME_WINDOW", "1s")]);
    // The WebSocket is lost between offer and ICE.
    for at in 0..30 {
        drop(half_join(&server, &format!("lost {at}")).await);
    }
    // ICE never comes, and whoever it is waits.
    let mut waiting = vec![];
    for at in 0..30 {
        waiting.push(half_join(&server, &format!("waiting {at}")).await);
    }
    // DTLS never ends: some stay, some go.
    let mut deaf = vec![];
    for at in 0..10 {
        let (room, user) = (format!("cellar {at}"), format!("deaf {at}"));
        let client = Client::start(server.http, &room, &user, deaf_to_dtls()).await;
        client.until("an answer", |state| (state.accepted > 0).then_some(())).await;
        deaf.push(client);
    }
    server.metric_reaches("gryt_sfu_dtls_handshakes_active", &[], 40.0).await;
    deaf.truncate(5);
    // A whole member, in whose name strangers send checks with and without the right password.
    let whole = Client::join(&server, "parlour", "whole", Options::default()).await;
    whole.speak(20);
    whole.until("media on its way", |state| state.media).await;
    let (ufrags, media) = {
        let state = whole.state();
        (format!("{}:{}", state.remote.ufrag, state.local.ufrag), state.media.expect("just seen"))
    };
    for at in 0..200_u32 {
        let stranger = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let transaction = [&at.to_be_bytes()[..], &[7; 8]].concat().try_into().expect("12 bytes");
        let forged =
            BindingRequest { username: &ufrags, password: "wrong", use_candidate: true, transaction };
        let genuine = whole.state().binding_request(true);
        for datagram in [forged.to_bytes(), genuine] {
            stranger.send_to(&datagram, media).await.expect("loopback takes it");
        }
    }
    server.metric_reaches("gryt_sfu_transports_active", &[], 36.0).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"stun_unauthenticated\""], 200.0).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"stun_limit\""], 100.0).await;
    // Who has not connected after 30 s is sent away; nobody comes back within its second.
    server.metrics_fall_to(&["gryt_sfu_transports_active"], 1.0, Duration::from_secs(45)).await;
    // Of the five who stayed, one or more each: after ten seconds a handshake has failed, and another may begin.
    let failed = server.metric("gryt_sfu_dtls_handshakes_failed_total", &[]);
    assert!((5.0..=15.0).contains(&failed), "{failed}");
    whole.leave();
    whole.closed().await;
    for socket in &mut waiting {
        let gone = async { while !matches!(socket.next().await, Ok(Message::Close(_)) | Err(_)) {} };
        tokio::time::timeout(Duration::from_secs(5), gone).await.expect("it was told to go");
    }
    drop((waiting, deaf));
    server.metrics_fall_to(&GAUGES, 0.0, Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_closes_a_full_house_in_time() {
    let mut server = Server::spawn(&[]);
    let members = crowd(&server, 1, 100).await;
    // Some who never read, and so never answer a Close frame.
    let mut deaf = vec![];
    for at in 0..10 {
        let mut socket = Socket::open(server.http, "/").await.expect("an upgrade");
        let join = json!({"event": "join", "data": {"roomId": "deaf", "userId": format!("deaf {at}")}});
        socket.send(Message::text(join.to_string())).await.expect("open");
        deaf.push(socket);
    }
    server.metric_reaches("gryt_sfu_peers_active", &[], 110.0).await;
    server.terminate();
    let ended = tokio::task::spawn_blocking(move || (server.wait(Duration::from_secs(5)), server));
    for member in &members {
        assert_eq!(member.closed().await.0, 1001, "{}", member.user);
    }
    let (status, _server) = ended.await.expect("no panic");
    assert!(status.expect("it ends within 5 s").success());
}
