//! Voices through a TURN relay: two browsers that may use nothing else, with the credentials that the server
//! gave them, and a real coturn that checks those. Over UDP, and over TCP and TLS for networks without UDP.
//!
//! Needs Debian's `coturn`, `chromium`, `chromium-driver` and `openssl`.

#[path = "browser/driver.rs"]
#[allow(dead_code, reason = "shared with the tests of the demo page")]
mod driver;
mod support;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use driver::{Browser, Driver};
use serde_json::json;
use support::Server;
use support::coturn::{Coturn, SECRET};
use support::folder::Folder;

const TONE: &str = include_str!("browser/tone.js");

const TEST_MAX: Duration = Duration::from_secs(180);

/// From now on the page's connections go through a relay or not at all.
const RELAY_ONLY: &str = "
    window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(configuration) { super({ ...configuration, iceTransportPolicy: 'relay' }); }
    };";

/// How the page reaches its relay, and by whose address the relay speaks to the server.
const PATH: &str = "
    return gryt.peer.getStats().then((stats) => {
        const all = [...stats.values()];
        const transport = all.find((entry) => entry.type === 'transport');
        const pair = stats.get(transport.selectedCandidatePairId);
        const local = stats.get(pair.localCandidateId);
        return [local.candidateType, local.relayProtocol, local.address];
    })";

/// Browsers are many processes, and the machine may be small: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn voices_pass_through_a_relay_over_udp() {
    let coturn = Coturn::on_loopback("udp", "no-tls\nno-dtls\nno-tcp");
    two_hear_each_other("udp", &format!("turn:{}?transport=udp", coturn.address));
}

#[test]
fn voices_pass_through_a_relay_over_tcp() {
    let coturn = Coturn::on_loopback("tcp", "no-tls\nno-dtls");
    two_hear_each_other("tcp", &format!("turn:{}?transport=tcp", coturn.address));
}

#[test]
fn voices_pass_through_a_relay_over_tls() {
    let folder = Folder::new();
    let certified = folder.certify();
    let settings = format!("no-dtls\ncert={}\npkey={}", certified.certificate, certified.key);
    let coturn = Coturn::on_loopback("tls", &settings);
    let url = format!("turns:127.0.0.1:{}?transport=tcp", coturn.tls_port);
    two_hear_each_other("tls", &url);
}

fn two_hear_each_other(protocol: &str, url: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::spawn(&[
        ("TURN_SERVERS", url),
        ("TURN_SECRET", SECRET),
        // The relay is on loopback, and its datagrams come from there.
        ("ICE_ADVERTISE_IP", "127.0.0.1"),
    ]);
    let page = format!("http://localhost:{}/?room=relay", server.http.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let test = async {
        let driver = Driver::start(&format!("turn-{protocol}"));
        let people = [("Ada", 500.0), ("Ben", 1100.0)];
        let mut browsers = Vec::new();
        for (name, hz) in people {
            let browser = driver.browser_with(&["--ignore-certificate-errors"]).await;
            browser.goto(&page).await;
            browser.run(&TONE.replace("HZ", &hz.to_string())).await;
            browser.run(RELAY_ONLY).await;
            browser.fill("name", name).await;
            browser.click("join-button").await;
            browser.until("a connection", "gryt.state === 'connected'").await;
            assert_eq!(browser.run(PATH).await, json!(["relay", protocol, "127.0.0.1"]));
            browsers.push(browser);
        }
        hears(&browsers[0], people[1].1).await;
        hears(&browsers[1], people[0].1).await;
    };
    runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs") });
}

/// The other voice's strongest frequency is this one.
async fn hears(page: &Browser, hz: f64) {
    let expression = format!(
        "gryt.voices().some((voice) => voice.userId !== null && ((peak) => peak && peak.db > -60 \
         && Math.abs(peak.hz - {hz}) < 50)(gryt.peak(voice.userId)))"
    );
    page.until(&format!("{hz} Hz"), &expression).await;
}
