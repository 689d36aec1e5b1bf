//! When each speaker's last packets left: what receivers that look into few payloads reckon latencies with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Packets of a speaker that are remembered: ten seconds.
const REMEMBERED: usize = 512;

/// One speaker's.
pub(crate) struct SentTimes {
    /// The room that it speaks in.
    pub(crate) room: u32,
    sent: AtomicU32,
    times: Box<[AtomicU64]>,
}

impl SentTimes {
    fn new(room: u32) -> SentTimes {
        let times = (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect();
        SentTimes { room, sent: AtomicU32::new(0), times }
    }

    /// Packet `counter` leaves at this time. Only the speaker calls this, in order.
    pub(crate) fn record(&self, counter: u32, at: u64) {
        self.times[counter as usize % REMEMBERED].store(at, Ordering::Relaxed);
        self.sent.store(counter.wrapping_add(1), Ordering::Release);
    }

    /// How many left.
    pub(crate) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Acquire)
    }

    /// When packet `counter` left, if it did and is remembered.
    pub(crate) fn time_of(&self, counter: u32) -> Option<u64> {
        // The oldest may be written over at this moment.
        let age = self.sent().checked_sub(counter)? as usize;
        let at = &self.times[counter as usize % REMEMBERED];
        (1..REMEMBERED).contains(&age).then(|| at.load(Ordering::Relaxed))
    }
}

/// All who speak, by the number in their stamps.
#[derive(Default)]
pub(crate) struct Speakers(RwLock<HashMap<u32, Arc<SentTimes>>>);

impl Speakers {
    pub(crate) fn add(&self, sender: u32, room: u32) -> Arc<SentTimes> {
        let times = Arc::new(SentTimes::new(room));
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(sender, Arc::clone(&times));
        times
    }

    pub(crate) fn remove(&self, sender: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&sender);
    }

    pub(crate) fn get(&self, sender: u32) -> Option<Arc<SentTimes>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&sender).cloned()
    }

    /// Those who speak in a room, each with the packets sent so far.
    pub(crate) fn in_room(&self, room: u32) -> Vec<(u32, u32)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, times)| times.room == room).map(|(&id, times)| (id, times.sent())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packets_are_remembered_and_no_others() {
        let speakers = Speakers::default();
        let times = speakers.add(9, 1);
        assert_eq!(times.time_of(0), None);
        for counter in 0..1_000 {
            times.record(counter, u64::from(counter) * 20);
        }
        assert_eq!(times.time_of(999), Some(999 * 20));
        assert_eq!(times.time_of(600), Some(600 * 20));
        assert_eq!(times.time_of(1_000), None, "not yet sent");
        assert_eq!(times.time_of(400), None, "forgotten");
        assert_eq!(speakers.in_room(1), [(9, 1_000)]);
        assert_eq!(speakers.in_room(2), []);
        speakers.remove(9);
        assert!(speakers.get(9).is_none());
    }
}
