//! Where the ring is forbidden, as under a container engine's default profile, or another call that a
//! backend needs, that is said or counted and nothing worse happens.

#[path = "support/seccomp.rs"]
#[allow(unreachable_pub, reason = "shared with tests that are crates of several files")]
mod seccomp;

use std::net::UdpSocket;
use std::time::Duration;

use gryt_sfu::net::mmsg::Mmsg;
use gryt_sfu::net::uring::{Uring, UringError, probe};
use gryt_sfu::net::{Backend, Options, socket, wake};
use gryt_sfu::packet::{Path, SocketId, run};
use gryt_sfu::time::Now;

/// Lets a system call fail with EPERM for the calling thread, as seccomp profiles do.
fn forbid(call: libc::c_long) {
    seccomp::forbid(&[call], libc::SECCOMP_RET_ERRNO | libc::EPERM as u32).unwrap();
}

#[test]
fn a_forbidden_ring_is_an_error_that_says_so() {
    forbid(libc::SYS_io_uring_setup);
    let error = probe().unwrap_err();
    assert!(matches!(error, UringError::Refused(_)), "{error:?}");
    assert!(error.to_string().starts_with("io_uring is not allowed here"), "{error}");
    let sockets = socket::bind(0..=0, 1, &socket::WILDCARDS).unwrap().remove(0);
    let (_waker, reader) = wake::waker().unwrap();
    assert!(matches!(Uring::new(sockets, reader, Options::default()), Err(UringError::Refused(_))));
}

#[test]
fn a_wait_without_its_fine_call_is_a_coarse_one() {
    forbid(libc::SYS_epoll_pwait2);
    let sockets = socket::bind(0..=0, 1, &socket::WILDCARDS[..1]).unwrap().remove(0);
    let server = ("127.0.0.1", sockets.port());
    let (waker, reader) = wake::waker().unwrap();
    let mut mmsg = Mmsg::new(sockets, reader, Options::default()).unwrap();
    let start = Now::read().instant;
    assert!(!mmsg.wait(Some(Duration::from_micros(1500))).unwrap().woken);
    assert!(start.elapsed() >= Duration::from_micros(1500));
    waker.wake();
    assert!(mmsg.wait(None).unwrap().woken);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.send_to(b"hello", server).unwrap();
    mmsg.wait(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(mmsg.next().unwrap().0.bytes, b"hello");
}

/// The datagram stays, and with it the socket is readable: that must not keep the loop turning.
#[test]
fn a_receive_that_keeps_failing_leaves_the_core_to_others() {
    forbid(libc::SYS_recvmmsg);
    let sockets = socket::bind(0..=0, 1, &socket::WILDCARDS[..1]).unwrap().remove(0);
    let server = ("127.0.0.1", sockets.port());
    let (waker, reader) = wake::waker().unwrap();
    let mut mmsg = Mmsg::new(sockets, reader, Options::default()).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    peer.send_to(b"hello", server).unwrap();
    let start = Now::read().instant;
    let mut waits = 0;
    // The first nine fail without a pause.
    while waits < 9 || start.elapsed() < Duration::from_millis(200) {
        mmsg.wait(None).unwrap();
        assert!(mmsg.next().is_none());
        waits += 1;
    }
    assert!(waits <= 9 + 20, "{waits}");
    assert_eq!(mmsg.take_counters().receive_errors, waits);
    // Everything else goes on.
    waker.wake();
    assert!(mmsg.wait(None).unwrap().woken);
    let path = Path { socket: SocketId(0), local: [127, 0, 0, 1].into(), remote: peer.local_addr().unwrap() };
    let mut run = run(mmsg.egress(), path);
    run.segment(2).copy_from_slice(b"hi");
    run.commit(2);
    drop(run);
    mmsg.wait(Some(Duration::ZERO)).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(peer.recv(&mut bytes).unwrap(), 2);
}
