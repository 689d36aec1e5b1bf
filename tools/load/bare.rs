//! Members without a protocol, for the bare fan-out: what they send and count is what light members of a server send
//! and count, datagram for datagram, so that both can be put side by side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use gryt_sfu::time::Now;

use super::fan_out::{REGISTER, ROOM_AT, address};
use super::outcome::{Latency, Outcome, Packets, Second, Setting};
use super::process::{Usage, come_first, cpu_time, raise_descriptors, this_thread};
use super::settling::Settling;
use super::speech::first_packet;
use super::tally::Counts;
use super::udp::{BATCH_LEN, Batch, Clocks, Port};
use super::voice::{INTERVAL, phase};
use super::voice_file::VoicePacket;

/// What RTP and SRTP add to a payload of ours: header, extensions, tag of AES-GCM.
const OVERHEAD: usize = 12 + 16 + 16;
/// What the kernel keeps from the deaf begins so.
const RTP_VERSION: u8 = 2 << 6;
/// Before the speaker's number, its packet's, and the time at which it was sent.
const SPEAKER_AT: usize = ROOM_AT + 2;
const COUNTER_AT: usize = SPEAKER_AT + 4;
const TIME_AT: usize = COUNTER_AT + 4;
const END_AT: usize = TIME_AT + 8;
/// As often as a light member does.
const DRAIN_EVERY: Duration = Duration::from_millis(50);
/// Parts in which all are drained: light members do it each at its own time.
const DRAIN_PARTS: u32 = 50;
/// Before the first second that counts.
const WARM_UP: Duration = Duration::from_secs(1);
const MEMBER_COUNT_MAX: u64 = 20_000;

/// Members of a bare fan-out.
#[derive(Args)]
pub(crate) struct Settings {
    /// Where it is: what it printed at its start
    #[arg(value_name = "ADDRESS", value_parser = address)]
    target: std::net::SocketAddrV4,
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    rooms: u16,
    #[arg(long, default_value_t = 4, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    speakers: u32,
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    listeners: u32,
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Of so many listeners one hears: the kernel keeps voices from the others
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    hear_every: u32,
    /// Speakers are sent nothing
    #[arg(long)]
    deaf_speakers: bool,
    /// Speakers' thread runs whenever it can
    #[arg(long)]
    realtime: bool,
    /// Its process
    #[arg(long, value_name = "PID")]
    pid: u32,
    #[command(flatten)]
    pub(crate) voice: super::arguments::Voice,
    /// Writes the results as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: std::path::PathBuf,
}

impl Settings {
    fn members(&self) -> u64 {
        u64::from(self.rooms) * u64::from(self.listeners + self.speakers)
    }

    fn in_words(&self) -> Setting {
        Setting {
            url: self.target.to_string(),
            rooms: self.rooms.into(),
            speakers: self.speakers,
            listeners: self.listeners,
            seconds: self.seconds,
            light: true,
            hear_every: self.hear_every,
            deaf_speakers: self.deaf_speakers,
            ..Setting::default()
        }
    }
}

struct Speaker {
    port: Port,
    room: u16,
    number: u32,
    phase: Duration,
}

/// Speaks and listens.
pub(crate) fn run(settings: &Settings, packets: &[VoicePacket]) -> Result<Outcome> {
    let members = settings.members();
    ensure!(members <= MEMBER_COUNT_MAX, "{members} members: up to {MEMBER_COUNT_MAX} have a port");
    raise_descriptors(members)?;
    // A port needs a runtime to be born in; asleep, as all are here, it needs none.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let target = SocketAddr::V4(settings.target);
    let own = super::udp::local_ip(target)?;
    let open = || -> Result<Port> {
        let mut port = Port::bind(own)?;
        port.sleep()?;
        Ok(port)
    };
    let register = |room: u16| -> Result<Port> {
        let port = open()?;
        let [high, low] = room.to_be_bytes();
        port.send(&[REGISTER, high, low], target);
        Ok(port)
    };
    let (mut listeners, mut deaf) = (Vec::new(), Vec::new());
    for i in 0..u32::from(settings.rooms) * settings.listeners {
        let port = register((i / settings.listeners) as u16)?;
        if (i % settings.listeners).is_multiple_of(settings.hear_every) {
            listeners.push(port);
        } else {
            port.deafen()?;
            deaf.push(port);
        }
    }
    let count = u32::from(settings.rooms) * settings.speakers;
    let mut speakers = Vec::new();
    for number in 0..count {
        let (room, turn) = (number / settings.speakers, number % settings.speakers);
        speakers.push(Speaker {
            port: if settings.deaf_speakers { open()? } else { register(room as u16)? },
            room: room as u16,
            number,
            phase: phase(turn, settings.speakers, room, settings.rooms.into()),
        });
    }
    speakers.sort_by_key(|speaker| speaker.phase);
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let (speakers, sent, is_over) = (&speakers[..], &sent, &is_over);
        let speak = move || {
            let thread = come_first(settings.realtime).and_then(|()| this_thread()); // As speakers of a server do.
            let is_ready = thread.is_ok();
            let _ = tell.send(thread); // The other end waits for it.
            if is_ready {
                speak(speakers, packets, target, sent, is_over);
            }
        };
        std::thread::Builder::new().name("speakers".into()).spawn_scoped(scope, speak)?;
        let outcome = told.recv().context("the thread runs").and_then(|theirs| {
            let threads = [this_thread()?, theirs?];
            listen(settings, &listeners, speakers, &threads, sent, is_over)
        });
        // Whatever came of it: the thread is waited for.
        is_over.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Each speaker's packets, when they are due.
fn speak(
    speakers: &[Speaker],
    packets: &[VoicePacket],
    target: SocketAddr,
    sent: &AtomicU64,
    is_over: &AtomicBool,
) {
    let started = Now::read().instant;
    for counter in 0.. {
        for speaker in speakers {
            let at = started + INTERVAL * counter + speaker.phase;
            std::thread::sleep(at.saturating_duration_since(Now::read().instant));
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let begins = first_packet(speaker.number.into(), packets.len());
            let packet = &packets[(begins + counter as usize) % packets.len()];
            speaker.say(counter, target, packet.payload.len());
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts what comes, and what it costs the process.
fn listen(
    settings: &Settings,
    listeners: &[Port],
    speakers: &[Speaker],
    threads: &[String],
    sent: &AtomicU64,
    is_over: &AtomicBool,
) -> Result<Outcome> {
    let mut hearing = Hearing { batch: Batch::new(), counts: Counts::default(), dropped: HashMap::new() };
    // Without the time before the first second that counts, and with it: delays, and what was lost.
    let (mut total, mut received) = (Counts::default(), 0);
    let mut outcome = Outcome { setting: settings.in_words(), ..Outcome::default() };
    let started = Now::read().instant;
    let (mut drained_at, mut part) = (started, 0);
    let mut second_at = started + WARM_UP;
    let ends = second_at + Duration::from_secs(settings.seconds.into());
    let (mut usage, mut last) = (None, started);
    let own = || threads.iter().map(|folder| cpu_time(folder)).sum::<Result<Duration>>();
    let mut own_before = own()?;
    loop {
        let now = Now::read().instant;
        if now >= second_at {
            let after = Usage::of(settings.pid)?;
            let own_after = own()?;
            let own_spent = own_after.saturating_sub(std::mem::replace(&mut own_before, own_after));
            received += hearing.counts.received;
            let passed = now.duration_since(last).as_secs_f64();
            if let Some(before) = usage.replace(after) {
                let spent: Duration = after.cpu.saturating_sub(before.cpu);
                outcome.seconds.push(Second {
                    at: now.duration_since(started).as_secs_f64(),
                    connected: settings.members(),
                    received_per_second: hearing.counts.received as f64 / passed,
                    latency_ms: Latency::of(&hearing.counts.latency),
                    latency_counts: hearing.counts.latency.counts(),
                    server_cpu_percent: Some(100.0 * spent.as_secs_f64() / passed),
                    own_cpu_percent: 100.0 * own_spent.as_secs_f64() / passed,
                    ..Second::default()
                });
                total.absorb(&mut hearing.counts);
            } else {
                hearing.counts = Counts::default();
            }
            (last, second_at) = (now, now + Duration::from_secs(1));
            if now >= ends {
                break;
            }
        }
        if drained_at <= now {
            part_of(listeners, part).iter().for_each(|port| hearing.drain(port));
            part_of(speakers, part).iter().for_each(|speaker| hearing.drain(&speaker.port));
            part = (part + 1) % DRAIN_PARTS as usize;
            drained_at = (drained_at + DRAIN_EVERY / DRAIN_PARTS).max(now);
        }
        let next = drained_at.min(second_at);
        std::thread::sleep(next.saturating_duration_since(Now::read().instant));
    }
    is_over.store(true, Ordering::Relaxed);
    hearing.counts = Counts::default();
    let mut settling = Settling::new(Now::read().instant, 0);
    while !settling.is_over(Now::read().instant, hearing.counts.received) {
        std::thread::sleep(Settling::STEP);
        listeners.iter().for_each(|port| hearing.drain(port));
        speakers.iter().for_each(|speaker| hearing.drain(&speaker.port));
    }
    received += hearing.counts.received;
    let others = if settings.deaf_speakers { 0 } else { settings.speakers - 1 };
    let hearing_each = settings.listeners.div_ceil(settings.hear_every) + others;
    let sent = sent.load(Ordering::Relaxed);
    let expected = sent * u64::from(hearing_each);
    let missing = expected.saturating_sub(received);
    outcome.duration_seconds = last.duration_since(started).as_secs_f64();
    outcome.packets = Packets {
        sent,
        received,
        missing,
        loss_percent: 100.0 * missing as f64 / expected.max(1) as f64,
        ..Packets::default()
    };
    outcome.own.overflowed = hearing.dropped.values().map(|count| u64::from(*count)).sum();
    outcome.latency_ms = Latency::of(&total.latency);
    Ok(outcome)
}

/// Of those who are drained, the ones whose turn it is.
fn part_of<T>(all: &[T], part: usize) -> &[T] {
    all.chunks(all.len().div_ceil(DRAIN_PARTS as usize)).nth(part).unwrap_or_default()
}

impl Speaker {
    fn say(&self, counter: u32, target: SocketAddr, payload_len: usize) {
        let mut datagram = [0; 1_500];
        datagram[0] = RTP_VERSION;
        let len = (payload_len + OVERHEAD).clamp(END_AT, 1_500);
        datagram[ROOM_AT..SPEAKER_AT].copy_from_slice(&self.room.to_be_bytes());
        datagram[SPEAKER_AT..COUNTER_AT].copy_from_slice(&self.number.to_be_bytes());
        datagram[COUNTER_AT..TIME_AT].copy_from_slice(&counter.to_be_bytes());
        datagram[TIME_AT..END_AT].copy_from_slice(&Clocks::read().wall().to_be_bytes());
        self.port.send(&datagram[..len], target);
    }
}

struct Hearing {
    batch: Batch,
    counts: Counts,
    /// By the sockets that lost some for want of room: how many, ever.
    dropped: HashMap<RawFd, u32>,
}

impl Hearing {
    fn drain(&mut self, port: &Port) {
        loop {
            let count = port.receive(&mut self.batch);
            for i in 0..count {
                let Some(datagram) = self.batch.datagram(i) else { continue };
                self.counts.received += 1;
                if let Some(dropped) = datagram.dropped {
                    self.dropped.insert(port.number(), dropped);
                }
                let sent_at = datagram.bytes.get(TIME_AT..END_AT).and_then(|bytes| bytes.first_chunk());
                let Some((arrived_at, sent_at)) = datagram.arrived_at.zip(sent_at) else { continue };
                let latency = arrived_at.saturating_sub(u64::from_be_bytes(*sent_at));
                self.counts.latency.record(latency / 1_000);
            }
            if count < BATCH_LEN {
                return;
            }
        }
    }
}
