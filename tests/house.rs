//! The process: how it starts, what it says, how it ends.

mod support;

use std::time::Duration;

use support::server::{ended_start, free_udp_ports, sfu};
use support::{Client, Options, Server};

#[tokio::test]
async fn it_ends_within_five_seconds_and_tells_its_members() {
    let mut server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    server.terminate();
    assert_eq!(ann.closed().await.0, 1001);
    assert_eq!(ben.closed().await.0, 1001);
    let status = server.wait(Duration::from_secs(5)).expect("it ends in time");
    assert!(status.success(), "{status}");
}

#[test]
fn an_idle_server_ends_at_once() {
    let mut server = Server::spawn(&[]);
    server.terminate();
    assert!(server.wait(Duration::from_secs(5)).expect("it ends in time").success());
}

/// SO_REUSEPORT would let a second server take half of the first one's datagrams without a word.
#[test]
fn a_udp_port_in_use_ends_the_start_and_is_named() {
    let port = free_udp_ports(1);
    let _first = Server::spawn(&[("ICE_UDP_MUX_PORT", &port)]);
    let second = ended_start(sfu(&[]), &[("ICE_UDP_MUX_PORT", &port)]);
    assert!(!second.status.success());
    let said = [second.stdout, second.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(&port), "{said}");
}

#[test]
fn wrong_settings_are_named() {
    for (name, value) in [("PORT", "65536"), ("ICE_UDP_MUX_PORT", "9-1"), ("WORKERS", "many")] {
        let output = ended_start(sfu(&[]), &[(name, value)]);
        assert!(!output.status.success(), "{name}={value}");
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(name) || said.contains(value), "{name}={value}: {said}");
    }
}

#[tokio::test]
async fn it_tells_how_it_is() {
    let server = Server::spawn(&[]);
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.get("/ready").0, 200);
    let (status, page) = server.get("/");
    assert_eq!(status, 200);
    assert!(page.contains("<html"), "the demo page");
    let ann = Client::join(&server, "the secret room", "ann", Options::default()).await;
    let ben = Client::join(&server, "the secret room", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 50).await;
    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("# TYPE") && metrics.ends_with("# EOF\n"), "whole: {metrics}");
    assert!(!metrics.contains("secret"), "rooms are no labels");
}

/// What control counts is not for itself alone.
#[tokio::test]
async fn what_goes_wrong_on_the_way_to_a_call_is_counted_where_it_can_be_seen() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    ann.send_text("no JSON");
    ann.error("bad-message").await;
    ann.send("telepathy", &serde_json::json!({}));
    ann.lose_socket();
    server.metric_reaches("gryt_sfu_peers_lost", &[], 1.0).await;
    ann.resume();
    server.metric_reaches("gryt_sfu_joins_resumed_total", &[], 1.0).await;
    let max =
        Client::start(server.http, "hall", "max", Options { offers: false, ..Options::default() }).await;
    max.joined().await;
    max.send("offer", &serde_json::json!({"type": "offer", "sdp": "v=0\r\n"}));
    max.closed().await;
    // Told before he was sent away, but a page of metrics is kept for a moment.
    server.metric_reaches("gryt_sfu_media_failed_total", &[], 1.0).await;
    for (name, value) in [
        ("gryt_sfu_messages_bad_total", 1.0),
        ("gryt_sfu_messages_unknown_total", 1.0),
        ("gryt_sfu_media_failed_total", 1.0),
        ("gryt_sfu_joins_without_media_total", 1.0),
        ("gryt_sfu_peers_lost", 1.0), // It may come back, and begin anew.
        ("gryt_sfu_clients_slow_total", 0.0),
        ("gryt_sfu_orders_waiting", 0.0),
        ("gryt_sfu_orders_dropped_total", 0.0),
    ] {
        assert_eq!(server.metric(name, &[]), value, "{name}");
        let (_, metrics) = server.get("/metrics");
        assert!(metrics.contains(&format!("\n{name} ")), "{name} is not there");
    }
}

/// Credentials and tokens are nobody's to read.
#[tokio::test]
async fn the_log_keeps_secrets() {
    let mut server = Server::spawn(&[("LOG_LEVEL", "debug")]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let resume = ann.joined().await["resume"].as_str().expect("a token").to_owned();
    let passwords = {
        let state = ann.state();
        [state.remote.pwd.clone(), state.local.pwd.clone()]
    };
    assert!(passwords.iter().all(|password| password.len() >= 22));
    ann.leave();
    ann.closed().await;
    let log = server.whole_log();
    assert!(!log.contains(&resume), "a resume token in the log");
    assert!(passwords.iter().all(|password| !log.contains(password)), "an ICE password in the log");
}
