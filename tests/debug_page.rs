//! The debug page in a real browser, before the running server with a call going on.
//!
//! Needs Debian's `chromium` and `chromium-driver`. Screenshots are left in `target/screenshots`.

#[path = "browser/driver.rs"]
#[allow(dead_code, reason = "shared with tests/browser.rs; each takes what it needs")]
mod driver;
mod support;

use std::process::Command;

use driver::{Browser, Driver, Screen};
use support::folder::Folder;
use support::{Client, Options, Server};

const TOKEN: &str = "a-token-of-more-than-16-bytes";
const BOBBY: &str = "<b>Bobby</b> Tables & sons";

/// Somebody with a name to show.
fn called(nickname: &str) -> Options {
    Options { user_info: serde_json::json!({ "nickname": nickname }), ..Options::default() }
}

async fn call(server: &Server) -> Vec<Client> {
    let mut members = Vec::new();
    for (room, user, name) in [
        ("tea & <i>biscuits</i>", "ann", "Ann Lovelace"),
        ("tea & <i>biscuits</i>", "bob", BOBBY),
        ("tea & <i>biscuits</i>", "cleo", "Cleo"),
        ("standup", "dora", "Dora"),
        ("standup", "edda", "Edda Karlsdóttir of the very long and splendid name that goes on"),
    ] {
        members.push(Client::join(server, room, user, called(name)).await);
    }
    members[0].speak(18);
    members[1].speak(40);
    members[3].speak(30);
    members[2].set_muted(true);
    members[2].hears(&members[0], 50).await;
    members
}

/// What a peer's row says in this cell.
fn cell(user: &str, at: usize) -> String {
    format!(
        "[...document.querySelectorAll('#peers tr')].find((row) => row.querySelector('.user').textContent\
         .startsWith('{user}'))?.cells[{at}].textContent"
    )
}

async fn shots(page: &Browser, name: &str) {
    for (screen, of_screen) in [(Screen::Desktop, "desktop"), (Screen::Phone, "phone")] {
        page.set_screen(screen);
        for scheme in ["light", "dark"] {
            page.set_scheme(scheme);
            page.screenshot(&format!("debug-{name}-{of_screen}-{scheme}")).await;
            let overflow = page.run("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(
                overflow.as_i64().is_some_and(|px| px <= 0),
                "{of_screen} scrolls sideways by {overflow}"
            );
        }
    }
    page.set_screen(Screen::Desktop);
    page.set_scheme("light");
}

#[tokio::test]
async fn the_page_shows_a_call() {
    let server = Server::spawn(&[]);
    let members = call(&server).await;
    let driver = Driver::start("debug");
    let page = driver.browser().await;
    page.set_screen(Screen::Desktop);
    page.goto(&format!("http://localhost:{}/debug", server.http.port())).await;
    page.until("five peers", "document.querySelectorAll('#peers tr').length === 5").await;

    // Names are text.
    assert_eq!(page.until("Bobby", "document.querySelector('#peers [data-peer] .nick') && [...document.querySelectorAll('.nick')].map((e) => e.textContent).find((t) => t.includes('Tables'))").await, BOBBY);
    assert_eq!(
        page.run("return document.querySelectorAll('#board b i, #board i i, #rooms i, .nick b').length")
            .await,
        0
    );
    let rooms =
        page.run("return [...document.querySelectorAll('.room-name')].map((e) => e.textContent)").await;
    assert_eq!(rooms, serde_json::json!(["All rooms", "tea & <i>biscuits</i>", "standup"]));

    // Figures move, marks are right.
    page.until("who speaks", &format!("{}?.includes('speaking')", cell("ann", 2))).await;
    page.until("who is muted", &format!("{}?.includes('muted')", cell("cleo", 2))).await;
    page.until("a rate", &format!("Number({}) > 10", cell("ann", 3))).await;
    page.until("a round trip", &format!("/\\d ms/.test({})", cell("cleo", 5))).await;
    page.until("packets in", "Number(document.getElementById('f-in').textContent) > 100").await;
    page.until("a worker's load", "/\\d % busy/.test(document.getElementById('workers').textContent)").await;
    page.until(
        "plots",
        "document.querySelector('#p-in polyline')?.getAttribute('points').split(' ').length > 5",
    )
    .await;
    shots(&page, "board").await;

    // A room, a name, a peer; by keyboard.
    page.run("document.querySelectorAll('.room')[2].click()").await;
    page.until("the room's peers", "document.querySelectorAll('#peers tr').length === 2").await;
    page.run("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}))").await;
    assert_eq!(page.run("return document.activeElement.id").await, "find");
    page.fill("find", "EDDA").await;
    page.until("the one", "document.querySelectorAll('#peers tr').length === 1").await;
    page.run("document.querySelector('.who').click()").await;
    page.until("the sheet", "document.getElementById('sheet').open").await;
    page.until("its line", "document.querySelector('#slots')?.textContent.includes('dora')").await;
    let facts = page.run("return document.getElementById('facts').textContent").await;
    let facts = facts.as_str().expect("text");
    assert!(
        facts.contains("↔ 127.0.0.1:") && facts.contains("SRTP_") && facts.contains("connected for"),
        "{facts}"
    );
    shots(&page, "peer").await;
    page.run("document.getElementById('sheet-close').click()").await;

    // Paused: nothing is asked.
    page.click("pause").await;
    page.until("a pause", "document.getElementById('state-text').textContent === 'Paused'").await;
    // Looking at something else makes no time pass.
    let points = "return [...document.querySelectorAll('polyline')].map((it) => it.getAttribute('points'))";
    page.run("document.querySelectorAll('.room')[0].click()").await;
    let before = page.run(points).await;
    page.run("for (let n = 0; n < 20; n += 1) document.querySelectorAll('.room')[0].click()").await;
    assert_eq!(page.run(points).await, before);
    page.click("pause").await;
    page.until("life", "document.getElementById('state-text').textContent === 'Live'").await;
    assert_eq!(page.console(), Vec::<String>::new());

    // It hangs, and goes on.
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &server.pid().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {name}");
    };
    signal("-STOP");
    page.until("that it hangs", "document.getElementById('notice').textContent.includes('does not answer')")
        .await;
    assert_eq!(page.run("return document.getElementById('state-text').textContent").await, "No answer");
    signal("-CONT");
    page.until("life", "document.getElementById('state-text').textContent === 'Live'").await;
    drop(members);
    drop(server);
    page.until(
        "that nobody answers",
        "document.getElementById('notice').textContent.includes('cannot be reached')",
    )
    .await;
}

/// The server is started anew below it; and somebody is muted, whose silence is no loss.
#[tokio::test]
async fn the_page_begins_anew_with_the_server() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", called("Ann")).await;
    let ben = Client::join(&server, "hall", "ben", called("Ben")).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    ann.set_muted(true);
    let driver = Driver::start("debug-anew");
    let page = driver.browser().await;
    page.set_screen(Screen::Desktop);
    let port = server.http.port().to_string();
    page.goto(&format!("http://localhost:{port}/debug")).await;
    page.until("what is muted", "/muted \\d{3}/.test(document.getElementById('workers').textContent)").await;
    page.until("no drops", "document.getElementById('f-drops').textContent === '0'").await;
    page.run("document.querySelector('.who').click()").await;
    page.until("the sheet", "document.getElementById('sheet').open").await;
    let points = "document.querySelector('#p-in polyline').getAttribute('points').split(' ').length";
    page.until("a past", &format!("{points} > 10")).await;
    page.run(
        "window.shown = new Set();
        const look = () => document.querySelectorAll('.load, #f-drops, #f-load').forEach((it) => shown.add(it.textContent));
        new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true})",
    )
    .await;
    drop((ann, ben, server));
    let _server = Server::spawn(&[("PORT", &port)]);
    page.until("nobody", "!document.getElementById('no-peers').hidden").await;
    page.until("a past of its own", &format!("{points} < 8")).await;
    assert_eq!(page.run("return document.getElementById('sheet').open").await, false);
    page.until("figures", &format!("{points} > 4")).await;
    let negative = page.run("return [...shown].filter((text) => /^[-−]\\d/.test(text))").await;
    assert_eq!(negative, serde_json::json!([]));
}

/// Opens the page with the token, and the sheet of this peer.
async fn sheet_of(page: &Browser, server: &Server, token: &str, user: &str) {
    page.set_screen(Screen::Desktop);
    page.goto(&format!("http://localhost:{}/debug#token={token}", server.http.port())).await;
    page.until("the peer", &format!("{}?.includes('quiet')", cell(user, 2))).await;
    page.run("document.querySelector('.who').click()").await;
    page.until("the sheet", "document.getElementById('sheet').open").await;
}

const CAPTURE_SAID: &str = "document.getElementById('capture-said').textContent";

#[tokio::test]
async fn a_capture_is_one_click() {
    let folder = Folder::new();
    let mut server = Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("CAPTURE_DIR", folder.dir())]);
    let ann = Client::join(&server, "hall", "ann", called("Ann")).await;
    let ben = Client::join(&server, "hall", "ben", called("Ben")).await;
    ben.speak(30);
    ann.hears(&ben, 10).await;
    let driver = Driver::start("debug-capture");
    let page = driver.browser().await;
    sheet_of(&page, &server, TOKEN, "ann").await;
    assert!(
        page.run(&format!("return {CAPTURE_SAID}")).await.as_str().is_some_and(|it| it.contains("decrypted"))
    );
    page.click("capture").await;
    let said =
        page.until("a name", &format!("{CAPTURE_SAID}.startsWith('Writing sfu-') && {CAPTURE_SAID}")).await;
    let name = said.as_str().and_then(|said| said.split([' ', ',']).nth(1)).expect("a name").to_owned();
    assert_eq!(page.run("return document.getElementById('capture').ariaDisabled").await, "true");
    page.click("capture").await; // It is on its way already.
    shots(&page, "capture").await;
    // Another peer's is another matter.
    page.run("document.getElementById('sheet-close').click()").await;
    page.run("document.querySelectorAll('.who')[1].click()").await;
    page.until("nothing said", &format!("{CAPTURE_SAID}.includes('decrypted')")).await;
    assert_eq!(page.run("return document.getElementById('capture').ariaDisabled").await, "false");
    page.run("document.getElementById('sheet-close').click(); document.querySelector('.who').click()").await;
    page.until("the end", &format!("{CAPTURE_SAID} === '{name} is in CAPTURE_DIR'")).await;
    server.wait_for_log("the file", |log| log.contains("capture written").then_some(()));
    let files: Vec<_> =
        std::fs::read_dir(folder.dir()).expect("a folder").map(|file| file.expect("a file")).collect();
    assert_eq!(files.len(), 1, "one click, one file: {files:?}");
    assert_eq!(files[0].file_name().to_str(), Some(&*name));
    assert!(files[0].metadata().expect("a file").len() > 10_000, "some 500 packets");
    assert_eq!(page.console(), Vec::<String>::new());
}

#[tokio::test]
async fn a_capture_that_cannot_be_says_why() {
    let driver = Driver::start("debug-no-capture");
    for (env, token, why) in [
        (&[("DEBUG_TOKEN", TOKEN)][..], TOKEN, "captures are off: set CAPTURE_DIR"),
        (&[], "", "Captures need DEBUG_TOKEN to be set."),
    ] {
        let server = Server::spawn(env);
        let ann = Client::join(&server, "hall", "ann", called("Ann")).await;
        let page = driver.browser().await;
        sheet_of(&page, &server, token, "ann").await;
        page.click("capture").await;
        page.until(why, &format!("{CAPTURE_SAID} === '{why}'")).await;
        assert_eq!(page.run("return document.getElementById('capture-said').className").await, "wrong");
        assert_eq!(page.run("return document.getElementById('capture').ariaDisabled").await, "false");
        shots(&page, "no-capture").await;
        drop(ann);
    }
}

#[tokio::test]
async fn the_page_asks_for_the_token() {
    let server = Server::spawn(&[("DEBUG_TOKEN", TOKEN)]);
    let driver = Driver::start("debug-token");
    let page = driver.browser().await;
    let url = format!("http://localhost:{}/debug", server.http.port());
    page.goto(&url).await;
    page.until("a question", "!document.getElementById('key').hidden").await;
    shots(&page, "token").await;
    let show = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}'; document.getElementById('key').requestSubmit()"
        )
    };
    page.run(&show("not-the-token-of-this-server")).await;
    page.until("a word", "!document.getElementById('key-notice').hidden").await;
    page.run(&show(TOKEN)).await;
    page.until("the board", "!document.getElementById('board').hidden").await;
    page.reload().await;
    page.until("the board still", "!document.getElementById('board').hidden").await;

    // From the fragment, which no server sees, and which does not stay in the address.
    let page = driver.browser().await;
    page.goto(&format!("{url}#token={TOKEN}")).await;
    page.until("the board", "!document.getElementById('board').hidden").await;
    assert_eq!(page.run("return location.href").await, url);
    page.until("nobody", "!document.getElementById('no-peers').hidden").await;
    shots(&page, "empty").await;
}
