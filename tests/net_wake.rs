//! The waker under tokio: the other side of a worker's queues.

use std::time::Duration;

use gryt_sfu::net::wake::{WakeListener, waker};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "current_thread")]
async fn every_message_is_seen_however_wake_ups_fall_together() {
    const COUNT: u32 = 10_000;
    let (waker, reader) = waker().unwrap();
    let (sender, receiver) = crossbeam_channel::bounded(COUNT as usize);
    let thread = std::thread::spawn(move || {
        for number in 0..COUNT {
            sender.send(number).unwrap();
            waker.wake();
        }
    });
    let listener = WakeListener::new(reader).unwrap();
    let mut next = 0;
    while next < COUNT {
        timeout(PATIENCE, listener.woken()).await.expect("a wake-up is not lost").unwrap();
        for number in receiver.try_iter() {
            assert_eq!(number, next);
            next += 1;
        }
    }
    thread.join().unwrap();
}
