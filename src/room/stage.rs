//! Which voices hold the slots when a room has more of them than a receiver has slots: the loudest, with
//! hysteresis, the same for everybody.

use std::time::{Duration, Instant};

use slab::Slab;

use super::SlotChange;
use super::receiver::{Receiver, ReceiverKey, Seat};
use super::track::{Track, TrackKey};

/// Who took the stage stays this long at least.
pub(super) const HOLD_MIN: Duration = Duration::from_millis(500);
/// A challenger must be this much louder: 3 dB, in units of [`super::loudness::Loudness::score`].
pub(super) const MARGIN: u32 = 3 << 8;

/// The loudest tracks of a room.
#[derive(Default)]
pub struct Stage {
    seats: Vec<(TrackKey, Instant)>,
    /// By track: whether it is among them.
    holds: Vec<bool>,
    /// The least score among them, when it was looked at last.
    quietest: u32,
    /// Kept for its memory.
    waiting: Vec<(u32, TrackKey)>,
}

impl Stage {
    /// Takes the present scores of all tracks and settles who is on stage: `size` tracks, or all when
    /// there are fewer. `scores` ascend by track.
    pub fn update(&mut self, now: Instant, size: usize, scores: &[(TrackKey, u32)]) {
        let position = |track| scores.binary_search_by_key(&track, |(key, _)| *key).ok();
        let score_of = |track| position(track).map(|at| scores[at].1);
        self.seats.retain(|(track, _)| score_of(*track).is_some());
        self.seats.truncate(size);
        self.mark();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        let others = scores.iter().filter(|(track, _)| !self.holds(*track));
        waiting.extend(others.map(|&(track, score)| (score, track)));
        // The loudest first; among equals who published first.
        waiting.sort_unstable_by_key(|&(score, track)| (std::cmp::Reverse(score), track));
        let mut challengers = waiting.iter().copied();
        while self.seats.len() < size
            && let Some((_, track)) = challengers.next()
        {
            self.seats.push((track, now));
        }
        for (challenge, track) in challengers {
            let quietest = self
                .seats
                .iter_mut()
                .filter(|(_, since)| now.duration_since(*since) >= HOLD_MIN)
                .min_by_key(|(track, _)| score_of(*track).unwrap_or(0));
            let Some(seat) = quietest else { break };
            if challenge <= score_of(seat.0).unwrap_or(0) + MARGIN {
                break;
            }
            *seat = (track, now);
        }
        self.waiting = waiting;
        self.quietest = self.tracks().filter_map(score_of).min().unwrap_or(0);
        self.mark();
    }

    fn mark(&mut self) {
        self.holds.clear();
        for (track, _) in &self.seats {
            if self.holds.len() <= *track {
                self.holds.resize(track + 1, false);
            }
            self.holds[*track] = true;
        }
    }

    /// Whether the track is on stage.
    pub fn holds(&self, track: TrackKey) -> bool {
        self.holds.get(track).is_some_and(|holds| *holds)
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Who is on stage.
    pub fn tracks(&self) -> impl Iterator<Item = TrackKey> {
        self.seats.iter().map(|(track, _)| *track)
    }

    /// Nobody is: every track has a slot of its own.
    pub fn clear(&mut self) {
        self.seats.clear();
        self.holds.clear();
    }

    /// The track is over.
    pub fn forget(&mut self, track: TrackKey) {
        self.seats.retain(|(key, _)| *key != track);
        self.mark();
    }
}

/// Seats who is on stage and has no seat: on a free seat, on that of somebody who is not on stage, or, for
/// the one more that the stage holds, on that of who is clearly quieter.
pub(super) fn reseat(
    now: Instant,
    key: ReceiverKey,
    receiver: &mut Receiver,
    stage: &Stage,
    tracks: &Slab<Track>,
    changes: &mut Vec<SlotChange>,
) {
    let seated = stage.tracks().filter(|track| receiver.seat_of(*track).is_some()).count();
    // Nearly always, as the stage holds one more than there are seats: a look at each seat of each of thousands would be
    // one into memory that no cache holds.
    let is_full = seated == receiver.seats().len();
    let score = |track: TrackKey| tracks.get(track).map_or(0, |track| track.loudness.score(now));
    for track in stage.tracks() {
        let is_own = tracks[track].publisher == Some(key);
        if is_own || receiver.seat_of(track).is_some() || receiver.refuses(track) {
            continue;
        }
        if is_full && score(track) <= stage.quietest + MARGIN {
            continue;
        }
        let seats = receiver.seats();
        let is_free = |seat: &Seat| !seat.is_closed && seat.source.is_none_or(|source| !stage.holds(source));
        let free = seats.iter().position(is_free);
        let quieter = || {
            let held = seats.iter().enumerate().filter(|(_, seat)| seat.is_held_long(now));
            let scores = held.filter_map(|(at, seat)| Some((score(seat.source?), at)));
            scores.min().filter(|(quietest, _)| score(track) > quietest + MARGIN).map(|(_, at)| at)
        };
        let Some(seat) = free.or_else(quieter) else { continue };
        receiver.assign(now, seat, Some(track));
        let slot = receiver.seats()[seat].slot.slot;
        changes.push(SlotChange { peer: receiver.peer, slot, track: Some(tracks[track].id) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_stage(stage: &Stage) -> Vec<TrackKey> {
        let mut tracks: Vec<_> = stage.tracks().collect();
        tracks.sort_unstable();
        tracks
    }

    #[test]
    fn the_loudest_hold_it_and_nobody_is_thrown_off_at_once() {
        let t0 = crate::time::Now::read().instant;
        let mut stage = Stage::default();
        stage.update(t0, 2, &[(0, 5_000), (1, 9_000), (2, 0)]);
        assert_eq!(on_stage(&stage), [0, 1]);
        let louder = [(0, 5_000), (1, 9_000), (2, 20_000)];
        stage.update(t0 + HOLD_MIN / 2, 2, &louder);
        assert_eq!(on_stage(&stage), [0, 1]);
        stage.update(t0 + HOLD_MIN, 2, &louder);
        assert_eq!(on_stage(&stage), [1, 2]);
        let hardly_louder = [(0, 9_000 + MARGIN), (1, 9_000), (2, 20_000)];
        stage.update(t0 + 3 * HOLD_MIN, 2, &hardly_louder);
        assert_eq!(on_stage(&stage), [1, 2]);
    }

    #[test]
    fn who_is_gone_makes_room() {
        let t0 = crate::time::Now::read().instant;
        let mut stage = Stage::default();
        stage.update(t0, 2, &[(0, 9), (1, 8), (2, 7)]);
        stage.update(t0, 2, &[(1, 8), (2, 7)]);
        assert_eq!(on_stage(&stage), [1, 2]);
        stage.forget(2);
        assert_eq!((on_stage(&stage), stage.holds(1), stage.holds(2)), (vec![1], true, false));
    }
}
