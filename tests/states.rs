//! The states of a connection as `/debug/peers` shows them, each brought about by a client of the real server.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::debug::peer_until;
use support::{Client, Nat, Options, Server, now};

/// Waits for this state, and returns since when it is so, in milliseconds before now.
async fn state(server: &Server, user: &str, state: &str) -> u64 {
    let row = peer_until(server, user, state, |row| row["state"] == state).await;
    assert!(row["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{row:#}");
    row["sinceMs"].as_u64().expect("a number")
}

fn offers_nothing() -> Options {
    Options { offers: false, ..Options::default() }
}

#[tokio::test]
async fn each_state_is_shown_with_its_beginning() {
    let nat = Nat::start();
    let address = nat.address.to_string();
    let server = Server::spawn(&[("ICE_ADVERTISE_IP", &address), ("RESUME_WINDOW", "2m")]);
    nat.aim(server.media);

    // Joined, and no sign of media.
    let begun = now();
    let _nel = Client::start(server.http, "hall", "nel", offers_nothing()).await;
    // ICE works, DTLS does not get through.
    let deaf = |datagram: &[u8]| !datagram.first().is_some_and(|first| (20..64).contains(first));
    let options = Options { incoming: Box::new(deaf), ..Options::default() };
    let cas = Client::start(server.http, "hall", "cas", options).await;
    let dot = Client::join(&server, "hall", "dot", Options::default()).await;
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    ann.speak(20);
    dot.hears(&ann, 5).await;
    state(&server, "nel", "new").await;
    let connecting = state(&server, "cas", "connecting").await;
    drop(cas); // Before it gives up by itself.
    let connected = state(&server, "ann", "connected").await;
    let elapsed = begun.elapsed().as_millis() as u64;
    assert!(connecting <= elapsed && connected <= elapsed);
    assert!(state(&server, "ann", "connected").await >= connected, "the same beginning");

    // Its path dies, its WebSocket does not.
    let cut_at = now();
    nat.cut(ann.state().address.expect("bound"));
    // The certificate is not the promised one: it has 30 s to show another.
    let options = Options { lies: true, ..Options::default() };
    let liar = Client::start(server.http, "hall", "liar", options).await;
    let since = state(&server, "ann", "disconnected").await;
    let lasted = cut_at.elapsed() - Duration::from_millis(since);
    assert!(
        lasted >= Duration::from_secs(9),
        "{lasted:?}: 13 s without a check, one of which came just before"
    );
    assert!(ann.state().closed.is_none(), "it may still mend it by itself");

    // No agreement on what is to be sent.
    let max = Client::start(server.http, "hall", "max", offers_nothing()).await;
    max.joined().await;
    max.send("offer", &json!({"type": "offer", "sdp": "v=0\r\n"}));
    assert_eq!(max.closed().await.0, 1008);
    let row = peer_until(&server, "max", "closed", |row| row["state"] == "closed").await;
    assert_eq!((&row["connection"], &row["transport"]), (&Value::Null, &Value::Null), "{row:#}");

    // Nothing from there for 30 s: everything about the transport is gone, but not the place.
    let since = state(&server, "ann", "failed").await;
    let lasted = cut_at.elapsed() - Duration::from_millis(since);
    ann.error("internal").await;
    assert_eq!(ann.closed().await.0, 1011);
    assert!((26..40).contains(&lasted.as_secs()), "{lasted:?}");
    state(&server, "liar", "failed").await;
    assert_eq!(liar.closed().await.0, 1011);
    let row = peer_until(&server, "ann", "cleaned up", |row| row["transport"].is_null()).await;
    assert_eq!((&row["pair"], &row["srtpProfile"]), (&Value::Null, &Value::Null), "{row:#}");
    let has_left = dot.state().events("user-left", 0).any(|data| data["userId"] == "ann");
    assert!(!has_left, "it may come back");

    // Who joins again begins anew; who leaves is gone.
    let again = Client::join(&server, "hall", "ann", Options::default()).await;
    state(&server, "ann", "connected").await;
    again.speak(20);
    dot.hears(&again, 5).await;
    again.leave();
    dot.message("user-left", |data| data["userId"] == "ann").await;
    peer_until(&server, "ann", "gone", Value::is_null).await;
}
