//! When a wait ends, and with how much.

use super::*;

on_both_backends! {
    a_wait_ends_with_its_time_or_with_the_waker,
    a_wake_up_is_put_off_for_a_larger_batch,
    a_batch_is_not_waited_for_beyond_the_time_out,
    one_wait_hands_out_a_bounded_batch,
    a_wait_that_looks_first_ends_with_a_datagram_all_the_same,
}

fn a_wait_ends_with_its_time_or_with_the_waker<B: Start>() {
    for batch_wait in [Duration::ZERO, Duration::from_micros(500)] {
        let Some(mut this) = start::<B>(Options { batch_wait, ..Options::default() }) else { return };
        let before = Now::read().instant;
        let wake = this.backend.wait(Some(Duration::from_millis(20))).unwrap();
        assert!(!wake.woken);
        assert!(before.elapsed() >= Duration::from_millis(20));

        // Twice, with a wake-up that nobody waits for in between: the waker stays in working order.
        for _ in 0..2 {
            let waker = this.waker.clone();
            let thread = std::thread::spawn(move || waker.wake());
            assert!(wait_for_waker(&mut this.backend));
            thread.join().unwrap();
            this.waker.wake();
            assert!(wait_for_waker(&mut this.backend));
        }
        let wake = this.backend.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(wake, Wake { woken: false, coalescing: None });
    }
}

fn a_wake_up_is_put_off_for_a_larger_batch<B: Start>() {
    let batch_wait = Duration::from_millis(50);
    let Some(mut this) = start::<B>(Options { batch_wait, ..Options::default() }) else { return };
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    let peer = peer("127.0.0.1:0");
    for count in [1, 2] {
        let before = Now::read().instant;
        for _ in 0..count {
            peer.send_to(b"x", ("127.0.0.1", this.port)).unwrap();
        }
        let (mut received, mut coalescing) = (0, None);
        while received == 0 {
            assert!(before.elapsed() < PATIENCE);
            coalescing = this.backend.wait(Some(PATIENCE)).unwrap().coalescing;
            while this.backend.next().is_some() {
                received += 1;
            }
        }
        assert!(before.elapsed() >= batch_wait);
        let coalescing = coalescing.expect("it says so");
        assert_eq!(coalescing.duration(), batch_wait);
        assert!(before <= coalescing.from && coalescing.until <= Now::read().instant);
        assert_eq!(received, count);
    }
}

fn a_batch_is_not_waited_for_beyond_the_time_out<B: Start>() {
    let options = Options { batch_wait: PATIENCE, ..Options::default() };
    let Some(mut this) = start::<B>(options) else { return };
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    let peer = peer("127.0.0.1:0");
    let before = Now::read().instant;
    peer.send_to(b"x", ("127.0.0.1", this.port)).unwrap();
    let mut received = 0;
    while received == 0 {
        this.backend.wait(Some(Duration::from_millis(20))).unwrap();
        while this.backend.next().is_some() {
            received += 1;
        }
        assert!(before.elapsed() < PATIENCE / 2);
    }
}

fn wait_for_waker(backend: &mut impl Backend) -> bool {
    let start = Now::read().instant;
    while start.elapsed() < PATIENCE {
        if backend.wait(Some(PATIENCE)).unwrap().woken {
            return true;
        }
    }
    false
}

fn one_wait_hands_out_a_bounded_batch<B: Start>() {
    let Some(mut this) = start::<B>(Options { buffer_count: 2048, ..Options::default() }) else {
        return;
    };
    let peer = peer("127.0.0.1:0");
    const COUNT: usize = 2500;
    for _ in 0..COUNT {
        peer.send_to(b"x", ("127.0.0.1", this.port)).unwrap();
    }
    let mut batches = Vec::new();
    while batches.iter().sum::<usize>() < COUNT {
        this.backend.wait(Some(PATIENCE)).unwrap();
        let mut count = 0;
        while this.backend.next().is_some() {
            count += 1;
        }
        batches.push(count);
        assert!(batches.len() < COUNT);
    }
    assert!(batches.iter().all(|count| *count <= 1024), "{batches:?}");
    assert!(batches.contains(&1024), "{batches:?}");
}

fn a_wait_that_looks_first_ends_with_a_datagram_all_the_same<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let looked = || wait_options(&this.backend, libc::SO_BUSY_POLL);
    assert!(looked().iter().all(|micros| *micros == 0));
    match this.backend.set_busy_poll(Duration::from_micros(70)) {
        Ok(()) => assert!(wait_options(&this.backend, libc::SO_PREFER_BUSY_POLL).iter().all(|is| *is == 1)),
        // Without the right to hold off a card's interrupts the rest is there.
        Err(BusyPollError::Preference(error)) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        Err(error) => return eprintln!("skipped: {error}"),
    }
    assert!(wait_options(&this.backend, libc::SO_BUSY_POLL).iter().all(|micros| *micros == 70));
    let peer = peer("127.0.0.1:0");
    for _ in 0..50 {
        peer.send_to(b"hello", ("127.0.0.1", this.port)).unwrap();
        echo(&mut this.backend, 1);
        assert_eq!(receive(&peer).0, b"hello");
    }
    assert!(!this.backend.wait(Some(Duration::from_millis(1))).unwrap().woken);
}

/// An option of each socket.
fn wait_options(backend: &impl Backend, name: i32) -> Vec<libc::c_int> {
    backend.sockets().sockets().iter().map(|socket| option(socket, libc::SOL_SOCKET, name)).collect()
}
