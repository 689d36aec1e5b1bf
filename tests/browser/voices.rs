//! Browsers in a room hear each other, each told by the tone that it sends.

use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use super::support::folder::Folder;
use super::support::silence::play_silence;
use super::*;

const TONE: &str = include_str!("tone.js");

/// Browsers are many processes, and the machine may be small: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn three_browsers_hear_each_other() {
    const ROOM: &str = "three tones";
    let server = Server::spawn(&[]);
    let url = format!("http://localhost:{}/", server.http.port());
    let test = async {
        let driver = Driver::start("three");
        let mut people = come(&driver, &url, ROOM, &["Ada", "Björk", "Tomás"]).await;
        for listener in &people {
            for speaker in others(&people, listener) {
                listener.hears(speaker).await;
            }
        }
        let ada = &people[0].page;
        for (screen, width) in [(Screen::Desktop, "desktop"), (Screen::Phone, "phone")] {
            for scheme in ["light", "dark"] {
                ada.set_screen(screen);
                ada.set_scheme(scheme);
                ada.until("a speaking mark", "document.querySelectorAll('.person.speaking').length === 3")
                    .await;
                ada.screenshot(&format!("three-{width}-{scheme}")).await;
            }
        }

        // One mutes: silent everywhere, the others go on.
        let [ada, bjork, tomas] = &people[..] else { unreachable!() };
        bjork.page.click("mute").await;
        for listener in [ada, tomas] {
            listener.page.until("silence", &is_silent(&bjork.user)).await;
            let mark = format!(
                "document.querySelector('[data-user=\"{}\"] .mark').textContent === 'muted'",
                bjork.user
            );
            listener.page.until("a muted mark", &mark).await;
        }
        ada.hears(tomas).await;
        tomas.hears(ada).await;
        bjork.page.click("mute").await;
        for listener in [ada, tomas] {
            listener.hears(bjork).await;
        }

        // One leaves: gone everywhere.
        tomas.page.click("leave").await;
        for listener in [ada, bjork] {
            listener.page.until("an empty place", &format!("!gryt.members['{}']", tomas.user)).await;
            listener
                .page
                .until("an empty slot", &format!("!gryt.voices().some((v) => v.userId === '{}')", tomas.user))
                .await;
        }
        ada.hears(bjork).await;

        // One reloads: back under the same name, heard and hearing.
        bjork.page.reload().await;
        let user = bjork.user.clone();
        let page = people.remove(1).page;
        let bjork = Person::come(page, "Björk", 900.0, ROOM).await;
        assert_eq!(bjork.user, user, "a reload keeps the user id");
        people[0].hears(&bjork).await;
        bjork.hears(&people[0]).await;
        for person in [&people[0], &bjork] {
            assert_eq!(person.page.console(), Vec::<String>::new());
        }
    };
    in_turn(test);
}

/// A page that stops an m-line hears who comes next, on a new m-line in the place of the old: with two slots there is no
/// other.
#[test]
fn a_stopped_transceiver_makes_room() {
    const ROOM: &str = "stopped";
    let server = Server::spawn(&[("AUDIO_SLOTS", "2")]);
    let url = format!("http://localhost:{}/", server.http.port());
    let test = async {
        let driver = Driver::start("stopped");
        let mut people = come(&driver, &url, ROOM, &["Ada", "Björk", "Tomás"]).await;
        let tomas = people.remove(2);
        let [ada, bjork] = &people[..] else { unreachable!() };
        ada.hears(bjork).await;
        ada.hears(&tomas).await;
        // Björk came first and is on the page's own m-line.
        ada.page
            .run("window.old = gryt.peer.getTransceivers().find((it) => it.mid.startsWith('s')); old.stop();")
            .await;
        ada.page
            .until(
                "its end",
                "gryt.peer.getTransceivers().length === 1 && old.currentDirection === 'stopped'",
            )
            .await;
        ada.hears(bjork).await;
        tomas.page.reload().await;
        let tomas = Person::come(tomas.page, "Tomás", tomas.hz, ROOM).await;
        ada.hears(&tomas).await;
        ada.hears(bjork).await;
        let lines = "return gryt.peer.remoteDescription.sdp.match(/^m=audio [^0]/gm).length";
        assert_eq!(ada.page.run(lines).await, json!(2), "in the place of the old one");
        assert_eq!(ada.page.console(), Vec::<String>::new());
    };
    in_turn(test);
}

/// All of a tick in one send: what a browser says is padded to the length of a longer voice, for another browser.
#[test]
fn padded_voices_sound_as_they_are() {
    const ROOM: &str = "padded";
    let server = Server::spawn(&[("EGRESS_TICK_MS", "20"), ("GSO_PAD_MAX", "255")]);
    let url = format!("http://localhost:{}/", server.http.port());
    let test = async {
        let driver = Driver::start("padded");
        let people = come(&driver, &url, ROOM, &["Ada", "Björk"]).await;
        let long = Client::join(&server, ROOM, "long", Options { keeps: false, ..Options::default() }).await;
        let short =
            Client::join(&server, ROOM, "short", Options { keeps: false, ..Options::default() }).await;
        let padded = async {
            // One after the other: what is heard then has been padded for long.
            for least in [50_000.0, 100_000.0] {
                server.metric_reaches("gryt_sfu_padding_out_bytes_total", &[], least).await;
                for (listener, speaker) in [(0, 1), (1, 0)] {
                    people[listener].hears(&people[speaker]).await;
                }
            }
            // Each decoded packet is 20 ms of sound; a decoder that chokes on padding conceals instead.
            let sounds = "gryt.peer.getStats().then((stats) => {
                const lines = [...stats.values()].filter((s) => s.type === 'inbound-rtp' && s.audioLevel > 0.01);
                const since = (s) => window.since?.get(s.id);
                if (!lines.length || !lines.every((s) => since(s)?.concealmentEvents === s.concealmentEvents)) {
                    window.since = new Map(lines.map((s) => [s.id, s]));
                }
                return lines.some((s) => s.totalSamplesReceived >= since(s).totalSamplesReceived + 24000);
            })";
            for person in &people {
                person.page.until("half a second of sound without concealment", sounds).await;
            }
        };
        tokio::select! {
            () = play_silence(&long, 250) => unreachable!(),
            () = play_silence(&short, 5) => unreachable!(),
            () = padded => {}
        }
        for person in &people {
            assert_eq!(person.page.console(), Vec::<String>::new());
        }
    };
    in_turn(test);
}

/// On a host that is not localhost only https has a microphone to give. The server's own page is no foreign one.
#[test]
fn over_https_the_page_speaks_wss() {
    let folder = Folder::new();
    let certified = folder.certify();
    let [certificate, key] = certified.env();
    let server = Server::spawn(&[certificate, key, ("CORS_ORIGINS", "https://app.example")]);
    let url = format!("https://plain.test:{}/", server.http.port());
    let test = async {
        let driver = Driver::start("tls");
        let mut people = Vec::new();
        for (name, hz) in [("Ada", 500.0), ("Tomás", 1400.0)] {
            let page = driver.browser_with(&["--ignore-certificate-errors"]).await;
            page.goto(&url).await;
            people.push(Person::come(page, name, hz, "tls").await);
        }
        people[0].hears(&people[1]).await;
        people[1].hears(&people[0]).await;
    };
    in_turn(test);
}

/// A page in a room of fifty open microphones has a line with sound for each of the others.
#[test]
fn a_room_of_fifty_open_microphones() {
    const OTHERS: u8 = 49;
    let server = Server::spawn(&[("AUDIO_SLOTS", "64")]);
    let url = format!("http://localhost:{}/", server.http.port());
    let test = async {
        let mut clients = Vec::new();
        for i in 0..OTHERS {
            let options = Options { keeps: false, ..Options::default() };
            let client = Client::join(&server, "crowd", &format!("m{i}"), options).await;
            // They only speak: what the page hears is looked at.
            client.set_deafened(true);
            // A third of a voice's packets, for everything here shares two cores.
            client.speak_every(20 + i, Duration::from_millis(60));
            clients.push(client);
        }
        let driver = Driver::start("fifty");
        let page = driver.browser().await;
        page.goto(&url).await;
        let person = Person::come(page, "Ada", 500.0, "crowd").await;
        person
            .page
            .until(
                "49 voices",
                "new Set(gryt.voices().map((v) => v.userId).filter((user) => user?.startsWith('m'))).size === 49",
            )
            .await;
        // Fifty packets in a row on every line. What a busy browser leaves in its socket's buffer begins that line's
        // count anew; a server that left gaps would never be done.
        person
            .page
            .until(
                "packets on 49 lines",
                "gryt.peer.getStats().then((stats) => {
                    window.rows ??= new Map();
                    for (const s of stats.values()) {
                        if (s.type !== 'inbound-rtp') continue;
                        const row = rows.get(s.id);
                        if (!row?.done && row?.lost !== s.packetsLost) {
                            rows.set(s.id, { lost: s.packetsLost, from: s.packetsReceived });
                        } else if (s.packetsReceived >= row.from + 50) {
                            row.done = true;
                        }
                    }
                    return [...rows.values()].filter((row) => row.done).length === 49;
                })",
            )
            .await;
        assert_eq!(server.metric("gryt_sfu_drops_total", &["reason=\"send_"]), 0.0, "the server sent it all");
        clients[0].until("the page's voice", |state| state.stream_of(&person.user)).await;
        assert_eq!(person.page.console(), Vec::<String>::new());
    };
    in_turn(test);
}

fn in_turn(test: impl Future<Output = ()>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(TEST_MAX, test).await.expect("the test hangs") });
}

struct Person {
    page: Browser,
    user: String,
    hz: f64,
}

/// Each with a browser and a tone of its own, one after the other.
async fn come(driver: &Rc<Driver>, url: &str, room: &str, names: &[&str]) -> Vec<Person> {
    let mut people = Vec::new();
    for (name, hz) in names.iter().zip([500.0, 900.0, 1400.0]) {
        let page = driver.browser().await;
        page.goto(url).await;
        people.push(Person::come(page, name, hz, room).await);
    }
    people
}

fn others<'a>(people: &'a [Person], me: &Person) -> impl Iterator<Item = &'a Person> {
    people.iter().filter(|person| person.user != me.user)
}

impl Person {
    /// Joins from a page that is at the door.
    async fn come(page: Browser, name: &str, hz: f64, room: &str) -> Person {
        page.run(&TONE.replace("HZ", &hz.to_string())).await;
        join(&page, name, room).await;
        let Value::String(user) = page.run("return gryt.userId").await else { panic!("a user id is text") };
        Person { page, user, hz }
    }

    async fn hears(&self, speaker: &Person) {
        self.page.until(&format!("{} Hz", speaker.hz), &hears(&speaker.user, speaker.hz)).await;
    }
}
