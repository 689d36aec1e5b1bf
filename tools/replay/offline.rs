//! RTP of a capture through the worker core, as fast as it goes: production code with everything but the kernel
//! and the opening of ciphertext, which a capture without keys cannot have.
//!
//! Each stream of the capture becomes a publisher, each receiver has a slot for each of the first 32; beyond that the
//! room decides as it does in a call. Time is the capture's, so that what a call would drop (replays, floods) is
//! dropped here, the same at every run.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use gryt_sfu::demux::Protocol;
use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ids::{Mid, PayloadType, TrackId};
use gryt_sfu::packet::{DATAGRAM_LEN_MAX, Datagram, DropReason, Egress, Path};
use gryt_sfu::rtp::extension::ExtensionIds;
use gryt_sfu::rtp::header::Header;
use gryt_sfu::time::Now;
use gryt_sfu::worker::command::{Command, PublishedStream};

use super::sim::{Caller, Sim};
use super::streams::{Filter, StreamKey};

/// Slots of a receiver: the server's default.
const SLOTS: u16 = 32;
/// Publishers of one replay; packets of further streams are counted.
const PUBLISHER_COUNT_MAX: usize = 1_024;
/// Packets to a batch: what a worker under load finds at one wake-up.
const BATCH_COUNT: usize = 64;
/// Browsers check every 2.5 s that they still want to hear.
const CONSENT_INTERVAL: Duration = Duration::from_millis(2_500);

/// How to replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Listeners, 1 to 10,000.
    pub(crate) receivers: u16,
    /// Seal each packet for each receiver (AEAD_AES_128_GCM), or leave it as it is.
    pub(crate) is_sealed: bool,
    /// Id of the audio level extension in the capture.
    pub(crate) audio_level_id: u8,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) publishers: usize,
    pub(crate) packets: u64,
    pub(crate) forwarded: u64,
    pub(crate) bytes_out: u64,
    /// Packets of streams beyond those that are replayed.
    pub(crate) beyond_limit: u64,
    pub(crate) drops: Vec<(&'static str, u64)>,
    /// Of all that left: equal for equal output.
    pub(crate) digest: u64,
}

/// A replay under way.
pub(crate) struct Replay {
    settings: Settings,
    sim: Sim,
    begun: Now,
    first: Option<Duration>,
    callers: Vec<Caller>,
    publishers: HashMap<StreamKey, Path>,
    batch: Vec<(Now, Path, Range<usize>)>,
    bytes: Vec<u8>,
    sink: Sink,
    consent_at: Now,
    packets: u64,
    beyond_limit: u64,
    /// CPU time spent in the core.
    pub(crate) elapsed: Duration,
}

/// Takes what leaves and keeps a digest of it.
struct Sink {
    slot: [u8; DATAGRAM_LEN_MAX],
    count: u64,
    bytes: u64,
    digest: u64,
}

impl Egress for Sink {
    fn cuts_segments(&self, _path: Path) -> bool {
        false
    }

    fn open(&mut self, path: Path) {
        self.mix(u64::from(path.remote.port()));
    }

    fn segment(&mut self, len_max: usize) -> &mut [u8] {
        &mut self.slot[..len_max]
    }

    fn commit(&mut self, len: usize) {
        self.count += 1;
        self.bytes += len as u64;
        // The header and the length tell what was sent; the payload is whoever's it was.
        for at in [0, 4] {
            let mut word = [0; 8];
            word.copy_from_slice(&self.slot[at..at + 8]);
            self.mix(u64::from_be_bytes(word));
        }
        self.mix(len as u64);
    }

    fn close(&mut self) {}
}

impl Sink {
    fn mix(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }
}

impl Replay {
    /// A room with its receivers.
    pub(crate) fn new(settings: Settings) -> Replay {
        let mut sim = Sim::new(SLOTS);
        let callers = (1..=settings.receivers)
            .map(|number| {
                let caller = sim.join(number, SrtpProfile::AeadAes128Gcm);
                let is_plaintext = !settings.is_sealed;
                sim.worker.leave_plaintext(caller.transport, is_plaintext);
                sim.sent.clear();
                caller
            })
            .collect();
        let now = sim.now;
        Replay {
            settings,
            sim,
            begun: now,
            first: None,
            callers,
            publishers: HashMap::new(),
            batch: Vec::with_capacity(BATCH_COUNT),
            bytes: Vec::new(),
            sink: Sink { slot: [0; DATAGRAM_LEN_MAX], count: 0, bytes: 0, digest: 0xCBF2_9CE4_8422_2325 },
            consent_at: now,
            packets: 0,
            beyond_limit: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Takes a UDP payload; what is no RTP is passed over.
    pub(crate) fn take(
        &mut self,
        time: Duration,
        (source, destination): (SocketAddr, SocketAddr),
        payload: &[u8],
        filter: &Filter,
    ) {
        if Protocol::of(payload) != Ok(Protocol::Rtp)
            || payload.len() > DATAGRAM_LEN_MAX
            || !filter.takes_path(source, destination)
        {
            return;
        }
        let Ok(header) = Header::parse(payload) else { return };
        if !filter.takes_stream(&header) {
            return;
        }
        let key = StreamKey { source, destination, ssrc: header.ssrc };
        let path = match self.publishers.get(&key) {
            Some(path) => *path,
            None if self.publishers.len() == PUBLISHER_COUNT_MAX => {
                self.beyond_limit += 1;
                return;
            }
            None => self.add_publisher(key, header.payload_type),
        };
        let since = time.saturating_sub(*self.first.get_or_insert(time));
        let now = self.begun.after(since.min(Duration::from_secs(86_400 * 365)));
        // A capture's clock may step back; the worker's never does.
        if now.instant > self.sim.now.instant {
            self.sim.now = now;
        }
        if self.sim.now.instant >= self.consent_at.instant {
            self.run();
            self.consent();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.batch.push((self.sim.now, path, start..self.bytes.len()));
        if self.batch.len() == BATCH_COUNT {
            self.run();
        }
    }

    fn add_publisher(&mut self, key: StreamKey, payload_type: PayloadType) -> Path {
        self.run();
        let place = self.publishers.len() as u16;
        let number = self.settings.receivers + 1 + place;
        let caller = self.sim.join(number, SrtpProfile::AeadAes128Gcm);
        self.sim.worker.leave_plaintext(caller.transport, !self.settings.is_sealed);
        let track = TrackId(number.into());
        let stream = PublishedStream {
            mid: Mid::parse("0").unwrap_or_else(|| unreachable!("a digit is a token")),
            is_only: true,
            ssrcs: vec![key.ssrc],
            payload_type,
            extensions: ExtensionIds {
                audio_level: Some(self.settings.audio_level_id),
                ..ExtensionIds::default()
            },
        };
        self.sim.command(Command::Publish {
            transport: caller.transport,
            track,
            stream: Box::new(stream),
            muted: false,
        });
        if place < SLOTS {
            for listener in &self.callers[..usize::from(self.settings.receivers)] {
                self.sim.add_slot(listener, place, Some(track));
            }
        }
        self.sim.sent.clear();
        let path = caller.path;
        self.publishers.insert(key, path);
        self.callers.push(caller);
        path
    }

    fn consent(&mut self) {
        self.consent_at = self.sim.now.after(CONSENT_INTERVAL);
        for caller in &self.callers {
            self.sim.consent(caller);
        }
        self.sim.sent.clear();
    }

    /// The batch, through the core and timed.
    fn run(&mut self) {
        let worker = &mut self.sim.worker;
        let began = cpu_time();
        for (now, path, range) in &self.batch {
            let bytes = &mut self.bytes[range.clone()];
            worker.handle_datagram(*now, Datagram { path: *path, arrived: None, bytes }, &mut self.sink);
        }
        worker.flush(self.sim.now, &mut self.sink);
        if self.sim.now.instant >= worker.next_timeout() {
            worker.handle_timeout(self.sim.now, &mut self.sink);
        }
        self.elapsed += cpu_time().saturating_sub(began);
        worker.take_events().for_each(drop);
        self.packets += self.batch.len() as u64;
        self.batch.clear();
        self.bytes.clear();
    }

    /// The last batch, and what came of it all.
    pub(crate) fn finish(&mut self) -> Outcome {
        self.run();
        let counters = &self.sim.worker.counters;
        let drops = DropReason::ALL.iter().map(|&reason| (reason.label(), counters.drops(reason)));
        Outcome {
            publishers: self.publishers.len(),
            packets: self.packets,
            forwarded: counters.rtp_out,
            bytes_out: self.sink.bytes,
            beyond_limit: self.beyond_limit,
            drops: drops.filter(|(_, count)| *count > 0).collect(),
            digest: self.sink.digest,
        }
    }
}

/// What this thread has had of a CPU so far. Others' turns do not count: a figure for one core holds on a busy machine.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours, and valid for the length of the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Says what came of `repeats` equal replays.
pub(crate) fn print(
    outcome: &Outcome,
    settings: &Settings,
    repeats: u32,
    elapsed: Duration,
    out: &mut impl Write,
) -> io::Result<()> {
    let packets = outcome.packets * u64::from(repeats);
    let forwarded = outcome.forwarded * u64::from(repeats);
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let kind = if settings.is_sealed { "sealed" } else { "plaintext" };
    writeln!(
        out,
        "{packets} packets of {} streams to {} receivers each, {kind} egress, in {seconds:.3} s of one core",
        outcome.publishers, settings.receivers
    )?;
    if packets > 0 {
        let each = seconds * 1e9 / packets as f64;
        write!(out, "{:.0} packets/s, {each:.0} ns a packet", packets as f64 / seconds)?;
        if forwarded > 0 {
            write!(out, ", {:.0} ns a forwarded packet", seconds * 1e9 / forwarded as f64)?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "{} forwarded, {} bytes, digest {:016x}",
        outcome.forwarded, outcome.bytes_out, outcome.digest
    )?;
    if outcome.beyond_limit > 0 {
        writeln!(out, "{} packets of streams beyond the first {PUBLISHER_COUNT_MAX}", outcome.beyond_limit)?;
    }
    if outcome.drops.is_empty() {
        return writeln!(out, "nothing dropped");
    }
    let drops: Vec<_> = outcome.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(out, "dropped: {}", drops.join(", "))
}
