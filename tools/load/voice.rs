//! A member's voice: what it says when, as long as its microphone is open.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use str0m::media::Pt;
use str0m::rtp::{ExtensionValues, RtpWrite};

use super::alarm::Alarm;
use super::member::{House, Plan};
use super::opus::CLOCK_RATE;
use super::sent_times::SentTimes;
use super::speech::{Microphone, Speech};
use super::stamp::Stamp;
use super::support::now;
use super::voice_file::VoicePacket;

/// Between two packets of most voices.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);
/// A voice that is so late begins anew instead of catching up in a burst.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Begins somewhere, so that two runs in one room tell their speakers apart.
static NEXT_SENDER: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(RandomState::new().build_hasher().finish() as u32));

/// When in the packet interval a voice sends: those of a room evenly over it, the rooms a little apart.
pub(crate) fn phase(voice: u32, voices: u32, room: u32, rooms: u32) -> Duration {
    INTERVAL * voice / voices + INTERVAL * room / voices / rooms
}

/// Among its house's speakers for as long as the value lives.
pub(crate) struct Voice {
    speech: Speech,
    /// Its number in [`Stamp`]s.
    pub(crate) sender: u32,
    times: Arc<SentTimes>,
    house: Arc<House>,
    phase: Duration,
    next_at: Instant,
    alarm: Alarm,
    counter: u32,
    timestamp: u32,
    microphone: Microphone,
    microphone_until: Option<Instant>,
    /// It says no more.
    pub(crate) hushed: bool,
}

impl Voice {
    /// Speaks from `time` on.
    pub(crate) fn new(
        plan: &Plan,
        packets: &Arc<[VoicePacket]>,
        house: &Arc<House>,
        time: Instant,
    ) -> io::Result<Voice> {
        let alarm = Alarm::new()?;
        let sender = NEXT_SENDER.fetch_add(1, Ordering::Relaxed);
        Ok(Voice {
            speech: Speech::new(Arc::clone(packets), plan.with_pauses, plan.seed),
            sender,
            times: house.speakers.add(sender, plan.room_number),
            house: Arc::clone(house),
            phase: plan.phase,
            next_at: next_at(house.epoch, plan.phase, time),
            alarm,
            counter: 0,
            timestamp: sender.wrapping_mul(0x1234_5677),
            microphone: Microphone::Open,
            microphone_until: plan.mute.map(|_| time),
            hushed: false,
        })
    }

    /// When it has something to do next, if ever.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let speaks = !self.hushed && self.microphone == Microphone::Open;
        self.microphone_until.into_iter().chain(speaks.then_some(self.next_at)).min()
    }

    /// Until `at`, more exactly than the runtime does.
    pub(crate) async fn wait(&mut self, at: Instant) {
        self.alarm.wait(at).await;
    }

    /// Turns the microphone on or off where that is due; says whether it is muted if that has changed.
    pub(crate) fn turn_microphone(
        &mut self,
        plan: &Plan,
        connected_at: Instant,
        time: Instant,
    ) -> Option<bool> {
        let cycle = plan.mute?;
        self.microphone_until.filter(|&at| at <= time)?;
        // Members with different seeds are muted at different times.
        let period = (cycle.open + cycle.muted).as_millis().max(1) as u64;
        let phase = Duration::from_millis(plan.seed % period);
        let (microphone, until) = cycle.at(time - connected_at + phase);
        let was = std::mem::replace(&mut self.microphone, microphone);
        self.microphone_until = Some(connected_at + until - phase);
        self.next_at = self.next_at.max(time);
        let muted = microphone == Microphone::Muted;
        (muted != (was == Microphone::Muted)).then_some(muted)
    }

    /// A packet's turn has come.
    pub(crate) fn is_due(&mut self, time: Instant) -> bool {
        if self.hushed || self.microphone != Microphone::Open || self.next_at > time {
            return false;
        }
        let is_late = time - self.next_at > LATE_MAX;
        if is_late {
            self.next_at = next_at(self.house.epoch, self.phase, time);
        }
        !is_late
    }

    /// Its last packet leaves now, sealed.
    pub(crate) fn leaves(&self) {
        self.times.record(self.counter.wrapping_sub(1), self.house.nanos(now()));
    }

    /// What it says next, and when that was.
    pub(crate) fn next_packet(&mut self, pt: Pt) -> (RtpWrite, Instant) {
        let spoken = self.speech.next();
        let sent_at = now();
        let nanos = self.house.nanos(sent_at);
        let mut payload = spoken.payload.to_vec();
        Stamp { sender: self.sender, counter: self.counter, sent_at: nanos }.write_to(&mut payload);
        let ext_vals = ExtensionValues {
            audio_level: Some(-(spoken.level.cast_signed())),
            voice_activity: Some(spoken.level < 60),
            ..ExtensionValues::default()
        };
        // Sequence numbers begin below 2^15 (RFC 3711 §3.3.1), and count what the stamps count.
        let seq = 1_000 + u64::from(self.counter);
        let write = RtpWrite::new(pt, seq.into(), self.timestamp, sent_at, payload);
        let write = write.ext_vals(ext_vals).marker(spoken.marker);
        let ticks = spoken.ticks;
        self.times.record(self.counter, nanos);
        self.counter = self.counter.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.next_at += Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(CLOCK_RATE));
        (write, sent_at)
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.house.speakers.remove(self.sender);
    }
}

/// When a voice of this phase sends next.
fn next_at(epoch: Instant, phase: Duration, time: Instant) -> Instant {
    let passed = time.saturating_duration_since(epoch).saturating_sub(phase);
    epoch + phase + INTERVAL * passed.as_nanos().div_ceil(INTERVAL.as_nanos()) as u32
}
