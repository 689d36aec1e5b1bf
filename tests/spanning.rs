//! Rooms over several workers, with the running server: everybody hears everybody, wherever control has put them.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use support::server::free_udp_ports;
use support::{Client, Options, PATIENCE, Server, assert_clean, assert_lines_count_on, now};

const MEMBERS: usize = 4;

/// A server with two workers whose rooms span them from the second member on.
fn server(ports: &str) -> Server {
    Server::spawn(&[("WORKERS", "2"), ("ROOM_SPAN_AT", "1"), ("ICE_UDP_MUX_PORT", ports)])
}

/// They speak when all are there: a worker that has voices to seal already would be busier than the other.
async fn members(server: &Server) -> Vec<Client> {
    let mut all = Vec::new();
    for i in 0..MEMBERS {
        all.push(Client::join(server, "hall", &format!("m{i}"), Options::default()).await);
    }
    for (member, level) in all.iter().zip(20..) {
        member.speak(level);
    }
    all
}

fn debug(server: &Server, path: &str) -> Value {
    let (status, body) = server.get(path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Asks until the room is on these workers, and this one is home. An answer may be half a second old.
async fn room_is_on(server: &Server, home: u64, workers: &[u64]) {
    let deadline = now() + PATIENCE;
    loop {
        let room = &debug(server, "/debug/rooms")["rooms"][0];
        if (&room["worker"], &room["workers"]) == (&json!(home), &json!(workers)) {
            return;
        }
        assert!(now() < deadline, "{room}");
        tokio::time::sleep(Duration::from_millis(100)).await; // Nobody tells when it changes.
    }
}

/// On which worker each member is, in the order of joining.
fn workers_of(server: &Server) -> Vec<u64> {
    let peers = debug(server, "/debug/peers");
    peers["peers"].as_array().expect("peers").iter().map(|peer| peer["worker"].as_u64().unwrap()).collect()
}

async fn everybody_hears_everybody(ports: &str) {
    let server = server(ports);
    let all = members(&server).await;
    Client::all_hear(&all, &all, 50).await;
    for listener in &all {
        assert_lines_count_on(&listener.state());
        for speaker in all.iter().filter(|speaker| speaker.id != listener.id) {
            assert_clean(listener, speaker);
        }
    }
    assert_eq!(workers_of(&server), [0, 1, 0, 1]);
    room_is_on(&server, 0, &[0, 1]).await;
    let media: BTreeSet<u16> = all.iter().filter_map(|member| Some(member.state().media?.port())).collect();
    assert_eq!(media.len(), if ports.contains('-') { 2 } else { 1 }, "{media:?}");
    for worker in ["worker=\"0\"", "worker=\"1\""] {
        server.metric_reaches("gryt_sfu_voices_relayed_out_total", &[worker], 100.0).await;
        server.metric_reaches("gryt_sfu_voices_relayed_in_total", &[worker], 100.0).await;
        server.metric_reaches("gryt_sfu_worker_cpu_seconds_total", &[worker], 0.001).await;
    }
    assert_eq!(server.metric("gryt_sfu_drops_total", &["reason=\"relay_full\""]), 0.0);
    // Each voice is sealed for three, relayed for two of them at once.
    let relayed = server.metric("gryt_sfu_voices_relayed_out_total", &[]);
    let (rtp_in, rtp_out) =
        (server.metric("gryt_sfu_rtp_in_total", &[]), server.metric("gryt_sfu_rtp_out_total", &[]));
    assert!(relayed <= rtp_in && rtp_out > 2.0 * relayed, "{relayed} relayed of {rtp_in}, {rtp_out} sealed");
}

#[tokio::test]
async fn everybody_hears_everybody_over_one_port() {
    everybody_hears_everybody(&free_udp_ports(1)).await;
}

#[tokio::test]
async fn everybody_hears_everybody_over_a_port_each() {
    everybody_hears_everybody(&free_udp_ports(2)).await;
}

#[tokio::test]
async fn a_mute_a_leave_and_a_return_are_heard_of_everywhere() {
    let server = server("0");
    let mut all = members(&server).await;
    Client::all_hear(&all, &all, 20).await;
    // By the others' metrics of the same packets: what is muted is dropped where it comes in.
    let muted = server.metric("gryt_sfu_drops_total", &["reason=\"muted\""]);
    all[0].set_muted(true);
    for other in &all[1..] {
        other.message("user-info", |data| data["userInfo"]["isMuted"] == true).await;
    }
    server.metric_reaches("gryt_sfu_drops_total", &["reason=\"muted\""], muted + 50.0).await;
    let before: Vec<u64> = all[1..].iter().map(|other| other.state().count(all[0].id)).collect();
    server.metric_reaches("gryt_sfu_drops_total", &["reason=\"muted\""], muted + 150.0).await;
    let after: Vec<u64> = all[1..].iter().map(|other| other.state().count(all[0].id)).collect();
    assert_eq!(before, after);
    all[0].set_muted(false);
    Client::all_hear(&all[1..], &all[..1], 20).await;
    // The second worker's members leave: the room is whole on the first.
    for at in [3, 1] {
        let gone = all.remove(at);
        gone.leave();
        gone.closed().await;
    }
    Client::all_hear(&all, &all, 20).await;
    room_is_on(&server, 0, &[0]).await;
    let again = Client::join(&server, "hall", "m1", Options::default()).await;
    again.speak(25);
    all.push(again);
    Client::all_hear(&all, &all, 20).await;
    room_is_on(&server, 0, &[0, 1]).await;
    // The first worker's leave, and with them home: who speaks is told by the other.
    for _ in 0..2 {
        let gone = all.remove(0);
        gone.leave();
        gone.closed().await;
    }
    let begun = all[0].mark();
    all[0].hush();
    all[0].message_since(begun, "active-speakers", |data| data["speakers"] == json!([])).await;
    room_is_on(&server, 1, &[1]).await;
}
