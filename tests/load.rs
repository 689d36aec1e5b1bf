//! `sfu-load` against the real server, and against servers that are not there, refuse, or say nonsense:
//! `cargo test --features load`.
//!
//! Needs Debian's `chromium` and `chromium-driver` for the report, and `janus`. Screenshots are left in
//! `target/screenshots`.

#[allow(dead_code, reason = "the tests of the demo page use the rest")]
#[path = "browser/driver.rs"]
mod driver;
#[allow(dead_code, reason = "what asks whether it is installed")]
#[path = "../tools/bench/janus.rs"]
mod janus;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use driver::{Driver, Screen};
use gryt_sfu::net::thread;
use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use serde_json::Value;
use support::folder::Folder;
use support::{PATIENCE, Server, now};

fn sfu_load(url: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu-load"));
    command.arg(url).args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

fn url_of(server: &Server) -> String {
    format!("ws://{}/", server.http)
}

/// Runs it to its end: exit status, and what it said.
fn run(url: &str, arguments: &str) -> (Option<i32>, String) {
    let output: Output = sfu_load(url, arguments).output().expect("sfu-load starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn json(path: &str) -> Value {
    let text = std::fs::read_to_string(path).expect("it wrote JSON");
    serde_json::from_str(&text).expect("it is JSON")
}

#[tokio::test]
async fn a_small_room_is_heard_and_reported() {
    let server = Server::spawn(&[]);
    let files = Folder::new();
    let (results, report) = (files.path("room.json"), files.path("room.html"));
    let (status, said) = run(
        &url_of(&server),
        &format!(
            "--rooms 2 --speakers 2 --listeners 2 --seconds 6 --pid {} --max-loss 50 --json {results} --report {report}",
            server.pid()
        ),
    );
    assert_eq!(status, Some(0), "{said}");
    for word in ["to first audio", "p99.9", "pairs heard", "server memory"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let found = json(&results);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert_eq!(number("/joins/connected"), 8.0, "{found:#}");
    assert_eq!(number("/joins/failed") + number("/joins/lost"), 0.0, "{found:#}");
    // In each room two listeners hear two, and two speakers hear one.
    assert_eq!((number("/packets/pairs_heard"), number("/packets/pairs_unheard")), (12.0, 0.0), "{found:#}");
    assert!(number("/packets/sent") > 400.0, "four voices for six seconds: {found:#}");
    let heard = number("/packets/received") + number("/packets/missing");
    // Who joins later hears less.
    assert!(heard > 2.0 * number("/packets/sent") && heard <= 3.0 * number("/packets/sent"), "{found:#}");
    assert_eq!(number("/packets/unreadable") + number("/packets/doubles"), 0.0, "{found:#}");
    assert!(number("/latency_ms/p50") > 0.0 && number("/latency_ms/p50") <= number("/latency_ms/max"));
    assert!(number("/joins/to_connected_ms/p50") <= number("/joins/to_first_audio_ms/max"), "{found:#}");
    assert!(number("/server/mib_max") > 1.0 && number("/server/cpu_percent_max") > 0.0, "{found:#}");
    assert!(found["seconds"].as_array().is_some_and(|seconds| seconds.len() >= 6), "{found:#}");

    let page = Driver::start("load").browser().await;
    page.set_screen(Screen::Desktop);
    page.goto(&format!("file://{report}")).await;
    assert_eq!(page.run("return document.querySelectorAll('figure svg path.line').length").await, 11);
    let spoilt =
        "[...document.querySelectorAll('path')].filter((p) => /NaN|inf/.test(p.getAttribute('d'))).length";
    assert_eq!(page.run(&format!("return {spoilt}")).await, 0);
    for (screen, scheme, name) in [
        (Screen::Desktop, "light", "load-report"),
        (Screen::Desktop, "dark", "load-report-dark"),
        (Screen::Phone, "light", "load-report-phone"),
        (Screen::Phone, "dark", "load-report-phone-dark"),
    ] {
        page.set_screen(screen);
        page.set_scheme(scheme);
        let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(page.run(&format!("return {overflow}")).await, 0, "{name} is wider than the screen");
        page.screenshot(name).await;
    }
    // Every element has been closed: what the page says last is in the body, not in a figure.
    let last = page.run("return document.body.lastElementChild.tagName").await;
    assert_eq!(last, "SECTION");
    assert_eq!(page.console(), Vec::<String>::new());
}

#[test]
fn light_members_come_and_go_and_speak_from_a_file() {
    let server = Server::spawn(&[]);
    let files = Folder::new();
    let (results, voice) = (files.path("light.json"), files.write("voice.opus", &sound_file()));
    let (status, said) = run(
        &url_of(&server),
        &format!(
            "--light --speakers 2 --listeners 6 --seconds 8 --churn 60 --mute 3/1 --dtx --threads 2 --max-loss 50 --input {voice} --json {results}"
        ),
    );
    assert_eq!(status, Some(0), "{said}");
    let found = json(&results);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert!(number("/joins/rejoined") >= 4.0, "{found:#}");
    assert_eq!(number("/joins/connected"), number("/joins/started"), "{found:#}");
    assert_eq!(number("/packets/unreadable"), 0.0, "what is looked into can be read: {found:#}");
    assert!(number("/packets/received") > 100.0 && number("/latency_ms/p99") > 0.0, "{found:#}");
}

#[test]
fn the_light_ones_hear_what_the_others_hear() {
    let server = Server::spawn(&[]);
    let files = Folder::new();
    let results = files.path("same.json");
    let arguments = "--speakers 1 --listeners 4 --seconds 8 --max-loss 50 --light --json";
    let (status, said) = run(&url_of(&server), &format!("{arguments} {results}"));
    assert_eq!(status, Some(0), "{said}");
    let found = json(&results);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert_eq!(number("/packets/pairs_heard"), 4.0, "{found:#}");
    let heard = number("/packets/received") + number("/packets/missing");
    assert!(heard > 3.0 * number("/packets/sent") && heard <= 4.0 * number("/packets/sent"), "{found:#}");
    // Consent lasts 30 s at most, the server forgets a silent client far sooner than it forgets a listener.
    assert_eq!(number("/joins/lost"), 0.0, "{found:#}");
}

/// What is put beside the server carries what the server would: speakers hear each other, and not themselves.
#[test]
fn the_bare_fan_out_carries_each_voice_to_all_others_of_its_room() {
    let files = Folder::new();
    let results = files.path("bare.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu-load"));
    let mut relay = Ended(command.arg("fan-out").stdout(Stdio::piped()).spawn().expect("sfu-load starts"));
    let mut address = String::new();
    BufReader::new(relay.0.stdout.take().unwrap()).read_line(&mut address).expect("it says where it is");
    let arguments = format!(
        "{address} --rooms 2 --speakers 3 --listeners 4 --seconds 3 --pid {} --json {results}",
        relay.0.id()
    );
    let (status, said) = run("bare", &arguments);
    assert_eq!(status, Some(0), "{said}");
    let found = json(&results);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let each = number("/packets/received") / number("/packets/sent");
    // Six; what is on its way at the end may be missing.
    assert!(
        (5.0..6.5).contains(&each),
        "{each} heard each voice, of two more speakers and four listeners: {found:#}"
    );
}

/// A shell grants 1,024 descriptors unless asked for more, and a member takes two.
#[test]
fn many_members_open_as_many_files() {
    let server = Server::spawn(&[]);
    let mut command = Command::new("prlimit");
    command.args(["--nofile=64:4096", "--", env!("CARGO_BIN_EXE_sfu-load"), &url_of(&server)]);
    let few = "--light --speakers 1 --listeners 40 --seconds 1 --join-rate 200";
    let output = command.args(few.split_whitespace()).output().expect("prlimit is there");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Voices come when they are due, whatever else there is to do; whoever may not have that is told so.
#[test]
fn speakers_run_first_where_that_is_asked_for() {
    const FIFO: &str = "1";
    let server = Server::spawn(&[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu-load"));
    let mut relay = Ended(command.arg("fan-out").stdout(Stdio::piped()).spawn().expect("sfu-load starts"));
    let mut address = String::new();
    BufReader::new(relay.0.stdout.take().unwrap()).read_line(&mut address).expect("it says where it is");
    let few = "--realtime --speakers 1 --listeners 1 --seconds 60";
    let files = Folder::new();
    let bare = format!("{address} {few} --pid {} --json {}", relay.0.id(), files.path("none.json"));
    let may = std::thread::spawn(|| thread::run_first().is_ok()).join().unwrap();
    for (target, arguments) in [(url_of(&server).as_str(), few), ("bare", &bare)] {
        if may {
            let mut load = sfu_load(target, arguments);
            let load =
                Ended(load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sfu-load starts"));
            let began = now();
            while policy_of(load.0.id(), "speakers").is_none_or(|policy| policy != FIFO) {
                assert!(began.elapsed() < PATIENCE, "{target}: speakers are like all others");
                std::thread::yield_now();
            }
            assert_ne!(policy_of(load.0.id(), "sfu-load").as_deref(), Some(FIFO), "{target}: only speakers");
        }
        let mut command = Command::new("prlimit");
        command.args(["--rtprio=0", "setpriv"]);
        if may {
            command.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]);
        }
        let refused = command.args(["--", env!("CARGO_BIN_EXE_sfu-load"), target]);
        let refused = refused.args(arguments.split_whitespace()).output().expect("prlimit is there");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{target}: {said}");
        assert!(said.contains("--realtime needs CAP_SYS_NICE"), "{target}: {said}");
    }
}

/// How a process's thread of this name is scheduled: field 41 of `/proc/1/task/1/stat` (proc_pid_stat(5)).
fn policy_of(process: u32, name: &str) -> Option<String> {
    std::fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten().find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (begin, rest) = stat.rsplit_once(") ")?;
        begin
            .ends_with(&format!("({name}"))
            .then(|| rest.split(' ').nth(41 - 3).unwrap_or_default().to_owned())
    })
}

/// Janus leaves the loopback interface alone: both live in a network of their own.
#[test]
fn the_same_voices_go_through_janus() {
    let files = Folder::new();
    let (folder, results) = (files.path("janus"), files.path("janus.json"));
    janus::configure(Path::new(&folder), "10.78.0.1", 8188).expect("the folder can be written to");
    let script = format!(
        "ip link set lo up && ip link add here type veth peer name there && ip addr add 10.78.0.1/24 dev here &&
        ip link set here up && ip link set there up || exit 90
        janus --disable-stdout --configs-folder {folder} & pid=$!
        until bash -c '</dev/tcp/10.78.0.1/8188' 2>&-; do kill -0 $pid || exit 91; sleep 0.05; done
        {} ws://10.78.0.1:8188/ --janus --rooms 2 --speakers 2 --listeners 3 --seconds 3 --pid $pid --json {results}",
        env!("CARGO_BIN_EXE_sfu-load")
    );
    let output = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
            "timeout",
            "60",
        ])
        .args(["bash", "-c", &script])
        .stdin(Stdio::null())
        .output()
        .expect("unshare starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found = json(&results);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert_eq!((number("/joins/connected"), number("/joins/lost")), (10.0, 0.0), "{found:#}");
    // In each room three listeners hear two, and speakers nobody.
    assert_eq!((number("/packets/pairs_heard"), number("/packets/pairs_unheard")), (12.0, 0.0), "{found:#}");
    let heard = number("/packets/received") + number("/packets/missing");
    assert!(heard > 2.0 * number("/packets/sent") && heard <= 3.0 * number("/packets/sent"), "{found:#}");
    assert_eq!(number("/packets/unreadable") + number("/packets/doubles"), 0.0, "{found:#}");
    assert!(number("/latency_ms/p50") > 0.0, "{found:#}");
}

#[test]
fn of_many_listeners_some_hear_and_all_stay() {
    let server = Server::spawn(&[]);
    let files = Folder::new();
    let results = files.path("some.json");
    let arguments = "--speakers 1 --listeners 4 --hear-every 4 --seconds 8 --max-loss 50 --light --json";
    let (status, said) = run(&url_of(&server), &format!("{arguments} {results}"));
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("one in 4 of whom hears"), "{said}");
    let found = json(&results);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    // The first words reached the others, too.
    let (sent, heard) = (number("/packets/sent"), number("/packets/received") + number("/packets/missing"));
    assert!(heard > 0.7 * sent && heard < 1.5 * sent, "{found:#}");
    assert_eq!((number("/packets/pairs_heard"), number("/joins/lost")), (1.0, 0.0), "{found:#}");
    assert_eq!(
        number("/own/overflowed"),
        0.0,
        "what the kernel keeps from the deaf it was asked to: {found:#}"
    );
}

#[test]
fn over_tls_the_certificate_is_looked_at_unless_told_otherwise() {
    let files = Folder::new();
    let certified = files.certify();
    let server = Server::spawn(&certified.env());
    let url = format!("wss://localhost:{}/", server.http.port());
    let members = "--speakers 1 --listeners 2 --seconds 2 --max-loss 50";
    for trust in [format!("--ca {}", certified.certificate), "--insecure".to_owned()] {
        let (status, said) = run(&url, &format!("{members} {trust}"));
        assert_eq!(status, Some(0), "{trust}: {said}");
        assert!(said.contains(&url) && said.contains("2 of 2"), "{trust}: {said}");
    }
    // This machine does not know it, another's certificate is not its own, and it is not called so.
    let stranger = Folder::new();
    let strangers = stranger.certify();
    let by_number = format!("wss://127.0.0.2:{}/", server.http.port());
    for (url, trust, why) in [
        (&url, String::new(), "invalid peer certificate"),
        (&url, format!("--ca {}", strangers.certificate), "invalid peer certificate"),
        (&by_number, format!("--ca {}", certified.certificate), "not valid for name"),
    ] {
        let (status, said) = run(url, &format!("--speakers 1 --listeners 0 {trust}"));
        assert_eq!(status, Some(2), "{url} {trust}: {said}");
        assert!(said.contains("nobody could join") && said.contains(why), "{url} {trust}: {said}");
    }
}

/// Datagrams that the kernel dropped for want of room in this process's UDP sockets, as it counts them.
fn dropped_by_the_kernel(pid: u32) -> u64 {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("our child");
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let inodes: Vec<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let table = ["udp", "udp6"].map(|name| std::fs::read_to_string(format!("/proc/net/{name}")));
    let table: String = table.into_iter().map_while(Result::ok).collect();
    let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row.get(9).is_some_and(|inode| inodes.iter().any(|ours| ours == inode)));
    ours.filter_map(|row| row.last()?.parse::<u64>().ok()).sum()
}

/// A child that ends with the value.
struct Ended(Child);

impl Ended {
    /// sfu-load, and what it says of its progress.
    fn begin(server: &Server, arguments: &str) -> (Ended, impl Iterator<Item = String> + use<>) {
        let mut command = sfu_load(&url_of(server), arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sfu-load starts");
        let mut child = Ended(child);
        let progress = BufReader::new(child.0.stderr.take().expect("piped")).lines();
        (child, progress.map_while(Result::ok))
    }

    /// Waits for its end: exit status, and what it printed.
    fn finish(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        (self.0.wait().expect("our child").code(), said)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A load tool that was kept from its CPU has lost what the server sent, and does not blame the server.
#[test]
fn it_says_when_it_was_the_bottleneck_itself() {
    let server = Server::spawn(&[]);
    let (speakers, mut progress) =
        Ended::begin(&server, "--speakers 6 --listeners 0 --payload 1000 --seconds 120");
    progress.find(|line| line.contains("6 of 6 connected")).expect("progress");

    let files = Folder::new();
    let results = files.path("bottleneck.json");
    let arguments = format!("--light --speakers 1 --listeners 2 --seconds 14 --json {results}");
    let (child, mut heard) = Ended::begin(&server, &arguments);
    heard.find(|line| line.contains("3 of 3 connected")).expect("progress");
    let pid = child.0.id();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill exists");
        assert!(status.success());
    };
    signal("-STOP");
    let deadline = now() + PATIENCE;
    while dropped_by_the_kernel(pid) == 0 && now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50)); // The kernel does not tell when it drops.
    }
    signal("-CONT");
    heard.for_each(drop);
    let (_, said) = child.finish();
    drop(speakers);
    assert!(said.contains("the bottleneck was sfu-load, not the server"), "{said}");
    assert!(said.contains("datagrams reached this machine and were dropped"), "{said}");
    let found = json(&results);
    assert!(found["own"]["bottleneck"].as_str().is_some_and(|why| why.contains("dropped")), "{found:#}");
}

#[test]
fn broken_thresholds_end_with_status_1() {
    let server = Server::spawn(&[]);
    let (status, said) = run(&url_of(&server), "--speakers 1 --listeners 1 --seconds 2 --max-p99 0");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("BROKEN") && said.contains("99th percentile"), "{said}");
}

#[test]
fn a_full_server_is_named_and_counted() {
    let server = Server::spawn(&[("MAX_CONNECTIONS", "2")]);
    let (status, said) = run(&url_of(&server), "--speakers 1 --listeners 3 --seconds 2 --join-timeout 10");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("2 joins failed") && said.contains("full"), "{said}");
    let (status, said) =
        run(&url_of(&server), "--speakers 1 --listeners 3 --seconds 2 --max-failures 2 --room second");
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_server_that_is_not_there_or_no_server_of_ours_ends_with_status_2() {
    let nobody =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port");
    let (status, said) = run(&format!("ws://{nobody}/"), "");
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("no server at") && said.contains("refused"), "{said}");

    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = other.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in other.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let head =
                reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            if head > 0 {
                let _ = reader.get_mut().write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    let (status, said) = run(&format!("ws://{address}/"), "--speakers 1 --listeners 1");
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("404"), "{said}");
}

/// The server is anybody: what it says is bounded, and shown so that it does no harm.
#[test]
fn a_server_that_says_nonsense_is_quoted_with_care() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        use tokio_tungstenite::tungstenite::{Message, accept};
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(mut socket) = accept(stream) else { continue };
            let _ = socket.read();
            let _ = socket.send(Message::text(format!("\u{1b}[2Jnonsense{}", "x".repeat(5_000))));
            while socket.read().is_ok() {}
        }
    });
    let (status, said) = run(&format!("ws://{address}/"), "--speakers 1 --listeners 0");
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("nonsense") && !said.contains('\u{1b}') && said.len() < 1_000, "{said}");
}

#[test]
fn bad_usage_ends_with_status_2() {
    let files = Folder::new();
    let cut = files.write("cut.opus", &sound_file()[..60]);
    for (url, arguments, expected) in [
        ("ws://localhost/", "--max-loss 200", "percentage"),
        ("ws://localhost/", "--mute 7", "20/5"),
        ("ws://localhost/", "--insecure", "for wss://"),
        ("ws://localhost/", "--janus --churn 9", "cannot be used with"),
        ("wss://localhost/", "--ca /nowhere.pem", "/nowhere.pem"),
        ("wss://localhost/", "--ca /etc/hostname --insecure", "cannot be used with"),
        ("http://localhost/", "", "ws://"),
        ("ws://localhost/", "--report /nowhere/report.html", "cannot be written"),
        ("--no-such-option", "", "unexpected argument"),
    ] {
        let (status, said) = run(url, arguments);
        assert_eq!(status, Some(2), "{url} {arguments}: {said}");
        assert!(said.contains(expected), "{url} {arguments}: {said}");
    }
    let server = Server::spawn(&[]);
    let (status, said) = run(&url_of(&server), &format!("--input {cut}"));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("cannot be played"), "{said}");
    let (status, said) = run(&url_of(&server), "--pid 4194305");
    assert_eq!(status, Some(2), "{said}");
}

#[test]
fn a_signal_ends_it_with_the_report() {
    let server = Server::spawn(&[]);
    let files = Folder::new();
    let results = files.path("interrupted.json");
    let arguments = format!("--speakers 1 --listeners 1 --seconds 600 --json {results}");
    let (child, mut progress) = Ended::begin(&server, &arguments);
    // Every five seconds it says how it goes.
    let line = progress.by_ref().filter(|line| line.contains("2 of 2 connected")).nth(1).expect("progress");
    assert!(line.contains("loss") && line.contains("p99"), "{line}");
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill exists").success());
    progress.for_each(drop);
    let (status, said) = child.finish();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("interrupted") && said.contains("latency"), "{said}");
    let found = json(&results);
    assert_eq!(found["interrupted"], true);
    assert!(found["packets"]["received"].as_u64().is_some_and(|received| received > 50), "{found:#}");
}

/// Runs for a while, then something happens to the server; returns exit status, output, and the results.
fn run_until(server: &Server, arguments: &str, name: &str, signal: &str) -> (Option<i32>, String, Value) {
    let files = Folder::new();
    let results = files.path(name);
    let arguments = format!("--speakers 1 --listeners 2 --seconds 12 {arguments} --json {results}");
    let (child, mut progress) = Ended::begin(server, &arguments);
    progress.find(|line| line.contains("3 of 3 connected")).expect("progress");
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill exists").success());
    progress.for_each(drop);
    let (status, said) = child.finish();
    (status, said, json(&results))
}

/// A server that falls silent leaves no gaps in the sequence numbers: what came last is compared with what was sent.
#[test]
fn a_server_that_falls_silent_has_lost_what_it_did_not_send() {
    let server = Server::spawn(&[]);
    let (status, said, found) = run_until(&server, "--max-loss 5", "silent.json", "-STOP");
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("of the packets were lost"), "{said}");
    let loss = found["packets"]["loss_percent"].as_f64().expect("a number");
    assert!((5.0..100.0).contains(&loss), "{found:#}");
    assert_eq!(found["packets"]["pairs_heard"], 2, "{found:#}");
}

#[test]
fn a_server_that_dies_has_lost_its_members() {
    let server = Server::spawn(&[]);
    let (status, said, found) = run_until(&server, "", "dead.json", "-KILL");
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(found["joins"]["lost"], 3, "{found:#}");
    assert!(said.contains("3 joins failed or connections were lost"), "{said}");
}

/// Two seconds of silence in packets of different kinds and lengths.
fn sound_file() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = PacketWriter::new(&mut bytes);
    let head = b"OpusHead\x01\x01\x38\x01\x80\xBB\0\0\0\0\0".to_vec();
    let tags = b"OpusTags\0\0\0\0\0\0\0\0".to_vec();
    for (i, packet) in [head, tags].into_iter().enumerate() {
        writer.write_packet(packet, 1, PacketWriteEndInfo::EndPage, i as u64).expect("memory");
    }
    for i in 0..80_u64 {
        let packet = match i % 3 {
            0 => vec![0xF8, 0xFF, 0xFE],
            1 => vec![0xF9, 0xFF, 0xFE, 0xFF, 0xFE],
            _ => vec![0xFB, 0x41, 9, 0xFF, 0xFE, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        let end = if i == 79 { PacketWriteEndInfo::EndStream } else { PacketWriteEndInfo::NormalPacket };
        writer.write_packet(packet, 1, end, i * 960).expect("memory");
    }
    bytes
}
