//! How loud a publisher is, from the audio level it reports (RFC 6464), smoothed.
//!
//! The level is the publisher's own word: one who lies gains a slot, never more than one.

use std::time::{Duration, Instant};

/// −dBov below which nothing counts: the scale of RFC 6464 turned round, 0 is silence.
const LEVEL_MAX: u8 = 127;

/// Loudness at which a publisher begins to speak: −50 dBov.
const SPEAKING_FROM: u32 = (127 - 50) << SHIFT;
/// Loudness below which a speaker falls silent: −60 dBov.
const SPEAKING_UNTIL: u32 = (127 - 60) << SHIFT;

/// A level without the extension: somewhat audible, so that such a client is heard in large rooms too.
const LEVEL_UNKNOWN: u8 = 50;

/// Nothing for this long is silence (discontinuous transmission sends a packet each 400 ms, of silence).
const SILENT_AFTER: Duration = Duration::from_millis(500);

/// A level falls one step for each of these since the packet before: in a pause, with discontinuous transmission, one packet
/// stands for twenty.
const STEP_MS: u32 = 20;

/// Fixed point.
const SHIFT: u32 = 8;

/// A smoothed level; quick to rise, slow to fall.
#[derive(Clone, Debug, Default)]
pub struct Loudness {
    smoothed: u32,
    heard: Option<Instant>,
    is_speaking: bool,
}

impl Loudness {
    /// A packet passed; `level` is the byte of RFC 6464.
    pub fn handle_level(&mut self, now: Instant, level: Option<u8>) {
        let level = level.map_or(LEVEL_UNKNOWN, |level| level & 0x7F);
        let loud = u32::from(LEVEL_MAX - level) << SHIFT;
        if loud > self.smoothed {
            self.smoothed += (loud - self.smoothed) / 4;
        } else {
            let elapsed =
                self.heard.map_or(Duration::ZERO, |heard| now.duration_since(heard)).min(SILENT_AFTER);
            for _ in 0..(elapsed.subsec_millis() / STEP_MS).max(1) {
                self.smoothed -= (self.smoothed - loud) / 24;
            }
        }
        self.heard = Some(now);
    }

    /// Comparable between publishers: 0 is silence, 127 × 256 the loudest.
    pub fn score(&self, now: Instant) -> u32 {
        let is_recent = self.heard.is_some_and(|heard| now.duration_since(heard) < SILENT_AFTER);
        if is_recent { self.smoothed } else { 0 }
    }

    /// The level as RFC 6464 has it, 0 (loudest) to 127.
    pub fn level(&self, now: Instant) -> u8 {
        let rounded = (self.score(now) + (1 << (SHIFT - 1))) >> SHIFT;
        LEVEL_MAX - rounded.min(127) as u8
    }

    /// Whether this is a speaker now; begins at −50 dBov and ends at −60.
    pub fn update_speaking(&mut self, now: Instant) -> bool {
        let score = self.score(now);
        if score == 0 {
            self.smoothed = 0;
        }
        self.is_speaking = score >= if self.is_speaking { SPEAKING_UNTIL } else { SPEAKING_FROM };
        self.is_speaking
    }

    /// Whether it was a speaker when that was looked at last.
    pub fn is_speaking(&self) -> bool {
        self.is_speaking
    }

    /// Nothing is heard of this publisher any more.
    pub fn silence(&mut self) {
        *self = Loudness::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaking_begins_within_five_packets_and_ends_within_a_second() {
        let mut now = crate::time::Now::read().instant;
        let mut loudness = Loudness::default();
        let mut say = |loudness: &mut Loudness, level| {
            now += Duration::from_millis(20);
            loudness.handle_level(now, Some(level));
            loudness.update_speaking(now)
        };
        assert!((0..5).any(|_| say(&mut loudness, 0x80 | 25)));
        assert!((0..50).any(|_| !say(&mut loudness, 127)));
        assert!(!(0..200).any(|_| say(&mut loudness, 70)), "a quiet room does not speak");
    }

    #[test]
    fn the_packets_of_a_pause_are_few_and_end_speech_as_soon() {
        let mut now = crate::time::Now::read().instant;
        let mut loudness = Loudness::default();
        let mut say = |loudness: &mut Loudness, after, level| {
            now += Duration::from_millis(after);
            loudness.handle_level(now, Some(level));
            loudness.update_speaking(now)
        };
        (0..50).for_each(|_| _ = say(&mut loudness, 20, 25));
        (0..10).for_each(|_| _ = say(&mut loudness, 20, 80));
        assert!((0..2).any(|_| !say(&mut loudness, 400, 80)), "{loudness:?}");
    }

    #[test]
    fn who_stops_sending_is_silent_soon() {
        let now = crate::time::Now::read().instant;
        let mut loudness = Loudness::default();
        (0..50).for_each(|_| loudness.handle_level(now, Some(0)));
        assert!(loudness.update_speaking(now));
        assert_eq!(loudness.level(now), 0);
        assert!(!loudness.update_speaking(now + SILENT_AFTER));
        assert_eq!(loudness.level(now + SILENT_AFTER), 127);
    }
}
