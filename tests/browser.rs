//! The demo page in a real browser: by itself, against a stand-in for the SFU, and several of them against
//! the real server, each told apart by the tone that it sends.
//!
//! Needs Debian's `chromium` and `chromium-driver`. Screenshots are left in `target/screenshots`.

#[path = "browser/driver.rs"]
mod driver;
mod http_support;
#[path = "browser/microphone.rs"]
mod microphone;
mod support;
#[path = "browser/voices.rs"]
mod voices;

use std::time::Duration;

use driver::{Browser, Driver, Screen};
use http_support::{short, with_door_for};
use serde_json::{Value, json};
use support::{Client, Options, Server};

const STAND_IN: &str = include_str!("browser/stand_in.js");

const TEST_MAX: Duration = Duration::from_secs(240);

/// Runs `test` with a page of its own, served by a front door without a house behind it.
fn with_page<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Browser, u16) -> F) {
    with_door_for(TEST_MAX, short(), |door| async move {
        let driver = Driver::start(name);
        test(driver.browser().await, door.address.port()).await;
    });
}

async fn join(page: &Browser, name: &str, room: &str) {
    page.fill("name", name).await;
    page.fill("room", room).await;
    page.click("join-button").await;
    page.until("a connection", "gryt.state === 'connected'").await;
}

/// Whatever else is asserted of the console here rests on this.
#[test]
fn errors_and_warnings_of_a_page_are_seen() {
    with_page("console", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/")).await;
        assert_eq!(page.console(), Vec::<String>::new());
        page.run("console.error('a fault'); console.warn('a doubt'); console.log('a word')").await;
        page.run("setTimeout(() => { window.thrown = true; throw new Error('a throw'); })").await;
        page.until("the throw", "window.thrown").await;
        let console = page.console();
        for (line, said) in console.iter().zip(["a fault", "a doubt", "a throw"]) {
            assert!(line.contains(said), "{console:?}");
        }
        assert_eq!(console.len(), 3, "{console:?}");
    });
}

#[test]
fn the_page_shows_who_is_there_and_who_speaks() {
    with_page("shows", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/")).await;
        page.run(STAND_IN).await;
        join(&page, "Grace", "tea & biscuits").await;

        // Names are text. Each voice is under the right user, also after it changed hands.
        let name_of =
            |user: &str| format!("document.querySelector('[data-user=\"{user}\"] .name')?.textContent");
        let bobby = page.until("Bobby", &name_of("x<b>")).await;
        assert_eq!(bobby, "<b>Bobby</b> Tables & sons, of Nottingham");
        for (user, hz) in [("ada", 440.0), ("björk", 620.0), ("x<b>", 830.0)] {
            page.until("a tone", &hears(user, hz)).await;
        }
        page.run("StandIn.last.say('slots', {0: 'mei', 3: 'ada'})").await;
        page.until("the first slot's new owner", &hears("mei", 440.0)).await;
        page.until("silence", &is_silent("ada")).await;
        // An offer that gives the m-line no other stream leaves its owner alone.
        page.run(
            "window.answers = () => StandIn.sent.filter((m) => m.event === 'answer').length;
            window.answered = answers();
            StandIn.peer.setLocalDescription().then(() => StandIn.last.say('offer', StandIn.peer.localDescription))",
        )
        .await;
        page.until("an answer", "answers() > answered").await;
        page.until("the new owner still", &hears("mei", 440.0)).await;
        page.run("StandIn.last.say('slots', {0: 'ada', 3: 'mei'})").await;

        // Speaking, muted, gone.
        let says =
            |user: &str| format!("document.querySelector('[data-user=\"{user}\"] .mark')?.textContent");
        page.until("a speaking mark", &format!("{} === 'speaking'", says("ada"))).await;
        page.until("a muted mark", &format!("{} === 'muted'", says("edda"))).await;
        page.run(
            "StandIn.last.say('user-info', {userId: 'ada', userInfo: {nickname: 'Ada', isMuted: true}})",
        )
        .await;
        page.until("a muted mark", &format!("{} === 'muted'", says("ada"))).await;
        page.run("StandIn.last.say('user-left', {userId: 'björk', reason: 'left'})").await;
        page.until("an empty place", "!document.querySelector('[data-user=\"björk\"]')").await;
        assert_eq!(page.run("return gryt.voices().filter((v) => v.userId === 'björk').length").await, 0);

        // What we tell the server: mute and deafen, by button and by key.
        page.click("mute").await;
        page.run("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'd', bubbles: true}))")
            .await;
        let told = "StandIn.sent.filter((m) => m.event === 'user-info').map((m) => JSON.stringify(m.data))";
        let expected = "[\"{\\\"isMuted\\\":true}\",\"{\\\"isDeafened\\\":true}\"]";
        page.until("both told", &format!("JSON.stringify({told}) === {}", json!(expected))).await;

        // Who wants none has no shortcuts, here and now and when it comes back.
        let shortcuts =
            "[document.getElementById('keys').hidden, document.getElementById('deafen').ariaKeyShortcuts]";
        assert_eq!(page.run(&format!("return {shortcuts}")).await, json!([false, "d"]));
        page.click("open-settings").await;
        page.click("shortcuts").await;
        // A press that begins beside the sheet closes it, one that only ends there does not.
        for (x, is_open) in [("(left + right) / 2", true), ("left - 5", false)] {
            let press = format!(
                "const sheet = document.getElementById('settings');
                const {{left, right, top, bottom}} = sheet.getBoundingClientRect();
                const at = {{clientX: {x}, clientY: (top + bottom) / 2, bubbles: true}};
                sheet.dispatchEvent(new PointerEvent('pointerdown', at));
                sheet.dispatchEvent(new MouseEvent('click', {{bubbles: true}}));
                return sheet.open"
            );
            assert_eq!(page.run(&press).await, is_open);
        }
        page.run("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'd', bubbles: true}))")
            .await;
        assert_eq!(page.run(&format!("return JSON.stringify({told})")).await, json!(expected));
        assert_eq!(page.run(&format!("return {shortcuts}")).await, json!([true, null]));
        assert_eq!(page.run("return localStorage.getItem('gryt.shortcuts')").await, "no");

        assert_eq!(page.run("return location.search").await, "?room=tea+%26+biscuits");
        assert_eq!(page.console(), Vec::<String>::new());
        page.click("leave").await;
        page.until("the door", "document.body.dataset.view === 'door'").await;
        let last =
            page.run("return StandIn.sent.filter((m) => m.event !== 'ice-candidate').at(-1).event").await;
        assert_eq!(last, "leave");
    });
}

#[test]
fn the_page_mends_its_connection() {
    with_page("mends", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea&name=Grace")).await;
        page.run(STAND_IN).await;
        page.click("join-button").await;
        page.until("a tone", &hears("ada", 440.0)).await;

        // Fresh TURN credentials are there for the next ICE restart, without a new connection.
        page.run(
            "window.before = {peer: gryt.peer}; StandIn.last.say('ice-servers',
                {iceServers: [{urls: ['turn:127.0.0.1:9'], username: '1:a', credential: 'b'}]})",
        )
        .await;
        let used = "gryt.peer === before.peer && gryt.peer.getConfiguration().iceServers[0]?.username";
        assert_eq!(page.until("the new servers", used).await, "1:a");

        // The socket breaks: the voices go on, and the next join resumes.
        page.run("window.before = {socket: StandIn.last, peer: gryt.peer}; StandIn.last.drop()").await;
        page.until("a new socket", "StandIn.last !== before.socket && gryt.state === 'connected'").await;
        let joins = page
            .run("return StandIn.sent.filter((m) => m.event === 'join').map((m) => m.data.resume ?? null)")
            .await;
        assert_eq!(joins, json!([null, "r"]));
        assert_eq!(page.run("return gryt.peer === before.peer").await, true);
        let servers = page.run("return gryt.peer.getConfiguration().iceServers.length").await;
        assert_eq!(servers, 0, "those that came with the resumed session");
        page.until("the tone still", &hears("ada", 440.0)).await;

        // ICE is to be restarted just while there is no socket: the offer comes with the next one.
        page.run(
            "window.before = {socket: StandIn.last, offers: StandIn.offers()};
            StandIn.last.drop(); gryt.peer.restartIce()",
        )
        .await;
        page.until("the offer", "StandIn.last !== before.socket && StandIn.offers() > before.offers").await;
        page.until("peace", "gryt.peer.signalingState === 'stable' && gryt.state === 'connected'").await;

        // Offers collide: ours gives way, and is made again.
        page.run(
            "StandIn.peer.restartIce(); StandIn.peer.setLocalDescription()
                .then(() => gryt.peer.addTransceiver('audio', {direction: 'recvonly'}))",
        )
        .await;
        page.until("an offer in the way of another", "StandIn.held > 0").await;
        page.run(
            "before.offers = StandIn.offers(); StandIn.last.say('offer', StandIn.peer.localDescription)",
        )
        .await;
        page.until("another offer", "StandIn.offers() > before.offers").await;
        page.until("peace", "gryt.peer.signalingState === 'stable' && gryt.state === 'connected'").await;
        page.until("the tone still", &hears("ada", 440.0)).await;

        // Another kind of network under it: ICE starts anew at once.
        page.run(
            "before.offers = StandIn.offers();
            Object.defineProperty(navigator.connection, 'type', { value: 'cellular', configurable: true });
            navigator.connection.dispatchEvent(new Event('change'))",
        )
        .await;
        page.until("an offer", "StandIn.offers() > before.offers").await;
        page.until("peace", "gryt.peer.signalingState === 'stable' && gryt.state === 'connected'").await;
        page.until("the tone still", &hears("ada", 440.0)).await;

        // Taken by another window: no fight for the place.
        page.run(
            "StandIn.last.say('error', {code: 'already-joined', message: ''});
            StandIn.last.onclose({code: 1008, reason: ''})",
        )
        .await;
        page.until("the door", "document.body.dataset.view === 'door'").await;
        page.until("a word", "document.getElementById('door-notice').textContent.includes('another window')")
            .await;
    });
}

#[test]
fn the_page_asks_again_when_it_should() {
    with_page("asks", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea&name=Grace")).await;
        page.run(STAND_IN).await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;

        // Turned away by a server that is going down: the page waits, and another network does not hurry it.
        page.run("StandIn.turnsAway = 1001; StandIn.last.drop()").await;
        page.until("a word", &contains(HALL_NOTICE, "once it is back")).await;
        let hurried = "((socket) => socket.readyState === 3
            && (dispatchEvent(new Event('online')), [StandIn.last !== socket]))(StandIn.last)";
        assert_eq!(page.until("a pause", hurried).await, json!([false]));
        page.run("StandIn.turnsAway = 0").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.until("no word", "document.getElementById('hall-notice').hidden").await;
        // Or by one that has heard of too many changes, which passes as well.
        page.run("StandIn.turnedAway = 0; StandIn.turnsAway = 1008; StandIn.last.drop()").await;
        page.until("a refusal", "StandIn.turnedAway > 0").await;
        page.run("StandIn.turnsAway = 0").await;
        page.until("a connection", "gryt.state === 'connected'").await;

        // A socket that leads nowhere is given up: at once on another network, and after a while by itself.
        page.run("window.before = StandIn.last; StandIn.isSilent = true; StandIn.last.drop()").await;
        page.until("a join", "StandIn.last !== before && StandIn.last.readyState === 1").await;
        let moved = "window.before = StandIn.last; dispatchEvent(new Event('online')); return StandIn.last !== before";
        assert_eq!(page.run(moved).await, true);
        page.run("window.before = StandIn.last").await;
        page.until("a join", "before.readyState === 1").await;
        page.run("StandIn.isSilent = false").await;
        page.until("another", "StandIn.last !== before && before.readyState === 3").await;
        page.until("a connection", "gryt.state === 'connected'").await;

        // After a stay of a minute the first wait is short again, whatever was before.
        page.run(
            "const [later, now] = [setTimeout, performance.now()];
            window.setTimeout = (act, ms) => {
                if (String(act).includes('=> this.#open()')) window.wait ??= ms;
                return later(act, ms);
            };
            performance.now = () => now + 60000;
            StandIn.last.say('offer', { sdp: 'none' })",
        )
        .await;
        let wait = page.until("a wait", "window.wait").await;
        assert!(wait.as_f64().is_some_and(|ms| ms < 600.0), "{wait}");
    });
}

#[test]
fn the_page_says_why_there_is_no_microphone() {
    with_page("listens", |page, port| async move {
        // Plain http, not localhost.
        page.goto(&format!("http://plain.test:{port}/?room=tea")).await;
        assert_eq!(page.run("return isSecureContext").await, false);
        let advice = page.run("return document.getElementById('mic-advice').innerText").await;
        let advice = advice.as_str().expect("text");
        assert!(
            advice.contains("https") && advice.contains(&format!("http://localhost:{port}/")),
            "{advice}"
        );
        page.set_screen(Screen::Desktop);
        page.screenshot("door-without-microphone").await;
        page.run(STAND_IN).await;
        page.fill("name", "Grace").await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.until("a tone", &hears("ada", 440.0)).await;
        assert_eq!(page.run("return gryt.peer.getSenders().some((s) => s.track)").await, false);
        let state = page.run("return document.getElementById('state-text').textContent").await;
        assert_eq!(state, "Connected, listening only");

        // Blocked by the visitor, and allowed later.
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(STAND_IN).await;
        page.run("navigator.mediaDevices.allow = navigator.mediaDevices.getUserMedia;
            navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }").await;
        page.fill("name", "Grace").await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        let notice = page.run("return document.getElementById('hall-notice-text').textContent").await;
        assert_eq!(notice, "You are listening only. The microphone is blocked.");
        // Another word goes before it, for as long as it is true.
        page.run("StandIn.last.say('draining', {})").await;
        page.until("another word", &contains(HALL_NOTICE, "about to restart")).await;
        page.run("StandIn.last.drop()").await;
        page.until("the word from before", &contains(HALL_NOTICE, "You are listening only")).await;
        assert_eq!(page.run("return document.getElementById('hall-notice-button').hidden").await, false);
        page.run("navigator.mediaDevices.getUserMedia = navigator.mediaDevices.allow").await;
        page.click("mute").await; // Says "Use mic" now.
        page.until("a microphone", "gryt.peer.getSenders()[0].track?.readyState === 'live'").await;
        page.until("its offer answered", "gryt.peer.getTransceivers()[0].currentDirection?.includes('send')")
            .await;
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

#[test]
fn the_page_looks_as_meant() {
    with_page("looks", |page, port| async move {
        for (screen, width) in [(Screen::Desktop, "desktop"), (Screen::Phone, "phone")] {
            for scheme in ["light", "dark"] {
                page.set_screen(screen);
                page.set_scheme(scheme);
                page.goto(&format!("http://localhost:{port}/")).await;
                assert_fits(&page).await;
                page.screenshot(&format!("door-{width}-{scheme}")).await;
                page.run(STAND_IN).await;
                join(&page, "Grace", "tea").await;
                page.until("a tone", &hears("ada", 440.0)).await;
                page.until("figures", "document.getElementById('stat-rate').textContent !== '–'").await;
                assert_fits(&page).await;
                page.screenshot(&format!("hall-{width}-{scheme}")).await;
                page.click("open-settings").await;
                page.screenshot(&format!("settings-{width}-{scheme}")).await;
                assert_eq!(page.console(), Vec::<String>::new());
            }
        }
    });
}

/// As on an iPhone.
#[test]
fn where_the_volume_cannot_be_set_there_is_nothing_to_set_it_with() {
    with_page("volume", |page, port| async move {
        let sliders = "[...document.querySelectorAll('.person:not(.self) .volume')]";
        for (can_set, shown) in [(true, 6), (false, 0)] {
            page.goto(&format!("http://localhost:{port}/")).await;
            page.run(STAND_IN).await;
            if !can_set {
                page.run(
                    "Object.defineProperty(HTMLMediaElement.prototype, 'volume', {get: () => 1, set() {}})",
                )
                .await;
            }
            let found = "import('/sound.js').then(({Ears}) => Ears.canSetVolume())
                .then((can) => { window.can = can; document.body.dataset.volume = can ? '' : 'fixed'; })";
            page.run(found).await;
            page.until("an answer", &format!("window.can === {can_set}")).await;
            join(&page, "Grace", "tea").await;
            let count = format!("{sliders}.filter((it) => it.checkVisibility()).length");
            page.until("as many", &format!("{count} === {shown}")).await;
        }
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

/// Nothing sticks out to the side, everything to press is big enough for a thumb and has a name.
async fn assert_fits(page: &Browser) {
    let too_wide = page.run("return document.documentElement.scrollWidth - innerWidth").await;
    assert!(too_wide.as_i64().is_some_and(|pixels| pixels <= 0), "{too_wide} px too wide");
    let bad = page
        .run(
            "return [...document.querySelectorAll('button, select, input[type=text], input[type=range]')]
                .filter((e) => e.checkVisibility({visibilityProperty: true}))
                .filter((e) => e.getBoundingClientRect().height < 32
                    || !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length))
                .map((e) => e.outerHTML)",
        )
        .await;
    assert_eq!(bad, json!([]));
}

/// Who finds the server full waits in the hall, and gets in by itself once there is a place.
#[test]
fn a_page_waits_for_a_place() {
    let server = Server::spawn(&[("MAX_CONNECTIONS", "1")]);
    let url = format!("http://localhost:{}/?room=tea", server.http.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let driver = Driver::start("full");
        let (ada, bjork) = (driver.browser().await, driver.browser().await);
        ada.goto(&url).await;
        join(&ada, "Ada", "tea").await;
        bjork.goto(&url).await;
        bjork.fill("name", "Björk").await;
        bjork.click("join-button").await;
        bjork.until("a word", &contains(HALL_NOTICE, "Waiting for a place")).await;
        assert_eq!(bjork.run("return document.getElementById('hall-notice-text').role").await, "alert");
        assert_eq!(
            bjork.run("return [document.body.dataset.view, gryt.state]").await,
            json!(["hall", "connecting"])
        );
        ada.click("leave").await;
        bjork.until("a connection", "gryt.state === 'connected'").await;
        bjork.until("no word", "document.getElementById('hall-notice').hidden").await;
        assert_eq!(bjork.console(), Vec::<String>::new());
    };
    runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs") });
}

/// Nobody waits for what can never be.
#[test]
fn a_page_with_a_name_that_no_server_takes_is_told_so() {
    let server = Server::spawn(&[]);
    let url = format!("http://localhost:{}/", server.http.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let driver = Driver::start("named");
        let page = driver.browser().await;
        page.goto(&format!("{url}?room=a%09b&name=Grace")).await;
        page.click("join-button").await;
        page.until("a word", &contains(DOOR_NOTICE, "no name may have")).await;
        assert_eq!(page.run("return document.getElementById('room').ariaInvalid").await, "true");
        assert_eq!(page.run("return gryt.session").await, Value::Null);

        // An invitation for a user of too long a name.
        page.goto("about:blank").await;
        page.goto(&url).await;
        page.run(
            "location.hash = `token=none.${btoa(JSON.stringify({room: 'tea', sub: 'g'.repeat(129)}))}.none`",
        )
        .await;
        page.until("the invitation", "document.getElementById('room')?.readOnly").await;
        page.fill("name", "Grace").await;
        page.click("join-button").await;
        page.until("what the server says", &contains(DOOR_NOTICE, "not let in: ")).await;
        assert_eq!(page.run("return gryt.state").await, "idle");
    };
    runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs") });
}

/// The strongest frequency of this user's voice is this one, within two bins of the analyser.
fn hears(user: &str, hz: f64) -> String {
    format!("((peak) => peak && peak.db > -60 && Math.abs(peak.hz - {hz}) < 50)(gryt.peak({}))", json!(user))
}

fn is_silent(user: &str) -> String {
    format!("((peak) => !peak || peak.db < -80)(gryt.peak({}))", json!(user))
}

/// A token of the server's own making.
fn token(secret: &str, user: &str, more: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sfu"));
    command.args(["token", "--room", "tea", "--user", user]).args(more);
    let output = command.env("AUTH_SECRET", secret).current_dir(std::env::temp_dir()).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const DOOR_NOTICE: &str = "document.getElementById('door-notice').textContent";
const HALL_NOTICE: &str = "document.getElementById('hall-notice-text').textContent";

fn contains(text: &str, words: &str) -> String {
    format!("{text}.includes({})", json!(words))
}

/// Clicks something of somebody's tile.
async fn press(page: &Browser, user: &str, button: &str) {
    page.run(&format!("document.querySelector('[data-user=\"{user}\"] .{button}').click()")).await;
}

#[test]
fn a_personal_invitation_lets_in_and_moderates() {
    const SECRET: &str = "a secret of more than thirty-two bytes";
    let mut server = Server::spawn(&[("AUTH_SECRET", SECRET), ("LOG_LEVEL", "debug")]);
    let url = format!("http://localhost:{}/", server.http.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let member = async |user: &str, more: &[&str]| {
            let options = Options { token: Some(token(SECRET, user, more)), ..Options::default() };
            Client::join(&server, "tea", user, options).await
        };
        let ann = member("ann", &[]).await;
        let boss = member("boss", &["--moderate"]).await;
        ann.speak(20);
        let driver = Driver::start("invited");
        let page = driver.browser().await;

        // Without an invitation, and with one that is no good.
        page.goto(&url).await;
        page.fill("name", "Grace").await;
        page.fill("room", "tea").await;
        page.click("join-button").await;
        page.until("a refusal", &contains(DOOR_NOTICE, "personal invitation only")).await;
        page.goto(&format!("{url}?token={}", token("another secret of thirty-two bytes", "grace", &[])))
            .await;
        assert_eq!(page.run("return location.href").await, json!(url), "not even a query stays");
        page.click("join-button").await;
        page.until("a refusal", &contains(DOOR_NOTICE, "the token is not valid here")).await;

        // With a good one: room and user are its own, the address is clean, a reload comes back.
        let good = token(SECRET, "grace", &["--moderate"]);
        page.goto("about:blank").await;
        page.goto(&format!("{url}#token={good}")).await;
        assert_eq!(page.run("return location.href").await, json!(url));
        assert_eq!(page.run("return document.getElementById('room').value").await, "tea");
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.reload().await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        assert_eq!(page.run("return gryt.userId").await, "grace");

        // Mute, let speak, remove.
        page.until("a tile", "document.querySelector('[data-user=\"ann\"] .silence')").await;
        press(&page, "ann", "silence").await;
        ann.message("user-info", |data| data["userInfo"]["isServerMuted"] == true).await;
        let mark = "document.querySelector('[data-user=\"ann\"] .mark').textContent";
        page.until("a muted mark", &format!("{mark} === 'muted for all'")).await;
        press(&page, "ann", "silence").await;
        ann.message("user-info", |data| data["userInfo"]["isServerMuted"] == false).await;
        page.until("a speaking mark", &format!("{mark} === 'speaking'")).await;
        let remove = "document.querySelector('[data-user=\"ann\"] .remove')";
        page.run(&format!("{remove}.focus()")).await;
        press(&page, "ann", "remove").await;
        assert!(ann.state().closed.is_none(), "the first press asks");
        assert_eq!(page.run(&format!("return {remove}.ariaLabel")).await, "Really? Remove ann from the room");
        press(&page, "ann", "remove").await;
        assert_eq!(ann.closed().await.1, "kicked");
        page.until("an empty place", "!document.querySelector('[data-user=\"ann\"]')").await;
        assert_eq!(page.run("return document.activeElement.id").await, "hall-title", "not lost with it");

        // And the other way round.
        boss.send("mute", &json!({"userId": "grace", "muted": true}));
        page.until("a word", &contains(HALL_NOTICE, "A moderator has muted you")).await;
        // Who mutes himself meanwhile is not heard at once when the moderator relents.
        page.click("mute").await;
        let by_oneself = |data: &Value| data["userId"] == "grace" && data["userInfo"]["isMuted"] == true;
        boss.message("user-info", by_oneself).await;
        boss.send("mute", &json!({"userId": "grace", "muted": false}));
        page.until("a word", &contains(HALL_NOTICE, "heard again")).await;
        assert_eq!(page.run("return gryt.session.microphone.enabled").await, false);
        boss.send("kick", &json!({"userId": "grace"}));
        page.until("the door", &contains(DOOR_NOTICE, "A moderator has removed you")).await;
        assert_eq!(page.run("return gryt.state").await, "idle", "and it stays away");

        // One that only lets listen.
        page.goto("about:blank").await;
        page.goto(&format!("{url}#token={}", token(SECRET, "hal", &["--no-publish"]))).await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.until("a word", &contains(HALL_NOTICE, "lets you listen, not speak")).await;
        assert_eq!(page.run("return gryt.peer.getSenders().some((s) => s.track)").await, false);
        good
    };
    let good =
        runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs") });
    let signature = good.rsplit('.').next().unwrap();
    assert!(!server.whole_log().contains(signature), "a token in the log");
}

#[test]
fn a_moderators_page_looks_as_meant() {
    with_page("moderates", |page, port| async move {
        for (screen, width) in [(Screen::Desktop, "desktop"), (Screen::Phone, "phone")] {
            for scheme in ["light", "dark"] {
                page.set_screen(screen);
                page.set_scheme(scheme);
                page.goto(&format!("http://localhost:{port}/")).await;
                page.run(STAND_IN).await;
                page.run("StandIn.grants.moderate = true; StandIn.members[2].isServerMuted = true").await;
                join(&page, "Grace", "tea").await;
                page.until("a tone", &hears("ada", 440.0)).await;
                let says = "document.querySelector('[data-user=\"x<b>\"] .mark').textContent";
                page.until("a muted mark", &format!("{says} === 'muted for all'")).await;
                press(&page, "edda", "remove").await;
                page.run(
                    "StandIn.last.say('user-info', {userId: gryt.userId, userInfo: {isServerMuted: true}})",
                )
                .await;
                page.until("a word", &contains(HALL_NOTICE, "A moderator has muted you")).await;
                assert_fits(&page).await;
                page.screenshot(&format!("moderator-{width}-{scheme}")).await;
                assert_eq!(page.console(), Vec::<String>::new());
            }
        }
    });
}
