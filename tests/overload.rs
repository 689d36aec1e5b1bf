//! A worker whose CPU is used up lets packets wait for each other, says so, and ends it when it has time again.

mod support;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gryt_sfu::net::thread;
use support::{Client, Options, Server};

const OVERLOAD: &str = "gryt_sfu_overload_seconds_total";
/// As the server is told, in seconds. Less than there is between two packets, so that each waits by itself.
const TICK: f64 = 0.015;

/// How long packets waited in all, and how many.
const LATENCY: [&str; 2] =
    ["gryt_sfu_forwarding_latency_seconds_sum", "gryt_sfu_forwarding_latency_seconds_count"];

/// Of the flood, in bytes, and how many datagrams leave in one send.
const SEGMENT_LEN: libc::c_int = 100;
const SEGMENT_COUNT: usize = 60;

/// Busy threads beside a worker that comes before them: together they get a fourth of the CPU at least.
const OTHER_COUNT: usize = 3;

/// How long a second's voice packets, from now on, wait in the worker on the average, in seconds.
async fn wait_of_a_second(server: &Server) -> f64 {
    // By what is told, which may be older than what has been heard, on a page that is kept for a moment: the news after
    // the next is of now.
    for _ in 0..2 {
        let [_, told] = server.metrics(LATENCY);
        server.metric_reaches(LATENCY[1], &[], told + 1.0).await;
    }
    let before = server.metrics(LATENCY);
    server.metric_reaches(LATENCY[1], &[], before[1] + 50.0).await;
    let after = server.metrics(LATENCY);
    (after[0] - before[0]) / (after[1] - before[1])
}

/// As [`wait_of_a_second`], the best of three: a machine that is at other things for a moment makes packets wait as well.
async fn least_wait(server: &Server) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..3 {
        least = least.min(wait_of_a_second(server).await);
        if least < TICK / 2.0 {
            break;
        }
    }
    least
}

/// Of what it is given to send the kernel makes datagrams of `SEGMENT_LEN`.
fn segmenting_socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (fd, value) = (socket.as_raw_fd(), SEGMENT_LEN);
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a live integer of `len` bytes.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const value).cast(), len) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_cpu_time_saves_some_until_it_has_enough() {
    let tick_ms = (TICK * 1e3).to_string();
    let cpu = *thread::allowed_cpus().expect("the kernel says").last().expect("one at least");
    let worker_cpu = cpu.to_string();
    let mut server =
        Server::spawn(&[("WORKERS", "1"), ("WORKER_CPUS", &worker_cpu), ("OVERLOAD_TICK_MS", &tick_ms)]);
    let speaker = Client::join(&server, "hall", "ada", Options::default()).await;
    let _listener = Client::join(&server, "hall", "bob", Options::listener()).await;
    speaker.speak(20);
    let at_rest = least_wait(&server).await;
    assert!(at_rest < TICK / 2.0, "{at_rest} s without a reason");
    assert_eq!(server.metric(OVERLOAD, &[]), 0.0);

    // Of nobody it knows, and more in each send than a worker gets done meanwhile.
    let is_over = Arc::new(AtomicBool::new(false));
    let (media, is_flood_over) = ((Ipv4Addr::LOCALHOST, server.media), Arc::clone(&is_over));
    let flood = std::thread::spawn(move || {
        let _ = thread::raise_priority(); // Where there is one CPU for all of them.
        let socket = segmenting_socket();
        while !is_flood_over.load(Ordering::Relaxed) {
            // A full buffer is what is wanted.
            let _ = socket.send_to(&[0x80; SEGMENT_COUNT * SEGMENT_LEN as usize], media);
        }
    });
    // On the worker's CPU, so that it never has 90 % of it, however much it wants.
    let others = [(); OTHER_COUNT].map(|()| {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            thread::pin_to(&[cpu]).expect("a CPU of ours");
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
    });
    let begins = |log: &str| log.lines().find(|line| line.contains("CPU is used up")).map(str::to_owned);
    let line = server.wait_for_log("overload", begins);
    assert!(line.contains("worker=0") && line.contains("tick_ms=15"), "{line}");
    is_over.store(true, Ordering::Relaxed);
    flood.join().expect("no panic");
    for other in others {
        other.join().expect("no panic");
    }

    // It goes on for a while, as nobody knows yet what the worker takes otherwise.
    let saving = wait_of_a_second(&server).await;
    assert!(saving > 0.75 * TICK, "{saving} s: packets do not wait for each other");
    assert!(server.metric(OVERLOAD, &[]) > 0.0);

    server.wait_for_log("its end", |log| log.contains("has CPU time again").then_some(()));
    let lasted = server.metric(OVERLOAD, &[]);
    let after = least_wait(&server).await;
    assert!(after < TICK / 2.0, "{after} s when it is over");
    assert!((8.0..20.0).contains(&lasted), "{lasted} s");
}
