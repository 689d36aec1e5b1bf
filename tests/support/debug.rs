//! What `/debug/peers` says.

use std::time::Duration;

use serde_json::Value;

use super::{PATIENCE, Server, now};

/// The row of this user, `null` without one.
pub fn peer(server: &Server, user: &str) -> Value {
    let (status, body) = server.get("/debug/peers");
    assert_eq!(status, 200, "{body}");
    let mut body: Value = serde_json::from_str(&body).expect("JSON");
    let peers = body["peers"].as_array_mut().expect("a list");
    peers.iter_mut().find(|peer| peer["user"] == user).map_or(Value::Null, Value::take)
}

/// Asks until the row is as wanted.
pub async fn peer_until(server: &Server, user: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = now() + 2 * PATIENCE;
    loop {
        let peer = peer(server, user);
        if is_so(&peer) {
            return peer;
        }
        assert!(now() < deadline, "{user} is not {what}: {peer:#}");
        tokio::time::sleep(Duration::from_millis(100)).await; // Nobody tells when it changes.
    }
}
