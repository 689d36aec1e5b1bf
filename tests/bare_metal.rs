//! What an operator of bare metal asks for, looked up in the kernel's own books of the running server: how its
//! sockets and its waits are set, and where its threads run.

mod support;

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use support::server::{ended_start, free_udp_ports};
use support::{Client, Options, Server, assert_clean};

const BACKENDS: [&str; 2] = ["uring", "mmsg"];

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const NET_ADMIN: libc::c_ulong = 12;

/// Whether this machine grants a ring; without, there is one backend to test.
fn backends() -> impl Iterator<Item = &'static str> {
    let has_ring = gryt_sfu::net::uring::probe().is_ok();
    BACKENDS.into_iter().filter(move |backend| has_ring || *backend != "uring")
}

/// `CAP_SYS_NICE` of the same file.
const SYS_NICE: libc::c_ulong = 23;

/// The server, without a right that the tests may have, and without one to realtime by a limit.
fn without(capability: libc::c_ulong) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
    command.current_dir(std::env::temp_dir());
    let drop_it = move || {
        // SAFETY: takes no pointer. Whoever may not drop it has none.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) };
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the limit only.
        match unsafe { libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const none) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: two system calls that take no memory of others.
    unsafe { command.pre_exec(drop_it) };
    command
}

/// The server's media sockets, as descriptors of ours.
fn media_sockets(server: &Server) -> Vec<UdpSocket> {
    // SAFETY: takes no pointer; the result is checked.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, server.pid(), 0) };
    let process = owned(process).expect("it runs");
    let folder = format!("/proc/{}/fd", server.pid());
    let numbers = fs::read_dir(folder).expect("it runs").flatten().filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    });
    let mut sockets = Vec::new();
    for number in numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        // SAFETY: takes no pointer; the result is checked.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
        let socket = UdpSocket::from(owned(copy).expect("a child's descriptors can be had"));
        let is_media = socket.local_addr().is_ok_and(|local: SocketAddr| local.port() == server.media);
        if is_media && option(&socket, libc::SO_PROTOCOL) == libc::IPPROTO_UDP {
            sockets.push(socket);
        }
    }
    assert!(!sockets.is_empty());
    sockets
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn option(socket: &UdpSocket, name: i32) -> libc::c_int {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    let (fd, level) = (socket.as_raw_fd(), libc::SOL_SOCKET);
    // SAFETY: `value` is a live integer of `len` bytes.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(result, 0);
    value
}

/// How long each of the server's rings looks into the card's queue, in nanoseconds, if it does; empty where the
/// kernel does not say (Linux before 6.13).
fn polling_rings(server: &Server) -> Vec<Option<String>> {
    let folder = format!("/proc/{}/fdinfo", server.pid());
    let texts =
        fs::read_dir(folder).expect("it runs").flatten().map(|entry| fs::read_to_string(entry.path()));
    let value = |text: &str, name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let rings = texts.flatten().filter(|text| value(text, "NAPI:").is_some());
    rings.map(|text| value(&text, "napi_busy_poll_dt:")).collect()
}

async fn assert_call_works(server: &Server) {
    let ann = Client::join(server, "hall", "ann", Options::default()).await;
    let ben = Client::join(server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(30);
    tokio::join!(ann.hears(&ben, 40), ben.hears(&ann, 40));
    assert_clean(&ann, &ben);
    assert_clean(&ben, &ann);
}

#[tokio::test]
async fn workers_that_look_before_they_sleep_serve_calls() {
    for backend in backends() {
        let server = Server::spawn(&[("BUSY_POLL_US", "50"), ("IO_BACKEND", backend), ("WORKERS", "2")]);
        assert_call_works(&server).await;
        let log = server.log();
        if log.contains("BUSY_POLL_US=50 has no effect") {
            eprintln!("skipped: {log}"); // Linux before 6.9, or a kernel built without.
            continue;
        }
        let sockets = media_sockets(&server);
        assert!(sockets.iter().all(|socket| option(socket, libc::SO_BUSY_POLL) == 50));
        let is_preferred = sockets.iter().all(|socket| option(socket, libc::SO_PREFER_BUSY_POLL) == 1);
        assert_eq!(is_preferred, !log.contains("BUSY_POLL_US=50 leaves"), "{log}");
        let rings = polling_rings(&server);
        let polling: Vec<&str> = rings.iter().flatten().map(String::as_str).collect();
        let workers = if rings.is_empty() { 0 } else { 2 };
        assert_eq!(polling, vec!["50000"; workers], "{rings:?}");
    }
}

#[tokio::test]
async fn without_the_right_to_hold_interrupts_off_it_warns_once_and_serves() {
    for backend in backends() {
        let env = [("BUSY_POLL_US", "50"), ("IO_BACKEND", backend), ("WORKERS", "2")];
        let mut server = Server::spawn_command(without(NET_ADMIN), &env);
        assert_call_works(&server).await;
        assert!(media_sockets(&server).iter().all(|socket| option(socket, libc::SO_PREFER_BUSY_POLL) == 0));
        server.terminate();
        assert!(server.wait(Duration::from_secs(20)).expect("it ends in time").success());
        let log = server.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("BUSY_POLL_US")).collect();
        assert_eq!(warnings.len(), 1, "{log}");
        assert!(warnings[0].contains("warning:") && warnings[0].contains("CAP_NET_ADMIN"), "{log}");
    }
}

#[test]
fn nobody_looks_who_was_not_told_to() {
    let server = Server::spawn(&[]);
    assert!(media_sockets(&server).iter().all(|socket| option(socket, libc::SO_BUSY_POLL) == 0));
    assert!(polling_rings(&server).iter().all(Option::is_none));
}

/// Lines of `status` that begin like this, of the workers' threads, in their order, or of all others.
fn of_threads(server: &Server, are_workers: bool, name: &str) -> Vec<String> {
    let folder = format!("/proc/{}/task", server.pid());
    let mut found: Vec<(String, String)> = Vec::new();
    for thread in fs::read_dir(folder).expect("it runs").flatten() {
        // One that has ended meanwhile says nothing.
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        if value("Name:").starts_with("worker-") == are_workers {
            found.push((value("Name:"), value(name)));
        }
    }
    found.sort();
    found.into_iter().map(|(_, value)| value).collect()
}

const CPUS: &str = "Cpus_allowed_list:";

/// CPUs that this process may use.
fn cpus() -> Vec<usize> {
    gryt_sfu::net::thread::allowed_cpus().expect("the kernel says")
}

/// CPUs of a list as 0-3,8.
fn parsed(list: &str) -> Vec<usize> {
    let number = |text: &str| text.parse::<usize>().expect("a CPU");
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        number(first)..=number(last)
    };
    list.split(',').flat_map(range).collect()
}

#[tokio::test]
async fn workers_run_where_they_are_told_to_and_control_does_not() {
    let cpus = cpus();
    for &at in &cpus {
        let cpu = at.to_string();
        let server = Server::spawn(&[("WORKER_CPUS", &cpu)]);
        assert!(server.log().contains(&format!("workers:   1, pinned to CPU {cpu}")), "{}", server.log());
        assert_eq!(of_threads(&server, true, CPUS), [cpu.as_str()]);
        if cpus.len() > 1 {
            // The log's are there before anything else.
            let others = of_threads(&server, false, CPUS);
            assert!(others.len() >= 2 && others.iter().all(|list| !parsed(list).contains(&at)), "{others:?}");
        }
        assert!(
            media_sockets(&server)
                .iter()
                .all(|socket| { option(socket, libc::SO_INCOMING_CPU).to_string() == cpu })
        );
        assert_call_works(&server).await;
    }
}

/// Between sockets of one port the kernel would decide by the CPU, and no longer spread.
#[tokio::test]
async fn sockets_that_share_a_port_prefer_no_cpu() {
    let cpus = cpus();
    let [first, .., last] = cpus[..] else { return eprintln!("skipped: one CPU") };
    let list = format!("{last},{first}");
    let ports = free_udp_ports(2);
    for (port, is_shared) in [("0", true), (ports.as_str(), false)] {
        let server = Server::spawn(&[("WORKER_CPUS", &list), ("WORKERS", "2"), ("ICE_UDP_MUX_PORT", port)]);
        assert_eq!(of_threads(&server, true, CPUS), [last.to_string(), first.to_string()]);
        let expected = if is_shared { -1 } else { last as libc::c_int };
        let preferred: Vec<_> =
            media_sockets(&server).iter().map(|socket| option(socket, libc::SO_INCOMING_CPU)).collect();
        assert!(preferred.iter().all(|cpu| *cpu == expected), "{preferred:?}, not {expected}");
        assert_call_works(&server).await;
    }
}

#[test]
fn a_cpu_that_it_may_not_use_ends_the_start() {
    let allowed = cpus();
    let forbidden = (0..8192).rev().find(|cpu| !allowed.contains(cpu)).expect("no machine has all of them");
    for flag in [None, Some("--check")] {
        let mut command = without(NET_ADMIN);
        command.args(flag);
        let output = ended_start(command, &[("WORKER_CPUS", &forbidden.to_string())]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let expected =
            format!("sfu: WORKER_CPUS=\"{forbidden}\" is not accepted; accepted: CPUs that this process");
        assert!(said.starts_with(&expected) && said.lines().count() == 1, "{said}");
    }
}

/// Policy, realtime priority and niceness of the workers' threads, fields 41, 40 and 19 of `stat`.
fn scheduling(server: &Server) -> Vec<(i32, i32, i32)> {
    let folder = format!("/proc/{}/task", server.pid());
    let threads = fs::read_dir(folder).expect("it runs").flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains("(worker-"))
        .map(|stat| {
            // The first behind the name is the third of all.
            let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
            let fields: Vec<&str> = rest.split(' ').collect();
            let number = |field: usize| fields[field - 3].trim().parse().expect("a number");
            (number(41), number(40), number(19))
        })
        .collect()
}

/// What a thread's niceness comes to that asks for −10 here: tried on one that ends with it.
fn granted_niceness() -> i32 {
    let thread = std::thread::spawn(|| {
        // SAFETY: takes no pointer; 0 is the calling thread. Without the right nothing changes.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
        // SAFETY: as above.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    });
    thread.join().expect("it does not panic")
}

#[tokio::test]
async fn workers_run_before_others_where_that_is_asked_for() {
    for backend in backends() {
        let env = |scheduling| [("WORKER_SCHEDULING", scheduling), ("IO_BACKEND", backend), ("WORKERS", "2")];
        let server = Server::spawn(&env("nice"));
        assert_eq!(scheduling(&server), [(libc::SCHED_OTHER, 0, granted_niceness()); 2]);
        let server = Server::spawn(&env("fifo"));
        assert_call_works(&server).await;
        if server.log().contains("WORKER_SCHEDULING=fifo has no effect") {
            eprintln!("skipped: not for this user");
            continue;
        }
        let realtime: Vec<_> =
            scheduling(&server).into_iter().map(|(policy, first, _)| (policy, first)).collect();
        assert_eq!(realtime, [(libc::SCHED_FIFO, 1); 2]);
    }
}

#[tokio::test]
async fn without_the_right_to_run_first_it_warns_once_and_serves() {
    let env = [("WORKER_SCHEDULING", "fifo"), ("WORKERS", "2")];
    let mut server = Server::spawn_command(without(SYS_NICE), &env);
    assert_call_works(&server).await;
    assert!(scheduling(&server).iter().all(|(policy, first, _)| (*policy, *first) == (libc::SCHED_OTHER, 0)));
    server.terminate();
    assert!(server.wait(Duration::from_secs(20)).expect("it ends in time").success());
    let log = server.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WORKER_SCHEDULING")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("warning:") && warnings[0].contains("LimitRTPRIO"), "{log}");
}
