//! The packet path allocates nothing: receive, answer, wake-up and wait, once everything is warm.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use gryt_sfu::net::mmsg::Mmsg;
use gryt_sfu::net::uring::{Uring, probe};
use gryt_sfu::net::{Backend, Options, socket, wake};
use gryt_sfu::packet::run;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Gone while a thread ends; nothing is measured then.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "an allocator that counts has to be one")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: by the caller's word.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: by the caller's word.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Four bursts of 40 datagrams, each answered three times; a wake-up; and a send that is refused.
fn go_round(backend: &mut impl Backend, waker: &wake::Waker, peer: &UdpSocket, port: u16) -> usize {
    let mut answered = 0;
    for _ in 0..4 {
        for _ in 0..40 {
            peer.send_to(&[7; 160], (Ipv4Addr::LOCALHOST, port)).unwrap();
        }
        waker.wake();
        let mut is_woken = false;
        for _ in 0..100 {
            is_woken |= backend.wait(Some(Duration::from_millis(100))).unwrap().woken;
            while let Some((datagram, egress)) = backend.next() {
                let mut run = run(egress, datagram.path);
                for len in [160, 160, 120] {
                    run.segment(len).copy_from_slice(&datagram.bytes[..len]);
                    run.commit(len);
                }
                drop(run);
                let mut nowhere = datagram.path;
                nowhere.remote.set_port(0);
                let mut run = gryt_sfu::packet::run(egress, nowhere);
                for _ in 0..2 {
                    run.segment(100).fill(0);
                    run.commit(100);
                }
                answered += 1;
            }
            if answered % 40 == 0 && is_woken {
                break;
            }
        }
        backend.wait(Some(Duration::ZERO)).unwrap();
        let mut bytes = [0; 2048];
        while peer.recv(&mut bytes).is_ok() {}
    }
    backend.take_counters();
    assert_eq!(backend.take_unsent().count(), 1);
    answered
}

/// Few buffers, so that they run out and receives begin again.
const OPTIONS: Options = Options { batch_wait: Duration::ZERO, buffer_count: 16, segmentation: true };

fn assert_no_allocation(mut backend: impl Backend, waker: &wake::Waker) {
    let port = backend.sockets().port();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();

    assert_eq!(go_round(&mut backend, waker, &peer, port), 160);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the allocator counts");
    for _ in 0..10 {
        assert_eq!(go_round(&mut backend, waker, &peer, port), 160);
    }
    assert_eq!(ALLOCATIONS.get(), before);
}

#[test]
fn nothing_is_allocated_once_the_ring_is_warm() {
    if let Err(error) = probe() {
        eprintln!("skipped: {error}");
        return;
    }
    let sockets = socket::bind(0..=0, 1, &socket::WILDCARDS).unwrap().remove(0);
    let (waker, reader) = wake::waker().unwrap();
    assert_no_allocation(Uring::new(sockets, reader, OPTIONS).unwrap(), &waker);
}

#[test]
fn nothing_is_allocated_once_the_loop_without_a_ring_is_warm() {
    let sockets = socket::bind(0..=0, 1, &socket::WILDCARDS).unwrap().remove(0);
    let (waker, reader) = wake::waker().unwrap();
    assert_no_allocation(Mmsg::new(sockets, reader, OPTIONS).unwrap(), &waker);
}
