//! Calls over the running server: who hears whom, and in what shape. The same calls with one worker and with
//! two, on one UDP port and on several.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::server::free_udp_ports;
use support::{Client, Glare, Options, Server, assert_clean, assert_silent};

macro_rules! over_all_configurations {
    ($($call:ident,)*) => { $(
        mod $call {
            use super::*;

            #[tokio::test]
            async fn one_worker_any_port() {
                super::$call(&mut Server::spawn(&[("WORKERS", "1")])).await;
            }

            #[tokio::test]
            async fn one_worker_given_port() {
                let port = free_udp_ports(1);
                super::$call(&mut Server::spawn(&[("WORKERS", "1"), ("ICE_UDP_MUX_PORT", &port)])).await;
            }

            #[tokio::test]
            async fn two_workers_one_port() {
                super::$call(&mut Server::spawn(&[("WORKERS", "2")])).await;
            }

            #[tokio::test]
            async fn two_workers_two_ports() {
                let ports = free_udp_ports(2);
                super::$call(&mut Server::spawn(&[("WORKERS", "2"), ("ICE_UDP_MUX_PORT", &ports)])).await;
            }
        }
    )* };
}

over_all_configurations! {
    two_hear_each_other,
    members_come_and_go,
    mute_and_deafen,
    addresses_change,
}

/// Rooms at a time: enough that every worker has one.
const ROOMS: [&str; 3] = ["red", "green", "blue"];

async fn two_hear_each_other(server: &mut Server) {
    let server = &*server;
    let call = |room| async move {
        let ann = Client::join(server, room, "ann", Options::default()).await;
        let ben = Client::join(server, room, "ben", Options { trickle: true, ..Options::default() }).await;
        ann.speak(20);
        ben.speak(30);
        tokio::join!(ann.hears(&ben, 60), ben.hears(&ann, 60));
        assert_clean(&ann, &ben);
        assert_clean(&ben, &ann);
        assert!(
            ann.state().from(ben.id).all(|packet| packet.level == Some(30)),
            "the audio level goes along"
        );
        assert!(ann.state().from(ann.id).next().is_none(), "nobody hears himself");
        (ann, ben)
    };
    let calls = tokio::join!(call(ROOMS[0]), call(ROOMS[1]), call(ROOMS[2]));
    let all = [&calls.0.0, &calls.0.1, &calls.1.0, &calls.1.1, &calls.2.0, &calls.2.1];
    for member in all {
        assert_eq!(member.state().counts.len(), 1, "{} hears into another room", member.user);
    }
}

async fn members_come_and_go(server: &mut Server) {
    let ann = Client::join(server, "hall", "ann", Options::default()).await;
    let ben = Client::join(server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(30);
    tokio::join!(ann.hears(&ben, 10), ben.hears(&ann, 10));

    let cleo = Client::join(server, "hall", "cleo", Options::default()).await;
    cleo.speak(40);
    let joined = cleo.joined().await;
    let mut peers: Vec<_> = joined["peers"].as_array().expect("an array").iter().collect();
    peers.sort_by_key(|peer| peer.as_str());
    assert_eq!(json!(peers), json!(["ann", "ben"]));
    ann.message("user-joined", |data| data["userId"] == "cleo").await;
    tokio::join!(cleo.hears(&ann, 20), cleo.hears(&ben, 20), ann.hears(&cleo, 20), ben.hears(&cleo, 20));

    cleo.leave();
    assert_eq!(cleo.closed().await.0, 1000);
    for stays in [&ann, &ben] {
        let left = stays.message("user-left", |data| data["userId"] == "cleo").await;
        assert_eq!(left["roomId"], "hall");
        assert!(left["reason"].is_string(), "{left}");
    }
    tokio::join!(ann.hears(&ben, 50), ben.hears(&ann, 50));
    for (listener, speaker) in [(&ann, &ben), (&ben, &ann), (&ann, &cleo), (&cleo, &ann), (&cleo, &ben)] {
        assert_clean(listener, speaker);
    }

    // The line that cleo left is there for the next.
    let dora = Client::join(server, "hall", "dora", Options::default()).await;
    dora.speak(50);
    tokio::join!(ann.hears(&dora, 20), ben.hears(&dora, 20), dora.hears(&ann, 20));
    assert_clean(&ann, &dora);
    let lines = ann.state().lines.len();
    assert!(lines <= 3, "m-lines grow past the peak: {lines}");
}

async fn mute_and_deafen(server: &mut Server) {
    let ann = Client::join(server, "hall", "ann", Options::default()).await;
    let ben = Client::join(server, "hall", "ben", Options::default()).await;
    let cleo = Client::join(server, "hall", "cleo", Options::default()).await;
    ann.speak(20);
    cleo.speak(20);
    tokio::join!(ben.hears(&ann, 10), ben.hears(&cleo, 10), ann.hears(&cleo, 10));

    // Ann says that she is muted, and sends all the same.
    let from = ben.mark();
    ann.set_muted(true);
    ben.message_since(from, "user-info", |data| {
        data["userId"] == "ann" && data["userInfo"]["isMuted"] == true
    })
    .await;
    assert_silent(&ben, &ann, &ben, &cleo).await;
    ann.set_muted(false);
    ben.hears(&ann, 10).await;

    let from = ann.mark();
    ben.set_deafened(true);
    ann.message_since(from, "user-info", |data| data["userId"] == "ben").await;
    assert_silent(&ben, &cleo, &ann, &cleo).await;
    assert_silent(&ben, &ann, &cleo, &ann).await;
    ben.set_deafened(false);
    tokio::join!(ben.hears(&ann, 10), ben.hears(&cleo, 10));
}

async fn addresses_change(server: &mut Server) {
    let ann = Client::join(server, "hall", "ann", Options::default()).await;
    let ben = Client::join(server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(30);
    tokio::join!(ann.hears(&ben, 10), ben.hears(&ann, 10));

    let credentials = ann.state().remote.ufrag.clone();
    ann.restart_ice();
    ann.until("an answer", |state| (state.accepted == 2).then_some(())).await;
    assert_ne!(ann.state().remote.ufrag, credentials, "an ICE restart brings new credentials");
    tokio::join!(ann.hears(&ben, 50), ben.hears(&ann, 50));

    let address = ann.state().address;
    ann.rebind();
    ann.until("another port", |state| (state.address != address).then_some(())).await;
    tokio::join!(ann.hears(&ben, 50), ben.hears(&ann, 50));

    ann.move_port();
    ann.until("an answer", |state| (state.accepted == 3).then_some(())).await;
    tokio::join!(ann.hears(&ben, 50), ben.hears(&ann, 50));
    // Keys and indices go on: the same lines, counting as before.
    let ssrc = ben.state().heard[0].ssrc;
    assert!(ben.state().heard.iter().all(|packet| packet.ssrc == ssrc));
}

#[tokio::test]
async fn a_publisher_wraps_its_sequence_numbers() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options { first_seq: 65_500, ..Options::default() }).await;
    let ben = Client::join(&server, "hall", "ben", Options::listener()).await;
    ann.speak(20);
    ben.hears(&ann, 120).await;
    assert_clean(&ben, &ann);
    assert!(ann.state().sent > 100, "it wrapped");
    let state = ben.state();
    assert_eq!(state.from(ann.id).next().map(|packet| packet.seq >> 15), Some(0), "ours start below 2^15");
}

/// RFC 6347 §4.2.4: who finished last must repeat the last flight when the other side repeats its own.
#[tokio::test]
async fn the_last_flight_of_the_handshake_is_lost() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let flights = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&flights);
    // The first of them is lost.
    let incoming = Box::new(move |datagram: &[u8]| {
        !holds_change_cipher_spec(datagram) || counted.fetch_add(1, Ordering::Relaxed) > 0
    });
    let ben = Client::join(&server, "hall", "ben", Options { incoming, ..Options::default() }).await;
    ann.speak(20);
    ben.speak(20);
    tokio::join!(ann.hears(&ben, 20), ben.hears(&ann, 20));
    let flights = flights.load(Ordering::Relaxed);
    assert!(flights > 1, "{flights}: one that was lost, and its like");
}

/// Walks the DTLS records of a datagram (RFC 6347 §4.1).
fn holds_change_cipher_spec(mut datagram: &[u8]) -> bool {
    while let [kind @ 20..=63, rest @ ..] = datagram {
        if *kind == 20 {
            return true;
        }
        let Some(len) = rest.get(10..12) else { return false };
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        datagram = rest.get(12 + len..).unwrap_or_default();
    }
    false
}

/// Our offer and theirs cross; the three ways in which clients deal with it.
async fn offers_cross(glare: Glare) {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options { glare, ..Options::default() }).await;
    ann.speak(20);
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ben.speak(30);
    tokio::join!(ann.hears(&ben, 20), ben.hears(&ann, 20));
    // The offer that collided is not forgotten.
    ann.until("an answer", |state| (state.accepted >= 2).then_some(())).await;
    tokio::join!(ann.hears(&ben, 20), ben.hears(&ann, 20));
    assert_clean(&ann, &ben);
    assert!(ann.state().closed.is_none());
}

#[tokio::test]
async fn offers_cross_and_the_client_answers_every_offer() {
    offers_cross(Glare::Polite).await;
}

#[tokio::test]
async fn offers_cross_and_the_client_ignores_ours() {
    offers_cross(Glare::Stubborn).await;
}

#[tokio::test]
async fn offers_cross_and_the_client_restarts_ice() {
    offers_cross(Glare::RestartsIce).await;
}
