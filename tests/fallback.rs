//! Where the kernel refuses a ring the server does without: it says so once, and calls go on as on a ring.

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use support::seccomp::forbid;
use support::server::ended_start;
use support::{Client, Options, Server, assert_clean};

/// Everything that a ring is made with and used by.
const RING_CALLS: &[libc::c_long] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// As seccomp profiles refuse.
const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
/// As kernels do that have no such call.
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What the server says when it would have liked a ring.
const WARNING: &str = "warning:   io_uring is not allowed here";

/// The server, for whose rings the kernel has this answer.
fn sfu(answer: u32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
    command.current_dir(std::env::temp_dir());
    // SAFETY: the filter takes two system calls and no memory.
    unsafe { command.pre_exec(move || forbid(RING_CALLS, answer)) };
    command
}

/// Rooms on both workers, heard on both sides of each.
async fn assert_calls_work(server: &Server) {
    let call = |room| async move {
        let ann = Client::join(server, room, "ann", Options::default()).await;
        let ben = Client::join(server, room, "ben", Options { trickle: true, ..Options::default() }).await;
        ann.speak(20);
        ben.speak(30);
        tokio::join!(ann.hears(&ben, 60), ben.hears(&ann, 60));
        assert_clean(&ann, &ben);
        assert_clean(&ben, &ann);
    };
    tokio::join!(call("red"), call("green"), call("blue"));
}

#[tokio::test]
async fn a_refused_ring_costs_a_warning_and_no_call() {
    for answer in [REFUSED, UNKNOWN] {
        let env = [("IO_BACKEND", "auto"), ("WORKERS", "2")];
        let mut server = Server::spawn_command(sfu(answer), &env);
        assert_calls_work(&server).await;
        server.metric_reaches("gryt_sfu_worker_info", &["backend=\"mmsg\""], 2.0).await;
        let (_, workers) = server.get("/debug/workers");
        assert_eq!(workers.matches("\"backend\":\"mmsg\"").count(), 2, "{workers}");
        server.terminate();
        assert!(server.wait(Duration::from_secs(20)).expect("it ends in time").success());
        let log = server.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("io_uring")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains(WARNING) && warnings[0].contains("seccomp.json"), "{log}");
        assert!(log.contains("backend:   recvmmsg and sendmmsg on Linux"), "{log}");
    }
}

/// One try would be its end.
#[tokio::test]
async fn who_asks_for_none_gets_none_and_no_warning() {
    let env = [("IO_BACKEND", "mmsg"), ("WORKERS", "2"), ("BATCH_WAIT_US", "500")];
    let mut server = Server::spawn_command(sfu(libc::SECCOMP_RET_KILL_PROCESS), &env);
    assert_calls_work(&server).await;
    server.terminate();
    assert!(server.wait(Duration::from_secs(20)).expect("it ends in time").success());
    assert!(!server.log().contains("io_uring"), "{}", server.log());
}

#[test]
fn who_asks_for_a_ring_by_name_gets_it_or_no_server() {
    let output = ended_start(sfu(REFUSED), &[("IO_BACKEND", "uring")]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.starts_with("sfu: io_uring is not allowed here") && words.lines().count() == 1, "{words}");
    assert!(output.stdout.is_empty(), "nothing is announced that is not there");
}

#[test]
fn a_check_says_what_a_start_would_use() {
    let check = |wanted| {
        let mut command = sfu(REFUSED);
        command.arg("--check");
        ended_start(command, &[("IO_BACKEND", wanted)])
    };
    let refused = check("uring");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.starts_with("sfu: io_uring is not allowed here"), "{words}");
    for wanted in ["auto", "mmsg"] {
        let output = check(wanted);
        let words = String::from_utf8_lossy(&output.stdout);
        let last = words.lines().last().expect("a line");
        assert!(
            output.status.success() && last.starts_with("# media passes by recvmmsg and sendmmsg"),
            "{words}"
        );
    }
}
