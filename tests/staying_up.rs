//! How the server ends, what it tells whoever watches over it, and what its log says.

mod support;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::seccomp::forbid;
use support::server::{ended_start, sfu};
use support::{Client, Halted, Options, PATIENCE, Server, now, pipe};

const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A file of this test's own, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("sfu-{name}-{}", std::process::id())))
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("our own name")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A supervisor starts it anew as soon as the old process is gone, which is before the kernel has ended its rings.
#[test]
fn a_port_that_is_given_back_a_moment_later_is_waited_for() {
    let held = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = held.local_addr().expect("bound").port().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sfu"))
        .current_dir(std::env::temp_dir())
        .envs([("PORT", "0"), ("ICE_UDP_MUX_PORT", &port)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let said = pipe::line(child.stderr.take().expect("piped"), |line| line.contains("waiting for it"));
    drop(held);
    let started = pipe::line(child.stdout.take().expect("piped"), |line| line.contains("demo page: "));
    child.kill().expect("our child");
    child.wait().expect("our child");
    assert!(started.is_some(), "it did not start");
    assert!(said.is_some_and(|line| line.contains(&port)), "it did not say why it waits");
}

/// The kernel takes a worker's only means of waiting away: there must be no server without one of its workers.
#[test]
fn a_lost_worker_ends_the_process() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
    let lost = libc::SECCOMP_RET_ERRNO | libc::EBADF as u32;
    // SAFETY: the filter takes a system call and no memory.
    unsafe { command.pre_exec(move || forbid(&[libc::SYS_epoll_pwait2], lost)) };
    let mut child = command
        .current_dir(std::env::temp_dir())
        .envs([("PORT", "0"), ("ICE_UDP_MUX_PORT", "0"), ("IO_BACKEND", "mmsg"), ("WORKERS", "2")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let deadline = now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if now() > deadline {
            child.kill().expect("our child");
            panic!("it goes on with a worker less");
        }
        std::thread::sleep(Duration::from_millis(10)); // A process's end cannot be awaited with a deadline.
    };
    assert_eq!(status.code(), Some(1));
    let mut words = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut words).expect("text");
    assert!(words.contains("worker lost its sockets, giving up"), "{words}");
}

#[tokio::test]
async fn calls_go_on_while_it_drains_and_it_ends_with_the_last() {
    let mut server = Server::spawn(&[("DRAIN_TIMEOUT", "10m")]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    server.terminate();
    let told = ben.message("draining", |_| true).await;
    assert_eq!(told["deadline"], 600_000, "{told}");

    let (status, health) = server.get("/health");
    assert!(status == 200 && health.contains("\"draining\""), "{status} {health}");
    assert_eq!(server.get("/ready").0, 503);
    let late = Client::start(server.http, "hall", "late", Options::default()).await;
    let refused = late.message("joined", |_| true).await;
    assert_eq!(refused["success"], false, "{refused}");
    assert_eq!(late.closed().await.0, 1001);

    // Whose WebSocket breaks comes back, and hears on.
    ben.lose_socket();
    ben.resume();
    ben.message("joined", |joined| joined["resumed"] == true).await;
    ben.hears(&ann, 20).await;

    ann.leave();
    ann.closed().await;
    assert_eq!(server.wait(Duration::ZERO), None, "one is still there");
    server.wait_for_log("the drain", |log| log.contains("INFO draining: nobody new is let in").then_some(()));
    ben.leave();
    ben.closed().await;
    assert!(server.wait(ENDS_WITHIN).expect("it ends with its last call").success());
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once_and_so_does_the_time() {
    for (timeout, more) in [("10m", 1), ("1s", 0)] {
        let mut server = Server::spawn(&[("DRAIN_TIMEOUT", timeout)]);
        let ann = Client::join(&server, "hall", "ann", Options::default()).await;
        server.terminate();
        ann.message("draining", |_| true).await;
        (0..more).for_each(|_| server.terminate());
        assert_eq!(ann.closed().await.0, 1001);
        assert!(server.wait(ENDS_WITHIN).expect("it ends in time").success());
    }
}

/// What systemd hears (sd_notify(3)): that it serves, that it lives, that it ends.
#[test]
fn a_supervisor_is_told() {
    let path = Scratch::new("notify");
    let supervisor = UnixDatagram::bind(&path.0).expect("a socket");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
    let hear = || {
        let mut words = [0; 256];
        let len = supervisor.recv(&mut words).expect("a word from the server");
        String::from_utf8_lossy(&words[..len]).trim().to_owned()
    };
    let mut server = Server::spawn(&[
        ("NOTIFY_SOCKET", path.text()),
        ("WATCHDOG_USEC", "300000"),
        ("DRAIN_TIMEOUT", "1s"),
    ]);
    assert_eq!(hear(), "READY=1");
    for _ in 0..5 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    server.terminate();
    let deadline = now() + PATIENCE;
    while hear() != "STOPPING=1" {
        assert!(now() < deadline, "only the watchdog");
    }
    assert!(server.wait(ENDS_WITHIN).expect("it ends").success());
}

/// A supervisor whose socket takes nothing more.
fn full(path: &Scratch) -> UnixDatagram {
    let supervisor = UnixDatagram::bind(&path.0).expect("a socket");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
    loop {
        // From a socket of its own each: only the receiver's queue is to be full.
        let other = UnixDatagram::unbound().expect("a socket");
        other.set_nonblocking(true).expect("a socket");
        match other.send_to(b"X_OTHER=1", &path.0) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return supervisor,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_supervisor_that_does_not_listen_holds_up_neither_calls_nor_the_end() {
    let path = Scratch::new("notify-deaf");
    let _supervisor = full(&path);
    let mut server = Server::spawn(&[
        ("NOTIFY_SOCKET", path.text()),
        ("WATCHDOG_USEC", "300000"),
        ("DRAIN_TIMEOUT", "1s"),
    ]);
    assert_eq!(server.get("/health").0, 200);
    server.wait_for_log("the watchdog", |log| log.contains("the supervisor does not take").then_some(()));
    assert_eq!(server.get("/health").0, 200);
    server.terminate();
    assert!(server.wait(ENDS_WITHIN).expect("it ends").success());
}

#[test]
fn a_supervisor_that_listens_late_has_lost_nothing_that_is_said_once() {
    let path = Scratch::new("notify-late");
    let supervisor = full(&path);
    let mut server = Server::spawn(&[
        ("NOTIFY_SOCKET", path.text()),
        ("WATCHDOG_USEC", "300000"),
        ("DRAIN_TIMEOUT", "10m"),
    ]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let ann = runtime.block_on(Client::join(&server, "hall", "ann", Options::default()));
    server.wait_for_log("the watchdog", |log| log.contains("the supervisor does not take").then_some(()));
    server.terminate();
    runtime.block_on(ann.message("draining", |_| true));
    let hear = || {
        let mut words = [0; 256];
        let len = supervisor.recv(&mut words).expect("a word from the server");
        String::from_utf8_lossy(&words[..len]).trim().to_owned()
    };
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.extend(Some(hear()).filter(|word| word != "X_OTHER=1"));
    }
    assert_eq!(heard, ["READY=1", "STOPPING=1", "WATCHDOG=1"], "what was stale is not said");
    ann.leave();
    assert!(server.wait(ENDS_WITHIN).expect("it ends with its last call").success());
}

/// A drain may last for hours, and a worker that hangs in it is a server that hangs.
#[test]
fn a_worker_that_hangs_ends_the_watchdog_also_while_it_drains() {
    let path = Scratch::new("notify-drain");
    let supervisor = UnixDatagram::bind(&path.0).expect("a socket");
    let server = Server::spawn(&[
        ("NOTIFY_SOCKET", path.text()),
        ("WATCHDOG_USEC", "3000000"), // The kernel holds ten words until they are read.
        ("DRAIN_TIMEOUT", "10m"),
        ("WORKERS", "1"),
    ]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _ann = runtime.block_on(Client::join(&server, "hall", "ann", Options::default()));
    server.terminate();
    let _halted = Halted::thread(server.pid(), "worker-0");
    supervisor.set_read_timeout(Some(Duration::from_secs(3))).expect("a valid time-out");
    let deadline = now() + PATIENCE;
    let mut is_ending = false;
    let mut words = [0; 256];
    // Three times what it may take between two words.
    while let Ok(len) = supervisor.recv(&mut words) {
        is_ending |= words[..len].starts_with(b"STOPPING=1");
        assert!(now() < deadline, "the watchdog is fed");
    }
    assert!(is_ending);
    let (status, health) = server.get("/health");
    assert!(status == 200 && health.contains("\"draining\""), "it may come to itself: {status} {health}");
}

#[test]
fn a_log_line_about_a_peer_says_whose_it_is() {
    let file = Scratch::new("log");
    let mut server = Server::spawn(&[("LOG_FORMAT", "json"), ("LOG_FILE", file.text())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ann = Client::join(&server, "hall", "ann", Options::default()).await;
        ann.leave();
        ann.closed().await;
    });
    server.terminate();
    assert!(server.wait(ENDS_WITHIN).expect("it ends").success());

    let text = std::fs::read_to_string(&file.0).expect("the log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for message in ["joined", "left"] {
        let line = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((&line["room"], &line["user"]), (&"hall".into(), &"ann".into()), "{line}");
        assert!(!line["connection"].is_null() && line["level"] == "INFO", "{line}");
    }
    assert!(!text.contains("127.0.0.1"), "addresses are for debug: {text}");
    assert!(server.log().contains("\"message\":\"joined\""), "standard error has it too");

    // The next start appends.
    let _again = Server::spawn(&[("LOG_FILE", file.text())]);
    assert!(std::fs::read_to_string(&file.0).expect("the log").starts_with(&text));
}

#[test]
fn a_log_file_that_cannot_be_written_ends_the_start() {
    let output = ended_start(sfu(&[]), &[("LOG_FILE", "/nowhere/sfu.log")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("LOG_FILE") && said.contains("/nowhere"), "{said}");
}

/// Where the disk is full the server goes on, and says so where it still can.
#[test]
fn a_full_disk_is_one_line_and_costs_nothing_else() {
    let begun = now();
    let mut server = Server::spawn(&[("LOG_FILE", "/dev/full"), ("LOG_LEVEL", "debug")]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for _ in 0..5 {
            let ann = Client::join(&server, "hall", "ann", Options::default()).await;
            ann.leave();
            ann.closed().await;
        }
    });
    server.wait_for_log("five calls", |log| (log.matches("INFO left").count() == 5).then_some(()));
    let lines = server.throttled_lines("LOG_FILE cannot be written to", begun);
    assert!(lines[0].contains("ERROR") && lines[0].contains("No space left"), "{lines:?}");
    let log = server.whole_log();
    assert!(!log.contains("Unable to write"), "{log}");
}

/// Out of descriptors, `accept` fails again and again until somebody goes.
#[test]
fn a_shortage_that_lasts_is_said_now_and_then_with_its_count() {
    let binary = env!("CARGO_BIN_EXE_sfu");
    let mut command = Command::new("sh");
    command.current_dir(std::env::temp_dir()).args(["-c", &format!("ulimit -n 100; exec {binary}")]);
    let begun = now();
    let mut server = Server::spawn_command(command, &[("WORKERS", "1")]);
    let crowd: Vec<_> =
        (0..400).map(|_| TcpStream::connect(server.http).expect("the kernel takes it")).collect();
    let what = "cannot accept connections for now";
    let first = server.wait_for_log("the first line", |log| log.find(what));
    let repeated = server.wait_for_log("the second", |log| {
        log[first + what.len()..].lines().find(|line| line.contains(what))?.split("repeated=").nth(1).map(
            |rest| {
                rest.chars()
                    .take_while(char::is_ascii_digit)
                    .collect::<String>()
                    .parse::<u32>()
                    .expect("a count")
            },
        )
    });
    assert!(repeated >= 10, "every tenth of a second: {repeated}");
    let lines = server.throttled_lines(what, begun);
    assert!(lines.iter().all(|line| line.contains("WARN")) && !lines[0].contains("repeated"), "{lines:?}");
    drop(crowd);
    assert_eq!(server.get("/health").0, 200, "it is well again");
    assert!(server.metric("gryt_sfu_tcp_accept_errors_total", &[]) > f64::from(repeated));
}

#[test]
fn too_few_file_descriptors_are_said_at_the_start() {
    let binary = env!("CARGO_BIN_EXE_sfu");
    let mut command = Command::new("sh");
    command.current_dir(std::env::temp_dir()).args(["-c", &format!("ulimit -n 500; exec {binary}")]);
    let mut server = Server::spawn_command(command, &[("MAX_CONNECTIONS", "1000")]);
    server.wait_for_log("the advice", |log| log.contains("MAX_CONNECTIONS=1000; raise").then_some(()));
}
