//! A peer that the kernel has no way to: `/debug/peers` says whose datagrams were refused. In a network namespace of
//! its own, so that no route of the machine is touched; needs root, and Debian's `iproute2`.

#[path = "support/network.rs"]
#[allow(unreachable_pub, reason = "shared with tests that are crates of several files")]
mod network;
mod support;

use network::{in_a_network_of_its_own, ip};
use serde_json::json;
use support::debug::{peer, peer_until};
use support::{Client, Options, Server, assert_clean};

#[test]
fn refused_sends_are_counted_for_the_peer_that_they_were_for() {
    refused_sends_are_counted("ICE_ADVERTISE_IP");
}

#[test]
fn the_same_where_media_has_one_address() {
    refused_sends_are_counted("ICE_BIND_IP");
}

/// Of a server that this variable tells its address.
fn refused_sends_are_counted(variable: &'static str) {
    in_a_network_of_its_own(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(one_of_three_cannot_be_reached(variable));
    });
}

async fn one_of_three_cannot_be_reached(variable: &str) {
    let server = Server::spawn(&[(variable, "127.0.0.1")]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let far = Options { bind: Some([127, 0, 0, 2].into()), ..Options::default() };
    let ben = Client::join(&server, "hall", "ben", far).await;
    let cleo = Client::join(&server, "hall", "cleo", Options::default()).await;
    ann.speak(20);
    tokio::join!(ben.hears(&ann, 10), cleo.hears(&ann, 10));
    assert_eq!(peer(&server, "ben")["drops"], json!({}));

    // The table of local addresses is asked only after this rule.
    ip("rule add pref 100 lookup local");
    ip("rule del pref 0");
    ip("rule add pref 50 to 127.0.0.2/32 unreachable");
    let lost = |row: &serde_json::Value| row["drops"]["send_unreachable"].as_u64() >= Some(50);
    peer_until(&server, "ben", "refused anything", lost).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"send_unreachable\""], 50.0).await;
    // The others lose nothing by it, and nothing is laid to their charge.
    cleo.hears(&ann, 25).await;
    assert_clean(&cleo, &ann);
    for user in ["ann", "cleo"] {
        assert_eq!(peer(&server, user)["drops"], json!({}), "{user}");
    }
    // There is a way again.
    ip("rule del pref 50");
    ben.hears(&ann, 25).await;
}
