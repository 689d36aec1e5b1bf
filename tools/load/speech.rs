//! What a member says and when: a row of packets, all the time or in spurts.

use std::sync::Arc;
use std::time::Duration;

use super::opus::{self, CLOCK_RATE};
use super::random::Random;
use super::stamp::STAMP_LEN;
use super::voice_file::VoicePacket;

/// A frame of silence in Opus (RFC 6716 §3.1: CELT, full band, 20 ms, mono), so that nobody hears noise.
const SILENCE: [u8; 3] = [0xF8, 0xFF, 0xFE];
/// Shortest payload that is made: silence, its padding's length and a stamp.
pub(crate) const SYNTHETIC_LEN_MIN: usize = 26;
/// Longest payload that is made.
pub(crate) const SYNTHETIC_LEN_MAX: usize = super::voice_file::PAYLOAD_LEN_MAX;

/// Means of ITU-T P.59: how long somebody talks and is silent in a conversation.
const SPURT_MEAN: Duration = Duration::from_millis(1_004);
const PAUSE_MEAN: Duration = Duration::from_millis(1_587);
const SPURT_MAX: Duration = Duration::from_secs(10);
/// In discontinuous transmission a packet every 400 ms keeps the line warm (RFC 6716 §2.1.9).
const COMFORT_EVERY: u32 = CLOCK_RATE * 400 / 1000;

/// Level of voice, and of what is sent in pauses, in −dBov (RFC 6464).
const VOICE_LEVEL: u8 = 20;
const COMFORT_LEVEL: u8 = 90;

/// The made-up voice: one packet of 20 ms with a payload of this length.
pub(crate) fn synthetic(payload_len: usize) -> Vec<VoicePacket> {
    let len = payload_len.clamp(SYNTHETIC_LEN_MIN, SYNTHETIC_LEN_MAX);
    let with_room = |room| opus::padded(&SILENCE, room).unwrap_or_default();
    // Long padding takes more bytes to say its length.
    let room = (STAMP_LEN..=len).rev().find(|&room| with_room(room).len() <= len).unwrap_or(STAMP_LEN);
    vec![VoicePacket { payload: with_room(room), ticks: 960 }]
}

/// The next thing said.
pub(crate) struct Spoken<'a> {
    pub(crate) payload: &'a [u8],
    /// Until the next one, in units of 1/48000 s.
    pub(crate) ticks: u32,
    /// In −dBov.
    pub(crate) level: u8,
    /// A spurt begins (RFC 3551 §4.1).
    pub(crate) marker: bool,
}

/// Where a voice begins among its packets: else all would say the same at the same time, in packets of one length.
pub(crate) fn first_packet(seed: u64, len: usize) -> usize {
    (Random::new(seed).next() % len.max(1) as u64) as usize
}

/// A voice that goes on and on.
pub(crate) struct Speech {
    packets: Arc<[VoicePacket]>,
    at: usize,
    /// With pauses.
    spurts: Option<Spurts>,
    begins: bool,
}

struct Spurts {
    random: Random,
    talking: bool,
    ticks_left: u32,
}

impl Speech {
    /// `packets` are one at least. Voices with pauses and different seeds pause at different times.
    pub(crate) fn new(packets: Arc<[VoicePacket]>, with_pauses: bool, seed: u64) -> Speech {
        let spurts = with_pauses.then(|| Spurts { random: Random::new(seed), talking: false, ticks_left: 0 });
        let at = first_packet(seed, packets.len());
        Speech { packets, at, spurts, begins: true }
    }

    pub(crate) fn next(&mut self) -> Spoken<'_> {
        let packet = &self.packets[self.at % self.packets.len()];
        let mut marker = std::mem::take(&mut self.begins);
        let (mut ticks, mut level) = (packet.ticks, VOICE_LEVEL);
        if let Some(spurts) = &mut self.spurts {
            if spurts.ticks_left == 0 {
                spurts.talking = !spurts.talking;
                marker |= spurts.talking;
                let mean = if spurts.talking { SPURT_MEAN } else { PAUSE_MEAN };
                spurts.ticks_left =
                    spurts.random.exponential(mean, SPURT_MAX).as_millis() as u32 * (CLOCK_RATE / 1000);
            }
            if !spurts.talking {
                (ticks, level) = (COMFORT_EVERY, COMFORT_LEVEL);
            }
            ticks = ticks.min(spurts.ticks_left.max(packet.ticks)).next_multiple_of(packet.ticks);
            spurts.ticks_left = spurts.ticks_left.saturating_sub(ticks);
        }
        if level == VOICE_LEVEL {
            self.at = (self.at + 1) % self.packets.len();
        }
        Spoken { payload: &packet.payload, ticks, level, marker }
    }
}

/// Talks for so long, then is muted for so long, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MuteCycle {
    pub(crate) open: Duration,
    pub(crate) muted: Duration,
}

/// Where a [`MuteCycle`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Microphone {
    Open,
    /// Silent, so that nothing is on its way when the mute begins, and nothing sent before it is over.
    Hushed,
    Muted,
}

impl MuteCycle {
    const MARGIN: Duration = Duration::from_millis(200);

    /// Where it stands after this time, and when that changes next.
    pub(crate) fn at(self, elapsed: Duration) -> (Microphone, Duration) {
        let period = self.open + self.muted;
        let begun = period * (elapsed.as_nanos() / period.as_nanos().max(1)) as u32;
        let steps = [
            (Microphone::Hushed, Self::MARGIN),
            (Microphone::Open, self.open - Self::MARGIN),
            (Microphone::Hushed, self.open),
            (Microphone::Muted, period),
        ];
        let into = elapsed.saturating_sub(begun);
        let step = steps.into_iter().find(|&(_, ends)| into < ends).unwrap_or((Microphone::Muted, period));
        (step.0, begun + step.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    #[test]
    fn the_made_up_voice_has_the_length_asked_for() {
        for len in [SYNTHETIC_LEN_MIN, 120, 258, 259, 260, 600, SYNTHETIC_LEN_MAX] {
            let [packet] = &synthetic(len)[..] else { panic!("one packet") };
            assert!(packet.payload.len().abs_diff(len) <= 1, "{} for {len}", packet.payload.len());
            assert_eq!(opus::ticks(&packet.payload), Ok(960));
            let mut payload = packet.payload.clone();
            Stamp { sender: 1, counter: 2, sent_at: 3 }.write_to(&mut payload);
            // After TOC, frame count and the one or more bytes of the padding's length.
            let (_, after) = opus::padding_len(&payload[2..]).unwrap();
            assert_eq!(after[..2], [0xFF, 0xFE], "the frame of silence");
        }
    }

    #[test]
    fn without_pauses_it_goes_round() {
        let packet = |byte, ticks| VoicePacket { payload: vec![byte], ticks };
        let seed = (0..).find(|&seed| first_packet(seed, 2) == 0).expect("one of two");
        let mut speech = Speech::new([packet(1, 960), packet(2, 480)].into(), false, seed);
        let said: Vec<_> = (0..4)
            .map(|_| {
                let spoken = speech.next();
                (spoken.payload[0], spoken.ticks, spoken.marker)
            })
            .collect();
        assert_eq!(said, [(1, 960, true), (2, 480, false), (1, 960, false), (2, 480, false)]);
    }

    #[test]
    fn no_two_voices_say_the_same_at_the_same_time() {
        let mut begins: Vec<usize> = (1..=8).map(|seed| first_packet(seed, 1_500)).collect();
        begins.sort_unstable();
        assert!(begins.windows(2).all(|pair| pair[1] - pair[0] > 1) && begins[7] < 1_500, "{begins:?}");
        assert_eq!(first_packet(7, 1), 0);
    }

    #[test]
    fn spurts_and_pauses_are_those_of_a_conversation() {
        let mut speech = Speech::new(synthetic(120).into(), true, 7);
        let (mut talked, mut total, mut spurts) = (0_u64, 0_u64, 0);
        while total < 3_600 * 48_000 {
            let spoken = speech.next();
            assert!(spoken.ticks > 0 && spoken.ticks.is_multiple_of(960) && spoken.ticks <= COMFORT_EVERY);
            talked += u64::from(spoken.ticks) * u64::from(spoken.level == VOICE_LEVEL);
            total += u64::from(spoken.ticks);
            spurts += u64::from(spoken.marker);
        }
        let share = talked as f64 / total as f64;
        assert!((0.34..0.44).contains(&share), "{share}");
        assert!((1_150..1_650).contains(&spurts), "{spurts} in an hour");
    }

    #[test]
    fn a_mute_is_padded_with_silence() {
        let ms = Duration::from_millis;
        let cycle = MuteCycle { open: ms(2_000), muted: ms(1_000) };
        for (at, microphone, until) in [
            (0, Microphone::Hushed, 200),
            (200, Microphone::Open, 1_800),
            (1_799, Microphone::Open, 1_800),
            (1_800, Microphone::Hushed, 2_000),
            (2_000, Microphone::Muted, 3_000),
            (3_000, Microphone::Hushed, 3_200),
            (8_500, Microphone::Muted, 9_000),
        ] {
            assert_eq!(cycle.at(ms(at)), (microphone, ms(until)), "at {at} ms");
        }
    }
}
