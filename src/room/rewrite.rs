//! One slot's line of packets: sequence numbers and timestamps that go on, whoever speaks on it.
//!
//! Invariant: no index is handed out twice in the life of a line (an AEAD nonce depends on it).

use std::time::Instant;

use crate::srtp::index::PacketIndex;
use crate::time::RtpTime;

/// Opus and its RTP clock (RFC 7587 §4.1).
pub const OPUS_CLOCK_RATE: u32 = 48_000;

/// What a packet of 20 ms covers (RFC 7587 §4.2).
const FRAME: u32 = OPUS_CLOCK_RATE / 50;
/// What one covers at most: 120 ms.
const FRAME_MAX: u32 = 6 * FRAME;

/// Names one unbroken stretch of a publisher's packets; a new one begins with a new SSRC, after a mute and
/// whenever the stream's numbering has no meaning for what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch(pub u64);

/// Indices that a publisher may leave out at once, and in a second, besides one for each that it does not. What leaves out more is taken for a new stretch, so that
/// no publisher can push the rollover counter of a receiver that misses a while of it out of step (RFC 3711 §3.3.1
/// allows 2^15 at most).
const INDEX_GAP_MAX: u64 = 3_000;
const INDEX_RATE_MAX: u64 = 400;

/// Where the packets of a slot stand.
#[derive(Clone, Debug)]
pub struct Line {
    /// Greater than every index handed out.
    next_index: PacketIndex,
    /// Of the newest packet.
    newest: RtpTime,
    /// Indices that could be left out after it.
    gap: u32,
    /// When it passed.
    newest_at: Instant,
    base: Option<Base>,
}

#[derive(Clone, Debug)]
struct Base {
    stretch: Stretch,
    first_in: PacketIndex,
    newest_in: PacketIndex,
    first_out: PacketIndex,
    timestamp_offset: u32,
    /// What each packet covers, by the distance of the last two that followed each other.
    covered: u32,
}

/// What a packet's header says on this line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The index that seals it; its low 16 bits are the sequence number.
    pub index: PacketIndex,
    /// On this line.
    pub timestamp: RtpTime,
    /// Set on the first packet of each stretch.
    pub marker: bool,
}

impl Line {
    /// A line that has carried nothing. The first sequence number is below 2^15, so that a receiver that
    /// misses the first packets still guesses rollover counter 0 (RFC 3711 §3.3.1).
    pub fn new(now: Instant, random: u64) -> Line {
        let first = PacketIndex(random & 0x7FFF);
        let newest = RtpTime((random >> 32) as u32);
        Line { next_index: first, newest, gap: INDEX_GAP_MAX as u32, newest_at: now, base: None }
    }

    /// Places a publisher's packet on the line; `None` for one from before the line took up its stretch.
    pub fn rewrite(
        &mut self,
        now: Instant,
        stretch: Stretch,
        index: PacketIndex,
        timestamp: RtpTime,
        marker: bool,
    ) -> Option<Rewritten> {
        let newest_in = self.base.as_ref().filter(|base| base.stretch == stretch).map(|base| base.newest_in);
        let gap = newest_in.and_then(|newest| self.gap_after(now, index.0.saturating_sub(newest.0)));
        let (Some(gap), Some(base)) = (gap, &mut self.base) else {
            return Some(self.take_up(now, stretch, index, timestamp));
        };
        let distance = index.0.checked_sub(base.first_in.0)?;
        let out = PacketIndex(base.first_out.0 + distance);
        let came = timestamp;
        let timestamp = RtpTime(came.0.wrapping_add(base.timestamp_offset));
        if index > base.newest_in {
            if timestamp.is_before(self.newest) {
                // On the line time does not go back: who speaks next on it would be taken for long played.
                return Some(self.take_up(now, stretch, index, came));
            }
            self.gap = gap;
            if index.0 - base.newest_in.0 == 1 {
                base.covered = covered(timestamp.0.wrapping_sub(self.newest.0));
            }
            base.newest_in = index;
            self.next_index = PacketIndex(out.0 + 1);
            (self.newest, self.newest_at) = (timestamp, now);
        }
        Some(Rewritten { index: out, timestamp, marker })
    }

    /// Indices that may be left out after a packet so far ahead of the newest; `None` when that leaves out too many.
    fn gap_after(&self, now: Instant, ahead: u64) -> Option<u32> {
        if ahead <= 1 {
            return Some((self.gap + 1).min(INDEX_GAP_MAX as u32)); // Nearly all: no look at the time.
        }
        let elapsed = now.saturating_duration_since(self.newest_at).as_millis() as u64;
        let allowed = INDEX_GAP_MAX.min(u64::from(self.gap) + elapsed.saturating_mul(INDEX_RATE_MAX) / 1000);
        allowed.checked_sub(ahead - 1).map(|left| left as u32)
    }

    /// The sequence continues; the timestamp advances by the time elapsed since the newest packet, or by what that
    /// covers: a receiver drops what begins before the end of what it has played.
    fn take_up(
        &mut self,
        now: Instant,
        stretch: Stretch,
        index: PacketIndex,
        timestamp: RtpTime,
    ) -> Rewritten {
        let elapsed = self.timestamp_at(now).0.wrapping_sub(self.newest.0);
        let covered = self.base.as_ref().map_or(FRAME, |base| base.covered);
        let continued = RtpTime(self.newest.0.wrapping_add(elapsed.max(covered)));
        let out = self.next_index;
        self.base = Some(Base {
            stretch,
            first_in: index,
            newest_in: index,
            first_out: out,
            timestamp_offset: continued.0.wrapping_sub(timestamp.0),
            covered: FRAME,
        });
        self.next_index = PacketIndex(out.0 + 1);
        (self.newest, self.newest_at) = (continued, now);
        Rewritten { index: out, timestamp: continued, marker: true }
    }

    /// The next packet begins a new stretch, whatever it is: nothing was sent for a while.
    pub fn interrupt(&mut self) {
        self.base = None;
    }

    /// Where the line's media time stands at `now`, by its newest packet.
    pub fn timestamp_at(&self, now: Instant) -> RtpTime {
        self.newest.after(now.duration_since(self.newest_at), OPUS_CLOCK_RATE)
    }

    /// What a sender report says of `media` of the publisher's stretch on this line; `None` while another
    /// stretch is on it (RFC 3550 §6.4.1).
    pub fn timestamp_of(&self, stretch: Stretch, media: RtpTime) -> Option<RtpTime> {
        let base = self.base.as_ref().filter(|base| base.stretch == stretch)?;
        Some(RtpTime(media.0.wrapping_add(base.timestamp_offset)))
    }
}

/// What a packet covers that came so far behind the one before. Further apart are only those between which nothing was
/// said (DTX, RFC 7587 §3.1.3).
const fn covered(distance: u32) -> u32 {
    if distance > FRAME && distance <= FRAME_MAX { distance } else { FRAME }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::time::Duration;

    const MS20: Duration = Duration::from_millis(20);

    fn start() -> Instant {
        crate::time::Now::read().instant
    }

    #[test]
    fn sequence_and_time_go_on_across_publishers() {
        let t0 = start();
        let mut line = Line::new(t0, 0x1234_5678_0000_8005);
        let a = line.rewrite(t0, Stretch(1), PacketIndex(70_000), RtpTime(5), false).unwrap();
        assert_eq!((a.index, a.timestamp, a.marker), (PacketIndex(5), RtpTime(0x1234_5678 + FRAME), true));
        let b = line.rewrite(t0 + MS20, Stretch(1), PacketIndex(70_001), RtpTime(965), false).unwrap();
        assert_eq!((b.index.0, b.timestamp.0 - a.timestamp.0, b.marker), (6, 960, false));
        let c = line.rewrite(t0 + 3 * MS20, Stretch(2), PacketIndex(9), RtpTime(77), false).unwrap();
        assert_eq!((c.index.0, c.timestamp.0 - b.timestamp.0, c.marker), (7, 1920, true));
        // What the first publisher sent before the change comes too late; the same goes for older ones.
        assert_eq!(line.rewrite(t0 + 3 * MS20, Stretch(2), PacketIndex(8), RtpTime(0), false), None);
    }

    #[test]
    fn loss_and_reordering_stay_visible() {
        let t0 = start();
        let mut line = Line::new(t0, 0);
        let indices = [100, 103, 101, 104].map(|index| {
            line.rewrite(t0, Stretch(1), PacketIndex(index), RtpTime(0), false).unwrap().index.0
        });
        assert_eq!(indices, [0, 3, 1, 4]);
    }

    #[test]
    fn a_publisher_does_not_begin_within_the_last_packet_of_another() {
        let t0 = start();
        let mut line = Line::new(t0, 7);
        let a = line.rewrite(t0, Stretch(1), PacketIndex(1), RtpTime(0), false).unwrap();
        let b = line.rewrite(t0 + MS20 / 7, Stretch(2), PacketIndex(1), RtpTime(0), false).unwrap();
        assert_eq!(b.timestamp.0.wrapping_sub(a.timestamp.0), FRAME);
    }

    /// Nor where that was a longer one; a pause is none.
    #[test]
    fn a_publisher_does_not_begin_within_the_last_packet_of_another_however_long_that_is() {
        let begins_after = |distance: u32| {
            let t0 = start();
            let mut line = Line::new(t0, 7);
            line.rewrite(t0, Stretch(1), PacketIndex(1), RtpTime(0), false).unwrap();
            let t1 = t0 + u32::from(distance > FRAME) * 6 * MS20;
            let a = line.rewrite(t1, Stretch(1), PacketIndex(2), RtpTime(distance), false).unwrap();
            let b = line.rewrite(t1 + MS20, Stretch(2), PacketIndex(1), RtpTime(0), false).unwrap();
            b.timestamp.0.wrapping_sub(a.timestamp.0)
        };
        assert_eq!(
            [FRAME / 2, FRAME, 3 * FRAME, 6 * FRAME].map(begins_after),
            [1, 1, 3, 6].map(|n| n * FRAME)
        );
        assert_eq!(begins_after(20 * FRAME), FRAME, "nothing was said");
    }

    #[test]
    fn a_publisher_whose_time_goes_back_does_not_take_that_of_the_line_along() {
        let t0 = start();
        let mut line = Line::new(t0, 7);
        let say = |line: &mut Line, stretch, packet: u32, timestamp| {
            let index = PacketIndex(u64::from(packet));
            let said = line.rewrite(t0 + packet * MS20, Stretch(stretch), index, RtpTime(timestamp), false);
            said.map(|said| (said.timestamp, said.marker)).unwrap()
        };
        let (first, _) = say(&mut line, 1, 1, 500_000);
        let after = |count| RtpTime(first.0.wrapping_add(count * FRAME));
        assert_eq!(say(&mut line, 1, 2, 500_000 + FRAME), (after(1), false));
        assert_eq!(say(&mut line, 1, 3, 300_000), (after(2), true), "as a new stretch");
        assert_eq!(say(&mut line, 1, 4, 300_000 + FRAME), (after(3), false));
        assert_eq!(say(&mut line, 2, 5, 0), (after(4), true));
        // What comes late is no such thing.
        let late = line.rewrite(t0 + 5 * MS20, Stretch(2), PacketIndex(7), RtpTime(2 * FRAME), false);
        assert_eq!(late.map(|late| (late.timestamp, late.marker)), Some((after(6), false)));
        assert_eq!(say(&mut line, 2, 6, FRAME), (after(5), false));
    }

    #[test]
    fn a_leap_of_the_publisher_does_not_leap_on_the_line() {
        let t0 = start();
        let mut line = Line::new(t0, 0);
        line.rewrite(t0, Stretch(1), PacketIndex(100), RtpTime(0), false);
        let leapt = line.rewrite(t0, Stretch(1), PacketIndex(100 + 32_767), RtpTime(9), false).unwrap();
        assert_eq!((leapt.index.0, leapt.marker), (1, true));
    }

    #[test]
    fn many_leaps_of_the_publisher_do_not_add_up_on_the_line() {
        let t0 = start();
        let mut line = Line::new(t0, 0);
        let (mut now, mut last) = (t0, 0);
        for packet in 0..250 {
            now += Duration::from_millis(4);
            let index = PacketIndex(100 + packet * INDEX_GAP_MAX);
            last = line.rewrite(now, Stretch(1), index, RtpTime(0), false).unwrap().index.0;
        }
        assert!((250..INDEX_GAP_MAX + INDEX_RATE_MAX + 250).contains(&last), "{last} in a second");
        // A publisher of whom nothing came for a minute may go on where it is.
        let mut line = Line::new(t0, 0);
        line.rewrite(t0, Stretch(1), PacketIndex(100), RtpTime(0), false);
        let later = t0 + Duration::from_secs(60);
        let after = line.rewrite(later, Stretch(1), PacketIndex(3_000), RtpTime(0), false).unwrap();
        assert_eq!((after.index.0, after.marker), (2_900, false));
    }

    #[test]
    fn a_report_is_mapped_only_for_the_stretch_on_the_line() {
        let t0 = start();
        let mut line = Line::new(t0, 0);
        let first = line.rewrite(t0, Stretch(1), PacketIndex(1), RtpTime(1_000), false).unwrap();
        let mapped = line.timestamp_of(Stretch(1), RtpTime(1_480)).unwrap();
        assert_eq!(mapped.0.wrapping_sub(first.timestamp.0), 480);
        assert_eq!(line.timestamp_of(Stretch(2), RtpTime(0)), None);
        line.interrupt();
        assert_eq!(line.timestamp_of(Stretch(1), RtpTime(0)), None);
    }

    proptest! {
        /// Whatever comes (each index of a stretch at most once, as the replay window has it), no index leaves twice.
        #[test]
        fn no_index_twice(seed: u64, steps in proptest::collection::vec((0u64..4, 0u64..9_000, any::<bool>()), 1..400)) {
            let t0 = start();
            let mut line = Line::new(t0, seed);
            let mut came = HashSet::new();
            let mut left = HashSet::new();
            for (stretch, index, interrupt) in steps {
                if interrupt && index % 16 == 0 {
                    line.interrupt();
                }
                if came.insert((stretch, index))
                    && let Some(out) = line.rewrite(t0, Stretch(stretch), PacketIndex(index), RtpTime(0), false)
                {
                    prop_assert!(left.insert(out.index), "{:?} twice", out.index);
                }
            }
        }
    }
}
