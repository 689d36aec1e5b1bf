//! The seccomp profile: readable for Docker and for Kubernetes, wide enough for the server and no wider.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::house::{Folder, NOBODY, is_root, output, path, text};
use crate::support::server::ended_start;
use crate::support::{Client, Options, Server, assert_clean};

const PROFILE: &str = "tools/deploy/seccomp.json";

/// All that the profile adds to the container engines' own.
const ADDED: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

/// Calls that engines keep from a container without added capabilities, each a way out of it.
const FORBIDDEN: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "init_module",
    "iopl",
    "ioperm",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "quotactl",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
];

/// A command under a profile, where it is `nobody` in `folder`; `without` are calls taken out of the profile.
pub(crate) fn under(profile: &Path, without: &[&str], folder: &Path, command: &[&str]) -> Command {
    let mut words = Vec::new();
    if is_root() {
        words.extend(["/usr/bin/setpriv", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
        words.extend(["--reuid", NOBODY, "--regid", NOBODY, "--inh-caps=-all"]);
    }
    words.extend(command);
    let mut python = as_we_are_under(profile, without, &words);
    python.current_dir(folder);
    python
}

/// As [`under`], with all that this process may do.
fn as_we_are_under(profile: &Path, without: &[&str], command: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.arg(path("tests/deploy/under_seccomp.py")).arg(profile);
    if !without.is_empty() {
        python.arg("--without").arg(without.join(","));
    }
    python.arg("--").args(command);
    python
}

/// A folder with the server in it.
pub(crate) fn folder_with_server(name: &str) -> (Folder, String) {
    let folder = Folder::new(name);
    folder.with(env!("CARGO_BIN_EXE_sfu").as_ref(), "sfu");
    let server = folder.0.join("sfu").to_str().expect("plain names").to_owned();
    (folder, server)
}

/// Two people hear each other.
pub(crate) async fn assert_serves(server: &Server) {
    assert_eq!(server.get("/health").0, 200);
    let ann = Client::join(server, "hall", "ann", Options::default()).await;
    let ben = Client::join(server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 30).await;
    assert_clean(&ben, &ann);
}

#[test]
fn docker_and_kubernetes_read_it_alike() {
    let profile: Value = serde_json::from_str(&text(PROFILE)).expect("JSON");
    let fields: HashSet<_> = profile.as_object().expect("an object").keys().map(String::as_str).collect();
    // Docker alone knows archMap, includes and excludes; Kubernetes' engines pass over them, so that a rule
    // meant for some would be one for all.
    assert_eq!(fields, HashSet::from(["defaultAction", "defaultErrnoRet", "architectures", "syscalls"]));
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["defaultErrnoRet"], 1, "EPERM");
    let mut allowed = HashSet::new();
    for rule in profile["syscalls"].as_array().expect("rules") {
        let fields = rule.as_object().expect("an object");
        let unknown = |name: &&String| !["names", "action", "args", "errnoRet"].contains(&name.as_str());
        assert_eq!(fields.keys().find(unknown), None);
        let names = rule["names"].as_array().expect("names");
        assert!(!names.is_empty());
        for argument in rule["args"].as_array().into_iter().flatten() {
            assert!(argument["index"].is_u64() && argument["value"].is_u64() && argument["op"].is_string());
        }
        if rule["action"] == "SCMP_ACT_ERRNO" {
            assert_eq!((&rule["names"][0], &rule["errnoRet"]), (&"clone3".into(), &libc::ENOSYS.into()));
        } else if fields.contains_key("args") {
            assert_eq!(rule["action"], "SCMP_ACT_ALLOW");
        } else {
            assert_eq!(rule["action"], "SCMP_ACT_ALLOW");
            for name in names {
                let name = name.as_str().expect("a name");
                assert!(allowed.insert(name), "{name} stands there twice");
            }
        }
    }
    assert!(ADDED.iter().all(|name| allowed.contains(name)));
    assert!(allowed.len() > 250, "a program can hardly run with {}", allowed.len());
    for name in FORBIDDEN.iter().chain(&["clone", "clone3", "socket", "personality"]) {
        assert!(!allowed.contains(name), "{name} is allowed in whatever way");
    }
}

#[tokio::test]
async fn the_server_serves_under_it() {
    let (folder, sfu) = folder_with_server("seccomp");
    let server = Server::spawn_command(under(&path(PROFILE), &[], &folder.0, &[&sfu]), &[]);
    assert_serves(&server).await;
    let process = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    assert!(process.contains("\nSeccomp:\t2\n"), "a filter is in force");
    assert!(process.contains("\nNoNewPrivs:\t1\n") && process.contains("\nCapEff:\t0000000000000000\n"));
}

/// To whom the kernel would allow it: `nobody` is refused with any profile.
#[test]
fn what_it_forbids_is_forbidden() {
    for namespace in ["--user", "--mount", "--net"] {
        let command = ["/usr/bin/unshare", namespace, "/bin/true"];
        let control = output(Command::new(command[0]).args(&command[1..]));
        if !control.status.success() {
            eprintln!("skipped: unshare {namespace} is not for this user");
            continue;
        }
        let output = output(&mut as_we_are_under(&path(PROFILE), &[], &command));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && words.contains("Operation not permitted"),
            "{namespace}: {words}"
        );
    }
}

/// Without the three calls the profile is as the engines' own.
#[test]
fn without_the_rings_a_server_that_must_have_them_says_so_and_ends() {
    let (folder, sfu) = folder_with_server("default");
    let command = under(&path(PROFILE), &ADDED, &folder.0, &[&sfu]);
    let output = ended_start(command, &[("IO_BACKEND", "uring")]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.starts_with("sfu: io_uring is not allowed here") && words.lines().count() == 1, "{words}");
    assert!(words.contains("tools/deploy/seccomp.json"), "what to do: {words}");
    assert!(output.stdout.is_empty(), "nothing is announced that is not there");
}

#[tokio::test]
async fn without_the_rings_it_serves_all_the_same() {
    let (folder, sfu) = folder_with_server("default-auto");
    let command = under(&path(PROFILE), &ADDED, &folder.0, &[&sfu]);
    let server = Server::spawn_command(command, &[("IO_BACKEND", "auto")]);
    assert!(server.log().contains("warning:   io_uring is not allowed here"), "{}", server.log());
    assert_serves(&server).await;
}
