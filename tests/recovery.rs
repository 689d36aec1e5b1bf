//! How soon media flows both ways again after a network changed under a call, without a rejoin. The clients find the
//! server through a [`Nat`] that changes its mind.

#[path = "browser/driver.rs"]
#[allow(dead_code, reason = "shared with the tests of the demo page")]
mod driver;
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use driver::{Browser, Driver};
use serde_json::{Value, json};
use support::debug::{peer, peer_until};
use support::frame::nanos;
use support::{Client, Nat, Options, Server, assert_lines_count_on};
use tokio::sync::Mutex;

/// After a change of networks that the client knows of, and restarts ICE for.
const RESTARTED_WITHIN: Duration = Duration::from_secs(2);
/// After a change that it does not notice.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);
/// As often browsers check a path that works.
const CHECK_INTERVAL: Duration = Duration::from_millis(2500);

/// Of three changes two have to be mended in time: the third may have struck while the machine was busy elsewhere.
const ROUNDS: usize = 3;

/// One test at a time: all look at the clock.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A server that is found through this NAT only.
fn server_behind(nat: &Nat) -> Server {
    let server = Server::spawn(&[("ICE_ADVERTISE_IP", &nat.address.to_string())]);
    nat.aim(server.media);
    server
}

fn address(client: &Client) -> SocketAddr {
    client.state().address.expect("bound")
}

/// How long after `since` the first frame came that `speaker` sent after it.
async fn gap(listener: &Client, speaker: &Client, since: u64) -> Duration {
    let first = |state: &support::State| {
        let mut later = state.from(speaker.id).filter(|heard| heard.frame.sent_at >= since);
        later.next().map(|heard| Duration::from_nanos(heard.frame.sent_at - since) + heard.latency)
    };
    listener.until(&format!("{} again", speaker.user), first).await
}

async fn gap_both_ways(one: &Client, other: &Client, since: u64) -> Duration {
    let (there, back) = tokio::join!(gap(one, other, since), gap(other, one, since));
    tokio::join!(one.hears(other, 25), other.hears(one, 25)); // And it lasts.
    there.max(back)
}

fn assert_most_within(bound: Duration, gaps: &[Duration]) {
    let in_time = gaps.iter().filter(|gap| **gap <= bound).count();
    assert!(2 * in_time > gaps.len(), "{gaps:?}, not {bound:?}");
}

/// The session, the transport, the lines and the keys of before.
fn assert_same_call(before: &Value, server: &Server, clients: [&Client; 2]) {
    let after = peer(server, before["user"].as_str().expect("a name"));
    for same in ["id", "connection", "transport", "state"] {
        assert_eq!(after[same], before[same], "{same}: {after:#}");
    }
    assert!(after["sinceMs"].as_u64() > before["sinceMs"].as_u64(), "never left it: {after:#}");
    for client in clients {
        let state = client.state();
        assert_eq!(state.events("joined", 0).count(), 1);
        assert!(state.closed.is_none());
        assert!(state.heard.iter().all(|heard| heard.ssrc == state.heard[0].ssrc));
        assert_lines_count_on(&state);
    }
}

/// Waits until the server sends there.
async fn sends_to(server: &Server, user: &str, address: SocketAddr) {
    let address = address.to_string();
    peer_until(server, user, &format!("at {address}"), |peer| peer["pair"]["remote"] == address).await;
}

async fn two_in_a_call(server: &Server) -> (Client, Client) {
    let options = || Options { check_every: Some(CHECK_INTERVAL), ..Options::default() };
    let ann = Client::join(server, "hall", "ann", options()).await;
    let ben = Client::join(server, "hall", "ben", options()).await;
    ann.speak(20);
    ben.speak(20);
    tokio::join!(ann.hears(&ben, 25), ben.hears(&ann, 25));
    (ann, ben)
}

#[tokio::test]
async fn a_nat_that_forgets_a_client_is_followed() {
    let _alone = ALONE.lock().await;
    let nat = Nat::start();
    let server = server_behind(&nat);
    let (ann, ben) = two_in_a_call(&server).await;
    let before = peer(&server, "ann");
    let mut gaps = Vec::new();
    // Another port of the same address; another address, which has to prove itself; and back.
    for host in [1, 2, 1] {
        nat.checked(address(&ann)).await;
        let since = nanos();
        let outside = nat.rebind(address(&ann), IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)));
        gaps.push(gap_both_ways(&ann, &ben, since).await);
        sends_to(&server, "ann", outside).await;
    }
    assert_eq!(gaps.len(), ROUNDS);
    assert_most_within(FOLLOWED_WITHIN, &gaps);
    assert_same_call(&before, &server, [&ann, &ben]);
    assert_eq!(ann.state().accepted, 1, "ann offered nothing anew");
}

#[tokio::test]
async fn a_client_that_changes_networks_restarts_ice_and_goes_on() {
    let _alone = ALONE.lock().await;
    let nat = Nat::start();
    let server = server_behind(&nat);
    let (ann, ben) = two_in_a_call(&server).await;
    let before = peer(&server, "ann");
    let mut gaps = Vec::new();
    for _ in 0..ROUNDS {
        nat.cut(address(&ann));
        let since = nanos();
        ann.move_port();
        gaps.push(gap_both_ways(&ann, &ben, since).await);
    }
    assert_most_within(RESTARTED_WITHIN, &gaps);
    assert_same_call(&before, &server, [&ann, &ben]);
}

const TONE: &str = include_str!("browser/tone.js");

const TEST_MAX: Duration = Duration::from_secs(240);

/// From now on the page notes when it looked at its lines, and when the last packet on any of them had come.
const WATCH: &str = "
    window.looks = [];
    setInterval(async () => {
        const stats = [...(await gryt.peer.getStats()).values()];
        const lines = stats.filter((entry) => entry.type === 'inbound-rtp');
        looks.push(Math.max(0, ...lines.map((line) => line.lastPacketReceivedTimestamp ?? 0)));
    }, 50);
    window.before = { peer: gryt.peer };";

/// So that a test can make one fall silent, as TCP does when its network is gone.
const KEEP_SOCKETS: &str = "
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(url) { super(url); sockets.push(this); }
    };";

const SILENCE_SOCKET: &str = "sockets.at(-1).send = () => {};";

/// A page in a call with somebody who is not a browser, and speaks.
struct PageInCall {
    page: Browser,
    user: String,
    ben: Client,
    before: Value,
}

impl PageInCall {
    async fn begin(server: &Server, test: &str) -> PageInCall {
        let ben = Client::join(server, "hall", "ben", Options::default()).await;
        ben.speak(20);
        let driver = Driver::start(test);
        let page = driver.browser().await;
        page.goto(&format!("http://localhost:{}/?room=hall", server.http.port())).await;
        page.run(&TONE.replace("HZ", "500")).await;
        page.run(KEEP_SOCKETS).await;
        page.fill("name", "Ada").await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.run(WATCH).await;
        page.until("ben's packets", "looks.some((at) => at > 0)").await;
        let Value::String(user) = page.run("return gryt.userId").await else { panic!("a user id is text") };
        let before = peer(server, &user);
        PageInCall { page, user, ben, before }
    }

    /// What Ada says is no frame of ours, and counted apart.
    async fn said(&self) {
        let goal = self.ben.state().broken + 25;
        self.ben.until("Ada's voice", |state| (state.broken >= goal).then_some(())).await;
    }

    /// How long after `since` (by the wall clock) media flows both ways.
    async fn gap(&self, since: Duration) -> Duration {
        // What was under way then still came.
        let first = (since + Duration::from_millis(100)).as_millis();
        let there = async {
            let goal = self.ben.state().broken + 3;
            self.ben.until("Ada again", |state| (state.broken >= goal).then_some(wall())).await - since
        };
        let back = async {
            let at = self.page.until("ben again", &format!("looks.find((at) => at > {first})")).await;
            Duration::from_secs_f64(at.as_f64().expect("a time") / 1000.0) - since
        };
        let (there, back) = tokio::join!(there, back);
        self.said().await; // And it lasts.
        there.max(back)
    }

    async fn assert_same_call(&self, server: &Server) {
        self.page.until("a connection", "gryt.state === 'connected'").await;
        assert_eq!(self.page.run("return gryt.peer === before.peer").await, true);
        let after = peer(server, &self.user);
        for same in ["id", "transport", "state"] {
            assert_eq!(after[same], self.before[same], "{same}: {after:#}");
        }
        assert!(after["sinceMs"].as_u64() > self.before["sinceMs"].as_u64(), "never left it: {after:#}");
    }
}

/// The browser believes that the network is gone, or there again. It goes on sending media.
fn set_offline(page: &Browser, offline: bool) {
    let conditions =
        json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
    page.devtools("Network.enable", &json!({}));
    page.devtools("Network.emulateNetworkConditions", &conditions);
}

#[expect(clippy::disallowed_methods, reason = "the page's statistics speak of the wall clock")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

/// The client that the server sees there.
fn seen_at(nat: &Nat, peer: &Value) -> SocketAddr {
    let remote: SocketAddr =
        peer["pair"]["remote"].as_str().and_then(|it| it.parse().ok()).expect("an address");
    nat.clients().into_iter().find(|(_, outside)| *outside == remote).expect("behind the NAT").0
}

fn cut_off_all_but(nat: &Nat, client: &Client) {
    let kept = address(client);
    nat.clients().into_iter().filter(|(client, _)| *client != kept).for_each(|(client, _)| nat.cut(client));
}

#[tokio::test]
async fn a_nat_that_forgets_a_browser_is_followed() {
    let _alone = ALONE.lock().await;
    let test = async {
        let nat = Nat::start();
        let server = server_behind(&nat);
        let call = PageInCall::begin(&server, "rebinding").await;
        let mut gaps = Vec::new();
        for host in [1, 2, 1] {
            let client = seen_at(&nat, &peer(&server, &call.user));
            nat.checked(client).await;
            let since = wall();
            let outside = nat.rebind(client, IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)));
            gaps.push(call.gap(since).await);
            sends_to(&server, &call.user, outside).await;
        }
        assert_most_within(FOLLOWED_WITHIN, &gaps);
        call.assert_same_call(&server).await;
    };
    tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs");
}

#[tokio::test]
async fn the_page_restarts_ice_when_it_comes_to_another_network() {
    let _alone = ALONE.lock().await;
    let test = async {
        let nat = Nat::start();
        let server = server_behind(&nat);
        let call = PageInCall::begin(&server, "moving").await;
        let mut gaps = Vec::new();
        for sockets in 1..=ROUNDS {
            cut_off_all_but(&nat, &call.ben);
            set_offline(&call.page, true);
            // But for the first time the WebSocket is lost as well, without a word.
            if sockets > 1 {
                call.page.run(SILENCE_SOCKET).await;
            }
            let since = wall();
            set_offline(&call.page, false);
            gaps.push(call.gap(since).await);
            let settled = "gryt.state === 'connected' && gryt.peer.signalingState === 'stable'";
            call.page.until("peace", &format!("sockets.length === {sockets} && {settled}")).await;
        }
        assert_most_within(RESTARTED_WITHIN, &gaps);
        call.assert_same_call(&server).await;
    };
    tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs");
}

/// The browser says that the connection is interrupted, and nothing of why.
#[tokio::test]
async fn the_page_restarts_ice_when_its_path_falls_silent() {
    let _alone = ALONE.lock().await;
    let test = async {
        let nat = Nat::start();
        let server = server_behind(&nat);
        let call = PageInCall::begin(&server, "silence").await;
        let since = wall();
        cut_off_all_but(&nat, &call.ben);
        call.gap(since).await;
        assert_eq!(call.page.run("return sockets.length").await, 1);
        call.page.until("a connection", "gryt.state === 'connected'").await;
        assert_eq!(call.page.run("return gryt.peer === before.peer").await, true);
        peer_until(&server, &call.user, "connected", |row| row["state"] == "connected").await;
        let after = peer(&server, &call.user);
        for same in ["id", "connection", "transport"] {
            assert_eq!(after[same], call.before[same], "{same}: {after:#}");
        }
    };
    tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs");
}
